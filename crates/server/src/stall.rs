//! Ends a connection that does not move, so that it cannot hold its place for ever: one whose peer
//! does not take what it is sent, and one on which nothing goes either way.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// A stream that fails when it makes no progress for too long.
pub(crate) struct StallGuard<S> {
    stream: S,
    longest: Duration,
    /// Neither reads nor writes get on.
    idle: Watch,
    /// Writes do not get on, whatever is read.
    stuck: Watch,
}

/// Watches over something that waits. Its timer is set anew only when it fires, not at each step.
#[derive(Default)]
struct Watch {
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Watch {
    fn got_on(&mut self) {
        self.waiting_since = None;
    }

    /// Whether it has waited for too long; else the task is woken when it has.
    fn is_overdue(&mut self, longest: Duration, context: &mut Context<'_>) -> bool {
        let due = *self.waiting_since.get_or_insert_with(Instant::now) + longest;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        while timer.as_mut().poll(context).is_ready() {
            if due <= Instant::now() {
                return true;
            }
            timer.as_mut().reset(due);
        }
        false
    }
}

impl<S> StallGuard<S> {
    pub(crate) fn new(stream: S, longest: Duration) -> Self {
        Self { stream, longest, idle: Watch::default(), stuck: Watch::default() }
    }

    /// Passes on what a write or flush came to, unless it has waited for too long.
    fn guard_write<T>(
        &mut self,
        context: &mut Context<'_>,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stuck.got_on();
            self.idle.got_on();
        } else if self.stuck.is_overdue(self.longest, context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_read(context, buffer);
        let longest = self.longest;
        if result.is_ready() {
            self.idle.got_on();
        } else if self.idle.is_overdue(longest, context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, octets);
        self.guard_write(context, result)
    }

    // Without these two an HTTP/1.1 answer would be copied together before it is written.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, octets);
        self.guard_write(context, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_flush(context);
        self.guard_write(context, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.stream).poll_shutdown(context);
        self.guard_write(context, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let mut guard = StallGuard::new(ours, Duration::from_secs(60));
        let error = guard.write_all(&[0; 17]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_peer_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut guard = StallGuard::new(ours, Duration::from_secs(60));
        let reading = async {
            let mut octets = [0; 16];
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                theirs.read_exact(&mut octets).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(guard.write_all(&[0; 160]), reading);
        written.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_on_which_nothing_goes_is_given_up() {
        let (ours, mut theirs) = tokio::io::duplex(16);
        let mut guard = StallGuard::new(ours, Duration::from_secs(60));
        let start = Instant::now();
        let talking = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                theirs.write_all(b"x").await.unwrap();
            }
        };
        let mut octets = Vec::new();
        let (error, ()) = tokio::join!(guard.read_to_end(&mut octets), talking);
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!((octets.len(), start.elapsed().as_secs()), (3, 210));
    }
}
