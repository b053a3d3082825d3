//! A small load generator: requests at a steady rate, whatever the answers, and a summary.

use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use http::{Method, Uri};
use tokio::sync::{Semaphore, mpsc};

use crate::client::Caller;
use crate::resolve::Names;
use crate::trace::Trace;

/// Beyond this many requests at hand, further ones are not sent but counted.
const MAX_IN_FLIGHT: usize = 512;

#[derive(Args)]
pub(crate) struct LoadArguments {
    /// Where to send GET requests, such as http://frontend:8080/
    #[arg(long)]
    url: String,
    /// Requests per second
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rps: u32,
    /// For how many seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
    /// How long to wait for an answer, in milliseconds
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
}

/// What became of one request.
struct Sample {
    /// The status, or 0 without an answer.
    code: u16,
    version: Option<String>,
    took: Duration,
}

#[derive(Default)]
struct Summary {
    codes: BTreeMap<u16, u64>,
    versions: BTreeMap<String, u64>,
    took: Vec<Duration>,
    unsent: u64,
}

/// Sends, waits for the last answer and prints the summary. Fails when nothing was answered.
#[expect(
    clippy::print_stdout,
    reason = "the summary is what the command is for"
)]
pub(crate) async fn run(arguments: LoadArguments) -> ExitCode {
    match generate(&arguments).await {
        Ok(summary) => {
            print!("{summary}");
            if summary.answered() > 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

/// The scheme with host and port, and the path with the query.
fn split(url: &str) -> Result<(String, String), String> {
    let uri: Uri = url.parse().map_err(|_| "--url is no URL".to_owned())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("http"), Some(authority)) => {
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            Ok((format!("http://{authority}"), path.to_owned()))
        }
        _ => Err("--url begins with http:// and has a host".to_owned()),
    }
}

async fn generate(arguments: &LoadArguments) -> Result<Summary, String> {
    let (base, path) = split(&arguments.url)?;
    let names = Names::of_system().map_err(|error| error.to_string())?;
    let caller = Caller::new(names, Duration::from_millis(arguments.timeout_ms));
    let slots = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let mut summary = Summary::default();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / arguments.rps);
    for _ in 0..u64::from(arguments.rps) * u64::from(arguments.seconds) {
        ticks.tick().await;
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            summary.unsent += 1;
            continue;
        };
        let (caller, base, path, sender) =
            (caller.clone(), base.clone(), path.clone(), sender.clone());
        tokio::spawn(async move {
            let sample = one(&caller, &base, &path).await;
            drop(slot);
            // The receiver lives until the last sender is gone.
            let _ = sender.send(sample);
        });
    }
    drop(sender);
    while let Some(sample) = receiver.recv().await {
        summary.add(sample);
    }
    summary.took.sort_unstable();
    Ok(summary)
}

async fn one(caller: &Caller, base: &str, path: &str) -> Sample {
    let started = Instant::now();
    let trace = Trace::of_request(&http::HeaderMap::new(), rand::random());
    let answer = caller.send(Method::GET, base, path, &trace, None).await;
    let took = started.elapsed();
    match answer {
        Ok(answer) => {
            let version = answer
                .headers
                .get("x-shop-version")
                .and_then(|value| value.to_str().ok());
            Sample {
                code: answer.status.as_u16(),
                version: version.map(str::to_owned),
                took,
            }
        }
        Err(_) => Sample {
            code: 0,
            version: None,
            took,
        },
    }
}

impl Summary {
    fn add(&mut self, sample: Sample) {
        *self.codes.entry(sample.code).or_default() += 1;
        if let Some(version) = sample.version {
            *self.versions.entry(version).or_default() += 1;
        }
        self.took.push(sample.took);
    }

    fn sent(&self) -> u64 {
        self.codes.values().sum()
    }

    fn answered(&self) -> u64 {
        self.codes
            .iter()
            .filter(|(code, _)| **code != 0)
            .map(|(_, count)| count)
            .sum()
    }

    /// The latency that so many percent do not exceed (nearest rank); the samples are sorted.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.took.len() * percent).div_ceil(100).max(1);
        self.took.get(rank - 1).copied().unwrap_or_default()
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |percent| self.percentile(percent).as_secs_f64() * 1000.0;
        writeln!(
            formatter,
            "requests   {} sent, {} not sent",
            self.sent(),
            self.unsent
        )?;
        for (code, count) in &self.codes {
            let name = if *code == 0 {
                "no answer".to_owned()
            } else {
                code.to_string()
            };
            writeln!(formatter, "  {name:<9} {count}")?;
        }
        writeln!(
            formatter,
            "latency    p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, max {:.1} ms",
            ms(50),
            ms(90),
            ms(99),
            ms(100)
        )?;
        for (version, count) in &self.versions {
            writeln!(formatter, "version    {version}: {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts() {
        let mut summary = Summary::default();
        for ms in 1..=100 {
            let code = if ms > 90 { 500 } else { 200 };
            summary.add(Sample {
                code,
                version: Some("v1".to_owned()),
                took: Duration::from_millis(ms),
            });
        }
        summary.add(Sample {
            code: 0,
            version: None,
            took: Duration::from_secs(1),
        });
        assert_eq!((summary.sent(), summary.answered()), (101, 100));
        assert_eq!(summary.percentile(50), Duration::from_millis(51));
        let text = summary.to_string();
        assert!(
            text.contains("  200       90\n") && text.contains("  500       10\n"),
            "{text}"
        );
        assert!(
            text.contains("  no answer 1\n") && text.contains("version    v1: 100\n"),
            "{text}"
        );
        assert_eq!(Summary::default().percentile(99), Duration::ZERO);
    }

    #[test]
    fn urls_are_split() {
        assert_eq!(
            split("http://a:8080/b?c"),
            Ok(("http://a:8080".to_owned(), "/b?c".to_owned()))
        );
        assert_eq!(
            split("http://a"),
            Ok(("http://a".to_owned(), "/".to_owned()))
        );
        assert!(split("https://a").is_err() && split("a").is_err());
    }
}
