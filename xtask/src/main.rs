//! The project's own automation: `cargo xtask COMMAND`. The Makefile is its front door.
#![allow(
    clippy::print_stdout,
    reason = "a command line tool answers on standard output"
)]

mod bench;
mod bench_mesh;
mod bench_proxy;
mod bootstrap;
mod cargo_tools;
mod chart;
mod check;
mod cluster;
mod command;
mod demo;
mod generate;
mod h2spec;
mod image;
mod install;
mod interop;
mod names;
mod new_kind;
mod page;
mod paths;
mod progress;
mod proxies;
mod soak;
mod soak_mesh;
mod stock;
mod suite;
mod tools;
mod trained;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The project's own automation
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install what the machine lacks, and check the rest
    Bootstrap,
    /// Build the pinned Go tools, or print the folder of one
    Tools {
        /// One of e2e/cluster or e2e/proxy, such as helm or grpc-interop; all when unset
        name: Option<String>,
    },
    /// A real Kubernetes on this machine
    Cluster {
        #[command(subcommand)]
        action: cluster::Action,
    },
    /// Build container images
    Image(image::Request),
    /// Write the generated files: CRDs, rights, reference pages and install manifests
    Gen(generate::Options),
    /// What the repository promises of itself: crate arrows, each crate alone, generated files, whole kinds, the chart
    Check,
    /// Begin a kind: types, plan, registry, example, case and page
    NewKind(new_kind::Request),
    /// The main job on a real cluster: Fairlead, a platform, and an application in two environments
    Demo,
    /// Measure the operator with many releases, beside the bare cost of the same writes
    BenchOperator(bench::Options),
    /// Measure our proxy beside nginx, HAProxy and Envoy
    BenchProxy(bench_proxy::Options),
    /// Measure the control plane of the mesh with many proxies
    BenchMesh(bench_mesh::Options),
    /// Load in the mesh while its parts are killed, the API server hangs and roots are replaced
    SoakMesh(soak_mesh::Options),
    /// Count the instructions of our proxy and HAProxy for a request
    BenchInstructions(bench_proxy::instructions::Options),
    /// What the specification of HTTP/2 asks of our proxy, in strict mode
    H2spec(h2spec::Options),
    /// gRPC, curl, nghttp, PostgreSQL and Redis through a pair of our proxies
    Interop(interop::Options),
    /// Load a pair of proxies while their configuration changes and endpoints die
    SoakProxy(soak::Options),
    /// Tell a stock Envoy all that the mesh compiles of a cluster that changes, and have gRPC's own client call
    TestEnvoy(stock::Options),
    /// Everything a change must pass: format, lints, unit tests, checks, and the tests on a real cluster
    Test(suite::Options),
}

fn main() -> ExitCode {
    let outcome = match &Arguments::parse().task {
        Task::Bootstrap => bootstrap::run(),
        Task::Tools { name } => tools::run(name.as_deref()),
        Task::Cluster { action } => cluster::run(action),
        Task::Image(request) => image::run(request),
        Task::Gen(options) => generate::run(options),
        Task::Check => check::run(),
        Task::NewKind(request) => new_kind::run(request),
        Task::Demo => demo::run(),
        Task::BenchOperator(options) => bench::operator(options),
        Task::BenchProxy(options) => bench_proxy::run(options),
        Task::BenchMesh(options) => bench_mesh::run(options),
        Task::SoakMesh(options) => soak_mesh::run(options),
        Task::BenchInstructions(options) => bench_proxy::instructions::run(options),
        Task::H2spec(options) => h2spec::run(options),
        Task::Interop(options) => interop::run(options),
        Task::SoakProxy(options) => soak::run(options),
        Task::TestEnvoy(options) => stock::run(options),
        Task::Test(options) => suite::run(options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }
}
