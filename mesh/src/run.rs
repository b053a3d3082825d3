//! Puts a replica of the control plane together.

use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_operator::exposition::join;
use fairlead_operator::metrics::Metrics as ClientMetrics;
use fairlead_operator::{admin, client, listen};
use fairlead_plan::mesh::{CONTROL, MeshCapture, spiffe};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::audits::Audits;
use crate::authority::{Authority, Change, Keeper, LEAF_LIFE, keep};
use crate::compile::{Compiled, Compiler};
use crate::facts::Facts;
use crate::feed::Feed;
use crate::lead::{Leader, lead};
use crate::metrics::Metrics;
use crate::missed::Missed;
use crate::misused;
use crate::refusals::Refusals;
use crate::serve::{Names, Plane, Proxies, Replicas, TokenReviews, Turns, serve};
use crate::trust;
use crate::uncaptured::Uncaptured;

/// How many misused tokens may wait to be told of.
const MOST_MISUSES: usize = 64;

/// Settings of the process.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace that it runs in.
    pub namespace: String,
    /// The name of this replica.
    pub identity: String,
    /// The trust domain.
    pub trust_domain: String,
    /// Where proxies are answered.
    pub listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics are served.
    pub admin: SocketAddr,
    /// What brings the connections of pods to their proxies.
    pub capture: MeshCapture,
}

/// Why the control plane ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no cluster to connect to.
    #[error("failed to connect to the cluster: {source}")]
    Connect {
        /// The cause.
        source: Box<kube::Error>,
    },
    /// An address cannot be listened on.
    #[error("failed to serve {address}: {source}")]
    Serve {
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The trust domain is none.
    #[error("--trust-domain: {domain:?} is no trust domain")]
    TrustDomain {
        /// What was given.
        domain: String,
    },
}

/// Serves until `stop`.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    let names = names(&config)?;
    let client_metrics = Arc::new(ClientMetrics::default());
    let client = client::connect(&client_metrics)
        .await
        .map_err(|source| RunError::Connect {
            source: Box::new(source),
        })?;
    let failed = |address: SocketAddr| move |source| RunError::Serve { address, source };
    let listener = listen(config.listen).await.map_err(failed(config.listen))?;
    let authority = watch::Sender::new(None);
    let facts = watch::Sender::new(None);
    let compiled = watch::Sender::new(None);
    let metrics = Arc::new(Metrics::default());
    let proxies: Arc<Proxies> = Arc::default();
    let replicas = Replicas {
        authority: authority.subscribe(),
        compiled: compiled.subscribe(),
        proxies: Arc::clone(&proxies),
        names: names.clone(),
        namespace: config.namespace.clone(),
    };
    let (misuses, misused) = mpsc::channel(MOST_MISUSES);
    let plane = Plane {
        authority: authority.subscribe(),
        compiled: compiled.subscribe(),
        facts: facts.subscribe(),
        replicas: replicas.clone(),
        review: Arc::new(TokenReviews(client.clone())),
        trust_domain: config.trust_domain.clone(),
        leaf_life: LEAF_LIFE,
        proxies,
        figures: Arc::default(),
        metrics: Arc::clone(&metrics),
        misuses,
        turns: Turns::default(),
        stop: stop.clone(),
    };
    let (text, ready) = shown(&plane, &client_metrics);
    let keeper = Keeper {
        client: client.clone(),
        namespace: config.namespace.clone(),
        trust_domain: config.trust_domain.clone(),
    };
    let leader = leader(&config, &keeper, &facts.subscribe(), &replicas, &metrics);
    let telling = misused::tell(client.clone(), &config.identity, misused);
    let feed = Feed::start(client.clone(), client_metrics, stop.clone());
    let spreading = trust::spread(
        client,
        &config.namespace,
        facts.subscribe(),
        authority.subscribe(),
    );
    let compiling = follow(facts.subscribe(), authority.subscribe(), compiled, metrics);
    let work = async {
        tokio::join!(
            keep(keeper, authority),
            feed.follow(&config.trust_domain, facts),
            compiling,
            spreading,
            telling,
            lead(leader),
        )
    };
    tokio::select! {
        () = serve(listener, names, plane) => Ok(()),
        served = admin::serve(config.admin, text, ready, stop.clone()) => match served {
            Err(source) => Err(failed(config.admin)(source)),
            // Its orderly end is none: streams are told first.
            Ok(()) => std::future::pending().await,
        },
        _ = work => Ok(()),
    }
}

/// What the admin interface says.
fn shown(plane: &Plane, client: &Arc<ClientMetrics>) -> (admin::Metrics, admin::Ready) {
    let (metrics, client) = (Arc::clone(&plane.metrics), Arc::clone(client));
    let (proxies, figures) = (Arc::clone(&plane.proxies), Arc::clone(&plane.figures));
    let text = move || join(&[metrics.encode(&proxies, &figures), client.encode()]);
    let (authority, compiled) = (plane.authority.clone(), plane.compiled.clone());
    let is_ready = move || authority.borrow().is_some() && compiled.borrow().is_some();
    (Arc::new(text), Arc::new(is_ready))
}

/// What is done while this replica leads.
fn leader(
    config: &Config,
    keeper: &Keeper,
    facts: &watch::Receiver<Option<Arc<Facts>>>,
    replicas: &Replicas,
    metrics: &Arc<Metrics>,
) -> Leader {
    let uncaptured = || Uncaptured {
        client: keeper.client.clone(),
        identity: config.identity.clone(),
        metrics: Arc::clone(metrics),
    };
    Leader {
        client: keeper.client.clone(),
        namespace: config.namespace.clone(),
        identity: config.identity.clone(),
        change: Change {
            keeper: keeper.clone(),
            facts: facts.clone(),
            replicas: replicas.clone(),
        },
        uncaptured: (config.capture == MeshCapture::Cni).then(uncaptured),
        missed: Missed {
            client: keeper.client.clone(),
            identity: config.identity.clone(),
        },
        audits: Audits {
            client: keeper.client.clone(),
            facts: facts.clone(),
            replicas: replicas.clone(),
        },
        refusals: Refusals {
            client: keeper.client.clone(),
            facts: facts.clone(),
            replicas: replicas.clone(),
        },
    }
}

fn names(config: &Config) -> Result<Names, RunError> {
    let namespace = &config.namespace;
    let id = spiffe(&config.trust_domain, namespace, CONTROL).parse();
    Ok(Names {
        id: id.map_err(|_| RunError::TrustDomain {
            domain: config.trust_domain.clone(),
        })?,
        dns: vec![
            format!("{CONTROL}.{namespace}.svc"),
            format!("{CONTROL}.{namespace}"),
        ],
    })
}

/// Compiles whenever the cluster or the authority changed.
async fn follow(
    mut facts: watch::Receiver<Option<Arc<Facts>>>,
    mut authority: watch::Receiver<Option<Arc<Authority>>>,
    compiled: watch::Sender<Option<Arc<Compiled>>>,
    metrics: Arc<Metrics>,
) {
    let mut compiler = Compiler::default();
    loop {
        let now = facts.borrow_and_update().clone();
        let own = authority.borrow_and_update().clone();
        if let (Some(facts), Some(authority)) = (now, own) {
            match compiler.compile(&facts, authority.roots()) {
                Ok(next) => {
                    metrics.compiled();
                    drop(compiled.send_replace(Some(Arc::new(next))));
                }
                Err(error) => {
                    tracing::error!(%error, "proxies keep what they were told; this is a bug")
                }
            }
        }
        let changed = tokio::select! {
            changed = facts.changed() => changed,
            changed = authority.changed() => changed,
        };
        if changed.is_err() {
            return std::future::pending().await;
        }
    }
}
