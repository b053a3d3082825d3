//! From a syntax tree and a scope to a value, counting every step.
//!
//! Values of the scope are borrowed, never copied; what an expression makes is charged to a [`Budget`] before it is
//! made.

mod arithmetic;
mod budget;
mod comparison;
mod convert;
mod evaluator;
mod functions;
mod text;
mod value;

pub(crate) use budget::Budget;
pub(crate) use evaluator::{Outcome, evaluate};
