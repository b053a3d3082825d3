//! CEL expressions and placeholders, within bounds.
