//! Connections to a sidecar, and its errors in words.

use anyhow::{Context as _, anyhow};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;
use tower::service_fn;

use crate::rpc::proto::{
    dev::test_clock_service_client::TestClockServiceClient,
    v1::{session_admin_service_client::SessionAdminServiceClient, session_service_client::SessionServiceClient},
};

pub(super) async fn sessions(target: &str) -> anyhow::Result<SessionServiceClient<Channel>> {
    Ok(SessionServiceClient::new(connect(target).await?))
}

pub(super) async fn admin(target: &str) -> anyhow::Result<SessionAdminServiceClient<Channel>> {
    let client = SessionAdminServiceClient::new(connect(target).await?);
    // A full page of sessions with all that they may carry.
    Ok(client.max_decoding_message_size(16 * 1024 * 1024))
}

pub(super) async fn health(target: &str) -> anyhow::Result<HealthClient<Channel>> {
    Ok(HealthClient::new(connect(target).await?))
}

pub(super) async fn test_clock(target: &str) -> anyhow::Result<TestClockServiceClient<Channel>> {
    Ok(TestClockServiceClient::new(connect(target).await?))
}

async fn connect(target: &str) -> anyhow::Result<Channel> {
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
        let endpoint = Endpoint::from_shared(target.to_owned()).ok();
        let endpoint = endpoint.filter(|endpoint| endpoint.uri().scheme_str() == Some("http"));
        endpoint
            .with_context(|| format!("--target {target:?} must be http://ADDRESS:PORT or unix:/PATH"))?
            .connect()
            .await
    };
    channel.with_context(|| format!("no sidecar can be reached at {target}; is it running? (--target)"))
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
