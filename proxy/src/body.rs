//! Bodies as they pass through: streamed frame by frame, never gathered, except what a retry asked to keep.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use fairlead_model::fault::Fault;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use crate::http::{Copies, Record};
use crate::limit::{Flow, Limit};

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// Its sender broke off.
    #[error("the body broke off: {0}")]
    Broken(#[source] hyper::Error),
    /// Its sender reset the stream.
    #[error("the body was reset: {0}")]
    Reset(#[source] h2::Error),
    /// It took too long.
    #[error("the body took too long")]
    Late,
    /// Nothing moved for too long.
    #[error("nothing moved for too long")]
    Silent,
    /// It is longer than it may be.
    #[error("the body is longer than it may be")]
    TooLong,
    /// It was broken off on purpose.
    #[error("the body was cut on purpose")]
    Cut,
    /// What was sent cannot be sent again.
    #[error("the body was not kept")]
    Gone,
}

/// The body of a request on its way to an endpoint.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// None.
    Empty,
    /// As it comes in.
    Stream(Incoming),
    /// As it comes in, timed.
    Timed(Incoming, Rc<Flow>),
    /// As it comes in, minded.
    Minded(Box<(Incoming, Mind)>),
    /// As it comes in, kept for another try.
    Kept(Replay),
    /// A copy of one that came in.
    Copied(VecDeque<Bytes>),
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream(incoming) => Pin::new(incoming)
                .poll_frame(context)
                .map_err(BodyError::Broken),
            Self::Timed(incoming, flow) => {
                let frame = Pin::new(&mut *incoming).poll_frame(context);
                flow.note(&frame, || incoming.is_end_stream());
                frame.map_err(BodyError::Broken)
            }
            Self::Minded(minded) => {
                let (incoming, mind) = &mut **minded;
                mind.poll(incoming, context)
            }
            Self::Kept(replay) => replay.poll_frame(context),
            Self::Copied(copied) => Poll::Ready(copied.pop_front().map(|own| Ok(Frame::data(own)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream(incoming) | Self::Timed(incoming, _) => incoming.is_end_stream(),
            Self::Minded(minded) => minded.1.is_over(&minded.0),
            Self::Kept(replay) => replay.is_end_stream(),
            Self::Copied(copied) => copied.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream(incoming) | Self::Timed(incoming, _) => incoming.size_hint(),
            Self::Minded(minded) => minded.1.size_hint(&minded.0),
            Self::Kept(replay) => replay.shared.borrow().size,
            Self::Copied(copied) => {
                SizeHint::with_exact(copied.iter().map(|own| own.len() as u64).sum())
            }
        }
    }
}

impl Flow {
    /// Notes what came of a request's body. Says whether that was its end.
    fn note<E>(
        &self,
        frame: &Poll<Option<Result<Frame<Bytes>, E>>>,
        is_last: impl FnOnce() -> bool,
    ) -> bool {
        let has_ended = match frame {
            Poll::Pending => return false,
            // Nobody asks again after the last frame of a known length.
            Poll::Ready(Some(_)) => is_last(),
            Poll::Ready(None) => true,
        };
        if let Poll::Ready(Some(Ok(frame))) = frame
            && let Some(data) = frame.data_ref()
        {
            self.bytes.set(self.bytes.get() + data.len() as u64);
        }
        self.has_moved.set(true);
        if has_ended && self.ended.get().is_none() {
            self.ended.set(Some(tokio::time::Instant::now()));
        }
        has_ended
    }
}

/// What is noted of a request's body as it comes in, and how long it may take.
#[derive(Debug, Default)]
pub(crate) struct Mind {
    pub(crate) record: Option<Rc<Record>>,
    pub(crate) flow: Rc<Flow>,
    pub(crate) limit: Option<Limit>,
    /// What is sent elsewhere too.
    pub(crate) copies: Option<Box<Copies>>,
    /// How long it may be, in bytes.
    pub(crate) most: Option<u32>,
    /// What of it was read before.
    pub(crate) held: VecDeque<Frame<Bytes>>,
}

impl Mind {
    /// Whether nothing but its time is noted.
    pub(crate) fn is_timed_only(&self) -> bool {
        self.limit.is_none()
            && self.record.is_none()
            && self.copies.is_none()
            && self.most.is_none()
            && self.held.is_empty()
    }

    /// Whether nothing of the body is left.
    fn is_over(&self, incoming: &Incoming) -> bool {
        self.held.is_empty() && incoming.is_end_stream()
    }

    /// How much of the body is left.
    fn size_hint(&self, incoming: &Incoming) -> SizeHint {
        let mut hint = incoming.size_hint();
        if self.held.is_empty() {
            return hint;
        }
        let held = self.held.iter().filter_map(Frame::data_ref);
        let held: u64 = held.map(|own| own.len() as u64).sum();
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + held);
        }
        hint.set_lower(hint.lower() + held);
        hint
    }

    fn poll(
        &mut self,
        incoming: &mut Incoming,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match self.held.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut *incoming).poll_frame(context),
        };
        let has_ended = self.flow.note(&frame, || self.is_over(incoming));
        if self
            .most
            .is_some_and(|most| self.flow.bytes.get() > u64::from(most))
        {
            self.copies = None;
            self.flow.fault.set(Some(Fault::BodyTooLong));
            return Poll::Ready(Some(Err(BodyError::TooLong)));
        }
        Copies::note(&mut self.copies, &frame, has_ended);
        let Poll::Ready(frame) = frame else {
            if let Some(limit) = &mut self.limit
                && limit.poll(context).is_ready()
            {
                self.flow.fault.set(Some(Fault::RequestTimeout));
                return Poll::Ready(Some(Err(BodyError::Late)));
            }
            return Poll::Pending;
        };
        if let Some(record) = &self.record {
            if let Some(Ok(frame)) = &frame
                && let Some(data) = frame.data_ref()
            {
                record.received_part(data);
            }
            if has_ended {
                record.request_ended();
            }
        }
        Poll::Ready(frame.map(|frame| frame.map_err(BodyError::Broken)))
    }
}

/// A body that can be sent again as long as it is short enough. Clones share what came in; only one is read at a time.
#[derive(Debug)]
pub(crate) struct Replay {
    shared: Rc<RefCell<Shared>>,
    next: usize,
}

#[derive(Debug)]
struct Shared {
    incoming: Incoming,
    size: SizeHint,
    kept: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    length: usize,
    most: usize,
    is_ended: bool,
    is_gone: bool,
    mind: Mind,
}

impl Replay {
    /// Keeps up to `most` bytes.
    pub(crate) fn new(incoming: Incoming, most: usize, mind: Mind) -> Self {
        let shared = Shared {
            size: mind.size_hint(&incoming),
            is_ended: mind.is_over(&incoming),
            incoming,
            kept: Vec::new(),
            trailers: None,
            length: 0,
            most,
            is_gone: false,
            mind,
        };
        Self {
            shared: Rc::new(RefCell::new(shared)),
            next: 0,
        }
    }

    /// The body from its beginning; nothing when it was too long to be kept.
    pub(crate) fn again(&self) -> Option<Self> {
        (!self.shared.borrow().is_gone).then(|| Self {
            shared: Rc::clone(&self.shared),
            next: 0,
        })
    }

    /// Whether all that was read can be sent again.
    pub(crate) fn is_kept(&self) -> bool {
        !self.shared.borrow().is_gone
    }

    /// Whether all of it came in, and was kept.
    pub(crate) fn is_whole(&self) -> bool {
        let shared = self.shared.borrow();
        shared.is_ended && !shared.is_gone
    }

    fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        shared.is_ended && self.next >= shared.kept.len() && shared.trailers.is_none()
    }

    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut shared = self.shared.borrow_mut();
        if shared.is_gone && self.next < shared.kept.len() {
            return Poll::Ready(Some(Err(BodyError::Gone)));
        }
        if let Some(kept) = shared.kept.get(self.next) {
            let kept = kept.clone();
            self.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(kept))));
        }
        if shared.is_ended {
            let is_first = self.next <= shared.kept.len();
            self.next = shared.kept.len() + 1;
            return Poll::Ready(
                shared
                    .trailers
                    .clone()
                    .filter(|_| is_first)
                    .map(|trailers| Ok(Frame::trailers(trailers))),
            );
        }
        let own = &mut *shared;
        let frame = match ready!(own.mind.poll(&mut own.incoming, context)) {
            None => {
                shared.is_ended = true;
                return Poll::Ready(None);
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                // Nobody asks again after the last part of a known length.
                shared.is_ended = shared.mind.is_over(&shared.incoming);
                shared.length += data.remaining();
                if shared.is_gone || shared.length > shared.most {
                    shared.is_gone = true;
                    shared.kept = Vec::new();
                    self.next = 0;
                } else {
                    shared.kept.push(data.clone());
                    self.next += 1;
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => {
                if let Some(trailers) = frame.trailers_ref() {
                    shared.trailers = Some(trailers.clone());
                    shared.is_ended = true;
                    self.next = shared.kept.len() + 1;
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}
