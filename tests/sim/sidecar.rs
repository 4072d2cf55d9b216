//! A whole sidecar in virtual time, which can be killed and started again.

use std::{io, sync::Arc};

use hyper_util::rt::TokioIo;
use prometheus_client::{encoding::text::encode, registry::Registry};
use session_sidecar::{
    driver,
    rpc::{
        Api, Caller, Connection, RpcMeter, VerbGroup,
        proto::v1::{
            session_admin_service_client::SessionAdminServiceClient, session_service_client::SessionServiceClient,
        },
    },
    sessions::{Meter, Sessions, Setup},
    store::MemoryCaps,
    telemetry::{Levels, PREFIX},
    time::Clock,
};
use tokio::{io::DuplexStream, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::{
    policies::{policies, specs},
    script::Script,
};

pub(crate) type Client = SessionServiceClient<Channel>;
pub(crate) type Admin = SessionAdminServiceClient<Channel>;

/// A running sidecar.
pub(crate) struct Sidecar {
    pub(crate) clock: Clock,
    sessions: Arc<Sessions>,
    pub(crate) draining: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    registry: Registry,
    connections: mpsc::UnboundedSender<io::Result<Connection<DuplexStream>>>,
}

impl Sidecar {
    pub(crate) fn start(script: &Script, reloads: u32) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let clock = Clock::of_runtime();
        let meter = Arc::new(RpcMeter::register(&mut registry));
        let sessions = Sessions::new(
            Setup {
                clock: clock.clone(),
                master_key: vec![7; 32],
                policies: policies(&specs(reloads)),
                caps: MemoryCaps {
                    max_sessions: script.max_sessions,
                    max_tombstones: script.max_tombstones,
                },
                replay_events: script.replay_events,
                mailbox_size: script.mailbox,
                max_watchers: 1_000,
                audit: Default::default(),
            },
            Meter::register(&mut registry),
        );
        registry.register_collector(Box::new(Levels(Arc::clone(&sessions))));
        let alarm = Arc::clone(sessions.alarm());
        let driver = tokio::spawn(driver::run(Arc::clone(&sessions), clock.clone(), alarm));
        let router = tokio::spawn(Arc::clone(sessions.router()).run());
        let draining = CancellationToken::new();
        let (connections, incoming) = mpsc::unbounded_channel();
        let api = Api {
            sessions: Arc::clone(&sessions),
            meter,
            draining: draining.clone(),
            test_clock: false,
        };
        let incoming = UnboundedReceiverStream::new(incoming);
        let (_, server) = api
            .serve(incoming, draining.clone().cancelled_owned())
            .expect("descriptors");
        let server = tokio::spawn(async move { server.await.expect("the server runs") });
        Self {
            clock,
            sessions,
            draining,
            tasks: vec![driver, router, server],
            registry,
            connections,
        }
    }

    /// A client on a connection of its own whose listener serves these tenants.
    pub(crate) async fn client(&self, tenants: &[&str]) -> Client {
        SessionServiceClient::new(self.channel(tenants, Caller::default().verbs).await)
    }

    /// An operator of these tenants.
    pub(crate) async fn admin(&self, tenants: &[&str]) -> Admin {
        SessionAdminServiceClient::new(self.channel(tenants, vec![VerbGroup::Admin]).await)
    }

    async fn channel(&self, tenants: &[&str], verbs: Vec<VerbGroup>) -> Channel {
        let caller = Arc::new(Caller {
            tenants: tenants.iter().map(|tenant| Arc::from(*tenant)).collect(),
            verbs,
        });
        let connections = self.connections.clone();
        let connector = tower::service_fn(move |_| {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let sent = connections.send(Ok(Connection::new(far, Arc::clone(&caller), None)));
            async move {
                sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
                Ok::<_, io::Error>(TokioIo::new(near))
            }
        });
        let endpoint = Endpoint::from_static("http://sidecar").initial_stream_window_size(65_535);
        endpoint
            .connect_with_connector(connector)
            .await
            .expect("the pipe connects")
    }

    /// What /metrics would say.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("metrics encode");
        text
    }

    /// The policy file has changed.
    pub(crate) fn reload(&self, reloads: u32) {
        let reloaded = self.sessions.policies().reload(policies(&specs(reloads)));
        reloaded.expect("a good file");
    }

    /// Whether it is still in order: its tasks must never end.
    pub(crate) fn runs(&self) -> bool {
        self.tasks.iter().all(|task| !task.is_finished())
    }

    /// The process is gone from one moment to the next.
    pub(crate) async fn kill(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}
