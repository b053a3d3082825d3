//! Equality, order and membership. Numbers compare by value, whatever their type.

use std::cmp::Ordering;

use super::budget::{Budget, Fault};
use super::convert::check_depth;
use super::value::{Key, List, Map, Value};

/// Whether two values are equal; values of different types are not.
pub(super) fn equal(
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<bool, Fault> {
    check_depth(depth)?;
    budget.step(1)?;
    match (left, right) {
        (Value::Null, Value::Null) => Ok(true),
        (Value::List(left), Value::List(right)) => equal_lists(left, right, budget, depth),
        (Value::Map(left), Value::Map(right)) => equal_maps(left, right, budget, depth),
        _ => Ok(order(left, right, budget)? == Some(Ordering::Equal)),
    }
}

fn equal_lists(
    left: &List<'_>,
    right: &List<'_>,
    budget: &mut Budget,
    depth: usize,
) -> Result<bool, Fault> {
    if left.len() != right.len() {
        return Ok(false);
    }
    for (left, right) in left.iter().zip(right.iter()) {
        if !equal(&left, &right, budget, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn equal_maps<'a>(
    left: &Map<'a>,
    right: &Map<'a>,
    budget: &mut Budget,
    depth: usize,
) -> Result<bool, Fault> {
    if left.len() != right.len() {
        return Ok(false);
    }
    for (key, left) in left.entries() {
        budget.read(key.len())?;
        match right.get(&key) {
            Some(right) if equal(&left, &right, budget, depth + 1)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// The order of two scalars; `None` when they have none.
pub(super) fn order(
    left: &Value<'_>,
    right: &Value<'_>,
    budget: &mut Budget,
) -> Result<Option<Ordering>, Fault> {
    Ok(match (left, right) {
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Text(left), Value::Text(right)) => {
            budget.read(left.as_str().len().min(right.as_str().len()))?;
            Some(left.cmp(right))
        }
        (Value::Bytes(left), Value::Bytes(right)) => {
            budget.read(left.len().min(right.len()))?;
            Some(left.cmp(right))
        }
        (Value::Double(left), Value::Double(right)) => left.partial_cmp(right),
        (Value::Double(left), _) => whole(right)
            .and_then(|right| order_mixed(right, *left))
            .map(Ordering::reverse),
        (_, Value::Double(right)) => whole(left).and_then(|left| order_mixed(left, *right)),
        _ => match (whole(left), whole(right)) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => None,
        },
    })
}

/// Whether an order between the types is defined.
pub(super) fn comparable(left: &Value<'_>, right: &Value<'_>) -> bool {
    let number =
        |value: &Value<'_>| matches!(value, Value::Int(_) | Value::Uint(_) | Value::Double(_));
    match (left, right) {
        (Value::Bool(_), Value::Bool(_))
        | (Value::Text(_), Value::Text(_))
        | (Value::Bytes(_), Value::Bytes(_)) => true,
        _ => number(left) && number(right),
    }
}

fn whole(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Int(value) => Some(i128::from(*value)),
        Value::Uint(value) => Some(i128::from(*value)),
        _ => None,
    }
}

/// The exact order of a whole number within 65 bits and a double.
fn order_mixed(left: i128, right: f64) -> Option<Ordering> {
    if right.is_nan() {
        return None;
    }
    // Casting saturates, and everything beyond 2^66 is larger than any whole number here.
    let floor = right.floor();
    let whole = floor as i128;
    Some(left.cmp(&whole).then(if right > floor {
        Ordering::Less
    } else {
        Ordering::Equal
    }))
}

/// Whether a list has the element or a map the key.
pub(super) fn contains<'a>(
    wanted: &Value<'a>,
    holder: &Value<'a>,
    budget: &mut Budget,
) -> Result<bool, Fault> {
    match holder {
        Value::List(list) => {
            for item in list.iter() {
                if equal(wanted, &item, budget, 0)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Value::Map(map) => {
            let Some(key) = map_key(wanted) else {
                return Ok(false);
            };
            budget.read(key.len())?;
            Ok(map.get(&key).is_some())
        }
        _ => Err(Fault::Types),
    }
}

/// The key that a value means; a double without fraction means the whole number.
pub(super) fn map_key<'a>(value: &Value<'a>) -> Option<Key<'a>> {
    match value {
        Value::Double(value) if value.fract() == 0.0 && value.abs() < 9.0e18 => {
            Some(Key::Number(*value as i128))
        }
        _ => Key::of(value),
    }
}
