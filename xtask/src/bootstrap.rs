//! What the automation needs of a machine: Debian packages are installed, compilers are asked for by name.

use anyhow::{Result, bail};

use crate::cluster::makes_its_own;
use crate::command::{capture, command, find};
use crate::progress::{note, step};

/// A program and the Debian package that has it.
const PACKAGES: &[(&str, &str)] = &[
    ("/usr/bin/buildah", "buildah"),
    ("/usr/bin/busybox", "busybox-static"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/usr/sbin/ethtool", "ethtool"),
    ("/usr/sbin/ipset", "ipset"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/runc", "runc"),
    ("/usr/bin/socat", "socat"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/git", "git"),
    ("/usr/bin/cc", "gcc"),
    ("/sbin/ip", "iproute2"),
    // For tests of clocks that are off.
    (
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
        "libfaketime",
    ),
];

/// Installs what is missing and checks what it may not install.
pub(crate) fn run() -> Result<()> {
    if makes_its_own()? {
        packages(PACKAGES)?;
        go()?;
    }
    if find("kubectl").is_none() {
        bail!("kubectl is not on PATH: see https://kubernetes.io/docs/tasks/tools/");
    }
    let rust = capture(&mut command("rustc", ["--version"]))?;
    note(&format!("the machine is ready: {}", rust.trim()));
    Ok(())
}

/// Installs the Debian packages whose files are missing.
pub(crate) fn packages(needed: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = needed
        .iter()
        .filter(|(file, _)| !std::path::Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!(
            "this is no Debian; please install the equivalents of {}",
            missing.join(", ")
        );
    }
    step("apt-get update", || {
        capture(&mut apt(&["update", "--quiet"]))
    })?;
    step(&format!("apt-get install {}", missing.join(" ")), || {
        capture(&mut apt(&[
            &["install", "--yes", "--quiet", "--no-install-recommends"],
            missing.as_slice(),
        ]
        .concat()))
    })?;
    Ok(())
}

fn apt(arguments: &[&str]) -> std::process::Command {
    let mut apt = command(
        "apt-get",
        ["-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"],
    );
    apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    apt
}

/// Go 1.26 builds the cluster's programs; none of the product is written in it.
fn go() -> Result<()> {
    if find("go").is_none() {
        bail!("Go 1.26 or newer is not on PATH: see https://go.dev/doc/install");
    }
    let version = capture(&mut command("go", ["env", "GOVERSION"]))?;
    let minor = version
        .trim()
        .strip_prefix("go1.")
        .and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    if minor.is_none_or(|minor| minor < 26) {
        bail!("Go 1.26 or newer is needed, this is {}", version.trim());
    }
    Ok(())
}
