//! Active health checks (`config.core.v3.HealthCheck`).

use fairlead_model::cluster::{HealthCheck, Probe};

use crate::field::{Field, Fields, Result};

/// A `HealthCheck`.
pub(crate) fn check(field: &Field<'_>) -> Result<HealthCheck> {
    let fields = field.fields()?;
    let probe = probe(&fields)?;
    let mut check = HealthCheck {
        timeout: above_zero(&fields.need("timeout")?)?,
        interval: above_zero(&fields.need("interval")?)?,
        ..HealthCheck::of(probe)
    };
    check.unhealthy_threshold = threshold(&fields.need("unhealthy_threshold")?)?;
    check.healthy_threshold = threshold(&fields.need("healthy_threshold")?)?;
    let other =
        |name| -> Result<_> { fields.get(name).map(|field| above_zero(&field)).transpose() };
    check.unhealthy_interval = other("unhealthy_interval")?;
    check.unhealthy_edge = other("unhealthy_edge_interval")?;
    check.healthy_edge = other("healthy_edge_interval")?;
    check.no_traffic = other("no_traffic_interval")?.unwrap_or(check.no_traffic);
    check.no_traffic_healthy = other("no_traffic_healthy_interval")?;
    check.jitter = fields.duration("interval_jitter")?.unwrap_or_default();
    if let Some(percent) = fields.get("interval_jitter_percent") {
        check.jitter_percent = u32::try_from(percent.number(0, 1000)?).unwrap_or(0);
    }
    check.first_jitter = fields.duration("initial_jitter")?.unwrap_or_default();
    if let Some(reuse) = fields.get("reuse_connection") {
        check.reuse_connection = reuse.flag()?;
    }
    fields.ignore(&[
        "always_log_health_check_failures",
        "always_log_health_check_success",
    ]);
    fields.finish()?;
    Ok(check)
}

fn above_zero(field: &Field<'_>) -> Result<std::time::Duration> {
    let duration = field.duration()?;
    if duration.is_zero() {
        return Err(field.error("0s is no interval; more is expected"));
    }
    Ok(duration)
}

fn threshold(field: &Field<'_>) -> Result<u32> {
    Ok(u32::try_from(field.number(1, u64::from(u32::MAX))?).unwrap_or(1))
}

fn probe(fields: &Fields<'_>) -> Result<Probe> {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    if let Some(own) = fields.get("http_health_check") {
        let own = own.fields()?;
        let path = own.need("path")?;
        if !path.text()?.starts_with('/') {
            return Err(path.error(format!("{:?} is no path; it begins with /", path.text()?)));
        }
        let http2 = match own.get("codec_client_type") {
            None => false,
            Some(codec) => codec.one_of(&[("HTTP1", false), ("HTTP2", true)])?,
        };
        let probe = Probe::Http {
            path: path.text()?.to_owned(),
            host: some(own.text("host")?),
            expected: statuses(&own, "expected_statuses")?,
            retriable: statuses(&own, "retriable_statuses")?,
            http2,
        };
        if let Some(method) = own.get("method") {
            method.one_of(&[("GET", ()), ("METHOD_UNSPECIFIED", ())])?;
        }
        own.finish()?;
        return Ok(probe);
    }
    if let Some(own) = fields.get("grpc_health_check") {
        let own = own.fields()?;
        let probe = Probe::Grpc {
            service: own.text("service_name")?.to_owned(),
            authority: some(own.text("authority")?),
        };
        own.finish()?;
        return Ok(probe);
    }
    match fields.get("tcp_health_check") {
        // Neither is anything sent nor expected.
        Some(own) => own.fields()?.finish().map(|()| Probe::Tcp),
        None => {
            Err(fields
                .error("http_health_check, grpc_health_check or tcp_health_check is required"))
        }
    }
}

/// Ranges of statuses, each from the first to before the second.
fn statuses(fields: &Fields<'_>, name: &'static str) -> Result<Vec<(u16, u16)>> {
    fields
        .list(name)?
        .iter()
        .map(|own| {
            let range = own.fields()?;
            let bound = |name| -> Result<u16> {
                Ok(u16::try_from(range.need(name)?.number(100, 600)?).unwrap_or(600))
            };
            let (start, end) = (bound("start")?, bound("end")?);
            range.finish()?;
            if start >= end {
                return Err(own.error(format!("{start} is not below {end}")));
            }
            Ok((start, end))
        })
        .collect()
}
