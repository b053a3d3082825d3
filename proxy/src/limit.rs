//! Time limits that are seldom reached. To set a timer and take it back costs more than all else of a limit, so timers are left
//! set: the next limit takes one that goes off before it, and sets it anew only if it does.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use fairlead_model::fault::Fault;
use tokio::time::{Instant, Sleep};

/// How many timers are kept.
const KEPT: usize = 1024;

/// The timers of a worker that are set, and that nobody waits for.
#[derive(Debug, Default)]
pub(crate) struct Timers(RefCell<Vec<Pin<Box<Sleep>>>>);

/// A time limit: the first of its terms that is reached.
#[derive(Debug)]
pub(crate) struct Limit {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    timers: Rc<Timers>,
    end: Option<Instant>,
    answer: Option<Span>,
    silence: Option<Span>,
    flow: Option<Rc<Flow>>,
    has_moved: bool,
    reached: Option<Reached>,
}

/// What a limit counts.
#[derive(Debug, Default)]
pub(crate) struct Terms {
    /// Until then, whatever moves.
    pub(crate) end: Option<Instant>,
    /// So long from the end of the request on.
    pub(crate) answer: Option<Duration>,
    /// So long without a move. Moves are only noted, so that they cost nothing: it is reached after this time at the earliest, and
    /// after twice of it at the latest.
    pub(crate) silence: Option<Duration>,
    /// The request's body, while it is on its way.
    pub(crate) flow: Option<Rc<Flow>>,
}

/// Which term of a limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reached {
    /// The end.
    End,
    /// The time from the end of the request on.
    Answer,
    /// The silence.
    Silence,
}

/// A time, and when it is looked at whether it is over.
#[derive(Debug)]
struct Span {
    most: Duration,
    until: Instant,
}

impl Span {
    fn new(now: Instant, most: Duration) -> Self {
        Self {
            most,
            until: now + most,
        }
    }
}

/// A request's body on its way: whether it moved, how much of it, when it ended, and whether it came too late.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) has_moved: Cell<bool>,
    pub(crate) bytes: Cell<u64>,
    pub(crate) ended: Cell<Option<Instant>>,
    /// What was wrong with it.
    pub(crate) fault: Cell<Option<Fault>>,
}

impl Limit {
    /// Counted from `now`; nothing where there are no terms.
    pub(crate) fn new(timers: &Rc<Timers>, now: Instant, terms: Terms) -> Option<Self> {
        let span = |most| Span::new(now, most);
        let mut limit = Self {
            at: now,
            timer: None,
            timers: Rc::clone(timers),
            end: terms.end,
            answer: terms.answer.map(span),
            silence: terms.silence.map(span),
            flow: terms.flow,
            has_moved: false,
            reached: None,
        };
        limit.at = limit.next()?;
        Some(limit)
    }

    /// Something moved.
    pub(crate) fn moved(&mut self) {
        self.has_moved = true;
    }

    /// Which term was reached.
    pub(crate) fn reached(&self) -> Option<Reached> {
        self.reached
    }

    /// When to look again.
    fn next(&self) -> Option<Instant> {
        let spans = [&self.answer, &self.silence].map(|span| span.as_ref().map(|own| own.until));
        spans.into_iter().chain([self.end]).flatten().min()
    }

    /// Which term is reached now; those that are put off are looked at again when they may be.
    fn judge(&mut self, now: Instant) -> Option<Reached> {
        if self.end.is_some_and(|end| end <= now) {
            return Some(Reached::End);
        }
        let flow = self.flow.as_deref();
        if let Some(answer) = self.answer.as_mut().filter(|own| own.until <= now) {
            // What has not ended by now cannot be late before as much time has passed again.
            let begun = flow.map_or(Some(answer.until - answer.most), |flow| flow.ended.get());
            answer.until = begun.unwrap_or(now) + answer.most;
            if answer.until <= now {
                return Some(Reached::Answer);
            }
        }
        if let Some(silence) = self.silence.as_mut().filter(|own| own.until <= now) {
            let others = flow.is_some_and(|flow| flow.has_moved.take());
            if !std::mem::take(&mut self.has_moved) && !others {
                return Some(Reached::Silence);
            }
            silence.until = now + silence.most;
        }
        None
    }

    /// Ready once it is reached.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let timers = &self.timers;
        let mut timer = self.timer.take().unwrap_or_else(|| {
            let kept = timers.0.borrow_mut().pop();
            let mut timer = kept.unwrap_or_else(|| Box::pin(tokio::time::sleep_until(at)));
            if timer.deadline() > at {
                timer.as_mut().reset(at);
            }
            timer
        });
        let polled = loop {
            if timer.as_mut().poll(context).is_pending() {
                break Poll::Pending;
            }
            let now = Instant::now();
            if now >= self.at {
                self.reached = self.judge(now);
                if self.reached.is_some() {
                    break Poll::Ready(());
                }
                self.at = self.next().unwrap_or(now);
            }
            timer.as_mut().reset(self.at);
        };
        self.timer = Some(timer);
        polled
    }

    /// What `future` makes within the limit.
    pub(crate) async fn hold<F: Future>(&mut self, mut future: Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll(context).map(|()| None),
        })
        .await
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            let mut kept = self.timers.0.borrow_mut();
            if kept.len() < KEPT {
                kept.push(timer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    fn limit(timers: &Rc<Timers>, terms: Terms) -> Limit {
        Limit::new(timers, Instant::now(), terms).expect("there are terms")
    }

    fn until(seconds: u64) -> Terms {
        Terms {
            end: Some(Instant::now() + Duration::from_secs(seconds)),
            ..Terms::default()
        }
    }

    /// How long until a limit is reached, and by what.
    async fn reached(mut limit: Limit) -> (u64, Option<Reached>) {
        let begun = Instant::now();
        let never = pin!(std::future::pending::<()>());
        assert!(limit.hold(never).await.is_none());
        (begun.elapsed().as_secs(), limit.reached())
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_left_ends_no_limit_early_or_late() {
        let timers = Rc::default();
        for seconds in [5, 1, 9, 2] {
            limit(&timers, until(seconds))
                .hold(pin!(tokio::task::yield_now()))
                .await
                .expect("what ends at once is within its limit");
        }
        for seconds in [3, 7, 1] {
            let took = reached(limit(&timers, until(seconds))).await;
            assert_eq!(took, (seconds, Some(Reached::End)));
        }
        assert_eq!(timers.0.borrow().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_is_broken_by_what_moves() {
        let timers = Rc::default();
        let flow = Rc::new(Flow::default());
        let second = Duration::from_secs(1);
        let terms = |end| Terms {
            end,
            silence: Some(second * 10),
            flow: Some(Rc::clone(&flow)),
            ..Terms::default()
        };
        let mut silent = limit(&timers, terms(None));
        let begun = Instant::now();
        let moving = async {
            for _ in 0..5 {
                tokio::time::sleep(second * 6).await;
                flow.has_moved.set(true);
            }
            std::future::pending::<()>().await;
        };
        assert!(silent.hold(pin!(moving)).await.is_none());
        assert_eq!(silent.reached(), Some(Reached::Silence));
        let took = begun.elapsed().as_secs();
        assert!((40..=50).contains(&took), "{took}");
        let ended = limit(&timers, terms(Some(Instant::now() + second * 3)));
        assert_eq!(reached(ended).await, (3, Some(Reached::End)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_has_its_time_from_the_end_of_the_request_on() {
        let timers = Rc::default();
        let second = Duration::from_secs(1);
        for ends in [0, 4, 10, 25, 39] {
            let flow = Rc::new(Flow::default());
            let mut own = limit(
                &timers,
                Terms {
                    answer: Some(second * 10),
                    flow: Some(Rc::clone(&flow)),
                    ..Terms::default()
                },
            );
            let begun = Instant::now();
            let sending = async {
                tokio::time::sleep(second * ends).await;
                flow.ended.set(Some(Instant::now()));
                std::future::pending::<()>().await;
            };
            assert!(own.hold(pin!(sending)).await.is_none());
            assert_eq!(own.reached(), Some(Reached::Answer));
            assert_eq!(begun.elapsed().as_secs(), u64::from(ends) + 10);
        }
        let whole = Terms {
            answer: Some(second * 10),
            ..Terms::default()
        };
        let took = reached(limit(&timers, whole)).await;
        assert_eq!(took, (10, Some(Reached::Answer)));
    }
}
