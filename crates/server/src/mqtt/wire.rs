//! Octets in and out of a connection's stream, with bounds on both.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::frame::FrameBuffer;

const READ_SIZE: usize = 16 * 1024;
/// So many octets of a peer that is being closed are read and thrown away.
const MOST_LEFT_OVER: u64 = 1024 * 1024;

thread_local! {
    /// Read buffers are borrowed for the moment of a read, so that idle connections own none.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_SIZE].into_boxed_slice());
}

/// Reads what is there into the frames; zero at the end of the stream. Cancel-safe.
pub(super) async fn read_some<S: AsyncRead + Unpin>(
    stream: &mut S,
    frames: &mut FrameBuffer,
) -> io::Result<usize> {
    poll_fn(|context| {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buffer = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer))?;
            frames.extend(buffer.filled());
            Poll::Ready(Ok(buffer.filled().len()))
        })
    })
    .await
}

pub(super) async fn send<S: AsyncWrite + Unpin>(stream: &mut S, octets: &[u8]) -> io::Result<()> {
    stream.write_all(octets).await?;
    stream.flush().await
}

/// Closes in a way that the last packet arrives: a socket that is closed with unread input would
/// take back what it has sent. Reads on for a moment, and not for ever.
pub(super) async fn close<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, linger: Duration) {
    let lingering = async {
        stream.shutdown().await?;
        let mut rest = stream.take(MOST_LEFT_OVER);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Whether the peer was polite does not matter any more.
    let _ = timeout(linger, lingering).await;
}
