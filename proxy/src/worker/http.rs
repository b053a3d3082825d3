//! HTTP on a caller's connection.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use fairlead_model::listener::Codec;
use http::Request;
use hyper::body::{Body, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::connection::FIRST_BYTES;
use super::drain::Drain;
use super::life::{Life, Verdict};
use crate::detect::{Spoken, detect};
use crate::executor::Streams;
use crate::gather::Gathered;
use crate::http::{Connection, HttpService};
use crate::upstream::Stream;

/// How long the end of a connection may take that is closed.
const CLOSING: Duration = Duration::from_secs(1);
/// hyper's own limit of headers, which costs nothing.
const DEFAULT_HEADERS: u32 = 100;

/// Speaks HTTP until the connection ends.
pub(super) async fn serve(
    drain: &Rc<Drain>,
    service: &Rc<HttpService>,
    stream: Stream,
    is_h2: Option<bool>,
    connection: Rc<Connection>,
) {
    let (stream, is_h2) = match is_h2 {
        Some(is_h2) => (stream, is_h2),
        None => match Box::pin(detect(stream, 64, FIRST_BYTES)).await {
            Ok((stream, spoken, _)) => (stream, spoken == Spoken::Http2),
            Err(_) => return,
        },
    };
    let figures = &service.figures;
    if !is_h2 && service.settings.codec == Codec::Http2 {
        figures.downstream_cx_protocol_error.increment();
        return;
    }
    figures.downstream_cx_total.increment();
    figures.downstream_cx_active.add(1);
    let outcome = if is_h2 {
        figures.downstream_cx_http2_total.increment();
        Box::pin(serve_h2(drain, service, stream, &connection)).await
    } else {
        figures.downstream_cx_http1_total.increment();
        serve_h1(drain, service, stream, &connection).await
    };
    if let Err(error) = outcome {
        if error.is_parse() {
            figures.downstream_cx_protocol_error.increment();
        }
        tracing::debug!(%error, "a connection of a caller broke");
    }
    figures.downstream_cx_active.add(-1);
    figures.downstream_cx_destroy.increment();
}

async fn serve_h2(
    drain: &Rc<Drain>,
    service: &Rc<HttpService>,
    stream: Stream,
    connection: &Rc<Connection>,
) -> hyper::Result<()> {
    let (own, caller) = (Rc::clone(service), Rc::clone(connection));
    let handler = service_fn(move |request| own.serve(&caller, request));
    let gathered = Gathered::new(Noted::new(stream, connection));
    let io = TokioIo::new(gathered.clone());
    let mut serving = std::pin::pin!(h2_builder(service, connection).serve_connection(io, handler));
    let mut life = Life::new(drain, service, connection, false);
    poll_fn(|context| {
        loop {
            let turn = serving.as_mut().poll(context);
            if let Poll::Ready(outcome) = gathered.after(context, turn) {
                return Poll::Ready(outcome);
            }
            match std::task::ready!(life.poll(context)) {
                Verdict::Finish => serving.as_mut().graceful_shutdown(),
                Verdict::Close | Verdict::Rest => return Poll::Ready(Ok(())),
            }
        }
    })
    .await
}

/// How HTTP/1.1 on a connection ended.
enum Left {
    Ended(hyper::Result<()>),
    Closed,
    Resting,
}

async fn serve_h1(
    drain: &Rc<Drain>,
    service: &Rc<HttpService>,
    mut stream: Stream,
    connection: &Rc<Connection>,
) -> hyper::Result<()> {
    let builder = h1_builder(service);
    let (own, caller) = (Rc::clone(service), Rc::clone(connection));
    let handler = move |request: Request<Incoming>| {
        let has_body = !request.body().is_end_stream();
        caller.activity.note_body(has_body);
        // A connection without a request has no room for one.
        Box::pin(own.serve(&caller, request))
    };
    let can_rest = stream.tcp().is_some();
    let mut life = Life::new(drain, service, connection, can_rest);
    loop {
        let io = TokioIo::new(Noted::new(stream, connection));
        let mut serving = Box::new(builder.serve_connection(io, service_fn(handler.clone())));
        let left = poll_fn(|context| {
            loop {
                if let Poll::Ready(outcome) = serving.poll_without_shutdown(context) {
                    return Poll::Ready(Left::Ended(outcome));
                }
                match std::task::ready!(life.poll(context)) {
                    Verdict::Finish => Pin::new(&mut *serving).graceful_shutdown(),
                    Verdict::Close => return Poll::Ready(Left::Closed),
                    Verdict::Rest => return Poll::Ready(Left::Resting),
                }
            }
        })
        .await;
        let parts = serving.into_parts();
        stream = parts.io.into_inner().stream.after(parts.read_buf);
        match left {
            Left::Resting => {}
            Left::Closed => {
                // Whoever reads nothing does not take the end of TLS either.
                let _ = tokio::time::timeout(CLOSING, stream.shutdown()).await;
                return Ok(());
            }
            Left::Ended(outcome) => {
                if outcome.as_ref().is_err_and(hyper::Error::is_user) {
                    reset(&stream);
                    return outcome;
                }
                match connection.activity.left() {
                    Some(left) if outcome.is_ok() => drop(left.send(stream)),
                    _ => {
                        let may_send = match &outcome {
                            Ok(()) => connection.activity.has_body(),
                            Err(error) => error.is_parse(),
                        };
                        // What few connections come to must not make all of them larger.
                        Box::pin(end(stream, may_send)).await;
                    }
                }
                return outcome;
            }
        }
        life.rest(true);
        if !is_woken(&stream, &mut life).await {
            let _ = stream.shutdown().await;
            return Ok(());
        }
        life.rest(false);
    }
}

/// Waits until a connection that rests brings something; false where it is not to rest any longer.
async fn is_woken(stream: &Stream, life: &mut Life<'_>) -> bool {
    poll_fn(|context| {
        let is_readable = stream
            .tcp()
            .is_none_or(|tcp| tcp.poll_read_ready(context).is_ready());
        if is_readable {
            return Poll::Ready(true);
        }
        life.poll(context).map(|_| false)
    })
    .await
}

/// Ends a connection. Who may still send would have it reset, and the answer with it, if what comes were not taken for a while
/// (RFC 9112, section 9.6).
async fn end(mut stream: Stream, may_send: bool) {
    if stream.shutdown().await.is_ok() && may_send {
        let mut nowhere = tokio::io::sink();
        let rest = tokio::io::copy(&mut stream, &mut nowhere);
        let _ = tokio::time::timeout(CLOSING, rest).await;
    }
}

/// Has a connection end with a reset, where it is not secured; else it just ends.
fn reset(stream: &Stream) {
    if let Some(tcp) = stream.tcp() {
        let _ = socket2::SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    }
}

fn h1_builder(service: &HttpService) -> http1::Builder {
    let settings = &service.settings;
    let mut builder = http1::Builder::new();
    builder
        .auto_date_header(false)
        .half_close(false)
        .header_read_timeout(None)
        .max_header_size(settings.header_bytes as usize);
    if settings.header_count != DEFAULT_HEADERS {
        builder.max_headers(settings.header_count as usize);
    }
    builder
}

fn h2_builder(service: &HttpService, connection: &Rc<Connection>) -> http2::Builder<Streams> {
    let settings = &service.settings;
    let mut builder = http2::Builder::new(Streams::of(connection));
    builder
        .auto_date_header(false)
        .max_concurrent_streams(settings.streams)
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window)
        .max_header_list_size(settings.header_bytes)
        .timer(TokioTimer::new());
    if settings.connect {
        builder.enable_connect_protocol();
    }
    builder
}

/// A connection whose owner knows what moves on it.
struct Noted {
    stream: Stream,
    connection: Rc<Connection>,
}

impl Noted {
    fn new(stream: Stream, connection: &Rc<Connection>) -> Self {
        Self {
            stream,
            connection: Rc::clone(connection),
        }
    }

    fn noted<T>(&self, written: Poll<T>) -> Poll<T> {
        self.connection.activity.note_written(written.is_ready());
        written
    }
}

impl AsyncRead for Noted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.connection.activity.note_read();
        }
        read
    }
}

impl AsyncWrite for Noted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.noted(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.noted(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
