//! What proxies take while nothing happens: resident memory after the start, and for each connection that is left open.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::case::{CASES, Case};
use super::load::{Load, Run};
use super::report::{Table, shown};
use super::{Bench, note_failure};
use crate::proxies::Peer;
use crate::proxies::place::{NEAR, within};

/// Connections that are left open.
const CONNECTIONS: u32 = 10_000;

/// What a peer took, in MiB.
struct Rest {
    peer: Peer,
    /// Outbound and inbound proxy before any request.
    idle: [f64; 2],
    /// The same two for each connection, in KiB.
    each: [f64; 2],
}

/// Measures every proxy, and gives the table and the figures of ours.
pub(super) fn measure(bench: &Bench) -> Result<(Table, Vec<(String, f64)>)> {
    let case = CASES
        .iter()
        .find(|case| case.name == "pair-h1")
        .context("there is no case of a pair")?;
    allow_many_files()?;
    let mut all = Vec::new();
    for peer in bench.taking_part(case.peers) {
        if peer == Peer::Direct {
            continue;
        }
        match rest(bench, case, peer) {
            Ok(found) => all.push(found),
            Err(error) => note_failure(bench, super::IDLE, peer, &error),
        }
    }
    let rows = all.iter().map(|rest| {
        let numbers = rest.idle.iter().chain(&rest.each);
        let cells = numbers.map(|value| shown(Some(*value), 1));
        [rest.peer.name().to_owned()]
            .into_iter()
            .chain(cells)
            .collect()
    });
    let table = Table {
        title: format!(
            "A pair at rest, and with {CONNECTIONS} connections left open after one HTTP/1.1 request each"
        ),
        header: vec![
            "peer",
            "idle MiB, outbound",
            "idle MiB, inbound",
            "KiB/connection, outbound",
            "KiB/connection, inbound",
        ],
        rows: rows.collect(),
    };
    let figures = all
        .iter()
        .filter(|rest| rest.peer == Peer::Ours)
        .flat_map(|rest| {
            [
                ("rss_idle_mb".to_owned(), rest.idle[0].max(rest.idle[1])),
                ("kib_per_idle_connection".to_owned(), rest.each[0]),
            ]
        })
        .collect();
    Ok((table, figures))
}

fn rest(bench: &Bench, case: &Case, peer: Peer) -> Result<Rest> {
    let target = case.start(peer, &bench.programs, &bench.place)?;
    let resident = || -> Result<[f64; 2]> {
        // What is freed or read in the background is done by then.
        std::thread::sleep(Duration::from_secs(5));
        Ok([target.proxies[0].resident()?, target.proxies[1].resident()?])
    };
    let idle = resident()?;
    // What the first requests need, connections between the two included, is not the price of a connection.
    Run {
        tools: &bench.tools,
        folder: bench.place.folder(),
        url: &target.url,
        headers: &[],
        port: target.port,
        seconds: 1,
    }
    .make(Load::Http1(32))?;
    let before = resident()?;
    let open = within(NEAR, || open(target.port))?;
    let after = resident()?;
    drop(open);
    let each = |which: usize| (after[which] - before[which]) * 1024.0 / f64::from(CONNECTIONS);
    Ok(Rest {
        peer,
        idle,
        each: [each(0), each(1)],
    })
}

/// Connections with one answered request each.
fn open(port: u16) -> Result<Vec<TcpStream>> {
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let mut answer = [0; 4096];
    (0..CONNECTIONS)
        .map(|number| {
            let mut connection = TcpStream::connect(address)
                .with_context(|| format!("failed to open connection {number}"))?;
            connection
                .set_read_timeout(Some(Duration::from_secs(10)))
                .context("failed to bound the wait for an answer")?;
            connection
                .write_all(b"GET / HTTP/1.1\r\nhost: upstream\r\n\r\n")
                .with_context(|| format!("failed to ask on connection {number}"))?;
            // Head and body are small, and the body ends in a known letter.
            let mut length = 0;
            while length == 0 || answer[length - 1] != b'x' {
                let read = connection
                    .read(&mut answer[length..])
                    .with_context(|| format!("no answer on connection {number}"))?;
                ensure!(read > 0, "connection {number} was closed");
                length += read;
            }
            ensure!(
                answer.starts_with(b"HTTP/1.1 200"),
                "connection {number} was refused: {}",
                String::from_utf8_lossy(&answer[..length])
            );
            Ok(connection)
        })
        .collect()
}

/// This process and those that it starts hold a file for each connection.
pub(super) fn allow_many_files() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let needed = u64::from(CONNECTIONS) + 1_000;
    if limit.maximum.is_some_and(|most| most < needed) {
        anyhow::bail!(
            "a process may open {:?} files here, and {needed} are needed",
            limit.maximum
        );
    }
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum.or(Some(65_536)),
            maximum: limit.maximum,
        },
    )
    .context("failed to allow more open files")
}
