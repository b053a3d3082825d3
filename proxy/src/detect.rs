//! What a connection speaks, from its first bytes: TLS with the name asked for, HTTP of either version, or something else.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::io::AsyncReadExt;

use crate::upstream::Stream;

/// The beginning of HTTP/2 without TLS (RFC 9113 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest beginning of a ClientHello that is looked at, in bytes.
const MOST_HELLO: usize = 16 * 1024;

/// What a connection speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Spoken {
    /// TLS, with the name asked for and the protocols offered.
    Tls {
        server_name: Option<String>,
        protocols: Vec<String>,
    },
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Something else, or nothing within the time.
    Opaque,
}

/// What the beginning of a connection says, and whether more bytes could say more.
pub(crate) fn look(bytes: &[u8]) -> Option<Spoken> {
    if bytes.is_empty() {
        return None;
    }
    if bytes[0] == 0x16 {
        return look_tls(bytes);
    }
    let common = bytes.len().min(PREFACE.len());
    if bytes[..common] == PREFACE[..common] {
        return (common == PREFACE.len()).then_some(Spoken::Http2);
    }
    look_http1(bytes)
}

fn look_tls(bytes: &[u8]) -> Option<Spoken> {
    // A record of TLS has major version 3, and a handshake begins with a ClientHello.
    if bytes.get(1).is_some_and(|major| *major != 3) {
        return Some(Spoken::Opaque);
    }
    match bytes.get(5) {
        None => return None,
        Some(1) => {}
        Some(_) => return Some(Spoken::Opaque),
    }
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        if acceptor.read_tls(&mut rest).is_err() {
            return Some(Spoken::Opaque);
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                let protocols = hello
                    .alpn()
                    .into_iter()
                    .flatten()
                    .filter_map(|name| std::str::from_utf8(name).ok().map(str::to_owned))
                    .collect();
                return Some(Spoken::Tls {
                    server_name: hello.server_name().map(str::to_owned),
                    protocols,
                });
            }
            Ok(None) => {}
            // Broken: the handshake will say so to the caller.
            Err(_) => {
                return Some(Spoken::Tls {
                    server_name: None,
                    protocols: Vec::new(),
                });
            }
        }
    }
    (bytes.len() >= MOST_HELLO).then_some(Spoken::Opaque)
}

/// A method, a space, a target, a space and `HTTP/1`.
fn look_http1(bytes: &[u8]) -> Option<Spoken> {
    const LONGEST_METHOD: usize = 32;
    let is_token = |byte: &u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    let Some(space) = bytes.iter().position(|byte| *byte == b' ') else {
        return (bytes.len() > LONGEST_METHOD || !bytes.iter().all(is_token))
            .then_some(Spoken::Opaque);
    };
    if space == 0 || space > LONGEST_METHOD || !bytes[..space].iter().all(is_token) {
        return Some(Spoken::Opaque);
    }
    let rest = &bytes[space + 1..];
    let end = rest.iter().position(|byte| *byte == b'\n');
    let line = &rest[..end.unwrap_or(rest.len())];
    // However much of it came, such a line is none of HTTP.
    if line
        .iter()
        .any(|byte| byte.is_ascii_control() && *byte != b'\r')
    {
        return Some(Spoken::Opaque);
    }
    end.map(|_| {
        if line.windows(7).any(|part| part == b" HTTP/1") {
            Spoken::Http1
        } else {
            Spoken::Opaque
        }
    })
}

/// Reads until it is clear what is spoken, at most `most` bytes within `timeout`; says whether the time ran out.
pub(crate) async fn detect(
    stream: Stream,
    most: usize,
    timeout: Duration,
) -> std::io::Result<(Stream, Spoken, bool)> {
    let mut stream = stream;
    let mut buffer = BytesMut::new();
    let mut late = false;
    let reading = async {
        loop {
            let is_tls = buffer.first() == Some(&0x16);
            match look(&buffer) {
                Some(spoken) => return Ok::<_, std::io::Error>(spoken),
                None if !is_tls && buffer.len() >= most => return Ok(Spoken::Opaque),
                None => {}
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(Spoken::Opaque);
            }
        }
    };
    let spoken = match tokio::time::timeout(timeout, reading).await {
        Ok(spoken) => spoken?,
        Err(_) => {
            late = true;
            Spoken::Opaque
        }
    };
    let looked: Bytes = buffer.freeze();
    Ok((stream.after(looked), spoken, late))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn protocols_are_told_apart() {
        for (bytes, spoken) in [
            (&b"GET / HTTP/1.1\r\n"[..], Some(Spoken::Http1)),
            (b"M-SEARCH * HTTP/1.1\r\n", Some(Spoken::Http1)),
            (b"GET /", None),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Spoken::Http2)),
            (b"PRI * HT", None),
            (b"SSH-2.0-OpenSSH_9.6\r\n", Some(Spoken::Opaque)),
            (b"GET / SPDY/3\r\n", Some(Spoken::Opaque)),
            (b"\0\x01\x02", Some(Spoken::Opaque)),
            (b"\x16\x02\x01", Some(Spoken::Opaque)),
            (b"", None),
        ] {
            assert_eq!(look(bytes), spoken, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..600), is_tls: bool) {
            if is_tls && bytes.len() > 2 {
                bytes[0] = 0x16;
                bytes[1] = 3;
            }
            let _ = look(&bytes);
        }
    }
}
