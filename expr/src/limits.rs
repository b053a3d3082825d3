//! Every bound in one place. They are constants, not settings: an expression that is accepted at admission is
//! accepted everywhere.

/// The longest source of one expression, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 1024;
/// The longest text with placeholders, in bytes.
pub const MAX_TEMPLATE_BYTES: usize = 65536;
/// The most placeholders in one template.
pub const MAX_PLACEHOLDERS: usize = 256;
/// How deep brackets, calls, comprehensions and conditionals may nest. Chains (`a + b + c`, `a.b.c`, `!!a`) do not
/// nest: they are kept flat, so their length is bounded by [`MAX_EXPRESSION_BYTES`] alone.
pub const MAX_DEPTH: usize = 24;
/// The most nodes in the syntax tree of one expression.
pub const MAX_NODES: usize = 512;
/// The most steps one evaluation may take. A node visited, an element passed over and every 32 bytes read or written
/// are a step; compiling a pattern that is not a literal is 2,000, and matching counts a byte 4 to 64 times by the size of
/// the compiled pattern.
pub const MAX_STEPS: u64 = 100_000;
/// The most bytes that one evaluation may allocate for values it makes.
pub const MAX_WORKING_BYTES: u64 = 8 << 20;
/// The most steps for all placeholders of one template or document together.
pub const MAX_DOCUMENT_STEPS: u64 = 1_000_000;
/// The largest result of one evaluation, or of all placeholders of one template or document together, in bytes of text
/// (an element of a list or map counts 16 more).
pub const MAX_RESULT_BYTES: usize = 2 << 20;
/// How deep a value may nest for it to be compared or returned.
pub const MAX_VALUE_DEPTH: usize = 128;
/// How deep the JSON of a document may nest.
pub const MAX_DOCUMENT_DEPTH: usize = 128;

/// How deep a pattern may nest.
pub(crate) const MAX_PATTERN_DEPTH: u32 = 24;
/// What compiling a pattern at evaluation costs.
pub(crate) const PATTERN_STEPS: u64 = 2_000;
