//! What is known of a request, by the names that formats have for it.

use std::borrow::Cow;
use std::cell::Ref;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;

use fairlead_model::cluster::Address;
use fairlead_model::format::{Fact, Facts, Flags, HeaderKey, Part, Value, time};
use fairlead_model::log::SECRETS;
use fairlead_model::tls::Peer;
use http::{HeaderMap, HeaderName, Version};

use super::Connection;
use super::record::{REQUEST_ID, Record, State};

const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// A request as it is known at one point; while its headers or its answer's are being changed, those count.
pub(super) struct View<'a> {
    pub(super) record: &'a Record,
    pub(super) state: Ref<'a, State>,
    pub(super) request: Option<&'a HeaderMap>,
    pub(super) response: Option<&'a HeaderMap>,
    /// Whether secrets are to be kept.
    pub(super) is_log: bool,
}

impl View<'_> {
    fn request_part(&self, key: &HeaderKey) -> Option<Cow<'_, str>> {
        match key {
            HeaderKey::Method => Some(Cow::Borrowed(self.record.method.as_str())),
            HeaderKey::Path => Some(Cow::Borrowed(&self.record.path)),
            HeaderKey::Authority => Some(Cow::Borrowed(&self.record.authority)),
            HeaderKey::Scheme => Some(Cow::Borrowed(if self.record.connection.is_tls {
                "https"
            } else {
                "http"
            })),
            HeaderKey::Header(name) => {
                self.header(self.request.unwrap_or(&self.state.request), name)
            }
        }
    }

    fn header<'a>(&self, headers: &'a HeaderMap, name: &HeaderName) -> Option<Cow<'a, str>> {
        let mut values = headers.get_all(name).iter();
        let first = values.next()?;
        if self.is_log && (SECRETS.contains(&name.as_str()) || first.is_sensitive()) {
            return Some(Cow::Borrowed("[redacted]"));
        }
        let mut text = String::from_utf8_lossy(first.as_bytes());
        for value in values {
            let text = text.to_mut();
            text.push(',');
            text.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
        Some(text)
    }

    fn first(&self, headers: &HeaderMap, keys: &[HeaderKey]) -> Option<Value<'_>> {
        keys.iter().find_map(|key| match key {
            HeaderKey::Header(name) => self
                .header(headers, name)
                .map(|text| Value::owned(text.into_owned())),
            _ => None,
        })
    }

    /// How long the endpoint took for its answer's head, in milliseconds: no endpoint and no caller is told that, but a log may ask
    /// for the header that Envoy has for it.
    fn service_time(&self, keys: &[HeaderKey]) -> Option<Value<'static>> {
        let is_it = |key: &HeaderKey| *key == HeaderKey::Header(SERVICE_TIME);
        let state = &self.state;
        if !self.is_log || !state.is_from_endpoint() || !keys.iter().any(is_it) {
            return None;
        }
        let begun = state.request_end.unwrap_or(self.record.begun);
        let took = state.response_begun?.since(begun).as_millis();
        Some(Value::Number(u64::try_from(took).unwrap_or(u64::MAX)))
    }

    /// Milliseconds from the request's head to a moment.
    fn since(&self, moment: fairlead_model::Moment) -> Value<'static> {
        Value::Number(
            u64::try_from(moment.since(self.record.begun).as_millis()).unwrap_or(u64::MAX),
        )
    }
}

impl Facts for View<'_> {
    fn value(&self, fact: &Fact) -> Option<Value<'_>> {
        let state = &*self.state;
        let connection = &*self.record.connection;
        match fact {
            Fact::Request(keys) => keys
                .iter()
                .find_map(|key| self.request_part(key))
                .map(Value::Text),
            Fact::Response(keys) => self
                .first(self.response.unwrap_or(&state.response), keys)
                .or_else(|| self.service_time(keys)),
            Fact::Trailer(keys) => self.first(&state.trailers, keys),
            Fact::ResponseCode => Some(Value::Number(u64::from(state.status))),
            Fact::ResponseFlags => Some(flags(state.flags)),
            Fact::ResponseCodeDetails => state.details.map(Value::text),
            Fact::Protocol => Some(Value::text(match self.record.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            })),
            Fact::Duration => Some(self.since(self.record.core.clock.now())),
            Fact::RequestDuration => state.request_end.map(|end| self.since(end)),
            Fact::ResponseDuration => state.response_begun.map(|begun| self.since(begun)),
            Fact::BytesReceived => Some(Value::Number(state.received)),
            Fact::BytesSent => Some(Value::Number(state.sent)),
            Fact::UpstreamHost(part) => endpoint_value(state.endpoint.as_ref()?, *part),
            Fact::UpstreamLocal(part) => socket(state.local?, *part),
            Fact::UpstreamFailure => state.unreached.as_deref().map(Value::text),
            Fact::UpstreamCluster => state.cluster.as_deref().map(Value::text),
            Fact::Attempts => Some(Value::Number(u64::from(state.attempts))),
            Fact::RemoteAddress(part) => caller(connection, state.caller, *part),
            Fact::RouteName => state.route.as_ref().map(|route| Value::text(&route.name)),
            Fact::StartTime(pattern) => Some(Value::owned(time(pattern, self.record.at))),
            Fact::GrpcStatus { is_number } => state.grpc.map(|code| grpc(code, *is_number)),
            Fact::StreamId => self
                .header(self.request.unwrap_or(&state.request), &REQUEST_ID)
                .map(Value::Text),
            Fact::TraceId => {
                let trace = self.record.trace.borrow();
                trace.as_ref().map(|trace| Value::owned(trace.id()))
            }
            other => of_connection(connection, other),
        }
    }
}

/// The letters of what went wrong; a dash where nothing did.
pub(crate) fn flags(flags: Flags) -> Value<'static> {
    if flags.is_empty() {
        Value::text("-")
    } else {
        Value::owned(flags.to_string())
    }
}

/// What is known of a connection alone.
pub(crate) fn of_connection<'a>(connection: &'a Connection, fact: &Fact) -> Option<Value<'a>> {
    match fact {
        Fact::RemoteAddress(part) | Fact::DirectRemoteAddress(part) => {
            socket(connection.source?, *part)
        }
        Fact::LocalAddress(part) => socket(connection.destination?, *part),
        Fact::Termination => connection.terminated.as_deref().map(Value::text),
        Fact::ServerName => connection.server_name.as_deref().map(Value::text),
        Fact::PeerUriSan => match &connection.peer {
            Peer::Known(id) => Some(Value::text(id.as_str())),
            _ => None,
        },
        Fact::TlsVersion => connection.version.map(|version| {
            Value::text(match version {
                rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
                _ => "TLSv1.2",
            })
        }),
        Fact::TlsCipher => connection.cipher.map(|cipher| {
            let name = cipher.as_str().unwrap_or("unknown");
            Value::owned(name.replacen("TLS13_", "TLS_", 1))
        }),
        Fact::Hostname => Some(Value::text(hostname())),
        _ => None,
    }
}

/// The caller's address; its port is known of the connection's own end only.
fn caller(connection: &Connection, believed: Option<IpAddr>, part: Part) -> Option<Value<'static>> {
    match (believed, connection.source) {
        (Some(caller), Some(own)) if own.ip() == caller => socket(own, part),
        (Some(caller), _) => socket(SocketAddr::new(caller, 0), part),
        (None, own) => socket(own?, part),
    }
}

pub(crate) fn socket(address: SocketAddr, part: Part) -> Option<Value<'static>> {
    Some(match part {
        Part::Whole => Value::owned(address.to_string()),
        Part::Host => Value::owned(address.ip().to_string()),
        Part::Port => Value::Number(u64::from(address.port())),
    })
}

/// The address of an endpoint.
pub(crate) fn endpoint_value(address: &Address, part: Part) -> Option<Value<'static>> {
    match (address, part) {
        (Address::Socket(address), part) => socket(*address, part),
        (Address::Name(name, _), Part::Host) => Some(Value::owned(name.clone())),
        (Address::Name(_, port), Part::Port) => Some(Value::Number(u64::from(*port))),
        (Address::Path(_), Part::Port) => None,
        (other, _) => Some(Value::owned(other.to_string())),
    }
}

fn grpc(code: u8, is_number: bool) -> Value<'static> {
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];
    match NAMES.get(usize::from(code)) {
        Some(name) if !is_number => Value::text(name),
        _ => Value::Number(u64::from(code)),
    }
}

/// The name of this machine.
fn hostname() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim().to_owned())
            .unwrap_or_default()
    })
}
