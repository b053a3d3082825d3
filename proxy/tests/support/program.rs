//! A proxy as a program of its own, ours or Envoy, with a bootstrap in a folder of its own.

#[path = "ports.rs"]
#[allow(
    clippy::duplicate_mod,
    reason = "tests have this with or without the other support"
)]
mod ports;
#[path = "stock.rs"]
mod stock;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

#[allow(unused_imports, reason = "every test uses a part")]
pub use ports::free;
#[allow(unused_imports, reason = "every test uses a part")]
pub use stock::{envoy, envoy_takes, envoy_takes_file, is_left_out};

/// How long a proxy may take until it is ready.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running program; it ends when this is dropped, and its folder with it.
pub struct Program {
    child: Child,
    pub admin: SocketAddr,
    pub folder: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Program {
    /// Our own proxy.
    pub async fn ours(name: &str, bootstrap: &Value) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_fairlead-proxy"));
        Self::start(program, &["run", "--config"], name, bootstrap).await
    }

    /// Our own proxy, with so many workers.
    pub async fn with_cores(cores: &str, name: &str, bootstrap: &Value) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_fairlead-proxy"));
        let options = ["run", "--cores", cores, "--config"];
        Self::start(program, &options, name, bootstrap).await
    }

    /// Our own proxy, with so many workers, which takes over from the one that runs at this place.
    pub async fn taking_over(place: &Path, cores: &str, name: &str, bootstrap: &Value) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_fairlead-proxy"));
        let place = place.to_str().expect("UTF-8");
        let options = ["run", "--cores", cores, "--take-over", place, "--config"];
        Self::start(program, &options, name, bootstrap).await
    }

    /// Our own proxy, which takes over from the one that runs at this place, and tells a service manager.
    pub async fn managed(manager: &Path, place: &Path, name: &str, bootstrap: &Value) -> Self {
        let manager = format!("NOTIFY_SOCKET={}", manager.display());
        let program = env!("CARGO_BIN_EXE_fairlead-proxy");
        let place = place.to_str().expect("UTF-8");
        let options = [&manager, program, "run", "--take-over", place, "--config"];
        Self::start(Path::new("/usr/bin/env"), &options, name, bootstrap).await
    }

    /// Our own proxy, which keeps in a folder what it is told.
    pub async fn keeping(folder: &Path, name: &str, bootstrap: &Value) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_fairlead-proxy"));
        let folder = folder.to_str().expect("UTF-8");
        let options = ["run", "--keep", folder, "--config"];
        Self::start(program, &options, name, bootstrap).await
    }

    /// Waits until it has ended by itself.
    pub async fn ended(&mut self) {
        let until = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) {
            assert!(Instant::now() < until, "it does not stop: {}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Envoy.
    pub async fn envoy(name: &str, bootstrap: &Value) -> Self {
        let options = [
            "--concurrency",
            "1",
            "--use-dynamic-base-id",
            "-l",
            "error",
            "-c",
        ];
        Self::start(&envoy(), &options, name, bootstrap).await
    }

    /// Our own proxy as an example of features has it, changed so, with an admin interface of its own.
    pub async fn example(file: &str, changes: &[(&str, String)]) -> Self {
        let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/proxy/features");
        let mut text = std::fs::read_to_string(examples.join(file)).expect("the example is there");
        let admin = free();
        let own = ("port_value: 15000", format!("port_value: {}", admin.port()));
        for (from, to) in changes.iter().chain([&own]) {
            assert!(text.contains(from), "{from} is not in {file}");
            text = text.replace(from, to);
        }
        Self::text(&format!("{file}-{}", admin.port()), &text, admin).await
    }

    /// Our own proxy with a bootstrap as text.
    pub async fn text(name: &str, bootstrap: &str, admin: SocketAddr) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_fairlead-proxy"));
        Self::run(program, &["run", "--config"], name, bootstrap, admin).await
    }

    async fn start(program: &Path, options: &[&str], name: &str, bootstrap: &Value) -> Self {
        let port = bootstrap.pointer("/admin/address/socket_address/port_value");
        let port = port
            .and_then(Value::as_u64)
            .expect("a port of the admin interface");
        let admin = ([127, 0, 0, 1], u16::try_from(port).expect("a port")).into();
        Self::run(program, options, name, &bootstrap.to_string(), admin).await
    }

    async fn run(
        program: &Path,
        options: &[&str],
        name: &str,
        bootstrap: &str,
        admin: SocketAddr,
    ) -> Self {
        let process = std::process::id();
        let folder = std::env::temp_dir().join(format!("fairlead-{name}-{process}"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("bootstrap.json");
        std::fs::write(&file, bootstrap).expect("a file");
        let child = Command::new(program)
            .args(options)
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).expect("a file"))
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut own = Self {
            child,
            admin,
            folder,
        };
        let until = Instant::now() + PATIENCE;
        while !matches!(own.get("/ready").await, Some((StatusCode::OK, _))) {
            let has_ended = !matches!(own.child.try_wait(), Ok(None));
            if has_ended || Instant::now() > until {
                panic!("{name} is not ready: {}", own.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        own
    }

    /// Writes the bootstrap anew.
    pub fn write(&self, bootstrap: &Value) {
        self.write_text(&bootstrap.to_string());
    }

    /// The same, as text.
    pub fn write_text(&self, bootstrap: &str) {
        std::fs::write(self.folder.join("bootstrap.json"), bootstrap).expect("a file");
    }

    /// Tells it to stop, and waits until it has.
    pub async fn stop(&mut self) {
        let stream = TcpStream::connect(self.admin)
            .await
            .expect("its admin interface");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("HTTP");
        tokio::spawn(connection);
        let request = Request::post("/quitquitquit")
            .header("host", "admin")
            .body(Full::<Bytes>::default())
            .expect("a request");
        let _ = sender.send_request(request).await;
        self.ended().await;
    }

    /// What it said to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Waits until it has said something.
    pub async fn says(&self, text: &str) {
        let until = Instant::now() + Duration::from_secs(10);
        while !self.log().contains(text) {
            assert!(Instant::now() < until, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the admin interface answers; nothing while there is none.
    pub async fn get(&self, path: &str) -> Option<(StatusCode, String)> {
        let stream = TcpStream::connect(self.admin).await.ok()?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .ok()?;
        tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", "admin")
            .body(Full::<Bytes>::default())
            .expect("a request");
        let (head, body) = sender.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some((head.status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// What the admin interface answers as JSON.
    pub async fn json(&self, path: &str) -> Value {
        let (status, text) = self.get(path).await.expect("an answer");
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }
}
