//! Traces: the spans of requests, and their way to a collector.
//!
//! A worker makes a span when its request ends ([`Trace`]), and hands it over through a queue of [`WAITING`]; those for which it
//! has no room are dropped and counted. [`export`] sends them from the runtime of the admin interface, so a collector that is
//! slow or gone stops no request.

mod export;
mod span;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairlead_model::trace::Tracing;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::sync::mpsc;

use crate::metrics::ProcessFigures;

pub use export::export;
pub(crate) use span::{Ended, Trace};

/// How many spans may wait to be sent.
const WAITING: usize = 8_192;

/// A span, and whose it is.
type Finished = (Arc<Tracing>, Span);

/// Where spans are handed over.
#[derive(Debug)]
pub struct Spans {
    sender: mpsc::Sender<Finished>,
    receiver: Mutex<Option<mpsc::Receiver<Finished>>>,
    unsent: AtomicUsize,
}

impl Default for Spans {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            unsent: AtomicUsize::new(0),
        }
    }
}

impl Spans {
    /// Hands spans over; `figures` belong to the caller's worker.
    pub(crate) fn send(&self, tracing: &Arc<Tracing>, spans: Vec<Span>, figures: &ProcessFigures) {
        for span in spans {
            match self.sender.try_send((Arc::clone(tracing), span)) {
                Ok(()) => {
                    self.unsent.fetch_add(1, Ordering::Relaxed);
                    figures.spans.increment();
                }
                Err(_) => figures.spans_dropped.increment(),
            }
        }
    }

    /// Waits until what was handed over is sent or lost, at most for `most`; [`export`] has to run meanwhile.
    pub async fn flush(&self, most: Duration) {
        let sent = async {
            while self.unsent.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = tokio::time::timeout(most, sent).await;
    }

    /// So many were sent or lost.
    fn done(&self, count: usize) {
        self.unsent.fetch_sub(count, Ordering::Relaxed);
    }

    /// What is handed over, for the first who asks.
    fn take(&self) -> Option<mpsc::Receiver<Finished>> {
        self.receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}
