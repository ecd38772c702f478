//! A stream that ends when one message gets too long.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may still come before the next whole message.
#[derive(Clone, Debug)]
pub struct Allowance(Arc<AtomicUsize>);

/// A stream that reads within an [`Allowance`]. The protocol's own limit is
/// 1 GiB a message, which would be gathered in memory, and before the login too.
pub struct Gauge<S> {
    stream: S,
    left: Allowance,
}

impl Allowance {
    /// Room for so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    /// A message is complete: room for the next one.
    pub fn renew(&self, bytes: usize) {
        self.0.store(bytes, Relaxed);
    }
}

impl<S> Gauge<S> {
    /// Reads within `left`.
    pub fn new(stream: S, left: Allowance) -> Self {
        Self { stream, left }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gauge<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let left = self.left.0.load(Relaxed);
        if left == 0 {
            let error = io::Error::new(io::ErrorKind::InvalidData, "the message is too long");
            return Poll::Ready(Err(error));
        }
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let read = buf.filled().len().saturating_sub(before);
        self.left.0.store(left.saturating_sub(read), Relaxed);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gauge<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
