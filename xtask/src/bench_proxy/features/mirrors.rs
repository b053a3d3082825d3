//! What live requests notice of their copies, where those have a hard time.

use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::super::load::Load;
use super::super::measure::median;
use super::super::report::{Table, shown};
use super::super::servers::{Endpoints, Manner};
use super::{Loaded, Variant, push_cluster, ratio, set_options};
use crate::bench_proxy::{Bench, Measured};
use crate::proxies::envoy::routes;

const LIVE: u16 = 9150;
const DARK: u16 = 9160;
/// Nobody listens there.
const NOBODY: u16 = 9169;

/// Measures a route without copies, the same once more, which shows what chance does, and with copies to endpoints in trouble.
pub(super) fn measure(bench: &Bench) -> Result<Measured> {
    let loaded = Loaded {
        case: super::MIRRORS,
        load: Load::Constant(16),
        headers: &[],
    };
    let live = Endpoints::start(LIVE, &[Manner::Usual; 4])?.ports();
    let late = Manner::Slow(Duration::from_millis(200));
    let dark = Endpoints::start(DARK, &[late, Manner::Failing])?.ports();
    let copied = |place, name, port| {
        loaded.start(bench, (name, place), &live, move |own: &mut Value| {
            mirror(own, port);
        })
    };
    let mut variants = [
        loaded.start(bench, ("no copies", 0), &live, |_| {})?,
        loaded.start(bench, ("no copies, once more", 4), &live, |_| {})?,
        copied(1, "copies, nobody listens", NOBODY)?,
        copied(2, "copies, answered after 200 ms", dark[0])?,
        copied(3, "copies, answered with 503", dark[1])?,
    ];
    loaded.warm(bench, &variants)?;
    loaded.rounds(bench, &mut variants)?;
    let beside = |own: &Variant| ratio(own.latencies(1), variants[0].latencies(1));
    let row = |own: &Variant| {
        let failed = own.sum(|sample| sample.failed);
        vec![
            own.name.to_owned(),
            shown(Some(median(own.latencies(0))), 0),
            shown(Some(median(own.latencies(1))), 0),
            shown(Some(beside(own)), 3),
            shown(Some(median(own.costs())), 1),
            shown(Some(failed), 0),
        ]
    };
    let table = Table {
        title:
            "Live requests of our proxy before endpoints that take 5 ms; 1,000 requests a second"
                .to_owned(),
        header: vec![
            "route",
            "p50 us",
            "p99 us",
            "p99 to none",
            "CPU us/request",
            "failed",
        ],
        rows: variants.iter().map(row).collect(),
    };
    let worst = variants[2..].iter().map(beside).fold(0.0, f64::max);
    let figures = [
        ("mirror_live_p99_ratio", worst),
        ("mirror_live_p99_noise", beside(&variants[1])),
    ];
    Ok((
        table,
        figures.map(|(name, value)| (name.to_owned(), value)).into(),
    ))
}

/// Every request is copied, and answers are compared.
fn mirror(bootstrap: &mut Value, port: u16) {
    routes(bootstrap)[0]["route"]["request_mirror_policies"] = json!([{"cluster": "dark"}]);
    set_options(
        bootstrap,
        json!({"mirror": {"safe_only": true, "compare": true}}),
    );
    push_cluster(bootstrap, "dark", port);
}
