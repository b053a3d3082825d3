//! A cluster that is made up from a seed, and changes: few names that are alike, so that much has to do with much.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use fairlead_crds::mesh::{MeshAuthorization, MeshPolicy};
use fairlead_mesh::facts::{
    Endpoint, Facts, Key, Pod, Port, Probe, Readiness, Service, Slice, Spoken,
};
use fairlead_plan::Kind as _;
use fairlead_plan::mesh::{MeshAuthorizationKind, MeshPolicyKind, spiffe};
use fastrand::Rng;
use serde_json::{Map, Value, json};

const DOMAIN: &str = "cluster.local";
/// The namespaces; Envoy's pod is in the first.
const NAMESPACES: [&str; 3] = [
    "shop",
    "pay",
    "of-a-team-with-the-longest-name-that-there-may-be-0123456789-01",
];
const SERVICES: [&str; 6] = [
    "cart",
    "web",
    "db",
    "a",
    "0-1",
    "till-with-more-to-its-name",
];
const ACCOUNTS: [&str; 3] = ["cart", "web", "default"];
const PORTS: [u16; 9] = [80, 443, 8080, 3306, 6379, 9090, 50051, 1, 65535];
const TARGETS: [u16; 4] = [80, 8080, 9090, 50051];
const SPOKEN: [Spoken; 4] = [Spoken::Http, Spoken::Http2, Spoken::Tcp, Spoken::Detected];
const TIMES: [&str; 7] = ["1ms", "500ms", "2s", "10s", "1m30s", "1h", "24h"];
const PODS: u8 = 8;

/// See the module.
pub struct Made {
    random: Rng,
    facts: Facts,
    /// How many services were given addresses.
    addressed: u32,
}

impl Made {
    pub fn new(seed: u64) -> Self {
        let mut made = Self {
            random: Rng::with_seed(seed),
            facts: Facts::default(),
            addressed: 0,
        };
        made.anew();
        made
    }

    /// The cluster after something happened to it.
    pub fn change(&mut self) -> &Facts {
        for _ in 0..self.random.u32(1..4) {
            let namespace = self.one(&NAMESPACES);
            match self.random.u32(..16) {
                0 => self.anew(),
                1..=3 => self.put_service(namespace),
                4 => {
                    let key = (namespace.into(), self.one(&SERVICES).into());
                    self.facts.services.remove(&key);
                    self.facts.slices.remove(&key);
                }
                5..=8 => {
                    let keys: Vec<Key> = self.facts.services.keys().cloned().collect();
                    if let Some(key) = self.random.choice(keys) {
                        self.put_slices(&key);
                    }
                }
                9..=10 => self.put_pods(namespace),
                11..=13 => self.put_policies(namespace),
                _ => self.put_authorizations(namespace),
            }
        }
        &self.facts
    }

    fn anew(&mut self) {
        self.facts = Facts::default();
        for namespace in NAMESPACES {
            for _ in 0..self.random.u32(..4) {
                self.put_service(namespace);
            }
            self.put_pods(namespace);
            self.put_policies(namespace);
            self.put_authorizations(namespace);
        }
    }

    fn one<T: Copy>(&mut self, some: &[T]) -> T {
        some[self.random.usize(..some.len())]
    }

    fn often(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }

    /// Some of these, each at most once.
    fn some<T: Copy>(&mut self, all: &[T], least: usize, most: usize) -> Vec<T> {
        let mut all = all.to_vec();
        self.random.shuffle(&mut all);
        all.truncate(self.random.usize(least..=most.min(all.len())));
        all
    }

    fn put_service(&mut self, namespace: &str) {
        let name = self.one(&SERVICES);
        let ports = self.some(&PORTS, 1, 4);
        let is_only = ports.len() == 1;
        let ports = ports.iter().map(|number| Port {
            number: *number,
            name: match is_only {
                true => "".into(),
                false => format!("p{number}").into(),
            },
            spoken: self.one(&SPOKEN),
        });
        let ports = ports.collect();
        let service = Service {
            addresses: self.addresses(),
            ports,
            selector: match self.often(90) {
                true => BTreeMap::from([("app".to_owned(), name.to_owned())]),
                false => BTreeMap::new(),
            },
        };
        let key: Key = (namespace.into(), name.into());
        self.facts.services.insert(key.clone(), Arc::new(service));
        self.put_slices(&key);
    }

    /// Addresses of a service, which no other has or had.
    fn addresses(&mut self) -> BTreeSet<IpAddr> {
        self.addressed += 1;
        let number = self.addressed;
        let v4 = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 0).to_bits() + number);
        let v6 = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, (number >> 16) as u16, number as u16);
        match self.random.u32(..10) {
            0..=1 => BTreeSet::new(),
            2 => BTreeSet::from([v6.into()]),
            3..=4 => BTreeSet::from([v4.into(), v6.into()]),
            _ => BTreeSet::from([v4.into()]),
        }
    }

    fn put_slices(&mut self, key: &Key) {
        let Some(service) = self.facts.services.get(key).cloned() else {
            return;
        };
        let mut slices = BTreeMap::new();
        for number in 0..self.random.u32(..4) {
            let mut ports = Vec::new();
            for port in &service.ports {
                if self.often(85) {
                    ports.push((Arc::clone(&port.name), self.one(&TARGETS)));
                }
            }
            let count = self.random.usize(..6);
            let endpoints = (0..count).map(|_| self.endpoint(&key.0)).collect();
            let slice = Slice { ports, endpoints };
            slices.insert(format!("{}-{number}", key.1).into(), Arc::new(slice));
        }
        self.facts.slices.insert(key.clone(), slices);
    }

    /// A pod of a namespace always has the same addresses.
    fn endpoint(&mut self, namespace: &str) -> Endpoint {
        let place = NAMESPACES.iter().position(|own| *own == namespace);
        let place = u8::try_from(place.unwrap_or_default()).expect("there are few");
        let pod = self.random.u8(..PODS);
        let address = match self.often(80) {
            true => Ipv4Addr::new(10, 1, place, pod + 1).into(),
            false => Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, place.into(), u16::from(pod) + 1).into(),
        };
        let pod = self
            .often(90)
            .then(|| (namespace.into(), format!("pod-{pod}").into()));
        Endpoint {
            address,
            readiness: match self.often(80) {
                true => Readiness::Ready,
                false => self.one(&[Readiness::Ending, Readiness::Not]),
            },
            zone: self.one(&["", "eu-1a", "eu-1b"]).into(),
            pod,
        }
    }

    /// Which pods have a proxy; Envoy's own always does.
    fn put_pods(&mut self, namespace: &str) {
        self.facts.pods.retain(|(own, _), _| **own != *namespace);
        let mut pods: Vec<String> = (0..PODS).map(|pod| format!("pod-{pod}")).collect();
        pods.retain(|_| self.often(60));
        if namespace == NAMESPACES[0] {
            pods.push("web-1".to_owned());
        }
        for name in pods {
            let account = match name.as_str() {
                "web-1" => "web",
                _ => self.one(&ACCOUNTS),
            };
            let app = self.one(&SERVICES).to_owned();
            let probes = self.some(&["/", "/healthz", "/ready/now"], 0, 2);
            let probes = probes.iter().map(|path| Probe {
                port: self.one(&TARGETS),
                method: "GET",
                path: (*path).to_owned(),
            });
            let pod = Pod {
                probes: probes.collect(),
                id: spiffe(DOMAIN, namespace, account).parse().expect("an id"),
                labels: BTreeMap::from([("app".to_owned(), app)]),
            };
            let key = (namespace.into(), name.into());
            self.facts.pods.insert(key, Arc::new(pod));
        }
    }

    fn targets(&mut self, namespace: &str) -> Value {
        let wide = json!([{"kind": "Namespace", "name": namespace}]);
        if self.often(30) {
            return wide;
        }
        let services = self.some(&SERVICES, 1, 3);
        let mut targets: Vec<Value> = services
            .iter()
            .map(|name| json!({"kind": "Service", "name": name}))
            .collect();
        if self.often(30) {
            targets.push(json!({"kind": "Namespace", "name": namespace}));
        }
        json!(targets)
    }

    fn put_policies(&mut self, namespace: &str) {
        let mut all = Vec::new();
        for number in 0..self.random.u32(..4) {
            let mut spec = self.behaviour();
            spec.insert("targetRefs".to_owned(), self.targets(namespace));
            if self.often(20) {
                let from = json!({
                    "namespaces": self.some(&NAMESPACES, 0, 2),
                    "serviceAccounts": self.some(&["shop/web", "pay/cart"], 0, 2),
                });
                spec.insert("from".to_owned(), from);
            }
            let own = json!({
                "apiVersion": "mesh.fairlead.dev/v1alpha1",
                "kind": "MeshPolicy",
                "metadata": {"name": format!("policy-{number}"), "namespace": namespace},
                "spec": spec,
            });
            let own: MeshPolicy = serde_json::from_value(own).expect("a policy");
            if MeshPolicyKind::validate(&own).is_ok() {
                all.push(Arc::new(own));
            }
        }
        self.facts.policies.insert(namespace.into(), all);
    }

    /// What a policy says, each field as far as its schema goes.
    fn behaviour(&mut self) -> Map<String, Value> {
        let of_random = &mut self.random.fork();
        let mut number = |least: u32, most: u32| match of_random.u32(..4) {
            0 => json!(least),
            1 => json!(most),
            _ => json!(of_random.u32(least..=most)),
        };
        let limit = number(1, 1_000_000);
        let fields = [
            ("timeouts", "request", json!(self.one(&TIMES))),
            ("timeouts", "backendRequest", json!(self.one(&TIMES))),
            ("timeouts", "idle", json!(self.one(&TIMES))),
            ("retries", "attempts", number(0, 10)),
            ("retries", "budgetPercent", number(1, 100)),
            ("retries", "retryOn", json!(self.some(&CONDITIONS, 1, 5))),
            ("hedging", "afterPercentile", number(50, 99)),
            ("circuitBreaker", "maxConnections", limit.clone()),
            ("circuitBreaker", "maxRequests", limit),
            ("circuitBreaker", "maxPendingRequests", number(1, 1000)),
            ("circuitBreaker", "consecutiveFailures", number(1, 1000)),
            ("circuitBreaker", "maxRestingPercent", number(1, 100)),
            ("loadBalancer", "algorithm", json!(self.one(&ALGORITHMS))),
        ];
        let mut said: Map<String, Value> = Map::new();
        for (name, value) in self.more() {
            if self.often(30) {
                said.insert(name.to_owned(), value);
            }
        }
        for (part, field, value) in fields {
            if self.often(40) {
                let part = said.entry(part).or_insert_with(|| json!({}));
                part[field] = value;
            }
        }
        if let Some(hedging) = said.get_mut("hedging")
            && self.random.bool()
        {
            hedging["extraPercent"] = number(1, 50);
        }
        said
    }

    /// Fields of a policy that say something as a whole.
    fn more(&mut self) -> [(&'static str, Value); 6] {
        let class = |class: &str, parts: Value| {
            let mut own = parts;
            own["class"] = json!(class);
            own
        };
        let classes = [
            class("Failure", json!({"statusFrom": 404, "statusTo": 404})),
            class("Success", json!({"statusFrom": 100})),
            class("Retryable", json!({"grpcStatuses": [0, 8, 16]})),
            class("Failure", json!({"statusTo": 599, "grpcStatuses": [2]})),
        ];
        let mut fault =
            json!({"until": self.one(&["2026-06-01T12:00:00Z", "2999-12-31T23:59:59Z"])});
        if self.often(70) {
            fault["delay"] = json!({"by": self.one(&TIMES), "percent": self.one(&[1, 50, 100])});
        }
        if self.often(70) {
            fault["abort"] = json!({"status": self.one(&[200, 503, 599]), "percent": 100});
        }
        if self.often(50) {
            fault["maxActive"] = json!(self.one(&[1, 100_000]));
        }
        let rate = json!({
            "requests": self.one(&[1, 100, 1_000_000]),
            "per": self.one(&["Second", "Minute", "Hour"]),
            "of": self.one(&["Everybody", "Caller"]),
        });
        let mirror = json!({
            "service": self.one(&SERVICES),
            "percent": self.one(&[1, 100]),
            "anyMethod": self.random.bool(),
        });
        let least = self.random.usize(1..=classes.len());
        [
            ("responseClasses", json!(classes[..least])),
            ("mirror", mirror),
            ("fault", fault),
            ("rateLimit", rate),
            (
                "inbound",
                json!(self.one(&["Permissive", "Strict", "Deny"])),
            ),
            ("egress", json!(self.one(&["Allow", "Deny"]))),
        ]
    }

    fn put_authorizations(&mut self, namespace: &str) {
        let mut all = Vec::new();
        for number in 0..self.random.u32(..3) {
            let rules: Vec<Value> = (0..self.random.u32(..4)).map(|_| self.rule()).collect();
            let mut own = json!({
                "apiVersion": "mesh.fairlead.dev/v1alpha1",
                "kind": "MeshAuthorization",
                "metadata": {"name": format!("authorization-{number}"), "namespace": namespace},
                "spec": {
                    "targetRefs": self.targets(namespace),
                    "action": self.one(&["Allow", "Allow", "Deny", "Audit"]),
                    "enforcement": self.one(&["Enforced", "Enforced", "DryRun"]),
                    "rules": rules,
                },
            });
            if self.often(40) {
                own["spec"]["jwt"] =
                    json!({"issuers": [self.issuer("programs"), self.issuer("people")]});
            }
            if self.often(30) {
                own["spec"]["external"] = json!({
                    "service": {"name": self.one(&SERVICES), "port": self.one(&PORTS)},
                    "onFailure": self.one(&["Deny", "Allow"]),
                    "headers": self.some(&["authorization", "x-user"], 0, 2),
                });
            }
            let own: MeshAuthorization = serde_json::from_value(own).expect("an authorization");
            // One that nobody checked counts, too.
            if self.often(20) || MeshAuthorizationKind::validate(&own).is_ok() {
                all.push(Arc::new(own));
            }
        }
        self.facts.authorizations.insert(namespace.into(), all);
    }

    /// An issuer whose keys are given, or of no use. Envoy waits for a host of keys that nobody answers for, so none are fetched.
    fn issuer(&mut self, name: &str) -> Value {
        let key = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
        let jwks = match self.random.u32(..10) {
            0 => json!({"inline": "nonsense"}),
            _ => json!({"inline": key}),
        };
        json!({"issuer": name, "audiences": self.some(&["shop", "bank"], 0, 2), "jwks": jwks})
    }

    fn rule(&mut self) -> Value {
        let mut rule = json!({});
        if self.often(20) {
            let path = self.some(&["roles", "realm", "a.b"], 1, 3);
            let values = self.some(&["team", "1", "true", "dev-*", "*"], 1, 3);
            rule["claims"] = json!([{"path": path, "values": values}]);
        }
        if self.often(70) {
            rule["from"] = json!({
                "serviceAccounts": self.some(&["shop/web", "pay/cart", "nonsense"], 0, 2),
                "namespaces": self.some(&NAMESPACES, 0, 2),
                "networks": self.some(&["10.0.0.0/8", "fd00::/8", "0.0.0.0/0", "10.1.0.1/32"], 0, 2),
                "principals": self.some(&["programs/a", "people/*", "p*"], 0, 1),
            });
        }
        if self.often(70) {
            rule["to"] = json!({
                "ports": self.some(&PORTS, 0, 3),
                "methods": self.some(&["GET", "POST", "BREW"], 0, 2),
                "paths": self.some(&["/", "/*", "/carts/*", "/a%20b", "/(.*"], 0, 3),
                "hosts": self.some(&["cart", "*.shop.example"], 0, 2),
            });
            if self.often(30) {
                rule["to"]["headers"] =
                    json!([{"name": "x-team", "values": self.some(&["shop", "dev-*"], 0, 2)}]);
            }
        }
        rule
    }
}

const CONDITIONS: [&str; 5] = [
    "ConnectFailure",
    "RefusedStream",
    "Reset",
    "GatewayError",
    "ServerError",
];
const ALGORITHMS: [&str; 4] = ["LeastLatency", "LeastRequest", "RoundRobin", "Random"];

/// Where the endpoints of clusters are, for those whose endpoints the control plane names.
pub fn endpoints(facts: &Facts) -> BTreeMap<String, BTreeSet<SocketAddr>> {
    let mut all = BTreeMap::new();
    for (key, service) in &facts.services {
        if service.addresses.is_empty() {
            continue;
        }
        for port in &service.ports {
            let callable = facts.callable(key, port).into_iter();
            let found: BTreeSet<SocketAddr> = callable.map(|(_, address)| address).collect();
            let ways: &[&str] = match port.spoken {
                Spoken::Http => &["http1", "http2"],
                Spoken::Http2 => &["http2"],
                Spoken::Tcp => &["tcp"],
                Spoken::Detected => &["http1", "http2", "tcp"],
            };
            for way in ways {
                let name = format!("{}.{}:{}/{way}", key.1, key.0, port.number);
                all.insert(name, found.clone());
            }
        }
    }
    all
}
