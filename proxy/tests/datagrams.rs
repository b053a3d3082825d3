//! Datagrams through a proxy: sessions, their bounds and their ends.

#[path = "support/program.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod program;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use program::Program;
use support::free_udp;
use tokio::net::UdpSocket;
use tokio::time::timeout;

/// What takes this long is lost.
const SOON: Duration = Duration::from_secs(2);
const WITH_HASH: &str = "hash_policies: [{ source_ip: true }]";

/// A server that answers with its name and what it was sent.
struct Server {
    address: SocketAddr,
    count: Arc<AtomicUsize>,
}

impl Server {
    async fn start(name: &'static str) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = socket.local_addr().expect("its address");
        let count = Arc::new(AtomicUsize::new(0));
        let own = Arc::clone(&count);
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                own.fetch_add(1, SeqCst);
                let mut answer = format!("{name}:").into_bytes();
                answer.extend_from_slice(&buffer[..length]);
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self { address, count }
    }
}

/// The example, before two servers, with changes.
async fn example(servers: [SocketAddr; 2], changes: &[(&str, &str)]) -> (Program, SocketAddr) {
    let listen = free_udp();
    let port = |own: SocketAddr| format!("port_value: {}", own.port());
    let mut all = vec![
        ("port_value: 15053", port(listen)),
        ("port_value: 8053", port(servers[0])),
        ("port_value: 8054", port(servers[1])),
    ];
    all.extend(changes.iter().map(|(from, to)| (*from, (*to).to_owned())));
    (Program::example("udp.yaml", &all).await, listen)
}

async fn caller(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
    socket.connect(to).await.expect("a way");
    socket
}

/// Sends a datagram; the answer, where one comes in time.
async fn ask(caller: &UdpSocket, text: &str, patience: Duration) -> Option<String> {
    caller.send(text.as_bytes()).await.expect("to send");
    let mut buffer = vec![0; 65_535];
    let length = timeout(patience, caller.recv(&mut buffer)).await.ok()?;
    let length = length.expect("to receive");
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}

async fn figure(program: &Program, name: &str) -> i64 {
    let (_, text) = program.get("/stats").await.expect("the figures");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}: ")));
    line.unwrap_or("0").parse().expect("a number")
}

async fn becomes(program: &Program, name: &str, wanted: i64) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let now = figure(program, name).await;
        if now == wanted {
            return;
        }
        assert!(Instant::now() < until, "{name}: {now}, not {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_host_keeps_its_endpoint() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let (program, listen) = example([one.address, two.address], &[]).await;
    let mut answers = Vec::new();
    for number in 0..20 {
        let caller = caller(listen).await;
        let text = format!("question {number}");
        let answer = ask(&caller, &text, SOON).await.expect("an answer");
        let (name, rest) = answer.split_once(':').expect("a name");
        assert_eq!(rest, text);
        answers.push(name.to_owned());
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    for (name, wanted) in [
        ("downstream_sess_total", 20),
        ("downstream_sess_active", 20),
        ("downstream_sess_rx_datagrams", 20),
        ("downstream_sess_tx_datagrams", 20),
        ("downstream_sess_rx_bytes", 10 * 10 + 10 * 11),
    ] {
        let name = format!("udp.dns.{name}");
        assert_eq!(figure(&program, &name).await, wanted, "{name}");
    }
    // The longest that there is, both ways.
    let caller = caller(listen).await;
    let long = "x".repeat(65_507 - "one:".len());
    let answer = ask(&caller, &long, SOON).await.expect("an answer");
    assert_eq!(answer.len(), 65_507);
}

#[tokio::test]
async fn sessions_share_endpoints_and_end_when_nothing_comes() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let changes = [
        (WITH_HASH, ""),
        ("lb_policy: MAGLEV", "lb_policy: ROUND_ROBIN"),
        ("idle_timeout: 5s", "idle_timeout: 0.3s"),
    ];
    let (program, listen) = example([one.address, two.address], &changes).await;
    let callers = [caller(listen).await, caller(listen).await];
    let mut names = Vec::new();
    for own in &callers {
        let first = ask(own, "a", SOON).await.expect("an answer");
        let again = ask(own, "a", SOON).await.expect("an answer");
        assert_eq!(first, again, "a session has one endpoint");
        names.push(first);
    }
    names.sort();
    assert_eq!(names, ["one:a", "two:a"]);
    becomes(&program, "udp.dns.downstream_sess_active", 0).await;
    assert_eq!(figure(&program, "udp.dns.idle_timeout").await, 2);
    assert!(ask(&callers[0], "b", SOON).await.is_some(), "a new session");
    assert_eq!(figure(&program, "udp.dns.downstream_sess_total").await, 3);
}

#[tokio::test]
async fn both_families_have_sessions() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let both = (
        "protocol: UDP, address: 127.0.0.1",
        "protocol: UDP, ipv4_compat: true, address: \"::\"",
    );
    let (program, listen) = example([one.address, two.address], &[both]).await;
    let v4 = caller(listen).await;
    let v6 = UdpSocket::bind("[::1]:0").await.expect("a free port");
    let to = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, listen.port()));
    v6.connect(to).await.expect("a way");
    for own in [v4, v6] {
        let answer = ask(&own, "a", SOON).await.expect("an answer");
        assert!(answer.ends_with(":a"), "{answer}");
    }
    assert_eq!(figure(&program, "udp.dns.downstream_sess_total").await, 2);
}

#[tokio::test]
async fn sessions_are_bounded() {
    let (one, two) = (Server::start("one").await, Server::start("two").await);
    let changes = [("max_connections: 1000", "max_connections: 2")];
    let (program, listen) = example([one.address, two.address], &changes).await;
    let known = [caller(listen).await, caller(listen).await];
    for own in &known {
        assert!(ask(own, "a", SOON).await.is_some());
    }
    let third = caller(listen).await;
    assert_eq!(ask(&third, "a", Duration::from_millis(300)).await, None);
    assert_eq!(
        figure(&program, "cluster.dns.upstream_cx_overflow").await,
        1
    );
    assert_eq!(
        figure(&program, "udp.dns.downstream_sess_rx_datagrams_dropped").await,
        1
    );
    assert!(ask(&known[0], "a", SOON).await.is_some());
}

#[tokio::test]
async fn an_endpoint_that_is_not_there_is_left() {
    let one = Server::start("one").await;
    let changes = [
        (WITH_HASH, ""),
        ("lb_policy: MAGLEV", "lb_policy: ROUND_ROBIN"),
    ];
    let (program, listen) = example([one.address, free_udp()], &changes).await;
    // Whoever fell to it asks again, as clients of datagrams do.
    for _ in 0..6 {
        let own = caller(listen).await;
        let mut answer = None;
        for _ in 0..3 {
            answer = answer.or(ask(&own, "a", Duration::from_millis(300)).await);
        }
        assert_eq!(answer.as_deref(), Some("one:a"));
    }
    assert!(figure(&program, "udp.dns.upstream_sess_errors").await > 0);
    assert!(one.count.load(SeqCst) >= 6);
}

#[tokio::test]
async fn what_is_no_listener_of_datagrams_is_refused() {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(file.join("../examples/proxy/features/udp.yaml"));
    let text = text.expect("the example is there");
    let listener = "static_resources.listeners[0]";
    let config = format!("{listener}.listener_filters[0].typed_config");
    for (from, to, error) in [
        ("idle_timeout: 5s", "idle_timeout: soon", format!("{config}.idle_timeout: \"soon\" is no duration; seconds such as \"1.5s\" are expected")),
        ("idle_timeout: 5s", "idle_timeout: 0s", format!("{config}.idle_timeout: has to be above 0")),
        ("source_ip: true", "key: host", format!("{config}.hash_policies[0].key: is not a supported field; source_ip is allowed here")),
        ("protocol: UDP, ", "", format!("{config}: the type envoy.extensions.filters.udp.udp_proxy.v3.UdpProxyConfig is not supported; ")),
        ("cluster: dns\n  clusters", "cluster: nobody\n  clusters", "static_resources: the listener \"dns\" sends to the cluster \"nobody\", which is not among the clusters".to_owned()),
        ("      listener_filters:", "      filter_chains: []\n      listener_filters:", format!("{listener}.filter_chains: is not a supported field; ")),
    ] {
        let broken = text.replacen(from, to, 1);
        assert_ne!(broken, text, "{from}");
        let said = fairlead_xds::bootstrap(&broken, &|_| Ok(Vec::new()));
        let said = said.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(said.starts_with(&error), "{to}: {said}");
    }
}
