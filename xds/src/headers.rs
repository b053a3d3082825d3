//! Headers: how they are changed (`HeaderValueOption`).

use fairlead_model::format::Format;
use fairlead_model::route::{HeaderChange, HeaderChanges, HeaderText, OnPresent};
use http::{HeaderName, HeaderValue};

use crate::field::{Field, Fields, Result};

/// What is changed of requests and of answers.
pub(crate) fn both(fields: &Fields<'_>) -> Result<(HeaderChanges, HeaderChanges)> {
    Ok((
        changes(
            fields,
            "request_headers_to_add",
            "request_headers_to_remove",
        )?,
        changes(
            fields,
            "response_headers_to_add",
            "response_headers_to_remove",
        )?,
    ))
}

/// Headers to add and to remove.
fn changes(fields: &Fields<'_>, add: &'static str, remove: &'static str) -> Result<HeaderChanges> {
    let removed = fields.list(remove)?;
    Ok(HeaderChanges {
        remove: removed.iter().map(name).collect::<Result<_>>()?,
        ..added(fields, add)?
    })
}

/// Headers to add.
pub(crate) fn added(fields: &Fields<'_>, add: &'static str) -> Result<HeaderChanges> {
    let all = fields.list(add)?;
    Ok(HeaderChanges {
        remove: Vec::new(),
        set: all.iter().map(option).collect::<Result<_>>()?,
    })
}

/// A `HeaderValueOption`.
pub(crate) fn option(own: &Field<'_>) -> Result<HeaderChange> {
    let option = own.fields()?;
    let header = option.need("header")?.fields()?;
    let (key, value) = (header.need("key")?, header.get("value"));
    header.finish()?;
    let text = value.as_ref().map_or(Ok(""), Field::text)?;
    let format =
        Format::parse(text).map_err(|error| own.error(format!("header.value: {error}")))?;
    let value = match format.literal() {
        Some(text) => HeaderText::Literal(
            HeaderValue::from_str(text)
                .map_err(|_| own.error("header.value: is no value of a header"))?,
        ),
        None => HeaderText::Format(Box::new(format)),
    };
    let (present, only_if_present) = present(option.get("append_action").as_ref())?;
    option.ignore(&["keep_empty_value"]);
    option.finish()?;
    Ok(HeaderChange {
        name: name(&key)?,
        value,
        present,
        only_if_present,
    })
}

/// What becomes of what is there already, and whether nothing is set where nothing is.
pub(crate) fn present(action: Option<&Field<'_>>) -> Result<(OnPresent, bool)> {
    action.map_or(Ok((OnPresent::Append, false)), |action| {
        action.one_of(&[
            ("APPEND_IF_EXISTS_OR_ADD", (OnPresent::Append, false)),
            ("ADD_IF_ABSENT", (OnPresent::Keep, false)),
            ("OVERWRITE_IF_EXISTS_OR_ADD", (OnPresent::Replace, false)),
            ("OVERWRITE_IF_EXISTS", (OnPresent::Replace, true)),
        ])
    })
}

/// The name of a header.
pub(crate) fn name(field: &Field<'_>) -> Result<HeaderName> {
    let text = field.text()?;
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| field.error(format!("{text:?} is no name of a header")))
}
