//! h2spec in strict mode against a proxy, on a plain listener and on one with TLS, before an upstream that speaks HTTP/2.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::progress::step;
use crate::proxies::certificates::Leaf;
use crate::proxies::hop::{Carries, Guard, Hop};
use crate::proxies::install::Programs;
use crate::proxies::place::{NEAR, Place};
use crate::proxies::process::{Core, placed};
use crate::proxies::{Peer, nginx};
use crate::tools::H2SPEC;

/// Whom to ask.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// ours, envoy, haproxy or nginx
    #[arg(long, default_value = "ours")]
    peer: String,
}

/// The last line of h2spec.
#[derive(Debug, PartialEq, Eq)]
struct Counts {
    tests: u32,
    passed: u32,
}

/// Runs all tests on both listeners; fails unless every one passed.
pub(crate) fn run(options: &Options) -> Result<()> {
    let peer = Peer::named(&options.peer)?;
    let programs = Programs::ensure(&[peer], &[])?;
    let h2spec = H2SPEC.ensure()?.join("h2spec");
    let place = Place::new()?;
    let _upstream = nginx::start_upstream(&programs, &place, NEAR)?;
    let mut all_passed = true;
    for (name, port, front) in [
        ("plain", 15000, Guard::Open),
        ("TLS", 15001, Guard::Tls(Leaf::Server)),
    ] {
        let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        // nginx speaks HTTP/1.1 alone to an upstream.
        let http2 = peer != Peer::Nginx;
        let upstream = if http2 { nginx::HTTP2 } else { nginx::PLAIN };
        let mut hop = Hop::new(&format!("h2spec-{name}"), local(port), local(upstream));
        hop.front = front;
        hop.carries = Carries::Http2;
        hop.http2 = http2;
        let _proxy = hop.start(peer, &programs, &place, NEAR)?;
        let said = step(&format!("h2spec on a {name} listener"), || {
            ask(&h2spec, port, !matches!(front, Guard::Open))
        })?;
        let counts = read(&said).with_context(|| format!("h2spec said no sum:\n{said}"))?;
        if let Some(failures) = said.find("Failures:") {
            println!("{}", &said[failures..]);
        }
        println!(
            "h2spec {} {name}: {} of {} passed",
            peer.name(),
            counts.passed,
            counts.tests
        );
        all_passed &= counts.passed == counts.tests;
    }
    if !all_passed {
        bail!("not every test passed");
    }
    Ok(())
}

/// What it said, whether or not all tests passed.
fn ask(h2spec: &Path, port: u16, tls: bool) -> Result<String> {
    let mut command = placed(NEAR, Core::Load, h2spec);
    command.args(["--strict", "--port", &port.to_string()]);
    if tls {
        command.args(["--tls", "--insecure"]);
    }
    let output = command.output().context("failed to start h2spec")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
}

/// `145 tests, 134 passed, 1 skipped, 10 failed`.
fn read(said: &str) -> Option<Counts> {
    let line = said.lines().find(|line| line.contains(" tests, "))?;
    let count = |name: &str| {
        line.split(", ")
            .find_map(|field| field.trim().strip_suffix(name)?.trim().parse().ok())
    };
    Some(Counts {
        tests: count("tests")?,
        passed: count("passed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_read_from_the_last_line() {
        let said = "Generic tests for HTTP/2 server\n  1. Starting HTTP/2\n\n\
                    Finished in 6.1221 seconds\n145 tests, 134 passed, 1 skipped, 10 failed\n";
        let counts = Counts {
            tests: 145,
            passed: 134,
        };
        assert_eq!(read(said), Some(counts));
        assert_eq!(read("Error: connection refused\n"), None);
    }
}
