//! The way of a request: its route, its host, its cluster, and what those change of its answer.

use std::sync::Arc;

use fairlead_model::fault::Fault;
use fairlead_model::filter::Levels;
use fairlead_model::format::Format;
use fairlead_model::route::{
    Action, HeaderChanges, RequestHead, Route, VirtualHost, WeightedCluster,
};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::Incoming;

use super::answer::Answer;
use super::fields::authority;
use super::service::{Connection, Seen};

/// The route of a request, and its host.
pub(super) struct Way {
    pub(super) route: Arc<Route>,
    pub(super) host: Arc<VirtualHost>,
    /// Which of the route's clusters it goes to, where that is settled.
    pub(super) cluster: Option<usize>,
}

impl Way {
    /// What is said of filters for it.
    pub(super) fn levels(&self) -> Levels<'_> {
        self.host.levels(&self.route, self.cluster)
    }

    /// Changes an answer on its way back; the details say where it came from, unless that is known.
    pub(super) fn back(
        &self,
        details: Option<&'static str>,
        seen: &Seen,
        mut response: Response<Answer>,
    ) -> Response<Answer> {
        let record = seen.record.as_ref();
        if let (Some(record), Some(details)) = (record, details) {
            record.answered_by(details, response.status().as_u16());
        }
        let text = |format: &Format, headers: &HeaderMap| match record {
            Some(record) => record.response_text(format, headers),
            None => String::new(),
        };
        let headers = response.headers_mut();
        for changes in self.host.response_changes(&self.route) {
            changes.apply(headers, text);
        }
        response
    }
}

/// The host that a request asks for, where it is a valid one.
pub(super) fn host(request: &Request<Incoming>) -> Result<HeaderValue, Fault> {
    let is_asterisk = request.uri().path() == "*" && request.method() != Method::OPTIONS;
    if is_asterisk {
        return Err(Fault::RequestInvalid);
    }
    authority(request).map_err(|_| Fault::RequestInvalid)
}

/// What of a request decides its route.
pub(super) fn head<'a>(request: &'a Request<Incoming>, host: &'a HeaderValue) -> RequestHead<'a> {
    RequestHead {
        method: request.method(),
        authority: host.to_str().unwrap_or(""),
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
    }
}

/// An answer of the proxy's own in the place of an endpoint's, with what is changed of those.
pub(super) fn changed(
    mut response: Response<Answer>,
    cluster: Option<usize>,
    way: &Way,
    seen: &Seen,
) -> Response<Answer> {
    if let Some(cluster) = weighted(&way.route.action, cluster) {
        let record = seen.record.as_ref();
        let headers = response.headers_mut();
        cluster.response_headers.apply(headers, |format, headers| {
            record.map_or_else(String::new, |own| own.response_text(format, headers))
        });
    }
    way.back(None, seen, response)
}

/// The cluster that was chosen.
fn weighted(action: &Action, cluster: Option<usize>) -> Option<&WeightedCluster> {
    match action {
        Action::Forward(forward) => forward.clusters.get(cluster?),
        _ => None,
    }
}

/// The scheme that the caller used, as Envoy finds it: the request's own, which HTTP/2 has; what whoever took TLS off before this
/// proxy says; or the connection's.
pub(super) fn scheme<B>(connection: &Connection, request: &Request<B>) -> &'static str {
    let own = request.uri().scheme_str().map(str::as_bytes);
    let told = request.headers().get("x-forwarded-proto");
    let known = |scheme: &[u8]| match scheme {
        _ if scheme.eq_ignore_ascii_case(b"https") => Some("https"),
        _ if scheme.eq_ignore_ascii_case(b"http") => Some("http"),
        _ => None,
    };
    own.and_then(known)
        .or_else(|| known(told?.as_bytes()))
        .unwrap_or(if connection.is_tls { "https" } else { "http" })
}

/// Whether values of headers are made for each request.
pub(super) fn has_formats(host: &VirtualHost, route: &Route) -> bool {
    let is_made = |changes: &HeaderChanges| changes.has_formats();
    let changes = [host.request_changes(route), host.response_changes(route)];
    changes.into_iter().flatten().any(is_made)
        || match &route.action {
            Action::Forward(forward) => forward.clusters.iter().any(|cluster| {
                is_made(&cluster.request_headers) || is_made(&cluster.response_headers)
            }),
            _ => false,
        }
}

pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().strip_prefix(b"application/grpc"))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}
