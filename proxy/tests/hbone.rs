//! HBONE: bytes inside HTTP/2 CONNECT inside mutual TLS, as Istio's ztunnel speaks it.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::tls::Certificate;
use fairlead_proxy::tls::{client_config, server_config};
use program::Program;
use rustls::pki_types::ServerName;
use serde_json::json;
use support::certificates::{Authority, client, server};
use support::free;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

const CART: &str = "spiffe://example.local/ns/shop/sa/cart";

/// A service that says everything again, and then farewell.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.write_all(b" bye").await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

/// The example with certificates of an authority; its HBONE port, and that for what is captured.
struct Pair {
    program: Program,
    hbone: SocketAddr,
    captured: SocketAddr,
}

async fn pair(authority: &Authority, to: Option<SocketAddr>) -> Pair {
    let (hbone, captured) = (free(), free());
    let own = authority.issue(&[CART], |_| {});
    let pem = |bytes: &[u8]| {
        let text = String::from_utf8(bytes.to_vec()).expect("PEM");
        format!("inline_string: {}", json!(text))
    };
    let to = to.unwrap_or(hbone);
    let changes = [
        ("filename: cart.pem", pem(&own.chain)),
        ("filename: cart.key", pem(&own.key)),
        ("filename: authority.pem", pem(&authority.trust(&[], &[]).roots)),
        ("port_value: 15008", format!("port_value: {}", hbone.port())),
        ("port_value: 15001", format!("port_value: {}", captured.port())),
        ("upstream_port_override: 15008", format!("upstream_port_override: {}", to.port())),
        // Nothing is captured here: a PROXY header says whom a caller wants to reach.
        ("use_original_dst: true", "listener_filters: [{ name: proxy_protocol, typed_config: { \"@type\": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol } }]".to_owned()),
    ];
    let program = Program::example("hbone.yaml", &changes).await;
    Pair {
        program,
        hbone,
        captured,
    }
}

impl Pair {
    /// A connection to a service, as if it had been captured.
    async fn captured(&self, to: SocketAddr) -> TcpStream {
        let mut stream = TcpStream::connect(self.captured)
            .await
            .expect("a connection");
        let header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 4000 {}\r\n", to.port());
        stream.write_all(header.as_bytes()).await.expect("to send");
        stream
    }

    async fn figure(&self, name: &str) -> i64 {
        let (_, text) = self.program.get("/stats").await.expect("figures");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("{name}: {text}"))
            .parse()
            .expect("a number")
    }
}

#[tokio::test]
async fn captured_bytes_cross_and_share_a_connection() {
    let (authority, service) = (Authority::default(), echo().await);
    let pair = pair(&authority, None).await;
    let mut streams = Vec::new();
    for number in 0..5 {
        let mut stream = pair.captured(service).await;
        stream
            .write_all(format!("{number}").as_bytes())
            .await
            .expect("to send");
        let mut byte = [0];
        stream.read_exact(&mut byte).await.expect("an echo");
        assert_eq!(byte[0], b'0' + number);
        streams.push(stream);
    }
    assert_eq!(
        pair.figure("cluster.hbone.upstream_cx_http2_total").await,
        1
    );
    // What one side has ended, the other may still answer.
    for mut stream in streams {
        stream.shutdown().await.expect("to end");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.expect("the rest");
        assert_eq!(rest, " bye");
    }
}

/// A frame of HTTP/2 (RFC 9113 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut all = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    all.extend([kind, flags]);
    all.extend(stream.to_be_bytes());
    all.extend(payload);
    all
}

/// A header without an index (RFC 7541 6.2.2), by the number of its name in the static table or the name itself.
fn field(name: Result<u8, &str>, value: &str) -> Vec<u8> {
    let mut all = match name {
        Ok(number) => vec![number],
        Err(name) => {
            let mut own = vec![0, name.len() as u8];
            own.extend(name.bytes());
            own
        }
    };
    all.push(value.len() as u8);
    all.extend(value.bytes());
    all
}

/// What ztunnel's client begins with: the preface, its settings and its window.
fn preface() -> Vec<u8> {
    let mut all = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    // No push, a stream's window of 4 MiB, frames of 1 MiB, headers of 16 KiB.
    let settings = [(2u16, 0u32), (4, 4 << 20), (5, 1 << 20), (6, 16 << 10)];
    let settings: Vec<u8> = settings
        .iter()
        .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
        .collect();
    all.extend(frame(4, 0, 0, &settings));
    all.extend(frame(8, 0, 0, &(16u32 << 20).to_be_bytes()));
    all
}

/// What it asks with.
fn connect(stream: u32, authority: &str) -> Vec<u8> {
    let fields = [
        field(Ok(2), "CONNECT"),
        field(Ok(1), authority),
        field(
            Err("baggage"),
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.deployment.name=web,service.name=web,service.version=v1",
        ),
        field(Err("forwarded"), "for=\"10.0.0.1:4000\""),
        field(
            Err("traceparent"),
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
        ),
    ];
    frame(1, 4, stream, &fields.concat())
}

async fn dial(authority: &Authority, own: Certificate, to: SocketAddr) -> TlsStream<TcpStream> {
    let tls = client(own, authority.trust(&[], &[CART]));
    let config = client_config(&tls, &|_| None).expect("a configuration");
    let stream = TcpStream::connect(to).await.expect("a connection");
    let name = ServerName::IpAddress(to.ip().into());
    TlsConnector::from(config)
        .connect(name, stream)
        .await
        .expect("TLS")
}

/// The next frame of a stream: its kind, its flags and what it carries.
async fn next(connection: &mut TlsStream<TcpStream>, stream: u32) -> (u8, u8, Vec<u8>) {
    loop {
        let mut head = [0; 9];
        let read = connection.read_exact(&mut head);
        tokio::time::timeout(Duration::from_secs(10), read)
            .await
            .expect("in time")
            .expect("a frame");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        connection
            .read_exact(&mut payload)
            .await
            .expect("a payload");
        let of = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match head[3] {
            4 if head[4] & 1 == 0 => {
                connection
                    .write_all(&frame(4, 1, 0, &[]))
                    .await
                    .expect("to send");
            }
            kind if of == stream && kind != 8 => return (kind, head[4], payload),
            _ => {}
        }
    }
}

#[tokio::test]
async fn what_ztunnel_sends_is_understood_byte_for_byte() {
    let (authority, service) = (Authority::default(), echo().await);
    let pair = pair(&authority, None).await;
    let own = authority.issue(&["spiffe://example.local/ns/shop/sa/web"], |_| {});
    let mut connection = dial(&authority, own, pair.hbone).await;
    let target = format!("127.0.0.1:{}", service.port());
    let mut bytes = preface();
    bytes.extend(connect(1, &target));
    bytes.extend(frame(0, 0, 1, b"hello"));
    connection.write_all(&bytes).await.expect("to send");
    let (kind, flags, fields) = next(&mut connection, 1).await;
    // Headers, and more to come: `:status: 200` is number 8 of the static table.
    assert_eq!((kind, flags & 1, fields[0]), (1, 0, 0x88), "{fields:?}");
    assert_eq!(next(&mut connection, 1).await, (0, 0, b"hello".to_vec()));
    // Another stream of the same connection, while the first one is open.
    connection
        .write_all(&connect(3, &target))
        .await
        .expect("to send");
    connection
        .write_all(&frame(0, 1, 3, b"again"))
        .await
        .expect("to send");
    assert_eq!(next(&mut connection, 3).await.2[0], 0x88);
    let mut rest = Vec::new();
    loop {
        let (kind, flags, payload) = next(&mut connection, 3).await;
        assert_eq!(kind, 0);
        rest.extend(payload);
        if flags & 1 == 1 {
            break;
        }
    }
    assert_eq!(rest, b"again bye");
}

#[tokio::test]
async fn who_is_not_let_in_or_wants_elsewhere_is_refused() {
    let (authority, service) = (Authority::default(), echo().await);
    let pair = pair(&authority, None).await;
    let port = service.port();
    for (name, target) in [
        (
            "spiffe://example.local/ns/other/sa/web",
            format!("127.0.0.1:{port}"),
        ),
        (
            "spiffe://example.local/ns/shop/sa/web",
            format!("127.0.0.2:{port}"),
        ),
        (
            "spiffe://example.local/ns/shop/sa/web",
            "169.254.169.254:80".to_owned(),
        ),
    ] {
        let own = authority.issue(&[name], |_| {});
        let mut connection = dial(&authority, own, pair.hbone).await;
        let mut bytes = preface();
        bytes.extend(connect(1, &target));
        connection.write_all(&bytes).await.expect("to send");
        let (kind, _, fields) = next(&mut connection, 1).await;
        // `:status` by its number in the static table, and 403 in Huffman's code.
        let refused = [0x48, 0x83, 0x68, 0x0c, 0xff];
        assert!(
            kind == 1 && fields.starts_with(&refused),
            "{name} {target}: {fields:x?}"
        );
    }
}

#[tokio::test]
async fn ztunnel_is_told_whom_to_reach_and_for_whom() {
    let (authority, other) = (Authority::default(), free());
    let listener = TcpListener::bind(other).await.expect("the port");
    let tls = server(
        authority.issue(&[CART], |_| {}),
        authority.trust(&[], &[CART]),
    );
    let config = server_config(&tls, &|_| None).expect("a configuration");
    let pair = pair(&authority, Some(other)).await;
    let mut stream = pair
        .captured("127.0.0.1:5432".parse().expect("an address"))
        .await;
    stream.write_all(b"hello").await.expect("to send");
    let (tcp, _) = listener.accept().await.expect("a connection");
    let secured = TlsAcceptor::from(Arc::clone(&config))
        .accept(tcp)
        .await
        .expect("TLS");
    assert_eq!(secured.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut connection = h2::server::handshake(secured).await.expect("HTTP/2");
    let (request, mut respond) = connection
        .accept()
        .await
        .expect("a stream")
        .expect("a request");
    assert_eq!(request.method(), "CONNECT");
    assert_eq!(request.uri().to_string(), "127.0.0.1:5432");
    let said = |name: &str| {
        request
            .headers()
            .get(name)
            .map(|own| own.to_str().expect("ASCII"))
    };
    assert_eq!(
        said("baggage"),
        Some("k8s.namespace.name=shop,k8s.deployment.name=cart,service.name=cart")
    );
    assert_eq!(said("forwarded"), Some("for=\"127.0.0.1:4000\""));
    let mut sender = respond
        .send_response(http::Response::new(()), false)
        .expect("to answer");
    let mut body = request.into_body();
    tokio::spawn(async move { while connection.accept().await.is_some() {} });
    assert_eq!(
        body.data().await.expect("bytes").expect("bytes").as_ref(),
        b"hello"
    );
    sender.send_data("world".into(), true).expect("to send");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    assert_eq!(answer, "world");
}
