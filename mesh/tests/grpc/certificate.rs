//! `fairlead-proxy certificate`, as the example says it: its files are renewed, follow the roots, and are what a program needs for
//! mutual TLS to pods with a proxy.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fairlead_mesh::authority::Authority;
use fairlead_mesh::facts::Spoken;
use fairlead_proxy::{certificate, config};
use serde_json::json;
use time::OffsetDateTime;

use crate::program::{Client, Server, is_left_out, named};
use crate::support::Control;
use crate::support::place::{Place, bridge, cluster, door, guarded};
use crate::{Ground, PATIENCE, answered, cart, until};

/// The example's bootstrap for an account of the shop, with the control plane here.
fn example(folder: &Path, control: &Control, account: &str) -> String {
    std::fs::create_dir_all(folder).expect("a folder");
    let file = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).expect("a file");
    };
    file("token", &format!("shop/{account}"));
    file("roots.pem", &control.slots.bundle());
    let example = "../examples/mesh/grpc/certificate.yaml";
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(example);
    let text = std::fs::read_to_string(example).expect("the example is there");
    let port = control.address.port();
    text.replace("/var/run/secrets/fairlead", &folder.display().to_string())
        .replace("fairlead-mesh.fairlead-system.svc", "127.0.0.1")
        .replace("15012", &port.to_string())
        .replace("sa/web", &format!("sa/{account}"))
        .replace("web.shop", &format!("{account}.shop"))
}

/// Keeps the files of an account; gives back where they are.
fn keep(place: &Path, control: &Control, account: &str) -> PathBuf {
    let own = place.join(format!("{account}-program"));
    let origin = config::Origin::Text(example(&place.join(account), control, account));
    let first = config::read(&origin).unwrap_or_else(|error| panic!("{error}"));
    let folder = own.clone();
    tokio::spawn(async move { certificate::keep(origin, first, &folder, false).await });
    own
}

/// Waits until a file is as it should be; gives back what is in it.
async fn read(path: &Path, is_so: impl Fn(&str) -> bool) -> String {
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if is_so(&text) {
            return text;
        }
        assert!(begun.elapsed() < PATIENCE, "{}: {text}", path.display());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_renewed_and_have_the_next_root_before_it_signs() {
    let mut ground = Ground::with("files", Duration::from_secs(4)).await;
    let folder = keep(&ground.folder, &ground.control, "web");
    let is_pem = |text: &str| text.contains("END CERTIFICATE");
    let first = read(&folder.join("certificate.pem"), is_pem).await;
    let key = read(&folder.join("key.pem"), |text| text.contains("PRIVATE KEY")).await;
    let is_next = |text: &str| is_pem(text) && text != first;
    read(&folder.join("certificate.pem"), is_next).await;
    read(&folder.join("key.pem"), |text| text != key).await;
    // Another root is prepared.
    let slots = &mut ground.control.slots;
    *slots = slots.prepared(crate::support::root(), OffsetDateTime::now_utc());
    let authority = Authority::of(slots).expect("an authority");
    let bundle = slots.bundle();
    ground
        .control
        .authority
        .send_replace(Some(Arc::new(authority)));
    let compiled = ground.control.tell(&cart(&[]));
    read(&folder.join("roots.pem"), |text| {
        text.trim() == bundle.trim()
    })
    .await;
    // The control plane knows that they do.
    let begun = Instant::now();
    while !ground
        .control
        .proxies
        .all()
        .iter()
        .any(|own| own.trust.as_ref() == compiled.trust())
    {
        assert!(
            begun.elapsed() < PATIENCE,
            "{:?}",
            ground.control.proxies.all()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_is_known_to_pods_with_a_proxy_by_its_files() {
    if is_left_out() {
        return;
    }
    let control = Control::start(Duration::from_secs(3600)).await;
    let facts = cluster(&[("cart", 1, 80, 8080, Spoken::Http2, true)]);
    control.tell(&guarded(facts));
    let place = Place::new();
    let path = place.folder.join("control");
    bridge(&path, &control);
    let address = json!({"pipe": {"path": path}});
    let bootstrap = control.bootstrap(("shop", "cart"), &place.folder, address);
    let far = place.proxy(1, bootstrap.to_string());
    let server = place.inside(1, 0, || Server::at("one", 8080));
    let server = server.join().expect("it answers");
    let port = door(&place, 0, &control);
    let mut clients = Vec::new();
    for account in ["cart", "web"] {
        let files = keep(&place.folder.join("programs"), &control, account);
        read(&files.join("roots.pem"), |text| !text.is_empty()).await;
        let file = named(&files, account, &format!("localhost:{port}"));
        let client = place.inside(0, 0, move || {
            Client::start("xds:///cart.shop.mesh.fairlead.dev:80", "secured", &file)
        });
        clients.push(client.join().expect("it calls"));
    }
    let once = json!({"method": "/shop.Cart/Get", "count": 1});
    until(&mut clients[0], &once, |own| answered(own, "one") == 1);
    until(&mut clients[1], &once, |own| {
        own.codes.contains_key("PERMISSION_DENIED")
    });
    for proxy in control.proxies.all() {
        assert!(proxy.refusals.is_empty(), "{proxy:?}");
    }
    // No proxy of the caller counts them, so that of the called pod does.
    let begun = Instant::now();
    let is_counted = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let (_, sums) = control
            .figures
            .within(60, now.expect("it is later").as_secs());
        let mut pairs = sums.keys();
        pairs.any(|(caller, called)| caller.workload.is_empty() && &*called.service == "cart")
    };
    while !is_counted() {
        assert!(begun.elapsed() < PATIENCE, "nothing is counted");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    far.draining.send_replace(true);
    drop(server);
}
