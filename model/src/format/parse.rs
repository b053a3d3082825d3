//! Reads a text with commands.

use super::{Command, Fact, HeaderKey, Part, Piece};

/// When a time has no pattern of its own: `2023-11-14T22:13:20.123Z`.
const USUAL_TIME: &str = "%Y-%m-%dT%H:%M:%S.%3fZ";

/// Commands that take nothing.
const PLAIN: [(&str, Fact); 36] = [
    ("RESPONSE_CODE", Fact::ResponseCode),
    ("RESPONSE_FLAGS", Fact::ResponseFlags),
    ("RESPONSE_CODE_DETAILS", Fact::ResponseCodeDetails),
    ("PROTOCOL", Fact::Protocol),
    ("DURATION", Fact::Duration),
    ("REQUEST_DURATION", Fact::RequestDuration),
    ("RESPONSE_DURATION", Fact::ResponseDuration),
    ("BYTES_RECEIVED", Fact::BytesReceived),
    ("BYTES_SENT", Fact::BytesSent),
    ("UPSTREAM_HOST", Fact::UpstreamHost(Part::Whole)),
    ("UPSTREAM_REMOTE_ADDRESS", Fact::UpstreamHost(Part::Whole)),
    (
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        Fact::UpstreamHost(Part::Host),
    ),
    ("UPSTREAM_REMOTE_PORT", Fact::UpstreamHost(Part::Port)),
    ("UPSTREAM_LOCAL_ADDRESS", Fact::UpstreamLocal(Part::Whole)),
    (
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        Fact::UpstreamLocal(Part::Host),
    ),
    ("UPSTREAM_LOCAL_PORT", Fact::UpstreamLocal(Part::Port)),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", Fact::UpstreamFailure),
    ("CONNECTION_TERMINATION_DETAILS", Fact::Termination),
    ("UPSTREAM_CLUSTER", Fact::UpstreamCluster),
    ("UPSTREAM_CLUSTER_RAW", Fact::UpstreamCluster),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", Fact::Attempts),
    (
        "DOWNSTREAM_REMOTE_ADDRESS",
        Fact::RemoteAddress(Part::Whole),
    ),
    (
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
        Fact::RemoteAddress(Part::Host),
    ),
    ("DOWNSTREAM_REMOTE_PORT", Fact::RemoteAddress(Part::Port)),
    (
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
        Fact::DirectRemoteAddress(Part::Whole),
    ),
    (
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
        Fact::DirectRemoteAddress(Part::Host),
    ),
    ("DOWNSTREAM_LOCAL_ADDRESS", Fact::LocalAddress(Part::Whole)),
    (
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
        Fact::LocalAddress(Part::Host),
    ),
    ("DOWNSTREAM_LOCAL_PORT", Fact::LocalAddress(Part::Port)),
    ("REQUESTED_SERVER_NAME", Fact::ServerName),
    ("DOWNSTREAM_PEER_URI_SAN", Fact::PeerUriSan),
    ("DOWNSTREAM_TLS_VERSION", Fact::TlsVersion),
    ("DOWNSTREAM_TLS_CIPHER", Fact::TlsCipher),
    ("ROUTE_NAME", Fact::RouteName),
    ("HOSTNAME", Fact::Hostname),
    ("TRACE_ID", Fact::TraceId),
];

/// Commands that take something, or may.
const TAKING: [&str; 7] = [
    "REQ",
    "RESP",
    "TRAILER",
    "START_TIME",
    "GRPC_STATUS",
    "GRPC_STATUS_NUMBER",
    "STREAM_ID",
];

/// Why a text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// A command does not end.
    #[error("the command at byte {at} has no closing %; a percent sign is written as %%")]
    Unclosed {
        /// Where it begins.
        at: usize,
    },
    /// A command is not known.
    #[error("%{name}% is not supported; {allowed} are")]
    Unknown {
        /// Its name.
        name: String,
        /// Those that are known.
        allowed: String,
    },
    /// A command takes nothing, and something was given.
    #[error("%{name}% takes nothing in parentheses")]
    Nothing {
        /// Its name.
        name: String,
    },
    /// What a command takes is missing or wrong.
    #[error("%{name}%: {reason}")]
    Argument {
        /// Its name.
        name: String,
        /// What was found, and what is expected.
        reason: String,
    },
}

pub(super) fn pieces(source: &str) -> Result<Vec<Piece>, FormatError> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = source;
    while let Some(at) = rest.find('%') {
        text.push_str(&rest[..at]);
        let begun = source.len() - rest.len() + at;
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            text.push('%');
            rest = after;
            continue;
        }
        let (command, after) = command(rest, begun)?;
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(Piece::Command(command));
        rest = after;
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Ok(pieces)
}

/// A command up to its closing percent sign, and what follows.
fn command(rest: &str, at: usize) -> Result<(Command, &str), FormatError> {
    let unclosed = || FormatError::Unclosed { at };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let length = rest
        .bytes()
        .position(|byte| !is_name(byte))
        .ok_or_else(unclosed)?;
    let (name, mut rest) = rest.split_at(length);
    let mut argument = None;
    if let Some(inner) = rest.strip_prefix('(') {
        // What is taken may have parentheses and percent signs itself: it ends where the command does.
        let end = inner
            .match_indices(')')
            .find(|(end, _)| ends(&inner[end + 1..]).is_some())
            .ok_or_else(unclosed)?
            .0;
        argument = Some(&inner[..end]);
        rest = &inner[end + 1..];
    }
    let (most, rest) = ends(rest).ok_or_else(unclosed)?;
    let fact = fact(name, argument)?;
    Ok((Command { fact, most }, rest))
}

/// The end of a command, with the most bytes of its text before it: `%`, or `:12%`.
fn ends(rest: &str) -> Option<(Option<usize>, &str)> {
    if let Some(after) = rest.strip_prefix('%') {
        return Some((None, after));
    }
    let (most, after) = rest.strip_prefix(':')?.split_once('%')?;
    Some((Some(most.parse().ok()?), after))
}

fn fact(name: &str, argument: Option<&str>) -> Result<Fact, FormatError> {
    if let Some((_, fact)) = PLAIN.iter().find(|(own, _)| *own == name) {
        return match argument {
            None => Ok(fact.clone()),
            Some(_) => Err(FormatError::Nothing {
                name: name.to_owned(),
            }),
        };
    }
    let wrong = |reason: String| FormatError::Argument {
        name: name.to_owned(),
        reason,
    };
    match name {
        "REQ" => Ok(Fact::Request(keys(name, argument)?)),
        "RESP" => Ok(Fact::Response(keys(name, argument)?)),
        "TRAILER" => Ok(Fact::Trailer(keys(name, argument)?)),
        "START_TIME" => {
            let pattern = argument.filter(|own| !own.is_empty()).unwrap_or(USUAL_TIME);
            if super::time(pattern, std::time::Duration::from_secs(1)).is_empty() {
                return Err(wrong(format!("{pattern:?} is no pattern of a time")));
            }
            Ok(Fact::StartTime(pattern.to_owned()))
        }
        "GRPC_STATUS" => match argument {
            None | Some("CAMEL_STRING") => Ok(Fact::GrpcStatus { is_number: false }),
            Some("NUMBER") => Ok(Fact::GrpcStatus { is_number: true }),
            Some(other) => Err(wrong(format!(
                "{other:?} is not supported; CAMEL_STRING, NUMBER are allowed"
            ))),
        },
        "GRPC_STATUS_NUMBER" if argument.is_none() => Ok(Fact::GrpcStatus { is_number: true }),
        "STREAM_ID" if argument.is_none() => Ok(Fact::StreamId),
        "GRPC_STATUS_NUMBER" | "STREAM_ID" => Err(FormatError::Nothing {
            name: name.to_owned(),
        }),
        _ => {
            let mut allowed: Vec<&str> = PLAIN.iter().map(|(own, _)| *own).chain(TAKING).collect();
            allowed.sort_unstable();
            Err(FormatError::Unknown {
                name: name.to_owned(),
                allowed: allowed.join(", "),
            })
        }
    }
}

/// The names of headers: one, or one and what takes its place (`X?Y`).
fn keys(command: &str, argument: Option<&str>) -> Result<Vec<HeaderKey>, FormatError> {
    let wrong = |reason: String| FormatError::Argument {
        name: command.to_owned(),
        reason,
    };
    let names = argument.filter(|own| !own.is_empty()).ok_or_else(|| {
        wrong(format!(
            "the name of a header is expected, as in %{command}(x-name)%"
        ))
    })?;
    names
        .split('?')
        .map(|name| {
            let key = match (command, name.to_ascii_lowercase().as_str()) {
                ("REQ", ":method") => HeaderKey::Method,
                ("REQ", ":path") => HeaderKey::Path,
                ("REQ", ":authority" | "host") => HeaderKey::Authority,
                ("REQ", ":scheme") => HeaderKey::Scheme,
                _ => HeaderKey::Header(
                    name.parse()
                        .map_err(|_| wrong(format!("{name:?} is no name of a header")))?,
                ),
            };
            Ok(key)
        })
        .collect()
}
