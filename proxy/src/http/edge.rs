//! Headers about callers: what is believed of those that come in, and what endpoints are told.

use std::cell::OnceCell;
use std::net::IpAddr;

use fairlead_model::edge::{CertificateMode, Edge, RequestId, request_id};
use http::header::VIA;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Connection;
use super::record::REQUEST_ID;
use crate::core::Core;
use crate::tls;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const FORWARDED_CERTIFICATE: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

/// What is told of a caller's certificate, made once for a connection.
pub(crate) type Told = OnceCell<Option<HeaderValue>>;

/// A request whose headers about its caller are right.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    /// The caller as far as it can be believed.
    pub(super) caller: Option<IpAddr>,
    /// Its id, where the answer is to carry it.
    pub(super) id: Option<HeaderValue>,
}

/// Puts the headers of a request that came in right; `own` is the URI in the certificate of this side.
pub(super) fn arrive(
    core: &Core,
    edge: Option<&Edge>,
    own: Option<&str>,
    connection: &Connection,
    headers: &mut HeaderMap,
) -> Arrived {
    let direct = connection.source.map(|source| source.ip());
    let Some(edge) = edge else {
        // Nobody may say who else the caller is.
        if headers.contains_key(&FORWARDED_CERTIFICATE) {
            headers.remove(&FORWARDED_CERTIFICATE);
        }
        return Arrived {
            caller: direct,
            id: None,
        };
    };
    let caller = direct.map(|direct| {
        let values = headers.get_all(&FORWARDED_FOR);
        let texts: Vec<&str> = values
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        edge.caller(texts.into_iter(), direct)
    });
    if let Some(direct) = direct.filter(|_| edge.is_first && !edge.skip_append) {
        append(headers, FORWARDED_FOR, ",", &direct.to_string());
    }
    let scheme = if connection.is_tls { "https" } else { "http" };
    if !edge.believes() || !headers.contains_key(&FORWARDED_PROTO) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    if let Some(local) = connection.destination.filter(|_| edge.append_port)
        && (!edge.believes() || !headers.contains_key(&FORWARDED_PORT))
    {
        headers.insert(FORWARDED_PORT, HeaderValue::from(local.port()));
    }
    if let Some(via) = &edge.via {
        add_via(headers, via);
    }
    certificate(edge, own, connection, headers);
    let id = edge
        .request_id
        .and_then(|rule| identify(core, edge, rule, headers));
    Arrived { caller, id }
}

/// Gives a request an id where it has none that counts; says it where the answer is to carry it.
fn identify(
    core: &Core,
    edge: &Edge,
    rule: RequestId,
    headers: &mut HeaderMap,
) -> Option<HeaderValue> {
    let is_foreign = edge.is_first && !rule.preserve_external;
    if is_foreign || !headers.contains_key(&REQUEST_ID) {
        let id = request_id(core.random.borrow_mut().u128(..));
        // Its digits and dashes are a value of a header.
        if let Ok(id) = HeaderValue::from_bytes(&id) {
            headers.insert(REQUEST_ID, id);
        }
    }
    headers
        .get(&REQUEST_ID)
        .filter(|_| rule.in_response)
        .cloned()
}

/// What the answer says besides.
pub(super) fn answer(edge: &Edge, id: Option<HeaderValue>, headers: &mut HeaderMap) {
    if let Some(via) = &edge.via {
        add_via(headers, via);
    }
    if let Some(id) = id {
        headers.insert(REQUEST_ID, id);
    }
}

fn add_via(headers: &mut HeaderMap, via: &HeaderValue) {
    match via.to_str() {
        Ok(text) => append(headers, VIA, ", ", text),
        Err(_) => drop(headers.insert(VIA, via.clone())),
    }
}

/// Adds a value to a list in one header.
fn append(headers: &mut HeaderMap, name: HeaderName, comma: &str, more: &str) {
    let mut all: Vec<u8> = Vec::new();
    for value in headers.get_all(&name) {
        all.extend_from_slice(value.as_bytes());
        all.extend_from_slice(comma.as_bytes());
    }
    all.extend_from_slice(more.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.insert(name, value);
    }
}

fn certificate(edge: &Edge, own: Option<&str>, connection: &Connection, headers: &mut HeaderMap) {
    let told = || {
        let made = connection.told.get_or_init(|| {
            let element = tls::shown(&connection.certificates, own, &edge.certificate)?;
            HeaderValue::try_from(element).ok()
        });
        made.clone()
    };
    match edge.certificate.mode {
        CertificateMode::AlwaysForwardOnly => {}
        CertificateMode::ForwardOnly if !connection.certificates.is_empty() => {}
        CertificateMode::AppendForward if !connection.certificates.is_empty() => {
            if let Some(told) = told() {
                let mut all: Vec<u8> = Vec::new();
                for value in headers.get_all(&FORWARDED_CERTIFICATE) {
                    all.extend_from_slice(value.as_bytes());
                    all.push(b',');
                }
                all.extend_from_slice(told.as_bytes());
                if let Ok(value) = HeaderValue::from_bytes(&all) {
                    headers.insert(FORWARDED_CERTIFICATE, value);
                }
            }
        }
        CertificateMode::SanitizeSet if !connection.certificates.is_empty() => match told() {
            Some(told) => drop(headers.insert(FORWARDED_CERTIFICATE, told)),
            None => drop(headers.remove(&FORWARDED_CERTIFICATE)),
        },
        _ => drop(headers.remove(&FORWARDED_CERTIFICATE)),
    }
}
