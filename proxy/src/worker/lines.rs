//! Access logs of connections: of a listener, and of bytes that pass through. A line is written when the connection ends.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fairlead_model::Moment;
use fairlead_model::cluster::Address;
use fairlead_model::fault::Fault;
use fairlead_model::format::{Fact, Facts, Flags, Value, time};
use http::HeaderMap;

use crate::clock::since_1970;
use crate::core::Core;
use crate::http::{Connection, Watching, endpoint_value, flags, of_connection, socket};
use crate::upstream::ConnectError;

/// A connection of which a line is written when this is dropped.
pub(super) struct Line {
    core: Rc<Core>,
    watching: Rc<Watching>,
    connection: RefCell<Option<Rc<Connection>>>,
    begun: Moment,
    at: Duration,
    flags: Cell<Flags>,
    details: Cell<Option<&'static str>>,
    bytes: Cell<(u64, u64)>,
    target: RefCell<Option<(Arc<str>, Option<Address>)>>,
    local: Cell<Option<SocketAddr>>,
    unreached: RefCell<Option<String>>,
}

impl Line {
    /// Begins one, where something asks for it.
    pub(super) fn begin(core: &Rc<Core>, watching: Option<&Rc<Watching>>) -> Option<Rc<Self>> {
        let line = |watching| Self {
            core: Rc::clone(core),
            watching: Rc::clone(watching),
            connection: RefCell::default(),
            begun: core.clock.now(),
            at: since_1970(),
            flags: Cell::default(),
            details: Cell::default(),
            bytes: Cell::default(),
            target: RefCell::default(),
            local: Cell::default(),
            unreached: RefCell::default(),
        };
        watching.map(|watching| Rc::new(line(watching)))
    }

    /// The caller is known.
    pub(super) fn is_of(&self, connection: &Rc<Connection>) {
        *self.connection.borrow_mut() = Some(Rc::clone(connection));
    }

    /// It goes to this endpoint.
    pub(super) fn goes_to(&self, cluster: &Arc<str>, endpoint: Option<&Address>) {
        *self.target.borrow_mut() = Some((Arc::clone(cluster), endpoint.cloned()));
    }

    /// It has a connection to the endpoint, which begins here; or it has none.
    pub(super) fn reached(&self, outcome: Result<Option<SocketAddr>, &ConnectError>) {
        match outcome {
            Ok(local) => self.local.set(local),
            Err(error) => *self.unreached.borrow_mut() = error.reason(),
        }
    }

    /// So many bytes came from the caller and went to it.
    pub(super) fn passed(&self, received: u64, sent: u64) {
        self.bytes.set((received, sent));
    }

    pub(super) fn failed(&self, fault: Fault) {
        if let Some(flag) = fault.flag() {
            self.flags.set(self.flags.get().with(flag));
        }
        self.details.set(Some(fault.token()));
    }
}

/// What is known of it when it ends.
struct Ended<'a> {
    line: &'a Line,
    connection: Option<Rc<Connection>>,
    target: Option<(Arc<str>, Option<Address>)>,
    unreached: Option<String>,
}

impl Facts for Ended<'_> {
    fn value(&self, fact: &Fact) -> Option<Value<'_>> {
        let line = self.line;
        let (received, sent) = line.bytes.get();
        match fact {
            Fact::ResponseCode => Some(Value::Number(0)),
            Fact::ResponseFlags => Some(flags(line.flags.get())),
            Fact::ResponseCodeDetails => line.details.get().map(Value::text),
            Fact::Duration => {
                let took = line.core.clock.now().since(line.begun).as_millis();
                Some(Value::Number(u64::try_from(took).unwrap_or(u64::MAX)))
            }
            Fact::BytesReceived => Some(Value::Number(received)),
            Fact::BytesSent => Some(Value::Number(sent)),
            Fact::StartTime(pattern) => Some(Value::owned(time(pattern, line.at))),
            Fact::UpstreamCluster => Some(Value::text(&self.target.as_ref()?.0)),
            Fact::UpstreamHost(part) => endpoint_value(self.target.as_ref()?.1.as_ref()?, *part),
            Fact::UpstreamLocal(part) => socket(line.local.get()?, *part),
            Fact::UpstreamFailure => self.unreached.as_deref().map(Value::text),
            other => of_connection(self.connection.as_deref()?, other),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let ended = Ended {
            line: self,
            connection: self.connection.take(),
            target: self.target.take(),
            unreached: self.unreached.take(),
        };
        let flags = self.flags.get();
        self.watching
            .write(&self.core, &ended, &HeaderMap::new(), flags, false);
    }
}
