//! Answers of endpoints: how large their heads may be, and bodies that are not for the proxy to read.

mod support;

use bytes::Bytes;
use fairlead_model::cluster::{AnswerHead, UpstreamProtocol};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use support::{Endpoint, Proxy, http_to, proxy, text_answer, to, up};

/// An endpoint whose answer has as many headers, of as many bytes each, as the path says: `/3/100`.
async fn talkative() -> Endpoint {
    Endpoint::start(|request, _| async move {
        let mut parts = request.uri().path().split('/').skip(1);
        let mut number = || parts.next().and_then(|own| own.parse().ok()).unwrap_or(0);
        let (count, length): (usize, usize) = (number(), number());
        let mut answer = text_answer(200, "ok");
        for number in 0..count {
            let name = HeaderName::try_from(format!("x-{number}")).expect("a name");
            let value = HeaderValue::try_from("v".repeat(length)).expect("a value");
            answer.headers_mut().insert(name, value);
        }
        answer
    })
    .await
}

async fn status(proxy: &Proxy, path: &str) -> (StatusCode, String) {
    let (head, _) = proxy.get(path).await;
    let why = head.headers.get("proxy-status");
    let why = why.and_then(|own| own.to_str().ok()).unwrap_or_default();
    (head.status, why.to_owned())
}

#[tokio::test]
async fn heads_have_bounds() {
    let endpoint = talkative().await;
    let refused = (
        StatusCode::BAD_GATEWAY,
        "fairlead; error=http_protocol_error".to_owned(),
    );
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let mut usual = up(&[endpoint.address]);
        usual.protocol = protocol;
        let mut narrow = usual.clone();
        narrow.answer_head = AnswerHead {
            bytes: 4 * 1024,
            count: 10,
        };
        let mut wide = usual.clone();
        wide.answer_head = AnswerHead {
            bytes: 300 * 1024,
            count: 1_000,
        };
        let narrow = proxy(http_to(to("up")), narrow).await;
        assert_eq!(status(&narrow, "/5/500").await.0, StatusCode::OK);
        assert_eq!(status(&narrow, "/20/5").await, refused, "{protocol:?}");
        assert_eq!(status(&narrow, "/1/5000").await, refused, "{protocol:?}");
        // The connection, or another one, goes on.
        assert_eq!(status(&narrow, "/5/500").await.0, StatusCode::OK);
        let usual = proxy(http_to(to("up")), usual).await;
        assert_eq!(status(&usual, "/90/500").await.0, StatusCode::OK);
        assert_eq!(status(&usual, "/90/1000").await, refused, "{protocol:?}");
        assert_eq!(status(&usual, "/120/5").await, refused, "{protocol:?}");
        let wide = proxy(http_to(to("up")), wide).await;
        // Whoever asks over HTTP/1.1 here takes no more than 100.
        let request = b"GET /200/1000 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        let answer = wide.raw(request).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{protocol:?}");
        assert!(answer.contains("x-199: vvv"), "{protocol:?}");
    }
}

#[tokio::test]
async fn compressed_bodies_pass_as_they_are() {
    // What stands for a compressed body: bytes that are no text, with what a decoder would begin with.
    let packed: Vec<u8> = [0x1f, 0x8b, 8, 0]
        .into_iter()
        .chain((0..100_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8))
        .collect();
    let answer = packed.clone();
    let endpoint = Endpoint::start(move |request, _| {
        let answer = answer.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let is_whole = head.headers["content-encoding"] == "gzip"
                && head.headers["accept-encoding"] == "gzip, br;q=0.5"
                && body == answer;
            Response::builder()
                .status(if is_whole { 200 } else { 400 })
                .header("content-encoding", "gzip")
                .header("vary", "accept-encoding")
                .header("etag", "\"a-gzip\"")
                .body(Full::from(answer))
                .expect("an answer")
        }
    })
    .await;
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let mut cluster = up(&[endpoint.address]);
        cluster.protocol = protocol;
        let proxy = proxy(http_to(to("up")), cluster).await;
        let stream = tokio::net::TcpStream::connect(proxy.address).await;
        let stream = hyper_util::rt::TokioIo::new(stream.expect("a connection"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
            .await
            .expect("HTTP");
        tokio::spawn(connection);
        let request = Request::post("/")
            .header("host", "shop.example")
            .header("content-encoding", "gzip")
            .header("accept-encoding", "gzip, br;q=0.5")
            .body(Full::new(Bytes::from(packed.clone())))
            .expect("a request");
        let (head, body) = sender
            .send_request(request)
            .await
            .expect("an answer")
            .into_parts();
        assert_eq!(head.status, StatusCode::OK, "{protocol:?}");
        assert_eq!(head.headers["content-encoding"], "gzip");
        assert_eq!(head.headers["vary"], "accept-encoding");
        assert_eq!(head.headers["etag"], "\"a-gzip\"");
        assert_eq!(head.headers["content-length"], packed.len().to_string());
        let body = body.collect().await.expect("a body").to_bytes();
        assert!(body == packed, "{protocol:?}");
    }
}
