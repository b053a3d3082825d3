//! A cluster's names, addresses and files, all derived from its name and a small number of its own, so that
//! several stand side by side.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::paths::{lock, write};

/// How many clusters may stand side by side; the number is part of three address ranges.
const MOST: u8 = 32;

/// Where a cluster's things are.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// The cluster's name; also its node's.
    pub(crate) name: String,
    /// Its number among the clusters of this machine.
    pub(crate) index: u8,
    /// The folder with everything it writes.
    pub(crate) folder: PathBuf,
}

/// The folder of all clusters.
pub(crate) fn home() -> PathBuf {
    std::env::var_os("FAIRLEAD_CLUSTERS").map_or_else(
        || PathBuf::from("/var/lib/fairlead-clusters"),
        PathBuf::from,
    )
}

/// The folder of locks: files without content, which have no meaning when nobody holds them.
fn locks() -> PathBuf {
    PathBuf::from("/run/lock/fairlead-clusters")
}

/// Whether the machine knows IPv6.
fn has_ipv6() -> bool {
    Path::new("/proc/net/if_inet6").exists()
}

/// What is of IPv4, and what is of IPv6 where the machine knows that.
fn of_either(v4: String, v6: String) -> Vec<String> {
    [v4].into_iter().chain(has_ipv6().then_some(v6)).collect()
}

/// Refuses a name that could not be part of file, namespace and node names.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let letters = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let ends = !name.starts_with('-') && !name.ends_with('-');
    if name.is_empty() || name.len() > 30 || !letters || !ends {
        bail!("a cluster's name has 1 to 30 characters of a-z, 0-9 and, within, '-'; not {name:?}");
    }
    Ok(())
}

impl Layout {
    /// The cluster as it lies on disk, if it does.
    pub(crate) fn load(name: &str) -> Result<Option<Self>> {
        check_name(name)?;
        let folder = home().join(name);
        let file = folder.join("index");
        // The number is written before anything else is made: without it there is nothing.
        let Ok(text) = fs::read_to_string(&file) else {
            return Ok(None);
        };
        let index = text
            .trim()
            .parse()
            .with_context(|| format!("failed to understand {}", file.display()))?;
        Ok(Some(Self {
            name: name.to_owned(),
            index,
            folder,
        }))
    }

    /// Takes the lowest free number and writes it down.
    pub(crate) fn create(name: &str) -> Result<Self> {
        check_name(name)?;
        let home = home();
        let _held = lock(&locks().join(".numbers"), "numbers clusters")?;
        fs::create_dir_all(&home)
            .with_context(|| format!("failed to create {}", home.display()))?;
        let mut taken = Vec::new();
        for entry in
            fs::read_dir(&home).with_context(|| format!("failed to read {}", home.display()))?
        {
            let file = entry?.path().join("index");
            if let Ok(text) = fs::read_to_string(file) {
                taken.push(text.trim().to_owned());
            }
        }
        let index = (0..MOST)
            .find(|candidate| !taken.contains(&candidate.to_string()))
            .with_context(|| format!("{MOST} clusters are up already"))?;
        let folder = home.join(name);
        write(&folder.join("index"), index.to_string())?;
        Ok(Self {
            name: name.to_owned(),
            index,
            folder,
        })
    }

    /// A file or folder of the cluster.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    /// The same as text, for command lines and configuration.
    pub(crate) fn text(&self, path: &str) -> String {
        self.file(path).to_string_lossy().into_owned()
    }

    /// The network namespace's name.
    pub(crate) fn namespace(&self) -> String {
        format!("fairlead-{}", self.name)
    }

    /// The cgroup below which everything of the cluster runs, relative to each hierarchy's root.
    pub(crate) fn cgroup(&self) -> String {
        format!("fairlead-{}", self.name)
    }

    /// The CNI network's name, also that of the files CNI keeps outside our folder.
    pub(crate) fn network(&self) -> String {
        format!("fairlead-{}-pods", self.name)
    }

    /// The two ends of the veth pair: on the host, in the namespace.
    pub(crate) fn links(&self) -> (String, String) {
        (format!("fairlead{}", self.index), "uplink".to_owned())
    }

    /// The machine's address on the link to the cluster.
    pub(crate) fn host_address(&self) -> String {
        format!("172.30.{}.1", self.index)
    }

    /// The node's address: API server, node ports.
    pub(crate) fn node_address(&self) -> String {
        format!("172.30.{}.2", self.index)
    }

    /// Addresses of pods.
    pub(crate) fn pod_range(&self) -> String {
        format!("10.{}.0.0/16", 160 + self.index)
    }

    /// Addresses of Services.
    pub(crate) fn service_range(&self) -> String {
        format!("10.{}.0.0/16", 96 + self.index)
    }

    /// The machine's and the node's address of IPv6 on their link; nothing where the machine has no IPv6.
    pub(crate) fn link6(&self) -> Option<(String, String)> {
        let of = |last| format!("fd00:30:{:x}::{last}", self.index);
        has_ipv6().then(|| (of(1), of(2)))
    }

    /// Addresses of pods, of either family that there is, IPv4 first.
    pub(crate) fn pod_ranges(&self) -> Vec<String> {
        of_either(self.pod_range(), format!("fd00:160:{:x}::/64", self.index))
    }

    /// The same of Services.
    pub(crate) fn service_ranges(&self) -> Vec<String> {
        of_either(
            self.service_range(),
            format!("fd00:96:{:x}::/112", self.index),
        )
    }

    /// The `kubernetes` Service's address, by definition the first of the range.
    pub(crate) fn api_service_address(&self) -> String {
        format!("10.{}.0.1", 96 + self.index)
    }

    /// The `kube-dns` Service's address.
    pub(crate) fn dns_address(&self) -> String {
        format!("10.{}.0.10", 96 + self.index)
    }

    /// Where host and pods reach the API server.
    pub(crate) fn api_url(&self) -> String {
        format!("https://{}:6443", self.node_address())
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.file("kubeconfig")
    }

    /// containerd's socket.
    pub(crate) fn containerd_socket(&self) -> PathBuf {
        self.file("containerd.sock")
    }

    /// A program's log.
    pub(crate) fn log(&self, program: &str) -> PathBuf {
        self.file("logs").join(format!("{program}.log"))
    }

    /// Written when the cluster had become ready: `full` or `control-plane`.
    pub(crate) fn ready_marker(&self) -> PathBuf {
        self.file("ready")
    }

    /// The lock that a run changing this cluster holds. It is not in the folder, as `down` removes that.
    pub(crate) fn lock_file(name: &str) -> PathBuf {
        locks().join(name)
    }
}

/// Whether a path lies below another one.
pub(crate) fn below(path: &str, folder: &Path) -> bool {
    Path::new(path).starts_with(folder)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn layout(index: u8) -> Layout {
        Layout {
            name: format!("c{index}"),
            index,
            folder: home().join("c"),
        }
    }

    #[test]
    fn no_two_clusters_share_an_address_range() {
        let ranges: BTreeSet<String> = (0..MOST)
            .map(layout)
            .flat_map(|l| {
                let mut all = [l.pod_ranges(), l.service_ranges()].concat();
                all.extend([l.node_address(), l.links().0]);
                all.extend(l.link6().map(|(_, node)| node));
                all
            })
            .collect();
        let families = if has_ipv6() { 7 } else { 4 };
        assert_eq!(ranges.len(), families * usize::from(MOST));
    }

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for name in ["", "..", "a/b", "A", "-a", "a-", "a b", &"a".repeat(31)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["a", "fairlead", "two-2"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }
}
