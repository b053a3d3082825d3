//! Where the configuration comes from: a file, and the control plane that it may name.

mod ads;
pub(crate) mod connect;
mod file;
mod identity;
mod keep;
mod sources;

use std::path::Path;
use std::sync::Arc;

use fairlead_model::Snapshot;
use fairlead_xds::Bootstrap;
use fairlead_xds::identity::Identity;
use tokio::sync::watch;

pub use file::{FileError, Origin, read};
use keep::Keep;
pub use sources::{Sources, Told};

/// Follows the file, those it names, and the control plane when it names one; never ends. What is wrong is logged or refused,
/// and the last good configuration stays. `sources` says where what is in use came from. What the control plane tells is kept in
/// the folder `keep`, where one is given, and used at a start until it tells more.
pub async fn watch(
    origin: Origin,
    first: Bootstrap,
    keep: Option<&Path>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    sources: watch::Sender<Sources>,
) {
    let (dynamic, identity) = (first.dynamic.clone(), first.identity.clone());
    let keep = keep.map(|folder| Keep::new(folder, &first.id));
    let (file, given) = watch::channel(Arc::new(first.snapshot.clone()));
    tokio::join!(file::watch(origin, first, file, &sources), async {
        match dynamic {
            Some(dynamic) => {
                let client = ads::Client::new(dynamic, keep, given, snapshots, &sources);
                client.follow(identity).await;
            }
            None => pass_on(certified(identity, given).await, &snapshots).await,
        }
    });
}

/// What the file says, with the proxy's certificate from the first on that is signed: nobody can be reached without it.
async fn certified(
    identity: Option<Identity>,
    given: watch::Receiver<Arc<Snapshot>>,
) -> watch::Receiver<Arc<Snapshot>> {
    let Some(identity) = identity else {
        return given;
    };
    let secret = identity.secret.clone();
    let (sender, mut certified) = watch::channel(Arc::default());
    tokio::spawn(identity::follow(identity, given, sender));
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
