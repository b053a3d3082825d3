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

/// Which other origins a browser lets ask, and for what.
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
    /// Whether requests may have credentials.
    pub credentials: bool,
    /// Whether pages of a public network may ask.
    pub private_network: bool,
    /// Whether a preflight of another origin goes to the endpoint, instead of being answered without leave.
    pub forwards_others: bool,
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
            credentials: false,
            private_network: false,
            forwards_others: true,
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
    /// It is answered with these headers: a preflight.
    Answered(HeaderMap),
}

impl Cors {
    /// What becomes of a request.
    #[must_use]
    pub fn decide(&self, method: &Method, headers: &HeaderMap) -> Origin {
        let Some(origin) = headers.get(ORIGIN).filter(|own| !own.is_empty()) else {
            return Origin::Ignored;
        };
        let is_preflight = *method == Method::OPTIONS
            && headers
                .get(ACCESS_CONTROL_REQUEST_METHOD)
                .is_some_and(|own| !own.is_empty());
        let is_known = origin
            .to_str()
            .is_ok_and(|text| self.origins.iter().any(|own| own.matches(text)));
        if !is_known {
            return match is_preflight && !self.forwards_others {
                true => Origin::Answered(HeaderMap::new()),
                false => Origin::Ignored,
            };
        }
        let mut answer = HeaderMap::new();
        answer.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        let mut add = |name: HeaderName, value: Option<&HeaderValue>| {
            if let Some(value) = value {
                answer.insert(name, value.clone());
            }
        };
        let yes = HeaderValue::from_static("true");
        add(
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            self.credentials.then_some(&yes),
        );
        if !is_preflight {
            add(ACCESS_CONTROL_EXPOSE_HEADERS, self.exposes.as_ref());
            return Origin::Allowed(answer);
        }
        add(ACCESS_CONTROL_ALLOW_METHODS, self.methods.as_ref());
        add(ACCESS_CONTROL_ALLOW_HEADERS, self.headers.as_ref());
        add(ACCESS_CONTROL_MAX_AGE, self.life.as_ref());
        let asks_private = headers
            .get(REQUEST_PRIVATE_NETWORK)
            .is_some_and(|own| own == "true");
        add(
            ALLOW_PRIVATE_NETWORK,
            (asks_private && self.private_network).then_some(&yes),
        );
        Origin::Answered(answer)
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
            credentials: true,
            ..Cors::default()
        };
        let known = asked("https://shop.example", None);
        let Origin::Allowed(answer) = cors.decide(&Method::GET, &known) else {
            panic!("not allowed");
        };
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_ORIGIN], "https://shop.example");
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_CREDENTIALS], "true");
        assert_eq!(answer[ACCESS_CONTROL_EXPOSE_HEADERS], "x-total");
        let preflight = asked("https://shop.example", Some("PUT"));
        let Origin::Answered(answer) = cors.decide(&Method::OPTIONS, &preflight) else {
            panic!("not answered");
        };
        assert_eq!(answer[ACCESS_CONTROL_ALLOW_METHODS], "GET, PUT");
        assert!(!answer.contains_key(ACCESS_CONTROL_EXPOSE_HEADERS));
        let other = asked("https://evil.example", Some("PUT"));
        assert_eq!(cors.decide(&Method::OPTIONS, &other), Origin::Ignored);
        let closed = Cors {
            forwards_others: false,
            ..cors
        };
        assert_eq!(
            closed.decide(&Method::OPTIONS, &other),
            Origin::Answered(HeaderMap::new())
        );
        assert_eq!(
            closed.decide(&Method::GET, &HeaderMap::new()),
            Origin::Ignored
        );
    }
}
