//! Brings the plug-in to a node and keeps it there.
//!
//! In: two folders of the node, that of its plug-ins and that of its configuration. Out: the program with nft and all that it loads,
//! and an entry behind the plug-ins of the first configuration, which is the one that counts. Others write there too, so the folders
//! are watched. Files appear whole or not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::conflist::{self, ConflistError};
use super::daemon_set::{DaemonSet, Found};
use super::{ANNOTATIONS, PLUGIN, TOOLS};
use crate::capture::{CaptureError, Nft};

/// What is added to the name of a configuration that a list stands for, so that runtimes leave it alone.
const SAVED: &str = "fairlead-saved";
/// The endings of configurations that runtimes read.
const READ: [&str; 3] = ["conf", "conflist", "json"];
/// How long others may take to finish what they write.
const SETTLE: Duration = Duration::from_millis(100);
/// How often the folders are looked at though nothing was heard of them.
const LOOK: Duration = Duration::from_secs(30);
/// How often the API server is asked whether the plug-in is to go, before it stays.
const ATTEMPTS: u32 = 2;

/// Why the plug-in is not in place.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A file or folder cannot be read, written or watched.
    #[error("failed to {action} {path}: {source}")]
    File {
        /// What was to be done.
        action: &'static str,
        /// With which.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A configuration of the node is none that a plug-in can be added to.
    #[error("{path}: {source}")]
    Configuration {
        /// Which.
        path: PathBuf,
        /// The cause.
        source: ConflistError,
    },
    /// nft does not run on this node.
    #[error("{0}")]
    Nft(CaptureError),
    /// There is no configuration yet.
    #[error("{0} has no configuration yet; the plug-in that makes the network of pods brings one")]
    NoConfiguration(PathBuf),
    /// It was put in place by nobody, or taken out by somebody.
    #[error("{0} is not as it should be")]
    NotInPlace(PathBuf),
    /// Signals cannot be waited for.
    #[error("failed to listen for signals: {0}")]
    Signals(io::Error),
}

/// What is brought, and where to.
#[derive(Debug, Clone)]
pub struct Installer {
    /// The folder of the node's plug-ins.
    pub programs: PathBuf,
    /// The folder of the node's configuration.
    pub configuration: PathBuf,
    /// Namespaces whose pods are never looked at.
    pub exempt: Vec<String>,
    /// nft, which is brought too.
    pub nft: PathBuf,
}

impl Installer {
    /// Puts the plug-in in place, where it is not; the configuration that has it, and whether anything changed.
    ///
    /// # Errors
    /// When something is in the way, or there is no configuration yet.
    pub fn put_in(&self) -> Result<(PathBuf, bool), InstallError> {
        let brought = self.bring()?;
        let tool = Nft::within(&self.tools());
        if brought {
            tool.run(&["--version"], "").map_err(InstallError::Nft)?;
        }
        let path = self.first()?;
        let text = read(&path)?;
        let entry = self.entry();
        let wrong = |source| InstallError::Configuration {
            path: path.clone(),
            source,
        };
        if path.extension().is_some_and(|end| end == "conflist") {
            let Some(with) = conflist::insert(&text, &entry).map_err(wrong)? else {
                return Ok((path, brought));
            };
            put(&path, &mut with.as_bytes(), mode(&path)?)?;
            return Ok((path, true));
        }
        // What stands for it comes first, so that there is a configuration at any time.
        let list = path.with_extension("conflist");
        let text = conflist::wrap(&text, &entry).map_err(wrong)?;
        put(&list, &mut text.as_bytes(), mode(&path)?)?;
        rename(&path, &saved(&path))?;
        Ok((list, true))
    }

    /// Whether the plug-in is in place.
    ///
    /// # Errors
    /// Says what is not.
    pub fn check(&self) -> Result<(), InstallError> {
        let program = self.programs.join(PLUGIN);
        if !program.exists() {
            return Err(InstallError::NotInPlace(program));
        }
        if !Nft::within(&self.tools()).exists() {
            return Err(InstallError::NotInPlace(self.tools()));
        }
        let first = self.first()?;
        match conflist::has(&read(&first)?, &self.entry()) {
            true => Ok(()),
            false => Err(InstallError::NotInPlace(first)),
        }
    }

    /// Takes the plug-in out: of the configuration first, so that nobody calls what is gone.
    ///
    /// # Errors
    /// When something is in the way.
    pub fn take_out(&self) -> Result<(), InstallError> {
        for path in self.configurations(&["conflist"])? {
            let text = read(&path)?;
            if let Some(before) = self.stands_for(&path, &text) {
                rename(&before, &before.with_extension(""))?;
                unlink(&path)?;
                continue;
            }
            // One that is no list never had it.
            if let Ok(Some(without)) = conflist::remove(&text) {
                put(&path, &mut without.as_bytes(), mode(&path)?)?;
            }
        }
        unlink(&self.programs.join(PLUGIN))?;
        let tools = self.tools();
        match fs::remove_dir_all(&tools) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &tools)(source))
            }
            _ => Ok(()),
        }
    }

    /// Keeps the plug-in in place until the process is told to end; then takes it out if its DaemonSet goes too.
    ///
    /// # Errors
    /// When the folders cannot be watched, or it cannot be taken out.
    pub async fn keep(&self, owner: Option<&DaemonSet>) -> Result<(), InstallError> {
        let mut terminate = signal(SignalKind::terminate()).map_err(InstallError::Signals)?;
        let mut watched = Watched::new(&[&self.configuration, &self.programs])?;
        tracing::info!(plugin = PLUGIN, programs = %self.programs.display(), "kept on this node");
        let is_known = match owner {
            Some(owner) => may_ask(owner).await,
            None => false,
        };
        let mut said = String::new();
        loop {
            let now = match self.put_in() {
                Ok((path, true)) => format!("{} has the plug-in", path.display()),
                Ok((_, false)) => String::new(),
                Err(error) => error.to_string(),
            };
            if !now.is_empty() && now != said {
                tracing::info!(plugin = PLUGIN, "{now}");
            }
            said = now;
            tokio::select! {
                _ = terminate.recv() => break,
                _ = tokio::signal::ctrl_c() => break,
                () = watched.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        match owner {
            Some(owner) if is_to_go(owner, is_known).await => {
                self.take_out()?;
                tracing::info!(plugin = PLUGIN, "taken out of this node");
            }
            _ => tracing::info!(plugin = PLUGIN, "stays on this node"),
        }
        Ok(())
    }

    /// The single configuration that a list stands for: one that others have changed since is theirs.
    fn stands_for(&self, path: &Path, text: &str) -> Option<PathBuf> {
        let mut kept = READ.iter().map(|end| saved(&path.with_extension(end)));
        kept.find(|kept| {
            let single = fs::read_to_string(kept).unwrap_or_default();
            let made = conflist::wrap(&single, &self.entry()).unwrap_or_default();
            let (made, found) = (conflist::remove(&made), conflist::remove(text));
            matches!((made, found), (Ok(Some(made)), Ok(Some(found))) if made == found)
        })
    }

    fn tools(&self) -> PathBuf {
        self.programs.join(TOOLS)
    }

    /// What the configuration says of the plug-in.
    fn entry(&self) -> String {
        let entry = json!({
            "type": PLUGIN,
            "capabilities": {ANNOTATIONS: true},
            "exemptNamespaces": self.exempt,
        });
        entry.to_string()
    }

    /// The configurations with these endings, in the order in which runtimes look at them.
    fn configurations(&self, endings: &[&str]) -> Result<Vec<PathBuf>, InstallError> {
        let listed = fs::read_dir(&self.configuration);
        let listed = listed.map_err(failed("read", &self.configuration))?;
        let is_read = |path: &PathBuf| {
            let end = path.extension().and_then(|end| end.to_str());
            end.is_some_and(|end| endings.contains(&end)) && path.is_file()
        };
        let paths = listed.flatten().map(|entry| entry.path());
        let mut paths: Vec<PathBuf> = paths.filter(is_read).collect();
        paths.sort_unstable();
        Ok(paths)
    }

    /// The configuration that counts.
    fn first(&self) -> Result<PathBuf, InstallError> {
        let all = self.configurations(&READ)?;
        let first = all.into_iter().next();
        first.ok_or_else(|| InstallError::NoConfiguration(self.configuration.clone()))
    }

    /// Brings the program, and nft with what it loads; whether any of it was not there.
    fn bring(&self) -> Result<bool, InstallError> {
        let own = std::env::current_exe();
        let own = own.map_err(failed("find", Path::new("/proc/self/exe")))?;
        let tools = self.tools();
        fs::create_dir_all(&tools).map_err(failed("create", &tools))?;
        let mut wanted = loaded_by(&self.nft)?;
        wanted.insert(Nft::PROGRAM.to_owned(), self.nft.clone());
        let mut brought = false;
        for (name, from) in wanted {
            brought |= bring(&from, &tools.join(name))?;
        }
        // Last: it works from the moment at which it is there.
        Ok(bring(&own, &self.programs.join(PLUGIN))? || brought)
    }
}

/// What a program loads, and what loads it, by the names in the folder beside the plug-in; nothing where it needs none.
fn loaded_by(program: &Path) -> Result<BTreeMap<String, PathBuf>, InstallError> {
    // As ldd does.
    let mut trace = Command::new(program);
    let output = trace.env("LD_TRACE_LOADED_OBJECTS", "1").output();
    let output = output.map_err(failed("run", program))?;
    Ok(parse_loaded(&String::from_utf8_lossy(&output.stdout)))
}

/// The lines that the loader writes: `name => path (address)` of a library, `path (address)` of itself.
fn parse_loaded(text: &str) -> BTreeMap<String, PathBuf> {
    let line = |line: &str| {
        let (line, _) = line.trim().rsplit_once(" (0x")?;
        match line.split_once(" => ") {
            Some((name, path)) => {
                let name = Path::new(name).file_name()?.to_str()?.to_owned();
                let is_loader = name.starts_with("ld-") || name.starts_with("ld64");
                let name = if is_loader {
                    Nft::LOADER.to_owned()
                } else {
                    name
                };
                Some((name, PathBuf::from(path)))
            }
            None if line.starts_with('/') => Some((Nft::LOADER.to_owned(), PathBuf::from(line))),
            // The kernel's own, which is no file.
            None => None,
        }
    };
    text.lines().filter_map(line).collect()
}

/// Copies a program or library, unless it is there; whether it was not.
fn bring(from: &Path, to: &Path) -> Result<bool, InstallError> {
    if is_same(from, to).unwrap_or(false) {
        return Ok(false);
    }
    let mut wanted = File::open(from).map_err(failed("read", from))?;
    put(to, &mut wanted, 0o755)?;
    Ok(true)
}

/// Whether two files have the same bytes.
fn is_same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = one.read(&mut left)?;
        if read == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..read])?;
        if left[..read] != right[..read] {
            return Ok(false);
        }
    }
}

fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> InstallError + 'a {
    move |source| InstallError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

fn read(path: &Path) -> Result<String, InstallError> {
    fs::read_to_string(path).map_err(failed("read", path))
}

fn mode(path: &Path) -> Result<u32, InstallError> {
    let found = fs::metadata(path).map_err(failed("look at", path))?;
    Ok(found.permissions().mode() & 0o777)
}

fn rename(from: &Path, to: &Path) -> Result<(), InstallError> {
    fs::rename(from, to).map_err(failed("rename", from))
}

fn unlink(path: &Path) -> Result<(), InstallError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove", path)(source))
        }
        _ => Ok(()),
    }
}

/// Where a configuration is kept while a list stands for it.
fn saved(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(SAVED);
    PathBuf::from(name)
}

/// Writes a file whole, under a name that nobody reads, and gives it its own then.
fn put(path: &Path, content: &mut dyn Read, mode: u32) -> Result<(), InstallError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".fairlead-new");
    let next = PathBuf::from(name);
    let mut write = || -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&next)?;
        file.set_permissions(Permissions::from_mode(mode))?;
        io::copy(content, &mut file)?;
        file.sync_all()?;
        drop(file);
        fs::rename(&next, path)
    };
    write().map_err(failed("write", path))
}

/// Folders that are listened to, by a thread of their own.
struct Watched(mpsc::Receiver<()>);

impl Watched {
    fn new(folders: &[&Path]) -> Result<Self, InstallError> {
        let first = folders.first().copied().unwrap_or(Path::new("/"));
        let events = inotify::init(CreateFlags::CLOEXEC)
            .map_err(|error| failed("watch", first)(error.into()))?;
        let what = WatchFlags::CLOSE_WRITE | WatchFlags::MOVE | WatchFlags::DELETE;
        for folder in folders {
            inotify::add_watch(&events, *folder, what)
                .map_err(|error| failed("watch", folder)(error.into()))?;
        }
        // One that waits tells of all before it.
        let (heard, received) = mpsc::channel(1);
        thread::spawn(move || {
            let mut read = [0_u8; 4096];
            while rustix::io::read(&events, &mut read).is_ok() {
                if let Err(TrySendError::Closed(())) = heard.try_send(()) {
                    return;
                }
            }
        });
        Ok(Self(received))
    }

    /// Waits until something changed, and a moment for it to be done.
    async fn changed(&mut self) {
        if self.0.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(SETTLE).await;
    }
}

/// Whether the API server tells of the DaemonSet, without which nobody knows when the plug-in is to go.
async fn may_ask(owner: &DaemonSet) -> bool {
    match owner.find().await {
        Ok(Found::There | Found::Gone) => true,
        Ok(Found::Forbidden) => {
            tracing::warn!(
                ?owner,
                "may not be read by this account: the plug-in will stay on the node when it goes"
            );
            false
        }
        // The network may not be there yet; what it says in the end is what counts.
        Err(_) => true,
    }
}

/// Whether the DaemonSet goes, and the plug-in with it. Rights that were there and are gone went with it.
async fn is_to_go(owner: &DaemonSet, is_known: bool) -> bool {
    for _ in 0..ATTEMPTS {
        match owner.find().await {
            Ok(Found::There) => return false,
            Ok(Found::Gone) => return true,
            Ok(Found::Forbidden) => return is_known,
            Err(error) => tracing::warn!(%error, "nobody says whether the plug-in is to go"),
        }
    }
    false
}
