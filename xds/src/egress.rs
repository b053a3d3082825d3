//! Ways out to whoever a request names: Envoy's dynamic forward proxy, as a cluster and as filters.

use std::sync::Arc;
use std::time::Duration;

use fairlead_model::cluster::Discovery;
use fairlead_model::egress::{Egress, NameCache};
use fairlead_model::listener::ByServerName;

use crate::field::{Field, Fields, Result};
use crate::{listener, names, options};

/// The cluster.
pub(crate) const CLUSTER: &str = "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig";
/// The filter of HTTP.
pub(crate) const HTTP: &str = "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig";
/// The filter of connections, by the name asked for in TLS.
pub(crate) const SNI: &str =
    "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig";

/// The `cluster_type` of a cluster that has one.
pub(crate) fn cluster(fields: &Fields<'_>, own: &Field<'_>) -> Result<Discovery> {
    if fields.get("type").is_some() {
        return Err(own.error("either type or cluster_type is expected"));
    }
    for name in ["load_assignment", "health_checks"] {
        if fields.get(name).is_some() {
            return Err(fields.error_at(
                name,
                "the endpoints are the hosts that requests name; none is expected",
            ));
        }
    }
    let outer = own.fields()?;
    outer.ignore(&["name"]);
    let (_, config) = outer.need("typed_config")?.typed(&[CLUSTER])?;
    outer.finish()?;
    let config = config.fields()?;
    let cache = cache(&config.need("dns_cache_config")?)?;
    for name in [
        "allow_insecure_cluster_options",
        "allow_coalesced_connections",
    ] {
        if let Some(own) = config.get(name)
            && own.flag()?
        {
            return Err(own.error(
                "true is not supported; every host has connections of its own, and is verified",
            ));
        }
    }
    config.finish()?;
    let mut egress = Egress {
        cache,
        allowed: Vec::new(),
    };
    if let Some(own) = options::own(fields, options::EGRESS)? {
        for range in own.list("allowed_ranges")? {
            egress.allowed.push(listener::cidr(&range)?);
        }
        own.finish()?;
    }
    Ok(Discovery::Named(Arc::new(egress)))
}

/// A `DnsCacheConfig`.
fn cache(field: &Field<'_>) -> Result<NameCache> {
    let fields = field.fields()?;
    let mut cache = NameCache {
        name: fields.need("name")?.text()?.to_owned(),
        ..NameCache::default()
    };
    names::into(&fields, &mut cache.lookup)?;
    for (name, time) in [
        ("dns_min_refresh_rate", &mut cache.least),
        ("host_ttl", &mut cache.host_ttl),
        ("dns_query_timeout", &mut cache.timeout),
    ] {
        if let Some(own) = fields.get(name) {
            *time = own.duration()?;
            if *time < Duration::from_millis(1) {
                return Err(own.error("at least 0.001s is expected"));
            }
        }
    }
    if let Some(most) = fields.get("max_hosts") {
        cache.most = u32::try_from(most.number(1, 1_000_000)?).unwrap_or(cache.most);
    }
    fields.finish()?;
    Ok(cache)
}

/// A filter of HTTP.
pub(crate) fn of_http(config: &Field<'_>) -> Result<NameCache> {
    let fields = config.fields()?;
    let cache = cache(&fields.need("dns_cache_config")?)?;
    fields.finish()?;
    Ok(cache)
}

/// A filter of connections.
pub(crate) fn of_connection(config: &Field<'_>) -> Result<ByServerName> {
    let fields = config.fields()?;
    let port = fields
        .get("port_value")
        .map_or(Ok(443), |own| own.number(1, 65535))?;
    let own = ByServerName {
        cache: cache(&fields.need("dns_cache_config")?)?,
        port: u16::try_from(port).unwrap_or(443),
    };
    fields.finish()?;
    Ok(own)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster;
    use crate::options::{EGRESS, KEY};
    use crate::tls;

    fn of(change: impl FnOnce(&mut Value)) -> std::result::Result<Discovery, String> {
        let any = |name: &str| format!("type.googleapis.com/{name}");
        let mut value = json!({
            "name": "out",
            "lb_policy": "CLUSTER_PROVIDED",
            "cluster_type": {"name": "named", "typed_config": {
                "@type": any(CLUSTER),
                "dns_cache_config": {"name": "out", "max_hosts": 10},
            }},
            "metadata": {"typed_filter_metadata": {KEY: {
                "@type": any(EGRESS),
                "allowed_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}],
            }}},
            "transport_socket": {"name": "tls", "typed_config": {
                "@type": any(tls::UPSTREAM),
                "common_tls_context": {"validation_context": {"trusted_ca": {"inline_string": "a"}}},
            }},
        });
        change(&mut value);
        cluster::read(&Field::root(&value), &|_| Ok(Vec::new()))
            .map(|own| own.discovery)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_way_out_is_read() {
        let Ok(Discovery::Named(own)) = of(|_| {}) else {
            panic!("a way out");
        };
        assert_eq!((own.cache.most, own.allowed.len()), (10, 1));
        assert_eq!(own.cache.least, Duration::from_secs(5));
    }

    #[test]
    fn what_is_wrong_has_a_path() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 6] = [
            (
                |own| {
                    own["cluster_type"]["typed_config"]["dns_cache_config"]["max_hosts"] = json!(0)
                },
                "cluster_type.typed_config.dns_cache_config.max_hosts: 0 is no number from 1 to 1000000",
            ),
            (
                |own| {
                    own["cluster_type"]["typed_config"]["allow_coalesced_connections"] = json!(true)
                },
                "cluster_type.typed_config.allow_coalesced_connections: true is not supported; every host has connections of its own, and is verified",
            ),
            (
                |own| own["transport_socket"]["typed_config"]["sni"] = json!("a.example"),
                "transport_socket: sni: the host that a request names is asked for; none is expected",
            ),
            (
                |own| own["transport_socket"]["typed_config"]["auto_host_sni"] = json!(true),
                "transport_socket.typed_config: auto_host_sni and auto_sni_san_validation are expected together; a host that nobody verifies is not supported",
            ),
            (
                |own| own["load_assignment"] = json!({}),
                "load_assignment: the endpoints are the hosts that requests name; none is expected",
            ),
            (
                |own| own["lb_policy"] = json!("RANDOM"),
                "lb_policy: \"RANDOM\" is not supported; CLUSTER_PROVIDED is allowed",
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(of(change), Err(expected.to_owned()));
        }
    }
}
