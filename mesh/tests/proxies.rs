//! Proxies and the control plane, over real sockets: certificates, configuration, and what becomes of both when either goes.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fairlead_mesh::authority::Authority;
use fairlead_mesh::compile::names;
use fairlead_mesh::facts::{Facts, Key, Port, Service, Spoken};
use fairlead_model::Snapshot;
use fairlead_model::tls::Secret;
use fairlead_proxy::config;
use fairlead_xds::Kind;
use fairlead_xds::discovery::DELTA;
use prost::Message as _;
use serde_json::json;
use support::Control;
use support::caller::Visitor;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";
/// Listeners of a proxy beside those of the ports of services: what comes in, what goes out, and probes.
const LISTENERS: usize = 3;

/// Services of the namespace shop.
fn services(names: &[&str]) -> Facts {
    let mut facts = Facts::default();
    for (last, name) in (1..).zip(names) {
        let key: Key = ("shop".into(), (*name).into());
        let port = Port {
            number: 80,
            name: "http".into(),
            spoken: Spoken::Http,
        };
        let service = Service {
            addresses: [std::net::Ipv4Addr::new(10, 0, 0, last).into()].into(),
            ports: vec![port],
            selector: BTreeMap::new(),
        };
        facts.services.insert(key, Arc::new(service));
    }
    facts
}

/// Where a proxy's files are; gone when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The bootstrap of the proxy of the cart.
fn bootstrap(name: &str, control: &Control) -> (serde_json::Value, Folder) {
    let folder = std::env::temp_dir().join(format!("fairlead-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let port = control.address.port();
    let address = json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let own = control.bootstrap(("shop", "cart"), &folder, address);
    (own, Folder(folder))
}

/// A proxy's configuration.
struct Follower {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    _folder: Folder,
}

impl Follower {
    /// Starts with the token of an account, as [`support::Plain`] reads them.
    fn start(name: &str, control: &Control, token: &str) -> Self {
        let (own, folder) = bootstrap(name, control);
        std::fs::write(folder.0.join("cart.token"), token).expect("a file");
        Self {
            snapshots: follow(&own, config::Folders::default()),
            _folder: folder,
        }
    }

    /// Waits until the configuration is so.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let waited = timeout(PATIENCE, self.snapshots.wait_for(|own| is_so(own)));
        let found = waited.await.map(|own| own.expect("it runs").clone());
        found.unwrap_or_else(|_| panic!("{what}: {:?}", self.snapshots.borrow()))
    }
}

fn follow(
    bootstrap: &serde_json::Value,
    folders: config::Folders,
) -> watch::Receiver<Arc<Snapshot>> {
    let origin = config::Origin::Text(bootstrap.to_string());
    let first = config::read(&origin).unwrap_or_else(|error| panic!("{error}"));
    let (sender, snapshots) = watch::channel(Arc::default());
    let sources = watch::Sender::new(config::Sources::of(first.clone()));
    tokio::spawn(config::watch(origin, first, folders, sender, sources));
    snapshots
}

/// The chain of the proxy's own certificate.
fn chain(snapshot: &Snapshot) -> Option<Vec<u8>> {
    match snapshot.secrets.get(names::IDENTITY)? {
        Secret::Certificate(own) => Some(own.chain.clone()),
        Secret::Trust(_) => None,
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(PATIENCE, waiting).await.is_ok(), "{what}");
}

#[tokio::test]
async fn a_proxy_gets_its_certificate_and_then_its_configuration() {
    let mut control = Control::start(Duration::from_secs(3600)).await;
    control.tell(&services(&["cart"]));
    let mut proxy = Follower::start("whole", &control, "shop/cart");
    let whole = proxy
        .until("all came", |own| {
            !own.awaits_listeners && own.listeners.len() == LISTENERS + 1
        })
        .await;
    assert!(whole.clusters.contains_key("cart.shop:80/http1"));
    assert!(chain(&whole).is_some());
    until("the proxy is known with its bundle", || {
        let all = control.proxies.all();
        all.iter()
            .any(|own| own.id.as_str() == CART && own.node == "cart-1.shop" && own.trust.is_some())
    })
    .await;
    assert!(control.proxies.all()[0].refusals.is_empty());

    // The control plane goes; what was told stays, and what is new comes with the next one.
    control.stop.cancel();
    until("the proxy is gone", || control.proxies.all().is_empty()).await;
    assert_eq!(proxy.snapshots.borrow().listeners.len(), LISTENERS + 1);
    control.tell(&services(&["cart", "till"]));
    control.serve_again().await;
    let what = "what is new";
    proxy
        .until(what, |own| own.clusters.contains_key("till.shop:80/http1"))
        .await;
}

#[tokio::test]
async fn a_proxy_that_starts_without_the_control_plane_is_who_it_was_and_knows_what_it_knew() {
    let control = Control::start(Duration::from_secs(3600)).await;
    control.tell(&services(&["cart"]));
    let (own, folder) = bootstrap("again", &control);
    let folders = config::Folders {
        told: Some(folder.0.join("told")),
        identity: Some(folder.0.join("identity")),
    };
    let start = || Follower {
        snapshots: follow(&own, folders.clone()),
        _folder: Folder(folder.0.join("none")),
    };
    let is_whole = |own: &Snapshot| {
        let is_told = !own.awaits_listeners && own.listeners.len() == LISTENERS + 1;
        is_told && own.secrets.contains_key(names::BELIEVED) && chain(own).is_some()
    };
    let before = start().until("all came", is_whole).await;
    let told = folder.0.join("told/told.json");
    until("what was told is kept", || {
        let told = std::fs::read_to_string(&told).unwrap_or_default();
        told.contains("outbound/cart.shop:80")
    })
    .await;
    let told = std::fs::read_to_string(&told).expect("it is kept");
    assert!(!told.contains("tls_certificate\":"), "{told}");

    // Nobody signs, and nobody tells anything.
    control.stop.cancel();
    until("the proxy is gone", || control.proxies.all().is_empty()).await;
    let after = start().until("all is there", is_whole).await;
    assert!(
        chain(&after) == chain(&before),
        "another certificate is used"
    );

    // What cannot be used is as good as none, and told of.
    let identity = folder.0.join("identity/identity.json");
    let kept = std::fs::read_to_string(&identity).expect("it is kept");
    let mode = std::fs::metadata(&identity)
        .expect("it is there")
        .permissions();
    assert_eq!(
        std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777,
        0o600
    );
    std::fs::write(&identity, kept.replace("BEGIN PRIVATE", "BEGIN PUBLIC")).expect("a file");
    let mut broken = start();
    let what = "what was told is there";
    let without = broken.until(what, |own| own.listeners.len() == LISTENERS + 1);
    let without = without.await;
    assert!(
        chain(&without) != chain(&before),
        "a key that is none is used"
    );
}

/// `DeltaDiscoveryRequest`, as far as it is said here.
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(message, optional, tag = "1")]
    node: Option<Node>,
    #[prost(string, tag = "2")]
    kind: String,
}

/// `Node`.
#[derive(Clone, PartialEq, prost::Message)]
struct Node {
    #[prost(string, tag = "1")]
    id: String,
}

#[tokio::test]
async fn who_is_slow_to_take_what_it_is_told_holds_up_nobody() {
    let control = Control::start(Duration::from_secs(3600)).await;
    let names: Vec<String> = (0..250).map(|own| format!("service-{own}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    control.tell(&services(&names));
    let asks = [Kind::Cluster, Kind::Listener].map(|kind| Ask {
        node: Some(Node {
            id: "cart-1.shop".to_owned(),
        }),
        kind: kind.type_url(),
    });
    let asks = asks.map(|own| own.encode_to_vec()).to_vec();
    let mut slow = Vec::new();
    for _ in 0..40 {
        let visitor = Visitor::of(&control);
        let visitor = visitor.with_certificate(&control.slots, CART, time::Duration::ZERO);
        slow.push(visitor.open(DELTA, asks.clone()).await);
    }
    let mut proxy = Follower::start("beside", &control, "shop/cart");
    let all = names.len() * 2;
    let listeners = LISTENERS + names.len();
    let is_told = |own: &Snapshot| own.listeners.len() == listeners && own.clusters.len() > all;
    proxy.until("all came", is_told).await;
    assert_eq!(control.proxies.all().len(), slow.len() + 1);
    // What waits for the slow ones comes whole once they take it.
    let mut first = slow.remove(0);
    for _ in 0..2 {
        let answer = timeout(PATIENCE, first.message()).await;
        assert!(matches!(answer, Ok(Ok(Some(_)))), "{answer:?}");
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends() {
    let control = Control::start(Duration::from_secs(4)).await;
    let mut proxy = Follower::start("renewed", &control, "shop/cart");
    let first = proxy
        .until("a certificate", |own| chain(own).is_some())
        .await;
    let first = chain(&first);
    proxy
        .until("the next one", |own| {
            chain(own) != first && chain(own).is_some()
        })
        .await;
}

#[tokio::test]
async fn another_certificate_is_asked_for_when_the_control_plane_says_that_another_root_signs() {
    // Given a proxy whose file of roots stays as it is, and which would ask again after 27 seconds
    let mut control = Control::start(Duration::from_secs(60)).await;
    let mut proxy = Follower::start("rotated", &control, "shop/cart");
    let is_told = |own: &Snapshot| own.secrets.contains_key(names::BELIEVED);
    let first = proxy.until("it is told", is_told).await;
    // When another root signs, of which the replica that is asked does not know yet
    let now = OffsetDateTime::now_utc();
    control.slots = control.slots.prepared(support::root(), now);
    control.slots = control.slots.activated(false, now);
    control.tell(&services(&["cart"]));
    let second = proxy
        .until("another one", |own| chain(own) != chain(&first))
        .await;
    let next = control.slots.active().material.issuer.certificate.clone();
    let is_signed = |own: &Snapshot| {
        chain(own).is_some_and(|own| String::from_utf8_lossy(&own).contains(next.trim()))
    };
    assert!(!is_signed(&second));
    // Then it asks until it is that one's
    let authority = Authority::of(&control.slots).expect("an authority");
    control.authority.send_replace(Some(Arc::new(authority)));
    proxy.until("one of that root", is_signed).await;
}

#[tokio::test]
async fn who_is_somebody_else_is_told_nothing() {
    let control = Control::start(Duration::from_secs(3600)).await;
    for (name, token) in [("other", "shop/till"), ("nobody", "nonsense")] {
        let proxy = Follower::start(name, &control, token);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(chain(&proxy.snapshots.borrow()), None, "{name}");
        assert!(control.proxies.all().is_empty());
    }
}

#[tokio::test]
async fn without_a_certificate_there_is_no_configuration() {
    let control = Control::start(Duration::from_secs(3600)).await;
    let (mut bootstrap, _folder) = bootstrap("without", &control);
    bootstrap["bootstrap_extensions"] = json!([]);
    bootstrap["dynamic_resources"]["ads_config"]["grpc_services"][0]["envoy_grpc"]["cluster_name"] =
        json!("authority");
    let snapshots = follow(&bootstrap, config::Folders::default());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!snapshots.borrow().listeners.contains_key("inbound"));
    assert!(control.proxies.all().is_empty());
}
