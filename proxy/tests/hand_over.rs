//! One process takes the place of another, and nobody who calls notices.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use program::Program;
use serde_json::{Value, json};
use support::{Endpoint, free, free_udp};
use tokio::net::{TcpStream, UnixDatagram};

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn bootstrap(admin: SocketAddr, listen: SocketAddr, endpoint: SocketAddr) -> Value {
    const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";
    json!({
        "admin": {"address": socket(admin)},
        "static_resources": {
            "clusters": [{
                "name": "up",
                "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket(endpoint)}}]}]},
            }],
            "listeners": [{
                "name": "in",
                "address": socket(listen),
                "filter_chains": [{"filters": [{"name": "http", "typed_config": {
                    "@type": format!("{FILTERS}.network.http_connection_manager.v3.HttpConnectionManager"),
                    "stat_prefix": "in",
                    "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}]}]},
                    "http_filters": [{"name": "router", "typed_config": {"@type": format!("{FILTERS}.http.router.v3.Router")}}],
                }}]}],
            }],
        },
    })
}

/// Callers that go on until they are stopped.
#[derive(Clone, Default)]
struct Load {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
}

fn request() -> Request<Full<Bytes>> {
    let request = Request::get("http://shop.example/").header("host", "shop.example");
    request.body(Full::default()).expect("a request")
}

/// Whether another connection has to be made for a request, as RFC 9113, section 6.8 has it.
fn is_told_to_go(error: &hyper::Error) -> bool {
    let own = error
        .source()
        .and_then(|own| own.downcast_ref::<h2::Error>());
    own.is_some_and(|own| own.is_go_away() && own.reason() == Some(h2::Reason::NO_ERROR))
}

impl Load {
    /// A connection for each request.
    async fn short(self, to: SocketAddr) -> Result<(), String> {
        while !self.is_over.load(SeqCst) {
            let stream = TcpStream::connect(to).await;
            let stream = stream.map_err(|error| format!("no connection: {error}"))?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(|error| error.to_string())?;
            let driven = tokio::spawn(connection);
            let answer = sender.send_request(request()).await;
            self.took(answer.map_err(|error| format!("HTTP/1.1: {error}"))?)
                .await?;
            driven.abort();
        }
        Ok(())
    }

    /// One connection of HTTP/2 until it is told to go.
    async fn long(self, to: SocketAddr) -> Result<(), String> {
        while !self.is_over.load(SeqCst) {
            let stream = TcpStream::connect(to).await;
            let stream = stream.map_err(|error| format!("no connection: {error}"))?;
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                    .await
                    .map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            while !self.is_over.load(SeqCst) && sender.ready().await.is_ok() {
                match sender.try_send_request(request()).await {
                    Ok(answer) => self.took(answer).await?,
                    // It was not sent any more, or crossed a GOAWAY that says it was not taken.
                    Err(error) if error.message().is_some() || is_told_to_go(error.error()) => {
                        break;
                    }
                    Err(error) => return Err(format!("HTTP/2: {:?}", error.into_error())),
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        Ok(())
    }

    async fn took(&self, answer: http::Response<hyper::body::Incoming>) -> Result<(), String> {
        let status = answer.status();
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| format!("an answer broke off: {error}"))?;
        if status != 200 || body.to_bytes().is_empty() {
            return Err(format!("{status}"));
        }
        self.answered.fetch_add(1, SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_processes_take_over_under_load_and_no_request_fails() {
    let endpoint = Endpoint::echo().await;
    let (admin, listen) = (free(), free());
    let bootstrap = bootstrap(admin, listen, endpoint.address);
    let place: PathBuf =
        std::env::temp_dir().join(format!("fairlead-hand-over-{}", std::process::id()));
    let mut running = Program::taking_over(&place, "2", "hand-0", &bootstrap).await;
    let load = Load::default();
    let mut callers = Vec::new();
    for _ in 0..4 {
        callers.push(tokio::spawn(load.clone().short(listen)));
        callers.push(tokio::spawn(load.clone().long(listen)));
    }
    // More cores, fewer, and as many: each queue goes to somebody.
    for (number, cores) in ["3", "1", "2"].into_iter().enumerate() {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let before = load.answered.load(SeqCst);
        let name = format!("hand-{}", number + 1);
        let next = Program::taking_over(&place, cores, &name, &bootstrap).await;
        running.ended().await;
        let mut old = std::mem::replace(&mut running, next);
        assert!(
            old.log().contains("another process has taken over"),
            "{}",
            old.log()
        );
        old.ended().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(load.answered.load(SeqCst) > before, "{}", running.log());
    }
    load.is_over.store(true, SeqCst);
    for caller in callers {
        assert_eq!(caller.await.expect("a caller"), Ok(()));
    }
    eprintln!("{} requests", load.answered.load(SeqCst));
    let (_, ready) = running.get("/ready").await.expect("the admin interface");
    assert!(ready.contains("LIVE"), "{ready}");
    let _ = std::fs::remove_file(&place);
}

/// How many requests are answered within a short while, none of them in vain.
async fn answered(listen: SocketAddr) -> usize {
    let load = Load::default();
    let caller = tokio::spawn(load.clone().short(listen));
    tokio::time::sleep(Duration::from_millis(200)).await;
    load.is_over.store(true, SeqCst);
    assert_eq!(caller.await.expect("a caller"), Ok(()));
    load.answered.load(SeqCst)
}

#[tokio::test]
async fn one_that_dies_before_it_is_ready_leaves_the_old_one_serving() {
    let endpoint = Endpoint::echo().await;
    let (admin, listen) = (free(), free());
    let own = bootstrap(admin, listen, endpoint.address);
    let place: PathBuf =
        std::env::temp_dir().join(format!("fairlead-hand-over-broken-{}", std::process::id()));
    let running = Program::taking_over(&place, "1", "hand-stays", &own).await;
    // It never listens on all that it has to, as somebody else is there.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let mut stuck = own.clone();
    let listeners = stuck["static_resources"]["listeners"]
        .as_array_mut()
        .expect("listeners");
    let mut second = listeners[0].clone();
    second["name"] = json!("second");
    second["address"] = socket(taken.local_addr().expect("its address"));
    listeners.push(second);
    let next = Program::taking_over(&place, "2", "hand-stuck", &stuck).await;
    next.says("failed to listen").await;
    assert!(answered(listen).await > 0);
    drop(next);
    assert!(answered(listen).await > 0);
    running.says("went away").await;
    assert!(!running.log().contains("draining"), "{}", running.log());
    // Another one that hangs keeps out nobody.
    let hangs = Program::taking_over(&place, "1", "hand-hangs", &stuck).await;
    hangs.says("failed to listen").await;
    let mut running = running;
    let _next = Program::taking_over(&place, "1", "hand-next", &own).await;
    running.ended().await;
    assert!(answered(listen).await > 0);
    let _ = std::fs::remove_file(&place);
}

#[tokio::test]
async fn datagrams_go_on() {
    let server = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let endpoint = server.local_addr().expect("its address");
    tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = server.recv_from(&mut buffer).await {
            // A server that takes its time: answers are on their way while one process follows the other.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let _ = server.send_to(&buffer[..length], from).await;
        }
    });
    let (admin, listen) = (free(), free_udp());
    let place = std::env::temp_dir().join(format!("fairlead-hand-over-udp-{}", std::process::id()));
    let mut own = bootstrap(admin, listen, endpoint);
    let mut address = socket(listen);
    address["socket_address"]["protocol"] = json!("UDP");
    own["static_resources"]["listeners"] = json!([{
        "name": "udp",
        "address": address,
        "listener_filters": [{"name": "udp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig",
            "stat_prefix": "udp",
            "cluster": "up",
        }}],
    }]);
    let mut running = Program::taking_over(&place, "1", "hand-udp-0", &own).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let caller = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            let own = tokio::net::UdpSocket::bind("127.0.0.1:0").await;
            let own = own.expect("a free port");
            own.connect(listen).await.expect("a way");
            let mut count = 0u32;
            while !is_over.load(SeqCst) {
                count += 1;
                let sent = count.to_be_bytes();
                own.send(&sent).await.expect("to send");
                let mut answer = [0; 64];
                let received = tokio::time::timeout(Duration::from_secs(5), own.recv(&mut answer));
                let length = received.await.expect("no answer").expect("to receive");
                assert_eq!(answer[..length], sent);
            }
            count
        }
    });
    for number in 1..3 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let name = format!("hand-udp-{number}");
        let next = Program::taking_over(&place, "1", &name, &own).await;
        let mut old = std::mem::replace(&mut running, next);
        old.ended().await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    is_over.store(true, SeqCst);
    assert!(caller.await.expect("every answer") > 10);
    let _ = std::fs::remove_file(&place);
}

#[tokio::test]
async fn a_socket_in_the_file_system_goes_over_whatever_the_number_of_cores() {
    let endpoint = Endpoint::echo().await;
    let (admin, folder) = (free(), std::env::temp_dir());
    let path = folder.join(format!(
        "fairlead-hand-over-{}.listener",
        std::process::id()
    ));
    let place = folder.join(format!("fairlead-hand-over-path-{}", std::process::id()));
    let mut own = bootstrap(admin, free(), endpoint.address);
    own["static_resources"]["listeners"][0]["address"] = json!({"pipe": {"path": path}});
    let mut running = Program::taking_over(&place, "1", "hand-path-0", &own).await;
    for (number, cores) in ["3", "2"].into_iter().enumerate() {
        let name = format!("hand-path-{}", number + 1);
        let next = Program::taking_over(&place, cores, &name, &own).await;
        let mut old = std::mem::replace(&mut running, next);
        old.ended().await;
        for _ in 0..10 {
            let stream = tokio::net::UnixStream::connect(&path).await;
            let stream = TokioIo::new(stream.expect("a connection"));
            let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
                .await
                .expect("HTTP");
            tokio::spawn(connection);
            let answer = sender.send_request(request()).await.expect("an answer");
            assert_eq!(answer.status(), 200);
        }
    }
    let _ = std::fs::remove_file(&place);
    let _ = std::fs::remove_file(&path);
}

/// What the service manager hears next.
async fn heard(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 256];
    let received = tokio::time::timeout(Duration::from_secs(10), manager.recv(&mut buffer)).await;
    let length = received.expect("nothing is told").expect("to receive");
    String::from_utf8_lossy(&buffer[..length]).trim().to_owned()
}

#[tokio::test]
async fn a_service_manager_hears_when_it_listens_and_when_it_ends() {
    let endpoint = Endpoint::echo().await;
    let (admin, listen) = (free(), free());
    let own = bootstrap(admin, listen, endpoint.address);
    let folder = std::env::temp_dir().join(format!("fairlead-managed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (place, told) = (folder.join("take-over"), folder.join("notify"));
    let manager = UnixDatagram::bind(&told).expect("a socket");

    let mut first = Program::managed(&told, &place, "managed-0", &own).await;
    assert_eq!(heard(&manager).await, "READY=1");
    assert!(answered(listen).await > 0);
    // One that cannot listen is not ready.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
    let mut stuck = own.clone();
    stuck["static_resources"]["listeners"][0]["address"] =
        socket(taken.local_addr().expect("its address"));
    let stuck = Program::managed(&told, &place, "managed-stuck", &stuck).await;
    stuck.says("failed to listen").await;
    assert!(manager.try_recv(&mut [0; 256]).is_err());
    drop(stuck);

    let mut second = Program::managed(&told, &place, "managed-1", &own).await;
    let mut both = [heard(&manager).await, heard(&manager).await];
    both.sort();
    assert_eq!(both, ["READY=1", "STOPPING=1"]);
    first.ended().await;
    second.stop().await;
    assert_eq!(heard(&manager).await, "STOPPING=1");
    let _ = std::fs::remove_dir_all(&folder);
}
