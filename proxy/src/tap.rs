//! Live requests, for whoever watches: nothing is paid while nobody does. A viewer that does not read loses requests, and slows none.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use fairlead_model::tap::Tap;
use http_body::{Body, Frame};
use tokio::sync::mpsc;

/// How many may watch at once.
const MOST_VIEWERS: usize = 8;
/// How many requests may wait to be read by a viewer.
const MOST_WAITING: usize = 256;

/// Who watches.
#[derive(Debug, Default)]
pub struct Taps {
    count: AtomicUsize,
    viewers: Mutex<Vec<Arc<Viewer>>>,
}

/// One who watches.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) tap: Tap,
    sender: mpsc::Sender<Bytes>,
    lost: AtomicU64,
}

/// What a viewer reads: it watches until this is dropped.
#[derive(Debug)]
pub struct View {
    taps: Arc<Taps>,
    viewer: Arc<Viewer>,
    receiver: mpsc::Receiver<Bytes>,
}

impl Taps {
    /// Has somebody watch.
    ///
    /// # Errors
    /// When as many watch as may.
    pub fn watch(self: &Arc<Self>, tap: Tap) -> Result<View, String> {
        let mut viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        if viewers.len() >= MOST_VIEWERS {
            return Err(format!(
                "{MOST_VIEWERS} watch already, which is as many as may"
            ));
        }
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        let viewer = Arc::new(Viewer {
            tap,
            sender,
            lost: AtomicU64::new(0),
        });
        viewers.push(Arc::clone(&viewer));
        self.count.store(viewers.len(), Ordering::Relaxed);
        Ok(View {
            taps: Arc::clone(self),
            viewer,
            receiver,
        })
    }

    /// Who watches the HTTP of this name, of whom each call of `draw` gives a number below a million.
    pub(crate) fn of(&self, name: &str, draw: impl Fn() -> u32) -> Vec<Arc<Viewer>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let viewers = self.viewers.lock().unwrap_or_else(PoisonError::into_inner);
        let watching = viewers.iter().filter(|own| {
            (own.tap.name.is_empty() || own.tap.name == name) && draw() < own.tap.share
        });
        watching.cloned().collect()
    }
}

impl Viewer {
    /// Shows a request, unless too many wait to be read.
    pub(crate) fn show(&self, text: Bytes) {
        if self.sender.try_send(text).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many requests were not shown, since too many waited to be read.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for View {
    fn drop(&mut self) {
        let mut viewers = self
            .taps
            .viewers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        viewers.retain(|own| !Arc::ptr_eq(own, &self.viewer));
        self.taps.count.store(viewers.len(), Ordering::Relaxed);
    }
}

impl View {
    /// The next request that is shown.
    pub(crate) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.receiver.poll_recv(context)
    }
}

impl Body for View {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.poll_next(context)
            .map(|text| text.map(|text| Ok(Frame::data(text))))
    }
}
