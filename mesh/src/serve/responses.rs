//! The responses of a stream, as gRPC frames messages (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).
//!
//! tonic's own framing keeps a buffer of the largest response for as long as the stream lives, which is more than a megabyte for each
//! proxy of a large cluster; here a response is let go of once it was sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

/// How many responses may wait to be sent; more are made once the proxy has taken those.
const WAITING: usize = 16;
/// The bytes before a message: whether it is compressed, and its length.
const HEAD: usize = 5;
/// Longer messages are not copied behind that.
const COPIED: usize = 16 << 10;

/// What goes to a proxy.
pub(super) enum Sent {
    /// A response.
    Response(Bytes),
    /// Nothing; it is dropped once the responses before it are on their way.
    Mark(#[expect(dead_code, reason = "that it is dropped is all it says")] oneshot::Sender<()>),
    /// The end.
    End(Status),
}

/// The responses to a proxy.
pub(super) struct Responses {
    sent: mpsc::Receiver<Sent>,
    /// The message whose head was sent.
    message: Option<Bytes>,
    is_over: bool,
}

impl Responses {
    /// What is sent by the first of these.
    pub(super) fn channel() -> (mpsc::Sender<Sent>, Self) {
        let (sender, sent) = mpsc::channel(WAITING);
        let responses = Self {
            sent,
            message: None,
            is_over: false,
        };
        (sender, responses)
    }

    /// The first frame of a message.
    fn begin(&mut self, message: Bytes) -> Frame<Bytes> {
        let is_copied = message.len() <= COPIED;
        let copied = if is_copied { message.len() } else { 0 };
        let mut frame = BytesMut::with_capacity(HEAD + copied);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).expect("a response is no 4 GiB"));
        match is_copied {
            true => frame.put(message),
            false => self.message = Some(message),
        }
        Frame::data(frame.freeze())
    }

    fn end(&mut self, status: &Status) -> Frame<Bytes> {
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            // What it says is no header.
            let status = Status::new(status.code(), "");
            status.add_header(&mut trailers).ok();
        }
        Frame::trailers(trailers)
    }
}

impl Body for Responses {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(message))));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        loop {
            let frame = match ready!(self.sent.poll_recv(context)) {
                Some(Sent::Response(message)) => self.begin(message),
                Some(Sent::Mark(_)) => continue,
                Some(Sent::End(status)) => self.end(&status),
                None => self.end(&Status::ok("")),
            };
            return Poll::Ready(Some(Ok(frame)));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}
