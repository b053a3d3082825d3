//! What goes wrong on purpose.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use fairlead_model::fault::Fault;
use fairlead_model::filter::{Break, Injection};
use fairlead_model::format::Flag;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::{Asking, Passage, Stopped};
use crate::body::BodyError;
use crate::clock::since_1970;
use crate::core::Shared;
use crate::http::activity::Lingering;
use crate::http::answer::Answer;
use crate::http::respond;
use crate::metrics::HttpFigures;

/// How often an answer that comes slowly may go on.
const TICK: Duration = Duration::from_millis(50);
const TICKS: u64 = 20;

impl Asking<'_> {
    /// Makes go wrong what is to.
    pub(super) async fn inject(
        &self,
        own: &Injection,
        passage: &mut Passage,
    ) -> Result<(), Stopped> {
        let core = &self.service.core;
        if core.shared.faults_off.load(Ordering::Relaxed) {
            return Ok(());
        }
        let headers = self.request.headers();
        let now = own.until.map_or(0, |_| since_1970().as_secs());
        if !own.takes(headers, self.cluster(), &self.connection.peer, now) {
            return Ok(());
        }
        let drawn = own.draw(headers, || core.draw());
        if drawn.is_nothing() {
            return Ok(());
        }
        let figures = &self.service.figures;
        let Some(running) = Running::begin(&core.shared, figures, own.most_active) else {
            figures.fault_faults_overflow.increment();
            return Ok(());
        };
        if let Some(delay) = drawn.delay {
            figures.fault_delays_injected.increment();
            self.flag(Flag::DelayInjected);
            tokio::time::sleep(delay).await;
            core.clock.now();
        }
        if drawn.breaks.is_some() {
            figures.fault_breaks_injected.increment();
            self.flag(Flag::FaultInjected);
        }
        if let Some(Break::Connection) = drawn.breaks {
            return Err(Stopped::Reset);
        }
        if let Some(by) = drawn.abort {
            figures.fault_aborts_injected.increment();
            if let Some(record) = self.record {
                record.failed(Fault::Injected);
            }
            let body = own.abort.as_ref().map_or("", |own| &own.body);
            return Err(Stopped::Answered(Box::new(respond::injected(
                by,
                body,
                self.is_grpc,
            ))));
        }
        if let Some(pace) = drawn.pace {
            figures.fault_response_rl_injected.increment();
            passage.pace = Some(passage.pace.map_or(pace, |own| own.min(pace)));
            // The endpoint's answer may be whole long before the caller has it.
            passage.lingering = Some(Lingering::begin(core, self.connection));
        }
        passage.is_cut |= drawn.breaks == Some(Break::Answer);
        passage.running = Some(running);
        Ok(())
    }

    fn flag(&self, flag: Flag) {
        if let Some(record) = self.record {
            record.flag(flag);
        }
    }
}

/// A fault that runs.
#[derive(Debug)]
pub(super) struct Running {
    shared: Arc<Shared>,
    figures: Arc<HttpFigures>,
}

impl Running {
    /// One more, unless there are as many as may be.
    fn begin(shared: &Arc<Shared>, figures: &Arc<HttpFigures>, most: Option<u32>) -> Option<Self> {
        let count = &shared.active_faults;
        let begun = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |running| {
            most.is_none_or(|most| running < most)
                .then_some(running + 1)
        });
        begun.ok()?;
        figures.fault_active_faults.add(1);
        Some(Self {
            shared: Arc::clone(shared),
            figures: Arc::clone(figures),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.active_faults.fetch_sub(1, Ordering::Relaxed);
        self.figures.fault_active_faults.add(-1);
    }
}

/// An answer that comes slowly, or breaks off in the middle.
#[derive(Debug)]
pub(crate) struct Damaged {
    inner: Answer,
    /// What came and may not go on yet.
    held: Bytes,
    /// How many bytes of it have gone on.
    sent: u64,
    /// How long it is, where that is known.
    length: Option<u64>,
    pace: Option<Pacing>,
    is_cut: bool,
    /// Whether as much has gone on as will.
    is_over: bool,
    _running: Option<Running>,
    _lingering: Option<Lingering>,
}

#[derive(Debug)]
struct Pacing {
    /// How many bytes may go on in a tick.
    most: u64,
    left: u64,
    next: Pin<Box<Sleep>>,
}

impl Pacing {
    /// How many bytes may go on; waits for the next tick where there is none.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<u64> {
        while self.left == 0 {
            ready!(self.next.as_mut().poll(context));
            self.left = self.most;
            self.next.as_mut().reset(Instant::now() + TICK);
        }
        Poll::Ready(self.left)
    }
}

impl Damaged {
    pub(super) fn new(inner: Answer, passage: &mut Passage) -> Self {
        let pace = passage.pace.map(|rate| {
            let most = (rate / TICKS).max(1);
            Pacing {
                most,
                left: most,
                next: Box::pin(tokio::time::sleep(TICK)),
            }
        });
        Self {
            length: inner.size_hint().exact(),
            inner,
            held: Bytes::new(),
            sent: 0,
            pace,
            is_cut: passage.is_cut,
            is_over: false,
            _running: passage.running.take(),
            _lingering: passage.lingering.take(),
        }
    }

    /// How many bytes go on before it breaks off: half of them, or what comes first where nobody knows how many there are.
    fn half(&self) -> Option<u64> {
        self.is_cut
            .then(|| self.length.map_or(1, |length| length / 2))
    }

    pub(in crate::http) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let half = self.half();
        if half.is_some_and(|half| self.sent >= half) {
            if !std::mem::replace(&mut self.is_over, true) {
                // What is there goes out first.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            return Poll::Ready(Some(Err(BodyError::Cut)));
        }
        if self.held.is_empty() {
            match ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.held = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        let mut most = self.held.len() as u64;
        if let Some(half) = half {
            most = most.min(half - self.sent);
        }
        if let Some(pace) = &mut self.pace {
            most = most.min(ready!(pace.poll(context)));
            pace.left -= most;
        }
        let part = self
            .held
            .split_to(usize::try_from(most).unwrap_or(usize::MAX));
        self.sent += most;
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    pub(in crate::http) fn is_end_stream(&self) -> bool {
        self.held.is_empty() && self.inner.is_end_stream() && self.half().is_none()
    }

    pub(in crate::http) fn size_hint(&self) -> SizeHint {
        self.length.map_or_else(SizeHint::new, |length| {
            SizeHint::with_exact(length.saturating_sub(self.sent))
        })
    }
}
