//! What moves on a caller's connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Context;

use fairlead_model::Moment;
use tokio::sync::oneshot;

use super::service::{Connection, HttpService};
use crate::core::Core;
use crate::limit::Limit;
use crate::metrics::HttpFigures;
use crate::upstream::Stream;

/// What moves on a caller's connection, and since when nothing does.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    running: Cell<u32>,
    since: Cell<Moment>,
    has_read: Cell<bool>,
    is_stuck: Cell<bool>,
    has_body: Cell<bool>,
    has_asked: Cell<bool>,
    left: RefCell<Option<oneshot::Sender<Stream>>>,
    lent: RefCell<Option<Limit>>,
}

impl Activity {
    /// It begins now.
    pub(crate) fn begin(&self, now: Moment) {
        self.since.set(now);
    }

    /// A request began.
    fn start(&self) {
        self.running.set(self.running.get() + 1);
        self.has_read.set(false);
        self.has_asked.set(true);
    }

    /// One ended.
    fn end(&self, now: Moment) {
        self.running.set(self.running.get().saturating_sub(1));
        self.has_read.set(false);
        self.since.set(now);
    }

    /// Whether a request runs.
    pub(crate) fn is_busy(&self) -> bool {
        self.running.get() > 0
    }

    /// Whether no request has begun yet.
    pub(crate) fn is_fresh(&self) -> bool {
        !self.has_asked.get()
    }

    /// Since when no request ran.
    pub(crate) fn since(&self) -> Moment {
        self.since.get()
    }

    /// Whether bytes came in since the last request began or ended.
    pub(crate) fn has_read(&self) -> bool {
        self.has_read.get()
    }

    /// Whether the caller does not take what is written.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck.get()
    }

    /// Bytes came in.
    pub(crate) fn note_read(&self) {
        self.has_read.set(true);
    }

    /// Bytes were to be written, and could be or not.
    pub(crate) fn note_written(&self, could_be: bool) {
        self.is_stuck.set(!could_be);
    }

    /// Whether the request that began last has a body.
    pub(crate) fn has_body(&self) -> bool {
        self.has_body.get()
    }

    /// A request with a body, or without, is about to begin.
    pub(crate) fn note_body(&self, has_body: bool) {
        self.has_body.set(has_body);
    }

    /// The time of an answer, while nobody asks for more of its body.
    pub(crate) fn lend(&self, limit: Option<Limit>) {
        self.lent.replace(limit);
    }

    /// The time of an answer, whose body is asked for more.
    pub(crate) fn take_back(&self) -> Option<Limit> {
        self.lent.take()
    }

    /// Whether the caller took nothing of an answer in its time.
    pub(crate) fn is_late(&self, context: &mut Context<'_>) -> bool {
        let mut lent = self.lent.borrow_mut();
        lent.as_mut()
            .is_some_and(|limit| limit.poll(context).is_ready())
    }

    /// Where the connection goes when it leaves HTTP/1.1.
    pub(super) fn leave(&self) -> oneshot::Receiver<Stream> {
        let (sender, receiver) = oneshot::channel();
        *self.left.borrow_mut() = Some(sender);
        receiver
    }

    /// Who waits for the connection since it left HTTP/1.1.
    pub(crate) fn left(&self) -> Option<oneshot::Sender<Stream>> {
        self.left.take().filter(|sender| !sender.is_closed())
    }
}

/// A request that runs, for as long as this lives.
#[derive(Debug)]
pub(super) struct Active {
    service: Rc<HttpService>,
    connection: Rc<Connection>,
}

impl Active {
    pub(super) fn begin(
        service: &Rc<HttpService>,
        connection: &Rc<Connection>,
        is_h2: bool,
    ) -> Self {
        let figures = &service.figures;
        figures.downstream_rq_total.increment();
        if is_h2 {
            figures.downstream_rq_http2_total.increment();
        } else {
            figures.downstream_rq_http1_total.increment();
        }
        figures.downstream_rq_active.add(1);
        connection.activity.start();
        Self {
            service: Rc::clone(service),
            connection: Rc::clone(connection),
        }
    }
}

impl Active {
    pub(super) fn activity(&self) -> &Activity {
        &self.connection.activity
    }

    pub(super) fn figures(&self) -> &HttpFigures {
        &self.service.figures
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.service.figures.downstream_rq_active.add(-1);
        // Whatever ends a request read the clock.
        let now = self.service.core.clock.read();
        self.connection.activity.end(now);
    }
}

/// An answer that is on its way to the caller though its request has ended, for as long as this lives.
#[derive(Debug)]
pub(super) struct Lingering {
    core: Rc<Core>,
    connection: Rc<Connection>,
}

impl Lingering {
    pub(super) fn begin(core: &Rc<Core>, connection: &Rc<Connection>) -> Self {
        connection.activity.start();
        Self {
            core: Rc::clone(core),
            connection: Rc::clone(connection),
        }
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.connection.activity.end(self.core.clock.now());
    }
}
