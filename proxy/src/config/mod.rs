//! Where the configuration comes from: a file, and the control plane that it may name.

mod ads;
pub(crate) mod connect;
mod file;
mod identity;
mod keep;
mod sources;

use std::path::PathBuf;
use std::sync::Arc;

use fairlead_model::Snapshot;
use fairlead_xds::Bootstrap;
use tokio::sync::watch;

pub use file::{FileError, Origin, read};
use identity::Own;
use keep::Keep;
pub use sources::{Sources, Told};

/// Follows the file, those it names, and the control plane when it names one; never ends. What is wrong is logged or refused,
/// and the last good configuration stays. `sources` says where what is in use came from. `folders` are where it is kept for the
/// next start.
pub async fn watch(
    origin: Origin,
    first: Bootstrap,
    folders: Folders,
    snapshots: watch::Sender<Arc<Snapshot>>,
    sources: watch::Sender<Sources>,
) {
    let (dynamic, identity) = (first.dynamic.clone(), first.identity.clone());
    let keep = folders.told.as_deref();
    let keep = keep.map(|folder| Keep::new(folder, &first.id));
    let own = folders.identity.as_deref();
    let identity = identity.map(|identity| Own::new(identity, own));
    let (file, given) = watch::channel(Arc::new(first.snapshot.clone()));
    tokio::join!(file::watch(origin, first, file, &sources), async {
        match dynamic {
            Some(dynamic) => {
                let client = ads::Client::new(dynamic, keep, given, snapshots, &sources);
                client.follow(identity).await;
            }
            None => {
                let given = certified(identity, given, snapshots.subscribe()).await;
                pass_on(given, &snapshots).await;
            }
        }
    });
}

/// Where what is needed for a start while nobody can be asked is kept; nothing is where no folder is given.
#[derive(Debug, Clone, Default)]
pub struct Folders {
    /// What a control plane told, without keys.
    pub told: Option<PathBuf>,
    /// The certificate that says who the proxy is, with its key.
    pub identity: Option<PathBuf>,
}

/// What the file says, with the proxy's certificate from the first on that is signed: nobody can be reached without it. `in_use` is
/// the whole of the configuration, from which the proxy knows when another root signs.
async fn certified(
    identity: Option<Own>,
    given: watch::Receiver<Arc<Snapshot>>,
    in_use: watch::Receiver<Arc<Snapshot>>,
) -> watch::Receiver<Arc<Snapshot>> {
    let Some(identity) = identity else {
        return given;
    };
    let secret = identity.secret().to_owned();
    let (sender, mut certified) = watch::channel(Arc::default());
    tokio::spawn(identity::follow(identity, given, in_use, sender));
    let is_there = |own: &Arc<Snapshot>| own.secrets.contains_key(&secret);
    // It only ends with the process.
    let _ = certified.wait_for(is_there).await;
    certified
}

/// What the file says, where there is no control plane.
async fn pass_on(
    mut given: watch::Receiver<Arc<Snapshot>>,
    snapshots: &watch::Sender<Arc<Snapshot>>,
) {
    loop {
        let now = Arc::clone(&given.borrow_and_update());
        snapshots.send_replace(now);
        if given.changed().await.is_err() {
            return;
        }
    }
}
