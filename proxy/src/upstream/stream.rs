//! A connection, whatever carries it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, BufMut, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// How many bytes are made one piece before they are written.
const COPIED: usize = 1024;

/// A connection, whatever carries it. Bytes that were looked at come first.
#[derive(Debug)]
pub(crate) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix domain socket.
    Unix(UnixStream),
    /// TCP with bytes that were looked at.
    Looked(Box<(Bytes, Stream)>),
    /// TLS as the caller.
    Client(Box<tokio_rustls::client::TlsStream<Stream>>),
    /// TLS as the one called.
    Server(Box<tokio_rustls::server::TlsStream<Stream>>),
    /// A stream of HTTP/2 to an endpoint.
    Tunnel(Box<super::h2::Tunnel>),
    /// What a caller's or an endpoint's connection became after an upgrade.
    Upgraded(Box<hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>>),
}

impl Stream {
    /// The connection with these bytes before it.
    pub(crate) fn after(self, looked: Bytes) -> Self {
        if looked.is_empty() {
            self
        } else {
            Self::Looked(Box::new((looked, self)))
        }
    }

    /// This side's end, where there is TCP below.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.tcp().and_then(|tcp| tcp.local_addr().ok())
    }

    /// The TCP connection below, where there is one.
    pub(crate) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(tcp) => Some(tcp),
            Self::Looked(looked) => looked.1.tcp(),
            Self::Client(tls) => tls.get_ref().0.tcp(),
            Self::Server(tls) => tls.get_ref().0.tcp(),
            Self::Unix(_) | Self::Tunnel(_) | Self::Upgraded(_) => None,
        }
    }
}

macro_rules! each {
    ($self:expr, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
            Stream::Looked(looked) => {
                let $inner = &mut looked.1;
                $call
            }
            Stream::Client($inner) => $call,
            Stream::Server($inner) => $call,
            Stream::Tunnel($inner) => $call,
            Stream::Upgraded($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Self::Looked(looked) = &mut *self {
            let (bytes, _) = &mut **looked;
            if !bytes.is_empty() {
                let length = bytes.len().min(buffer.remaining());
                buffer.put_slice(&bytes[..length]);
                bytes.advance(length);
                return Poll::Ready(Ok(()));
            }
        }
        each!(self, inner => Pin::new(inner).poll_read(context, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        match slices {
            [only] => self.poll_write(context, only),
            // To copy a few bytes costs less than to have the kernel look for them.
            _ if length <= COPIED => {
                let mut copied = [0; COPIED];
                let mut rest = &mut copied[..];
                for slice in slices {
                    rest.put_slice(slice);
                }
                self.poll_write(context, &copied[..length])
            }
            _ => each!(self, inner => Pin::new(inner).poll_write_vectored(context, slices)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(inner) => inner.is_write_vectored(),
            Self::Unix(inner) => inner.is_write_vectored(),
            Self::Looked(looked) => looked.1.is_write_vectored(),
            Self::Client(_) | Self::Server(_) | Self::Tunnel(_) | Self::Upgraded(_) => false,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(context))
    }
}
