//! Where the configuration in use came from, for the admin interface: the file, and what a control plane told.

use std::sync::Arc;
use std::time::SystemTime;

use fairlead_model::Moment;
use fairlead_xds::{Bootstrap, Ledger};

use crate::clock::Clock;

/// Where the configuration in use came from.
#[derive(Debug, Clone)]
pub struct Sources {
    /// The file as it was last read without a mistake.
    pub file: Arc<Bootstrap>,
    /// When that was.
    pub read: SystemTime,
    /// What the control plane told; nothing without one.
    pub told: Option<Told>,
}

/// What a control plane told.
#[derive(Debug, Clone)]
pub struct Told {
    /// What became of it.
    pub ledger: Arc<Ledger>,
    /// When the clock of its moments began.
    begun: SystemTime,
}

impl Sources {
    /// A file that was just read.
    #[must_use]
    pub fn of(file: Bootstrap) -> Self {
        Self {
            file: Arc::new(file),
            read: SystemTime::now(),
            told: None,
        }
    }
}

impl Told {
    pub(super) fn new(ledger: Ledger, clock: &Clock) -> Self {
        let passed = clock.now().since(Moment::default());
        Self {
            ledger: Arc::new(ledger),
            begun: SystemTime::now() - passed,
        }
    }

    /// The time of day of a moment.
    #[must_use]
    pub fn time(&self, moment: Moment) -> SystemTime {
        self.begun + moment.since(Moment::default())
    }
}
