//! Connections on which nothing happens for a while.

mod support;

use std::time::Duration;

use fairlead_model::listener::{Codec, Http};
use support::{Endpoint, Proxy, http_to, proxy, to, up};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Longer than a connection keeps what it needs for a request.
const A_WHILE: Duration = Duration::from_millis(1500);

async fn begin(change: impl FnOnce(&mut Http)) -> (Proxy, Endpoint, TcpStream) {
    let endpoint = Endpoint::start(|_, _| async { support::text_answer(200, "done") }).await;
    let mut http = http_to(to("up"));
    http.codec = Codec::Http1;
    change(&mut http);
    let proxy = proxy(http, up(&[endpoint.address])).await;
    let stream = TcpStream::connect(proxy.address)
        .await
        .expect("a connection");
    (proxy, endpoint, stream)
}

/// Sends some bytes.
async fn send(stream: &mut TcpStream, bytes: &str) {
    stream.write_all(bytes.as_bytes()).await.expect("to send");
}

/// Reads until the answer is there, or so many of them.
async fn answers(stream: &mut TcpStream, count: usize) {
    let mut read = String::new();
    while read.matches("HTTP/1.1 200 OK").count() < count || !read.ends_with("done") {
        let mut bytes = [0; 4096];
        let length = timeout(Duration::from_secs(5), stream.read(&mut bytes))
            .await
            .expect("an answer in time")
            .expect("an answer");
        assert!(length > 0, "the connection ended after {read:?}");
        read.push_str(&String::from_utf8_lossy(&bytes[..length]));
    }
}

/// How long the connection stays open.
async fn stays(stream: &mut TcpStream) -> Duration {
    let begun = Instant::now();
    let mut rest = Vec::new();
    timeout(Duration::from_secs(5), stream.read_to_end(&mut rest))
        .await
        .expect("it is let go")
        .expect("an orderly end");
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    begun.elapsed()
}

#[tokio::test]
async fn a_caller_that_dawdles_with_its_head_is_let_go() {
    let late = Duration::from_millis(200);
    let (_proxy, _endpoint, mut stream) = begin(|http| http.timeouts.header = Some(late)).await;
    send(&mut stream, "GET / HTTP/1.1\r\nhost:").await;
    let stayed = stays(&mut stream).await;
    assert!(stayed >= late && stayed < A_WHILE, "{stayed:?}");
}

#[tokio::test]
async fn a_caller_that_dawdles_with_a_later_head_is_let_go() {
    let late = Duration::from_millis(200);
    let (_proxy, _endpoint, mut stream) = begin(|http| http.timeouts.header = Some(late)).await;
    for pause in [Duration::from_millis(400), A_WHILE] {
        send(&mut stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        answers(&mut stream, 1).await;
        // To wait between requests is no dawdling.
        sleep(pause).await;
    }
    send(&mut stream, "GET / HTTP/1.1\r\nho").await;
    let stayed = stays(&mut stream).await;
    assert!(stayed >= late && stayed < A_WHILE, "{stayed:?}");
}

#[tokio::test]
async fn a_caller_without_requests_is_let_go() {
    let idle = Duration::from_millis(300);
    let (_proxy, _endpoint, mut stream) = begin(|http| http.timeouts.idle = Some(idle)).await;
    send(&mut stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    answers(&mut stream, 1).await;
    let stayed = stays(&mut stream).await;
    assert!(stayed < Duration::from_secs(2), "{stayed:?}");
}

#[tokio::test]
async fn an_answer_that_takes_long_is_no_idle_connection() {
    let endpoint = Endpoint::start(|_, _| async {
        sleep(A_WHILE).await;
        support::text_answer(200, "done")
    })
    .await;
    let mut http = http_to(to("up"));
    http.timeouts.idle = Some(Duration::from_millis(100));
    http.timeouts.header = Some(Duration::from_millis(100));
    let proxy = proxy(http, up(&[endpoint.address])).await;
    let (head, _) = proxy.get("/").await;
    assert_eq!(head.status, 200);
}

#[tokio::test]
async fn a_connection_goes_on_after_a_while() {
    let (_proxy, endpoint, mut stream) = begin(|_| {}).await;
    for _ in 0..2 {
        sleep(A_WHILE).await;
        send(&mut stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        answers(&mut stream, 1).await;
    }
    sleep(A_WHILE).await;
    // In parts, and two at once.
    send(&mut stream, "GET / HTTP/1.1\r\nho").await;
    sleep(Duration::from_millis(50)).await;
    send(
        &mut stream,
        "st: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
    )
    .await;
    answers(&mut stream, 2).await;
    assert_eq!(endpoint.requests(), 4);
}

#[tokio::test]
async fn a_drain_ends_connections_that_wait() {
    let (proxy, _endpoint, mut stream) = begin(|_| {}).await;
    send(&mut stream, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    answers(&mut stream, 1).await;
    sleep(A_WHILE).await;
    proxy.shared.draining.send_replace(true);
    let stayed = stays(&mut stream).await;
    assert!(stayed < Duration::from_secs(2), "{stayed:?}");
}
