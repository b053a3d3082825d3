//! Access logs (`config.accesslog.v3`), to files and the standard streams.

use fairlead_model::format::{Flag, Flags, Format};
use fairlead_model::log::{
    AccessLog, Comparison, JsonFormat, LogFilter, LogLine, LogTarget, Operator,
};
use serde_json::Value;

use crate::field::{Field, Fields, Result};
use crate::route;

/// A file.
pub(crate) const FILE: &str = "envoy.extensions.access_loggers.file.v3.FileAccessLog";
/// Standard output.
pub(crate) const STDOUT: &str = "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog";
/// Standard error.
pub(crate) const STDERR: &str = "envoy.extensions.access_loggers.stream.v3.StderrAccessLog";

/// What a line says where nothing else is asked: Envoy's own.
const USUAL_LINE: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
%RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
\"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";

/// The names of gRPC's statuses by their number.
pub(crate) const GRPC: [&str; 17] = [
    "OK",
    "CANCELED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// The logs of a listener, its HTTP or its bytes: the field `access_log`.
pub(crate) fn logs(fields: &Fields<'_>) -> Result<Vec<AccessLog>> {
    fields.list("access_log")?.iter().map(log).collect()
}

fn log(field: &Field<'_>) -> Result<AccessLog> {
    let fields = field.fields()?;
    fields.ignore(&["name"]);
    let (kind, config) = fields
        .need("typed_config")?
        .typed(&[FILE, STDOUT, STDERR])?;
    let filter = match fields.get("filter") {
        Some(own) => Some(filter(&own)?),
        None => None,
    };
    fields.finish()?;
    let config = config.fields()?;
    let target = match kind.as_str() {
        STDOUT => LogTarget::Stdout,
        STDERR => LogTarget::Stderr,
        _ => {
            let path = config.need("path")?;
            match path.text()? {
                "" => return Err(path.error("a path is expected")),
                "/dev/stdout" => LogTarget::Stdout,
                "/dev/stderr" => LogTarget::Stderr,
                path => LogTarget::File(path.into()),
            }
        }
    };
    let line = match config.get("log_format") {
        Some(own) => line(&own)?,
        None => LogLine::Text {
            format: Format::parse(USUAL_LINE).map_err(|error| field.error(error.to_string()))?,
            omit_empty: false,
        },
    };
    config.finish()?;
    Ok(AccessLog {
        target,
        line,
        filter,
    })
}

/// A `SubstitutionFormatString`.
fn line(field: &Field<'_>) -> Result<LogLine> {
    let fields = field.fields()?;
    let omit_empty = fields.flag("omit_empty_values")?;
    let line = if let Some(json) = fields.get("json_format") {
        LogLine::Json {
            members: members(&json)?,
            omit_empty,
        }
    } else if let Some(source) = fields.get("text_format_source") {
        let source = source.fields()?;
        let text = source.need("inline_string")?;
        source.finish()?;
        LogLine::Text {
            format: format(&text)?,
            omit_empty,
        }
    } else {
        return Err(field.error("json_format or text_format_source is required"));
    };
    fields.ignore(&["content_type"]);
    fields.finish()?;
    Ok(line)
}

fn format(field: &Field<'_>) -> Result<Format> {
    Format::parse(field.text()?).map_err(|error| field.error(error.to_string()))
}

fn members(field: &Field<'_>) -> Result<Vec<(String, JsonFormat)>> {
    let Some(map) = field.value.as_object() else {
        return Err(field.error("is no object"));
    };
    map.iter()
        .map(|(name, value)| {
            let own = Field {
                value,
                path: format!("{}.{name}", field.path),
            };
            Ok((name.clone(), json(&own)?))
        })
        .collect()
}

fn json(field: &Field<'_>) -> Result<JsonFormat> {
    Ok(match field.value {
        Value::String(_) => JsonFormat::Format(format(field)?),
        Value::Object(_) => JsonFormat::Object(members(field)?),
        Value::Array(_) => JsonFormat::List(field.list()?.iter().map(json).collect::<Result<_>>()?),
        // Over xDS every number is a decimal.
        Value::Number(number) => JsonFormat::Plain(match number.as_f64() {
            Some(decimal) if decimal.fract() == 0.0 && decimal.abs() < 9e15 => {
                Value::from(decimal as i64)
            }
            _ => Value::from(number.clone()),
        }),
        plain => JsonFormat::Plain(plain.clone()),
    })
}

/// An `AccessLogFilter`.
fn filter(field: &Field<'_>) -> Result<LogFilter> {
    let fields = field.fields()?;
    let all = |own: &Field<'_>| -> Result<Vec<LogFilter>> {
        let own = own.fields()?;
        let filters = own.list("filters")?.iter().map(filter).collect();
        own.finish()?;
        filters
    };
    let filter = if let Some(own) = fields.get("status_code_filter") {
        LogFilter::Status(comparison(&own)?)
    } else if let Some(own) = fields.get("duration_filter") {
        LogFilter::Duration(comparison(&own)?)
    } else if let Some(own) = fields.get("response_flag_filter") {
        LogFilter::Flags(flags(&own)?)
    } else if let Some(own) = fields.get("header_filter") {
        let own = own.fields()?;
        let header = route::header(&own.need("header")?)?;
        own.finish()?;
        LogFilter::Header(header)
    } else if let Some(own) = fields.get("runtime_filter") {
        let own = own.fields()?;
        let share = own
            .get("percent_sampled")
            .map_or(Ok(0), |share| share.share())?;
        own.ignore(&["runtime_key", "use_independent_randomness"]);
        own.finish()?;
        LogFilter::Share(share)
    } else if let Some(own) = fields.get("grpc_status_filter") {
        grpc(&own)?
    } else if let Some(own) = fields.get("and_filter") {
        LogFilter::And(all(&own)?)
    } else if let Some(own) = fields.get("or_filter") {
        LogFilter::Or(all(&own)?)
    } else if let Some(own) = fields.get("traceable_filter") {
        own.fields()?.finish()?;
        LogFilter::Traced
    } else {
        return Err(field.error(
            "status_code_filter, duration_filter, response_flag_filter, header_filter, runtime_filter, \
             grpc_status_filter, traceable_filter, and_filter or or_filter is required",
        ));
    };
    fields.finish()?;
    Ok(filter)
}

/// A `ComparisonFilter` within its filter.
fn comparison(field: &Field<'_>) -> Result<Comparison> {
    let outer = field.fields()?;
    let own = outer.need("comparison")?.fields()?;
    outer.finish()?;
    let operator = match own.get("op") {
        None => Operator::Equal,
        Some(operator) => operator.one_of(&[
            ("EQ", Operator::Equal),
            ("GE", Operator::AtLeast),
            ("LE", Operator::AtMost),
            ("NE", Operator::NotEqual),
        ])?,
    };
    let value = own.need("value")?.fields()?;
    own.finish()?;
    let number = value
        .get("default_value")
        .map_or(Ok(0), |number| number.number32())?;
    value.ignore(&["runtime_key"]);
    value.finish()?;
    Ok(Comparison {
        operator,
        value: u64::from(number),
    })
}

fn flags(field: &Field<'_>) -> Result<Flags> {
    let fields = field.fields()?;
    let mut flags = Flags::default();
    for own in fields.list("flags")? {
        let letters = own.text()?;
        let flag = Flag::of(letters).ok_or_else(|| {
            let allowed: Vec<_> = Flag::ALL.iter().map(|flag| flag.letters()).collect();
            own.error(format!(
                "{letters:?} is not supported; {} is allowed",
                allowed.join(", ")
            ))
        })?;
        flags = flags.with(flag);
    }
    fields.finish()?;
    Ok(flags)
}

fn grpc(field: &Field<'_>) -> Result<LogFilter> {
    let fields = field.fields()?;
    let mut statuses = Vec::new();
    for own in fields.list("statuses")? {
        let name = own.text()?;
        let code = GRPC
            .iter()
            .position(|known| *known == name)
            .ok_or_else(|| {
                own.error(format!(
                    "{name:?} is no gRPC status; {} is allowed",
                    GRPC.join(", ")
                ))
            })?;
        statuses.push(u8::try_from(code).unwrap_or(2));
    }
    let exclude = fields.flag("exclude")?;
    fields.finish()?;
    Ok(LogFilter::Grpc { statuses, exclude })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> std::result::Result<Vec<AccessLog>, String> {
        let value = json!({ "access_log": value });
        Field::root(&value)
            .fields()
            .and_then(|fields| logs(&fields))
            .map_err(|error| error.to_string())
    }

    fn file(config: Value) -> Value {
        let mut config = config;
        config["@type"] = json!(format!("type.googleapis.com/{FILE}"));
        json!({"name": "envoy.access_loggers.file", "typed_config": config})
    }

    #[test]
    fn a_log_is_read() {
        let mut log = file(json!({
            "path": "/var/log/access.log",
            "log_format": {
                "json_format": {"code": "%RESPONSE_CODE%", "more": {"fixed": 1, "list": ["%PROTOCOL%"]}},
                "omit_empty_values": true,
            },
        }));
        log["filter"] = json!({"or_filter": {"filters": [
            {"status_code_filter": {"comparison": {"op": "GE", "value": {"default_value": 500, "runtime_key": "a"}}}},
            {"response_flag_filter": {"flags": ["UH", "DC"]}},
            {"runtime_filter": {"runtime_key": "b", "percent_sampled": {"numerator": 1}}},
            {"grpc_status_filter": {"statuses": ["UNAVAILABLE"]}},
            {"header_filter": {"header": {"name": "x-debug", "present_match": true}}},
            {"traceable_filter": {}},
        ]}});
        let logs = read(json!([log])).expect("a log");
        assert_eq!(
            logs[0].target,
            LogTarget::File("/var/log/access.log".into())
        );
        assert!(matches!(
            &logs[0].filter,
            Some(LogFilter::Or(all)) if all.len() == 6 && all[2] == LogFilter::Share(10_000)
        ));
        let shapes = crate::Shapes::default();
        let name = "envoy.config.accesslog.v3.AccessLog";
        let bytes = shapes.bytes(name, &log).expect("a message");
        let over_xds = shapes.json(name, &bytes).expect("its JSON form");
        assert_eq!(read(json!([over_xds])), Ok(logs));
        let usual = read(json!([{
            "name": "envoy.access_loggers.stdout",
            "typed_config": {"@type": format!("type.googleapis.com/{STDOUT}")},
        }]))
        .expect("a log");
        assert_eq!(usual[0].target, LogTarget::Stdout);
    }

    #[test]
    fn what_is_wrong_has_a_path() {
        for (log, expected) in [
            (
                file(json!({"path": ""})),
                "access_log[0].typed_config.path: a path is expected",
            ),
            (
                file(json!({"path": "/a", "log_format": {"json_format": {"a": {"b": "%WEIRD%"}}}})),
                "access_log[0].typed_config.log_format.json_format.a.b: %WEIRD% is not supported; ",
            ),
            (
                file(json!({"path": "/a", "format": "x"})),
                "access_log[0].typed_config.format: is not a supported field; ",
            ),
            (
                json!({"typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig"}}),
                "access_log[0].typed_config: the type ",
            ),
            (
                {
                    let mut log = file(json!({"path": "/a"}));
                    log["filter"] = json!({"response_flag_filter": {"flags": ["XX"]}});
                    log
                },
                "access_log[0].filter.response_flag_filter.flags[0]: \"XX\" is not supported; UH, ",
            ),
        ] {
            let found = read(json!([log]));
            assert!(
                found
                    .as_ref()
                    .is_err_and(|error| error.starts_with(expected)),
                "{found:?}"
            );
        }
    }
}
