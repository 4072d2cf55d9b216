//! A connection: it knows what its listener lets its callers do, and it does not wait for ever for the first words.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::OwnedSemaphorePermit,
    time::{Sleep, sleep},
};
use tonic::transport::server::Connected;

use super::{Admission, Repair, authority::PREFACE};

/// How long a client may take to say that it speaks HTTP/2.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a client may take to hang up after all was said. Who closes a socket in which something lies unread resets the connection
/// (RFC 1122 section 4.2.2.13): what was said last may be lost, the end of a stream, say, and a Unix socket says ECONNRESET in place of the
/// end. Meanwhile h2 still hands over the requests that it had before an error ended the connection; their streams are over.
const LINGER: Duration = Duration::from_secs(2);

/// What a connection reads from and writes to.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A connection of a client.
pub struct Connection {
    /// Of one type for all kinds of listeners, so that the server is built once.
    io: Box<dyn Io>,
    admission: Arc<Admission>,
    /// Runs until the preface has come.
    handshake: Option<(Pin<Box<Sleep>>, usize)>,
    /// Looks at the first request, and at the others only if that one is in need of it.
    repair: Option<Box<Repair>>,
    /// Runs since all was said.
    lingering: Option<Pin<Box<Sleep>>>,
    /// A place under the cap of connections.
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    /// A connection whose requests are admitted like that.
    pub fn new(io: impl Io + 'static, admission: impl Into<Admission>, place: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            io: Box::new(io),
            admission: Arc::new(admission.into()),
            handshake: Some((Box::pin(sleep(HANDSHAKE)), 0)),
            repair: None,
            lingering: None,
            _place: place,
        }
    }

    /// With what is invalid in the `:authority` of its requests replaced.
    #[must_use]
    pub fn with_authority_repaired(mut self) -> Self {
        self.repair = Some(Box::default());
        self
    }
}

/// Reads through a repair.
fn poll_repaired(
    io: &mut dyn Io,
    repair: &mut Repair,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    while repair.ready().is_empty() {
        let mut bytes = [0; 4096];
        let mut read = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut *io).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            repair.end();
            break;
        }
        repair.feed(read.filled());
    }
    let count = repair.ready().len().min(buf.remaining());
    buf.put_slice(&repair.ready()[..count]);
    repair.consume(count);
    Poll::Ready(Ok(()))
}

impl Connected for Connection {
    type ConnectInfo = Arc<Admission>;

    fn connect_info(&self) -> Arc<Admission> {
        Arc::clone(&self.admission)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        let polled = match &mut this.repair {
            None => Pin::new(&mut this.io).poll_read(cx, buf),
            Some(repair) => {
                let polled = poll_repaired(&mut *this.io, repair, cx, buf);
                if repair.is_over() {
                    this.repair = None;
                }
                polled
            }
        };
        let Some((timer, read)) = &mut this.handshake else {
            return polled;
        };
        *read += buf.filled().len() - before;
        if *read >= PREFACE {
            this.handshake = None;
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
        let this = &mut *self;
        let timer = match &mut this.lingering {
            Some(timer) => timer,
            None => {
                ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
                this.lingering.insert(Box::pin(sleep(LINGER)))
            }
        };
        let mut bytes = [0; 4096];
        while timer.as_mut().poll(cx).is_pending() {
            let mut unheard = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(&mut this.io).poll_read(cx, &mut unheard));
            if read.is_err() || unheard.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
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

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, duplex},
        net::UnixStream,
        time::Instant,
    };

    use super::*;
    use crate::rpc::Caller;

    fn connection(io: impl Io + 'static) -> Connection {
        Connection::new(io, Arc::new(Caller::default()), None)
    }

    #[tokio::test]
    async fn what_was_said_last_is_heard_though_nobody_listens_any_more() {
        let (near, mut far) = UnixStream::pair().expect("sockets");
        far.write_all(b"unread").await.expect("written");
        let saying = tokio::spawn(async move {
            let mut near = connection(near);
            near.write_all(b"goodbye").await.expect("written");
            near.shutdown().await
        });
        let mut heard = Vec::new();
        far.read_to_end(&mut heard).await.expect("no reset");
        assert_eq!(heard, b"goodbye");
        drop(far);
        saying.await.expect("no panic").expect("closed");
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_hang_up_is_not_waited_for_long() {
        let (near, mut far) = duplex(64);
        let began = Instant::now();
        let speaking = tokio::spawn(async move {
            while far.write_all(b"and another thing").await.is_ok() {
                sleep(LINGER / 10).await;
            }
        });
        connection(near).shutdown().await.expect("closed");
        assert_eq!(began.elapsed(), LINGER);
        speaking.await.expect("it is told");
    }
}
