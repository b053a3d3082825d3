//! What oha, which makes load, says.

use anyhow::{Context, Result};
use serde_json::Value;

/// What one run found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// Requests that were answered.
    pub(crate) requests: f64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// What came back.
    pub(crate) bytes: f64,
    /// Answers that were none, or that were no success.
    pub(crate) failed: f64,
    /// What failed, and how often.
    pub(crate) why: String,
    /// Microseconds that 50, 99 and 99.9 of a hundred stayed below.
    pub(crate) latency: [Option<f64>; 3],
}

/// Reads the JSON it writes.
///
/// # Errors
/// When it is none, or says no figures.
pub(crate) fn read(said: &str) -> Result<Found> {
    let found: Value = serde_json::from_str(said).context("failed to read what oha said")?;
    let number = |value: &Value| value.as_f64();
    let codes = found["statusCodeDistribution"].as_object();
    let codes = codes.context("oha said no status codes")?;
    let sum = |wanted: &dyn Fn(&str) -> bool| -> f64 {
        let chosen = codes.iter().filter(|(code, _)| wanted(code));
        chosen.filter_map(|(_, count)| number(count)).sum()
    };
    let errors = found["errorDistribution"].as_object();
    // What was under way at the end is ended, and is no failure.
    let lost: f64 = errors
        .into_iter()
        .flatten()
        .filter(|(error, _)| !error.contains("deadline"))
        .filter_map(|(_, count)| number(count))
        .sum();
    let latency = ["p50", "p99", "p99.9"]
        .map(|name| number(&found["latencyPercentiles"][name]).map(|seconds| seconds * 1e6));
    Ok(Found {
        requests: sum(&|_| true),
        seconds: number(&found["summary"]["total"]).context("oha said no time")?,
        bytes: number(&found["summary"]["totalData"]).unwrap_or_default(),
        failed: sum(&|code| !code.starts_with('2')) + lost,
        why: format!(
            "{} {}",
            found["statusCodeDistribution"], found["errorDistribution"]
        ),
        latency,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn oha_is_read_from_its_json() {
        let said = r#"{
            "summary": {"successRate": 1.0, "total": 3.0, "requestsPerSec": 999.0, "totalData": 383616},
            "latencyPercentiles": {"p50": 0.000185, "p99": 0.000511, "p99.9": 0.0012, "p99.99": null},
            "statusCodeDistribution": {"200": 2990, "503": 7},
            "errorDistribution": {"aborted due to deadline": 2, "connection refused": 1}
        }"#;
        let sample = read(said).expect("all is there");
        assert_eq!((sample.requests, sample.failed), (2997.0, 8.0));
        let micros = sample.latency.map(|value| value.map(f64::round));
        assert_eq!(micros, [Some(185.0), Some(511.0), Some(1200.0)]);
        assert!(read("error: no such host").is_err());
    }
}
