//! The PROXY protocol, versions 1 and 2 (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>).

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use fairlead_model::cluster::ProxyVersion;
use ppp::{HeaderResult, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The most bytes of a header: version 2 with its largest addresses and some additions.
const MOST: usize = 1024;
/// The most bytes of a header of version 1.
const LONGEST_V1: usize = 107;

/// A PROXY header is missing, broken or too long.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeaderError {
    /// It is broken, or too long.
    #[error("the connection does not begin with a PROXY header")]
    Broken,
    /// The connection ended in it.
    #[error("failed to read the PROXY header: {source}")]
    Read {
        /// The cause.
        source: std::io::Error,
    },
}

/// The ends of a connection as a header tells them: its source and its destination; nothing for a local connection.
pub(crate) type Ends = Option<(SocketAddr, SocketAddr)>;

/// Writes a header.
pub(crate) fn write(version: ProxyVersion, ends: Ends) -> Vec<u8> {
    match (version, ends) {
        (ProxyVersion::V1, Some((source, destination))) => {
            v1::Addresses::from((source, destination))
                .to_string()
                .into_bytes()
        }
        (ProxyVersion::V1, None) => b"PROXY UNKNOWN\r\n".to_vec(),
        (ProxyVersion::V2, Some(ends)) => {
            let command = v2::Version::Two | v2::Command::Proxy;
            v2::Builder::with_addresses(command, v2::Protocol::Stream, ends)
                .build()
                .unwrap_or_default()
        }
        (ProxyVersion::V2, None) => {
            let command = v2::Version::Two | v2::Command::Local;
            v2::Builder::with_addresses(
                command,
                v2::Protocol::Unspecified,
                v2::Addresses::Unspecified,
            )
            .build()
            .unwrap_or_default()
        }
    }
}

/// Reads a header; the bytes after it are left over.
pub(crate) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
) -> Result<(Ends, Bytes), HeaderError> {
    let mut buffer = BytesMut::with_capacity(256);
    loop {
        let length = stream
            .read_buf(&mut buffer)
            .await
            .map_err(|source| HeaderError::Read { source })?;
        if length == 0 {
            return Err(HeaderError::Broken);
        }
        if let Some((ends, length)) = parse(&buffer)? {
            buffer.advance(length);
            return Ok((ends, buffer.freeze()));
        }
        if buffer.len() >= MOST {
            return Err(HeaderError::Broken);
        }
    }
}

/// The ends and the length of a header at the beginning of `bytes`; nothing while it is incomplete.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(Ends, usize)>, HeaderError> {
    if !is_complete(bytes)? {
        return Ok(None);
    }
    match HeaderResult::parse(bytes) {
        HeaderResult::V1(Ok(header)) => {
            let ends = match header.addresses {
                v1::Addresses::Tcp4(tcp) => Some((
                    (tcp.source_address, tcp.source_port).into(),
                    (tcp.destination_address, tcp.destination_port).into(),
                )),
                v1::Addresses::Tcp6(tcp) => Some((
                    (tcp.source_address, tcp.source_port).into(),
                    (tcp.destination_address, tcp.destination_port).into(),
                )),
                v1::Addresses::Unknown => None,
            };
            Ok(Some((ends, header.header.len())))
        }
        HeaderResult::V2(Ok(header)) => {
            let ends = match header.addresses {
                v2::Addresses::IPv4(tcp) if header.command == v2::Command::Proxy => Some((
                    (tcp.source_address, tcp.source_port).into(),
                    (tcp.destination_address, tcp.destination_port).into(),
                )),
                v2::Addresses::IPv6(tcp) if header.command == v2::Command::Proxy => Some((
                    (tcp.source_address, tcp.source_port).into(),
                    (tcp.destination_address, tcp.destination_port).into(),
                )),
                _ => None,
            };
            Ok(Some((ends, header.len())))
        }
        _ => Err(HeaderError::Broken),
    }
}

/// Whether a whole header is there; it is refused as soon as it can be none.
fn is_complete(bytes: &[u8]) -> Result<bool, HeaderError> {
    let begins = |prefix: &[u8]| {
        let common = bytes.len().min(prefix.len());
        bytes[..common] == prefix[..common]
    };
    if begins(v1::PROTOCOL_PREFIX.as_bytes()) {
        let is_ended = bytes.windows(2).any(|pair| pair == b"\r\n");
        return if is_ended || bytes.len() < LONGEST_V1 {
            Ok(is_ended)
        } else {
            Err(HeaderError::Broken)
        };
    }
    if !begins(v2::PROTOCOL_PREFIX) {
        return Err(HeaderError::Broken);
    }
    let Some(length) = bytes.get(14..16) else {
        return Ok(false);
    };
    let length = 16 + usize::from(u16::from_be_bytes([length[0], length[1]]));
    if length > MOST {
        Err(HeaderError::Broken)
    } else {
        Ok(bytes.len() >= length)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends() -> Ends {
        Some((([10, 0, 0, 1], 4000).into(), ([10, 0, 0, 2], 80).into()))
    }

    #[test]
    fn what_is_written_is_read() {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            for ends in [
                ends(),
                None,
                Some((
                    ([0xfd00, 0, 0, 0, 0, 0, 0, 1], 1).into(),
                    ([0xfd00, 0, 0, 0, 0, 0, 0, 2], 2).into(),
                )),
            ] {
                let mut written = write(version, ends);
                let length = written.len();
                written.extend(b"GET / HTTP/1.1\r\n");
                assert_eq!(
                    parse(&written).expect("a header"),
                    Some((ends, length)),
                    "{version:?}"
                );
                for end in 1..length {
                    assert_eq!(
                        parse(&written[..end]).expect("the beginning of one"),
                        None,
                        "{version:?} {end}"
                    );
                }
            }
        }
    }

    #[test]
    fn another_beginning_is_refused() {
        assert!(parse(b"GET / HTTP/1.1\r\n\r\n").is_err());
        assert!(parse(b"PROXY TCP4 300.0.0.1 10.0.0.1 1 1\r\n").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let mut second = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
            second.extend(bytes);
            let _ = parse(&second);
        }
    }
}
