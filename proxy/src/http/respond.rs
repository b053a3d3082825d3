//! Answers that the proxy makes itself.

use bytes::Bytes;
use fairlead_model::fault::{Fault, grpc_of};
use fairlead_model::filter::AbortBy;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::answer::Answer;

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// The answer to a request that could not be served: `Proxy-Status` says why (RFC 9209); gRPC's callers get a status in
/// trailers only.
pub(super) fn fault(fault: Fault, is_grpc: bool) -> Response<Answer> {
    let mut response = Response::new(Answer::Empty);
    let headers = response.headers_mut();
    headers.insert(PROXY_STATUS, proxy_status(fault));
    if is_grpc {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(
            GRPC_STATUS,
            HeaderValue::from(u16::from(fault.grpc_status())),
        );
        headers.insert(GRPC_MESSAGE, HeaderValue::from_static(fault.token()));
        return response;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    let text = Bytes::from_static(fault.token().as_bytes());
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    *response.status_mut() = fault.status();
    *response.body_mut() = Answer::Text(Some(text));
    response
}

/// The answer to a request of which there are too many.
pub(super) fn limited(status: StatusCode, is_exhausted: bool, is_grpc: bool) -> Response<Answer> {
    let mut response = fault(Fault::RateLimited, is_grpc);
    if !is_grpc {
        *response.status_mut() = status;
    } else if is_exhausted {
        let exhausted = HeaderValue::from_static("8");
        response.headers_mut().insert(GRPC_STATUS, exhausted);
    }
    response
}

/// The answer to a request that is not let in, with what its caller is told.
pub(super) fn refused(status: StatusCode, text: &str, is_grpc: bool) -> Response<Answer> {
    let mut response = fault(Fault::Denied, is_grpc);
    if is_grpc {
        let headers = response.headers_mut();
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(grpc_of(status))));
        if let (false, Ok(text)) = (text.is_empty(), HeaderValue::from_str(text)) {
            headers.insert(GRPC_MESSAGE, text);
        }
        return response;
    }
    *response.status_mut() = status;
    set_text(&mut response, text);
    response
}

/// Gives an answer another text.
pub(super) fn set_text(response: &mut Response<Answer>, text: &str) {
    let length = HeaderValue::from(text.len());
    response.headers_mut().insert(CONTENT_LENGTH, length);
    *response.body_mut() = Answer::Text(Some(Bytes::copy_from_slice(text.as_bytes())));
}

/// The answer to a request that goes wrong on purpose.
pub(super) fn injected(by: AbortBy, body: &str, is_grpc: bool) -> Response<Answer> {
    let mut response = fault(Fault::Injected, is_grpc);
    let (status, grpc) = match by {
        AbortBy::Http(status) => (status, grpc_of(status)),
        AbortBy::Grpc(grpc) => (StatusCode::OK, grpc),
        AbortBy::Header => return response,
    };
    if is_grpc {
        let headers = response.headers_mut();
        headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(grpc)));
        return response;
    }
    *response.status_mut() = status;
    if !body.is_empty() {
        set_text(&mut response, body);
    }
    response
}

fn proxy_status(fault: Fault) -> HeaderValue {
    // Tokens are lower case letters and underscores.
    HeaderValue::from_str(&format!("fairlead; error={}", fault.token()))
        .unwrap_or(HeaderValue::from_static("fairlead"))
}

/// An answer that the configuration gives.
pub(super) fn direct(status: StatusCode, body: &str) -> Response<Answer> {
    let mut response = Response::new(Answer::Text(Some(Bytes::copy_from_slice(body.as_bytes()))));
    *response.status_mut() = status;
    if !body.is_empty() {
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    }
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    response
}

/// An answer that sends the caller elsewhere.
pub(super) fn redirect(status: StatusCode, location: &str) -> Response<Answer> {
    let mut response = Response::new(Answer::Empty);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::from_str(location) {
        headers.insert(LOCATION, location);
    }
    headers.insert(CONTENT_LENGTH, HeaderValue::from(0));
    response
}

/// The gRPC status in headers or trailers.
pub(super) fn grpc_status(headers: &HeaderMap) -> Option<u8> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}
