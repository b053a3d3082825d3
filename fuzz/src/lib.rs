//! What every parser of foreign bytes has to hold, whatever the bytes are.
//!
//! Each target is a function of bytes that panics when something does not hold. `fuzz/libfuzzer` gives them to a fuzzer that
//! learns from coverage; the tests here give them the seeds, and what becomes of these by small changes.

mod config;
mod text;

/// A target: a function of bytes.
pub type Target = fn(&[u8]);

/// All targets by their names, which are those of the folders of their seeds.
pub const TARGETS: [(&str, Target); 13] = [
    ("bootstrap", config::bootstrap),
    ("callers", text::callers),
    ("context", text::context),
    ("detect", fairlead_proxy::fuzzing::detect),
    ("format", text::format),
    ("head", fairlead_proxy::fuzzing::head),
    ("path", text::path),
    ("pattern", text::pattern),
    ("proxy_header", fairlead_proxy::fuzzing::proxy_header),
    ("resource", config::resource),
    ("response", config::response),
    ("spiffe", text::spiffe),
    ("token", text::token),
];

/// The target of a name.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn target(name: &str) -> Target {
    let found = TARGETS.iter().find(|(own, _)| *own == name);
    found.expect("a target of this name").1
}
