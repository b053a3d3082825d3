//! Connections that are not plain requests: bytes, tunnels, upgrades, broken beginnings, and their ends.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fairlead_model::cluster::{Cluster, ProxyVersion, UpstreamProtocol};
use fairlead_model::format::Format;
use fairlead_model::listener::{Chain, ChainMatch, Codec, Handler, Http, Listener, Tunnel};
use fairlead_model::route::{Action, HeaderChanges};
use http::StatusCode;
use support::certificates::{Authority, client, server};
use support::{
    Endpoint, Proxy, drain, free, http_to, listener, proxy, snapshot, tcp_proxy, text_answer, to,
    up,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// An endpoint that greets, then returns what it gets.
async fn greeter() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(b"hello ").await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn bytes_go_both_ways_whoever_speaks_first() {
    let proxy = tcp_proxy(up(&[greeter().await]), |_| {}).await;
    let mut stream = TcpStream::connect(proxy.address)
        .await
        .expect("a connection");
    let mut greeting = [0; 6];
    stream
        .read_exact(&mut greeting)
        .await
        .expect("the greeting");
    let body = vec![7; 3_000_000];
    let (mut read, mut write) = stream.split();
    let sent = async {
        write.write_all(&body).await.expect("to send");
        write.shutdown().await.expect("to end");
    };
    let mut received = Vec::new();
    let (_, length) = tokio::join!(sent, read.read_to_end(&mut received));
    assert_eq!(length.expect("all"), body.len());
}

#[tokio::test]
async fn a_connection_goes_to_an_endpoint_that_takes_it() {
    let proxy = tcp_proxy(up(&[free(), greeter().await]), |_| {}).await;
    for _ in 0..10 {
        assert!(proxy.raw(b"you").await.starts_with("hello "));
    }
}

#[tokio::test]
async fn a_proxy_header_tells_who_called() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let mut cluster = up(&[greeter().await]);
        cluster.proxy_protocol = Some(version);
        let outer = tcp_proxy(cluster, |_| {}).await;
        let inner = tcp_proxy(up(&[outer.address]), |listener| {
            listener.proxy_protocol = true
        })
        .await;
        // Without a header there is no connection.
        assert_eq!(inner.raw(b"GET / HTTP/1.1\r\n\r\n").await, "");
        let answer = inner
            .raw(b"PROXY TCP4 10.1.2.3 10.4.5.6 1000 80\r\nyou")
            .await;
        assert!(answer.starts_with("hello "), "{version:?}: {answer}");
    }
}

/// An endpoint that speaks WebSocket far enough: it accepts, then returns what it gets.
async fn socket_endpoint() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    let Ok(byte) = stream.read_u8().await else {
                        return;
                    };
                    head.push(byte);
                }
                let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
                assert!(
                    head.contains("upgrade: websocket") && head.contains("connection: upgrade"),
                    "{head}"
                );
                assert!(head.contains("sec-websocket-key: "), "{head}");
                let _ = stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n").await;
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

fn with_upgrades(cluster: &str) -> Http {
    let mut forward = to(cluster);
    forward.upgrades = vec!["websocket".to_owned(), "CONNECT".to_owned()];
    let mut http = http_to(forward);
    http.connect = true;
    http
}

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n\r\n";

async fn upgraded(proxy: &Proxy) {
    let passing = tokio::time::timeout(Duration::from_secs(10), pass(proxy)).await;
    assert!(passing.is_ok(), "it took too long");
}

async fn pass(proxy: &Proxy) {
    let mut stream = TcpStream::connect(proxy.address)
        .await
        .expect("a connection");
    stream.write_all(UPGRADE.as_bytes()).await.expect("to send");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("an answer"));
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(head.contains("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "{head}");
    stream.write_all(b"ping").await.expect("to send");
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).await.expect("the echo");
    assert_eq!(&echoed, b"ping");
}

#[tokio::test]
async fn tls_passes_through_by_the_name_it_asks_for() {
    let authority = Authority::default();
    let answering = |text: &'static str| {
        let direct = Action::Respond {
            status: StatusCode::OK,
            body: text.to_owned(),
        };
        let http = support::http(vec![support::route("direct", Default::default(), direct)]);
        let certificate = authority.issue(&[], |params| {
            let name = format!("{text}.example").try_into().expect("a name");
            params.subject_alt_names.push(rcgen::SanType::DnsName(name));
        });
        let common = support::certificates::common(Some(certificate), None, &["http/1.1"]);
        let tls = fairlead_model::tls::ServerTls {
            common,
            require_client: false,
        };
        Proxy::start(move |address| {
            snapshot(
                listener(address, Handler::Http(Arc::new(http)), Some(tls)),
                vec![],
            )
        })
    };
    let (left, right) = (answering("left").await, answering("right").await);
    let clusters = [("left", left.address), ("right", right.address)].map(|(name, address)| {
        fairlead_model::cluster::Cluster::of(
            name,
            fairlead_model::cluster::Endpoints::at([address]),
        )
    });
    let chain = |name: &str| {
        let tcp = fairlead_model::listener::Tcp {
            by_server_name: None,
            name: name.to_owned(),
            clusters: vec![(name.into(), 1)],
            idle: None,
            tunnel: None,
            logs: Vec::new(),
        };
        let mut chain = listener(free(), Handler::Tcp(Arc::new(tcp)), None)
            .chains
            .remove(0);
        chain.matches.server_names = vec![format!("{name}.example")];
        chain
    };
    let outer = Proxy::start(|address| {
        let mut own = listener(address, Handler::Http(Arc::new(http_to(to("left")))), None);
        own.chains = vec![chain("left"), chain("right")];
        snapshot(own, clusters.to_vec())
    })
    .await;
    for name in ["left", "right"] {
        let tls = fairlead_model::tls::ClientTls {
            follows_host: false,
            common: support::certificates::common(
                None,
                Some(authority.trust(&[], &[])),
                &["http/1.1"],
            ),
            server_name: Some(format!("{name}.example")),
        };
        let config = fairlead_proxy::tls::client_config(&tls, &|_| None).expect("a configuration");
        let stream = TcpStream::connect(outer.address)
            .await
            .expect("a connection");
        let asked = format!("{name}.example").try_into().expect("a name");
        let mut secured = tokio_rustls::TlsConnector::from(config)
            .connect(asked, stream)
            .await
            .expect("TLS");
        secured
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
            .await
            .expect("to send");
        let mut answer = Vec::new();
        let _ = secured.read_to_end(&mut answer).await;
        assert!(
            answer.ends_with(name.as_bytes()),
            "{}",
            String::from_utf8_lossy(&answer)
        );
    }
}

/// A proxy before an endpoint, and the cluster that reaches it over HTTP/2 with mutual TLS.
async fn secured(endpoint: SocketAddr) -> (Proxy, Cluster) {
    let authority = Authority::default();
    let name = "spiffe://cluster.local/ns/a/sa/b";
    let tls = server(
        authority.issue(&[name], |_| {}),
        authority.trust(&[], &[name]),
    );
    let inner = Proxy::start(|address| {
        let handler = Handler::Http(Arc::new(with_upgrades("up")));
        snapshot(listener(address, handler, Some(tls)), vec![up(&[endpoint])])
    })
    .await;
    let mut cluster = up(&[inner.address]);
    cluster.protocol = UpstreamProtocol::Http2;
    cluster.tls = Some(client(
        authority.issue(&[name], |_| {}),
        authority.trust(&[], &[name]),
    ));
    (inner, cluster)
}

#[tokio::test]
async fn bytes_cross_a_pair_in_a_tunnel_with_an_identity() {
    let (_inner, cluster) = secured(greeter().await).await;
    let outer = tcp_proxy(cluster, |listener| {
        if let Handler::Tcp(tcp) = &mut listener.chains[0].handler {
            let authority = Format::parse("db.example:5432").expect("a format");
            Arc::make_mut(tcp).tunnel = Some(Box::new(Tunnel {
                authority,
                headers: HeaderChanges::default(),
            }));
        }
    })
    .await;
    let mut streams = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(outer.address)
            .await
            .expect("a connection");
        stream.write_all(b"you").await.expect("to send");
        assert_eq!(drain(&mut stream).await, "hello you");
        streams.push(stream);
    }
}

#[tokio::test]
async fn a_websocket_passes() {
    let proxy = proxy(with_upgrades("up"), up(&[socket_endpoint().await])).await;
    upgraded(&proxy).await;
}

#[tokio::test]
async fn a_websocket_passes_a_pair_over_http2() {
    let (_inner, cluster) = secured(socket_endpoint().await).await;
    let outer = proxy(with_upgrades("up"), cluster).await;
    upgraded(&outer).await;
}

#[tokio::test]
async fn an_upgrade_that_is_not_allowed_is_refused() {
    let proxy = proxy(http_to(to("up")), up(&[socket_endpoint().await])).await;
    let answer = proxy.raw(UPGRADE.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
}

#[tokio::test]
async fn connect_opens_a_tunnel() {
    let proxy = proxy(with_upgrades("up"), up(&[greeter().await])).await;
    let mut stream = TcpStream::connect(proxy.address)
        .await
        .expect("a connection");
    stream
        .write_all(b"CONNECT db.example:5432 HTTP/1.1\r\nhost: db.example:5432\r\n\r\n")
        .await
        .expect("to send");
    let answer = drain(&mut stream).await;
    assert!(
        answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello "),
        "{answer}"
    );
    stream.write_all(b"you").await.expect("to send");
    assert_eq!(drain(&mut stream).await, "you");
}

#[tokio::test]
async fn requests_that_may_be_read_in_two_ways_are_refused() {
    let endpoint = Endpoint::start(|_, _| async { text_answer(200, "reached") }).await;
    let proxy = proxy(http_to(to("up")), up(&[endpoint.address])).await;
    let refused = [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n folded\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\nx",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\nx",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 2\r\n\r\nxx",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET http://user@a/ HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: a\0b\r\n\r\n",
        "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n",
        "G@T / HTTP/1.1\r\nhost: a\r\n\r\n",
    ];
    for request in refused {
        let answer = proxy.raw(request.as_bytes()).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{request:?}: {answer}"
        );
        assert!(!answer.contains("reached"), "{request:?}: {answer}");
    }
    assert_eq!(endpoint.requests(), 0);
}

#[tokio::test]
async fn a_chunked_body_is_not_taken_for_a_second_request() {
    let endpoint = Endpoint::start(|request, _| async move {
        let path = request.uri().path().to_owned();
        let _ = http_body_util::BodyExt::collect(request.into_body()).await;
        text_answer(200, &path)
    })
    .await;
    let proxy = proxy(http_to(to("up")), up(&[endpoint.address])).await;
    // Both lengths: the coding counts, and the length does not travel on (RFC 9112 6.3).
    let both = "POST /one HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n1f\r\nGET /smuggled HTTP/1.1\r\nx: yz\r\n\r\n0\r\n\r\n";
    let answer = proxy.raw(both.as_bytes()).await;
    assert!(!answer.contains("/smuggled"), "{answer}");
    assert!(endpoint.requests() <= 1);
    // Whoever sent both may mean something else by what follows: the connection ends (RFC 9112 6.1).
    let then = format!("{both}GET /after HTTP/1.1\r\nhost: a\r\n\r\n");
    let answer = proxy.raw(then.as_bytes()).await;
    assert!(
        answer.contains("connection: close") && !answer.contains("/after"),
        "{answer}"
    );
    for bad in [
        "1;\nGET",
        "zz\r\n",
        "-1\r\n",
        "0x1\r\n",
        "11111111111111111\r\n",
    ] {
        let request =
            format!("POST /two HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{bad}");
        let answer = proxy.raw(request.as_bytes()).await;
        assert!(!answer.contains(" 200 "), "{bad:?}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_with_both_lengths_is_read_in_one_way() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let address = taken.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = taken.accept().await {
            let mut buffer = [0; 1024];
            let _ = stream.read(&mut buffer).await;
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let proxy = proxy(http_to(to("up")), up(&[address])).await;
    let answer = proxy.raw(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(
        !answer.contains("content-length") && answer.contains("transfer-encoding: chunked"),
        "{answer}"
    );
    assert!(answer.ends_with("5\r\nhello\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn new_settings_drop_no_request() {
    let endpoints = [Endpoint::echo().await, Endpoint::echo().await];
    let proxy = Arc::new(proxy(http_to(to("up")), up(&[endpoints[0].address])).await);
    let stop = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (proxy, stop) = (Arc::clone(&proxy), Arc::clone(&stop));
            tokio::spawn(async move {
                let mut count = 0;
                while !stop.load(Ordering::SeqCst) {
                    let (head, body) = proxy.get("/").await;
                    assert_eq!(head.status, StatusCode::OK, "{body}");
                    count += 1;
                }
                count
            })
        })
        .collect();
    for turn in 0..40 {
        let mut forward = to("up");
        forward.upgrades = vec![format!("turn-{turn}")];
        let mut http = http_to(forward);
        // Now and then more than its routes changes.
        http.header_bytes += u32::from(turn % 4 == 0);
        let cluster = up(&[endpoints[turn % 2].address]);
        let next = snapshot(
            listener(proxy.address, Handler::Http(Arc::new(http)), None),
            vec![cluster],
        );
        proxy.snapshots.send_replace(Arc::new(next));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut total = 0;
    for caller in callers {
        total += caller.await.expect("no request failed");
    }
    assert!(
        total > 100 && endpoints.iter().all(|endpoint| endpoint.requests() > 0),
        "{total}"
    );
}

#[tokio::test]
async fn new_routes_reach_connections_that_are_open() {
    let endpoint = Endpoint::echo().await;
    let proxy = proxy(http_to(to("up")), up(&[endpoint.address])).await;
    let mut stream = TcpStream::connect(proxy.address)
        .await
        .expect("a connection");
    let request = b"GET /a HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    stream.write_all(request).await.expect("to send");
    let answer = drain(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let gone = Action::Respond {
        status: StatusCode::GONE,
        body: "gone".into(),
    };
    let http = support::http(vec![support::route("all", Default::default(), gone)]);
    let next = snapshot(
        listener(proxy.address, Handler::Http(Arc::new(http)), None),
        vec![up(&[endpoint.address])],
    );
    proxy.snapshots.send_replace(Arc::new(next));
    tokio::time::sleep(Duration::from_millis(100)).await;
    stream.write_all(request).await.expect("it is still open");
    let answer = drain(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 410"), "{answer}");
}

/// A chain for callers of one network, whose requests have up to so many headers.
fn callers_of(network: &str, headers: u32) -> Chain {
    let http = Http {
        header_count: headers,
        ..http_to(to("up"))
    };
    Chain {
        name: format!("of {network}"),
        matches: ChainMatch {
            sources: vec![network.parse().expect("a network")],
            ..ChainMatch::default()
        },
        tls: None,
        access: Vec::new(),
        handler: Handler::Http(Arc::new(http)),
    }
}

#[tokio::test]
async fn connections_of_chains_that_stay_go_on_whatever_comes_beside_them() {
    let endpoint = Endpoint::echo().await;
    let told = |address, chains| {
        let handler = Handler::Http(Arc::new(http_to(to("up"))));
        let own = Listener {
            chains,
            ..listener(address, handler, None)
        };
        snapshot(own, vec![up(&[endpoint.address])])
    };
    let own = || callers_of("127.0.0.1/32", 100);
    let proxy = Proxy::start(|address| told(address, vec![own()])).await;
    let connect = async || TcpStream::connect(proxy.address).await.expect("it listens");
    let mut streams = [connect().await, connect().await];
    let answered = async |stream: &mut TcpStream| {
        asks(stream).await;
        let answer = drain(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.contains("connection: close"), "{answer}");
    };
    for stream in &mut streams {
        answered(stream).await;
    }
    // When chains for others come before theirs, and change, and go, one that is asked and one that rests go on.
    let other = |headers| callers_of("10.0.0.0/8", headers);
    for chains in [
        vec![other(100), own()],
        vec![other(50), callers_of("10.1.0.0/16", 100), own()],
        vec![own()],
    ] {
        let next = told(proxy.address, chains);
        proxy.snapshots.send_replace(Arc::new(next));
        tokio::time::sleep(Duration::from_millis(1200)).await;
        answered(&mut streams[0]).await;
    }
    answered(&mut streams[1]).await;
    // And when their own chain is another, they end.
    let next = told(proxy.address, vec![callers_of("127.0.0.1/32", 50)]);
    proxy.snapshots.send_replace(Arc::new(next));
    for stream in &mut streams {
        let end = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut [0])).await;
        assert_eq!(end.expect("it ends").expect("in order"), 0);
    }
}

/// Asks, as if a connection to this address had been captured.
async fn captured(proxy: &Proxy, to: &str) -> TcpStream {
    let stream = TcpStream::connect(proxy.address).await;
    let mut stream = stream.expect("a connection");
    let (ip, port) = to.rsplit_once(':').expect("an address");
    let header = format!("PROXY TCP4 127.0.0.1 {ip} 4000 {port}\r\n");
    stream.write_all(header.as_bytes()).await.expect("to send");
    asks(&mut stream).await;
    stream
}

async fn asks(stream: &mut TcpStream) {
    let request = b"GET /a HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    stream.write_all(request).await.expect("it is open");
}

#[tokio::test]
async fn connections_are_handed_over_by_where_they_were_to_go() {
    let answering = |body: &str| {
        let own = Action::Respond {
            status: StatusCode::OK,
            body: body.to_owned(),
        };
        let http = support::http(vec![support::route("all", Default::default(), own)]);
        Handler::Http(Arc::new(http))
    };
    let handed = |name: &str, address: &str| Listener {
        name: name.to_owned(),
        binds: false,
        ..listener(address.parse().expect("an address"), answering(name), None)
    };
    let told = |address, others: &[Listener]| {
        let own = Listener {
            hands_over: true,
            // Nothing is captured here: a PROXY header says whom a caller wants to reach.
            proxy_protocol: true,
            ..listener(address, answering("itself"), None)
        };
        let mut snapshot = snapshot(own, Vec::new());
        for own in others {
            let own = own.clone();
            snapshot.listeners.insert(own.name.clone(), Arc::new(own));
        }
        snapshot
    };
    let (cart, till, all) = (
        handed("cart", "10.0.0.1:80"),
        handed("till", "10.0.0.2:80"),
        handed("all", "0.0.0.0:81"),
    );
    let before = [cart.clone(), all];
    let proxy = Proxy::start(|address| told(address, &before)).await;
    let says = async |to: &str| drain(&mut captured(&proxy, to).await).await;
    // By its address, or by its port alone; and who wants to go elsewhere stays.
    for (to, expected) in [
        ("10.0.0.1:80", "cart"),
        ("10.0.0.2:80", "itself"),
        ("10.0.0.2:81", "all"),
        ("10.0.0.1:82", "itself"),
    ] {
        let answer = says(to).await;
        assert!(answer.ends_with(expected), "{to}: {answer}");
    }
    // One that comes takes what comes then, and closes no connection of another or of before; one that goes ends its own.
    let mut kept = [
        captured(&proxy, "10.0.0.1:80").await,
        captured(&proxy, "10.0.0.2:80").await,
        captured(&proxy, "10.0.0.2:81").await,
    ];
    for stream in &mut kept {
        drain(stream).await;
    }
    let next = told(proxy.address, &[cart, till]);
    proxy.snapshots.send_replace(Arc::new(next));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let answer = says("10.0.0.2:80").await;
    assert!(answer.ends_with("till"), "{answer}");
    let answer = says("10.0.0.2:81").await;
    assert!(answer.ends_with("itself"), "{answer}");
    let [cart, itself, gone] = &mut kept;
    for (stream, expected) in [(cart, "cart"), (itself, "itself")] {
        asks(stream).await;
        let answer = drain(stream).await;
        assert!(answer.ends_with(expected), "{answer}");
    }
    let end = tokio::time::timeout(Duration::from_secs(5), gone.read(&mut [0])).await;
    assert_eq!(end.expect("it ends").expect("in order"), 0);
}

#[tokio::test]
async fn a_drain_lets_requests_end() {
    let endpoint = Endpoint::start(|_, _| async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        text_answer(200, "done")
    })
    .await;
    let proxy = Arc::new(proxy(http_to(to("up")), up(&[endpoint.address])).await);
    let own = Arc::clone(&proxy);
    let running = tokio::spawn(async move { own.get("/").await });
    while endpoint.requests() == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    proxy.shared.draining.send_replace(true);
    let (head, body) = running.await.expect("an answer");
    assert_eq!((head.status, body.as_str()), (StatusCode::OK, "done"));
    for _ in 0..100 {
        if TcpStream::connect(proxy.address).await.is_err() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it still listens");
}

#[tokio::test]
async fn the_first_request_of_a_connection_is_answered_though_it_is_to_end() {
    let endpoint = Endpoint::echo().await;
    let own = || Http {
        // So that nobody waits to see which version it is.
        codec: Codec::Http1,
        ..http_to(to("up"))
    };
    for ends in [false, true] {
        let proxy = proxy(own(), up(&[endpoint.address])).await;
        let stream = TcpStream::connect(proxy.address).await;
        let mut stream = stream.expect("a connection");
        tokio::time::sleep(Duration::from_millis(100)).await;
        if ends {
            proxy.shared.draining.send_replace(true);
        } else {
            let mut http = own();
            http.header_bytes += 1;
            let next = snapshot(
                listener(proxy.address, Handler::Http(Arc::new(http)), None),
                vec![up(&[endpoint.address])],
            );
            proxy.snapshots.send_replace(Arc::new(next));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let request = b"GET /a HTTP/1.1\r\nhost: shop.example\r\n\r\n";
        stream.write_all(request).await.expect("it is still open");
        let answer = drain(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{ends}: {answer}");
        assert!(answer.contains("connection: close"), "{ends}: {answer}");
        assert_eq!(stream.read(&mut [0]).await.expect("an orderly end"), 0);
    }
}

#[tokio::test]
async fn who_was_connected_before_the_end_is_answered() {
    let endpoint = Endpoint::echo().await;
    for round in 0..5 {
        let proxy = proxy(http_to(to("up")), up(&[endpoint.address])).await;
        // Most of them nobody has taken yet when the end begins.
        let connect = |_| std::net::TcpStream::connect(proxy.address).expect("a connection");
        let streams: Vec<_> = (0..50).map(connect).collect();
        proxy.shared.draining.send_replace(true);
        for (number, stream) in streams.into_iter().enumerate() {
            stream.set_nonblocking(true).expect("a connection");
            let mut stream = TcpStream::from_std(stream).expect("a connection");
            let request = b"GET /a HTTP/1.1\r\nhost: shop.example\r\n\r\n";
            let sent = stream.write_all(request).await;
            sent.unwrap_or_else(|error| panic!("{round}, {number}: {error}"));
            let answer = drain(&mut stream).await;
            assert!(
                answer.starts_with("HTTP/1.1 200"),
                "{round}, {number}: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn a_route_without_a_cluster_says_so() {
    let forward = Action::Forward(Box::new(to("missing")));
    let http = support::http(vec![support::route("all", Default::default(), forward)]);
    let proxy = proxy(http, up(&[free()])).await;
    let (head, _) = proxy.get("/").await;
    assert_eq!(
        head.headers["proxy-status"],
        "fairlead; error=destination_not_found"
    );
}
