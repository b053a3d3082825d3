//! Requests between a pod with an Envoy and one with our own proxy.

use std::io::{self, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fairlead_mesh::facts::{Facts, Spoken};
use serde_json::json;

use crate::process::Envoy;
use crate::stock;
use crate::support::Control;
use crate::support::place::{Place, bridge, cluster, dual, echo, figure, guarded, ruled, shop};

const GET: &str = "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";

fn facts() -> Facts {
    cluster(&[
        ("cart", 1, 80, 8080, Spoken::Detected, true),
        ("echo", 2, 7000, 7070, Spoken::Tcp, true),
        ("old", 3, 80, 8081, Spoken::Http, false),
        ("each", 0, 7000, 7071, Spoken::Tcp, true),
        ("late", 4, 80, 8082, Spoken::Http, true),
        ("flaky", 5, 80, 8083, Spoken::Http, true),
        ("any", 6, 7001, 7070, Spoken::Detected, true),
    ])
}

/// Answers after a while.
fn late(connection: TcpStream) -> io::Result<()> {
    std::thread::sleep(Duration::from_secs(3));
    shop(connection)
}

/// Starts the applications; gives back how often flaky was asked, which answers 503 twice before it answers at all.
fn applications(place: &Place) -> Arc<AtomicUsize> {
    place.application(8080, shop);
    place.application(8081, shop);
    place.application(7070, echo);
    place.application(7071, echo);
    place.application(8082, |connection| {
        // Others are not to wait for it.
        std::thread::spawn(|| late(connection));
        Ok(())
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    place.application(8083, move |mut connection| {
        if count.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
            return shop(connection);
        }
        let answer =
            b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        connection.write_all(answer)
    });
    asked
}

/// What is asked from the first namespace, on a thread that may wait.
async fn ask<T: Send + 'static>(
    place: Arc<Place>,
    what: impl FnOnce(&Place) -> T + Send + 'static,
) -> T {
    let asked = tokio::task::spawn_blocking(move || what(&place));
    asked.await.expect("it ran")
}

/// Asks a service by its address of IPv6, and an endpoint that callers chose themselves.
fn ask_over_ipv6(place: &Place) {
    for (to, text, wanted) in [
        ("[fd96::1]:80", GET, "shop"),
        ("[fd79::2]:7071", "nor this", "nor this"),
    ] {
        let answer = place.answer(to, text, wanted);
        assert!(answer.contains(wanted), "{to}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_reaches_our_proxy_over_mutual_tls() {
    if stock::is_left_out() {
        return;
    }
    let control = Control::start(Duration::from_secs(3600)).await;
    control.tell(&facts());
    let place = Arc::new(Place::new());
    let path = place.folder.join("control");
    bridge(&path, &control);
    let flaky = applications(&place);
    let address = json!({"pipe": {"path": path}});
    let bootstrap = control.bootstrap(("shop", "cart"), &place.folder, address);
    let far = place.proxy(1, bootstrap.to_string());
    let envoy = Envoy::start(&place, 0, &control, "web", "DELTA_GRPC").await;
    place.capture(0);
    ask(Arc::clone(&place), |place| {
        for (to, text, wanted) in [
            ("10.96.0.1:80", GET, "shop"),
            ("10.96.0.2:7000", "what nobody knows", "what nobody knows"),
            ("10.79.0.2:7071", "nor this", "nor this"),
            ("10.96.0.6:7001", "no HTTP\r\n", "no HTTP"),
            ("10.96.0.3:80", GET, "shop"),
        ] {
            let answer = place.answer(to, text, wanted);
            assert!(answer.contains(wanted), "{to}: {answer}");
        }
    })
    .await;
    for cluster in [
        "cart.shop_80/http1",
        "echo.shop_7000/tcp",
        "each.shop_7000/tcp",
        "any.shop_7001/tcp",
    ] {
        let made = envoy
            .figure(&format!("cluster.{cluster}.ssl.handshake"))
            .await;
        assert!(made > 0, "{cluster}");
    }
    assert_eq!(
        envoy
            .figure("cluster.old.shop_80/http1.ssl.handshake")
            .await,
        0
    );
    assert!(figure(&far, "cluster.application/http1.upstream_cx_http1_total") > 0);

    control.tell(&dual(facts()));
    ask(Arc::clone(&place), ask_over_ipv6).await;

    // What policies say holds for it, too.
    let targets = |name: &str| json!([{"kind": "Service", "name": name}]);
    let timeouts = json!({"targetRefs": targets("late"), "timeouts": {"request": "300ms"}});
    let retries = json!({
        "targetRefs": targets("flaky"),
        "retries": {"attempts": 2, "retryOn": ["GatewayError"]},
    });
    control.tell(&ruled(ruled(facts(), timeouts), retries));
    ask(Arc::clone(&place), |place| {
        let answer = place.answer("10.96.0.4:80", GET, "504");
        assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
        let begun = Instant::now();
        place.ask("10.96.0.4:80", GET);
        assert!(begun.elapsed() < Duration::from_secs(1));
    })
    .await;
    let before = flaky.load(Ordering::Relaxed);
    let retried = ask(Arc::clone(&place), |place| {
        place.answer("10.96.0.5:80", GET, "shop")
    })
    .await;
    assert!(retried.starts_with("HTTP/1.1 200"), "{retried}");
    assert_eq!(flaky.load(Ordering::Relaxed) - before, 3);
    assert_eq!(envoy.refused().await, 0);
    far.draining.send_replace(true);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_proxy_reaches_an_envoy_that_lets_in_whom_it_may() {
    if stock::is_left_out() {
        return;
    }
    let control = Control::start(Duration::from_secs(3600)).await;
    control.tell(&facts());
    let place = Arc::new(Place::new());
    let path = place.folder.join("control");
    bridge(&path, &control);
    applications(&place);
    let address = json!({"pipe": {"path": path}});
    let bootstrap = control.bootstrap(("shop", "web"), &place.folder, address);
    let near = place.proxy(0, bootstrap.to_string());
    let envoy = Envoy::start(&place, 1, &control, "cart", "GRPC").await;
    place.capture(1);
    ask(Arc::clone(&place), |place| {
        let answer = place.answer("10.96.0.1:80", GET, "shop");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let answer = place.answer("10.96.0.2:7000", "what nobody knows", "nobody");
        assert_eq!(answer, "what nobody knows");
    })
    .await;
    control.tell(&dual(facts()));
    ask(Arc::clone(&place), ask_over_ipv6).await;
    for name in [
        "cart.shop:80/http1",
        "echo.shop:7000/tcp",
        "each.shop:7000/tcp",
    ] {
        assert!(
            figure(&near, &format!("cluster.{name}.ssl.handshake")) > 0,
            "{name}"
        );
    }
    assert!(envoy.figure("listener.[__]_15006.ssl.handshake").await > 0);

    control.tell(&guarded(facts()));
    ask(Arc::clone(&place), |place| {
        let answer = place.answer("10.96.0.1:80", GET, "403");
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert_eq!(place.ask("10.96.0.2:7000", "anything"), "");
    })
    .await;
    assert!(envoy.figure("http.inbound.rbac.denied").await > 0);
    assert_eq!(envoy.refused().await, 0);
    near.draining.send_replace(true);
}
