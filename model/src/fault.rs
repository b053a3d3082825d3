//! What the proxy says when it answers itself: one token for the `Proxy-Status` header
//! ([RFC 9209](https://www.rfc-editor.org/rfc/rfc9209)), the metric label and the log, with the status for HTTP and gRPC.

use http::StatusCode;

use crate::format::Flag;

/// Where a failure came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The caller, or the connection to it.
    Downstream,
    /// The endpoint, or the connection to it.
    Upstream,
    /// This proxy or its configuration.
    Internal,
}

/// Why the proxy answered instead of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The connection to the endpoint was refused.
    ConnectionRefused,
    /// The endpoint did not take the connection in time.
    ConnectionTimeout,
    /// The name of the endpoint could not be looked up, or there is none.
    NameUnknown,
    /// The name of the endpoint leads where requests may not go.
    AddressRefused,
    /// The connection ended before the answer.
    ConnectionTerminated,
    /// The certificate of the endpoint is not to be trusted, or it refused ours.
    TlsFailed,
    /// The endpoint did not answer in time.
    ResponseTimeout,
    /// The request's own deadline passed.
    DeadlineExceeded,
    /// The answer was no valid HTTP.
    ProtocolError,
    /// There is no endpoint to send it to, or none for so long that waiting is no use.
    NoEndpoint,
    /// Every endpoint rests after failures.
    EndpointsResting,
    /// The cluster of the route is not known.
    UnknownCluster,
    /// No route matches.
    RouteNotFound,
    /// The request goes round in a circle.
    Loop,
    /// The request is no valid HTTP, or may be read in two ways.
    RequestInvalid,
    /// The caller ended the request.
    RequestCancelled,
    /// The caller did not send all of it in time.
    RequestTimeout,
    /// Nothing moved in either direction for too long.
    StreamIdle,
    /// Its headers are too large.
    HeadersTooLarge,
    /// A limit on connections, waiting or running requests is reached.
    LimitReached,
    /// The retry budget is spent.
    RetryBudgetSpent,
    /// This proxy has more to do than it can.
    Overloaded,
    /// The caller is not who it has to be.
    Denied,
    /// There are more requests than may come in.
    RateLimited,
    /// It goes wrong on purpose.
    Injected,
    /// Its body is longer than it may be.
    BodyTooLong,
    /// A bug or a broken configuration.
    Internal,
}

impl Fault {
    /// All faults.
    pub const ALL: [Self; 27] = [
        Self::ConnectionRefused,
        Self::ConnectionTimeout,
        Self::NameUnknown,
        Self::AddressRefused,
        Self::ConnectionTerminated,
        Self::TlsFailed,
        Self::ResponseTimeout,
        Self::DeadlineExceeded,
        Self::ProtocolError,
        Self::NoEndpoint,
        Self::EndpointsResting,
        Self::UnknownCluster,
        Self::RouteNotFound,
        Self::Loop,
        Self::RequestInvalid,
        Self::RequestCancelled,
        Self::RequestTimeout,
        Self::StreamIdle,
        Self::HeadersTooLarge,
        Self::LimitReached,
        Self::RetryBudgetSpent,
        Self::Overloaded,
        Self::Denied,
        Self::RateLimited,
        Self::Injected,
        Self::BodyTooLong,
        Self::Internal,
    ];

    /// The token: one of RFC 9209's where it has one, else one of our own.
    #[must_use]
    pub fn token(self) -> &'static str {
        match self {
            Self::ConnectionRefused => "connection_refused",
            Self::ConnectionTimeout => "connection_timeout",
            Self::NameUnknown => "dns_error",
            Self::AddressRefused => "destination_ip_prohibited",
            Self::ConnectionTerminated => "connection_terminated",
            Self::TlsFailed => "tls_protocol_error",
            Self::ResponseTimeout => "http_response_timeout",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::ProtocolError => "http_protocol_error",
            Self::NoEndpoint => "destination_unavailable",
            Self::EndpointsResting => "endpoints_resting",
            Self::UnknownCluster => "destination_not_found",
            Self::RouteNotFound => "route_not_found",
            Self::Loop => "proxy_loop_detected",
            Self::RequestInvalid => "http_request_error",
            Self::RequestCancelled => "request_cancelled",
            Self::RequestTimeout => "http_request_timeout",
            Self::StreamIdle => "stream_idle_timeout",
            Self::HeadersTooLarge => "request_headers_too_large",
            Self::LimitReached => "connection_limit_reached",
            Self::RetryBudgetSpent => "retry_budget_spent",
            Self::Overloaded => "proxy_overloaded",
            Self::Denied => "http_request_denied",
            Self::RateLimited => "rate_limited",
            Self::Injected => "fault_injected",
            Self::BodyTooLong => "request_body_too_long",
            Self::Internal => "proxy_internal_error",
        }
    }

    /// What went wrong, in the letters of Envoy's logs.
    #[must_use]
    pub fn flag(self) -> Option<Flag> {
        Some(match self {
            Self::ConnectionRefused | Self::ConnectionTimeout | Self::TlsFailed => {
                Flag::UpstreamConnection
            }
            Self::NameUnknown => Flag::NameUnknown,
            Self::AddressRefused => Flag::UpstreamConnection,
            Self::ConnectionTerminated => Flag::UpstreamTerminated,
            Self::ResponseTimeout | Self::DeadlineExceeded => Flag::UpstreamTimeout,
            Self::ProtocolError => Flag::UpstreamProtocol,
            Self::NoEndpoint | Self::EndpointsResting => Flag::NoHealthyUpstream,
            Self::UnknownCluster => Flag::NoCluster,
            Self::RouteNotFound => Flag::NoRoute,
            Self::LimitReached => Flag::UpstreamOverflow,
            Self::RetryBudgetSpent => Flag::RetriesSpent,
            Self::RequestInvalid | Self::HeadersTooLarge => Flag::DownstreamProtocol,
            Self::RequestCancelled | Self::RequestTimeout => Flag::DownstreamTerminated,
            Self::StreamIdle => Flag::StreamIdle,
            Self::Overloaded => Flag::Overloaded,
            Self::Denied => Flag::Denied,
            Self::RateLimited => Flag::RateLimited,
            Self::Injected => Flag::FaultInjected,
            Self::Loop | Self::BodyTooLong | Self::Internal => return None,
        })
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(self) -> StatusCode {
        match self {
            Self::ConnectionRefused
            | Self::NameUnknown
            | Self::ConnectionTerminated
            | Self::TlsFailed
            | Self::NoEndpoint
            | Self::EndpointsResting
            | Self::UnknownCluster
            | Self::LimitReached
            | Self::RetryBudgetSpent
            | Self::Overloaded
            | Self::Injected
            | Self::ConnectionTimeout => StatusCode::SERVICE_UNAVAILABLE,
            Self::ResponseTimeout | Self::DeadlineExceeded | Self::StreamIdle => {
                StatusCode::GATEWAY_TIMEOUT
            }
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::ProtocolError | Self::AddressRefused => StatusCode::BAD_GATEWAY,
            Self::RouteNotFound => StatusCode::NOT_FOUND,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::RequestInvalid | Self::RequestCancelled => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::BodyTooLong => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The gRPC status of the answer
    /// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
    #[must_use]
    pub fn grpc_status(self) -> u8 {
        match self {
            Self::DeadlineExceeded
            | Self::ResponseTimeout
            | Self::RequestTimeout
            | Self::StreamIdle => 4,
            Self::RouteNotFound => 12,
            Self::Denied => 7,
            Self::BodyTooLong => 8,
            Self::Loop => 10,
            Self::RequestCancelled => 1,
            Self::RequestInvalid | Self::HeadersTooLarge | Self::Internal => 13,
            _ => 14,
        }
    }

    /// Where it came from.
    #[must_use]
    pub fn source(self) -> Source {
        match self {
            Self::RequestInvalid
            | Self::RequestCancelled
            | Self::HeadersTooLarge
            | Self::Denied
            | Self::RateLimited
            | Self::BodyTooLong
            | Self::Loop => Source::Downstream,
            Self::RouteNotFound
            | Self::UnknownCluster
            | Self::LimitReached
            | Self::RetryBudgetSpent
            | Self::Overloaded
            | Self::Injected
            | Self::Internal => Source::Internal,
            _ => Source::Upstream,
        }
    }

    /// Whether the endpoint cannot have begun to work on the request, so that any request may be sent again.
    #[must_use]
    pub fn is_before_request(self) -> bool {
        matches!(
            self,
            Self::ConnectionRefused | Self::NameUnknown | Self::ConnectionTimeout | Self::TlsFailed
        )
    }
}

/// The gRPC status that stands for one of HTTP
/// (<https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md>).
#[must_use]
pub fn grpc_of(status: StatusCode) -> u8 {
    match status.as_u16() {
        200 => 0,
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn tokens_are_unique_and_valid_in_a_structured_header() {
        let tokens: BTreeSet<_> = Fault::ALL.iter().map(|fault| fault.token()).collect();
        assert_eq!(tokens.len(), Fault::ALL.len());
        for token in tokens {
            assert!(
                token
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{token}"
            );
        }
    }
}
