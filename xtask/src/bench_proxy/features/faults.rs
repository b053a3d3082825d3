//! How many requests go wrong on purpose, beside how many should.

use anyhow::Result;
use serde_json::json;

use super::super::load::Load;
use super::super::report::{Table, shown};
use super::{Loaded, TYPES, push_filters};
use crate::bench_proxy::{Bench, Measured};
use crate::proxies::nginx::PLAIN;

/// The share that is configured.
const SHARE: f64 = 0.1;
/// The quantile of the normal distribution for an interval that has 99 of 100.
const QUANTILE: f64 = 2.575_829;

/// Measures the share.
pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let loaded = Loaded {
        case: super::FAULTS,
        load: Load::Http1(32),
        headers: &[],
    };
    let mut variants = [loaded.start(bench, ("faults", 0), &[PLAIN], |bootstrap| {
        push_filters(
            bootstrap,
            vec![json!({"name": "faults", "typed_config": {
                "@type": format!("{TYPES}.filters.http.fault.v3.HTTPFault"),
                "abort": {"http_status": 503, "percentage": {"numerator": 10, "denominator": "HUNDRED"}},
            }})],
        );
    })?];
    loaded.warm(bench, &variants)?;
    loaded.rounds(bench, &mut variants)?;
    let [own] = &variants;
    let requests = own.sum(|sample| sample.requests);
    let failed = own.sum(|sample| sample.failed);
    let (share, half) = (failed / requests, half_width(SHARE, requests));
    let error = (share - SHARE).abs() / half;
    let table = Table {
        title: "Our proxy with a fault that answers 503 to 10 % of requests".to_owned(),
        header: vec!["requests", "share %", "99 % interval, +- %", "error in it"],
        rows: vec![vec![
            format!("{requests:.0}"),
            shown(Some(share * 100.0), 3),
            shown(Some(half * 100.0), 3),
            shown(Some(error), 2),
        ]],
    };
    Ok((table, vec![("fault_rate_error".to_owned(), error)]))
}

/// Half of the interval in which a share lies 99 times of 100 when so many requests have this chance each.
fn half_width(share: f64, requests: f64) -> f64 {
    QUANTILE * (share * (1.0 - share) / requests).sqrt()
}

#[cfg(test)]
mod tests {
    use super::half_width;

    #[test]
    fn the_interval_is_narrower_with_more_requests() {
        assert!((half_width(0.5, 10_000.0) - 0.012_879).abs() < 1e-6);
        assert!((half_width(0.5, 1_000_000.0) - 0.001_287_9).abs() < 1e-7);
    }
}
