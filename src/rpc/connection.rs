//! A connection: it knows what its listener lets its callers do, and it does not wait for ever for the first words.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

use super::Caller;

/// How long a client may take to say that it speaks HTTP/2.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// `PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n`: RFC 9113 section 3.4.
const PREFACE: usize = 24;

/// A connection of a client.
pub struct Connection<T> {
    io: T,
    caller: Arc<Caller>,
    /// Runs until the preface has come.
    handshake: Option<(Pin<Box<Sleep>>, usize)>,
    /// A place under the cap of connections.
    _place: Option<OwnedSemaphorePermit>,
}

impl<T> Connection<T> {
    /// A connection whose callers may do what `caller` says.
    pub fn new(io: T, caller: Arc<Caller>, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            io,
            caller,
            handshake: Some((Box::pin(sleep(HANDSHAKE)), 0)),
            _place: place,
        }
    }
}

impl<T> Connected for Connection<T> {
    type ConnectInfo = Arc<Caller>;

    fn connect_info(&self) -> Arc<Caller> {
        Arc::clone(&self.caller)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Connection<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        let Some((timer, read)) = &mut self.handshake else {
            return polled;
        };
        *read += buf.filled().len() - before;
        if *read >= PREFACE {
            self.handshake = None;
        } else if polled.is_pending() && timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Connection<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
