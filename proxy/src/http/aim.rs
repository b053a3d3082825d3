//! Where a request goes, and what of it changes on the way: the cluster, the route's changes, its time, and what keeps its caller
//! with one endpoint.

use std::time::Duration;

use fairlead_model::balance::hash_of;
use fairlead_model::deadline::parse_grpc_timeout;
use fairlead_model::fault::Fault;
use fairlead_model::format::Format;
use fairlead_model::listener::HttpTimeouts;
use fairlead_model::route::{Affinity, AffinityBy, Forward, HostRewrite, WeightedCluster};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue, Uri};

use super::forward::{Call, GRPC_TIMEOUT};
use crate::core::Core;

/// Which of the route's clusters; nothing when nothing may be sent anywhere.
pub(super) fn choose(core: &Core, forward: &Forward) -> Option<usize> {
    if let [only] = forward.clusters.as_slice() {
        return (only.weight > 0).then_some(0);
    }
    let weight = forward.weight();
    let draw = (weight > 0).then(|| core.random.borrow_mut().u64(..weight))?;
    let chosen = forward.cluster(draw)?;
    forward
        .clusters
        .iter()
        .position(|cluster| std::ptr::eq(cluster, chosen))
}

/// Makes the changes that the route asks for. A rewrite that makes no path fails: what the caller asked for is not what the
/// endpoint is to be asked.
pub(super) fn change(
    call: &mut Call,
    forward: &Forward,
    cluster: &WeightedCluster,
) -> Result<(), Fault> {
    if let Some(HostRewrite::Literal(host)) = &forward.host
        && let Ok(host) = HeaderValue::from_str(host)
    {
        call.host = host;
    }
    let Some(head) = call.head.as_mut() else {
        return Ok(());
    };
    let record = call.record.as_ref();
    let text = |format: &Format, headers: &HeaderMap| {
        record.map_or_else(String::new, |own| own.request_text(format, headers))
    };
    // The most exact first, as Envoy does: what is said of more has the last word.
    cluster.request_headers.apply(&mut head.headers, text);
    call.route.request_headers.apply(&mut head.headers, text);
    if let Some(changes) = &call.host_changes {
        changes.apply(&mut head.headers, text);
    }
    if let Some(rewrite) = &forward.rewrite {
        let path = fairlead_model::route::rewrite(rewrite, &call.route.matches, head.uri.path());
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

/// How long nothing may move in either direction.
pub(super) fn silence(forward: &Forward, limits: &HttpTimeouts) -> Option<Duration> {
    match forward.timeouts.idle {
        Some(own) => Some(own).filter(|own| !own.is_zero()),
        None => limits.stream_idle,
    }
}

/// When the whole call has to end: the route's limit, or what a gRPC caller still has, whichever is sooner.
pub(super) fn deadline(
    call: &Call,
    forward: &Forward,
    limits: &HttpTimeouts,
) -> Option<tokio::time::Instant> {
    let stream = match forward.timeouts.stream {
        Some(own) => Some(own).filter(|own| !own.is_zero()),
        None => limits.stream,
    };
    let own = match (forward.timeouts.request, stream) {
        (Some(own), Some(stream)) => Some(own.min(stream)),
        (own, stream) => own.or(stream),
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
    let limit = match (own, asked) {
        (Some(own), Some(asked)) => own.min(asked),
        (own, asked) => own.or(asked)?,
    };
    Some(call.core.clock.instant(call.begun + limit))
}

/// The hash of what keeps the caller with one endpoint.
pub(super) fn affinity_hash(affinity: &[Affinity], call: &Call) -> Option<u64> {
    let head = call.head.as_ref()?;
    let mut hash: Option<u64> = None;
    for own in affinity {
        let value: Option<Vec<u8>> = match &own.by {
            AffinityBy::Header(name) => head
                .headers
                .get(name)
                .map(|value| value.as_bytes().to_vec()),
            AffinityBy::Cookie { name, .. } => {
                cookie(&head.headers, name).map(|value| value.as_bytes().to_vec())
            }
            AffinityBy::Query(name) => head.uri.query().and_then(|query| {
                query.split('&').find_map(|pair| {
                    let (key, value) = pair.split_once('=')?;
                    (key == name).then(|| value.as_bytes().to_vec())
                })
            }),
            AffinityBy::SourceAddress => {
                call.source.map(|address| address.to_string().into_bytes())
            }
        };
        if let Some(value) = value {
            let next = hash_of(&value);
            hash = Some(hash.map_or(next, |hash| hash.rotate_left(1) ^ next));
            if own.terminal {
                break;
            }
        }
    }
    hash
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name).then_some(value.trim_matches('"')))
}
