//! Programs in a namespace, pinned to a core: started, waited for, measured, ended.
//!
//! The kernel kills them when this process goes, however it goes.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::command::{TAIL, tail};

/// Which core a program has.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Core {
    /// Load and upstreams.
    Load,
    /// Proxies.
    Proxy,
}

impl Core {
    /// The core's number.
    pub(crate) fn number(self) -> usize {
        match self {
            Self::Load => 0,
            Self::Proxy => 1,
        }
    }
}

/// What is started, and where.
pub(crate) struct Start<'a> {
    /// The name of its log.
    pub(crate) name: &'a str,
    /// The program.
    pub(crate) program: &'a Path,
    /// Its arguments.
    pub(crate) arguments: &'a [String],
    /// The network namespace.
    pub(crate) namespace: &'a str,
    /// The core.
    pub(crate) core: Core,
    /// Where its log goes; it runs there too.
    pub(crate) folder: &'a Path,
}

/// The command that runs a program in a namespace, on a core, for as long as this process lives.
pub(crate) fn placed(namespace: &str, core: Core, program: &Path) -> Command {
    // Not `ip netns exec`: it mounts /sys anew. Each of these replaces itself by the next, so the number stays.
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{namespace}"))
        .args(["--", "setpriv", "--pdeathsig", "KILL", "--"])
        .args(["taskset", "--cpu-list", &core.number().to_string()])
        .arg(program)
        .stdin(Stdio::null());
    command
}

/// A program that runs; dropping it ends it.
pub(crate) struct Process {
    name: String,
    child: std::cell::RefCell<Child>,
    number: u32,
    log: PathBuf,
}

impl Process {
    /// Starts a program.
    pub(crate) fn start(start: &Start) -> Result<Self> {
        let log = start.folder.join(format!("{}.log", start.name));
        let out =
            File::create(&log).with_context(|| format!("failed to create {}", log.display()))?;
        let child = placed(start.namespace, start.core, start.program)
            .args(start.arguments)
            .current_dir(start.folder)
            .stdout(out.try_clone().context("failed to share a log")?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("failed to start {}", start.name))?;
        Ok(Self {
            name: start.name.to_owned(),
            number: child.id(),
            child: child.into(),
            log,
        })
    }

    /// Waits until something in the program's namespace listens on the port; fails when the program has ended.
    pub(crate) fn listens(&self, port: u16) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let ended = self.child.borrow_mut().try_wait().ok().flatten();
            if let Some(status) = ended {
                bail!("{} ended with {status}:\n{}", self.name, self.said());
            }
            let tables = ["tcp", "tcp6"].map(|table| {
                fs::read_to_string(format!("/proc/{}/net/{table}", self.number)).unwrap_or_default()
            });
            // Until it has entered its namespace, this is another's table.
            if self.is_placed() && tables.iter().any(|table| has_listener(table, port)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "{} does not listen on port {port}:\n{}",
                    self.name,
                    self.said()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn is_placed(&self) -> bool {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.number)).unwrap_or_default();
        !["nsenter", "setpriv", "taskset", "xtask"].contains(&name.trim())
    }

    /// The number that the kernel knows it by.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The end of its log.
    pub(crate) fn said(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text), TAIL)
    }

    /// Processor time used so far by all its threads, in microseconds.
    pub(crate) fn cpu(&self) -> Result<f64> {
        let tasks = format!("/proc/{}/task", self.number);
        let mut sum = 0.0;
        for task in fs::read_dir(&tasks).with_context(|| format!("{} has ended", self.name))? {
            let path = task
                .with_context(|| format!("failed to read {tasks}"))?
                .path();
            // A thread that has just ended is no longer counted.
            if let Ok(text) = fs::read_to_string(path.join("schedstat")) {
                sum += microseconds(&text)?;
            }
        }
        Ok(sum)
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(&self) -> Result<f64> {
        let file = format!("/proc/{}/status", self.number);
        let text = fs::read_to_string(&file).with_context(|| format!("{} has ended", self.name))?;
        resident(&text).with_context(|| format!("{file} has no VmRSS"))
    }
}

impl Process {
    /// Asks it to end, and waits until it has.
    pub(crate) fn end(mut self) -> Result<()> {
        let child = self.child.get_mut();
        let number = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(number, rustix::process::Signal::TERM)
            .with_context(|| format!("failed to end {}", self.name))?;
        child
            .wait()
            .map(drop)
            .with_context(|| format!("failed to wait for {}", self.name))
    }

    /// How many files it has open.
    pub(crate) fn files(&self) -> Result<usize> {
        let folder = format!("/proc/{}/fd", self.number);
        let open = fs::read_dir(&folder).with_context(|| format!("{} has ended", self.name))?;
        Ok(open.count())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The first figure of `/proc/PID/task/TID/schedstat`, nanoseconds on a core, as microseconds.
fn microseconds(schedstat: &str) -> Result<f64> {
    let first = schedstat
        .split_whitespace()
        .next()
        .context("an empty schedstat")?;
    let nanoseconds: f64 = first
        .parse()
        .with_context(|| format!("no number in schedstat: {first}"))?;
    Ok(nanoseconds / 1000.0)
}

/// `VmRSS` of `/proc/PID/status` in MiB.
fn resident(status: &str) -> Option<f64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib / 1024.0)
}

/// Whether `/proc/PID/net/tcp` has a socket that listens on the port.
fn has_listener(table: &str, port: u16) -> bool {
    let ending = format!(":{port:04X}");
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        local.ends_with(&ending) && fields.nth(1) == Some("0A")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_the_first_figure() {
        assert_eq!(
            microseconds("1234567000 89 12\n").expect("a figure"),
            1_234_567.0
        );
        assert!(microseconds("").is_err());
        assert!(microseconds("many 1 2").is_err());
    }

    #[test]
    fn resident_memory_is_read_in_mib() {
        let status = "Name:\tnginx\nVmHWM:\t   9999 kB\nVmRSS:\t   11264 kB\nThreads:\t1\n";
        assert_eq!(resident(status), Some(11.0));
        assert_eq!(resident("Name:\tnginx\n"), None);
    }

    #[test]
    fn only_a_listening_socket_counts() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
                     0: 0100007F:3A98 00000000:0000 0A 00000000:00000000\n\
                     1: 0100007F:2328 0100007F:D431 01 00000000:00000000\n";
        assert!(has_listener(table, 15000));
        assert!(!has_listener(table, 9000), "connected, not listening");
        assert!(!has_listener(table, 0xD431), "the other end's port");
    }
}
