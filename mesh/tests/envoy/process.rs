//! An Envoy in a pod of the mesh, as the example of one says it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fairlead_mesh::compile::Compiled;
use fairlead_plan::mesh::spiffe;
use fairlead_xds::Kind;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::stock;
use crate::support::Control;
use crate::support::place::Place;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running Envoy; it ends when this is dropped.
pub struct Envoy {
    child: Child,
    folder: PathBuf,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resources by kind and name, with their versions.
pub type Told = BTreeSet<(Kind, String, String)>;

impl Envoy {
    /// Starts one in a namespace, as the proxy of the pod of an account of the shop.
    pub async fn start(
        place: &Place,
        number: usize,
        control: &Control,
        account: &str,
        api: &str,
    ) -> Self {
        let folder = place.folder.join(account);
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = bootstrap(&folder, place, control, account, api);
        // Not in the folder that Envoy watches for its certificate.
        let log = std::fs::File::create(log(&folder)).expect("a file");
        let child = place.inside(number, 0, move || {
            Command::new(stock::envoy())
                .args(["--concurrency", "1", "--use-dynamic-base-id"])
                .args(["--drain-time-s", "1", "-l", "error", "-c"])
                .arg(&file)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(log)
                .spawn()
        });
        let child = child.join().expect("it ran").expect("Envoy starts");
        let mut envoy = Self { child, folder };
        let begun = Instant::now();
        while envoy
            .get("/ready")
            .await
            .is_none_or(|said| !said.contains("LIVE"))
        {
            let has_ended = !matches!(envoy.child.try_wait(), Ok(None));
            assert!(
                !has_ended && begun.elapsed() < PATIENCE,
                "Envoy is not ready: {}",
                envoy.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        envoy
    }

    /// What it said to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(log(&self.folder)).unwrap_or_default()
    }

    /// What its admin interface answers; nothing while there is none.
    pub async fn get(&self, path: &str) -> Option<String> {
        let stream = UnixStream::connect(self.folder.join("admin")).await.ok()?;
        let stream = TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.ok()?;
        tokio::spawn(connection);
        let request = Request::get(path).header("host", "admin");
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let answer = sender.send_request(request).await.ok()?;
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some(String::from_utf8_lossy(&body).into_owned())
    }

    async fn json(&self, path: &str) -> Value {
        let text = self
            .get(path)
            .await
            .unwrap_or_else(|| panic!("{path}: {}", self.log()));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// Its numbers whose names have one of these parts.
    pub async fn figures(&self, parts: &str) -> BTreeMap<String, u64> {
        let answer = self
            .json(&format!("/stats?format=json&filter={parts}"))
            .await;
        let all = answer["stats"].as_array().into_iter().flatten();
        all.filter_map(|own| Some((own["name"].as_str()?.to_owned(), own["value"].as_u64()?)))
            .collect()
    }

    /// A number; 0 where there is none of that name.
    pub async fn figure(&self, name: &str) -> u64 {
        let name = name.replace('.', "%5C.");
        let name = name.replace('[', "%5C%5B").replace(']', "%5C%5D");
        let all = self.figures(&format!("^{name}$")).await;
        all.values().sum()
    }

    /// Waits until a number is as it should be.
    pub async fn until(&self, name: &str, is_so: impl Fn(u64) -> bool) {
        let begun = Instant::now();
        loop {
            let number = self.figure(name).await;
            if is_so(number) {
                return;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{name}: {number}: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How much it refused.
    pub async fn refused(&self) -> u64 {
        let all = self.figures("update_rejected|listener_create_failure|config_reload_failure");
        all.await.values().sum()
    }

    /// What it uses of what it was told, and what it warms.
    pub async fn used(&self) -> Told {
        let dump = self.json("/config_dump").await;
        let configs = || dump["configs"].as_array().into_iter().flatten();
        let list = |name: &'static str| {
            configs()
                .flat_map(move |own| own[name].as_array())
                .flatten()
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let clusters = ["dynamic_active_clusters", "dynamic_warming_clusters"];
        let clusters = clusters.into_iter().flat_map(list);
        let clusters =
            clusters.map(|own| (Kind::Cluster, &own["cluster"]["name"], &own["version_info"]));
        let listeners = list("dynamic_listeners");
        let listeners = listeners
            .filter(|own| !own["active_state"].is_null())
            .map(|own| {
                (
                    Kind::Listener,
                    &own["name"],
                    &own["active_state"]["version_info"],
                )
            });
        let routes = list("dynamic_route_configs");
        let routes = routes.map(|own| {
            (
                Kind::Routes,
                &own["route_config"]["name"],
                &own["version_info"],
            )
        });
        let all = clusters.chain(listeners).chain(routes);
        all.map(|(kind, name, version)| (kind, text(name), text(version)))
            .collect()
    }

    /// Where the endpoints of its clusters are.
    pub async fn endpoints(&self) -> BTreeMap<String, BTreeSet<String>> {
        let answer = self.json("/clusters?format=json").await;
        let clusters = answer["cluster_statuses"].as_array().into_iter().flatten();
        clusters
            .map(|cluster| {
                let hosts = cluster["host_statuses"].as_array().into_iter().flatten();
                let hosts = hosts.map(|host| {
                    let address = &host["address"]["socket_address"];
                    format!(
                        "{} {}",
                        address["address"].as_str().unwrap_or_default(),
                        address["port_value"]
                    )
                });
                let name = cluster["name"].as_str().unwrap_or_default();
                (name.to_owned(), hosts.collect())
            })
            .collect()
    }
}

/// Where what it says to standard error is.
fn log(folder: &Path) -> PathBuf {
    folder.with_extension("log")
}

/// What it is to be told, of the kinds that it shows.
pub fn told(compiled: &Compiled, account: &str) -> Told {
    let id = spiffe("cluster.local", "shop", account)
        .parse()
        .expect("an id");
    let pod = ("shop".into(), format!("{account}-1").into());
    let view = compiled.view(&pod, &id).expect("it is known");
    let kinds = [Kind::Cluster, Kind::Listener, Kind::Routes];
    let all = kinds
        .into_iter()
        .flat_map(|kind| view.all(kind).map(move |own| (kind, own)));
    all.map(|(kind, (name, own))| (kind, name.to_string(), own.version().to_string()))
        .collect()
}

/// Writes the example's files for a place of tests; gives back the bootstrap's.
fn bootstrap(folder: &Path, place: &Place, control: &Control, account: &str, api: &str) -> PathBuf {
    let id = spiffe("cluster.local", "shop", account)
        .parse()
        .expect("an id");
    let authority = control.authority.borrow().clone().expect("there is one");
    let pair = authority.own(&id, &[], time::OffsetDateTime::now_utc());
    let pair = pair.expect("a certificate");
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    write("certificate.pem", &pair.certificate);
    write("key.pem", &pair.key);
    write("roots.pem", &control.slots.bundle());
    let own = folder.display().to_string();
    let socket = place.folder.join("control").display().to_string();
    let changes = [
        ("/var/run/fairlead/identity", own.as_str()),
        ("/var/run/fairlead", &own),
        ("/etc/envoy", &own),
        ("web-1.shop", &format!("{account}-1.shop")),
        ("web.shop", &format!("{account}.shop")),
        ("DELTA_GRPC ", &format!("{api} ")),
        ("STRICT_DNS", "STATIC"),
        (
            "socket_address: {address: fairlead-mesh.fairlead-system.svc, port_value: 15012}",
            &format!("pipe: {{path: {socket}}}"),
        ),
    ];
    let read = |name: &str| {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/proxy/stock");
        let text = std::fs::read_to_string(examples.join(name)).expect("the example is there");
        changes
            .iter()
            .fold(text, |text, (from, to)| text.replace(from, to))
    };
    write("identity.yaml", &read("identity.yaml"));
    write("envoy.yaml", &read("envoy.yaml"))
}
