//! What all servers have in common, whatever they serve: binding, accepting, and patience with those who are slow.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    BoxError, Router,
    body::Body,
    extract::Request,
    middleware::{Next, from_fn},
};
use http_body::{Frame, SizeHint};
use hyper::server::conn::{http1, http2};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Sleep, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long the head of a request may take.
const SLOWEST_HEAD: Duration = Duration::from_secs(20);

/// How long what was sent may go without a sign that it came, in ms: who vanished is not served for the quarter of an hour that Linux
/// would go on (tcp(7)).
const UNHEARD: u32 = 30_000;

/// How long the rest of it may take.
const SLOWEST_BODY: Duration = Duration::from_secs(10);

/// What is said of a request that took longer.
pub(crate) const TOO_SLOW: &str = "the request did not come whole within 10 s";

/// How long to wait before accepting again after an error, which is most often that no file descriptor is free.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Binds a port. One that is taken may be no listener's: the usual ports lie where Linux takes those of outgoing
/// connections from.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => io::Error::new(
            error.kind(),
            "the port is already in use, by a listener or as the local port of an outgoing connection: free it, choose \
             another (below 32768 Linux gives none to connections), or reserve it with net.ipv4.ip_local_reserved_ports",
        ),
        _ => error,
    })
}

/// The next connection. Errors are waited out.
pub(crate) async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((io, _)) => {
                // Small answers must not wait for more to send.
                if let Err(error) = io.set_nodelay(true) {
                    warn!(%error, "TCP_NODELAY cannot be set");
                }
                return io;
            }
            Err(error) => accept_failed(&error).await,
        }
    }
}

/// Tells of an error of accepting, and waits for a moment.
pub(crate) async fn accept_failed(error: &io::Error) {
    warn!(%error, "a connection cannot be accepted");
    tokio::time::sleep(ACCEPT_AGAIN).await;
}

/// Serves HTTP/1 until `stop` is done, and then lets what is under way end. So many connections may be open: those that come then wait.
/// Who speaks HTTP/2, as gRPC does, is answered that nothing is there: a client with a wrong address is told so, and does not take it for
/// a sidecar that is away.
pub(crate) async fn serve_http1(listener: TcpListener, routes: Router, most: usize, stop: impl Future<Output = ()>) {
    let routes = routes.layer(from_fn(async |request: Request, next: Next| {
        next.run(request.map(|body| Body::new(Patient::new(body, too_slow))))
            .await
    }));
    let routes = TowerToHyperService::new(routes);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SLOWEST_HEAD);
    let nothing = TowerToHyperService::new(Router::new());
    let mut elsewhere = http2::Builder::new(TokioExecutor::new());
    elsewhere
        .timer(TokioTimer::new())
        .keep_alive_interval(SLOWEST_HEAD)
        .keep_alive_timeout(SLOWEST_BODY);
    let places = Arc::new(Semaphore::new(most));
    let open = GracefulShutdown::new();
    let stopping = CancellationToken::new();
    tokio::pin!(stop);
    loop {
        let connection = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, accept(&listener).await)
        };
        let (place, io) = tokio::select! {
            () = &mut stop => break,
            connection = connection => connection,
        };
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&io, UNHEARD) {
            warn!(%error, "TCP_USER_TIMEOUT cannot be set");
        }
        let (watcher, stopping) = (open.watcher(), stopping.clone());
        let (server, routes) = (server.clone(), routes.clone());
        let (elsewhere, nothing) = (elsewhere.clone(), nothing.clone());
        tokio::spawn(async move {
            let _place = place;
            // Of one that has said nothing there is nothing under way.
            let begins_http2 = tokio::select! {
                begins = begins_http2(&io) => begins,
                () = stopping.cancelled() => None,
            };
            match begins_http2 {
                Some(true) => drop(
                    watcher
                        .watch(elsewhere.serve_connection(TokioIo::new(io), nothing))
                        .await,
                ),
                Some(false) => drop(watcher.watch(server.serve_connection(TokioIo::new(io), routes)).await),
                None => {}
            }
        });
    }
    stopping.cancel();
    open.shutdown().await;
}

/// Whether a connection's first bytes are those of HTTP/2 and of no method; nothing if none come in time.
async fn begins_http2(io: &TcpStream) -> Option<bool> {
    let mut first = [0; 4];
    let count = timeout(SLOWEST_HEAD, io.peek(&mut first)).await.ok()?.ok()?;
    Some(first[..count] == *b"PRI ")
}

fn too_slow() -> BoxError {
    TOO_SLOW.into()
}

/// A request's body that must have come whole some time after it was first waited for.
pub(crate) struct Patient<B> {
    body: B,
    too_slow: fn() -> BoxError,
    /// Most requests come whole, and need none.
    patience: Option<Pin<Box<Sleep>>>,
}

impl<B> Patient<B> {
    pub(crate) fn new(body: B, too_slow: fn() -> BoxError) -> Self {
        Self {
            body,
            too_slow,
            patience: None,
        }
    }
}

impl<B: http_body::Body<Error: Into<BoxError>> + Unpin> http_body::Body for Patient<B> {
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(SLOWEST_BODY)));
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Some(Err((self.too_slow)())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use axum::body::Bytes;
    use http_body::Body as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_whole_ends_in_time() {
        let (more, pieces) = tokio::sync::mpsc::channel::<Result<Bytes, BoxError>>(1);
        let pieces = tokio_stream::wrappers::ReceiverStream::new(pieces);
        let mut body = Patient::new(Body::from_stream(pieces), too_slow);
        // A byte now and then does not help.
        tokio::spawn(async move {
            while more.send(Ok(Bytes::from_static(b"x"))).await.is_ok() {
                sleep(Duration::from_secs(3)).await;
            }
        });
        let began = Instant::now();
        let error = loop {
            if let Err(error) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx))
                .await
                .expect("it goes on")
            {
                break error;
            }
        };
        assert_eq!(error.to_string(), too_slow().to_string());
        assert_eq!(began.elapsed(), SLOWEST_BODY);
    }
}
