//! What a request wants of its endpoint, and what became of it.

use std::net::SocketAddr;
use std::time::Duration;

use super::EndpointKey;
use crate::breaker::Judged;
use crate::cluster::Address;

/// Why there is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// The cluster has none.
    #[error("the cluster has no endpoint")]
    Empty,
    /// There are too many already.
    #[error("there are too many endpoints that callers want to reach")]
    Full,
    /// None has the labels of the subset.
    #[error("no endpoint has the labels that are asked for")]
    Subset,
}

/// What a request wants of its endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// The hash of what keeps its caller with one endpoint.
    pub hash: Option<u64>,
    /// Labels that the endpoint has to have.
    pub subset: &'a [(String, String)],
    /// Endpoints that were tried, and are avoided while others exist.
    pub tried: &'a [EndpointKey],
    /// The endpoint that the caller's session is bound to: it is taken while it is well.
    pub bound: Option<SocketAddr>,
    /// The address that the caller wants to reach, where that is the endpoint.
    pub at: Option<&'a Address>,
}

/// What became of a try.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Finish {
    /// What the answer means; nothing when the caller went away before there was one.
    pub judged: Option<Judged>,
    /// How long it took to have no answer; nothing when one began, which [`Balancer::answered`] was told of.
    pub unanswered: Option<Duration>,
    /// How long the endpoint asked to be left alone.
    pub retry_after: Option<Duration>,
}
