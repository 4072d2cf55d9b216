//! What all servers have in common, whatever they serve: binding, accepting, and patience with those who are slow.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    BoxError, Router,
    body::{Body, Bytes},
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
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
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

/// How much of the requests of one connection, with their headers, may have come while they have not come whole: sixteen of the largest.
const ROOM: usize = 16 << 20;

/// What a request of several messages takes, which nobody limits in time: those who do not read the answers fill as much.
const OF_MANY: usize = 256 << 10;

/// What needs no room of each: small requests are not refused for large ones.
const FREE: usize = 1024;

/// How long one of several messages may take. Who asks by hand thinks between two.
const SLOWEST_OF_MANY: Duration = Duration::from_secs(60);

/// What is said of a request that has no room.
pub(crate) const NO_ROOM: &str = "more than 16 MiB of this connection's requests have come, and none of them whole, where a stream of \
                                  reflection counts as 256 KiB: send fewer large ones at once";

/// How long to wait before accepting again after an error, which is most often that no file descriptor is free.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Files that are open beside connections: a store's, the log's, those of configuration.
const OTHER_FILES: u64 = 256;

/// Lets the process open as many files as it may, and tells if a listener that has so many connections leaves none for others. The usual
/// limit of 1,024 is for programs that call select(2) (systemd.exec(5), LimitNOFILE=).
pub(crate) fn open_many(connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of open files cannot be raised");
    }
    let wanted = (connections as u64).saturating_add(OTHER_FILES);
    if let Some(maximum) = limit.maximum.filter(|maximum| *maximum < wanted) {
        warn!(
            maximum,
            wanted,
            "the process may open fewer files than one listener may have connections: raise its limit (ulimit -Hn, LimitNOFILE=), or lower \
             --max-connections"
        );
    }
}

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
        next.run(request.map(|body| Body::new(Patient::new(body, BoxError::from))))
            .await
    }));
    let routes = TowerToHyperService::new(routes);
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SLOWEST_HEAD);
    let nothing = TowerToHyperService::new(Router::new());
    let elsewhere = http2::Builder::new(TokioExecutor::new());
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
                // It is told and has no reason to stay.
                Some(true) => {
                    let told = watcher.watch(elsewhere.serve_connection(TokioIo::new(io), nothing));
                    drop(timeout(SLOWEST_HEAD, told).await);
                }
                Some(false) => drop(watcher.watch(server.serve_connection(TokioIo::new(io), routes)).await),
                None => {}
            }
        });
    }
    // Who comes now is refused at once, and can go elsewhere.
    drop(listener);
    stopping.cancel();
    open.shutdown().await;
}

/// Whether a connection's first bytes are those of HTTP/2 and of no method; nothing if none come in time.
async fn begins_http2(io: &TcpStream) -> Option<bool> {
    let mut first = [0; 4];
    let count = timeout(SLOWEST_HEAD, io.peek(&mut first)).await.ok()?.ok()?;
    Some(first[..count] == *b"PRI ")
}

/// Room for what has come of a connection's requests that have not come whole.
#[derive(Default)]
pub(crate) struct Room(AtomicUsize);

/// A share of it, which is given back when this is dropped.
struct Share {
    room: Arc<Room>,
    taken: usize,
}

impl Share {
    /// Makes it as large as what has come needs. Whether there was room for that.
    fn grow(&mut self, come: usize) -> bool {
        let more = come.saturating_sub(FREE).saturating_sub(self.taken);
        self.taken += more;
        more == 0 || self.room.0.fetch_add(more, Ordering::Relaxed) + more <= ROOM
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

/// A request's body that must have come whole some time after it was first waited for.
pub(crate) struct Patient<B> {
    body: B,
    refusal: fn(&'static str) -> BoxError,
    is_of_many: bool,
    share: Option<Share>,
    /// How much has come.
    come: usize,
    /// Most requests come whole, and are not waited for.
    waited: bool,
    patience: Option<Pin<Box<Sleep>>>,
}

impl<B> Patient<B> {
    /// A body that fails with what `refusal` makes of [`TOO_SLOW`] or [`NO_ROOM`].
    pub(crate) fn new(body: B, refusal: fn(&'static str) -> BoxError) -> Self {
        Self {
            body,
            refusal,
            is_of_many: false,
            share: None,
            come: 0,
            waited: false,
            patience: None,
        }
    }

    /// The same for one of several small messages, each of which has its time; nothing if there is no room for it.
    pub(crate) fn of_many(mut self) -> Option<Self> {
        self.is_of_many = true;
        self.come += OF_MANY;
        let has_room = self.share.as_mut().is_none_or(|share| share.grow(self.come));
        has_room.then_some(self)
    }

    /// The same for one that, while it is waited for, shares room with others. So much of it has come, beside the body.
    pub(crate) fn in_room(self, room: Arc<Room>, come: usize) -> Self {
        let share = Some(Share { room, taken: 0 });
        Self {
            share,
            come: self.come + come,
            ..self
        }
    }
}

impl<B> http_body::Body for Patient<B>
where
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            if this.is_of_many {
                this.patience = None;
            } else {
                this.come += frame.data_ref().map_or(0, Bytes::len);
            }
        }
        this.waited |= polled.is_pending();
        if this.waited
            && !this.body.is_end_stream()
            && let Some(share) = &mut this.share
            && !share.grow(this.come)
        {
            return Poll::Ready(Some(Err((this.refusal)(NO_ROOM))));
        }
        if let Poll::Ready(frame) = polled {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let slowest = if this.is_of_many { SLOWEST_OF_MANY } else { SLOWEST_BODY };
        let patience = this.patience.get_or_insert_with(|| Box::pin(sleep(slowest)));
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(Some(Err((this.refusal)(TOO_SLOW))))
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

    use futures_util::StreamExt as _;
    use http_body::Body as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        time::Instant,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_whole_ends_in_time() {
        let (more, pieces) = tokio::sync::mpsc::channel::<Result<Bytes, BoxError>>(1);
        let pieces = tokio_stream::wrappers::ReceiverStream::new(pieces);
        let mut body = Patient::new(Body::from_stream(pieces), BoxError::from);
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
        assert_eq!(error.to_string(), TOO_SLOW);
        assert_eq!(began.elapsed(), SLOWEST_BODY);
    }

    #[tokio::test(start_paused = true)]
    async fn bodies_that_are_waited_for_share_a_room() {
        let room = Arc::new(Room::default());
        let body = |pieces: Vec<Bytes>, whole: bool| {
            let pieces = tokio_stream::iter(pieces.into_iter().map(Ok::<_, BoxError>));
            let rest = futures_util::stream::once(async move {
                if whole {
                    Ok(Bytes::new())
                } else {
                    std::future::pending().await
                }
            });
            Patient::new(Body::from_stream(pieces.chain(rest)), BoxError::from).in_room(Arc::clone(&room), FREE)
        };
        let mebibyte = || Bytes::from(vec![0; 1 << 20]);
        let poll =
            async |body: &mut Patient<Body>| poll_fn(|cx| Poll::Ready(Pin::new(&mut *body).poll_frame(cx))).await;

        // What comes at once takes none.
        for _ in 0..100 {
            let mut whole = body(vec![mebibyte()], true);
            assert!(matches!(poll(&mut whole).await, Poll::Ready(Some(Ok(_)))));
            assert!(matches!(poll(&mut whole).await, Poll::Ready(Some(Ok(_)))));
        }
        let mut waiting = Vec::new();
        for _ in 0..16 {
            let mut unfinished = body(vec![mebibyte()], false);
            assert!(matches!(poll(&mut unfinished).await, Poll::Ready(Some(Ok(_)))));
            assert!(poll(&mut unfinished).await.is_pending(), "there is room");
            waiting.push(unfinished);
        }
        let mut one_more = body(vec![Bytes::from_static(b"x")], false);
        assert!(matches!(poll(&mut one_more).await, Poll::Ready(Some(Ok(_)))));
        let Poll::Ready(Some(Err(refused))) = poll(&mut one_more).await else {
            panic!("there is no room");
        };
        assert_eq!(refused.to_string(), NO_ROOM);

        drop((one_more, waiting.pop()));
        let mut again = body(vec![Bytes::from_static(b"x")], false);
        assert!(matches!(poll(&mut again).await, Poll::Ready(Some(Ok(_)))));
        assert!(poll(&mut again).await.is_pending(), "what was given up takes none");
    }

    /// Real sockets, virtual time: it goes on when nothing is left to do.
    #[tokio::test(start_paused = true)]
    async fn who_speaks_http2_is_told_and_does_not_stay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(serve_http1(listener, Router::new(), 1, std::future::pending()));
        for _ in 0..2 {
            // There is one place.
            let mut client = TcpStream::connect(address).await.expect("a connection");
            let began = Instant::now();
            let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
            client.write_all(preface).await.expect("it is read");
            let mut said = Vec::new();
            // It may hang up before all that we said was read.
            drop(client.read_to_end(&mut said).await);
            assert_eq!(said[3], 4, "SETTINGS: it was talked to");
            assert!(began.elapsed() <= 2 * SLOWEST_HEAD, "{:?}", began.elapsed());
        }
        serving.abort();
    }
}
