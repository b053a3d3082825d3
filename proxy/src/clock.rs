//! The time of a worker.

use std::time::Instant;

use fairlead_model::Moment;

/// Counts from its making.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment::new(self.start.elapsed())
    }
}
