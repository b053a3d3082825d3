//! Matchers of texts and headers.

use fairlead_model::filter::{MetadataMatch, ValueMatch};
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

/// A `MetadataMatcher`.
pub(super) fn metadata(own: &MetadataMatch) -> Value {
    let path: Vec<Value> = own.path.iter().map(|key| json!({"key": key})).collect();
    Message::default()
        .with("filter", json!(own.filter))
        .with("path", json!(path))
        .with("value", value(&own.value))
        .with("invert", json!(own.invert))
        .done()
}

fn value(own: &ValueMatch) -> Value {
    match own {
        ValueMatch::Null => json!({"null_match": {}}),
        ValueMatch::Number(own) => json!({"double_match": {"exact": own}}),
        ValueMatch::Range(start, end) => {
            json!({"double_match": {"range": {"start": start, "end": end}}})
        }
        ValueMatch::Text(own) => json!({"string_match": text(own)}),
        ValueMatch::Flag(own) => json!({"bool_match": own}),
        ValueMatch::Present(own) => json!({"present_match": own}),
        ValueMatch::Has(own) => json!({"list_match": {"one_of": value(own)}}),
        ValueMatch::OneOf(all) => {
            let all: Vec<Value> = all.iter().map(value).collect();
            json!({"or_match": {"value_matchers": all}})
        }
    }
}
