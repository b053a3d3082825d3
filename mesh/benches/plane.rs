//! A replica of the control plane with many proxies: how soon all of them have what changed, and what that takes.
//!
//! The replica is a process of its own, so that its memory and its time are its own. Proxies are streams of the discovery service
//! over mutual TLS that acknowledge whatever they are told, and look into nothing.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairlead_mesh::authority::{Authority, LEAF_LIFE, Material, Slots};
use fairlead_mesh::compile::Compiler;
use fairlead_mesh::facts::{Endpoint, Facts, Key, Pod, Port, Readiness, Service, Slice, Spoken};
use fairlead_mesh::serve::{
    Account, Holder, Names, Plane, Replicas, Review, ReviewError, Turns, serve,
};
use fairlead_plan::mesh::spiffe;
use fairlead_xds::discovery::DELTA;
use fairlead_xds::raw::Raw;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc, watch};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint as Target;

/// As in the program that ships.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const DOMAIN: &str = "cluster.local";
const DNS: &str = "fairlead-mesh.fairlead-system.svc";
/// Endpoints of each service.
const EACH: usize = 20;
/// How many changes are measured.
const CHANGES: usize = 40;
/// How many services that come.
const NEW: usize = 10;
/// What a proxy is told of a service that comes, before it asks for more: its clusters and its listener.
const PARTS: u64 = 3;

fn number(name: &str, usual: usize) -> usize {
    let given = std::env::var(name).ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(usual)
}

fn proxies() -> usize {
    number("BENCH_PROXIES", 1000)
}

fn endpoints() -> usize {
    number("BENCH_ENDPOINTS", 10_000)
}

/// Who all proxies are.
fn own() -> fairlead_model::identity::SpiffeId {
    spiffe(DOMAIN, "shop", "all").parse().expect("an id")
}

/// The resources of a service that a proxy asks for by name.
fn asked(service: usize) -> (String, [String; 2]) {
    let port = format!("service-{service}.shop:80");
    let routes = ["/http1", "/http2"].map(|way| format!("{port}{way}"));
    (port, routes)
}

fn services() -> usize {
    endpoints().div_ceil(EACH)
}

/// A cluster of services with pods that all have proxies.
fn facts() -> Facts {
    let mut facts = Facts {
        trust_domain: DOMAIN.into(),
        ..Facts::default()
    };
    for pod in 0..endpoints().max(proxies()) {
        let own = Pod {
            id: own(),
            labels: BTreeMap::from([("app".to_owned(), format!("service-{}", pod / EACH))]),
            probes: Vec::new(),
        };
        facts.pods.insert(key(format!("pod-{pod}")), Arc::new(own));
    }
    for service in 0..services() {
        come(&mut facts, service, None);
    }
    facts
}

/// A service with its endpoints, of which one may be away; or the endpoints alone, where it is there.
fn come(facts: &mut Facts, service: usize, away: Option<usize>) {
    let name = key(format!("service-{service}"));
    let [_, _, high, low] = u32::try_from(service).unwrap_or(0).to_be_bytes();
    let own = || Service {
        addresses: [Ipv4Addr::new(10, 96, high, low).into()].into(),
        ports: vec![Port {
            number: 80,
            name: "http".into(),
            spoken: Spoken::Http,
        }],
        selector: BTreeMap::from([("app".to_owned(), format!("service-{service}"))]),
    };
    let services = facts.services.entry(name.clone());
    services.or_insert_with(|| Arc::new(own()));
    let slices = facts.slices.entry(name).or_default();
    slices.insert("all".into(), Arc::new(slice(service, away)));
}

fn key(name: String) -> Key {
    ("shop".into(), name.into())
}

/// The endpoints of a service, of which one may be away.
fn slice(service: usize, away: Option<usize>) -> Slice {
    let endpoints = (0..EACH).map(|place| {
        let pod = service * EACH + place;
        let [_, high, middle, low] = u32::try_from(pod).unwrap_or(0).to_be_bytes();
        Endpoint {
            address: Ipv4Addr::new(10, 128 + high, middle, low).into(),
            readiness: match away == Some(place) {
                true => Readiness::Not,
                false => Readiness::Ready,
            },
            zone: "a".into(),
            pod: Some(key(format!("pod-{pod}"))),
        }
    });
    Slice {
        ports: vec![("http".into(), 8080)],
        endpoints: endpoints.collect(),
    }
}

/// Nobody comes with a token.
struct Nobody;

impl Review for Nobody {
    fn review(
        &self,
        _: String,
        audience: &'static str,
    ) -> BoxFuture<'_, Result<Holder, ReviewError>> {
        Box::pin(async move { Err(ReviewError::Refused { audience }) })
    }

    fn may_see<'a>(
        &'a self,
        _: &'a Account,
        _: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, ReviewError>> {
        Box::pin(async { Ok(false) })
    }
}

/// A root, and an authority of it.
fn authority() -> Authority {
    let now = OffsetDateTime::now_utc();
    let material = Material::make(DOMAIN, time::Duration::DAY, now).expect("an authority");
    Authority::of(&Slots::first(material, now)).expect("an authority")
}

/// The replica: says where it is and what a proxy needs, then changes the endpoints of a service, which may be a new one, for each
/// line that it reads.
async fn replica() {
    let authority = Arc::new(authority());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port");
    let address = listener.local_addr().expect("it is bound");
    let pair = authority.own(&own(), &[], OffsetDateTime::now_utc());
    let pair = pair.expect("a certificate");
    let said = serde_json::json!({
        "address": address,
        "roots": authority.roots(),
        "certificate": pair.certificate,
        "key": pair.key,
    });
    let (mut compiler, mut facts) = (Compiler::default(), Arc::new(facts()));
    let roots = authority.roots().to_owned();
    let mut compiled = move |facts: &Arc<Facts>| {
        let compiled = compiler.compile(facts, &roots);
        Arc::new(compiled.expect("it compiles"))
    };
    let told = watch::Sender::new(Some(compiled(&facts)));
    let names = Names {
        id: spiffe(DOMAIN, "fairlead-system", "fairlead-mesh")
            .parse()
            .expect("an id"),
        dns: vec![DNS.to_owned()],
    };
    // The replica serves for as long as somebody may tell it of another authority.
    let signing = watch::Sender::new(Some(Arc::clone(&authority)));
    let plane = Plane {
        authority: signing.subscribe(),
        compiled: told.subscribe(),
        facts: watch::Sender::new(None).subscribe(),
        replicas: Replicas {
            authority: signing.subscribe(),
            compiled: told.subscribe(),
            proxies: Arc::default(),
            names: names.clone(),
            namespace: "fairlead-system".to_owned(),
        },
        review: Arc::new(Nobody),
        trust_domain: DOMAIN.to_owned(),
        leaf_life: LEAF_LIFE,
        proxies: Arc::default(),
        metrics: Arc::default(),
        misuses: mpsc::channel(1).0,
        turns: Turns::default(),
        figures: Arc::default(),
        stop: CancellationToken::new(),
    };
    tokio::spawn(serve(listener, names, plane));
    say(&said.to_string());
    let lines = tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            let (service, away) = line.split_once(' ').expect("a service and a place");
            let service: usize = service.parse().expect("a number");
            come(Arc::make_mut(&mut facts), service, away.parse().ok());
            let begun = Instant::now();
            let next = compiled(&facts);
            let passed = begun.elapsed();
            told.send_replace(Some(next));
            say(&passed.as_micros().to_string());
        }
    });
    lines.await.expect("it reads");
}

/// A line for whoever reads this program's output.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").expect("somebody reads");
    out.flush().expect("somebody reads");
}

/// `DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
struct Ask {
    #[prost(message, optional, tag = "1")]
    node: Option<Node>,
    #[prost(string, tag = "2")]
    kind: String,
    #[prost(string, repeated, tag = "3")]
    names: Vec<String>,
    #[prost(string, tag = "6")]
    nonce: String,
}

/// `Node`.
#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(string, tag = "1")]
    id: String,
}

/// `DeltaDiscoveryResponse`, whose resources are counted and not read.
#[derive(Clone, PartialEq, Message)]
struct Told {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    resources: Vec<Bytes>,
    #[prost(string, tag = "4")]
    kind: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

/// What proxies have been told, all together.
#[derive(Default)]
struct Heard {
    resources: AtomicU64,
    bytes: AtomicU64,
    endpoints: AtomicU64,
    news: Notify,
}

fn kind(name: &str) -> String {
    format!("type.googleapis.com/envoy.{name}")
}

/// What a proxy asks for.
fn questions(pod: usize) -> Vec<Ask> {
    let ask = |name: &str, names: Vec<String>| Ask {
        kind: kind(name),
        names,
        ..Ask::default()
    };
    let all = || (0..services()).map(asked);
    let mut questions = vec![
        ask("config.cluster.v3.Cluster", Vec::new()),
        ask("config.listener.v3.Listener", Vec::new()),
        ask(
            "config.endpoint.v3.ClusterLoadAssignment",
            all().map(|(name, _)| name).collect(),
        ),
        ask(
            "config.route.v3.RouteConfiguration",
            all().flat_map(|(_, names)| names).collect(),
        ),
    ];
    questions[0].node = Some(Node {
        id: format!("pod-{pod}.shop"),
    });
    questions
}

async fn proxy(pod: usize, address: SocketAddr, tls: Arc<ClientConfig>, heard: Arc<Heard>) {
    let connector = TlsConnector::from(tls);
    let open = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from(DNS).expect("a name");
            connector.connect(name, stream).await.map(TokioIo::new)
        }
    });
    let target = Target::from_shared(format!("http://{address}")).expect("an address");
    let channel = target.connect_with_connector(open).await;
    let channel = channel.expect("it is reached");
    let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20);
    grpc.ready().await.expect("it is ready");
    let (mut asks, sent) = futures::channel::mpsc::unbounded::<Bytes>();
    for ask in questions(pod) {
        asks.start_send(ask.encode_to_vec().into())
            .expect("it is open");
    }
    let answers = grpc
        .streaming(
            tonic::Request::new(sent),
            PathAndQuery::from_static(DELTA),
            Raw,
        )
        .await;
    let mut answers = answers.expect("it answers").into_inner();
    let is_endpoints = kind("config.endpoint.v3.ClusterLoadAssignment");
    while let Some(Ok(answer)) = answers.next().await {
        let size = answer.len();
        let told = Told::decode(answer).expect("an answer");
        let resources = told.resources.len() as u64;
        heard.resources.fetch_add(resources, Ordering::Relaxed);
        heard.bytes.fetch_add(size as u64, Ordering::Relaxed);
        if told.kind == is_endpoints {
            heard.endpoints.fetch_add(resources, Ordering::Relaxed);
        }
        let ask = Ask {
            kind: told.kind,
            nonce: told.nonce,
            ..Ask::default()
        };
        if asks.start_send(ask.encode_to_vec().into()).is_err() {
            return;
        }
        heard.news.notify_one();
    }
}

/// The replica as this program sees it.
struct Replica {
    process: Child,
    asked: ChildStdin,
    said: BufReader<ChildStdout>,
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Replica {
    fn start() -> Self {
        let own = std::env::current_exe().expect("this program");
        let mut command = Command::new(own);
        let command = command.env("BENCH_REPLICA", "1");
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = pipes.spawn().expect("it starts");
        let asked = process.stdin.take().expect("a pipe");
        let said = BufReader::new(process.stdout.take().expect("a pipe"));
        Self {
            process,
            asked,
            said,
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).expect("it says something");
        line.trim().to_owned()
    }

    /// Its resident memory, in MiB.
    fn memory(&self) -> f64 {
        let path = format!("/proc/{}/status", self.process.id());
        let text = std::fs::read_to_string(path).expect("it runs");
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kilobytes.expect("a size") / 1024.0
    }

    /// The processor time that it used.
    fn time(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.process.id());
        let text = std::fs::read_to_string(path).expect("it runs");
        let (_, fields) = text.rsplit_once(')').expect("a name in brackets");
        let fields: Vec<u64> = fields
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0))
            .collect();
        // utime and stime (proc_pid_stat(5)), in hundredths of a second.
        Duration::from_millis((fields[11] + fields[12]) * 10)
    }
}

/// TLS of a proxy.
fn client(said: &serde_json::Value) -> Arc<ClientConfig> {
    let text = |name: &str| said[name].as_str().expect("a text").as_bytes().to_vec();
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(&text("roots")) {
        roots.add(root.expect("a root")).expect("a root");
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text("certificate")).collect();
    let chain = chain.expect("certificates");
    let key = PrivateKeyDer::from_pem_slice(&text("key")).expect("a key");
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("it fits");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

/// Waits until so many resources were told, as `count` has them.
async fn until(heard: &Heard, count: &AtomicU64, wanted: u64, patience: Duration) {
    let waiting = async {
        while count.load(Ordering::Relaxed) < wanted {
            let _ = tokio::time::timeout(Duration::from_millis(50), heard.news.notified()).await;
        }
    };
    let told = tokio::time::timeout(patience, waiting).await;
    let seen = count.load(Ordering::Relaxed);
    assert!(told.is_ok(), "{seen} of {wanted} were told in {patience:?}");
}

/// Waits until nobody was told anything for two seconds: endpoints are not what is told last.
async fn rest(heard: &Heard) {
    let told = || heard.resources.load(Ordering::Relaxed);
    let mut before = 0;
    while before != told() {
        before = told();
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

/// How many certificates two threads sign in a second.
fn signatures() -> f64 {
    let authority = Arc::new(authority());
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name = DistinguishedName::new();
    let uri = own().as_str().try_into().expect("a URI");
    params.subject_alt_names = vec![SanType::URI(uri)];
    let request = params.serialize_request(&key).expect("a request");
    let request = request.der().to_vec();
    let begun = Instant::now();
    let threads = [(); 2].map(|()| {
        let (authority, request) = (Arc::clone(&authority), request.clone());
        std::thread::spawn(move || {
            let mut signed = 0_u32;
            while begun.elapsed() < Duration::from_secs(3) {
                let now = OffsetDateTime::now_utc();
                let chain = authority.sign(&request, &own(), LEAF_LIFE, now);
                chain.expect("it is signed");
                signed += 1;
            }
            signed
        })
    });
    let signed: u32 = threads
        .into_iter()
        .map(|thread| thread.join().expect("it signs"))
        .sum();
    f64::from(signed) / begun.elapsed().as_secs_f64()
}

/// The value below which this share of values is.
fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * share).ceil() as usize;
    sorted[place.clamp(1, sorted.len()) - 1]
}

fn figure(name: &str, value: f64) {
    say(&format!("figure {name} {value:.2}"));
}

/// How soon all proxies know of a service that comes, and what that takes.
async fn new_services(replica: &mut Replica, heard: &Heard) {
    rest(heard).await;
    let bytes = heard.bytes.load(Ordering::Relaxed);
    let mut wanted = heard.resources.load(Ordering::Relaxed);
    let mut took = Vec::new();
    for new in 0..NEW {
        let begun = Instant::now();
        writeln!(replica.asked, "{} -", services() + new).expect("it reads");
        replica.line();
        wanted += PARTS * proxies() as u64;
        until(heard, &heard.resources, wanted, Duration::from_secs(60)).await;
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let bytes = heard.bytes.load(Ordering::Relaxed) - bytes;
    figure("xds_service_ack_p50_ms", quantile(&took, 0.5));
    let told = NEW as f64 * proxies() as f64;
    figure("xds_bytes_per_service", bytes as f64 / told);
}

async fn measure() {
    let mut replica = Replica::start();
    let said = serde_json::from_str(&replica.line());
    let said: serde_json::Value = said.expect("it says where it is");
    let address = said["address"].as_str().and_then(|own| own.parse().ok());
    let address = address.expect("an address");
    let (tls, heard) = (client(&said), Arc::new(Heard::default()));
    let begun = Instant::now();
    for pod in 0..proxies() {
        let (tls, heard) = (Arc::clone(&tls), Arc::clone(&heard));
        tokio::spawn(proxy(pod, address, tls, heard));
    }
    let count = proxies() as u64;
    let mut wanted = count * services() as u64;
    until(&heard, &heard.endpoints, wanted, Duration::from_secs(300)).await;
    figure("xds_first_seconds", begun.elapsed().as_secs_f64());
    rest(&heard).await;
    let (time, rested) = (replica.time(), Instant::now());
    tokio::time::sleep(Duration::from_secs(10)).await;
    let idle = (replica.time() - time).as_secs_f64() / rested.elapsed().as_secs_f64();
    figure("mesh_idle_cpu_percent", idle * 100.0);
    let (mut took, mut compiling) = (Vec::new(), Vec::new());
    let (before, bytes) = (
        heard.resources.load(Ordering::Relaxed),
        heard.bytes.load(Ordering::Relaxed),
    );
    let busy = replica.time();
    for change in 0..CHANGES {
        let service = change * 7 % services();
        let begun = Instant::now();
        writeln!(replica.asked, "{service} {}", change % EACH).expect("it reads");
        let compiled: f64 = replica.line().parse().expect("a number");
        compiling.push(compiled / 1000.0);
        wanted += count;
        until(&heard, &heard.endpoints, wanted, Duration::from_secs(60)).await;
        took.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let busy = (replica.time() - busy).as_secs_f64() * 1000.0;
    figure("mesh_cpu_per_change_ms", busy / CHANGES as f64);
    let changes = CHANGES as f64 * proxies() as f64;
    let told = heard.resources.load(Ordering::Relaxed) - before;
    figure("xds_ack_p50_ms", quantile(&took, 0.5));
    figure("xds_ack_p99_ms", quantile(&took, 0.99));
    figure("xds_compile_p50_ms", quantile(&compiling, 0.5));
    figure("xds_resources_per_change", told as f64 / changes);
    let bytes = heard.bytes.load(Ordering::Relaxed) - bytes;
    figure("xds_bytes_per_change", bytes as f64 / changes);
    new_services(&mut replica, &heard).await;
    figure("mesh_rss_mb", replica.memory());
    drop(replica);
    figure("signatures_per_s", signatures());
}

fn main() {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.install_default().expect("nobody chose one");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    match std::env::var_os("BENCH_REPLICA") {
        Some(_) => runtime.block_on(replica()),
        None => runtime.block_on(measure()),
    }
}
