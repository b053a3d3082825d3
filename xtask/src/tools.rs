//! The Go programs that a real cluster is made of and that proxies are tested with, built from pinned modules under `e2e`.
//!
//! A module's binaries lie in the cache in a folder named by a hash of the module's own files, so a second run
//! builds nothing and a changed pin builds only its module. A build goes into a folder beside it that is
//! renamed when complete; a killed build leaves nothing that could be taken for a finished one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::command::{capture, find};
use crate::paths::{cache, lock, root};
use crate::progress::step;
use crate::proxies;

/// One pinned Go module and what is built from it.
pub(crate) struct Module {
    /// What it is called, in the cache too.
    pub(crate) name: &'static str,
    /// The folder under `e2e`.
    folder: &'static str,
    /// What `go build` is asked for; several packages give several binaries.
    packages: &'static [&'static str],
    tags: &'static str,
    /// Flags for the linker, beside those that leave debug information out.
    link: &'static str,
    /// The versions: `<pins>.mod` and `<pins>.sum`, which is `go` unless a folder is built of several.
    pins: &'static str,
}

/// etcd, the API server, the rest of the control plane and the node's programs in one binary, `kubernetes`.
pub(crate) const KUBERNETES: Module = Module {
    name: "kubernetes",
    folder: "cluster/kubernetes",
    packages: &["."],
    tags: "",
    link: "-X k8s.io/component-base/version.gitVersion=v1.36.3 \
           -X k8s.io/component-base/version.gitMajor=1 \
           -X k8s.io/component-base/version.gitMinor=36",
    pins: "go",
};
/// The same of the oldest version that Fairlead runs on: two minor versions before the newest that it knows.
pub(crate) const KUBERNETES_OLDEST: Module = Module {
    name: "kubernetes-1.35",
    folder: "cluster/kubernetes",
    packages: &["."],
    tags: "",
    link: "-X k8s.io/component-base/version.gitVersion=v1.35.4 \
           -X k8s.io/component-base/version.gitMajor=1 \
           -X k8s.io/component-base/version.gitMinor=35",
    pins: "go-1.35",
};
/// `containerd`, `containerd-shim-runc-v2` and `ctr`.
pub(crate) const CONTAINERD: Module = Module {
    name: "containerd",
    folder: "cluster/containerd",
    packages: &["tool"],
    tags: "no_btrfs,no_devmapper,no_zfs",
    link: "-X github.com/containerd/containerd/v2/version.Version=2.2.1",
    pins: "go",
};
/// `coredns`.
pub(crate) const COREDNS: Module = Module {
    name: "coredns",
    folder: "cluster/coredns",
    packages: &["tool"],
    tags: "",
    link: "",
    pins: "go",
};
/// `pause`.
pub(crate) const PAUSE: Module = Module {
    name: "pause",
    folder: "cluster/pause",
    packages: &["."],
    tags: "",
    link: "",
    pins: "go",
};
/// `helm`.
pub(crate) const HELM: Module = Module {
    name: "helm",
    folder: "cluster/helm",
    packages: &["tool"],
    tags: "",
    link: "",
    pins: "go",
};
/// `prometheus`, which finds what to scrape by Kubernetes alone.
pub(crate) const PROMETHEUS: Module = Module {
    name: "prometheus",
    folder: "cluster/prometheus",
    packages: &["tool"],
    tags: "remove_all_sd,enable_kubernetes_sd",
    link: "",
    pins: "go",
};
/// `kstatus`: objects as JSON in, what kstatus makes of each out.
pub(crate) const KSTATUS: Module = Module {
    name: "kstatus",
    folder: "cluster/kstatus",
    packages: &["."],
    tags: "",
    link: "",
    pins: "go",
};
/// `agent`: Argo CD's sync engine.
pub(crate) const GITOPS: Module = Module {
    name: "gitops",
    folder: "cluster/gitops",
    packages: &["tool"],
    tags: "",
    link: "",
    pins: "go",
};

/// `client` and `server`: gRPC's own tests between implementations.
pub(crate) const GRPC_INTEROP: Module = Module {
    name: "grpc-interop",
    folder: "proxy/grpc",
    packages: &[
        "google.golang.org/grpc/interop/client",
        "google.golang.org/grpc/interop/server",
    ],
    tags: "",
    link: "",
    pins: "go",
};
/// `client` and `server`: gRPC's own benchmark.
pub(crate) const GRPC_BENCHMARK: Module = Module {
    name: "grpc-benchmark",
    folder: "proxy/grpc",
    packages: &[
        "google.golang.org/grpc/benchmark/client",
        "google.golang.org/grpc/benchmark/server",
    ],
    tags: "",
    link: "",
    pins: "go",
};
/// `h2spec`: what a server must do by the specification of HTTP/2.
pub(crate) const H2SPEC: Module = Module {
    name: "h2spec",
    folder: "proxy/h2spec",
    packages: &["tool"],
    tags: "",
    link: "",
    pins: "go",
};

/// What a node needs beside Kubernetes.
pub(crate) const NODE: &[&Module] = &[&CONTAINERD, &COREDNS, &PAUSE];
/// Everything, the tools that only tests use included, and without the versions of Kubernetes that are asked for by number.
pub(crate) const ALL: &[&Module] = &[
    &KUBERNETES,
    &CONTAINERD,
    &COREDNS,
    &PAUSE,
    &HELM,
    &PROMETHEUS,
    &KSTATUS,
    &GITOPS,
    &GRPC_INTEROP,
    &GRPC_BENCHMARK,
    &H2SPEC,
];

impl Module {
    /// The folder of the built binaries, building them first when they are missing.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        let tools = cache()?.join("tools");
        let folder = tools.join(format!("{}-{}", self.name, self.fingerprint()?));
        if folder.is_dir() {
            return Ok(folder);
        }
        let _held = lock(
            &tools.join(format!("{}.lock", self.name)),
            &format!("builds {}", self.name),
        )?;
        if folder.is_dir() {
            return Ok(folder);
        }
        step(
            &format!("build {} (once; kept in {})", self.name, folder.display()),
            || self.build(&tools, &folder),
        )?;
        Ok(folder)
    }

    fn build(&self, tools: &Path, folder: &Path) -> Result<()> {
        if find("go").is_none() {
            bail!(
                "Go 1.26 or newer is needed to build {}: see https://go.dev/doc/install",
                self.name
            );
        }
        let partial = tools.join(format!("{}.partial", self.name));
        if partial.exists() {
            fs::remove_dir_all(&partial)
                .with_context(|| format!("failed to clear {}", partial.display()))?;
        }
        fs::create_dir_all(&partial)
            .with_context(|| format!("failed to create {}", partial.display()))?;
        let mut go = Command::new("nice");
        go.args([
            "go",
            "build",
            "-buildvcs=false",
            "-mod=readonly",
            &format!("-modfile={}.mod", self.pins),
            "-tags",
            self.tags,
            "-ldflags",
        ])
        .arg(format!("-s -w {}", self.link))
        .arg("-o")
        .arg(partial.join(""))
        .args(self.packages)
        .current_dir(self.source())
        .env("CGO_ENABLED", "0")
        .env_remove("GOFLAGS");
        capture(&mut go)?;
        fs::rename(&partial, folder).with_context(|| format!("failed to name {}", folder.display()))
    }

    fn source(&self) -> PathBuf {
        root().join("e2e").join(self.folder)
    }

    /// The first 16 digits of a hash over the module's files and how they are built.
    fn fingerprint(&self) -> Result<String> {
        let source = self.source();
        let mut files: Vec<PathBuf> = fs::read_dir(&source)
            .with_context(|| format!("failed to read {}", source.display()))?
            .map(|entry| entry.map(|found| found.path()))
            .collect::<std::io::Result<_>>()?;
        files.retain(|file| {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            name.strip_suffix(".mod") == Some(self.pins)
                || name.strip_suffix(".sum") == Some(self.pins)
                || name.ends_with(".go")
        });
        files.sort();
        let mut hash = Sha256::new();
        for file in files {
            hash.update(
                fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?,
            );
        }
        hash.update(self.packages.join(" "));
        hash.update(self.tags);
        hash.update(self.link);
        let digest = hash.finalize();
        Ok(digest
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }
}

/// Builds what is missing of the named modules.
pub(crate) fn ensure(modules: &[&Module]) -> Result<()> {
    for module in modules {
        module.ensure()?;
    }
    Ok(())
}

/// Builds everything, or one module, whose folder is then printed; `envoy` and `grpc` are installed, not built, and Envoy's program
/// or the folder is printed.
pub(crate) fn run(name: Option<&str>) -> Result<()> {
    let Some(name) = name else { return ensure(ALL) };
    if name == "envoy" {
        println!("{}", proxies::install::envoy()?.display());
        return Ok(());
    }
    if name == "grpc" {
        println!("{}", proxies::install::grpc()?.display());
        return Ok(());
    }
    let Some(module) = ALL.iter().find(|module| module.name == name) else {
        let known: Vec<&str> = ALL.iter().map(|module| module.name).collect();
        bail!(
            "no module {name:?}; there are {}, envoy and grpc",
            known.join(", ")
        );
    };
    println!("{}", module.ensure()?.display());
    Ok(())
}
