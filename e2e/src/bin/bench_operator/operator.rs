//! The operator as a process of this machine: started, looked at from outside, stopped or killed.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fairlead_e2e::{get, program};
use tokio::process::{Child, Command};

const PORT: u16 = 18_081;
/// How long nothing may happen before all is taken to be done.
const QUIET: Duration = Duration::from_secs(6);
/// How many objects may wait at rest, when a resync comes round.
const BUSY: f64 = 100.0;
/// How long it may take until then.
const PATIENCE: Duration = Duration::from_secs(3600);
/// How long one clock tick of the kernel is, in seconds.
const TICK: f64 = 0.01;

/// See the module.
pub(crate) struct Operator {
    child: Child,
}

/// Sums of the operator's counters.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Requests without watches.
    pub(crate) requests: f64,
    /// Writes that changed something.
    pub(crate) writes: f64,
    /// Passes.
    pub(crate) passes: f64,
}

impl Operator {
    /// Starts it and waits until it leads.
    pub(crate) async fn start(resync_seconds: u64) -> Result<Self> {
        let log = std::fs::File::create(std::env::temp_dir().join("fairlead-bench-operator.log"))?;
        let child = Command::new(program("FAIRLEAD_BIN")?)
            .args([
                "operator",
                "--identity",
                "bench",
                "--admin",
                &format!("127.0.0.1:{PORT}"),
            ])
            .args(["--resync-seconds", &resync_seconds.to_string()])
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".to_owned()),
            )
            .stdout(Stdio::from(log.try_clone()?))
            .stderr(Stdio::from(log))
            .kill_on_drop(true)
            .spawn()
            .context("failed to start the operator")?;
        let operator = Self { child };
        let began = Instant::now();
        loop {
            if let Ok((200, text)) = get("127.0.0.1", PORT, "/metrics").await
                && sum(&text, "fairlead_leader", |_| true) > 0.0
            {
                return Ok(operator);
            }
            if began.elapsed() > Duration::from_secs(120) {
                bail!(
                    "the operator does not lead after 120 s; see /tmp/fairlead-bench-operator.log"
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until it holds so many instances, has passed over everything and writes no more. Passes go on where resyncs follow
    /// each other closely.
    pub(crate) async fn settle(&self, instances: usize) -> Result<()> {
        let began = Instant::now();
        let mut last = 0.0;
        let mut since = Instant::now();
        let mut told = Instant::now();
        loop {
            let text = self.metrics().await?;
            let cached = sum(&text, "fairlead_cached_objects", |labels| {
                labels.contains("\"ResourceInstance\"")
            });
            let objects = sum(&text, "fairlead_cached_objects", |_| true);
            let passes = sum(&text, "fairlead_reconcile_total", |_| true);
            let waiting = sum(&text, "fairlead_queue_depth", |_| true);
            let writes = sum(&text, "fairlead_writes_total", |_| true);
            let behind = waiting > BUSY || passes < objects || (cached as usize) < instances;
            if writes != last || behind {
                since = Instant::now();
            }
            last = writes;
            if told.elapsed() > Duration::from_secs(20) {
                println!(
                    "   ...  {cached} resources, {passes} passes, {waiting} waiting ({:.0} s)",
                    began.elapsed().as_secs_f64()
                );
                told = Instant::now();
            }
            if since.elapsed() > QUIET {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("the operator did not come to rest: {cached} of {instances} resources");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    async fn metrics(&self) -> Result<String> {
        let (status, text) = get("127.0.0.1", PORT, "/metrics").await?;
        anyhow::ensure!(status == 200, "the metrics answered {status}");
        Ok(text)
    }

    /// The counters as they are.
    pub(crate) async fn totals(&self) -> Result<Totals> {
        let text = self.metrics().await?;
        Ok(Totals {
            requests: sum(&text, "fairlead_api_requests_total", |labels| {
                !labels.contains("WATCH")
            }),
            writes: sum(&text, "fairlead_writes_total", |labels| {
                labels.contains("\"written\"")
            }),
            passes: sum(&text, "fairlead_reconcile_total", |_| true),
        })
    }

    fn proc(&self, file: &str) -> Result<String> {
        let id = self.child.id().context("the operator has ended")?;
        std::fs::read_to_string(PathBuf::from(format!("/proc/{id}/{file}")))
            .context("failed to look at the operator")
    }

    /// Resident memory in MiB.
    pub(crate) fn rss_mb(&self) -> Result<f64> {
        let status = self.proc("status")?;
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .context("there is no VmRSS")?;
        let kib: f64 = line
            .split_whitespace()
            .nth(1)
            .context("VmRSS is empty")?
            .parse()?;
        Ok(kib / 1024.0)
    }

    /// Processor time in seconds.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = self.proc("stat")?;
        let after = stat.rsplit(')').next().unwrap_or_default();
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks = |index: usize| {
            fields
                .get(index)
                .and_then(|field| field.parse::<f64>().ok())
                .unwrap_or_default()
        };
        Ok((ticks(11) + ticks(12)) * TICK)
    }

    /// Asks it to stop, so that it gives its lease back.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let id = self.child.id().context("the operator has ended")?;
        Command::new("kill")
            .args(["-TERM", &id.to_string()])
            .status()
            .await?;
        tokio::time::timeout(Duration::from_secs(30), self.child.wait())
            .await
            .context("the operator did not stop in time")??;
        Ok(())
    }

    /// Kills it.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child
            .kill()
            .await
            .context("failed to kill the operator")
    }
}

/// The sum of a metric over the label sets that are wanted.
fn sum(text: &str, name: &str, wanted: impl Fn(&str) -> bool) -> f64 {
    let of = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.split_once('}')?,
            None if rest.starts_with(' ') => ("", rest),
            None => return None,
        };
        wanted(labels)
            .then(|| value.split_whitespace().next()?.parse::<f64>().ok())
            .flatten()
    };
    text.lines().filter_map(of).sum()
}
