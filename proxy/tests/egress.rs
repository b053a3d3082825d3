//! Requests and connections that go out to whoever they name.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use program::Program;
use rcgen::SanType;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde_json::json;
use socket2::{Domain, Socket, Type};
use support::certificates::Authority;
use support::live::Live;
use support::{Endpoint, free};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What a name server says of a name.
#[derive(Clone)]
enum Says {
    Addresses(Vec<Ipv4Addr>),
    /// Another name.
    Alias(&'static str),
    Failure,
}

/// A name server; what it is not told of is no name.
#[derive(Clone, Default)]
struct Names {
    known: Arc<Mutex<HashMap<String, Says>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

impl Names {
    fn say(&self, name: &str, says: Says) {
        let mut known = self.known.lock().expect("nobody panicked");
        known.insert(name.to_owned(), says);
    }

    /// How often a name was asked for.
    fn asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().expect("nobody panicked");
        asked.iter().filter(|own| *own == name).count()
    }

    async fn start(&self) -> SocketAddr {
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = tcp.local_addr().expect("its address");
        let udp = UdpSocket::bind(address).await.expect("the same port");
        let (own, other) = (self.clone(), self.clone());
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = udp.recv_from(&mut buffer).await {
                let answer = own.answer(&buffer[..length], 1200);
                let _ = udp.send_to(&answer, from).await;
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = tcp.accept().await {
                let own = other.clone();
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut question = vec![0; length.into()];
                        stream.read_exact(&mut question).await.expect("a question");
                        let answer = own.answer(&question, 65_000);
                        let mut all = (answer.len() as u16).to_be_bytes().to_vec();
                        all.extend(answer);
                        stream.write_all(&all).await.expect("it listens");
                    }
                });
            }
        });
        address
    }

    /// The answer to a question, in so many bytes.
    fn answer(&self, question: &[u8], room: usize) -> Vec<u8> {
        let mut name = String::new();
        let mut place = 12;
        while question[place] != 0 {
            let end = place + 1 + usize::from(question[place]);
            name += std::str::from_utf8(&question[place + 1..end]).expect("ASCII");
            name.push('.');
            place = end;
        }
        name.pop();
        let is_v4 = question[place + 2] == 1;
        let mut answer = question[..2].to_vec();
        if is_v4 {
            self.asked
                .lock()
                .expect("nobody panicked")
                .push(name.clone());
        }
        let says = self
            .known
            .lock()
            .expect("nobody panicked")
            .get(&name)
            .cloned();
        let (code, records) = match says {
            None => (3, Vec::new()),
            Some(Says::Failure) => (2, Vec::new()),
            Some(Says::Alias(other)) => {
                let mut name: Vec<u8> = Vec::new();
                for label in other.split('.') {
                    name.push(label.len() as u8);
                    name.extend(label.bytes());
                }
                name.push(0);
                (0, vec![(5u8, name)])
            }
            Some(Says::Addresses(all)) if is_v4 => {
                let records = all.iter().map(|own| (1, own.octets().to_vec()));
                (0, records.collect())
            }
            Some(Says::Addresses(_)) => (0, Vec::new()),
        };
        let is_cut = records.len() * 16 + place + 5 > room;
        let kept: &[(u8, Vec<u8>)] = match (is_cut, room) {
            (false, _) => &records,
            (true, ..=1200) => &[],
            (true, _) => &records[..room / 16 - 10],
        };
        let flags = if is_cut && room <= 1200 { 0x83 } else { 0x81 };
        answer.extend([flags, 0x80 | code, 0, 1]);
        answer.extend((kept.len() as u16).to_be_bytes());
        answer.extend([0, 0, 0, 0]);
        answer.extend(&question[12..place + 5]);
        for (kind, data) in kept {
            answer.extend([0xc0, 12, 0, *kind, 0, 1, 0, 0, 0, 0, 0, data.len() as u8]);
            answer.extend(data);
        }
        answer
    }
}

/// The example as it runs before a name server, with what else is changed.
struct Way {
    program: Program,
    http: SocketAddr,
    tls: SocketAddr,
}

async fn way_out(names: &Names, allowed: &str, cache: &str, others: &[(&str, String)]) -> Way {
    let server = names.start().await;
    let (http, tls) = (free(), free());
    let resolver = json!({"name": "cares", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
        "resolvers": [{"socket_address": {"address": "127.0.0.1", "port_value": server.port()}}],
    }});
    let indent = format!("\n{}", " ".repeat(24));
    let settings = [
        cache.to_owned(),
        "dns_min_refresh_rate: 0.05s".to_owned(),
        format!("typed_dns_resolver_config: {resolver}"),
    ];
    let settings = settings.join(&indent);
    let mut changes = vec![
        ("port_value: 15001", format!("port_value: {}", http.port())),
        ("port_value: 15443", format!("port_value: {}", tls.port())),
        ("max_hosts: 1024", settings),
        // Endpoints of tests have ports of their own.
        (
            "virtual_hosts:",
            format!(
                "ignore_port_in_host_matching: true\n{}virtual_hosts:",
                " ".repeat(18)
            ),
        ),
        (
            "{ address_prefix: 10.20.0.0, prefix_len: 16 }",
            allowed.to_owned(),
        ),
    ];
    changes.extend(others.iter().cloned());
    let program = Program::example("egress.yaml", &changes).await;
    Way { program, http, tls }
}

const LOOPBACK: &str = "{ address_prefix: 127.0.0.0, prefix_len: 8 }";

impl Way {
    /// Asks a host; the answer's status, what proxy-status says, and the body.
    async fn get(&self, host: &str) -> (u16, String, String) {
        let stream = TcpStream::connect(self.http).await.expect("a connection");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        tokio::spawn(connection);
        let request = Request::get("/").header("host", host);
        let request = request
            .body(Full::<bytes::Bytes>::default())
            .expect("a request");
        let (head, body) =
            support::read(sender.send_request(request).await.expect("an answer")).await;
        let status = head.headers.get("proxy-status");
        let status = status.and_then(|own| own.to_str().ok()).unwrap_or("");
        (head.status.as_u16(), status.to_owned(), body)
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

fn at(host: &str, address: SocketAddr) -> String {
    format!("{host}:{}", address.port())
}

#[tokio::test]
async fn only_hosts_on_the_list_are_reached() {
    let (names, endpoint) = (Names::default(), Endpoint::echo().await);
    names.say("www.example.com", Says::Addresses(vec![LOCAL]));
    names.say("a.example.org", Says::Addresses(vec![LOCAL]));
    names.say("evil.example", Says::Addresses(vec![LOCAL]));
    let way = way_out(&names, LOOPBACK, "max_hosts: 1024", &[]).await;
    for host in ["www.example.com", "a.example.org", "WWW.example.com"] {
        let host = at(host, endpoint.address);
        let (status, _, body) = way.get(&host).await;
        assert_eq!((status, body), (200, format!("GET / {host} ")), "{host}");
    }
    assert_eq!(way.get("evil.example").await.0, 403);
    assert_eq!(names.asked("evil.example"), 0);
    assert_eq!(way.figure("dns_cache.out.num_hosts").await, 2);
    let (_, text) = way.program.get("/stats/prometheus").await.expect("figures");
    let destination = format!(
        "fairlead_destination_requests{{cluster=\"out\",destination=\"www.example.com:{}\"}} 2",
        endpoint.address.port()
    );
    assert!(text.contains(&destination), "{text}");
}

#[tokio::test]
async fn names_that_lead_inside_are_refused() {
    let names = Names::default();
    for (name, address) in [
        ("a.example.org", LOCAL),
        ("b.example.org", Ipv4Addr::new(169, 254, 169, 254)),
        ("c.example.org", Ipv4Addr::new(10, 0, 0, 1)),
    ] {
        names.say(name, Says::Addresses(vec![address]));
    }
    let own = "{ address_prefix: 10.20.0.0, prefix_len: 16 }";
    let way = way_out(
        &names,
        own,
        "max_hosts: 1024",
        &[
            ("\"*.example.org\"", "\"*\"".to_owned()),
            ("domains: [\"*\"]", "domains: [none]".to_owned()),
        ],
    )
    .await;
    for host in [
        "a.example.org",
        "b.example.org",
        "c.example.org",
        "127.0.0.1:22",
        "[::1]:80",
    ] {
        let (status, said, _) = way.get(host).await;
        assert_eq!(status, 502, "{host}");
        assert!(said.contains("destination_ip_prohibited"), "{host}: {said}");
    }
}

#[tokio::test]
async fn a_name_server_that_lies_or_fails_harms_nobody() {
    let (names, endpoint) = (Names::default(), Endpoint::echo().await);
    names.say("good.example.org", Says::Addresses(vec![LOCAL]));
    names.say("loop.example.org", Says::Alias("pool.example.org"));
    names.say("pool.example.org", Says::Alias("loop.example.org"));
    names.say("bad.example.org", Says::Failure);
    let many = (0..5000u32).map(|own| Ipv4Addr::from(0x7f00_0001 + (own << 2)));
    names.say("many.example.org", Says::Addresses(many.collect()));
    let way = way_out(&names, LOOPBACK, "dns_query_timeout: 2s", &[]).await;
    let get = async |host: &str| way.get(&at(host, endpoint.address)).await;
    assert_eq!(get("good.example.org").await.0, 200);
    names.say("live.example.org", Says::Addresses(vec![LOCAL]));
    let live = Live::to(way.http, at("live.example.org", endpoint.address), "/");
    assert_eq!(get("many.example.org").await.0, 200);
    for host in ["loop.example.org", "bad.example.org", "none.example.org"] {
        let begun = Instant::now();
        let (status, said, _) = get(host).await;
        assert_eq!(status, 503, "{host}");
        assert!(said.contains("dns_error"), "{host}: {said}");
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{host}: {:?}",
            begun.elapsed()
        );
    }
    // That there is none is remembered.
    let asked = names.asked("none.example.org");
    for _ in 0..5 {
        assert_eq!(get("none.example.org").await.0, 503);
    }
    assert_eq!(names.asked("none.example.org"), asked);
    // The last good answer counts over a failure, and no longer than the name server says otherwise.
    names.say("good.example.org", Says::Failure);
    tokio::time::sleep(Duration::from_millis(200)).await;
    for _ in 0..3 {
        assert_eq!(get("good.example.org").await.0, 200);
    }
    assert!(way.figure("dns_cache.out.dns_query_failure").await >= 3);
    live.went_well().await;
}

#[tokio::test]
async fn names_are_bounded() {
    let (names, endpoint) = (Names::default(), Endpoint::echo().await);
    for number in 0..40 {
        names.say(
            &format!("n{number}.example.org"),
            Says::Addresses(vec![LOCAL]),
        );
    }
    let way = way_out(&names, LOOPBACK, "max_hosts: 8", &[]).await;
    for number in 0..40 {
        let host = at(&format!("n{number}.example.org"), endpoint.address);
        assert_eq!(way.get(&host).await.0, 200);
    }
    assert_eq!(way.figure("dns_cache.out.num_hosts").await, 8);
    assert_eq!(way.figure("dns_cache.out.host_removed").await, 32);
}

/// An address that takes no connection and refuses none: its queue is full.
async fn black_hole(port: u16) -> (Ipv4Addr, Vec<Box<dyn std::any::Any>>) {
    let address = Ipv4Addr::new(127, 0, 0, 9);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let at: SocketAddr = (address, port).into();
    socket.bind(&at.into()).expect("the address");
    socket.listen(0).expect("to listen");
    let mut kept: Vec<Box<dyn std::any::Any>> = vec![Box::new(socket)];
    for _ in 0..4 {
        let connect = tokio::time::timeout(Duration::from_millis(100), TcpStream::connect(at));
        kept.push(Box::new(connect.await));
    }
    (address, kept)
}

#[tokio::test]
async fn an_address_that_does_not_answer_costs_little() {
    let (names, endpoint) = (Names::default(), Endpoint::echo().await);
    let (hole, _kept) = black_hole(endpoint.address.port()).await;
    names.say("www.example.com", Says::Addresses(vec![hole, LOCAL]));
    let way = way_out(&names, LOOPBACK, "max_hosts: 1024", &[]).await;
    let begun = Instant::now();
    assert_eq!(
        way.get(&at("www.example.com", endpoint.address)).await.0,
        200
    );
    let took = begun.elapsed();
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

/// A server with TLS for a name, which answers with that name; and what trusts it.
async fn secured(authority: &Authority, name: &str) -> SocketAddr {
    let certificate = authority.issue(&[], |params| {
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().expect("a name"))];
    });
    let chain = CertificateDer::pem_slice_iter(&certificate.chain);
    let chain = chain.map(|own| own.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_slice(&certificate.key).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a configuration");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let asked = stream.get_ref().1.server_name().unwrap_or("-").to_owned();
                let service = hyper::service::service_fn(move |_| {
                    let asked = asked.clone();
                    async move { Ok::<_, std::convert::Infallible>(support::text_answer(200, &asked)) }
                });
                let builder = hyper::server::conn::http1::Builder::new();
                let _ = builder
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

#[tokio::test]
async fn the_proxy_secures_what_goes_out_and_verifies_the_host() {
    let (names, authority) = (Names::default(), Authority::default());
    names.say("api.example.com", Says::Addresses(vec![LOCAL]));
    let (right, wrong) = (
        secured(&authority, "api.example.com").await,
        secured(&authority, "other.example.com").await,
    );
    let roots = String::from_utf8(authority.trust(&[], &[]).roots).expect("PEM");
    let trust = format!("trusted_ca: {{ inline_string: {} }}", json!(roots));
    let changes = [("system_root_certs: {}", trust)];
    let way = way_out(&names, LOOPBACK, "max_hosts: 1024", &changes).await;
    let (status, said, body) = way.get(&at("api.example.com", right)).await;
    assert_eq!((status, body.as_str()), (200, "api.example.com"), "{said}");
    let (status, said, _) = way.get(&at("api.example.com", wrong)).await;
    assert_eq!(status, 503);
    assert!(said.contains("tls_protocol_error"), "{said}");
}

#[tokio::test]
async fn tls_goes_through_to_the_name_it_asks_for() {
    let (names, authority) = (Names::default(), Authority::default());
    for name in ["www.example.com", "evil.example"] {
        names.say(name, Says::Addresses(vec![LOCAL]));
    }
    let endpoint = secured(&authority, "www.example.com").await;
    let port = [(
        "port_value: 443",
        format!("port_value: {}", endpoint.port()),
    )];
    let way = way_out(&names, LOOPBACK, "max_hosts: 1024", &port).await;
    let mut roots = RootCertStore::empty();
    let pem = authority.trust(&[], &[]).roots;
    roots
        .add(CertificateDer::from_pem_slice(&pem).expect("a root"))
        .expect("a root");
    let config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let connect = async |name: &'static str| {
        let stream = TcpStream::connect(way.tls).await.expect("a connection");
        let name = ServerName::try_from(name).expect("a name");
        connector.connect(name, stream).await
    };
    let stream = connect("www.example.com").await.expect("a connection");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .expect("HTTP");
    tokio::spawn(connection);
    let request = Request::get("/").header("host", "www.example.com");
    let request = request
        .body(Full::<bytes::Bytes>::default())
        .expect("a request");
    let (_, body) = support::read(sender.send_request(request).await.expect("an answer")).await;
    assert_eq!(body, "www.example.com");
    assert!(connect("evil.example").await.is_err());
    assert_eq!(names.asked("evil.example"), 0);
}
