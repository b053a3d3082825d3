//! A pair of proxies under load for half an hour, while their configuration changes and endpoints are killed. Nothing may be
//! lost, and nothing may grow.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use crate::cargo_tools::OHA;
use crate::command::{TAIL, capture, tail};
use crate::paths::write_secret;
use crate::progress::note;
use crate::proxies::hop::{Carries, Hop, Pair};
use crate::proxies::install::Programs;
use crate::proxies::place::{FAR, NEAR, Place};
use crate::proxies::process::{Core, Process, Start, placed};
use crate::proxies::{Peer, envoy, nginx, oha};

/// How long, and on which load.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Minutes of load
    #[arg(long, default_value_t = 30)]
    minutes: u32,
    /// Requests a second, over HTTP/1.1 and as many over HTTP/2
    #[arg(long, default_value_t = 500)]
    rate: u32,
}

/// Where the pair listens.
const PORT: u16 = 15000;
/// The endpoints behind the pair; each is killed in its turn.
const ENDPOINTS: [u16; 3] = [9010, 9011, 9012];
/// How long one run of the load's tool is, in seconds.
const ROUND: u32 = 15;
/// After how many of them what the proxies hold is looked at first.
const WARM: u32 = 4;
/// How often something changes.
const CHANGE: Duration = Duration::from_millis(700);
/// Every so many changes an endpoint is killed, and comes back with the next.
const KILL: u32 = 4;
/// What a proxy may grow by after the first rounds, in MiB.
const GROWTH: f64 = 3.0;
/// How many files more than after the first rounds it may have open.
const FILES: usize = 16;

/// A proxy, and the file it watches.
struct Watched {
    process: Process,
    file: PathBuf,
    /// Where it logs answers that were failures, those that were tried again included.
    failures: PathBuf,
    bootstrap: Value,
}

/// What a proxy holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    resident: f64,
    files: usize,
}

/// The pair, its endpoints, and what was done to them so far.
struct Soak {
    programs: Programs,
    place: Place,
    /// Inbound, outbound.
    proxies: [Watched; 2],
    endpoints: Vec<Option<Process>>,
    changes: u32,
}

/// Runs the load; fails when a request was lost or a proxy grew.
pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(options.minutes > 0, "--minutes: 0 is no time; 1 or more is");
    let oha = OHA.ensure()?;
    let mut soak = Soak::start()?;
    let (mut first, mut answered) = (None, 0.0);
    let end = Instant::now() + Duration::from_secs(u64::from(options.minutes) * 60);
    for round in 1.. {
        answered += soak.round(&oha, options.rate)?;
        let held = soak.held()?;
        note(&format!(
            "{answered} requests, {} changes; inbound {:.1} MiB and {} files, outbound {:.1} MiB and {} files",
            soak.changes, held[0].resident, held[0].files, held[1].resident, held[1].files
        ));
        // By then every path was taken once.
        if round == WARM {
            first = Some(held);
        }
        if Instant::now() > end {
            return report(answered, soak.changes, first.unwrap_or(held), held);
        }
    }
    Ok(())
}

fn report(answered: f64, changes: u32, first: [Held; 2], last: [Held; 2]) -> Result<()> {
    let growth = |which: usize| last[which].resident - first[which].resident;
    let growth = growth(0).max(growth(1));
    println!("figure soak_requests {answered}");
    println!("figure soak_changes {changes}");
    println!("figure soak_lost 0");
    println!("figure soak_growth_mb {growth:.2}");
    ensure!(
        growth <= GROWTH,
        "a proxy grew by {growth:.2} MiB; {GROWTH} are allowed"
    );
    for (first, last) in first.iter().zip(last) {
        if last.files > first.files + FILES {
            bail!(
                "a proxy has {} files open, and had {}",
                last.files,
                first.files
            );
        }
    }
    Ok(())
}

impl Soak {
    fn start() -> Result<Self> {
        let programs = Programs::ensure(&[Peer::Ours], &[])?;
        let place = Place::new()?;
        let endpoints = ENDPOINTS.map(|port| endpoint(&programs, &place, port).map(Some));
        let endpoints = endpoints.into_iter().collect::<Result<Vec<_>>>()?;
        let mut pair = Pair::new("soak", Carries::Http, PORT, ENDPOINTS[0], false);
        let upstreams = ENDPOINTS.map(|port| SocketAddrV4::new(Ipv4Addr::LOCALHOST, port));
        pair.inbound.upstreams = upstreams.into();
        let proxies = [
            Watched::start(&pair.inbound, &programs, &place, FAR)?,
            Watched::start(&pair.outbound, &programs, &place, NEAR)?,
        ];
        Ok(Self {
            programs,
            place,
            proxies,
            endpoints,
            changes: 0,
        })
    }

    /// Loads the pair, and disturbs it until that is over; how many requests were answered. None may be lost.
    fn round(&mut self, oha: &Path, rate: u32) -> Result<f64> {
        let done = AtomicBool::new(false);
        let found = std::thread::scope(|scope| {
            let loads = [&[][..], &["--http2", "-p", "8"][..]].map(|more| {
                let done = &done;
                scope.spawn(move || {
                    let found = load(oha, rate, more);
                    done.store(true, Ordering::SeqCst);
                    found
                })
            });
            while !done.load(Ordering::SeqCst) {
                self.disturb()?;
                std::thread::sleep(CHANGE);
            }
            loads
                .into_iter()
                .map(|load| load.join().expect("the load's thread ends"))
                .collect::<Result<Vec<_>>>()
        })?;
        for found in &found {
            ensure!(
                found.failed == 0.0,
                "{} requests were lost: {}\n{}",
                found.failed,
                found.why,
                self.failures()
            );
        }
        Ok(found.iter().map(|found| found.requests).sum())
    }

    /// Changes a proxy's configuration, and kills an endpoint or brings it back.
    fn disturb(&mut self) -> Result<()> {
        self.changes += 1;
        let number = self.changes;
        self.proxies[number as usize % 2].change(number)?;
        for (own, port) in self.endpoints.iter_mut().zip(ENDPOINTS) {
            if own.is_none() {
                *own = Some(endpoint(&self.programs, &self.place, port)?);
            }
        }
        if number.is_multiple_of(KILL) {
            let which = (number / KILL) as usize % self.endpoints.len();
            self.endpoints[which] = None;
        }
        Ok(())
    }

    /// The last failures that the proxies logged.
    fn failures(&self) -> String {
        let said = self.proxies.iter().map(|proxy| {
            let lines = std::fs::read_to_string(&proxy.failures).unwrap_or_default();
            format!("{}:\n{}\n", proxy.failures.display(), tail(&lines, TAIL))
        });
        said.collect()
    }

    fn held(&self) -> Result<[Held; 2]> {
        Ok([self.proxies[0].held()?, self.proxies[1].held()?])
    }
}

impl Watched {
    fn start(hop: &Hop, programs: &Programs, place: &Place, namespace: &str) -> Result<Self> {
        let mut bootstrap = envoy::bootstrap(hop, place.folder(), None);
        let route = &mut envoy::routes(&mut bootstrap)[0]["route"];
        // Killed endpoints take requests with them; those that may be sent again are.
        route["retry_policy"] = json!({
            "retry_on": "connect-failure,refused-stream,reset,gateway-error",
            "num_retries": 5,
            "retry_back_off": {"base_interval": "0.005s", "max_interval": "0.1s"},
        });
        // Envoy's default allows three at once: of a slow moment's requests the fourth would be lost.
        bootstrap["static_resources"]["clusters"][0]["circuit_breakers"] =
            json!({"thresholds": [{"max_retries": 1000}]});
        let failures = place.folder().join(format!("{}.failures", hop.name));
        envoy::manager(&mut bootstrap)["access_log"] = log_of_failures(&failures);
        let file = place.folder().join(format!("{}.yaml", hop.name));
        write(&file, &bootstrap)?;
        let process = hop.start_ours(&file, programs, place, namespace)?;
        Ok(Self {
            process,
            file,
            failures,
            bootstrap,
        })
    }

    fn held(&self) -> Result<Held> {
        Ok(Held {
            resident: self.process.resident()?,
            files: self.process.files()?,
        })
    }

    /// Changes something that a running request must not notice.
    fn change(&mut self, number: u32) -> Result<()> {
        let text = format!("soak-{number}");
        let routes = envoy::routes(&mut self.bootstrap);
        // The one that everything takes is the last.
        routes.drain(..routes.len() - 1);
        routes[0]["request_headers_to_add"] = json!([{"header": {"key": "x-soak", "value": text}}]);
        // Routes come and go.
        for other in 0..number % 50 {
            let path = format!("/other-{other}");
            routes.insert(
                0,
                json!({
                    "match": {"path": path},
                    "direct_response": {"status": 404},
                }),
            );
        }
        let resources = &mut self.bootstrap["static_resources"];
        let clusters = resources["clusters"]
            .as_array_mut()
            .context("a bootstrap without clusters")?;
        clusters.truncate(1);
        clusters[0]["connect_timeout"] = json!(format!("{}s", 2 + number % 3));
        let endpoints = clusters[0]["load_assignment"]["endpoints"][0]["lb_endpoints"]
            .as_array_mut()
            .context("a cluster without endpoints")?;
        endpoints.rotate_left(1);
        // So do clusters.
        if number.is_multiple_of(3) {
            let mut other = clusters[0].clone();
            other["name"] = json!(text);
            other["load_assignment"]["cluster_name"] = json!(text);
            clusters.push(other);
        }
        write(&self.file, &self.bootstrap)
    }
}

fn log_of_failures(file: &Path) -> Value {
    json!([{
        "name": "envoy.access_loggers.file",
        "filter": {"status_code_filter": {"comparison": {
            "op": "GE",
            "value": {"default_value": 500, "runtime_key": "failures"},
        }}},
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": file.display().to_string(),
            "log_format": {"text_format_source": {"inline_string":
                "%START_TIME% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %PROTOCOL% \
                 %UPSTREAM_HOST% after %UPSTREAM_REQUEST_ATTEMPT_COUNT% tries and %DURATION% ms\n"}},
        },
    }])
}

/// Puts a file in its place at once.
fn write(file: &Path, value: &Value) -> Result<()> {
    let text = serde_json::to_string_pretty(value).context("failed to write a bootstrap")?;
    let new = file.with_extension("new");
    write_secret(&new, text)?;
    std::fs::rename(&new, file).with_context(|| format!("failed to replace {}", file.display()))
}

/// nginx with a small answer.
fn endpoint(programs: &Programs, place: &Place, port: u16) -> Result<Process> {
    let name = format!("endpoint-{port}");
    let file = place.folder().join(format!("{name}.conf"));
    let text = format!(
        "daemon off; master_process off; pid {name}.pid; events {{ worker_connections 1024; }}\n\
         http {{ access_log off; keepalive_requests 100000000;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"{}\"; }} }} }}\n",
        "x".repeat(128)
    );
    crate::paths::write(&file, text)?;
    let process = Process::start(&Start {
        name: &name,
        program: &programs.nginx,
        arguments: &nginx::arguments(place.folder(), &file),
        namespace: FAR,
        core: Core::Load,
        folder: place.folder(),
    })?;
    process.listens(port)?;
    Ok(process)
}

/// One run of the load's tool.
fn load(oha: &Path, rate: u32, more: &[&str]) -> Result<oha::Found> {
    let mut command = placed(NEAR, Core::Load, oha);
    command
        .args(["--no-tui", "--output-format", "json", "-c", "8"])
        .args(["-q", &rate.to_string(), "-z", &format!("{ROUND}s")])
        .args(more)
        .arg(format!("http://127.0.0.1:{PORT}/"));
    oha::read(&capture(&mut command)?)
}
