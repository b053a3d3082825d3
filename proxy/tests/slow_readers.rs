//! Callers that do not take what they asked for: after a while they are left, and so is the endpoint.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairlead_model::cluster::{Cluster, UpstreamProtocol};
use fairlead_model::listener::Http;
use fairlead_proxy::metrics::{Stat, stats};
use http::{Request, Response};
use support::{Proxy, http_to, proxy, to, up};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SHORT: Duration = Duration::from_millis(300);

/// An endpoint that sends for ever over HTTP/2, and notes that it was told to stop.
async fn endless(stopped: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let stopped = Arc::clone(&stopped);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let stopped = Arc::clone(&stopped);
                    tokio::spawn(async move {
                        let mut body = respond.send_response(Response::new(()), false)?;
                        loop {
                            body.reserve_capacity(16_384);
                            let room = std::future::poll_fn(|context| body.poll_capacity(context));
                            match room.await {
                                Some(Ok(room)) => {
                                    body.send_data(Bytes::from(vec![b'x'; room]), false)?;
                                }
                                _ => break,
                            }
                        }
                        stopped.store(true, SeqCst);
                        Ok::<_, h2::Error>(())
                    });
                }
            });
        }
    });
    address
}

fn impatient() -> Http {
    let mut http = http_to(to("up"));
    http.timeouts.stream_idle = Some(SHORT);
    http
}

fn over_h2(address: SocketAddr) -> Cluster {
    let mut cluster = up(&[address]);
    cluster.protocol = UpstreamProtocol::Http2;
    cluster
}

async fn stops(stopped: &AtomicBool) {
    let begun = Instant::now();
    while !stopped.load(SeqCst) {
        assert!(begun.elapsed() < Duration::from_secs(5), "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn number(proxy: &Proxy, name: &str) -> i128 {
    match stats(&proxy.shared.figures).get(name) {
        Some(Stat::Number(number)) => *number,
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test]
async fn a_stream_that_nobody_reads_is_reset() {
    // One whose window fills up, and one that never had any.
    for window in [65_535, 0] {
        let stopped = Arc::default();
        let address = endless(Arc::clone(&stopped)).await;
        let proxy = proxy(impatient(), over_h2(address)).await;
        let stream = TcpStream::connect(proxy.address).await.expect("a proxy");
        let (client, connection) = h2::client::Builder::new()
            .initial_window_size(window)
            .handshake::<_, Bytes>(stream)
            .await
            .expect("HTTP/2");
        tokio::spawn(connection);
        let mut client = client.ready().await.expect("HTTP/2");
        let get = |path: &str| {
            let uri = format!("http://shop.example{path}");
            Request::get(uri).body(()).expect("a request")
        };
        let (answer, _) = client.send_request(get("/"), true).expect("to send");
        let mut body = answer.await.expect("an answer").into_body();
        let mut taken = 0;
        let error = loop {
            match body.data().await {
                Some(Ok(data)) => taken += data.len(),
                Some(Err(error)) => break error,
                None => panic!("it ended after {taken} bytes"),
            }
        };
        assert!(error.is_reset() && error.is_remote(), "{error}");
        assert_eq!(taken, window as usize);
        stops(&stopped).await;
        assert_eq!(number(&proxy, "http.in.downstream_rq_idle_timeout"), 1);
        assert_eq!(number(&proxy, "http.in.downstream_rq_active"), 0);
        assert_eq!(number(&proxy, "cluster.up.upstream_rq_active"), 0);
        // The connection goes on.
        let mut client = client.ready().await.expect("HTTP/2");
        let (answer, _) = client.send_request(get("/again"), true).expect("to send");
        assert_eq!(answer.await.expect("an answer").status(), 200);
    }
}

/// Asks over HTTP/2, and waits for the answer's head.
async fn ask(proxy: &Proxy) -> (h2::client::SendRequest<Bytes>, Response<h2::RecvStream>) {
    let stream = TcpStream::connect(proxy.address).await.expect("a proxy");
    let (client, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    let mut client = client.ready().await.expect("HTTP/2");
    let request = Request::get("http://shop.example/").body(());
    let (answer, _) = client
        .send_request(request.expect("a request"), true)
        .expect("to send");
    (client, answer.await.expect("an answer"))
}

#[tokio::test]
async fn one_who_reads_slowly_is_waited_for() {
    let stopped = Arc::default();
    let address = endless(Arc::clone(&stopped)).await;
    let proxy = proxy(impatient(), over_h2(address)).await;
    let (client, answer) = ask(&proxy).await;
    let mut body = answer.into_body();
    for _ in 0..12 {
        let data = body.data().await.expect("more").expect("more");
        body.flow_control()
            .release_capacity(data.len())
            .expect("room");
        tokio::time::sleep(SHORT / 3).await;
    }
    assert!(!stopped.load(SeqCst));
    drop((body, client));
    stops(&stopped).await;
    assert_eq!(number(&proxy, "http.in.downstream_rq_rx_reset"), 1);
    assert_eq!(number(&proxy, "http.in.downstream_rq_idle_timeout"), 0);
}

#[tokio::test]
async fn a_connection_that_nobody_reads_is_closed() {
    let stopped = Arc::default();
    let address = endless(Arc::clone(&stopped)).await;
    let proxy = proxy(impatient(), over_h2(address)).await;
    let mut stream = TcpStream::connect(proxy.address).await.expect("a proxy");
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await
        .expect("to send");
    stops(&stopped).await;
    assert_eq!(number(&proxy, "http.in.downstream_rq_idle_timeout"), 1);
    let mut all = Vec::new();
    let rest = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut all));
    assert!(rest.await.is_ok(), "it is not closed");
}

#[tokio::test]
async fn the_route_has_its_time_whoever_reads() {
    let stopped = Arc::default();
    let address = endless(Arc::clone(&stopped)).await;
    let mut forward = to("up");
    forward.timeouts.request = Some(SHORT);
    let proxy = proxy(http_to(forward), over_h2(address)).await;
    let _asked = ask(&proxy).await;
    stops(&stopped).await;
}
