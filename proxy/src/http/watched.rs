//! An answer's body whose bytes, trailers and end are noted.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use fairlead_model::format::Flag;
use http::{Method, Response, StatusCode};
use http_body::{Body, Frame};

use super::answer::Answer;
use super::record::Record;
use crate::body::BodyError;

/// A body, and what is known of its request.
#[derive(Debug)]
pub(crate) struct Watched {
    inner: Answer,
    record: Rc<Record>,
}

/// Notes the answer's head, and what becomes of its body.
pub(super) fn watch(response: Response<Answer>, record: Rc<Record>) -> Response<Answer> {
    record.answered(response.status().as_u16(), response.headers());
    // The body of such an answer is never read.
    let is_bare = record.method == Method::HEAD
        || response.status() == StatusCode::NO_CONTENT
        || response.status() == StatusCode::NOT_MODIFIED
        || response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if is_bare || response.body().is_end_stream() {
        record.whole();
    }
    response.map(|inner| Answer::Watched(Box::new(Watched { inner, record })))
}

impl Watched {
    pub(super) fn inner(&self) -> &Answer {
        &self.inner
    }

    pub(super) fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.record.sent_part(data);
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.record.trailers(trailers);
                }
                if self.inner.is_end_stream() {
                    self.record.whole();
                }
            }
            Some(Err(BodyError::Late)) => self.record.flag(Flag::UpstreamTimeout),
            Some(Err(BodyError::Silent)) => self.record.flag(Flag::StreamIdle),
            Some(Err(_)) => self.record.flag(Flag::UpstreamTerminated),
            None => self.record.whole(),
        }
        Poll::Ready(frame)
    }
}
