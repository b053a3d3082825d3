//! Taking a cluster down, whatever state it is in: processes, mounts, network, cgroups, files, in that order.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::layout::{Layout, below, home};
use super::process::started;
use super::{cgroup, network};
use crate::command::{capture, command};
use crate::paths::lock;
use crate::progress::{note, step};

/// Takes the cluster down; one that is not there is as good.
pub(crate) fn down(name: &str) -> Result<()> {
    super::layout::check_name(name)?;
    let file = Layout::lock_file(name);
    let _held = lock(&file, &format!("changes cluster {name}"))?;
    match Layout::load(name)? {
        Some(layout) => step(&format!("take down cluster {name}"), || remove(&layout))?,
        None => note(&format!("cluster {name} is not up")),
    }
    Ok(())
}

/// Removes everything the cluster is made of. Nothing of it is worth keeping, so nothing is asked to end.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    // No longer to be taken for a running one, should this be interrupted.
    let _ = fs::remove_file(layout.ready_marker());
    for (_, process) in started(layout) {
        process.kill();
    }
    cgroup::clear(layout)?;
    let sockets = shim_sockets(layout);
    unmount(layout)?;
    network::remove(layout)?;
    for socket in sockets {
        let _ = fs::remove_file(socket);
    }
    clear_cni_results(layout);
    clear_log_links(layout);
    clear_device_socket();
    fs::remove_dir_all(&layout.folder)
        .with_context(|| format!("failed to remove {}", layout.folder.display()))?;
    // These stay when another cluster or the machine's own containerd uses them.
    for shared in SHARED {
        let _ = fs::remove_dir(shared);
    }
    let _ = fs::remove_dir(home());
    Ok(())
}

/// Folders that containerd, CNI and the kubelet make outside our own and will not be told otherwise.
const SHARED: &[&str] = &[
    "/run/containerd/s",
    "/run/containerd",
    "/var/lib/cni/results",
    "/var/lib/cni",
    "/var/lib/kubelet/device-plugins",
    "/var/lib/kubelet",
    "/var/log/containers",
];

/// Unmounts everything below the cluster's folder, the last mounted first.
fn unmount(layout: &Layout) -> Result<()> {
    for _ in 0..20 {
        let mounts =
            fs::read_to_string("/proc/self/mounts").context("failed to read /proc/self/mounts")?;
        let mut ours: Vec<String> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .map(|path| path.replace("\\040", " "))
            .filter(|path| below(path, &layout.folder))
            .collect();
        if ours.is_empty() {
            return Ok(());
        }
        ours.reverse();
        for batch in ours.chunks(100) {
            // Some may be gone with the one they lay upon; what is left is seen in the next round.
            let _ = capture(&mut command(
                "umount",
                [&["--lazy".to_owned()], batch].concat(),
            ));
        }
    }
    bail!(
        "failed to unmount everything below {}",
        layout.folder.display()
    )
}

/// Where the shims of this cluster listened: outside our folder, under names made of hashes.
fn shim_sockets(layout: &Layout) -> Vec<String> {
    let tasks = layout.file("containerd/state/io.containerd.runtime.v2.task/k8s.io");
    let Ok(entries) = fs::read_dir(tasks) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let text = fs::read_to_string(entry.path().join("bootstrap.json")).ok()?;
            let bootstrap: serde_json::Value = serde_json::from_str(&text).ok()?;
            Some(
                bootstrap["address"]
                    .as_str()?
                    .trim_start_matches("unix://")
                    .to_owned(),
            )
        })
        .filter(|path| path.starts_with("/run/containerd/s/"))
        .collect()
}

/// What CNI remembers of each attachment: `<network>-<container>-<interface>`, and for each container its
/// loopback under a network's name that all clusters share.
fn clear_cni_results(layout: &Layout) {
    let results = Path::new("/var/lib/cni/results");
    let prefix = format!("{}-", layout.network());
    let mut containers = Vec::new();
    clear(results, |entry| {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        let ours = name.strip_prefix(&prefix);
        containers.extend(
            ours.and_then(|rest| rest.split('-').next())
                .map(str::to_owned),
        );
        ours.is_some()
    });
    for container in containers {
        let _ = fs::remove_file(results.join(format!("cni-loopback-{container}-lo")));
    }
}

/// The socket for device plugins has a fixed path; the last kubelet to start has it. It goes when nobody
/// listens any more.
fn clear_device_socket() {
    let socket = Path::new("/var/lib/kubelet/device-plugins/kubelet.sock");
    if socket.exists() && UnixStream::connect(socket).is_err() {
        let _ = fs::remove_file(socket);
    }
}

/// The kubelet keeps links to our log files in a folder that cannot be set.
fn clear_log_links(layout: &Layout) {
    clear(Path::new("/var/log/containers"), |entry| {
        fs::read_link(entry).is_ok_and(|target| target.starts_with(&layout.folder))
    });
}

fn clear(folder: &Path, mut ours: impl FnMut(&Path) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries.flatten() {
        if ours(&entry.path()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
