//! The floor: a server of the same build with the same services, options and connections whose handlers do nothing. What a
//! touch, or a question of Envoy's, costs over it is ours.
//!
//! The options repeat those of `src/rpc/mod.rs`: keep them the same.

use std::{sync::Arc, time::Duration};

use session_sidecar::rpc::{
    Caller, Connection,
    proto::{
        DESCRIPTORS,
        envoy::{
            self,
            authorization_server::{Authorization, AuthorizationServer, SERVICE_NAME as EXT_AUTHZ},
        },
        v1::{
            self,
            session_service_server::{SERVICE_NAME, SessionService, SessionServiceServer},
        },
    },
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, transport::Server};

use crate::report;

/// What the floor answers to a touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Answer {
    /// A constant answer of the size that ours has.
    Constant,
    /// A message without fields.
    Empty,
}

struct Floor(v1::TouchResponse);

/// Serves until it is killed.
pub(crate) fn serve(workers: usize, answer: Answer) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        report(&serde_json::json!({ "address": listener.local_addr()?.to_string() }));
        let caller = Arc::new(Caller::default());
        let connections = async_stream::stream! {
            loop {
                yield listener.accept().await.and_then(|(io, _)| {
                    io.set_nodelay(true)?;
                    Ok(Connection::new(io, Arc::clone(&caller), None))
                });
            }
        };
        let (_reporter, health) = tonic_health::server::health_reporter();
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
                .with_service_name(SERVICE_NAME)
                .with_service_name(EXT_AUTHZ)
                .with_service_name("grpc.health.v1.Health")
        };
        let service = SessionServiceServer::new(Floor(match answer {
            Answer::Constant => constant(),
            Answer::Empty => v1::TouchResponse::default(),
        }));
        Server::builder()
            .max_concurrent_streams(4096)
            .http2_max_pending_accept_reset_streams(Some(20))
            .http2_max_local_error_reset_streams(Some(1024))
            .http2_max_header_list_size(16 * 1024)
            .max_frame_size(16 * 1024)
            .http2_keepalive_interval(Some(Duration::from_secs(20)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .add_service(service)
            .add_service(AuthorizationServer::new(LetsPass))
            .add_service(health)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .serve_with_incoming(connections)
            .await?;
        Ok(())
    })
}

/// An answer that takes as many bytes as a real one.
fn constant() -> v1::TouchResponse {
    let time = |nanos| {
        Some(prost_types::Timestamp {
            seconds: 1_790_000_000,
            nanos,
        })
    };
    v1::TouchResponse {
        status: Some(v1::SessionStatus {
            session_ref: "0123456789abcdefABCDEF".to_owned(),
            state: v1::SessionState::Active.into(),
            expire_time: time(123_456_789),
            expires_in: Some(prost_types::Duration {
                seconds: 899,
                nanos: 999_999_999,
            }),
            server_time: time(123_456_789),
            limit: v1::Limit::Idle.into(),
            next_warning_time: time(123_456_789),
            can_extend: true,
            version: 1,
            scope: v1::KnowledgeScope::Memory.into(),
            may_have_ended: false,
            ..Default::default()
        }),
        counted: true,
        result: v1::TouchResult::Counted.into(),
        rule: "unmatched".to_owned(),
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("the floor answers Touch only"))
}

/// Lets every request go on to the application, and says nothing of it.
struct LetsPass;

#[tonic::async_trait]
impl Authorization for LetsPass {
    async fn check(&self, _: Request<envoy::CheckRequest>) -> Result<Response<envoy::CheckResponse>, Status> {
        Ok(Response::new(envoy::CheckResponse {
            status: Some(envoy::Status::default()),
            http_response: None,
        }))
    }
}

#[tonic::async_trait]
impl SessionService for Floor {
    type WatchExpiryStream = tokio_stream::Empty<Result<v1::WatchExpiryResponse, Status>>;

    async fn touch(&self, _: Request<v1::TouchRequest>) -> Result<Response<v1::TouchResponse>, Status> {
        Ok(Response::new(self.0.clone()))
    }

    async fn create(&self, _: Request<v1::CreateRequest>) -> Result<Response<v1::CreateResponse>, Status> {
        not_here()
    }

    async fn batch_touch(&self, _: Request<v1::BatchTouchRequest>) -> Result<Response<v1::BatchTouchResponse>, Status> {
        not_here()
    }

    async fn check(&self, _: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        not_here()
    }

    async fn extend(&self, _: Request<v1::ExtendRequest>) -> Result<Response<v1::ExtendResponse>, Status> {
        not_here()
    }

    async fn hold(&self, _: Request<v1::HoldRequest>) -> Result<Response<v1::HoldResponse>, Status> {
        not_here()
    }

    async fn release(&self, _: Request<v1::ReleaseRequest>) -> Result<Response<v1::ReleaseResponse>, Status> {
        not_here()
    }

    async fn rotate(&self, _: Request<v1::RotateRequest>) -> Result<Response<v1::RotateResponse>, Status> {
        not_here()
    }

    async fn end(&self, _: Request<v1::EndRequest>) -> Result<Response<v1::EndResponse>, Status> {
        not_here()
    }

    async fn watch_expiry(
        &self,
        _: Request<v1::WatchExpiryRequest>,
    ) -> Result<Response<Self::WatchExpiryStream>, Status> {
        not_here()
    }
}
