//! gRPC's own client as a client of the control plane: a program of Python that dials `xds:///service.namespace:port` calls what the
//! mesh tells it, as policies say.
//!
//! `FAIRLEAD_GRPC` names the folder with gRPC for Python; it is found by itself where `cargo xtask tools grpc` installs it.
//! `FAIRLEAD_GRPC_CALLS=10000` calls more often.

mod certificate;
#[path = "../../../proxy/tests/support/ports.rs"]
mod ports;
mod program;
mod routes;
#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_mesh::facts::{Endpoint, Facts, Key, Port, Readiness, Service, Slice, Spoken};
use jiff::Timestamp;
use program::{Client, Ended, Server, bootstrap, is_left_out};
use serde_json::{Value, json};
use support::Control;
use support::place::ruled;

/// How long anything may take: gRPC waits for ever longer until it asks a control plane again that was not there.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often every run calls.
const CALLS: u32 = 400;

fn calls() -> u32 {
    match std::env::var("FAIRLEAD_GRPC_CALLS") {
        Ok(text) => text.parse().expect("FAIRLEAD_GRPC_CALLS is a number"),
        Err(_) => CALLS,
    }
}

/// The service cart with these endpoints, each with its zone; its port 80 has the name grpc, and there is another.
fn cart(endpoints: &[(&Server, &str)]) -> Facts {
    let mut facts = Facts::default();
    let key: Key = ("shop".into(), "cart".into());
    let port = |number, name: &str, spoken| Port {
        number,
        name: name.into(),
        spoken,
    };
    let service = Service {
        addresses: [Ipv4Addr::new(10, 96, 0, 1).into()].into(),
        ports: vec![
            port(81, "metrics", Spoken::Http),
            port(80, "grpc", Spoken::Http2),
        ],
        selector: BTreeMap::new(),
    };
    facts.services.insert(key.clone(), Arc::new(service));
    let slices = facts.slices.entry(key).or_default();
    for (server, zone) in endpoints {
        let slice = Slice {
            ports: vec![("grpc".into(), server.address.port())],
            endpoints: vec![Endpoint {
                address: server.address.ip(),
                readiness: Readiness::Ready,
                zone: (*zone).into(),
                pod: None,
            }],
        };
        slices.insert(server.address.to_string().into(), Arc::new(slice));
    }
    facts
}

/// A control plane, and where a test's files are, which are gone with it.
struct Ground {
    control: Control,
    folder: PathBuf,
}

impl Ground {
    async fn new(name: &str) -> Self {
        Self::with(name, Duration::from_secs(3600)).await
    }

    async fn with(name: &str, leaf_life: Duration) -> Self {
        let folder =
            std::env::temp_dir().join(format!("fairlead-grpc-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self {
            control: Control::start(leaf_life).await,
            folder,
        }
    }

    fn client(&self, account: &str, target: &str) -> Client {
        let uri = format!("localhost:{}", self.control.address.port());
        let file = bootstrap(&self.folder, &self.control, account, &uri);
        Client::start(target, "plain", &file)
    }

    /// Nothing that it was told was refused.
    fn nothing_is_refused(&self) {
        for proxy in self.control.proxies.all() {
            assert!(proxy.refusals.is_empty(), "{proxy:?}");
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Calls until calls end so.
fn until(client: &mut Client, what: &Value, is_so: impl Fn(&Ended) -> bool) -> Ended {
    let begun = Instant::now();
    loop {
        let ended = client.ask(what);
        if is_so(&ended) {
            return ended;
        }
        assert!(begun.elapsed() < PATIENCE, "{ended:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn once(method: &str) -> Value {
    json!({"method": format!("/shop.Cart/{method}"), "count": 1})
}

/// Whether a share of so many is what chance makes of it in 999 of 1,000 times.
fn is_about(found: u32, all: u32, share: f64) -> bool {
    let all = f64::from(all);
    let most = 3.29 * (all * share * (1.0 - share)).sqrt();
    (f64::from(found) - all * share).abs() <= most
}

fn answered(ended: &Ended, name: &str) -> u32 {
    ended.answers.get(name).copied().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_finds_endpoints_and_each_gets_its_share() {
    if is_left_out() {
        return;
    }
    let ground = Ground::new("share").await;
    let servers = ["one", "two", "three", "four"].map(Server::start);
    let [one, two, three, four] = &servers;
    ground
        .control
        .tell(&cart(&[(one, "a"), (two, "a"), (three, "a"), (four, "b")]));
    for target in ["xds:///cart.shop:80", "xds:///cart.shop"] {
        let mut client = ground.client("web", target);
        // Until it is connected to all of them.
        until(
            &mut client,
            &json!({"method": "/shop.Cart/Get", "count": 20}),
            |own| own.answers.len() == 4,
        );
        let ended = client.call("Get", calls());
        assert!(ended.codes.is_empty(), "{ended:?}");
        for name in ["one", "two", "three", "four"] {
            let found = answered(&ended, name);
            assert!(is_about(found, calls(), 0.25), "{name}: {ended:?}");
        }
    }
    ground.nothing_is_refused();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_go_are_called_no_longer_and_calls_go_on_without_a_control_plane() {
    if is_left_out() {
        return;
    }
    let mut ground = Ground::new("gone").await;
    let servers = ["one", "two"].map(Server::start);
    let [one, two] = &servers;
    ground.control.tell(&cart(&[(one, ""), (two, "")]));
    let mut client = ground.client("web", "xds:///cart.shop:80");
    let many = json!({"method": "/shop.Cart/Get", "count": 10});
    until(&mut client, &many, |own| own.answers.len() == 2);
    ground.control.tell(&cart(&[(two, "")]));
    let ended = until(&mut client, &many, |own| answered(own, "two") == 10);
    assert!(ended.codes.is_empty(), "{ended:?}");
    // A service that is no longer there is nowhere, until it is there again.
    ground.control.tell(&Facts::default());
    until(&mut client, &many, |own| {
        own.codes.get("UNAVAILABLE") == Some(&10)
    });
    ground.control.tell(&cart(&[(two, "")]));
    until(&mut client, &many, |own| answered(own, "two") == 10);
    ground.nothing_is_refused();
    ground.control.stop.cancel();
    let ended = client.call("Get", calls());
    assert_eq!(answered(&ended, "two"), calls(), "{ended:?}");
    ground.control.tell(&cart(&[(one, "")]));
    ground.control.serve_again().await;
    until(&mut client, &many, |own| answered(own, "one") == 10);
    ground.nothing_is_refused();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_take_as_long_and_are_tried_as_often_as_policies_say() {
    if is_left_out() {
        return;
    }
    let ground = Ground::new("policies").await;
    let server = Server::start("one");
    let facts = cart(&[(&server, "")]);
    ground.control.tell(&facts);
    let mut client = ground.client("web", "xds:///cart.shop:80");
    let ended = until(&mut client, &once("Flaky"), |own| {
        own.said.contains_key("not the first time")
    });
    assert_eq!(ended.codes.get("UNAVAILABLE"), Some(&1));
    let policy = json!({
        "targetRefs": [{"kind": "Service", "name": "cart"}],
        "timeouts": {"request": "4s"},
        "retries": {"attempts": 2, "retryOn": ["ConnectFailure", "GatewayError"]},
        "loadBalancer": {"algorithm": "LeastRequest"},
        "circuitBreaker": {"maxRequests": 100, "consecutiveFailures": 5},
    });
    ground.control.tell(&ruled(facts, policy));
    until(&mut client, &once("Flaky"), |own| answered(own, "one") == 1);
    let ended = client.call("Flaky", 20);
    assert_eq!(answered(&ended, "one"), 20, "{ended:?}");
    // gRPC for Python takes a second or two off (https://github.com/grpc/grpc/issues/34547).
    let begun = Instant::now();
    let ended = client.call("Slow", 1);
    assert_eq!(ended.codes.get("DEADLINE_EXCEEDED"), Some(&1), "{ended:?}");
    let passed = begun.elapsed();
    assert!(
        (Duration::from_secs(1)..Duration::from_secs(5)).contains(&passed),
        "{passed:?}"
    );
    ground.nothing_is_refused();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_on_purpose_does_so_for_those_who_are_named_and_ends() {
    if is_left_out() {
        return;
    }
    let ground = Ground::new("faults").await;
    let server = Server::start("one");
    let facts = cart(&[(&server, "")]);
    let fault = |until: Timestamp, percent: u8| {
        json!({
            "targetRefs": [{"kind": "Service", "name": "cart"}],
            "from": {"serviceAccounts": ["shop/web"]},
            "fault": {
                "abort": {"status": 503, "percent": percent},
                "until": until.to_string(),
                "maxActive": 1000,
            },
        })
    };
    let later = Timestamp::now() + Duration::from_secs(3600);
    ground.control.tell(&ruled(facts.clone(), fault(later, 30)));
    let mut web = ground.client("web", "xds:///cart.shop:80");
    let mut other = ground.client("cart", "xds:///cart.shop:80");
    // Until it is connected.
    until(&mut web, &once("Get"), |own| answered(own, "one") == 1);
    let ended = web.call("Get", calls());
    let found = ended.codes.get("UNAVAILABLE").copied().unwrap_or_default();
    assert_eq!(ended.said.get("Fault injected"), Some(&found), "{ended:?}");
    assert!(is_about(found, calls(), 0.3), "{ended:?}");
    let ended = other.call("Get", calls());
    assert_eq!(answered(&ended, "one"), calls(), "{ended:?}");
    let soon = Timestamp::now() + Duration::from_secs(4);
    ground.control.tell(&ruled(facts, fault(soon, 100)));
    let many = json!({"method": "/shop.Cart/Get", "count": 20});
    until(&mut web, &many, |own| {
        own.codes.get("UNAVAILABLE") == Some(&20)
    });
    // Nobody tells the control plane that the time has come.
    until(&mut web, &once("Get"), |own| answered(own, "one") == 1);
    assert!(Timestamp::now().as_second() >= soon.as_second());
    ground.nothing_is_refused();
}
