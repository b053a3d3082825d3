//! Roots that are replaced one after the other, while everybody's certificates live for seconds and requests go on.
//!
//! `FAIRLEAD_ROTATION_SECONDS=10` has certificates live for so long, and `FAIRLEAD_ROTATION_CALLERS=10` adds so many callers, each
//! with 100 requests a second on a connection that it keeps.

mod support;

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fairlead_mesh::authority::{Authority, Timing, Wanted, decide, taken};
use fairlead_mesh::facts::{Endpoint, Facts, Readiness, Slice, Spoken};
use fairlead_mesh::serve::{Names, Replicas};
use serde_json::json;
use support::place::{Place, bridge, cluster, echo, figure, shop};
use support::{Control, DOMAIN};
use time::OffsetDateTime;

/// How many seconds certificates live.
fn life() -> u64 {
    number("FAIRLEAD_ROTATION_SECONDS").unwrap_or(4)
}

/// How many callers keep their connections.
fn callers() -> u64 {
    number("FAIRLEAD_ROTATION_CALLERS").unwrap_or(1)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Where the control plane is known to be in the cluster.
fn with_itself(mut facts: Facts, control: &Control) -> Facts {
    let slice = Slice {
        ports: vec![("mesh".into(), control.address.port())],
        endpoints: vec![Endpoint {
            address: control.address.ip(),
            readiness: Readiness::Ready,
            zone: "".into(),
            pod: None,
        }],
    };
    let key = ("fairlead-system".into(), "fairlead-mesh".into());
    let slices = facts.slices.entry(key).or_default();
    slices.insert("own".into(), Arc::new(slice));
    facts
}

/// The change of roots, as the leader of a cluster does it.
struct Rotation {
    control: Control,
    replicas: Replicas,
    facts: Facts,
    timing: Timing,
    files: Vec<PathBuf>,
    /// A bundle that kubelet has not brought to the pods yet.
    late: Option<(Instant, String)>,
}

impl Rotation {
    fn new(control: Control, facts: Facts, files: Vec<PathBuf>) -> Self {
        let replicas = Replicas {
            authority: control.authority.subscribe(),
            compiled: control.compiled.subscribe(),
            proxies: Arc::clone(&control.proxies),
            names: Names {
                id: support::MESH.parse().expect("an id"),
                dns: vec!["fairlead-mesh.fairlead-system.svc".to_owned()],
            },
            namespace: "fairlead-system".to_owned(),
        };
        let seconds = i64::try_from(life()).expect("a short life");
        let timing = Timing {
            settle: time::Duration::seconds(1),
            urgent: time::Duration::minutes(2),
            absent: time::Duration::minutes(5),
            renewal: time::Duration::seconds(3),
            leaf: time::Duration::seconds(seconds + 1),
        };
        Self {
            control,
            replicas,
            facts,
            timing,
            files,
            late: None,
        }
    }

    /// One look; what is waited for.
    async fn look(&mut self, wanted: &Wanted) -> Option<String> {
        if let Some((since, bundle)) = &self.late
            && since.elapsed() > Duration::from_secs(1)
        {
            for file in &self.files {
                std::fs::write(file, bundle).expect("a file");
            }
            self.late = None;
        }
        let (slots, now) = (self.control.slots.clone(), OffsetDateTime::now_utc());
        let heard = self.replicas.hear(&slots.bundle(), &self.facts).await;
        let decided = decide(&slots, wanted, &heard, &self.timing, now);
        let (step, waiting) = decided.expect("it is read");
        let next = taken(&slots, step, None, DOMAIN, time::Duration::DAY, now);
        if let Some(next) = next.expect("it is made") {
            let authority = Authority::of(&next).expect("an authority");
            self.late = Some((Instant::now(), next.bundle()));
            self.control.slots = next;
            self.control
                .authority
                .send_replace(Some(Arc::new(authority)));
            self.control.tell(&self.facts);
        }
        waiting
    }

    /// Looks until this root alone is believed.
    async fn until_alone(&mut self, number: u32, wanted: &Wanted) {
        let begun = Instant::now();
        loop {
            let waiting = self.look(wanted).await;
            let slots = &self.control.slots;
            if slots.active().number == number && slots.iter().count() == 1 {
                return;
            }
            let patience = Duration::from_secs(60 + 4 * life());
            assert!(
                begun.elapsed() < patience,
                "root {number} waits for {waiting:?}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Asks over a connection of its own, and reads the answer.
fn ask(port: (u8, u16), text: &str) -> io::Result<String> {
    let address = (Ipv4Addr::new(10, 96, 0, port.0), port.1);
    let mut connection = TcpStream::connect(address)?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    connection.write_all(text.as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Asks over a connection that stays.
fn ask_again(connection: &mut TcpStream) -> io::Result<()> {
    connection.write_all(b"GET / HTTP/1.1\r\nhost: cart\r\n\r\n")?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\nshop") {
        let mut part = [0; 1024];
        match connection.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&part[..read]),
        }
    }
    match answer.starts_with(b"HTTP/1.1 200") {
        true => Ok(()),
        false => Err(io::Error::other(String::from_utf8_lossy(&answer))),
    }
}

/// What was asked, and what failed.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    asked: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    /// Asks 100 times a second, as far as that can be, for as long as it is not stopped.
    fn run_kept(&self) {
        let connect = || {
            let connection = TcpStream::connect((Ipv4Addr::new(10, 96, 0, 1), 80))?;
            connection.set_read_timeout(Some(Duration::from_secs(10)))?;
            Ok(connection)
        };
        let mut connection: io::Result<TcpStream> = connect();
        let mut next = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let asked = connection.as_mut().map_err(|error| error.to_string());
            let asked = asked.and_then(|own| ask_again(own).map_err(|error| error.to_string()));
            self.asked.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = asked {
                eprintln!("a kept connection: {error}");
                self.failed.fetch_add(1, Ordering::Relaxed);
                connection = connect();
            }
            next += Duration::from_millis(10);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }

    /// Asks for as long as it is not stopped: requests on connections that proxies share, and bytes on such of their own.
    fn run(&self) {
        let request = "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
        while !self.stop.load(Ordering::Relaxed) {
            let http = ask((1, 80), request);
            let bytes = ask((2, 7000), "anything");
            let is_well = [
                http.as_ref()
                    .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")),
                bytes.as_ref().is_ok_and(|answer| answer == "anything"),
            ];
            self.asked.fetch_add(2, Ordering::Relaxed);
            if is_well != [true, true] {
                eprintln!("{http:?}, {bytes:?}");
                let failed = is_well.iter().filter(|own| !**own).count() as u64;
                self.failed.fetch_add(failed, Ordering::Relaxed);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roots_are_replaced_three_times_under_load_and_nobody_notices() {
    let control = Control::start(Duration::from_secs(life())).await;
    let services = [
        ("cart", 1, 80, 8080, Spoken::Http, true),
        ("echo", 2, 7000, 7070, Spoken::Tcp, true),
    ];
    let facts = with_itself(cluster(&services), &control);
    control.tell(&facts);
    let place = Place::new();
    let path = place.folder.join("control");
    bridge(&path, &control);
    place.application(8080, shop);
    place.application(7070, echo);
    let start = |number: usize, name: &str| {
        let address = json!({"pipe": {"path": path}});
        let bootstrap = control.bootstrap(("shop", name), &place.folder, address);
        place.proxy(number, bootstrap.to_string())
    };
    let (near, far) = (start(0, "web"), start(1, "cart"));
    let files = ["web.pem", "cart.pem"].map(|name| place.folder.join(name));
    let load = Arc::new(Load::default());
    let (place, asking) = {
        let load = Arc::clone(&load);
        let begun = tokio::task::spawn_blocking(move || {
            let request = "GET / HTTP/1.1\r\nhost: cart\r\nconnection: close\r\n\r\n";
            let answer = place.answer("10.96.0.1:80", request, "shop");
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let own = Arc::clone(&load);
            let mut asking = vec![place.inside(0, support::place::USER, move || own.run())];
            asking.extend((0..callers()).map(|_| {
                let own = Arc::clone(&load);
                place.inside(0, support::place::USER, move || own.run_kept())
            }));
            (place, asking)
        });
        begun.await.expect("it began")
    };
    let begun = Instant::now();
    let mut rotation = Rotation::new(control, facts, files.to_vec());
    for root in 2..=4 {
        let wanted = Wanted {
            root,
            ..Wanted::default()
        };
        rotation.until_alone(root, &wanted).await;
    }
    // A tainted one goes as well while nobody lags.
    let wanted = Wanted {
        root: 4,
        tainted: [4].into(),
        ..Wanted::default()
    };
    rotation.until_alone(5, &wanted).await;
    load.stop.store(true, Ordering::Relaxed);
    let passed = begun.elapsed().as_secs_f64();
    tokio::task::spawn_blocking(move || {
        for own in asking {
            own.join().expect("it ended");
        }
    })
    .await
    .expect("it ended");
    let (asked, failed) = (
        load.asked.load(Ordering::Relaxed),
        load.failed.load(Ordering::Relaxed),
    );
    eprintln!("figure rotation_requests {asked}");
    eprintln!(
        "figure rotation_requests_per_s {:.0}",
        asked as f64 / passed
    );
    eprintln!("figure rotation_errors {failed}");
    assert!(asked > 100, "{asked}");
    assert_eq!(failed, 0, "of {asked}");
    let handshakes = figure(&near, "cluster.echo.shop:7000/tcp.ssl.handshake");
    assert!(handshakes > 50, "{handshakes}");
    for shared in [near, far] {
        shared.draining.send_replace(true);
    }
    drop(place);
}
