//! Endpoints are checked, and their names looked up, while requests go to those that are well.

#[path = "../support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
#[path = "../support/mod.rs"]
mod support;
mod warming;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use program::Program;
use serde_json::{Value, json};
use support::{Endpoint, free, text_answer};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// A bootstrap with a listener that sends `/<cluster>` to the cluster of this name.
fn bootstrap(listen: SocketAddr, clusters: &[Value]) -> Value {
    let routes: Vec<Value> = clusters
        .iter()
        .map(|own| json!({"match": {"prefix": format!("/{}", own["name"].as_str().unwrap_or_default())}, "route": {"cluster": own["name"]}}))
        .collect();
    json!({
        "node": {"id": "a", "cluster": "a"},
        "admin": {"address": socket(free())},
        "static_resources": {
            "clusters": clusters,
            "listeners": [{
                "name": "in",
                "address": socket(listen),
                "filter_chains": [{"filters": [{
                    "name": "http",
                    "typed_config": {
                        "@type": format!("{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
                        "stat_prefix": "in",
                        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
                        "http_filters": [{
                            "name": "router",
                            "typed_config": {"@type": format!("{EXTENSIONS}.filters.http.router.v3.Router")},
                        }],
                    },
                }]}],
            }],
        },
    })
}

fn cluster(name: &str, kind: &str, endpoints: &[Value]) -> Value {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|own| match own.get("address") {
            Some(_) => json!({"endpoint": own}),
            None => json!({"endpoint": {"address": own}}),
        })
        .collect();
    json!({
        "name": name,
        "type": kind,
        "connect_timeout": "0.5s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
    })
}

fn check(probe: &str, own: Value) -> Value {
    json!([{
        "timeout": "0.5s",
        "interval": "0.1s",
        "no_traffic_interval": "0.1s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 2,
        probe: own,
    }])
}

/// An endpoint that answers with its name, and to checks with a status that is set.
async fn checked(name: &'static str) -> (Endpoint, Arc<AtomicU16>, Arc<AtomicUsize>) {
    let (status, checks) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
    let (now, count) = (Arc::clone(&status), Arc::clone(&checks));
    let endpoint = Endpoint::start(move |request, _| {
        let (now, count) = (Arc::clone(&now), Arc::clone(&count));
        async move {
            match request.uri().path() {
                "/well" => {
                    count.fetch_add(1, SeqCst);
                    text_answer(now.load(SeqCst), "")
                }
                _ => text_answer(200, name),
            }
        }
    })
    .await;
    (endpoint, status, checks)
}

/// Sends a GET, and reads the answer.
async fn get(proxy: SocketAddr, path: &str) -> (u16, String) {
    let stream = TcpStream::connect(proxy).await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "shop.example")
        .body(Full::<Bytes>::default())
        .expect("a request");
    let (head, body) = support::read(sender.send_request(request).await.expect("an answer")).await;
    (head.status.as_u16(), body)
}

/// Waits until the text of `/clusters` is so.
async fn until(proxy: &Program, what: &str, is_so: impl Fn(&str) -> bool) {
    for _ in 0..300 {
        let (_, text) = proxy.get("/clusters").await.expect("an answer");
        if is_so(&text) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (_, text) = proxy.get("/clusters").await.expect("an answer");
    panic!("{what}: {text}\n{}", proxy.log());
}

fn has_flags(text: &str, cluster: &str, address: SocketAddr, flags: &str) -> bool {
    text.contains(&format!("{cluster}::{address}::health_flags::{flags}\n"))
}

#[tokio::test]
async fn requests_go_to_those_that_pass() {
    let (good, _, _) = checked("good").await;
    let (bad, status, checks) = checked("bad").await;
    let listen = free();
    let mut up = cluster("up", "STATIC", &[socket(good.address), socket(bad.address)]);
    up["health_checks"] = check(
        "http_health_check",
        json!({"path": "/well", "host": "checks.example"}),
    );
    let proxy = Program::with_cores("2", "checks", &bootstrap(listen, &[up])).await;
    until(&proxy, "both pass", |text| {
        has_flags(text, "up", good.address, "healthy")
            && has_flags(text, "up", bad.address, "healthy")
    })
    .await;

    status.store(503, SeqCst);
    until(&proxy, "one fails", |text| {
        has_flags(text, "up", bad.address, "/failed_active_hc")
    })
    .await;
    for _ in 0..20 {
        assert_eq!(get(listen, "/up").await, (200, "good".to_owned()));
    }
    let json = proxy.json("/clusters?format=json").await;
    let hosts = json["cluster_statuses"][0]["host_statuses"]
        .as_array()
        .expect("hosts");
    let failed: Vec<_> = hosts
        .iter()
        .filter(|own| own["health_status"]["failed_active_health_check"] == true)
        .collect();
    assert_eq!(failed.len(), 1, "{json:#}");
    let (_, stats) = proxy
        .get("/stats?filter=cluster.up.health_check")
        .await
        .expect("an answer");
    assert!(
        stats.contains("cluster.up.health_check.healthy: 1\n"),
        "{stats}"
    );
    assert!(
        !stats.contains("cluster.up.health_check.failure: 0\n"),
        "{stats}"
    );

    // Checked once for all workers.
    let before = checks.load(SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let more = checks.load(SeqCst) - before;
    assert!((5..=12).contains(&more), "{more} checks in a second");

    status.store(200, SeqCst);
    until(&proxy, "it is back", |text| {
        has_flags(text, "up", bad.address, "healthy")
    })
    .await;
    let mut answers: Vec<String> = Vec::new();
    for _ in 0..20 {
        answers.push(get(listen, "/up").await.1);
    }
    assert!(answers.iter().any(|own| own == "bad"), "{answers:?}");
}

#[tokio::test]
async fn an_endpoint_is_checked_where_it_says() {
    let (well, status, _) = checked("checks").await;
    let (own, _, own_checks) = checked("requests").await;
    let listen = free();
    let endpoint = json!({
        "address": socket(own.address),
        "health_check_config": {"port_value": well.address.port()},
    });
    let mut up = cluster("up", "STATIC", &[endpoint]);
    up["health_checks"] = check(
        "http_health_check",
        json!({"path": "/well", "expected_statuses": [{"start": 204, "end": 205}], "retriable_statuses": [{"start": 500, "end": 600}]}),
    );
    status.store(204, SeqCst);
    let proxy = Program::ours("check-port", &bootstrap(listen, &[up])).await;
    until(&proxy, "it passes", |text| {
        has_flags(text, "up", own.address, "healthy")
    })
    .await;
    assert_eq!(get(listen, "/up").await, (200, "requests".to_owned()));
    assert_eq!(own_checks.load(SeqCst), 0);
    status.store(503, SeqCst);
    until(&proxy, "it fails", |text| {
        has_flags(text, "up", own.address, "/failed_active_hc")
    })
    .await;
}

#[tokio::test]
async fn nobody_listens_and_nobody_is_sent_there() {
    let (good, _, _) = checked("good").await;
    let dead = free();
    let listen = free();
    let mut up = cluster("up", "STATIC", &[socket(dead), socket(good.address)]);
    up["health_checks"] = check("tcp_health_check", json!({}));
    up["common_lb_config"] = json!({"ignore_new_hosts_until_first_hc": true});
    let proxy = Program::ours("check-tcp", &bootstrap(listen, &[up])).await;
    until(&proxy, "one fails", |text| {
        has_flags(text, "up", dead, "/failed_active_hc")
            && has_flags(text, "up", good.address, "healthy")
    })
    .await;
    for _ in 0..10 {
        assert_eq!(get(listen, "/up").await, (200, "good".to_owned()));
    }
}

/// gRPC's health service: what it says is set.
async fn grpc(status: Arc<AtomicU16>, asked: Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (status, asked) = (Arc::clone(&status), Arc::clone(&asked));
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (status, asked) = (Arc::clone(&status), Arc::clone(&asked));
                async move {
                    assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                    let body = request.into_body().collect().await.expect("a body");
                    *asked.lock().expect("nobody panicked") = body.to_bytes().to_vec();
                    let status = u8::try_from(status.load(SeqCst)).expect("a status");
                    let mut trailers = http::HeaderMap::new();
                    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
                    let body = Full::new(Bytes::from(vec![0, 0, 0, 0, 2, 8, status]));
                    let body = body.with_trailers(std::future::ready(Some(Ok(trailers))));
                    let answer = Response::builder()
                        .header("content-type", "application/grpc")
                        .body(body)
                        .expect("an answer");
                    Ok::<_, Infallible>(answer)
                }
            });
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test]
async fn grpc_says_whether_it_serves() {
    let (status, asked) = (
        Arc::new(AtomicU16::new(1)),
        Arc::<Mutex<Vec<u8>>>::default(),
    );
    let address = grpc(Arc::clone(&status), Arc::clone(&asked)).await;
    let mut up = cluster("up", "STATIC", &[socket(address)]);
    up["health_checks"] = check("grpc_health_check", json!({"service_name": "cart"}));
    let proxy = Program::ours("check-grpc", &bootstrap(free(), &[up])).await;
    until(&proxy, "it serves", |text| {
        has_flags(text, "up", address, "healthy")
    })
    .await;
    assert_eq!(
        asked.lock().expect("nobody panicked").as_slice(),
        b"\0\0\0\0\x06\x0a\x04cart"
    );
    status.store(2, SeqCst);
    until(&proxy, "it does not serve", |text| {
        has_flags(text, "up", address, "/failed_active_hc")
    })
    .await;
}

/// What a name server answers.
#[derive(Clone)]
enum Answer {
    Addresses(Vec<[u8; 4]>),
    /// The same, for a second only.
    Briefly(Vec<[u8; 4]>),
    /// There is no such name.
    Unknown,
    /// It does not know.
    Failure,
    Silence,
}

/// A name server that answers all questions for IPv4 alike.
async fn name_server(answer: Arc<Mutex<Answer>>) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    let address = socket.local_addr().expect("its address");
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let question = &buffer[..length];
            let answer = answer.lock().expect("nobody panicked").clone();
            let ttl = match answer {
                Answer::Briefly(_) => 1,
                _ => 60,
            };
            let (code, addresses) = match answer {
                Answer::Addresses(addresses) | Answer::Briefly(addresses) => (0, addresses),
                Answer::Unknown => (3, Vec::new()),
                Answer::Failure => (2, Vec::new()),
                Answer::Silence => continue,
            };
            let end = 12
                + question[12..]
                    .iter()
                    .position(|byte| *byte == 0)
                    .expect("a name")
                + 5;
            let mut response = question[..2].to_vec();
            response.extend([
                0x81,
                0x80 | code,
                0,
                1,
                0,
                addresses.len() as u8,
                0,
                0,
                0,
                0,
            ]);
            response.extend(&question[12..end]);
            for address in addresses {
                response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, ttl, 0, 4]);
                response.extend(address);
            }
            let _ = socket.send_to(&response, from).await;
        }
    });
    address
}

/// An endpoint at an address, that answers with it.
async fn endpoint_at(ip: [u8; 4], port: u16) -> SocketAddr {
    let listener = TcpListener::bind((IpAddr::from(ip), port))
        .await
        .expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |_| async move {
                Ok::<_, Infallible>(text_answer(200, &address.ip().to_string()))
            });
            let builder = hyper::server::conn::http1::Builder::new();
            tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

fn named(cluster_name: &str, host: &str, port: u16, server: SocketAddr) -> Value {
    let address = json!({"socket_address": {"address": host, "port_value": port}});
    let mut own = cluster(cluster_name, "STRICT_DNS", &[address]);
    own["dns_refresh_rate"] = json!("0.1s");
    own["dns_lookup_family"] = json!("V4_ONLY");
    own["typed_dns_resolver_config"] = json!({
        "name": "envoy.network.dns_resolver.cares",
        "typed_config": {
            "@type": format!("{EXTENSIONS}.network.dns_resolver.cares.v3.CaresDnsResolverConfig"),
            "resolvers": [socket(server)],
        },
    });
    own
}

#[tokio::test]
async fn every_address_of_a_name_is_an_endpoint() {
    let answer = Arc::new(Mutex::new(Answer::Addresses(vec![[127, 0, 0, 1]])));
    let say = |next: Answer| *answer.lock().expect("nobody panicked") = next;
    let server = name_server(Arc::clone(&answer)).await;
    let silent = name_server(Arc::new(Mutex::new(Answer::Silence))).await;
    let port = endpoint_at([127, 0, 0, 1], free().port()).await.port();
    let second = endpoint_at([127, 0, 0, 2], port).await;
    let third = endpoint_at([127, 0, 0, 3], port).await;
    let listen = free();
    let clusters = [
        named("silent", "nobody.example", 1, silent),
        named("up", "cart.example", port, server),
    ];
    let proxy = Program::ours("names", &bootstrap(listen, &clusters)).await;

    assert_eq!(get(listen, "/up").await, (200, "127.0.0.1".to_owned()));
    let (_, text) = proxy.get("/clusters").await.expect("an answer");
    assert!(
        text.contains(&format!("up::127.0.0.1:{port}::hostname::cart.example\n")),
        "{text}"
    );

    say(Answer::Addresses(vec![[127, 0, 0, 2], [127, 0, 0, 3]]));
    until(&proxy, "others", |text| {
        text.contains(&second.to_string())
            && text.contains(&third.to_string())
            && !text.contains(&format!("127.0.0.1:{port}"))
    })
    .await;
    let mut had = Vec::new();
    for _ in 0..10 {
        had.push(get(listen, "/up").await.1);
    }
    assert!(
        had.contains(&"127.0.0.2".to_owned()) && had.contains(&"127.0.0.3".to_owned()),
        "{had:?}"
    );

    // A name server that fails, and one that is silent, know nothing better.
    for broken in [Answer::Failure, Answer::Silence] {
        say(broken);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(get(listen, "/up").await.0, 200);
    }
    say(Answer::Unknown);
    until(&proxy, "none is left", |text| {
        !text.contains(&second.to_string())
    })
    .await;
}

#[tokio::test]
async fn an_answer_may_say_when_to_ask_again() {
    let answer = Arc::new(Mutex::new(Answer::Briefly(vec![[127, 0, 0, 1]])));
    let say = |next: Answer| *answer.lock().expect("nobody panicked") = next;
    let server = name_server(Arc::clone(&answer)).await;
    let port = endpoint_at([127, 0, 0, 1], free().port()).await.port();
    for ip in [[127, 0, 0, 2], [127, 0, 0, 3]] {
        endpoint_at(ip, port).await;
    }
    let listen = free();
    let mut up = named("up", "cart.example", port, server);
    up["respect_dns_ttl"] = json!(true);
    up["dns_refresh_rate"] = json!("60s");
    let proxy = Program::ours("ttl", &bootstrap(listen, &[up])).await;
    assert_eq!(get(listen, "/up").await.1, "127.0.0.1");
    // After a second it is asked again, and then not for a minute.
    say(Answer::Addresses(vec![[127, 0, 0, 2]]));
    until(&proxy, "the second", |text| {
        text.contains(&format!("127.0.0.2:{port}"))
    })
    .await;
    say(Answer::Addresses(vec![[127, 0, 0, 3]]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(get(listen, "/up").await.1, "127.0.0.2");
}

#[tokio::test]
async fn a_name_server_that_fails_is_asked_again_as_told() {
    let answer = Arc::new(Mutex::new(Answer::Failure));
    let server = name_server(Arc::clone(&answer)).await;
    let port = endpoint_at([127, 0, 0, 1], free().port()).await.port();
    let listen = free();
    let mut up = named("up", "cart.example", port, server);
    up["dns_refresh_rate"] = json!("60s");
    up["dns_failure_refresh_rate"] = json!({"base_interval": "0.1s", "max_interval": "0.2s"});
    let _proxy = Program::ours("failing", &bootstrap(listen, &[up])).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    *answer.lock().expect("nobody panicked") = Answer::Addresses(vec![[127, 0, 0, 1]]);
    assert_eq!(get(listen, "/up").await, (200, "127.0.0.1".to_owned()));
}

#[tokio::test]
async fn callers_reach_what_they_want() {
    let (first, second) = (Endpoint::echo().await, checked("second").await.0);
    let listen = free();
    let mut up = json!({
        "name": "up",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "0.5s",
        "cleanup_interval": "0.1s",
        "original_dst_lb_config": {"use_http_header": true},
    });
    let proxy = Program::ours("original", &bootstrap(listen, &[up.clone()])).await;
    let wanted = async |to: &str| {
        let stream = TcpStream::connect(listen).await.expect("a connection");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        tokio::spawn(connection);
        let request = Request::get("/up")
            .header("host", "shop.example")
            .header("x-envoy-original-dst-host", to)
            .body(Full::<Bytes>::default())
            .expect("a request");
        support::read(sender.send_request(request).await.expect("an answer")).await
    };
    assert_eq!(
        wanted(&first.address.to_string()).await.1,
        "GET /up shop.example "
    );
    assert_eq!(wanted(&second.address.to_string()).await.1, "second");
    // Nobody says where: the connection was made to this proxy itself.
    for nothing in ["nowhere", "", "127.0.0.1"] {
        assert_eq!(wanted(nothing).await.0.status.as_u16(), 503, "{nothing:?}");
    }
    let has = |text: &str| text.contains(&first.address.to_string());
    until(&proxy, "it is forgotten", |text| !has(text)).await;
    assert_eq!(
        wanted(&first.address.to_string()).await.0.status.as_u16(),
        200
    );

    up["original_dst_lb_config"]["upstream_port_override"] = json!(second.address.port());
    let listen = free();
    let other = Program::ours("original-port", &bootstrap(listen, &[up])).await;
    drop(proxy);
    let mut stream = TcpStream::connect(listen).await.expect("a connection");
    let request = format!(
        "GET /up HTTP/1.1\r\nhost: a\r\nx-envoy-original-dst-host: {}\r\nconnection: close\r\n\r\n",
        first.address
    );
    stream.write_all(request.as_bytes()).await.expect("to send");
    let answer = support::drain(&mut stream).await;
    assert!(answer.ends_with("second"), "{answer}{}", other.log());
}

#[tokio::test]
async fn a_proxy_header_says_what_callers_want() {
    let endpoint = Endpoint::echo().await;
    let listen = free();
    let up = json!({
        "name": "up",
        "type": "ORIGINAL_DST",
        "lb_policy": "CLUSTER_PROVIDED",
        "connect_timeout": "0.5s",
    });
    let mut bootstrap = bootstrap(listen, &[up]);
    bootstrap["static_resources"]["listeners"][0]["listener_filters"] = json!([{
        "name": "envoy.filters.listener.proxy_protocol",
        "typed_config": {"@type": format!("{EXTENSIONS}.filters.listener.proxy_protocol.v3.ProxyProtocol")},
    }]);
    let _proxy = Program::ours("original-header", &bootstrap).await;
    let mut stream = TcpStream::connect(listen).await.expect("a connection");
    let request = format!(
        "PROXY TCP4 192.0.2.1 127.0.0.1 4000 {}\r\nGET /up HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
        endpoint.address.port()
    );
    stream.write_all(request.as_bytes()).await.expect("to send");
    let answer = support::drain(&mut stream).await;
    assert!(answer.ends_with("GET /up a "), "{answer}");
}
