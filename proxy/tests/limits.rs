//! A cluster's limits: who waits for a connection, who is refused, and what is counted.

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use fairlead_model::cluster::{Cluster, UpstreamProtocol};
use fairlead_proxy::metrics::{Stat, stats};
use http::StatusCode;
use support::{Endpoint, Proxy, http_to, proxy, text_answer, to, up};

async fn slow(milliseconds: u64) -> Endpoint {
    Endpoint::start(move |_, _| async move {
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        text_answer(200, "ok")
    })
    .await
}

fn number(proxy: &Proxy, name: &str) -> i128 {
    match stats(&proxy.shared.figures).get(&format!("cluster.up.{name}")) {
        Some(Stat::Number(number)) => *number,
        other => panic!("{name}: {other:?}"),
    }
}

/// The statuses of so many requests at once, the first a little before the others; `meanwhile` is called while they run.
async fn ask(
    cluster: Cluster,
    count: usize,
    meanwhile: impl FnOnce(&Proxy),
) -> (Vec<StatusCode>, Arc<Proxy>) {
    let proxy = Arc::new(proxy(http_to(to("up")), cluster).await);
    let mut asked = Vec::new();
    for number in 0..count {
        let proxy = Arc::clone(&proxy);
        asked.push(tokio::spawn(async move { proxy.get("/").await.0 }));
        if number == 0 {
            // Until it has its connection, it waits as well.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    tokio::time::sleep(Duration::from_millis(250)).await;
    meanwhile(&proxy);
    let mut statuses = Vec::new();
    for answer in asked {
        let head = answer.await.expect("an answer");
        if head.status != StatusCode::OK {
            assert_eq!(
                head.headers["proxy-status"],
                "fairlead; error=connection_limit_reached"
            );
        }
        statuses.push(head.status);
    }
    statuses.sort_unstable();
    (statuses, proxy)
}

#[tokio::test]
async fn requests_wait_for_a_connection_that_is_free_again() {
    let endpoint = slow(100).await;
    let mut cluster = up(&[endpoint.address]);
    cluster.limits.connections = 2;
    let (statuses, proxy) = ask(cluster, 6, |_| {}).await;
    assert_eq!(statuses, [StatusCode::OK; 6]);
    assert_eq!(endpoint.connections.load(SeqCst), 2);
    assert_eq!(number(&proxy, "upstream_rq_pending_active"), 0);
    assert!(number(&proxy, "upstream_cx_overflow") >= 4);
}

#[tokio::test]
async fn only_so_many_wait() {
    let endpoint = slow(500).await;
    let mut cluster = up(&[endpoint.address]);
    cluster.limits.connections = 1;
    cluster.limits.pending = 2;
    let (statuses, proxy) = ask(cluster, 5, |proxy| {
        assert_eq!(number(proxy, "upstream_rq_pending_active"), 2);
    })
    .await;
    let refused = StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(statuses.iter().filter(|own| **own == refused).count(), 2);
    assert_eq!(number(&proxy, "upstream_rq_pending_overflow"), 2);
    assert_eq!(number(&proxy, "upstream_rq_pending_total"), 3);
    assert_eq!(number(&proxy, "upstream_rq_pending_active"), 0);
}

#[tokio::test]
async fn a_connection_that_ends_makes_room() {
    let endpoint = Endpoint::start(|_, _| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut answer = text_answer(200, "ok");
        let close = http::HeaderValue::from_static("close");
        answer.headers_mut().insert("connection", close);
        answer
    })
    .await;
    let mut cluster = up(&[endpoint.address]);
    cluster.limits.connections = 1;
    let (statuses, _proxy) = ask(cluster, 3, |_| {}).await;
    assert_eq!(statuses, [StatusCode::OK; 3]);
    assert_eq!(endpoint.connections.load(SeqCst), 3);
}

#[tokio::test]
async fn streams_of_one_connection_are_waited_for() {
    let endpoint = slow(300).await;
    let mut cluster = up(&[endpoint.address]);
    cluster.protocol = UpstreamProtocol::Http2;
    cluster.limits.connections = 1;
    let (statuses, _proxy) = ask(cluster, 130, |_| {}).await;
    assert!(
        statuses.iter().all(|own| *own == StatusCode::OK),
        "{statuses:?}"
    );
    assert_eq!(endpoint.connections.load(SeqCst), 1);
}

#[tokio::test]
async fn an_endpoint_without_a_connection_always_gets_one() {
    let (first, second) = (slow(300).await, slow(300).await);
    let mut cluster = up(&[first.address, second.address]);
    cluster.limits.connections = 1;
    let (statuses, _proxy) = ask(cluster, 8, |_| {}).await;
    assert_eq!(statuses, [StatusCode::OK; 8]);
    let made = [&first, &second].map(|own| own.connections.load(SeqCst));
    assert_eq!(made, [1, 1]);
}

#[tokio::test]
async fn a_request_that_waits_keeps_to_its_time() {
    let endpoint = slow(900).await;
    let mut cluster = up(&[endpoint.address]);
    cluster.limits.connections = 1;
    let mut forward = to("up");
    forward.timeouts.request = Some(Duration::from_millis(400));
    let proxy = Arc::new(proxy(http_to(forward), cluster).await);
    let both = tokio::join!(proxy.get("/"), proxy.get("/"));
    for (head, _) in [both.0, both.1] {
        assert_eq!(head.status, StatusCode::GATEWAY_TIMEOUT);
    }
    assert_eq!(number(&proxy, "upstream_rq_pending_active"), 0);
}
