//! Who may talk to whom.

mod support;

use std::sync::Arc;

use fairlead_model::balance::Policy;
use fairlead_model::cluster::{Cluster, Endpoints, SocketMatch, UpstreamProtocol};
use fairlead_model::listener::Handler;
use fairlead_model::tls::{Certificate, Trust};
use http::StatusCode;
use support::certificates::{Authority, client, server};
use support::features::figure;
use support::{Endpoint, Proxy, http_to, listener, proxy, snapshot, to, up};

const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/web";
const SERVICE: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// An inbound proxy before an endpoint, and an outbound one before it.
async fn pair(
    inbound: (Certificate, Trust),
    outbound: (Certificate, Trust),
) -> (Endpoint, Proxy, Proxy) {
    let endpoint = Endpoint::echo().await;
    let tls = server(inbound.0, inbound.1);
    let inner = Proxy::start(|address| {
        let handler = Handler::Http(Arc::new(http_to(to("up"))));
        snapshot(
            listener(address, handler, Some(tls)),
            vec![up(&[endpoint.address])],
        )
    })
    .await;
    let mut cluster = up(&[inner.address]);
    cluster.protocol = UpstreamProtocol::Http2;
    cluster.tls = Some(client(outbound.0, outbound.1));
    let outer = proxy(http_to(to("up")), cluster).await;
    (endpoint, inner, outer)
}

async fn asked(
    inbound: (Certificate, Trust),
    outbound: (Certificate, Trust),
) -> (StatusCode, String) {
    let (_endpoint, _inner, outer) = pair(inbound, outbound).await;
    let (head, _) = outer.get("/").await;
    let reason = head
        .headers
        .get("proxy-status")
        .and_then(|reason| reason.to_str().ok())
        .unwrap_or("")
        .to_owned();
    (head.status, reason)
}

#[tokio::test]
async fn both_sides_show_who_they_are() {
    let authority = Authority::default();
    let inbound = (
        authority.issue(&[SERVICE], |_| {}),
        authority.trust(&[], &[CALLER]),
    );
    let outbound = (
        authority.issue(&[CALLER], |_| {}),
        authority.trust(&[], &[SERVICE]),
    );
    let (endpoint, _inner, outer) = pair(inbound, outbound).await;
    for _ in 0..10 {
        let (head, body) = outer.get("/a").await;
        assert_eq!(
            (head.status, body.as_str()),
            (StatusCode::OK, "GET /a shop.example ")
        );
    }
    assert_eq!(endpoint.requests(), 10);
}

#[tokio::test]
async fn a_stranger_is_refused() {
    let (own, other) = (Authority::default(), Authority::default());
    let inbound = || (own.issue(&[SERVICE], |_| {}), own.trust(&[], &[CALLER]));
    let trust = || own.trust(&[], &[SERVICE]);
    let refused = |(status, reason): (StatusCode, String), what: &str| {
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{what}: {reason}");
    };
    refused(
        asked(inbound(), (other.issue(&[CALLER], |_| {}), trust())).await,
        "another authority's caller",
    );
    refused(
        asked(
            inbound(),
            (
                own.issue(&["spiffe://cluster.local/ns/shop/sa/other"], |_| {}),
                trust(),
            ),
        )
        .await,
        "another name",
    );
    refused(
        asked(
            inbound(),
            (
                own.issue(&["spiffe://other.local/ns/shop/sa/web"], |_| {}),
                trust(),
            ),
        )
        .await,
        "another trust domain",
    );
    refused(
        asked(inbound(), (own.issue(&[CALLER, SERVICE], |_| {}), trust())).await,
        "two URI names",
    );
    refused(
        asked(
            inbound(),
            (own.issue(&[CALLER], |_| {}), own.trust(&[], &[CALLER])),
        )
        .await,
        "another name of the service",
    );
    refused(
        asked(
            inbound(),
            (own.issue(&[CALLER], |_| {}), other.trust(&[], &[SERVICE])),
        )
        .await,
        "another authority's service",
    );
}

#[tokio::test]
async fn a_certificate_has_its_time_and_use() {
    let authority = Authority::default();
    let trust = |name| authority.trust(&[], &[name]);
    let service = || authority.issue(&[SERVICE], |_| {});
    let expired = authority.issue(&[CALLER], |params| {
        params.not_after = rcgen::date_time_ymd(2020, 1, 1)
    });
    let future = authority.issue(&[CALLER], |params| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1)
    });
    let issuer = authority.issue(&[CALLER], |params| {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    });
    for (certificate, what) in [
        (expired, "expired"),
        (future, "not yet valid"),
        (issuer, "an authority's"),
    ] {
        let (status, _) = asked((service(), trust(CALLER)), (certificate, trust(SERVICE))).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{what}");
    }
}

#[tokio::test]
async fn several_roots_are_trusted_while_one_takes_over() {
    let (old, new) = (Authority::default(), Authority::default());
    let inbound = (old.issue(&[SERVICE], |_| {}), old.trust(&[&new], &[CALLER]));
    let outbound = (new.issue(&[CALLER], |_| {}), new.trust(&[&old], &[SERVICE]));
    assert_eq!(asked(inbound, outbound).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_renewed_certificate_is_used_by_the_next_handshake() {
    let (old, new) = (Authority::default(), Authority::default());
    let inbound = (old.issue(&[SERVICE], |_| {}), old.trust(&[], &[CALLER]));
    let outbound = (new.issue(&[CALLER], |_| {}), old.trust(&[], &[SERVICE]));
    let (_endpoint, _inner, outer) = pair(inbound, outbound).await;
    assert_eq!(
        outer.get("/").await.0.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    let mut snapshot = (**outer.snapshots.borrow()).clone();
    let cluster = snapshot.clusters.values_mut().next().expect("the cluster");
    let renewed = client(old.issue(&[CALLER], |_| {}), old.trust(&[], &[SERVICE]));
    Arc::make_mut(cluster).tls = Some(renewed);
    outer.snapshots.send_replace(Arc::new(snapshot));
    for _ in 0..100 {
        if outer.get("/").await.0.status == StatusCode::OK {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the renewed certificate is not used");
}

#[tokio::test]
async fn each_endpoint_is_secured_as_its_labels_say() {
    let authority = Authority::default();
    let inbound = (
        authority.issue(&[SERVICE], |_| {}),
        authority.trust(&[], &[CALLER]),
    );
    let outbound = (
        authority.issue(&[CALLER], |_| {}),
        authority.trust(&[], &[SERVICE]),
    );
    let (secured, inner, _outer) = pair(inbound, outbound.clone()).await;
    let plain = Endpoint::echo().await;
    let label = ("mode".to_owned(), "mesh".to_owned());
    let mut meshed = fairlead_model::cluster::Endpoint::at(inner.address);
    meshed.socket_labels.push(label.clone());
    let mut endpoints = Endpoints::at([plain.address]);
    endpoints.localities[0].endpoints.push(meshed);
    let mut cluster = Cluster::of("up", endpoints);
    cluster.balancing.policy = Policy::RoundRobin;
    cluster.protocol = UpstreamProtocol::AsDownstream;
    cluster.sockets.push(SocketMatch {
        name: "mesh".to_owned(),
        labels: vec![label],
        tls: Some(client(outbound.0, outbound.1)),
    });
    let outer = proxy(http_to(to("up")), cluster).await;
    for _ in 0..10 {
        let (head, body) = outer.get("/a").await;
        assert_eq!(
            (head.status, body.as_str()),
            (StatusCode::OK, "GET /a shop.example ")
        );
    }
    assert_eq!((secured.requests(), plain.requests()), (5, 5));
    // HTTP/1.1 of the caller shares one connection of HTTP/2 where TLS settles it.
    assert_eq!(figure(&outer, "cluster.up.upstream_cx_http2_total"), 1);
}
