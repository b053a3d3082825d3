//! Dark traffic: copies of requests whose answers nobody gets.

use std::sync::Arc;

use http::Method;

/// A cluster that gets copies of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The cluster.
    pub cluster: Arc<str>,
    /// The share of requests in millionths.
    pub share: u32,
    /// Whether copies keep the host, which else ends in `-shadow`.
    pub keeps_host: bool,
    /// Whether only requests that change nothing (RFC 9110 9.2.1) are copied.
    pub safe_only: bool,
    /// The longest body that is copied, in bytes; requests with a longer one are not.
    pub body_most: usize,
    /// Whether its answers are compared with the live ones.
    pub compares: bool,
}

impl Mirror {
    /// Copies of all requests.
    #[must_use]
    pub fn to(cluster: &str) -> Self {
        Self {
            cluster: cluster.into(),
            share: 1_000_000,
            keeps_host: false,
            safe_only: false,
            body_most: 64 * 1024,
            compares: false,
        }
    }

    /// Whether a request is copied; `draw` is a number below a million.
    #[must_use]
    pub fn takes(&self, method: &Method, draw: u32) -> bool {
        draw < self.share && (!self.safe_only || method.is_safe())
    }

    /// The host of a copy: `shop.example:80` becomes `shop.example-shadow:80`, as Envoy's does.
    #[must_use]
    pub fn host(&self, host: &str) -> String {
        match (self.keeps_host, super::split_port(host)) {
            (true, _) => host.to_owned(),
            (false, (name, Some(port))) => format!("{name}-shadow:{port}"),
            (false, (name, None)) => format!("{name}-shadow"),
        }
    }
}
