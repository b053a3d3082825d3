//! Pushes figures to metrics services, as Envoy does (`envoy.service.metrics.v3`), so that they are known within seconds and
//! nobody has to come for them.
//!
//! [`sent`] finds what changed since it was sent, [`fairlead_xds::metrics_service`] has the messages. One stream a service; a service
//! that is slow, gone or silent holds up nothing but its own figures: it gets one message at a time, and what did not travel is
//! told later.

mod sent;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fairlead_model::Snapshot;
use fairlead_xds::metrics_service::{Identifier, MetricFamily, STREAM, StreamMessage};
use fairlead_xds::raw::Raw;
use fairlead_xds::{Sink, Sinks};
use http::uri::PathAndQuery;
use prost::Message as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::families::{
    ClusterFigures, Contract, DestinationFigures, HttpFigures, ListenerFigures, NameFigures,
    ProcessFigures, RouteFigures, RuleFigures, UdpFigures,
};
use super::{Family, Figures};
use crate::Shared;
use crate::config::connect::{ConnectError, PAUSE, connect, deepest, is_equipped, with_metadata};
use sent::{Form, Sent};

/// How many figures a message has at the most.
const MOST: usize = 1_000;
/// How many times longer the interval may become while nothing changes.
const LONGEST: u32 = 4;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum PushError {
    #[error(transparent)]
    Connect(ConnectError),
    #[error("the metrics service ended the stream: {0}")]
    Ended(String),
}

/// Pushes the figures of `shared` until the process `has_ended`, and then what changed last; the clusters of services are in
/// `snapshots`.
pub async fn push(
    shared: Arc<Shared>,
    sinks: Sinks,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    has_ended: watch::Receiver<bool>,
) {
    let services = sinks.all.iter().map(|sink| {
        let form = Form {
            are_deltas: sink.are_deltas,
            has_labels: sink.has_labels,
        };
        let service = Service {
            shared: &shared,
            process: shared.figures.process(),
            sinks: &sinks,
            sink,
            sent: Sent::new(form),
            interval: sinks.interval,
        };
        service.follow(snapshots.clone(), has_ended.clone())
    });
    futures::future::join_all(services).await;
}

/// A metrics service.
struct Service<'a> {
    shared: &'a Shared,
    process: Arc<ProcessFigures>,
    sinks: &'a Sinks,
    sink: &'a Sink,
    sent: Sent,
    /// How long to wait until the figures are looked at again.
    interval: Duration,
}

/// The next message of a stream.
struct Next<'a> {
    identifier: Option<Identifier>,
    metrics: Vec<MetricFamily>,
    sender: &'a mpsc::Sender<Bytes>,
    /// How many messages there were.
    count: u64,
}

impl Service<'_> {
    async fn follow(
        mut self,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        mut has_ended: watch::Receiver<bool>,
    ) {
        let (mut attempt, mut pause) = (0, PAUSE.0);
        loop {
            let cluster = &self.sink.cluster;
            let snapshot = tokio::select! {
                Ok(own) = snapshots.wait_for(|own| is_equipped(own, cluster)) => Arc::clone(&own),
                _ = has_ended.wait_for(|own| *own) => return,
            };
            let begun = Instant::now();
            let Err(error) = self.stream(&snapshot, attempt, &mut has_ended).await else {
                return;
            };
            self.process.pushes_failed.increment();
            if begun.elapsed() > PAUSE.1 {
                pause = PAUSE.0;
            }
            tracing::warn!(cluster = self.sink.cluster, %error, "figures are not pushed");
            tokio::select! {
                () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
                _ = has_ended.wait_for(|own| *own) => return,
            }
            pause = (pause * 2).min(PAUSE.1);
            attempt += 1;
        }
    }

    /// One stream; it ends well only with the process.
    async fn stream(
        &mut self,
        snapshot: &Snapshot,
        attempt: usize,
        has_ended: &mut watch::Receiver<bool>,
    ) -> Result<(), PushError> {
        let channel = connect(snapshot, &self.sink.cluster, attempt)
            .await
            .map_err(PushError::Connect)?;
        let (sender, receiver) = mpsc::channel::<Bytes>(1);
        let messages = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|own| (own, receiver))
        });
        let request = with_metadata(messages, &self.sink.metadata).map_err(PushError::Connect)?;
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready()
            .await
            .map_err(|error| PushError::Ended(deepest(&error)))?;
        let path = PathAndQuery::from_static(STREAM);
        let mut call = pin!(grpc.client_streaming(request, path, Raw));
        let answer = tokio::select! {
            answer = &mut call => answer,
            () = self.tell(sender, has_ended) => return call.await.map(drop).map_err(ended),
        };
        Err(answer.map_or_else(ended, |_| PushError::Ended("without a status".to_owned())))
    }

    /// Tells what changes until the process has ended.
    async fn tell(&mut self, sender: mpsc::Sender<Bytes>, has_ended: &mut watch::Receiver<bool>) {
        self.flush(&sender, true).await;
        loop {
            let is_last = tokio::select! {
                () = sleep(self.interval) => false,
                _ = has_ended.wait_for(|own| *own) => true,
            };
            let has_changed = self.flush(&sender, false).await;
            if is_last {
                return;
            }
            self.interval = match has_changed {
                true => self.sinks.interval,
                false => (self.interval * 2).min(self.sinks.interval * LONGEST),
            };
        }
    }

    /// Sends what changed, or all to one who `is_new`; says whether there was something.
    async fn flush(&mut self, sender: &mpsc::Sender<Bytes>, is_new: bool) -> bool {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        let milliseconds = since_1970.map_or(0, |own| own.as_millis());
        self.sent.at = i64::try_from(milliseconds).unwrap_or(i64::MAX);
        let mut next = Next {
            identifier: is_new.then(|| Identifier {
                node: self.sinks.node.clone(),
            }),
            metrics: Vec::new(),
            sender,
            count: 0,
        };
        let figures: &Figures = &self.shared.figures;
        self.family::<ClusterFigures>(&figures.clusters, &mut next, is_new)
            .await;
        self.family::<HttpFigures>(&figures.https, &mut next, is_new)
            .await;
        self.family::<ListenerFigures>(&figures.listeners, &mut next, is_new)
            .await;
        self.family::<UdpFigures>(&figures.udps, &mut next, is_new)
            .await;
        self.family::<RouteFigures>(&figures.routes, &mut next, is_new)
            .await;
        self.family::<RuleFigures>(&figures.rules, &mut next, is_new)
            .await;
        self.family::<NameFigures>(&figures.names, &mut next, is_new)
            .await;
        self.family::<DestinationFigures>(&figures.destinations, &mut next, is_new)
            .await;
        // What the process says of itself, such as its memory, changes always, and travels with the rest.
        let has_changed = next.count > 0 || !next.metrics.is_empty();
        if has_changed || is_new {
            self.family::<ProcessFigures>(&figures.process, &mut next, is_new)
                .await;
            next.send().await;
        }
        self.process.pushes_sent.add(next.count);
        has_changed
    }

    /// Figures of one kind; none are read before there is room for them.
    async fn family<F: Contract>(&mut self, family: &Family<F>, next: &mut Next<'_>, is_new: bool) {
        let mut rows: Vec<(String, Vec<Arc<F>>)> = Vec::new();
        Figures::each(family, |name, shards| {
            rows.push((name.to_owned(), shards.to_vec()));
        });
        for (name, shards) in rows {
            next.metrics
                .extend(self.sent.changes(&name, &shards, is_new));
            if next.metrics.len() >= MOST {
                next.send().await;
            }
        }
    }
}

impl Next<'_> {
    /// Sends it, as soon as there is room.
    async fn send(&mut self) {
        let message = StreamMessage {
            identifier: self.identifier.take(),
            metrics: std::mem::take(&mut self.metrics),
        };
        // Without a receiver the stream has ended, which its call says.
        let _ = self.sender.send(Bytes::from(message.encode_to_vec())).await;
        self.count += 1;
    }
}

fn ended(status: tonic::Status) -> PushError {
    PushError::Ended(format!("{}: {}", status.code(), status.message()))
}
