//! Headers that concern one connection only ([RFC 9110 7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1)), and the
//! form of a request for the other side.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderName, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version};

use crate::body::Outgoing;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// Why a request is refused before it is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Invalid {
    /// It has no host, or several.
    Host,
    /// Its target cannot be understood.
    Target,
}

/// Headers that concern one connection only, whatever `Connection` says.
const OF_CONNECTION: [HeaderName; 7] = [
    CONNECTION,
    UPGRADE,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    HTTP2_SETTINGS,
    TRANSFER_ENCODING,
    TE,
];

/// Removes headers that concern one connection only; says which upgrade was asked for.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    // One walk over what there is, and nothing is looked for that is not.
    let mut found = OF_CONNECTION.map(|_| false);
    for name in headers.keys() {
        if let Some(place) = OF_CONNECTION.iter().position(|own| own == name) {
            found[place] = true;
        }
    }
    let [is_named, one_hop @ .., is_coded, has_codings] = found;
    let upgrade = is_named.then(|| remove_named(headers)).flatten();
    for (name, found) in OF_CONNECTION[1..].iter().zip(one_hop) {
        if found {
            headers.remove(name);
        }
    }
    if is_coded {
        headers.remove(TRANSFER_ENCODING);
        // Of both lengths the coding counts, and the other must not travel on (RFC 9112 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    // Trailers are passed on, any other coding is the connection's.
    if has_codings
        && let Some(te) = headers.get(TE)
        && te != "trailers"
    {
        let has_trailers = te.to_str().is_ok_and(|te| {
            te.split(',')
                .any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
        });
        headers.remove(TE);
        if has_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    upgrade
}

/// Removes `Connection`, and what it names; says which upgrade it asks for.
fn remove_named(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut upgrade = None;
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        // What is said most names no header but one that goes anyway.
        .filter(|name| !name.eq_ignore_ascii_case("keep-alive"))
        .filter_map(|name| name.parse().ok())
        .collect();
    for name in named {
        if name == UPGRADE {
            upgrade = headers.get(UPGRADE).cloned();
        }
        // A caller must not be able to remove what the proxy relies on.
        if !matches!(name, HOST | COOKIE)
            && !name.as_str().starts_with("x-forwarded")
            && name != "x-request-id"
            && name != "traceparent"
            && name != TE
        {
            headers.remove(name);
        }
    }
    headers.remove(CONNECTION);
    upgrade
}

/// The host that a request asks for. The target's own host counts before the header's, and replaces it (RFC 9112 3.2.2).
pub(crate) fn authority<B>(request: &Request<B>) -> Result<HeaderValue, Invalid> {
    if let Some(authority) = request.uri().authority() {
        if authority.as_str().contains('@') {
            return Err(Invalid::Host);
        }
        return HeaderValue::from_str(authority.as_str()).map_err(|_| Invalid::Host);
    }
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => Ok(host.clone()),
        (None, _) if request.version() < Version::HTTP_11 => Ok(HeaderValue::from_static("")),
        _ => Err(Invalid::Host),
    }
}

fn is_host(host: &HeaderValue) -> bool {
    host.to_str().is_ok_and(|host| {
        host.bytes().all(|byte| {
            byte.is_ascii_alphanumeric()
                || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']' | b'%' | b'~')
        })
    })
}

/// Gives a request the form that its connection wants: for HTTP/2 the whole target, for HTTP/1.1 a path and `Host`.
pub(crate) fn reshape(
    request: &mut Request<Outgoing>,
    host: &HeaderValue,
    is_h2: bool,
    scheme: &Scheme,
) -> Result<(), Invalid> {
    let is_connect = request.method() == Method::CONNECT
        && request.extensions().get::<h2::ext::Protocol>().is_none();
    if is_h2 {
        let authority =
            Authority::from_maybe_shared(bytes::Bytes::copy_from_slice(host.as_bytes()))
                .map_err(|_| Invalid::Host)?;
        request.headers_mut().remove(HOST);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.authority = Some(authority);
        if is_connect {
            parts.scheme = None;
            parts.path_and_query = None;
        } else {
            parts.scheme = Some(scheme.clone());
            parts
                .path_and_query
                .get_or_insert_with(|| PathAndQuery::from_static("/"));
        }
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Invalid::Target)?;
        *request.version_mut() = Version::HTTP_2;
        return Ok(());
    }
    if request.version() == Version::HTTP_2 {
        join_cookies(request.headers_mut());
    }
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().insert(HOST, host.clone());
    if !is_connect && request.uri().authority().is_some() {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = None;
        parts.authority = None;
        parts
            .path_and_query
            .get_or_insert_with(|| PathAndQuery::from_static("/"));
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Invalid::Target)?;
    }
    Ok(())
}

/// HTTP/2 may split cookies over several lines, HTTP/1.1 may not (RFC 9113 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let joined: Vec<u8> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect::<Vec<_>>()
        .join(&b"; "[..]);
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn what_concerns_one_connection_is_not_passed_on() {
        let mut headers = headers(&[
            ("connection", "close, X-Own, te"),
            ("x-own", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("proxy-connection", "close"),
            ("x-other", "2"),
        ]);
        assert_eq!(remove_hop_by_hop(&mut headers), None);
        let mut left: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("")))
            .collect();
        left.sort();
        assert_eq!(left, ["te: trailers", "x-other: 2"]);
    }

    #[test]
    fn a_length_beside_a_coding_goes_even_if_the_coding_is_named() {
        for connection in ["keep-alive", "Keep-Alive, transfer-encoding"] {
            let mut headers = headers(&[
                ("connection", connection),
                ("keep-alive", "timeout=5"),
                ("transfer-encoding", "chunked"),
                ("content-length", "5"),
            ]);
            remove_hop_by_hop(&mut headers);
            assert!(headers.is_empty(), "{connection}: {headers:?}");
        }
    }

    #[test]
    fn a_caller_cannot_have_the_host_removed() {
        let mut headers = headers(&[
            ("connection", "host, cookie, upgrade"),
            ("host", "a"),
            ("cookie", "b"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(
            remove_hop_by_hop(&mut headers)
                .as_ref()
                .map(HeaderValue::as_bytes),
            Some(&b"websocket"[..])
        );
        assert!(
            headers.contains_key("host")
                && headers.contains_key("cookie")
                && !headers.contains_key("upgrade")
        );
    }

    #[test]
    fn a_request_has_one_host() {
        let asked = |uri: &str, hosts: &[&str]| {
            let mut request = Request::get(uri);
            for host in hosts {
                request = request.header("host", *host);
            }
            authority(&request.body(()).expect("a request"))
                .map(|host| host.to_str().unwrap_or("").to_owned())
        };
        assert_eq!(asked("/", &["a:80"]), Ok("a:80".to_owned()));
        assert_eq!(asked("http://b/", &["a"]), Ok("b".to_owned()));
        for (uri, hosts) in [
            ("/", &[][..]),
            ("/", &["a", "a"]),
            ("/", &["a b"]),
            ("/", &["a/b"]),
            ("http://user@b/", &["b"]),
        ] {
            assert_eq!(asked(uri, hosts), Err(Invalid::Host), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn cookies_are_one_line_again() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("a=1"));
        headers.append(COOKIE, HeaderValue::from_static("b=2"));
        join_cookies(&mut headers);
        assert_eq!(
            headers.get_all(COOKIE).iter().collect::<Vec<_>>(),
            ["a=1; b=2"]
        );
    }
}
