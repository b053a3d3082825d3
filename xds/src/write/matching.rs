//! Matchers of texts and headers.

use fairlead_model::route::{HeaderMatch, HeaderTest};
use fairlead_model::{Pattern, TextMatch};
use serde_json::{Value, json};

use super::Message;

/// A `RegexMatcher`.
pub(super) fn regex(pattern: &Pattern) -> Value {
    json!({"regex": pattern.source()})
}

/// A `StringMatcher`.
pub(super) fn text(matcher: &TextMatch) -> Value {
    let of = |name: &str, text: &str, ignore_case: bool| {
        let mut value = json!({name: text});
        if ignore_case {
            value["ignore_case"] = json!(true);
        }
        value
    };
    match matcher {
        TextMatch::Exact { text, ignore_case } => of("exact", text, *ignore_case),
        TextMatch::Prefix { text, ignore_case } => of("prefix", text, *ignore_case),
        TextMatch::Suffix { text, ignore_case } => of("suffix", text, *ignore_case),
        TextMatch::Contains { text, ignore_case } => of("contains", text, *ignore_case),
        TextMatch::Regex(pattern) => json!({"safe_regex": regex(pattern)}),
    }
}

/// A `HeaderMatcher`.
pub(super) fn header(header: &HeaderMatch) -> Value {
    let (name, test) = match &header.test {
        HeaderTest::Present(present) => ("present_match", json!(present)),
        HeaderTest::Text(matcher) => ("string_match", text(matcher)),
        HeaderTest::Range(start, end) => ("range_match", json!({"start": start, "end": end})),
    };
    let mut value = Message::default()
        .with("name", json!(header.name.as_str()))
        .with("invert_match", json!(header.invert))
        .with(
            "treat_missing_header_as_empty",
            json!(header.missing_is_empty),
        )
        .done();
    value[name] = test;
    value
}
