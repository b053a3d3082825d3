//! Others' clients of the mesh's control plane: a stock Envoy, a cluster that changes often, and what Envoy refuses of what it is
//! told; and gRPC's own client, which calls what it is told.

use anyhow::Result;
use clap::Args;

use crate::command::{cargo, show_live};
use crate::progress::step;
use crate::{bootstrap, proxies};

/// What the tests need.
const PACKAGES: &[(&str, &str)] = &[("/usr/sbin/nft", "nftables"), ("/sbin/ip", "iproute2")];

/// How much to tell it.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Changes of the cluster
    #[arg(long, default_value_t = 10_000)]
    updates: u64,
    /// Which cluster it begins with
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How often gRPC's client calls
    #[arg(long, default_value_t = 10_000)]
    calls: u64,
}

/// Runs the tests with so many changes.
pub(crate) fn run(options: &Options) -> Result<()> {
    bootstrap::packages(PACKAGES)?;
    let envoy = proxies::install::envoy()?;
    let mut tests = cargo(&[
        "test",
        "--package",
        "fairlead-mesh",
        "--test",
        "envoy",
        "--",
        "--nocapture",
    ])?;
    tests
        .env("FAIRLEAD_ENVOY", envoy)
        .env("FAIRLEAD_ENVOY_UPDATES", options.updates.to_string())
        .env("FAIRLEAD_ENVOY_SEED", options.seed.to_string());
    step("tell Envoy", || show_live(&mut tests))?;
    let mut tests = cargo(&["test", "--package", "fairlead-mesh", "--test", "grpc"])?;
    tests
        .env("FAIRLEAD_GRPC", proxies::install::grpc()?)
        .env("FAIRLEAD_GRPC_CALLS", options.calls.to_string());
    step("tell gRPC's client", || show_live(&mut tests))
}
