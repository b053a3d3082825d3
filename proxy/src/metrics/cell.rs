//! Numbers with one writer and any number of readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `number`; only the one writer may.
    pub fn add(&self, number: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(number), Relaxed);
    }

    /// Adds one; only the one writer may.
    pub fn increment(&self) {
        self.add(1);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that grows and shrinks.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    /// Adds `number`, which may be negative; only the one writer may.
    pub fn add(&self, number: i64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(number), Relaxed);
    }

    /// Sets the number; only the one writer may.
    pub fn set(&self, number: i64) {
        self.0.store(number, Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// How often values fell between bounds.
#[derive(Debug)]
pub struct Histogram {
    bounds: Arc<[f64]>,
    buckets: Box<[Counter]>,
    /// In microseconds.
    sum: Counter,
}

impl Histogram {
    /// A histogram of durations with bounds in milliseconds.
    #[must_use]
    pub fn new(bounds: &Arc<[f64]>) -> Self {
        Self {
            bounds: Arc::clone(bounds),
            buckets: (0..=bounds.len()).map(|_| Counter::default()).collect(),
            sum: Counter::default(),
        }
    }

    /// Counts a duration.
    pub fn observe(&self, duration: Duration) {
        let milliseconds = duration.as_secs_f64() * 1_000.0;
        let place = self.bounds.partition_point(|bound| *bound < milliseconds);
        if let Some(bucket) = self.buckets.get(place) {
            bucket.increment();
        }
        self.sum
            .add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// The bounds in milliseconds.
    #[must_use]
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// Counts by bucket, the last without a bound, and the sum in milliseconds.
    #[must_use]
    pub fn read(&self) -> (Vec<u64>, f64) {
        #[expect(clippy::cast_precision_loss, reason = "a sum of durations for display")]
        let sum = self.sum.get() as f64 / 1_000.0;
        (self.buckets.iter().map(Counter::get).collect(), sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_on_a_bound_is_within_it() {
        let histogram = Histogram::new(&[1.0, 10.0].into());
        for milliseconds in [0, 1, 2, 10, 11] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        assert_eq!(histogram.read(), (vec![2, 2, 1], 24.0));
    }
}
