//! Bytes in both directions, until both are done.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::upstream::Stream;

/// How many bytes are read at once, at first.
const FIRST: usize = 4 * 1024;
/// How many bytes are read at once, at most, once reads fill what there is.
const MOST: usize = 256 * 1024;

/// What was copied, and why it ended, unless both sides were done.
#[derive(Debug)]
pub(crate) struct Copied {
    /// From the caller to the endpoint, in bytes.
    pub(crate) sent: u64,
    /// From the endpoint to the caller, in bytes.
    pub(crate) received: u64,
    /// Why it ended early.
    pub(crate) error: Option<io::Error>,
}

/// Copies until both sides are done, one breaks, or nothing moved for `idle`.
pub(crate) async fn copy(
    mut caller: Stream,
    mut endpoint: Stream,
    idle: Option<Duration>,
) -> Copied {
    let (mut there, mut back) = (Direction::default(), Direction::default());
    let error = {
        let mut copying = std::pin::pin!(poll_fn(|context| {
            let sent = there.poll(context, &mut caller, &mut endpoint);
            let received = back.poll(context, &mut endpoint, &mut caller);
            match (sent, received) {
                (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                    Poll::Ready(Err(error))
                }
                (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
                _ => Poll::Pending,
            }
        }));
        match idle {
            None => copying.await.err(),
            Some(idle) => within(idle, &mut copying).await,
        }
    };
    Copied {
        sent: there.copied,
        received: back.copied,
        error,
    }
}

/// Polls until done; ends it when it was not polled, which is when nothing moved, for `idle`.
async fn within(
    idle: Duration,
    copying: &mut Pin<&mut impl Future<Output = io::Result<()>>>,
) -> Option<io::Error> {
    let mut sleep = std::pin::pin!(tokio::time::sleep(idle));
    let mut last = tokio::time::Instant::now();
    poll_fn(|context| {
        // Woken by the timer alone, or by bytes: only bytes count.
        let timer = sleep.as_mut().poll(context).is_ready();
        if !timer {
            last = tokio::time::Instant::now();
        }
        if let Poll::Ready(outcome) = copying.as_mut().poll(context) {
            return Poll::Ready(outcome.err());
        }
        if timer {
            if last.elapsed() >= idle {
                return Poll::Ready(Some(io::ErrorKind::TimedOut.into()));
            }
            sleep.as_mut().reset(last + idle);
            let _ = sleep.as_mut().poll(context);
        }
        Poll::Pending
    })
    .await
}

/// One direction.
#[derive(Debug, Default)]
struct Direction {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    copied: u64,
    is_read: bool,
    is_done: bool,
}

impl Direction {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<io::Result<()>> {
        if self.is_done {
            return Poll::Ready(Ok(()));
        }
        loop {
            while self.start < self.end {
                let written = ready!(
                    Pin::new(&mut *to).poll_write(context, &self.buffer[self.start..self.end])
                )?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.start += written;
                self.copied += written as u64;
            }
            if self.is_read {
                ready!(Pin::new(&mut *to).poll_flush(context))?;
                ready!(Pin::new(&mut *to).poll_shutdown(context))?;
                self.is_done = true;
                self.buffer = Vec::new();
                return Poll::Ready(Ok(()));
            }
            self.grow();
            let mut read = ReadBuf::new(&mut self.buffer);
            match Pin::new(&mut *from).poll_read(context, &mut read)? {
                Poll::Ready(()) => {
                    (self.start, self.end) = (0, read.filled().len());
                    self.is_read = self.end == 0;
                }
                Poll::Pending => {
                    (self.start, self.end) = (0, 0);
                    // What was written may wait in a buffer of TLS.
                    let _ = Pin::new(&mut *to).poll_flush(context)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// Four times as much once a read filled it.
    fn grow(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = vec![0; FIRST];
        } else if self.end == self.buffer.len() && self.buffer.len() < MOST {
            self.buffer = vec![0; self.buffer.len() * 4];
        }
    }
}
