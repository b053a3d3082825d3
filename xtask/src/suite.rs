//! Everything a change must pass, in the order of what it costs, with the time of each part.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Args;

use crate::command::{cargo, show_live};
use crate::progress::{note, step};
use crate::{bootstrap, cluster, image, install, proxies, tools};

/// The cluster that the tests make; not the one a developer may have up.
const CLUSTER: &str = "test";

/// Where the tests on the cluster find the programs that they run, by environment variable.
const TOOLS: [(&str, &tools::Module, &str); 3] = [
    ("FAIRLEAD_HELM", &tools::HELM, "helm"),
    ("FAIRLEAD_KSTATUS", &tools::KSTATUS, "kstatus"),
    ("FAIRLEAD_GITOPS_AGENT", &tools::GITOPS, "agent"),
];

/// What to run.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Leave out what needs a cluster
    #[arg(long)]
    no_cluster: bool,
    /// Leave the cluster up afterwards
    #[arg(long)]
    keep: bool,
    /// Tests on the cluster that run at the same time
    #[arg(long, default_value_t = 4)]
    threads: usize,
    #[command(flatten)]
    version: cluster::Version,
}

/// Runs all parts, and takes the cluster down however they end.
pub(crate) fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    bootstrap::run()?;
    part("format", &mut cargo(&["fmt", "--all", "--check"])?)?;
    part(
        "lints",
        &mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ])?,
    )?;
    let mut tests = cargo_test(&["--workspace", "--exclude", "fairlead-e2e", "--quiet"])?;
    // The proxy is compared with it.
    tests.env("FAIRLEAD_ENVOY", proxies::install::envoy()?);
    tests.env("FAIRLEAD_GRPC", proxies::install::grpc()?);
    part("unit tests", &mut tests)?;
    part("checks", &mut itself("check")?)?;
    if !options.no_cluster {
        let outcome = on_cluster(options);
        if outcome.is_err() {
            print_logs();
        }
        let down = if options.keep {
            Ok(())
        } else {
            cluster::down(CLUSTER)
        };
        outcome?;
        down?;
    }
    note(&format!(
        "everything passed in {:.0} s",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn on_cluster(options: &Options) -> Result<()> {
    if cluster::makes_its_own()? {
        tools::ensure(tools::ALL)?;
        // One that a killed run left is worth nothing to this one: its objects are in an unknown state.
        cluster::down(CLUSTER)?;
    }
    cluster::up(CLUSTER, false, options.version)?;
    image::all_into(CLUSTER)?;
    let kubeconfig = cluster::kubeconfig(CLUSTER)?;
    install::install(CLUSTER, 2)?;
    let threads = format!("--test-threads={}", options.threads);
    let mut tests = cargo_test(&["--package", "fairlead-e2e", "--", &threads])?;
    tests.env("KUBECONFIG", kubeconfig);
    tests.env("FAIRLEAD_CLI", install::command_line()?);
    tests.env("FAIRLEAD_PROXY", install::proxy()?);
    tests.env("FAIRLEAD_CLUSTER", CLUSTER);
    tests.env("FAIRLEAD_XTASK", own_file()?);
    for (variable, module, program) in TOOLS {
        tests.env(variable, module.ensure()?.join(program));
    }
    part("tests on the cluster", &mut tests)
}

/// Tests, whose failures are what they say of themselves: a trace would bury that under calls of the runtime.
fn cargo_test(arguments: &[&str]) -> Result<Command> {
    let mut tests = cargo(&[&["test"], arguments].concat())?;
    tests.env("RUST_BACKTRACE", "0");
    Ok(tests)
}

fn part(what: &str, command: &mut Command) -> Result<()> {
    step(what, || show_live(command))
}

/// This program, with another task.
fn itself(task: &str) -> Result<Command> {
    let mut command = Command::new(own_file()?);
    command.arg(task);
    Ok(command)
}

/// This program's file; cargo may have put a newer one in its place since this run began.
fn own_file() -> Result<PathBuf> {
    let file = std::env::current_exe().context("failed to find this program's own file")?;
    let text = file.to_string_lossy();
    Ok(text
        .strip_suffix(" (deleted)")
        .map_or_else(|| file.clone(), PathBuf::from))
}

fn print_logs() {
    for (program, tail) in cluster::log_tails(CLUSTER).unwrap_or_default() {
        eprintln!("---- the end of {program}'s log\n{tail}");
    }
}
