//! The load by which our proxy is trained: cases of the benchmark, on a build that counts what it does.

use std::path::Path;

use anyhow::Result;

use super::case::named;
use super::{H2LOAD, WRK};
use crate::proxies::Peer;
use crate::proxies::install::Programs;
use crate::proxies::nginx;
use crate::proxies::place::Place;
use crate::proxies::process::Process;

/// What it does most, and what it does with large bodies, bytes and new connections.
const CASES: &[&str] = &[
    "single-h1",
    "single-tls-h2",
    "pair-h1",
    "pair-h2",
    "pair-tcp",
    "pair-1k",
    "pair-1m",
    "handshakes",
];
/// Seconds of each.
const SECONDS: u32 = 2;

/// Loads a build of our proxy, which writes its counts as it ends.
pub(crate) fn load(program: &Path) -> Result<()> {
    let programs = Programs::with_ours(program, &[WRK, H2LOAD])?;
    let place = Place::new()?;
    let _upstreams = nginx::start_upstreams(&programs, &place)?;
    for case in named(CASES) {
        let target = case.start(Peer::Ours, &programs, &place)?;
        target.load(case, &place, SECONDS)?.answered()?;
        target.proxies.into_iter().try_for_each(Process::end)?;
    }
    Ok(())
}
