//! Closes a connection so that the last answer arrives: a socket that is closed with unread input takes back what it
//! has sent. Whoever was answered before all of it was read may send the rest, for a moment and within bounds.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// For how long input is read that nobody wants.
const LONGEST: Duration = Duration::from_secs(5);
/// How much of it, in octets.
const MOST: usize = 16 * 1024 * 1024;

/// A stream that reads on for a while after it has been shut down.
pub(crate) struct Lingering<S> {
    stream: S,
    left: usize,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self { stream, left: MOST, timer: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, octets)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, left, timer } = self.get_mut();
        let timer = match timer {
            Some(timer) => timer,
            None => {
                ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
                timer.insert(Box::pin(sleep(LONGEST)))
            }
        };
        let mut unwanted = [MaybeUninit::uninit(); 16 * 1024];
        while *left > 0 && timer.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::uninit(&mut unwanted);
            match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => *left = left.saturating_sub(buffer.filled().len()),
                // It has closed its side too, one way or the other.
                Ok(()) | Err(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
