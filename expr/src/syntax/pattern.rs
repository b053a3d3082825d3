//! Regular expressions with a known price.
//!
//! Matching takes time linear in the subject times the size of the compiled pattern, and a short pattern can compile to
//! a large one (`a{1,999}`). The crate does not tell the size, so it is found by the bound the pattern still fits in.

use regex::{Regex, RegexBuilder};

use crate::limits::MAX_PATTERN_DEPTH;

/// Bounds of the compiled size in bytes, and how many times a byte of the subject is charged.
const CLASSES: [(usize, usize); 3] = [(16 << 10, 4), (64 << 10, 16), (256 << 10, 64)];

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    weight: usize,
}

impl Pattern {
    /// Compiles a pattern; `None` when it is invalid or too large.
    pub(crate) fn compile(pattern: &str) -> Option<Self> {
        CLASSES.iter().find_map(|(bytes, weight)| {
            let mut builder = RegexBuilder::new(pattern);
            builder
                .size_limit(*bytes)
                .dfa_size_limit(256 << 10)
                .nest_limit(MAX_PATTERN_DEPTH);
            builder.build().ok().map(|regex| Self {
                regex,
                weight: *weight,
            })
        })
    }

    /// Whether it occurs in the subject.
    pub(crate) fn is_match(&self, subject: &str) -> bool {
        self.regex.is_match(subject)
    }

    /// As how many bytes read a match in a subject of this length counts.
    pub(crate) fn price(&self, subject: usize) -> usize {
        subject.saturating_mul(self.weight)
    }
}
