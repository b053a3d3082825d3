//! Access logs.

use fairlead_model::format::Flag;
use fairlead_model::log::{
    AccessLog, Comparison, JsonFormat, LogFilter, LogLine, LogTarget, Operator,
};
use serde_json::{Map, Value, json};

use super::{Message, any, matching, share};
use crate::access_log::{FILE, GRPC, STDERR, STDOUT};

/// The field `access_log`.
pub(super) fn logs(logs: &[AccessLog]) -> Value {
    logs.iter().map(log).collect()
}

fn log(log: &AccessLog) -> Value {
    let (name, kind, path) = match &log.target {
        LogTarget::File(path) => ("file", FILE, path.to_string_lossy().into_owned()),
        LogTarget::Stdout => ("stdout", STDOUT, String::new()),
        LogTarget::Stderr => ("stderr", STDERR, String::new()),
    };
    let config = Message::default()
        .with("path", json!(path))
        .with("log_format", line(&log.line))
        .done();
    Message::default()
        .with("name", json!(format!("envoy.access_loggers.{name}")))
        .with("filter", json!(log.filter.as_ref().map(filter)))
        .with("typed_config", any(kind, config))
        .done()
}

fn line(line: &LogLine) -> Value {
    let (field, format, omit_empty) = match line {
        LogLine::Text { format, omit_empty } => (
            "text_format_source",
            json!({"inline_string": format.source()}),
            omit_empty,
        ),
        LogLine::Json {
            members,
            omit_empty,
        } => ("json_format", object(members), omit_empty),
    };
    Message::default()
        .with(field, format)
        .with("omit_empty_values", json!(omit_empty))
        .done()
}

fn object(members: &[(String, JsonFormat)]) -> Value {
    let members: Map<String, Value> = members
        .iter()
        .map(|(name, own)| (name.clone(), member(own)))
        .collect();
    Value::Object(members)
}

fn member(own: &JsonFormat) -> Value {
    match own {
        JsonFormat::Format(format) => json!(format.source()),
        JsonFormat::Plain(plain) => plain.clone(),
        JsonFormat::Object(members) => object(members),
        JsonFormat::List(all) => all.iter().map(member).collect(),
    }
}

fn filter(own: &LogFilter) -> Value {
    let all = |own: &[LogFilter]| -> Vec<Value> { own.iter().map(filter).collect() };
    match own {
        LogFilter::Status(own) => json!({"status_code_filter": comparison(own)}),
        LogFilter::Duration(own) => json!({"duration_filter": comparison(own)}),
        LogFilter::Flags(own) => {
            let letters: Vec<&str> = Flag::ALL
                .iter()
                .filter(|flag| own.has(**flag))
                .map(|flag| flag.letters())
                .collect();
            json!({"response_flag_filter": {"flags": letters}})
        }
        LogFilter::Header(own) => json!({"header_filter": {"header": matching::header(own)}}),
        LogFilter::Share(own) => json!({"runtime_filter": {
            "runtime_key": "fairlead.access_log",
            "percent_sampled": share(*own),
        }}),
        LogFilter::Grpc { statuses, exclude } => {
            let names: Vec<&str> = statuses
                .iter()
                .filter_map(|code| GRPC.get(usize::from(*code)).copied())
                .collect();
            json!({"grpc_status_filter": {"statuses": names, "exclude": exclude}})
        }
        LogFilter::Traced => json!({"traceable_filter": {}}),
        LogFilter::And(own) => json!({"and_filter": {"filters": all(own)}}),
        LogFilter::Or(own) => json!({"or_filter": {"filters": all(own)}}),
    }
}

fn comparison(own: &Comparison) -> Value {
    let operator = match own.operator {
        Operator::Equal => "EQ",
        Operator::AtLeast => "GE",
        Operator::AtMost => "LE",
        Operator::NotEqual => "NE",
    };
    json!({"comparison": {
        "op": operator,
        "value": {"default_value": own.value, "runtime_key": "fairlead.access_log"},
    }})
}
