//! Traces: the context that requests carry, and which requests are traced.
//!
//! The context is read and written in the forms of [W3C](https://www.w3.org/TR/trace-context/) and
//! [B3](https://github.com/openzipkin/b3-propagation); an endpoint gets W3C's, and B3's where the caller spoke it.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
const B3: HeaderName = HeaderName::from_static("b3");
const B3_TRACE: HeaderName = HeaderName::from_static("x-b3-traceid");
const B3_SPAN: HeaderName = HeaderName::from_static("x-b3-spanid");
const B3_PARENT: HeaderName = HeaderName::from_static("x-b3-parentspanid");
const B3_SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
const B3_FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// How requests are traced.
#[derive(Debug, Clone, PartialEq)]
pub struct Tracing {
    /// The cluster of the collector.
    pub cluster: Arc<str>,
    /// How it is spoken to.
    pub transport: Transport,
    /// The service that spans are of.
    pub service: String,
    /// How many in a million are traced that nobody decided of.
    pub random: u32,
    /// How many in a million are traced of those that ask for it (`x-client-trace-id`).
    pub client: u32,
    /// How many in a million are traced at most, of those that this proxy decides of.
    pub overall: u32,
    /// Whether spans are of a client, since the caller is the workload itself.
    pub is_client: bool,
    /// Whether what is sent to an endpoint has a span of its own.
    pub upstream_span: bool,
    /// What each span says besides.
    pub tags: Vec<(String, Tag)>,
}

/// How a collector is spoken to: OTLP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// gRPC.
    Grpc,
    /// HTTP, to this path.
    Http {
        /// The host that is asked.
        authority: String,
        /// The path.
        path: String,
    },
}

/// The value of a tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tag {
    /// Always this.
    Literal(String),
    /// A header of the request.
    Header {
        /// Its name.
        name: HeaderName,
        /// What stands there when it has none; nothing: no tag.
        default: Option<String>,
    },
}

/// Which form of B3 a caller spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum B3Form {
    /// None.
    #[default]
    None,
    /// One header.
    Single,
    /// A header for each part.
    Multi,
}

/// The trace a request belongs to, and the span that it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    /// The trace; never zero.
    pub trace: u128,
    /// The span; never zero.
    pub span: u64,
    /// Whether it is traced; nothing where nobody decided.
    pub is_sampled: Option<bool>,
    /// The form of B3 that the caller spoke.
    pub b3: B3Form,
}

impl Context {
    /// The context of a request; nothing where it has none, or none that is valid.
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Option<Self> {
        let one = |name: &HeaderName| {
            let mut values = headers.get_all(name).iter();
            let value = values.next()?.to_str().ok()?;
            values.next().is_none().then_some(value)
        };
        if let Some(own) = one(&TRACEPARENT).and_then(traceparent) {
            return Some(own);
        }
        if let Some(own) = one(&B3).and_then(b3_single) {
            return Some(own);
        }
        let sampled = match (one(&B3_FLAGS), one(&B3_SAMPLED)) {
            (Some("1"), _) | (_, Some("1" | "true")) => Some(true),
            (_, Some("0" | "false")) => Some(false),
            _ => None,
        };
        Some(Self {
            trace: hex_trace(one(&B3_TRACE)?)?,
            span: hex_span(one(&B3_SPAN)?)?,
            is_sampled: sampled,
            b3: B3Form::Multi,
        })
    }

    /// Writes it, in place of what was there.
    pub fn write(&self, headers: &mut HeaderMap) {
        let Self { trace, span, .. } = *self;
        let sampled = u8::from(self.is_sampled == Some(true));
        // A state belongs to the context that it came with.
        if self.b3 != B3Form::None || !headers.contains_key(&TRACEPARENT) {
            headers.remove(&TRACESTATE);
        }
        set(
            headers,
            TRACEPARENT,
            &format!("00-{trace:032x}-{span:016x}-{sampled:02x}"),
        );
        match self.b3 {
            B3Form::None => {}
            B3Form::Single => set(headers, B3, &format!("{trace:032x}-{span:016x}-{sampled}")),
            B3Form::Multi => {
                set(headers, B3_TRACE, &format!("{trace:032x}"));
                if let Some(parent) = headers.remove(&B3_SPAN) {
                    headers.insert(B3_PARENT, parent);
                }
                set(headers, B3_SPAN, &format!("{span:016x}"));
                set(headers, B3_SAMPLED, &sampled.to_string());
                headers.remove(&B3_FLAGS);
            }
        }
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// `00-<trace>-<span>-<flags>`; later versions may have more behind.
fn traceparent(value: &str) -> Option<Context> {
    let mut parts = value.trim().split('-');
    let (version, trace, span, flags) =
        (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let number = lower_hex(version, 2)?;
    if number == 0xff || (number == 0 && parts.next().is_some()) {
        return None;
    }
    let trace = lower_hex(trace, 32).filter(|trace| *trace != 0)?;
    let span = lower_hex(span, 16).filter(|span| *span != 0)?;
    Some(Context {
        trace,
        span: u64::try_from(span).ok()?,
        is_sampled: Some(lower_hex(flags, 2)? & 1 == 1),
        b3: B3Form::None,
    })
}

/// `<trace>-<span>-<sampled>-<parent>`, of which the last two may be missing.
fn b3_single(value: &str) -> Option<Context> {
    let mut parts = value.trim().split('-');
    let trace = hex_trace(parts.next()?)?;
    let span = hex_span(parts.next()?)?;
    let is_sampled = match parts.next() {
        Some("1" | "d") => Some(true),
        Some("0") => Some(false),
        _ => None,
    };
    Some(Context {
        trace,
        span,
        is_sampled,
        b3: B3Form::Single,
    })
}

fn lower_hex(text: &str, length: usize) -> Option<u128> {
    let is_valid = text.len() == length
        && text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_valid
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

/// A trace of 64 or 128 bits.
fn hex_trace(text: &str) -> Option<u128> {
    let text = text.to_ascii_lowercase();
    lower_hex(&text, 32)
        .or_else(|| lower_hex(&text, 16))
        .filter(|trace| *trace != 0)
}

fn hex_span(text: &str) -> Option<u64> {
    lower_hex(&text.to_ascii_lowercase(), 16)
        .and_then(|span| u64::try_from(span).ok())
        .filter(|span| *span != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_str(value).expect("a value"),
                )
            })
            .collect()
    }

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_context_is_read_in_every_form() {
        let read = |lines: &[(&'static str, &str)]| {
            Context::read(&headers(lines)).map(|own| {
                (
                    format!("{:032x} {:016x}", own.trace, own.span),
                    own.is_sampled,
                )
            })
        };
        let expected = |sampled| Some((format!("{TRACE} 00f067aa0ba902b7"), sampled));
        let w3c = format!("00-{TRACE}-00f067aa0ba902b7-01");
        assert_eq!(read(&[("traceparent", &w3c)]), expected(Some(true)));
        let single = format!("{TRACE}-00f067aa0ba902b7-0-05e3ac9a4f6e3b90");
        assert_eq!(read(&[("b3", &single)]), expected(Some(false)));
        assert_eq!(
            read(&[("x-b3-traceid", TRACE), ("x-b3-spanid", "00f067aa0ba902b7")]),
            expected(None)
        );
        assert_eq!(
            read(&[
                ("x-b3-traceid", "a3ce929d0e0e4736"),
                ("x-b3-spanid", "00f067aa0ba902b7"),
                ("x-b3-flags", "1")
            ])
            .map(|(own, sampled)| (own.starts_with("0000000000000000a3ce"), sampled)),
            Some((true, Some(true)))
        );
    }

    #[test]
    fn a_broken_context_is_none() {
        for value in [
            "",
            "00",
            "00-0-0-0",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(
                Context::read(&headers(&[("traceparent", value)])),
                None,
                "{value}"
            );
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut given = headers(&[
            ("x-b3-traceid", TRACE),
            ("x-b3-spanid", "00f067aa0ba902b7"),
            ("tracestate", "forged=1"),
        ]);
        let mut context = Context::read(&given).expect("a context");
        context.span = 1;
        context.is_sampled = Some(true);
        context.write(&mut given);
        let get = |name: &str| given.get(name).and_then(|value| value.to_str().ok());
        assert_eq!(get("x-b3-parentspanid"), Some("00f067aa0ba902b7"));
        assert_eq!(get("x-b3-spanid"), Some("0000000000000001"));
        assert_eq!(
            get("traceparent"),
            Some("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000001-01")
        );
        assert_eq!(get("tracestate"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_value_breaks_the_reader(value in "[0-9a-f-]{0,70}") {
            let _ = Context::read(&headers(&[("traceparent", &value), ("b3", &value)]));
        }
    }
}
