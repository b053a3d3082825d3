//! How much a cluster may be given at once.

/// The most of each thing at once; nothing where there is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections.
    pub connections: u32,
    /// Requests that wait for a connection.
    pub pending: u32,
    /// Requests.
    pub requests: u32,
    /// Retries.
    pub retries: u32,
}

impl Default for Limits {
    /// Envoy's: 1024 of each, 3 retries.
    fn default() -> Self {
        Self {
            connections: 1024,
            pending: 1024,
            requests: 1024,
            retries: 3,
        }
    }
}

impl Limits {
    /// The part of one of `cores` workers, each counting for itself; at least one of everything that is allowed at all.
    #[must_use]
    pub fn share(self, cores: u32) -> Self {
        let part = |limit: u32| limit.div_ceil(cores.max(1));
        Self {
            connections: part(self.connections),
            pending: part(self.pending),
            requests: part(self.requests),
            retries: part(self.retries),
        }
    }
}
