//! How a connection is made: TCP, TLS if wanted, HELLO 3; and what it means if that fails.

use std::{io, sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, ErrorKind, Pipeline, ProtocolVersion, PushInfo, RedisConnectionInfo, RedisError, Value,
    aio::MultiplexedConnection,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        self, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use tokio_util::task::AbortOnDropHandle;

use super::{Address, Place, Settings, Unfit};

/// A server that has not said hello by then is taken for unreachable.
const CONNECT: Duration = Duration::from_secs(1);

/// How long a server is listened to that was spoken to in the other manner, plain or TLS, to tell people which it is.
const PROBE: Duration = Duration::from_millis(500);

/// How many calls may wait to be written.
const BUFFER: usize = 1024;

/// What the server's messages, and the end of the connection, are told to.
pub(super) type Pushed = Box<dyn Fn(PushInfo) -> Result<(), ()> + Send + Sync>;

/// A connection. It ends with this handle, whether or not the server has answered all that it was asked.
pub(super) struct Wire {
    connection: MultiplexedConnection,
    _driver: AbortOnDropHandle<()>,
}

impl Wire {
    /// Sends several commands at once and gives a reply for each, errors among them. It waits as long as the server does.
    pub(super) async fn exchange(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let mut connection = self.connection.clone();
        let replies = connection.send_packed_commands(commands, 0, commands.len()).await?;
        if replies.len() == commands.len() {
            Ok(replies)
        } else {
            Err((ErrorKind::Client, "the replies do not fit the commands").into())
        }
    }
}

/// Makes connections.
pub(super) struct Connector {
    tls: Option<Result<TlsConnector, Unfit>>,
    user: Option<String>,
    password: Option<String>,
}

impl Connector {
    /// To the servers that hold the data.
    pub(super) fn to_servers(settings: &Settings) -> Self {
        let manner = settings.address.manner();
        Self {
            tls: manner.tls.then(|| tls(settings.ca.as_deref())),
            user: manner.user.clone(),
            password: settings.password.clone(),
        }
    }

    /// To the sentinels, which have a password of their own and no users.
    pub(super) fn to_sentinels(settings: &Settings) -> Option<Self> {
        let Address::Sentinel { manner, .. } = &settings.address else {
            return None;
        };
        Some(Self {
            tls: manner.tls.then(|| tls(settings.ca.as_deref())),
            user: None,
            password: settings.sentinel_password.clone(),
        })
    }

    /// A connection that has said hello and was let in.
    pub(super) async fn connect(&self, place: &Place, pushed: Pushed) -> Result<Wire, Unfit> {
        let tls = self.tls.clone().transpose()?;
        match timeout(CONNECT, self.try_connect(place, tls.as_ref(), pushed)).await {
            Ok(Err(Failed::Unfit(unfit))) => Err(unfit),
            Ok(Err(Failed::Garbled(_))) if tls.is_none() && speaks_tls(place).await => {
                Err(Unfit::PlainAgainstTls { at: place.to_string() })
            }
            Ok(Err(Failed::Garbled(why))) => Err(unreachable(place, &why)),
            Ok(Ok(wire)) => Ok(wire),
            Err(_) if tls.is_some() && speaks_plain(place).await => {
                Err(Unfit::TlsAgainstPlain { at: place.to_string() })
            }
            Err(_) => Err(unreachable(place, &"no answer within a second")),
        }
    }

    async fn try_connect(&self, place: &Place, tls: Option<&TlsConnector>, pushed: Pushed) -> Result<Wire, Failed> {
        let stream = dial(place).await.map_err(|error| unreachable(place, &error))?;
        let Some(tls) = tls else {
            return self.hello(place, stream, pushed).await;
        };
        let name = ServerName::try_from(place.host.clone()).map_err(|error| unreachable(place, &error))?;
        match tls.connect(name, stream).await {
            Ok(stream) => self.hello(place, stream, pushed).await,
            Err(error) => Err(Failed::Unfit(of_handshake(place, &error))),
        }
    }

    async fn hello<S>(&self, place: &Place, stream: S, pushed: Pushed) -> Result<Wire, Failed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        // The timeouts of the calls are ours.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_pipeline_buffer_size(BUFFER)
            .set_push_sender(pushed);
        let mut who = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP3)
            .set_skip_set_lib_name();
        if let Some(user) = &self.user {
            // A user without a password says hello with an empty one.
            who = who.set_username(user).set_password("");
        }
        if let Some(password) = &self.password {
            who = who.set_password(password);
        }
        match MultiplexedConnection::new_with_config(&who, stream, config).await {
            Ok((connection, driver)) => {
                let driver = AbortOnDropHandle::new(tokio::spawn(driver));
                Ok(Wire {
                    connection,
                    _driver: driver,
                })
            }
            Err(error) => Err(of_hello(place, &error)),
        }
    }
}

/// Why there is no connection.
enum Failed {
    Unfit(Unfit),
    /// The server hung up, or said what is no reply.
    Garbled(String),
}

impl From<Unfit> for Failed {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

fn unreachable(place: &Place, why: &dyn ToString) -> Unfit {
    Unfit::Unreachable {
        at: place.to_string(),
        why: why.to_string(),
    }
}

async fn dial(place: &Place) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn of_hello(place: &Place, error: &RedisError) -> Failed {
    let at = place.to_string();
    if let Some(code) = error.code() {
        return Failed::Unfit(Unfit::of_reply(&at, "HELLO", code, error.detail().unwrap_or_default()));
    }
    match error.kind() {
        ErrorKind::RESP3NotSupported => Failed::Unfit(Unfit::TooOld {
            found: "older than Redis 6".to_owned(),
            needed: "Redis 7.0 or Valkey 7.2",
        }),
        // With TLS 1.3 the server says only now that it wants a certificate.
        ErrorKind::Io if error.to_string().contains("CertificateRequired") => {
            Failed::Unfit(Unfit::WantsCertificate { at })
        }
        ErrorKind::Io => Failed::Garbled("it hung up".to_owned()),
        _ => Failed::Garbled("it answered what is not the Redis protocol".to_owned()),
    }
}

fn of_handshake(place: &Place, error: &io::Error) -> Unfit {
    let at = place.to_string();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(why)) => Unfit::Certificate {
            at,
            why: why.to_string(),
        },
        Some(rustls::Error::InvalidMessage(_)) => Unfit::TlsAgainstPlain { at },
        Some(rustls::Error::AlertReceived(
            rustls::AlertDescription::CertificateRequired | rustls::AlertDescription::HandshakeFailure,
        )) => Unfit::WantsCertificate { at },
        _ => unreachable(place, error),
    }
}

/// Whether a server that answered plain words with nothing sensible speaks TLS.
async fn speaks_tls(place: &Place) -> bool {
    let Ok(name) = ServerName::try_from(place.host.clone()) else {
        return false;
    };
    let probe = async {
        let stream = dial(place).await?;
        let config = configured(RootCertStore::empty()).map_err(io::Error::other)?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    };
    // Nothing is trusted, so a server that speaks TLS fails by its certificate.
    match timeout(PROBE, probe).await {
        Ok(Err(error)) => matches!(of_handshake(place, &error), Unfit::Certificate { .. }),
        Ok(Ok(_)) => true,
        Err(_) => false,
    }
}

/// Whether a server that does not answer to TLS answers plain words.
async fn speaks_plain(place: &Place) -> bool {
    let probe = async {
        let mut stream = dial(place).await?;
        stream.write_all(b"PING\r\n").await?;
        stream.read_u8().await
    };
    matches!(timeout(PROBE, probe).await, Ok(Ok(b'+' | b'-')))
}

fn tls(ca: Option<&[u8]>) -> Result<TlsConnector, Unfit> {
    let no_authority = |why: &dyn ToString| Unfit::NoAuthority(why.to_string());
    let mut roots = RootCertStore::empty();
    match ca {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|_| no_authority(&"the file is not PEM"))?;
                roots.add(certificate).map_err(|error| no_authority(&error))?;
            }
            if roots.is_empty() {
                return Err(no_authority(&"there is no certificate in the file"));
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(no_authority(&"the system has none"));
            }
        }
    }
    let config = configured(roots).map_err(|error| no_authority(&error))?;
    Ok(TlsConnector::from(Arc::new(config)))
}

fn configured(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
