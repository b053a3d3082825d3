//! What features cost, and whether they do what they say: our proxy with settings beside itself without, in turns, over the same load.

mod cost;
mod faults;
mod hedging;
mod mirrors;

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::load::{Load, Run, Sample};
use super::{Bench, Measured, note_failure};
use crate::paths::write_secret;
use crate::proxies::hop::Hop;
use crate::proxies::place::NEAR;
use crate::proxies::process::Process;
use crate::proxies::{Peer, envoy};

/// What is measured, by the names for `--only`.
pub(super) const CASES: [&str; 4] = [COST, HEDGING, MIRRORS, FAULTS];

const COST: &str = "features";
const HEDGING: &str = "hedging";
const MIRRORS: &str = "mirrors";
const FAULTS: &str = "faults";

/// The first port on which variants listen.
const FIRST_PORT: u16 = 15_200;
/// `@type` of Envoy's extensions.
const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// Our proxy with settings.
struct Variant {
    name: &'static str,
    port: u16,
    process: Process,
    /// Processor time of its proxy in microseconds, and what the tool found, round by round.
    rounds: Vec<(f64, Sample)>,
}

/// How all variants of a case are loaded.
struct Loaded<'a> {
    case: &'static str,
    load: Load,
    headers: &'a [&'a str],
}

/// Measures a case; nothing where our own proxy is not asked for.
pub(super) fn measure(bench: &Bench, name: &str) -> Option<Measured> {
    if bench.taking_part(&[Peer::Ours]).is_empty() {
        return None;
    }
    let measured = match name {
        COST => cost::measure(bench),
        HEDGING => hedging::measure(bench),
        MIRRORS => mirrors::measure(bench),
        _ => faults::measure(bench),
    };
    measured
        .map_err(|error| note_failure(bench, name, Peer::Ours, &error))
        .ok()
}

impl Loaded<'_> {
    /// Starts a variant, whose settings are those of a plain hop, changed so.
    fn start(
        &self,
        bench: &Bench,
        (name, place): (&'static str, u16),
        upstreams: &[u16],
        change: impl FnOnce(&mut Value),
    ) -> Result<Variant> {
        let local = |port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let listen = local(FIRST_PORT + place);
        let first = upstreams.first().context("no upstream")?;
        let mut hop = Hop::new(&format!("{}-{place}", self.case), listen, local(*first));
        hop.upstreams = upstreams.iter().map(|port| local(*port)).collect();
        let folder = bench.place.folder();
        let mut bootstrap = envoy::bootstrap(&hop, folder, None);
        change(&mut bootstrap);
        let file = folder.join(format!("{}.yaml", hop.name));
        let text =
            serde_json::to_string_pretty(&bootstrap).context("failed to write a bootstrap")?;
        write_secret(&file, text)?;
        Ok(Variant {
            name,
            port: listen.port(),
            process: hop.start_ours(&file, &bench.programs, &bench.place, NEAR)?,
            rounds: Vec::new(),
        })
    }

    /// Loads each variant for a while that does not count.
    fn warm(&self, bench: &Bench, variants: &[Variant]) -> Result<()> {
        let mut all = variants.iter();
        all.try_for_each(|variant| self.run(bench, variant, bench.options.seconds).map(drop))
    }

    /// Loads all variants in turns.
    fn rounds(&self, bench: &Bench, variants: &mut [Variant]) -> Result<()> {
        for _ in 0..bench.options.rounds {
            for variant in &mut *variants {
                let before = variant.process.cpu()?;
                let sample = self.run(bench, variant, bench.options.seconds)?;
                let cpu = variant.process.cpu()? - before;
                variant.rounds.push((cpu, sample));
            }
        }
        Ok(())
    }

    fn run(&self, bench: &Bench, variant: &Variant, seconds: u32) -> Result<Sample> {
        let run = Run {
            tools: &bench.tools,
            folder: bench.place.folder(),
            url: &format!("http://127.0.0.1:{}/", variant.port),
            headers: self.headers,
            port: variant.port,
            seconds,
        };
        let sample = run.make(self.load);
        let sample = sample.with_context(|| {
            let said = variant.process.said();
            format!("load of {:?} failed; it says:\n{said}", variant.name)
        })?;
        anyhow::ensure!(
            sample.requests > 0.0,
            "{:?} answered no request",
            variant.name
        );
        Ok(sample)
    }
}

impl Variant {
    /// The sum of a number over all rounds.
    fn sum(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        let all = self.rounds.iter();
        // An empty sum is -0.
        all.fold(0.0, |sum, (_, sample)| sum + of(sample))
    }

    /// A number of each round.
    fn each(&self, of: impl Fn(f64, &Sample) -> f64) -> Vec<f64> {
        let rounds = self.rounds.iter();
        rounds.map(|(cpu, sample)| of(*cpu, sample)).collect()
    }

    /// Processor time of a request in each round, in microseconds.
    fn costs(&self) -> Vec<f64> {
        self.each(|cpu, sample| cpu / sample.requests)
    }

    /// The latency of each round: 0 for p50, 1 for p99, 2 for p99.9.
    fn latencies(&self, which: usize) -> Vec<f64> {
        self.each(|_, sample| sample.latency[which].unwrap_or(f64::NAN))
    }
}

/// The middle of the ratios of two variants, round by round.
fn ratio(own: Vec<f64>, other: Vec<f64>) -> f64 {
    let ratios = own.into_iter().zip(other);
    super::measure::median(ratios.map(|(own, other)| own / other).collect())
}

/// A cluster of this name beside the one that there is, of an endpoint on this port.
fn push_cluster(bootstrap: &mut Value, name: &str, port: u16) {
    let clusters = &mut bootstrap["static_resources"]["clusters"];
    let mut own = clusters[0].clone();
    own["name"] = json!(name);
    own["load_assignment"] = json!({
        "cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
            "socket_address": {"address": "127.0.0.1", "port_value": port},
        }}}]}],
    });
    if let Some(clusters) = clusters.as_array_mut() {
        clusters.push(own);
    }
}

/// What our own options say of a route.
fn set_options(bootstrap: &mut Value, mut options: Value) {
    options["@type"] = json!("type.googleapis.com/fairlead.mesh.v1.RouteOptions");
    envoy::routes(bootstrap)[0]["metadata"] =
        json!({"typed_filter_metadata": {"fairlead.mesh.v1": options}});
}

/// Puts filters before the router.
fn push_filters(bootstrap: &mut Value, mut filters: Vec<Value>) {
    if let Some(all) = envoy::manager(bootstrap)["http_filters"].as_array_mut() {
        filters.append(all);
        *all = filters;
    }
}
