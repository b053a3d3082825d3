//! An answer's body on its way to the caller. When it ends, the connection goes back, the balancer learns how it went, and the
//! request is counted, exactly once.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use fairlead_model::Moment;
use fairlead_model::balance::{EndpointKey, Finish};
use fairlead_model::class::{self, Class};
use fairlead_model::format::Flag;
use fairlead_model::route::Action;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::filter::Damaged;
use super::forward::Call;
use super::respond::grpc_status;
use super::watched::Watched;
use crate::body::BodyError;
use crate::limit::{Limit, Reached};
use crate::metrics::{ClusterFigures, Counter, RouteFigures};
use crate::upstream::{Lease, Received, judged};

/// The body of an answer.
#[derive(Debug)]
pub(crate) enum Answer {
    /// None.
    Empty,
    /// A text of the proxy's own.
    Text(Option<Bytes>),
    /// An endpoint's that ended with its head.
    Ended(Received),
    /// An endpoint's that refused to leave HTTP; its connection is not used again.
    Refused { incoming: Received, lease: Lease },
    /// Any of these, which comes slowly or breaks off on purpose.
    Damaged(Box<Damaged>),
    /// Any of these, whose end is noted.
    Watched(Box<Watched>),
    /// An endpoint's, as it comes.
    Stream {
        incoming: Received,
        exchange: Option<Exchange>,
    },
}

/// A try whose answer is on its way.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(super) call: Box<Call>,
    pub(super) key: EndpointKey,
    pub(super) lease: Option<Lease>,
    pub(super) figures: Arc<RouteFigures>,
    pub(super) status: u16,
    /// The class by the head; gRPC's trailers may change it.
    pub(super) class: Class,
    pub(super) grpc: Option<u8>,
    pub(super) retry_after: Option<Duration>,
    pub(super) bytes: u64,
    /// Whether its body was not there with its head.
    pub(super) has_waited: bool,
    pub(super) limit: Option<Limit>,
}

impl Answer {
    /// An endpoint's answer, begun at `now`.
    pub(super) fn of(mut body: Received, mut exchange: Exchange, now: Moment) -> Self {
        if body.is_end_stream() {
            body.ended();
            exchange.complete(now);
            return Self::Ended(body);
        }
        exchange.wait_for_caller();
        Self::Stream {
            incoming: body,
            exchange: Some(exchange),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty | Self::Ended(_) => Poll::Ready(None),
            Self::Text(text) => Poll::Ready(
                text.take()
                    .filter(|text| !text.is_empty())
                    .map(|text| Ok(Frame::data(text))),
            ),
            Self::Refused { incoming, lease } => {
                lease.drive(context);
                Pin::new(incoming).poll_frame(context)
            }
            Self::Damaged(damaged) => damaged.poll_frame(context),
            Self::Watched(watched) => watched.poll_frame(context),
            Self::Stream { incoming, exchange } => pass(incoming, exchange, context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Ended(_) => true,
            Self::Text(text) => text.as_ref().is_none_or(Bytes::is_empty),
            Self::Damaged(damaged) => damaged.is_end_stream(),
            Self::Watched(watched) => watched.inner().is_end_stream(),
            Self::Refused { incoming, .. } | Self::Stream { incoming, .. } => {
                incoming.is_end_stream()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Damaged(damaged) => damaged.size_hint(),
            Self::Watched(watched) => watched.inner().size_hint(),
            // The length an answer to HEAD tells is not zero.
            Self::Ended(incoming)
            | Self::Refused { incoming, .. }
            | Self::Stream { incoming, .. } => incoming.size_hint(),
        }
    }
}

/// The next part of an endpoint's body.
fn pass(
    incoming: &mut Received,
    exchange: &mut Option<Exchange>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
    if let Some(exchange) = exchange {
        exchange.wait_for_endpoint();
    }
    let frame = match Pin::new(&mut *incoming).poll_frame(context) {
        Poll::Pending
            if exchange.as_mut().is_some_and(|exchange| {
                let lease = exchange.lease.as_mut();
                lease.is_some_and(|lease| lease.drive(context))
            }) =>
        {
            Pin::new(&mut *incoming).poll_frame(context)
        }
        frame => frame,
    };
    if frame.is_pending()
        && let Some(error) = exchange.as_mut().and_then(|own| own.late(context))
    {
        broken(exchange, Some(Class::Failure), |figures| {
            &figures.upstream_rq_timeout
        });
        return Poll::Ready(Some(Err(error)));
    }
    match ready!(frame) {
        Some(Ok(frame)) => {
            if let Some(own) = exchange {
                if let Some(limit) = &mut own.limit {
                    limit.moved();
                }
                if let Some(data) = frame.data_ref() {
                    own.bytes += data.remaining() as u64;
                    if let Some(compared) = &own.call.compared {
                        compared.live_part(data);
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    own.trailers(trailers);
                }
            }
            // The caller does not ask again after the last frame of a known length.
            if incoming.is_end_stream() {
                whole(incoming, exchange);
            } else if let Some(exchange) = exchange {
                exchange.wait_for_caller();
            }
            Poll::Ready(Some(Ok(frame)))
        }
        Some(Err(error)) => {
            broken(exchange, Some(Class::Failure), |figures| {
                &figures.upstream_rq_rx_reset
            });
            Poll::Ready(Some(Err(error)))
        }
        None => {
            whole(incoming, exchange);
            Poll::Ready(None)
        }
    }
}

/// The body was read to its end.
fn whole(incoming: &mut Received, exchange: &mut Option<Exchange>) {
    if let Some(exchange) = exchange.take() {
        incoming.ended();
        exchange.complete_now();
    }
}

/// The body ended before its end: a failure, unless the caller went away. Either is counted.
fn broken(
    exchange: &mut Option<Exchange>,
    class: Option<Class>,
    counter: impl Fn(&ClusterFigures) -> &Counter,
) {
    if let Some(exchange) = exchange.take() {
        counter(&exchange.call.upstream().figures).increment();
        exchange.end(class);
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Self::Stream { incoming, exchange } = self {
            if let Some(exchange) = exchange {
                exchange.wait_for_endpoint();
            }
            if incoming.is_end_stream() {
                whole(incoming, exchange);
            } else {
                if let Some(exchange) = exchange {
                    exchange.was_left();
                }
                broken(exchange, None, |figures| &figures.upstream_rq_tx_reset);
            }
        }
    }
}

impl Exchange {
    /// The caller is to take what there is: whoever writes to it minds the time.
    fn wait_for_caller(&mut self) {
        if let Some(active) = &self.call.active
            && self.limit.is_some()
        {
            active.activity().lend(self.limit.take());
        }
    }

    /// The caller took what there was, and asks for more.
    fn wait_for_endpoint(&mut self) {
        if let (None, Some(active)) = (&self.limit, &self.call.active) {
            self.limit = active.activity().take_back();
        }
    }

    /// Nobody wants the rest: the caller went away, or took nothing for too long.
    fn was_left(&self) {
        let reached = self.limit.as_ref().and_then(Limit::reached);
        let Some(reached) = reached else {
            if let Some(active) = &self.call.active {
                active.figures().downstream_rq_rx_reset.increment();
            }
            return;
        };
        let flag = if reached == Reached::Silence {
            self.call.was_silent();
            Flag::StreamIdle
        } else {
            Flag::UpstreamTimeout
        };
        if let Some(record) = &self.call.record {
            record.flag(flag);
        }
    }

    /// What of its body is late, which is being waited for.
    fn late(&mut self, context: &mut Context<'_>) -> Option<BodyError> {
        self.has_waited = true;
        let limit = self.limit.as_mut()?;
        limit.poll(context).is_ready().then(|| {
            if limit.reached() == Some(Reached::Silence) {
                self.call.was_silent();
                BodyError::Silent
            } else {
                BodyError::Late
            }
        })
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if !self.call.is_grpc {
            return;
        }
        if let Some(code) = grpc_status(trailers) {
            self.grpc = Some(code);
            if let Action::Forward(forward) = &self.call.route.action {
                let answer = class::Answer {
                    status: self.status,
                    grpc: self.grpc,
                    headers: trailers,
                };
                self.class = forward.classes.of(&answer);
            }
        }
    }

    fn complete_now(self) {
        let clock = &self.call.core.clock;
        // A body that was there with its head is as old as that.
        let now = if self.has_waited {
            clock.now()
        } else {
            clock.read()
        };
        self.complete(now);
    }

    /// The answer was read to its end: its connection may serve another.
    fn complete(mut self, now: Moment) {
        if let Some(lease) = self.lease.take() {
            lease.done(now, true);
        }
        let class = if self.call.is_grpc && self.grpc.is_none() {
            Class::Failure
        } else {
            self.class
        };
        self.end_at(Some(class), now);
    }

    /// The answer ended, with a class, or without when the caller went away.
    fn end(self, class: Option<Class>) {
        let now = self.call.core.clock.now();
        self.end_at(class, now);
    }

    fn end_at(self, class: Option<Class>, now: Moment) {
        if let (Some(compared), Some(_)) = (&self.call.compared, class) {
            compared.live(self.status);
        }
        let is_rejection = class::is_rejection(self.status, self.grpc);
        let finish = Finish {
            judged: class.map(|class| judged(class.is_failure(), is_rejection)),
            unanswered: None,
            retry_after: self.retry_after,
        };
        let upstream = self.call.upstream();
        upstream.finish(self.key, finish, now, &self.call.core.random);
        let took = now.since(self.call.begun);
        let figures = &upstream.figures;
        figures.upstream_rq_active.add(-1);
        figures.upstream_rq_time.observe(took);
        figures.upstream_rq.count(self.status);
        match class {
            Some(Class::Success) => self.figures.success.increment(),
            Some(_) => self.figures.failure.increment(),
            None => {}
        }
        self.figures.responses.count(self.status);
        self.figures.response_bytes.add(self.bytes);
        self.figures
            .request_bytes
            .add(self.call.target().request_bytes());
        self.figures.latency_ms.observe(took);
    }
}
