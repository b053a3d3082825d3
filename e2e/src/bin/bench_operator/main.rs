//! The operator under load: many releases on a control plane without nodes, beside the bare cost of the same writes.
//!
//! Run by `cargo xtask bench-operator`, which gives `KUBECONFIG`, `FAIRLEAD_BIN` (the operator's binary) and the size. Prints one line
//! `figure NAME VALUE` per figure, and writes the operator's section as Markdown to `BENCH_REPORT`.
#![allow(
    clippy::print_stdout,
    reason = "a benchmark answers on standard output"
)]

mod admission;
mod load;
mod operator;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fairlead_e2e::Cluster;

use crate::load::Load;
use crate::operator::Operator;
use crate::report::Figures;

/// How many resyncs memory is watched over.
const RESYNCS: u32 = 10;
/// Releases made while the operator is killed.
const KILLED_RELEASES: usize = 200;
/// How often it is killed meanwhile.
const KILLS: usize = 50;

fn size(variable: &str, default: usize) -> Result<usize> {
    match std::env::var(variable) {
        Ok(text) => text
            .parse()
            .with_context(|| format!("{variable}: found {text}; a number is needed")),
        Err(_) => Ok(default),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let releases = size("BENCH_RELEASES", 10_000)?;
    let cluster = Cluster::connect().await?;
    let load = Load::new(&cluster, releases);
    let mut figures = Figures::default();
    println!(
        "== {releases} releases with {} resources",
        releases * load::INSTANCES
    );
    load.catalogue().await?;
    let bare = load.bare_write_seconds(2_000).await?;
    figures.add(
        "bare_write_ms",
        bare * 1e3,
        "one write by a plain client, 16 at a time",
    );

    let operator = Operator::start(3600).await?;
    let began = Instant::now();
    load.make("load", releases).await?;
    operator.settle(releases * load::INSTANCES).await?;
    let seconds = began.elapsed().as_secs_f64();
    let totals = operator.totals().await?;
    let count = releases as f64;
    figures.add(
        "operator_writes_per_release",
        totals.writes / count,
        "writes that changed something, status included",
    );
    figures.add(
        "operator_requests_per_release",
        totals.requests / count,
        "API requests, watches left out",
    );
    figures.add(
        "operator_passes_per_s",
        totals.passes / seconds,
        "passes while all releases were made and taken up",
    );
    figures.add("operator_write_ratio", seconds / (totals.writes * bare), "time per write beside the plain client's (the plain client's own writes of the load included)");
    figures.add(
        "operator_cpu_ms_per_release",
        operator.cpu_seconds()? * 1e3 / count,
        "processor time of the operator",
    );
    figures.add(
        "operator_rss_first_mb",
        operator.rss_mb()?,
        "resident memory after making them",
    );
    operator.stop().await?;
    if std::env::var_os("BENCH_MAKING_ONLY").is_some() {
        return Ok(());
    }

    rest(&mut figures, releases).await?;
    killed(&mut figures, &load).await?;
    admission::measure(&mut figures, &cluster).await?;
    report::write(&figures, releases)?;
    Ok(())
}

/// A fresh operator over all objects: how long it takes to see them, what it costs, and that it writes nothing.
async fn rest(figures: &mut Figures, releases: usize) -> Result<()> {
    // Long enough that all objects are passed over and rest follows before the next resync.
    let resync = 20 + releases as u64 / 250;
    let began = Instant::now();
    let operator = Operator::start(resync).await?;
    operator.settle(releases * load::INSTANCES).await?;
    figures.add(
        "operator_start_to_observed_s",
        began.elapsed().as_secs_f64(),
        "from start to every object passed over once",
    );
    let before = operator.totals().await?;
    let first = operator.rss_mb()?;
    let mut last = first;
    for _ in 0..RESYNCS {
        tokio::time::sleep(Duration::from_secs(resync)).await;
        last = operator.rss_mb()?;
    }
    let after = operator.totals().await?;
    figures.add(
        "operator_rss_mb_10k",
        last,
        "resident memory at rest with all objects",
    );
    figures.add("operator_rss_growth_mb", last - first, "over ten resyncs");
    figures.add(
        "operator_writes_at_rest",
        after.writes - before.writes,
        "over ten resyncs; must be 0",
    );
    ensure!(after.passes > before.passes, "no resync took place");
    operator.stop().await
}

/// Kills the operator again and again while releases are made: all must converge, nothing twice, nothing left over.
async fn killed(figures: &mut Figures, load: &Load<'_>) -> Result<()> {
    let making = load.make("kill", KILLED_RELEASES);
    let killing = async {
        for round in 0..KILLS {
            let operator = Operator::start(3600).await?;
            // Long enough to lead and write, and never the same.
            tokio::time::sleep(Duration::from_millis(1_000 + (round as u64 * 737) % 1_900)).await;
            operator.kill().await?;
        }
        anyhow::Ok(())
    };
    let (made, killed) = tokio::join!(making, killing);
    made?;
    killed?;
    let operator = Operator::start(3600).await?;
    let wrong = load.check("kill", KILLED_RELEASES).await?;
    figures.add(
        "operator_wrong_after_kills",
        wrong as f64,
        "releases that did not converge, or have too few or too many resources, after 50 kills",
    );
    ensure!(wrong == 0, "{wrong} releases are wrong after the kills");
    operator.stop().await
}
