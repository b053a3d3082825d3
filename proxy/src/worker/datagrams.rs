//! Datagrams: whoever sends them has a session with one endpoint, for as long as datagrams come or go.
//!
//! Each worker has a socket of its own, and the kernel brings what one caller sends to the same one. A session is a socket that is
//! connected to its endpoint, so that answers find their caller; nothing waits: a datagram that cannot be sent at once is dropped, and
//! counted, as the network would drop it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::Moment;
use fairlead_model::balance::{EndpointKey, Finish, Wanted, hash_of};
use fairlead_model::cluster::Address;
use fairlead_model::listener::Udp;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::Chains;
use crate::core::Core;
use crate::metrics::UdpFigures;
use crate::upstream::{Held, Upstream, judged};

/// The longest datagram, in bytes.
const LONGEST: usize = 65_535;
/// How many answers of one session are passed on before others have their turn.
const BURST: usize = 64;
/// How long answers are waited for when a session is to end.
const LINGER: Duration = Duration::from_secs(1);
/// How long to wait after a failure to receive.
const FAILED: Duration = Duration::from_millis(100);

/// The sessions of one worker under the same settings.
struct Sessions {
    core: Rc<Core>,
    settings: Arc<Udp>,
    listening: Rc<UdpSocket>,
    figures: Arc<UdpFigures>,
    all: RefCell<HashMap<SocketAddr, Rc<Session>>>,
    /// Where answers are read to.
    buffer: RefCell<Box<[u8]>>,
    /// They take no more datagrams, and end when no more answers come.
    ending: CancellationToken,
}

/// A caller and its endpoint.
struct Session {
    socket: UdpSocket,
    upstream: Rc<Upstream>,
    endpoint: EndpointKey,
    begun: Moment,
    /// When something was sent last, in either direction.
    last: Cell<Moment>,
    has_answer: Cell<bool>,
    is_refused: Cell<bool>,
    over: Notify,
    _held: Held,
}

/// Takes datagrams of callers, until it is dropped; sessions then end when no more answers come.
pub(super) async fn serve(
    core: &Rc<Core>,
    listening: &Rc<UdpSocket>,
    chains: &RefCell<Rc<Chains>>,
) {
    let mut buffer = vec![0; LONGEST].into_boxed_slice();
    let settings = || chains.borrow().listener.udp().cloned();
    let Some(first) = settings() else { return };
    let mut current = Sessions::new(core, first, listening);
    loop {
        let received = listening.recv_from(&mut buffer).await;
        if let Some(now) = settings().filter(|own| *own != current.0.settings) {
            current = Sessions::new(core, now, listening);
        }
        let sessions = &current.0;
        match received {
            Ok((length, caller)) => sessions.take(caller, &buffer[..length]),
            Err(error) => {
                tracing::debug!(%error, "a datagram could not be received");
                sessions.figures.downstream_sess_rx_errors.increment();
                tokio::time::sleep(FAILED).await;
            }
        }
    }
}

impl Sessions {
    fn new(
        core: &Rc<Core>,
        settings: Arc<Udp>,
        listening: &Rc<UdpSocket>,
    ) -> (Rc<Self>, DropGuard) {
        let ending = CancellationToken::new();
        let sessions = Rc::new(Self {
            core: Rc::clone(core),
            figures: core.shared.figures.udp(&settings.name),
            settings,
            listening: Rc::clone(listening),
            all: RefCell::default(),
            buffer: RefCell::new(vec![0; LONGEST].into_boxed_slice()),
            ending: ending.clone(),
        });
        (sessions, ending.drop_guard())
    }

    /// Passes a caller's datagram on.
    fn take(self: &Rc<Self>, caller: SocketAddr, datagram: &[u8]) {
        let figures = &self.figures;
        figures.downstream_sess_rx_datagrams.increment();
        figures.downstream_sess_rx_bytes.add(datagram.len() as u64);
        let known = self.all.borrow().get(&caller).cloned();
        let known = known.filter(|own| {
            let is_of_use = own.is_of_use();
            if !is_of_use {
                own.over.notify_one();
            }
            is_of_use
        });
        let Some(session) = known.or_else(|| self.begin(caller)) else {
            figures.downstream_sess_rx_datagrams_dropped.increment();
            return;
        };
        session.last.set(self.core.clock.now());
        // Whether there is room is known by trying alone: nobody waited for it.
        match SockRef::from(&session.socket).send(datagram) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                figures.downstream_sess_rx_datagrams_dropped.increment();
            }
            Err(error) => session.fail(figures, &error),
        }
    }

    /// Begins a session of a caller where there is an endpoint, and room.
    fn begin(self: &Rc<Self>, caller: SocketAddr) -> Option<Rc<Session>> {
        let (core, figures) = (&self.core, &self.figures);
        if core.shared.pressure.get().connections {
            return None;
        }
        let Some(upstream) = core.upstream(&self.settings.cluster) else {
            figures.downstream_sess_no_route.increment();
            return None;
        };
        let begun = core.clock.now();
        let held = upstream.session()?;
        let source = caller.ip().to_canonical().to_string();
        let wanted = Wanted {
            hash: self.settings.by_source.then(|| hash_of(source.as_bytes())),
            ..Wanted::default()
        };
        let (endpoint, address) = upstream.choose(&wanted, begun, &core.random)?;
        let socket = match connect(&address) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%error, %address, "no session with an endpoint");
                let finish = Finish {
                    judged: Some(judged(true, false)),
                    ..Finish::default()
                };
                upstream.finish(endpoint, finish, begun, &core.random);
                return None;
            }
        };
        let session = Rc::new(Session {
            socket,
            upstream,
            endpoint,
            begun,
            last: Cell::new(begun),
            has_answer: Cell::new(false),
            is_refused: Cell::new(false),
            over: Notify::new(),
            _held: held,
        });
        self.all.borrow_mut().insert(caller, Rc::clone(&session));
        core.connections.set(core.connections.get() + 1);
        figures.downstream_sess_total.increment();
        figures.downstream_sess_active.add(1);
        tokio::task::spawn_local(answer(Rc::clone(self), Rc::clone(&session), caller));
        Some(session)
    }

    /// Passes answers on that have come; says whether there may be more.
    fn pass_on(&self, session: &Session, caller: SocketAddr) -> bool {
        let figures = &self.figures;
        let mut buffer = self.buffer.borrow_mut();
        for _ in 0..BURST {
            let length = match session.socket.try_recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) => {
                    session.fail(figures, &error);
                    return false;
                }
            };
            let now = self.core.clock.now();
            session.last.set(now);
            if !session.has_answer.replace(true) {
                let latency = now.since(session.begun);
                session.upstream.answered(session.endpoint, latency, now);
            }
            let sent = SockRef::from(&*self.listening).send_to(&buffer[..length], &caller.into());
            match sent {
                Ok(_) => {
                    figures.downstream_sess_tx_datagrams.increment();
                    figures.downstream_sess_tx_bytes.add(length as u64);
                }
                Err(_) => figures.downstream_sess_tx_errors.increment(),
            }
        }
        true
    }

    /// Forgets a session that has ended.
    fn end(&self, session: &Rc<Session>, caller: SocketAddr) {
        let mut all = self.all.borrow_mut();
        if all.get(&caller).is_some_and(|own| Rc::ptr_eq(own, session)) {
            all.remove(&caller);
        }
        let core = &self.core;
        core.connections
            .set(core.connections.get().saturating_sub(1));
        self.figures.downstream_sess_active.add(-1);
        let outcome = match (session.is_refused.get(), session.has_answer.get()) {
            (true, _) => Some(judged(true, false)),
            (false, true) => Some(judged(false, false)),
            // Whether an endpoint that says nothing should have said something is not known.
            (false, false) => None,
        };
        let finish = Finish {
            judged: outcome,
            ..Finish::default()
        };
        let now = core.clock.now();
        session
            .upstream
            .finish(session.endpoint, finish, now, &core.random);
    }
}

impl Session {
    /// Whether the endpoint is still there, and well.
    fn is_of_use(&self) -> bool {
        !self.is_refused.get()
            && self.upstream.look(|balancer| {
                let endpoint = balancer.endpoint(self.endpoint);
                endpoint.is_some_and(|endpoint| endpoint.is_well())
            })
    }

    /// Nobody is there, which the endpoint's host says.
    fn fail(&self, figures: &UdpFigures, error: &io::Error) {
        tracing::debug!(%error, "an endpoint takes no datagrams");
        figures.upstream_sess_errors.increment();
        self.is_refused.set(true);
        self.over.notify_one();
    }
}

/// Passes the answers of a session on, until it is over.
async fn answer(sessions: Rc<Sessions>, session: Rc<Session>, caller: SocketAddr) {
    let clock = &sessions.core.clock;
    let mut idle = sessions.settings.idle;
    let first = clock.instant(session.last.get() + idle);
    let mut timer = std::pin::pin!(tokio::time::sleep_until(first));
    let mut ending = std::pin::pin!(sessions.ending.cancelled());
    let mut is_ending = false;
    loop {
        tokio::select! {
            readable = session.socket.readable() => {
                if readable.is_err() || !sessions.pass_on(&session, caller) {
                    break;
                }
            }
            () = session.over.notified() => break,
            () = &mut ending, if !is_ending => {
                is_ending = true;
                idle = idle.min(LINGER);
                timer.as_mut().reset(clock.instant(session.last.get() + idle));
            }
            () = &mut timer => {
                let until = session.last.get() + idle;
                if clock.now() >= until {
                    sessions.figures.idle_timeout.increment();
                    break;
                }
                timer.as_mut().reset(clock.instant(until));
            }
        }
    }
    sessions.end(&session, caller);
}

/// A socket from which datagrams go to an endpoint, and to which its answers come.
fn connect(address: &Address) -> io::Result<UdpSocket> {
    let Address::Socket(address) = address else {
        return Err(io::Error::other("datagrams need an IP address"));
    };
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = std::net::UdpSocket::bind(any)?;
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
