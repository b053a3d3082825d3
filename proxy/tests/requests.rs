//! What becomes of requests over HTTP.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairlead_model::cluster::UpstreamProtocol;
use fairlead_model::retry::{RetryOn, RetryPolicy};
use fairlead_model::route::{
    Action, HeaderChange, HeaderChanges, OnPresent, PathMatch, PathRewrite, Redirect, Route,
    RouteMatch, Timeouts,
};
use h2::SendStream;
use h2::client::ResponseFuture;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use support::{Endpoint, Proxy, drain, free, http, http_to, proxy, route, text_answer, to, up};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

fn request(method: &str, path: &str, body: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "shop.example")
        .body(Full::from(body.to_owned()))
        .expect("a request")
}

#[tokio::test]
async fn a_request_reaches_its_endpoint_and_its_answer_the_caller() {
    let endpoint = Endpoint::echo().await;
    let proxy = proxy(http_to(to("up")), up(&[endpoint.address])).await;
    let (head, body) = proxy.send(request("POST", "/a?b=c", "hello")).await;
    assert_eq!(
        (head.status, body.as_str()),
        (StatusCode::OK, "POST /a?b=c shop.example hello")
    );
    for _ in 0..3 {
        proxy.get("/").await;
    }
    assert_eq!(
        endpoint
            .connections
            .load(std::sync::atomic::Ordering::SeqCst),
        1,
        "its connection is kept"
    );
}

/// To the same place by HTTPS.
fn secured() -> Redirect {
    Redirect {
        status: StatusCode::MOVED_PERMANENTLY,
        scheme: Some("https".to_owned()),
        host: None,
        port: None,
        path: None,
        strip_query: false,
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let endpoint = Endpoint::start(|request, number| async move {
        tokio::time::sleep(Duration::from_millis(if number == 0 { 100 } else { 0 })).await;
        text_answer(200, request.uri().path())
    })
    .await;
    let proxy = proxy(http_to(to("up")), up(&[endpoint.address])).await;
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let answers = proxy
        .raw(format!("{}{}{}", one("/1"), one("/2"), one("/3")).as_bytes())
        .await;
    let places: Vec<_> = ["/1", "/2", "/3"]
        .iter()
        .map(|path| answers.find(&format!("\r\n\r\n{path}")))
        .collect();
    assert!(
        places[0].is_some() && places[0] < places[1] && places[1] < places[2],
        "{answers}"
    );
}

#[tokio::test]
async fn a_route_changes_path_host_and_headers() {
    let endpoint = Endpoint::start(|request, _| async move {
        let added = request
            .headers()
            .get("x-added")
            .and_then(|value| value.to_str().ok())
            .unwrap_or("-")
            .to_owned();
        let mut answer = text_answer(200, &format!("{} {added}", request.uri()));
        answer
            .headers_mut()
            .insert("x-secret", HeaderValue::from_static("1"));
        answer
    })
    .await;
    let mut forward = to("up");
    forward.rewrite = Some(PathRewrite::Prefix("/v2".to_owned()));
    let matches = RouteMatch {
        path: PathMatch::Segments("/api".to_owned()),
        ..RouteMatch::default()
    };
    let own = Route {
        request_headers: HeaderChanges {
            set: vec![HeaderChange {
                name: HeaderName::from_static("x-added"),
                value: HeaderValue::from_static("yes").into(),
                present: OnPresent::Replace,
                only_if_present: false,
            }],
            ..HeaderChanges::default()
        },
        response_headers: HeaderChanges {
            remove: vec![HeaderName::from_static("x-secret")],
            ..HeaderChanges::default()
        },
        ..(*route("api", matches, Action::Forward(Box::new(forward)))).clone()
    };
    let old = RouteMatch {
        path: PathMatch::Exact("/old".to_owned()),
        ..RouteMatch::default()
    };
    let direct = Action::Respond {
        status: StatusCode::IM_A_TEAPOT,
        body: "short and stout".to_owned(),
    };
    let pot = RouteMatch {
        path: PathMatch::Exact("/pot".to_owned()),
        ..RouteMatch::default()
    };
    let routes = vec![
        Arc::new(own),
        route("old", old, Action::Redirect(secured())),
        route("pot", pot, direct),
    ];
    let proxy = proxy(http(routes), up(&[endpoint.address])).await;

    let (head, body) = proxy.get("/api/items?q=1").await;
    assert_eq!(body, "/v2/items?q=1 yes");
    assert!(!head.headers.contains_key("x-secret"));
    let (head, _) = proxy.get("/old?x=1").await;
    assert_eq!(head.status, StatusCode::MOVED_PERMANENTLY);
    assert_eq!(head.headers["location"], "https://shop.example/old?x=1");
    let (head, body) = proxy.get("/pot").await;
    assert_eq!(
        (head.status, body.as_str()),
        (StatusCode::IM_A_TEAPOT, "short and stout")
    );
    let (head, _) = proxy.get("/none").await;
    assert_eq!(head.status, StatusCode::NOT_FOUND);
    assert_eq!(
        head.headers["proxy-status"],
        "fairlead; error=route_not_found"
    );
}

#[tokio::test]
async fn who_still_sends_what_nobody_wants_gets_the_answer() {
    static PIECE: [u8; 64 << 10] = [b'a'; 64 << 10];
    const PIECES: usize = 64;
    let moved = Action::Redirect(secured());
    let moved = route("moved", RouteMatch::default(), moved);
    let proxy = proxy(http(vec![moved]), up(&[])).await;
    let length = format!("content-length: {}", PIECES * PIECE.len());
    for (head, status) in [
        (length.as_str(), 301),
        ("transfer-encoding: chunked", 301),
        ("no header", 400),
    ] {
        let is_chunked = head.ends_with("chunked");
        let mut stream = TcpStream::connect(proxy.address).await.expect("to connect");
        let head = format!("POST / HTTP/1.1\r\nhost: shop.example\r\n{head}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("to send");
        for _ in 0..PIECES {
            if is_chunked {
                let size = format!("{:x}\r\n", PIECE.len());
                stream.write_all(size.as_bytes()).await.expect("to send");
            }
            stream.write_all(&PIECE).await.expect("to send");
            if is_chunked {
                stream.write_all(b"\r\n").await.expect("to send");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let answer = drain(&mut stream).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head}: {answer}"
        );
    }
}

#[tokio::test]
async fn what_concerns_one_connection_stays_there() {
    let endpoint = Endpoint::start(|request, _| async move {
        let names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        let mut answer = text_answer(200, &names.join(" "));
        answer
            .headers_mut()
            .insert("connection", HeaderValue::from_static("x-hop"));
        answer
            .headers_mut()
            .insert("x-hop", HeaderValue::from_static("1"));
        answer
    })
    .await;
    let proxy = proxy(http_to(to("up")), up(&[endpoint.address])).await;
    let mut request = request("GET", "/", "");
    for (name, value) in [
        ("connection", "x-own"),
        ("x-own", "1"),
        ("keep-alive", "1"),
        ("te", "gzip"),
    ] {
        request
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    let (head, body) = proxy.send(request).await;
    assert_eq!(body, "host");
    assert!(!head.headers.contains_key("x-hop"));
}

#[tokio::test]
async fn a_failed_try_goes_to_another_endpoint() {
    let good = Endpoint::echo().await;
    let bad = Endpoint::start(|_, _| async { text_answer(503, "no") }).await;
    let mut forward = to("up");
    forward.retry = Some(RetryPolicy {
        on: RetryOn {
            gateway_error: true,
            connect_failure: true,
            ..RetryOn::default()
        },
        retries: 2,
        ..RetryPolicy::default()
    });
    let proxy = proxy(http_to(forward), up(&[good.address, bad.address, free()])).await;
    for _ in 0..20 {
        let (head, body) = proxy.send(request("PUT", "/", "body")).await;
        assert_eq!(
            (head.status, body.as_str()),
            (StatusCode::OK, "PUT / shop.example body")
        );
    }
    // A POST that an endpoint answered is not sent again; one that never left is.
    let mut failed = 0;
    for _ in 0..30 {
        failed += usize::from(
            proxy.send(request("POST", "/", "body")).await.0.status
                == StatusCode::SERVICE_UNAVAILABLE,
        );
    }
    assert!(failed < 30, "some reach the good one");
}

#[tokio::test]
async fn a_body_too_long_to_keep_is_sent_once() {
    let endpoint = Endpoint::start(|request, _| async move {
        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
        text_answer(503, "no")
    })
    .await;
    let mut forward = to("up");
    forward.retry = Some(RetryPolicy {
        on: RetryOn {
            gateway_error: true,
            ..RetryOn::default()
        },
        retries: 3,
        body_most: 1000,
        ..RetryPolicy::default()
    });
    let proxy = proxy(http_to(forward), up(&[endpoint.address])).await;
    proxy.send(request("PUT", "/", &"x".repeat(5000))).await;
    assert_eq!(endpoint.requests(), 1);
    proxy.send(request("PUT", "/", &"x".repeat(500))).await;
    assert_eq!(endpoint.requests(), 5);
}

#[tokio::test]
async fn a_spent_budget_ends_retries() {
    let endpoint = Endpoint::start(|_, _| async { text_answer(503, "no") }).await;
    let mut forward = to("up");
    forward.retry = Some(RetryPolicy {
        on: RetryOn {
            gateway_error: true,
            ..RetryOn::default()
        },
        retries: 1,
        backoff_base: Duration::from_millis(1),
        budget: Some(fairlead_model::budget::RetryBudget {
            percent: 20,
            interval: Duration::from_secs(100),
            least_per_second: 0.0,
        }),
        ..RetryPolicy::default()
    });
    let proxy = proxy(http_to(forward), up(&[endpoint.address])).await;
    for _ in 0..100 {
        proxy.get("/").await;
    }
    assert_eq!(endpoint.requests(), 120);
}

#[tokio::test]
async fn failures_say_what_failed() {
    let proxy = proxy(http_to(to("up")), up(&[free()])).await;
    let (head, body) = proxy.get("/").await;
    assert_eq!(head.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        head.headers["proxy-status"],
        "fairlead; error=connection_refused"
    );
    assert_eq!(body, "connection_refused");
    let mut call = request("POST", "/shop.Cart/Get", "");
    call.headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    let (head, body) = proxy.send(call).await;
    assert_eq!((head.status, body.as_str()), (StatusCode::OK, ""));
    assert_eq!(head.headers["grpc-status"], "14");
    assert_eq!(head.headers["grpc-message"], "connection_refused");
}

#[tokio::test]
async fn a_request_has_its_time() {
    let endpoint = Endpoint::start(|request, _| async move {
        if let Some(left) = request.headers().get("grpc-timeout") {
            assert_ne!(left, "100m", "less is left");
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        text_answer(200, "late")
    })
    .await;
    let mut forward = to("up");
    forward.timeouts = Timeouts {
        request: Some(Duration::from_millis(200)),
        ..Timeouts::default()
    };
    let proxy = proxy(http_to(forward), up(&[endpoint.address])).await;
    let (head, _) = proxy.get("/").await;
    assert_eq!(head.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(
        head.headers["proxy-status"],
        "fairlead; error=http_response_timeout"
    );
    let mut call = request("POST", "/shop.Cart/Get", "");
    call.headers_mut()
        .insert("content-type", HeaderValue::from_static("application/grpc"));
    call.headers_mut()
        .insert("grpc-timeout", HeaderValue::from_static("100m"));
    let (head, _) = proxy.send(call).await;
    assert_eq!(head.headers["grpc-status"], "4");
}

#[tokio::test]
async fn versions_are_translated_both_ways() {
    let endpoint = Endpoint::echo().await;
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let mut cluster = up(&[endpoint.address]);
        cluster.protocol = protocol;
        let proxy = proxy(http_to(to("up")), cluster).await;
        let (_, body) = proxy.send(request("PUT", "/x?y", "one")).await;
        assert_eq!(body, "PUT /x?y shop.example one", "{protocol:?}");
        let request = Request::put("http://shop.example/x?y")
            .body(Full::from("two"))
            .expect("a request");
        let (_, body, _) = proxy.send_h2(request).await;
        assert_eq!(body, "PUT /x?y shop.example two", "{protocol:?}");
    }
}

#[tokio::test]
async fn large_bodies_stream_over_http2() {
    let endpoint = Endpoint::start(|request, _| async move {
        let body = http_body_util::BodyExt::collect(request.into_body())
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        Response::new(Full::from(body))
    })
    .await;
    let mut cluster = up(&[endpoint.address]);
    cluster.protocol = UpstreamProtocol::Http2;
    let proxy = proxy(http_to(to("up")), cluster).await;
    let body = "0123456789".repeat(500_000);
    let (_, answer) = proxy.send(request("PUT", "/", &body)).await;
    assert!(answer == body, "{} of {}", answer.len(), body.len());
}

/// Sends the head of a request over HTTP/2; its body is to follow.
async fn begin_h2(proxy: &Proxy) -> (ResponseFuture, SendStream<Bytes>) {
    let stream = TcpStream::connect(proxy.address)
        .await
        .expect("a connection");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let request = Request::post("http://shop.example/")
        .body(())
        .expect("a request");
    let mut client = client.ready().await.expect("a stream");
    client.send_request(request, false).expect("sent")
}

/// gRPC's callers end a stream with a frame that has no data.
#[tokio::test]
async fn a_body_may_end_with_an_empty_frame() {
    let endpoint = Endpoint::echo().await;
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let mut cluster = up(&[endpoint.address]);
        cluster.protocol = protocol;
        let proxy = proxy(http_to(to("up")), cluster).await;
        let (response, mut sending) = begin_h2(&proxy).await;
        for part in ["one", " two", ""] {
            tokio::time::sleep(Duration::from_millis(30)).await;
            let data = Bytes::from_static(part.as_bytes());
            sending.send_data(data, part.is_empty()).expect("sent");
        }
        let answer = async {
            let mut body = response.await.expect("an answer").into_body();
            let mut all = Vec::new();
            while let Some(data) = body.data().await {
                all.extend_from_slice(&data.expect("a body"));
            }
            String::from_utf8_lossy(&all).into_owned()
        };
        let answer = tokio::time::timeout(Duration::from_secs(3), answer).await;
        let wanted = Ok("POST / shop.example one two".to_owned());
        assert_eq!(answer, wanted, "{protocol:?}");
    }
}

/// An endpoint that answers before it has read the request, and reads it then.
async fn hasty() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 64 * 1024];
                let mut length = stream.read(&mut buffer).await.unwrap_or(0);
                while length > 0 {
                    let head = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    if head.contains("HTTP/1.1\r\n") {
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nearly";
                        stream.write_all(answer).await.expect("to answer");
                    }
                    length = stream.read(&mut buffer).await.unwrap_or(0);
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_request_goes_on_after_an_early_answer() {
    let proxy = proxy(http_to(to("up")), up(&[hasty().await])).await;
    let mut stream = TcpStream::connect(proxy.address)
        .await
        .expect("a connection");
    for _ in 0..2 {
        let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.expect("to send");
        let mut answer = vec![0; 4096];
        let mut length = 0;
        while !answer[..length].ends_with(b"early") {
            let read = timeout(Duration::from_secs(3), stream.read(&mut answer[length..])).await;
            let read = read.expect("an answer in time").expect("an answer");
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer[..length]));
            length += read;
        }
        let body = vec![b'y'; 3_000_000];
        timeout(Duration::from_secs(3), stream.write_all(&body))
            .await
            .expect("it is read")
            .expect("it goes on");
    }
}

/// The same over HTTP/2, with what is done with the request's body.
async fn hasty_h2<F>(done: impl Fn(h2::RecvStream) -> F + Copy + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    respond
                        .send_response(Response::new(()), true)
                        .expect("to answer");
                    tokio::spawn(done(request.into_body()));
                }
            });
        }
    });
    address
}

async fn is_read(mut body: h2::RecvStream) {
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
}

async fn is_dropped(body: h2::RecvStream) {
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(body);
}

#[tokio::test]
async fn a_stream_goes_on_after_an_early_answer() {
    let inner = proxy(http_to(to("up")), up(&[hasty().await])).await;
    for (protocol, endpoint) in [
        (UpstreamProtocol::Http1, hasty().await),
        (UpstreamProtocol::Http2, hasty_h2(is_read).await),
        (UpstreamProtocol::Http2, inner.address),
    ] {
        let mut cluster = up(&[endpoint]);
        cluster.protocol = protocol;
        let proxy = proxy(http_to(to("up")), cluster).await;
        let (response, mut sending) = begin_h2(&proxy).await;
        let response = timeout(Duration::from_secs(3), response).await;
        let head = response.expect("an answer in time").expect("an answer");
        let mut body = head.into_body();
        while let Some(data) = body.data().await {
            data.expect("a body");
        }
        let mut left = 2_000_000;
        while left > 0 {
            sending.reserve_capacity(left);
            let room = std::future::poll_fn(|context| sending.poll_capacity(context));
            let room = timeout(Duration::from_secs(3), room).await;
            let room = room.unwrap_or_else(|_| panic!("{protocol:?}: {left} bytes are not taken"));
            let room = room.expect("it is open").expect("it goes on").min(left);
            left -= room;
            let data = Bytes::from(vec![b'y'; room]);
            sending.send_data(data, left == 0).expect("sent");
        }
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_holds_nobody_up() {
    let mut cluster = up(&[hasty_h2(is_dropped).await]);
    cluster.protocol = UpstreamProtocol::Http2;
    let proxy = proxy(http_to(to("up")), cluster).await;
    let mut stream = TcpStream::connect(proxy.address)
        .await
        .expect("a connection");
    let head = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9000000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.expect("to send");
    let body = vec![b'y'; 9_000_000];
    // The connection may end before all of it is taken.
    let _ = timeout(Duration::from_millis(500), stream.write_all(&body)).await;
    let next = timeout(Duration::from_secs(3), proxy.get("/")).await;
    let (head, _) = next.expect("another request is served");
    assert_eq!(head.status, StatusCode::OK);
}

#[tokio::test]
async fn limits_refuse_at_once() {
    let endpoint = Endpoint::start(|_, _| async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        text_answer(200, "ok")
    })
    .await;
    let mut cluster = up(&[endpoint.address]);
    cluster.limits.requests = 2;
    let proxy = Arc::new(proxy(http_to(to("up")), cluster).await);
    let answers: Vec<_> = (0..5)
        .map(|_| {
            let proxy = Arc::clone(&proxy);
            tokio::spawn(async move { proxy.get("/").await.0 })
        })
        .collect();
    let mut refused = 0;
    for answer in answers {
        let head = answer.await.expect("an answer");
        if head.status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(
                head.headers["proxy-status"],
                "fairlead; error=connection_limit_reached"
            );
            refused += 1;
        }
    }
    assert_eq!(refused, 3);
}

#[tokio::test]
async fn a_head_request_keeps_its_length() {
    let endpoint = Endpoint::start(|_, _| async { text_answer(200, "hello") }).await;
    let proxy = proxy(http_to(to("up")), up(&[endpoint.address])).await;
    let (head, body) = proxy.send(request("HEAD", "/", "")).await;
    assert_eq!(head.headers["content-length"], "5");
    assert_eq!(body, "");
}
