//! What one proxy is asked to do, said once for all of them.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::certificates::Leaf;
use super::install::Programs;
use super::place::Place;
use super::process::{Core, Process, Start};
use super::{Peer, envoy, haproxy, nginx};
use crate::paths::write_secret;

/// What our proxy is called with, before its file.
const OURS: [&str; 2] = ["run", "--config"];

/// What is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carries {
    /// HTTP/1.1 or HTTP/2, as the client speaks.
    Http,
    /// HTTP/2 alone.
    Http2,
    /// Bytes.
    Tcp,
}

/// What a listener presents, and whom it lets in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Guard {
    /// No TLS.
    Open,
    /// Server TLS alone.
    Tls(Leaf),
    /// The certificate presented, and the one the other side must have.
    Mutual(Leaf, Leaf),
}

/// One proxy between a listener and its upstreams.
#[derive(Clone, Debug)]
pub(crate) struct Hop {
    /// A name for files; unique in a run.
    pub(crate) name: String,
    /// What is carried.
    pub(crate) carries: Carries,
    /// Where it listens.
    pub(crate) listen: SocketAddrV4,
    /// How the listener is guarded.
    pub(crate) front: Guard,
    /// Where it sends to.
    pub(crate) upstreams: Vec<SocketAddrV4>,
    /// How the way to the upstream is guarded.
    pub(crate) back: Guard,
    /// Speak HTTP/2 to the upstream.
    pub(crate) http2: bool,
    /// The port of the admin interface on localhost.
    pub(crate) admin: u16,
}

impl Carries {
    /// Whether requests are told apart.
    pub(crate) fn is_http(self) -> bool {
        self != Self::Tcp
    }
}

impl Hop {
    /// A plain HTTP hop.
    pub(crate) fn new(name: &str, listen: SocketAddrV4, upstream: SocketAddrV4) -> Self {
        Self {
            name: name.to_owned(),
            carries: Carries::Http,
            listen,
            front: Guard::Open,
            upstreams: vec![upstream],
            back: Guard::Open,
            http2: false,
            admin: listen.port() + 1000,
        }
    }

    /// Starts the peer's proxy for this hop in a namespace, on the proxies' core, and waits until it listens.
    pub(crate) fn start(
        &self,
        peer: Peer,
        programs: &Programs,
        place: &Place,
        namespace: &str,
    ) -> Result<Process> {
        let folder = place.folder();
        let file = |ending: &str| folder.join(format!("{}-{}.{ending}", self.name, peer.name()));
        let (program, configuration, arguments) = match peer {
            Peer::Direct => anyhow::bail!("there is no proxy on the direct way"),
            Peer::Nginx => {
                let path = file("nginx.conf");
                let arguments = nginx::arguments(folder, &path);
                (
                    &programs.nginx,
                    (path, nginx::proxy(self, folder)),
                    arguments,
                )
            }
            Peer::Haproxy => {
                let path = file("haproxy.cfg");
                let arguments = vec!["-db".into(), "-f".into(), path.display().to_string()];
                (
                    &programs.haproxy,
                    (path, haproxy::configuration(self, folder)),
                    arguments,
                )
            }
            Peer::Envoy => {
                let path = file("yaml");
                let arguments = [
                    "--concurrency",
                    "1",
                    "--disable-hot-restart",
                    "--log-level",
                    "warning",
                    "-c",
                ];
                (
                    &programs.envoy,
                    self.bootstrap(&path, folder, Some("LEAST_REQUEST"))?,
                    with(&arguments, &path),
                )
            }
            Peer::Ours => {
                let path = file("yaml");
                (
                    programs.ours()?,
                    self.bootstrap(&path, folder, None)?,
                    with(&OURS, &path),
                )
            }
        };
        // Some of them hold a key.
        write_secret(&configuration.0, configuration.1)?;
        let name = format!("{}-{}", self.name, peer.name());
        self.launch(&name, program, &arguments, place, namespace)
    }

    /// Starts our proxy with a file that is there, as [`Hop::start`] does.
    pub(crate) fn start_ours(
        &self,
        file: &Path,
        programs: &Programs,
        place: &Place,
        namespace: &str,
    ) -> Result<Process> {
        let arguments = with(&OURS, file);
        self.launch(&self.name, programs.ours()?, &arguments, place, namespace)
    }

    fn launch(
        &self,
        name: &str,
        program: &Path,
        arguments: &[String],
        place: &Place,
        namespace: &str,
    ) -> Result<Process> {
        let process = Process::start(&Start {
            name,
            program,
            arguments,
            namespace,
            core: Core::Proxy,
            folder: place.folder(),
        })?;
        process.listens(self.listen.port())?;
        Ok(process)
    }

    fn bootstrap(
        &self,
        path: &Path,
        folder: &Path,
        balancing: Option<&str>,
    ) -> Result<(PathBuf, String)> {
        let text = serde_json::to_string_pretty(&envoy::bootstrap(self, folder, balancing))
            .context("failed to write a bootstrap")?;
        Ok((path.to_owned(), text))
    }
}

fn with(arguments: &[&str], path: &Path) -> Vec<String> {
    let arguments = arguments.iter().map(|&word| word.to_owned());
    arguments.chain([path.display().to_string()]).collect()
}

/// The client's proxy, and the server's behind mutual TLS.
pub(crate) struct Pair {
    /// In the near namespace.
    pub(crate) outbound: Hop,
    /// In the far namespace.
    pub(crate) inbound: Hop,
}

impl Pair {
    /// A pair that listens near on `port` and ends at an upstream beside the inbound proxy.
    pub(crate) fn new(name: &str, carries: Carries, port: u16, upstream: u16, http2: bool) -> Self {
        let far = SocketAddrV4::new(super::place::FAR_ADDRESS, port);
        let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let mut outbound = Hop::new(&format!("{name}-outbound"), local(port), far);
        let mut inbound = Hop::new(&format!("{name}-inbound"), far, local(upstream));
        outbound.carries = carries;
        inbound.carries = carries;
        outbound.back = Guard::Mutual(Leaf::Client, Leaf::Server);
        inbound.front = Guard::Mutual(Leaf::Server, Leaf::Client);
        outbound.http2 = carries.is_http();
        inbound.http2 = http2;
        Self { outbound, inbound }
    }
}
