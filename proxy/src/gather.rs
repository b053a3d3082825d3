//! What HTTP/2 writes, gathered: the frames of one turn go out together, whichever streams they are of.
//!
//! `h2` flushes before each larger DATA frame, in the middle of a turn, so that every answer would be a TLS record, or two,
//! and a system call of its own. In: those writes and flushes. Out: the same bytes, once the turn is over, or before that
//! when there is enough for a write that is worth its while.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many bytes wait for the end of a turn: what goes into one TLS record.
const MOST: usize = 16 * 1024;

/// A connection that is written to when [`Gathered::release`] is called, and by no flush.
#[derive(Debug)]
pub(crate) struct Gathered<S>(Rc<RefCell<Gathering<S>>>);

#[derive(Debug)]
struct Gathering<S> {
    stream: S,
    waiting: BytesMut,
    /// Why the last release failed; the next flush says so.
    broken: Option<io::Error>,
}

impl<S> Clone for Gathered<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self(Rc::new(RefCell::new(Gathering {
            stream,
            waiting: BytesMut::new(),
            broken: None,
        })))
    }

    /// What a turn came to, once what it wrote is on its way.
    pub(crate) fn after<T>(&self, context: &mut Context<'_>, turn: T) -> T {
        self.0.borrow_mut().release(context);
        turn
    }
}

impl<S: AsyncWrite + Unpin> Gathering<S> {
    /// Writes as much as can be written now. The rest is written by a later turn, for which the caller is woken.
    fn release(&mut self, context: &mut Context<'_>) {
        if let Poll::Ready(Err(error)) = self.flush(context) {
            self.broken = Some(error);
            context.waker().wake_by_ref();
        }
    }

    fn flush(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.write(context))?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.waiting.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(context, &self.waiting))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.waiting.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut own = self.0.borrow_mut();
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if own.waiting.len() + length > MOST {
            ready!(own.write(context))?;
            if length > MOST {
                return Pin::new(&mut own.stream).poll_write_vectored(context, slices);
            }
        }
        for slice in slices {
            own.waiting.extend_from_slice(slice);
        }
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.borrow_mut().broken.take().map_or(Ok(()), Err))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut own = self.0.borrow_mut();
        ready!(own.write(context))?;
        Pin::new(&mut own.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// Ends a turn.
    async fn release(gathered: &Gathered<DuplexStream>) {
        poll_fn(|context| gathered.after(context, Poll::Ready(()))).await;
    }

    #[tokio::test]
    async fn what_a_turn_writes_goes_out_when_it_ends() {
        let (own, mut other) = duplex(1 << 20);
        let mut gathered = Gathered::new(own);
        let mut read = [0; 16];
        for part in ["head", "body"] {
            gathered.write_all(part.as_bytes()).await.expect("to write");
            gathered.flush().await.expect("to flush");
        }
        assert!(other.read(&mut read).now_or_never().is_none());
        release(&gathered).await;
        let length = other.read(&mut read).await.expect("to read");
        assert_eq!(&read[..length], b"headbody");
        gathered.write_all(b"end").await.expect("to write");
        gathered.shutdown().await.expect("to end");
        assert_eq!(other.read(&mut read).await.expect("to read"), 3);
        assert_eq!(other.read(&mut read).await.expect("to read"), 0);
    }

    #[tokio::test]
    async fn much_does_not_wait_and_more_than_is_taken_waits() {
        let (own, mut other) = duplex(MOST);
        let mut gathered = Gathered::new(own);
        gathered.write_all(b"head").await.expect("to write");
        let much = vec![1; MOST];
        gathered.write_all(&much).await.expect("to write");
        let refused = gathered.write_all(&much).now_or_never();
        assert!(refused.is_none(), "nobody read what is on its way");
        let mut read = vec![0; 4 + MOST];
        let reading = async { other.read_exact(&mut read).await.map(drop) };
        let releasing = async {
            while !gathered.0.borrow().waiting.is_empty() {
                release(&gathered).await;
                tokio::task::yield_now().await;
            }
            Ok(())
        };
        futures::try_join!(reading, releasing).expect("both end");
        assert!(read.starts_with(b"head\x01"));
    }

    #[tokio::test]
    async fn a_release_that_failed_fails_the_next_flush() {
        let (own, other) = duplex(MOST);
        let mut gathered = Gathered::new(own);
        gathered.write_all(b"head").await.expect("to write");
        drop(other);
        gathered.flush().await.expect("nothing was written yet");
        release(&gathered).await;
        let error = gathered.flush().await.expect_err("it is broken");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
