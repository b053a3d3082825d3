//! Retry budgets by interval ([GEP-3388](https://gateway-api.sigs.k8s.io/geps/gep-3388/)): retries may be a share of the
//! requests of the last interval, and never less than a least rate.

use std::time::Duration;

use crate::Moment;

/// How many slices an interval has; the oldest is forgotten as a whole.
const SLICES: usize = 10;

/// How many retries are allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetryBudget {
    /// The share of requests that may be retried, in percent, 0 to 100.
    pub percent: u8,
    /// Over which time requests and retries are counted.
    pub interval: Duration,
    /// Retries per second that are always allowed.
    pub least_per_second: f64,
}

impl Default for RetryBudget {
    /// 20 percent over 10 s, 10 a second at least (GEP-3388).
    fn default() -> Self {
        Self {
            percent: 20,
            interval: Duration::from_secs(10),
            least_per_second: 10.0,
        }
    }
}

/// What of a budget is used.
#[derive(Debug, Clone)]
pub struct BudgetState {
    settings: RetryBudget,
    slices: [(u64, u64); SLICES],
    slice: u64,
}

impl BudgetState {
    /// An unused budget.
    #[must_use]
    pub fn new(settings: RetryBudget) -> Self {
        Self {
            settings,
            slices: [(0, 0); SLICES],
            slice: 0,
        }
    }

    /// Counts a request (its first try).
    pub fn requested(&mut self, now: Moment) {
        self.turn(now);
        self.current().0 += 1;
    }

    /// Takes one retry from the budget, or refuses it.
    pub fn withdraw(&mut self, now: Moment) -> bool {
        self.turn(now);
        let (requests, retries) = self
            .slices
            .iter()
            .fold((0, 0), |(requests, retries), slice| {
                (requests + slice.0, retries + slice.1)
            });
        #[expect(clippy::cast_precision_loss, reason = "counts of one interval")]
        let allowed = requests as f64 * f64::from(self.settings.percent) / 100.0
            + self.settings.least_per_second * self.settings.interval.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "counts of one interval")]
        let is_allowed = (retries + 1) as f64 <= allowed;
        if is_allowed {
            self.current().1 += 1;
        }
        is_allowed
    }

    fn current(&mut self) -> &mut (u64, u64) {
        let index = usize::try_from(self.slice % SLICES as u64).unwrap_or(0);
        &mut self.slices[index]
    }

    /// Forgets the slices that are older than the interval.
    fn turn(&mut self, now: Moment) {
        let length = (self.settings.interval / SLICES as u32).max(Duration::from_millis(1));
        let slice = u64::try_from(now.since(Moment::default()).as_nanos() / length.as_nanos())
            .unwrap_or(u64::MAX);
        let passed = slice.saturating_sub(self.slice).min(SLICES as u64);
        for step in 1..=passed {
            let index = usize::try_from((self.slice + step) % SLICES as u64).unwrap_or(0);
            self.slices[index] = (0, 0);
        }
        if passed == SLICES as u64 {
            self.slices = [(0, 0); SLICES];
        }
        self.slice = self.slice.max(slice);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::new(Duration::from_millis(milliseconds))
    }

    #[test]
    fn a_share_and_a_least_rate() {
        let mut budget = BudgetState::new(RetryBudget {
            percent: 20,
            interval: Duration::from_secs(10),
            least_per_second: 0.5,
        });
        for _ in 0..100 {
            budget.requested(at(0));
        }
        let granted = (0..100).filter(|_| budget.withdraw(at(500))).count();
        assert_eq!(granted, 25);
        assert_eq!((0..100).filter(|_| budget.withdraw(at(20_000))).count(), 5);
    }

    proptest! {
        /// Offered load stays at or below 1.2 times the requests plus the least rate: in the interval of every retry, and in all.
        #[test]
        fn load_is_bounded(steps in prop::collection::vec((0u64..400, 0u32..30, 0u32..60), 1..200)) {
            let settings = RetryBudget { percent: 20, interval: Duration::from_secs(10), least_per_second: 1.0 };
            let mut budget = BudgetState::new(settings);
            let (mut now, mut requested, mut retried) = (0, Vec::new(), Vec::new());
            for (pause, requests, retries) in steps {
                now += pause;
                for _ in 0..requests {
                    budget.requested(at(now));
                    requested.push(now);
                }
                for _ in 0..retries {
                    if budget.withdraw(at(now)) {
                        retried.push(now);
                        // Nine whole slices and the current one are counted.
                        let since = (now / 1000).saturating_sub(9) * 1000;
                        let within = |times: &[u64]| times.iter().filter(|time| **time >= since).count() as f64;
                        prop_assert!(within(&retried) <= 0.2 * within(&requested) + 10.0);
                    }
                }
            }
            let least = 10.0 * (now as f64 / 9000.0 + 1.0);
            prop_assert!(retried.len() as f64 <= 0.2 * requested.len() as f64 + least);
        }
    }
}
