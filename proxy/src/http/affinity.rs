//! What keeps a caller with one endpoint: a header, a parameter, its address, or a cookie, which the proxy makes where it is asked.

use std::cell::RefCell;
use std::net::IpAddr;

use fairlead_model::balance::hash_of;
use fairlead_model::route::{Affinity, AffinityBy, CookieMade};
use http::header::COOKIE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue};

/// What a request is bound by.
#[derive(Debug, Default)]
pub(super) struct Bound {
    pub(super) hash: Option<u64>,
    /// The cookies that its answer gives the caller.
    pub(super) cookies: Vec<HeaderValue>,
}

/// Finds out what a request is bound by; `source` is its caller.
pub(super) fn bind(
    affinity: &[Affinity],
    head: &Parts,
    source: Option<IpAddr>,
    random: &RefCell<fastrand::Rng>,
) -> Bound {
    let mut bound = Bound::default();
    for own in affinity {
        let hash = match &own.by {
            AffinityBy::Header(name) => head
                .headers
                .get(name)
                .map(|value| hash_of(value.as_bytes())),
            AffinityBy::Cookie { name, made } => match (cookie(&head.headers, name), made) {
                (Some(value), _) => Some(hash_of(value.as_bytes())),
                (None, None) => None,
                (None, Some(made)) => {
                    let value = format!("{:016x}", random.borrow_mut().u64(..));
                    bound.cookies.extend(set_cookie(name, &value, made));
                    Some(hash_of(value.as_bytes()))
                }
            },
            AffinityBy::Query(name) => head.uri.query().and_then(|query| {
                query.split('&').find_map(|pair| {
                    let (key, value) = pair.split_once('=')?;
                    (key == name).then(|| hash_of(value.as_bytes()))
                })
            }),
            AffinityBy::SourceAddress => {
                source.map(|address| hash_of(address.to_string().as_bytes()))
            }
        };
        if let Some(next) = hash {
            bound.hash = Some(bound.hash.map_or(next, |hash| hash.rotate_left(1) ^ next));
            if own.terminal {
                break;
            }
        }
    }
    bound
}

/// A cookie for the caller.
pub(super) fn set_cookie(name: &str, value: &str, made: &CookieMade) -> Option<HeaderValue> {
    let mut text = format!("{name}=\"{value}\"");
    if !made.life.is_zero() {
        text.push_str(&format!("; Max-Age={}", made.life.as_secs()));
    }
    if !made.path.is_empty() {
        text.push_str(&format!("; Path={}", made.path));
    }
    for (name, value) in &made.attributes {
        text.push_str("; ");
        text.push_str(name);
        if !value.is_empty() {
            text.push('=');
            text.push_str(value);
        }
    }
    text.push_str("; HttpOnly");
    HeaderValue::try_from(text).ok()
}

/// A cookie of the caller's.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value.trim_matches('"')))
}
