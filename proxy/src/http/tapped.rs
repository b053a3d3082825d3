//! What viewers see of a request, gathered while it runs.

use std::cell::RefCell;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use fairlead_model::tap::{Exchange, Tap};
use fairlead_model::tls::Peer;
use http::{HeaderMap, HeaderName};
use serde_json::{Value, json};

use super::record::Record;
use crate::tap::Viewer;

/// What stands for a value that is not shown.
const REDACTED: &str = "[redacted]";

/// What is gathered of a request for its viewers.
#[derive(Debug)]
pub(super) struct Tapped {
    viewers: Vec<Arc<Viewer>>,
    request: HeaderMap,
    seen: RefCell<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    request_body: Part,
    response: HeaderMap,
    response_body: Part,
    trailers: HeaderMap,
}

/// The beginning of a body.
#[derive(Debug, Default)]
struct Part {
    bytes: Vec<u8>,
    most: usize,
    is_cut: bool,
}

impl Part {
    fn of(viewers: &[Arc<Viewer>], most: impl Fn(&Tap) -> usize) -> Self {
        Self {
            most: viewers.iter().map(|own| most(&own.tap)).max().unwrap_or(0),
            ..Self::default()
        }
    }

    fn keep(&mut self, data: &[u8]) {
        let room = self.most - self.bytes.len();
        self.is_cut |= data.len() > room;
        self.bytes.extend_from_slice(&data[..data.len().min(room)]);
    }

    /// As much of it as one viewer may see; of gRPC the messages in it, too.
    fn shown(&self, most: usize, is_text: bool, is_grpc: bool) -> Value {
        let bytes = &self.bytes[..self.bytes.len().min(most)];
        let name = if is_text { "as_string" } else { "as_bytes" };
        let text = |bytes: &[u8]| match is_text {
            true => String::from_utf8_lossy(bytes).into_owned(),
            false => BASE64.encode(bytes),
        };
        let mut value = json!({
            "truncated": self.is_cut || bytes.len() < self.bytes.len(),
            name: text(bytes),
        });
        if is_grpc {
            let messages = messages(bytes).map(|(is_compressed, length, bytes)| {
                json!({"compressed": is_compressed, "length": length, name: text(bytes)})
            });
            value["grpc_messages"] = messages.collect();
        }
        value
    }
}

/// The messages of gRPC in a body: whether each is compressed, how long it is, and what of it is there.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (bool, u32, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = bytes.split_first_chunk::<5>()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let (message, after) = rest.split_at(rest.len().min(length as usize));
        bytes = after;
        Some((head[0] == 1, length, message))
    })
}

impl Tapped {
    /// For a request with these headers; nothing where nobody watches.
    pub(super) fn begin(viewers: Vec<Arc<Viewer>>, headers: &HeaderMap) -> Option<Self> {
        if viewers.is_empty() {
            return None;
        }
        let seen = Seen {
            request_body: Part::of(&viewers, |tap| tap.request_most),
            response_body: Part::of(&viewers, |tap| tap.response_most),
            ..Seen::default()
        };
        Some(Self {
            viewers,
            request: headers.clone(),
            seen: RefCell::new(seen),
        })
    }

    pub(super) fn received(&self, data: &Bytes) {
        self.seen.borrow_mut().request_body.keep(data);
    }

    pub(super) fn answered(&self, headers: &HeaderMap) {
        self.seen.borrow_mut().response = headers.clone();
    }

    pub(super) fn sent(&self, data: &Bytes) {
        self.seen.borrow_mut().response_body.keep(data);
    }

    pub(super) fn trailers(&self, trailers: &HeaderMap) {
        self.seen.borrow_mut().trailers = trailers.clone();
    }

    /// Shows the request to all whom it concerns: it is over.
    pub(super) fn show(&self, record: &Record) {
        let state = record.state.borrow();
        let seen = self.seen.borrow();
        let took = record.core.clock.now().since(record.begun);
        let (path, query) = match record.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (record.path.as_str(), None),
        };
        let exchange = Exchange {
            head: fairlead_model::route::RequestHead {
                method: &record.method,
                authority: &record.authority,
                path,
                query,
                headers: &self.request,
            },
            peer: &record.connection.peer,
            caller: state.caller,
            source: record.connection.source,
            status: state.status,
            response: &seen.response,
            took,
        };
        for viewer in &self.viewers {
            let tap = &viewer.tap;
            if !tap.takes(&exchange) {
                continue;
            }
            let is_grpc = super::way::is_grpc(&self.request);
            let pseudo = [
                (":method", record.method.as_str()),
                (":authority", &record.authority),
                (":path", &record.path),
            ];
            let status = state.status.to_string();
            let mut text = json!({
                "http_buffered_trace": {
                    "request": {
                        "headers": headers(tap, &pseudo, &self.request),
                        "body": seen.request_body.shown(tap.request_most, tap.is_text, is_grpc),
                    },
                    "response": {
                        "headers": headers(tap, &[(":status", &status)], &seen.response),
                        "body": seen.response_body.shown(tap.response_most, tap.is_text, is_grpc),
                        "trailers": headers(tap, &[], &seen.trailers),
                    },
                },
                "fairlead": {
                    "caller": match &record.connection.peer {
                        Peer::Known(id) => json!(id.as_str()),
                        _ => Value::Null,
                    },
                    "address": record.connection.source.map(|own| own.to_string()),
                    "route": state.route.as_ref().map(|route| route.name.as_str()),
                    "cluster": state.cluster.as_deref(),
                    "endpoint": state.endpoint.as_ref().map(ToString::to_string),
                    "milliseconds": took.as_secs_f64() * 1_000.0,
                    "flags": state.flags.to_string(),
                    "lost": viewer.lost(),
                },
            })
            .to_string();
            text.push('\n');
            viewer.show(text.into());
        }
    }
}

fn headers(tap: &Tap, pseudo: &[(&str, &str)], headers: &HeaderMap) -> Vec<Value> {
    let value = |name: &HeaderName, value: &http::HeaderValue| match tap.hides(name)
        || value.is_sensitive()
    {
        true => REDACTED.to_owned(),
        false => String::from_utf8_lossy(value.as_bytes()).into_owned(),
    };
    let first = pseudo
        .iter()
        .map(|(name, value)| json!({"key": name, "value": value}));
    let others = headers
        .iter()
        .map(|(name, own)| json!({"key": name.as_str(), "value": value(name, own)}));
    first.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_bounds() {
        let body = b"\0\0\0\0\x02hi\x01\0\0\0\x05abc";
        let found: Vec<_> = messages(body).collect();
        assert_eq!(found, [(false, 2, &b"hi"[..]), (true, 5, &b"abc"[..])]);
        assert_eq!(messages(b"\0\0").count(), 0);
    }
}
