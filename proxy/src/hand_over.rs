//! A new process takes the listening sockets of a running one, so that no connection is refused while one takes the place of the
//! other on a machine.
//!
//! Over a Unix socket of packets, whose path both know: the running process says of each socket what it listens on, with the socket
//! itself (`SCM_RIGHTS`); once the new one listens on all it needs, it says so, and the old one drains and ends. If it ends before,
//! nothing has happened. Every worker's own socket goes over: the connections that wait in its queue are with the socket, not with
//! the process.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairlead_model::Snapshot;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
    connect, listen, recvmsg, sendmsg, socket_with,
};
use tokio::sync::watch;

use crate::Shared;

/// The last packet of the running process: there are no more sockets.
const END: &[u8] = b"end";
/// The packet of the new process: it listens.
const READY: &[u8] = b"ready";
/// The longest packet.
const LONGEST: usize = 4096;
/// How long after a failure the next process may come.
const PAUSE: Duration = Duration::from_millis(10);
/// How long sockets are kept for listeners that a control plane may still tell of.
const KEPT: Duration = Duration::from_secs(15);

/// Why sockets do not change hands.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The path is no place for a socket.
    #[error("failed to offer sockets at {path}: {source}")]
    Offer {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The running process said nothing that is understood.
    #[error("failed to take sockets over from {path}: {source}")]
    Take {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The sockets of a process, by what they listen on.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    own: Mutex<Own>,
    /// With how many there were.
    inherited: Mutex<HashMap<String, (usize, Vec<OwnedFd>)>>,
    /// Held while one is made.
    making: Mutex<()>,
}

#[derive(Debug, Default)]
struct Own {
    all: BTreeMap<u64, (String, OwnedFd)>,
    next: u64,
}

/// A socket that is offered to the next process for as long as this lives.
#[derive(Debug)]
pub struct Offered {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Offered {
    fn drop(&mut self) {
        locked(&self.shared.sockets.own).all.remove(&self.number);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Offers a socket to the next process.
///
/// # Errors
/// When there is no room for another file.
pub fn offer(shared: &Arc<Shared>, place: &str, socket: BorrowedFd<'_>) -> io::Result<Offered> {
    let socket = socket.try_clone_to_owned()?;
    let mut own = locked(&shared.sockets.own);
    let number = own.next;
    own.next += 1;
    own.all.insert(number, (place.to_owned(), socket));
    Ok(Offered {
        shared: Arc::clone(shared),
        number,
    })
}

/// Lets one worker at a time make sockets.
pub(crate) fn making(shared: &Shared) -> MutexGuard<'_, ()> {
    locked(&shared.sockets.making)
}

/// A socket of this process at a place, once more.
pub(crate) fn known(shared: &Shared, place: &str) -> Option<io::Result<OwnedFd>> {
    let own = locked(&shared.sockets.own);
    let mut all = own.all.values();
    let (_, socket) = all.find(|(known, _)| known == place)?;
    Some(socket.try_clone())
}

/// One of `takers`' share of the sockets that were taken over for a place, each of which goes to somebody.
pub fn inherited(shared: &Shared, place: &str, takers: u32) -> Vec<OwnedFd> {
    let mut inherited = locked(&shared.sockets.inherited);
    let Some((count, left)) = inherited.get_mut(place) else {
        return Vec::new();
    };
    let takers = usize::try_from(takers).unwrap_or(usize::MAX).max(1);
    let share = count.div_ceil(takers).min(left.len());
    left.split_off(left.len() - share)
}

/// A running process that gave its sockets, and waits to hear that they are used.
#[derive(Debug)]
pub struct Predecessor {
    line: OwnedFd,
    sockets: Vec<(String, OwnedFd)>,
}

/// Takes the sockets of the process that runs, where there is one.
///
/// # Errors
/// When there is one, and it says what is not understood.
pub fn take_over(path: &Path) -> Result<Option<Predecessor>, HandOverError> {
    let failed = |source: io::Error| HandOverError::Take {
        path: path.to_owned(),
        source,
    };
    let line = socket().map_err(failed)?;
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    match connect(&line, &address) {
        Ok(()) => {}
        // Nobody is there, or nobody any more.
        Err(error @ (Errno::NOENT | Errno::CONNREFUSED)) => {
            tracing::info!(path = %path.display(), %error, "there is no process to take sockets over from");
            return Ok(None);
        }
        Err(error) => return Err(failed(error.into())),
    }
    let mut sockets = Vec::new();
    loop {
        let (packet, socket) = receive(&line).map_err(failed)?;
        match (packet.as_slice(), socket) {
            (END, None) => break,
            ([], _) => return Err(failed(io::ErrorKind::UnexpectedEof.into())),
            (place, Some(socket)) => {
                sockets.push((String::from_utf8_lossy(place).into_owned(), socket));
            }
            _ => return Err(failed(io::ErrorKind::InvalidData.into())),
        }
    }
    tracing::info!(count = sockets.len(), "took sockets over");
    Ok(Some(Predecessor { line, sockets }))
}

/// Hands what was taken over to the workers, tells the process before once they listen, and is then there for the next one.
///
/// # Errors
/// When the path is no place for a socket.
pub async fn succeed(
    shared: Arc<Shared>,
    path: PathBuf,
    line: Option<OwnedFd>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
) -> Result<(), HandOverError> {
    shared.listening(&snapshots).await;
    if let Some(line) = line {
        // One that is gone needs not to be told.
        let _ = send(&line, READY, None);
    }
    let failed = |source: io::Error| HandOverError::Offer {
        path: path.clone(),
        source,
    };
    let socket = bound(&path).map_err(failed)?;
    let giving = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("hand-over".to_owned())
        .spawn(move || give(&giving, &socket))
        .map_err(failed)?;
    tokio::time::sleep(KEPT).await;
    locked(&shared.sockets.inherited).clear();
    Ok(())
}

impl Predecessor {
    /// Leaves its sockets to workers; what is given back is where it is told.
    #[must_use]
    pub fn leave_to(self, shared: &Shared) -> OwnedFd {
        let mut inherited = locked(&shared.sockets.inherited);
        for (place, socket) in self.sockets {
            let (count, all) = inherited.entry(place).or_default();
            *count += 1;
            all.push(socket);
        }
        self.line
    }
}

/// Gives sockets to processes that come for them. Each has a thread of its own: one that never gets ready keeps out no other.
fn give(shared: &Arc<Shared>, socket: &OwnedFd) {
    loop {
        let line = accept_with(socket, SocketFlags::CLOEXEC).map_err(io::Error::from);
        let giving = Arc::clone(shared);
        let begun = line.and_then(|line| {
            let thread = std::thread::Builder::new().name("hand-over".to_owned());
            thread.spawn(move || give_one(&giving, &line))
        });
        if let Err(error) = begun {
            tracing::warn!(%error, "sockets could not be handed over");
            std::thread::sleep(PAUSE);
        }
    }
}

/// Gives sockets to a process, and ends once it uses them.
fn give_one(shared: &Shared, line: &OwnedFd) {
    match give_to(shared, line) {
        Ok(true) => {
            tracing::info!("another process has taken over");
            shared.draining.send_replace(true);
        }
        Ok(false) => tracing::warn!("a process that came for the sockets went away"),
        Err(error) => tracing::warn!(%error, "sockets could not be handed over"),
    }
}

/// Gives sockets to a process; says whether it uses them.
fn give_to(shared: &Shared, line: &OwnedFd) -> io::Result<bool> {
    let sockets: Vec<(String, OwnedFd)> = locked(&shared.sockets.own)
        .all
        .values()
        .map(|(place, socket)| Ok((place.clone(), socket.try_clone()?)))
        .collect::<io::Result<_>>()?;
    for (place, socket) in &sockets {
        send(line, place.as_bytes(), Some(socket.as_fd()))?;
    }
    send(line, END, None)?;
    Ok(receive(line)?.0 == READY)
}

fn socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// A socket at a path, in the place of what was there; nobody finds nothing there meanwhile.
fn bound(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket()?;
    let mut own = path.as_os_str().to_owned();
    own.push(format!(".{}", std::process::id()));
    let own = PathBuf::from(own);
    bind(&socket, &SocketAddrUnix::new(&own)?)?;
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o600))?;
    listen(&socket, 4)?;
    std::fs::rename(&own, path)?;
    Ok(socket)
}

fn send(line: &OwnedFd, packet: &[u8], socket: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let sockets: Vec<BorrowedFd<'_>> = socket.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !sockets.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let parts = [IoSlice::new(packet)];
    sendmsg(line, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next packet, which is empty at the end, and the socket that came with it.
fn receive(line: &OwnedFd) -> io::Result<(Vec<u8>, Option<OwnedFd>)> {
    let mut packet = vec![0; LONGEST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut packet)];
    let received = recvmsg(line, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    packet.truncate(received.bytes);
    let sockets = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => Some(sockets),
        _ => None,
    });
    Ok((packet, sockets.flatten().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_socket_goes_to_somebody() -> io::Result<()> {
        for (count, takers, shares) in [
            (4, 2, vec![2, 2]),
            (3, 2, vec![2, 1]),
            (1, 3, vec![1, 0, 0]),
            (2, 3, vec![1, 1, 0]),
        ] {
            let shared = Shared::new(takers);
            let sockets = (0..count)
                .map(|_| Ok(("here".to_owned(), socket()?)))
                .collect::<io::Result<_>>()?;
            let predecessor = Predecessor {
                line: socket()?,
                sockets,
            };
            drop(predecessor.leave_to(&shared));
            assert!(inherited(&shared, "elsewhere", takers).is_empty());
            let taken: Vec<usize> = (0..takers)
                .map(|_| inherited(&shared, "here", takers).len())
                .collect();
            assert_eq!(taken, shares);
        }
        Ok(())
    }
}
