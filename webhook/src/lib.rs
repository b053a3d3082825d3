//! Admission: the API server asks before it stores one of Fairlead's objects or a pod of the mesh, and gets the same answer that `kubectl fairlead lint`
//! and the operator give, since all run `fairlead_plan`. Nothing is decided here.
//!
//! Every replica serves; the cache of other objects comes from watches and may be a moment behind, which is why the operator
//! reports as conditions whatever slips through.

mod callers;
mod inject;
mod metrics;
mod review;
mod serve;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use fairlead_operator::exposition::join;
use fairlead_operator::feed::Feed;
use fairlead_operator::metrics::Metrics as ClientMetrics;
use fairlead_operator::{admin, client};
use fairlead_plan::Cache;
pub use fairlead_plan::mesh::{Injection, MeshCapture};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use callers::Callers;
pub use inject::inject_answer;
pub use metrics::REFERENCE;
pub use review::answer;

use crate::callers::Door;
use crate::metrics::Metrics;
use crate::serve::Shared;
use crate::tls::Certificates;

/// Settings of the webhook's process.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where admission requests are answered.
    pub listen: SocketAddr,
    /// Where /healthz, /readyz and /metrics are served.
    pub admin: SocketAddr,
    /// The folder with `tls.crt` and `tls.key`.
    pub tls: PathBuf,
    /// Who may call, where not everybody who reaches it may.
    pub callers: Option<Callers>,
    /// What pods of the mesh get.
    pub injection: Injection,
}

/// Why the webhook ended.
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
    /// The certificate, or the authorities of callers, cannot be used.
    #[error("failed to load certificates: {source}")]
    Certificate {
        /// The cause.
        source: tls::TlsError,
    },
}

/// Serves until `stop`.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), RunError> {
    let client_metrics = Arc::new(ClientMetrics::default());
    let client = client::connect(&client_metrics)
        .await
        .map_err(|source| RunError::Connect {
            source: Box::new(source),
        })?;
    let cache = Arc::new(Cache::default());
    let (events, mut received) = mpsc::unbounded_channel();
    // Nobody acts on events here: the cache is all that is needed.
    tokio::spawn(async move { while received.recv().await.is_some() {} });
    let feed = Feed::new(
        client,
        Arc::clone(&cache),
        Arc::clone(&client_metrics),
        events,
        stop.clone(),
    );
    feed.start_own();
    let certificates = Certificates::load(&config.tls)
        .await
        .map_err(|source| RunError::Certificate { source })?;
    tokio::spawn(tls::keep(
        certificates.clone(),
        config.tls.clone(),
        stop.clone(),
    ));
    let door = Door::load(certificates, config.callers)
        .await
        .map_err(|source| RunError::Certificate { source })?;
    let metrics = Arc::new(Metrics::default());
    let mut admin = {
        let ready: admin::Ready = {
            let feed = Arc::clone(&feed);
            Arc::new(move || feed.is_synced())
        };
        let text: admin::Metrics = {
            let metrics = Arc::clone(&metrics);
            Arc::new(move || join(&[metrics.encode(), client_metrics.encode()]))
        };
        tokio::spawn(admin::serve(config.admin, text, ready, stop.clone()))
    };
    let shared = Shared {
        cache,
        injection: Arc::new(config.injection),
        metrics,
    };
    let serving = serve::serve(config.listen, door, shared, stop.clone());
    tokio::select! {
        served = serving => served.map_err(|source| RunError::Serve { address: config.listen, source }),
        error = failure(&mut admin, &stop) => Err(RunError::Serve { address: config.admin, source: error }),
    }
}

/// How the admin port failed. Its orderly end is none: requests that are under way are answered first.
async fn failure(
    admin: &mut JoinHandle<std::io::Result<()>>,
    stop: &CancellationToken,
) -> std::io::Error {
    match admin.await {
        Ok(Err(error)) => error,
        Ok(Ok(())) if stop.is_cancelled() => std::future::pending().await,
        Ok(Ok(())) => std::io::Error::other("it ended"),
        Err(error) => std::io::Error::other(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_admin_port_that_ends_with_the_process_does_not_cut_requests_off() {
        let stop = CancellationToken::new();
        let patience = Duration::from_millis(50);
        let mut ended = tokio::spawn(async { Ok(()) });
        assert!(
            tokio::time::timeout(patience, failure(&mut ended, &stop))
                .await
                .is_ok(),
            "it ended too early, and nobody is told"
        );
        stop.cancel();
        let mut ended = tokio::spawn(async { Ok(()) });
        assert!(
            tokio::time::timeout(patience, failure(&mut ended, &stop))
                .await
                .is_err(),
            "the process would end before its last answers"
        );
    }
}
