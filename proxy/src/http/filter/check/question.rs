//! What a service is told of a request.

use std::net::SocketAddr;

use fairlead_model::edge::encoded;
use fairlead_model::filter::{Check, CheckBody, CheckSettings, LEVELS};
use http::Version;
use http::header::CONTENT_LENGTH;

use super::wire::{
    Address, Attributes, CheckRequest, HttpRequest, Peer, Request, SocketAddress, Timestamp,
    TlsSession,
};
use super::{Asking, Beginning, joined};
use crate::clock::since_1970;
use crate::http::record::REQUEST_ID;
use crate::http::way::scheme;
use crate::tls;

const PARTIAL: &str = "x-envoy-auth-partial-body";

impl Asking<'_> {
    /// What the service is asked.
    pub(super) fn question(
        &self,
        own: &Check,
        settings: [Option<&CheckSettings>; LEVELS],
        beginning: Option<(CheckBody, Beginning)>,
    ) -> CheckRequest {
        let connection = self.connection;
        let now = since_1970();
        // What a route says counts more than what its host does.
        let context = settings.into_iter().rev().flatten();
        let context = context.flat_map(|own| own.context.clone()).collect();
        let session = connection
            .server_name
            .as_deref()
            .filter(|_| own.server_name);
        CheckRequest {
            attributes: Some(Attributes {
                source: Some(self.source(own)),
                destination: Some(Peer {
                    address: connection.destination.map(address),
                    principal: self.service.uri.as_deref().unwrap_or("").to_owned(),
                    certificate: String::new(),
                }),
                request: Some(Request {
                    time: Some(Timestamp {
                        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
                        nanos: i32::try_from(now.subsec_nanos()).unwrap_or(0),
                    }),
                    http: Some(self.http(own, beginning)),
                }),
                context_extensions: context,
                tls_session: session.map(|name| TlsSession {
                    sni: name.to_owned(),
                }),
            }),
        }
    }

    /// Who asks.
    fn source(&self, own: &Check) -> Peer {
        let connection = self.connection;
        // Of a caller that headers name, the port is not known.
        let source = match (self.caller, connection.source) {
            (Some(caller), Some(source)) if source.ip() == caller => Some(source),
            (Some(caller), _) => Some(SocketAddr::new(caller, 0)),
            (None, source) => source,
        };
        let certificate = connection.certificates.first().filter(|_| own.certificate);
        Peer {
            address: source.map(address),
            principal: connection.peer.names().next().unwrap_or("").to_owned(),
            certificate: certificate.map_or_else(String::new, |own| encoded(&tls::pem_of(own))),
        }
    }

    fn http(&self, own: &Check, beginning: Option<(CheckBody, Beginning)>) -> HttpRequest {
        let request = &*self.request;
        let headers = request.headers();
        let uri = request.uri();
        let path = uri.path_and_query().map_or("/", |own| own.as_str());
        let scheme = scheme(self.connection, request);
        let mut shown: std::collections::HashMap<String, String> = headers
            .keys()
            .filter(|name| own.shows(name.as_str()))
            .map(|name| (name.to_string(), joined(headers, name)))
            .collect();
        for (name, value) in [
            (":authority", self.authority),
            (":method", request.method().as_str()),
            (":path", path),
            (":scheme", scheme),
        ] {
            shown.insert(name.to_owned(), value.to_owned());
        }
        let size = headers.get(CONTENT_LENGTH);
        let size = size.and_then(|own| own.to_str().ok()?.parse().ok());
        let mut http = HttpRequest {
            id: joined(headers, &REQUEST_ID),
            method: request.method().to_string(),
            headers: shown,
            path: path.to_owned(),
            host: self.authority.to_owned(),
            scheme: scheme.to_owned(),
            size: size.unwrap_or(-1),
            protocol: match request.version() {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            }
            .to_owned(),
            ..HttpRequest::default()
        };
        if let Some((wanted, beginning)) = beginning {
            let partial = beginning.is_partial.to_string();
            http.headers.insert(PARTIAL.to_owned(), partial);
            match wanted.is_bytes {
                true => http.raw_body = beginning.bytes,
                false => http.body = String::from_utf8_lossy(&beginning.bytes).into_owned(),
            }
        }
        http
    }
}

fn address(own: SocketAddr) -> Address {
    Address {
        socket_address: Some(SocketAddress {
            address: own.ip().to_canonical().to_string(),
            port_value: u32::from(own.port()),
        }),
    }
}
