//! Settings of the operator's process.

use std::net::SocketAddr;

/// Settings of the operator's process.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace that the operator runs in.
    pub namespace: String,
    /// The name of this replica: the pod's.
    pub identity: String,
    /// The image of the control plane.
    pub image: String,
    /// The pull policy of that image; empty for Kubernetes' default.
    pub image_pull_policy: String,
    /// The names of the Secrets by which that image is pulled.
    pub image_pull_secrets: Vec<String>,
    /// The image of the mesh's proxies.
    pub proxy_image: String,
    /// Where /healthz, /readyz and /metrics are served.
    pub admin: SocketAddr,
    /// How many passes run at once.
    pub concurrency: usize,
    /// Seconds between visits of objects that nothing else wakes.
    pub resync_seconds: u64,
}
