//! The wire: the only room that knows gRPC statuses and generated types.

mod admin_service;
mod admin_write;
mod admission;
mod authority;
mod caller;
mod callers;
mod codec;
mod connection;
mod error;
mod ext_authz;
mod meter;
mod name;
pub mod proto;
mod read;
mod reception;
mod service;
mod test_clock;
pub mod tls;
mod traced;
mod undecodable;
mod watch;
mod write;

use std::{io, sync::Arc, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::util::option_layer;

pub use admission::{Admission, Tokens};
pub use authority::Repair;
pub use caller::{Caller, VerbGroup};
pub use callers::{CallerTable, Callers, KnownBy, Peer};
pub use connection::{Connection, Io};
pub use error::DOMAIN;
pub use meter::RpcMeter;
pub use traced::Traces;

use admin_service::AdminService;
use error::{CallError, Called};
use ext_authz::ExtAuthz;
use proto::{
    dev::test_clock_service_server::{SERVICE_NAME as TEST_CLOCK, TestClockServiceServer},
    envoy::authorization_server::{AuthorizationServer, SERVICE_NAME as EXT_AUTHZ},
    v1::{
        session_admin_service_server::{SERVICE_NAME as ADMIN, SessionAdminServiceServer},
        session_service_server::{SERVICE_NAME, SessionServiceServer},
    },
};
use reception::Reception;
use service::Service;
use test_clock::TestClock;

use crate::{door::Doors, sessions::Sessions};

/// The largest message that is read: a full BatchTouch of the longest ids fits.
const LARGEST_MESSAGE: usize = 1024 * 1024;

/// The largest that is read of those who need not show who they are, which names a service or a type.
const LARGEST_QUESTION: usize = 4 * 1024;

/// The gRPC services over one core.
pub struct Api {
    /// The core.
    pub sessions: Arc<Sessions>,
    /// Decides what Envoy asks.
    pub doors: Doors,
    /// Counts calls.
    pub meter: Arc<RpcMeter>,
    /// Gives calls spans, if they are traced.
    pub traces: Option<Traces>,
    /// Ends every watch when it is cancelled.
    pub draining: CancellationToken,
    /// Whether the test clock is served.
    pub test_clock: bool,
}

/// Says over `grpc.health.v1` whether calls are welcome.
#[derive(Clone)]
pub struct Health(HealthReporter);

impl Health {
    /// Calls are welcome.
    pub async fn serving(&self) {
        self.set(ServingStatus::Serving).await;
    }

    /// The process is about to stop: go elsewhere.
    pub async fn not_serving(&self) {
        self.set(ServingStatus::NotServing).await;
    }

    /// Ends the streams of those who watch the health, for they would keep the server open.
    pub async fn close(mut self) {
        self.0.clear_service_status("").await;
        self.0.clear_service_status(SERVICE_NAME).await;
        self.0.clear_service_status(ADMIN).await;
    }

    async fn set(&self, status: ServingStatus) {
        self.0.set_service_status("", status).await;
        self.0.set_service_status(SERVICE_NAME, status).await;
        self.0.set_service_status(ADMIN, status).await;
    }
}

/// Connections, as they come.
pub type Incoming = BoxStream<'static, io::Result<Connection>>;

/// A server, which runs while it is awaited.
pub type Serving = BoxFuture<'static, Result<(), tonic::transport::Error>>;

impl Api {
    /// Serves connections until `stop` is done; then finishes the calls that are under way. Answers the server, to be
    /// awaited, and the handle of its health.
    pub fn serve(
        self,
        connections: Incoming,
        stop: BoxFuture<'static, ()>,
    ) -> Result<(Health, Serving), tonic_reflection::server::Error> {
        let (reporter, health) = tonic_health::server::health_reporter();
        let health = health.max_decoding_message_size(LARGEST_QUESTION);
        let admin = AdminService::new(Arc::clone(&self.sessions), Arc::clone(&self.meter));
        let admin = SessionAdminServiceServer::new(admin)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(16 * LARGEST_MESSAGE);
        let ext_authz = ExtAuthz::new(self.doors, &self.sessions, Arc::clone(&self.meter));
        let ext_authz = AuthorizationServer::new(ext_authz).max_decoding_message_size(LARGEST_MESSAGE);
        let reception = Reception::new(&self.sessions, Arc::clone(&self.meter));
        let max_watchers = self.sessions.max_watchers();
        let service = Service::new(Arc::clone(&self.sessions), self.meter, self.draining);
        let service = SessionServiceServer::new(service)
            .max_decoding_message_size(LARGEST_MESSAGE)
            .max_encoding_message_size(4 * LARGEST_MESSAGE);
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name(SERVICE_NAME)
                .with_service_name(ADMIN)
                .with_service_name(EXT_AUTHZ)
                .with_service_name("grpc.health.v1.Health")
                .with_service_name(if self.test_clock { TEST_CLOCK } else { SERVICE_NAME })
        };
        let test_clock = self
            .test_clock
            .then(|| TestClockServiceServer::new(TestClock::new(self.sessions)));
        let server = hardened(max_watchers)
            .layer(option_layer(self.traces))
            .layer(reception)
            .add_service(service)
            .add_service(admin)
            .add_service(ext_authz)
            .add_service(health)
            .add_service(reflection().build_v1()?.max_decoding_message_size(LARGEST_QUESTION))
            .add_service(
                reflection()
                    .build_v1alpha()?
                    .max_decoding_message_size(LARGEST_QUESTION),
            )
            .add_optional_service(test_clock)
            .serve_with_incoming_shutdown(connections, stop);
        Ok((Health(reporter), Box::pin(server)))
    }
}

/// How many calls may be under way on one connection beside its watches.
const SPARE_STREAMS: u32 = 4096;

/// tonic's server with the limits that its defaults leave open.
fn hardened(max_watchers: usize) -> Server {
    let max_watchers = u32::try_from(max_watchers).unwrap_or(u32::MAX);
    Server::builder()
        // tonic 0.14 advertises no limit. One gateway may hold all watches on one connection, and is told by an error, not by
        // silence, that there are too many.
        .max_concurrent_streams(max_watchers.saturating_add(SPARE_STREAMS))
        // Rapid reset (CVE-2023-44487) and made-you-reset (CVE-2025-8671): tonic 0.14 switches h2's limit off. Not h2's own 20: a
        // gateway that gives its calls up while this process stands still does the same, and would lose its watches with them.
        .http2_max_pending_accept_reset_streams(Some(1024))
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_header_list_size(16 * 1024)
        .max_frame_size(16 * 1024)
        // A peer that is gone, or stuck in the middle of a header block, does not answer pings.
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
}
