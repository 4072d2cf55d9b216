//! Sessions in a store that many sidecars share: Redis or Valkey. The state machine decides here as it does in memory; the store
//! keeps versioned records, an index of what is due, and the events. What this process knows of a session is a near copy, which
//! is never an authority: see docs/adr/0016.

mod ask;
mod body;
mod bucket;
mod claim;
mod codec;
mod commit;
mod due;
mod feed;
mod fleet;
pub mod inspect;
mod journal;
mod keys;
mod limits;
pub mod link;
mod lists;
mod meter;
mod names;
mod near;
mod outage;
mod resume;
mod rotate;
mod scripts;
mod settings;
mod story;
mod takeover;
pub mod trial;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;

pub use due::{Due, DueSession};
pub use fleet::Elsewhere;
pub use keys::Fingerprints;
pub use meter::StoreMeter;
pub use names::{buckets, channels};
pub use outage::Outage;
pub use settings::{FORMATS, Setup, Unjoined};
pub use wire::Wire;

use super::{
    Claim, Commit, Committed, Expected, Extent, Found, Levels, NotResumed, Place, Raised, Resumed, Session, Store,
    Story, Unavailable, Wanted,
};
use crate::{
    event::{Event, Log, Places, Router},
    state::{Limits, SessionRef},
    time::{Clock, Time},
};
use bucket::Bucket;
use limits::Book;
use link::Poke;
use names::Names;
use near::Near;

/// The shared store, as one sidecar sees it.
pub struct Shared {
    clock: Clock,
    link: Arc<dyn Wire>,
    namespace: String,
    names: Names,
    channels: Vec<Vec<u8>>,
    /// What identifies this sidecar's keys.
    keys: Fingerprints,
    buckets: Vec<Bucket>,
    joining: tokio::sync::Mutex<()>,
    /// When it was last looked at how far all events are.
    level: tokio::sync::Mutex<Option<Time>>,
    /// Who reads on in the events has a turn.
    reading: tokio::sync::Mutex<()>,
    /// The numbers from which this process has followed the events.
    begins: Mutex<Places>,
    /// Changes whenever the events begin anew: resume tokens are of one epoch.
    epoch: Arc<Mutex<[u8; 16]>>,
    /// The servers that this sidecar knows: what they hold is what it thinks.
    known: Mutex<BTreeSet<String>>,
    /// Whether others cannot read what the digests of this sidecar's policies stand for yet.
    unpublished: AtomicBool,
    near: Near,
    book: Book,
    log: Arc<Log>,
    router: Arc<Router>,
    /// Until when ends are held in some bucket: read by the core with each moment.
    held_until: Arc<AtomicU64>,
    /// How far ahead one write covers activity; unset: by the policy.
    window: Option<Duration>,
    /// The format in which it writes.
    format: u32,
    outage: Outage,
    /// When the store was last known to answer.
    answered: AtomicU64,
    /// Activity that could not be told.
    untold: Mutex<HashMap<SessionRef, Time>>,
    /// Whether some of it is being told.
    telling_untold: AtomicBool,
    /// Whether this sidecar belongs to the namespace: its buckets and key are the right ones.
    joined: AtomicBool,
    /// Whether it ever did.
    entered: AtomicBool,
    pokes: Mutex<Option<mpsc::UnboundedReceiver<Poke>>>,
    /// This sidecar's name among those that are there.
    name: String,
    rank: Mutex<(usize, usize)>,
    /// The names of those that are there and say which servers they have told.
    others: Mutex<Vec<u8>>,
    max_sessions: usize,
    events_per_bucket: usize,
    meter: StoreMeter,
    /// Policies of which other sidecars have other content.
    elsewhere: Mutex<BTreeMap<String, Elsewhere>>,
    /// What was done in the last seconds, in case the store forgets it.
    journal: journal::Journal,
    /// Sessions with touches that are not told yet, by where they lie: one that is active comes by again and again.
    tallied: Mutex<HashMap<usize, Arc<Session>>>,
    /// Events of which it is not told yet to how many watchers they went.
    telling: Mutex<VecDeque<(Time, Arc<Event>, u32)>>,
}

/// How far past its deadline a session may be held: what is longer over never comes back.
pub const HELD_FOR: Duration = Duration::from_secs(60);

/// How long a script holds ends at once.
const HELD_AT_ONCE: Duration = Duration::from_secs(5);

impl Shared {
    fn bucket_of(&self, session: SessionRef) -> &Bucket {
        &self.buckets[self.names.bucket(session)]
    }

    /// The log that the events of all sidecars flow into.
    #[must_use]
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Who gets which events.
    #[must_use]
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// What resume tokens are bound to.
    #[must_use]
    pub fn epoch(&self) -> Arc<Mutex<[u8; 16]>> {
        Arc::clone(&self.epoch)
    }

    /// Until when ends are held: to be read by the core.
    #[must_use]
    pub fn held_until(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.held_until)
    }

    /// How far ahead of activity a record may be written.
    fn window(&self, limits: &Limits) -> Duration {
        limits.window(self.window)
    }

    /// Ends are held for so many microseconds more in some bucket.
    fn hold(&self, left: i64, received: Time) {
        let left = Duration::from_micros(u64::try_from(left).unwrap_or(0)).min(HELD_AT_ONCE);
        if !left.is_zero() {
            self.held_until
                .fetch_max((received + left).as_nanos(), Ordering::AcqRel);
        }
    }
}

#[async_trait]
impl Store for Shared {
    fn at_hand(&self, reference: SessionRef, now: Time) -> Option<Arc<Session>> {
        let session = self.near.at_hand(reference)?;
        let pulse = session.pulse();
        let plain = !pulse.is_dead() && !pulse.is_warned() && !pulse.is_slow();
        let hit = now < session.free_until() && plain && self.bucket_of(reference).is_healthy(now);
        if !hit {
            return None;
        }
        self.meter.lease_hits.inc();
        Some(session)
    }

    async fn find(&self, reference: SessionRef) -> Result<Found, Unavailable> {
        match self.copy(reference, self.clock.now()) {
            Some(session) => Ok(Found::Live(session)),
            None => self.read(reference).await,
        }
    }

    fn has_copy(&self, reference: SessionRef, now: Time) -> bool {
        self.copy(reference, now).is_some()
    }

    fn remembered_live(&self, reference: SessionRef, now: Time) -> Option<Arc<Session>> {
        self.last_known(reference, now)
    }

    fn remember_activity(&self, reference: SessionRef, at: Time) {
        self.untold(reference, at);
    }

    async fn raise(&self, session: &Arc<Session>, ago: Duration, now: Time) -> Result<Raised, Unavailable> {
        self.raise_pulse(session, ago, now).await
    }

    async fn latest(&self, session: &Session, moment: Time) -> Result<Option<Found>, Unavailable> {
        if session.lease().is_some_and(|lease| lease.read_at >= moment) {
            return Ok(None);
        }
        self.read(session.reference()).await.map(Some)
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Unavailable> {
        match &commit.expected {
            Expected::Nothing(_) => self.create(commit).await,
            Expected::Session { .. } if commit.next.successor.is_some() => self.rotate(commit).await,
            Expected::Session { .. } => self.change(commit).await,
        }
    }

    fn touched(&self, session: &Arc<Session>) {
        self.tallied
            .lock()
            .insert(Arc::as_ptr(session).addr(), Arc::clone(session));
    }

    fn needs_timeline(&self) -> bool {
        false
    }

    fn effective(&self, limits: &Limits) -> Limits {
        if !limits.at_most {
            return limits.clone();
        }
        // The real idle time never exceeds the limit, however late the last activity of a window came.
        let idle = limits.idle_timeout.saturating_sub(self.window(limits));
        Limits {
            idle_timeout: idle,
            idle_points: crate::state::policy::warning_points(&limits.idle_points, idle),
            ..limits.clone()
        }
    }

    fn ahead(&self, limits: &Limits) -> Option<Duration> {
        Some(self.window(limits))
    }

    fn announce(&self, policies: &[Arc<Limits>]) {
        self.announce_policies(policies);
    }

    async fn of_subject(&self, tenant: &str, subject: &str) -> Result<Vec<SessionRef>, Unavailable> {
        const MANY: usize = 16;
        let (_, names, reserved) = self.listed(tenant, subject).await?;
        if names.len() > MANY {
            // Ends that were not noted here because their sidecar went away.
            self.tidy(tenant, subject, &names, &reserved).await;
        }
        Ok(names)
    }

    async fn subject_ticket(&self, tenant: &str, subject: &str) -> Result<Option<Place>, Unavailable> {
        let (ticket, _, reserved) = self.listed(tenant, subject).await?;
        Ok(Some(Place { ticket, reserved }))
    }

    async fn take_place(
        &self,
        tenant: &str,
        subject: &str,
        place: &Place,
        newcomer: SessionRef,
    ) -> Result<bool, Unavailable> {
        self.list(tenant, subject, newcomer, Some(place.ticket)).await
    }

    async fn claim(&self, wanted: SessionRef, other: SessionRef) -> Result<Claim, Unavailable> {
        self.claim_name(wanted, other).await
    }

    async fn superseded(&self, newcomer: SessionRef) -> Result<(), Unavailable> {
        self.duties_done(newcomer).await
    }

    async fn scan(&self, extent: Extent, wanted: Arc<Wanted>) -> Result<Vec<SessionRef>, Unavailable> {
        self.scan_buckets(extent, &wanted).await
    }

    async fn story(&self, reference: SessionRef) -> Result<Story, Unavailable> {
        self.tell_story(reference).await
    }

    async fn resume(&self, places: &Places) -> Result<Resumed, NotResumed> {
        self.resume_from(places).await
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn policy_elsewhere(&self, policy: &str) -> Elsewhere {
        self.elsewhere(policy)
    }

    fn is_ready(&self) -> bool {
        self.entered.load(Ordering::Acquire)
    }

    async fn barrier(&self) -> Result<(), Unavailable> {
        self.be_level().await
    }

    fn levels(&self) -> Levels {
        let sum = |count: fn(&Bucket) -> &AtomicU64| {
            let each = self.buckets.iter().map(|bucket| count(bucket).load(Ordering::Relaxed));
            usize::try_from(each.sum::<u64>()).unwrap_or(usize::MAX)
        };
        Levels {
            live: sum(|bucket| &bucket.live),
            remembered: sum(|bucket| &bucket.remembered),
            forgotten_early: 0,
        }
    }

    fn sweep(&self) {
        self.near.sweep();
    }
}
