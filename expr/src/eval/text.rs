//! The functions of text. Positions count characters, as in CEL.

use super::arithmetic::make_list;
use super::budget::{Budget, Fault};
use super::value::{List, Text, Value};
use crate::syntax::Function;

/// Applies a method to a text.
pub(super) fn apply<'a>(
    function: Function,
    subject: &Text<'a>,
    arguments: &[Value<'a>],
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    let text = subject.as_str();
    match (function, arguments) {
        (Function::Contains, [Value::Text(part)]) => Ok(Value::Bool(text.contains(part.as_str()))),
        (Function::StartsWith, [Value::Text(part)]) => {
            Ok(Value::Bool(text.starts_with(part.as_str())))
        }
        (Function::EndsWith, [Value::Text(part)]) => Ok(Value::Bool(text.ends_with(part.as_str()))),
        (Function::IndexOf, [Value::Text(part)]) => Ok(position(text, text.find(part.as_str()))),
        (Function::LastIndexOf, [Value::Text(part)]) => {
            Ok(position(text, text.rfind(part.as_str())))
        }
        (Function::LowerAscii, []) => made(text, budget, str::to_ascii_lowercase),
        (Function::UpperAscii, []) => made(text, budget, str::to_ascii_uppercase),
        (Function::Trim, []) => made(text, budget, |text| text.trim().to_owned()),
        (Function::CharAt, [Value::Int(index)]) => {
            // One past the last character is empty, as in CEL.
            let end = if usize::try_from(*index) == Ok(text.chars().count()) {
                *index
            } else {
                index.saturating_add(1)
            };
            substring(text, *index, Some(end), budget)
        }
        (Function::Substring, [Value::Int(start)]) => substring(text, *start, None, budget),
        (Function::Substring, [Value::Int(start), Value::Int(end)]) => {
            substring(text, *start, Some(*end), budget)
        }
        (Function::Replace, [Value::Text(from), Value::Text(to)]) => {
            replace(text, from, to, -1, budget)
        }
        (Function::Replace, [Value::Text(from), Value::Text(to), Value::Int(limit)]) => {
            replace(text, from, to, *limit, budget)
        }
        (Function::Split, [Value::Text(separator)]) => split(text, separator, -1, budget),
        (Function::Split, [Value::Text(separator), Value::Int(limit)]) => {
            split(text, separator, *limit, budget)
        }
        _ => Err(Fault::Types),
    }
}

fn made<'a>(
    text: &str,
    budget: &mut Budget,
    make: impl FnOnce(&str) -> String,
) -> Result<Value<'a>, Fault> {
    budget.make(text.len())?;
    Ok(Value::made_text(make(text)))
}

fn position<'a>(text: &str, offset: Option<usize>) -> Value<'a> {
    Value::Int(offset.map_or(-1, |offset| text[..offset].chars().count() as i64))
}

fn substring<'a>(
    text: &str,
    start: i64,
    end: Option<i64>,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    let start = offset(text, start)?;
    let end = end.map_or(Ok(text.len()), |end| offset(text, end))?;
    let part = text.get(start..end).ok_or(Fault::OutOfRange)?;
    budget.make(part.len())?;
    Ok(Value::made_text(part))
}

/// The byte at which the character of this number begins.
fn offset(text: &str, character: i64) -> Result<usize, Fault> {
    let character = usize::try_from(character).map_err(|_| Fault::OutOfRange)?;
    let mut offsets = text
        .char_indices()
        .map(|(offset, _)| offset)
        .chain([text.len()]);
    offsets.nth(character).ok_or(Fault::OutOfRange)
}

/// A negative limit is none.
fn limit_of(limit: i64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn replace<'a>(
    text: &str,
    from: &Text<'a>,
    to: &Text<'a>,
    limit: i64,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    let limit = limit_of(limit);
    let times = text.matches(from.as_str()).take(limit).count();
    budget.step(times as u64)?;
    budget.make(text.len() + times * to.as_str().len())?;
    Ok(Value::made_text(text.replacen(
        from.as_str(),
        to.as_str(),
        limit,
    )))
}

fn split<'a>(
    text: &str,
    separator: &Text<'a>,
    limit: i64,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    let limit = limit_of(limit);
    let separator = separator.as_str();
    let parts: Vec<&str> = if limit == 0 {
        Vec::new()
    } else if separator.is_empty() {
        make_list(text.len().min(limit), budget)?;
        split_characters(text, limit)
    } else {
        make_list((text.len() / separator.len() + 1).min(limit), budget)?;
        text.splitn(limit, separator).collect()
    };
    // Each part is an allocation of its own.
    budget.make(text.len() + parts.len() * 16)?;
    Ok(Value::made_list(
        parts.into_iter().map(Value::made_text).collect(),
    ))
}

/// One part for each character, the last with all that is left.
fn split_characters(text: &str, limit: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if parts.len() + 1 == limit {
            parts.push(rest);
            break;
        }
        let (part, after) = rest.split_at(first.len_utf8());
        parts.push(part);
        rest = after;
    }
    parts
}

/// The texts of a list with a separator between them.
pub(super) fn join<'a>(
    list: &List<'a>,
    separator: &str,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    let mut joined = String::new();
    for (position, item) in list.iter().enumerate() {
        let Value::Text(text) = item else {
            return Err(Fault::Types);
        };
        budget.make(text.as_str().len() + separator.len())?;
        if position > 0 {
            joined.push_str(separator);
        }
        joined.push_str(text.as_str());
    }
    Ok(Value::made_text(joined))
}
