//! Whether a request takes a route.

use http::{HeaderMap, HeaderName, Method};

use crate::pattern::{Pattern, TextMatch};

/// What of a request decides its route.
#[derive(Debug, Clone, Copy)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The host it asks for, with its port where it names one.
    pub authority: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
}

/// How a path is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum PathMatch {
    /// It is this path.
    Exact(String),
    /// It begins so, byte by byte.
    Prefix(String),
    /// It begins with these segments: `/a` matches `/a` and `/a/b`, not `/ab`.
    Segments(String),
    /// All of it matches.
    Regex(Pattern),
}

impl PathMatch {
    /// How many bytes of a path that matches are the match.
    #[must_use]
    pub fn matched_len(&self, path: &str) -> usize {
        match self {
            Self::Exact(_) | Self::Regex(_) => path.len(),
            Self::Prefix(prefix) => prefix.len().min(path.len()),
            Self::Segments(prefix) => prefix.trim_end_matches('/').len().min(path.len()),
        }
    }

    fn matches(&self, path: &str, ignore_case: bool) -> bool {
        let same = |left: &str, right: &str| {
            if ignore_case {
                left.eq_ignore_ascii_case(right)
            } else {
                left == right
            }
        };
        match self {
            Self::Exact(exact) => same(path, exact),
            Self::Prefix(prefix) => path
                .get(..prefix.len())
                .is_some_and(|start| same(start, prefix)),
            Self::Segments(prefix) => {
                let prefix = prefix.trim_end_matches('/');
                path.get(..prefix.len())
                    .is_some_and(|start| same(start, prefix))
                    && matches!(path.as_bytes().get(prefix.len()), None | Some(b'/'))
            }
            Self::Regex(pattern) => pattern.matches(path),
        }
    }
}

/// How one header is compared.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// What it has to be.
    pub test: HeaderTest,
    /// Whether the opposite is asked.
    pub invert: bool,
    /// Whether a missing header counts as an empty one.
    pub missing_is_empty: bool,
}

/// What a header has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum HeaderTest {
    /// There, or not there.
    Present(bool),
    /// This text; one of several headers of the name is enough.
    Text(TextMatch),
    /// A whole number from the first to before the second.
    Range(i64, i64),
}

impl HeaderMatch {
    /// Whether the headers meet it.
    #[must_use]
    pub fn matches(&self, headers: &HeaderMap) -> bool {
        if let HeaderTest::Present(present) = self.test {
            let is_there = self.missing_is_empty || headers.contains_key(&self.name);
            return (is_there == present) != self.invert;
        }
        if !headers.contains_key(&self.name) {
            // A value test of a header that is not there fails even when inverted, unless it counts as empty (Envoy).
            return self.missing_is_empty && self.test("") != self.invert;
        }
        // Each header of the name counts by itself, as for Envoy: one that is put beside another hides nothing.
        let values = headers.get_all(&self.name).iter();
        let mut texts = values.map(|value| value.to_str().ok());
        texts.any(|text| text.is_some_and(|text| self.test(text))) != self.invert
    }

    fn test(&self, value: &str) -> bool {
        match &self.test {
            HeaderTest::Present(_) => true,
            HeaderTest::Text(text) => text.matches(value),
            HeaderTest::Range(start, end) => value
                .parse()
                .is_ok_and(|number: i64| (*start..*end).contains(&number)),
        }
    }
}

/// How one parameter of the query is compared; the first of its name counts.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryMatch {
    /// Its name.
    pub name: String,
    /// What it has to be.
    pub test: QueryTest,
}

/// What a parameter of the query has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryTest {
    /// There, or not there.
    Present(bool),
    /// This text.
    Text(TextMatch),
}

impl QueryMatch {
    fn matches(&self, query: Option<&str>) -> bool {
        let value = parameter(query, &self.name);
        match &self.test {
            QueryTest::Present(present) => value.is_some() == *present,
            QueryTest::Text(text) => value.is_some_and(|value| text.matches(value)),
        }
    }
}

/// The first parameter of the name in a query, as it stands there.
#[must_use]
pub(crate) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<&'a str> {
    query?.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })
}

/// Which requests take a route: all of these.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteMatch {
    /// The path.
    pub path: PathMatch,
    /// Whether the path's ASCII letters of either case are the same.
    pub ignore_case: bool,
    /// The method.
    pub method: Option<Method>,
    /// Headers.
    pub headers: Vec<HeaderMatch>,
    /// Parameters of the query.
    pub query: Vec<QueryMatch>,
    /// Whether only gRPC calls take it.
    pub grpc: bool,
    /// The share of requests that take it, in millionths; those left over look further.
    pub share: Option<u32>,
}

impl Default for RouteMatch {
    /// Every request.
    fn default() -> Self {
        Self {
            path: PathMatch::Prefix("/".to_owned()),
            ignore_case: false,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            grpc: false,
            share: None,
        }
    }
}

impl RouteMatch {
    /// Whether a request takes the route; `draw` is a number below a million, drawn once for the request.
    #[must_use]
    pub fn matches(&self, head: &RequestHead<'_>, draw: u32) -> bool {
        // CONNECT without a path has its own matches in Envoy; here any prefix of "/" takes it.
        let path = if head.path.is_empty() { "/" } else { head.path };
        self.path.matches(path, self.ignore_case)
            && self
                .method
                .as_ref()
                .is_none_or(|method| method == head.method)
            && self
                .headers
                .iter()
                .all(|header| header.matches(head.headers))
            && self.query.iter().all(|query| query.matches(head.query))
            && (!self.grpc || is_grpc(head.headers))
            && self.share.is_none_or(|share| draw < share)
    }
}

/// Whether headers say that a request or an answer is gRPC's.
#[must_use]
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn takes(route: &RouteMatch, path: &str, query: Option<&str>, headers: &HeaderMap) -> bool {
        route.matches(
            &RequestHead {
                method: &Method::GET,
                authority: "a",
                path,
                query,
                headers,
            },
            0,
        )
    }

    #[test]
    fn segments_end_at_a_slash() {
        let route = RouteMatch {
            path: PathMatch::Segments("/v2/".to_owned()),
            ..RouteMatch::default()
        };
        let headers = HeaderMap::new();
        for (path, expected) in [
            ("/v2", true),
            ("/v2/", true),
            ("/v2/a", true),
            ("/v2example", false),
            ("/", false),
        ] {
            assert_eq!(takes(&route, path, None, &headers), expected, "{path}");
        }
    }

    #[test]
    fn each_header_of_a_name_counts() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        let with = |test: HeaderTest, invert: bool| RouteMatch {
            headers: vec![HeaderMatch {
                name: HeaderName::from_static("x-a"),
                test,
                invert,
                missing_is_empty: false,
            }],
            ..RouteMatch::default()
        };
        let joined = HeaderTest::Text(TextMatch::exact("1,2"));
        assert!(!takes(&with(joined, false), "/", None, &headers));
        let exact = HeaderTest::Text(TextMatch::exact("2"));
        assert!(takes(&with(exact.clone(), false), "/", None, &headers));
        assert!(!takes(&with(exact.clone(), true), "/", None, &headers));
        assert!(
            !takes(&with(exact.clone(), true), "/", None, &HeaderMap::new()),
            "missing is not different"
        );
        assert!(takes(
            &with(HeaderTest::Present(false), false),
            "/",
            None,
            &HeaderMap::new()
        ));
        headers.insert("x-a", HeaderValue::from_static("42"));
        assert!(takes(
            &with(HeaderTest::Range(42, 43), false),
            "/",
            None,
            &headers
        ));
        assert!(!takes(
            &with(HeaderTest::Range(1, 42), false),
            "/",
            None,
            &headers
        ));
    }

    #[test]
    fn the_first_parameter_counts() {
        let route = RouteMatch {
            query: vec![QueryMatch {
                name: "a".to_owned(),
                test: QueryTest::Text(TextMatch::exact("1")),
            }],
            ..RouteMatch::default()
        };
        let headers = HeaderMap::new();
        assert!(takes(&route, "/", Some("b=2&a=1&a=3"), &headers));
        assert!(!takes(&route, "/", Some("a=3&a=1"), &headers));
        assert!(!takes(&route, "/", None, &headers));
    }

    #[test]
    fn grpc_has_its_content_type() {
        let mut headers = HeaderMap::new();
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("text/plain", false),
        ] {
            headers.insert("content-type", HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), expected, "{value}");
        }
    }
}
