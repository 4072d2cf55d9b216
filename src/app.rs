//! The composition root: builds the rooms from the configuration, binds every address, runs, and drains.

mod callers;
mod files;
mod listeners;
mod sharing;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use futures_util::future::BoxFuture;
use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    admin::{self, Readiness},
    audit::{self, Audit, Output, SubjectForm},
    config::{Config, Endpoint, PolicyFile},
    door::{self, Door, DoorMeter, Doors},
    driver, net,
    reload::{self, ReloadMeter},
    rpc::{Api, Incoming, RpcMeter},
    sessions::{Meter, Sessions, Setup, random_key},
    store::MemoryCaps,
    telemetry::{Levels, PREFIX, Tracing},
    time::Clock,
};

pub use sharing::BadStore;

use callers::KnownCallers;
use files::{FileMeter, Files};
use listeners::{Listeners, SocketFile};
use sharing::{Keeps, Sharing};

/// A sidecar whose addresses are bound and which is not serving yet.
pub struct App {
    /// Where the API is served.
    pub endpoints: Vec<Endpoint>,
    /// Where metrics and probes are served.
    pub admin_address: Option<SocketAddr>,
    /// Where the HTTP door is served.
    pub door_address: Option<SocketAddr>,
    sessions: Arc<Sessions>,
    sharing: Option<Sharing>,
    meter: Arc<RpcMeter>,
    tracing: Option<Tracing>,
    registry: Registry,
    incoming: Incoming,
    callers: KnownCallers,
    files: (Vec<Files>, FileMeter),
    admin: Option<TcpListener>,
    door: Option<TcpListener>,
    door_settings: door::Settings,
    door_meter: DoorMeter,
    max_connections: usize,
    drain_timeout: Duration,
    dev: bool,
    policy_file: Option<(PathBuf, ReloadMeter)>,
    _sockets: Vec<SocketFile>,
}

impl App {
    /// Builds the rooms and binds the addresses. `audit_output` is where the audit log goes, open already.
    pub fn build(config: Config, audit_output: Option<Output>) -> BoxFuture<'static, anyhow::Result<Self>> {
        // What is in a box is compiled here, what is not in each program that awaits it.
        Box::pin(Self::build_rooms(config, audit_output))
    }

    async fn build_rooms(config: Config, audit_output: Option<Output>) -> anyhow::Result<Self> {
        let mut registry = Registry::with_prefix(PREFIX);
        let build = Family::<[(&str, &str); 1], Gauge>::default();
        build.get_or_create(&[("version", env!("CARGO_PKG_VERSION"))]).set(1);
        registry.register("build_info", "The version that runs", build);
        let traces = config.traces.map(|config| Tracing::start(config, &mut registry));
        let tracing = traces.transpose()?;
        let meter = Arc::new(RpcMeter::register(&mut registry));
        let clock = Clock::system();
        for warning in &config.warnings {
            warn!("{warning}");
        }
        let has_key_file = config.master_key.is_some();
        let master_key = config.master_key.unwrap_or_else(random_key);
        let audit = match audit_output {
            None => Audit::default(),
            Some(output) => {
                if config.audit_subjects == SubjectForm::Hash && !has_key_file {
                    warn!(
                        "the audit log hashes subjects under a key that is drawn at start: nobody can search it for a subject \
                         later; give a --key-file"
                    );
                }
                let setup = audit::Setup {
                    output,
                    subjects: config.audit_subjects,
                    master_key: &master_key,
                    clock: clock.clone(),
                    queue: AUDIT_QUEUE,
                };
                Audit::start(setup, &mut registry).context("the audit log cannot be started")?
            }
        };
        let other_key = config.store.as_ref().and_then(|store| store.other_key.clone());
        let sharing = match config.store {
            None => None,
            Some(store) => {
                let keeps = Keeps {
                    max_sessions: config.max_sessions,
                    replay_events: config.replay_events,
                    mailbox_size: config.watch_queue,
                };
                Some(Sharing::begin(store, &clock, keeps, &mut registry).await?)
            }
        };
        let setup = Setup {
            clock,
            master_key,
            other_key,
            policies: config.policies,
            caps: MemoryCaps {
                max_sessions: config.max_sessions,
                max_tombstones: config.max_tombstones,
            },
            replay_events: config.replay_events,
            mailbox_size: config.watch_queue,
            max_watchers: config.max_watchers,
            audit,
        };
        let counts = Meter::register(&mut registry);
        let sessions = match &sharing {
            None => Sessions::new(setup, counts),
            Some(sharing) => Sessions::sharing(setup, counts, sharing.store()),
        };
        registry.register_collector(Box::new(Levels(Arc::clone(&sessions))));
        let policy_file = config
            .policy_file
            .map(|path| (path, ReloadMeter::register(&mut registry)));

        let callers = KnownCallers::new(config.callers).map_err(|error| anyhow!("--policy-file: {error}"))?;
        net::open_many(config.max_connections);
        let listeners = Listeners::bind(config.listen, &callers.table(), config.max_connections, &mut registry).await?;
        let mut files = listeners.files;
        if policy_file.is_some() {
            files.push(callers.files());
        }
        let files = (files, FileMeter::register(&mut registry));
        let admin = match config.admin_listen {
            None => None,
            Some(address) => {
                let listener = net::bind(address).await;
                Some(listener.with_context(|| format!("--admin-listen {address} cannot be bound"))?)
            }
        };
        let door = match config.door_listen {
            None => None,
            Some(address) => {
                let listener = net::bind(address).await;
                Some(listener.with_context(|| format!("--door-listen {address} cannot be bound"))?)
            }
        };
        Ok(Self {
            endpoints: listeners.endpoints,
            door_address: door.as_ref().map(TcpListener::local_addr).transpose()?,
            door,
            door_settings: config.door,
            door_meter: DoorMeter::register(&mut registry),
            max_connections: config.max_connections,
            admin_address: admin.as_ref().map(TcpListener::local_addr).transpose()?,
            sessions,
            sharing,
            meter,
            tracing,
            registry,
            incoming: listeners.incoming,
            callers,
            files,
            admin,
            drain_timeout: config.drain_timeout,
            dev: config.dev,
            policy_file,
            _sockets: listeners.sockets,
        })
    }

    /// What a restart loses, in words.
    #[must_use]
    pub fn durability(&self) -> &'static str {
        if self.sharing.is_some() {
            "sessions live in a shared store: a restart of this process loses none"
        } else {
            "sessions live in this process' memory: a restart loses all of them, and watchers start anew"
        }
    }

    /// Serves until `stop` is done; then says that it is not ready, tells every watcher, finishes the calls that are under way,
    /// and returns within the drain timeout.
    pub fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> BoxFuture<'static, anyhow::Result<()>> {
        Box::pin(self.run_until(Box::pin(stop)))
    }

    async fn run_until(self, stop: BoxFuture<'static, ()>) -> anyhow::Result<()> {
        let (sessions, clock) = (Arc::clone(&self.sessions), self.sessions.clock().clone());
        let alarm = Arc::clone(sessions.alarm());
        driver::spawn_thread("driver", driver::run(Arc::clone(&sessions), clock, alarm))?;
        driver::spawn_thread("router", Arc::clone(sessions.router()).run())?;
        let mut sharing = self.sharing;
        if let Some(sharing) = &mut sharing {
            sharing.start(&sessions);
        }

        let audit = sessions.audit().clone();
        // Without a log to open again it means nothing, and ends nobody.
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn({
            let audit = audit.clone();
            async move {
                while hangup.recv().await.is_some() {
                    if audit.is_on() {
                        audit.reopen();
                    }
                }
            }
        });
        let draining = CancellationToken::new();
        let stopped = CancellationToken::new();
        let door = Door::new(
            Arc::clone(&sessions),
            self.door_settings,
            self.door_meter,
            draining.clone(),
        );
        let doors = Doors::new(door);
        if let Some((path, meter)) = self.policy_file {
            let sessions = Arc::clone(&sessions);
            let apply = {
                let sessions = Arc::clone(&sessions);
                let (doors, callers) = (doors.clone(), self.callers);
                move |file: PolicyFile| {
                    let (news, reloaded) = callers.tell(file.callers, || sessions.reload(file.policies))?;
                    if news {
                        info!(
                            "the tables [[callers]] changed: calls follow them from now on, and open watches whose rights changed end"
                        );
                    }
                    if doors.tell(file.door) {
                        info!("the table [door] changed: requests follow it from now on");
                    }
                    Ok(reloaded)
                }
            };
            let problem = {
                let sessions = Arc::clone(&sessions);
                move |problem| sessions.policies().set_file_problem(problem)
            };
            let stop = draining.clone().cancelled_owned();
            let following = tokio::spawn(reload::follow(path, apply, problem, meter, stop));
            tokio::spawn(async move {
                if let Err(panic) = following.await {
                    error!(%panic, "the policy file is not followed any more; the policies stay as they are");
                    let problem =
                        "it is not followed any more, for its reader failed: see the log, and restart the sidecar";
                    sessions.policies().set_file_problem(problem.to_owned());
                }
            });
        }
        let (files, file_meter) = self.files;
        tokio::spawn(files::follow(files, file_meter, draining.clone().cancelled_owned()));
        let readiness = Readiness::default();
        let admin = self.admin.map(|listener| {
            let stopped = stopped.clone();
            let serve = admin::serve(listener, self.registry, readiness.clone(), stopped.cancelled_owned());
            tokio::spawn(serve)
        });
        let max_connections = self.max_connections;
        let door = self.door.map(|listener| {
            let doors = doors.clone();
            tokio::spawn(doors.serve(listener, max_connections, draining.clone().cancelled_owned()))
        });
        let api = Api {
            sessions,
            doors,
            meter: self.meter,
            traces: self.tracing.as_ref().map(Tracing::of_calls),
            draining: draining.clone(),
            test_clock: self.dev,
        };
        let (health, server) = api.serve(self.incoming, Box::pin(draining.clone().cancelled_owned()))?;
        let mut server = tokio::spawn(server);
        health.serving().await;
        readiness.set(true);
        info!("serving");

        tokio::select! {
            () = stop => {}
            // Without them nobody is warned, and nobody hears of it.
            () = sharing::ended(&mut sharing) => bail!("a task of the shared store ended by itself"),
            // A sidecar that warns and answers nobody is worse than a restart.
            ended = &mut server => {
                ended.context("the server panicked")?.context("the server failed")?;
                bail!("the server ended by itself");
            }
        }
        info!(timeout = ?self.drain_timeout, "draining");
        readiness.set(false);
        health.not_serving().await;
        draining.cancel();
        health.close().await;
        let drained = tokio::time::timeout(self.drain_timeout, async {
            let served = server.await;
            if let Some(door) = door {
                let _ = door.await;
            }
            served
        })
        .await;
        if let Some(sharing) = sharing {
            sharing.end().await;
        }
        // Whoever was answered is written down.
        let tracing = self.tracing;
        let written = tokio::task::spawn_blocking(move || {
            audit.close(AUDIT_TIMEOUT);
            if let Some(tracing) = tracing {
                tracing.close();
            }
        })
        .await;
        written.context("the audit log was not closed")?;
        match drained {
            Ok(ended) => ended.context("the server panicked")?.context("the server failed")?,
            Err(_) => warn!("calls or connections were still open at the end of the drain timeout; they are dropped"),
        }
        stopped.cancel();
        if let Some(admin) = admin {
            admin.abort();
        }
        info!("stopped");
        Ok(())
    }
}

/// How many lines of the audit log may wait to be written: a burst of ends, or a few seconds of a disk that does not answer.
const AUDIT_QUEUE: usize = 262_144;

/// How long the last lines of the audit log may take to be written at the end.
const AUDIT_TIMEOUT: Duration = Duration::from_secs(5);
