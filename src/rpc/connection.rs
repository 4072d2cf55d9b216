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

/// What a connection reads from and writes to.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection of a client.
pub struct Connection {
    /// Of one type for all kinds of listeners, so that the server is built once.
    io: Box<dyn Io>,
    caller: Arc<Caller>,
    /// Runs until the preface has come.
    handshake: Option<(Pin<Box<Sleep>>, usize)>,
    /// A place under the cap of connections.
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// A connection whose callers may do what `caller` says.
    pub fn new(io: impl Io + 'static, caller: Arc<Caller>, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            io: Box::new(io),
            caller,
            handshake: Some((Box::pin(sleep(HANDSHAKE)), 0)),
            _place: place,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Caller>;

    fn connect_info(&self) -> Arc<Caller> {
        Arc::clone(&self.caller)
    }
}

impl AsyncRead for Connection {
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

impl AsyncWrite for Connection {
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
