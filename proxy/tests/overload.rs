//! What is given up for want of memory, and that it comes back.

mod support;

use std::sync::Arc;
use std::time::Duration;

use fairlead_model::overload::{Overload, Shed};
use fairlead_proxy::metrics::{Stat, stats};
use fairlead_proxy::overload;
use support::{Endpoint, Proxy, http_to, proxy, to, up};

async fn start() -> (Endpoint, Proxy) {
    let endpoint = Endpoint::echo().await;
    let proxy = proxy(http_to(to("up")), up(&[endpoint.address])).await;
    (endpoint, proxy)
}

fn settings(limit: u64) -> Overload {
    Overload {
        limit: Some(limit),
        refresh: Duration::from_millis(10),
        requests: Some(0.9),
        connections: None,
        keep_alive: None,
    }
}

/// Waits until the pressure is as told.
async fn until(proxy: &Proxy, requests: bool) {
    for _ in 0..500 {
        if proxy.shared.pressure.get().requests == requests {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", proxy.shared.pressure.get());
}

#[tokio::test]
async fn requests_are_refused_while_memory_is_short() {
    let (endpoint, proxy) = start().await;
    // Less than any process has.
    let watching = tokio::spawn(overload::watch(Arc::clone(&proxy.shared), settings(4096)));
    until(&proxy, true).await;
    let (head, body) = proxy.get("/").await;
    assert_eq!(
        (head.status.as_u16(), body.as_str()),
        (503, "proxy_overloaded")
    );
    assert_eq!(
        head.headers
            .get("proxy-status")
            .map(|value| value.as_bytes()),
        Some(&b"fairlead; error=proxy_overloaded"[..])
    );
    assert_eq!(endpoint.requests(), 0);
    let number = |name: &str| stats(&proxy.shared.figures).get(name).cloned();
    assert_eq!(number("process.overloaded"), Some(Stat::Number(1)));
    assert_eq!(
        number("process.memory_limit_bytes"),
        Some(Stat::Number(4096))
    );
    assert_eq!(
        number("http.in.downstream_rq_overload_close"),
        Some(Stat::Number(1))
    );
    watching.abort();

    // More than any machine has.
    tokio::spawn(overload::watch(
        Arc::clone(&proxy.shared),
        settings(1 << 50),
    ));
    until(&proxy, false).await;
    assert_eq!(proxy.get("/").await.0.status, 200);
}

#[tokio::test]
async fn connections_are_refused_and_not_kept() {
    let (_endpoint, proxy) = start().await;
    proxy.shared.pressure.set(Shed {
        keep_alive: true,
        ..Shed::default()
    });
    let answer = proxy
        .raw(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    proxy.shared.pressure.set(Shed {
        connections: true,
        ..Shed::default()
    });
    assert_eq!(proxy.raw(b"").await, "");
    assert_eq!(
        stats(&proxy.shared.figures).get("listener.in.downstream_cx_overload_reject"),
        Some(&Stat::Number(1))
    );
}
