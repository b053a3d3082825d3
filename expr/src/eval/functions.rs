//! The functions. A method's receiver is its first argument.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

use super::budget::{Budget, Fault};
use super::convert::scalar_text;
use super::text;
use super::value::{Text, Value};
use crate::limits::{MAX_EXPRESSION_BYTES, PATTERN_STEPS};
use crate::syntax::{Function, Pattern};

/// Applies a function. `pattern` is the compiled pattern of `matches` when that is a literal.
pub(super) fn apply<'a>(
    function: Function,
    arguments: &[Value<'a>],
    pattern: Option<&Pattern>,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    for argument in arguments {
        match argument {
            Value::Text(text) => budget.read(text.as_str().len())?,
            Value::Bytes(bytes) => budget.read(bytes.len())?,
            _ => {}
        }
    }
    match (function, arguments) {
        (Function::Size, [value]) => size(value),
        (Function::Type, [value]) => Ok(Value::Text(Text::Borrowed(value.type_name()))),
        (Function::Dyn, [value]) => Ok(value.clone()),
        (Function::String, [value]) => string(value, budget),
        (Function::Int, [value]) => int(value).map(Value::Int),
        (Function::Uint, [value]) => uint(value).map(Value::Uint),
        (Function::Double, [value]) => double(value).map(Value::Double),
        (Function::Bool, [value]) => bool(value).map(Value::Bool),
        (Function::Bytes, [Value::Text(text)]) => {
            budget.make(text.as_str().len())?;
            Ok(Value::Bytes(text.as_str().as_bytes().into()))
        }
        (Function::Bytes, [value @ Value::Bytes(_)]) => Ok(value.clone()),
        (Function::Base64Encode | Function::B64Encode, [value]) => encode(value, budget),
        (Function::Base64Decode, [Value::Text(text)]) => {
            Ok(Value::Bytes(decode(text.as_str(), budget)?.into()))
        }
        (Function::B64Decode, [Value::Text(text)]) => {
            let not_text = Fault::Conversion {
                from: "base64 of bytes that are not UTF-8",
                to: "string",
            };
            String::from_utf8(decode(text.as_str(), budget)?)
                .map(Value::made_text)
                .map_err(|_| not_text)
        }
        (Function::Matches, [Value::Text(subject), Value::Text(text)]) => {
            matches(subject.as_str(), text.as_str(), pattern, budget).map(Value::Bool)
        }
        (Function::Join, [Value::List(list)]) => text::join(list, "", budget),
        (Function::Join, [Value::List(list), Value::Text(separator)]) => {
            text::join(list, separator.as_str(), budget)
        }
        (_, [Value::Text(subject), rest @ ..]) => text::apply(function, subject, rest, budget),
        _ => Err(Fault::Types),
    }
}

fn size<'a>(value: &Value<'a>) -> Result<Value<'a>, Fault> {
    let size = match value {
        Value::Text(text) => text.as_str().chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::List(list) => list.len(),
        Value::Map(map) => map.len(),
        _ => return Err(Fault::Types),
    };
    Ok(Value::Int(size as i64))
}

fn string<'a>(value: &Value<'a>, budget: &mut Budget) -> Result<Value<'a>, Fault> {
    if let Value::Text(_) = value {
        return Ok(value.clone());
    }
    if let Value::Bytes(bytes) = value {
        budget.make(bytes.len())?;
    }
    let text = scalar_text(value)?;
    budget.make(text.len())?;
    Ok(Value::made_text(text))
}

fn fails(value: &Value<'_>, to: &'static str) -> Fault {
    Fault::Conversion {
        from: value.type_name(),
        to,
    }
}

fn int(value: &Value<'_>) -> Result<i64, Fault> {
    let found = match value {
        Value::Int(value) => Some(*value),
        Value::Uint(value) => i64::try_from(*value).ok(),
        Value::Double(double) if double.abs() < 9_223_372_036_854_775_808.0 => Some(*double as i64),
        Value::Double(_) => None,
        Value::Text(text) => text.as_str().parse().ok(),
        _ => return Err(Fault::Types),
    };
    found.ok_or_else(|| fails(value, "int"))
}

fn uint(value: &Value<'_>) -> Result<u64, Fault> {
    let found = match value {
        Value::Int(value) => u64::try_from(*value).ok(),
        Value::Uint(value) => Some(*value),
        Value::Double(double) if *double > -1.0 && *double < 18_446_744_073_709_551_616.0 => {
            Some(*double as u64)
        }
        Value::Double(_) => None,
        Value::Text(text) => text.as_str().parse().ok(),
        _ => return Err(Fault::Types),
    };
    found.ok_or_else(|| fails(value, "uint"))
}

fn double(value: &Value<'_>) -> Result<f64, Fault> {
    match value {
        Value::Int(value) => Ok(*value as f64),
        Value::Uint(value) => Ok(*value as f64),
        Value::Double(value) => Ok(*value),
        Value::Text(text) => text.as_str().parse().map_err(|_| fails(value, "double")),
        _ => Err(Fault::Types),
    }
}

fn bool(value: &Value<'_>) -> Result<bool, Fault> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::Text(text) => match text.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(fails(value, "bool")),
        },
        _ => Err(Fault::Types),
    }
}

fn encode<'a>(value: &Value<'a>, budget: &mut Budget) -> Result<Value<'a>, Fault> {
    let bytes = match value {
        Value::Text(text) => text.as_str().as_bytes(),
        Value::Bytes(bytes) => Rc::as_ref(bytes),
        _ => return Err(Fault::Types),
    };
    budget.make(bytes.len() * 4 / 3 + 4)?;
    Ok(Value::made_text(STANDARD.encode(bytes)))
}

/// With or without padding.
fn decode(text: &str, budget: &mut Budget) -> Result<Vec<u8>, Fault> {
    budget.make(text.len())?;
    let decoded = STANDARD
        .decode(text)
        .or_else(|_| STANDARD_NO_PAD.decode(text));
    decoded.map_err(|_| Fault::Conversion {
        from: "string",
        to: "bytes: it is no base64",
    })
}

fn matches(
    subject: &str,
    text: &str,
    pattern: Option<&Pattern>,
    budget: &mut Budget,
) -> Result<bool, Fault> {
    if let Some(pattern) = pattern {
        budget.read(pattern.price(subject.len()))?;
        return Ok(pattern.is_match(subject));
    }
    budget.step(PATTERN_STEPS)?;
    if text.len() > MAX_EXPRESSION_BYTES {
        return Err(Fault::Pattern);
    }
    let pattern = Pattern::compile(text).ok_or(Fault::Pattern)?;
    budget.read(pattern.price(subject.len()))?;
    Ok(pattern.is_match(subject))
}
