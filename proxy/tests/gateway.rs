//! A gateway: many names with certificates of their own, redirects to HTTPS, client certificates, and callers behind a balancer.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_model::listener::{Chain, ChainMatch, Handler};
use fairlead_model::tls::{Certificate, ClientTls, ServerTls};
use fairlead_proxy::tls::client_config;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use program::Program;
use rcgen::SanType;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::json;
use support::certificates::{Authority, common};
use support::{Endpoint, Proxy, free, http_to, listener, snapshot, text_answer, to, up};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How many names the large gateway has.
const NAMES: usize = 5_000;

fn certificate(authority: &Authority, name: &str) -> Certificate {
    authority.issue(&[], |params| {
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().expect("a name"))];
    })
}

/// A caller that verifies a name, and shows what it has.
fn caller(authority: &Authority, own: Option<Certificate>, name: &str) -> Arc<ClientConfig> {
    let tls = ClientTls {
        common: common(own, Some(authority.trust(&[], &[])), &["http/1.1"]),
        server_name: Some(name.to_owned()),
        follows_host: false,
    };
    client_config(&tls, &|_| None).expect("a configuration")
}

async fn connect(
    config: Arc<ClientConfig>,
    to: SocketAddr,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    TlsConnector::from(config).connect(name, stream).await
}

/// A proxy with a chain for each of so many names.
async fn gateway(authority: &Authority, names: usize) -> Proxy {
    let http = Arc::new(http_to(to("up")));
    let chains = (0..names).map(|number| {
        let name = format!("n{number}.example.com");
        let tls = ServerTls {
            common: common(Some(certificate(authority, &name)), None, &["http/1.1"]),
            require_client: false,
        };
        Chain {
            name: name.clone(),
            matches: ChainMatch {
                server_names: vec![name],
                ..ChainMatch::default()
            },
            tls: Some(tls),
            access: Vec::new(),
            handler: Handler::Http(Arc::clone(&http)),
        }
    });
    let chains: Vec<Chain> = chains.collect();
    Proxy::start(|address| {
        let mut own = listener(address, Handler::Http(Arc::clone(&http)), None);
        own.chains = chains;
        snapshot(own, vec![up(&[])])
    })
    .await
}

/// How long a handshake takes, of half of them at most; each is with another one of `names`.
async fn handshakes(authority: &Authority, proxy: &Proxy, names: usize) -> Duration {
    let mut all = Vec::new();
    for number in 0..200 {
        let name = format!("n{}.example.com", number * 7 % names);
        let config = caller(authority, None, &name);
        let begun = Instant::now();
        connect(config, proxy.address, &name)
            .await
            .expect("the name's own certificate");
        all.push(begun.elapsed());
    }
    all.sort();
    all[all.len() / 2]
}

#[tokio::test]
async fn thousands_of_names_have_certificates_of_their_own() {
    let authority = Authority::default();
    let few = gateway(&authority, 10).await;
    let many = gateway(&authority, NAMES).await;
    let (few, many) = (
        handshakes(&authority, &few, 10).await,
        handshakes(&authority, &many, NAMES).await,
    );
    eprintln!("10 names: {few:?}, {NAMES} names: {many:?}");
    // Those that were not asked for yet have their key read, which costs less than a handshake does.
    assert!(many < few * 3, "{few:?} {many:?}");
    let proxy = gateway(&authority, 100).await;
    let config = caller(&authority, None, "other.example.com");
    assert!(
        connect(config, proxy.address, "other.example.com")
            .await
            .is_err()
    );
}

/// The example before an endpoint that says what it is told of callers.
struct Gateway {
    _program: Program,
    plain: SocketAddr,
    secured: SocketAddr,
    authority: Authority,
    clients: Authority,
}

async fn example() -> Gateway {
    let endpoint = Endpoint::start(|request, _| async move {
        let said = |name: &str| {
            let value = request.headers().get(name);
            value
                .and_then(|own| own.to_str().ok())
                .unwrap_or("-")
                .to_owned()
        };
        text_answer(
            200,
            &format!(
                "{} {}",
                said("x-forwarded-for"),
                said("x-forwarded-client-cert")
            ),
        )
    })
    .await;
    let (authority, clients) = (Authority::default(), Authority::default());
    let (plain, secured) = (free(), free());
    let text = |bytes: Vec<u8>| {
        let text = String::from_utf8(bytes).expect("PEM");
        format!("inline_string: {}", json!(text))
    };
    let (www, api) = (
        certificate(&authority, "www.example.com"),
        certificate(&authority, "api.example.com"),
    );
    let at = |address: SocketAddr| format!("port_value: {}", address.port());
    let changes = [
        ("filename: www.pem", text(www.chain)),
        ("filename: www.key", text(www.key)),
        ("filename: api.pem", text(api.chain)),
        ("filename: api.key", text(api.key)),
        ("filename: clients.pem", text(clients.trust(&[], &[]).roots)),
        ("port_value: 15080", at(plain)),
        ("port_value: 15443", at(secured)),
        ("port_value: 8080", at(endpoint.address)),
    ];
    Gateway {
        _program: Program::example("gateway.yaml", &changes).await,
        plain,
        secured,
        authority,
        clients,
    }
}

impl Gateway {
    /// Asks by a name, with a certificate or without; nothing where the caller is not let in.
    async fn get(&self, name: &str, own: Option<Certificate>) -> Option<String> {
        let config = caller(&self.authority, own, name);
        let stream = connect(config, self.secured, name).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .ok()?;
        tokio::spawn(connection);
        let request = Request::get("/")
            .header("host", name)
            .header("x-forwarded-for", "198.51.100.1, 203.0.113.7")
            .body(Full::<bytes::Bytes>::default())
            .expect("a request");
        Some(
            support::read(sender.send_request(request).await.ok()?)
                .await
                .1,
        )
    }
}

#[tokio::test]
async fn client_certificates_may_or_have_to_be_shown() {
    let gateway = example().await;
    let client = || {
        gateway.clients.issue(&[], |params| {
            let name = "tenant.example".try_into().expect("a name");
            params.subject_alt_names = vec![SanType::DnsName(name)];
        })
    };
    let stranger = Authority::default().issue(&[], |_| {});
    let forwarded = "198.51.100.1, 203.0.113.7,127.0.0.1";
    let said = gateway.get("www.example.com", None).await;
    assert_eq!(said, Some(format!("{forwarded} -")));
    let said = gateway
        .get("www.example.com", Some(client()))
        .await
        .expect("an answer");
    assert!(
        said.starts_with(forwarded) && said.contains("DNS=tenant.example"),
        "{said}"
    );
    assert_eq!(gateway.get("www.example.com", Some(stranger)).await, None);
    assert_eq!(gateway.get("api.example.com", None).await, None);
    assert!(
        gateway
            .get("api.example.com", Some(client()))
            .await
            .is_some()
    );
}

#[tokio::test]
async fn plain_http_is_sent_on_to_https() {
    let gateway = example().await;
    let stream = TcpStream::connect(gateway.plain)
        .await
        .expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(connection);
    let request = Request::get("/a?b=c").header("host", "www.example.com");
    let request = request
        .body(Full::<bytes::Bytes>::default())
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), 308);
    assert_eq!(
        answer.headers()["location"],
        "https://www.example.com/a?b=c"
    );
}
