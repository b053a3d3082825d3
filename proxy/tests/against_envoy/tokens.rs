//! Tokens and what is required of them, made up from a seed. The keys are made anew by every run.

use std::sync::LazyLock;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::generate::{often, one, path};
use crate::issuers::{Issuer, keys, seconds};

/// Who signs tokens.
static ISSUERS: LazyLock<[Issuer; 3]> = LazyLock::new(|| {
    [
        Issuer::new("ES256", "one"),
        Issuer::new("EdDSA", "two"),
        Issuer::new("RS256", "one"),
    ]
});

/// Tokens that are good for some and not for others, and such as are none.
static TOKENS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let [one, two, other] = &*ISSUERS;
    let claims = |issuer: &str, more: Value| {
        let mut claims = json!({
            "iss": issuer, "sub": "till", "aud": "a", "exp": seconds(600),
            "groups": ["x", "y", "~~?~~?"], "level": 7, "ok": true, "deep": {"er": "z"},
        });
        for (name, value) in more.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        claims
    };
    let good = one.token(&claims("one", json!({})));
    let cut = good[..good.len() - 8].to_owned();
    vec![
        good,
        one.token(&claims("one", json!({"aud": ["b", "c"], "groups": []}))),
        two.token(&claims("two", json!({"level": 8}))),
        two.token(&claims("two", json!({"aud": ["a", "b"], "ok": false}))),
        // Each is wrong in one way.
        two.token(&claims("one", json!({}))),
        other.token(&claims("one", json!({}))),
        one.token(&claims("three", json!({}))),
        one.token(&claims("one", json!({"exp": seconds(-600)}))),
        one.token(&claims("one", json!({"exp": seconds(-20)}))),
        two.token(&claims("two", json!({"nbf": seconds(600)}))),
        two.token(&claims("two", json!({"exp": "soon"}))),
        two.token(&claims("two", json!({"aud": 7}))),
        cut,
        "a.b".to_owned(),
        "a.b.c".to_owned(),
        String::new(),
    ]
});

/// Headers with a token.
pub fn header(random: &mut Rng) -> (&'static str, &'static str) {
    static BEARERS: LazyLock<Vec<String>> =
        LazyLock::new(|| TOKENS.iter().map(|own| format!("Bearer {own}")).collect());
    // The first ones are good: there are as many of those as of the others.
    let place = match often(random, 50) {
        true => random.usize(..4),
        false => random.usize(..TOKENS.len()),
    };
    match often(random, 80) {
        true => ("authorization", &BEARERS[place]),
        false => ("x-token", &TOKENS[place]),
    }
}

/// A `JwtAuthentication`.
pub fn tokens(random: &mut Rng) -> Value {
    let [first, second, _] = &*ISSUERS;
    let providers = json!({
        "one": provider(random, "one", first),
        "two": provider(random, "two", second),
    });
    let rules: Vec<Value> = (0..random.usize(1..4)).map(|_| rule(random)).collect();
    let mut tokens = json!({
        "providers": providers,
        "rules": rules,
        // Of several names, Envoy says which there are in any order.
        "requirement_map": {"first": requirement(random, 2)},
        "bypass_cors_preflight": random.bool(),
        "strip_failure_response": often(random, 10),
    });
    // Envoy takes a token away as soon as one requirement holds, and asks the next one without it.
    if tokens.to_string().contains("requires_all") {
        for name in ["one", "two"] {
            tokens["providers"][name]["forward"] = json!(true);
        }
    }
    tokens
}

/// What a route requires instead.
pub fn of_route(random: &mut Rng) -> Value {
    match often(random, 30) {
        true => json!({"disabled": true}),
        false => json!({"requirement_name": one(random, &["first", "first", "third"])}),
    }
}

fn provider(random: &mut Rng, name: &str, issuer: &Issuer) -> Value {
    let mut provider = json!({
        "issuer": name,
        "local_jwks": {"inline_string": keys(&[issuer])},
        "forward": random.bool(),
        "payload_in_metadata": name,
    });
    if often(random, 40) {
        provider["audiences"] = json!([one(random, &["a", "b"])]);
    }
    if often(random, 40) {
        provider["from_headers"] = json!([
            {"name": "authorization", "value_prefix": "Bearer "},
            {"name": "x-token"},
        ]);
    }
    if often(random, 30) {
        provider["forward_payload_header"] = json!("x-payload");
        provider["pad_forward_payload_header"] = json!(random.bool());
    }
    if often(random, 50) {
        provider["claim_to_headers"] = json!([
            {"header_name": "x-sub", "claim_name": "sub"},
            {"header_name": "x-level", "claim_name": "level"},
            {"header_name": "x-ok", "claim_name": "ok"},
            {"header_name": "x-deep", "claim_name": "deep.er"},
            {"header_name": "x-groups", "claim_name": "groups"},
            {"header_name": "x-none", "claim_name": "none"},
        ]);
    }
    if often(random, 30) {
        provider["clock_skew_seconds"] = json!(1);
    }
    if often(random, 20) {
        provider["require_expiration"] = json!(true);
    }
    provider
}

fn rule(random: &mut Rng) -> Value {
    let mut rule = json!({"match": {"prefix": match often(random, 50) {
        true => "/".to_owned(),
        false => path(random),
    }}});
    match random.u32(..6) {
        0 => {}
        1 => rule["requirement_name"] = json!("first"),
        _ => rule["requires"] = requirement(random, 2),
    }
    rule
}

fn requirement(random: &mut Rng, depth: u32) -> Value {
    if depth > 0 && often(random, 50) {
        let mut all: Vec<Value> = (0..2).map(|_| requirement(random, depth - 1)).collect();
        if often(random, 30) {
            let optional = one(random, &["allow_missing", "allow_missing_or_failed"]);
            all.push(json!({optional: {}}));
        }
        let kind = one(random, &["requires_any", "requires_any", "requires_all"]);
        return json!({kind: {"requirements": all}});
    }
    let name = one(random, &["one", "two"]);
    match random.u32(..8) {
        0 => json!({"allow_missing": {}}),
        1 => json!({"allow_missing_or_failed": {}}),
        2 => json!({"provider_and_audiences": {
            "provider_name": name,
            "audiences": [one(random, &["a", "b"])],
        }}),
        _ => json!({"provider_name": name}),
    }
}

/// A claim, as RBAC asks for it.
pub fn claim(random: &mut Rng) -> Value {
    let (key, value) = match random.u32(..5) {
        0 => ("sub", json!({"string_match": {"exact": "till"}})),
        1 => (
            "groups",
            json!({"list_match": {"one_of": {"string_match": {"exact": "x"}}}}),
        ),
        2 => ("level", json!({"double_match": {"exact": 7.0}})),
        3 => ("ok", json!({"bool_match": true})),
        _ => ("none", json!({"present_match": true})),
    };
    json!({
        "filter": "envoy.filters.http.jwt_authn",
        "path": [{"key": one(random, &["one", "two"])}, {"key": key}],
        "value": value,
        "invert": often(random, 30),
    })
}
