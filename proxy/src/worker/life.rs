//! How long a caller's connection lasts: until it is drained, its life is over, nobody asks any more, or a request's head is late.
//! A busy connection pays for none of this: its timer goes off once in a while and looks.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use fairlead_model::Moment;
use fairlead_model::listener::HttpTimeouts;
use tokio::time::Sleep;

use super::drain::{Drain, Waiting};
use crate::clock::Clock;
use crate::http::{Connection, HttpService};

/// How long a connection waits for a request before it gives its memory back.
const REST: Duration = Duration::from_secs(1);

/// What is to become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It takes no more requests; those that run may end.
    Finish,
    /// It ends now.
    Close,
    /// It may give its memory back until something comes.
    Rest,
}

/// The time of one connection.
pub(super) struct Life<'a> {
    drain: &'a Rc<Drain>,
    service: &'a HttpService,
    connection: &'a Connection,
    timer: Pin<Box<Sleep>>,
    /// When its life is over.
    over: Option<Moment>,
    /// When the first byte of a head that is not whole was seen.
    head: Option<Moment>,
    /// When a connection that finishes is closed.
    close: Option<Moment>,
    /// Whether it finishes with its first request, which may be on its way.
    finishes_with_first: bool,
    waiting: Option<Waiting>,
    is_resting: bool,
    can_rest: bool,
}

impl<'a> Life<'a> {
    pub(super) fn new(
        drain: &'a Rc<Drain>,
        service: &'a HttpService,
        connection: &'a Connection,
        can_rest: bool,
    ) -> Self {
        let now = service.core.clock.now();
        connection.activity.begin(now);
        Self {
            drain,
            service,
            connection,
            timer: Box::pin(tokio::time::sleep_until(
                service.core.clock.instant(now + REST),
            )),
            over: service.settings.timeouts.connection.map(|life| now + life),
            head: None,
            close: None,
            finishes_with_first: false,
            waiting: None,
            is_resting: false,
            can_rest,
        }
    }

    /// It rests, or does no longer.
    pub(super) fn rest(&mut self, is_resting: bool) {
        self.is_resting = is_resting;
        let clock = &self.service.core.clock;
        let next = self.next(clock.now());
        self.timer.as_mut().reset(clock.instant(next));
    }

    /// Whether something is to become of it. To be asked each time after the connection itself was polled.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Verdict> {
        let is_first = self.waiting.is_none();
        if is_first {
            self.waiting = Some(self.drain.wake(context.waker()));
        }
        if self.close.is_none() && self.drain.has_begun() {
            self.service.figures.downstream_cx_drain_close.increment();
            let verdict = self.finish();
            self.finishes_with_first =
                verdict == Verdict::Finish && self.connection.activity.is_fresh();
            if !self.finishes_with_first {
                return Poll::Ready(verdict);
            }
        }
        if self.finishes_with_first && !self.connection.activity.is_fresh() {
            self.finishes_with_first = false;
            return Poll::Ready(Verdict::Finish);
        }
        if self.connection.activity.is_late(context) {
            return Poll::Ready(Verdict::Close);
        }
        let clock = &self.service.core.clock;
        if self.connection.activity.is_busy() {
            self.head = None;
        } else if self.head.is_none()
            && self.connection.activity.has_read()
            && self.timeouts().header.is_some()
        {
            self.head = Some(clock.now());
            let next = self.next(clock.now());
            self.timer.as_mut().reset(clock.instant(next));
        } else if !is_first && !self.timer.is_elapsed() && !self.is_resting {
            return Poll::Pending;
        }
        while self.timer.as_mut().poll(context).is_ready() {
            let now = clock.now();
            if let Some(verdict) = self.judge(now) {
                return Poll::Ready(verdict);
            }
            let next = self.next(now);
            self.timer.as_mut().reset(clock.instant(next));
        }
        Poll::Pending
    }

    fn timeouts(&self) -> &HttpTimeouts {
        &self.service.settings.timeouts
    }

    fn finish(&mut self) -> Verdict {
        let now = self.service.core.clock.now();
        let close = now + self.timeouts().drain;
        self.close = Some(close);
        let clock: &Clock = &self.service.core.clock;
        self.timer.as_mut().reset(clock.instant(close));
        if self.is_resting {
            Verdict::Close
        } else {
            Verdict::Finish
        }
    }

    /// What the time means.
    fn judge(&mut self, now: Moment) -> Option<Verdict> {
        let figures = &self.service.figures;
        if let Some(close) = self.close {
            return (now >= close).then_some(Verdict::Close);
        }
        if self.over.is_some_and(|over| now >= over) {
            figures.downstream_cx_max_duration_reached.increment();
            return Some(self.finish());
        }
        if self.connection.activity.is_busy() {
            return None;
        }
        if let (Some(head), Some(limit)) = (self.head, self.timeouts().header)
            && now >= head + limit
        {
            figures.downstream_rq_header_timeout.increment();
            return Some(Verdict::Close);
        }
        let since = self.connection.activity.since();
        if self
            .timeouts()
            .idle
            .is_some_and(|limit| now >= since + limit)
        {
            figures.downstream_cx_idle_timeout.increment();
            return Some(self.finish());
        }
        let can_rest = self.can_rest && !self.is_resting && !self.connection.activity.is_stuck();
        (can_rest && self.head.is_none() && now >= since + REST).then_some(Verdict::Rest)
    }

    /// When to look again.
    fn next(&self, now: Moment) -> Moment {
        if let Some(close) = self.close {
            return close;
        }
        let is_busy = self.connection.activity.is_busy();
        let since = if is_busy {
            now
        } else {
            self.connection.activity.since()
        };
        let timeouts = self.timeouts();
        let idle = timeouts.idle.map(|limit| since + limit);
        let head = self
            .head
            .filter(|_| !is_busy)
            .and_then(|head| timeouts.header.map(|limit| head + limit));
        // One whose answer is still being read by the caller is looked at again later.
        let rest = (self.can_rest && !self.is_resting).then(|| {
            if now < since + REST {
                since + REST
            } else {
                now + REST
            }
        });
        let next = [self.over, idle, head, rest].into_iter().flatten().min();
        next.unwrap_or(now + Duration::from_secs(3600))
    }
}
