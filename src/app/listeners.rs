//! The listeners of the API: binds them, accepts connections, and lets in whom they are for.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
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
    config::{Endpoint, Listen, Peers, TlsFiles, token_text},
    files, net,
    rpc::{
        Admission, Callers, Connection, Incoming, Io, Peer, Tokens,
        tls::{self, Tls},
    },
    time::Clock,
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
    /// Binds them. So many connections may be open at each; further ones wait.
    pub(super) async fn bind(
        listens: Vec<Listen>,
        callers: &Arc<Callers>,
        max_connections: usize,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let meter = ListenerMeter::register(registry);
        let mut incoming: SelectAll<Incoming> = SelectAll::new();
        let mut all = Self {
            endpoints: Vec::new(),
            incoming: futures_util::stream::empty().boxed(),
            sockets: Vec::new(),
            files: Vec::new(),
        };
        for listen in listens {
            let name = listen.endpoint.to_string();
            let bound = all.bind_one(listen, callers, max_connections, &meter).await;
            incoming.push(bound.with_context(|| format!("--listen {name}"))?);
        }
        all.incoming = incoming.boxed();
        Ok(all)
    }

    /// Binds one, and answers what comes to it.
    async fn bind_one(
        &mut self,
        listen: Listen,
        callers: &Arc<Callers>,
        max_connections: usize,
        meter: &ListenerMeter,
    ) -> anyhow::Result<Incoming> {
        let mut admission = Admission::from(Arc::new(listen.caller)).with_callers(Arc::clone(callers));
        if let Some(path) = listen.token_file {
            let (tokens, followed) = load_tokens(path).map_err(anyhow::Error::msg)?;
            admission = admission.with_tokens(tokens);
            self.files.push(followed);
        }
        let terms = Terms {
            admission,
            repair_authority: listen.repair_authority,
            places: Arc::new(Semaphore::new(max_connections)),
        };
        match listen.endpoint {
            Endpoint::Tcp(address) => self.bind_tcp(address, listen.tls, terms, meter).await,
            Endpoint::Unix {
                path,
                mode,
                group,
                peers,
            } => {
                let listener = bind_socket(&path, mode, group).context("cannot be bound")?;
                self.sockets.push(SocketFile::of(&path).context("cannot be bound")?);
                let check = PeerCheck {
                    peers: peers.clone(),
                    refused: meter.refused.clone(),
                };
                self.endpoints.push(Endpoint::Unix {
                    path,
                    mode,
                    group,
                    peers,
                });
                Ok(accept_unix(listener, terms, check))
            }
        }
    }

    async fn bind_tcp(
        &mut self,
        address: SocketAddr,
        tls: Option<TlsFiles>,
        terms: Terms,
        meter: &ListenerMeter,
    ) -> anyhow::Result<Incoming> {
        let listener = net::bind(address).await.context("cannot be bound")?;
        let bound = Endpoint::Tcp(listener.local_addr()?);
        let incoming = match tls {
            None => accept_tcp(listener, terms),
            Some(paths) => {
                let expiry = meter.expiry.get_or_create_owned(&[("listener", bound.to_string())]);
                let (tls, followed) = load_tls(paths, expiry).map_err(anyhow::Error::msg)?;
                self.files.push(followed);
                accept_tls(listener, tls, terms, meter.handshakes_failed.clone())
            }
        };
        self.endpoints.push(bound);
        Ok(incoming)
    }
}

/// Reads the tokens of a listener.
fn load_tokens(path: PathBuf) -> Result<(Arc<Tokens>, Files), String> {
    let paths = vec![path];
    let contents = files::read_all(&paths)?;
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
    let contents = files::read_all(&paths)?;
    let configured = files.configure(&contents)?;
    expiry.set(configured.not_after);
    let tls = Tls::new(configured);
    let followed = Files::new(move || paths.clone(), &contents, {
        let tls = tls.clone();
        move |contents| {
            let configured = files.configure(contents)?;
            if configured.not_after < expiry.get() {
                // What is in force is good for longer.
                let fault = configured.fault_at(Clock::system().unix_seconds());
                fault.map_or(Ok(()), Err)?;
            }
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
    /// A place for each connection: of this listener alone, so that strangers at one cannot keep others from another.
    places: Arc<Semaphore>,
}

impl Terms {
    /// Waits for a place; none is given any more when the sidecar ends.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

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

fn accept_tcp(listener: TcpListener, terms: Terms) -> Incoming {
    Box::pin(async_stream::stream! {
        while let Some(place) = terms.place().await {
            let io = net::accept(&listener).await;
            yield Ok(terms.connection(io, Peer::default(), place));
        }
    })
}

/// Accepts connections that agree on TLS. One that takes its time holds nobody up.
fn accept_tls(listener: TcpListener, tls: Tls, terms: Terms, failed: Counter) -> Incoming {
    Box::pin(async_stream::stream! {
        let accept = async || {
            let place = terms.place().await?;
            Some((net::accept(&listener).await, place))
        };
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

fn accept_unix(listener: UnixListener, terms: Terms, peers: PeerCheck) -> Incoming {
    Box::pin(async_stream::stream! {
        while let Some(place) = terms.place().await {
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
pub(super) struct SocketFile {
    path: PathBuf,
    /// Its device and number: a successor puts another one in its place.
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = path.symlink_metadata()?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).ok() != Some(self.identity) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            warn!(%error, "the socket file cannot be removed");
        }
    }
}
