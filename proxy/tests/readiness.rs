//! The proxy says that it is ready once it takes connections.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use program::Program;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// What `/ready` of an admin interface says.
async fn ready(admin: SocketAddr) -> String {
    for _ in 0..500 {
        if let Ok(mut stream) = TcpStream::connect(admin).await {
            let request = "GET /ready HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.expect("to send");
            return support::drain(&mut stream).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("there is no admin interface");
}

/// A bootstrap with one listener.
fn bootstrap(admin: SocketAddr, listen: SocketAddr) -> Value {
    json!({
        "admin": {"address": socket(admin)},
        "static_resources": {
            "clusters": [{"name": "up", "type": "STATIC"}],
            "listeners": [{
                "name": "in",
                "address": socket(listen),
                "filter_chains": [{"filters": [{"name": "tcp", "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "in",
                    "cluster": "up",
                }}]}],
            }],
        },
    })
}

#[tokio::test]
async fn it_is_not_ready_before_its_control_plane_told_where_to_listen() {
    let (admin, listen) = (support::free(), support::free());
    let mut bootstrap = bootstrap(admin, listen);
    bootstrap["node"] = json!({"id": "a", "cluster": "b"});
    bootstrap["dynamic_resources"] = json!({
        "lds_config": {"ads": {}},
        "ads_config": {"api_type": "DELTA_GRPC", "grpc_services": [{"envoy_grpc": {"cluster_name": "up"}}]},
    });
    let asking = async {
        while TcpStream::connect(listen).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        ready(admin).await
    };
    tokio::select! {
        _ = Program::with_cores("1", "told", &bootstrap) => panic!("nobody told it anything"),
        said = asking => assert!(said.ends_with("INITIALIZING\n"), "{said}"),
    }
}

#[tokio::test]
async fn it_is_ready_once_it_takes_connections() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let listen = taken.local_addr().expect("its address");
    let admin = support::free();
    let bootstrap = bootstrap(admin, listen);
    let waiting = async {
        for _ in 0..3 {
            let said = ready(admin).await;
            assert!(
                said.contains(" 503 ") && said.ends_with("INITIALIZING\n"),
                "{said}"
            );
        }
        drop(taken);
    };
    let (proxy, ()) = tokio::join!(Program::with_cores("2", "ready", &bootstrap), waiting);
    let (status, said) = proxy.get("/ready").await.expect("an answer");
    assert_eq!((status.as_u16(), said.as_str()), (200, "LIVE\n"));
    TcpStream::connect(listen).await.expect("it listens");
}
