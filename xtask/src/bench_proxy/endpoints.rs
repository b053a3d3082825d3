//! One of ten endpoints is bad: how many requests does it get?
//!
//! The endpoints are threads of this process in the near namespace. Each answers after a while, so that a client with
//! 32 connections keeps a handful of requests waiting at each.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

use super::load::{Load, Run, Sample};
use super::report::{Table, shown};
use super::{Bench, note_failure};
use crate::proxies::Peer;
use crate::proxies::hop::Hop;
use crate::proxies::place::{NEAR, within};

const ENDPOINTS: u16 = 10;
const FIRST_PORT: u16 = 9100;
/// How long a good endpoint takes.
const USUAL: Duration = Duration::from_millis(5);

/// What is wrong with the last endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It takes ten times as long as the others.
    Slow,
    /// It answers 503 at once.
    Failing,
}

/// Answers asked of each endpoint since the last look.
struct Endpoints {
    counts: Arc<[AtomicU64]>,
}

impl Endpoints {
    /// Starts them; they stay for as long as this process.
    fn start(fault: Fault, first: u16) -> Result<Self> {
        let counts: Arc<[AtomicU64]> = (0..ENDPOINTS).map(|_| AtomicU64::new(0)).collect();
        let shared = &counts;
        within(NEAR, move || {
            for index in 0..ENDPOINTS {
                let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, first + index);
                let listener = TcpListener::bind(address)
                    .with_context(|| format!("failed to listen on {address}"))?;
                let counts = Arc::clone(shared);
                let fault = (index == ENDPOINTS - 1).then_some(fault);
                std::thread::spawn(move || {
                    for connection in listener.incoming().flatten() {
                        let counts = Arc::clone(&counts);
                        std::thread::spawn(move || {
                            // A proxy that closes its connection has every right to.
                            let _ = answer(connection, &counts[usize::from(index)], fault);
                        });
                    }
                });
            }
            Ok(())
        })?;
        Ok(Self { counts })
    }

    /// The last one's share of all requests since the last call.
    fn share(&self) -> Option<f64> {
        let counts: Vec<u64> = self
            .counts
            .iter()
            .map(|count| count.swap(0, Ordering::Relaxed))
            .collect();
        let all: u64 = counts.iter().sum();
        let last = *counts.last()?;
        (all > 0).then(|| last as f64 / all as f64)
    }
}

/// HTTP/1.1 without bodies in requests, for as long as the connection stays.
fn answer(
    mut connection: TcpStream,
    count: &AtomicU64,
    fault: Option<Fault>,
) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut head = Vec::new();
    let mut part = [0; 4096];
    loop {
        let read = connection.read(&mut part)?;
        if read == 0 {
            return Ok(());
        }
        head.extend_from_slice(&part[..read]);
        while let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            head.drain(..end + 4);
            count.fetch_add(1, Ordering::Relaxed);
            let (wait, status) = match fault {
                None => (USUAL, "200 OK"),
                Some(Fault::Slow) => (USUAL * 10, "200 OK"),
                Some(Fault::Failing) => (Duration::ZERO, "503 Service Unavailable"),
            };
            std::thread::sleep(wait);
            write!(connection, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n")?;
        }
    }
}

/// Measures every proxy in front of the endpoints, and gives the table and the figure of ours.
pub(super) fn measure(bench: &Bench, fault: Fault) -> Result<(Table, Vec<(String, f64)>)> {
    let (name, first, what, figure) = match fault {
        Fault::Slow => (
            super::SLOW,
            FIRST_PORT,
            "takes 50 ms, the others 5 ms",
            "slow_endpoint_share",
        ),
        Fault::Failing => (
            super::FAILING,
            FIRST_PORT + ENDPOINTS,
            "answers 503 at once, the others 200 after 5 ms",
            "failing_endpoint_share",
        ),
    };
    let endpoints = Endpoints::start(fault, first)?;
    let mut table = Table {
        title: format!("One proxy before ten endpoints, one of which {what}; 32 connections"),
        header: vec![
            "peer",
            "its share %",
            "failed %",
            "req/s",
            "p50 us",
            "p99 us",
        ],
        rows: Vec::new(),
    };
    let mut figures = Vec::new();
    for peer in bench.taking_part(&[Peer::Nginx, Peer::Haproxy, Peer::Envoy, Peer::Ours]) {
        match one(bench, name, peer, &endpoints, first) {
            Ok((share, sample)) => {
                table.rows.push(vec![
                    peer.name().to_owned(),
                    shown(Some(share * 100.0), 2),
                    shown(Some(sample.failed / sample.requests * 100.0), 2),
                    shown(Some(sample.requests / sample.seconds), 0),
                    shown(sample.latency[0], 0),
                    shown(sample.latency[1], 0),
                ]);
                if peer == Peer::Ours {
                    figures.push((figure.to_owned(), share));
                }
            }
            Err(error) => note_failure(bench, name, peer, &error),
        }
    }
    Ok((table, figures))
}

fn one(
    bench: &Bench,
    name: &str,
    peer: Peer,
    endpoints: &Endpoints,
    first: u16,
) -> Result<(f64, Sample)> {
    let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let mut hop = Hop::new(name, local(15000), local(first));
    hop.upstreams = (0..ENDPOINTS).map(|index| local(first + index)).collect();
    let _proxy = hop.start(peer, &bench.programs, &bench.place, NEAR)?;
    let run = |seconds| {
        Run {
            tools: &bench.tools,
            folder: bench.place.folder(),
            url: "http://127.0.0.1:15000/",
            port: 15000,
            seconds,
        }
        .make(Load::Http1(32))
    };
    run(1)?;
    endpoints.share();
    let sample = run(bench.options.rounds * bench.options.seconds)?;
    let share = endpoints.share().context("no endpoint was asked")?;
    Ok((share, sample))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_answers_every_request_of_a_connection_and_counts() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let server = std::thread::spawn(move || {
            let count = AtomicU64::new(0);
            let (connection, _) = listener.accept().expect("it connects");
            answer(connection, &count, Some(Fault::Failing)).expect("it reads and closes");
            count.into_inner()
        });
        let mut client = TcpStream::connect(address).expect("it listens");
        client
            .write_all(b"GET / HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n")
            .expect("it reads");
        client.write_all(b"\r\n").expect("it reads");
        client
            .shutdown(std::net::Shutdown::Write)
            .expect("it is open");
        let mut said = String::new();
        client.read_to_string(&mut said).expect("it is text");
        assert_eq!(said.matches("HTTP/1.1 503").count(), 2, "{said}");
        assert_eq!(server.join().expect("it ends"), 2);
    }
}
