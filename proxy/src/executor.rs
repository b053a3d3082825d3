//! Runs what hyper hands over on the worker it belongs to.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::http::Connection;
use crate::limit::Limit;

/// Runs the streams of a caller's connection on this worker's own runtime.
#[derive(Debug, Clone)]
pub(crate) struct Streams(Rc<Connection>);

impl Streams {
    pub(crate) fn of(connection: &Rc<Connection>) -> Self {
        Self(Rc::clone(connection))
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(Timed {
            stream: future,
            connection: Rc::clone(&self.0),
            limit: None,
        });
    }
}

pin_project! {
    /// A stream, and the time of its answer while the caller takes nothing of it: hyper does not ask for more of a body then, so
    /// that the body itself cannot know.
    struct Timed<F> {
        #[pin]
        stream: F,
        connection: Rc<Connection>,
        limit: Option<Limit>,
    }
}

impl<F: Future> Future for Timed<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let own = self.project();
        let activity = &own.connection.activity;
        activity.lend(own.limit.take());
        if own.stream.poll(context).is_ready() {
            return Poll::Ready(());
        }
        *own.limit = activity.take_back();
        let Some(limit) = own.limit else {
            return Poll::Pending;
        };
        std::task::ready!(limit.poll(context));
        // The answer ends with its stream, and sees why.
        activity.lend(own.limit.take());
        Poll::Ready(())
    }
}
