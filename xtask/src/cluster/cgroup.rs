//! One cgroup per cluster in every hierarchy: the kubelet puts pods below it, so that two kubelets on one
//! machine do not clear away each other's pods, and `down` finds there whatever still runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::layout::Layout;
use super::process::Identity;

/// The roots of all mounted hierarchies, of version 1 and 2.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts =
        fs::read_to_string("/proc/self/mounts").context("failed to read /proc/self/mounts")?;
    Ok(mounts
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let cgroup = matches!(fields.get(2), Some(&"cgroup" | &"cgroup2"));
            cgroup.then(|| PathBuf::from(fields[1]))
        })
        .collect())
}

/// Makes the cluster's cgroup everywhere.
pub(crate) fn create(layout: &Layout) -> Result<()> {
    for root in hierarchies()? {
        let mut parent = root;
        for part in [layout.cgroup(), "daemons".to_owned()] {
            let group = parent.join(part);
            fs::create_dir_all(&group)
                .with_context(|| format!("failed to create {}", group.display()))?;
            // Version 1 lets no process into a cpuset until both are set; elsewhere the files do not exist.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(inherited) = fs::read_to_string(parent.join(file)) {
                    let _ = fs::write(group.join(file), inherited.trim());
                }
            }
            parent = group;
        }
    }
    Ok(())
}

/// Moves a process, and so all it will start, below the cluster's cgroup.
pub(crate) fn take_in(layout: &Layout, pid: i32) -> Result<()> {
    for root in hierarchies()? {
        let file = root.join(layout.cgroup()).join("daemons/cgroup.procs");
        fs::write(&file, pid.to_string())
            .with_context(|| format!("failed to write {}", file.display()))?;
    }
    Ok(())
}

/// Everything that runs below the cluster's cgroup.
pub(crate) fn members(layout: &Layout) -> Result<Vec<Identity>> {
    let mut pids = Vec::new();
    for root in hierarchies()? {
        visit(&root.join(layout.cgroup()), &mut |group| {
            let procs = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            pids.extend(procs.lines().filter_map(|line| line.parse::<i32>().ok()));
        });
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids.into_iter().filter_map(Identity::of).collect())
}

/// Kills everything below the cluster's cgroup and removes it.
pub(crate) fn clear(layout: &Layout) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let left = members(layout)?;
        if left.is_empty() {
            break;
        }
        if Instant::now() > deadline {
            bail!("processes that do not end: {left:?}");
        }
        for process in left {
            process.kill();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for root in hierarchies()? {
        let top = root.join(layout.cgroup());
        let mut problem = None;
        // A cgroup stays busy for a moment after its last process.
        while top.exists() && Instant::now() < deadline {
            problem = None;
            visit(&top, &mut |group| {
                problem = fs::remove_dir(group).err().or(problem.take())
            });
            if problem.is_some() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if let Some(error) = problem {
            return Err(error).with_context(|| format!("failed to remove {}", top.display()));
        }
    }
    Ok(())
}

/// Visits a cgroup and all below it, children before parents.
fn visit(group: &Path, each: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(group) else {
        return;
    };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            visit(&entry.path(), each);
        }
    }
    each(group);
}
