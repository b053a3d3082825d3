//! One worker: a thread with a runtime, connections and state of its own.

mod apply;
mod ask;
mod bytes;
mod connection;
mod datagrams;
mod drain;
mod http;
mod later;
mod life;
mod lines;
mod listen;

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::Snapshot;
use tokio::sync::watch;

use crate::core::{Core, Shared};
use apply::Applied;

pub(crate) use ask::{Ask, ClusterState, EndpointState};

/// How often connections that are not used are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// Why a worker ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Its runtime could not be made.
    #[error("failed to start a worker: {source}")]
    Start {
        /// The cause.
        source: std::io::Error,
    },
}

/// Runs a worker on this thread until the process has drained.
///
/// # Errors
/// When its runtime cannot be made.
pub fn run(
    shared: Arc<Shared>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> Result<(), WorkerError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .map_err(|source| WorkerError::Start { source })?;
    runtime.block_on(work(shared, snapshots));
    Ok(())
}

async fn work(shared: Arc<Shared>, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    let core = Core::new(Arc::clone(&shared));
    let mut applied = Applied::default();
    let mut draining = shared.draining.subscribe();
    let mut questions = shared.take_questions();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = snapshots.changed() => {
                if changed.is_err() {
                    break;
                }
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                applied.apply(&core, snapshot);
            }
            _ = sweep.tick() => sweep_idle(&core),
            Some(ask) = questions.recv() => ask::answer(&core, ask),
            changed = draining.changed() => {
                if changed.is_err() || *draining.borrow() {
                    break;
                }
            }
        }
    }
    applied.stop_listening().await;
    drained(&core, applied.drain_time()).await;
}

fn sweep_idle(core: &Rc<Core>) {
    let now = core.clock.now();
    for upstream in core.upstreams.borrow().values() {
        upstream.sweep(now);
    }
}

/// Waits until every connection has ended, at most for `most`.
async fn drained(core: &Rc<Core>, most: Duration) {
    let ended = async {
        while core.connections.get() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(most, ended).await.is_err() {
        tracing::warn!(
            connections = core.connections.get(),
            "connections did not end in time"
        );
    }
}
