//! The listeners of the API: binds them, accepts connections, and lets in whom they are for.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream::SelectAll};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tracing::warn;

use crate::{
    config::{Endpoint, Listen, Peers},
    rpc::{Caller, Connection, Incoming, Io},
};

/// Listeners that are bound.
pub(super) struct Listeners {
    /// Where.
    pub(super) endpoints: Vec<Endpoint>,
    /// What comes to any of them.
    pub(super) incoming: Incoming,
    /// The files of those that are sockets.
    pub(super) sockets: Vec<SocketFile>,
}

impl Listeners {
    /// Binds them. Each connection takes one of the places; further ones wait.
    pub(super) async fn bind(
        listens: Vec<Listen>,
        places: &Arc<Semaphore>,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let refused = Counter::default();
        registry.register(
            "connections_refused",
            "Connections to a Unix socket by processes that uids= and gids= of its --listen do not name",
            refused.clone(),
        );
        let mut incoming: SelectAll<Incoming> = SelectAll::new();
        let mut endpoints = Vec::new();
        let mut sockets = Vec::new();
        for listen in listens {
            let terms = Terms {
                caller: Arc::new(listen.caller),
                repair_authority: listen.repair_authority,
            };
            match listen.endpoint {
                Endpoint::Tcp(address) => {
                    let listener = bind_tcp(address).await;
                    let listener = listener.with_context(|| format!("--listen tcp://{address} cannot be bound"))?;
                    endpoints.push(Endpoint::Tcp(listener.local_addr()?));
                    incoming.push(accept_tcp(listener, terms, Arc::clone(places)));
                }
                Endpoint::Unix {
                    path,
                    mode,
                    group,
                    peers,
                } => {
                    let listener = bind_socket(&path, mode, group);
                    let listener =
                        listener.with_context(|| format!("--listen unix://{} cannot be bound", path.display()))?;
                    sockets.push(SocketFile(path.clone()));
                    let check = PeerCheck {
                        peers: peers.clone(),
                        refused: refused.clone(),
                    };
                    endpoints.push(Endpoint::Unix {
                        path,
                        mode,
                        group,
                        peers,
                    });
                    incoming.push(accept_unix(listener, terms, check, Arc::clone(places)));
                }
            }
        }
        Ok(Self {
            endpoints,
            incoming: incoming.boxed(),
            sockets,
        })
    }
}

/// What the connections of a listener have in common.
struct Terms {
    caller: Arc<Caller>,
    repair_authority: bool,
}

impl Terms {
    fn connection(&self, io: impl Io + 'static, place: OwnedSemaphorePermit) -> Connection {
        let connection = Connection::new(io, Arc::clone(&self.caller), Some(place));
        if self.repair_authority {
            connection.with_authority_repaired()
        } else {
            connection
        }
    }
}

/// Who may connect to a socket.
struct PeerCheck {
    peers: Peers,
    refused: Counter,
}

impl PeerCheck {
    /// Whether the process at the other end may; a refusal is counted and told.
    fn admits(&self, io: &UnixStream) -> bool {
        if self.peers == Peers::default() {
            return true;
        }
        match io.peer_cred() {
            Ok(peer) if self.peers.allow(peer.uid(), peer.gid()) => return true,
            Ok(peer) => warn!(
                uid = peer.uid(),
                gid = peer.gid(),
                "a connection is refused: neither uids= nor gids= of --listen names its process"
            ),
            Err(error) => warn!(%error, "a connection is refused: the kernel does not tell whose it is"),
        }
        self.refused.inc();
        false
    }
}

/// How long to wait before accepting again after an error, which is most often that no file descriptor is free.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

fn accept_tcp(listener: TcpListener, terms: Terms, places: Arc<Semaphore>) -> Incoming {
    Box::pin(async_stream::stream! {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((io, _)) => {
                    // Small answers must not wait for more to send.
                    if let Err(error) = io.set_nodelay(true) {
                        warn!(%error, "TCP_NODELAY cannot be set");
                    }
                    yield Ok(terms.connection(io, place));
                }
                Err(error) => accept_failed(&error).await,
            }
        }
    })
}

fn accept_unix(listener: UnixListener, terms: Terms, peers: PeerCheck, places: Arc<Semaphore>) -> Incoming {
    Box::pin(async_stream::stream! {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((io, _)) if peers.admits(&io) => yield Ok(terms.connection(io, place)),
                Ok(_) => {}
                Err(error) => accept_failed(&error).await,
            }
        }
    })
}

async fn accept_failed(error: &io::Error) {
    warn!(%error, "a connection cannot be accepted");
    tokio::time::sleep(ACCEPT_AGAIN).await;
}

/// Binds a port. One that is taken may be no listener's: the usual ports lie where Linux takes those of outgoing
/// connections from.
pub(super) async fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => io::Error::new(
            error.kind(),
            "the port is already in use, by a listener or as the local port of an outgoing connection: free it, choose \
             another (below 32768 Linux gives none to connections), or reserve it with net.ipv4.ip_local_reserved_ports",
        ),
        _ => error,
    })
}

/// Binds a socket file. One that nobody listens to is what a killed process left, and is replaced.
fn bind_socket(path: &Path, mode: u32, group: Option<u32>) -> io::Result<UnixListener> {
    if path.symlink_metadata().is_ok() {
        if StdUnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another process listens there",
            ));
        }
        if !path.symlink_metadata()?.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is no socket is there",
            ));
        }
    }
    // Bound beside its place and moved there when its group and its mode are right: nobody can connect to it before.
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}", std::process::id()));
    let listener = UnixListener::bind(&beside)?;
    if let Some(group) = group {
        std::os::unix::fs::chown(&beside, None, Some(group)).map_err(|error| {
            let _ = fs::remove_file(&beside);
            io::Error::new(
                error.kind(),
                format!("it cannot be given to the group {group} of group=, of which this process must be a member: {error}"),
            )
        })?;
    }
    fs::set_permissions(&beside, fs::Permissions::from_mode(mode))?;
    fs::rename(&beside, path)?;
    Ok(listener)
}

/// Removes a socket file when the sidecar is gone.
pub(super) struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            warn!(%error, "the socket file cannot be removed");
        }
    }
}
