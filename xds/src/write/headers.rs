//! How headers are changed.

use fairlead_model::route::{HeaderChange, HeaderChanges, HeaderText, OnPresent};
use serde_json::{Value, json};

use super::Message;

/// Changes to the headers of requests and answers.
pub(super) fn both(message: Message, request: &HeaderChanges, response: &HeaderChanges) -> Message {
    message
        .with("request_headers_to_add", added(request))
        .with("request_headers_to_remove", removed(request))
        .with("response_headers_to_add", added(response))
        .with("response_headers_to_remove", removed(response))
}

/// Headers to add.
pub(super) fn added(changes: &HeaderChanges) -> Value {
    changes.set.iter().map(option).collect()
}

/// A `HeaderValueOption`.
pub(super) fn option(change: &HeaderChange) -> Value {
    let value = match &change.value {
        HeaderText::Literal(value) => String::from_utf8_lossy(value.as_bytes()).replace('%', "%%"),
        HeaderText::Format(format) => format.source().to_owned(),
    };
    json!({
        "header": {"key": change.name.as_str(), "value": value},
        "append_action": action(change.present, change.only_if_present),
    })
}

/// What becomes of what is there already.
pub(super) fn action(present: OnPresent, only_if_present: bool) -> &'static str {
    match (present, only_if_present) {
        (OnPresent::Append, _) => "APPEND_IF_EXISTS_OR_ADD",
        (OnPresent::Keep, _) => "ADD_IF_ABSENT",
        (OnPresent::Replace, false) => "OVERWRITE_IF_EXISTS_OR_ADD",
        (OnPresent::Replace, true) => "OVERWRITE_IF_EXISTS",
    }
}

fn removed(changes: &HeaderChanges) -> Value {
    changes
        .remove
        .iter()
        .map(|name| json!(name.as_str()))
        .collect()
}
