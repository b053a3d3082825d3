//! What the machine's service manager is told where it asks, as systemd does by `NOTIFY_SOCKET`
//! (<https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html>): that the proxy listens, and that it ends.

use std::sync::Arc;

use fairlead_model::Snapshot;
use sd_notify::NotifyState;
use tokio::sync::watch;

use crate::Shared;

/// The variable by which a service manager asks to be told.
const ASKS: &str = "NOTIFY_SOCKET";

/// Tells that the proxy is ready, once it listens on all that its configuration says; nothing is waited for where nobody asks.
pub async fn ready(shared: Arc<Shared>, snapshots: watch::Receiver<Arc<Snapshot>>) {
    if std::env::var_os(ASKS).is_none() {
        return;
    }
    shared.listening(&snapshots).await;
    tell(&NotifyState::Ready);
}

/// Tells that it takes no more connections, and ends.
pub fn stopping() {
    tell(&NotifyState::Stopping);
}

fn tell(state: &NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, %state, "the service manager could not be told");
    }
}
