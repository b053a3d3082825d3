//! HTTP/1.1 to endpoints, on hyper's connection, which has no task of its own: the request that uses it polls it, so an answer
//! wakes one task and not two.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use fairlead_model::Moment;
use fairlead_model::cluster::AnswerHead;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;

use super::waiting::Place;
use super::{REST_OF_REQUEST, Stream};
use crate::body::Outgoing;
use crate::metrics::ClusterFigures;

/// How long an orderly end may take.
const CLOSING: Duration = Duration::from_secs(1);

/// A connection that counts for as long as this lives.
#[derive(Debug)]
pub(crate) struct Open {
    figures: Arc<ClusterFigures>,
    _place: Place,
}

impl Open {
    pub(super) fn new(figures: &Arc<ClusterFigures>, place: Place) -> Self {
        figures.upstream_cx_active.add(1);
        Self {
            figures: Arc::clone(figures),
            _place: place,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.figures.upstream_cx_active.add(-1);
        self.figures.upstream_cx_destroy.increment();
    }
}

/// A connection for one request at a time. It ends when it is dropped.
pub(crate) struct Http1 {
    sender: SendRequest<Outgoing>,
    connection: Driven,
    open: Open,
    /// This side's end.
    pub(super) local: Option<SocketAddr>,
    /// How many requests it has carried.
    pub(super) requests: u32,
    /// When its last answer ended.
    pub(super) since: Moment,
}

/// The connection, and whether it is still polled.
struct Driven {
    connection: Connection<TokioIo<Stream>, Outgoing>,
    is_running: bool,
}

impl Driven {
    /// Reads and writes what can be read and written now.
    fn drive(&mut self, context: &mut Context<'_>) {
        if self.is_running
            && let Poll::Ready(outcome) = self.connection.poll_without_shutdown(context)
        {
            self.is_running = false;
            if let Err(error) = outcome {
                tracing::debug!(%error, "a connection to an endpoint broke");
            }
        }
    }
}

pin_project! {
    /// A request on its way, and the connection that carries it.
    struct Sending<'a, F> {
        #[pin]
        sending: F,
        connection: &'a mut Driven,
    }
}

impl<F: Future> Future for Sending<'_, F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let own = self.project();
        own.connection.drive(context);
        own.sending.poll(context)
    }
}

impl Http1 {
    /// Speaks HTTP/1.1 on a connection.
    ///
    /// # Errors
    ///
    /// When hyper refuses to begin.
    pub(super) async fn begin(
        stream: Stream,
        open: Open,
        head: AnswerHead,
    ) -> hyper::Result<Box<Self>> {
        let local = stream.local();
        let mut builder = Builder::new();
        builder.max_header_size(head.bytes as usize);
        // hyper's own limit costs nothing.
        if head.count != AnswerHead::default().count {
            builder.max_headers(head.count as usize);
        }
        let (sender, connection) = builder
            .handshake::<_, Outgoing>(TokioIo::new(stream))
            .await?;
        Ok(Box::new(Self {
            sender,
            connection: Driven {
                connection,
                is_running: true,
            },
            open,
            local,
            requests: 0,
            since: Moment::default(),
        }))
    }

    /// Reads and writes what can be read and written now; the answer's body comes from here.
    pub(crate) fn drive(&mut self, context: &mut Context<'_>) {
        self.connection.drive(context);
    }

    /// Whether the last request was sent to its end, and its answer read to its own.
    pub(super) fn is_done(&self) -> bool {
        self.sender.is_ready()
    }

    /// Sends the rest of a request whose answer has ended; says whether the connection can be used again.
    pub(super) async fn finish(&mut self) -> bool {
        let rest = poll_fn(|context| {
            self.connection.drive(context);
            if self.connection.is_running {
                self.sender.poll_ready(context).map(|ready| ready.is_ok())
            } else {
                Poll::Ready(false)
            }
        });
        tokio::time::timeout(REST_OF_REQUEST, rest)
            .await
            .unwrap_or(false)
    }

    /// Whether it waits for a request. One that ended is noticed here.
    pub(super) fn is_ready(&mut self) -> bool {
        // Nobody has to be woken for a connection that waits: it is asked again before it is used.
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_running && self.sender.is_ready()
    }

    /// Sends a request, and waits for the head of the answer.
    pub(super) fn send(
        &mut self,
        request: Request<Outgoing>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<Outgoing>>>> {
        self.requests += 1;
        Sending {
            sending: self.sender.try_send_request(request),
            connection: &mut self.connection,
        }
    }

    /// Ends it in order.
    pub(super) fn close(self: Box<Self>) {
        let Self {
            sender,
            connection,
            open,
            ..
        } = *self;
        if connection.is_running {
            drop(sender);
            tokio::task::spawn_local(async move {
                let _open = open;
                let _ = tokio::time::timeout(CLOSING, connection.connection).await;
            });
        }
    }

    /// What it became after the endpoint left HTTP, and what keeps its counts.
    pub(crate) fn into_stream(self: Box<Self>) -> (Stream, Open) {
        let parts = self.connection.connection.into_parts();
        (parts.io.into_inner().after(parts.read_buf), self.open)
    }
}

impl fmt::Debug for Http1 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Http1")
            .field("is_running", &self.connection.is_running)
            .field("requests", &self.requests)
            .field("since", &self.since)
            .finish_non_exhaustive()
    }
}
