//! Where proxies run: two network namespaces joined by a link, and a folder for what they read and say.
//!
//! A place is made anew each time, so that nothing of a killed run is left: programs die with the run that started
//! them (see [`super::process`]), and the namespaces, which outlive it, are removed by the next one.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use rustix::thread::{CpuSet, LinkNameSpaceType, move_into_link_name_space, sched_setaffinity};

use super::certificates;
use super::process::Core;
use crate::command::{capture, command};
use crate::paths::{cache, lock};

/// The namespace of clients and outbound proxies.
pub(crate) const NEAR: &str = "fairlead-near";
/// The namespace of inbound proxies and their upstreams.
pub(crate) const FAR: &str = "fairlead-far";
/// The near end of the link.
pub(crate) const NEAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// The far end of the link.
pub(crate) const FAR_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// The namespaces and the folder; gone when dropped, but for the folder, whose logs may be wanted.
pub(crate) struct Place {
    folder: PathBuf,
    _held: File,
}

impl Place {
    /// Makes the namespaces, the folder and the certificates.
    pub(crate) fn new() -> Result<Self> {
        let folder = cache()?.join("proxies");
        let held = lock(&cache()?.join("proxies.lock"), "has proxies side by side")?;
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("failed to clear {}", folder.display()))?;
        }
        fs::create_dir_all(&folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        remove();
        let place = Self {
            folder,
            _held: held,
        };
        certificates::write_all(&place.folder)?;
        create()?;
        Ok(place)
    }

    /// Where configurations, certificates and logs lie.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        remove();
    }
}

fn create() -> Result<()> {
    for namespace in [NEAR, FAR] {
        ip(&["netns", "add", namespace])?;
    }
    ip(&[
        "-n", NEAR, "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", FAR,
    ])?;
    for (namespace, link, address) in [(NEAR, "near", NEAR_ADDRESS), (FAR, "far", FAR_ADDRESS)] {
        ip(&["-n", namespace, "link", "set", "lo", "up"])?;
        let address = format!("{address}/30");
        ip(&["-n", namespace, "address", "add", &address, "dev", link])?;
        ip(&["-n", namespace, "link", "set", link, "up"])?;
    }
    Ok(())
}

/// Both ends of the link go with their namespaces.
fn remove() {
    for namespace in [NEAR, FAR] {
        if Path::new("/run/netns").join(namespace).exists() {
            let _ = ip(&["netns", "delete", namespace]);
        }
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    capture(&mut command("ip", arguments)).map(drop)
}

/// Runs `work` on a thread of its own in a namespace, beside the load; threads that it starts are there too.
pub(crate) fn within<T: Send>(
    namespace: &str,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let enter = || {
        let path = Path::new("/run/netns").join(namespace);
        let file =
            File::open(&path).with_context(|| format!("failed to open {}", path.display()))?;
        move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("failed to enter {namespace}"))?;
        let mut core = CpuSet::new();
        core.set(Core::Load.number());
        sched_setaffinity(None, &core).context("failed to stay on one core")
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            enter()?;
            work()
        });
        thread
            .join()
            .map_err(|_| anyhow!("a thread in {namespace} panicked"))?
    })
}
