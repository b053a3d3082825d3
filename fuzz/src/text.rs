//! Texts that callers and peers send, and those of the configuration.

use fairlead_model::edge::Edge;
use fairlead_model::filter::{Jwt, KeySet, MOST_KEYS};
use fairlead_model::format::{Fact, Facts, Format, Value};
use fairlead_model::identity::SpiffeId;
use fairlead_model::route::{
    PathMatch, PathRewrite, Redirect, RequestHead, RouteMatch, location, rewrite,
};
use fairlead_model::trace::Context;
use fairlead_model::{Pattern, deadline};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

/// Two texts, divided by a line break.
fn two(data: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(data).ok()?.split_once('\n')
}

/// A SPIFFE id is the text it was read from, and its parts make it up.
pub(crate) fn spiffe(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(id) = text.parse::<SpiffeId>() {
        assert_eq!(id.as_str(), text);
        assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
        if let Some((namespace, account)) = id.workload() {
            assert_eq!(id.path(), format!("/ns/{namespace}/sa/{account}"));
        }
    }
}

/// A token, and keys: what is signed is all before the signature, and keys are no more than may be.
pub(crate) fn token(data: &[u8]) {
    let Some((token, keys)) = two(data) else {
        return;
    };
    let keys = KeySet::parse(keys, true);
    if let Ok(keys) = &keys {
        assert!((1..=MOST_KEYS).contains(&keys.keys.len()));
    }
    if let Ok(jwt) = Jwt::parse(token) {
        assert_eq!(token[jwt.signed..].find('.'), Some(0));
        let _ = keys.map(|keys| keys.of(&jwt).count());
    }
}

/// An expression and a path: that it matches is the same as that it replaces, and no text takes long.
pub(crate) fn pattern(data: &[u8]) {
    let Some((source, text)) = two(data) else {
        return;
    };
    if let Ok(pattern) = Pattern::parse(source) {
        assert_eq!(pattern.source(), source);
        let _ = pattern.matches(text);
        let _ = pattern.replace(text, "\\1-\\9-\\0\\");
    }
}

struct Known;

impl Facts for Known {
    fn value(&self, fact: &Fact) -> Option<Value<'_>> {
        match fact {
            Fact::Request(_) => Some(Value::text("ä\u{10ffff}€")),
            Fact::ResponseCode => Some(Value::Number(200)),
            _ => None,
        }
    }
}

/// A text with commands is written, and read again from its source.
pub(crate) fn format(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if let Ok(format) = Format::parse(text) {
        assert_eq!(Format::parse(format.source()).as_ref(), Ok(&format));
        let _ = format.text(&Known, "-");
        let _ = format.typed(&Known);
    }
}

fn headers(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n').take(20) {
        let Some(at) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..at], &line[at + 1..]);
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name),
            HeaderValue::from_bytes(value.trim_ascii()),
        ) {
            headers.append(name, value);
        }
    }
    headers
}

/// A trace's context comes back as it was written.
pub(crate) fn context(data: &[u8]) {
    let mut headers = headers(data);
    if let Some(context) = Context::read(&headers) {
        assert!(context.trace != 0 && context.span != 0);
        context.write(&mut headers);
        let again = Context::read(&headers).expect("what was written");
        assert_eq!((again.trace, again.span), (context.trace, context.span));
        assert_eq!(again.is_sampled, Some(context.is_sampled == Some(true)));
    }
    for value in headers.values() {
        if let Some(limit) = value.to_str().ok().and_then(deadline::parse_grpc_timeout) {
            let text = deadline::format_grpc_timeout(limit);
            assert!(deadline::parse_grpc_timeout(&text).is_some(), "{text}");
        }
    }
}

/// `x-forwarded-for` of a hostile caller never names a caller that a proxy in front did not.
pub(crate) fn callers(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let direct = std::net::IpAddr::from([9, 9, 9, 9]);
    for (is_first, trusted_hops) in [(true, 0), (true, 1), (true, 3), (false, 0), (false, 2)] {
        let edge = Edge {
            is_first,
            trusted_hops,
            ..Edge::default()
        };
        let caller = edge.caller(text.split('\n'), direct);
        if is_first && trusted_hops == 0 {
            assert_eq!(caller, direct);
        }
        if is_first && trusted_hops == 1 {
            // What a trusted proxy appended is all that counts.
            let believed = edge.caller(text.split('\n').chain(["1.2.3.4"]), direct);
            assert_eq!(believed, std::net::IpAddr::from([1, 2, 3, 4]));
        }
    }
}

/// A prefix and a path: a rewrite and a redirect of it keep what did not match.
pub(crate) fn path(data: &[u8]) {
    let Some((prefix, text)) = two(data) else {
        return;
    };
    let Ok(target) = text.parse::<http::uri::PathAndQuery>() else {
        return;
    };
    let headers = HeaderMap::new();
    let head = RequestHead {
        method: &Method::GET,
        authority: "shop.example:8080",
        path: target.path(),
        query: target.query(),
        headers: &headers,
    };
    for path in [
        PathMatch::Exact(prefix.to_owned()),
        PathMatch::Prefix(prefix.to_owned()),
        PathMatch::Segments(prefix.to_owned()),
    ] {
        for ignore_case in [false, true] {
            let matches = RouteMatch {
                path: path.clone(),
                ignore_case,
                ..RouteMatch::default()
            };
            if !matches.matches(&head, 0) {
                continue;
            }
            let new = rewrite(
                &PathRewrite::Prefix("/new".to_owned()),
                &matches,
                target.path(),
            );
            assert!(new.starts_with("/new"), "{new}");
            let redirect = Redirect {
                status: StatusCode::FOUND,
                scheme: None,
                host: None,
                port: None,
                path: Some(PathRewrite::Prefix("/new".to_owned())),
                strip_query: false,
            };
            let location = location(&redirect, &matches, "http", &head);
            assert!(
                location.starts_with("http://shop.example:8080/new"),
                "{location}"
            );
        }
    }
}
