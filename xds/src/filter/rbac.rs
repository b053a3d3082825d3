//! Authorization (`extensions.filters.http.rbac.v3`, `config.rbac.v3`).

use std::collections::BTreeMap;

use fairlead_model::TextMatch;
use fairlead_model::filter::{Authorization, Condition, Effect, Policy, Pseudo, Rules};

use super::EXPRESSION;
use crate::field::{Field, Fields, Result};
use crate::{listener, matching, route};

/// How deep conditions may stand in each other.
const MOST_DEPTH: usize = 32;

/// An `RBAC` of requests.
pub(super) fn read(field: &Field<'_>) -> Result<Authorization> {
    let fields = field.fields()?;
    let own = parts(&fields)?;
    fields.finish()?;
    Ok(own)
}

/// An `RBAC` of connections, which have no requests to look at.
pub(crate) fn of_connection(field: &Field<'_>) -> Result<Authorization> {
    let fields = field.fields()?;
    let own = parts(&fields)?;
    fields.ignore(&["stat_prefix", "enforcement_type"]);
    fields.finish()?;
    let mut rules = own.rules.iter().chain(&own.shadow);
    if rules.any(Rules::needs_request) {
        return Err(field.error(
            "header, url_path, metadata and expressions over request need the filter of HTTP (envoy.extensions.filters.http.rbac.v3.RBAC)",
        ));
    }
    Ok(own)
}

/// What both kinds of filters have.
fn parts(fields: &Fields<'_>) -> Result<Authorization> {
    fields.ignore(&["rules_stat_prefix", "track_per_rule_stats"]);
    let name = fields.get("shadow_rules_stat_prefix");
    let name = name.map(|own| own.text().map(Into::into)).transpose()?;
    let of = |name| fields.get(name).map(|own| rules(&own)).transpose();
    Ok(Authorization {
        rules: of("rules")?,
        shadow: of("shadow_rules")?,
        shadow_name: name,
    })
}

fn rules(field: &Field<'_>) -> Result<Rules> {
    let fields = field.fields()?;
    let effect = fields.get("action").map_or(Ok(Effect::Allow), |own| {
        own.one_of(&[
            ("ALLOW", Effect::Allow),
            ("DENY", Effect::Deny),
            ("LOG", Effect::Audit),
        ])
    })?;
    let policies = match fields.get("policies") {
        None => BTreeMap::new(),
        Some(all) => all
            .entries()?
            .into_iter()
            .map(|(name, own)| Ok((name.to_owned(), policy(&own)?)))
            .collect::<Result<_>>()?,
    };
    fields.finish()?;
    Ok(Rules { effect, policies })
}

fn policy(field: &Field<'_>) -> Result<Policy> {
    let fields = field.fields()?;
    let of = |name, is_permission| -> Result<Vec<Condition>> {
        let own = fields.need(name)?;
        let all = own.list()?;
        if all.is_empty() {
            return Err(own.error("at least one is required"));
        }
        all.iter()
            .map(|own| condition(own, is_permission, MOST_DEPTH))
            .collect()
    };
    let policy = Policy {
        permissions: of("permissions", true)?,
        principals: of("principals", false)?,
    };
    fields.finish()?;
    Ok(policy)
}

/// A `Permission`, or a `Principal`.
fn condition(field: &Field<'_>, is_permission: bool, depth: usize) -> Result<Condition> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(field.error(format!(
            "conditions stand in each other more than {MOST_DEPTH} deep"
        )));
    };
    let fields = field.fields()?;
    let [and, or, not, set] = match is_permission {
        true => ["and_rules", "or_rules", "not_rule", "rules"],
        false => ["and_ids", "or_ids", "not_id", "ids"],
    };
    let within = |own: &Field<'_>| -> Result<Vec<Condition>> {
        let fields = own.fields()?;
        let all = fields.need(set)?.list()?;
        let all = all.iter().map(|own| condition(own, is_permission, depth));
        let all: Vec<_> = all.collect::<Result<_>>()?;
        fields.finish()?;
        match all.is_empty() {
            true => Err(own.error("at least one is required")),
            false => Ok(all),
        }
    };
    let found = if let Some(own) = fields.get("any") {
        match own.flag()? {
            true => Condition::Any,
            false => return Err(own.error("false means nothing; true is allowed")),
        }
    } else if let Some(own) = fields.get(and) {
        Condition::All(within(&own)?)
    } else if let Some(own) = fields.get(or) {
        Condition::OneOf(within(&own)?)
    } else if let Some(own) = fields.get(not) {
        Condition::Not(Box::new(condition(&own, is_permission, depth)?))
    } else if let Some(own) = fields.get("header") {
        header(&own)?
    } else if let Some(own) = fields.get("url_path") {
        Condition::Path(path(&own)?)
    } else if let Some(own) = fields.get("metadata") {
        Condition::Metadata(matching::metadata(&own)?)
    } else if let Some(own) = fields.get("sourced_metadata") {
        let own = own.fields()?;
        let matcher = matching::metadata(&own.need("metadata_matcher")?)?;
        if let Some(source) = own.get("metadata_source") {
            source.one_of(&[("DYNAMIC", ())])?;
        }
        own.finish()?;
        Condition::Metadata(matcher)
    } else {
        let own = match is_permission {
            true => permission(&fields)?,
            false => principal(&fields)?,
        };
        match own {
            Some(own) => own,
            None => {
                // Names the field that is not supported, where there is one.
                fields.finish()?;
                return Err(field.error("a condition is required"));
            }
        }
    };
    fields.finish()?;
    Ok(found)
}

fn permission(fields: &Fields<'_>) -> Result<Option<Condition>> {
    Ok(Some(if let Some(own) = fields.get("destination_ip") {
        Condition::Destination(listener::cidr(&own)?)
    } else if let Some(own) = fields.get("destination_port") {
        let port = u16::try_from(own.number(0, 65_535)?).unwrap_or(u16::MAX);
        Condition::DestinationPort(port..=port)
    } else if let Some(own) = fields.get("destination_port_range") {
        let range = own.fields()?;
        // The end is not part of it.
        let (start, end) = (
            range
                .get("start")
                .map_or(Ok(0), |own| own.number(0, 65_535))?,
            range.need("end")?.number(1, 65_536)?,
        );
        range.finish()?;
        if start >= end {
            return Err(own.error(format!("{start} is not below {end}")));
        }
        let port = |own: u64| u16::try_from(own).unwrap_or(u16::MAX);
        Condition::DestinationPort(port(start)..=port(end - 1))
    } else if let Some(own) = fields.get("requested_server_name") {
        Condition::ServerName(matching::text(&own)?)
    } else if fields.get("matcher").is_some() {
        let (_, config) = fields
            .extension("matcher", &[EXPRESSION])?
            .ok_or_else(|| fields.error_at("matcher", "is required"))?;
        let own = config.fields()?;
        let text = own.need("text")?;
        own.finish()?;
        Condition::expression(text.text()?).map_err(|error| text.error(error.to_string()))?
    } else {
        return Ok(None);
    }))
}

fn principal(fields: &Fields<'_>) -> Result<Option<Condition>> {
    Ok(Some(if let Some(own) = fields.get("authenticated") {
        let own = own.fields()?;
        let name = own.get("principal_name");
        own.finish()?;
        Condition::Peer(name.map(|own| matching::text(&own)).transpose()?)
    } else if let Some(own) = fields.get("direct_remote_ip") {
        Condition::Source(listener::cidr(&own)?)
    } else if let Some(own) = fields.get("source_ip") {
        Condition::Source(listener::cidr(&own)?)
    } else if let Some(own) = fields.get("remote_ip") {
        Condition::Caller(listener::cidr(&own)?)
    } else {
        return Ok(None);
    }))
}

/// A `PathMatcher`.
fn path(field: &Field<'_>) -> Result<TextMatch> {
    let fields = field.fields()?;
    let text = matching::text(&fields.need("path")?)?;
    fields.finish()?;
    Ok(text)
}

/// A `HeaderMatcher` of a request, whose name may be that of a pseudo header.
pub(crate) fn header(field: &Field<'_>) -> Result<Condition> {
    let fields = field.fields()?;
    let pseudo = match fields.need("name")?.text()? {
        ":method" => Pseudo::Method,
        ":path" => Pseudo::Path,
        ":authority" | "host" | "Host" => Pseudo::Authority,
        _ => return Ok(Condition::Header(route::header(field)?)),
    };
    let is_inverted = fields.flag("invert_match")?;
    fields.ignore(&["treat_missing_header_as_empty"]);
    let text = match fields.get("exact_match") {
        Some(own) => TextMatch::exact(own.text()?),
        None => matching::text(&fields.need("string_match")?)?,
    };
    fields.finish()?;
    let own = Condition::Pseudo(pseudo, text);
    Ok(match is_inverted {
        true => Condition::Not(Box::new(own)),
        false => own,
    })
}
