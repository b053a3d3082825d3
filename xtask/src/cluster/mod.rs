//! A real Kubernetes on this machine, or the one that is already there.
//!
//! In: a name. Out: processes in a network namespace and a cgroup of their own, everything they write in one
//! folder, and a kubeconfig. docs/cluster.md says what it is made of.

mod boot;
mod cgroup;
mod config;
mod external;
mod layout;
mod network;
mod pki;
mod process;
mod teardown;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::command::{capture, command};
use crate::progress::step;
use crate::tools;
use external::Choice;
use layout::Layout;

/// What can be done with a cluster.
#[derive(Debug, Subcommand)]
pub(crate) enum Action {
    /// Start the cluster, or check that it is well
    Up {
        #[command(flatten)]
        which: Which,
        /// Only etcd, API server and controller manager
        #[arg(long)]
        control_plane_only: bool,
        #[command(flatten)]
        version: Version,
    },
    /// Take the cluster down and leave nothing behind
    Down {
        #[command(flatten)]
        which: Which,
    },
    /// Say what runs
    Status {
        #[command(flatten)]
        which: Which,
    },
    /// Load an image archive into the cluster's node
    LoadImage {
        /// A file made by `xtask image`, `buildah push` or `docker save`
        file: PathBuf,
        #[command(flatten)]
        which: Which,
    },
    /// Print the path of the administrator's kubeconfig
    Kubeconfig {
        #[command(flatten)]
        which: Which,
    },
}

/// Which cluster.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// The cluster's name
    #[arg(long, default_value = DEFAULT)]
    pub(crate) name: String,
}

/// Which version of Kubernetes a cluster made here is of.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct Version {
    /// The version of Kubernetes
    #[arg(long, value_enum, default_value_t)]
    kubernetes: Kubernetes,
}

/// The versions that are pinned.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Kubernetes {
    /// What tests and benchmarks run on
    #[default]
    #[value(name = "1.36")]
    Usual,
    /// The oldest that Fairlead runs on
    #[value(name = "1.35")]
    Oldest,
}

impl Version {
    fn module(self) -> &'static tools::Module {
        match self.kubernetes {
            Kubernetes::Usual => &tools::KUBERNETES,
            Kubernetes::Oldest => &tools::KUBERNETES_OLDEST,
        }
    }
}

/// The name of the cluster when none is given.
pub(crate) const DEFAULT: &str = "fairlead";

/// Does what was asked.
pub(crate) fn run(action: &Action) -> Result<()> {
    match action {
        Action::Up {
            which,
            control_plane_only,
            version,
        } => up(&which.name, *control_plane_only, *version),
        Action::Down { which } => down(&which.name),
        Action::Status { which } => status(&which.name),
        Action::LoadImage { file, which } => load_image(&which.name, file),
        Action::Kubeconfig { which } => {
            println!("{}", kubeconfig(&which.name)?.display());
            Ok(())
        }
    }
}

/// Brings the chosen cluster up.
pub(crate) fn up(name: &str, control_plane_only: bool, version: Version) -> Result<()> {
    match Choice::from_environment()? {
        Choice::Own => boot::up(name, control_plane_only, version.module()),
        Choice::Current => external::check_current(),
        Choice::Kind => external::kind_up(name),
    }
}

/// Takes the chosen cluster down; one that somebody else made is left alone.
pub(crate) fn down(name: &str) -> Result<()> {
    match Choice::from_environment()? {
        Choice::Own => teardown::down(name),
        Choice::Current => external::leave_alone(),
        Choice::Kind => external::kind_down(name),
    }
}

/// The kubeconfig of the chosen cluster.
pub(crate) fn kubeconfig(name: &str) -> Result<PathBuf> {
    match Choice::from_environment()? {
        Choice::Own => Ok(existing(name)?.kubeconfig()),
        Choice::Current => external::current_kubeconfig(),
        Choice::Kind => external::kind_kubeconfig(name),
    }
}

/// The name that the API server of the chosen cluster calls webhooks by, where it shows them a certificate of the cluster's authority.
pub(crate) fn webhook_caller(name: &str) -> Result<Option<&'static str>> {
    if !makes_its_own()? {
        return Ok(None);
    }
    // One that an older version of this program made has none.
    let is_there = existing(name)?.file(config::ADMISSION).exists();
    Ok(is_there.then_some(pki::WEBHOOK_CALLER))
}

/// Loads an image archive into the chosen cluster.
pub(crate) fn load_image(name: &str, file: &Path) -> Result<()> {
    if !file.is_file() {
        bail!("{} is no file", file.display());
    }
    step(
        &format!("load {}", file.display()),
        || match Choice::from_environment()? {
            Choice::Own => boot::import(&existing(name)?, file),
            Choice::Current => external::load_image(file),
            Choice::Kind => external::kind_load(name, file),
        },
    )
}

/// The ends of all logs, for whoever looks at a failed run.
pub(crate) fn log_tails(name: &str) -> Result<Vec<(String, String)>> {
    let Some(layout) = Layout::load(name)? else {
        return Ok(Vec::new());
    };
    Ok(process::started(&layout)
        .into_iter()
        .map(|(program, _)| {
            let tail = process::tail_of(&layout.log(&program));
            (program, tail)
        })
        .collect())
}

fn status(name: &str) -> Result<()> {
    if !matches!(Choice::from_environment()?, Choice::Own) {
        return external::check_current();
    }
    let layout = existing(name)?;
    println!("cluster      {name}");
    println!("kubeconfig   {}", layout.kubeconfig().display());
    println!("API server   {}", layout.api_url());
    println!("pods         {}", layout.pod_ranges().join(" "));
    println!(
        "services     {} (DNS {})",
        layout.service_ranges().join(" "),
        layout.dns_address()
    );
    for (program, process) in process::started(&layout) {
        let state = if process.alive() { "runs" } else { "has ended" };
        println!(
            "{program:<24} {state:<10} pid {:<8} {}",
            process.pid(),
            layout.log(&program).display()
        );
    }
    boot::health(&layout)?;
    if layout.log("coredns").exists() && !boot::dns_answers(&layout) {
        bail!("DNS does not answer at {}", layout.dns_address());
    }
    println!("well");
    Ok(())
}

fn existing(name: &str) -> Result<Layout> {
    Layout::load(name)?
        .with_context(|| format!("cluster {name} is not up: cargo xtask cluster up --name {name}"))
}

/// kubectl as the cluster's administrator.
fn kubectl(layout: &Layout, arguments: &[&str]) -> Result<String> {
    let mut kubectl = command("kubectl", ["--kubeconfig"]);
    kubectl.arg(layout.kubeconfig()).args(arguments);
    capture(&mut kubectl)
}

/// Whether the cluster is one that we make on this machine.
pub(crate) fn makes_its_own() -> Result<bool> {
    Ok(Choice::from_environment()? == Choice::Own)
}
