//! Tells connections of one worker that they have to end.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;

use slab::Slab;

/// Whether connections have to end, and who is to be told.
#[derive(Debug, Default)]
pub(super) struct Drain {
    has_begun: Cell<bool>,
    waiting: RefCell<Slab<Waker>>,
}

/// Somebody who is told, for as long as this lives.
#[derive(Debug)]
pub(super) struct Waiting {
    drain: Rc<Drain>,
    place: usize,
}

impl Drain {
    /// Tells everybody.
    pub(super) fn begin(&self) {
        self.has_begun.set(true);
        for (_, waker) in self.waiting.borrow().iter() {
            waker.wake_by_ref();
        }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.get()
    }

    /// Wakes this one when it begins.
    pub(super) fn wake(self: &Rc<Self>, waker: &Waker) -> Waiting {
        Waiting {
            place: self.waiting.borrow_mut().insert(waker.clone()),
            drain: Rc::clone(self),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.drain.waiting.borrow_mut().try_remove(self.place);
    }
}
