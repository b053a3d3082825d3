//! Parses and evaluates arbitrary text in an arbitrary scope: `cargo +nightly fuzz run evaluate` in `expr`.
#![no_main]

use fairlead_expr::{Document, Expression, Scope, Template};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str)| {
    let (source, json) = input;
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let scope = Scope::new().with("a", value.clone());
    if let Ok(expression) = Expression::parse(source) {
        let _ = expression.evaluate(&scope);
    }
    if let Ok(template) = Template::parse(source) {
        let _ = template.render_string(&scope);
    }
    if let Ok(document) = Document::parse(&value) {
        let _ = document.render(&scope);
    }
});
