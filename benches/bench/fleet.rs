//! Sidecars that share a store, many in this process and without gRPC, each with a connection of its own as in the real program.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use futures_util::future::try_join_all;
use prometheus_client::{encoding::text, registry::Registry};
use session_sidecar::{
    audit::Audit,
    driver,
    sessions::{Create, Follow, Meter, Name, Scope, Sessions, Setup, Subscriber, Watch},
    state::{Limits, Policy},
    store::{
        MemoryCaps,
        shared::{
            self, Fingerprints, Outage, Shared, StoreMeter, Wire,
            link::{Link, Settings, Status},
        },
    },
    time::Clock,
};
use tokio::{sync::mpsc, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::load::write_id;

/// The store of a fleet.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StoreArgs {
    /// The port of the server.
    #[arg(long)]
    pub(crate) port: u16,
    /// How many sidecars share it.
    #[arg(long, default_value_t = 1)]
    pub(crate) sidecars: usize,
}

/// The sidecars of a namespace that nobody else uses.
pub(crate) struct Fleet {
    members: Vec<Member>,
    registry: Registry,
    _tasks: JoinSet<()>,
}

struct Member {
    sessions: Arc<Sessions>,
    shared: Arc<Shared>,
}

const KEY: [u8; 32] = [7; 32];
const CALL_TIMEOUT: Duration = Duration::from_millis(250);
const PATIENCE: Duration = Duration::from_secs(20);

impl Fleet {
    /// A fleet that runs, in which everybody knows of everybody.
    pub(crate) async fn start(args: &StoreArgs, limits: Limits, window: Option<Duration>) -> anyhow::Result<Self> {
        let mut registry = Registry::default();
        // One for all of them: it counts what they do together.
        let meter = StoreMeter::register(&mut registry);
        let namespace = format!("bench-{}-{}", std::process::id(), args.sidecars);
        let mut tasks = JoinSet::new();
        let mut members = Vec::new();
        for _ in 0..args.sidecars {
            members.push(Member::begin(args.port, &namespace, &limits, window, &meter, &mut tasks).await?);
        }
        // The first thing that they do is to say that they are there, so that each knows of all.
        for member in &members {
            member.run(&mut tasks);
        }
        Ok(Self {
            members,
            registry,
            _tasks: tasks,
        })
    }

    /// One of the sidecars; numbers go round.
    pub(crate) fn member(&self, number: usize) -> &Arc<Sessions> {
        &self.members[number % self.members.len()].sessions
    }

    /// Creates sessions at the first sidecar, each by its number and how long ago its last activity was.
    pub(crate) async fn create(&self, sessions: impl Iterator<Item = (u64, Duration)>) -> anyhow::Result<()> {
        const AT_ONCE: usize = 64;
        let sessions: Vec<_> = sessions.collect();
        for some in sessions.chunks(AT_ONCE) {
            try_join_all(
                some.iter()
                    .map(|(number, idle_for)| self.create_one(*number, *idle_for)),
            )
            .await?;
        }
        Ok(())
    }

    async fn create_one(&self, number: u64, idle_for: Duration) -> anyhow::Result<()> {
        let id = Id::of(number);
        let create = Create {
            tenant: "".into(),
            session_id: Some(id.as_str()),
            subject: "",
            policy: "default",
            labels: BTreeMap::new(),
            idle_timeout: None,
            absolute_timeout: None,
            authenticated_ago: Duration::ZERO,
            authentication_level: "",
            idle_for,
            request: None,
        };
        self.member(0)
            .create(create)
            .await
            .context("a session is not created")?;
        Ok(())
    }

    /// A watch of everything at one of the sidecars.
    pub(crate) async fn watch(&self, member: usize) -> anyhow::Result<Watch> {
        let subscriber = Subscriber {
            scope: Scope::Everything,
            tenants: Arc::new(["".into()]),
            warnings: true,
            cleared: false,
            ends: true,
            resume_token: None,
            heartbeat: Duration::from_secs(300),
            initial_state: false,
        };
        Ok(self.member(member).watch(subscriber, CancellationToken::new()).await?)
    }

    /// How often a script was called, by all of them together.
    pub(crate) fn called(&self, script: &str) -> anyhow::Result<u64> {
        self.calls(&format!("operation=\"{script}\""))
    }

    /// How many calls came to nothing: with many the machine is too busy for a measurement.
    pub(crate) fn failed(&self) -> anyhow::Result<u64> {
        Ok(self.calls("")? - self.calls("outcome=\"ok\"")?)
    }

    fn calls(&self, label: &str) -> anyhow::Result<u64> {
        let mut page = String::new();
        text::encode(&mut page, &self.registry)?;
        let lines = page
            .lines()
            .filter(|line| line.starts_with("store_calls_total{") && line.contains(label));
        let counts = lines.map(|line| Ok(line.rsplit(' ').next().unwrap_or("0").parse::<u64>()?));
        counts.sum()
    }
}

impl Member {
    /// A sidecar that has come into its namespace.
    async fn begin(
        port: u16,
        namespace: &str,
        limits: &Limits,
        window: Option<Duration>,
        meter: &StoreMeter,
        tasks: &mut JoinSet<()>,
    ) -> anyhow::Result<Self> {
        const MANY: usize = 1_000_000;
        let address = format!("redis://127.0.0.1:{port}")
            .parse()
            .map_err(anyhow::Error::msg)?;
        let buckets = shared::buckets(&address);
        let (told, pokes) = mpsc::unbounded_channel();
        let settings = Settings {
            address,
            password: None,
            sentinel_password: None,
            ca: None,
            timeout: CALL_TIMEOUT,
        };
        let link = Link::new(settings, shared::channels(namespace, buckets), told);
        tasks.spawn(Arc::clone(&link).run());
        let mut status = link.status();
        let up = status.wait_for(|status| matches!(status, Status::Up { .. }));
        timeout(PATIENCE, up).await.context("the store is not reached")??;
        let clock = Clock::system();
        let setup = shared::Setup {
            clock: clock.clone(),
            wire: link as Arc<dyn Wire>,
            pokes,
            buckets,
            keys: Fingerprints::of(&KEY, None),
            namespace: namespace.to_owned(),
            window,
            format: *shared::FORMATS.end(),
            outage: Outage::Degraded,
            max_sessions: MANY,
            replay_events: 65_536,
            mailbox_size: 65_536,
        };
        let shared = Shared::new(setup, meter.clone());
        let policy = Policy {
            limits: Arc::new(limits.clone()),
            ..Policy::default()
        };
        let setup = Setup {
            clock,
            master_key: KEY.into(),
            other_key: None,
            policies: BTreeMap::from([("default".to_owned(), policy)]),
            caps: MemoryCaps {
                max_sessions: MANY,
                max_tombstones: MANY,
            },
            replay_events: 65_536,
            mailbox_size: 65_536,
            max_watchers: 16,
            audit: Audit::default(),
        };
        let sessions = Sessions::sharing(setup, Meter::register(&mut Registry::default()), &shared);
        shared.join().await?;
        Ok(Self { sessions, shared })
    }

    /// Begins all that the real program does for ever.
    fn run(&self, tasks: &mut JoinSet<()>) {
        let Self { sessions, shared } = self;
        let (clock, alarm) = (sessions.clock().clone(), Arc::clone(sessions.alarm()));
        tasks.spawn(driver::run(Arc::clone(sessions), clock, alarm));
        tasks.spawn(Arc::clone(sessions.router()).run());
        tasks.spawn(Arc::clone(shared).follow());
        tasks.spawn(Arc::clone(shared).keep_house());
        tasks.spawn(Arc::clone(sessions).sweep_store(Arc::clone(shared)));
        tasks.spawn(Arc::clone(sessions).tell_untold(Arc::clone(shared)));
    }
}

/// The id of a session by its number.
pub(crate) struct Id([u8; 24]);

impl Id {
    pub(crate) fn of(number: u64) -> Self {
        let mut id = [0; 24];
        write_id(number, &mut id);
        Self(id)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    pub(crate) fn name(&self) -> Name<'_> {
        Name {
            tenant: "",
            session_id: self.as_str(),
            follow: Follow::Alias,
        }
    }
}
