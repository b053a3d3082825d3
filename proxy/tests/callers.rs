//! What endpoints are told of callers, and what is believed of what callers say.

mod support;

use std::sync::Arc;
use std::time::Duration;

use fairlead_model::balance::Policy;
use fairlead_model::cluster::{Cluster, UpstreamProtocol};
use fairlead_model::edge::{CertificateDetails, CertificateMode, Edge, RequestId};
use fairlead_model::listener::{Handler, Http};
use fairlead_model::route::{Affinity, AffinityBy, CookieMade};
use http::{HeaderValue, Request};
use http_body_util::Full;
use support::certificates::{Authority, client, server};
use support::{Endpoint, Proxy, http_to, listener, proxy, snapshot, text_answer, to, up};

/// Answers with the headers that a request had, each on a line, in order.
async fn headers() -> Endpoint {
    Endpoint::start(|request, _| async move {
        let mut lines: Vec<String> = request
            .headers()
            .iter()
            .filter(|(name, _)| name.as_str() != "host")
            .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        lines.sort();
        text_answer(200, &lines.join("\n"))
    })
    .await
}

fn with(edge: Edge) -> Http {
    let mut http = http_to(to("up"));
    http.edge = Some(Arc::new(edge));
    http
}

/// What an endpoint is told, and the answer's headers, when a caller says these.
async fn told(edge: Option<Edge>, said: &[(&str, &str)]) -> (String, http::HeaderMap) {
    let endpoint = headers().await;
    let http = edge.map_or_else(|| http_to(to("up")), with);
    let proxy = proxy(http, up(&[endpoint.address])).await;
    let mut request = Request::get("/").header("host", "shop.example");
    for (name, value) in said {
        request = request.header(*name, *value);
    }
    let (head, body) = proxy
        .send(request.body(Full::default()).expect("a request"))
        .await;
    (body, head.headers)
}

#[tokio::test]
async fn a_proxy_that_is_asked_for_nothing_tells_nothing() {
    let said = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-client-cert", "By=forged"),
        ("x-request-id", "own"),
    ];
    let (told, _) = told(None, &said).await;
    assert_eq!(told, "x-forwarded-for: 1.2.3.4\nx-request-id: own");
}

#[tokio::test]
async fn an_edge_believes_no_caller() {
    let edge = Edge {
        is_first: true,
        append_port: true,
        request_id: Some(RequestId {
            preserve_external: false,
            in_response: true,
        }),
        via: Some(HeaderValue::from_static("1.1 edge")),
        ..Edge::default()
    };
    let said = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "1"),
        ("x-request-id", "forged"),
        ("via", "1.0 other"),
    ];
    let (told, answer) = told(Some(edge), &said).await;
    let lines: Vec<&str> = told.lines().collect();
    let id = lines
        .iter()
        .find_map(|line| line.strip_prefix("x-request-id: "))
        .expect("an id");
    assert!(id.len() == 36 && id != "forged", "{id}");
    assert_eq!(
        answer.get("x-request-id").map(HeaderValue::as_bytes),
        Some(id.as_bytes())
    );
    assert_eq!(
        answer.get("via").map(HeaderValue::as_bytes),
        Some(&b"1.1 edge"[..])
    );
    for line in [
        "x-forwarded-for: 1.2.3.4,127.0.0.1",
        "x-forwarded-proto: http",
        "via: 1.0 other, 1.1 edge",
    ] {
        assert!(lines.contains(&line), "{line}: {told}");
    }
    assert!(!lines.contains(&"x-forwarded-port: 1"), "{told}");
}

#[tokio::test]
async fn behind_another_proxy_what_it_says_stays() {
    let edge = Edge {
        request_id: Some(RequestId::default()),
        ..Edge::default()
    };
    let said = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "own"),
    ];
    let (kept, answer) = told(Some(edge.clone()), &said).await;
    assert_eq!(
        kept,
        "x-forwarded-for: 1.2.3.4\nx-forwarded-proto: https\nx-request-id: own"
    );
    assert!(!answer.contains_key("x-request-id"));
    let (made, _) = told(Some(edge), &[]).await;
    assert!(
        made.starts_with("x-forwarded-proto: http\nx-request-id: "),
        "{made}"
    );
}

#[tokio::test]
async fn ids_are_not_repeated() {
    let endpoint = headers().await;
    let edge = Edge {
        request_id: Some(RequestId::default()),
        ..Edge::default()
    };
    let proxy = proxy(with(edge), up(&[endpoint.address])).await;
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..50 {
        ids.insert(proxy.get("/").await.1);
    }
    assert_eq!(ids.len(), 50);
}

const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/web";
const SERVICE: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// What an endpoint is told behind mutual TLS, when the caller says this of itself.
async fn certified(mode: CertificateMode) -> String {
    let endpoint = headers().await;
    let authority = Authority::default();
    let tls = server(
        authority.issue(&[SERVICE], |_| {}),
        authority.trust(&[], &[CALLER]),
    );
    let edge = Edge {
        certificate: CertificateDetails {
            mode,
            uri: true,
            dns: true,
            chain: mode == CertificateMode::AppendForward,
            ..CertificateDetails::default()
        },
        ..Edge::default()
    };
    let inner = Proxy::start(|address| {
        let handler = Handler::Http(Arc::new(with(edge)));
        snapshot(
            listener(address, handler, Some(tls)),
            vec![up(&[endpoint.address])],
        )
    })
    .await;
    let mut cluster = up(&[inner.address]);
    cluster.protocol = UpstreamProtocol::Http2;
    let mut certificate = authority.issue(&[CALLER], |_| {});
    certificate.chain.extend(authority.trust(&[], &[]).roots);
    cluster.tls = Some(client(certificate, authority.trust(&[], &[SERVICE])));
    let mut outside = http_to(to("up"));
    outside.edge = Some(Arc::new(Edge {
        certificate: CertificateDetails {
            mode: CertificateMode::AlwaysForwardOnly,
            ..CertificateDetails::default()
        },
        ..Edge::default()
    }));
    let outer = proxy(outside, cluster).await;
    let request = Request::get("/")
        .header("host", "shop.example")
        .header("x-forwarded-client-cert", "Hash=forged")
        .body(Full::default())
        .expect("a request");
    let (_, body) = outer.send(request).await;
    body.lines()
        .find_map(|line| line.strip_prefix("x-forwarded-client-cert: "))
        .unwrap_or("-")
        .to_owned()
}

#[tokio::test]
async fn a_certificate_is_told_as_the_mode_says() {
    assert_eq!(certified(CertificateMode::Sanitize).await, "-");
    assert_eq!(certified(CertificateMode::ForwardOnly).await, "Hash=forged");
    let set = certified(CertificateMode::SanitizeSet).await;
    let (by, rest) = set.split_once(";Hash=").expect("two parts");
    assert_eq!(by, format!("By={SERVICE}"));
    assert_eq!(
        rest.get(64..),
        Some(format!(";URI={CALLER};DNS=workload.test").as_str())
    );
    let appended = certified(CertificateMode::AppendForward).await;
    assert!(appended.starts_with("Hash=forged,By="), "{appended}");
    let (_, chain) = appended.split_once(";Chain=\"").expect("a chain");
    let (chain, rest) = chain.split_once('"').expect("its end");
    assert!(rest.starts_with(";URI="), "{rest}");
    // The caller's own, and the one of who issued it.
    assert_eq!(
        chain.matches("-----BEGIN%20CERTIFICATE-----%0A").count(),
        2,
        "{chain}"
    );
}

/// Each endpoint answers with its number.
async fn numbered(count: usize) -> Vec<Endpoint> {
    let mut all = Vec::new();
    for number in 0..count {
        all.push(
            Endpoint::start(move |_, _| async move { text_answer(200, &number.to_string()) }).await,
        );
    }
    all
}

fn sticky(made: Option<CookieMade>, endpoints: &[Endpoint]) -> (Http, Cluster) {
    let mut forward = to("up");
    forward.affinity = vec![Affinity {
        by: AffinityBy::Cookie {
            name: "shard".to_owned(),
            made,
        },
        terminal: false,
    }];
    let addresses: Vec<_> = endpoints.iter().map(|own| own.address).collect();
    let mut cluster = up(&addresses);
    cluster.balancing.policy = Policy::RingHash {
        least: 1024,
        most: 1 << 20,
    };
    (http_to(forward), cluster)
}

async fn with_cookie(proxy: &Proxy, cookie: Option<&str>) -> (String, Option<String>) {
    let mut request = Request::get("/").header("host", "shop.example");
    if let Some(cookie) = cookie {
        request = request.header("cookie", cookie);
    }
    let (head, body) = proxy
        .send(request.body(Full::default()).expect("a request"))
        .await;
    let given = head.headers.get("set-cookie");
    (
        body,
        given.map(|given| String::from_utf8_lossy(given.as_bytes()).into_owned()),
    )
}

#[tokio::test]
async fn a_cookie_brings_a_caller_back() {
    let endpoints = numbered(8).await;
    let made = CookieMade {
        life: Duration::from_secs(60),
        path: "/shop".to_owned(),
        attributes: vec![
            ("SameSite".to_owned(), "Lax".to_owned()),
            ("Secure".to_owned(), String::new()),
        ],
    };
    let (http, cluster) = sticky(Some(made), &endpoints);
    let proxy = proxy(http, cluster).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..12 {
        let (first, given) = with_cookie(&proxy, None).await;
        let given = given.expect("a cookie");
        let (pair, rest) = given.split_once("; ").expect("attributes");
        assert_eq!(
            rest,
            "Max-Age=60; Path=/shop; SameSite=Lax; Secure; HttpOnly"
        );
        for _ in 0..3 {
            // A caller that has one is given none.
            let again = with_cookie(&proxy, Some(&format!("other=1; {pair}"))).await;
            assert_eq!(again, (first.clone(), None));
        }
        seen.insert(first);
    }
    assert!(seen.len() > 2, "callers are spread: {seen:?}");
}

#[tokio::test]
async fn a_cookie_that_nobody_makes_is_only_read() {
    let endpoints = numbered(8).await;
    let (http, cluster) = sticky(None, &endpoints);
    let proxy = proxy(http, cluster).await;
    assert_eq!(with_cookie(&proxy, None).await.1, None);
    let first = with_cookie(&proxy, Some("shard=a")).await;
    for _ in 0..5 {
        assert_eq!(with_cookie(&proxy, Some("shard=a")).await, first);
    }
}
