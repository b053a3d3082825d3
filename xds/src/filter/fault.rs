//! Faults on purpose (`extensions.filters.http.fault.v3`, `fairlead.mesh.v1.Fault`).

use fairlead_model::filter::{Abort, AbortBy, Break, Delay, DelayBy, Injection, Pace, PaceBy};
use http::StatusCode;
use jiff::Timestamp;

use crate::field::{Field, Fields, Result};
use crate::{matching, route};

/// An `HTTPFault`, whose parts that headers control need a list of callers that only our own message has.
pub(crate) fn read(field: &Field<'_>) -> Result<Injection> {
    let injection = unbounded(field)?;
    if injection.asks_headers() {
        return Err(field.error(
            "header_delay, header_abort and header_limit let any caller make things go wrong; fairlead.mesh.v1.Fault with callers allows them",
        ));
    }
    Ok(injection)
}

/// A `Fault` of our own.
pub(crate) fn bounded(field: &Field<'_>) -> Result<Injection> {
    let fields = field.fields()?;
    let mut injection = fields
        .get("fault")
        .map_or(Ok(Injection::default()), |own| unbounded(&own))?;
    if let Some(own) = fields.get("until").filter(|own| own.value != "") {
        let until: Timestamp = own.text()?.parse().map_err(|_| {
            own.error(format!(
                "{} is no time; RFC 3339 such as \"2026-12-24T18:00:00Z\" is expected",
                own.value
            ))
        })?;
        injection.until = Some(u64::try_from(until.as_second()).unwrap_or(0));
    }
    for own in fields.list("callers")? {
        injection.callers.push(matching::text(&own)?);
    }
    for (name, how) in [
        ("reset_connection", Break::Connection),
        ("cut_answer", Break::Answer),
    ] {
        if let Some(own) = fields.get(name) {
            injection.breaks.push((how, own.share()?));
        }
    }
    fields.finish()?;
    if injection.asks_headers() && injection.callers.is_empty() {
        return Err(
            field.error("callers: at least one is required where headers say what goes wrong")
        );
    }
    Ok(injection)
}

fn unbounded(field: &Field<'_>) -> Result<Injection> {
    let fields = field.fields()?;
    let injection = Injection {
        delay: fields.get("delay").map(|own| delay(&own)).transpose()?,
        abort: fields.get("abort").map(|own| abort(&own)).transpose()?,
        pace: fields
            .get("response_rate_limit")
            .map(|own| pace(&own))
            .transpose()?,
        breaks: Vec::new(),
        cluster: fields.text("upstream_cluster")?.to_owned(),
        headers: fields
            .list("headers")?
            .iter()
            .map(route::header)
            .collect::<Result<_>>()?,
        nodes: fields
            .list("downstream_nodes")?
            .iter()
            .map(|own| own.text().map(str::to_owned))
            .collect::<Result<_>>()?,
        most_active: fields
            .get("max_active_faults")
            .map(|own| own.number32())
            .transpose()?,
        callers: Vec::new(),
        until: None,
    };
    fields.ignore(&["disable_downstream_cluster_stats", "filter_metadata"]);
    fields.finish()?;
    Ok(injection)
}

/// The share of a part; Envoy's is none where it is not given.
fn share(fields: &Fields<'_>) -> Result<u32> {
    fields.get("percentage").map_or(Ok(0), |own| own.share())
}

fn delay(field: &Field<'_>) -> Result<Delay> {
    let fields = field.fields()?;
    let by = match fields.get("header_delay") {
        Some(_) => DelayBy::Header,
        None => {
            let own = fields.need("fixed_delay")?;
            let length = own.duration()?;
            if length.is_zero() {
                return Err(own.error("0s is no delay; more is expected"));
            }
            DelayBy::Fixed(length)
        }
    };
    let share = share(&fields)?;
    fields.finish()?;
    Ok(Delay { by, share })
}

fn abort(field: &Field<'_>) -> Result<Abort> {
    let fields = field.fields()?;
    let by = if fields.get("header_abort").is_some() {
        AbortBy::Header
    } else if let Some(own) = fields.get("grpc_status") {
        AbortBy::Grpc(u8::try_from(own.number(0, 16)?).unwrap_or(14))
    } else {
        let own = fields.need("http_status")?;
        let code = u16::try_from(own.number(200, 599)?).unwrap_or(503);
        let status = StatusCode::from_u16(code);
        AbortBy::Http(status.map_err(|_| own.error(format!("{code} is no status")))?)
    };
    let body = fields.text("response_body")?.to_owned();
    if body.len() > 4096 {
        return Err(fields.error_at("response_body", "is longer than 4096 bytes"));
    }
    let share = share(&fields)?;
    fields.finish()?;
    Ok(Abort { by, share, body })
}

fn pace(field: &Field<'_>) -> Result<Pace> {
    let fields = field.fields()?;
    let by = match fields.get("header_limit") {
        Some(_) => PaceBy::Header,
        None => {
            let fixed = fields.need("fixed_limit")?.fields()?;
            let kilobytes = fixed.need("limit_kbps")?.number(1, 1 << 40)?;
            fixed.finish()?;
            PaceBy::Fixed(kilobytes)
        }
    };
    let share = share(&fields)?;
    fields.finish()?;
    Ok(Pace { by, share })
}
