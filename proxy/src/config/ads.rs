//! The control plane as a source of configuration, over the aggregated discovery service of xDS.
//!
//! What is said and understood is `fairlead_xds`'s; here are the stream, its end, and the next one. While there is none, the
//! last good configuration stays.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_model::Snapshot;
use fairlead_xds::discovery::{DELTA, STATE};
use fairlead_xds::raw::Raw;
use fairlead_xds::{Dynamic, Outside, Session, SessionError};
use http::uri::PathAndQuery;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tonic::{Status, Streaming};

use super::connect::{ConnectError, PAUSE, connect, deepest, with_metadata};
use super::{Keep, Sources, Told, certified, file};
use crate::clock::Clock;

/// The largest message.
const LARGEST: usize = 64 << 20;
/// After which silence what is only needed for messages is forgotten.
const SILENCE: Duration = Duration::from_secs(1);

/// How long what was told is not kept at the latest.
const LATEST: Duration = Duration::from_secs(30);

/// What a session leaves to its caller.
const OUTSIDE: Outside<'_> = Outside {
    read: &|path| std::fs::read(path),
    check: &|alone| file::check_alone(alone).map_err(|error| error.to_string()),
};

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum StreamError {
    #[error(transparent)]
    Connect(ConnectError),
    #[error("the control plane ended the stream: {0}")]
    Ended(String),
    #[error(transparent)]
    Session(SessionError),
}

/// What the control plane is asked by.
pub(super) struct Client<'a> {
    dynamic: Dynamic,
    session: Session,
    keep: Option<Keep>,
    /// Since when something was told that is not kept.
    unkept: Option<Instant>,
    given: watch::Receiver<Arc<Snapshot>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    sources: &'a watch::Sender<Sources>,
    clock: Clock,
}

impl<'a> Client<'a> {
    /// One that asked nothing yet.
    pub(super) fn new(
        dynamic: Dynamic,
        keep: Option<Keep>,
        given: watch::Receiver<Arc<Snapshot>>,
        snapshots: watch::Sender<Arc<Snapshot>>,
        sources: &'a watch::Sender<Sources>,
    ) -> Self {
        let session = Session::new(dynamic.clone(), (**given.borrow()).clone());
        Self {
            dynamic,
            session,
            keep,
            unkept: None,
            given,
            snapshots,
            sources,
            clock: Clock::new(),
        }
    }

    /// Asks the control plane for as long as the process runs.
    pub(super) async fn follow(mut self, identity: Option<super::Own>) {
        self.restore();
        let in_use = self.snapshots.subscribe();
        let mut certified = std::pin::pin!(certified(identity, self.given.clone(), in_use));
        self.given = loop {
            tokio::select! {
                biased;
                given = &mut certified => break given,
                () = self.pause(SILENCE) => {}
            }
        };
        self.give();
        self.publish();
        let (mut attempt, mut pause) = (0, PAUSE.0);
        loop {
            let mut was_told = false;
            let Err(error) = self.stream(attempt, &mut was_told).await;
            if was_told {
                pause = PAUSE.0;
            }
            let wait = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            tracing::warn!(
                cluster = self.dynamic.cluster,
                %error,
                seconds = wait.as_secs_f64(),
                "no control plane; the last good configuration stays"
            );
            self.pause(wait).await;
            pause = (pause * 2).min(PAUSE.1);
            attempt += 1;
        }
    }

    /// Takes what was kept, where something was.
    fn restore(&mut self) {
        let kept = match self.keep.as_ref().map(Keep::read) {
            None | Some(Ok(None)) => return,
            Some(Ok(Some(kept))) => kept,
            Some(Err(error)) => {
                tracing::warn!(%error, "what was kept is not used");
                return;
            }
        };
        let wrong = self.session.restore(&kept, OUTSIDE, self.clock.now());
        for reason in wrong {
            tracing::warn!(reason, "a part of what was kept is not used");
        }
        tracing::info!("what was kept is used until the control plane is there");
        self.publish();
    }

    /// Keeps what was told, where it is to be kept and nothing more comes just now, or came for long.
    async fn keep(&mut self, is_silent: bool) {
        let is_due = |since: Instant| is_silent || since.elapsed() >= LATEST;
        let (Some(keep), true) = (&self.keep, self.unkept.is_some_and(is_due)) else {
            return;
        };
        let (keep, kept) = (keep.clone(), self.session.kept());
        let written = tokio::task::spawn_blocking(move || keep.write(&kept)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what was told is not kept"),
            Err(error) => tracing::warn!(%error, "what was told is not kept"),
        }
        self.unkept = None;
    }

    fn publish(&mut self) {
        if let Some(snapshot) = self.session.settle(self.clock.now()) {
            tracing::info!(
                listeners = snapshot.listeners.len(),
                clusters = snapshot.clusters.len(),
                routes = snapshot.routes.len(),
                "the configuration changed"
            );
            self.snapshots.send_replace(Arc::new(snapshot));
            self.note();
        }
    }

    /// Says what was told so far.
    fn note(&self) {
        let told = Told::new(self.session.ledger(), &self.clock);
        self.sources
            .send_modify(|sources| sources.told = Some(told));
    }

    /// Takes what the file says now.
    fn give(&mut self) -> Vec<Vec<u8>> {
        let given = Arc::clone(&self.given.borrow_and_update());
        let requests = self.session.give((*given).clone(), self.clock.now());
        self.publish();
        requests
    }

    /// Waits for the next stream, while the file and what is overdue still count.
    async fn pause(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        loop {
            let due = self.session.due(self.clock.now());
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                Ok(()) = self.given.changed() => drop(self.give()),
                () = sleep(due.unwrap_or(PAUSE.1)) => self.publish(),
            }
        }
    }

    /// One stream, until it ends.
    async fn stream(
        &mut self,
        attempt: usize,
        was_told: &mut bool,
    ) -> Result<std::convert::Infallible, StreamError> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let send = |requests: Vec<Vec<u8>>| {
            for request in requests {
                let _ = sender.send(Bytes::from(request));
            }
        };
        let given = Arc::clone(&self.given.borrow());
        send(self.session.begin(self.clock.now()));
        let mut responses = self.open(&given, attempt, receiver).await?;
        tracing::info!(cluster = self.dynamic.cluster, "the control plane is there");
        loop {
            let due = self.session.due(self.clock.now());
            tokio::select! {
                message = responses.message() => {
                    let message = message
                        .map_err(|status| ended(&status))?
                        .ok_or_else(|| StreamError::Ended("without a status".to_owned()))?;
                    *was_told = true;
                    send(self.take(&message)?);
                    self.keep(false).await;
                }
                Ok(()) = self.given.changed() => send(self.give()),
                () = sleep(due.unwrap_or(SILENCE).min(SILENCE)) => {
                    self.session.rest();
                    self.publish();
                    self.keep(true).await;
                }
            }
        }
    }

    /// Takes a message; the answers to it.
    fn take(&mut self, message: &[u8]) -> Result<Vec<Vec<u8>>, StreamError> {
        let step = self
            .session
            .take(message, OUTSIDE, self.clock.now())
            .map_err(StreamError::Session)?;
        if let Some(reason) = &step.refused {
            tracing::warn!(
                reason,
                "refused a part of the configuration; the last good one stays"
            );
        }
        self.unkept.get_or_insert_with(Instant::now);
        self.publish();
        self.note();
        Ok(step.requests)
    }

    async fn open(
        &self,
        given: &Snapshot,
        attempt: usize,
        receiver: mpsc::UnboundedReceiver<Bytes>,
    ) -> Result<Streaming<Bytes>, StreamError> {
        let channel = connect(given, &self.dynamic.cluster, attempt)
            .await
            .map_err(StreamError::Connect)?;
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(LARGEST);
        let path = PathAndQuery::from_static(if self.dynamic.is_delta { DELTA } else { STATE });
        let requests = futures::stream::unfold(receiver, |mut receiver| async {
            receiver.recv().await.map(|own| (own, receiver))
        });
        let request =
            with_metadata(requests, &self.dynamic.metadata).map_err(StreamError::Connect)?;
        grpc.ready()
            .await
            .map_err(|error| StreamError::Ended(deepest(&error)))?;
        grpc.streaming(request, path, Raw)
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| ended(&status))
    }
}

fn ended(status: &Status) -> StreamError {
    StreamError::Ended(format!("{}: {}", status.code(), status.message()))
}
