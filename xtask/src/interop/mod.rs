//! Programs that others wrote, through a pair of proxies with mutual TLS between them: gRPC's interop client and server,
//! curl, nghttp, PostgreSQL and Redis. One line each says whether it worked.

mod grpc;
mod http;
mod stores;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::Command;

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::command::capture;
use crate::progress::{note, step};
use crate::proxies::Peer;
use crate::proxies::hop::{Carries, Guard, Pair};
use crate::proxies::install::Programs;
use crate::proxies::place::{FAR, NEAR, Place};
use crate::proxies::process::{Core, Process, placed};

/// What runs, and through whom.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// ours, envoy or haproxy
    #[arg(long, default_value = "ours")]
    peer: String,
    /// Only checks whose name contains this, such as grpc or postgres
    #[arg(long, default_value = "")]
    only: String,
}

const PACKAGES: &[(&str, &str)] = &[
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/nghttp", "nghttp2-client"),
    ("/usr/bin/psql", "postgresql-client"),
    ("/usr/lib/postgresql", "postgresql"),
    ("/usr/bin/redis-server", "redis-server"),
    ("/usr/bin/redis-cli", "redis-tools"),
];

/// Everything that a check needs, and what it found.
struct Checks {
    peer: Peer,
    programs: Programs,
    place: Place,
    only: String,
    passed: u32,
    failed: Vec<String>,
}

/// Runs all checks; fails with the names of those that failed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let peer = Peer::named(&options.peer)?;
    if matches!(peer, Peer::Direct | Peer::Nginx) {
        bail!("{} makes no pair for HTTP/2", peer.name());
    }
    let mut checks = Checks {
        peer,
        programs: Programs::ensure(&[peer], PACKAGES)?,
        place: Place::new()?,
        only: options.only.clone(),
        passed: 0,
        failed: Vec::new(),
    };
    for part in [grpc::run, http::run, stores::postgres, stores::redis] {
        part(&mut checks)?;
    }
    println!(
        "interop {}: {} passed, {} failed",
        peer.name(),
        checks.passed,
        checks.failed.len()
    );
    if !checks.failed.is_empty() {
        bail!("failed: {}", checks.failed.join(", "));
    }
    Ok(())
}

impl Checks {
    /// Runs one check, unless another was asked for.
    fn check(&mut self, name: &str, work: impl FnOnce(&Place) -> Result<()>) {
        if !name.contains(&self.only) {
            return;
        }
        match step(name, || work(&self.place)) {
            Ok(()) => self.passed += 1,
            Err(error) => {
                note(&format!("{error:#}"));
                self.failed.push(name.to_owned());
            }
        }
    }

    /// Whether any of a part's checks was asked for; all their names contain the part's.
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.contains(part) || part.contains(&self.only)
    }

    /// Two proxies between a near port and one beside the far upstream.
    fn pair(
        &self,
        name: &str,
        carries: Carries,
        port: u16,
        upstream: u16,
        http2: bool,
    ) -> Result<[Process; 2]> {
        let pair = Pair::new(name, carries, port, upstream, http2);
        let start = |hop: &crate::proxies::hop::Hop, namespace| {
            hop.start(self.peer, &self.programs, &self.place, namespace)
        };
        Ok([start(&pair.inbound, FAR)?, start(&pair.outbound, NEAR)?])
    }

    /// Another outbound proxy with its own listener, to the inbound proxy of a pair.
    fn outbound(&self, name: &str, port: u16, front: Guard, inbound: u16) -> Result<Process> {
        let mut hop = Pair::new(name, Carries::Http, inbound, 0, false).outbound;
        hop.listen = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        hop.admin = port + 1000;
        hop.front = front;
        hop.start(self.peer, &self.programs, &self.place, NEAR)
    }
}

/// A client in the near namespace.
fn near(program: &str) -> Command {
    placed(NEAR, Core::Load, program.as_ref())
}

/// Runs a client and looks for a text in what it says.
fn says(command: &mut Command, wanted: &str) -> Result<()> {
    let said = capture(command)?;
    ensure!(
        said.contains(wanted),
        "{wanted:?} is not in what it said:\n{said}"
    );
    Ok(())
}
