//! Time limits that are seldom reached. To set a timer and take it back costs more than all else of a limit, so timers are left
//! set: the next limit takes one that goes off before it, and sets it anew only if it does.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How many timers are kept.
const KEPT: usize = 1024;

/// The timers of a worker that are set, and that nobody waits for.
#[derive(Debug, Default)]
pub(crate) struct Timers(RefCell<Vec<Pin<Box<Sleep>>>>);

/// A time limit.
#[derive(Debug)]
pub(crate) struct Limit {
    at: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    timers: Rc<Timers>,
    silence: Option<Silence>,
    is_reached: bool,
}

/// A limit that something moving puts off. Moves are only noted, so that they cost nothing: it is reached after the time at the
/// earliest, and after twice of it at the latest.
#[derive(Debug)]
struct Silence {
    most: Duration,
    has_moved: bool,
    flow: Option<Rc<Flow>>,
    end: Option<Instant>,
}

impl Silence {
    fn has_moved(&mut self) -> bool {
        let own = std::mem::take(&mut self.has_moved);
        let others = self.flow.as_ref().is_some_and(|flow| flow.has_moved.take());
        own || others
    }
}

/// A request's body on its way: whether it moved, and whether it came too late.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) has_moved: Cell<bool>,
    pub(crate) is_late: Cell<bool>,
}

impl Limit {
    pub(crate) fn new(timers: &Rc<Timers>, at: Instant) -> Self {
        Self {
            at,
            timer: None,
            timers: Rc::clone(timers),
            silence: None,
            is_reached: false,
        }
    }

    /// Reached after a silence of `most`, counted from `now`, or at the end, where there is one; `flow` breaks the silence too.
    pub(crate) fn of_silence(
        timers: &Rc<Timers>,
        now: Instant,
        most: Duration,
        end: Option<Instant>,
        flow: Option<Rc<Flow>>,
    ) -> Self {
        let at = now + most;
        let mut limit = Self::new(timers, end.map_or(at, |end| end.min(at)));
        limit.silence = Some(Silence {
            most,
            has_moved: false,
            flow,
            end,
        });
        limit
    }

    /// Something moved.
    pub(crate) fn moved(&mut self) {
        if let Some(silence) = &mut self.silence {
            silence.has_moved = true;
        }
    }

    /// Whether it was reached by silence.
    pub(crate) fn is_silence(&self) -> bool {
        self.silence
            .as_ref()
            .is_some_and(|silence| silence.end.is_none_or(|end| self.at < end))
    }

    /// Whether it was reached.
    pub(crate) fn is_reached(&self) -> bool {
        self.is_reached
    }

    /// Ready once it is reached.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let timer = self.timer.get_or_insert_with(|| {
            let mut timer = self
                .timers
                .0
                .borrow_mut()
                .pop()
                .unwrap_or_else(|| Box::pin(tokio::time::sleep_until(at)));
            if timer.deadline() > at {
                timer.as_mut().reset(at);
            }
            timer
        });
        loop {
            ready!(timer.as_mut().poll(context));
            if timer.deadline() < self.at && Instant::now() < self.at {
                timer.as_mut().reset(self.at);
                continue;
            }
            let next = self.silence.as_mut().and_then(|silence| {
                let is_end = silence.end.is_some_and(|end| self.at >= end);
                let goes_on = !is_end && silence.has_moved();
                let at = Instant::now() + silence.most;
                goes_on.then(|| silence.end.map_or(at, |end| end.min(at)))
            });
            let Some(next) = next else {
                self.is_reached = true;
                return Poll::Ready(());
            };
            self.at = next;
            timer.as_mut().reset(self.at);
        }
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

    /// How long until the limit of `after` is reached.
    async fn reached(timers: &Rc<Timers>, after: Duration) -> Duration {
        let begun = Instant::now();
        let mut limit = Limit::new(timers, begun + after);
        let never = pin!(std::future::pending::<()>());
        assert!(limit.hold(never).await.is_none());
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_left_ends_no_limit_early_or_late() {
        let timers = Rc::default();
        for seconds in [5, 1, 9, 2] {
            let limit = Duration::from_secs(seconds);
            Limit::new(&timers, Instant::now() + limit)
                .hold(pin!(tokio::task::yield_now()))
                .await
                .expect("what ends at once is within its limit");
        }
        for seconds in [3, 7, 1] {
            let took = reached(&timers, Duration::from_secs(seconds)).await;
            assert_eq!(took.as_secs(), seconds);
        }
        assert_eq!(timers.0.borrow().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_is_broken_by_what_moves() {
        let timers = Rc::default();
        let begun = Instant::now();
        let flow = Rc::new(Flow::default());
        let second = Duration::from_secs(1);
        let mut limit =
            Limit::of_silence(&timers, begun, second * 10, None, Some(Rc::clone(&flow)));
        let moving = async {
            for _ in 0..5 {
                tokio::time::sleep(second * 6).await;
                flow.has_moved.set(true);
            }
            std::future::pending::<()>().await;
        };
        assert!(limit.hold(pin!(moving)).await.is_none() && limit.is_silence());
        let took = begun.elapsed().as_secs();
        assert!((40..=50).contains(&took), "{took}");
        let begun = Instant::now();
        let mut ended =
            Limit::of_silence(&timers, begun, second * 10, Some(begun + second * 3), None);
        assert!(
            ended
                .hold(pin!(std::future::pending::<()>()))
                .await
                .is_none()
        );
        assert!(!ended.is_silence() && begun.elapsed().as_secs() == 3);
    }
}
