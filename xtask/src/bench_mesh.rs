//! `cargo xtask bench-mesh`: a replica of the mesh's control plane with many proxies, and what that takes.

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{capture, cargo};
use crate::page;
use crate::progress::step;

/// What each figure is.
const FIGURES: [(&str, &str); 12] = [
    (
        "xds_first_seconds",
        "until all proxies were told everything, from when the first connected",
    ),
    (
        "mesh_idle_cpu_percent",
        "processor time of the replica while nothing changes",
    ),
    (
        "xds_ack_p50_ms",
        "one endpoint changes, until the last proxy acknowledged it",
    ),
    ("xds_ack_p99_ms", "the same, the slowest of 40 changes"),
    (
        "xds_compile_p50_ms",
        "the part of it in which resources are compiled",
    ),
    (
        "mesh_cpu_per_change_ms",
        "processor time of the replica for a change that all proxies are told",
    ),
    (
        "xds_resources_per_change",
        "resources that a proxy is sent when one endpoint changes",
    ),
    ("xds_bytes_per_change", "bytes of it, before TLS"),
    (
        "xds_service_ack_p50_ms",
        "a service comes, until the last proxy acknowledged its clusters and its listener",
    ),
    ("xds_bytes_per_service", "bytes of them, before TLS"),
    (
        "mesh_rss_mb",
        "resident memory of the replica, all proxies connected",
    ),
    (
        "signatures_per_s",
        "certificates that two threads sign in a second",
    ),
];

/// How much to measure with.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Proxies that are connected
    #[arg(long, default_value_t = 1000)]
    proxies: usize,
    /// Endpoints in the cluster, 20 of each service
    #[arg(long, default_value_t = 10_000)]
    endpoints: usize,
}

/// Measures, prints the figures, and writes them down.
pub(crate) fn run(options: &Options) -> Result<()> {
    let arguments = ["bench", "--package", "fairlead-mesh", "--bench", "plane"];
    let mut bench = cargo(&arguments)?;
    bench
        .env("BENCH_PROXIES", options.proxies.to_string())
        .env("BENCH_ENDPOINTS", options.endpoints.to_string());
    let said = step("measure the control plane of the mesh", || {
        capture(&mut bench)
    })?;
    let mut rows = String::new();
    for (name, what) in FIGURES {
        let beginning = format!("figure {name} ");
        let value = said.lines().find_map(|line| line.strip_prefix(&beginning));
        let value = value.with_context(|| format!("the benchmark does not print {name}"))?;
        rows.push_str(&format!("| {name} | {value} | {what} |\n"));
        println!("{beginning}{value}");
    }
    let section = format!(
        "`make bench-mesh`: one replica as a process of its own, with {} proxies over mutual TLS and {} endpoints; what proxies do with what they\n\
         are told is left out. Both share the machine's cores. Absolute times belong to that machine.\n\n\
         | figure | value | what it is |\n|---|---|---|\n{rows}",
        options.proxies, options.endpoints
    );
    page::replace("## The mesh", &section)
}
