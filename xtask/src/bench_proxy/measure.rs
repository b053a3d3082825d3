//! Rounds of one case: all peers stand ready, and take turns, so that what else the machine does meets all of them alike.

use anyhow::{Context, Result};

use super::case::{Case, Per, Target};
use super::load::{Load, Run, Sample};
use super::{Bench, note_failure};
use crate::proxies::Peer;

/// What one peer did in all its rounds.
pub(super) struct Rounds {
    /// Who it is.
    pub(super) peer: Peer,
    /// Processor time of its proxies in microseconds, and what the tool found, round by round.
    rounds: Vec<(f64, Sample)>,
    per: Per,
    /// The larger proxy's memory after the last round, in MiB.
    pub(super) resident: f64,
    /// How many proxies share the processor time.
    proxies: usize,
}

/// Measures a case with every peer that takes part; who fails is named, and left out.
pub(super) fn rounds(bench: &Bench, case: &Case) -> Vec<Rounds> {
    let mut targets = Vec::new();
    for peer in bench.taking_part(case.peers) {
        let started = case.start(peer, &bench.programs, &bench.place);
        match started.and_then(|target| {
            load(bench, case, &target, 1)?;
            Ok(target)
        }) {
            Ok(target) => targets.push((target, Vec::new())),
            Err(error) => note_failure(bench, case.name, peer, &error),
        }
    }
    for _ in 0..bench.options.rounds {
        targets.retain_mut(|(target, rounds)| match round(bench, case, target) {
            Ok(round) => {
                rounds.push(round);
                true
            }
            Err(error) => {
                note_failure(bench, case.name, target.peer, &error);
                false
            }
        });
    }
    targets
        .into_iter()
        .filter_map(|(target, rounds)| {
            let resident = target.resident();
            let resident = resident
                .map_err(|error| note_failure(bench, case.name, target.peer, &error))
                .ok()?;
            Some(Rounds {
                peer: target.peer,
                rounds,
                per: case.per,
                resident,
                proxies: target.proxies.len(),
            })
        })
        .collect()
}

fn round(bench: &Bench, case: &Case, target: &Target) -> Result<(f64, Sample)> {
    let before = target.cpu()?;
    let sample = load(bench, case, target, bench.options.seconds)?;
    Ok((target.cpu()? - before, sample))
}

fn load(bench: &Bench, case: &Case, target: &Target, seconds: u32) -> Result<Sample> {
    let run = Run {
        tools: &bench.tools,
        folder: bench.place.folder(),
        url: &target.url,
        headers: &[],
        port: target.port,
        seconds,
    };
    let sample = run.make(case.load);
    let sample = sample.with_context(|| {
        let logs = target.proxies.iter().map(|proxy| proxy.said());
        format!(
            "load failed; its proxies say:\n{}",
            logs.collect::<String>()
        )
    })?;
    anyhow::ensure!(sample.requests > 0.0, "not one request was answered");
    // Tools count what was cut off at the end as well.
    anyhow::ensure!(
        sample.failed <= 0.001 * sample.requests,
        "{} of {} requests failed",
        sample.failed,
        sample.requests
    );
    Ok(sample)
}

impl Rounds {
    /// The cost in each round: microseconds a request or milliseconds a gigabyte.
    fn costs(&self) -> Vec<f64> {
        let cost = |(cpu, sample): &(f64, Sample)| match self.per {
            Per::Request => cpu / sample.requests,
            Per::Gigabyte => cpu / 1e3 / (sample.bytes / 1e9),
        };
        self.rounds.iter().map(cost).collect()
    }

    /// The middle cost; none for the direct way.
    pub(super) fn cost(&self) -> Option<f64> {
        (self.proxies > 0).then(|| median(self.costs()))
    }

    /// The middle of the ratios of both costs, round by round.
    pub(super) fn beside(&self, other: &Self) -> Option<f64> {
        if self.proxies == 0 || other.proxies == 0 {
            return None;
        }
        let ratios = self.costs().into_iter().zip(other.costs());
        Some(median(ratios.map(|(own, theirs)| own / theirs).collect()))
    }

    /// Requests a second.
    pub(super) fn rate(&self) -> f64 {
        self.middle(|_, sample| sample.requests / sample.seconds)
    }

    /// Cores that one proxy kept busy.
    pub(super) fn cores(&self) -> Option<f64> {
        let proxies = u32::try_from(self.proxies)
            .ok()
            .filter(|count| *count > 0)?;
        Some(self.middle(|cpu, sample| cpu / 1e6 / sample.seconds / f64::from(proxies)))
    }

    /// The middle of a latency's rounds: 0 for p50, 1 for p99, 2 for p99.9.
    pub(super) fn latency(&self, which: usize) -> Option<f64> {
        let found: Option<Vec<f64>> = self
            .rounds
            .iter()
            .map(|(_, sample)| sample.latency[which])
            .collect();
        found.map(median)
    }

    fn middle(&self, value: impl Fn(f64, &Sample) -> f64) -> f64 {
        median(
            self.rounds
                .iter()
                .map(|(cpu, sample)| value(*cpu, sample))
                .collect(),
        )
    }
}

/// The rounds of a peer.
pub(super) fn of(all: &[Rounds], peer: Peer) -> Option<&Rounds> {
    all.iter().find(|rounds| rounds.peer == peer)
}

/// The figures of a case, as far as those that they compare were measured.
pub(super) fn figures(case: &Case, all: &[Rounds]) -> Vec<(String, f64)> {
    let ours = of(all, Peer::Ours);
    let beside = |peer| ours?.beside(of(all, peer)?);
    let (haproxy, envoy) = (beside(Peer::Haproxy), beside(Peer::Envoy));
    let added = |peer| Some(of(all, peer)?.latency(0)? - of(all, Peer::Direct)?.latency(0)?);
    let found: &[(&str, Option<f64>)] = match case.name {
        "single-h1" => &[("single_h1_cpu_vs_haproxy", haproxy)],
        "pair-h1" => &[
            ("pair_h1_cpu_vs_haproxy", haproxy),
            ("pair_h1_cpu_vs_envoy", envoy),
        ],
        "pair-h2" => &[
            ("pair_h2_cpu_vs_haproxy", haproxy),
            ("pair_h2_cpu_vs_envoy", envoy),
        ],
        "tcp" => &[("tcp_cpu_vs_haproxy", haproxy)],
        "handshakes" => &[("handshakes_vs_envoy", envoy.map(f64::recip))],
        "constant" => &[
            (
                "p50_added_1k_vs_haproxy",
                added(Peer::Ours)
                    .zip(added(Peer::Haproxy))
                    .map(|(own, theirs)| own / theirs),
            ),
            ("cpu_1k_vs_envoy", envoy),
        ],
        _ => &[],
    };
    found
        .iter()
        .filter_map(|(name, value)| Some(((*name).to_owned(), (*value)?)))
        .collect()
}

/// Whether the case's rate is given, so that latency and cores are what differs.
pub(super) fn is_constant(case: &Case) -> bool {
    matches!(case.load, Load::Constant(_))
}

/// The middle value.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(peer: Peer, costs: &[f64]) -> Rounds {
        let sample = Sample {
            requests: 10.0,
            seconds: 1.0,
            ..Sample::default()
        };
        Rounds {
            peer,
            rounds: costs
                .iter()
                .map(|cost| (cost * 10.0, sample.clone()))
                .collect(),
            per: Per::Request,
            resident: 1.0,
            proxies: usize::from(peer != Peer::Direct),
        }
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // The second round was disturbed for both alike.
        let ours = rounds(Peer::Ours, &[10.0, 30.0, 11.0]);
        let haproxy = rounds(Peer::Haproxy, &[20.0, 60.0, 22.0]);
        assert_eq!(ours.beside(&haproxy), Some(0.5));
        assert_eq!(ours.cost(), Some(11.0));
    }

    #[test]
    fn the_direct_way_has_no_cost() {
        let direct = rounds(Peer::Direct, &[0.0]);
        let ours = rounds(Peer::Ours, &[10.0]);
        assert_eq!(direct.cost(), None);
        assert_eq!(ours.beside(&direct), None);
        assert_eq!(direct.cores(), None);
    }

    #[test]
    fn a_figure_needs_both_that_it_compares() {
        let case = super::super::case::CASES
            .iter()
            .find(|case| case.name == "pair-h1")
            .expect("it is a case");
        let both = [rounds(Peer::Haproxy, &[20.0]), rounds(Peer::Ours, &[10.0])];
        assert_eq!(
            figures(case, &both),
            [("pair_h1_cpu_vs_haproxy".to_owned(), 0.5)]
        );
        assert_eq!(figures(case, &both[..1]), []);
    }
}
