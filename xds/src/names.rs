//! How the names of a cluster's endpoints are looked up.

use std::time::Duration;

use fairlead_model::cluster::{Address, AddressFamily, NameLookup};

use crate::endpoint;
use crate::field::{Field, Fields, Result};

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
    into(fields, &mut names)?;
    Ok(names)
}

/// Reads what clusters and caches of names have in common.
pub(crate) fn into(fields: &Fields<'_>, names: &mut NameLookup) -> Result<()> {
    if let Some(refresh) = fields.get("dns_refresh_rate") {
        names.refresh = refresh.duration()?;
        if names.refresh < Duration::from_millis(1) {
            return Err(refresh.error("at least 0.001s is expected"));
        }
    }
    if let Some(failure) = fields.get("dns_failure_refresh_rate") {
        names.failure = Some(pauses(&failure)?);
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
    Ok(())
}

/// A `RefreshRate`: the first pause, and the longest, which is ten times that where nothing is said.
fn pauses(field: &Field<'_>) -> Result<(Duration, Duration)> {
    let fields = field.fields()?;
    let base = fields.need("base_interval")?;
    let first = base.duration()?;
    if first < Duration::from_millis(1) {
        return Err(base.error("at least 0.001s is expected"));
    }
    let longest = match fields.get("max_interval") {
        None => first.saturating_mul(10),
        Some(most) => {
            let longest = most.duration()?;
            if longest < first {
                return Err(most.error("at least base_interval is expected"));
            }
            longest
        }
    };
    fields.finish()?;
    Ok((first, longest))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read_of(value: &Value) -> std::result::Result<NameLookup, String> {
        let fields = Field::root(value).fields();
        fields
            .and_then(|fields| read(&fields))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn pauses_after_failures_have_a_usual_end() {
        let of = |rate: Value| read_of(&json!({"dns_failure_refresh_rate": rate}));
        let found = of(json!({"base_interval": "2s"})).expect("pauses").failure;
        assert_eq!(
            found,
            Some((Duration::from_secs(2), Duration::from_secs(20)))
        );
        for (rate, reason) in [
            (json!({}), "dns_failure_refresh_rate.base_interval: "),
            (
                json!({"base_interval": "0s"}),
                "dns_failure_refresh_rate.base_interval: at least 0.001s is expected",
            ),
            (
                json!({"base_interval": "2s", "max_interval": "1s"}),
                "dns_failure_refresh_rate.max_interval: at least base_interval is expected",
            ),
        ] {
            let error = of(rate).expect_err("it is wrong");
            assert!(error.starts_with(reason), "{error}");
        }
    }
}
