//! `cargo xtask soak-mesh`: a cluster with load in its mesh while parts of Fairlead are killed, the API server hangs and roots are
//! replaced.

use anyhow::Result;
use clap::Args;

use crate::command::{cargo, show_live};
use crate::progress::step;
use crate::{bootstrap, cluster, image, install};

/// The cluster that it makes.
const CLUSTER: &str = "soak";

/// How long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Seconds for which parts are killed
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Seconds for which the API server hangs
    #[arg(long, default_value_t = 60)]
    away: u32,
    /// All of it for ten minutes each
    #[arg(long)]
    full: bool,
}

/// Runs it, and takes the cluster down however it ends.
pub(crate) fn run(options: &Options) -> Result<()> {
    bootstrap::run()?;
    step("replace roots under load", || {
        let arguments = [
            "test",
            "--quiet",
            "--package",
            "fairlead-mesh",
            "--test",
            "rotation",
            "--",
            "--nocapture",
        ];
        let mut rotation = cargo(&arguments)?;
        rotation.env("FAIRLEAD_ROTATION_SECONDS", "10");
        show_live(rotation.env("FAIRLEAD_ROTATION_CALLERS", "10"))
    })?;
    if cluster::makes_its_own()? {
        cluster::down(CLUSTER)?;
    }
    cluster::up(CLUSTER, false, cluster::Version::default())?;
    let outcome = soak(options);
    let down = cluster::down(CLUSTER);
    outcome?;
    down
}

fn soak(options: &Options) -> Result<()> {
    image::all_into(CLUSTER)?;
    let kubeconfig = cluster::kubeconfig(CLUSTER)?;
    install::install(CLUSTER, 2)?;
    let (seconds, away) = match options.full {
        true => (600, 600),
        false => (options.seconds, options.away),
    };
    let arguments = [
        "run",
        "--quiet",
        "--package",
        "fairlead-e2e",
        "--bin",
        "soak-mesh",
    ];
    let mut soak = cargo(&arguments)?;
    soak.env("KUBECONFIG", kubeconfig)
        .env("SOAK_SECONDS", seconds.to_string())
        .env("SOAK_AWAY_SECONDS", away.to_string());
    step("kill parts under load, and let the API server hang", || {
        show_live(&mut soak)
    })
}
