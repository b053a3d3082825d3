//! Instructions that proxies execute for a request, in user space, as callgrind counts them: a figure that other work on the
//! machine does not move.
//!
//! In: which cases, and how often. Out: a table, `figure NAME VALUE` lines, and after a whole run the section of
//! docs/benchmarks.md.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::case::{Case, Target, named};
use super::measure::median;
use super::report::{Table, shown};
use super::{H2LOAD, WRK, rounds_of};
use crate::command::{capture, command};
use crate::page;
use crate::progress::step;
use crate::proxies::Peer;
use crate::proxies::install::Programs;
use crate::proxies::nginx;
use crate::proxies::place::Place;
use crate::proxies::process::Process;

/// Those whose load is of requests that are alike.
const COUNTED: [&str; 5] = [
    "single-h1",
    "single-tls-h2",
    "pair-h1",
    "pair-h2",
    "pair-1k",
];
/// How many requests in a second show that a proxy is warm, and how many seconds it has for that.
const ENOUGH: f64 = 200.0;
const WARMING: u32 = 20;
/// Who is counted.
const BOTH: [Peer; 2] = [Peer::Haproxy, Peer::Ours];

/// What is counted, and how often.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Rounds of each peer in each case
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of each round
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only these cases, such as single-h1,pair-h1
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

/// Instructions for a request of a case, round by round.
struct Counts {
    case: &'static Case,
    haproxy: Vec<f64>,
    ours: Vec<f64>,
}

/// Counts, prints, and writes the page after a whole run.
pub(crate) fn run(options: &Options) -> Result<()> {
    let cases = cases(&options.only)?;
    let needed = [WRK, H2LOAD, ("/usr/bin/valgrind", "valgrind")];
    let programs = Programs::ensure_trained(&BOTH, &needed)?;
    let place = Place::new()?;
    let _upstreams = nginx::start_upstreams(&programs, &place)?;
    let programs = programs.each(|name, program| counted(place.folder(), name, program))?;
    let mut all = Vec::new();
    for case in cases {
        let counts = step(&format!("count {}", case.name), || {
            count(options, case, &programs, &place)
        })?;
        println!("{}", counts.said());
        all.push(counts);
    }
    let table = table(&all);
    println!("\n{table}");
    for counts in &all {
        let name = counts.case.name.replace('-', "_");
        println!(
            "figure {name}_instructions {:.0}",
            median(counts.ours.clone())
        );
        println!(
            "figure {name}_instructions_vs_haproxy {:.3}",
            counts.ratio()
        );
    }
    if options.only.is_empty() {
        page::replace("## The proxy's instructions", &section(options, &table))?;
    }
    Ok(())
}

fn cases(only: &[String]) -> Result<Vec<&'static Case>> {
    if let Some(name) = only.iter().find(|name| !COUNTED.contains(&name.as_str())) {
        bail!("no case {name:?}; there are {}", COUNTED.join(", "));
    }
    let asked = |case: &&Case| only.is_empty() || only.iter().any(|name| name == case.name);
    Ok(named(&COUNTED).filter(asked).collect())
}

/// A program that runs another under callgrind, which counts into a file by the number of the process.
fn counted(folder: &Path, name: &str, program: &Path) -> Result<PathBuf> {
    let path = folder.join(format!("counted-{name}"));
    let text = format!(
        "#!/bin/sh\nexec valgrind --quiet --tool=callgrind --callgrind-out-file=counts.$$ {} \"$@\"\n",
        program.display()
    );
    crate::paths::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("failed to make {} a program", path.display()))?;
    Ok(path)
}

/// The peers take turns, each in processes of its own, so that only one is slowed down at a time.
fn count(
    options: &Options,
    case: &'static Case,
    programs: &Programs,
    place: &Place,
) -> Result<Counts> {
    let of = |peer| {
        let target = case.start(peer, programs, place)?;
        warm(&target, case, place)?;
        (0..options.rounds)
            .map(|_| round(&target, case, place, options.seconds))
            .collect::<Result<Vec<_>>>()
    };
    Ok(Counts {
        case,
        haproxy: of(Peer::Haproxy)?,
        ours: of(Peer::Ours)?,
    })
}

/// Loads it until nothing is done for the first time any more: under callgrind even a handshake takes seconds, and who waits for
/// one may be refused.
fn warm(target: &Target, case: &Case, place: &Place) -> Result<()> {
    for _ in 0..WARMING {
        let sample = target.load(case, place, 1)?;
        if sample.failed == 0.0 && sample.requests > ENOUGH {
            return Ok(());
        }
    }
    bail!(
        "{} does not come up to {ENOUGH} requests a second",
        target.peer.name()
    )
}

fn round(target: &Target, case: &Case, place: &Place, seconds: u32) -> Result<f64> {
    let counts = || -> Result<f64> {
        let all = target.proxies.iter().map(|proxy| taken(proxy, place));
        all.sum()
    };
    // What was counted until now is put away.
    counts()?;
    let requests = target.load(case, place, seconds)?.answered()?;
    Ok(counts()? / requests)
}

/// What a process executed since it was last asked.
fn taken(process: &Process, place: &Place) -> Result<f64> {
    let number = process.number();
    capture(&mut command(
        "callgrind_control",
        ["--dump", &number.to_string()],
    ))?;
    let prefix = format!("counts.{number}.");
    let files = fs::read_dir(place.folder()).context("failed to look for counts")?;
    let last = files
        .filter_map(|file| file.ok()?.file_name().into_string().ok())
        .filter_map(|name| name.strip_prefix(&prefix)?.parse::<u32>().ok())
        .max()
        .with_context(|| format!("callgrind wrote no counts of {number}"))?;
    let file = place.folder().join(format!("{prefix}{last}"));
    let text =
        fs::read_to_string(&file).with_context(|| format!("failed to read {}", file.display()))?;
    total(&text).with_context(|| format!("{} has no summary", file.display()))
}

/// The sum that a file of callgrind begins with.
fn total(text: &str) -> Option<f64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("summary:"))?;
    line.trim().parse().ok()
}

impl Counts {
    fn ratio(&self) -> f64 {
        median(self.ours.clone()) / median(self.haproxy.clone())
    }

    /// Every round, for whoever doubts the middle.
    fn said(&self) -> String {
        let list = |all: &[f64]| {
            let all: Vec<_> = all.iter().map(|one| format!("{one:.0}")).collect();
            all.join(" ")
        };
        format!("haproxy {}, ours {}", list(&self.haproxy), list(&self.ours))
    }
}

fn table(all: &[Counts]) -> Table {
    let row = |counts: &Counts| {
        vec![
            counts.case.title.to_owned(),
            shown(Some(median(counts.haproxy.clone())), 0),
            shown(Some(median(counts.ours.clone())), 0),
            shown(Some(counts.ratio()), 2),
        ]
    };
    Table {
        title: "Instructions for a request".to_owned(),
        header: vec!["case", "haproxy", "ours", "ours to HAProxy"],
        rows: all.iter().map(row).collect(),
    }
}

/// The section of docs/benchmarks.md.
fn section(options: &Options, table: &Table) -> String {
    format!(
        "`make bench-instructions`: the middle of {} of {} s for each peer, under callgrind, which counts what runs in user space: the kernel's
part, about half of a request's time, is not in it, and neither is what a cache misses. A pair's count is the sum of both proxies. Ours is
the one that ships, trained by cases such as these. Counts move by less than 3 % between runs, whatever else the machine does.

{table}",
        rounds_of(options.rounds),
        options.seconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_a_count_is_found() {
        let text =
            "# callgrind format\nversion: 1\nevents: Ir\nsummary: 203805134\n\nfn=(1) main\n";
        assert_eq!(total(text), Some(203_805_134.0));
        assert_eq!(total("events: Ir\n"), None);
    }

    #[test]
    fn what_is_counted_are_cases_of_the_benchmark() {
        assert_eq!(cases(&[]).expect("all").len(), COUNTED.len());
        let refused = cases(&["tcp".into()]).expect_err("it is not counted");
        assert!(refused.to_string().contains("pair-1k"), "{refused}");
    }
}
