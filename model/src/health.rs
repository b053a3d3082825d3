//! When an endpoint is checked, and what the answers to checks mean.
//!
//! The rules are Envoy's (<https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/health_checking>): the first
//! answer decides at once; later so many in a row have to say the same, but for an endpoint that says itself that it is not well.

use std::time::Duration;

use crate::cluster::{Checked, HealthCheck};

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// The endpoint is well.
    Passed,
    /// It did not answer, or not in time.
    Failed,
    /// It answered that it is not well: one such answer is enough.
    Refused,
}

/// What is known of one endpoint from one kind of check.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checker {
    is_known: bool,
    is_well: bool,
    /// How many checks in a row said other than what is believed.
    against: u32,
}

impl Checker {
    /// One that goes on with what is believed already.
    #[must_use]
    pub fn of(known: Checked) -> Self {
        Self {
            is_known: matches!(known, Checked::Passed | Checked::Failed),
            is_well: known == Checked::Passed,
            against: 0,
        }
    }

    /// What is believed.
    #[must_use]
    pub fn checked(&self) -> Checked {
        match (self.is_known, self.is_well) {
            (false, _) => Checked::Pending,
            (true, true) => Checked::Passed,
            (true, false) => Checked::Failed,
        }
    }

    /// A check ended. Says whether that changed what is believed.
    pub fn found(&mut self, settings: &HealthCheck, found: Found) -> bool {
        let passed = found == Found::Passed;
        if self.is_known && passed == self.is_well {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let enough = match (found, self.is_known) {
            (Found::Refused, _) | (Found::Passed, false) => 1,
            (Found::Passed, true) => settings.healthy_threshold,
            (Found::Failed, _) => settings.unhealthy_threshold,
        };
        let was = self.checked();
        // An endpoint of which nothing is known counts as failed already.
        if self.against >= enough || (!self.is_known && !passed) {
            *self = Self {
                is_known: true,
                is_well: passed,
                against: 0,
            };
        }
        self.checked() != was
    }

    /// How long until the next check; `had_traffic` is whether the cluster ever had a connection.
    pub fn pause(
        &self,
        settings: &HealthCheck,
        had_traffic: bool,
        random: &mut fastrand::Rng,
    ) -> Duration {
        let unhealthy = settings.unhealthy_interval.unwrap_or(settings.interval);
        let base = match (had_traffic, self.is_well) {
            (false, true) => settings.no_traffic_healthy.unwrap_or(settings.no_traffic),
            (false, false) => settings.no_traffic,
            (true, true) if self.against > 0 => settings.unhealthy_edge.unwrap_or(unhealthy),
            (true, true) => settings.interval,
            (true, false) if self.against > 0 => settings.healthy_edge.unwrap_or(settings.interval),
            (true, false) => unhealthy,
        };
        let share = f64::from(settings.jitter_percent) / 100.0;
        base + base.mul_f64(share * random.f64()) + settings.jitter.mul_f64(random.f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Probe;

    fn settings() -> HealthCheck {
        HealthCheck {
            unhealthy_threshold: 3,
            healthy_threshold: 2,
            ..HealthCheck::of(Probe::Tcp)
        }
    }

    fn after(found: &[Found]) -> Checked {
        let mut checker = Checker::default();
        for found in found {
            checker.found(&settings(), *found);
        }
        checker.checked()
    }

    #[test]
    fn the_first_answer_decides_and_later_ones_have_to_agree() {
        use Found::{Failed, Passed, Refused};
        for (found, expected) in [
            (&[][..], Checked::Pending),
            (&[Passed], Checked::Passed),
            (&[Failed], Checked::Failed),
            (&[Passed, Failed, Failed], Checked::Passed),
            (&[Passed, Failed, Failed, Failed], Checked::Failed),
            (&[Passed, Failed, Failed, Passed, Failed], Checked::Passed),
            (&[Passed, Refused], Checked::Failed),
            (&[Failed, Passed], Checked::Failed),
            (&[Failed, Passed, Passed], Checked::Passed),
            (&[Failed, Passed, Failed, Passed], Checked::Failed),
        ] {
            assert_eq!(after(found), expected, "{found:?}");
        }
    }

    #[test]
    fn a_change_is_told_once() {
        let mut checker = Checker::default();
        let told: Vec<bool> = [Found::Passed, Found::Passed, Found::Refused, Found::Refused]
            .into_iter()
            .map(|found| checker.found(&settings(), found))
            .collect();
        assert_eq!(told, [true, false, true, false]);
    }

    #[test]
    fn pauses_depend_on_what_is_known() {
        let seconds = Duration::from_secs;
        let settings = HealthCheck {
            interval: seconds(5),
            unhealthy_interval: Some(seconds(7)),
            unhealthy_edge: Some(seconds(1)),
            healthy_edge: Some(seconds(2)),
            no_traffic: seconds(60),
            no_traffic_healthy: Some(seconds(90)),
            ..settings()
        };
        let mut random = fastrand::Rng::with_seed(1);
        let mut checker = Checker::default();
        let mut pause = |checker: &Checker, had| checker.pause(&settings, had, &mut random);
        assert_eq!(pause(&checker, false), seconds(60));
        for (found, expected) in [
            (Found::Passed, 5),
            (Found::Failed, 1),
            (Found::Refused, 7),
            (Found::Passed, 2),
            (Found::Passed, 5),
        ] {
            checker.found(&settings, found);
            assert_eq!(pause(&checker, true), seconds(expected), "{found:?}");
        }
        assert_eq!(pause(&checker, false), seconds(90));
        let jittered = HealthCheck {
            jitter: seconds(1),
            jitter_percent: 50,
            ..settings.clone()
        };
        for _ in 0..100 {
            let pause = checker.pause(&jittered, true, &mut random);
            assert!((seconds(5)..=seconds(8) + Duration::from_millis(500)).contains(&pause));
        }
    }
}
