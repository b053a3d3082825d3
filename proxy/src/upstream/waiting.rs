//! Requests that wait for a connection: how many may, and that they hear of one that is free.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::{Counts, Held};
use crate::metrics::ClusterFigures;

/// A request that waits for a connection, for as long as this lives.
#[derive(Debug)]
pub(super) struct Pending {
    figures: Arc<ClusterFigures>,
    _held: Held,
}

impl Pending {
    /// One more, unless so many wait already.
    pub(super) fn begin(
        counts: &Rc<Counts>,
        figures: &Arc<ClusterFigures>,
        limit: u32,
    ) -> Option<Self> {
        let Some(held) = Held::take(counts, |counts| &counts.pending, limit) else {
            figures.upstream_rq_pending_overflow.increment();
            return None;
        };
        figures.upstream_rq_pending_total.increment();
        figures.upstream_rq_pending_active.add(1);
        Some(Self {
            figures: Arc::clone(figures),
            _held: held,
        })
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.figures.upstream_rq_pending_active.add(-1);
    }
}

/// The connections of one endpoint, and who waits for one of them.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: Cell<u32>,
    waiting: Cell<u32>,
    freed: Notify,
}

/// One connection among those a cluster may have, for as long as this lives.
#[derive(Debug)]
pub(super) struct Place {
    places: Rc<Places>,
    _held: Held,
}

impl Places {
    /// A place for a connection. An endpoint that has none gets one whatever the limit, as Envoy does: nothing would ever become
    /// free for who waits.
    pub(super) fn take(self: &Rc<Self>, counts: &Rc<Counts>, limit: u32) -> Option<Place> {
        let is_first = self.taken.get() == 0;
        let most = if is_first { u32::MAX } else { limit };
        let held = Held::take(counts, |counts| &counts.connections, most)?;
        self.taken.set(self.taken.get() + 1);
        Some(Place {
            places: Rc::clone(self),
            _held: held,
        })
    }

    /// A connection, or a stream of one, is free.
    pub(super) fn tell(&self) {
        if self.waiting.get() > 0 {
            self.freed.notify_one();
        }
    }

    /// Waits until something may be free.
    pub(super) async fn wait(&self) {
        struct Waiting<'a>(&'a Places);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.waiting.set(self.0.waiting.get().saturating_sub(1));
            }
        }
        self.waiting.set(self.waiting.get() + 1);
        let _waiting = Waiting(self);
        self.freed.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places
            .taken
            .set(self.places.taken.get().saturating_sub(1));
        self.places.tell();
    }
}
