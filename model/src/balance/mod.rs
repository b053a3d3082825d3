//! Which endpoint gets a request.
//!
//! A [`Balancer`] holds the endpoints of one cluster as one worker sees them: their load, their breaker, their health. Each
//! worker has its own, so nothing is shared. [`Balancer::pick`] chooses; [`Balancer::finish`] tells it what became of the try.

mod balancer;
mod ewma;
mod ring;
mod tiers;
mod turns;

pub use balancer::{Balancer, EndpointKey, Finish, NoEndpoint, Wanted};
pub use ring::hash_of;

use std::time::Duration;

/// How endpoints are chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct Balancing {
    /// By what.
    pub policy: Policy,
    /// The share of endpoints that are well, in percent, under which all are used (Envoy's panic threshold).
    pub panic_percent: u8,
    /// How a new endpoint is brought up to its share.
    pub slow_start: Option<SlowStart>,
    /// Whether localities share by their weights; all endpoints of a priority count alike otherwise.
    pub weighted_localities: bool,
}

impl Default for Balancing {
    fn default() -> Self {
        Self {
            policy: Policy::PeakEwma(PeakEwma::default()),
            panic_percent: 50,
            slow_start: None,
            weighted_localities: false,
        }
    }
}

/// By what an endpoint is chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum Policy {
    /// The better of two by latency and load.
    PeakEwma(PeakEwma),
    /// The best of some by running requests.
    LeastRequest {
        /// How many are compared.
        choices: u32,
    },
    /// One after the other, by weight.
    RoundRobin,
    /// Any, by weight.
    Random,
    /// The one a hash falls to on a ring.
    RingHash {
        /// The fewest points of the ring.
        least: u32,
        /// The most.
        most: u32,
    },
    /// The one a hash falls to in a table (<https://research.google/pubs/pub44824/>, 3.4).
    Maglev {
        /// The size of the table, a prime.
        size: u32,
    },
}

/// Latency as a peak-sensitive moving average
/// ([Finagle](https://twitter.github.io/finagle/guide/Clients.html#power-of-two-choices-p2c-peak-ewma)).
#[derive(Debug, Clone, PartialEq)]
pub struct PeakEwma {
    /// After which time an observation counts for 1/e.
    pub decay: Duration,
    /// The latency of an endpoint that was not asked yet.
    pub initial: Duration,
    /// The least latency that a failure or a rejection counts as.
    pub penalty: Duration,
    /// The most that an endpoint's `Retry-After` counts as.
    pub most_penalty: Duration,
}

impl Default for PeakEwma {
    fn default() -> Self {
        Self {
            decay: Duration::from_secs(10),
            initial: Duration::from_millis(30),
            penalty: Duration::from_secs(5),
            most_penalty: Duration::from_secs(300),
        }
    }
}

/// How a new endpoint is brought up to its share.
#[derive(Debug, Clone, PartialEq)]
pub struct SlowStart {
    /// How long it takes.
    pub window: Duration,
    /// How the share grows: 1 is even, more is faster at first.
    pub aggression: f64,
    /// The share at first, in percent.
    pub least_percent: u8,
}

impl SlowStart {
    /// The share of an endpoint of this age, above 0, at most 1: `max(least, (age / window)^(1 / aggression))`.
    #[must_use]
    pub fn share(&self, age: Duration) -> f64 {
        if age >= self.window || self.window.is_zero() {
            return 1.0;
        }
        let aged = age.as_secs_f64() / self.window.as_secs_f64();
        aged.powf(1.0 / self.aggression.max(0.01))
            .max(f64::from(self.least_percent.max(1)) / 100.0)
    }
}
