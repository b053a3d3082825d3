//! A moving average of latency that follows peaks at once and forgets them slowly.

use std::time::Duration;

use super::PeakEwma;
use crate::Moment;

/// The cost of an endpoint that runs requests and has never answered: nearly infinite, and still ordered by them.
const UNKNOWN: f64 = 1e9;

/// The latency of one endpoint, in seconds.
#[derive(Debug, Clone)]
pub(super) struct Latency {
    cost: f64,
    at: Moment,
    is_known: bool,
}

impl Latency {
    pub(super) fn new(settings: &PeakEwma, now: Moment) -> Self {
        Self {
            cost: settings.initial.as_secs_f64(),
            at: now,
            is_known: false,
        }
    }

    /// The average at `now`: an old one fades.
    pub(super) fn read(&self, settings: &PeakEwma, now: Moment) -> f64 {
        self.cost * fade(settings, now.since(self.at))
    }

    /// The load with `pending` requests running.
    pub(super) fn load(&self, settings: &PeakEwma, pending: u32, now: Moment) -> f64 {
        if !self.is_known && pending > 0 {
            return UNKNOWN + f64::from(pending);
        }
        self.read(settings, now) * (f64::from(pending) + 1.0)
    }

    /// A higher latency counts at once, a lower one by how long ago the last was.
    pub(super) fn observe(&mut self, settings: &PeakEwma, latency: Duration, now: Moment) {
        let latency = latency.as_secs_f64();
        if latency > self.cost || !self.is_known {
            self.cost = latency;
        } else {
            let share = fade(settings, now.since(self.at));
            self.cost = self.cost * share + latency * (1.0 - share);
        }
        self.is_known = true;
        self.at = now;
    }

    /// A failure counts as a latency, never less than what is known.
    pub(super) fn penalize(&mut self, settings: &PeakEwma, asked: Option<Duration>, now: Moment) {
        let penalty = asked
            .unwrap_or_default()
            .min(settings.most_penalty)
            .max(settings.penalty)
            .as_secs_f64();
        self.cost = self.read(settings, now).max(penalty);
        self.is_known = true;
        self.at = now;
    }
}

fn fade(settings: &PeakEwma, passed: Duration) -> f64 {
    if passed.is_zero() {
        return 1.0;
    }
    let decay = settings.decay.as_secs_f64();
    if decay > 0.0 {
        (-passed.as_secs_f64() / decay).exp()
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Moment {
        Moment::new(Duration::from_millis(milliseconds))
    }

    #[test]
    fn peaks_count_at_once_and_fade() {
        let settings = PeakEwma::default();
        let mut latency = Latency::new(&settings, at(0));
        latency.observe(&settings, Duration::from_millis(10), at(0));
        latency.observe(&settings, Duration::from_millis(1000), at(1));
        assert!((latency.read(&settings, at(1)) - 1.0).abs() < 1e-9);
        latency.observe(&settings, Duration::from_millis(10), at(10_001));
        let expected = (-1.0f64).exp() * 1.0 + (1.0 - (-1.0f64).exp()) * 0.01;
        assert!((latency.read(&settings, at(10_001)) - expected).abs() < 1e-6);
    }

    #[test]
    fn an_endpoint_without_answers_is_asked_once_at_a_time() {
        let settings = PeakEwma::default();
        let latency = Latency::new(&settings, at(0));
        assert!(latency.load(&settings, 0, at(0)) < 0.031);
        assert!(latency.load(&settings, 1, at(0)) > 1e8);
    }

    #[test]
    fn a_failure_counts_at_least_as_five_seconds() {
        let settings = PeakEwma::default();
        let mut latency = Latency::new(&settings, at(0));
        latency.penalize(&settings, None, at(0));
        assert!((latency.read(&settings, at(0)) - 5.0).abs() < 1e-9);
        latency.penalize(&settings, Some(Duration::from_secs(1000)), at(0));
        assert!((latency.read(&settings, at(0)) - 300.0).abs() < 1e-9);
    }
}
