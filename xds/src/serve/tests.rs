use std::collections::BTreeMap;
use std::io;
use std::sync::LazyLock;
use std::time::Duration;

use fairlead_model::{Moment, Snapshot};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{Dynamic, Outside, Session};

static SHAPES: LazyLock<Shapes> = LazyLock::new(Shapes::default);

/// A proxy and a control plane, with nothing but bytes between them.
struct Pair {
    session: Session,
    stream: Stream,
    dialect: Dialect,
    to_server: Vec<Vec<u8>>,
    to_client: Vec<Vec<u8>>,
    used: Snapshot,
    seconds: u64,
    /// How many resources were sent.
    sent: usize,
}

impl Pair {
    fn new(dialect: Dialect) -> Self {
        let dynamic = Dynamic {
            cluster: "control".to_owned(),
            is_delta: dialect == Dialect::Delta,
            listeners: true,
            clusters: true,
            metadata: Vec::new(),
            node: vec![0x0a, 1, b'n'],
        };
        let mut pair = Self {
            session: Session::new(dynamic, Snapshot::default()),
            stream: Stream::new(dialect),
            dialect,
            to_server: Vec::new(),
            to_client: Vec::new(),
            used: Snapshot::default(),
            seconds: 0,
            sent: 0,
        };
        pair.connect();
        pair
    }

    fn now(&mut self) -> Moment {
        self.seconds += 1;
        Moment::new(Duration::from_secs(self.seconds))
    }

    /// Opens another stream; what was on its way is lost.
    fn connect(&mut self) {
        self.stream = Stream::new(self.dialect);
        self.to_client.clear();
        let now = self.now();
        self.to_server = self.session.begin(now);
    }

    /// One message in each direction, as far as there is one; false where nothing was left to say.
    fn step(&mut self, view: &View) -> bool {
        let mut moved = false;
        if !self.to_server.is_empty() {
            let message = self.to_server.remove(0);
            self.stream.take(&message).expect("a request");
            moved = true;
        }
        for response in self.stream.tell(view) {
            self.sent += self.count(&response);
            self.to_client.push(response);
            moved = true;
        }
        if !self.to_client.is_empty() {
            let message = self.to_client.remove(0);
            let outside = Outside {
                read: &|_| Err(io::ErrorKind::NotFound.into()),
                check: &|_| Ok(()),
            };
            let now = self.now();
            let step = self
                .session
                .take(&message, outside, now)
                .expect("a response");
            self.to_server.extend(step.requests);
            moved = true;
        }
        let now = self.now();
        if let Some(next) = self.session.settle(now) {
            self.used = next;
        }
        moved
    }

    fn count(&self, response: &[u8]) -> usize {
        match self.dialect {
            Dialect::Delta => DeltaResponse::decode(response)
                .expect("a response")
                .resources
                .len(),
            Dialect::State => StateResponse::decode(response)
                .expect("a response")
                .resources
                .len(),
        }
    }

    /// Until nobody has anything to say; what is not there is waited for no longer.
    fn rest(&mut self, view: &View) {
        for round in 0.. {
            assert!(round < 200, "they never end");
            if !self.step(view) {
                break;
            }
        }
        self.seconds += 60;
        let now = self.now();
        if let Some(next) = self.session.settle(now) {
            self.used = next;
        }
    }

    fn names(&self) -> (Vec<String>, Vec<String>, Vec<String>, Vec<String>) {
        let used = &self.used;
        (
            used.clusters.keys().map(|name| name.to_string()).collect(),
            used.endpoints.keys().cloned().collect(),
            used.listeners.keys().cloned().collect(),
            used.routes.keys().cloned().collect(),
        )
    }
}

fn cluster(name: &str, seconds: u8) -> Value {
    json!({"name": name, "type": "EDS", "connect_timeout": format!("{seconds}s"), "eds_cluster_config": {"eds_config": {"ads": {}}}})
}

fn endpoints(name: &str, port: u8) -> Value {
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]})
}

fn listener(name: &str) -> Value {
    const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions.filters";
    json!({
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 15001}},
        "filter_chains": [{"filters": [{
            "name": "http",
            "typed_config": {
                "@type": format!("{EXTENSIONS}.network.http_connection_manager.v3.HttpConnectionManager"),
                "stat_prefix": "http",
                "rds": {"route_config_name": name, "config_source": {"ads": {}}},
                "http_filters": [{
                    "name": "router",
                    "typed_config": {"@type": format!("{EXTENSIONS}.http.router.v3.Router")},
                }],
            },
        }]}],
    })
}

fn routes(name: &str, to: &str) -> Value {
    json!({"name": name, "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": to}}],
    }]})
}

/// Services by name, with what may change of each; each has a listener, routes, a cluster and endpoints.
type Services = BTreeMap<u8, (u8, u8)>;

/// In two layers, by whether their numbers are even.
fn layers(services: &Services) -> [Resources; 2] {
    let mut layers = [Resources::default(), Resources::default()];
    for (number, (timeout, port)) in services {
        let name = format!("s{number}");
        let all = &mut layers[usize::from(number % 2)];
        let mut put = |kind, value: Value| {
            let resource = Resource::of(&SHAPES, kind, &value).expect("a resource");
            all.put(kind, name.as_str(), resource);
        };
        put(Kind::Cluster, cluster(&name, timeout + 1));
        put(Kind::Endpoints, endpoints(&name, port + 1));
        put(Kind::Listener, listener(&name));
        put(Kind::Routes, routes(&name, &name));
    }
    layers
}

fn view(services: &Services) -> View {
    View::of(layers(services).map(Arc::new).to_vec())
}

/// The view after another, with which it shares what did not change.
fn view_after(services: &Services, before: &mut [Arc<Resources>; 2]) -> View {
    let [even, odd] = layers(services);
    *before = [even.after(&before[0]), odd.after(&before[1])].map(Arc::new);
    View::of(before.to_vec())
}

#[test]
fn a_proxy_is_told_what_changed_and_nothing_else() {
    let mut services = Services::from_iter((0..20).map(|number| (number, (1, 1))));
    let mut pair = Pair::new(Dialect::Delta);
    pair.rest(&view(&services));
    assert_eq!(pair.used.endpoints.len(), 20);
    assert_eq!(pair.sent, 80);
    services.insert(7, (1, 99));
    pair.rest(&view(&services));
    assert_eq!(pair.sent, 81, "one service's endpoints changed");
    pair.connect();
    pair.rest(&view(&services));
    assert_eq!(
        pair.sent, 81,
        "a proxy that comes back is told nothing twice"
    );
}

#[test]
fn the_endpoints_of_a_cluster_that_changes_are_told_again() {
    for (dialect, expected) in [(Dialect::Delta, 2), (Dialect::State, 4)] {
        let mut services = Services::from([(1, (1, 1)), (2, (1, 1))]);
        let mut pair = Pair::new(dialect);
        pair.rest(&view(&services));
        let before = pair.sent;
        services.insert(1, (2, 1));
        pair.rest(&view(&services));
        assert_eq!(pair.sent - before, expected, "{dialect:?}");
    }
}

#[test]
fn what_is_wanted_still_and_gone_is_said_once() {
    let request = DeltaRequest {
        type_url: Kind::Routes.type_url(),
        resource_names_subscribe: vec!["s1".to_owned()],
        ..DeltaRequest::default()
    };
    let mut stream = Stream::new(Dialect::Delta);
    stream.take(&request.encode_to_vec()).expect("a request");
    let told = stream.tell(&view(&Services::from([(1, (1, 1))])));
    let told = DeltaResponse::decode(told[0].as_slice()).expect("a response");
    let request = DeltaRequest {
        type_url: Kind::Routes.type_url(),
        response_nonce: told.nonce,
        ..DeltaRequest::default()
    };
    stream.take(&request.encode_to_vec()).expect("a request");
    let told = stream.tell(&view(&Services::new()));
    let told = DeltaResponse::decode(told[0].as_slice()).expect("a response");
    assert_eq!(told.removed_resources, ["s1"]);
}

#[test]
fn the_same_content_has_the_same_version() {
    let value = json!({
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
        "type_url": "type.googleapis.com/a.Policy",
        "value": {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6},
    });
    let policy = json!({"typed_extension_config": {"name": "a", "typed_config": value}});
    let cluster = json!({"name": "cart", "load_balancing_policy": {"policies": [policy]}});
    let resource = || Resource::of(&SHAPES, Kind::Cluster, &cluster).expect("a resource");
    let first = resource();
    for _ in 0..20 {
        assert_eq!(resource().version(), first.version());
    }
}

#[test]
fn a_cluster_leaves_after_what_sends_to_it() {
    let mut pair = Pair::new(Dialect::Delta);
    let mut services = Services::from([(1, (1, 1)), (2, (1, 1))]);
    pair.rest(&view(&services));
    services.remove(&2);
    let next = view(&services);
    for _ in 0..50 {
        pair.step(&next);
        let missing = pair.used.missing_clusters();
        assert!(missing.is_empty(), "{missing:?}");
    }
    assert_eq!(pair.used.clusters.len(), 1);
}

#[test]
fn what_is_refused_is_known_and_is_not_told_again() {
    for dialect in [Dialect::Delta, Dialect::State] {
        let mut pair = Pair::new(dialect);
        let mut all = Resources::default();
        let mut wrong = cluster("s1", 1);
        wrong["lb_policy"] = json!("CLUSTER_PROVIDED");
        let wrong = Resource::of(&SHAPES, Kind::Cluster, &wrong).expect("a resource");
        all.put(Kind::Cluster, "s1", wrong.clone());
        let first = View::of(vec![Arc::new(all.clone())]);
        pair.rest(&first);
        let refusals: Vec<_> = pair.stream.refusals().collect();
        assert_eq!(refusals.len(), 1);
        assert!(
            refusals[0].1.starts_with(r#"clusters["s1"].lb_policy: "#),
            "{refusals:?}"
        );
        assert!(!pair.stream.has(Kind::Cluster, "s1", wrong.version()));
        let sent = pair.sent;
        pair.rest(&first);
        assert_eq!(pair.sent, sent);
        let good = Resource::of(&SHAPES, Kind::Cluster, &cluster("s1", 1)).expect("a resource");
        all.put(Kind::Cluster, "s1", good.clone());
        pair.rest(&View::of(vec![Arc::new(all)]));
        assert_eq!(pair.stream.refusals().count(), 0);
        assert!(pair.stream.has(Kind::Cluster, "s1", good.version()));
    }
}

#[test]
fn a_proxy_without_anything_to_be_told_gets_an_answer() {
    let mut pair = Pair::new(Dialect::Delta);
    pair.rest(&View::default());
    assert!(pair.stream.is_settled());
    assert!(pair.sent == 0 && pair.used.listeners.is_empty());
}

#[test]
fn what_is_asked_for_by_name_alone_and_goes_is_gone() {
    for dialect in [Dialect::State, Dialect::Delta] {
        let mut stream = Stream::new(dialect);
        assert!(!stream.is_by_name());
        let ask = |nonce: &str, names: &[&str]| {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            let (type_url, response_nonce) = (Kind::Listener.type_url(), nonce.to_owned());
            match dialect {
                Dialect::State => StateRequest {
                    resource_names: names,
                    type_url,
                    response_nonce,
                    ..StateRequest::default()
                }
                .encode_to_vec(),
                Dialect::Delta => DeltaRequest {
                    resource_names_subscribe: names,
                    type_url,
                    response_nonce,
                    ..DeltaRequest::default()
                }
                .encode_to_vec(),
            }
        };
        stream.take(&ask("", &["cart"])).expect("a request");
        assert!(stream.is_by_name() && stream.asks_for(Kind::Listener));
        let mut all = Resources::default();
        let own = Resource::of(&SHAPES, Kind::Listener, &listener("cart"));
        all.put(Kind::Listener, "cart", own.expect("a listener"));
        let there = View::of(vec![Arc::new(all)]);
        assert_eq!(stream.tell(&there).len(), 1);
        let again: &[&str] = match dialect {
            Dialect::State => &["cart"],
            Dialect::Delta => &[],
        };
        stream.take(&ask("1", again)).expect("a request");
        let told = stream.tell(&View::default());
        assert_eq!(told.len(), 1, "{dialect:?}");
        stream.take(&ask("2", again)).expect("a request");
        assert!(stream.tell(&View::default()).is_empty(), "{dialect:?}");
        // Whoever asks for all there is is a proxy.
        let mut stream = Stream::new(dialect);
        stream.take(&ask("", &[])).expect("a request");
        assert!(!stream.is_by_name());
    }
}

#[test]
fn what_is_no_request_is_refused() {
    for dialect in [Dialect::Delta, Dialect::State] {
        let mut stream = Stream::new(dialect);
        assert!(stream.take(&[0xff, 0xff]).is_err());
        let unknown = DeltaRequest {
            type_url: "type.googleapis.com/what.Ever".to_owned(),
            ..DeltaRequest::default()
        };
        if dialect == Dialect::Delta {
            assert_eq!(stream.take(&unknown.encode_to_vec()), Ok(Heard::default()));
        }
    }
    let mut stream = Stream::new(Dialect::Delta);
    let many = DeltaRequest {
        resource_names_subscribe: (0..=MOST_NAMES).map(|name| name.to_string()).collect(),
        ..DeltaRequest::of(Kind::Endpoints)
    };
    assert_eq!(
        stream.take(&many.encode_to_vec()),
        Err(RequestError::TooMany)
    );
}

/// Something that happens.
#[derive(Debug, Clone)]
enum Event {
    Service(u8, Option<(u8, u8)>),
    Steps(u8),
    Reconnect,
}

fn event() -> impl Strategy<Value = Event> {
    let service = (0..5u8, proptest::option::weighted(0.7, (0..3u8, 0..3u8)));
    prop_oneof![
        4 => service.prop_map(|(name, own)| Event::Service(name, own)),
        4 => (1..6u8).prop_map(Event::Steps),
        1 => Just(Event::Reconnect),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever changes, and whenever the stream ends, the proxy has in the end what it is to have.
    #[test]
    fn in_the_end_a_proxy_has_what_it_is_to_have(
        events in proptest::collection::vec(event(), 1..40),
        is_delta: bool,
        is_kept: bool,
    ) {
        let dialect = if is_delta { Dialect::Delta } else { Dialect::State };
        let mut before: [Arc<Resources>; 2] = Default::default();
        let mut services = Services::new();
        let mut pair = Pair::new(dialect);
        for event in events {
            match event {
                Event::Service(name, Some(own)) => drop(services.insert(name, own)),
                Event::Service(name, None) => drop(services.remove(&name)),
                Event::Reconnect => pair.connect(),
                Event::Steps(count) => {
                    let now = match is_kept {
                        true => view_after(&services, &mut before),
                        false => view(&services),
                    };
                    for _ in 0..count {
                        pair.step(&now);
                    }
                }
            }
        }
        pair.rest(&view(&services));
        let names: Vec<String> = services.keys().map(|number| format!("s{number}")).collect();
        prop_assert_eq!(pair.names(), (names.clone(), names.clone(), names.clone(), names));
        for (number, (timeout, _)) in &services {
            let name = format!("s{number}");
            let seconds = pair.used.clusters[name.as_str()].connect_timeout.as_secs();
            prop_assert_eq!(seconds, u64::from(*timeout) + 1);
        }
    }
}
