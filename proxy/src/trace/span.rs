//! A request's span: it begins with its head, and ends with its answer.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::trace::{B3Form, Context, Tag, Tracing};
use http::{HeaderMap, HeaderName};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{Span, Status, status::StatusCode};

/// A caller that wants its request to be traced says so.
const CLIENT_TRACE: HeaderName = HeaderName::from_static("x-client-trace-id");
/// The most bytes of a URL in a span.
const LONGEST_URL: usize = 256;

/// A request's place in its trace.
#[derive(Debug)]
pub(crate) struct Trace {
    tracing: Arc<Tracing>,
    /// Its own span.
    context: Context,
    /// The caller's.
    parent: Option<u64>,
    /// What is sent to an endpoint, where that has a span of its own.
    upstream: Option<u64>,
    tags: Vec<KeyValue>,
}

/// What a span says of its request.
pub(crate) struct Ended<'a> {
    pub(crate) name: String,
    /// When it came, since 1970.
    pub(crate) at: Duration,
    /// How long it took.
    pub(crate) took: Duration,
    pub(crate) is_error: bool,
    /// What is known of it, by Envoy's names.
    pub(crate) texts: Vec<(&'static str, String)>,
    pub(crate) numbers: Vec<(&'static str, u64)>,
    /// The name of the span of the endpoint.
    pub(crate) cluster: &'a str,
}

impl Trace {
    /// Finds a request's place, and tells it to whom the request goes: headers are changed.
    pub(crate) fn begin(
        tracing: &Arc<Tracing>,
        random: &RefCell<fastrand::Rng>,
        headers: &mut HeaderMap,
    ) -> Self {
        let mut random = random.borrow_mut();
        let from = Context::read(headers);
        let decided = from.and_then(|from| from.is_sampled);
        let is_sampled = decided.unwrap_or_else(|| {
            let share = if headers.contains_key(&CLIENT_TRACE) {
                tracing.client
            } else {
                tracing.random
            };
            random.u32(..1_000_000) < share && random.u32(..1_000_000) < tracing.overall
        });
        let context = Context {
            trace: from.map_or_else(|| random.u128(1..), |from| from.trace),
            span: random.u64(1..),
            is_sampled: Some(is_sampled),
            b3: from.map_or(B3Form::None, |from| from.b3),
        };
        let upstream = (is_sampled && tracing.upstream_span).then(|| random.u64(1..));
        Context {
            span: upstream.unwrap_or(context.span),
            ..context
        }
        .write(headers);
        let tags = if is_sampled {
            tags(tracing, headers)
        } else {
            Vec::new()
        };
        Self {
            tracing: Arc::clone(tracing),
            context,
            parent: from.map(|from| from.span),
            upstream,
            tags,
        }
    }

    pub(crate) fn is_sampled(&self) -> bool {
        self.context.is_sampled == Some(true)
    }

    /// The trace in hexadecimal.
    pub(crate) fn id(&self) -> String {
        format!("{:032x}", self.context.trace)
    }

    pub(crate) fn tracing(&self) -> &Arc<Tracing> {
        &self.tracing
    }

    /// The spans of a request that ended; none where it is not traced.
    pub(crate) fn end(&mut self, ended: Ended<'_>) -> Vec<Span> {
        if !self.is_sampled() {
            return Vec::new();
        }
        let begun = nanoseconds(ended.at);
        let over = nanoseconds(ended.at + ended.took);
        let mut attributes = std::mem::take(&mut self.tags);
        attributes.push(text("component", "proxy".to_owned()));
        attributes.extend(ended.texts.into_iter().map(|(name, value)| {
            let value = if name == "http.url" {
                value[..value.floor_char_boundary(LONGEST_URL)].to_owned()
            } else {
                value
            };
            text(name, value)
        }));
        attributes.extend(
            ended
                .numbers
                .into_iter()
                .map(|(name, value)| number(name, value)),
        );
        let status = ended.is_error.then(|| Status {
            code: StatusCode::Error as i32,
            ..Status::default()
        });
        let own = Span {
            trace_id: self.context.trace.to_be_bytes().to_vec(),
            span_id: self.context.span.to_be_bytes().to_vec(),
            parent_span_id: self
                .parent
                .map(|parent| parent.to_be_bytes().to_vec())
                .unwrap_or_default(),
            name: ended.name,
            kind: if self.tracing.is_client {
                SpanKind::Client as i32
            } else {
                SpanKind::Server as i32
            },
            start_time_unix_nano: begun,
            end_time_unix_nano: over,
            flags: 1,
            attributes,
            status,
            ..Span::default()
        };
        let mut spans = Vec::with_capacity(2);
        if let Some(upstream) = self.upstream {
            spans.push(Span {
                span_id: upstream.to_be_bytes().to_vec(),
                parent_span_id: own.span_id.clone(),
                name: format!("router {} egress", ended.cluster),
                kind: SpanKind::Client as i32,
                ..own.clone()
            });
        }
        spans.push(own);
        spans
    }
}

fn tags(tracing: &Tracing, headers: &HeaderMap) -> Vec<KeyValue> {
    tracing
        .tags
        .iter()
        .filter_map(|(name, tag)| {
            let value = match tag {
                Tag::Literal(value) => value.clone(),
                Tag::Header {
                    name: header,
                    default,
                } => headers
                    .get(header)
                    .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                    .or_else(|| default.clone())?,
            };
            Some(text(name, value))
        })
        .collect()
}

fn nanoseconds(since: Duration) -> u64 {
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

pub(super) fn text(name: &str, value: String) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value)),
        }),
        ..KeyValue::default()
    }
}

fn number(name: &str, value: u64) -> KeyValue {
    KeyValue {
        key: name.to_owned(),
        value: Some(AnyValue {
            value: Some(any_value::Value::IntValue(
                i64::try_from(value).unwrap_or(i64::MAX),
            )),
        }),
        ..KeyValue::default()
    }
}
