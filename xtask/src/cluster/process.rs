//! The programs of a cluster: started detached with their own log and a file that says who they are, found
//! again and ended by a later run.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::cgroup;
use super::layout::Layout;
use crate::command::{TAIL, tail};
use crate::paths::write;

/// A process and the moment it began, which tells it from a later one under the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pid: i32,
    began: u64,
}

impl Identity {
    /// Who has this number now; none for a process that has ended, even when nobody has taken it in yet.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold spaces and parentheses itself.
        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        if matches!(fields.first(), Some(&"Z" | &"X")) {
            return None;
        }
        let began = fields.get(19)?.parse().ok()?;
        Some(Self { pid, began })
    }

    fn read(file: &Path) -> Option<Self> {
        let text = fs::read_to_string(file).ok()?;
        let (pid, began) = text.trim().split_once(' ')?;
        Some(Self {
            pid: pid.parse().ok()?,
            began: began.parse().ok()?,
        })
    }

    /// The process number.
    pub(crate) fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it still runs.
    pub(crate) fn alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Ends it at once; one that has ended already is as good.
    pub(crate) fn kill(self) {
        if let (true, Some(pid)) = (self.alive(), Pid::from_raw(self.pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Starts a program in the cluster's network namespace and cgroup, detached from this run.
pub(crate) fn start(
    layout: &Layout,
    name: &str,
    program: &Path,
    arguments: &[String],
) -> Result<()> {
    let file = layout.log(name);
    fs::create_dir_all(layout.file("logs")).context("failed to create the folder of logs")?;
    let log =
        File::create(&file).with_context(|| format!("failed to create {}", file.display()))?;
    // Not `ip netns exec`: it mounts /sys anew, and the kubelet then finds no cgroups.
    let child = Command::new("setsid")
        .args([
            "nsenter",
            &format!("--net=/run/netns/{}", layout.namespace()),
            "--",
        ])
        .arg(program)
        .args(arguments)
        .env("PATH", search_path(program))
        .env("TMPDIR", layout.file("tmp"))
        .current_dir(&layout.folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("failed to share a log")?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("failed to start {name}"))?;
    let pid = i32::try_from(child.id()).context("a process number beyond those of this system")?;
    let Some(identity) = Identity::of(pid) else {
        bail!("{name} ended at once:\n{}", tail_of(&file));
    };
    write(
        &layout.file(&format!("pids/{name}")),
        format!("{} {}", identity.pid, identity.began),
    )?;
    cgroup::take_in(layout, pid)
}

/// containerd finds its shim on PATH, and runs what lies in a system's own folders.
fn search_path(program: &Path) -> std::ffi::OsString {
    let mut path = std::ffi::OsString::from("/usr/sbin:/usr/bin:/sbin:/bin");
    if let Some(folder) = program.parent() {
        path.push(":");
        path.push(folder);
    }
    path
}

/// The programs that were started, by name.
pub(crate) fn started(layout: &Layout) -> Vec<(String, Identity)> {
    let Ok(entries) = fs::read_dir(layout.file("pids")) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((
                path.file_name()?.to_string_lossy().into_owned(),
                Identity::read(&path)?,
            ))
        })
        .collect();
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Waits until `check` holds. Fails with the end of a log as soon as a program of the cluster has ended, or
/// with the ends of the named programs' logs when the time is over.
pub(crate) fn wait_until(
    layout: &Layout,
    what: &str,
    within: Duration,
    logs: &[&str],
    mut check: impl FnMut() -> bool,
) -> Result<()> {
    let deadline = Instant::now() + within;
    while !check() {
        for (name, identity) in started(layout) {
            if !identity.alive() {
                bail!(
                    "{name} has ended; {} says:\n{}",
                    layout.log(&name).display(),
                    tail_of(&layout.log(&name))
                );
            }
        }
        if Instant::now() > deadline {
            let ends: Vec<String> = logs
                .iter()
                .map(|name| {
                    format!(
                        "{} says:\n{}",
                        layout.log(name).display(),
                        tail_of(&layout.log(name))
                    )
                })
                .collect();
            bail!(
                "{what}: not within {} s\n{}",
                within.as_secs(),
                ends.join("\n")
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// The end of a log.
pub(crate) fn tail_of(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    tail(&String::from_utf8_lossy(&text), TAIL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_number_and_beginning() {
        let own = i32::try_from(std::process::id())
            .ok()
            .and_then(Identity::of);
        let own = own.expect("this process runs");
        assert!(own.alive());
        let earlier = Identity {
            began: own.began - 1,
            ..own
        };
        assert!(!earlier.alive(), "another process had the number before");
    }

    #[test]
    fn a_process_that_ended_is_dead_before_anyone_took_it_in() {
        let mut child = Command::new("true").spawn().expect("true is everywhere");
        let pid = i32::try_from(child.id()).expect("numbers are small");
        let deadline = Instant::now() + Duration::from_secs(10);
        while Identity::of(pid).is_some() {
            assert!(Instant::now() < deadline, "it has ended long ago");
            std::thread::yield_now();
        }
        child.wait().expect("it is still ours to take in");
    }
}
