//! The wire to the store: connections to Redis or Valkey under a supervisor of our own.
//!
//! A link never queues: a call is answered within [`Settings::timeout`], with a [`Fault`] if need be, and at once while the
//! store is away. Whether the store is there is a [`Status`]; what it says unasked is a [`Poke`]. To each primary there are
//! two connections, one for calls and one for channels.

mod address;
mod backoff;
mod connect;
mod fault;
mod find;
mod hub;
mod node;
mod script;
mod send;
mod server;
mod slots;

use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redis::{Cmd, Pipeline, Value};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep},
};

pub use address::{Address, Manner, Place};
pub use fault::{Fault, Unfit};
pub use script::{Call, Script};
pub use server::Server;

use backoff::Backoff;
use connect::Connector;
use find::{Finder, Range, worse};
use hub::Hub;
use send::{Job, send};
use server::{ask, examine, refused};

/// How often sentinels or cluster nodes are asked who the primaries are.
const LAYOUT: Duration = Duration::from_secs(1);

/// How often they are asked at most, when something seems to have changed.
const LAYOUT_LEAST: Duration = Duration::from_millis(100);

/// The same for sentinels: until one has told, a server that was deposed is taken for the primary.
const SENTINELS: Duration = Duration::from_millis(250);

tokio::task_local! {
    /// Set while a sidecar gets to know the servers that it asks: only then are those asked that were not admitted.
    pub static GETS_TO_KNOW: ();
}

/// How a link reaches the store.
#[derive(Clone)]
pub struct Settings {
    /// Where the store is.
    pub address: Address,
    /// The password of its user.
    pub password: Option<String>,
    /// The password of the sentinels, if they have one.
    pub sentinel_password: Option<String>,
    /// The certificate authority to trust in place of the system's, as PEM.
    pub ca: Option<Vec<u8>>,
    /// How long a call may take.
    pub timeout: Duration,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("address", &self.address)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Whether the store is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Nothing can be asked of it.
    Down {
        /// Why not.
        why: String,
    },
    /// At least one primary is connected; calls that others are responsible for fail with [`Fault::Down`].
    Up {
        /// Grows whenever a primary was connected or connected anew: what was known of the store may be out of date.
        generation: u64,
        /// The primaries that are connected.
        servers: Vec<Server>,
    },
}

/// What the store says unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Poke {
    /// A message on a channel.
    Message {
        /// The channel.
        channel: Vec<u8>,
        /// The message.
        payload: Vec<u8>,
    },
    /// The channels are listened to, after a while in which some were not: messages may have been missed.
    Resubscribed,
}

/// The wire to the store.
pub struct Link {
    settings: Settings,
    hub: Arc<Hub>,
}

impl Link {
    /// A link that is down until [`Link::run`] is polled. It listens to `channels` and tells what it hears to `pokes`.
    #[must_use]
    pub fn new(settings: Settings, channels: Vec<Vec<u8>>, pokes: mpsc::UnboundedSender<Poke>) -> Arc<Self> {
        let hub = Hub::new(
            settings.address.to_string(),
            settings.address.manner().clone(),
            settings.address.is_cluster(),
            Arc::new(Connector::to_servers(&settings)),
            channels,
            pokes,
        );
        Arc::new(Self {
            settings,
            hub: Arc::new(hub),
        })
    }

    /// Connects, and connects again whenever that is needed, for ever. If it is dropped, nobody does.
    pub async fn run(self: Arc<Self>) {
        let hub = &self.hub;
        let mut finder = Finder::new(&self.settings, Arc::clone(&hub.servers));
        let mut tasks = JoinSet::new();
        let mut backoff = Backoff::new();
        loop {
            let known = hub.routes.load_full();
            if hub.doubt.swap(false, Ordering::Relaxed) {
                finder.doubt();
            }
            let wait = match finder.find(&known.nodes).await {
                Ok(layout) => {
                    for node in hub.lay_out(layout) {
                        tasks.spawn(node.run(Arc::clone(hub)));
                    }
                    backoff = Backoff::new();
                    finder.period()
                }
                Err(unfit) => {
                    hub.unknown(&unfit.to_string());
                    backoff.next()
                }
            };
            let due = async {
                if finder.is_constant() {
                    return std::future::pending().await;
                }
                sleep(wait.min(LAYOUT_LEAST)).await;
                tokio::select! {
                    () = sleep(wait.saturating_sub(LAYOUT_LEAST)) => {}
                    () = hub.relayout.notified() => {}
                }
            };
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break,
                    // A node's task ends when the node is dismissed. If it panics, so does this one: its owner must know.
                    Some(ended) = tasks.join_next() => {
                        if let Err(error) = ended
                            && error.is_panic()
                        {
                            std::panic::resume_unwind(error.into_panic());
                        }
                    }
                }
            }
        }
    }

    /// One attempt to reach the store, on connections of its own, and to see whether it is fit: for the start, and for people.
    pub async fn check(&self) -> Result<Vec<Server>, Unfit> {
        let mut finder = Finder::new(&self.settings, Arc::clone(&self.hub.servers));
        let mut servers = Vec::new();
        let mut unfit = None;
        for (place, ranges) in finder.find(&[]).await? {
            match self.check_one(&place, &ranges).await {
                Ok(server) => servers.push(server),
                Err(error) => unfit = Some(worse(unfit, error)),
            }
        }
        match unfit {
            // One primary of several may be away, as it may be later on.
            Some(unfit) if servers.is_empty() || !unfit.is_transient() => Err(unfit),
            _ => Ok(servers),
        }
    }

    async fn check_one(&self, place: &Place, ranges: &[Range]) -> Result<Server, Unfit> {
        let hub = &self.hub;
        let wire = hub.servers.connect(place, Box::new(|_| Ok(()))).await?;
        let server = examine(&wire, place, hub.manner.database, hub.cluster).await?;
        let here = |channel: &&Vec<u8>| {
            let slot = slots::slot(channel);
            ranges.iter().any(|(first, last)| (*first..=*last).contains(&slot))
        };
        let mut asked = Pipeline::new();
        for channel in hub.channels.iter().filter(here) {
            asked.cmd("SSUBSCRIBE").arg(channel.as_slice());
        }
        if !asked.is_empty() {
            for answer in ask(&wire, place, &asked).await? {
                refused(&place.to_string(), "SSUBSCRIBE", &answer)?;
            }
        }
        Ok(server)
    }

    /// Calls a script. A server that does not know it yet is given its source.
    pub async fn call(&self, call: Call) -> Result<Value, Fault> {
        self.one(Job::Script(call)).await
    }

    /// Calls several scripts at once; an error of one is only that one's. The answers are in the order of the calls. To one
    /// server they go together and in order, unless it has to be given the source of a script first.
    pub async fn calls(&self, calls: Vec<Call>) -> Vec<Result<Value, Fault>> {
        let jobs: Vec<_> = calls.into_iter().map(Job::Script).collect();
        self.send(&jobs).await
    }

    /// Sends a command to the server that is responsible for `key`.
    pub async fn command(&self, key: &[u8], command: Cmd) -> Result<Value, Fault> {
        let key = key.to_vec();
        self.one(Job::Command { key, command }).await
    }

    /// Whether it is a cluster, where keys of one call must share a slot.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.settings.address.is_cluster()
    }

    /// Whether the store is there, and whenever that changes.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.hub.status.subscribe()
    }

    /// From now on only these servers ([`Server::identity`]) are asked, each as long as it is a primary; others only where
    /// [`GETS_TO_KNOW`] is set. Before the first time all are.
    pub fn admit(&self, servers: BTreeSet<String>) {
        self.hub.admit(servers);
    }

    /// Which server is responsible for `key`, if it is connected.
    #[must_use]
    pub fn server(&self, key: &[u8]) -> Option<Server> {
        let routes = self.hub.routes.load();
        Some(routes.nodes.get(routes.of(key)?)?.live()?.server())
    }

    /// How far the channels of whoever is responsible for `key` have been heard: everything that was published there before
    /// this moment has been given to the pokes. Nothing if they are not listened to now. It is renewed every second.
    #[must_use]
    pub fn heard(&self, key: &[u8]) -> Option<Instant> {
        let routes = self.hub.routes.load();
        routes.nodes.get(routes.of(key)?)?.live()?.heard()
    }

    /// The caller saw something that only a new connection heals.
    pub fn lost(&self) {
        for node in &self.hub.routes.load().nodes {
            node.lose("a new connection was asked for");
        }
        self.hub.relayout.notify_one();
    }

    async fn one(&self, job: Job) -> Result<Value, Fault> {
        self.send(&[job]).await.pop().unwrap_or(Err(Fault::Down))
    }

    async fn send(&self, jobs: &[Job]) -> Vec<Result<Value, Fault>> {
        send(&self.hub, jobs, Instant::now() + self.settings.timeout).await
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
