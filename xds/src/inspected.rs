//! At which ports of a listener first bytes are looked at (`filter_disabled` of the inspectors).
//!
//! The proxy looks wherever a chain asks for what they tell, and nowhere else; Envoy looks everywhere unless told otherwise, and
//! lets servers that speak first wait. So what is written says where no chain asks, and what is read may say no more than that.

use std::collections::BTreeSet;

use fairlead_model::chains::asking_ports;
use fairlead_model::listener::Listener;
use serde_json::{Value, json};

use crate::field::{Field, Result};

/// Ports at which a filter is not asked (a `ListenerFilterChainMatchPredicate`).
#[derive(Debug)]
enum Predicate {
    Any,
    /// From the first to before the second.
    Ports(u64, u64),
    Not(Box<Predicate>),
    Or(Vec<Predicate>),
}

impl Predicate {
    fn read(field: &Field<'_>) -> Result<Self> {
        let fields = field.fields()?;
        let own = if let Some(range) = fields.get("destination_port_range") {
            let range = range.fields()?;
            let port = |name| range.need(name)?.number(0, 65536);
            let own = Self::Ports(port("start")?, port("end")?);
            range.finish()?;
            own
        } else if let Some(not) = fields.get("not_match") {
            Self::Not(Box::new(Self::read(&not)?))
        } else if let Some(any_of) = fields.get("or_match") {
            let any_of = any_of.fields()?;
            let rules = any_of.list("rules")?;
            any_of.finish()?;
            Self::Or(rules.iter().map(Self::read).collect::<Result<_>>()?)
        } else if fields.flag("any_match")? {
            Self::Any
        } else {
            return Err(field.error(
                "destination_port_range, not_match, or_match or any_match: true is expected",
            ));
        };
        fields.finish()?;
        Ok(own)
    }

    fn holds(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Ports(start, end) => (*start..*end).contains(&u64::from(port)),
            Self::Not(own) => !own.holds(port),
            Self::Or(all) => all.iter().any(|own| own.holds(port)),
        }
    }
}

/// Refuses what would keep the proxy from looking where a chain asks for it.
pub(crate) fn check(field: &Field<'_>, listener: &Listener) -> Result<()> {
    let predicate = Predicate::read(field)?;
    let asking = asking_ports(listener);
    let asking = asking.unwrap_or_else(|| (1..=u16::MAX).collect());
    match asking.into_iter().find(|port| predicate.holds(*port)) {
        None => Ok(()),
        Some(port) => Err(field.error(format!(
            "a filter chain needs to know of connections to port {port} what this filter tells, so that it cannot be left out there"
        ))),
    }
}

/// Where the inspectors of a listener are not asked; nothing where they are everywhere.
pub(crate) fn write(listener: &Listener) -> Option<Value> {
    let asking: BTreeSet<u16> = asking_ports(listener)?;
    let rules: Vec<Value> = asking
        .into_iter()
        .map(|port| json!({"destination_port_range": {"start": port, "end": u32::from(port) + 1}}))
        .collect();
    Some(match rules.as_slice() {
        [] => json!({"any_match": true}),
        [only] => json!({"not_match": only}),
        _ => json!({"not_match": {"or_match": {"rules": rules}}}),
    })
}
