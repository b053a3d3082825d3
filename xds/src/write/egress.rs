//! Ways out to whoever a request names.

use fairlead_model::egress::{Egress, NameCache};
use fairlead_model::listener::ByServerName;
use serde_json::{Value, json};

use super::{Message, duration, extension, filter, health};
use crate::egress::{CLUSTER, SNI};
use crate::options::{EGRESS, KEY};

/// What a cluster has in the place of endpoints.
pub(super) fn cluster(message: Message, own: &Egress) -> Message {
    let config = json!({"dns_cache_config": cache(&own.cache)});
    let allowed: Vec<Value> = own.allowed.iter().map(filter::cidr).collect();
    let options = (!allowed.is_empty()).then(|| {
        let options = super::own(EGRESS, json!({"allowed_ranges": allowed}));
        json!({"typed_filter_metadata": {KEY: options}})
    });
    message
        .with(
            "cluster_type",
            extension("envoy.clusters.dynamic_forward_proxy", CLUSTER, config),
        )
        .with("metadata", json!(options))
}

/// A `DnsCacheConfig`.
pub(super) fn cache(cache: &NameCache) -> Value {
    let message = Message::default()
        .with("name", json!(cache.name))
        .with("dns_min_refresh_rate", duration(cache.least))
        .with("host_ttl", duration(cache.host_ttl))
        .with("dns_query_timeout", duration(cache.timeout))
        .with("max_hosts", json!(cache.most));
    health::lookup(message, &cache.lookup).done()
}

/// The filter of connections.
pub(super) fn by_server_name(own: &ByServerName) -> Value {
    let config = json!({"port_value": own.port, "dns_cache_config": cache(&own.cache)});
    extension(
        "envoy.filters.network.sni_dynamic_forward_proxy",
        SNI,
        config,
    )
}
