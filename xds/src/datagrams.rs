//! Listeners of datagrams: Envoy's UDP proxy.

use std::time::Duration;

use fairlead_model::listener::{Listener, Udp};

use crate::endpoint;
use crate::field::{Field, Fields, Result};

/// The filter.
pub(crate) const UDP: &str = "envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig";
/// Where datagrams go.
pub(crate) const UDP_ROUTE: &str = "envoy.extensions.filters.udp.udp_proxy.v3.Route";
/// How long a session lasts where nothing is said.
const IDLE: Duration = Duration::from_secs(60);

/// A listener whose address is of datagrams.
pub(crate) fn listener(fields: &Fields<'_>) -> Result<Listener> {
    let place = fields.need("address")?;
    let address = endpoint::datagrams(&place)?;
    let filters = fields.need("listener_filters")?;
    let all = filters.list()?;
    let [filter] = all.as_slice() else {
        return Err(filters.error(format!(
            "{} filters; one UdpProxyConfig is expected",
            all.len()
        )));
    };
    let own = filter.fields()?;
    own.ignore(&["name"]);
    let (_, config) = own.need("typed_config")?.typed(&[UDP])?;
    own.finish()?;
    let udp = proxy(&config)?;
    let name = fields.text("name")?;
    let listener = Listener {
        name: match name.is_empty() {
            true => address.to_string(),
            false => name.to_owned(),
        },
        address,
        takes_ipv4: endpoint::takes_ipv4(&place),
        binds: true,
        original_destination: false,
        hands_over: false,
        proxy_protocol: false,
        detect: None,
        chains: Vec::new(),
        default_chain: Some(udp.chain()),
        buffer_bytes: 1 << 20,
        logs: Vec::new(),
    };
    fields.ignore(&[
        "stat_prefix",
        "enable_reuse_port",
        "metadata",
        "udp_listener_config",
    ]);
    fields.finish()?;
    Ok(listener)
}

fn proxy(field: &Field<'_>) -> Result<Udp> {
    let fields = field.fields()?;
    let idle = fields.duration("idle_timeout")?.unwrap_or(IDLE);
    if idle.is_zero() {
        return Err(fields.error_at("idle_timeout", "has to be above 0"));
    }
    let mut udp = Udp {
        name: fields.need("stat_prefix")?.text()?.to_owned(),
        cluster: match fields.get("cluster") {
            Some(name) => name.text()?.into(),
            None => matched(&fields.need("matcher")?)?.into(),
        },
        idle,
        by_source: false,
    };
    for policy in fields.list("hash_policies")? {
        let policy = policy.fields()?;
        udp.by_source |= policy.flag("source_ip")?;
        policy.finish()?;
    }
    fields.finish()?;
    Ok(udp)
}

/// The cluster of a matcher that matches nothing.
fn matched(field: &Field<'_>) -> Result<String> {
    let fields = field.fields()?;
    let otherwise = fields.need("on_no_match")?.fields()?;
    fields.finish()?;
    let route = otherwise.extension("action", &[UDP_ROUTE])?;
    let (_, route) = route.ok_or_else(|| otherwise.error_at("action", "is required"))?;
    otherwise.finish()?;
    let route = route.fields()?;
    let cluster = route.need("cluster")?.text()?.to_owned();
    route.finish()?;
    Ok(cluster)
}
