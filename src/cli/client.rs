//! Connections to a sidecar, and its errors in words.

use std::path::Path;

use anyhow::{Context as _, anyhow};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;
use tower::service_fn;

use crate::{
    config::TargetArgs,
    files,
    rpc::proto::{
        dev::test_clock_service_client::TestClockServiceClient,
        v1::{session_admin_service_client::SessionAdminServiceClient, session_service_client::SessionServiceClient},
    },
};

pub(super) async fn sessions(target: &TargetArgs) -> anyhow::Result<SessionServiceClient<Link>> {
    Ok(SessionServiceClient::new(connect(target).await?))
}

pub(super) async fn admin(target: &TargetArgs) -> anyhow::Result<SessionAdminServiceClient<Link>> {
    let client = SessionAdminServiceClient::new(connect(target).await?);
    // A full page of sessions with all that they may carry.
    Ok(client.max_decoding_message_size(16 * 1024 * 1024))
}

pub(super) async fn health(target: &TargetArgs) -> anyhow::Result<HealthClient<Link>> {
    Ok(HealthClient::new(connect(target).await?))
}

pub(super) async fn test_clock(target: &TargetArgs) -> anyhow::Result<TestClockServiceClient<Link>> {
    Ok(TestClockServiceClient::new(connect(target).await?))
}

/// A connection whose calls show a token, if there is one.
type Link = InterceptedService<Channel, Bearer>;

#[derive(Clone)]
pub(super) struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

async fn connect(args: &TargetArgs) -> anyhow::Result<Link> {
    let token = args.token_file.as_deref().map(token).transpose()?;
    Ok(InterceptedService::new(channel(args).await?, Bearer(token)))
}

/// What shows the token in a file.
fn token(path: &Path) -> anyhow::Result<MetadataValue<Ascii>> {
    let text = String::from_utf8(read("--token-file", path)?).ok();
    let token = text.as_deref().and_then(|text| text.lines().next()).map(str::trim);
    let value = token.and_then(|token| format!("Bearer {token}").parse::<MetadataValue<Ascii>>().ok());
    let mut value =
        value.with_context(|| format!("--token-file {}: there is no token in its first line", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn read(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    files::read(path).with_context(|| format!("{flag} {} cannot be read", path.display()))
}

async fn channel(args: &TargetArgs) -> anyhow::Result<Channel> {
    let target = args.target.as_str();
    let channel = if let Some(path) = target.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path).to_owned();
        // The address is never used; the connector knows the path.
        let endpoint = Endpoint::from_static("http://localhost");
        let connector = service_fn(move |_| {
            let path = path.clone();
            async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        endpoint.connect_with_connector(connector).await
    } else {
        // As the clients take it, too.
        let url = match target.split_once("://") {
            Some(("tcp", address)) => format!("http://{address}"),
            Some(_) => target.to_owned(),
            None => format!("http://{target}"),
        };
        let endpoint = Endpoint::from_shared(url).ok();
        let endpoint = endpoint.filter(|endpoint| matches!(endpoint.uri().scheme_str(), Some("http" | "https")));
        let mut endpoint = endpoint.with_context(|| {
            format!("--target {target:?} must be ADDRESS:PORT, http://ADDRESS:PORT, https://NAME:PORT or unix:/PATH")
        })?;
        if endpoint.uri().scheme_str() == Some("https") {
            endpoint = endpoint.tls_config(tls(args)?).context("--tls-…-file")?;
        }
        endpoint.connect().await
    };
    channel.with_context(|| format!("no sidecar can be reached at {target}; is it running? (--target)"))
}

fn tls(args: &TargetArgs) -> anyhow::Result<ClientTlsConfig> {
    let mut tls = ClientTlsConfig::new().with_enabled_roots();
    if let Some(path) = &args.tls_ca_file {
        tls = tls.ca_certificate(Certificate::from_pem(read("--tls-ca-file", path)?));
    }
    if let (Some(certificate), Some(key)) = (&args.tls_cert_file, &args.tls_key_file) {
        let certificate = read("--tls-cert-file", certificate)?;
        tls = tls.identity(Identity::from_pem(certificate, read("--tls-key-file", key)?));
    }
    Ok(tls)
}

/// What a status says, with its reason and details.
pub(super) fn explain(status: Status) -> anyhow::Error {
    let code = format!("{:?}", status.code());
    let details = status.get_error_details();
    let Some(info) = details.error_info() else {
        return anyhow!("{code}: {}", status.message());
    };
    let mut metadata: Vec<_> = info
        .metadata
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    metadata.sort();
    let metadata = if metadata.is_empty() {
        String::new()
    } else {
        format!(" ({})", metadata.join(", "))
    };
    anyhow!("{code} {}: {}{metadata}", info.reason, status.message())
}
