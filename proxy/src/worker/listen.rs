//! Takes connections, or datagrams, of a listener. Each worker has a socket of its own at the same address; the kernel shares connections out.

use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::cluster::Address;
use fairlead_model::listener::Listener;
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket, UnixListener, UnixStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::connection::{self, Chains};
use super::datagrams;
use crate::core::{Core, Shared};
use crate::hand_over::{self, Offered};
use crate::upstream::Stream;

/// How many connections may wait to be taken.
const BACKLOG: i32 = 4096;
/// How long to wait when no more files can be opened.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// How long to wait before an address that is in use is tried again.
const IN_USE: Duration = Duration::from_secs(1);

/// A socket that listens.
enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
    Udp(Rc<UdpSocket>),
}

impl Bound {
    fn socket(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
            Self::Udp(udp) => udp.as_fd(),
        }
    }
}

/// A socket that listens is known to, for as long as this lives.
struct Listening<'a> {
    core: &'a Core,
    listener: &'a Listener,
}

impl<'a> Listening<'a> {
    fn begin(core: &'a Core, listener: &'a Listener) -> Self {
        core.shared.listens(&listener.name, true);
        Self { core, listener }
    }
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.core.shared.listens(&self.listener.name, false);
    }
}

/// Listens until `stop`, and takes those that came before.
pub(super) fn start(
    core: &Rc<Core>,
    listener: &Arc<Listener>,
    chains: Rc<RefCell<Rc<Chains>>>,
    stop: CancellationToken,
) -> JoinHandle<()> {
    let (core, listener) = (Rc::clone(core), Arc::clone(listener));
    tokio::task::spawn_local(async move {
        loop {
            match sockets(&core.shared, &listener) {
                Ok(all) => {
                    tracing::info!(listener = listener.name, address = %listener.address, "listening");
                    let _listening = Listening::begin(&core, &listener);
                    let accepting = all.iter().map(|(own, _)| accept(&core, own, &chains));
                    let accepting = futures::future::join_all(accepting);
                    if stop.run_until_cancelled(accepting).await.is_none() {
                        for (own, _) in &all {
                            take_waiting(&core, own, &chains.borrow());
                        }
                        return;
                    }
                }
                Err(error) => {
                    tracing::error!(listener = listener.name, address = %listener.address, %error, "failed to listen");
                    let pause = tokio::time::sleep(IN_USE);
                    if stop.run_until_cancelled(pause).await.is_none() {
                        return;
                    }
                }
            }
        }
    })
}

/// Takes the connections that were made and that nobody took yet: with the socket, they would be reset.
fn take_waiting(core: &Rc<Core>, bound: &Bound, chains: &Rc<Chains>) {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let next = || match bound {
        Bound::Tcp(tcp) => {
            let tcp = std::net::TcpStream::from(accept_with(tcp, flags).ok()?);
            let source = tcp.peer_addr().ok();
            Some((Stream::Tcp(TcpStream::from_std(tcp).ok()?), source))
        }
        Bound::Unix(unix) => {
            let unix = std::os::unix::net::UnixStream::from(accept_with(unix, flags).ok()?);
            Some((Stream::Unix(UnixStream::from_std(unix).ok()?), None))
        }
        Bound::Udp(_) => None,
    };
    for (stream, source) in std::iter::from_fn(next) {
        take(core, chains, stream, source);
    }
}

/// Serves a connection that was taken.
fn take(core: &Rc<Core>, chains: &Rc<Chains>, stream: Stream, source: Option<SocketAddr>) {
    if core.shared.pressure.get().connections {
        chains.figures.downstream_cx_overload_reject.increment();
        return;
    }
    if let Stream::Tcp(tcp) = &stream {
        let _ = tcp.set_nodelay(true);
    }
    let (core, chains) = (Rc::clone(core), Rc::clone(chains));
    tokio::task::spawn_local(connection::serve(core, chains, stream, source));
}

/// The sockets of a listener: those that another process left to this worker, or a new one. The next process may have them.
fn sockets(shared: &Arc<Shared>, listener: &Listener) -> io::Result<Vec<(Bound, Offered)>> {
    let address = &listener.address;
    let udp = listener.udp().map_or("", |_| "udp ");
    let ipv4 = if listener.takes_ipv4 { " ipv4" } else { "" };
    let place = format!("{udp}{address}{ipv4}");
    let _making = hand_over::making(shared);
    let mut taken = hand_over::inherited(shared, &place, shared.cores);
    if taken.is_empty() && matches!(address, Address::Path(_)) {
        // A path leads to one socket only, which workers share.
        taken.extend(hand_over::known(shared, &place).transpose()?);
    }
    let bound = match taken.is_empty() {
        true => vec![bind(listener)?],
        false => taken
            .into_iter()
            .map(|own| adopt(listener, own))
            .collect::<io::Result<_>>()?,
    };
    let offered = bound.into_iter().map(|own| {
        let offered = hand_over::offer(shared, &place, own.socket())?;
        Ok((own, offered))
    });
    offered.collect()
}

/// A socket that listens already.
fn adopt(listener: &Listener, socket: OwnedFd) -> io::Result<Bound> {
    if listener.udp().is_some() {
        let udp = std::net::UdpSocket::from(socket);
        udp.set_nonblocking(true)?;
        return UdpSocket::from_std(udp).map(|own| Bound::Udp(Rc::new(own)));
    }
    if matches!(listener.address, Address::Path(_)) {
        let unix = std::os::unix::net::UnixListener::from(socket);
        unix.set_nonblocking(true)?;
        return UnixListener::from_std(unix).map(Bound::Unix);
    }
    let tcp = std::net::TcpListener::from(socket);
    tcp.set_nonblocking(true)?;
    TcpListener::from_std(tcp).map(Bound::Tcp)
}

fn bind(listener: &Listener) -> io::Result<Bound> {
    let address = match &listener.address {
        Address::Socket(address) => *address,
        Address::Path(path) => {
            // A socket that a killed process left behind.
            let _ = std::fs::remove_file(path);
            return UnixListener::bind(path).map(Bound::Unix);
        }
        Address::Name(..) => return Err(io::Error::other("a listener needs an IP address")),
    };
    let is_udp = listener.udp().is_some();
    let (kind, protocol) = match is_udp {
        true => (Type::DGRAM, Protocol::UDP),
        false => (Type::STREAM, Protocol::TCP),
    };
    let made = Socket::new(Domain::for_address(address), kind, Some(protocol));
    let (address, socket) = match made {
        Err(error) if is_without_ipv6(listener, address, &error) => {
            let any = (Ipv4Addr::UNSPECIFIED, address.port()).into();
            (any, Socket::new(Domain::IPV4, kind, Some(protocol))?)
        }
        made => (address, made?),
    };
    if !is_udp {
        socket.set_reuse_address(true)?;
    }
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!listener.takes_ipv4)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if is_udp {
        return UdpSocket::from_std(socket.into()).map(|own| Bound::Udp(Rc::new(own)));
    }
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into()).map(Bound::Tcp)
}

/// Whether a listener of both families is to take IPv4 alone, as the machine has no other.
fn is_without_ipv6(listener: &Listener, address: SocketAddr, error: &io::Error) -> bool {
    let is_any = address.is_ipv6() && address.ip().is_unspecified();
    is_any && listener.takes_ipv4 && Errno::from_io_error(error) == Some(Errno::AFNOSUPPORT)
}

async fn accept(core: &Rc<Core>, bound: &Bound, chains: &RefCell<Rc<Chains>>) {
    if let Bound::Udp(udp) = bound {
        return datagrams::serve(core, udp, chains).await;
    }
    loop {
        let accepted = match bound {
            Bound::Tcp(tcp) => tcp
                .accept()
                .await
                .map(|(stream, source)| (Stream::Tcp(stream), Some(source))),
            Bound::Unix(unix) => unix
                .accept()
                .await
                .map(|(stream, _)| (Stream::Unix(stream), None)),
            Bound::Udp(_) => return,
        };
        match accepted {
            Ok((stream, source)) => take(core, &chains.borrow(), stream, source),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be taken");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
}

/// Whether only the connection that was to be taken is lost.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}
