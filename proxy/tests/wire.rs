//! What crosses the network between two proxies, and how.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use fairlead_model::cluster::UpstreamProtocol;
use fairlead_model::listener::Handler;
use support::certificates::{Authority, client, server};
use support::{Endpoint, Proxy, http_to, listener, proxy, snapshot, text_answer, to, up};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;

/// Who both proxies are.
const NAME: &str = "spiffe://cluster.local/ns/a/sa/b";

/// Passes connections on, and counts the TLS records that come back.
async fn counting(to: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let records = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&records);
    tokio::spawn(async move {
        while let Ok((caller, _)) = listener.accept().await {
            let endpoint = TcpStream::connect(to).await.expect("a connection");
            let (mut from_caller, mut to_caller) = caller.into_split();
            let (mut from_endpoint, mut to_endpoint) = endpoint.into_split();
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_caller, &mut to_endpoint).await;
            });
            let counted = Arc::clone(&counted);
            tokio::spawn(async move {
                let mut head = [0; 5];
                while from_endpoint.read_exact(&mut head).await.is_ok() {
                    let mut record = vec![0; usize::from(u16::from_be_bytes([head[3], head[4]]))];
                    if from_endpoint.read_exact(&mut record).await.is_err() {
                        return;
                    }
                    counted.fetch_add(1, Ordering::SeqCst);
                    let whole = [&head[..], &record].concat();
                    if to_caller.write_all(&whole).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, records)
}

#[tokio::test]
async fn answers_share_records_and_do_not_take_several() {
    const REQUESTS: usize = 16;
    let authority = Authority::default();
    let issued = || {
        let certificate = authority.issue(&[NAME], |_| {});
        (certificate, authority.trust(&[], &[NAME]))
    };
    // All answers but the first are ready at the same time.
    let together = Arc::new(Barrier::new(REQUESTS));
    let endpoint = Endpoint::start(move |_, number| {
        let together = Arc::clone(&together);
        async move {
            if number > 0 {
                together.wait().await;
            }
            text_answer(200, &"x".repeat(1024))
        }
    })
    .await;
    let (certificate, trust) = issued();
    let inner = Proxy::start(|address| {
        let handler = Handler::Http(Arc::new(http_to(to("up"))));
        let tls = Some(server(certificate, trust));
        snapshot(
            listener(address, handler, tls),
            vec![up(&[endpoint.address])],
        )
    })
    .await;
    let (address, records) = counting(inner.address).await;
    let mut cluster = up(&[address]);
    cluster.protocol = UpstreamProtocol::Http2;
    let (certificate, trust) = issued();
    cluster.tls = Some(client(certificate, trust));
    let outer = proxy(http_to(to("up")), cluster).await;
    assert_eq!(outer.get("/").await.1.len(), 1024);
    let before = records.load(Ordering::SeqCst);
    let answers = futures::future::join_all((0..REQUESTS).map(|_| outer.get("/"))).await;
    assert!(answers.iter().all(|(_, body)| body.len() == 1024));
    let records = records.load(Ordering::SeqCst) - before;
    assert!(
        records <= REQUESTS,
        "{records} records for {REQUESTS} answers"
    );
}
