//! TLS of a listener: its certificate, and the authority of its clients' certificates if it demands them.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{io, net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};
use x509_parser::extensions::GeneralName;

use super::Peer;

/// How long a client may take to agree on TLS.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// What a listener serves TLS with.
#[derive(Clone)]
pub struct Tls(Arc<ArcSwap<ServerConfig>>);

/// A configuration that can be served with.
pub struct Configured {
    config: Arc<ServerConfig>,
    /// When its certificate ends, in seconds since 1970.
    pub not_after: i64,
}

impl Configured {
    /// What is wrong with it at a time, in seconds since 1970: nothing that keeps it from being served.
    #[must_use]
    pub fn fault_at(&self, now: i64) -> Option<String> {
        let told = "tls-cert-file: its certificate has ended, and clients refuse it: renew it";
        (self.not_after < now).then(|| told.to_owned())
    }
}

impl Tls {
    /// TLS with a configuration.
    #[must_use]
    pub fn new(configured: Configured) -> Self {
        Self(Arc::new(ArcSwap::new(configured.config)))
    }

    /// Serves connections that come from now on with another configuration.
    pub fn replace(&self, configured: Configured) {
        self.0.store(configured.config);
    }

    /// Agrees on TLS with a client.
    pub async fn accept(self, io: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.0.load_full());
        match timeout(HANDSHAKE, acceptor.accept(io)).await {
            Ok(agreed) => agreed,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }
}

/// Who is at the other end, by the certificate that it has shown, if any: by its subject alternative names, or, if it has none, its
/// common name. Who signs a certificate vouches for its alternative names, and often for those alone (RFC 9525 section 2).
pub fn peer(io: &TlsStream<TcpStream>) -> Peer {
    let (_, connection) = io.get_ref();
    let shown = connection.peer_certificates().and_then(|chain| chain.first());
    Peer {
        names: shown.map(|certificate| names(certificate)).unwrap_or_default(),
        ..Peer::default()
    }
}

fn names(certificate: &[u8]) -> Vec<Box<str>> {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else {
        return Vec::new();
    };
    if let Ok(Some(alternative)) = certificate.subject_alternative_name() {
        let names = alternative.value.general_names.iter();
        return names
            .filter_map(|name| match name {
                GeneralName::URI(name) | GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => {
                    Some((*name).into())
                }
                _ => None,
            })
            .collect();
    }
    let common = certificate.subject().iter_common_name();
    common.filter_map(|name| name.as_str().ok()).map(Into::into).collect()
}

/// Makes a configuration of PEM files. The error names the option whose file is bad.
pub fn configure(certificate: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Result<Configured, String> {
    let chain = certificates("tls-cert-file", certificate)?;
    let not_after = x509_parser::parse_x509_certificate(&chain[0])
        .map_err(|_| "tls-cert-file: its first certificate cannot be read".to_owned())?
        .1
        .validity()
        .not_after
        .timestamp();
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_| "tls-key-file: it must hold a private key in PEM, not encrypted".to_owned())?;
    let provider = Arc::new(ring::default_provider());
    let versions = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let clients = match client_ca {
        None => versions.with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("client-ca-file", authorities)? {
                roots
                    .add(authority)
                    .map_err(|error| format!("client-ca-file: {error}"))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| format!("client-ca-file: {error}"))?;
            versions.with_client_cert_verifier(verifier)
        }
    };
    let mut config = clients
        .with_single_cert(chain, key)
        .map_err(|error| format!("tls-cert-file and tls-key-file do not belong together: {error}"))?;
    // gRPC is HTTP/2.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Configured {
        config: Arc::new(config),
        not_after,
    })
}

fn certificates(option: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        Ok(_) => Err(format!("{option}: there is no certificate in it (PEM)")),
        Err(_) => Err(format!("{option}: it is no PEM, or half of one")),
    }
}
