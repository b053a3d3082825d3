//! What late answers cost with a try beside a try, and how many requests more the endpoints get for that.

use anyhow::Result;
use serde_json::{Value, json};

use super::super::load::Load;
use super::super::measure::median;
use super::super::report::{Table, shown};
use super::super::servers::{Endpoints, Manner};
use super::{Loaded, Variant, set_options};
use crate::bench_proxy::{Bench, Measured};

const FIRST_PORT: u16 = 9130;
const ENDPOINTS: usize = 4;

/// Measures a route without hedging and one with.
pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let loaded = Loaded {
        case: super::HEDGING,
        load: Load::Constant(64),
        headers: &[],
    };
    let settings: [(_, fn(&mut Value)); 2] = [("no hedging", |_| {}), ("hedging, 2 %", hedge)];
    let (mut variants, mut endpoints) = (Vec::new(), Vec::new());
    for (place, (name, change)) in (0..).zip(settings) {
        // Each has endpoints of its own, which count what comes to them.
        let own = Endpoints::start(FIRST_PORT + 10 * place, &[Manner::SeldomLate; ENDPOINTS])?;
        variants.push(loaded.start(bench, (name, place), &own.ports(), change)?);
        endpoints.push(own);
    }
    loaded.warm(bench, &variants)?;
    for own in &endpoints {
        own.take();
    }
    loaded.rounds(bench, &mut variants)?;
    let extra = |own: &Variant, endpoints: &Endpoints| {
        let came: u64 = endpoints.take().iter().sum();
        came as f64 / own.sum(|sample| sample.requests) - 1.0
    };
    let found: Vec<_> = variants
        .iter()
        .zip(&endpoints)
        .map(|(own, endpoints)| {
            let latency = |which| median(own.latencies(which));
            (own.name, [0, 1, 2].map(latency), extra(own, endpoints))
        })
        .collect();
    let row = |(name, latencies, extra): &(&str, [f64; 3], f64)| {
        let mut row = vec![(*name).to_owned()];
        row.extend(latencies.map(|value| shown(Some(value / 1e3), 1)));
        row.push(shown(Some(extra * 100.0), 2));
        row
    };
    let table = Table {
        title: "Our proxy before four endpoints that take 5 ms, and a second for every hundredth answer; 1,000 requests a second".to_owned(),
        header: vec!["route", "p50 ms", "p99 ms", "p99.9 ms", "requests more %"],
        rows: found.iter().map(row).collect(),
    };
    let (_, latencies, extra) = found[1];
    let figures = [
        ("hedge_p999_over_p99", latencies[2] / latencies[1]),
        ("hedge_extra_load", extra),
    ];
    let figures = figures.map(|(name, value)| (name.to_owned(), value));
    Ok((table, figures.into()))
}

/// As the example has it.
fn hedge(bootstrap: &mut Value) {
    let retry = json!({"safe_only": true, "hedging": {"extra_load": 2}});
    set_options(bootstrap, json!({"retry": retry}));
    crate::proxies::envoy::routes(bootstrap)[0]["route"]["retry_policy"] =
        json!({"retry_on": "connect-failure,refused-stream", "num_retries": 1});
}
