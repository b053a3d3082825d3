//! What a control plane told is kept, and used at a start without one.

#[path = "support/certificates.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod certificates;
#[path = "support/control.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod control;
#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use certificates::Authority;
use control::Control;
use fairlead_xds::Kind;
use program::{Program, free};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";

/// A folder that nobody made yet, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let name = format!("fairlead-kept-{name}-{}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn file(&self) -> PathBuf {
        self.0.join("told.json")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A server that answers each connection in this way.
async fn server(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let answer = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{name}",
                name.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    address
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn bootstrap(protocol: &str, admin: SocketAddr, control: SocketAddr) -> Value {
    let ads = json!({"ads": {}, "resource_api_version": "V3"});
    json!({
        "node": {"id": "cart-1", "cluster": "cart"},
        "admin": {"address": socket(admin)},
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

fn cluster(name: &str) -> Value {
    json!({"name": name, "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}})
}

fn endpoints(name: &str, at: SocketAddr) -> Value {
    json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(at)}}]}]})
}

fn listener(name: &str, at: SocketAddr, tls: Option<Value>) -> Value {
    let mut chain = json!({"filters": [{
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
    }]});
    if let Some(common) = tls {
        chain["transport_socket"] = json!({"name": "tls", "typed_config": {
            "@type": format!("{EXTENSIONS}.transport_sockets.tls.v3.DownstreamTlsContext"),
            "common_tls_context": common,
        }});
    }
    json!({"name": name, "address": socket(at), "filter_chains": [chain]})
}

fn routes(cluster: &str) -> Value {
    json!({"name": "web", "virtual_hosts": [{
        "name": "all",
        "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}],
    }]})
}

/// What is told: a listener, and two with certificates, from a secret and in itself.
async fn tell_all(control: &Control, listen: SocketAddr, endpoint: SocketAddr) {
    let own = Authority::default().issue(&[], |_| {});
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("PEM");
    let certificate = json!({
        "certificate_chain": {"inline_string": text(own.chain)},
        "private_key": {"inline_string": text(own.key)},
    });
    control.tell(Kind::Cluster, "cart", "1", &cluster("cart"));
    control.tell(Kind::Endpoints, "cart", "1", &endpoints("cart", endpoint));
    control.tell(Kind::Routes, "web", "1", &routes("cart"));
    control.tell(Kind::Listener, "in", "1", &listener("in", listen, None));
    let named =
        json!({"tls_certificate_sds_secret_configs": [{"name": "own", "sds_config": {"ads": {}}}]});
    let (first, second) = (free(), free());
    control.tell(
        Kind::Listener,
        "sds",
        "1",
        &listener("sds", first, Some(named)),
    );
    let inline = json!({"tls_certificates": [certificate]});
    control.tell(
        Kind::Listener,
        "inline",
        "1",
        &listener("inline", second, Some(inline)),
    );
    control.tell(
        Kind::Secret,
        "own",
        "1",
        &json!({"name": "own", "tls_certificate": certificate}),
    );
}

/// What is answered at an address.
async fn ask(to: SocketAddr) -> String {
    let asked = async {
        let mut stream = TcpStream::connect(to).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    asked.await.unwrap_or_default()
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + Duration::from_secs(40);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn kept(folder: &Path, text: &str) {
    until(&format!("{text} is kept"), async || {
        let kept = std::fs::read_to_string(folder).unwrap_or_default();
        kept.contains(text).then_some(())
    })
    .await;
}

async fn used_without(protocol: &str) {
    let folder = Folder::new(protocol);
    let (control, admin, at, listen) = (Control::default(), free(), free(), free());
    let serving = control.serve(at, None).await;
    tell_all(&control, listen, server("first").await).await;
    let own = bootstrap(protocol, admin, at);
    let mut program = Program::keeping(&folder.0, &format!("kept-{protocol}-1"), &own).await;
    assert!(ask(listen).await.ends_with("first"), "{}", program.log());
    kept(&folder.file(), "\"sds\"").await;
    let text = std::fs::read_to_string(folder.file()).expect("it is kept");
    assert!(
        !text.contains("PRIVATE KEY") && !text.contains("CERTIFICATE"),
        "{text}"
    );
    assert!(
        !text.contains("\"inline\""),
        "what has a key in itself is not kept"
    );
    let mode = std::fs::metadata(folder.file())
        .expect("it is kept")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    program.stop().await;
    serving.abort();
    control.end();
    let _ = serving.await;

    // The control plane is gone, and the proxy starts.
    let begun = Instant::now();
    let program = Program::keeping(&folder.0, &format!("kept-{protocol}-2"), &own).await;
    assert!(ask(listen).await.ends_with("first"), "{}", program.log());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(
        program.log().contains("no control plane"),
        "{}",
        program.log()
    );

    // It comes back, and says other things: what is gone goes.
    let next = Control::default();
    next.tell(Kind::Cluster, "basket", "9", &cluster("basket"));
    next.tell(
        Kind::Endpoints,
        "basket",
        "9",
        &endpoints("basket", server("second").await),
    );
    next.tell(Kind::Routes, "web", "9", &routes("basket"));
    next.tell(Kind::Listener, "in", "9", &listener("in", listen, None));
    let _serving = next.serve(at, None).await;
    until("the control plane counts again", async || {
        ask(listen).await.ends_with("second").then_some(())
    })
    .await;
    until("what is gone goes", async || {
        let dump = program.json("/config_dump").await.to_string();
        let is_gone = ["\"name\":\"cart\"", "\"name\":\"sds\""]
            .iter()
            .all(|own| !dump.contains(own));
        is_gone.then_some(())
    })
    .await;
    kept(&folder.file(), "basket").await;
}

#[tokio::test]
async fn what_changed_was_told_and_is_used_without() {
    used_without("DELTA_GRPC").await;
}

#[tokio::test]
async fn the_state_of_the_world_was_told_and_is_used_without() {
    used_without("GRPC").await;
}

#[tokio::test]
async fn a_broken_file_is_as_good_as_none() {
    let folder = Folder::new("broken");
    std::fs::create_dir(&folder.0).expect("a folder");
    std::fs::write(folder.file(), "{\"node\": \"cart-1\", \"told\"").expect("a file");
    let (control, admin, at, listen) = (Control::default(), free(), free(), free());
    let _serving = control.serve(at, None).await;
    tell_all(&control, listen, server("first").await).await;
    let own = bootstrap("DELTA_GRPC", admin, at);
    let program = Program::keeping(&folder.0, "kept-broken", &own).await;
    assert!(ask(listen).await.ends_with("first"));
    assert!(
        program.log().contains("what was kept is not used"),
        "{}",
        program.log()
    );
    kept(&folder.file(), "\"sds\"").await;
}
