//! Where the configuration comes from: a file, and the control plane that it may name.

mod ads;
pub(crate) mod connect;
mod file;
mod identity;
mod sources;

use std::sync::Arc;

use fairlead_model::Snapshot;
use fairlead_xds::identity::Identity;
use fairlead_xds::{Bootstrap, Dynamic, Session};
use tokio::sync::watch;

pub use file::{FileError, Origin, read};
pub use sources::{Sources, Told};

/// Follows the file, those it names, and the control plane when it names one; never ends. What is wrong is logged or refused,
/// and the last good configuration stays. `sources` says where what is in use came from.
pub async fn watch(
    origin: Origin,
    first: Bootstrap,
    snapshots: watch::Sender<Arc<Snapshot>>,
    sources: watch::Sender<Sources>,
) {
    let (dynamic, identity) = (first.dynamic.clone(), first.identity.clone());
    let (file, given) = watch::channel(Arc::new(first.snapshot.clone()));
    tokio::join!(file::watch(origin, first, file, &sources), async {
        let given = certified(identity, given).await;
        told(dynamic, given, snapshots, &sources).await;
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

/// Adds what a control plane tells, where there is one.
async fn told(
    dynamic: Option<Dynamic>,
    mut given: watch::Receiver<Arc<Snapshot>>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    sources: &watch::Sender<Sources>,
) {
    if let Some(dynamic) = dynamic {
        let session = Session::new(dynamic.clone(), (**given.borrow()).clone());
        return ads::follow(dynamic, session, given, snapshots, sources).await;
    }
    loop {
        let now = Arc::clone(&given.borrow_and_update());
        snapshots.send_replace(now);
        if given.changed().await.is_err() {
            return;
        }
    }
}
