//! Faults on request: errors, latency and crashes, for a limited time or from the start.
//!
//! Only the application's own routes are hit; health, metrics and the faults themselves keep working, so that a fault
//! looks to the cluster like a bug in the application, not like a dead pod.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::{ConfigError, Environment};

const MAX_LATENCY_MS: u64 = 60_000;
const MAX_SECONDS: u64 = 3600;

/// What to do to requests. Shares and rates are from 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct Faults {
    /// The share of requests that are answered with 500.
    pub(crate) error_rate: f64,
    /// By how much requests are delayed, in milliseconds.
    pub(crate) latency_ms: u64,
    /// The share of requests that are delayed.
    pub(crate) latency_share: f64,
    /// Whether to end the process right away.
    pub(crate) crash: bool,
    /// How long all of this lasts, in seconds.
    pub(crate) for_seconds: u64,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            error_rate: 0.0,
            latency_ms: 0,
            latency_share: 1.0,
            crash: false,
            for_seconds: 60,
        }
    }
}

/// What happens to one request.
#[derive(Debug, PartialEq)]
pub(crate) struct Verdict {
    pub(crate) delay: Option<Duration>,
    pub(crate) fails: bool,
}

impl Faults {
    /// From `FAULT_ERROR_RATE`, `FAULT_LATENCY_MS` and `FAULT_LATENCY_SHARE`.
    pub(crate) fn of_environment(environment: &Environment) -> Result<Self, ConfigError> {
        let rate = |variable, default| {
            let wanted = "a number from 0 to 1";
            let value = environment.parse(variable, default, wanted)?;
            if (0.0..=1.0).contains(&value) {
                Ok(value)
            } else {
                Err(ConfigError::Invalid { variable, wanted })
            }
        };
        Ok(Self {
            error_rate: rate("FAULT_ERROR_RATE", 0.0)?,
            latency_share: rate("FAULT_LATENCY_SHARE", 1.0)?,
            latency_ms: environment
                .parse("FAULT_LATENCY_MS", 0, "a number of milliseconds")?
                .min(MAX_LATENCY_MS),
            ..Self::default()
        })
    }

    /// What is wrong with a request for faults.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if !(0.0..=1.0).contains(&self.error_rate) {
            return Err("errorRate is a number from 0 to 1");
        }
        if !(0.0..=1.0).contains(&self.latency_share) {
            return Err("latencyShare is a number from 0 to 1");
        }
        if self.latency_ms > MAX_LATENCY_MS {
            return Err("latencyMs is at most 60000");
        }
        if self.for_seconds == 0 || self.for_seconds > MAX_SECONDS {
            return Err("forSeconds is from 1 to 3600");
        }
        Ok(())
    }

    /// Decides for one request, with two random numbers from 0 to 1, 1 excluded.
    fn judge(&self, for_error: f64, for_latency: f64) -> Verdict {
        let delayed = self.latency_ms > 0 && for_latency < self.latency_share;
        Verdict {
            delay: delayed.then(|| Duration::from_millis(self.latency_ms)),
            fails: for_error < self.error_rate,
        }
    }
}

/// The faults of a running service.
pub(crate) struct FaultState {
    permanent: Faults,
    requested: Mutex<Option<(Faults, Instant)>>,
}

impl FaultState {
    /// With those that hold whenever none are requested.
    pub(crate) fn new(permanent: Faults) -> Self {
        Self {
            permanent,
            requested: Mutex::new(None),
        }
    }

    /// Replaces the requested faults.
    pub(crate) fn set(&self, faults: Faults, now: Instant) {
        let until = now + Duration::from_secs(faults.for_seconds);
        *self.lock() = Some((faults, until));
    }

    /// Ends the requested faults.
    pub(crate) fn clear(&self) {
        *self.lock() = None;
    }

    /// The faults that hold now.
    pub(crate) fn current(&self, now: Instant) -> Faults {
        match &*self.lock() {
            Some((faults, until)) if now < *until => faults.clone(),
            _ => self.permanent.clone(),
        }
    }

    /// What happens to a request now.
    pub(crate) fn judge(&self, now: Instant, for_error: f64, for_latency: f64) -> Verdict {
        self.current(now).judge(for_error, for_latency)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Faults, Instant)>> {
        // Nothing panics while it holds the lock, and any state in it is a valid one.
        self.requested
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept() {
        let faults = Faults {
            error_rate: 0.2,
            latency_ms: 300,
            latency_share: 0.5,
            ..Faults::default()
        };
        let delay = Some(Duration::from_millis(300));
        assert_eq!(faults.judge(0.19, 0.49), Verdict { delay, fails: true });
        assert_eq!(
            faults.judge(0.2, 0.5),
            Verdict {
                delay: None,
                fails: false
            }
        );
        assert_eq!(
            Faults::default().judge(0.0, 0.0),
            Verdict {
                delay: None,
                fails: false
            }
        );
    }

    #[test]
    fn requested_faults_end() {
        let state = FaultState::new(Faults {
            error_rate: 0.1,
            ..Faults::default()
        });
        let now = Instant::now();
        state.set(
            Faults {
                error_rate: 1.0,
                for_seconds: 10,
                ..Faults::default()
            },
            now,
        );
        assert!(state.judge(now + Duration::from_secs(9), 0.9, 0.0).fails);
        assert!(!state.judge(now + Duration::from_secs(10), 0.9, 0.0).fails);
        state.set(Faults::default(), now);
        state.clear();
        assert_eq!(state.current(now).error_rate, 0.1);
    }

    #[test]
    fn requests_are_checked() {
        let parse = |text| serde_json::from_str::<Faults>(text);
        let faults = parse(
            r#"{"errorRate":0.2,"latencyMs":300,"latencyShare":0.5,"crash":false,"forSeconds":60}"#,
        );
        assert!(faults.is_ok_and(|faults| faults.check().is_ok()));
        assert!(parse(r#"{"errorrate":0.2}"#).is_err());
        assert!(parse(r#"{"errorRate":1.2}"#).is_ok_and(|faults| faults.check().is_err()));
        assert!(parse(r#"{"forSeconds":0}"#).is_ok_and(|faults| faults.check().is_err()));
        assert!(Faults::of_environment(&Environment::of(&[("FAULT_ERROR_RATE", "2")])).is_err());
    }
}
