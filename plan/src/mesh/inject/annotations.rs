//! What the annotations of a pod say of its proxy.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::mesh::is_network;
use crate::problem::Invalid;

/// The prefix of the annotations.
const PREFIX: &str = "mesh.fairlead.dev/";
const SKIP_INBOUND: &str = "mesh.fairlead.dev/skip-inbound-ports";
const SKIP_OUTBOUND: &str = "mesh.fairlead.dev/skip-outbound-ports";
const SKIP_NETWORKS: &str = "mesh.fairlead.dev/skip-outbound-networks";
const CPU_REQUEST: &str = "mesh.fairlead.dev/proxy-cpu-request";
const CPU_LIMIT: &str = "mesh.fairlead.dev/proxy-cpu-limit";
const MEMORY_REQUEST: &str = "mesh.fairlead.dev/proxy-memory-request";
const MEMORY_LIMIT: &str = "mesh.fairlead.dev/proxy-memory-limit";
const CORES: &str = "mesh.fairlead.dev/proxy-cores";
const LOG: &str = "mesh.fairlead.dev/proxy-log";
/// All annotations that a pod may have.
const KNOWN: [&str; 9] = [
    SKIP_INBOUND,
    SKIP_OUTBOUND,
    SKIP_NETWORKS,
    CPU_REQUEST,
    CPU_LIMIT,
    MEMORY_REQUEST,
    MEMORY_LIMIT,
    CORES,
    LOG,
];
/// The longest annotation.
const LONGEST: usize = 1024;
/// The most workers of a proxy.
const MOST_CORES: u16 = 64;

/// What the annotations of a pod say.
#[derive(Debug, Default)]
pub(super) struct ValidInjection {
    pub(super) skip_inbound: Vec<String>,
    pub(super) skip_outbound: Vec<String>,
    pub(super) skip_networks: Vec<String>,
    pub(super) requests: BTreeMap<String, Quantity>,
    pub(super) limits: BTreeMap<String, Quantity>,
    pub(super) cores: Option<u16>,
    pub(super) log: Option<String>,
}

/// Reads the annotations.
pub(super) fn read(
    annotations: &BTreeMap<String, String>,
    wrong: &mut Vec<Invalid>,
) -> ValidInjection {
    let mut valid = ValidInjection::default();
    for (name, value) in annotations
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX))
    {
        if let Err(message) = read_one(&mut valid, name, value) {
            let shown: String = value.chars().take(64).collect();
            let field = format!("metadata.annotations[{name}]");
            wrong.push(Invalid::new(field, format!("found {shown:?}, {message}")));
        }
    }
    valid
}

fn read_one(valid: &mut ValidInjection, name: &str, value: &str) -> Result<(), String> {
    if value.len() > LONGEST {
        return Err(format!("and at most {LONGEST} bytes are allowed"));
    }
    match name {
        SKIP_INBOUND => valid.skip_inbound = list(value, ports)?,
        SKIP_OUTBOUND => valid.skip_outbound = list(value, ports)?,
        SKIP_NETWORKS => valid.skip_networks = list(value, network)?,
        CPU_REQUEST => drop(valid.requests.insert("cpu".to_owned(), quantity(value)?)),
        CPU_LIMIT => drop(valid.limits.insert("cpu".to_owned(), quantity(value)?)),
        MEMORY_REQUEST => drop(valid.requests.insert("memory".to_owned(), quantity(value)?)),
        MEMORY_LIMIT => drop(valid.limits.insert("memory".to_owned(), quantity(value)?)),
        CORES => valid.cores = Some(within(value, 1..=MOST_CORES)?),
        LOG => valid.log = Some(log(value)?),
        _ => {
            return Err(format!(
                "and this annotation is not known; there are {}",
                KNOWN.join(", ")
            ));
        }
    }
    Ok(())
}

/// The parts of a list, each of which is checked.
fn list(text: &str, part: fn(&str) -> Result<(), String>) -> Result<Vec<String>, String> {
    let parts = text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    parts
        .map(|own| part(own).map(|()| own.to_owned()))
        .collect()
}

/// A port, or two of which the first is not above the second.
fn ports(text: &str) -> Result<(), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text| {
        within::<u16>(text, 1..=u16::MAX)
            .map_err(|_| format!("and {text:?} is no port; such as 25 or 8000-8100 are allowed"))
    };
    if port(first)? > port(last)? {
        return Err(format!("and {text:?} ends before it begins"));
    }
    Ok(())
}

/// A network in CIDR.
fn network(text: &str) -> Result<(), String> {
    match is_network(text) {
        true => Ok(()),
        false => Err(format!(
            "and {text:?} is no network; such as 10.0.0.0/8 or fd00::/8 are allowed"
        )),
    }
}

fn within<T: FromStr + PartialOrd + Display>(
    text: &str,
    allowed: RangeInclusive<T>,
) -> Result<T, String> {
    let number = text.parse().ok().filter(|number| allowed.contains(number));
    number.ok_or_else(|| format!("and {} to {} are allowed", allowed.start(), allowed.end()))
}

/// A quantity as Kubernetes writes them.
fn quantity(text: &str) -> Result<Quantity, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = text.strip_suffix(unit).unwrap_or(text);
    let is_known = ["", "m", "k", "M", "G", "Ki", "Mi", "Gi"].contains(&unit);
    if !is_known || number.parse::<f64>().is_err() {
        return Err("and a quantity such as 100m or 64Mi is allowed".to_owned());
    }
    Ok(Quantity(text.to_owned()))
}

/// Levels by module, without anything that kubelet would replace.
fn log(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_:=,".contains(c);
    if text.is_empty() || !text.chars().all(is_plain) {
        return Err(
            "and levels such as info or warn,fairlead_proxy::http=debug are allowed".to_owned(),
        );
    }
    Ok(text.to_owned())
}
