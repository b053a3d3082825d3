//! A pod that calls another, through their proxies, as the kernel brings connections there: two network namespaces, nobody in them
//! who knows of a proxy, and the control plane outside.

mod support;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fairlead_mesh::compile::names::{INBOUND_PORT, OUTBOUND_PORT};
use fairlead_mesh::facts::{Facts, Spoken};
use fairlead_mesh::figures::{Called, Sum};
use serde_json::json;
use support::Control;
use support::place::{Place, authorized, bridge, cluster, dual, echo, figure, guarded, shop};

/// How long it takes at the most until figures are known.
const FRESH: Duration = Duration::from_secs(10);

/// Waits until the control plane knows of calls, by the caller's namespace and workload.
async fn counted(control: &Control, from: (&str, &str), service: &str) -> (Called, Sum) {
    let begun = Instant::now();
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("it is later").as_secs();
        let (_, sums) = control.figures.within(60, now);
        let found = sums.iter().find(|((caller, called), _)| {
            (&*caller.namespace, &*caller.workload) == from && &*called.service == service
        });
        if let Some(((_, called), sum)) = found {
            // What was asked before there was an answer failed.
            assert!(sum.successes > 0, "{sum:?}");
            return (called.clone(), sum.clone());
        }
        assert!(begun.elapsed() < FRESH, "{from:?} and {service}: {sums:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The services cart, echo and each, whose pod has a proxy, and old, about whose pod the mesh knows nothing.
fn facts() -> Facts {
    cluster(&[
        ("cart", 1, 80, 8080, Spoken::Detected, true),
        ("echo", 2, 7000, 7070, Spoken::Tcp, true),
        ("old", 3, 80, 8081, Spoken::Http, false),
        ("each", 0, 7000, 7071, Spoken::Tcp, true),
    ])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pod_reaches_another_over_mutual_tls_that_neither_knows_of() {
    let control = Control::start(Duration::from_secs(3600)).await;
    control.tell(&facts());
    let place = Place::new();
    let path = place.folder.join("control");
    bridge(&path, &control);
    place.application(8080, shop);
    place.application(8081, shop);
    for port in [7070, 7071] {
        place.application(port, echo);
    }
    let start = |place: &Place, number: usize, name: &str| {
        let address = json!({"pipe": {"path": path}});
        let bootstrap = control.bootstrap(("shop", name), &place.folder, address);
        place.proxy(number, bootstrap.to_string())
    };
    let (near, far) = (start(&place, 0, "web"), start(&place, 1, "cart"));
    let (place, near, far) = tokio::task::spawn_blocking(move || {
        let request = "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
        let answer = place.answer("10.96.0.1:80", request, "shop");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let answer = place.answer("10.96.0.2:7000", "what nobody knows", "nobody");
        assert_eq!(answer, "what nobody knows");
        let answer = place.answer("10.79.0.2:7071", "nor this", "nor this");
        assert_eq!(answer, "nor this");
        let answer = place.answer("10.96.0.3:80", request, "shop");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        (place, near, far)
    })
    .await
    .expect("it ran");
    for (cluster, secured) in [
        ("cart.shop:80/http1", 1),
        ("echo.shop:7000/tcp", 1),
        ("each.shop:7000/tcp", 1),
        ("old.shop:80/http1", 0),
    ] {
        let name = format!("cluster.{cluster}.ssl.handshake");
        let made = figure(&near, &name);
        assert!(
            made >= secured && (secured > 0 || made == 0),
            "{name}: {made}"
        );
    }
    // Who calls whom is known within seconds, and what comes in plain text too.
    let (called, sum) = counted(&control, ("shop", "web-1"), "cart").await;
    let route_of = |called: &Called| {
        (
            called.namespace.to_string(),
            called.port,
            called.route.to_string(),
        )
    };
    assert_eq!(
        route_of(&called),
        ("shop".to_owned(), 80, "http1".to_owned())
    );
    assert!(sum.quantile(0.95).is_some(), "{sum:?}");
    let place = tokio::task::spawn_blocking(move || {
        let request = "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
        place.answer("10.79.0.2:8080", request, "shop");
        place
    })
    .await
    .expect("it ran");
    let (called, _) = counted(&control, ("", ""), "cart").await;
    assert_eq!(
        route_of(&called),
        ("shop".to_owned(), 80, "outside/http1".to_owned())
    );
    // A pod's own address is that of no service: connections are counted, and not what they carry.
    let (called, sum) = counted(&control, ("shop", "web-1"), "10.79.0.2").await;
    assert_eq!(route_of(&called), (String::new(), 8080, String::new()));
    assert_eq!(sum.quantile(0.95), None);
    // A connection to the proxy's own port comes to an end, and not to the proxy again and again.
    let taken = "listener.inbound.downstream_cx_total";
    let place = tokio::task::spawn_blocking(move || {
        for port in [INBOUND_PORT, OUTBOUND_PORT] {
            assert_eq!(
                place.ask(&format!("10.79.0.2:{port}"), "again?"),
                "",
                "{port}"
            );
        }
        place
    })
    .await
    .expect("it ran");
    assert!(figure(&far, taken) < 50, "{}", figure(&far, taken));
    // Requests of HTTP/1.1 are carried over HTTP/2, and are HTTP/1.1 again for the application.
    assert_eq!(
        figure(&near, "cluster.cart.shop:80/http1.upstream_cx_http2_total"),
        1
    );
    assert!(figure(&far, "cluster.application/http1.upstream_cx_http1_total") > 0);
    // Nobody but the cart itself may come in from now on, and who asks is told so.
    let refused = "http.inbound.rbac.denied";
    assert_eq!(figure(&far, refused), 0);
    control.tell(&guarded(facts()));
    let place = tokio::task::spawn_blocking(move || {
        let request = "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
        let answer = place.answer("10.96.0.1:80", request, "403");
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert_eq!(place.ask("10.96.0.2:7000", "anything"), "");
        place
    })
    .await
    .expect("it ran");
    assert!(figure(&far, refused) > 0);
    for shared in [near, far] {
        shared.draining.send_replace(true);
    }
    drop(place);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_speak_ipv6_as_they_speak_ipv4() {
    let control = Control::start(Duration::from_secs(3600)).await;
    control.tell(&dual(facts()));
    let place = Place::new();
    let path = place.folder.join("control");
    bridge(&path, &control);
    place.application(8080, shop);
    place.application(7071, echo);
    let start = |place: &Place, number: usize, name: &str| {
        let address = json!({"pipe": {"path": path}});
        let bootstrap = control.bootstrap(("shop", name), &place.folder, address);
        place.proxy(number, bootstrap.to_string())
    };
    let (near, far) = (start(&place, 0, "web"), start(&place, 1, "cart"));
    let request = "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
    let place = tokio::task::spawn_blocking(move || {
        for address in ["[fd96::1]:80", "10.96.0.1:80", "[fd79::2]:8080"] {
            let answer = place.answer(address, request, "shop");
            assert!(answer.starts_with("HTTP/1.1 200"), "{address}: {answer}");
        }
        let answer = place.answer("[fd79::2]:7071", "what nobody knows", "nobody");
        assert_eq!(answer, "what nobody knows");
        place
    })
    .await
    .expect("it ran");
    for cluster in ["cart.shop:80/http1", "each.shop:7000/tcp"] {
        let name = format!("cluster.{cluster}.ssl.handshake");
        assert!(figure(&near, &name) > 0, "{name}");
    }
    // Networks are of either family.
    let only = |network: &str| {
        let spec = json!({
            "targetRefs": [{"kind": "Service", "name": "cart"}],
            "rules": [{"from": {"networks": [network]}}],
        });
        authorized(dual(facts()), &[("own", spec)])
    };
    let place = tokio::task::spawn_blocking(move || {
        for (network, status) in [("10.79.0.0/16", "403"), ("fd79::/64", "200")] {
            control.tell(&only(network));
            let answer = place.answer("[fd79::2]:8080", request, status);
            let wanted = format!("HTTP/1.1 {status}");
            assert!(answer.starts_with(&wanted), "{network}: {answer}");
        }
        place
    })
    .await
    .expect("it ran");
    for shared in [near, far] {
        shared.draining.send_replace(true);
    }
    drop(place);
}
