//! Copies of requests to a dark cluster.

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairlead_proxy::metrics::prometheus;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use support::features::example;
use support::{Endpoint, Proxy, free, text_answer};

/// A proxy that copies every request to the dark endpoint.
async fn mirroring(live: &Endpoint, dark: &str, changes: &[(&str, &str)]) -> Proxy {
    let port = format!("port_value: {dark}");
    let mut all = vec![
        ("numerator: 50", "numerator: 100"),
        ("port_value: 8081", &*port),
    ];
    all.extend(changes);
    example("mirror.yaml", live, &all).await
}

/// Waits until a number of the route and its dark cluster is reached.
async fn until(proxy: &Proxy, name: &str, count: u64) {
    let start = format!("fairlead_route_{name}{{route=\"all\",cluster=\"next\"}} ");
    let number = || {
        let text = prometheus(&proxy.shared.figures);
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        line.and_then(|number| number.parse::<u64>().ok())
    };
    for _ in 0..500 {
        if number().is_some_and(|number| number >= count) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(number(), Some(count), "{name}");
}

/// An endpoint that notes what it is asked.
async fn noting(answer: &'static str) -> (Endpoint, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let endpoint = Endpoint::start(move |request, _| {
        let noted = Arc::clone(&noted);
        async move {
            let (head, body) = request.into_parts();
            let host = head.headers["host"].to_str().expect("text").to_owned();
            let body = body.collect().await.expect("a body").to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            let line = format!("{} {} {host} {body}", head.method, head.uri);
            noted.lock().expect("no panic").push(line);
            text_answer(200, answer)
        }
    })
    .await;
    (endpoint, asked)
}

fn post(path: &str, body: String) -> Request<Full<Bytes>> {
    Request::post(path)
        .header("host", "shop.example:80")
        .body(Full::from(body))
        .expect("a request")
}

#[tokio::test]
async fn a_copy_is_as_the_request_and_its_answer_is_compared() {
    let (live, _) = noting("same").await;
    let (dark, asked) = noting("same").await;
    let port = dark.address.port().to_string();
    let proxy = mirroring(&live, &port, &[("safe_only: true", "safe_only: false")]).await;
    let (head, body) = proxy.send(post("/a?b=c", "hello".to_owned())).await;
    assert_eq!((head.status, body.as_str()), (StatusCode::OK, "same"));
    until(&proxy, "mirror_body_same", 1).await;
    until(&proxy, "mirror_status_same", 1).await;
    assert_eq!(
        *asked.lock().expect("no panic"),
        ["POST /a?b=c shop.example-shadow:80 hello"]
    );
}

#[tokio::test]
async fn what_differs_is_counted() {
    let live = Endpoint::start(|_, _| async { text_answer(200, "old") }).await;
    let dark = Endpoint::start(|_, _| async { text_answer(500, "new") }).await;
    let proxy = mirroring(&live, &dark.address.port().to_string(), &[]).await;
    assert_eq!(proxy.get("/").await.1, "old");
    until(&proxy, "mirror_status_different", 1).await;
    until(&proxy, "mirror_body_different", 1).await;
}

#[tokio::test]
async fn only_what_changes_nothing_is_copied_where_so_said() {
    let (live, _) = noting("").await;
    let (dark, asked) = noting("").await;
    let proxy = mirroring(&live, &dark.address.port().to_string(), &[]).await;
    proxy.send(post("/", String::new())).await;
    proxy.get("/read").await;
    until(&proxy, "mirror_body_same", 1).await;
    assert_eq!(
        *asked.lock().expect("no panic"),
        ["GET /read shop.example-shadow "]
    );
}

#[tokio::test]
async fn a_long_body_is_not_copied() {
    let (live, _) = noting("").await;
    let (dark, asked) = noting("").await;
    let port = dark.address.port().to_string();
    let changes = [("safe_only: true", "safe_only: false, body_most: 1000")];
    let proxy = mirroring(&live, &port, &changes).await;
    let (head, _) = proxy.send(post("/", "x".repeat(100_000))).await;
    assert_eq!(head.status, StatusCode::OK);
    until(&proxy, "mirror_dropped", 1).await;
    assert!(asked.lock().expect("no panic").is_empty());
}

#[tokio::test]
async fn a_dark_side_that_is_down_or_silent_costs_the_live_one_nothing() {
    let live = Endpoint::start(|_, _| async { text_answer(200, "live") }).await;
    let down = mirroring(&live, &free().port().to_string(), &[]).await;
    let silent = Endpoint::start(|_, _| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        text_answer(200, "late")
    })
    .await;
    let waiting = mirroring(&live, &silent.address.port().to_string(), &[]).await;
    for proxy in [&down, &waiting] {
        let begun = Instant::now();
        for _ in 0..20 {
            let (head, body) = proxy.get("/").await;
            assert_eq!((head.status, body.as_str()), (StatusCode::OK, "live"));
        }
        assert!(
            begun.elapsed() < Duration::from_secs(2),
            "{:?}",
            begun.elapsed()
        );
    }
    until(&down, "mirror_failed", 20).await;
    until(&waiting, "mirrored", 20).await;
}

#[tokio::test]
async fn a_cluster_that_has_the_request_gets_no_copy() {
    let folder =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/proxy/features");
    let right = std::fs::read_to_string(folder.join("mirror.yaml")).expect("the example is there");
    let broken = right.replacen("- cluster: next", "- cluster: shop", 1);
    let error = fairlead_xds::bootstrap(&broken, &|_| Ok(Vec::new())).expect_err("refused");
    let error = error.to_string();
    assert!(
        error.ends_with("routes[0].route.request_mirror_policies[0].cluster: \"shop\" has the request itself; another cluster is expected"),
        "{error}"
    );
}
