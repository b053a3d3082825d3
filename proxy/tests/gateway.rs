//! A gateway: many names with certificates of their own, redirects to HTTPS, client certificates, and callers behind a balancer.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use fairlead_model::listener::{Chain, ChainMatch, Handler};
use fairlead_model::tls::{Certificate, ClientTls, ServerTls};
use fairlead_proxy::tls::client_config;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use program::Program;
use rcgen::SanType;
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use support::certificates::{Authority, common};
use support::{Endpoint, Proxy, free, http_to, listener, snapshot, text_answer, to, up};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How many names the large gateway has.
const NAMES: usize = 5_000;

/// How long a proxy may take to use what its files say.
const PATIENCE: Duration = Duration::from_secs(10);

fn certificate(authority: &Authority, name: &str) -> Certificate {
    authority.issue(&[], |params| {
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().expect("a name"))];
    })
}

/// A caller that verifies a name, and shows what it has.
fn caller(authority: &Authority, own: Option<Certificate>, name: &str) -> Arc<ClientConfig> {
    speaking("http/1.1", authority, own, name)
}

/// One who speaks this.
fn speaking(
    protocol: &str,
    authority: &Authority,
    own: Option<Certificate>,
    name: &str,
) -> Arc<ClientConfig> {
    let tls = ClientTls {
        common: common(own, Some(authority.trust(&[], &[])), &[protocol]),
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

/// The files of the example.
struct Files(PathBuf);

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Files {
    fn new() -> Self {
        let name = format!("fairlead-gateway-files-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn write(&self, name: &str, content: &[u8]) {
        std::fs::write(self.0.join(name), content).expect("a file");
    }

    /// The line of the configuration that names one.
    fn named(&self, name: &str) -> String {
        format!("filename: {}", self.0.join(name).display())
    }
}

/// Requests over a gateway until they are to end.
#[derive(Clone)]
struct Load {
    to: SocketAddr,
    config: Arc<ClientConfig>,
    is_over: Arc<AtomicBool>,
}

impl Load {
    fn request() -> Request<Full<bytes::Bytes>> {
        let request = Request::get("https://www.example.com/").header("host", "www.example.com");
        request.body(Full::default()).expect("a request")
    }

    async fn stream(&self) -> TokioIo<TlsStream<TcpStream>> {
        let made = connect(Arc::clone(&self.config), self.to, "www.example.com").await;
        TokioIo::new(made.expect("a handshake"))
    }

    /// A connection for each.
    async fn short(self) -> usize {
        let mut count = 0;
        while !self.is_over.load(SeqCst) {
            let (mut sender, connection) = http1::handshake(self.stream().await)
                .await
                .expect("HTTP/1.1");
            tokio::spawn(connection);
            let answer = sender.send_request(Self::request()).await;
            assert_eq!(answer.expect("an answer").status(), 200);
            count += 1;
        }
        count
    }

    /// One connection of HTTP/1.1 for all.
    async fn kept(self) -> usize {
        let made = http1::handshake(self.stream().await).await;
        let (sender, connection) = made.expect("HTTP/1.1");
        tokio::spawn(connection);
        self.again(Sender::Http1(sender)).await
    }

    /// One of HTTP/2.
    async fn shared(self) -> usize {
        let made = http2::handshake(TokioExecutor::new(), self.stream().await).await;
        let (sender, connection) = made.expect("HTTP/2");
        tokio::spawn(connection);
        self.again(Sender::Http2(sender)).await
    }

    /// One request after another over a connection that stays.
    async fn again(self, mut sender: Sender) -> usize {
        let mut count = 0;
        while !self.is_over.load(SeqCst) {
            let answer = sender.send(Self::request()).await;
            let (head, _) = support::read(answer.expect("the connection stays")).await;
            assert_eq!(head.status, 200);
            count += 1;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        count
    }
}

/// A connection of either version.
enum Sender {
    Http1(http1::SendRequest<Full<bytes::Bytes>>),
    Http2(http2::SendRequest<Full<bytes::Bytes>>),
}

impl Sender {
    async fn send(
        &mut self,
        request: Request<Full<bytes::Bytes>>,
    ) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(own) => {
                own.ready().await?;
                own.send_request(request).await
            }
            Self::Http2(own) => {
                own.ready().await?;
                own.send_request(request).await
            }
        }
    }
}

/// Waits until something is so.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_and_authorities_are_replaced_beside_live_traffic() {
    let endpoint = Endpoint::echo().await;
    let [authority, clients, later] = [(); 3].map(|()| Authority::default());
    let files = Files::new();
    for name in ["www", "api"] {
        let own = certificate(&authority, &format!("{name}.example.com"));
        files.write(&format!("{name}.pem"), &own.chain);
        files.write(&format!("{name}.key"), &own.key);
    }
    files.write("clients.pem", &clients.trust(&[], &[]).roots);
    let secured = free();
    let at = |address: SocketAddr| format!("port_value: {}", address.port());
    let changes = [
        ("filename: www.pem", files.named("www.pem")),
        ("filename: www.key", files.named("www.key")),
        ("filename: api.pem", files.named("api.pem")),
        ("filename: api.key", files.named("api.key")),
        ("filename: clients.pem", files.named("clients.pem")),
        ("port_value: 15080", at(free())),
        ("port_value: 15443", at(secured)),
        ("port_value: 8080", at(endpoint.address)),
    ];
    let _program = Program::example("gateway.yaml", &changes).await;
    let load = |protocol| Load {
        to: secured,
        config: speaking(protocol, &authority, None, "www.example.com"),
        is_over: Arc::default(),
    };
    let (short, kept, shared) = (load("http/1.1"), load("http/1.1"), load("h2"));
    let ends = [&short, &kept, &shared].map(|own| Arc::clone(&own.is_over));
    let callers = [
        tokio::spawn(short.short()),
        tokio::spawn(kept.kept()),
        tokio::spawn(shared.shared()),
    ];

    for _ in 0..3 {
        let next = certificate(&authority, "www.example.com");
        let wanted = CertificateDer::from_pem_slice(&next.chain).expect("a certificate");
        files.write("www.pem", &next.chain);
        // For a while the key is not that of the certificate.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        files.write("www.key", &next.key);
        until("the next certificate is shown", async || {
            let config = caller(&authority, None, "www.example.com");
            let stream = connect(config, secured, "www.example.com").await;
            let stream = stream.expect("a handshake");
            let shown = stream.get_ref().1.peer_certificates();
            shown.and_then(<[_]>::first) == Some(&wanted)
        })
        .await;
    }

    let is_let_in = async |own: &Authority| {
        let config = caller(&authority, Some(own.issue(&[], |_| {})), "api.example.com");
        let Ok(stream) = connect(config, secured, "api.example.com").await else {
            return false;
        };
        let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
            return false;
        };
        tokio::spawn(connection);
        let request = Request::get("/").header("host", "api.example.com");
        let request = request.body(Full::<bytes::Bytes>::default());
        let answer = sender.send_request(request.expect("a request")).await;
        answer.is_ok_and(|own| own.status() == 200)
    };
    assert!(is_let_in(&clients).await);
    assert!(!is_let_in(&later).await);
    files.write("clients.pem", &clients.trust(&[&later], &[]).roots);
    until("those of the next authority are let in", async || {
        is_let_in(&later).await
    })
    .await;
    assert!(is_let_in(&clients).await);
    files.write("clients.pem", &later.trust(&[], &[]).roots);
    until("those of the one before are refused", async || {
        !is_let_in(&clients).await
    })
    .await;
    assert!(is_let_in(&later).await);

    for own in ends {
        own.store(true, SeqCst);
    }
    for caller in callers {
        let count = caller.await.expect("no request fails");
        assert!(count > 100, "{count}");
    }
}
