//! Benchmarks, each on what it needs: the operator on a control plane without nodes.

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{built, capture, show_live, target};
use crate::install::kubectl;
use crate::paths::root;
use crate::progress::step;
use crate::{bootstrap, cluster, image, page};

/// The cluster that the benchmark makes.
const CLUSTER: &str = "bench";

/// How much to measure with.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Releases, each with three resources
    #[arg(long, default_value_t = 10_000)]
    releases: usize,
    /// End once the releases are made and taken up; docs/benchmarks.md stays as it is
    #[arg(long)]
    making_only: bool,
    #[command(flatten)]
    version: cluster::Version,
}

/// Measures the operator, and takes the cluster down however it ends.
pub(crate) fn operator(options: &Options) -> Result<()> {
    bootstrap::run()?;
    let binary = image::binary("fairlead", &image::Build::Plain)?;
    if cluster::makes_its_own()? {
        cluster::down(CLUSTER)?;
    }
    cluster::up(CLUSTER, true, options.version)?;
    let outcome = measure(options, &binary);
    let down = cluster::down(CLUSTER);
    outcome?;
    down
}

fn measure(options: &Options, binary: &std::path::Path) -> Result<()> {
    let kubeconfig = cluster::kubeconfig(CLUSTER)?;
    let crds = root().join("manifests/crds");
    capture(kubectl(&kubeconfig, ["apply", "--server-side", "-f"]).arg(crds))?;
    capture(&mut kubectl(
        &kubeconfig,
        ["create", "namespace", "fairlead-system"],
    ))?;
    let bench = built("the benchmark", "fairlead-e2e", "bench-operator")?;
    let mut bench = std::process::Command::new(bench);
    bench
        .env("KUBECONFIG", &kubeconfig)
        .env("FAIRLEAD_BIN", binary)
        .env("BENCH_RELEASES", options.releases.to_string());
    if options.making_only {
        bench.env("BENCH_MAKING_ONLY", "1");
        return step("measure the operator", || show_live(&mut bench));
    }
    let report = target()?.join("bench-operator.md");
    bench.env("BENCH_REPORT", &report);
    step("measure the operator", || show_live(&mut bench))?;
    let section = std::fs::read_to_string(&report)
        .with_context(|| format!("failed to read {}", report.display()))?;
    page::replace("## The operator", &section)
}
