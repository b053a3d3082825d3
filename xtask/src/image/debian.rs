//! Images of servers that the lab's resource definitions run, made of Debian packages: unpacked, never
//! installed, and complete with the libraries they load.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::archive;
use crate::command::{capture, command, find};
use crate::paths::{cache, lock, root, write};
use crate::progress::step;

/// An image made of Debian packages.
pub(crate) struct Debian {
    /// Its name; the Containerfile is in `images/<name>`.
    pub(crate) name: &'static str,
    tag: &'static str,
    /// The packages with the programs and all libraries they load, the C library included.
    packages: &'static [&'static str],
    /// Folders and files of the packages that are not taken.
    without: &'static [&'static str],
    /// Folders with programs and libraries whose own libraries must all be there.
    complete: &'static [&'static str],
    /// Folders that belong to the server's user.
    owned: &'static [&'static str],
}

/// The uid and gid that the servers run as.
const SERVER: u32 = 999;

/// All of them.
pub(crate) const IMAGES: &[Debian] = &[
    Debian {
        name: "postgres",
        tag: "localhost/postgres:15",
        packages: &[
            "libaudit1",
            "libbsd0",
            "libc-bin",
            "libc6",
            "libcap-ng0",
            "libcap2",
            "libcom-err2",
            "libcrypt1",
            "libedit2",
            "libffi8",
            "libgcc-s1",
            "libgcrypt20",
            "libgmp10",
            "libgnutls30",
            "libgpg-error0",
            "libgssapi-krb5-2",
            "libhogweed6",
            "libicu72",
            "libidn2-0",
            "libk5crypto3",
            "libkeyutils1",
            "libkrb5-3",
            "libkrb5support0",
            "libldap-2.5-0",
            "liblz4-1",
            "liblzma5",
            "libmd0",
            "libnettle8",
            "libp11-kit0",
            "libpam0g",
            "libpcre2-8-0",
            "libpq5",
            "libreadline8",
            "libsasl2-2",
            "libselinux1",
            "libssl3",
            "libstdc++6",
            "libsystemd0",
            "libtasn1-6",
            "libtinfo6",
            "libunistring2",
            "libuuid1",
            "libxml2",
            "libxslt1.1",
            "libzstd1",
            "postgresql-15",
            "postgresql-client-15",
            "tzdata",
            "zlib1g",
        ],
        // Compiling queries would need LLVM, and Perl, Python and Tcl their languages.
        without: &[
            "usr/lib/postgresql/15/lib/bitcode",
            "usr/lib/postgresql/15/lib/llvmjit.so",
        ],
        complete: &["usr/lib/postgresql/15/bin", "usr/lib/postgresql/15/lib"],
        owned: &["var/lib/postgresql/data"],
    },
    Debian {
        name: "redis",
        tag: "localhost/redis:7",
        packages: &[
            "libatomic1",
            "libc6",
            "libcap2",
            "libgcc-s1",
            "libgcrypt20",
            "libgpg-error0",
            "libjemalloc2",
            "liblz4-1",
            "liblzf1",
            "liblzma5",
            "libssl3",
            "libstdc++6",
            "libsystemd0",
            "libzstd1",
            "redis-server",
            "redis-tools",
        ],
        without: &[],
        complete: &["usr/bin"],
        owned: &["data"],
    },
];

/// nft, with which the image of the proxy brings a pod's connections to it.
pub(crate) const NFTABLES: Debian = Debian {
    name: "nftables",
    tag: "",
    packages: &[
        "libbsd0",
        "libc6",
        "libedit2",
        "libgmp10",
        "libjansson4",
        "libmd0",
        "libmnl0",
        "libnftables1",
        "libnftnl11",
        "libtinfo6",
        "libxtables12",
        "nftables",
    ],
    without: &["etc/nftables.conf", "usr/share/nftables"],
    complete: &["usr/sbin"],
    owned: &[],
};

/// What no container needs of any package.
const CLUTTER: &[&str] = &[
    "etc/init.d",
    "lib/systemd",
    "lib/udev",
    "usr/lib/tmpfiles.d",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/share/bash-completion",
    "usr/share/bug",
    "usr/share/doc",
    "usr/share/doc-base",
    "usr/share/lintian",
    "usr/share/locale",
    "usr/share/man",
];

impl Debian {
    /// Builds the image's archive, unless it was built of the same files before.
    pub(crate) fn build(&self) -> Result<PathBuf> {
        let images = cache()?.join("images");
        let (made, stamp) = (
            images.join(format!("{}.tar", self.name)),
            images.join(format!("{}.stamp", self.name)),
        );
        let fingerprint = self.fingerprint(&["Containerfile", "entrypoint.sh"])?;
        if made.exists() && fs::read_to_string(&stamp).is_ok_and(|known| known == fingerprint) {
            return Ok(made);
        }
        needs(&["apt-get", "dpkg-deb", "busybox"])?;
        step(
            &format!("image {} of Debian packages (once)", self.tag),
            || {
                let folder = cache()?.join("packages").join(self.name);
                let packages = self.download(&folder)?;
                let made = archive(self.name, self.tag, |context| {
                    self.serve(&packages, &context.join("rootfs"))
                })?;
                super::remove(&folder)?;
                Ok(made)
            },
        )?;
        write(&stamp, fingerprint)?;
        Ok(made)
    }

    /// The packages' files alone, in a folder of the cache.
    pub(crate) fn files(&self) -> Result<PathBuf> {
        let packages = cache()?.join("packages");
        let (made, stamp) = (
            packages.join(format!("{}.rootfs", self.name)),
            packages.join(format!("{}.stamp", self.name)),
        );
        let fingerprint = self.fingerprint(&[])?;
        if made.exists() && fs::read_to_string(&stamp).is_ok_and(|known| known == fingerprint) {
            return Ok(made);
        }
        needs(&["apt-get", "dpkg-deb"])?;
        let _held = lock(
            &packages.join(format!("{}.lock", self.name)),
            "unpacks packages",
        )?;
        step(&format!("{} of Debian packages (once)", self.name), || {
            super::remove(&made)?;
            let folder = packages.join(self.name);
            self.unpack(&self.download(&folder)?, &made)?;
            super::remove(&folder)
        })?;
        write(&stamp, fingerprint)?;
        Ok(made)
    }

    fn fingerprint(&self, files: &[&str]) -> Result<String> {
        let mut hash = Sha256::new();
        for part in [self.packages, self.without, self.owned, CLUTTER] {
            hash.update(part.join(" "));
        }
        for file in files {
            let file = root().join("images").join(self.name).join(file);
            hash.update(
                fs::read(&file).with_context(|| format!("failed to read {}", file.display()))?,
            );
        }
        Ok(hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect())
    }

    /// Fetches the packages' files; the package lists are renewed when they turn out to be too old.
    fn download(&self, folder: &Path) -> Result<Vec<PathBuf>> {
        super::remove(folder)?;
        fs::create_dir_all(folder)
            .with_context(|| format!("failed to create {}", folder.display()))?;
        let fetch = || {
            let mut apt = command(
                "apt-get",
                [
                    "-o",
                    "APT::Sandbox::User=root",
                    "-o",
                    "Acquire::Retries=3",
                    "--quiet",
                ],
            );
            capture(apt.arg("download").args(self.packages).current_dir(folder))
        };
        if fetch().is_err() {
            capture(&mut command("apt-get", ["update", "--quiet"]))?;
            fetch()?;
        }
        fs::read_dir(folder)
            .with_context(|| format!("failed to read {}", folder.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect()
    }

    fn unpack(&self, packages: &[PathBuf], rootfs: &Path) -> Result<()> {
        fs::create_dir_all(rootfs)
            .with_context(|| format!("failed to create {}", rootfs.display()))?;
        for package in packages {
            capture(command("dpkg-deb", ["--extract"]).arg(package).arg(rootfs))?;
        }
        for path in CLUTTER.iter().chain(self.without) {
            super::remove(&rootfs.join(path))?;
        }
        self.check_complete(rootfs)
    }

    /// Unpacks them with what a server needs beside.
    fn serve(&self, packages: &[PathBuf], rootfs: &Path) -> Result<()> {
        self.unpack(packages, rootfs)?;
        shell(rootfs)?;
        write(
            &rootfs.join("etc/passwd"),
            format!(
                "root:x:0:0::/:/bin/sh\n{name}:x:{SERVER}:{SERVER}::/tmp:/bin/sh\n",
                name = self.name
            ),
        )?;
        write(
            &rootfs.join("etc/group"),
            format!("root:x:0:\n{}:x:{SERVER}:\n", self.name),
        )?;
        let temporary = rootfs.join("tmp");
        fs::create_dir_all(&temporary).context("failed to create /tmp of the image")?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o1777))
            .context("failed to open /tmp")?;
        for folder in self.owned {
            let folder = rootfs.join(folder);
            fs::create_dir_all(&folder)
                .with_context(|| format!("failed to create {}", folder.display()))?;
            std::os::unix::fs::chown(&folder, Some(SERVER), Some(SERVER))
                .context("failed to give a folder away")?;
        }
        Ok(())
    }

    /// Asks the image's own loader whether it finds every library, so that a missing one shows here.
    fn check_complete(&self, rootfs: &Path) -> Result<()> {
        for folder in self.complete {
            for entry in fs::read_dir(rootfs.join(folder))
                .with_context(|| format!("no {folder} in the packages"))?
            {
                let path = entry.context("failed to read the image's files")?.path();
                if !is_elf(&path) {
                    continue;
                }
                let inside = Path::new("/").join(path.strip_prefix(rootfs).unwrap_or(&path));
                let listed = capture(
                    command("chroot", [rootfs])
                        .args(["/lib64/ld-linux-x86-64.so.2", "--list"])
                        .arg(&inside),
                )?;
                if let Some(missing) = listed.lines().find(|line| line.contains("not found")) {
                    bail!("{} lacks a library: {}", inside.display(), missing.trim());
                }
            }
        }
        Ok(())
    }
}

fn needs(programs: &[&str]) -> Result<()> {
    for program in programs {
        if find(program).is_none() {
            bail!("the image is made of Debian packages, and {program} is not here");
        }
    }
    Ok(())
}

fn is_elf(path: &Path) -> bool {
    use std::io::Read;
    let mut start = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    path.is_file() && read.is_ok() && start == *b"\x7fELF"
}

/// busybox as the shell and the few programs that the entry points and initdb call.
fn shell(rootfs: &Path) -> Result<()> {
    let busybox = find("busybox").context("busybox is not here")?;
    let folder = rootfs.join("bin");
    fs::create_dir_all(&folder).context("failed to create /bin of the image")?;
    fs::copy(busybox, folder.join("busybox")).context("failed to copy busybox")?;
    for name in [
        "sh", "cat", "sed", "rm", "mv", "mkdir", "ls", "sleep", "nc", "wget",
    ] {
        symlink("busybox", folder.join(name))
            .with_context(|| format!("failed to name busybox {name}"))?;
    }
    Ok(())
}
