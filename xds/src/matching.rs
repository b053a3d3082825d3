//! Matchers of texts (`type.matcher.v3`).

use fairlead_model::filter::{MetadataMatch, ValueMatch};
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

/// How deep matchers of values may stand in each other.
const MOST_DEPTH: usize = 16;

/// A `MetadataMatcher`.
pub(crate) fn metadata(field: &Field<'_>) -> Result<MetadataMatch> {
    let fields = field.fields()?;
    let matcher = MetadataMatch {
        filter: fields.need("filter")?.text()?.to_owned(),
        path: keys(&fields.need("path")?)?,
        value: value(&fields.need("value")?, MOST_DEPTH)?,
        invert: fields.flag("invert")?,
    };
    fields.finish()?;
    Ok(matcher)
}

/// The `PathSegment`s to a value.
pub(crate) fn keys(field: &Field<'_>) -> Result<Vec<String>> {
    let keys = field.list()?;
    if keys.is_empty() {
        return Err(field.error("at least one key is required"));
    }
    keys.iter()
        .map(|own| {
            let own = own.fields()?;
            let key = own.need("key")?.text()?.to_owned();
            own.finish()?;
            Ok(key)
        })
        .collect()
}

/// A `ValueMatcher`.
fn value(field: &Field<'_>, depth: usize) -> Result<ValueMatch> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(field.error(format!(
            "matchers stand in each other more than {MOST_DEPTH} deep"
        )));
    };
    let fields = field.fields()?;
    let found = if let Some(own) = fields.get("null_match") {
        own.fields()?.finish()?;
        ValueMatch::Null
    } else if let Some(own) = fields.get("double_match") {
        number(&own)?
    } else if let Some(own) = fields.get("string_match") {
        ValueMatch::Text(text(&own)?)
    } else if let Some(own) = fields.get("bool_match") {
        ValueMatch::Flag(own.flag()?)
    } else if let Some(own) = fields.get("present_match") {
        ValueMatch::Present(own.flag()?)
    } else if let Some(own) = fields.get("list_match") {
        let own = own.fields()?;
        let one = value(&own.need("one_of")?, depth)?;
        own.finish()?;
        ValueMatch::Has(Box::new(one))
    } else {
        let own = fields.need("or_match")?.fields()?;
        let all = own.need("value_matchers")?.list()?;
        own.finish()?;
        let all = all.iter().map(|own| value(own, depth));
        ValueMatch::OneOf(all.collect::<Result<_>>()?)
    };
    fields.finish()?;
    Ok(found)
}

/// A `DoubleMatcher`.
fn number(field: &Field<'_>) -> Result<ValueMatch> {
    let fields = field.fields()?;
    let found = match fields.get("range") {
        Some(own) => {
            let own = own.fields()?;
            let bound = |name| own.get(name).map_or(Ok(0.0), |own| own.decimal());
            let range = ValueMatch::Range(bound("start")?, bound("end")?);
            own.finish()?;
            range
        }
        None => ValueMatch::Number(fields.need("exact")?.decimal()?),
    };
    fields.finish()?;
    Ok(found)
}
