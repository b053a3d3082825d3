//! The program `fairlead-proxy`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};
use fairlead_model::Snapshot;
use fairlead_model::cluster::Address;
use fairlead_proxy::admin::{self, Admin};
use fairlead_proxy::capture::{self, Capture, Nft, Ports, VerifyError};
use fairlead_proxy::cni::daemon_set::DaemonSet;
use fairlead_proxy::cni::install::Installer;
use fairlead_proxy::config::{Folders, Origin, Sources};
use fairlead_proxy::{
    Shared, certificate, cni, config, faults, hand_over, metrics, overload, service_manager, tls,
    trace, upkeep, worker,
};
use fairlead_xds::Bootstrap;
use ipnet::IpNet;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, reload};

/// How long the last lines of access logs may take to be written; the last spans and figures, twice as long.
const FLUSH: std::time::Duration = std::time::Duration::from_secs(1);

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Fairlead's data plane: carries the traffic of a workload, or of a gateway.
#[derive(Debug, Parser)]
#[command(name = "fairlead-proxy", version)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Carry traffic until told to stop
    Run(Run),
    /// Say whether a configuration is right, and which field is not
    Check(Check),
    /// Keep a certificate of the mesh, its key and whom to trust as files, for programs that are no proxy
    Certificate(Certificate),
    /// Bring the connections of this network namespace to the proxy, by rules for nftables
    Capture(Redirect),
    /// Keep a CNI plug-in on this node that does so for pods which may not
    Cni(Cni),
}

/// Envoy's bootstrap in YAML or JSON
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Configuration {
    /// The configuration: Envoy's bootstrap in YAML or JSON
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The configuration itself
    #[arg(long, value_name = "TEXT")]
    config_yaml: Option<String>,
}

impl Configuration {
    fn origin(&self) -> Origin {
        match (&self.config, &self.config_yaml) {
            (Some(path), _) => Origin::File(path.clone()),
            (None, text) => Origin::Text(text.clone().unwrap_or_default()),
        }
    }
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    configuration: Configuration,
    /// How many workers, one per core
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    cores: u32,
    /// Where sockets change hands: those of the process that runs are taken over, which then ends, and those of this one are
    /// given to the next
    #[arg(long, value_name = "SOCKET")]
    take_over: Option<PathBuf>,
    /// Where what a control plane tells is kept, and used at a start until it tells more; no key is kept
    #[arg(long, value_name = "FOLDER")]
    keep: Option<PathBuf>,
    /// Where the certificate that says who the proxy is is kept with its key, for a start while nobody signs; a folder in memory
    /// is the place for it
    #[arg(long, value_name = "FOLDER")]
    keep_identity: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Check {
    #[command(flatten)]
    configuration: Configuration,
}

#[derive(Debug, Args)]
struct Certificate {
    #[command(flatten)]
    configuration: Configuration,
    /// Where certificate.pem, key.pem and roots.pem are kept
    #[arg(long, value_name = "FOLDER")]
    folder: PathBuf,
    /// End when all of them are there, as an init container does
    #[arg(long)]
    once: bool,
}

impl Certificate {
    fn run(&self) -> Result<()> {
        let _set_level = logs()?;
        let origin = self.configuration.origin();
        let bootstrap = read(&origin)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start")?;
        runtime.block_on(async {
            let mut terminate =
                signal(SignalKind::terminate()).context("failed to listen for signals")?;
            tokio::select! {
                kept = certificate::keep(origin, bootstrap, &self.folder, self.once) => Ok(kept?),
                _ = terminate.recv() => Ok(()),
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        })
    }
}

#[derive(Debug, Args)]
struct Redirect {
    /// The proxy's port for connections that begin here; without it they are left alone
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    outbound: Option<u16>,
    /// The proxy's port for connections that come here; without it they are left alone
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    inbound: Option<u16>,
    /// Users whose connections are left alone: the proxy's own, at least
    #[arg(
        long,
        value_name = "UID",
        value_delimiter = ',',
        required_unless_present = "remove"
    )]
    exempt_uid: Vec<u32>,
    /// Ports to which connections from here are left alone, such as 25 or 8000-8100
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    skip_outbound: Vec<Ports>,
    /// Ports here to which connections are left alone
    #[arg(long, value_name = "PORTS", value_delimiter = ',')]
    skip_inbound: Vec<Ports>,
    /// Networks to which connections from here are left alone, such as 10.0.0.0/8 or fd00::/8
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    skip_network: Vec<IpNet>,
    /// Capture nothing any more
    #[arg(long, conflicts_with_all = ["outbound", "inbound"])]
    remove: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do nothing but find out whether connections from here come to --outbound, where nobody listens yet; it needs no right
    #[arg(long, requires = "outbound", conflicts_with_all = ["remove", "dry_run"])]
    verify: bool,
    /// Where this runs, for what is said when they do not
    #[arg(long, value_name = "NAME", env = "NODE_NAME", default_value = "")]
    node: String,
    /// Where nft is
    #[arg(long, value_name = "FILE", default_value = "/usr/sbin/nft")]
    nft: PathBuf,
}

impl Redirect {
    fn run(&self) -> Result<()> {
        anyhow::ensure!(
            self.remove || self.outbound.is_some() || self.inbound.is_some(),
            "--outbound, --inbound: at least one is needed, or there is nothing to capture"
        );
        let capture = Capture {
            outbound: self.outbound,
            inbound: self.inbound,
            exempt: self.exempt_uid.clone(),
            skip_outbound: self.skip_outbound.clone(),
            skip_inbound: self.skip_inbound.clone(),
            skip_networks: self.skip_network.clone(),
        };
        if self.verify {
            return capture::verify(&capture).map_err(|error| match error {
                VerifyError::NotCaptured { .. } => anyhow::Error::new(error).context(self.advice()),
                other => other.into(),
            });
        }
        let rules = if self.remove {
            capture::removal()
        } else {
            capture.rules()
        };
        if self.dry_run {
            return std::io::Write::write_all(&mut std::io::stdout(), rules.as_bytes())
                .context("failed to say the rules");
        }
        Ok(capture::apply(&Nft::at(&self.nft), &rules)?)
    }

    /// What to do where somebody else should have captured.
    fn advice(&self) -> String {
        let node = match self.node.as_str() {
            "" => "this node",
            name => name,
        };
        let plugin = cni::PLUGIN;
        format!(
            "nothing captures the connections of this pod, so it may not start: the CNI plug-in {plugin} of {node} was not asked when the \
             pod's network was set up. See that the DaemonSet {plugin} has a ready pod on {node} (kubectl get pods -A -o wide -l \
             app.kubernetes.io/component=cni). The mesh then makes this pod anew if a Deployment or the like owns it; delete it yourself if \
             nobody does: a network is set up once, and restarts of containers keep it"
        )
    }
}

#[derive(Debug, Args)]
struct Cni {
    /// The node's folder of CNI plug-ins
    #[arg(long, value_name = "FOLDER", default_value = "/opt/cni/bin")]
    programs: PathBuf,
    /// The node's folder of CNI configuration
    #[arg(long, value_name = "FOLDER", default_value = "/etc/cni/net.d")]
    configuration: PathBuf,
    /// Namespaces whose pods are left alone whatever they say
    #[arg(
        long,
        value_name = "NAMESPACE",
        value_delimiter = ',',
        default_value = "kube-system"
    )]
    exempt_namespace: Vec<String>,
    /// The DaemonSet that runs this, such as kube-system/fairlead-cni: at the end the plug-in goes if it does; without it, it stays
    #[arg(long, value_name = "NAMESPACE/NAME")]
    daemon_set: Option<DaemonSet>,
    /// Only say whether it is in place
    #[arg(long, conflicts_with = "remove")]
    check: bool,
    /// Only take it out
    #[arg(long)]
    remove: bool,
    /// Where nft is, which is brought with it
    #[arg(long, value_name = "FILE", default_value = "/usr/sbin/nft")]
    nft: PathBuf,
}

impl Cni {
    fn run(&self) -> Result<()> {
        let installer = Installer {
            programs: self.programs.clone(),
            configuration: self.configuration.clone(),
            exempt: self.exempt_namespace.clone(),
            nft: self.nft.clone(),
        };
        if self.check {
            return Ok(installer.check()?);
        }
        if self.remove {
            return Ok(installer.take_out()?);
        }
        let _set_level = logs()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("failed to start")?;
        Ok(runtime.block_on(installer.keep(self.daemon_set.as_ref()))?)
    }
}

fn main() -> ExitCode {
    if cni::plugin::is_called(std::env::args_os().next().as_deref()) {
        return cni::plugin::main();
    }
    let command = Command::parse();
    let outcome = match command.what {
        What::Run(run) => start(&run),
        What::Check(check) => read(&check.configuration.origin()).map(|_| ()),
        What::Certificate(certificate) => certificate.run(),
        What::Capture(redirect) => redirect.run(),
        What::Cni(own) => own.run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fairlead-proxy: {error:#}");
            match error.downcast_ref() {
                Some(VerifyError::NotCaptured { .. }) => ExitCode::from(capture::NOT_CAPTURED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Reads the configuration; its error tells all in one line.
fn read(origin: &Origin) -> Result<Bootstrap> {
    config::read(origin).map_err(|error| anyhow::anyhow!("{error}"))
}

/// Logs as JSON to standard error; what is given back sets the level.
fn logs() -> Result<admin::SetLevel> {
    let filter = EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new("info"))
        .context("RUST_LOG")?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .with_writer(std::io::stderr);
    tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .init();
    Ok(Arc::new(move |level| {
        // Envoy's names for what tracing calls warn and error.
        let level = match level {
            "warning" => "warn",
            "critical" => "error",
            other => other,
        };
        if !["trace", "debug", "info", "warn", "error", "off"].contains(&level) {
            return Err(format!(
                "level: {level:?} is unknown; trace, debug, info, warning, error, critical and off are known"
            ));
        }
        handle
            .reload(EnvFilter::new(level))
            .map_err(|error| error.to_string())
    }))
}

fn start(run: &Run) -> Result<()> {
    let set_level = logs()?;
    let begun = Instant::now();
    thread::Builder::new()
        .name("randomness".to_owned())
        .spawn(tls::gather_randomness)
        .context("failed to start a thread")?;
    let origin = run.configuration.origin();
    let bootstrap = read(&origin)?;
    let shared = match &bootstrap.bounds {
        Some(bounds) => Shared::with_bounds(run.cores, bounds),
        None => Shared::new(run.cores),
    };
    let before = match run.take_over.as_deref().map(hand_over::take_over) {
        Some(taken) => taken?.map(|own| own.leave_to(&shared)),
        None => None,
    };
    // What is told; and what workers use, with endpoints as they are now.
    let (snapshots, given) = watch::channel(Arc::new(bootstrap.snapshot.clone()));
    let (live, received) = watch::channel(Arc::<Snapshot>::default());
    let workers: Vec<_> = (0..run.cores)
        .map(|number| {
            let (shared, mut received) = (Arc::clone(&shared), received.clone());
            received.mark_changed();
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker::run(shared, received))
                .context("failed to start a worker")
        })
        .collect::<Result<_>>()?;
    let (sources, whence) = watch::channel(Sources::of(bootstrap.clone()));
    let state = Admin {
        shared: Arc::clone(&shared),
        snapshots: received,
        sources: whence,
        set_level,
        node: (bootstrap.id.clone(), bootstrap.cluster.clone()),
        begun,
        runtime: Arc::new(Mutex::new(BTreeMap::new())),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("failed to start the admin interface")?;
    let has_ended = watch::Sender::new(false);
    let pushed = runtime.block_on(async {
        tokio::spawn(reopen_logs(Arc::clone(&shared)));
        let overload = bootstrap.overload.clone().unwrap_or_default();
        tokio::spawn(overload::watch(Arc::clone(&shared), overload));
        tokio::spawn(service_manager::ready(
            Arc::clone(&shared),
            state.snapshots.clone(),
        ));
        tokio::spawn(trace::export(Arc::clone(&shared), given.clone()));
        if let Some(path) = run.take_over.clone() {
            let snapshots = state.snapshots.clone();
            let succeeding = hand_over::succeed(Arc::clone(&shared), path, before, snapshots);
            tokio::spawn(async move {
                if let Err(error) = succeeding.await {
                    tracing::error!(%error, "no other process can take over");
                }
            });
        }
        let sinks = bootstrap.sinks.clone().unwrap_or_default();
        let pushed = metrics::push(
            Arc::clone(&shared),
            sinks,
            given.clone(),
            has_ended.subscribe(),
        );
        let pushed = tokio::spawn(pushed);
        tokio::spawn(upkeep::look_up(Arc::clone(&shared)));
        tokio::spawn(faults::watch(given.clone()));
        tokio::spawn(upkeep::run(Arc::clone(&shared), given, live));
        let first = bootstrap.clone();
        let folders = Folders {
            told: run.keep.clone(),
            identity: run.keep_identity.clone(),
        };
        tokio::spawn(async move {
            config::watch(origin, first, folders, snapshots, sources).await;
        });
        tokio::select! {
            outcome = serve(bootstrap.admin.as_ref(), state) => outcome,
            outcome = told_to_stop(&shared) => outcome,
        }
        .map(|()| pushed)
    })?;
    for worker in workers {
        worker
            .join()
            .map_err(|_| anyhow::anyhow!("a worker panicked"))??;
    }
    shared.logs.flush(FLUSH);
    has_ended.send_replace(true);
    runtime.block_on(async {
        let pushed = tokio::time::timeout(FLUSH * 2, pushed);
        let _ = tokio::join!(shared.spans.flush(FLUSH * 2), pushed);
    });
    Ok(())
}

/// Serves the admin interface, where there is one.
async fn serve(address: Option<&Address>, admin: Admin) -> Result<()> {
    let shared = Arc::clone(&admin.shared);
    let router = admin::router(admin);
    match address {
        None => std::future::pending().await,
        Some(Address::Socket(address)) => {
            let place = format!("admin {address}");
            let listener = match hand_over::inherited(&shared, &place, 1).pop() {
                Some(socket) => adopted(socket),
                None => TcpListener::bind(address).await,
            }
            .with_context(|| format!("admin.address: failed to listen on {address}"))?;
            let _offered = hand_over::offer(&shared, &place, listener.as_fd())
                .context("admin.address: failed to offer it to the next process")?;
            axum::serve(listener, router)
                .await
                .context("the admin interface ended")
        }
        Some(Address::Path(path)) => {
            let _ = std::fs::remove_file(path);
            let listener = UnixListener::bind(path).with_context(|| {
                format!("admin.address: failed to listen on {}", path.display())
            })?;
            axum::serve(listener, router)
                .await
                .context("the admin interface ended")
        }
        Some(name @ Address::Name(..)) => anyhow::bail!("admin.address: {name} is no IP address"),
    }
}

/// A socket of the process before.
fn adopted(socket: OwnedFd) -> std::io::Result<TcpListener> {
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Has access logs opened again at each SIGUSR1.
async fn reopen_logs(shared: Arc<Shared>) {
    let Ok(mut told) = signal(SignalKind::user_defined1()) else {
        return;
    };
    while told.recv().await.is_some() {
        shared.logs.reopen();
    }
}

/// Waits for a signal, or for the admin interface to be told; then no more is taken, and running requests may end.
async fn told_to_stop(shared: &Shared) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for signals")?;
    let mut draining = shared.draining.subscribe();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
        _ = draining.wait_for(|draining| *draining) => {}
    }
    tracing::info!("draining");
    service_manager::stopping();
    shared.draining.send_replace(true);
    Ok(())
}
