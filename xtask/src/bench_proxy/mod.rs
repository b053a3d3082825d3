//! Our proxy beside others: processor time a request, latency, memory and balancing, each on one core.
//!
//! In: which cases and peers. Out: a table for each case, `figure NAME VALUE` lines, and after a whole run the section
//! of docs/benchmarks.md. Load and upstream have core 0, proxies core 1. Peers take turns in short rounds.

mod case;
mod endpoints;
mod features;
pub(crate) mod instructions;
mod load;
mod measure;
mod report;
mod resting;
mod servers;
pub(crate) mod training;

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cargo_tools::OHA;
use crate::progress::{note, step};
use crate::proxies::install::{Programs, has_ours};
use crate::proxies::place::{FAR, Place};
use crate::proxies::process::{Core, Process, Start};
use crate::proxies::{PEERS, Peer, nginx};
use crate::tools::GRPC_BENCHMARK;
use crate::{page, tools};
use case::{CASES, GRPC};
use endpoints::Fault;
use load::{Load, Tools};
use report::Table;

/// Debian's wrk: the program, and its package.
const WRK: (&str, &str) = ("/usr/bin/wrk", "wrk");
/// Debian's h2load.
const H2LOAD: (&str, &str) = ("/usr/bin/h2load", "nghttp2-client");

const IDLE: &str = "idle";
const SLOW: &str = "slow-endpoint";
const FAILING: &str = "failing-endpoint";

/// What is measured, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds of each peer in each case
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only these cases, such as single-h1,pair-h1
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Only these peers, such as ours,haproxy
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
}

/// Everything that a case needs.
struct Bench<'a> {
    options: &'a Options,
    peers: Vec<Peer>,
    programs: Programs,
    tools: Tools,
    place: Place,
    failures: RefCell<Vec<String>>,
}

impl Bench<'_> {
    /// Those of a case that were asked for.
    fn taking_part(&self, of: &[Peer]) -> Vec<Peer> {
        let asked = |peer: &Peer| self.peers.contains(peer);
        of.iter().copied().filter(asked).collect()
    }
}

/// Says that a peer is left out of a case, and remembers it for the end.
fn note_failure(bench: &Bench, case: &str, peer: Peer, error: &anyhow::Error) {
    let what = format!("{} in {case}: {error:#}", peer.name());
    note(&what);
    bench.failures.borrow_mut().push(what);
}

/// Measures, prints, and writes the page after a whole run.
pub(crate) fn run(options: &Options) -> Result<()> {
    let names = cases(&options.only)?;
    let peers = peers(&options.peers)?;
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        bail!("two cores are needed: one for the load, one for the proxies");
    }
    resting::allow_many_files()?;
    let bench = Bench {
        options,
        programs: Programs::ensure_trained(&peers, &[WRK, H2LOAD])?,
        tools: install(&names)?,
        peers,
        place: Place::new()?,
        failures: RefCell::default(),
    };
    let _upstreams = upstreams(&bench)?;
    let (mut tables, mut figures) = (Vec::new(), Vec::new());
    for name in &names {
        let found = step(&format!("measure {name}"), || measure(&bench, name))?;
        if let Some((table, found)) = found {
            println!("\n{table}");
            tables.push(table);
            figures.extend(found);
        }
    }
    for (name, value) in &figures {
        println!("figure {name} {value:.3}");
    }
    let failures = bench.failures.take();
    if options.only.is_empty() && options.peers.is_empty() && failures.is_empty() {
        page::replace("## The proxy", &section(&bench, &tables, &figures))?;
    }
    if !failures.is_empty() {
        bail!("left out:\n  {}", failures.join("\n  "));
    }
    Ok(())
}

/// What a case found: its table, and its figures.
type Measured = (Table, Vec<(String, f64)>);

/// Measures a case; nothing where nobody takes part.
fn measure(bench: &Bench, name: &str) -> Result<Option<Measured>> {
    if features::CASES.contains(&name) {
        return Ok(features::measure(bench, name));
    }
    let measured = match name {
        IDLE => resting::measure(bench)?,
        SLOW => endpoints::measure(bench, Fault::Slow)?,
        FAILING => endpoints::measure(bench, Fault::Failing)?,
        _ => {
            let case = CASES.iter().find(|case| case.name == name);
            let case = case.with_context(|| format!("no case {name}"))?;
            let all = measure::rounds(bench, case);
            (report::table(case, &all), measure::figures(case, &all))
        }
    };
    Ok(Some(measured))
}

fn cases(only: &[String]) -> Result<Vec<&'static str>> {
    let known: Vec<&'static str> = CASES
        .iter()
        .map(|case| case.name)
        .chain([IDLE, SLOW, FAILING])
        .chain(features::CASES)
        .collect();
    if let Some(name) = only.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("no case {name:?}; there are {}", known.join(", "));
    }
    let asked = |name: &&str| only.is_empty() || only.iter().any(|asked| asked == name);
    Ok(known.into_iter().filter(asked).collect())
}

/// Those asked for, or all; ours only where there is one.
fn peers(names: &[String]) -> Result<Vec<Peer>> {
    if !names.is_empty() {
        return Peer::list(names);
    }
    let mut peers = PEERS.to_vec();
    if !has_ours() {
        note(
            "our own proxy has no image to be measured as, so that it is left out; FAIRLEAD_PROXY_BIN names a binary",
        );
        peers.retain(|peer| *peer != Peer::Ours);
    }
    Ok(peers)
}

fn install(names: &[&str]) -> Result<Tools> {
    let asked = |load: fn(Load) -> bool| {
        let chosen = CASES.iter().filter(|case| names.contains(&case.name));
        chosen.into_iter().any(|case| load(case.load))
    };
    Ok(Tools {
        wrk: WRK.0.into(),
        h2load: H2LOAD.0.into(),
        oha: if names.iter().any(|name| features::CASES.contains(name))
            || asked(|load| matches!(load, Load::Constant(_)))
        {
            OHA.ensure()?
        } else {
            PathBuf::new()
        },
        grpc: if asked(|load| matches!(load, Load::Grpc(_))) {
            tools::GRPC_BENCHMARK.ensure()?
        } else {
            PathBuf::new()
        },
    })
}

/// nginx in both namespaces, and gRPC's server in the far one.
fn upstreams(bench: &Bench) -> Result<Vec<Process>> {
    let folder = bench.place.folder();
    let mut all = nginx::start_upstreams(&bench.programs, &bench.place)?;
    if !bench.tools.grpc.as_os_str().is_empty() {
        let words = [
            "-port",
            &GRPC.to_string(),
            "-test_name",
            GRPC_BENCHMARK.name,
        ];
        let process = Process::start(&Start {
            name: "upstream-grpc",
            program: &bench.tools.grpc.join("server"),
            arguments: &words.map(str::to_owned),
            namespace: FAR,
            core: Core::Load,
            folder,
        })?;
        process.listens(GRPC)?;
        all.push(process);
    }
    Ok(all)
}

/// `1 round`, or so many rounds.
fn rounds_of(count: u32) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} round{ending}")
}

/// The section of docs/benchmarks.md.
fn section(bench: &Bench, tables: &[Table], figures: &[(String, f64)]) -> String {
    let Options {
        rounds, seconds, ..
    } = bench.options;
    let turns = rounds_of(*rounds);
    let mut text = format!(
        "`make bench-proxy`: {turns} of {seconds} s for each peer, taken in turns; load and upstream on one core, the peer's proxies on another.
nginx and HAProxy are Debian's, Envoy is a release binary with `--concurrency 1`, ours is trained as the one that ships; Envoy and ours read the same file, but that Envoy is given
least request, as HAProxy is, and ours has its default, peak EWMA. A pair stands in two network namespaces with mutual TLS between them, both
proxies on one core, and its cost is the sum of both. **Compare within a table only**: processor time a request is steady, requests a second
are not. Ratios are the middle of the rounds' own ratios; under 1 is cheaper.\n\n"
    );
    for table in tables {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{table}");
    }
    if !figures.is_empty() {
        text.push_str("| figure | value |\n|---|---|\n");
        for (name, value) in figures {
            let _ = writeln!(text, "| {name} | {value:.3} |");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_chosen_by_name_in_the_order_of_the_table() {
        let chosen = cases(&["idle".into(), "single-h1".into()]).expect("both are known");
        assert_eq!(chosen, ["single-h1", "idle"]);
        assert_eq!(
            cases(&[]).expect("all").len(),
            CASES.len() + 3 + features::CASES.len()
        );
        let refused = cases(&["single".into()]).expect_err("there is none");
        assert!(refused.to_string().contains("pair-h2"), "{refused}");
    }
}
