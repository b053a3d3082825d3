//! One of ten endpoints is bad: how many requests does it get?

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result};

use super::load::{Load, Run, Sample};
use super::report::{Table, shown};
use super::servers::{Endpoints, Manner};
use super::{Bench, note_failure};
use crate::proxies::Peer;
use crate::proxies::hop::Hop;
use crate::proxies::place::NEAR;

const ENDPOINTS: u16 = 10;
const FIRST_PORT: u16 = 9100;

/// What is wrong with the last endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It takes ten times as long as the others.
    Slow,
    /// It answers 503 at once.
    Failing,
}

/// The last one's share of all requests since the last call.
fn share(endpoints: &Endpoints) -> Option<f64> {
    let counts = endpoints.take();
    let all: u64 = counts.iter().sum();
    let last = *counts.last()?;
    (all > 0).then(|| last as f64 / all as f64)
}

/// Measures every proxy in front of the endpoints, and gives the table and the figure of ours.
pub(super) fn measure(bench: &Bench, fault: Fault) -> Result<(Table, Vec<(String, f64)>)> {
    let (name, first, manner, what, figure) = match fault {
        Fault::Slow => (
            super::SLOW,
            FIRST_PORT,
            Manner::Slow(Duration::from_millis(50)),
            "takes 50 ms, the others 5 ms",
            "slow_endpoint_share",
        ),
        Fault::Failing => (
            super::FAILING,
            FIRST_PORT + ENDPOINTS,
            Manner::Failing,
            "answers 503 at once, the others 200 after 5 ms",
            "failing_endpoint_share",
        ),
    };
    let mut manners = [Manner::Usual; ENDPOINTS as usize];
    manners[manners.len() - 1] = manner;
    let endpoints = Endpoints::start(first, &manners)?;
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
        match one(bench, name, peer, &endpoints) {
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

fn one(bench: &Bench, name: &str, peer: Peer, endpoints: &Endpoints) -> Result<(f64, Sample)> {
    let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let mut hop = Hop::new(name, local(15000), local(FIRST_PORT));
    hop.upstreams = endpoints.ports().into_iter().map(local).collect();
    let _proxy = hop.start(peer, &bench.programs, &bench.place, NEAR)?;
    let run = |seconds| {
        Run {
            tools: &bench.tools,
            folder: bench.place.folder(),
            url: "http://127.0.0.1:15000/",
            headers: &[],
            port: 15000,
            seconds,
        }
        .make(Load::Http1(32))
    };
    run(1)?;
    endpoints.take();
    let sample = run(bench.options.rounds * bench.options.seconds)?;
    let share = share(endpoints).context("no endpoint was asked")?;
    Ok((share, sample))
}
