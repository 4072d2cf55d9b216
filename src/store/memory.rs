//! Sessions in this process' memory: moka is the table, and its eviction is what ends a session.
//!
//! The order of an end (G10): the pulse is swapped to DEAD, the tombstone becomes readable, moka lets go of the entry, and
//! moka's eviction listener hands on the end that was decided. The listener decides nothing and does not look at moka's
//! cause. An eviction that nobody decided would be a session lost without a word: the process aborts rather than go on.

use std::{
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use moka::{notification::RemovalCause, sync::Cache};
use tokio::sync::Semaphore;

use super::{
    Commit, Committed, Expected, Extent, Found, Levels, NotResumed, Resumed, Seen, Session, Store, Story, Unavailable,
    Wanted,
    index::{self, Index},
    subjects::Subjects,
    tombstones::Tombstones,
};
use crate::{
    event::{Event, Log, Places, Trimmed},
    huge_pages,
    sabotage::{self, Fault},
    state::{Happening, Identity, Next, Origin, Pulse, SessionRef, Successor},
    sync::Mutex,
    time::{Clock, Time},
};

/// How much may be kept.
#[derive(Debug, Clone, Copy)]
pub struct MemoryCaps {
    /// Live sessions: at the cap Create is refused (G11).
    pub max_sessions: usize,
    /// Ended sessions that are remembered: at the cap the oldest is forgotten.
    pub max_tombstones: usize,
}

/// The store in memory.
pub struct Memory {
    table: Cache<SessionRef, Arc<Session>, BuildHasherDefault<RefHasher>>,
    shelf: Arc<Shelf>,
    /// Creates of the same name take turns.
    creating: Vec<Mutex<()>>,
    caps: MemoryCaps,
    /// Places for scans of all sessions: they share the processors with those who serve calls.
    scans: Semaphore,
}

/// How many scans of all sessions may run at once.
const SCANS: usize = 2;

/// What the eviction listener reaches.
struct Shelf {
    clock: Clock,
    log: Arc<Log>,
    index: Index,
    tombstones: Tombstones,
    subjects: Subjects,
    live: AtomicUsize,
}

/// A ref is a keyed hash: its first bytes are as good as any hash of it.
#[derive(Default)]
struct RefHasher(u64);

impl Hasher for RefHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // A ref hashes its length prefix, then its 16 bytes; the last eight win.
        for chunk in bytes.chunks_exact(8) {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.0 = u64::from_le_bytes(word);
        }
    }
}

impl Memory {
    /// An empty store whose ends go to `log`.
    #[must_use]
    pub fn new(clock: Clock, log: Arc<Log>, caps: MemoryCaps) -> Self {
        let shelf = Arc::new(Shelf {
            clock,
            log,
            index: Index::new(),
            tombstones: Tombstones::new(caps.max_tombstones),
            subjects: Subjects::new(),
            live: AtomicUsize::new(0),
        });
        let listener = {
            let shelf = Arc::clone(&shelf);
            move |reference: Arc<SessionRef>, session: Arc<Session>, cause| {
                // moka switches a listener that panics off for good, silently: every end after it would be lost.
                let guard = AbortOnDrop;
                shelf.evicted(*reference, &session, cause);
                std::mem::forget(guard);
            }
        };
        Self {
            // No capacity, no time to live: moka never lets go of a session by itself.
            table: Cache::builder()
                .eviction_listener(listener)
                .build_with_hasher(BuildHasherDefault::default()),
            shelf,
            creating: (0..256).map(|_| Mutex::new(())).collect(),
            caps,
            scans: Semaphore::new(SCANS),
        }
    }

    /// The session if it is live, or is just ending: the hot path of a touch. If there is none, look it up.
    #[must_use]
    pub fn get(&self, reference: SessionRef) -> Option<Arc<Session>> {
        self.shelf.index.get(reference)
    }

    /// How many sessions are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.shelf.live.load(Ordering::Relaxed)
    }

    /// How many ended sessions are remembered.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.shelf.tombstones.len()
    }

    /// What is known of a session: the table first, for an end makes the tombstone readable before it leaves the table.
    #[must_use]
    pub fn look_up(&self, reference: SessionRef) -> Found {
        if let Some(session) = self.table.get(&reference) {
            if !session.pulse().is_dead() {
                return Found::Live(session);
            }
            // It is ending right now: its record has the tombstone as soon as the lock is free.
            match session.read(|view| view.rest.end().cloned()) {
                Some(tombstone) if !tombstone.silent => return Found::Ended(tombstone),
                _ => {}
            }
        }
        let now = self.shelf.clock.now();
        match self.shelf.tombstones.get(reference, now) {
            Some(tombstone) => Found::Ended(tombstone),
            None => Found::Unknown {
                may_have_ended: self.shelf.tombstones.forgot_early(now),
            },
        }
    }

    fn create(&self, reference: SessionRef, origin: Origin, next: Next, at: Time) -> Committed {
        let _turn = self.creating[reference.shard(self.creating.len())].lock();
        match self.look_up(reference) {
            Found::Unknown { .. } => {}
            found => return Committed::Lost(found),
        }
        if !self.shelf.make_room(self.caps.max_sessions) {
            return Committed::Full {
                max_sessions: self.caps.max_sessions,
            };
        }
        let identity = origin.identity.clone();
        let session = Arc::new(Session::new(reference, origin, &next));
        // Whoever hears of it can find it; and nothing that happens to it later comes earlier in the log, for that takes the lock.
        session.story(|story| {
            self.enter(&session);
            self.shelf.publish(reference, &identity, next, at, story);
        });
        Committed::Done(session)
    }

    /// Makes a session findable, by its name before it is in any list: who is listed is found.
    fn enter(&self, session: &Arc<Session>) {
        let reference = session.reference();
        self.table.insert(reference, Arc::clone(session));
        self.shelf.index.insert(Arc::clone(session));
        self.shelf.subjects.insert(&session.origin().identity, reference);
    }

    /// Ends a session under its old name and begins it under the new one, as one step: whoever finds the one ended finds the
    /// other live, and the end is in the log before all else that happens to the successor.
    fn rotate(&self, session: &Arc<Session>, pulse: Pulse, version: u32, mut next: Next, at: Time) -> Committed {
        let Some(successor) = next.successor.take() else {
            return Committed::Lost(self.look_up(session.reference()));
        };
        let Successor {
            reference,
            origin,
            next: first,
        } = *successor;
        let _turn = self.creating[reference.shard(self.creating.len())].lock();
        match self.look_up(reference) {
            Found::Unknown { .. } => {}
            taken => return Committed::Taken(taken),
        }
        let identity = origin.identity.clone();
        let new = Arc::new(Session::new(reference, origin, &first));
        // The new session's lock is held from before it can be found until its first event is in the log.
        let done = new.story(|story| {
            let ended = self.end_or_change(session, pulse, version, next, at, || {
                // The one place is taken over: the old session gives its own up when it leaves the table.
                self.shelf.live.fetch_add(1, Ordering::AcqRel);
                if !sabotage::on(Fault::LateSuccessor) {
                    self.enter(&new);
                }
            });
            if ended && sabotage::on(Fault::LateSuccessor) {
                self.enter(&new);
            }
            if ended {
                self.shelf.publish(reference, &identity, first, at, story);
            }
            ended
        });
        if done {
            Committed::Done(new)
        } else {
            Committed::Lost(self.look_up(session.reference()))
        }
    }

    fn change(&self, session: &Arc<Session>, pulse: Pulse, version: u32, next: Next, at: Time) -> Committed {
        if self.end_or_change(session, pulse, version, next, at, || {}) {
            return Committed::Done(Arc::clone(session));
        }
        Committed::Lost(self.look_up(session.reference()))
    }

    /// Makes a decided change true if the record is still the one it was decided upon. `meanwhile` is done under the lock.
    fn end_or_change(
        &self,
        session: &Arc<Session>,
        pulse: Pulse,
        version: u32,
        next: Next,
        at: Time,
        meanwhile: impl FnOnce(),
    ) -> bool {
        let reference = session.reference();
        let ends = next.rest.end().cloned();
        let identity = session.origin().identity.clone();
        let done = session.change(pulse, version, next, |mut next, story| {
            if ends.is_some() {
                // The listener publishes the end itself.
                next.happenings.pop();
            }
            self.shelf.publish(reference, &identity, next, at, story);
            if let Some(tombstone) = ends.as_ref().filter(|tombstone| !tombstone.silent)
                && !sabotage::on(Fault::LateTombstone)
            {
                let tombstone = Arc::clone(tombstone);
                self.shelf.tombstones.insert(reference, tombstone, story.take(), at);
            }
            meanwhile();
        });
        if done && ends.is_some() {
            self.table.invalidate(&reference);
        }
        done
    }
}

#[async_trait]
impl Store for Memory {
    fn at_hand(&self, reference: SessionRef, _now: Time) -> Option<Arc<Session>> {
        self.get(reference)
    }

    async fn find(&self, reference: SessionRef) -> Result<Found, Unavailable> {
        Ok(self.look_up(reference))
    }

    fn needs_timeline(&self) -> bool {
        true
    }

    async fn of_subject(&self, tenant: &str, subject: &str) -> Result<Vec<SessionRef>, Unavailable> {
        Ok(self.shelf.subjects.get(tenant, subject))
    }

    async fn scan(&self, extent: Extent, wanted: Arc<Wanted>) -> Result<Vec<SessionRef>, Unavailable> {
        let _turn = self.scans.acquire().await.map_err(|_| Unavailable)?;
        let shelf = Arc::clone(&self.shelf);
        // It takes a while: never on a thread that serves calls.
        tokio::task::spawn_blocking(move || shelf.scan(extent, &*wanted))
            .await
            .map_err(|_| Unavailable)
    }

    async fn story(&self, reference: SessionRef) -> Result<Story, Unavailable> {
        let live = self.table.get(&reference);
        // That of an ended one is with its tombstone already.
        if let Some(story) = live.and_then(|session| session.story(|story| story.as_deref().cloned())) {
            return Ok(story);
        }
        Ok(self.shelf.tombstones.story(reference).unwrap_or_default())
    }

    async fn resume(&self, places: &Places) -> Result<Resumed, NotResumed> {
        let [cursor] = places.as_slice() else {
            return Err(NotResumed::Future);
        };
        if *cursor > self.shelf.log.head() {
            return Err(NotResumed::Future);
        }
        match self.shelf.log.read(*cursor, *cursor, 0) {
            Err(Trimmed) => Err(NotResumed::Trimmed),
            Ok(_) => Ok(Resumed {
                before: Vec::new(),
                cursor: *cursor,
            }),
        }
    }

    fn may_have_ended(&self) -> bool {
        self.shelf.tombstones.forgot_early(self.shelf.clock.now())
    }

    fn levels(&self) -> Levels {
        Levels {
            live: self.live(),
            remembered: self.remembered(),
            forgotten_early: self.shelf.tombstones.dropped(),
        }
    }

    fn sweep(&self) {
        self.shelf.tombstones.sweep(self.shelf.clock.now());
        self.table.run_pending_tasks();
    }

    async fn commit(&self, commit: Commit) -> Result<Committed, Unavailable> {
        let Commit {
            reference,
            expected,
            next,
            moment,
            supersedes: _,
            not_after: _,
        } = commit;
        let at = moment.now;
        let committed = match expected {
            Expected::Nothing(origin) => self.create(reference, origin, next, at),
            Expected::Session {
                session,
                pulse,
                version,
            } if next.successor.is_some() => self.rotate(&session, pulse, version, next, at),
            Expected::Session {
                session,
                pulse,
                version,
            } => self.change(&session, pulse, version, next, at),
        };
        if sabotage::on(Fault::LateTombstone)
            && let Committed::Done(session) = &committed
            && let Some(tombstone) = session.read(|view| view.rest.end().cloned())
        {
            tokio::task::yield_now().await;
            self.shelf.tombstones.insert(session.reference(), tombstone, None, at);
        }
        Ok(committed)
    }
}

impl Shelf {
    /// Walks from place to place, in the order of refs, until enough are found. A place before the one to begin after, or behind
    /// a full page, is not looked at.
    fn scan(&self, extent: Extent, wanted: &Wanted) -> Vec<SessionRef> {
        let Extent { after, most, .. } = extent;
        let begin = after.map_or(0, |after| after.shard(index::SHARDS));
        let comes = |reference: &SessionRef| after.is_none_or(|after| *reference > after);
        let mut found: Vec<SessionRef> = Vec::new();
        for place in begin..index::SHARDS {
            let mut here = Vec::new();
            // Live ones first: what ends meanwhile is then among the ended ones.
            if extent.live {
                let live = self.index.at(place).into_iter();
                let live = live.filter(|session| comes(&session.reference()) && wanted(&Seen::Live(session)));
                here.extend(live.map(|session| session.reference()));
            }
            if extent.ended {
                let ended = self.tombstones.at(place, index::SHARDS, self.clock.now()).into_iter();
                let ended = ended.filter(|(reference, end)| comes(reference) && wanted(&Seen::Ended(*reference, end)));
                here.extend(ended.map(|(reference, _)| reference));
            }
            here.sort_unstable();
            here.dedup();
            found.append(&mut here);
            if found.len() >= most {
                found.truncate(most);
                break;
            }
        }
        found
    }

    /// Takes one place of `max`, if one is free.
    fn make_room(&self, max: usize) -> bool {
        let taken = self.live.fetch_update(Ordering::AcqRel, Ordering::Acquire, |live| {
            (live < max || sabotage::on(Fault::CapIgnored)).then_some(live + 1)
        });
        if taken == Ok(huge_pages::WORTHWHILE) {
            huge_pages::welcome();
        }
        taken.is_ok()
    }

    /// Appends what watchers are told to the log, and what is worth it to the session's history.
    fn publish(&self, session: SessionRef, identity: &Identity, next: Next, at: Time, story: &mut Option<Box<Story>>) {
        let mut happenings = next.happenings;
        if sabotage::on(Fault::OutOfOrder) {
            happenings.reverse();
        }
        for (version, what) in happenings {
            let (is_public, is_history) = (what.is_public(), what.is_history());
            let event = Event {
                seq: 0,
                stream: 0,
                number: 0,
                at,
                session,
                identity: identity.clone(),
                version,
                what,
                told: AtomicU32::new(0),
            };
            let event = if is_public {
                self.log.append(event)
            } else if is_history {
                Arc::new(event)
            } else {
                continue;
            };
            if is_history {
                story.get_or_insert_default().add(event);
            }
        }
    }

    /// Hands on the end that was decided.
    fn evicted(&self, reference: SessionRef, session: &Session, cause: RemovalCause) {
        let Some(tombstone) = session.read(|view| view.rest.end().cloned()) else {
            tracing::error!(session = %reference, "a session left the table without a decided end");
            std::process::abort();
        };
        let origin = session.origin();
        self.index.remove(session);
        self.subjects.remove(&origin.identity, reference);
        self.live.fetch_sub(1, Ordering::AcqRel);
        if tombstone.silent || (sabotage::on(Fault::CauseTrusted) && !cause.was_evicted()) {
            return;
        }
        self.log.append(Event {
            seq: 0,
            stream: 0,
            number: 0,
            at: self.clock.now(),
            session: reference,
            identity: origin.identity.clone(),
            version: tombstone.version,
            what: Happening::Ended(tombstone),
            told: AtomicU32::new(0),
        });
    }
}

/// Aborts the process if it is dropped, which only a panic does.
struct AbortOnDrop;

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        tracing::error!("the eviction listener panicked");
        std::process::abort();
    }
}
