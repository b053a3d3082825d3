//! Sends spans to collectors, by [OTLP](https://opentelemetry.io/docs/specs/otlp/) over gRPC or HTTP.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_model::Snapshot;
use fairlead_model::trace::{Tracing, Transport};
use http::header::{CONTENT_TYPE, HOST};
use http::uri::PathAndQuery;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

use super::span::text;
use crate::Shared;
use crate::config::connect::{self, ConnectError, PAUSE};
use fairlead_xds::raw::Raw;

/// How many spans are sent at once, and how long the first of them waits for others.
const BATCH: (usize, Duration) = (512, Duration::from_secs(1));
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(5);
const EXPORT: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Why spans were not taken.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error(transparent)]
    Connect(ConnectError),
    #[error("the collector answered {0}")]
    Refused(String),
    #[error("the collector did not answer within {PATIENCE:?}")]
    Late,
}

/// A collector as it is reached now.
#[derive(Default)]
struct Collector {
    channel: Option<Channel>,
    attempt: usize,
    pause: Duration,
    /// When it is tried again.
    after: Option<Instant>,
}

/// Sends spans to collectors for as long as the process runs; their clusters are in `snapshots`.
pub async fn export(shared: Arc<Shared>, snapshots: watch::Receiver<Arc<Snapshot>>) {
    let Some(mut spans) = shared.spans.take() else {
        return;
    };
    let figures = shared.figures.process();
    let mut collectors: HashMap<Arc<str>, Collector> = HashMap::new();
    let mut waiting = Vec::with_capacity(BATCH.0);
    loop {
        if spans.recv_many(&mut waiting, BATCH.0).await == 0 {
            return;
        }
        let until = Instant::now() + BATCH.1;
        while waiting.len() < BATCH.0 {
            let room = BATCH.0 - waiting.len();
            match tokio::time::timeout_at(until, spans.recv_many(&mut waiting, room)).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
        }
        for (tracing, batch) in sorted(std::mem::take(&mut waiting)) {
            let (length, count) = (batch.len(), batch.len() as u64);
            let collector = collectors.entry(Arc::clone(&tracing.cluster)).or_default();
            if collector.after.is_some_and(|after| after > Instant::now()) {
                figures.spans_failed.add(count);
                shared.spans.done(length);
                continue;
            }
            let snapshot = Arc::clone(&snapshots.borrow());
            match collector.send(&snapshot, &tracing, batch).await {
                Ok(()) => {
                    *collector = Collector {
                        channel: collector.channel.take(),
                        ..Collector::default()
                    };
                    figures.spans_sent.add(count);
                }
                Err(error) => {
                    figures.spans_failed.add(count);
                    collector.failed();
                    tracing::warn!(cluster = %tracing.cluster, %error, spans = count, "spans were lost");
                }
            }
            shared.spans.done(length);
        }
    }
}

/// Spans by the settings that they were made under.
fn sorted(spans: Vec<(Arc<Tracing>, Span)>) -> Vec<(Arc<Tracing>, Vec<Span>)> {
    let mut groups: Vec<(Arc<Tracing>, Vec<Span>)> = Vec::new();
    for (tracing, span) in spans {
        match groups.iter_mut().find(|(own, _)| *own == tracing) {
            Some((_, group)) => group.push(span),
            None => groups.push((tracing, vec![span])),
        }
    }
    groups
}

impl Collector {
    fn failed(&mut self) {
        self.channel = None;
        self.attempt += 1;
        self.pause = (self.pause * 2).clamp(PAUSE.0, PAUSE.1);
        self.after = Some(Instant::now() + self.pause);
    }

    async fn send(
        &mut self,
        snapshot: &Snapshot,
        tracing: &Tracing,
        spans: Vec<Span>,
    ) -> Result<(), ExportError> {
        let message = Bytes::from(request(tracing, spans).encode_to_vec());
        let sent = async {
            match &tracing.transport {
                Transport::Grpc => self.over_grpc(snapshot, &tracing.cluster, message).await,
                Transport::Http { authority, path } => {
                    over_http(
                        snapshot,
                        &tracing.cluster,
                        self.attempt,
                        (authority, path),
                        message,
                    )
                    .await
                }
            }
        };
        timeout(PATIENCE, sent)
            .await
            .map_err(|_| ExportError::Late)?
    }

    async fn over_grpc(
        &mut self,
        snapshot: &Snapshot,
        cluster: &str,
        message: Bytes,
    ) -> Result<(), ExportError> {
        let channel = match &self.channel {
            Some(channel) => channel.clone(),
            None => {
                let made = connect::connect(snapshot, cluster, self.attempt)
                    .await
                    .map_err(ExportError::Connect)?;
                self.channel.insert(made).clone()
            }
        };
        let mut grpc = tonic::client::Grpc::new(channel);
        let refused = |status: tonic::Status| {
            ExportError::Refused(format!("{}: {}", status.code(), status.message()))
        };
        grpc.ready()
            .await
            .map_err(|error| ExportError::Refused(connect::deepest(&error)))?;
        grpc.unary(
            tonic::Request::new(message),
            PathAndQuery::from_static(EXPORT),
            Raw,
        )
        .await
        .map(drop)
        .map_err(refused)
    }
}

/// Posts a message over HTTP/1.1, on a connection of its own.
async fn over_http(
    snapshot: &Snapshot,
    cluster: &str,
    attempt: usize,
    (authority, path): (&str, &str),
    message: Bytes,
) -> Result<(), ExportError> {
    let refused = |error: &dyn std::error::Error| ExportError::Refused(connect::deepest(error));
    let stream = connect::dial(snapshot, cluster, attempt)
        .await
        .map_err(ExportError::Connect)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| refused(&error))?;
    let driven = tokio::spawn(connection);
    let request = http::Request::post(path)
        .header(HOST, authority)
        .header(CONTENT_TYPE, "application/x-protobuf")
        .body(Full::new(message))
        .map_err(|error| refused(&error))?;
    let answer = sender.send_request(request).await;
    driven.abort();
    let status = answer.map_err(|error| refused(&error))?.status();
    if status.is_success() {
        Ok(())
    } else {
        Err(ExportError::Refused(status.to_string()))
    }
}

fn request(tracing: &Tracing, spans: Vec<Span>) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", tracing.service.clone())],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "fairlead-proxy".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                    ..InstrumentationScope::default()
                }),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}
