//! What all servers have in common, whatever they serve: binding, accepting, and patience with those who are slow.

mod patience;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    BoxError, Router,
    body::Body,
    extract::Request,
    middleware::{Next, from_fn},
};
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
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

pub(crate) use self::patience::{NO_ROOM, Patient, Room, TOO_SLOW};

/// How long the head of a request may take.
const SLOWEST_HEAD: Duration = Duration::from_secs(20);

/// How long what was sent may go without a sign that it came, in ms: who vanished is not served for the quarter of an hour that Linux
/// would go on (tcp(7)).
const UNHEARD: u32 = 30_000;

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
    sleep(ACCEPT_AGAIN).await;
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use tokio::{io::AsyncReadExt as _, time::Instant};

    use super::*;

    /// Real sockets, virtual time: it goes on when nothing is left to do, and not while a blocking task waits for what is under way.
    #[tokio::test(start_paused = true)]
    async fn who_speaks_http2_is_told_and_does_not_stay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let serving = tokio::spawn(serve_http1(listener, Router::new(), 1, std::future::pending()));
        for _ in 0..2 {
            // There is one place.
            let talk = move || {
                let mut client = std::net::TcpStream::connect(address).expect("a connection");
                let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
                client.write_all(preface).expect("it is read");
                let mut head = [0; 9];
                client.read_exact(&mut head).expect("it says something");
                client.set_nonblocking(true).expect("for tokio");
                (client, head)
            };
            let (client, head) = tokio::task::spawn_blocking(talk).await.expect("no panic");
            assert_eq!(head[3], 4, "SETTINGS: it was talked to");
            let began = Instant::now();
            // It may hang up before all that we said was read.
            let mut client = TcpStream::from_std(client).expect("a socket");
            drop(client.read_to_end(&mut Vec::new()).await);
            assert!(began.elapsed() <= SLOWEST_HEAD, "{:?}", began.elapsed());
        }
        serving.abort();
    }
}
