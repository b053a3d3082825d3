//! Puts a replica of the control plane together.

use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_operator::metrics::Metrics;
use fairlead_operator::{admin, client};
use fairlead_xds::Shapes;
use fairlead_xds::serve::View;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, Keeper, LEAF_LIFE, keep};
use crate::compile::compile;
use crate::facts::Facts;
use crate::feed::Feed;
use crate::serve::{Names, Plane, TokenReviews, serve};
use crate::trust;

/// The name of the Service and of the service account.
pub const NAME: &str = "fairlead-mesh";

/// Settings of the process.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace that it runs in.
    pub namespace: String,
    /// The trust domain.
    pub trust_domain: String,
    /// Where proxies are answered.
    pub listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics are served.
    pub admin: SocketAddr,
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
    let metrics = Arc::new(Metrics::default());
    let client = client::connect(&metrics)
        .await
        .map_err(|source| RunError::Connect {
            source: Box::new(source),
        })?;
    let failed = |address: SocketAddr| move |source| RunError::Serve { address, source };
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(failed(config.listen))?;
    let authority = watch::Sender::new(None);
    let facts = watch::Sender::new(None);
    let view = watch::Sender::new(None);
    let plane = Plane {
        authority: authority.subscribe(),
        view: view.subscribe(),
        review: Arc::new(TokenReviews(client.clone())),
        trust_domain: config.trust_domain.clone(),
        leaf_life: LEAF_LIFE,
        proxies: Arc::default(),
        stop: stop.clone(),
    };
    let ready: admin::Ready = {
        let (authority, view) = (authority.subscribe(), view.subscribe());
        Arc::new(move || authority.borrow().is_some() && view.borrow().is_some())
    };
    let text: admin::Metrics = {
        let metrics = Arc::clone(&metrics);
        Arc::new(move || metrics.encode())
    };
    let keeper = Keeper {
        client: client.clone(),
        namespace: config.namespace.clone(),
        trust_domain: config.trust_domain.clone(),
    };
    let feed = Feed::start(client.clone(), metrics, stop.clone());
    let spreading = trust::spread(client, facts.subscribe(), authority.subscribe());
    let compiling = follow(facts.subscribe(), authority.subscribe(), view);
    let work = async {
        tokio::join!(
            keep(keeper, authority),
            feed.follow(&config.trust_domain, facts),
            compiling,
            spreading,
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

fn names(config: &Config) -> Result<Names, RunError> {
    let namespace = &config.namespace;
    let id = format!("spiffe://{}/ns/{namespace}/sa/{NAME}", config.trust_domain).parse();
    Ok(Names {
        id: id.map_err(|_| RunError::TrustDomain {
            domain: config.trust_domain.clone(),
        })?,
        dns: vec![
            format!("{NAME}.{namespace}.svc"),
            format!("{NAME}.{namespace}"),
        ],
    })
}

/// Compiles whenever the cluster or the authority changed.
async fn follow(
    mut facts: watch::Receiver<Option<Arc<Facts>>>,
    mut authority: watch::Receiver<Option<Arc<Authority>>>,
    view: watch::Sender<Option<View>>,
) {
    let shapes = Shapes::default();
    loop {
        let now = facts.borrow_and_update().clone();
        let own = authority.borrow_and_update().clone();
        if let (Some(facts), Some(authority)) = (now, own) {
            match compile(&facts, authority.roots(), &shapes) {
                Ok(next) => drop(view.send_replace(Some(next))),
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
