//! Time limits that are seldom reached. To set a timer and take it back costs more than all else of a limit, so timers are left
//! set: the next limit takes one that goes off before it, and sets it anew only if it does.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

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
}

impl Limit {
    pub(crate) fn new(timers: &Rc<Timers>, at: Instant) -> Self {
        Self {
            at,
            timer: None,
            timers: Rc::clone(timers),
        }
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
            if timer.deadline() >= at || Instant::now() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }

    /// What `future` makes within the limit.
    pub(crate) async fn hold<F: Future>(&mut self, future: F) -> Option<F::Output> {
        let mut future = std::pin::pin!(future);
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
    use std::time::Duration;

    use super::*;

    /// How long until the limit of `after` is reached.
    async fn reached(timers: &Rc<Timers>, after: Duration) -> Duration {
        let begun = Instant::now();
        let mut limit = Limit::new(timers, begun + after);
        assert!(limit.hold(std::future::pending::<()>()).await.is_none());
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_timer_that_was_left_ends_no_limit_early_or_late() {
        let timers = Rc::default();
        for seconds in [5, 1, 9, 2] {
            let limit = Duration::from_secs(seconds);
            Limit::new(&timers, Instant::now() + limit)
                .hold(tokio::task::yield_now())
                .await
                .expect("what ends at once is within its limit");
        }
        for seconds in [3, 7, 1] {
            let took = reached(&timers, Duration::from_secs(seconds)).await;
            assert_eq!(took.as_secs(), seconds);
        }
        assert_eq!(timers.0.borrow().len(), 1);
    }
}
