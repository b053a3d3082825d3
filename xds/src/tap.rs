//! What a viewer asks of the admin interface's `/tap` (`admin.v3.TapRequest`, `config.tap.v3`), with what is our own under `fairlead`.

use fairlead_model::tap::{AnswerMatch, Tap, TapMatch};
use serde_json::Value;

use crate::field::{ConfigError, Field, Fields, Result};
use crate::filter::header;
use crate::{headers, matching, route};

/// How deep matches may stand in each other.
const MOST_DEPTH: usize = 16;
/// The most of a body that is shown, in bytes.
const MOST_BODY: u64 = 1 << 20;

/// Reads what a viewer asks for, in YAML or JSON.
///
/// # Errors
/// Names the first field that is wrong, by its path.
pub fn tap(text: &str) -> std::result::Result<Tap, ConfigError> {
    let value: Value = serde_saphyr::from_str(text).map_err(|error| ConfigError {
        path: "tap".to_owned(),
        reason: format!("failed to read YAML: {error}"),
    })?;
    read(&value, false)
}

/// Reads what a viewer of the stream asks for: a `fairlead.mesh.v1.WatchRequest`, which needs no sink.
///
/// # Errors
/// Names the first field that is wrong, by its path.
pub fn watched(value: &Value) -> std::result::Result<Tap, ConfigError> {
    read(value, true)
}

fn read(value: &Value, is_stream: bool) -> Result<Tap> {
    let fields = Field::root(value).fields()?;
    let name = fields.text("config_id")?.to_owned();
    let own = fields.need("tap_config")?.fields()?;
    let matches = match own.get("match") {
        Some(matches) => self::matches(&matches, MOST_DEPTH)?,
        None => self::matches(&own.need("match_config")?, MOST_DEPTH)?,
    };
    let share = own
        .get("tap_enabled")
        .map_or(Ok(1_000_000), |own| own.runtime_share())?;
    let mut tap = Tap {
        name,
        matches,
        share,
        request_most: 0,
        response_most: 0,
        is_text: false,
        callers: Vec::new(),
        slower_than: None,
        redacted: Vec::new(),
    };
    match own.get("output_config") {
        None if is_stream => {}
        None => return Err(own.error_at("output_config", "is required")),
        Some(output) => read_output(&output.fields()?, is_stream, &mut tap)?,
    }
    own.finish()?;
    if let Some(own) = fields.get("fairlead") {
        let own = own.fields()?;
        for caller in own.list("callers")? {
            tap.callers.push(matching::text(&caller)?);
        }
        tap.slower_than = own.duration("slower_than")?;
        let redacted = own.list("redact")?;
        tap.redacted = redacted.iter().map(headers::name).collect::<Result<_>>()?;
        own.finish()?;
    }
    fields.finish()?;
    Ok(tap)
}

/// How much of bodies is shown, and how.
fn read_output(output: &Fields<'_>, is_stream: bool, tap: &mut Tap) -> Result<()> {
    let most = |name| -> Result<usize> {
        let most = output
            .get(name)
            .map_or(Ok(0), |own| own.number(0, MOST_BODY))?;
        Ok(usize::try_from(most).unwrap_or(0))
    };
    tap.request_most = most("max_buffered_rx_bytes")?;
    tap.response_most = most("max_buffered_tx_bytes")?;
    if !is_stream {
        tap.is_text = is_text(output)?;
    }
    if output.flag("streaming")? {
        return Err(output.error_at(
            "streaming",
            "is not supported; a request is shown once it is over",
        ));
    }
    output.finish()
}

/// Whether bodies are shown as text.
fn is_text(output: &Fields<'_>) -> Result<bool> {
    let sinks = output.need("sinks")?;
    let list = sinks.list()?;
    let [sink] = list.as_slice() else {
        return Err(sinks.error(format!("{} sinks; one is supported", list.len())));
    };
    let sink = sink.fields()?;
    sink.need("streaming_admin")?;
    let is_text = sink.get("format").map_or(Ok(false), |own| {
        own.one_of(&[("JSON_BODY_AS_BYTES", false), ("JSON_BODY_AS_STRING", true)])
    })?;
    sink.finish()?;
    Ok(is_text)
}

fn matches(field: &Field<'_>, depth: usize) -> Result<TapMatch> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(field.error(format!(
            "matches stand in each other more than {MOST_DEPTH} deep"
        )));
    };
    let fields = field.fields()?;
    let rules = |own: &Field<'_>| -> Result<Vec<TapMatch>> {
        let set = own.fields()?;
        let all = set.need("rules")?.list()?;
        set.finish()?;
        all.iter().map(|own| matches(own, depth)).collect()
    };
    let found = if let Some(own) = fields.get("any_match") {
        own.flag()?;
        TapMatch::Any
    } else if let Some(own) = fields.get("and_match") {
        TapMatch::All(rules(&own)?)
    } else if let Some(own) = fields.get("or_match") {
        TapMatch::OneOf(rules(&own)?)
    } else if let Some(own) = fields.get("not_match") {
        TapMatch::Not(Box::new(matches(&own, depth)?))
    } else if let Some(own) = fields.get("http_request_headers_match") {
        let all = listed(&own)?;
        TapMatch::Request(all.iter().map(header).collect::<Result<_>>()?)
    } else if let Some(own) = fields.get("http_response_headers_match") {
        let all = listed(&own)?;
        TapMatch::Response(all.iter().map(answer).collect::<Result<_>>()?)
    } else {
        // Names the field that is not supported, where there is one.
        fields.finish()?;
        return Err(field.error("a match is required, such as any_match: true"));
    };
    fields.finish()?;
    Ok(found)
}

fn listed<'a>(field: &Field<'a>) -> Result<Vec<Field<'a>>> {
    let fields = field.fields()?;
    let all = fields.list("headers")?;
    fields.finish()?;
    Ok(all)
}

fn answer(field: &Field<'_>) -> Result<AnswerMatch> {
    let fields = field.fields()?;
    if fields.need("name")?.text()? != ":status" {
        return Ok(AnswerMatch::Header(route::header(field)?));
    }
    let status = matching::text(&fields.need("string_match")?)?;
    fields.finish()?;
    Ok(AnswerMatch::Status(status))
}
