//! The listeners of the API: binds them, accepts connections, and lets in whom they are for.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, anyhow};
use futures_util::{StreamExt as _, stream::SelectAll};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    net::{TcpListener, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tracing::{debug, warn};

use super::files::Files;
use crate::{
    config::{Endpoint, Listen, Peers, TlsFiles, read_files, token_text},
    net,
    rpc::{
        Admission, Callers, Connection, Incoming, Io, Peer, Tokens,
        tls::{self, Tls},
    },
};

/// Listeners that are bound.
pub(super) struct Listeners {
    /// Where.
    pub(super) endpoints: Vec<Endpoint>,
    /// What comes to any of them.
    pub(super) incoming: Incoming,
    /// The files of those that are sockets.
    pub(super) sockets: Vec<SocketFile>,
    /// Their certificates and tokens, to be followed.
    pub(super) files: Vec<Files>,
}

/// What is counted at the listeners.
struct ListenerMeter {
    refused: Counter,
    handshakes_failed: Counter,
    /// By listener.
    expiry: Family<[(&'static str, String); 1], Gauge>,
}

impl ListenerMeter {
    fn register(registry: &mut Registry) -> Self {
        let meter = Self {
            refused: Counter::default(),
            handshakes_failed: Counter::default(),
            expiry: Family::default(),
        };
        registry.register(
            "connections_refused",
            "Connections to a Unix socket by processes that uids= and gids= of its --listen do not name",
            meter.refused.clone(),
        );
        registry.register(
            "tls_handshakes_failed",
            "Connections that did not come to speak TLS with us: no or a wrong certificate, another protocol, too slow",
            meter.handshakes_failed.clone(),
        );
        registry.register(
            "certificate_expiry_seconds",
            "When the certificate of a listener ends, in seconds since 1970",
            meter.expiry.clone(),
        );
        meter
    }
}

impl Listeners {
    /// Binds them. Each connection takes one of the places; further ones wait.
    pub(super) async fn bind(
        listens: Vec<Listen>,
        callers: &Arc<Callers>,
        places: &Arc<Semaphore>,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let meter = ListenerMeter::register(registry);
        let mut files = Vec::new();
        let mut incoming: SelectAll<Incoming> = SelectAll::new();
        let mut endpoints = Vec::new();
        let mut sockets = Vec::new();
        for listen in listens {
            let mut admission = Admission::from(Arc::new(listen.caller)).with_callers(Arc::clone(callers));
            if let Some(path) = listen.token_file {
                let loaded = load_tokens(path).map_err(|error| anyhow!("--listen {}: {error}", listen.endpoint));
                let (tokens, followed) = loaded?;
                admission = admission.with_tokens(tokens);
                files.push(followed);
            }
            let terms = Terms {
                admission,
                repair_authority: listen.repair_authority,
            };
            match listen.endpoint {
                Endpoint::Tcp(address) => {
                    let listener = net::bind(address).await;
                    let listener = listener.with_context(|| format!("--listen tcp://{address} cannot be bound"))?;
                    let bound = Endpoint::Tcp(listener.local_addr()?);
                    incoming.push(match listen.tls {
                        None => accept_tcp(listener, terms, Arc::clone(places)),
                        Some(paths) => {
                            let expiry = meter.expiry.get_or_create_owned(&[("listener", bound.to_string())]);
                            let loaded = load_tls(paths, expiry);
                            let (tls, followed) =
                                loaded.map_err(|error| anyhow!("--listen tcp://{address}: {error}"))?;
                            files.push(followed);
                            accept_tls(
                                listener,
                                tls,
                                terms,
                                Arc::clone(places),
                                meter.handshakes_failed.clone(),
                            )
                        }
                    });
                    endpoints.push(bound);
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
                        refused: meter.refused.clone(),
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
            files,
        })
    }
}

/// Reads the tokens of a listener.
fn load_tokens(path: PathBuf) -> Result<(Arc<Tokens>, Files), String> {
    let paths = vec![path];
    let contents = read_files(&paths)?;
    let tokens = Arc::new(Tokens::parse(token_text(&contents)?)?);
    let followed = Files::new(move || paths.clone(), &contents, {
        let tokens = Arc::clone(&tokens);
        move |contents| tokens.replace(token_text(contents)?)
    });
    Ok((tokens, followed))
}

/// Reads the certificate of a listener, its key, and the authority of its clients.
fn load_tls(files: TlsFiles, expiry: Gauge) -> Result<(Tls, Files), String> {
    let paths = files.paths();
    let contents = read_files(&paths)?;
    let configured = files.configure(&contents)?;
    expiry.set(configured.not_after);
    let tls = Tls::new(configured);
    let followed = Files::new(move || paths.clone(), &contents, {
        let tls = tls.clone();
        move |contents| {
            let configured = files.configure(contents)?;
            expiry.set(configured.not_after);
            tls.replace(configured);
            Ok(())
        }
    });
    Ok((tls, followed))
}

/// What the connections of a listener have in common.
struct Terms {
    admission: Admission,
    repair_authority: bool,
}

impl Terms {
    fn connection(&self, io: impl Io + 'static, peer: Peer, place: OwnedSemaphorePermit) -> Connection {
        let connection = Connection::new(io, self.admission.of(peer), Some(place));
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
    /// The process at the other end, if it may; a refusal is counted and told.
    fn admit(&self, io: &UnixStream) -> Option<Peer> {
        match io.peer_cred() {
            Ok(peer) if self.peers.allow(peer.uid(), peer.gid()) => {
                return Some(Peer {
                    uid: Some(peer.uid()),
                    ..Peer::default()
                });
            }
            Ok(peer) => warn!(
                uid = peer.uid(),
                gid = peer.gid(),
                "a connection is refused: neither uids= nor gids= of --listen names its process"
            ),
            Err(error) => warn!(%error, "a connection is refused: the kernel does not tell whose it is"),
        }
        self.refused.inc();
        None
    }
}

fn accept_tcp(listener: TcpListener, terms: Terms, places: Arc<Semaphore>) -> Incoming {
    Box::pin(async_stream::stream! {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            let io = net::accept(&listener).await;
            yield Ok(terms.connection(io, Peer::default(), place));
        }
    })
}

/// Accepts connections that agree on TLS. One that takes its time holds nobody up.
fn accept_tls(listener: TcpListener, tls: Tls, terms: Terms, places: Arc<Semaphore>, failed: Counter) -> Incoming {
    let accept = async move || {
        let place = Arc::clone(&places).acquire_owned().await.ok()?;
        Some((net::accept(&listener).await, place))
    };
    Box::pin(async_stream::stream! {
        let mut handshakes = JoinSet::new();
        loop {
            let agreed = tokio::select! {
                accepted = accept() => {
                    let Some((io, place)) = accepted else { return };
                    let tls = tls.clone();
                    handshakes.spawn(async move { (tls.accept(io).await, place) });
                    continue;
                }
                Some(agreed) = handshakes.join_next() => agreed,
            };
            match agreed {
                Ok((Ok(io), place)) => {
                    let peer = tls::peer(&io);
                    yield Ok(terms.connection(io, peer, place));
                }
                Ok((Err(error), _)) => {
                    failed.inc();
                    debug!(%error, "a client did not come to speak TLS");
                }
                Err(error) => warn!(%error, "a TLS handshake panicked"),
            }
        }
    })
}

fn accept_unix(listener: UnixListener, terms: Terms, peers: PeerCheck, places: Arc<Semaphore>) -> Incoming {
    Box::pin(async_stream::stream! {
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((io, _)) => if let Some(peer) = peers.admit(&io) {
                    yield Ok(terms.connection(io, peer, place));
                },
                Err(error) => net::accept_failed(&error).await,
            }
        }
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
                format!(
                    "it cannot be given to the group {group} of group=, of which this process must be a member: {error}"
                ),
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
