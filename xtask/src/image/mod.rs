//! Container images, all `FROM scratch`, from the Containerfiles under `images/`.
//!
//! In: a name. Out: an archive in the cache, and with `load` the image on the cluster's node. No registry is
//! asked for anything. buildah makes them; where there is none, podman or docker does.

mod debian;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::cluster;
use crate::command::{capture, command, find, show_live};
use crate::paths::{cache, lock, root};
use crate::progress::step;
use crate::{tools, trained};

/// Which images to build.
#[derive(Debug, Args)]
pub(crate) struct Request {
    /// fairlead, fairlead-proxy, shop, postgres, redis, prometheus, or all that a cluster needs
    image: String,
    /// Load them into the cluster
    #[arg(long)]
    load: bool,
    #[command(flatten)]
    which: cluster::Which,
}

/// An image made of one static binary of the workspace.
struct Binary {
    name: &'static str,
    package: &'static str,
    binary: &'static str,
    tag: &'static str,
    profile: &'static str,
}

const BINARIES: &[Binary] = &[
    Binary {
        name: "fairlead",
        package: "fairlead",
        binary: "fairlead",
        tag: "localhost/fairlead:dev",
        profile: "release",
    },
    Binary {
        name: PROXY,
        package: "fairlead-proxy",
        binary: "fairlead-proxy",
        tag: "localhost/fairlead-proxy:dev",
        profile: "proxy",
    },
    Binary {
        name: "shop",
        package: "shop",
        binary: "shop",
        tag: "localhost/shop:dev",
        profile: "release",
    },
];

/// The image of our proxy.
pub(crate) const PROXY: &str = "fairlead-proxy";
/// The image of Prometheus, with its tag.
const PROMETHEUS: (&str, &str) = ("prometheus", "localhost/prometheus:3.5");

/// How a binary is compiled.
pub(crate) enum Build<'a> {
    /// As its profile says.
    Plain,
    /// So that it counts what it does, into this folder.
    Counting(&'a Path),
    /// By what such a one did, as this profile says.
    Trained(&'a Path),
}

impl Build<'_> {
    /// The ending of its target folder, as all have their own, and what the compiler is told.
    fn words(&self) -> (&'static str, String) {
        let told = |what: &str, path: &Path| format!(" -C {what}={}", path.display());
        match self {
            Self::Plain => ("", String::new()),
            Self::Counting(folder) => ("-counting", told("profile-generate", folder)),
            // What is seldom used lies apart, so that it is not loaded with what is.
            Self::Trained(profile) => (
                "-trained",
                format!(
                    "{} -C link-arg=-Wl,-z,keep-text-section-prefix",
                    told("profile-use", profile)
                ),
            ),
        }
    }
}

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds what was asked for, and loads it when wanted.
pub(crate) fn run(request: &Request) -> Result<()> {
    let names: Vec<&str> = match request.image.as_str() {
        "all" => known().collect(),
        name if known().any(|known| known == name) => vec![name],
        name => bail!(
            "no image {name:?}; there are {} and all",
            known().collect::<Vec<_>>().join(", ")
        ),
    };
    for name in names {
        let archive = build(name, true)?;
        if request.load {
            cluster::load_image(&request.which.name, &archive)?;
        } else {
            println!("{}", archive.display());
        }
    }
    Ok(())
}

/// The names of all images.
fn known() -> impl Iterator<Item = &'static str> {
    let own = BINARIES.iter().map(|image| image.name);
    let servers = debian::IMAGES.iter().map(|image| image.name);
    own.chain(servers).chain([PROMETHEUS.0])
}

/// Builds all images and loads them into the named cluster; what takes long to compile well is compiled as anything else is.
pub(crate) fn all_into(cluster: &str) -> Result<()> {
    for name in known() {
        cluster::load_image(cluster, &build(name, false)?)?;
    }
    Ok(())
}

fn build(name: &str, best: bool) -> Result<PathBuf> {
    if let Some(image) = BINARIES.iter().find(|image| image.name == name) {
        return image.build(best);
    }
    if name == PROMETHEUS.0 {
        return of_module(&tools::PROMETHEUS, name, PROMETHEUS.1);
    }
    let image = debian::IMAGES.iter().find(|image| image.name == name);
    image.with_context(|| format!("no image {name}"))?.build()
}

/// Whether there is an image made of a binary of this name.
pub(crate) fn has_binary(name: &str) -> bool {
    BINARIES.iter().any(|image| image.name == name)
}

/// The static binary of an image, compiled where it is out of date.
pub(crate) fn binary(name: &str, build: &Build) -> Result<PathBuf> {
    let image = BINARIES.iter().find(|image| image.name == name);
    image
        .with_context(|| format!("no image {name}"))?
        .compile(build)
}

impl Binary {
    fn compile(&self, build: &Build) -> Result<PathBuf> {
        let (ending, told) = build.words();
        let target = cache()?.join(format!("target-image{ending}"));
        let flags = format!("-C target-feature=+crt-static{told}");
        step(
            &format!("compile {}{ending} for its image", self.name),
            || {
                show_live(
                    command("nice", ["cargo", "build", "--quiet", "--target", TARGET])
                        .args(["--profile", self.profile])
                        .args(["--package", self.package, "--bin", self.binary])
                        .current_dir(root())
                        .env("RUSTFLAGS", &flags)
                        .env("CARGO_TARGET_DIR", &target),
                )
            },
        )?;
        Ok(target.join(TARGET).join(self.profile).join(self.binary))
    }

    /// Builds it; the proxy as well as can be (`best`), or fast.
    fn build(&self, best: bool) -> Result<PathBuf> {
        let binary = match (self.name, best) {
            (PROXY, true) => trained::binary()?,
            (PROXY, false) => self.of_profile("release").compile(&Build::Plain)?,
            _ => self.compile(&Build::Plain)?,
        };
        let beside = match self.name {
            PROXY => Some(debian::NFTABLES.files()?),
            _ => None,
        };
        step(&format!("image {}", self.tag), || {
            archive(self.name, self.tag, |context| {
                let copy = context.join(self.binary);
                fs::copy(&binary, &copy)
                    .with_context(|| format!("failed to copy {}", binary.display()))?;
                if let Some(beside) = &beside {
                    capture(
                        command("cp", ["--archive"])
                            .arg(beside)
                            .arg(context.join("rootfs")),
                    )?;
                }
                Ok(())
            })
        })
    }

    fn of_profile(&self, profile: &'static str) -> Self {
        Self { profile, ..*self }
    }
}

/// The archive of the image that holds a pod's namespaces open.
pub(crate) fn pause() -> Result<PathBuf> {
    of_module(&tools::PAUSE, "pause", "localhost/pause:lab")
}

/// The archive of an image with the program that a module has by this name, built once for each version of its source.
fn of_module(module: &tools::Module, name: &str, tag: &str) -> Result<PathBuf> {
    let folder = module.ensure()?;
    let made = folder.join(format!("{name}.tar"));
    if !made.exists() {
        let archive = step(&format!("image {tag}"), || {
            archive(name, tag, |context| {
                fs::copy(folder.join(name), context.join(name))
                    .with_context(|| format!("failed to copy {name}"))
                    .map(drop)
            })
        })?;
        fs::rename(&archive, &made)
            .with_context(|| format!("failed to name {}", made.display()))?;
    }
    Ok(made)
}

/// Builds `images/<name>/Containerfile` with what `fill` puts beside it, into an archive in the cache.
fn archive(name: &str, tag: &str, fill: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let images = cache()?.join("images");
    let _held = lock(
        &images.join(format!("{name}.lock")),
        &format!("builds image {name}"),
    )?;
    let context = images.join(format!("{name}.context"));
    remove(&context)?;
    let source = root().join("images").join(name);
    fs::create_dir_all(&context)
        .with_context(|| format!("failed to create {}", context.display()))?;
    for entry in
        fs::read_dir(&source).with_context(|| format!("failed to read {}", source.display()))?
    {
        let file = entry.with_context(|| format!("failed to read {}", source.display()))?;
        fs::copy(file.path(), context.join(file.file_name()))
            .context("failed to copy the image's files")?;
    }
    fill(&context)?;
    let partial = images.join(format!("{name}.partial"));
    remove(&partial)?;
    build_with_what_is_here(tag, &context, &partial)?;
    remove(&context)?;
    let made = images.join(format!("{name}.tar"));
    fs::rename(&partial, &made).with_context(|| format!("failed to name {}", made.display()))?;
    Ok(made)
}

fn build_with_what_is_here(tag: &str, context: &Path, archive: &Path) -> Result<()> {
    let destination = archive.to_string_lossy();
    if find("buildah").is_some() {
        capture(
            buildah()?
                .args(["bud", "--quiet", "--layers=false", "--tag", tag])
                .arg(context),
        )?;
        capture(buildah()?.args([
            "push",
            "--quiet",
            tag,
            &format!("oci-archive:{destination}:{tag}"),
        ]))?;
        return capture(buildah()?.args(["rmi", "--force", tag])).map(drop);
    }
    let Some(program) = ["podman", "docker"]
        .into_iter()
        .find(|program| find(program).is_some())
    else {
        bail!(
            "none of buildah, podman and docker is here to build images; `cargo xtask bootstrap` installs buildah"
        );
    };
    let containerfile = context.join("Containerfile");
    capture(
        command(program, ["build", "--tag", tag, "--file"])
            .arg(containerfile)
            .arg(context),
    )?;
    capture(&mut command(
        program,
        ["save", "--output", &destination, tag],
    ))
    .map(drop)
}

/// buildah with a store of its own, so that nothing is left in the machine's.
fn buildah() -> Result<Command> {
    let store = cache()?.join("buildah");
    let mut buildah = command("buildah", ["--storage-driver", "vfs", "--root"]);
    buildah
        .arg(store.join("root"))
        .arg("--runroot")
        .arg(store.join("run"));
    Ok(buildah)
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("failed to remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
