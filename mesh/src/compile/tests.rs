use std::collections::BTreeSet;

use fairlead_model::Moment;
use fairlead_model::chains::ChainIndex;
use fairlead_xds::Session;

use super::*;
use crate::facts::{Endpoint, Key, Pod, Port, Service, Slice, Spoken};

fn key(namespace: &str, name: &str) -> Key {
    (namespace.into(), name.into())
}

fn service(address: [u8; 4], ports: &[(u16, Spoken)]) -> Arc<Service> {
    Arc::new(Service {
        addresses: BTreeSet::from([address.into()]),
        ports: ports
            .iter()
            .map(|(number, spoken)| Port {
                number: *number,
                name: format!("p{number}").into(),
                spoken: *spoken,
            })
            .collect(),
    })
}

fn endpoint(last: u8, pod: Option<Key>, is_ready: bool) -> Endpoint {
    Endpoint {
        address: [10, 1, 0, last].into(),
        is_ready,
        zone: "a".into(),
        pod,
    }
}

/// The service cart, of two pods, one of which has a proxy.
fn facts() -> Facts {
    let mut facts = Facts::default();
    let cart = key("shop", "cart");
    facts.services.insert(
        cart.clone(),
        service(
            [10, 0, 0, 1],
            &[(80, Spoken::Detected), (6379, Spoken::Tcp)],
        ),
    );
    let pod = key("shop", "cart-1");
    let slice = Slice {
        ports: vec![("p80".into(), 8080), ("p6379".into(), 6379)],
        endpoints: vec![
            endpoint(1, Some(pod.clone()), true),
            endpoint(2, Some(key("shop", "cart-2")), true),
            endpoint(3, None, false),
        ],
    };
    facts
        .slices
        .entry(cart)
        .or_default()
        .insert("cart-x".into(), Arc::new(slice));
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse();
    facts.pods.insert(
        pod,
        Arc::new(Pod {
            id: id.expect("an id"),
        }),
    );
    facts
}

fn view(facts: &Facts) -> View {
    compile(facts, "roots", &Shapes::default()).expect("it compiles")
}

/// What a proxy makes of it; nothing may be refused.
fn told(view: &View) -> fairlead_model::Snapshot {
    let dynamic = fairlead_xds::Dynamic {
        is_delta: true,
        listeners: true,
        clusters: true,
        ..fairlead_xds::Dynamic::default()
    };
    let mut session = Session::new(dynamic, fairlead_model::Snapshot::default());
    let mut stream = fairlead_xds::serve::Stream::new(fairlead_xds::serve::Dialect::Delta);
    let now = |seconds| Moment::new(std::time::Duration::from_secs(seconds));
    let mut requests = session.begin(now(0));
    for _ in 0..50 {
        for request in std::mem::take(&mut requests) {
            stream.take(&request).expect("a request");
        }
        for response in stream.tell(view) {
            let outside = fairlead_xds::Outside {
                read: &|_| Err(std::io::ErrorKind::NotFound.into()),
                check: &|_| Ok(()),
            };
            let step = session
                .take(&response, outside, now(1))
                .expect("a response");
            assert_eq!(step.refused, None);
            requests.extend(step.requests);
        }
    }
    session.settle(now(1));
    // The proxy's own certificate does not come from here, and is waited for no longer.
    session.settle(now(60)).expect("something is used")
}

#[test]
fn a_service_is_spoken_to_in_the_ways_of_its_ports() {
    let snapshot = told(&view(&facts()));
    let clusters: Vec<&str> = snapshot.clusters.keys().map(|name| &**name).collect();
    assert_eq!(
        clusters,
        [
            "application/http1",
            "application/http2",
            "application/tcp",
            "cart.shop:6379/tcp",
            "cart.shop:80/http1",
            "cart.shop:80/http2",
            "cart.shop:80/tcp",
            "passthrough",
        ]
    );
    let routes: Vec<&String> = snapshot.routes.keys().collect();
    assert_eq!(routes, ["cart.shop:80/http1", "cart.shop:80/http2"]);
    let endpoints = &snapshot.endpoints["cart.shop:80"].localities[0].endpoints;
    let secured: Vec<bool> = endpoints
        .iter()
        .map(|own| !own.socket_labels.is_empty())
        .collect();
    assert_eq!(secured, [true, false], "one has a proxy; one is not ready");
    let tls = &snapshot.clusters["cart.shop:80/http1"].sockets[0].tls;
    let tls = tls.as_ref().expect("it is secured");
    assert_eq!(tls.common.names.len(), 1);
    assert_eq!(tls.server_name.as_deref(), Some(names::SNI_HTTP1));
}

#[test]
fn connections_are_told_apart_by_where_they_go_and_what_they_speak() {
    let snapshot = told(&view(&facts()));
    let listener = &snapshot.listeners["outbound"];
    let chains = ChainIndex::of(listener);
    let chain = |to: &str, protocols: &[&str]| {
        let arrived = fairlead_model::listener::Arrived {
            destination: to.parse().ok(),
            source: None,
            server_name: None,
            transport: fairlead_model::listener::Transport::Plain,
            protocols,
        };
        let found = chains.find(listener, &arrived)?;
        let mut all = listener.chains.iter().chain(&listener.default_chain);
        all.nth(found).map(|chain| chain.name.clone())
    };
    for (to, protocols, expected) in [
        ("10.0.0.1:80", &["http/1.1"][..], "cart.shop:80/http1"),
        ("10.0.0.1:80", &["h2c"], "cart.shop:80/http2"),
        ("10.0.0.1:80", &[], "cart.shop:80/tcp"),
        ("10.0.0.1:6379", &["http/1.1"], "cart.shop:6379/tcp"),
        ("10.0.0.1:81", &["http/1.1"], "passthrough"),
        ("192.0.2.1:80", &["http/1.1"], "passthrough"),
    ] {
        assert_eq!(
            chain(to, protocols).as_deref(),
            Some(expected),
            "{to} {protocols:?}"
        );
    }
}

#[test]
fn a_pod_that_leaves_changes_its_endpoints_alone() {
    let before = facts();
    let mut after = before.clone();
    let slices = after
        .slices
        .get_mut(&key("shop", "cart"))
        .expect("it is there");
    let slice = slices.get_mut("cart-x").expect("it is there");
    Arc::make_mut(slice).endpoints[0].is_ready = false;
    let (before, after) = (view(&before), view(&after));
    let changed = |kind: Kind, name: &str| before.get(kind, name) != after.get(kind, name);
    assert!(changed(Kind::Endpoints, "cart.shop:80"));
    assert!(!changed(Kind::Cluster, "cart.shop:80/http1"));
    assert!(!changed(Kind::Listener, "outbound"));
}

#[test]
fn what_is_spoken_follows_the_port() {
    for (app_protocol, name, number, expected) in [
        (Some("http"), "x", 80, Spoken::Http),
        (Some("kubernetes.io/h2c"), "http", 80, Spoken::Http2),
        (None, "http-web", 80, Spoken::Http),
        (None, "grpc", 80, Spoken::Http2),
        (None, "https", 443, Spoken::Tcp),
        (None, "", 5432, Spoken::Tcp),
        (None, "db", 5432, Spoken::Tcp),
        (None, "", 8080, Spoken::Detected),
        (Some("example.com/own"), "http", 80, Spoken::Detected),
    ] {
        assert_eq!(
            Spoken::of(app_protocol, name, number),
            expected,
            "{app_protocol:?} {name}"
        );
    }
}
