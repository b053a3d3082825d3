//! What is counted, and where requests go by what is known of endpoints.

mod support;

use std::sync::Arc;
use std::time::Duration;

use fairlead_model::breaker::BreakerSettings;
use fairlead_proxy::metrics::{Stat, prometheus, stats};
use support::{Endpoint, Proxy, http_to, proxy, text_answer, to, up};

fn number(proxy: &Proxy, name: &str) -> i128 {
    match stats(&proxy.shared.figures).get(name) {
        Some(Stat::Number(number)) => *number,
        other => panic!("{name}: {other:?}"),
    }
}

#[tokio::test]
async fn every_request_is_counted_once() {
    let endpoint = Endpoint::start(|request, _| async move {
        let status = if request.uri().path() == "/bad" {
            503
        } else {
            200
        };
        text_answer(status, "0123456789")
    })
    .await;
    let proxy = proxy(http_to(to("up")), up(&[endpoint.address])).await;
    for path in ["/", "/bad"] {
        proxy.get(path).await;
    }
    let request = http::Request::post("/").header("host", "shop.example");
    let body = http_body_util::Full::from("12345");
    proxy.send(request.body(body).expect("a request")).await;
    for (name, expected) in [
        ("cluster.up.upstream_rq_total", 3),
        ("cluster.up.upstream_rq_2xx", 2),
        ("cluster.up.upstream_rq_5xx", 1),
        ("cluster.up.upstream_rq_active", 0),
        ("cluster.up.upstream_cx_total", 1),
        ("http.in.downstream_rq_total", 3),
        ("http.in.downstream_rq_active", 0),
    ] {
        assert_eq!(number(&proxy, name), expected, "{name}");
    }
    let text = prometheus(&proxy.shared.figures);
    for line in [
        "fairlead_route_success{route=\"all\",cluster=\"up\"} 2",
        "fairlead_route_failure{route=\"all\",cluster=\"up\"} 1",
        "fairlead_route_request_bytes{route=\"all\",cluster=\"up\"} 5",
        "fairlead_route_response_bytes{route=\"all\",cluster=\"up\"} 30",
        "fairlead_route_latency_ms_count{route=\"all\",cluster=\"up\"} 3",
    ] {
        assert!(text.lines().any(|own| own == line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn a_request_that_nobody_answers_failed() {
    let proxy = proxy(http_to(to("up")), up(&[support::free()])).await;
    let (head, _) = proxy.get("/").await;
    assert_eq!(head.status, 503);
    let text = prometheus(&proxy.shared.figures);
    let line = "fairlead_route_failure{route=\"all\",cluster=\"up\"} 1";
    assert!(text.lines().any(|own| own == line), "{text}");
}

/// How many of `count` requests, sixteen at a time, each endpoint got.
async fn spread(proxy: Proxy, endpoints: &[Endpoint], count: usize) -> Vec<usize> {
    let proxy = Arc::new(proxy);
    let callers: Vec<_> = (0..16)
        .map(|_| {
            let proxy = Arc::clone(&proxy);
            tokio::spawn(async move {
                for _ in 0..count / 16 {
                    proxy.get("/").await;
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.expect("every request is answered");
    }
    endpoints.iter().map(Endpoint::requests).collect()
}

#[tokio::test]
async fn a_slow_endpoint_gets_few_requests() {
    let mut endpoints = Vec::new();
    for number in 0..5 {
        let pause = Duration::from_millis(if number == 0 { 200 } else { 5 });
        endpoints.push(
            Endpoint::start(move |_, _| async move {
                tokio::time::sleep(pause).await;
                text_answer(200, "ok")
            })
            .await,
        );
    }
    let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    let had = spread(
        proxy(http_to(to("up")), up(&addresses)).await,
        &endpoints,
        800,
    )
    .await;
    assert!(
        had[0] < 40 && had[1..].iter().all(|had| *had > 80),
        "{had:?}"
    );
}

#[tokio::test]
async fn a_failing_endpoint_rests() {
    let mut endpoints = Vec::new();
    for number in 0..4 {
        let status = if number == 0 { 500 } else { 200 };
        endpoints.push(Endpoint::start(move |_, _| async move { text_answer(status, "") }).await);
    }
    let addresses: Vec<_> = endpoints.iter().map(|endpoint| endpoint.address).collect();
    let mut cluster = up(&addresses);
    cluster.breaker = Some(BreakerSettings::default());
    let had = spread(proxy(http_to(to("up")), cluster).await, &endpoints, 800).await;
    assert!(had[0] < 20, "{had:?}");
}
