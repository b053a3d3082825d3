//! Where the configuration comes from: a file, and the control plane that it may name.

mod ads;
pub(crate) mod connect;
mod file;
pub(crate) mod raw;
mod sources;

use std::path::PathBuf;
use std::sync::Arc;

use fairlead_model::Snapshot;
use fairlead_xds::{Bootstrap, Session};
use tokio::sync::watch;

pub use file::{FileError, read};
pub use sources::{Sources, Told};

/// Follows the file, those it names, and the control plane when it names one; never ends. What is wrong is logged or refused,
/// and the last good configuration stays. `sources` says where what is in use came from.
pub async fn watch(
    path: PathBuf,
    first: Bootstrap,
    snapshots: watch::Sender<Arc<Snapshot>>,
    sources: watch::Sender<Sources>,
) {
    let Some(dynamic) = first.dynamic.clone() else {
        return file::watch(path, first, snapshots, &sources).await;
    };
    let given = Arc::new(first.snapshot.clone());
    let (sender, receiver) = watch::channel(Arc::clone(&given));
    let session = Session::new(dynamic.clone(), (*given).clone());
    tokio::join!(
        file::watch(path, first, sender, &sources),
        ads::follow(dynamic, session, receiver, snapshots, &sources),
    );
}
