//! How long requests and their parts may take.

mod support;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fairlead_model::cluster::UpstreamProtocol;
use fairlead_model::listener::Http;
use fairlead_model::retry::RetryPolicy;
use fairlead_model::route::Timeouts;
use support::{Endpoint, Proxy, drain, http_to, proxy, text_answer, to, up};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SHORT: Duration = Duration::from_millis(200);

/// HTTP whose routes have these limits, and the listener these.
fn limited(timeouts: Timeouts, change: impl FnOnce(&mut Http)) -> Http {
    let mut forward = to("up");
    forward.timeouts = timeouts;
    let mut http = http_to(forward);
    change(&mut http);
    http
}

fn silent(http: &mut Http) {
    http.timeouts.stream_idle = Some(SHORT);
}

/// Answers each connection with these pieces, so much time apart, and then nothing.
async fn pieces(pieces: &'static [&'static str], pause: Duration) -> SocketAddr {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = taken.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = taken.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                for piece in pieces {
                    let _ = stream.write_all(piece.as_bytes()).await;
                    tokio::time::sleep(pause).await;
                }
                tokio::time::sleep(Duration::from_secs(60)).await;
            });
        }
    });
    address
}

async fn asked(proxy: &Proxy) -> (String, Duration) {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(proxy.address).await.expect("a proxy");
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .expect("to send");
    let mut all = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await;
    (String::from_utf8_lossy(&all).into_owned(), begun.elapsed())
}

#[tokio::test]
async fn an_endpoint_that_says_nothing_is_not_waited_for() {
    let address = pieces(&[], Duration::ZERO).await;
    let proxy = proxy(limited(Timeouts::default(), silent), up(&[address])).await;
    let begun = Instant::now();
    let (head, body) = proxy.get("/").await;
    assert_eq!(
        (head.status.as_u16(), body.as_str()),
        (504, "stream_idle_timeout")
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn an_answer_that_stops_is_broken_off_and_one_that_goes_on_is_not() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
    let address = pieces(&[HEAD, "a", "b"], Duration::from_millis(1)).await;
    let own = proxy(limited(Timeouts::default(), silent), up(&[address])).await;
    let (answer, took) = asked(&own).await;
    assert!(answer.ends_with("\r\n\r\nab"), "{answer}");
    assert!(took < Duration::from_secs(3), "{took:?}");

    let address = pieces(&[HEAD, "a", "b", "c", "d", "e"], SHORT / 2).await;
    let own = proxy(limited(Timeouts::default(), silent), up(&[address])).await;
    assert_eq!(own.get("/").await.1, "abcde");
}

#[tokio::test]
async fn a_route_may_allow_more() {
    let address = pieces(
        &["", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", "ok"],
        SHORT * 3,
    )
    .await;
    let timeouts = Timeouts {
        idle: Some(Duration::ZERO),
        ..Timeouts::default()
    };
    let proxy = proxy(limited(timeouts, silent), up(&[address])).await;
    assert_eq!(proxy.get("/").await.1, "ok");
}

/// Sends a body of five bytes, so much time apart, and reads the answer.
async fn upload(proxy: &Proxy, pause: Duration) -> String {
    drain(&mut sent(proxy, pause).await).await
}

/// Sends it.
async fn sent(proxy: &Proxy, pause: Duration) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address).await.expect("a proxy");
    stream
        .write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n")
        .await
        .expect("to send");
    for _ in 0..5 {
        tokio::time::sleep(pause).await;
        let _ = stream.write_all(b"x").await;
    }
    stream
}

async fn sink() -> Endpoint {
    Endpoint::start(|request, _| async move {
        match http_body_util::BodyExt::collect(request.into_body()).await {
            Ok(body) => text_answer(200, &format!("{} bytes", body.to_bytes().len())),
            Err(_) => text_answer(500, "broken"),
        }
    })
    .await
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_heard() {
    let endpoint = sink().await;
    let proxy = proxy(
        limited(Timeouts::default(), silent),
        up(&[endpoint.address]),
    )
    .await;
    let answer = upload(&proxy, SHORT / 2).await;
    assert!(answer.ends_with("5 bytes"), "{answer}");
}

#[tokio::test]
async fn a_request_has_to_be_whole_in_time() {
    let endpoint = sink().await;
    let http = limited(Timeouts::default(), |http| {
        http.timeouts.request = Some(SHORT);
    });
    let proxy = proxy(http, up(&[endpoint.address])).await;
    let answer = upload(&proxy, Duration::from_millis(1)).await;
    assert!(answer.ends_with("5 bytes"), "{answer}");
    let answer = upload(&proxy, SHORT).await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.ends_with("http_request_timeout"),
        "{answer}"
    );
    let stats = fairlead_proxy::metrics::stats(&proxy.shared.figures);
    assert_eq!(
        stats["http.in.downstream_rq_timeout"],
        fairlead_proxy::metrics::Stat::Number(1)
    );
}

#[tokio::test]
async fn a_stream_has_its_time_however_much_moves() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
    let address = pieces(&[HEAD, "a", "b", "c", "d", "e", "f"], SHORT / 2).await;
    let http = limited(Timeouts::default(), |http| {
        http.timeouts.stream = Some(SHORT);
    });
    let proxy = proxy(http, up(&[address])).await;
    let (answer, took) = asked(&proxy).await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && !answer.contains("cdef"),
        "{answer}"
    );
    assert!(took < SHORT * 5, "{took:?}");
}

/// An endpoint that reads a body, and then says nothing for a long time.
async fn mute() -> Endpoint {
    Endpoint::start(|request, _| async move {
        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        text_answer(200, "late")
    })
    .await
}

#[tokio::test]
async fn the_time_of_a_route_begins_with_the_end_of_the_request() {
    let timeouts = Timeouts {
        request: Some(SHORT),
        ..Timeouts::default()
    };
    for protocol in [UpstreamProtocol::Http1, UpstreamProtocol::Http2] {
        let over = |endpoint: &Endpoint| {
            let mut cluster = up(&[endpoint.address]);
            cluster.protocol = protocol;
            cluster
        };
        let endpoint = sink().await;
        let own = proxy(limited(timeouts.clone(), |_| {}), over(&endpoint)).await;
        let answer = upload(&own, SHORT / 2).await;
        assert!(answer.ends_with("5 bytes"), "{answer}");

        let endpoint = mute().await;
        let own = proxy(limited(timeouts.clone(), |_| {}), over(&endpoint)).await;
        let mut stream = sent(&own, SHORT / 2).await;
        let begun = Instant::now();
        stream.peek(&mut [0]).await.expect("an answer");
        let took = begun.elapsed();
        let answer = drain(&mut stream).await;
        assert!(answer.ends_with("http_response_timeout"), "{answer}");
        assert!(took < SHORT * 2, "{took:?}");
    }
}

#[tokio::test]
async fn the_time_of_a_try_begins_with_the_end_of_the_request() {
    let mut forward = to("up");
    forward.retry = Some(RetryPolicy {
        per_try: Some(SHORT),
        ..RetryPolicy::default()
    });
    let endpoint = sink().await;
    let own = proxy(http_to(forward.clone()), up(&[endpoint.address])).await;
    let answer = upload(&own, SHORT / 2).await;
    assert!(answer.ends_with("5 bytes"), "{answer}");
    let endpoint = mute().await;
    let own = proxy(http_to(forward), up(&[endpoint.address])).await;
    let answer = upload(&own, SHORT / 2).await;
    assert!(answer.ends_with("http_response_timeout"), "{answer}");
}

#[tokio::test]
async fn what_a_grpc_caller_asks_for_begins_with_its_head() {
    let endpoint = mute().await;
    let mut cluster = up(&[endpoint.address]);
    cluster.protocol = UpstreamProtocol::Http2;
    let proxy = proxy(http_to(to("up")), cluster).await;
    let stream = TcpStream::connect(proxy.address).await.expect("a proxy");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut client = client.ready().await.expect("HTTP/2");
    let request = http::Request::post("http://shop.example/Cart/Add")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "200m")
        .body(())
        .expect("a request");
    let begun = Instant::now();
    // Its body never ends.
    let (answer, mut body) = client.send_request(request, false).expect("to send");
    body.send_data(bytes::Bytes::from_static(b"abc"), false)
        .expect("to send");
    let answer = answer.await.expect("an answer");
    assert_eq!(answer.headers()["grpc-status"], "4");
    let took = begun.elapsed();
    assert!((SHORT..SHORT * 5).contains(&took), "{took:?}");
}
