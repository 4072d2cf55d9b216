//! How the shared store is set up, and how a sidecar comes into its namespace.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::RangeInclusive,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    Book, Bucket, Fingerprints, Names, Near, Outage, Shared, StoreMeter, Wire,
    ask::{int, list, text},
    limits::Written,
    link::{Fault, GETS_TO_KNOW, Poke},
    scripts,
};
use crate::{
    event::{Log, Places, Router},
    state::Limits,
    time::Clock,
};

/// The formats of records, events and scripts that this version reads. Sidecars of adjacent versions share a namespace: each writes
/// the older one until it is told that all of them read the newer one.
pub const FORMATS: RangeInclusive<u32> = 1..=2;

/// How often a sidecar that starts tries to give its keys to the namespace.
const REKEYED: usize = 8;

/// How the shared store is set up.
pub struct Setup {
    /// The clock.
    pub clock: Clock,
    /// Through which it is asked.
    pub wire: Arc<dyn Wire>,
    /// What it says unasked: that something has happened in a bucket.
    pub pokes: mpsc::UnboundedReceiver<Poke>,
    /// Into how many buckets the sessions are divided: the same for all sidecars of the namespace, for ever.
    pub buckets: usize,
    /// The name that sidecars which share sessions have in common.
    pub namespace: String,
    /// What identifies the keys of refs, made ids and tokens.
    pub keys: Fingerprints,
    /// How far ahead of activity a record may be written; unset: by the policy. Zero: each activity is written.
    pub window: Option<Duration>,
    /// The format in which records are written, one of [`FORMATS`].
    pub format: u32,
    /// What is served while the store is away.
    pub outage: Outage,
    /// How many sessions may be live in the namespace.
    pub max_sessions: usize,
    /// How many events are kept for watchers that resume, here and in the store.
    pub replay_events: usize,
    /// How many events may wait for one watcher before it is cut off.
    pub mailbox_size: usize,
}

/// Why a sidecar does not come into a namespace.
#[derive(Debug, thiserror::Error)]
pub enum Unjoined {
    /// The store does not do what it is asked.
    #[error("the store cannot be used: {0}")]
    Store(String),
    /// The namespace has another number of buckets.
    #[error(
        "the namespace {namespace:?} has {found} buckets and this sidecar would use {wanted}: it was made by sidecars that dial \
         {made_by}; dial it as they do, or choose another --store-namespace"
    )]
    OtherBuckets {
        /// The namespace.
        namespace: String,
        /// What it has.
        found: usize,
        /// What this sidecar would use.
        wanted: usize,
        /// Who made it.
        made_by: &'static str,
    },
    /// The namespace has another key.
    #[error(
        "the namespace {namespace:?} belongs to another key: its fingerprint is {found}, that of --store-key-file is {ours}; {}",
        ours.advice(found)
    )]
    OtherKey {
        /// The namespace.
        namespace: String,
        /// What identifies its keys.
        found: Fingerprints,
        /// What identifies ours.
        ours: Fingerprints,
    },
    /// The namespace is of a version that this one does not understand.
    #[error(
        "the namespace {namespace:?} has format {found}; this version reads {} to {}: run a version that is adjacent to the others'",
        FORMATS.start(),
        FORMATS.end()
    )]
    OtherFormat {
        /// The namespace.
        namespace: String,
        /// Its format.
        found: i64,
    },
}

impl Unjoined {
    /// Whether it may get well by itself, so that waiting helps.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Store(_) => true,
            Self::OtherBuckets { .. } | Self::OtherKey { .. } | Self::OtherFormat { .. } => false,
        }
    }
}

impl From<Fault> for Unjoined {
    fn from(fault: Fault) -> Self {
        Self::Store(fault.to_string())
    }
}

impl Shared {
    /// A view of a store that is not connected yet.
    #[must_use]
    pub fn new(setup: Setup, meter: StoreMeter) -> Arc<Self> {
        let buckets = setup.buckets;
        let names = Names::new(&setup.namespace, buckets);
        let channels = (0..buckets).map(|bucket| names.channel(bucket)).collect();
        let log = Arc::new(Log::new(setup.replay_events));
        let mut name = [0; 8];
        if let Err(error) = getrandom::fill(&mut name) {
            tracing::error!(%error, "the operating system gives no random bytes");
            std::process::abort();
        }
        Arc::new(Self {
            link: setup.wire,
            names,
            channels,
            keys: setup.keys,
            namespace: setup.namespace,
            buckets: (0..buckets).map(|_| Bucket::default()).collect(),
            joining: tokio::sync::Mutex::default(),
            level: tokio::sync::Mutex::default(),
            reading: tokio::sync::Mutex::default(),
            near: Near::new(setup.max_sessions),
            book: Book::default(),
            router: Router::new(Arc::clone(&log), buckets, setup.mailbox_size),
            log,
            held_until: Arc::default(),
            window: setup.window,
            format: setup.format,
            outage: setup.outage,
            answered: AtomicU64::new(0),
            untold: Mutex::default(),
            telling_untold: AtomicBool::new(false),
            joined: AtomicBool::new(false),
            entered: AtomicBool::new(false),
            unpublished: AtomicBool::new(true),
            known: Mutex::new(BTreeSet::new()),
            pokes: Mutex::new(Some(setup.pokes)),
            name: format!("{:016x}", u64::from_le_bytes(name)),
            rank: Mutex::new((0, 1)),
            others: Mutex::default(),
            max_sessions: setup.max_sessions,
            events_per_bucket: (setup.replay_events / buckets).max(1024),
            meter,
            elsewhere: Mutex::default(),
            journal: super::journal::Journal::default(),
            tallied: Mutex::default(),
            telling: Mutex::new(VecDeque::new()),
            begins: Mutex::new(Places::from_elem(0, buckets)),
            epoch: Arc::default(),
            clock: setup.clock,
        })
    }

    /// Comes into the namespace, which the first one makes.
    pub async fn join(&self) -> Result<(), Unjoined> {
        let _turn = self.joining.lock().await;
        if self.joined.load(Ordering::Acquire) {
            return Ok(());
        }
        GETS_TO_KNOW.scope((), self.come_in()).await
    }

    pub(super) async fn come_in(&self) -> Result<(), Unjoined> {
        let servers = self.connected();
        self.be_let_in().await?;
        self.publish_policies().await?;
        if self.entered.load(Ordering::Acquire) {
            let all: Vec<_> = (0..self.names.buckets()).collect();
            self.recover(&all).await?;
            if !self.all_go_on(&all).await? {
                self.open_buckets().await?;
            }
        } else {
            self.open_buckets().await?;
        }
        // Where nobody looked for a while it takes a moment to say what time it is.
        let now = self.clock.now();
        let doubt = self.buckets.iter().map(|bucket| bucket.doubt_ahead(now)).max();
        tokio::time::sleep(doubt.unwrap_or_default()).await;
        self.wait_for_others(&servers).await;
        self.near.clear();
        self.welcome(servers);
        self.entered.store(true, Ordering::Release);
        self.joined.store(true, Ordering::Release);
        Ok(())
    }

    /// Looks whether the namespace is the one that this sidecar is made for. When it starts, the namespace gets its keys: so they
    /// are those of the sidecar that started last, and a change of the key can be taken back.
    async fn be_let_in(&self) -> Result<(), Unjoined> {
        for _ in 0..REKEYED {
            let found = self.ask_namespace().await?;
            if !self.keys.may_enter(&found) {
                return Err(Unjoined::OtherKey {
                    namespace: self.namespace.clone(),
                    found,
                    ours: self.keys.clone(),
                });
            }
            let starts = !self.entered.load(Ordering::Acquire);
            if !starts || found == self.keys || self.rekey(&found).await? {
                return self.upgrade().await;
            }
        }
        Err(Unjoined::Store(
            "others change the namespace's keys all the time".to_owned(),
        ))
    }

    /// The keys of the namespace, if the rest of it is right.
    async fn ask_namespace(&self) -> Result<Fingerprints, Unjoined> {
        let args = vec![
            text(self.names.buckets()),
            self.keys.own.clone().into_bytes(),
            text(self.format),
            self.keys.other.clone().unwrap_or_default().into_bytes(),
        ];
        let reply = self.call(&scripts::JOIN, vec![self.names.namespace()], args).await?;
        let parts = list(&reply);
        let number = |place: usize| parts.get(place).and_then(int).unwrap_or(0);
        let found = usize::try_from(number(0)).unwrap_or(0);
        if found != self.names.buckets() {
            return Err(Unjoined::OtherBuckets {
                namespace: self.namespace.clone(),
                found,
                wanted: self.names.buckets(),
                made_by: if found == 64 {
                    "a cluster"
                } else {
                    "one server or sentinels"
                },
            });
        }
        if !u32::try_from(number(2)).is_ok_and(|found| FORMATS.contains(&found)) {
            return Err(Unjoined::OtherFormat {
                namespace: self.namespace.clone(),
                found: number(2),
            });
        }
        Ok(super::inspect::fingerprints(parts.get(1), parts.get(3)))
    }

    /// Keeps out who does not read what this sidecar writes.
    async fn upgrade(&self) -> Result<(), Unjoined> {
        let args = vec![text(self.format)];
        let reply = self.call(&scripts::UPGRADE, vec![self.names.namespace()], args).await?;
        if int(&reply) == Some(1) {
            tracing::info!(
                format = self.format,
                "the namespace has another format now: older versions do not come in any more"
            );
        }
        Ok(())
    }

    /// Gives the namespace the keys of this sidecar; not if it has others by now.
    async fn rekey(&self, known: &Fingerprints) -> Result<bool, Unjoined> {
        let words = |keys: &Fingerprints| [keys.own.clone(), keys.other.clone().unwrap_or_default()];
        let args = [words(known), words(&self.keys)].concat();
        let args = args.into_iter().map(String::into_bytes).collect();
        let reply = self.call(&scripts::REKEY, vec![self.names.namespace()], args).await?;
        let done = int(&reply) == Some(1);
        if done {
            tracing::info!(was = %known, is = %self.keys, "the namespace has other keys now");
        }
        Ok(done)
    }

    /// These are this sidecar's policies from now on.
    pub(super) fn announce_policies(&self, policies: &[Arc<Limits>]) {
        self.book.own(policies);
        self.unpublished.store(true, Ordering::Release);
    }

    /// Writes down what the digests of this sidecar's policies stand for.
    pub(super) async fn publish_policies(&self) -> Result<(), Fault> {
        self.unpublished.store(false, Ordering::Release);
        let revisions = self.book.revisions();
        self.write_limits(revisions.iter().map(|limits| super::limits::write(limits)))
            .await
    }

    /// Writes down what digests stand for, also when the store is full: records cannot be read without.
    pub(super) async fn write_limits(&self, written: impl Iterator<Item = Written>) -> Result<(), Fault> {
        let args: Vec<_> = written
            .flat_map(|written| [format!("{:016x}", written.digest).into_bytes(), written.bytes])
            .collect();
        if args.is_empty() {
            return Ok(());
        }
        self.call(&scripts::LIMITS, vec![self.names.limits()], args)
            .await
            .map(drop)
    }
}
