//! Tokens (`extensions.filters.http.jwt_authn.v3`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use fairlead_model::filter::{
    KeySet, Keys, Override, Places, Provider, RemoteKeys, Required, Requirement, TokenRule, Tokens,
};

use crate::field::{Field, Fields, Result};
use crate::{headers, matching, route};

/// How deep requirements may stand in each other.
const MOST_DEPTH: usize = 32;
/// What Envoy takes where nothing is said: by how much clocks may differ, in seconds; how long keys count; when a failed fetch is
/// made again; the first pause before a fetch is tried again.
const USUAL_SKEW: u64 = 60;
const USUAL_LIFE: Duration = Duration::from_secs(600);
const USUAL_PAUSE: Duration = Duration::from_secs(1);
const USUAL_BACKOFF: Duration = Duration::from_secs(1);
/// How many good tokens are kept at most.
const MOST_KEPT: u64 = 1_000_000;

/// A `JwtAuthentication`.
pub(super) fn read(field: &Field<'_>) -> Result<Tokens> {
    let fields = field.fields()?;
    let mut tokens = Tokens {
        providers: named(&fields, "providers", provider)?,
        skips_preflight: fields.flag("bypass_cors_preflight")?,
        is_silent: fields.flag("strip_failure_response")?,
        ..Tokens::default()
    };
    tokens.named = named(&fields, "requirement_map", |own| {
        requirement(own, &tokens, MOST_DEPTH)
    })?;
    for own in fields.list("rules")? {
        tokens.rules.push(rule(&own, &tokens)?);
    }
    fields.finish()?;
    Ok(tokens)
}

/// A `PerRouteConfig`.
pub(super) fn of_route(field: &Field<'_>) -> Result<Override> {
    let fields = field.fields()?;
    let is_disabled = fields.flag("disabled")?;
    let name = fields.get("requirement_name");
    fields.finish()?;
    match (is_disabled, name) {
        (true, _) => Ok(Override::Disabled),
        (false, Some(name)) => Ok(Override::Requires(name.text()?.to_owned())),
        (false, None) => Err(field.error("requirement_name, or disabled: true is required")),
    }
}

fn named<T>(
    fields: &Fields<'_>,
    name: &'static str,
    read: impl Fn(&Field<'_>) -> Result<T>,
) -> Result<BTreeMap<String, T>> {
    let Some(own) = fields.get(name) else {
        return Ok(BTreeMap::new());
    };
    own.entries()?
        .into_iter()
        .map(|(name, own)| Ok((name.to_owned(), read(&own)?)))
        .collect()
}

fn rule(field: &Field<'_>, tokens: &Tokens) -> Result<TokenRule> {
    let fields = field.fields()?;
    let matches = route::route_match(&fields.need("match")?)?;
    let requires = match (fields.get("requires"), fields.get("requirement_name")) {
        (Some(own), None) => Some(Required::Own(requirement(&own, tokens, MOST_DEPTH)?)),
        (None, Some(name)) => Some(Required::Named(known(&name, &tokens.named)?)),
        (None, None) => None,
        (Some(_), Some(_)) => {
            return Err(field.error("either requires or requirement_name is allowed"));
        }
    };
    fields.finish()?;
    Ok(TokenRule { matches, requires })
}

/// A name that has to be one of these.
fn known<T>(field: &Field<'_>, all: &BTreeMap<String, T>) -> Result<String> {
    let name = field.text()?;
    if all.contains_key(name) {
        return Ok(name.to_owned());
    }
    let names: Vec<_> = all.keys().map(String::as_str).collect();
    Err(field.error(match names.as_slice() {
        [] => format!("{name:?} is not known, and nothing else is"),
        names => format!("{name:?} is not known; {} is allowed", names.join(", ")),
    }))
}

/// A `JwtRequirement`.
fn requirement(field: &Field<'_>, tokens: &Tokens, depth: usize) -> Result<Requirement> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(field.error(format!(
            "requirements stand in each other more than {MOST_DEPTH} deep"
        )));
    };
    let fields = field.fields()?;
    let all = |own: Field<'_>| -> Result<Vec<Requirement>> {
        let fields = own.fields()?;
        let all = fields.need("requirements")?;
        fields.finish()?;
        let list = all.list()?;
        if list.is_empty() {
            return Err(all.error("at least one is required"));
        }
        list.iter()
            .map(|own| requirement(own, tokens, depth))
            .collect()
    };
    let empty = |own: Field<'_>| own.fields()?.finish();
    let found = if let Some(name) = fields.get("provider_name") {
        Requirement::Provider {
            name: known(&name, &tokens.providers)?,
            audiences: Vec::new(),
        }
    } else if let Some(own) = fields.get("provider_and_audiences") {
        let own = own.fields()?;
        let name = known(&own.need("provider_name")?, &tokens.providers)?;
        let audiences = texts(&own, "audiences")?;
        own.finish()?;
        Requirement::Provider { name, audiences }
    } else if let Some(own) = fields.get("requires_any") {
        Requirement::Any(all(own)?)
    } else if let Some(own) = fields.get("requires_all") {
        Requirement::All(all(own)?)
    } else if let Some(own) = fields.get("allow_missing") {
        empty(own)?;
        Requirement::AllowMissing
    } else if let Some(own) = fields.get("allow_missing_or_failed") {
        empty(own)?;
        Requirement::AllowFailed
    } else {
        fields.finish()?;
        return Err(field.error("a requirement is required"));
    };
    fields.finish()?;
    Ok(found)
}

fn texts(fields: &Fields<'_>, name: &'static str) -> Result<Vec<String>> {
    let all = fields.list(name)?;
    all.iter()
        .map(|own| own.text().map(str::to_owned))
        .collect()
}

/// A `JwtProvider`.
fn provider(field: &Field<'_>) -> Result<Provider> {
    let fields = field.fields()?;
    let is_padded = fields.flag("pad_forward_payload_header")?;
    let skew = fields
        .get("clock_skew_seconds")
        .map_or(Ok(0), |own| own.number(0, 86_400))?;
    let metadata = fields.text("payload_in_metadata")?;
    let provider = Provider {
        issuer: fields.text("issuer")?.to_owned(),
        audiences: texts(&fields, "audiences")?,
        subjects: fields
            .get("subjects")
            .map(|own| matching::text(&own))
            .transpose()?,
        needs_end: fields.flag("require_expiration")?,
        longest: fields.duration("max_lifetime")?,
        keys: keys(&fields, field)?,
        places: places(&fields)?,
        forwards: fields.flag("forward")?,
        payload_header: fields
            .get("forward_payload_header")
            .map(|own| Ok((headers::name(&own)?, is_padded)))
            .transpose()?,
        claims: fields
            .list("claim_to_headers")?
            .iter()
            .map(claim)
            .collect::<Result<_>>()?,
        skew: Duration::from_secs(if skew == 0 { USUAL_SKEW } else { skew }),
        metadata: (!metadata.is_empty()).then(|| metadata.into()),
        kept: kept(&fields)?,
    };
    fields.finish()?;
    Ok(provider)
}

/// A `JwtCacheConfig`: how many good tokens are kept.
fn kept(fields: &Fields<'_>) -> Result<u32> {
    let Some(own) = fields.get("jwt_cache_config") else {
        return Ok(0);
    };
    let own = own.fields()?;
    let size = own.get("jwt_cache_size");
    own.ignore(&["jwt_max_token_size"]);
    own.finish()?;
    let size = size.map_or(Ok(0), |size| size.number(0, MOST_KEPT))?;
    Ok(u32::try_from(size).unwrap_or(0))
}

fn places(fields: &Fields<'_>) -> Result<Places> {
    let mut places = Places {
        headers: Vec::new(),
        parameters: texts(fields, "from_params")?,
        cookies: texts(fields, "from_cookies")?,
    };
    for own in fields.list("from_headers")? {
        let header = own.fields()?;
        let name = headers::name(&header.need("name")?)?;
        let prefix = header.text("value_prefix")?.to_owned();
        header.finish()?;
        places.headers.push((name, prefix));
    }
    Ok(match places == Places::default() {
        true => Places::usual(),
        false => places,
    })
}

/// A `JwtClaimToHeader`.
fn claim(field: &Field<'_>) -> Result<(http::HeaderName, Vec<String>)> {
    let fields = field.fields()?;
    let header = headers::name(&fields.need("header_name")?)?;
    let path = match fields.get("claim_path") {
        Some(all) => matching::keys(&all)?,
        None => {
            let name = fields.need("claim_name")?.text()?;
            name.split('.').map(str::to_owned).collect()
        }
    };
    fields.finish()?;
    Ok((header, path))
}

fn keys(fields: &Fields<'_>, field: &Field<'_>) -> Result<Keys> {
    match (fields.get("local_jwks"), fields.get("remote_jwks")) {
        (Some(local), None) => local_keys(&local),
        (None, Some(remote)) => Ok(Keys::Remote(Arc::new(remote_keys(&remote)?))),
        _ => Err(field.error("either local_jwks or remote_jwks is required")),
    }
}

/// A `DataSource` with keys in it.
fn local_keys(field: &Field<'_>) -> Result<Keys> {
    let fields = field.fields()?;
    let source = if let Some(text) = fields.get("inline_string") {
        text.text()?.to_owned()
    } else {
        let bytes = fields.need("inline_bytes")?;
        let decoded = BASE64.decode(bytes.text()?).ok();
        let decoded = decoded.and_then(|own| String::from_utf8(own).ok());
        decoded.ok_or_else(|| bytes.error("is no text in base64"))?
    };
    fields.finish()?;
    let set = KeySet::parse(&source, false).map_err(|error| field.error(error.to_string()))?;
    Ok(Keys::Local(Arc::new(set)))
}

/// A `RemoteJwks`.
fn remote_keys(field: &Field<'_>) -> Result<RemoteKeys> {
    let fields = field.fields()?;
    let http = fields.need("http_uri")?.fields()?;
    let uri = http.need("uri")?;
    let text = uri.text()?;
    let parsed: http::Uri = text
        .parse()
        .map_err(|_| uri.error(format!("{text:?} is no URI")))?;
    if parsed.authority().is_none() {
        return Err(uri.error(format!("{text:?} has no host")));
    }
    let timeout = http.need("timeout")?;
    if timeout.duration()?.is_zero() {
        return Err(timeout.error("is zero; a time in which keys can be fetched is expected"));
    }
    let mut keys = RemoteKeys {
        uri: parsed,
        cluster: Arc::from(http.need("cluster")?.text()?),
        timeout: timeout.duration()?,
        life: fields.duration("cache_duration")?.unwrap_or(USUAL_LIFE),
        pause: USUAL_PAUSE,
        retries: 0,
        backoff: (USUAL_BACKOFF, USUAL_BACKOFF * 10),
    };
    http.finish()?;
    if let Some(own) = fields.get("async_fetch") {
        let own = own.fields()?;
        keys.pause = own
            .duration("failed_refetch_duration")?
            .unwrap_or(USUAL_PAUSE);
        // Keys are always fetched before the first request needs them, and no listener waits for that.
        own.ignore(&["fast_listener"]);
        own.finish()?;
    }
    if let Some(own) = fields.get("retry_policy") {
        let own = own.fields()?;
        keys.retries = own.get("num_retries").map_or(Ok(1), |own| own.number32())?;
        if let Some(pauses) = own.get("retry_back_off") {
            let pauses = pauses.fields()?;
            let base = pauses.need("base_interval")?.duration()?;
            keys.backoff = (base, pauses.duration("max_interval")?.unwrap_or(base * 10));
            pauses.finish()?;
        }
        own.finish()?;
    }
    fields.finish()?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const KEY: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AQAB"}]}"#;

    fn of(provider: Value, rest: Value) -> std::result::Result<Tokens, String> {
        let mut value = rest;
        value["providers"] = json!({"idp": provider});
        read(&Field::root(&value)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_as_usual() {
        let tokens = of(json!({"local_jwks": {"inline_string": KEY}}), json!({}));
        let tokens = tokens.expect("tokens");
        let own = &tokens.providers["idp"];
        assert_eq!((&own.places, own.skew.as_secs()), (&Places::usual(), 60));
        let remote = json!({"remote_jwks": {"http_uri": {
            "uri": "https://idp.example/keys", "cluster": "idp", "timeout": "2s",
        }}});
        let tokens = of(remote, json!({})).expect("tokens");
        let Keys::Remote(remote) = &tokens.providers["idp"].keys else {
            panic!("{tokens:?}");
        };
        assert_eq!(
            (remote.life, remote.pause, remote.retries),
            (USUAL_LIFE, USUAL_PAUSE, 0)
        );
    }

    #[test]
    fn what_is_wrong_has_a_path() {
        let local = |text: &str| json!({"local_jwks": {"inline_string": text}});
        let remote = |http: Value| json!({"remote_jwks": {"http_uri": http}});
        let rule =
            |requires: Value| json!({"rules": [{"match": {"prefix": "/"}, "requires": requires}]});
        let mut deep = json!({"provider_name": "idp"});
        for _ in 0..40 {
            deep = json!({"requires_any": {"requirements": [deep]}});
        }
        for (provider, rest, expected) in [
            (
                json!({}),
                json!({}),
                "providers[\"idp\"]: either local_jwks or remote_jwks is required",
            ),
            (
                local("{}"),
                json!({}),
                "providers[\"idp\"].local_jwks: is no JSON Web Key Set: there are no \"keys\"",
            ),
            (
                local(r#"{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}"#),
                json!({}),
                "providers[\"idp\"].local_jwks: keys[0] is a secret that both sides have (kty \"oct\"); public keys are allowed: RSA, EC, OKP",
            ),
            (
                remote(json!({"uri": "/keys", "cluster": "idp", "timeout": "1s"})),
                json!({}),
                "providers[\"idp\"].remote_jwks.http_uri.uri: \"/keys\" has no host",
            ),
            (
                remote(json!({"uri": "http://idp/keys", "cluster": "idp"})),
                json!({}),
                "providers[\"idp\"].remote_jwks.http_uri.timeout: is required",
            ),
            (
                local(KEY),
                rule(json!({"provider_name": "other"})),
                "rules[0].requires.provider_name: \"other\" is not known; idp is allowed",
            ),
            (
                local(KEY),
                rule(json!({})),
                "rules[0].requires: a requirement is required",
            ),
            (
                local(KEY),
                rule(json!({"requires_any": {"requirements": []}})),
                "rules[0].requires.requires_any.requirements: at least one is required",
            ),
            (
                local(KEY),
                json!({"rules": [{"match": {"prefix": "/"}, "requirement_name": "x"}]}),
                "rules[0].requirement_name: \"x\" is not known, and nothing else is",
            ),
        ] {
            assert_eq!(of(provider, rest).map(|_| ()), Err(expected.to_owned()));
        }
        let found = of(local(KEY), rule(deep));
        assert!(found.is_err_and(|error| {
            error.ends_with("requirements stand in each other more than 32 deep")
        }));
    }
}
