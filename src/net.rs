//! TCP listeners, whatever they serve: binding and accepting.

use std::{io, net::SocketAddr, time::Duration};

use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

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
