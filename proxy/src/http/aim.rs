//! What of a request changes on its way, and its time.

use std::rc::Rc;
use std::time::Duration;

use fairlead_model::deadline::parse_grpc_timeout;
use fairlead_model::fault::Fault;
use fairlead_model::format::Format;
use fairlead_model::listener::HttpTimeouts;
use fairlead_model::route::{Action, Forward, HostRewrite, Route, VirtualHost, WeightedCluster};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Uri};

use super::forward::{Call, GRPC_TIMEOUT};
use super::record::Record;

/// Who changes a request, and what is known of it.
pub(super) struct Changes<'a> {
    pub(super) route: &'a Route,
    pub(super) cluster: &'a WeightedCluster,
    pub(super) host: &'a VirtualHost,
    pub(super) record: Option<&'a Rc<Record>>,
}

impl Changes<'_> {
    /// Makes the changes. A rewrite that makes no path fails: what the caller asked for is not what the endpoint is to be asked.
    pub(super) fn make(&self, head: &mut Parts, host: &mut HeaderValue) -> Result<(), Fault> {
        let text = |format: &Format, headers: &HeaderMap| {
            self.record
                .map_or_else(String::new, |own| own.request_text(format, headers))
        };
        // The cluster's first whatever the table says of the order, as Envoy does.
        self.cluster.request_headers.apply(&mut head.headers, text);
        for changes in self.host.request_changes(self.route) {
            changes.apply(&mut head.headers, text);
        }
        let Action::Forward(forward) = &self.route.action else {
            return Ok(());
        };
        if let Some(HostRewrite::Literal(own)) = &forward.host
            && let Ok(own) = HeaderValue::from_str(own)
        {
            *host = own;
        }
        if let Some(rewrite) = &forward.rewrite {
            let path =
                fairlead_model::route::rewrite(rewrite, &self.route.matches, head.uri.path());
            let target = match head.uri.query() {
                Some(query) => format!("{path}?{query}"),
                None => path,
            };
            let target = target.parse().map_err(|_| Fault::RequestInvalid)?;
            let mut parts = std::mem::take(&mut head.uri).into_parts();
            parts.path_and_query = Some(target);
            head.uri = Uri::from_parts(parts).map_err(|_| Fault::RequestInvalid)?;
        }
        Ok(())
    }
}

/// How long nothing may move in either direction.
pub(super) fn silence(forward: &Forward, limits: &HttpTimeouts) -> Option<Duration> {
    match forward.timeouts.idle {
        Some(own) => Some(own).filter(|own| !own.is_zero()),
        None => limits.stream_idle,
    }
}

/// When the whole call has to end, whatever its route says of the answer: a stream's life is over, or what a gRPC caller still has,
/// both counted from the request's head.
pub(super) fn end(
    call: &Call,
    forward: &Forward,
    limits: &HttpTimeouts,
) -> Option<tokio::time::Instant> {
    let stream = match forward.timeouts.stream {
        Some(own) => Some(own).filter(|own| !own.is_zero()),
        None => limits.stream,
    };
    let asked = call
        .head
        .as_ref()
        .filter(|_| call.is_grpc)
        .and_then(|head| {
            head.headers
                .get(GRPC_TIMEOUT)?
                .to_str()
                .ok()
                .and_then(parse_grpc_timeout)
        })
        .map(|asked| {
            forward
                .timeouts
                .grpc_longest
                .map_or(asked, |longest| asked.min(longest))
        });
    let limit = stream.into_iter().chain(asked).min()?;
    Some(call.core.clock.instant(call.begun + limit))
}
