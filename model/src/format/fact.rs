//! What a text can name.

use http::HeaderName;

/// A header, or a part of the request's head that HTTP/2 has as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderKey {
    /// A header.
    Header(HeaderName),
    /// `:method`.
    Method,
    /// `:path`, with the query.
    Path,
    /// `:authority`.
    Authority,
    /// `:scheme`.
    Scheme,
}

impl HeaderKey {
    /// Its name in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Header(name) => name.as_str(),
            Self::Method => ":method",
            Self::Path => ":path",
            Self::Authority => ":authority",
            Self::Scheme => ":scheme",
        }
    }
}

/// Which part of an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The address without the port.
    Host,
    /// The port.
    Port,
}

/// What a text can name. Times are in milliseconds, sizes in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A header of the request: the first of these that is there.
    Request(Vec<HeaderKey>),
    /// A header of the answer: the first of these that is there.
    Response(Vec<HeaderKey>),
    /// A trailer of the answer: the first of these that is there.
    Trailer(Vec<HeaderKey>),
    /// The status; 0 where none was sent.
    ResponseCode,
    /// What went wrong, in Envoy's letters.
    ResponseFlags,
    /// Where the answer came from.
    ResponseCodeDetails,
    /// `HTTP/1.1`, `HTTP/2`.
    Protocol,
    /// From the request's head to the end of the answer.
    Duration,
    /// From the request's head to the end of its body.
    RequestDuration,
    /// From the request's head to the answer's head.
    ResponseDuration,
    /// Bytes of the request's body.
    BytesReceived,
    /// Bytes of the answer's body.
    BytesSent,
    /// The endpoint.
    UpstreamHost(Part),
    /// This side's end of the connection to the endpoint.
    UpstreamLocal(Part),
    /// Why there was no connection to an endpoint.
    UpstreamFailure,
    /// Why the caller's connection was ended, where that is not HTTP's.
    Termination,
    /// The cluster.
    UpstreamCluster,
    /// How often the request was sent.
    Attempts,
    /// The caller, as far as proxies in between may be believed.
    RemoteAddress(Part),
    /// The other end of the connection.
    DirectRemoteAddress(Part),
    /// Where the caller connected to.
    LocalAddress(Part),
    /// The name asked for in TLS.
    ServerName,
    /// The URI in the caller's certificate.
    PeerUriSan,
    /// `TLSv1.3`.
    TlsVersion,
    /// The cipher suite.
    TlsCipher,
    /// The route.
    RouteName,
    /// When the request came, by a pattern of `strftime`.
    StartTime(String),
    /// The name of this machine.
    Hostname,
    /// The gRPC status.
    GrpcStatus {
        /// Whether as a number, else by its name.
        is_number: bool,
    },
    /// The trace that the request belongs to.
    TraceId,
    /// The id of the request.
    StreamId,
}
