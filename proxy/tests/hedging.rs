//! Speculative tries.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use support::features::{example, figure};
use support::{Endpoint, Proxy, text_answer};

/// Each endpoint in its turn, so that each is asked the same number of times.
const TURNS: (&str, &str) = (
    "    - name: shop\n      load",
    "    - name: shop\n      lb_policy: ROUND_ROBIN\n      load",
);

/// Counts what is begun and not ended.
struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An endpoint that answers after 5 ms, but every request whose number is a multiple of `every` after 10 s; and how many run there.
async fn late(every: usize, name: &'static str) -> (Endpoint, Arc<AtomicUsize>) {
    let running = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&running);
    let endpoint = Endpoint::start(move |_, number| {
        let count = Arc::clone(&count);
        async move {
            count.fetch_add(1, Ordering::SeqCst);
            let _running = Running(count);
            let is_late = number > 0 && number % every == 0;
            tokio::time::sleep(Duration::from_millis(if is_late { 10_000 } else { 5 })).await;
            text_answer(200, name)
        }
    })
    .await;
    (endpoint, running)
}

async fn proxy(one: &Endpoint, two: &Endpoint, extra: u32) -> Proxy {
    let port = format!("port_value: {}", two.address.port());
    let extra = format!("extra_load: {extra}, percentile: 95");
    let changes = [
        ("port_value: 8081", &*port),
        ("extra_load: 2", &extra),
        TURNS,
    ];
    example("hedging.yaml", one, &changes).await
}

async fn send(proxy: &Proxy, method: &str, body: &str) -> Duration {
    let request = Request::builder()
        .method(method)
        .uri("/")
        .header("host", "a")
        .body(Full::<Bytes>::from(body.to_owned()))
        .expect("a request");
    let begun = Instant::now();
    let (head, _) = proxy.send(request).await;
    assert_eq!(head.status, StatusCode::OK);
    begun.elapsed()
}

fn hedged(proxy: &Proxy, name: &str) -> i128 {
    figure(proxy, &format!("cluster.shop.upstream_rq_{name}"))
}

#[tokio::test]
async fn a_late_answer_is_overtaken_and_its_try_ended() {
    let (one, running) = late(50, "one").await;
    let (two, also) = late(1_000, "two").await;
    let proxy = proxy(&one, &two, 20).await;
    let mut longest = Duration::ZERO;
    for _ in 0..140 {
        longest = longest.max(send(&proxy, "GET", "").await);
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    assert!(hedged(&proxy, "hedge_won") >= 1);
    // Whoever was late is told that nobody waits.
    for _ in 0..200 {
        if running.load(Ordering::SeqCst) + also.load(Ordering::SeqCst) == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        running.load(Ordering::SeqCst) + also.load(Ordering::SeqCst),
        0
    );
    assert_eq!(figure(&proxy, "cluster.shop.upstream_rq_active"), 0);
}

#[tokio::test]
async fn a_body_that_is_whole_is_sent_twice() {
    let (one, _) = late(50, "one").await;
    let (two, _) = late(1_000, "two").await;
    let proxy = proxy(&one, &two, 20).await;
    for _ in 0..110 {
        assert!(send(&proxy, "PUT", "all of it").await < Duration::from_secs(5));
    }
    assert!(hedged(&proxy, "hedge_won") >= 1);
}

#[tokio::test]
async fn the_extra_load_is_bounded() {
    // A third of all answers is late: far more than what may go twice.
    let slow = || {
        Endpoint::start(|_, number| async move {
            let is_late = number > 60 && number % 3 == 0;
            tokio::time::sleep(Duration::from_millis(if is_late { 40 } else { 2 })).await;
            text_answer(200, "")
        })
    };
    let (one, two) = (slow().await, slow().await);
    let proxy = proxy(&one, &two, 2).await;
    for _ in 0..300 {
        send(&proxy, "GET", "").await;
    }
    let requests = one.requests() + two.requests();
    assert!(requests <= 306, "{requests}");
    assert!(hedged(&proxy, "hedge_overflow") > 0);
}

#[tokio::test]
async fn what_changes_something_is_sent_once() {
    let slow = || {
        Endpoint::start(|_, number| async move {
            let is_late = number > 20;
            tokio::time::sleep(Duration::from_millis(if is_late { 60 } else { 2 })).await;
            text_answer(200, "")
        })
    };
    let (one, two) = (slow().await, slow().await);
    let proxy = proxy(&one, &two, 100).await;
    for _ in 0..60 {
        send(&proxy, "POST", "x").await;
    }
    assert_eq!(one.requests() + two.requests(), 60);
    assert_eq!(hedged(&proxy, "hedge"), 0);
}

#[tokio::test]
async fn a_try_beside_one_that_took_too_long_is_as_envoy_asks() {
    let (one, _) = late(3, "one").await;
    let (two, _) = late(1_000, "two").await;
    let port = format!("port_value: {}", two.address.port());
    let own = "retry_policy: { retry_on: 5xx, num_retries: 1, per_try_timeout: 0.1s }\n                            hedge_policy: { hedge_on_per_try_timeout: true }";
    let changes = [
        TURNS,
        ("port_value: 8081", &*port),
        (
            "retry_policy: { retry_on: \"connect-failure,refused-stream\", num_retries: 1 }",
            own,
        ),
        (
            "retry: { safe_only: true, hedging: { extra_load: 2 } }",
            "retry: { safe_only: false }",
        ),
    ];
    let proxy = example("hedging.yaml", &one, &changes).await;
    for _ in 0..12 {
        assert!(send(&proxy, "POST", "").await < Duration::from_secs(5));
    }
    assert!(hedged(&proxy, "hedge_won") >= 1);
    assert_eq!(hedged(&proxy, "per_try_timeout"), 0);
}
