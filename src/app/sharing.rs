//! The shared store: looked at before anything is served, kept while the sidecar runs, left at its end.

use std::{sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::{sync::mpsc, task::JoinSet};
use tracing::{info, warn};

use crate::{
    config::StoreConfig,
    sessions::Sessions,
    store::shared::{
        self, Shared, StoreMeter, Wire,
        link::{Link, Status},
    },
    time::Clock,
};

/// How long the store may take to be told the last things.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a store that cannot be reached at the start is tried.
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// How long to wait at start for a store that may get well by itself. After that the sidecar listens all the same, and answers
/// that it is unavailable.
const STORE_PATIENCE: Duration = Duration::from_secs(10);

/// Looks whether the shared store is fit. What no waiting mends is refused.
async fn check(link: &Link) -> anyhow::Result<bool> {
    let deadline = tokio::time::Instant::now() + STORE_PATIENCE;
    let mut told = false;
    loop {
        match link.check().await {
            Ok(_) => return Ok(true),
            Err(error) if !error.is_transient() => return Err(BadStore(error.to_string()).into()),
            Err(error) if tokio::time::Instant::now() >= deadline => {
                warn!(%error, "the store cannot be reached yet; calls answer UNAVAILABLE until it can");
                return Ok(false);
            }
            Err(error) => {
                if !told {
                    info!(%error, "waiting for the store");
                }
                told = true;
            }
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

/// Comes into the namespace before anything is served. Another's namespace is refused; a store that went away meanwhile is not.
async fn join(shared: &Shared, link: &Link) -> anyhow::Result<()> {
    let mut status = link.status();
    let up = status.wait_for(|status| matches!(status, Status::Up { .. }));
    let Ok(Ok(_)) = tokio::time::timeout(STORE_PATIENCE, up).await else {
        return Ok(());
    };
    match shared.join().await {
        Err(error) if !error.is_transient() => Err(BadStore(error.to_string()).into()),
        Err(error) => {
            warn!(%error, "the sidecar is not in its namespace yet");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// A store that no waiting makes fit: the configuration is wrong.
#[derive(Debug, thiserror::Error)]
#[error("--store cannot be used: {0}")]
pub struct BadStore(String);

/// How much of what the sidecar keeps concerns the store too.
pub(super) struct Keeps {
    pub(super) max_sessions: usize,
    pub(super) replay_events: usize,
    pub(super) mailbox_size: usize,
}

/// A shared store and the tasks that keep sessions in it: they end when this is dropped.
pub(super) struct Sharing {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Sharing {
    /// Looks whether the store is fit, and comes into the namespace before anything is served, if the store can be reached.
    pub(super) async fn begin(
        store: StoreConfig,
        clock: &Clock,
        keeps: Keeps,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let keys = store.fingerprints();
        let buckets = shared::buckets(&store.link.address);
        let (told, pokes) = mpsc::unbounded_channel();
        let link = Link::new(store.link, shared::channels(&store.namespace, buckets), told);
        let reached = check(&link).await?;
        let setup = shared::Setup {
            clock: clock.clone(),
            wire: Arc::clone(&link) as Arc<dyn Wire>,
            pokes,
            buckets,
            keys,
            namespace: store.namespace,
            window: store.window,
            format: store.format,
            outage: store.outage,
            max_sessions: keeps.max_sessions,
            replay_events: keeps.replay_events,
            mailbox_size: keeps.mailbox_size,
        };
        let shared = Shared::new(setup, StoreMeter::register(registry));
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&link).run());
        if reached {
            join(&shared, &link).await?;
        }
        Ok(Self { shared, tasks })
    }

    /// The store.
    pub(super) fn store(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Begins to look at what is due, and to hear what happens.
    pub(super) fn start(&mut self, sessions: &Arc<Sessions>) {
        let Self { shared, tasks } = self;
        tasks.spawn(Arc::clone(shared).follow());
        tasks.spawn(Arc::clone(shared).keep_house());
        tasks.spawn(Arc::clone(sessions).sweep_store(Arc::clone(shared)));
        tasks.spawn(Arc::clone(sessions).tell_untold(Arc::clone(shared)));
    }

    /// Tells the store what is only counted here, and leaves, so that others look at what is due.
    pub(super) async fn end(self) {
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, self.shared.leave()).await;
    }
}

/// Waits until a task of the shared store ends, which none should.
pub(super) async fn ended(sharing: &mut Option<Sharing>) {
    match sharing {
        None => std::future::pending().await,
        Some(sharing) => drop(sharing.tasks.join_next().await),
    }
}
