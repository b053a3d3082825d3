//! What becomes of a request, by its host, path, method, headers and query.
//!
//! A [`RouteTable`] is what Envoy calls a route configuration: virtual hosts by domain, and in each the first route that
//! matches. The Gateway API's order among rules is made by whoever writes the table ([`precedence`]); the proxy only takes the
//! first match, as Envoy does, so both decide alike.

mod changes;
mod matching;
mod mirror;
mod precedence;
mod table;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

pub use changes::{HeaderChange, HeaderChanges, HeaderText, OnPresent};
pub use matching::{
    HeaderMatch, HeaderTest, PathMatch, QueryMatch, QueryTest, RequestHead, RouteMatch,
};
pub use mirror::Mirror;
pub use precedence::{GatewayRule, precedence};
pub use table::{Matched, RouteTable, TableError};

use crate::class::Classes;
use crate::filter::{Levels, Overrides, RateRule, RouteRates};
use crate::pattern::Pattern;
use crate::retry::RetryPolicy;

/// The routes of some domains.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct VirtualHost {
    /// Its name, for figures and logs.
    pub name: String,
    /// The domains: exact (`shop.example`), `*.example`, `shop.*`, or `*`; a port is part of the name where it is given.
    pub domains: Vec<String>,
    /// The routes; the first that matches is taken.
    pub routes: Vec<Arc<Route>>,
    /// Changes to every request, after the route's own.
    pub request_headers: HeaderChanges,
    /// Changes to every answer, after the route's own.
    pub response_headers: HeaderChanges,
    /// What filters do otherwise here.
    pub filters: Overrides,
    /// What of its requests is counted.
    pub rates: Vec<RateRule>,
    /// What its table changes.
    pub table: Arc<TableChanges>,
}

/// What a table changes of all its requests and answers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TableChanges {
    /// Of requests.
    pub request_headers: HeaderChanges,
    /// Of answers.
    pub response_headers: HeaderChanges,
    /// Whether it changes first, then the host and then the route, so that the most exact has the last word.
    pub most_exact_wins: bool,
    /// What filters do otherwise.
    pub filters: Overrides,
}

impl VirtualHost {
    /// Changes of requests that take a route of its own, in their order.
    #[must_use]
    pub fn request_changes<'a>(&'a self, route: &'a Route) -> [&'a HeaderChanges; 3] {
        let table = &self.table.request_headers;
        self.in_order([&route.request_headers, &self.request_headers, table])
    }

    /// Changes of answers to them, in their order.
    #[must_use]
    pub fn response_changes<'a>(&'a self, route: &'a Route) -> [&'a HeaderChanges; 3] {
        let table = &self.table.response_headers;
        self.in_order([&route.response_headers, &self.response_headers, table])
    }

    /// What is said of filters for requests that take a route of its own; `cluster` is which of the route's clusters was chosen.
    #[must_use]
    pub fn levels<'a>(&'a self, route: &'a Route, cluster: Option<usize>) -> Levels<'a> {
        let cluster = match &route.action {
            Action::Forward(own) => cluster.and_then(|cluster| own.clusters.get(cluster)),
            _ => None,
        };
        Levels([
            cluster.map(|own| &own.filters),
            Some(&route.filters),
            Some(&self.filters),
            Some(&self.table.filters),
        ])
    }

    fn in_order<'a>(&self, mut changes: [&'a HeaderChanges; 3]) -> [&'a HeaderChanges; 3] {
        if self.table.most_exact_wins {
            changes.reverse();
        }
        changes
    }
}

/// One way of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Its name, for figures and logs; bounded by whoever writes the configuration, never made from a request.
    pub name: String,
    /// Which requests take it.
    pub matches: RouteMatch,
    /// What becomes of them.
    pub action: Action,
    /// Changes to the request.
    pub request_headers: HeaderChanges,
    /// Changes to the answer, made by the proxy itself or by an endpoint.
    pub response_headers: HeaderChanges,
    /// What filters do otherwise here.
    pub filters: Overrides,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// An endpoint answers it.
    Forward(Box<Forward>),
    /// The caller is sent elsewhere.
    Redirect(Redirect),
    /// The proxy answers.
    Respond {
        /// The status.
        status: StatusCode,
        /// The body, at most 4 KiB.
        body: String,
    },
}

/// To which endpoints, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// The clusters and their shares.
    pub clusters: Vec<WeightedCluster>,
    /// The new path.
    pub rewrite: Option<PathRewrite>,
    /// The new host.
    pub host: Option<HostRewrite>,
    /// How long each part may take.
    pub timeouts: Timeouts,
    /// Whether to try again.
    pub retry: Option<RetryPolicy>,
    /// What an answer means.
    pub classes: Classes,
    /// What keeps a caller with one endpoint, in order; the first that yields a value and is terminal ends the search.
    pub affinity: Vec<Affinity>,
    /// Labels that an endpoint has to have (a subset).
    pub subset: Vec<(String, String)>,
    /// Protocols a caller may change to: `websocket`, `CONNECT`; lower case.
    pub upgrades: Vec<String>,
    /// Who gets copies of requests.
    pub mirrors: Vec<Mirror>,
    /// What of its requests is counted.
    pub rates: RouteRates,
}

impl Forward {
    /// To one cluster, with nothing else asked.
    #[must_use]
    pub fn to(cluster: &str) -> Self {
        Self {
            clusters: vec![WeightedCluster::only(cluster)],
            rewrite: None,
            host: None,
            timeouts: Timeouts::default(),
            retry: None,
            classes: Classes::default(),
            affinity: Vec::new(),
            subset: Vec::new(),
            upgrades: Vec::new(),
            mirrors: Vec::new(),
            rates: RouteRates::default(),
        }
    }
}

/// A cluster and its share.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedCluster {
    /// The name of the cluster.
    pub name: Arc<str>,
    /// Its share of the sum of weights.
    pub weight: u32,
    /// Changes to requests that go there, after the route's.
    pub request_headers: HeaderChanges,
    /// Changes to answers from there, after the route's.
    pub response_headers: HeaderChanges,
    /// What filters do otherwise for requests that go there.
    pub filters: Overrides,
}

impl WeightedCluster {
    /// A cluster that gets everything.
    #[must_use]
    pub fn only(name: &str) -> Self {
        Self {
            name: name.into(),
            weight: 1,
            request_headers: HeaderChanges::default(),
            response_headers: HeaderChanges::default(),
            filters: Overrides::new(),
        }
    }
}

/// How a path changes; the query stays.
#[derive(Debug, Clone, PartialEq)]
pub enum PathRewrite {
    /// The part that matched becomes this.
    Prefix(String),
    /// The whole path becomes this.
    Full(String),
    /// Each match becomes this, with `\1` to `\9` for groups.
    Regex {
        /// What is replaced.
        pattern: Pattern,
        /// By what.
        by: String,
    },
}

/// How the host changes.
#[derive(Debug, Clone, PartialEq)]
pub enum HostRewrite {
    /// It becomes this.
    Literal(String),
    /// It becomes the host name of the endpoint.
    Endpoint,
}

/// How long each part may take; nothing where it has no limit.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timeouts {
    /// From the end of the request to the end of the answer, all tries together.
    pub request: Option<Duration>,
    /// Without a byte in either direction: nothing where the listener says, zero where there is no limit.
    pub idle: Option<Duration>,
    /// From the beginning of the request to the end of the answer: nothing where the listener says, zero where there is no limit.
    pub stream: Option<Duration>,
    /// The longest deadline that a caller's `grpc-timeout` may set; the shorter one counts.
    pub grpc_longest: Option<Duration>,
}

/// Where a caller is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// The status: 301, 302, 303, 307 or 308.
    pub status: StatusCode,
    /// `http` or `https`; the request's own otherwise.
    pub scheme: Option<String>,
    /// The host; the request's own otherwise.
    pub host: Option<String>,
    /// The port; that of the request's host otherwise, when there is no other host.
    pub port: Option<u16>,
    /// The path.
    pub path: Option<PathRewrite>,
    /// Whether the query is left out.
    pub strip_query: bool,
}

/// What keeps a caller with one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Affinity {
    /// Where the value comes from.
    pub by: AffinityBy,
    /// Whether the search ends when this yields a value.
    pub terminal: bool,
}

/// Where the value that keeps a caller with one endpoint comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum AffinityBy {
    /// A header of the request.
    Header(String),
    /// A cookie.
    Cookie {
        /// Its name.
        name: String,
        /// How the proxy makes one, where the request has none; nothing: it makes none.
        made: Option<CookieMade>,
    },
    /// A parameter of the query.
    Query(String),
    /// The address of the caller.
    SourceAddress,
}

/// A cookie that the proxy makes. Scripts never see it (`HttpOnly`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CookieMade {
    /// Its life in whole seconds; zero is a session's.
    pub life: Duration,
    /// Its path; empty where it has none.
    pub path: String,
    /// Its other attributes, with empty values for those that have none.
    pub attributes: Vec<(String, String)>,
}

/// The new path of a request, its query kept, where `matches` is what its route matched.
#[must_use]
pub fn rewrite(rewrite: &PathRewrite, matches: &RouteMatch, path: &str) -> String {
    match rewrite {
        PathRewrite::Full(full) => full.clone(),
        PathRewrite::Regex { pattern, by } => pattern.replace(path, by),
        PathRewrite::Prefix(new) => {
            let matched = matches.path.matched_len(path);
            let rest = &path[matched..];
            // `/a` to `/` must make `/b` of `/a/b`, and `/` of `/a` (Gateway API, ReplacePrefixMatch).
            if matches!(matches.path, PathMatch::Segments(_)) {
                let new = new.trim_end_matches('/');
                match (new.is_empty(), rest.is_empty()) {
                    (true, true) => "/".to_owned(),
                    _ => format!("{new}{rest}"),
                }
            } else {
                format!("{new}{rest}")
            }
        }
    }
}

/// The `Location` of a redirect; `scheme` is the one that the request came with. The rules are Envoy's: a host of the request
/// keeps its port unless another is given, or it is the usual one of a scheme that changes, and a path that has a query takes the
/// place of the request's.
#[must_use]
pub fn location(
    redirect: &Redirect,
    matches: &RouteMatch,
    scheme: &str,
    head: &RequestHead<'_>,
) -> String {
    let new_scheme = redirect.scheme.as_deref().unwrap_or(scheme);
    let (own_host, own_port) = split_port(head.authority);
    let is_usual = matches!(
        (scheme, own_port),
        ("http", Some(80)) | ("https", Some(443))
    );
    let drops_port = redirect.port.is_some() || (new_scheme != scheme && is_usual);
    let host = match &redirect.host {
        Some(host) => host,
        None if drops_port => own_host,
        None => head.authority,
    };
    let port = redirect.port.map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    let path = redirect.path.as_ref().map_or_else(
        || head.path.to_owned(),
        |change| rewrite(change, matches, head.path),
    );
    let has_query = matches!(&redirect.path, Some(PathRewrite::Full(path)) if path.contains('?'));
    let query = head
        .query
        .filter(|_| !redirect.strip_query && !has_query)
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    format!("{new_scheme}://{host}{port}{path}{query}")
}

/// A host and its port, when it has one.
#[must_use]
pub fn split_port(authority: &str) -> (&str, Option<u16>) {
    match authority.rsplit_once(':') {
        Some((host, port))
            if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            (host, port.parse().ok())
        }
        _ => (authority, None),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::*;

    fn matching(path: PathMatch) -> RouteMatch {
        RouteMatch {
            path,
            ..RouteMatch::default()
        }
    }

    #[test]
    fn a_prefix_is_replaced_by_segments() {
        let segments = matching(PathMatch::Segments("/prefix/one".to_owned()));
        for (new, path, expected) in [
            ("/one", "/prefix/one/two", "/one/two"),
            ("/one", "/prefix/one", "/one"),
            ("/", "/prefix/one/two", "/two"),
            ("/", "/prefix/one", "/"),
            ("/", "/prefix/one/", "/"),
            ("/one/", "/prefix/one/two", "/one/two"),
        ] {
            let new = PathRewrite::Prefix(new.to_owned());
            assert_eq!(rewrite(&new, &segments, path), expected, "{path}");
        }
        let bytes = matching(PathMatch::Prefix("/api/".to_owned()));
        assert_eq!(
            rewrite(&PathRewrite::Prefix("/".to_owned()), &bytes, "/api/v1"),
            "/v1"
        );
    }

    #[test]
    fn a_redirect_keeps_what_it_does_not_name() {
        let headers = HeaderMap::new();
        let head = RequestHead {
            method: &Method::GET,
            authority: "shop.example:8080",
            path: "/a/b",
            query: Some("q=1"),
            headers: &headers,
        };
        let mut redirect = Redirect {
            status: StatusCode::FOUND,
            scheme: None,
            host: None,
            port: None,
            path: None,
            strip_query: false,
        };
        let matches = matching(PathMatch::Segments("/a".to_owned()));
        assert_eq!(
            location(&redirect, &matches, "http", &head),
            "http://shop.example:8080/a/b?q=1"
        );
        redirect.scheme = Some("https".to_owned());
        assert_eq!(
            location(&redirect, &matches, "http", &head),
            "https://shop.example:8080/a/b?q=1"
        );
        let usual = RequestHead {
            authority: "shop.example:80",
            ..head
        };
        assert_eq!(
            location(&redirect, &matches, "http", &usual),
            "https://shop.example/a/b?q=1"
        );
        redirect.path = Some(PathRewrite::Full("/new?x=1".to_owned()));
        assert_eq!(
            location(&redirect, &matches, "http", &usual),
            "https://shop.example/new?x=1"
        );
        redirect.port = Some(8443);
        redirect.host = Some("other.example".to_owned());
        redirect.path = Some(PathRewrite::Prefix("/c".to_owned()));
        redirect.strip_query = true;
        assert_eq!(
            location(&redirect, &matches, "http", &head),
            "https://other.example:8443/c/b"
        );
    }
}
