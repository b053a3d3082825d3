//! A pod that calls another, through their proxies, as the kernel brings connections there: two network namespaces, nobody in them
//! who knows of a proxy, and the control plane outside.

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fairlead_mesh::compile::names::{INBOUND_PORT, OUTBOUND_PORT};
use fairlead_mesh::facts::{Endpoint, Facts, Key, Pod, Port, Service, Slice, Spoken};
use fairlead_proxy::capture::{self, Capture};
use fairlead_proxy::metrics::{Stat, push, stats};
use fairlead_proxy::{Shared, config, upkeep, worker};
use rustix::process::Uid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_res_uid};
use serde_json::json;
use support::Control;
use tokio::io::copy_bidirectional;
use tokio::net::UnixListener;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(20);
/// How long it takes at the most until figures are known.
const FRESH: Duration = Duration::from_secs(10);
/// Whom applications run as; proxies are this process.
const USER: u32 = 65534;
const NFT: &str = "/usr/sbin/nft";

/// Two namespaces joined by a link; gone when dropped, with what runs in them.
struct Place {
    names: [String; 2],
    folder: PathBuf,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

impl Place {
    fn new() -> Self {
        assert!(
            Path::new(NFT).exists(),
            "nftables is needed: `cargo xtask bootstrap` installs it"
        );
        let number = std::process::id();
        let names = ["near", "far"].map(|name| format!("fl-{name}-{number}"));
        let folder = std::env::temp_dir().join(format!("fairlead-mesh-{number}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        for name in &names {
            run("ip", &["netns", "add", name]);
            run("ip", &["-n", name, "link", "set", "lo", "up"]);
        }
        let [near, far] = &names;
        let link = [
            "-n", near, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", far,
        ];
        run("ip", &link);
        for (name, own, other) in [
            (near, "10.79.0.1", "10.79.0.2"),
            (far, "10.79.0.2", "10.79.0.1"),
        ] {
            run(
                "ip",
                &[
                    "-n",
                    name,
                    "address",
                    "add",
                    &format!("{own}/24"),
                    "dev",
                    "eth0",
                ],
            );
            run("ip", &["-n", name, "link", "set", "eth0", "up"]);
            run("ip", &["-n", name, "route", "add", "default", "via", other]);
        }
        Self { names, folder }
    }

    /// An application of the second namespace that answers each connection in its way.
    fn application(
        &self,
        port: u16,
        answer: impl Fn(TcpStream) -> io::Result<()> + Send + 'static,
    ) {
        let (up, is_up) = std::sync::mpsc::channel();
        self.inside(1, USER, move || {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("a port");
            up.send(()).expect("it is waited for");
            for connection in listener.incoming() {
                // A connection that breaks is the caller's matter.
                let _ = connection.and_then(&answer);
            }
        });
        is_up.recv().expect("it listens");
    }

    /// Does something on a thread of a namespace.
    fn inside<T: Send + 'static>(
        &self,
        place: usize,
        user: u32,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> std::thread::JoinHandle<T> {
        let path = format!("/run/netns/{}", self.names[place]);
        std::thread::spawn(move || {
            let namespace = File::open(path).expect("the namespace is there");
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("it may be entered");
            let user = Uid::from_raw(user);
            set_thread_res_uid(user, user, user).expect("anybody may be played");
            what()
        })
    }

    /// Starts a proxy of its own in a namespace, and brings all connections to it.
    fn proxy(&self, place: usize, bootstrap: String) -> Arc<Shared> {
        let shared = Shared::new(1);
        let own = Arc::clone(&shared);
        self.inside(place, 0, move || serve(own, bootstrap));
        let captured = self.inside(place, 0, || {
            let capture = Capture {
                outbound: Some(OUTBOUND_PORT),
                inbound: Some(INBOUND_PORT),
                exempt: vec![0],
                skip_outbound: Vec::new(),
                skip_inbound: Vec::new(),
                skip_networks: Vec::new(),
            };
            capture::apply(Path::new(NFT), &capture.rules())
        });
        captured.join().expect("it ran").expect("it is captured");
        shared
    }

    /// What is answered to an application of the first namespace.
    fn ask(&self, to: &str, text: &str) -> String {
        let (to, text) = (to.to_owned(), text.to_owned());
        let asked = self.inside(0, USER, move || {
            let mut connection = TcpStream::connect(&to)?;
            connection.set_read_timeout(Some(Duration::from_secs(2)))?;
            connection.write_all(text.as_bytes())?;
            let mut answer = String::new();
            connection.read_to_string(&mut answer).map(|_| answer)
        });
        let answer = asked.join().expect("it ran");
        answer.unwrap_or_else(|error| error.to_string())
    }

    /// Asks until the answer has something.
    fn answer(&self, to: &str, text: &str, wanted: &str) -> String {
        let begun = Instant::now();
        loop {
            let answer = self.ask(to, text);
            if answer.contains(wanted) || begun.elapsed() > PATIENCE {
                return answer;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A proxy, as the program runs it.
fn serve(shared: Arc<Shared>, bootstrap: String) {
    let origin = config::Origin::Text(bootstrap);
    let first = config::read(&origin).unwrap_or_else(|error| panic!("{error}"));
    let (snapshots, given) = watch::channel(Arc::new(first.snapshot.clone()));
    let (live, mut received) = watch::channel(Arc::default());
    received.mark_changed();
    let own = Arc::clone(&shared);
    std::thread::spawn(move || worker::run(own, received));
    let sinks = first.sinks.clone().expect("somebody is told its figures");
    let has_ended = shared.draining.subscribe();
    let pushing = push(Arc::clone(&shared), sinks, given.clone(), has_ended);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(async {
        let sources = watch::Sender::new(config::Sources::of(first.clone()));
        tokio::join!(
            pushing,
            upkeep::run(shared, given, live),
            config::watch(origin, first, None, snapshots, sources),
        )
    });
}

/// Answers one request of HTTP/1.1.
fn shop(mut connection: TcpStream) -> io::Result<()> {
    let mut asked = Vec::new();
    while !asked.ends_with(b"\r\n\r\n") {
        let mut part = [0; 1024];
        match connection.read(&mut part)? {
            0 => return Ok(()),
            read => asked.extend_from_slice(&part[..read]),
        }
    }
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nshop";
    assert!(asked.windows(8).any(|part| part == b"HTTP/1.1"));
    connection.write_all(answer.as_bytes())
}

/// Says what it is told.
fn echo(mut connection: TcpStream) -> io::Result<()> {
    let mut text = [0; 64];
    let read = connection.read(&mut text)?;
    connection.write_all(&text[..read])
}

/// Brings connections to a path to the control plane.
fn bridge(path: &Path, control: &Control) {
    let (listener, address) = (UnixListener::bind(path).expect("a path"), control.address);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut far = tokio::net::TcpStream::connect(address).await?;
                copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
}

fn figure(shared: &Shared, name: &str) -> i128 {
    match stats(&shared.figures).get(name) {
        Some(Stat::Number(number)) => *number,
        _ => 0,
    }
}

/// Waits until the control plane knows of calls that went well, by the caller's namespace and workload.
async fn counted(control: &Control, from: (&str, &str), service: &str) {
    let begun = Instant::now();
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("it is later").as_secs();
        let (_, sums) = control.figures.within(60, now);
        let found = sums.iter().find(|((caller, called), _)| {
            (&*caller.namespace, &*caller.workload) == from && &*called.service == service
        });
        if let Some(((_, called), sum)) = found {
            assert_eq!((&*called.namespace, called.port), ("shop", 80));
            // What was asked before there was an answer failed.
            assert!(sum.successes > 0 && sum.quantile(0.95).is_some(), "{sum:?}");
            return;
        }
        assert!(begun.elapsed() < FRESH, "{from:?} and {service}: {sums:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The services cart, echo and each, whose pod has a proxy, and old, about whose pod the mesh knows nothing. All pods are at the
/// same address, and each has no other.
fn facts() -> Facts {
    let mut facts = Facts::default();
    let pod: Key = ("shop".into(), "cart-1".into());
    for (name, last, port, target, spoken, known) in [
        ("cart", 1, 80, 8080, Spoken::Detected, true),
        ("echo", 2, 7000, 7070, Spoken::Tcp, true),
        ("old", 3, 80, 8081, Spoken::Http, false),
        ("each", 0, 7000, 7071, Spoken::Tcp, true),
    ] {
        let key: Key = ("shop".into(), name.into());
        let port = Port {
            number: port,
            name: "p".into(),
            spoken,
        };
        let service = Service {
            addresses: (last > 0)
                .then(|| Ipv4Addr::new(10, 96, 0, last).into())
                .into_iter()
                .collect(),
            ports: vec![port],
            selector: BTreeMap::from([("app".to_owned(), name.to_owned())]),
        };
        let slice = Slice {
            ports: vec![("p".into(), target)],
            endpoints: vec![Endpoint {
                address: Ipv4Addr::new(10, 79, 0, 2).into(),
                is_ready: true,
                zone: "".into(),
                pod: known.then(|| pod.clone()),
            }],
        };
        facts.services.insert(key.clone(), Arc::new(service));
        facts
            .slices
            .entry(key)
            .or_default()
            .insert("s".into(), Arc::new(slice));
    }
    let id = "spiffe://cluster.local/ns/shop/sa/cart"
        .parse()
        .expect("an id");
    facts.pods.insert(
        pod,
        Arc::new(Pod {
            id,
            labels: BTreeMap::from([("app".to_owned(), "cart".to_owned())]),
            probes: Vec::new(),
        }),
    );
    facts
}

/// With a policy that names the cart alone.
fn guarded(mut facts: Facts) -> Facts {
    let own = json!({
        "apiVersion": "mesh.fairlead.dev/v1alpha1",
        "kind": "MeshAuthorization",
        "metadata": {"name": "own", "namespace": "shop"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "cart"}],
            "rules": [{"from": {"serviceAccounts": ["shop/cart"]}}],
        },
    });
    let own = serde_json::from_value(own).expect("an authorization");
    facts
        .authorizations
        .insert("shop".into(), vec![Arc::new(own)]);
    facts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_pod_reaches_another_over_mutual_tls_that_neither_knows_of() {
    let control = Control::start(Duration::from_secs(3600)).await;
    control.tell(&facts());
    let place = Place::new();
    let path = place.folder.join("control");
    bridge(&path, &control);
    place.application(8080, shop);
    place.application(8081, shop);
    for port in [7070, 7071] {
        place.application(port, echo);
    }
    let start = |place: &Place, number: usize, name: &str| {
        let address = json!({"pipe": {"path": path}});
        let bootstrap = control.bootstrap(("shop", name), &place.folder, address);
        place.proxy(number, bootstrap.to_string())
    };
    let (near, far) = (start(&place, 0, "web"), start(&place, 1, "cart"));
    let (place, near, far) = tokio::task::spawn_blocking(move || {
        let request = "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
        let answer = place.answer("10.96.0.1:80", request, "shop");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let answer = place.answer("10.96.0.2:7000", "what nobody knows", "nobody");
        assert_eq!(answer, "what nobody knows");
        let answer = place.answer("10.79.0.2:7071", "nor this", "nor this");
        assert_eq!(answer, "nor this");
        let answer = place.answer("10.96.0.3:80", request, "shop");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        (place, near, far)
    })
    .await
    .expect("it ran");
    for (cluster, secured) in [
        ("cart.shop:80/http1", 1),
        ("echo.shop:7000/tcp", 1),
        ("each.shop:7000/tcp", 1),
        ("old.shop:80/http1", 0),
    ] {
        let name = format!("cluster.{cluster}.ssl.handshake");
        let made = figure(&near, &name);
        assert!(
            made >= secured && (secured > 0 || made == 0),
            "{name}: {made}"
        );
    }
    // Who calls whom is known within seconds, and what comes in plain text too.
    counted(&control, ("shop", "web-1"), "cart").await;
    let place = tokio::task::spawn_blocking(move || {
        let request = "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
        place.answer("10.79.0.2:8080", request, "shop");
        place
    })
    .await
    .expect("it ran");
    counted(&control, ("", ""), "cart").await;
    // A connection to the proxy's own port comes to an end, and not to the proxy again and again.
    let taken = "listener.inbound.downstream_cx_total";
    let place = tokio::task::spawn_blocking(move || {
        for port in [INBOUND_PORT, OUTBOUND_PORT] {
            assert_eq!(
                place.ask(&format!("10.79.0.2:{port}"), "again?"),
                "",
                "{port}"
            );
        }
        place
    })
    .await
    .expect("it ran");
    assert!(figure(&far, taken) < 50, "{}", figure(&far, taken));
    // Requests of HTTP/1.1 are carried over HTTP/2, and are HTTP/1.1 again for the application.
    assert_eq!(
        figure(&near, "cluster.cart.shop:80/http1.upstream_cx_http2_total"),
        1
    );
    assert!(figure(&far, "cluster.application/http1.upstream_cx_http1_total") > 0);
    // Nobody but the cart itself may come in from now on, and who asks is told so.
    let refused = "http.inbound.rbac.denied";
    assert_eq!(figure(&far, refused), 0);
    control.tell(&guarded(facts()));
    let place = tokio::task::spawn_blocking(move || {
        let request = "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
        let answer = place.answer("10.96.0.1:80", request, "403");
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert_eq!(place.ask("10.96.0.2:7000", "anything"), "");
        place
    })
    .await
    .expect("it ran");
    assert!(figure(&far, refused) > 0);
    for shared in [near, far] {
        shared.draining.send_replace(true);
    }
    drop(place);
}
