//! Addresses and endpoints (`config.endpoint.v3`).

use std::net::IpAddr;

use fairlead_model::cluster::{Address, CheckAt, Checked, Endpoint, Endpoints, Health, Locality};

use serde_json::Value;

use crate::field::{Field, Fields, Result};

/// Metadata for subsets.
pub(crate) const BALANCING: &str = "envoy.lb";
/// Metadata for how connections are secured.
pub(crate) const SOCKET: &str = "envoy.transport_socket_match";

/// An IP address with a port, or a pipe.
pub(crate) fn address(field: &Field<'_>) -> Result<Address> {
    literal(field, "TCP")
}

/// An IP address with a port for datagrams.
pub(crate) fn datagrams(field: &Field<'_>) -> Result<Address> {
    literal(field, "UDP")
}

/// Whether an address says that it is of datagrams.
pub(crate) fn is_of_datagrams(field: &Field<'_>) -> bool {
    of_socket(field, ["protocol", "protocol"]).is_some_and(|own| own == "UDP")
}

/// Whether a socket at an IPv6 address takes IPv4, too.
pub(crate) fn takes_ipv4(field: &Field<'_>) -> bool {
    of_socket(field, ["ipv4_compat", "ipv4Compat"]).is_some_and(|own| own == true)
}

/// What an address that was read says of its socket under one of these names.
fn of_socket<'a>(field: &Field<'a>, names: [&str; 2]) -> Option<&'a Value> {
    let socket = ["socket_address", "socketAddress"].map(|name| field.value.get(name));
    let socket = socket.into_iter().flatten().next()?;
    names.into_iter().find_map(|name| socket.get(name))
}

fn literal(field: &Field<'_>, protocol: &str) -> Result<Address> {
    match address_or_name(field, protocol)? {
        Address::Name(name, _) => Err(field.error(format!(
            "socket_address.address: {name:?} is no IP address, and names are looked up for clusters of the types STRICT_DNS and LOGICAL_DNS alone"
        ))),
        address => Ok(address),
    }
}

/// An address, or a name that is to be looked up.
fn address_or_name(field: &Field<'_>, protocol: &str) -> Result<Address> {
    let fields = field.fields()?;
    if let Some(pipe) = fields.get("pipe") {
        let pipe = pipe.fields()?;
        let path = pipe.need("path")?.text()?.to_owned();
        pipe.ignore(&["mode"]);
        pipe.finish()?;
        fields.finish()?;
        return Ok(Address::Path(path.into()));
    }
    let socket = fields.need("socket_address")?.fields()?;
    fields.finish()?;
    let host = socket.need("address")?.text()?;
    let port = socket.need("port_value")?.number(0, 65535)?;
    let port = u16::try_from(port).unwrap_or(0);
    if let Some(given) = socket.get("protocol") {
        given.one_of(&[(protocol, ())])?;
    }
    socket.flag("ipv4_compat")?;
    socket.finish()?;
    Ok(match host.parse::<IpAddr>() {
        Ok(ip) => Address::Socket((ip, port).into()),
        Err(_) => Address::Name(host.to_owned(), port),
    })
}

/// The endpoints of a cluster, with the name they are known by; `looks_up` where they may be names.
pub(crate) fn assignment(field: &Field<'_>, looks_up: bool) -> Result<(String, Endpoints)> {
    let fields = field.fields()?;
    let name = fields.text("cluster_name")?.to_owned();
    let mut overprovisioning = 140;
    if let Some(policy) = fields.get("policy") {
        let policy = policy.fields()?;
        if let Some(factor) = policy.get("overprovisioning_factor") {
            overprovisioning = u32::try_from(factor.number(100, 10_000)?).unwrap_or(140);
        }
        policy.finish()?;
    }
    let localities = fields
        .list("endpoints")?
        .iter()
        .map(|own| locality(own, looks_up))
        .collect::<Result<Vec<_>>>()?;
    fields.finish()?;
    Ok((
        name,
        Endpoints {
            localities,
            overprovisioning,
        },
    ))
}

fn locality(field: &Field<'_>, looks_up: bool) -> Result<Locality> {
    let fields = field.fields()?;
    let mut locality = Locality::default();
    if let Some(names) = fields.get("locality") {
        let names = names.fields()?;
        locality.region = names.text("region")?.to_owned();
        locality.zone = names.text("zone")?.to_owned();
        locality.sub_zone = names.text("sub_zone")?.to_owned();
        names.finish()?;
    }
    locality.priority = fields
        .get("priority")
        .map(|field| field.number(0, 128))
        .transpose()?
        .map_or(0, |priority| u32::try_from(priority).unwrap_or(0));
    locality.weight = fields
        .get("load_balancing_weight")
        .map(|field| field.number32())
        .transpose()?;
    locality.endpoints = fields
        .list("lb_endpoints")?
        .iter()
        .map(|own| endpoint(own, looks_up))
        .collect::<Result<_>>()?;
    fields.ignore(&["proximity"]);
    fields.finish()?;
    Ok(locality)
}

fn endpoint(field: &Field<'_>, looks_up: bool) -> Result<Endpoint> {
    let fields = field.fields()?;
    let own = fields.need("endpoint")?.fields()?;
    let address = match looks_up {
        true => address_or_name(&own.need("address")?, "TCP")?,
        false => address(&own.need("address")?)?,
    };
    let hostname = own.text("hostname")?.to_owned();
    let check = match own.get("health_check_config") {
        None => CheckAt::default(),
        Some(config) => check_at(&config.fields()?)?,
    };
    own.finish()?;
    let health = match fields.get("health_status") {
        None => Health::Healthy,
        Some(health) => health.one_of(&[
            ("UNKNOWN", Health::Healthy),
            ("HEALTHY", Health::Healthy),
            ("DEGRADED", Health::Degraded),
            ("UNHEALTHY", Health::Unhealthy),
            ("DRAINING", Health::Unhealthy),
            ("TIMEOUT", Health::Unhealthy),
        ])?,
    };
    let weight = fields
        .get("load_balancing_weight")
        .map(|field| field.number(1, u64::from(u32::MAX)))
        .transpose()?;
    let metadata = fields.get("metadata");
    let labels = |name| {
        metadata
            .as_ref()
            .map_or(Ok(Vec::new()), |own| labels(own, name))
    };
    let (labels, socket_labels) = (labels(BALANCING)?, labels(SOCKET)?);
    fields.finish()?;
    Ok(Endpoint {
        address,
        hostname,
        weight: weight.map_or(1, |weight| u32::try_from(weight).unwrap_or(1)),
        health,
        labels,
        socket_labels,
        check,
        checked: Checked::default(),
    })
}

/// Where and how an endpoint is checked.
fn check_at(fields: &Fields<'_>) -> Result<CheckAt> {
    let port = fields
        .get("port_value")
        .map_or(Ok(0), |field| field.number(0, 65535))?;
    let check = CheckAt {
        port: u16::try_from(port).ok().filter(|port| *port > 0),
        hostname: fields.text("hostname")?.to_owned(),
        is_off: fields.flag("disable_active_health_check")?,
    };
    fields.finish()?;
    Ok(check)
}

/// The labels for a purpose: texts under `filter_metadata`.
pub(crate) fn labels(field: &Field<'_>, purpose: &str) -> Result<Vec<(String, String)>> {
    let all = ["filter_metadata", "filterMetadata"];
    let found = all
        .iter()
        .find_map(|name| field.value.get(name)?.get(purpose));
    match found {
        None => Ok(Vec::new()),
        Some(found) => texts(field, &format!("filter_metadata.{purpose}"), found),
    }
}

/// The fields of a `Struct` of texts.
pub(crate) fn texts(
    field: &Field<'_>,
    path: &str,
    value: &serde_json::Value,
) -> Result<Vec<(String, String)>> {
    let Some(all) = value.as_object() else {
        return Err(field.error(format!("{path}: {value} is no object")));
    };
    all.iter()
        .map(|(key, value)| match value.as_str() {
            Some(text) => Ok((key.clone(), text.to_owned())),
            None => Err(field.error(format!("{path}.{key}: {value} is no text"))),
        })
        .collect()
}
