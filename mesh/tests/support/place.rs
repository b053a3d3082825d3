//! Two pods without anybody who knows of a proxy: network namespaces, what runs in them, and who asks from there.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fairlead_mesh::compile::names::{INBOUND_PORT, OUTBOUND_PORT};
use fairlead_mesh::facts::{Endpoint, Facts, Key, Pod, Port, Readiness, Service, Slice, Spoken};
use fairlead_proxy::capture::{self, Capture, Nft};
use fairlead_proxy::metrics::{Stat, push, stats};
use fairlead_proxy::{Shared, config, upkeep, worker};
use rustix::process::Uid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space, set_thread_res_uid};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::Control;

const PATIENCE: Duration = Duration::from_secs(20);
/// Whom applications run as; proxies are this process.
pub const USER: u32 = 65534;
const NFT: &str = "/usr/sbin/nft";

/// Two namespaces joined by a link; gone when dropped, with what runs in them.
pub struct Place {
    names: [String; 2],
    pub folder: PathBuf,
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

impl Place {
    pub fn new() -> Self {
        assert!(
            Path::new(NFT).exists(),
            "nftables is needed: `cargo xtask bootstrap` installs it"
        );
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let own = format!("{}-{number}", std::process::id());
        let names = ["near", "far"].map(|name| format!("fl-{name}-{own}"));
        let folder = std::env::temp_dir().join(format!("fairlead-mesh-{own}"));
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
        for (name, [own, own6], [other, other6]) in [
            (
                near,
                ["10.79.0.1/24", "fd79::1/64"],
                ["10.79.0.2", "fd79::2"],
            ),
            (
                far,
                ["10.79.0.2/24", "fd79::2/64"],
                ["10.79.0.1", "fd79::1"],
            ),
        ] {
            let ip = |arguments: &str| {
                let arguments: Vec<_> = arguments.split(' ').collect();
                run("ip", &[&["-n", name], arguments.as_slice()].concat());
            };
            ip(&format!("address add {own} dev eth0"));
            ip(&format!("address add {own6} dev eth0 nodad"));
            ip("link set eth0 up");
            ip(&format!("route add default via {other}"));
            ip(&format!("-6 route add default via {other6}"));
        }
        Self { names, folder }
    }

    /// An application of the second namespace that answers each connection in its way.
    pub fn application(
        &self,
        port: u16,
        answer: impl Fn(TcpStream) -> io::Result<()> + Send + 'static,
    ) {
        let (up, is_up) = std::sync::mpsc::channel();
        self.inside(1, USER, move || {
            let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).expect("a port");
            up.send(()).expect("it is waited for");
            for connection in listener.incoming() {
                // A connection that breaks is the caller's matter.
                let _ = connection.and_then(&answer);
            }
        });
        is_up.recv().expect("it listens");
    }

    /// Does something on a thread of a namespace.
    pub fn inside<T: Send + 'static>(
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
    pub fn proxy(&self, place: usize, bootstrap: String) -> Arc<Shared> {
        let shared = Shared::new(1);
        let own = Arc::clone(&shared);
        self.inside(place, 0, move || serve(own, bootstrap));
        self.capture(place);
        shared
    }

    /// Brings all connections of a namespace to its proxy, which runs as root.
    pub fn capture(&self, place: usize) {
        let captured = self.inside(place, 0, || {
            let capture = Capture {
                outbound: Some(OUTBOUND_PORT),
                inbound: Some(INBOUND_PORT),
                exempt: vec![0],
                skip_outbound: Vec::new(),
                skip_inbound: Vec::new(),
                skip_networks: Vec::new(),
            };
            capture::apply(&Nft::at(Path::new(NFT)), &capture.rules())
        });
        captured.join().expect("it ran").expect("it is captured");
    }

    /// What is answered to an application of the first namespace.
    pub fn ask(&self, to: &str, text: &str) -> String {
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
    pub fn answer(&self, to: &str, text: &str, wanted: &str) -> String {
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
            config::watch(
                origin,
                first,
                config::Folders::default(),
                snapshots,
                sources
            ),
        )
    });
}

/// Answers one request of HTTP/1.1.
pub fn shop(mut connection: TcpStream) -> io::Result<()> {
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
pub fn echo(mut connection: TcpStream) -> io::Result<()> {
    let mut text = [0; 64];
    let read = connection.read(&mut text)?;
    connection.write_all(&text[..read])
}

/// Brings connections to a path to the control plane.
pub fn bridge(path: &Path, control: &Control) {
    let (listener, address) = (UnixListener::bind(path).expect("a path"), control.address);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            carry(near, address);
        }
    });
}

/// Brings connections within a namespace to the control plane; gives back the port of its own address there.
pub fn door(place: &Place, number: usize, control: &Control) -> u16 {
    let bound = place.inside(number, 0, || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true).map(|()| listener)
    });
    let listener = bound.join().expect("it ran").expect("a port");
    let port = listener.local_addr().expect("it is bound").port();
    let listener = tokio::net::TcpListener::from_std(listener).expect("it waits for nobody");
    let address = control.address;
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            carry(near, address);
        }
    });
    port
}

/// Carries what comes to an address, and back.
fn carry(mut near: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, address: SocketAddr) {
    tokio::spawn(async move {
        let mut far = tokio::net::TcpStream::connect(address).await?;
        copy_bidirectional(&mut near, &mut far).await
    });
}

pub fn figure(shared: &Shared, name: &str) -> i128 {
    match stats(&shared.figures).get(name) {
        Some(Stat::Number(number)) => *number,
        _ => 0,
    }
}

/// Services of the shop: the name, the end of its address or 0 where it has none, the port, the one that the application has,
/// what is spoken, and whether its pod has a proxy. All pods are at the address of the second namespace, cart-1 with its proxy.
pub fn cluster(all: &[(&str, u8, u16, u16, Spoken, bool)]) -> Facts {
    let mut facts = Facts::default();
    let pod: Key = ("shop".into(), "cart-1".into());
    for &(name, last, port, target, spoken, known) in all {
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
                readiness: Readiness::Ready,
                zone: "".into(),
                pod: known.then(|| pod.clone()),
            }],
        };
        facts.services.insert(key.clone(), Arc::new(service));
        let slices = facts.slices.entry(key).or_default();
        slices.insert("s".into(), Arc::new(slice));
    }
    let id = "spiffe://cluster.local/ns/shop/sa/cart".parse();
    let pod_of_cart = Pod {
        id: id.expect("an id"),
        labels: BTreeMap::from([("app".to_owned(), "cart".to_owned())]),
        probes: Vec::new(),
    };
    facts.pods.insert(pod, Arc::new(pod_of_cart));
    facts
}

/// With an address of IPv6 for each service that has one, which ends as the other does; pods of those that have none are at theirs.
pub fn dual(mut facts: Facts) -> Facts {
    let of = |network, last: u8| Ipv6Addr::new(network, 0, 0, 0, 0, 0, 0, last.into()).into();
    for (key, service) in &mut facts.services {
        let service = Arc::make_mut(service);
        if let Some(IpAddr::V4(own)) = service.addresses.first() {
            let [.., last] = own.octets();
            service.addresses.insert(of(0xfd96, last));
            continue;
        }
        for slice in facts
            .slices
            .get_mut(key)
            .into_iter()
            .flat_map(BTreeMap::values_mut)
        {
            for endpoint in &mut Arc::make_mut(slice).endpoints {
                endpoint.address = of(0xfd79, 2);
            }
        }
    }
    facts
}

/// With an authorization that names the cart alone.
pub fn guarded(facts: Facts) -> Facts {
    let spec = json!({
        "targetRefs": [{"kind": "Service", "name": "cart"}],
        "rules": [{"from": {"serviceAccounts": ["shop/cart"]}}],
    });
    authorized(facts, &[("own", spec)])
}

/// With authorizations of the shop: the name and the spec of each.
pub fn authorized(mut facts: Facts, all: &[(&str, serde_json::Value)]) -> Facts {
    let read = |(name, spec): &(&str, serde_json::Value)| {
        let own = json!({
            "apiVersion": "mesh.fairlead.dev/v1alpha1",
            "kind": "MeshAuthorization",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": spec,
        });
        Arc::new(serde_json::from_value(own).expect("an authorization"))
    };
    let all = all.iter().map(read).collect();
    facts.authorizations.insert("shop".into(), all);
    facts
}

/// With a policy for services of the shop.
pub fn ruled(mut facts: Facts, spec: serde_json::Value) -> Facts {
    let own = json!({
        "apiVersion": "mesh.fairlead.dev/v1alpha1",
        "kind": "MeshPolicy",
        "metadata": {"name": "own", "namespace": "shop"},
        "spec": spec,
    });
    let own = serde_json::from_value(own).expect("a policy");
    let policies = facts.policies.entry("shop".into()).or_default();
    policies.push(Arc::new(own));
    facts
}
