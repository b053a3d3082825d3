//! How the names of a cluster's endpoints are looked up.

use std::time::Duration;

use fairlead_model::cluster::{Address, AddressFamily, NameLookup};

use crate::endpoint;
use crate::field::{Fields, Result};

/// A resolver with name servers of its own.
pub(crate) const CARES: &str =
    "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig";

/// The families by Envoy's names.
pub(crate) const FAMILIES: [(&str, AddressFamily); 5] = [
    ("AUTO", AddressFamily::V6First),
    ("V4_ONLY", AddressFamily::V4),
    ("V6_ONLY", AddressFamily::V6),
    ("V4_PREFERRED", AddressFamily::V4First),
    ("ALL", AddressFamily::All),
];

/// Reads what a cluster says of it.
pub(crate) fn read(fields: &Fields<'_>) -> Result<NameLookup> {
    let mut names = NameLookup {
        respects_ttl: fields.flag("respect_dns_ttl")?,
        ..NameLookup::default()
    };
    if let Some(refresh) = fields.get("dns_refresh_rate") {
        names.refresh = refresh.duration()?;
        if names.refresh < Duration::from_millis(1) {
            return Err(refresh.error("at least 0.001s is expected"));
        }
    }
    if let Some(family) = fields.get("dns_lookup_family") {
        names.family = family.one_of(&FAMILIES)?;
    }
    if let Some((_, config)) = fields.extension("typed_dns_resolver_config", &[CARES])? {
        let config = config.fields()?;
        for own in config.list("resolvers")? {
            match endpoint::address(&own)? {
                Address::Socket(server) => names.servers.push(server),
                _ => return Err(own.error("a name server has an IP address and a port")),
            }
        }
        config.ignore(&["use_resolvers_as_fallback", "filter_unroutable_families"]);
        config.finish()?;
    }
    Ok(names)
}
