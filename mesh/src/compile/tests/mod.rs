mod counted;
mod kept;
mod policies;
mod programs;
mod workloads;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use fairlead_model::Moment;
use fairlead_model::balance::Policy;
use fairlead_model::chains::ChainIndex;
use fairlead_model::cluster::{Address, Discovery};
use fairlead_model::filter::{Asked, Authorization, Filter};
use fairlead_model::hedge::HedgeAfter;
use fairlead_model::listener::{Arrived, Chain, Handler, Listener, Transport};
use fairlead_model::route::{Action, RequestHead};
use fairlead_model::tls::Peer;
use fairlead_xds::Session;
use http::{HeaderMap, Method};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::*;
use crate::facts::{Endpoint, Key, Pod, Port, Probe, Readiness, Service, Slice, Spoken};

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
        selector: BTreeMap::from([("app".to_owned(), "cart".to_owned())]),
    })
}

fn endpoint(last: u8, pod: Option<Key>, readiness: Readiness) -> Endpoint {
    Endpoint {
        address: [10, 1, 0, last].into(),
        readiness,
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
            endpoint(1, Some(pod.clone()), Readiness::Ready),
            endpoint(2, Some(key("shop", "cart-2")), Readiness::Ready),
            endpoint(3, None, Readiness::Not),
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
            labels: BTreeMap::from([("app".to_owned(), "cart".to_owned())]),
            probes: vec![Probe {
                port: 8080,
                method: "GET",
                path: "/healthz".to_owned(),
            }],
        }),
    );
    facts
}

/// What the proxy of the pod cart-1 is told.
fn view(facts: &Facts) -> View {
    let compiled = Compiler::default()
        .compile(&Arc::new(facts.clone()), "roots")
        .expect("it compiles");
    let pod = key("shop", "cart-1");
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse();
    compiled
        .view(&pod, &id.expect("an id"))
        .expect("it is known")
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

/// The listener that takes what a pod sends to an address.
fn taken_by(snapshot: &fairlead_model::Snapshot, to: SocketAddr) -> &Listener {
    let outbound = &snapshot.listeners["outbound"];
    assert!(outbound.binds && outbound.hands_over);
    let mut others = snapshot.listeners.values().filter(|own| !own.binds);
    let other = others.find(|own| own.address == Address::Socket(to));
    other.unwrap_or(outbound)
}

/// The chain of what a pod sends to an address.
fn chosen(
    snapshot: &fairlead_model::Snapshot,
    to: &str,
    transport: Transport,
    protocols: &[&str],
) -> Option<String> {
    let to: SocketAddr = to.parse().expect("an address");
    let listener = taken_by(snapshot, to);
    let arrived = Arrived {
        destination: Some(to),
        source: None,
        server_name: None,
        transport,
        protocols,
    };
    let found = ChainIndex::of(listener).find(listener, &arrived)?;
    let chain = listener.all_chains().nth(found);
    chain.map(|chain| chain.name.clone())
}

#[test]
fn connections_are_told_apart_by_where_they_go_and_what_they_speak() {
    let snapshot = told(&view(&facts()));
    let chain = |to, transport, protocols| chosen(&snapshot, to, transport, protocols);
    use Transport::{Plain, Tls};
    for (to, transport, protocols, expected) in [
        (
            "10.0.0.1:80",
            Plain,
            &["http/1.1"][..],
            "cart.shop:80/http1",
        ),
        ("10.0.0.1:80", Plain, &["h2c"], "cart.shop:80/http2"),
        ("10.0.0.1:80", Plain, &[], "cart.shop:80/tcp/plain"),
        // Whatever is spoken within it.
        ("10.0.0.1:80", Tls, &["http/1.1"], "cart.shop:80/tcp"),
        ("10.0.0.1:80", Tls, &[], "cart.shop:80/tcp"),
        ("10.0.0.1:6379", Plain, &["http/1.1"], "cart.shop:6379/tcp"),
        ("10.0.0.1:81", Plain, &["http/1.1"], "passthrough"),
        ("192.0.2.1:80", Plain, &["http/1.1"], "passthrough"),
    ] {
        assert_eq!(
            chain(to, transport, protocols).as_deref(),
            Some(expected),
            "{to} {transport:?} {protocols:?}"
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
    Arc::make_mut(slice).endpoints[0].readiness = Readiness::Not;
    let (before, after) = (view(&before), view(&after));
    let changed = |kind: Kind, name: &str| before.get(kind, name) != after.get(kind, name);
    assert!(changed(Kind::Endpoints, "cart.shop:80"));
    assert!(!changed(Kind::Cluster, "cart.shop:80/http1"));
    assert!(!changed(Kind::Listener, "outbound"));
    assert!(!changed(Kind::Listener, "outbound/cart.shop:80"));
}

#[test]
fn where_no_pod_is_ready_those_that_still_serve_are_called() {
    let called = |all: [Readiness; 2], is_unheard: bool| {
        let mut facts = facts();
        let cart = key("shop", "cart");
        let slices = facts.slices.get_mut(&cart).expect("it is there");
        let slice = slices.get_mut("cart-x").expect("it is there");
        let endpoints = &mut Arc::make_mut(slice).endpoints;
        for (own, readiness) in endpoints.iter_mut().zip(all) {
            own.readiness = readiness;
        }
        if is_unheard {
            facts.unheard.insert(key("shop", "cart-1"));
        }
        let told = told(&view(&facts));
        let own = told.endpoints.get("cart.shop:80").expect("it is told");
        let all = own.localities.iter().flat_map(|own| &own.endpoints);
        let all = all.map(|own| own.address.to_string());
        all.collect::<Vec<_>>()
    };
    let (first, second) = ("10.1.0.1:8080", "10.1.0.2:8080");
    let (ready, ending, not) = (Readiness::Ready, Readiness::Ending, Readiness::Not);
    assert_eq!(called([ending, ready], false), [second]);
    assert_eq!(called([ending, not], false), [first]);
    assert!(called([not, not], false).is_empty());
    // The node of the first is silent.
    assert_eq!(called([not, not], true), [first]);
    assert_eq!(called([not, ending], true), [first, second]);
    assert_eq!(called([not, ready], true), [second]);
}

#[test]
fn a_service_has_no_say_in_what_goes_to_pods_of_other_namespaces() {
    let mut facts = facts();
    let headless = |facts: &mut Facts, of: Key, pod: &Key| {
        let own = service([10, 0, 0, 9], &[(80, Spoken::Http)]);
        let mut own = Arc::unwrap_or_clone(own);
        own.addresses.clear();
        facts.services.insert(of.clone(), Arc::new(own));
        let slice = Slice {
            ports: vec![("p80".into(), 8080)],
            endpoints: vec![endpoint(1, Some(pod.clone()), Readiness::Ready)],
        };
        let slices = facts.slices.entry(of).or_default();
        slices.insert("by-hand".into(), Arc::new(slice));
    };
    let (own, other) = (key("shop", "cart-1"), key("bank", "pod-1"));
    let pod = Arc::clone(&facts.pods[&own]);
    facts.pods.insert(other.clone(), pod);
    facts.places.insert([10, 1, 0, 1].into(), own.clone());
    // It is the first in the order of names, and names the address of the other's pod as that of its own.
    headless(&mut facts, key("bank", "till"), &other);
    let chain = |facts: &Facts| {
        let snapshot = told(&view(facts));
        chosen(&snapshot, "10.1.0.1:8080", Transport::Plain, &["http/1.1"])
    };
    assert_eq!(chain(&facts).as_deref(), Some("passthrough"));
    headless(&mut facts, key("shop", "pods"), &own);
    assert_eq!(chain(&facts).as_deref(), Some("pods.shop:80/http1"));
}

#[test]
fn a_service_that_comes_changes_no_listener_of_another() {
    let before = facts();
    let mut after = before.clone();
    let other = service([10, 0, 0, 2], &[(80, Spoken::Detected)]);
    after.services.insert(key("shop", "till"), other);
    let listeners = |facts: &Facts| {
        let view = view(facts);
        let all = told(&view).listeners.into_keys();
        let told = all.map(|name| {
            let own = view.get(Kind::Listener, &name).cloned();
            (name, own.expect("it is told"))
        });
        told.collect::<BTreeMap<_, _>>()
    };
    let (before, mut after) = (listeners(&before), listeners(&after));
    assert!(after.remove("outbound/till.shop:80").is_some());
    assert_eq!(after, before);
}

#[test]
fn requests_are_counted_by_routes_that_there_are() {
    let facts = Arc::new(facts());
    let compiled = Compiler::default()
        .compile(&facts, "roots")
        .expect("it compiles");
    let (pod, cluster) = (key("shop", "cart-1"), "cart.shop:80/http1");
    let told = |called: Option<Called>| {
        called.map(|own| {
            format!(
                "{}/{}:{} {}",
                own.namespace, own.service, own.port, own.route
            )
        })
    };
    let http1 = Some("shop/cart:80 http1".to_owned());
    for (route, cluster, expected) in [
        (cluster, cluster, http1.clone()),
        // A stock Envoy tells of clusters alone.
        ("", cluster, http1),
        ("made/up", cluster, None),
        (cluster, "made.up:80/http1", None),
        ("", names::APPLICATION_HTTP1, None),
    ] {
        let called = compiled.called(Some(&pod), route, cluster);
        assert_eq!(told(called), expected, "{route} {cluster}");
    }
    for (route, expected) in [
        (names::OUTSIDE_HTTP2, Some("shop/cart:0 outside/http2")),
        (names::OUTSIDE_PROGRAM, Some("shop/cart:0 outside/program")),
        ("outside/made-up", None),
    ] {
        let served = told(compiled.served(&pod, route));
        assert_eq!(served.as_deref(), expected, "{route}");
    }
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

/// Whether requests and bytes of a caller come in to the pod cart-1, by what its proxy is told.
struct Door(Vec<Chain>);

/// Objects of the shop, of which only the specs are given; their names are a letter and their places.
fn objects<T: DeserializeOwned>(
    kind: &str,
    letter: &str,
    specs: &[serde_json::Value],
) -> Vec<Arc<T>> {
    let read = |(place, spec): (usize, &serde_json::Value)| {
        let own = json!({
            "apiVersion": "mesh.fairlead.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": format!("{letter}{place}"), "namespace": "shop"},
            "spec": spec,
        });
        Arc::new(serde_json::from_value(own).expect(kind))
    };
    specs.iter().enumerate().map(read).collect()
}

/// Puts authorizations, of which only the specs are given, in the place of those of the shop.
fn authorize(facts: &mut Facts, authorizations: &[serde_json::Value]) {
    facts.trust_domain = "cluster.local".into();
    let all = objects("MeshAuthorization", "a", authorizations);
    facts.authorizations = match all.is_empty() {
        true => BTreeMap::new(),
        false => BTreeMap::from([("shop".into(), all)]),
    };
}

impl Door {
    /// With these authorizations, of which only the specs are given.
    fn of(authorizations: &[serde_json::Value]) -> Self {
        Self::beside(facts(), authorizations)
    }

    fn beside(mut facts: Facts, authorizations: &[serde_json::Value]) -> Self {
        authorize(&mut facts, authorizations);
        let listener = &told(&view(&facts)).listeners["inbound"];
        let chains = listener.chains.iter().chain(&listener.default_chain);
        Self(chains.cloned().collect())
    }

    fn chain(&self, name: &str) -> &Chain {
        let mut chains = self.0.iter();
        chains.find(|own| own.name == name).expect("it is there")
    }

    /// Whether a request of an account (namespace/name; nobody where empty) passes.
    fn request(&self, account: &str, method: &Method, path: &str) -> bool {
        let (name, peer) = match account.split_once('/') {
            None => ("plain/http/1.1", Peer::Plain),
            Some((namespace, name)) => {
                let id = fairlead_plan::mesh::spiffe("cluster.local", namespace, name);
                (names::SNI_HTTP1, Peer::Known(id.parse().expect("an id")))
            }
        };
        let Handler::Http(http) = &self.chain(name).handler else {
            panic!("it carries requests");
        };
        let headers = HeaderMap::new();
        let head = RequestHead {
            method,
            authority: "cart",
            path,
            query: None,
            headers: &headers,
        };
        let guards = http.filters.iter().filter_map(|own| match &own.filter {
            Filter::Authorization(own) => Some(own),
            _ => None,
        });
        pass(guards, Some(head), &peer)
    }

    /// Whether a connection of bytes passes.
    fn bytes(&self) -> bool {
        pass(self.chain("plain/tcp").access.iter(), None, &Peer::Plain)
    }
}

fn pass<'a>(
    guards: impl Iterator<Item = &'a Arc<Authorization>>,
    head: Option<RequestHead<'_>>,
    peer: &Peer,
) -> bool {
    let asked = Asked {
        head,
        destination: "10.1.0.1:8080".parse().ok(),
        source: "10.9.0.9:1234".parse().ok(),
        caller: None,
        server_name: None,
        peer,
        metadata: None,
        scope: OnceCell::new(),
    };
    let mut rules = guards.filter_map(|own| own.rules.as_ref());
    rules.all(|rules| rules.decide(&asked).is_allowed)
}

#[test]
fn who_is_not_allowed_stays_outside_once_anybody_is() {
    let (get, post) = (&Method::GET, &Method::POST);
    let target = serde_json::json!([{"kind": "Service", "name": "cart"}]);
    let open = Door::of(&[serde_json::json!({
        "targetRefs": [{"kind": "Service", "name": "till"}],
        "rules": [],
    })]);
    assert!(
        open.request("", get, "/") && open.bytes(),
        "another service is meant"
    );
    let one = Door::of(&[serde_json::json!({
        "targetRefs": target,
        "rules": [{
            "from": {"serviceAccounts": ["shop/web"]},
            "to": {"methods": ["GET"], "paths": ["/carts/*", "/version"], "ports": [8080]},
        }],
    })]);
    assert!(one.request("shop/web", get, "/carts/1"));
    assert!(one.request("shop/web", get, "/version"));
    assert!(!one.request("shop/web", get, "/version/2"));
    assert!(!one.request("shop/web", post, "/carts/1"));
    assert!(!one.request("shop/webs", get, "/carts/1"));
    assert!(!one.request("", get, "/carts/1"));
    assert!(!one.bytes(), "what speaks no HTTP fits no rule of HTTP");
    // Kubelet has no identity, and asks what the pod says that it asks.
    assert!(one.request("", get, "/healthz"));
    assert!(!one.request("", post, "/healthz"));
}

#[test]
fn whom_one_denies_nobody_allows() {
    let get = &Method::GET;
    let namespace = serde_json::json!([{"kind": "Namespace", "name": "shop"}]);
    let all = serde_json::json!({
        "targetRefs": namespace,
        "rules": [{"from": {"namespaces": ["shop", "ops"], "networks": ["10.9.0.0/16"]}}],
    });
    let denial = |enforcement: &str| {
        serde_json::json!({
            "targetRefs": namespace,
            "action": "Deny",
            "enforcement": enforcement,
            "rules": [{"from": {"serviceAccounts": ["ops/robot"]}}],
        })
    };
    let door = Door::of(&[all.clone(), denial("Enforced")]);
    assert!(door.request("ops/jane", get, "/") && door.request("shop/web", get, "/"));
    assert!(
        door.request("", get, "/") && door.bytes(),
        "the network is allowed"
    );
    assert!(!door.request("ops/robot", get, "/"));
    // What is only tried lets everybody pass.
    let door = Door::of(&[all, denial("DryRun")]);
    assert!(door.request("ops/robot", get, "/"));
}

#[test]
fn a_proxy_is_told_nothing_before_its_pod_is_known() {
    let compiled = Compiler::default()
        .compile(&Arc::new(facts()), "roots")
        .expect("it compiles");
    let id = |account: &str| {
        let id = fairlead_plan::mesh::spiffe("cluster.local", "shop", account);
        id.parse().expect("an id")
    };
    assert!(compiled.view(&key("shop", "cart-1"), &id("cart")).is_some());
    assert!(compiled.view(&key("shop", "cart-2"), &id("cart")).is_none());
    assert!(compiled.view(&key("shop", "cart-1"), &id("till")).is_none());
}

#[test]
fn a_service_without_an_address_is_reached_where_its_proxies_are() {
    let mut facts = facts();
    let cart = key("shop", "cart");
    let mut service = (*facts.services[&cart]).clone();
    service.addresses.clear();
    facts.services.insert(cart, Arc::new(service));
    let snapshot = told(&view(&facts));
    let listener = &snapshot.listeners["outbound"];
    let chains = ChainIndex::of(listener);
    let chain = |to: &str| {
        let arrived = Arrived {
            destination: to.parse().ok(),
            source: None,
            server_name: None,
            transport: Transport::Plain,
            protocols: &["http/1.1"],
        };
        let found = chains.find(listener, &arrived).expect("one takes it");
        let mut all = listener.chains.iter().chain(&listener.default_chain);
        all.nth(found).map(|chain| chain.name.clone())
    };
    assert_eq!(
        chain("10.1.0.1:8080").as_deref(),
        Some("cart.shop:80/http1")
    );
    assert_eq!(
        chain("10.1.0.1:6379").as_deref(),
        Some("cart.shop:6379/tcp")
    );
    // One without a proxy, and a port that is none of the service's.
    assert_eq!(chain("10.1.0.2:8080").as_deref(), Some("passthrough"));
    assert_eq!(chain("10.1.0.1:80").as_deref(), Some("passthrough"));
    let cluster = &snapshot.clusters["cart.shop:80/http1"];
    assert!(matches!(
        cluster.discovery,
        Discovery::OriginalDestination(_)
    ));
    let tls = cluster.tls.as_ref().expect("it is secured");
    assert_eq!(tls.common.names.len(), 1);
}

#[test]
fn other_meshes_are_believed_for_their_own_names_alone() {
    let federated = |domain: &str| {
        let spec = json!({"federation": [{"trustDomain": domain, "bundle": "other"}]});
        let own = json!({
            "apiVersion": "mesh.fairlead.dev/v1alpha1",
            "kind": "MeshTrust",
            "metadata": {"name": "fairlead"},
            "spec": spec,
        });
        Facts {
            trust_domain: "cluster.local".into(),
            trust: Some(Arc::new(serde_json::from_value(own).expect("a MeshTrust"))),
            ..Facts::default()
        }
    };
    let both = believed(&federated("other.example"), "own");
    assert!(both.roots.is_empty());
    let domains = [("other.example", "other"), ("cluster.local", "own")];
    let domains = domains.map(|(domain, roots)| (domain.to_owned(), roots.as_bytes().to_vec()));
    assert_eq!(both.domains, domains);
    // Nobody else speaks for the own names.
    let own = believed(&federated("cluster.local"), "own");
    assert_eq!((own.roots, own.domains), (b"own".to_vec(), Vec::new()));
}
