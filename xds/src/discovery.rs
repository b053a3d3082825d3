//! The calls of Envoy's aggregated discovery service.

/// What changed, and what is gone.
pub const DELTA: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// The state of the world.
pub const STATE: &str =
    "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
