//! A whole sidecar in virtual time: its gRPC server behind in-memory pipes, its driver and router as tasks.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use super::shared;

use hyper_util::rt::TokioIo;
use prometheus_client::{encoding::text::encode, registry::Registry};
use session_sidecar::{
    audit::Audit,
    config::{parse_door, parse_policies},
    door::{Door, DoorMeter, Doors},
    driver,
    rpc::{
        Api, Caller, Connection, RpcMeter, VerbGroup,
        proto::v1::{
            session_admin_service_client::SessionAdminServiceClient, session_service_client::SessionServiceClient,
        },
    },
    sessions::{Meter, Sessions, Setup},
    state::Policy,
    store::{
        MemoryCaps,
        shared::{self as store, Fingerprints, Outage, Shared, StoreMeter},
    },
    telemetry::{Levels, PREFIX},
    time::Clock,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

pub type Client = SessionServiceClient<Channel>;
pub type Admin = SessionAdminServiceClient<Channel>;

/// A quarter of an hour, warned at two minutes and at one: the policy that a new user meets.
pub const DEFAULT: &str = "";

/// How a sidecar of a test differs from the usual one.
pub struct Options {
    pub policies: &'static str,
    pub caps: MemoryCaps,
    pub replay_events: usize,
    pub mailbox_size: usize,
    pub max_watchers: usize,
    pub driver: bool,
    pub key: u8,
    /// Another key that is accepted, with a shared store.
    pub other_key: Option<u8>,
    pub audit: Audit,
    /// The store that it shares; unset: the one that the environment names, if any.
    pub store: Option<shared::Place>,
    /// The namespace of a shared store; unset: one of its own, if there is a store at all.
    pub namespace: Option<String>,
    /// How long one write of activity is good for in a shared store.
    pub window: Option<Duration>,
    pub format: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            policies: DEFAULT,
            caps: MemoryCaps {
                max_sessions: 100_000,
                max_tombstones: 100_000,
            },
            replay_events: 100_000,
            mailbox_size: 8_192,
            max_watchers: 1_000,
            driver: true,
            key: 7,
            other_key: None,
            audit: Audit::default(),
            store: None,
            namespace: None,
            window: Some(Duration::ZERO),
            format: 2,
        }
    }
}

/// A running sidecar.
pub struct Sidecar {
    pub clock: Clock,
    pub sessions: Arc<Sessions>,
    pub doors: Doors,
    pub draining: CancellationToken,
    pub server: JoinHandle<Result<(), tonic::transport::Error>>,
    tasks: Vec<JoinHandle<()>>,
    registry: Registry,
    /// The store that it shares, if there is one, and the wire to it.
    pub shared: Option<(Arc<Shared>, Arc<shared::VirtualWire>)>,
    connections: mpsc::UnboundedSender<io::Result<Connection>>,
}

impl Sidecar {
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    pub fn with_policies(policies: &'static str) -> Self {
        Self::with(Options {
            policies,
            ..Options::default()
        })
    }

    pub fn with(options: Options) -> Self {
        let policies = parse_policies(options.policies).expect("good policies");
        Self::with_parsed(policies, options)
    }

    /// With policies that no file says.
    pub fn with_parsed(policies: BTreeMap<String, Policy>, options: Options) -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let clock = Clock::of_runtime();
        let meter = Arc::new(RpcMeter::register(&mut registry));
        let setup = Setup {
            clock: clock.clone(),
            master_key: vec![options.key; 32],
            other_key: options.other_key.map(|byte| vec![byte; 32]),
            policies,
            caps: options.caps,
            replay_events: options.replay_events,
            mailbox_size: options.mailbox_size,
            max_watchers: options.max_watchers,
            audit: options.audit,
        };
        let session_meter = Meter::register(&mut registry);
        let place = options.store.or_else(|| shared::address().map(shared::Place::new));
        let shared = place.map(|place| {
            let (wire, pokes) = shared::VirtualWire::new(place);
            let setup = store::Setup {
                clock: clock.clone(),
                wire: wire.clone(),
                pokes,
                buckets: 2,
                namespace: options.namespace.unwrap_or_else(shared::fresh_namespace),
                keys: Fingerprints::of(
                    &[options.key; 32],
                    options.other_key.map(|byte| vec![byte; 32]).as_deref(),
                ),
                window: options.window,
                format: options.format,
                outage: Outage::Degraded,
                max_sessions: options.caps.max_sessions,
                replay_events: options.replay_events,
                mailbox_size: options.mailbox_size,
            };
            (Shared::new(setup, StoreMeter::register(&mut registry)), wire)
        });
        let sessions = match &shared {
            None => Sessions::new(setup, session_meter),
            Some((shared, _)) => Sessions::sharing(setup, session_meter, shared),
        };
        registry.register_collector(Box::new(Levels(Arc::clone(&sessions))));
        let mut tasks = vec![tokio::spawn(Arc::clone(sessions.router()).run())];
        if options.driver {
            let alarm = Arc::clone(sessions.alarm());
            tasks.push(tokio::spawn(driver::run(Arc::clone(&sessions), clock.clone(), alarm)));
        }
        if let Some((shared, _)) = &shared {
            tasks.push(tokio::spawn(Arc::clone(shared).follow()));
            tasks.push(tokio::spawn(Arc::clone(shared).keep_house()));
            tasks.push(tokio::spawn(Arc::clone(&sessions).tell_untold(Arc::clone(shared))));
            if options.driver {
                tasks.push(tokio::spawn(Arc::clone(&sessions).sweep_store(Arc::clone(shared))));
            }
        }
        let draining = CancellationToken::new();
        let (connections, incoming) = mpsc::unbounded_channel();
        let door = parse_door(options.policies).expect("a good table");
        let door = Door::new(Arc::clone(&sessions), door, DoorMeter::default(), draining.clone());
        let doors = Doors::new(door);
        let api = Api {
            sessions: Arc::clone(&sessions),
            doors: doors.clone(),
            meter,
            traces: None,
            draining: draining.clone(),
            test_clock: false,
        };
        let incoming = UnboundedReceiverStream::new(incoming);
        let (_, server) = api
            .serve(Box::pin(incoming), Box::pin(draining.clone().cancelled_owned()))
            .expect("descriptors");
        Self {
            clock,
            sessions,
            doors,
            draining,
            server: tokio::spawn(server),
            tasks,
            registry,
            connections,
            shared,
        }
    }

    /// Whether its tasks, which must never end, still run.
    pub fn runs(&self) -> bool {
        !self.server.is_finished() && self.tasks.iter().all(|task| !task.is_finished())
    }

    /// The process is gone from one moment to the next.
    pub async fn kill(self) {
        self.server.abort();
        let _ = self.server.await;
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }

    /// Puts other policies in force, as a changed file does.
    pub fn reload(&self, policies: &str) {
        let policies = parse_policies(policies).expect("good policies");
        self.sessions.reload(policies).expect("reloads");
    }

    /// A client on a connection of its own, that may do what is the default.
    pub async fn client(&self) -> Client {
        self.client_of(Caller::default()).await
    }

    /// A client whose listener serves these tenants.
    pub async fn client_for(&self, tenants: &[&str]) -> Client {
        self.client_of(Caller {
            tenants: tenants.iter().map(|tenant| Arc::from(*tenant)).collect(),
            ..Caller::default()
        })
        .await
    }

    pub async fn client_of(&self, caller: Caller) -> Client {
        SessionServiceClient::new(self.channel(caller).await)
    }

    /// A client of the admin service, on a listener that serves nothing else.
    pub async fn admin(&self) -> Admin {
        self.admin_for(&[""]).await
    }

    /// A client of the admin service whose listener serves these tenants.
    pub async fn admin_for(&self, tenants: &[&str]) -> Admin {
        self.admin_of(Caller {
            tenants: tenants.iter().map(|tenant| Arc::from(*tenant)).collect(),
            verbs: vec![VerbGroup::Admin],
            ..Caller::default()
        })
        .await
    }

    pub async fn admin_of(&self, caller: Caller) -> Admin {
        SessionAdminServiceClient::new(self.channel(caller).await)
    }

    pub async fn channel(&self, caller: Caller) -> Channel {
        if let Some((shared, _)) = &self.shared {
            while !shared.is_up() {
                tokio::task::yield_now().await;
            }
        }
        let connections = self.connections.clone();
        let caller = Arc::new(caller);
        let connector = tower::service_fn(move |_| {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let sent = connections.send(Ok(Connection::new(far, Arc::clone(&caller), None)));
            async move {
                sent.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
                Ok::<_, io::Error>(TokioIo::new(near))
            }
        });
        Endpoint::from_static("http://sidecar")
            // As small as the protocol's default, so that a watcher that does not read is soon noticed.
            .initial_stream_window_size(65_535)
            .connect_with_connector(connector)
            .await
            .expect("the pipe connects")
    }

    /// What /metrics would say.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("metrics encode");
        text
    }

    /// The value of one metric, labels included in the name.
    pub fn metric(&self, name: &str) -> f64 {
        let line = format!("{PREFIX}_{name} ");
        let text = self.metrics();
        let found = text.lines().find_map(|known| known.strip_prefix(&line));
        found
            .unwrap_or_else(|| panic!("no metric {name} in\n{text}"))
            .parse()
            .expect("a number")
    }
}
