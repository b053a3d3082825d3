//! A control plane over xDS: what it tells is used, what is wrong is refused, and while it is gone the last good configuration
//! stays.

#[path = "support/certificates.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod certificates;
#[path = "support/control.rs"]
mod control;
#[path = "support/ports.rs"]
mod ports;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use certificates::Authority;
use control::{Control, Heard};
use fairlead_model::Snapshot;
use fairlead_proxy::{config, tls};
use fairlead_xds::Kind;
use ports::free;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);
const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";
const SERVER: &str = "spiffe://test/ns/fairlead/sa/mesh";
const CLIENT: &str = "spiffe://test/ns/shop/sa/cart";

/// A folder with a bootstrap, removed when dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A proxy's configuration that follows a file.
struct Follower {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    folder: Folder,
}

impl Follower {
    fn start(name: &str, bootstrap: &Value, files: &[(&str, &[u8])]) -> Self {
        let path = std::env::temp_dir().join(format!("fairlead-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        let folder = Folder(path);
        for (name, content) in files {
            std::fs::write(folder.0.join(name), content).expect("a file");
        }
        let text = bootstrap
            .to_string()
            .replace("FOLDER", &folder.0.display().to_string());
        let path = folder.0.join("bootstrap.json");
        std::fs::write(&path, text).expect("a file");
        let origin = config::Origin::File(path);
        let first = config::read(&origin).unwrap_or_else(|error| panic!("{error}"));
        let (sender, snapshots) = watch::channel(Arc::default());
        let sources = watch::Sender::new(config::Sources::of(first.clone()));
        tokio::spawn(config::watch(
            origin,
            first,
            config::Folders::default(),
            sender,
            sources,
        ));
        Self { snapshots, folder }
    }

    /// Waits until the configuration is so.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let waited = timeout(PATIENCE, self.snapshots.wait_for(|own| is_so(own)));
        let found = waited.await.map(|own| own.expect("it runs").clone());
        found.unwrap_or_else(|_| panic!("{what}: {:?}", self.now()))
    }

    fn now(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn bootstrap(protocol: &str, control: SocketAddr) -> Value {
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": "cart-1", "cluster": "cart", "metadata": {"namespace": "shop"}},
        "dynamic_resources": {
            "lds_config": ads,
            "cds_config": ads,
            "ads_config": {
                "api_type": protocol,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "control"}}],
            },
        },
        "static_resources": {"clusters": [{
            "name": "control",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": "control",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(control)}}]}],
            },
        }]},
    })
}

fn cluster(timeout: &str) -> Value {
    json!({"name": "cart", "type": "EDS", "connect_timeout": timeout, "eds_cluster_config": {"eds_config": {"ads": {}}}})
}

fn endpoints(count: u16) -> Value {
    let all: Vec<_> = (1..=count)
        .map(|port| json!({"endpoint": {"address": socket(([127, 0, 0, 1], port).into())}}))
        .collect();
    json!({"cluster_name": "cart", "endpoints": [{"lb_endpoints": all}]})
}

fn listener() -> Value {
    json!({
        "name": "in",
        "address": socket(([127, 0, 0, 1], 15001).into()),
        "filter_chains": [{
            "transport_socket": {
                "name": "tls",
                "typed_config": {
                    "@type": format!("{EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext"),
                    "common_tls_context": {
                        "tls_certificate_sds_secret_configs": [{"name": "own", "sds_config": {"ads": {}}}],
                    },
                },
            },
            "filters": [{
                "name": "http",
                "typed_config": {
                    "@type": format!("{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "http",
                    "rds": {"route_config_name": "web", "config_source": {"ads": {}}},
                    "http_filters": [{
                        "name": "router",
                        "typed_config": {"@type": format!("{EXTENSIONS}.filters.http.router.v3.Router")},
                    }],
                },
            }],
        }],
    })
}

fn routes() -> Value {
    json!({"name": "web", "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "cart"}}],
    }]})
}

fn secret(authority: &Authority) -> Value {
    let own = authority.issue(&[CLIENT], |_| {});
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("PEM");
    json!({"name": "own", "tls_certificate": {
        "certificate_chain": {"inline_string": text(own.chain)},
        "private_key": {"inline_string": text(own.key)},
    }})
}

fn tell_all(control: &Control, authority: &Authority) {
    control.tell(Kind::Cluster, "cart", "1", &cluster("1s"));
    control.tell(Kind::Endpoints, "cart", "1", &endpoints(1));
    control.tell(Kind::Listener, "in", "1", &listener());
    control.tell(Kind::Routes, "web", "1", &routes());
    control.tell(Kind::Secret, "own", "1", &secret(authority));
}

/// Waits until the control plane heard something.
async fn until_heard(control: &Control, what: &str, is_so: impl Fn(&Heard) -> bool) -> Heard {
    let heard = async {
        loop {
            if let Some(found) = control.heard().into_iter().find(&is_so) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, heard)
        .await
        .unwrap_or_else(|_| panic!("{what}: {:?}", control.heard()))
}

async fn everything(protocol: &str) {
    let (control, authority) = (Control::default(), Authority::default());
    let address = free();
    let server = control.serve(address, None).await;
    tell_all(&control, &authority);
    let mut follower = Follower::start(protocol, &bootstrap(protocol, address), &[]);

    let whole = follower
        .until("all came", |own| own.listeners.contains_key("in"))
        .await;
    assert_eq!(whole.endpoints["cart"].len(), 1);
    assert!(whole.routes.contains_key("web") && whole.secrets.contains_key("own"));
    assert_eq!(control.heard()[0].node.as_deref(), Some("cart-1"));

    control.tell(Kind::Endpoints, "cart", "2", &endpoints(2));
    follower
        .until("a change", |own| own.endpoints["cart"].len() == 2)
        .await;

    let mut wrong = cluster("2s");
    wrong["lb_policy"] = json!("CLUSTER_PROVIDED");
    control.tell(Kind::Cluster, "cart", "2", &wrong);
    let refused = until_heard(&control, "a refusal", |own| own.refusal.is_some()).await;
    assert_eq!(refused.kind, Some(Kind::Cluster));
    let reason = refused.refusal.unwrap_or_default();
    assert!(
        reason.starts_with(r#"clusters["cart"].lb_policy: "#),
        "{reason}"
    );
    assert_eq!(
        follower.now().clusters["cart"].connect_timeout,
        Duration::from_secs(1)
    );
    control.tell(Kind::Cluster, "cart", "3", &cluster("3s"));
    follower
        .until("a better one", |own| {
            own.clusters["cart"].connect_timeout == Duration::from_secs(3)
        })
        .await;

    let mut broken = secret(&authority);
    broken["tls_certificate"]["certificate_chain"] = json!({"inline_string": "none"});
    control.tell(Kind::Secret, "own", "2", &broken);
    let refused = until_heard(&control, "a refused secret", |own| {
        own.kind == Some(Kind::Secret) && own.refusal.is_some()
    })
    .await;
    let reason = refused.refusal.unwrap_or_default();
    assert!(reason.contains("certificate_chain"), "{reason}");

    // The control plane goes, and comes back with something new.
    server.abort();
    control.end();
    let before = follower.now();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(follower.now(), before);
    let seen = control.heard().len();
    control.tell(Kind::Endpoints, "cart", "3", &endpoints(3));
    let server = control.serve(address, None).await;
    follower
        .until("it is back", |own| own.endpoints["cart"].len() == 3)
        .await;
    let again = &control.heard()[seen..];
    let first = again.first().cloned().unwrap_or_default();
    assert_eq!(first.node.as_deref(), Some("cart-1"), "{again:?}");
    assert!(!first.versions.is_empty(), "{again:?}");

    control.remove(Kind::Listener, "in");
    follower
        .until("a removal", |own| own.listeners.is_empty())
        .await;
    assert!(follower.folder.0.is_dir());
    server.abort();
}

#[tokio::test]
async fn changes_are_used_and_mistakes_are_not() {
    everything("DELTA_GRPC").await;
}

#[tokio::test]
async fn the_state_of_the_world_does_the_same() {
    everything("GRPC").await;
}

#[tokio::test]
async fn both_sides_know_each_other() {
    let (control, authority) = (Control::default(), Authority::default());
    let address = free();
    tell_all(&control, &authority);
    let own = certificates::server(
        authority.issue(&[SERVER], |_| {}),
        authority.trust(&[], &[CLIENT]),
    );
    let server = tls::server_config(&own, &|_| None).expect("a configuration");
    let server = control.serve(address, Some(server)).await;

    let mut bootstrap = bootstrap("DELTA_GRPC", address);
    bootstrap["static_resources"]["clusters"][0]["transport_socket"] = json!({
        "name": "tls",
        "typed_config": {
            "@type": format!("{EXTENSIONS}.transport_sockets.tls.v3.UpstreamTlsContext"),
            "sni": "mesh.test",
            "common_tls_context": {
                "tls_certificates": [{
                    "certificate_chain": {"filename": "FOLDER/own.pem"},
                    "private_key": {"filename": "FOLDER/own.key"},
                }],
                "validation_context": {
                    "trusted_ca": {"filename": "FOLDER/roots.pem"},
                    "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": SERVER}}],
                },
            },
        },
    });
    let own = authority.issue(&[CLIENT], |_| {});
    let roots = authority.trust(&[], &[]).roots;
    let files: [(&str, &[u8]); 3] = [
        ("own.pem", &own.chain),
        ("own.key", &own.key),
        ("roots.pem", &roots),
    ];
    let mut follower = Follower::start("mutual", &bootstrap, &files);
    follower
        .until("all came", |own| own.listeners.contains_key("in"))
        .await;
    server.abort();
}
