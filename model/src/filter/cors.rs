//! Which other origins a browser lets ask ([Fetch, CORS protocol](https://fetch.spec.whatwg.org/#http-cors-protocol)), as
//! Envoy answers.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::TextMatch;

const REQUEST_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName =
    HeaderName::from_static("access-control-allow-private-network");

/// Which other origins a browser lets ask, and for what. Where a route does not say something, its host does.
#[derive(Debug, Clone, PartialEq)]
pub struct Cors {
    /// The origins; none where there is none here.
    pub origins: Vec<TextMatch>,
    /// `access-control-allow-methods`; not sent where it is empty.
    pub methods: Option<HeaderValue>,
    /// `access-control-allow-headers`.
    pub headers: Option<HeaderValue>,
    /// `access-control-expose-headers`.
    pub exposes: Option<HeaderValue>,
    /// `access-control-max-age`.
    pub life: Option<HeaderValue>,
    /// Whether requests may have credentials; they may not where nothing is said.
    pub credentials: Option<bool>,
    /// Whether pages of a public network may ask; they may not where nothing is said.
    pub private_network: Option<bool>,
    /// Whether a preflight of another origin goes to the endpoint, instead of being answered without leave; it does where nothing
    /// is said.
    pub forwards_others: Option<bool>,
    /// The share of requests it is done for, in millionths.
    pub enabled: u32,
}

impl Default for Cors {
    fn default() -> Self {
        Self {
            origins: Vec::new(),
            methods: None,
            headers: None,
            exposes: None,
            life: None,
            credentials: None,
            private_network: None,
            forwards_others: None,
            enabled: 1_000_000,
        }
    }
}

/// What becomes of a request that names its origin.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// It goes on, as if there were no origin.
    Ignored,
    /// It goes on, and its answer has these headers.
    Allowed(HeaderMap),
    /// It is answered with these headers: a preflight. Without an `access-control-allow-origin` it has no leave.
    Answered(HeaderMap),
}

impl Origin {
    /// What becomes of a request by some policies, the most exact first.
    #[must_use]
    pub fn of(policies: &[&Cors], method: &Method, headers: &HeaderMap) -> Self {
        let Some(origin) = headers.get(ORIGIN).filter(|own| !own.is_empty()) else {
            return Self::Ignored;
        };
        let is_preflight = *method == Method::OPTIONS
            && headers
                .get(ACCESS_CONTROL_REQUEST_METHOD)
                .is_some_and(|own| !own.is_empty());
        let said = |of: fn(&Cors) -> Option<bool>| policies.iter().find_map(|own| of(own));
        let origins = policies.iter().find(|own| !own.origins.is_empty());
        let is_known = origins.is_some_and(|own| {
            let text = origin.to_str();
            text.is_ok_and(|text| own.origins.iter().any(|own| own.matches(text)))
        });
        let forwards = || said(|own| own.forwards_others).unwrap_or(true);
        if !is_known && (!is_preflight || forwards()) {
            return Self::Ignored;
        }
        let mut answer = HeaderMap::new();
        if is_known {
            answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        let yes = HeaderValue::from_static("true");
        if said(|own| own.credentials).unwrap_or(false) {
            answer.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, yes.clone());
        }
        let mut add = |name: HeaderName, of: fn(&Cors) -> Option<&HeaderValue>| {
            if let Some(value) = policies.iter().find_map(|own| of(own)) {
                answer.insert(name, value.clone());
            }
        };
        if is_known {
            add(ACCESS_CONTROL_EXPOSE_HEADERS, |own| own.exposes.as_ref());
        }
        if !is_preflight {
            return Self::Allowed(answer);
        }
        add(ACCESS_CONTROL_ALLOW_METHODS, |own| own.methods.as_ref());
        add(ACCESS_CONTROL_ALLOW_HEADERS, |own| own.headers.as_ref());
        add(ACCESS_CONTROL_MAX_AGE, |own| own.life.as_ref());
        let asks_private = headers
            .get(REQUEST_PRIVATE_NETWORK)
            .is_some_and(|own| own == "true");
        if asks_private && said(|own| own.private_network).unwrap_or(false) {
            answer.insert(ALLOW_PRIVATE_NETWORK, yes);
        }
        Self::Answered(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(origin: &str, wanted: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(ORIGIN, origin.parse().expect("a value"));
        if let Some(method) = wanted {
            headers.insert(
                ACCESS_CONTROL_REQUEST_METHOD,
                method.parse().expect("a value"),
            );
        }
        headers
    }

    #[test]
    fn only_known_origins_are_told() {
        let cors = Cors {
            origins: vec![TextMatch::exact("https://shop.example")],
            methods: Some(HeaderValue::from_static("GET, PUT")),
            exposes: Some(HeaderValue::from_static("x-total")),
            credentials: Some(true),
            ..Cors::default()
        };
        let known = asked("https://shop.example", None);
        let Origin::Allowed(answer) = Origin::of(&[&cors], &Method::GET, &known) else {
            panic!("not allowed");
        };
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], "x-total");
        let preflight = asked("https://shop.example", Some("PUT"));
        let Origin::Answered(answer) = Origin::of(&[&cors], &Method::OPTIONS, &preflight) else {
            panic!("not answered");
        };
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
        let other = asked("https://evil.example", Some("PUT"));
        assert_eq!(
            Origin::of(&[&cors], &Method::OPTIONS, &other),
            Origin::Ignored
        );
        let closed = Cors {
            forwards_others: Some(false),
            ..Cors::default()
        };
        assert_eq!(
            Origin::of(&[&closed, &cors], &Method::OPTIONS, &other),
            Origin::Answered(
                [(
                    ACCESS_CONTROL_ALLOW_METHODS,
                    HeaderValue::from_static("GET, PUT"),
                )]
                .into_iter()
                .chain([(
                    ACCESS_CONTROL_ALLOW_CREDENTIALS,
                    HeaderValue::from_static("true"),
                )])
                .collect()
            ),
            "without its origin, a browser takes none of it"
        );
        assert_eq!(
            Origin::of(&[&closed, &cors], &Method::OPTIONS, &preflight),
            Origin::of(&[&cors], &Method::OPTIONS, &preflight),
            "what the route does not say, its host does"
        );
        assert_eq!(
            Origin::of(&[&closed, &cors], &Method::GET, &HeaderMap::new()),
            Origin::Ignored
        );
    }
}
