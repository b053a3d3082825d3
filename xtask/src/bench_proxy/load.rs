//! The tools that make load: how each is called, and what its output says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::capture;
use crate::proxies::oha;
use crate::proxies::place::NEAR;
use crate::proxies::process::{Core, placed};

/// How load is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Load {
    /// wrk: HTTP/1.1, as fast as it goes, over so many connections.
    Http1(u32),
    /// h2load: HTTP/2, as fast as it goes, over 4 connections with 16 streams each.
    Http2,
    /// oha: HTTP/1.1 at 1,000 requests a second over so many connections, its latencies corrected for coordinated omission.
    Constant(u32),
    /// gRPC's own benchmark: 4 connections with 16 calls each; `true` for messages on streams that stay open.
    Grpc(bool),
    /// h2load: 1,000 new connections a second with one HTTP/1.1 request each; it resumes no session.
    Connections,
}

/// Where the tools lie.
pub(super) struct Tools {
    /// Debian's wrk.
    pub(super) wrk: PathBuf,
    /// Debian's h2load.
    pub(super) h2load: PathBuf,
    /// oha, built by cargo.
    pub(super) oha: PathBuf,
    /// The folder of gRPC's benchmark.
    pub(super) grpc: PathBuf,
}

/// What one run of a tool found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Sample {
    /// Requests, or messages of a stream, that were answered.
    pub(super) requests: f64,
    /// How long it took.
    pub(super) seconds: f64,
    /// What came back; 0 where the tool does not say.
    pub(super) bytes: f64,
    /// Answers that were none, or that were no success.
    pub(super) failed: f64,
    /// Microseconds that 50, 99 and 99.9 of a hundred stayed below; none where the tool does not say.
    pub(super) latency: [Option<f64>; 3],
}

/// One run of a tool.
pub(super) struct Run<'a> {
    /// Where the tools lie.
    pub(super) tools: &'a Tools,
    /// Where files go.
    pub(super) folder: &'a Path,
    /// `scheme://address:port/path`.
    pub(super) url: &'a str,
    /// Headers of every request, each as `name: value`.
    pub(super) headers: &'a [&'a str],
    /// The port alone.
    pub(super) port: u16,
    /// How long.
    pub(super) seconds: u32,
}

impl From<oha::Found> for Sample {
    fn from(found: oha::Found) -> Self {
        Self {
            requests: found.requests,
            seconds: found.seconds,
            bytes: found.bytes,
            failed: found.failed,
            latency: found.latency,
        }
    }
}

impl Sample {
    /// How many requests were answered; none may have failed.
    pub(super) fn answered(&self) -> Result<f64> {
        if self.failed > 0.0 {
            bail!("{} of {} requests failed", self.failed, self.requests);
        }
        Ok(self.requests)
    }
}

impl Run<'_> {
    /// Makes the load from the near namespace.
    pub(super) fn make(&self, load: Load) -> Result<Sample> {
        match load {
            Load::Http1(connections) => self.wrk(connections),
            Load::Http2 => self.h2load(),
            Load::Constant(connections) => self.oha(connections),
            Load::Grpc(streaming) => self.grpc(streaming),
            Load::Connections => self.connections(),
        }
    }

    fn tool(&self, program: &Path) -> Command {
        let mut command = placed(NEAR, Core::Load, program);
        command.current_dir(self.folder);
        for header in self.headers {
            command.args(["-H", header]);
        }
        command
    }

    fn wrk(&self, connections: u32) -> Result<Sample> {
        let script = self.folder.join("report.lua");
        fs::write(&script, include_str!("report.lua")).context("failed to write wrk's script")?;
        let mut wrk = self.tool(&self.tools.wrk);
        wrk.args(["--threads", "1", "--connections", &connections.to_string()])
            .args(["--duration", &format!("{}s", self.seconds), "--script"])
            .arg(script)
            .arg(self.url);
        read_wrk(&capture(&mut wrk)?)
    }

    fn h2load(&self) -> Result<Sample> {
        let log = self.folder.join("h2load.log");
        // h2load appends to what is there.
        let _ = fs::remove_file(&log);
        let mut h2load = self.tool(&self.tools.h2load);
        h2load
            .args(["--clients", "4", "--max-concurrent-streams", "16"])
            .args(["--duration", &self.seconds.to_string(), "--log-file"])
            .arg(&log)
            .arg(self.url);
        let said = capture(&mut h2load)?;
        let requests = fs::read_to_string(&log).context("failed to read h2load's log")?;
        read_h2load(&said, &requests)
    }

    fn connections(&self) -> Result<Sample> {
        let count = (1000 * self.seconds).to_string();
        let mut h2load = self.tool(&self.tools.h2load);
        h2load
            .args(["--h1", "--requests", &count, "--clients", &count])
            // Spread evenly, not a thousand at the beginning of each second.
            .args(["--rate", "10", "--rate-period", "10ms", self.url]);
        read_h2load(&capture(&mut h2load)?, "")
    }

    fn oha(&self, connections: u32) -> Result<Sample> {
        let mut oha = self.tool(&self.tools.oha);
        oha.args(["--no-tui", "--output-format", "json", "-q", "1000"])
            .args(["-c", &connections.to_string(), "--latency-correction"])
            // Late answers count as well.
            .arg("--wait-ongoing-requests-after-deadline")
            .args(["-z", &format!("{}s", self.seconds)])
            .arg(self.url);
        Ok(oha::read(&capture(&mut oha)?)?.into())
    }

    fn grpc(&self, streaming: bool) -> Result<Sample> {
        let kind = if streaming { "streaming" } else { "unary" };
        let mut client = self.tool(&self.tools.grpc.join("client"));
        client
            .args(["-port", &self.port.to_string(), "-rpc_type", kind])
            .args(["-c", "4", "-r", "16", "-req", "128", "-resp", "128"])
            .args(["-w", "0", "-d", &self.seconds.to_string()])
            // It writes profiles under this name.
            .args(["-test_name", "fairlead-bench-proxy-client"]);
        let said = capture(&mut client);
        for ending in ["cpu", "mem"] {
            let _ = fs::remove_file(format!("/tmp/fairlead-bench-proxy-client.{ending}"));
        }
        read_grpc(&said?, f64::from(self.seconds))
    }
}

/// The line that our script makes wrk print.
fn read_wrk(said: &str) -> Result<Sample> {
    let line = said.lines().find_map(|line| line.strip_prefix("sample "));
    let line = line.with_context(|| format!("wrk said no figures:\n{said}"))?;
    let field = |name: &str| -> Result<f64> {
        line.split(' ')
            .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
            .and_then(|value| value.parse().ok())
            .with_context(|| format!("wrk said no {name}: {line}"))
    };
    Ok(Sample {
        requests: field("requests")?,
        seconds: field("microseconds")? / 1e6,
        bytes: field("bytes")?,
        failed: field("failed")?,
        latency: [
            Some(field("p50")?),
            Some(field("p99")?),
            Some(field("p999")?),
        ],
    })
}

/// The summary, and the log with `start status microseconds` for each request.
fn read_h2load(said: &str, log: &str) -> Result<Sample> {
    let line = |start: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(start))
            .with_context(|| format!("h2load said no {start:?}:\n{said}"))
    };
    let counts = line("requests: ")?;
    let count = |name: &str| -> Result<f64> {
        counts
            .split(", ")
            .find_map(|field| field.strip_suffix(name)?.trim().parse().ok())
            .with_context(|| format!("h2load said no {name}: {counts}"))
    };
    let statuses = line("status codes: ")?;
    let good = statuses
        .split(", ")
        .find_map(|field| field.strip_suffix(" 2xx")?.parse::<f64>().ok())
        .with_context(|| format!("h2load said no 2xx: {statuses}"))?;
    let finished = line("finished in ")?;
    let seconds = finished.split(',').next().and_then(seconds);
    let mut micros: Vec<f64> = log
        .lines()
        .filter_map(|line| line.split('\t').nth(2)?.parse().ok())
        .collect();
    micros.sort_by(f64::total_cmp);
    let done = count(" done")?;
    Ok(Sample {
        requests: done,
        seconds: seconds.with_context(|| format!("h2load said no time: {finished}"))?,
        bytes: 0.0,
        failed: done - good + count(" errored")? + count(" timeout")?,
        latency: [0.5, 0.99, 0.999].map(|share| quantile(&micros, share)),
    })
}

/// The value below which a share of sorted values lie.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let index = (sorted.len() as f64 * share) as usize;
    sorted.get(index).or(sorted.last()).copied()
}

/// `qps: N` and `Latency: (50/90/99 %ile): A/B/C`.
fn read_grpc(said: &str, duration: f64) -> Result<Sample> {
    let after = |start: &str| {
        said.lines()
            .find_map(|line| line.strip_prefix(start))
            .with_context(|| format!("gRPC's client said no {start:?}:\n{said}"))
    };
    let rate: f64 = after("qps: ")?
        .trim()
        .parse()
        .context("failed to read gRPC's rate")?;
    let parts: Vec<_> = after("Latency: (50/90/99 %ile): ")?
        .split('/')
        .map(|part| seconds(part.trim()).map(|seconds| seconds * 1e6))
        .collect();
    let [p50, _, p99] = parts[..] else {
        bail!("gRPC's client said no three latencies:\n{said}");
    };
    Ok(Sample {
        requests: rate * duration,
        seconds: duration,
        latency: [p50, p99, None],
        ..Sample::default()
    })
}

/// `1.5s`, `730.5ms`, `812µs` or `812us` in seconds.
fn seconds(text: &str) -> Option<f64> {
    let units = [
        ("ms", 1e-3),
        ("µs", 1e-6),
        ("us", 1e-6),
        ("ns", 1e-9),
        ("s", 1.0),
    ];
    let (number, unit) = units
        .iter()
        .find_map(|(ending, unit)| Some((text.strip_suffix(ending)?, unit)))?;
    Some(number.parse::<f64>().ok()? * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrk_is_read_from_the_line_of_our_script() {
        let said = "Running 3s test @ http://127.0.0.1:9000/\n  1 threads and 32 connections\n\
                    sample requests=214083 microseconds=3001200 bytes=6000 failed=2 p50=301 p99=378 p999=1410\n";
        let sample = read_wrk(said).expect("all is there");
        assert_eq!(sample.requests, 214_083.0);
        assert_eq!(sample.seconds, 3.0012);
        assert_eq!(sample.failed, 2.0);
        assert_eq!(sample.latency, [Some(301.0), Some(378.0), Some(1410.0)]);
        assert!(read_wrk("unable to connect to 127.0.0.1:1\n").is_err());
    }

    #[test]
    fn h2load_is_read_with_its_log() {
        let said = "starting benchmark...\n\nfinished in 3.01s, 28000.33 req/s, 4.91MB/s\n\
                    requests: 84001 total, 84065 started, 84001 done, 83999 succeeded, 2 failed, 0 errored, 0 timeout\n\
                    status codes: 83999 2xx, 0 3xx, 0 4xx, 2 5xx\n";
        let log = (1..=1000).rev().fold(String::new(), |log, micros| {
            format!("{log}1763690000000000\t200\t{micros}\n")
        });
        let sample = read_h2load(said, &log).expect("all is there");
        assert_eq!(sample.requests, 84_001.0);
        assert_eq!(sample.seconds, 3.01);
        assert_eq!(sample.failed, 2.0);
        assert_eq!(sample.latency, [Some(501.0), Some(991.0), Some(1000.0)]);
    }

    #[test]
    fn h2load_counts_a_closed_connection_as_failed() {
        let said = "finished in 730.50ms, 0.00 req/s, 0B/s\n\
                    requests: 10 total, 10 started, 0 done, 0 succeeded, 10 failed, 10 errored, 0 timeout\n\
                    status codes: 0 2xx, 0 3xx, 0 4xx, 0 5xx\n";
        let sample = read_h2load(said, "").expect("all is there");
        assert_eq!((sample.failed, sample.seconds), (10.0, 0.7305));
        assert_eq!(sample.latency, [None; 3]);
    }

    #[test]
    fn grpc_is_read_with_the_units_of_go() {
        let said = "qps: 21034.5\nLatency: (50/90/99 %ile): 812.5µs/1.2ms/2.510042ms\nClient CPU utilization: 2s\n";
        let sample = read_grpc(said, 2.0).expect("all is there");
        assert_eq!(sample.requests, 42_069.0);
        let micros = sample.latency.map(|value| value.map(f64::round));
        assert_eq!(micros, [Some(813.0), Some(2510.0), None]);
    }

    #[test]
    fn a_quantile_of_nothing_is_none() {
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[7.0], 0.999), Some(7.0));
    }
}
