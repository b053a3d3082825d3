//! Matchers of texts (`type.matcher.v3`).

use fairlead_model::{Pattern, TextMatch};

use crate::field::{Field, Fields, Result};

/// A `StringMatcher`.
pub(crate) fn text(field: &Field<'_>) -> Result<TextMatch> {
    let fields = field.fields()?;
    let matcher = text_of(&fields)?;
    fields.finish()?;
    matcher.ok_or_else(|| field.error("exact, prefix, suffix, contains or safe_regex is required"))
}

fn text_of(fields: &Fields<'_>) -> Result<Option<TextMatch>> {
    let ignore_case = fields.flag("ignore_case")?;
    let own = |field: Field<'_>| field.text().map(str::to_owned);
    if let Some(field) = fields.get("exact") {
        return Ok(Some(TextMatch::Exact {
            text: own(field)?,
            ignore_case,
        }));
    }
    if let Some(field) = fields.get("prefix") {
        return Ok(Some(TextMatch::Prefix {
            text: own(field)?,
            ignore_case,
        }));
    }
    if let Some(field) = fields.get("suffix") {
        return Ok(Some(TextMatch::Suffix {
            text: own(field)?,
            ignore_case,
        }));
    }
    if let Some(field) = fields.get("contains") {
        return Ok(Some(TextMatch::Contains {
            text: own(field)?,
            ignore_case,
        }));
    }
    Ok(match fields.get("safe_regex") {
        Some(field) => Some(TextMatch::Regex(regex(&field)?)),
        None => None,
    })
}

/// A `RegexMatcher`.
pub(crate) fn regex(field: &Field<'_>) -> Result<Pattern> {
    let fields = field.fields()?;
    let source = fields.need("regex")?;
    fields.ignore(&["google_re2"]);
    fields.finish()?;
    Pattern::parse(source.text()?).map_err(|error| source.error(error.to_string()))
}
