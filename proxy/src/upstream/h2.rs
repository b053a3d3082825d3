//! HTTP/2 to endpoints, on the `h2` crate itself: a request costs no task, channel or lock of its own, unless it has a body.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::REST_OF_REQUEST;
use crate::body::{BodyError, Outgoing};

/// The body of an endpoint's answer.
#[derive(Debug)]
pub(crate) enum Received {
    /// Over HTTP/1.1.
    Http1(Incoming),
    /// Over HTTP/2.
    Http2(Http2Body),
}

/// A body over HTTP/2, with the request's own while that is still being sent.
#[derive(Debug)]
pub(crate) struct Http2Body {
    stream: RecvStream,
    length: Option<u64>,
    is_read: bool,
    sending: Option<Sending>,
}

impl Received {
    /// The answer has ended; its request may go on for a while (RFC 9113 8.1).
    pub(crate) fn ended(&mut self) {
        let Self::Http2(body) = self else {
            return;
        };
        let sending = body.sending.take().filter(|own| !own.task.is_finished());
        if let Some(mut sending) = sending {
            sending.goes_on = true;
            let task = sending.task.abort_handle();
            tokio::task::spawn_local(async move {
                tokio::time::sleep(REST_OF_REQUEST).await;
                task.abort();
            });
        }
    }
}

/// A request's body on its way; it ends with this, unless it goes on.
#[derive(Debug)]
pub(crate) struct Sending {
    task: tokio::task::JoinHandle<()>,
    goes_on: bool,
}

impl Sending {
    fn start(body: Outgoing, stream: SendStream<Bytes>) -> Self {
        Self {
            task: tokio::task::spawn_local(pump(body, stream)),
            goes_on: false,
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if !self.goes_on {
            self.task.abort();
        }
    }
}

/// A request that was sent, as far as it could be.
pub(crate) struct Sent {
    response: ResponseFuture,
    sending: Option<Sending>,
}

/// Sends a request.
pub(crate) fn send(
    sender: &mut SendRequest<Bytes>,
    request: Request<Outgoing>,
) -> Result<Sent, h2::Error> {
    let (head, body) = request.into_parts();
    let is_empty = body.is_end_stream();
    let (response, stream) = sender.send_request(Request::from_parts(head, ()), is_empty)?;
    let sending = (!is_empty).then(|| Sending::start(body, stream));
    Ok(Sent { response, sending })
}

/// Waits for the head of the answer.
pub(crate) async fn answer(sent: Sent) -> Result<Response<Received>, h2::Error> {
    let Sent { response, sending } = sent;
    let response = response.await?;
    let length = response
        .headers()
        .get(http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    Ok(response.map(|stream| {
        Received::Http2(Http2Body {
            stream,
            length,
            is_read: false,
            sending,
        })
    }))
}

/// Sends a body as fast as the endpoint takes it.
async fn pump(body: Outgoing, mut stream: SendStream<Bytes>) {
    let mut body = std::pin::pin!(body);
    loop {
        let frame = tokio::select! {
            biased;
            // The endpoint wants no more.
            _ = poll_fn(|context| stream.poll_reset(context)) => return,
            frame = poll_fn(|context| body.as_mut().poll_frame(context)) => frame,
        };
        match frame {
            None => {
                let _ = stream.send_data(Bytes::new(), true);
                return;
            }
            Some(Err(_)) => {
                stream.send_reset(Reason::CANCEL);
                return;
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    if send_data(&mut stream, data, body.is_end_stream())
                        .await
                        .is_err()
                        || body.is_end_stream()
                    {
                        return;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        let _ = stream.send_trailers(trailers);
                    }
                    return;
                }
            },
        }
    }
}

/// Sends some bytes within what the endpoint allows.
async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    is_last: bool,
) -> Result<(), h2::Error> {
    if is_last && data.is_empty() {
        return stream.send_data(data, true);
    }
    while data.has_remaining() {
        stream.reserve_capacity(data.remaining());
        let allowed = poll_fn(|context| stream.poll_capacity(context)).await;
        // Nothing: the stream was ended without an error.
        let allowed = allowed.transpose()?.ok_or(Reason::NO_ERROR)?;
        let part = data.split_to(allowed.min(data.remaining()));
        if part.is_empty() {
            continue;
        }
        stream.send_data(part, is_last && data.is_empty())?;
    }
    Ok(())
}

impl Body for Received {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = match self.get_mut() {
            Self::Http1(incoming) => {
                return Pin::new(incoming)
                    .poll_frame(context)
                    .map_err(BodyError::Broken);
            }
            Self::Http2(body) => body,
        };
        if !body.is_read {
            match ready!(body.stream.poll_data(context)) {
                Some(Ok(data)) => {
                    let _ = body.stream.flow_control().release_capacity(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                // An endpoint may end its answer before it read the whole request (RFC 9113 8.1).
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {
                    return Poll::Ready(None);
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(BodyError::Reset(error)))),
                None => body.is_read = true,
            }
        }
        let trailers = ready!(body.stream.poll_trailers(context));
        Poll::Ready(match trailers {
            Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
            Err(error) => Some(Err(BodyError::Reset(error))),
        })
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(incoming) => incoming.is_end_stream(),
            Self::Http2(body) => body.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Http1(incoming) => incoming.size_hint(),
            Self::Http2(body) => body
                .length
                .map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

/// A stream of HTTP/2 as a connection of bytes.
#[derive(Debug)]
pub(crate) struct Tunnel {
    send: SendStream<Bytes>,
    receive: RecvStream,
    rest: Bytes,
}

/// Opens a tunnel: the head of the answer, and the bytes where it is a success.
pub(crate) async fn open(
    sender: &mut SendRequest<Bytes>,
    request: Request<()>,
) -> Result<Response<Tunnel>, h2::Error> {
    let (response, send) = sender.send_request(request, false)?;
    let response = response.await?;
    Ok(response.map(|receive| Tunnel {
        send,
        receive,
        rest: Bytes::new(),
    }))
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.receive.poll_data(context)) {
                Some(Ok(data)) => {
                    let _ = self.receive.flow_control().release_capacity(data.len());
                    self.rest = data;
                }
                Some(Err(error)) if error.reason() == Some(Reason::NO_ERROR) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.rest.len().min(buffer.remaining());
        buffer.put_slice(&self.rest.split_to(length));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(bytes.len());
        let allowed = loop {
            match ready!(self.send.poll_capacity(context)) {
                Some(Ok(0)) => {}
                Some(Ok(allowed)) => break allowed.min(bytes.len()),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        };
        self.send
            .send_data(Bytes::copy_from_slice(&bytes[..allowed]), false)
            .map_err(broken)?;
        Poll::Ready(Ok(allowed))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(broken))
    }
}

fn broken(error: h2::Error) -> io::Error {
    match error.get_io() {
        Some(cause) => cause.kind().into(),
        None => io::Error::other(error),
    }
}
