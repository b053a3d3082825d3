//! Servers that speak first, behind a listener that tells protocols apart for others.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use fairlead_xds::bootstrap;
use support::{Endpoint, Proxy, drain};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// What is at once.
const SOON: Duration = Duration::from_secs(2);
/// What such a server says.
const GREETING: &[u8] = b"220 mail.shop.example ESMTP\r\n";

/// A server that greets, and then listens.
async fn mail() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = stream.write_all(GREETING).await;
                let _ = stream.read(&mut [0; 64]).await;
            });
        }
    });
    address
}

/// A sidecar's outbound listener, to which a PROXY header says where a connection was to go.
async fn sidecar(mail: SocketAddr, web: SocketAddr) -> Proxy {
    const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters";
    let tcp = |cluster: &str| {
        format!(
            r#"[{{name: tcp, typed_config: {{"@type": {FILTERS}.network.tcp_proxy.v3.TcpProxy, stat_prefix: {cluster}, cluster: {cluster}}}}}]"#
        )
    };
    let cluster = |name: &str, to: SocketAddr| {
        format!(
            "{{name: {name}, load_assignment: {{cluster_name: {name}, endpoints: [{{lb_endpoints: [{{endpoint: {{address: {{socket_address: {{address: {}, port_value: {}}}}}}}}}]}}]}}}}",
            to.ip(),
            to.port()
        )
    };
    let (to_mail, to_web) = (tcp("mail"), tcp("web"));
    let clusters = [cluster("mail", mail), cluster("web", web)].join(", ");
    Proxy::start(|own| {
        let text = format!(
            r#"
static_resources:
  clusters: [{clusters}]
  listeners:
  - name: outbound
    address: {{socket_address: {{address: 127.0.0.1, port_value: {}}}}}
    listener_filters_timeout: 60s
    listener_filters:
    - {{name: proxy, typed_config: {{"@type": {FILTERS}.listener.proxy_protocol.v3.ProxyProtocol}}}}
    - {{name: tls, typed_config: {{"@type": {FILTERS}.listener.tls_inspector.v3.TlsInspector}}}}
    - {{name: http, typed_config: {{"@type": {FILTERS}.listener.http_inspector.v3.HttpInspector}}}}
    filter_chains:
    - filter_chain_match: {{destination_port: 80, prefix_ranges: [{{address_prefix: 10.0.0.1, prefix_len: 32}}], application_protocols: [http/1.1]}}
      filters: {to_web}
    - filter_chain_match: {{destination_port: 80, prefix_ranges: [{{address_prefix: 10.0.0.1, prefix_len: 32}}]}}
      filters: {to_mail}
    - filter_chain_match: {{destination_port: 25, prefix_ranges: [{{address_prefix: 10.0.0.1, prefix_len: 32}}]}}
      filters: {to_mail}
    default_filter_chain: {{filters: {to_mail}}}
"#,
            own.port()
        );
        let read = bootstrap(&text, &|_| Ok(Vec::new()));
        read.unwrap_or_else(|error| panic!("{error}")).snapshot
    })
    .await
}

async fn to(proxy: &Proxy, destination: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address)
        .await
        .expect("a connection");
    let header = format!("PROXY TCP4 10.1.0.1 {destination}\r\n");
    stream.write_all(header.as_bytes()).await.expect("to send");
    stream
}

#[tokio::test]
async fn a_server_that_speaks_first_is_reached_at_once_where_nobody_asks_what_is_spoken() {
    let web = Endpoint::echo().await;
    let proxy = sidecar(mail().await, web.address).await;
    let mut greeting = [0; GREETING.len()];
    // A service's own port, and what is no service at all.
    for destination in ["10.0.0.1 1000 25", "192.0.2.1 1000 80"] {
        let mut stream = to(&proxy, destination).await;
        let read = timeout(SOON, stream.read_exact(&mut greeting)).await;
        read.expect("at once").expect("the greeting");
        assert_eq!(greeting, GREETING);
    }
    // HTTP is told from other bytes where it makes a difference.
    let mut stream = to(&proxy, "10.0.0.1 1000 80").await;
    let silent = timeout(Duration::from_millis(200), stream.read(&mut greeting)).await;
    assert!(silent.is_err(), "the caller has to speak first: {silent:?}");
    let request = b"GET /tea HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.expect("to send");
    let answer = drain(&mut stream).await;
    assert!(answer.contains("GET /tea shop.example"), "{answer}");
    let mut stream = to(&proxy, "10.0.0.1 1000 80").await;
    stream
        .write_all(b"EHLO shop.example\r\n")
        .await
        .expect("to send");
    let read = timeout(SOON, stream.read_exact(&mut greeting)).await;
    read.expect("at once").expect("the greeting");
}
