//! What fuzzers give foreign bytes to, and what has to hold whatever these are. Only with the feature `fuzzing`.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::Scheme;
use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};

use crate::body::Outgoing;
use crate::http::fields::{authority, remove_hop_by_hop, reshape};
use crate::{detect, proxy_header};

/// The most bytes that detection is given: those beyond are looked at in vain.
const MOST: usize = 4096;

/// What a connection speaks, by its first bytes: what was settled by some of them stays with more. The first byte says how many
/// come first.
///
/// # Panics
/// When it does not hold.
pub fn detect(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else {
        return;
    };
    let bytes = &bytes[..bytes.len().min(MOST)];
    let all = detect::look(bytes);
    let cut = bytes.len() * usize::from(*cut) / 255;
    if let Some(early) = detect::look(&bytes[..cut]) {
        assert_eq!(Some(early), all, "after {cut} bytes");
    }
}

/// A PROXY header: it is no longer than what came, is the same with more behind it, and is read again when it was written.
///
/// # Panics
/// When it does not hold.
pub fn proxy_header(bytes: &[u8]) {
    let Ok(Some((ends, length))) = proxy_header::parse(bytes) else {
        return;
    };
    assert!(length <= bytes.len());
    let longer = [&bytes[..length], &b"GET / HTTP/1.1\r\n"[..]].concat();
    let again = proxy_header::parse(&longer).ok().flatten();
    assert_eq!(again, Some((ends, length)));
    // Both ends of a header are of one kind.
    if ends.is_none_or(|(source, destination)| source.is_ipv4() == destination.is_ipv4()) {
        let written = proxy_header::write(fairlead_model::cluster::ProxyVersion::V2, ends);
        let again = proxy_header::parse(&written).ok().flatten();
        assert_eq!(again, Some((ends, written.len())));
    }
}

/// A request's head as it goes on: `METHOD TARGET` and a line for each header. What concerns one connection is gone, it has one
/// host, and nothing of it says where it ends but what the body says.
///
/// # Panics
/// When it does not hold.
pub fn head(data: &[u8]) {
    let Some(request) = request(data) else {
        return;
    };
    let is_coded = request.headers().contains_key(TRANSFER_ENCODING);
    let Ok(host) = authority(&request) else {
        return;
    };
    for is_h2 in [false, true] {
        let (head, ()) = request.clone().into_parts();
        let mut own = Request::from_parts(head, Outgoing::Empty);
        remove_hop_by_hop(own.headers_mut());
        if reshape(&mut own, &host, is_h2, &Scheme::HTTP).is_err() {
            continue;
        }
        let headers = own.headers();
        for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE] {
            assert!(!headers.contains_key(&name), "{name}");
        }
        assert!(!is_coded || !headers.contains_key(CONTENT_LENGTH));
        assert!(headers.get(TE).is_none_or(|te| te == "trailers"));
        let is_connect = own.method() == Method::CONNECT;
        if is_h2 {
            assert!(!headers.contains_key(HOST) && own.version() == Version::HTTP_2);
            assert_eq!(
                own.uri().authority().map(|own| own.as_str().as_bytes()),
                Some(host.as_bytes())
            );
        } else {
            assert_eq!(headers.get_all(HOST).iter().collect::<Vec<_>>(), [&host]);
            assert!(is_connect || own.uri().authority().is_none());
        }
    }
}

fn request(data: &[u8]) -> Option<Request<()>> {
    let text = std::str::from_utf8(data).ok()?;
    let mut lines = text.split('\n');
    let (method, target) = lines.next()?.split_once(' ')?;
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = target.parse::<Uri>().ok()?;
    for line in lines.take(100) {
        let (name, value) = line.split_once(':')?;
        request.headers_mut().append(
            HeaderName::from_bytes(name.as_bytes()).ok()?,
            HeaderValue::from_str(value.trim()).ok()?,
        );
    }
    Some(request)
}
