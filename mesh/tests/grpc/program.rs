//! Programs of gRPC as processes: who answers, and who calls.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use fairlead_plan::mesh::spiffe;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::ports::free;
use crate::support::{Control, DOMAIN};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/grpc/calls.py");

/// Where gRPC for Python is: what `FAIRLEAD_GRPC` names, or what `cargo xtask tools grpc` installed.
fn installed() -> PathBuf {
    let named = std::env::var_os("FAIRLEAD_GRPC").map(PathBuf::from);
    named.or_else(in_cache).filter(|own| own.join("grpc").is_dir()).unwrap_or_else(|| {
        panic!("there is no gRPC for Python: `cargo xtask tools grpc` installs it, FAIRLEAD_GRPC names a folder with it, and FAIRLEAD_GRPC=none leaves these tests out")
    })
}

fn in_cache() -> Option<PathBuf> {
    let cache = match std::env::var_os("FAIRLEAD_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".cache/fairlead"),
    };
    let folders = std::fs::read_dir(cache.join("tools")).ok()?;
    let mut folders = folders.filter_map(|folder| Some(folder.ok()?.path()));
    folders.find(|folder| folder.join("grpc").is_dir())
}

/// Whether tests with gRPC's programs are left out, because someone said so.
pub fn is_left_out() -> bool {
    let is_out = std::env::var_os("FAIRLEAD_GRPC").is_some_and(|own| own == "none");
    if is_out {
        eprintln!("left out: FAIRLEAD_GRPC=none");
    }
    is_out
}

/// A program; it ends when this is dropped.
struct Program {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(arguments: &[&str], bootstrap: Option<&Path>) -> Self {
        let mut command = Command::new("python3");
        command
            .arg(SCRIPT)
            .args(arguments)
            .env("PYTHONPATH", installed())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(bootstrap) = bootstrap {
            command.env("GRPC_XDS_BOOTSTRAP", bootstrap);
        }
        let mut child = command.spawn().expect("python3 runs");
        let input = child.stdin.take().expect("it is a pipe");
        let output = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let mut own = Self {
            child,
            input,
            output,
        };
        assert_eq!(own.line(), "ready\n");
        own
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it says something");
        line
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Who answers with a name; gone when dropped.
pub struct Server {
    _program: Program,
    pub address: SocketAddr,
}

impl Server {
    /// One on a free port of this machine.
    pub fn start(name: &str) -> Self {
        Self::at(name, free().port())
    }

    /// One on a port.
    pub fn at(name: &str, port: u16) -> Self {
        Self {
            _program: Program::start(&["serve", name, &port.to_string()], None),
            address: (Ipv4Addr::LOCALHOST, port).into(),
        }
    }
}

/// How calls ended.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub struct Ended {
    /// How many were answered, by who did.
    pub answers: BTreeMap<String, u32>,
    /// How many were not, by the status.
    pub codes: BTreeMap<String, u32>,
    /// How many were not, by what was said of it.
    pub said: BTreeMap<String, u32>,
}

/// Who calls.
pub struct Client(Program);

impl Client {
    /// One that finds `target` by a bootstrap.
    pub fn start(target: &str, how: &str, bootstrap: &Path) -> Self {
        Self(Program::start(&["call", target, how], Some(bootstrap)))
    }

    /// Calls a method so often.
    pub fn call(&mut self, method: &str, count: u32) -> Ended {
        self.ask(&json!({"method": format!("/shop.Cart/{method}"), "count": count}))
    }

    /// Calls as is said.
    pub fn ask(&mut self, what: &Value) -> Ended {
        writeln!(self.0.input, "{what}").expect("it reads");
        let line = self.0.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }
}

/// Writes the example's bootstrap for a program of an account of the shop, with its files.
pub fn bootstrap(folder: &Path, control: &Control, account: &str, uri: &str) -> PathBuf {
    let folder = folder.join(account);
    std::fs::create_dir_all(&folder).expect("a folder");
    let id = spiffe(DOMAIN, "shop", account).parse().expect("an id");
    let authority = control.authority.borrow().clone().expect("there is one");
    let pair = authority.own(&id, &[], OffsetDateTime::now_utc());
    let pair = pair.expect("a certificate");
    let write = |name: &str, text: &str| {
        std::fs::write(folder.join(name), text).expect("a file");
    };
    write("certificate.pem", &pair.certificate);
    write("key.pem", &pair.key);
    write("roots.pem", &control.slots.bundle());
    named(&folder, account, uri)
}

/// Writes the example's bootstrap for a program whose files are in a folder.
pub fn named(folder: &Path, account: &str, uri: &str) -> PathBuf {
    let example = "../examples/mesh/grpc/bootstrap.json";
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join(example);
    let text = std::fs::read_to_string(example).expect("the example is there");
    let text = text
        .replace("/var/run/fairlead/program", &folder.display().to_string())
        .replace("fairlead-mesh.fairlead-system.svc:15012", uri)
        .replace("web-1.shop", &format!("{account}-1.shop"));
    let path = folder.join("grpc.json");
    std::fs::write(&path, text).expect("a file");
    path
}
