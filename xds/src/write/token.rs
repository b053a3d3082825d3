//! Tokens.

use std::collections::BTreeMap;

use fairlead_model::filter::{
    Keys, Provider, RemoteKeys, Required, Requirement, TokenRule, Tokens,
};
use http::HeaderName;
use serde_json::{Map, Value, json};

use super::{Message, duration, matching, route};

/// A `JwtAuthentication`.
pub(super) fn tokens(own: &Tokens) -> Value {
    let rules: Vec<Value> = own.rules.iter().map(rule).collect();
    Message::default()
        .with("providers", named(&own.providers, provider))
        .with("rules", json!(rules))
        .with("requirement_map", named(&own.named, requirement))
        .with("bypass_cors_preflight", json!(own.skips_preflight))
        .with("strip_failure_response", json!(own.is_silent))
        .done()
}

fn named<T>(all: &BTreeMap<String, T>, write: impl Fn(&T) -> Value) -> Value {
    let all = all.iter().map(|(name, own)| (name.clone(), write(own)));
    Value::Object(all.collect::<Map<_, _>>())
}

fn rule(own: &TokenRule) -> Value {
    let message = Message::default().with("match", route::route_match(&own.matches));
    match &own.requires {
        None => message,
        Some(Required::Own(own)) => message.with("requires", requirement(own)),
        Some(Required::Named(name)) => message.with("requirement_name", json!(name)),
    }
    .done()
}

fn requirement(own: &Requirement) -> Value {
    let all = |all: &[Requirement]| {
        let all: Vec<Value> = all.iter().map(requirement).collect();
        json!({"requirements": all})
    };
    match own {
        Requirement::Provider { name, audiences } if audiences.is_empty() => {
            json!({"provider_name": name})
        }
        Requirement::Provider { name, audiences } => json!({"provider_and_audiences": {
            "provider_name": name,
            "audiences": audiences,
        }}),
        Requirement::Any(own) => json!({"requires_any": all(own)}),
        Requirement::All(own) => json!({"requires_all": all(own)}),
        Requirement::AllowMissing => json!({"allow_missing": {}}),
        Requirement::AllowFailed => json!({"allow_missing_or_failed": {}}),
    }
}

fn provider(own: &Provider) -> Value {
    let headers: Vec<Value> = own
        .places
        .headers
        .iter()
        .map(|(name, prefix)| json!({"name": name.as_str(), "value_prefix": prefix}))
        .collect();
    let claims: Vec<Value> = own.claims.iter().map(claim).collect();
    let (payload, is_padded) = match &own.payload_header {
        None => (None, false),
        Some((name, is_padded)) => (Some(name.as_str()), *is_padded),
    };
    let (kind, keys) = match &own.keys {
        Keys::Local(set) => ("local_jwks", json!({"inline_string": set.source})),
        Keys::Remote(own) => ("remote_jwks", remote(own)),
    };
    let kept = (own.kept > 0).then(|| json!({"jwt_cache_size": own.kept}));
    Message::default()
        .with("issuer", json!(own.issuer))
        .with("audiences", json!(own.audiences))
        .with("subjects", json!(own.subjects.as_ref().map(matching::text)))
        .with("require_expiration", json!(own.needs_end))
        .with("max_lifetime", json!(own.longest.map(duration)))
        .with(kind, keys)
        .with("forward", json!(own.forwards))
        .with("from_headers", json!(headers))
        .with("from_params", json!(own.places.parameters))
        .with("from_cookies", json!(own.places.cookies))
        .with("forward_payload_header", json!(payload))
        .with("pad_forward_payload_header", json!(is_padded))
        .with("claim_to_headers", json!(claims))
        .with("clock_skew_seconds", json!(own.skew.as_secs()))
        .with("payload_in_metadata", json!(own.metadata.as_deref()))
        .with("jwt_cache_config", json!(kept))
        .done()
}

fn claim((header, path): &(HeaderName, Vec<String>)) -> Value {
    let path: Vec<Value> = path.iter().map(|key| json!({"key": key})).collect();
    json!({"header_name": header.as_str(), "claim_path": path})
}

fn remote(own: &RemoteKeys) -> Value {
    json!({
        "http_uri": {
            "uri": own.uri.to_string(),
            "cluster": &*own.cluster,
            "timeout": duration(own.timeout),
        },
        "cache_duration": duration(own.life),
        "async_fetch": {"failed_refetch_duration": duration(own.pause)},
        "retry_policy": {
            "num_retries": own.retries,
            "retry_back_off": {
                "base_interval": duration(own.backoff.0),
                "max_interval": duration(own.backoff.1),
            },
        },
    })
}
