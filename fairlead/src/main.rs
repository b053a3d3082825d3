//! The control plane of Fairlead: one binary, a subcommand for each component, and nothing but wiring.

use std::net::SocketAddr;

use anyhow::Context;
use clap::{Parser, Subcommand};
use fairlead_operator::{Config, telemetry};
use fairlead_webhook::MeshCapture;
use tokio_util::sync::CancellationToken;

/// The caches hold many small objects for long; glibc's allocator leaves holes between them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Fairlead: one Kubernetes operator for the whole way of a change.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    component: Component,
}

#[derive(Subcommand)]
enum Component {
    /// Reconciles Fairlead's kinds.
    Operator(OperatorArguments),
    /// Answers the API server's admission requests.
    Webhook(WebhookArguments),
    /// Tells the mesh's proxies who they are and where everything goes.
    Mesh(MeshArguments),
}

#[derive(clap::Args)]
struct OperatorArguments {
    /// The namespace that the operator runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "fairlead-system")]
    namespace: String,
    /// The name of this replica; one of its own where unset.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// The image of the control plane, for the components that the operator makes.
    #[arg(long, env = "FAIRLEAD_IMAGE", default_value = "localhost/fairlead:dev")]
    image: String,
    /// The pull policy of that image.
    #[arg(long, env = "FAIRLEAD_IMAGE_PULL_POLICY", default_value = "")]
    image_pull_policy: String,
    /// The names of the Secrets by which that image is pulled.
    #[arg(long, env = "FAIRLEAD_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    image_pull_secrets: Vec<String>,
    /// The image of the mesh's proxies, pulled as that is.
    #[arg(
        long,
        env = "FAIRLEAD_PROXY_IMAGE",
        default_value = "localhost/fairlead-proxy:dev"
    )]
    proxy_image: String,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "FAIRLEAD_ADMIN", default_value = "[::]:8080")]
    admin: SocketAddr,
    /// How many passes run at once.
    #[arg(long, env = "FAIRLEAD_CONCURRENCY", default_value_t = 16)]
    concurrency: usize,
    /// Seconds between visits of objects that nothing else wakes.
    #[arg(long, env = "FAIRLEAD_RESYNC_SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    resync_seconds: u64,
}

#[derive(clap::Args)]
struct WebhookArguments {
    /// Where admission requests are answered.
    #[arg(long, env = "FAIRLEAD_WEBHOOK", default_value = "[::]:8443")]
    listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "FAIRLEAD_ADMIN", default_value = "[::]:8080")]
    admin: SocketAddr,
    /// The folder with tls.crt and tls.key.
    #[arg(long, env = "FAIRLEAD_TLS", default_value = "/var/run/fairlead/tls")]
    tls: std::path::PathBuf,
    /// The file with the authorities of callers' certificates, in PEM; everybody is answered where unset.
    #[arg(long, env = "FAIRLEAD_CALLERS")]
    callers: Option<std::path::PathBuf>,
    /// The names of which a caller's certificate has to have one; any does where unset.
    #[arg(
        long,
        env = "FAIRLEAD_CALLER_NAMES",
        value_delimiter = ',',
        requires = "callers"
    )]
    caller_names: Vec<String>,
    /// The namespace that the webhook runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "fairlead-system")]
    namespace: String,
    /// The SPIFFE trust domain of the mesh's identities.
    #[arg(long, env = "FAIRLEAD_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// The image of the mesh's proxies.
    #[arg(
        long,
        env = "FAIRLEAD_PROXY_IMAGE",
        default_value = "localhost/fairlead-proxy:dev"
    )]
    proxy_image: String,
    /// The pull policy of that image.
    #[arg(long, env = "FAIRLEAD_PROXY_IMAGE_PULL_POLICY", default_value = "")]
    proxy_image_pull_policy: String,
    #[command(flatten)]
    captured: Captured,
}

/// What the webhook and the control plane of the mesh have to agree on.
#[derive(clap::Args)]
struct Captured {
    /// What brings the connections of pods to their proxies.
    #[arg(
        long,
        env = "FAIRLEAD_CAPTURE",
        value_enum,
        default_value_t = Capture::InitContainer
    )]
    by: Capture,
}

/// What brings the connections of pods to their proxies.
#[derive(Clone, Copy, clap::ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Capture {
    /// An init container of each pod.
    InitContainer,
    /// The CNI plug-in of their nodes.
    Cni,
}

impl From<Capture> for MeshCapture {
    fn from(capture: Capture) -> Self {
        match capture {
            Capture::InitContainer => Self::InitContainer,
            Capture::Cni => Self::Cni,
        }
    }
}

#[derive(clap::Args)]
struct MeshArguments {
    /// The namespace that the control plane of the mesh runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "fairlead-system")]
    namespace: String,
    /// The name of this replica; one of its own where unset.
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// The SPIFFE trust domain of the identities that it gives.
    #[arg(long, env = "FAIRLEAD_TRUST_DOMAIN", default_value = "cluster.local")]
    trust_domain: String,
    /// Where proxies are answered.
    #[arg(long, env = "FAIRLEAD_MESH", default_value = "[::]:15012")]
    listen: SocketAddr,
    #[command(flatten)]
    captured: Captured,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, env = "FAIRLEAD_ADMIN", default_value = "[::]:8080")]
    admin: SocketAddr,
}

/// The name of a replica.
fn identity(given: Option<String>, component: &str) -> String {
    given.unwrap_or_else(|| format!("fairlead-{component}-{}", std::process::id()))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok()
        .context("failed to choose the TLS provider")?;
    let stop = stop_on_signal().context("failed to listen for signals")?;
    match arguments.component {
        Component::Operator(arguments) => {
            let _telemetry = telemetry::start("fairlead-operator")?;
            let config = Config {
                namespace: arguments.namespace,
                identity: identity(arguments.identity, "operator"),
                image: arguments.image,
                image_pull_policy: arguments.image_pull_policy,
                image_pull_secrets: arguments.image_pull_secrets,
                proxy_image: arguments.proxy_image,
                admin: arguments.admin,
                concurrency: arguments.concurrency,
                resync_seconds: arguments.resync_seconds,
            };
            fairlead_operator::run(config, stop)
                .await
                .context("the operator ended")
        }
        Component::Mesh(arguments) => {
            let _telemetry = telemetry::start("fairlead-mesh")?;
            let config = fairlead_mesh::Config {
                namespace: arguments.namespace,
                identity: identity(arguments.identity, "mesh"),
                trust_domain: arguments.trust_domain,
                listen: arguments.listen,
                admin: arguments.admin,
                capture: arguments.captured.by.into(),
            };
            fairlead_mesh::run(config, stop)
                .await
                .context("the control plane of the mesh ended")
        }
        Component::Webhook(arguments) => {
            let _telemetry = telemetry::start("fairlead-webhook")?;
            let names = arguments.caller_names;
            let callers = |authorities| fairlead_webhook::Callers { authorities, names };
            let config = fairlead_webhook::Config {
                callers: arguments.callers.map(callers),
                listen: arguments.listen,
                admin: arguments.admin,
                tls: arguments.tls,
                injection: fairlead_webhook::Injection {
                    system: arguments.namespace,
                    trust_domain: arguments.trust_domain,
                    image: arguments.proxy_image,
                    pull_policy: arguments.proxy_image_pull_policy,
                    capture: arguments.captured.by.into(),
                },
            };
            fairlead_webhook::run(config, stop)
                .await
                .context("the webhook ended")
        }
    }
}

/// A token that SIGTERM and SIGINT cancel.
fn stop_on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        token.cancel();
    });
    Ok(stop)
}
