//! What is left of the bounds.

use crate::error::EvalError;
use crate::limits::{MAX_DOCUMENT_STEPS, MAX_RESULT_BYTES, MAX_STEPS, MAX_WORKING_BYTES};

/// Why an operation inside of an evaluation failed; the evaluator adds the source.
#[derive(Debug)]
pub(super) enum Fault {
    Types,
    Arithmetic(&'static str),
    Conversion {
        from: &'static str,
        to: &'static str,
    },
    OutOfRange,
    Pattern,
    DuplicateKey,
    Exhausted {
        resource: &'static str,
        limit: u64,
    },
}

impl Fault {
    /// The error, for an operation on values of these types.
    pub(super) fn at(
        self,
        expression: String,
        operation: &str,
        types: impl FnOnce() -> String,
    ) -> EvalError {
        match self {
            Self::Types => EvalError::Types {
                operation: operation.to_owned(),
                types: types(),
                expression,
            },
            Self::Arithmetic(reason) => EvalError::Arithmetic { reason, expression },
            Self::Conversion { from, to } => EvalError::Conversion {
                from,
                to,
                expression,
            },
            Self::OutOfRange => EvalError::OutOfRange { expression },
            Self::Pattern => EvalError::Pattern { expression },
            Self::DuplicateKey => EvalError::DuplicateKey { expression },
            Self::Exhausted { resource, limit } => EvalError::Exhausted {
                expression,
                resource,
                limit,
            },
        }
    }
}

/// Steps and bytes for the expressions of one rendering.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Of the expression at hand.
    steps: u64,
    working: u64,
    /// Of all expressions together.
    document_steps: u64,
    result: usize,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self {
            steps: MAX_STEPS,
            working: MAX_WORKING_BYTES,
            document_steps: MAX_DOCUMENT_STEPS,
            result: MAX_RESULT_BYTES,
        }
    }

    /// Begins the next expression of the same rendering.
    pub(crate) fn begin(&mut self) {
        self.steps = MAX_STEPS;
        self.working = MAX_WORKING_BYTES;
    }

    /// Takes steps.
    pub(super) fn step(&mut self, count: u64) -> Result<(), Fault> {
        let exhausted = |limit| Fault::Exhausted {
            resource: "steps",
            limit,
        };
        self.steps = self.steps.checked_sub(count).ok_or(exhausted(MAX_STEPS))?;
        self.document_steps = self
            .document_steps
            .checked_sub(count)
            .ok_or(exhausted(MAX_DOCUMENT_STEPS))?;
        Ok(())
    }

    /// Takes the steps for reading so many bytes.
    pub(super) fn read(&mut self, bytes: usize) -> Result<(), Fault> {
        self.step(bytes as u64 / 32 + 1)
    }

    /// Takes the steps and the memory for making a value of so many bytes.
    pub(super) fn make(&mut self, bytes: usize) -> Result<(), Fault> {
        self.read(bytes)?;
        let exhausted = Fault::Exhausted {
            resource: "bytes of memory",
            limit: MAX_WORKING_BYTES,
        };
        self.working = self.working.checked_sub(bytes as u64).ok_or(exhausted)?;
        Ok(())
    }

    /// Takes from what may be returned.
    pub(super) fn result(&mut self, bytes: usize) -> Result<(), Fault> {
        let exhausted = Fault::Exhausted {
            resource: "bytes of result",
            limit: MAX_RESULT_BYTES as u64,
        };
        self.result = self.result.checked_sub(bytes).ok_or(exhausted)?;
        Ok(())
    }
}
