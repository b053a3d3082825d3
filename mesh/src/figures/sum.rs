//! Requests added up: how they ended, and how long they took.

use fairlead_model::latency::BOUNDS;

/// One more: what took longer than any of them.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// Requests added up. Sums of sums are the same in any order, so replicas may add theirs up too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    /// Requests that succeeded.
    pub successes: u64,
    /// Requests that failed.
    pub failures: u64,
    /// How many took so long: up to each of [`BOUNDS`], and longer.
    pub latency: [u64; BUCKETS],
}

impl Sum {
    /// How many there are.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.successes.saturating_add(self.failures)
    }

    /// Adds others.
    pub fn merge(&mut self, other: &Self) {
        self.successes = self.successes.saturating_add(other.successes);
        self.failures = self.failures.saturating_add(other.failures);
        for (own, more) in self.latency.iter_mut().zip(other.latency) {
            *own = own.saturating_add(more);
        }
    }

    /// Counts some that took at most `bound` milliseconds each.
    pub fn took(&mut self, bound: f64, count: u64) {
        let place = BOUNDS.partition_point(|own| *own < bound);
        if let Some(own) = self.latency.get_mut(place) {
            *own = own.saturating_add(count);
        }
    }

    /// How long at most this share of them took, in milliseconds, as if those between two bounds were spread evenly; nothing of none.
    /// What took longer than any bound is told as the last of them.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total: u64 = self
            .latency
            .iter()
            .fold(0, |sum, own| sum.saturating_add(*own));
        if total == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share of a count")]
        let (rank, count) = (share.clamp(0.0, 1.0) * total as f64, |own: u64| own as f64);
        let (mut below, mut from) = (0.0, 0.0);
        for (own, bound) in self.latency.iter().zip(BOUNDS) {
            let here = count(*own);
            if here > 0.0 && below + here >= rank {
                return Some(from + (bound - from) * ((rank - below) / here).clamp(0.0, 1.0));
            }
            below += here;
            from = bound;
        }
        Some(from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_lie_between_bounds() {
        let mut sum = Sum::default();
        assert_eq!(sum.quantile(0.5), None);
        // 90 between 5 and 10 ms, 10 between 100 and 250 ms.
        sum.took(10.0, 90);
        sum.took(250.0, 10);
        let near = |share, expected: f64| {
            let found = sum.quantile(share).expect("there are some");
            assert!((found - expected).abs() < 0.01, "{share}: {found}");
        };
        near(0.0, 5.0);
        near(0.45, 7.5);
        near(0.9, 10.0);
        near(0.95, 175.0);
        near(1.0, 250.0);
        let mut late = Sum::default();
        late.took(f64::INFINITY, 1);
        assert_eq!(late.quantile(0.5), Some(3_600_000.0));
    }

    /// Any sum, such that some add up to more than there is room for.
    fn sums() -> impl Strategy<Value = Sum> {
        let number = prop_oneof![0..1_000u64, Just(u64::MAX / 2)];
        let latency = prop::collection::vec(number.clone(), BUCKETS);
        (number.clone(), number, latency).prop_map(|(successes, failures, latency)| Sum {
            successes,
            failures,
            latency: latency.try_into().expect("as many as buckets"),
        })
    }

    fn merged(all: &[&Sum]) -> Sum {
        all.iter().fold(Sum::default(), |mut sum, own| {
            sum.merge(own);
            sum
        })
    }

    proptest! {
        #[test]
        fn sums_are_the_same_in_any_order(a in sums(), b in sums(), c in sums()) {
            let (ab, bc) = (merged(&[&a, &b]), merged(&[&b, &c]));
            prop_assert_eq!(merged(&[&ab, &c]), merged(&[&a, &bc]));
            prop_assert_eq!(&ab, &merged(&[&b, &a]));
            prop_assert_eq!(merged(&[&a]), a);
        }

        #[test]
        fn quantiles_rise_with_the_share(sum in sums(), a in 0.0..1.0f64, b in 0.0..1.0f64) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(sum.quantile(low) <= sum.quantile(high));
        }
    }
}
