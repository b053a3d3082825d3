//! `+ - * / %` and the sign. Numbers of different types do not mix, as in CEL; whole numbers do not wrap.

use super::budget::{Budget, Fault};
use super::value::{List, Text, Value};
use crate::syntax::Operator;

const OVERFLOW: Fault = Fault::Arithmetic("the number is out of range");
const BY_ZERO: Fault = Fault::Arithmetic("division by zero");

pub(super) fn arithmetic<'a>(
    operator: Operator,
    left: &Value<'a>,
    right: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => int(operator, *left, *right).map(Value::Int),
        (Value::Uint(left), Value::Uint(right)) => uint(operator, *left, *right).map(Value::Uint),
        (Value::Double(left), Value::Double(right)) => {
            double(operator, *left, *right).map(Value::Double)
        }
        _ if operator == Operator::Add => concatenate(left, right, budget),
        _ => Err(Fault::Types),
    }
}

fn int(operator: Operator, left: i64, right: i64) -> Result<i64, Fault> {
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide | Operator::Remainder if right == 0 => return Err(BY_ZERO),
        Operator::Divide => left.checked_div(right),
        Operator::Remainder => left.checked_rem(right),
        _ => return Err(Fault::Types),
    };
    result.ok_or(OVERFLOW)
}

fn uint(operator: Operator, left: u64, right: u64) -> Result<u64, Fault> {
    let result = match operator {
        Operator::Add => left.checked_add(right),
        Operator::Subtract => left.checked_sub(right),
        Operator::Multiply => left.checked_mul(right),
        Operator::Divide | Operator::Remainder if right == 0 => return Err(BY_ZERO),
        Operator::Divide => left.checked_div(right),
        Operator::Remainder => left.checked_rem(right),
        _ => return Err(Fault::Types),
    };
    result.ok_or(OVERFLOW)
}

fn double(operator: Operator, left: f64, right: f64) -> Result<f64, Fault> {
    Ok(match operator {
        Operator::Add => left + right,
        Operator::Subtract => left - right,
        Operator::Multiply => left * right,
        Operator::Divide => left / right,
        _ => return Err(Fault::Types),
    })
}

fn concatenate<'a>(
    left: &Value<'a>,
    right: &Value<'a>,
    budget: &mut Budget,
) -> Result<Value<'a>, Fault> {
    match (left, right) {
        (Value::Text(left), Value::Text(right)) => {
            budget.make(left.as_str().len() + right.as_str().len())?;
            Ok(Value::made_text(
                [Text::as_str(left), right.as_str()].concat(),
            ))
        }
        (Value::Bytes(left), Value::Bytes(right)) => {
            budget.make(left.len() + right.len())?;
            Ok(Value::Bytes(
                [left.as_ref(), right.as_ref()].concat().into(),
            ))
        }
        (Value::List(left), Value::List(right)) => {
            make_list(left.len() + right.len(), budget)?;
            Ok(Value::made_list(
                left.iter().chain(List::iter(right)).collect(),
            ))
        }
        _ => Err(Fault::Types),
    }
}

/// Takes the steps and the memory for a list of so many elements.
pub(super) fn make_list(length: usize, budget: &mut Budget) -> Result<(), Fault> {
    budget.step(length as u64)?;
    budget.make(length * size_of::<Value<'_>>())
}

pub(super) fn negate<'a>(value: &Value<'a>) -> Result<Value<'a>, Fault> {
    match value {
        Value::Int(value) => value.checked_neg().map(Value::Int).ok_or(OVERFLOW),
        Value::Double(value) => Ok(Value::Double(-value)),
        _ => Err(Fault::Types),
    }
}
