//! The time of a worker.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fairlead_model::Moment;

/// The time since 1970.
pub(crate) fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Counts from its making.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// In nanoseconds.
    read: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            read: AtomicU64::default(),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        let elapsed = self.start.elapsed();
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.read.store(nanoseconds, Relaxed);
        Moment::new(elapsed)
    }

    /// When [`Clock::now`] was last asked: as good as now for who knows that it was asked since it last waited.
    pub(crate) fn read(&self) -> Moment {
        Moment::new(Duration::from_nanos(self.read.load(Relaxed)))
    }

    /// The same time as timers know it.
    pub(crate) fn instant(&self, moment: Moment) -> tokio::time::Instant {
        (self.start + moment.since(Moment::default())).into()
    }
}
