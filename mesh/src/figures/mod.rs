//! Live figures: how many requests there are between workloads and services, how they end, and how long they take.
//!
//! What comes in: what proxies push of their figures, from the callers' side for calls within the mesh, and from the called one's for
//! calls from outside. What goes out: sums over windows of time. Each replica keeps those of the proxies that are connected to
//! it, in memory alone; sums of all replicas are added up by whoever asks.

mod judged;
mod read;
mod ring;
mod sum;
mod windows;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};

use self::judged::Judged;
use crate::facts::Key;

pub use read::{Teller, Way, judged, read};
pub use sum::{BUCKETS, Sum};
pub use windows::{Called, Caller, LONGEST, Limits, Windows};

/// A caller and what it calls.
pub type Pair = (Caller, Called);

/// The figures of a replica.
#[derive(Debug)]
pub struct Figures {
    replica: u64,
    windows: Mutex<Windows>,
    judged: Mutex<Judged>,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            // Each is keyed anew, at random.
            replica: RandomState::new().hash_one(()),
            windows: Mutex::default(),
            judged: Mutex::default(),
        }
    }
}

impl Figures {
    /// A number that no other replica has.
    #[must_use]
    pub fn replica(&self) -> u64 {
        self.replica
    }

    /// Adds requests of now, in seconds since 1970.
    pub fn add(&self, sums: &BTreeMap<Pair, Sum>, now: u64) {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        for ((caller, called), sum) in sums {
            windows.add(caller, called, sum, now);
        }
    }

    /// What there was of each pair within the last `seconds`, and how many seconds those really are.
    #[must_use]
    pub fn within(&self, seconds: u64, now: u64) -> (u64, BTreeMap<Pair, Sum>) {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let (covered, sums) = windows.within(seconds, now);
        let sums = sums.map(|(caller, called, sum)| ((caller.clone(), called.clone()), sum));
        (covered, sums.collect())
    }

    /// Adds requests of now that the rules of a MeshAuthorization would have refused, or fit, which are only counted.
    pub fn judge(&self, authorization: &Key, count: u64, now: u64) {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged.add(authorization, count, now);
    }

    /// What there was of these within the last hour.
    #[must_use]
    pub fn judged(&self, now: u64) -> BTreeMap<Key, u64> {
        let mut judged = self.judged.lock().unwrap_or_else(PoisonError::into_inner);
        judged.within(now)
    }

    /// How many pairs there are, and how many were dropped to make room.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        (windows.len(), windows.evicted())
    }
}
