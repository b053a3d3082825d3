//! How many requests may come in, over all proxies, as a service counts ([Envoy's global rate
//! limit](https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/rate_limit_filter)).

use std::sync::Arc;

use http::StatusCode;

use super::check::GrpcService;
use super::rate::{HostRates, RateRule};
use crate::route::HeaderChanges;

/// How many requests may come in, as a service counts.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedRateLimit {
    /// Who counts.
    pub service: Arc<GrpcService>,
    /// Among which limits the service looks.
    pub domain: String,
    /// Which rules of routes and hosts are meant.
    pub stage: u32,
    /// What of a request is counted; where there is nothing, routes and hosts say it.
    pub rules: Vec<RateRule>,
    /// Whether requests are refused where there is no answer.
    pub denies_on_error: bool,
    /// The status of those.
    pub status_on_error: StatusCode,
    /// The status of those of which there are too many.
    pub status: StatusCode,
    /// The share of requests that are counted, in millionths.
    pub enabled: u32,
    /// The share of those that are refused where there are too many, in millionths.
    pub enforced: u32,
    /// Changes to the answers to those that may not.
    pub response_headers: HeaderChanges,
    /// Whether callers are told what is left (`x-ratelimit-limit`, `x-ratelimit-remaining`, `x-ratelimit-reset`).
    pub tells: bool,
    /// Whether those that may not are told when to come back (`retry-after`).
    pub retry_after: bool,
    /// Whether gRPC's callers are told that the resource is exhausted, instead of unavailable.
    pub is_exhausted: bool,
}

/// What a host or a route says of such a limit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RateSettings {
    /// When rules of the host count.
    pub host: HostRates,
    /// What of a request is counted, in the place of what the route says.
    pub rules: Vec<RateRule>,
    /// Among which limits the service looks, in the place of what the filter says.
    pub domain: Option<String>,
}
