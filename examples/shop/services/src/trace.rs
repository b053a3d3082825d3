//! Trace context: what came in with a request goes out with the requests it causes.

use http::{HeaderMap, HeaderName, HeaderValue};

/// W3C Trace Context, baggage, and the names other meshes use.
const CARRIED: &[&str] = &["traceparent", "tracestate", "baggage", "x-request-id", "b3"];

/// The headers to pass on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Trace {
    /// From a request; without a `traceparent` a new trace begins.
    pub(crate) fn of_request(headers: &HeaderMap, random: [u64; 3]) -> Self {
        let mut carried = Vec::new();
        for name in CARRIED {
            if let Some(value) = headers.get(*name) {
                carried.push((HeaderName::from_static(name), value.clone()));
            }
        }
        if !headers.contains_key("traceparent") {
            // An id of zeros is invalid.
            let [high, low, span] = random.map(|number| number | 1);
            let parent = format!("00-{high:016x}{low:016x}-{span:016x}-01");
            if let Ok(value) = HeaderValue::from_str(&parent) {
                carried.push((HeaderName::from_static("traceparent"), value));
            }
        }
        Self { headers: carried }
    }

    /// Adds them to a request.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.headers {
            headers.insert(name.clone(), value.clone());
        }
    }

    /// The trace id, for logs.
    pub(crate) fn id(&self) -> &str {
        let parent = self.headers.iter().find(|(name, _)| name == "traceparent");
        parent
            .and_then(|(_, value)| value.to_str().ok())
            .and_then(|value| value.split('-').nth(1))
            .unwrap_or("")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_passed_on_or_begun() {
        let mut incoming = HeaderMap::new();
        let begun = Trace::of_request(&incoming, [0, 2, 3]);
        assert_eq!(begun.id(), "00000000000000010000000000000003");
        let parent =
            HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        incoming.insert("traceparent", parent.clone());
        incoming.insert("authorization", HeaderValue::from_static("secret"));
        let trace = Trace::of_request(&incoming, [1, 2, 3]);
        let mut outgoing = HeaderMap::new();
        trace.apply(&mut outgoing);
        assert_eq!(outgoing.get("traceparent"), Some(&parent));
        assert_eq!(outgoing.len(), 1);
        assert_eq!(trace.id(), "0af7651916cd43dd8448eb211c80319c");
    }
}
