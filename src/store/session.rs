//! A live session in this process: a pulse that callers raise without a lock, and a rest behind one.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::story::Story;
use crate::{
    sabotage::{self, Fault},
    state::{Limits, Next, Origin, Pulse, Rest, RuleName, SessionRef, View},
    sync::{ArcSwap, AtomicU64, Guard, Mutex},
    time::Time,
};

/// A live session. It stays readable after its end: the record then carries the tombstone.
///
/// In this order, so that all a plain touch needs lies in one cache line (16 bytes of it are the Arc's counts).
#[repr(C)]
pub struct Session {
    pulse: AtomicU64,
    /// In the low half the version, where a touch can read it, written only under the lock. In the high half touches of one
    /// rule that are not in the history yet: see [`Session::tally`].
    version: AtomicU64,
    reference: SessionRef,
    /// Written only under the lock, and seldom: when a newer revision of the policy reaches the session.
    limits: ArcSwap<Limits>,
    origin: Origin,
    /// When the first of the touches came that are added up beside the version.
    first_added: AtomicU64,
    /// When the timeline will look at it next; an entry that fires before is stale.
    armed_for: AtomicU64,
    inner: Mutex<Inner>,
}

/// What this process knows of a session's record in a store that others share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The store's clock minus ours when the record was read, in microseconds: by it moments are read and written, so that what
    /// does not change is written as it was.
    pub skew: i64,
    /// How far the pulse is ahead of the activity that raised it.
    pub lead: Duration,
    /// When the record was read.
    pub read_at: Time,
    /// When the last touch came that did not count, as far as the store knows.
    pub ignored: Option<Time>,
}

struct Inner {
    rest: Rest,
    story: Option<Box<Story>>,
}

impl Session {
    /// A session with its first record.
    #[must_use]
    pub fn new(reference: SessionRef, origin: Origin, next: &Next) -> Self {
        Self {
            pulse: AtomicU64::new(next.pulse.to_word()),
            version: AtomicU64::new(u64::from(next.version)),
            first_added: AtomicU64::new(0),
            armed_for: AtomicU64::new(u64::MAX),
            reference,
            origin,
            limits: ArcSwap::new(Arc::clone(&next.limits)),
            inner: Mutex::new(Inner {
                rest: next.rest.clone(),
                story: None,
            }),
        }
    }

    /// The same session, whose record is in a store that others share. Until `free_until` activity is covered by what is written.
    #[must_use]
    pub fn leased(self, lease: Lease, free_until: Time) -> Self {
        self.inner.lock().story.get_or_insert_default().lease = Some(lease);
        // No timeline looks at it here.
        self.armed_for.store(free_until.as_nanos(), Ordering::Release);
        self
    }

    /// What is known of its record in a store that others share. Behind the lock, where it costs those nothing who share none.
    #[must_use]
    pub fn lease(&self) -> Option<Lease> {
        self.inner.lock().story.as_ref().and_then(|story| story.lease)
    }

    /// Until when activity is covered by what the shared store knows.
    #[must_use]
    pub fn free_until(&self) -> Time {
        self.armed_for()
    }

    /// The shared store knows of later activity now: unless more than that has changed meanwhile.
    pub fn renew(&self, activity: Time, lead: Duration, free_until: Time) {
        let mut inner = self.inner.lock();
        loop {
            let seen = self.pulse();
            if seen.is_dead() || seen.is_warned() || seen.last_activity() > activity {
                return;
            }
            if self.swap_pulse(seen, Pulse::new(activity).flagged(false, seen.is_slow())) {
                break;
            }
        }
        if let Some(lease) = inner.story.as_mut().and_then(|story| story.lease.as_mut()) {
            lease.lead = lead;
        }
        self.armed_for.fetch_max(free_until.as_nanos(), Ordering::AcqRel);
    }

    /// Whether activity so long ago is covered by what the store knows, though the pulse is ahead of it.
    #[must_use]
    pub fn covers(&self, ago: Duration, now: Time) -> bool {
        let known = self.pulse().last_activity();
        let activity = now - ago;
        let lease = self.lease();
        lease.is_some_and(|lease| activity <= known && activity + lease.lead >= known)
    }

    /// Its name.
    #[must_use]
    pub fn reference(&self) -> SessionRef {
        self.reference
    }

    /// What is fixed.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> Guard<Arc<Limits>> {
        self.limits.load()
    }

    /// The pulse now.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse::from_word(self.pulse.load(Ordering::Acquire))
    }

    /// The version now.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Acquire) as u32
    }

    /// Swaps the pulse if it is still what the caller saw. This is the one race between a touch and an end: exactly one wins.
    pub fn swap_pulse(&self, seen: Pulse, next: Pulse) -> bool {
        self.pulse
            .compare_exchange(seen.to_word(), next.to_word(), Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// Reads the record. The rest is read under the lock, so it fits the version; a touch may still raise the pulse.
    pub fn read<T>(&self, read: impl FnOnce(&View<'_>) -> T) -> T {
        let inner = self.inner.lock();
        read(&View {
            origin: &self.origin,
            limits: &self.limits.load(),
            pulse: self.pulse(),
            rest: &inner.rest,
            version: self.version(),
            lead: inner
                .story
                .as_ref()
                .and_then(|story| story.lease)
                .map_or(Duration::ZERO, |lease| lease.lead),
        })
    }

    /// Makes a decided change true if the record is still the one it was decided upon, and calls `publish` under the lock.
    pub fn change(
        &self,
        pulse: Pulse,
        version: u32,
        next: Next,
        publish: impl FnOnce(Next, &mut Option<Box<Story>>),
    ) -> bool {
        let mut inner = self.inner.lock();
        // Not even that mistake brings an ended session back: then the process aborts.
        let blind = sabotage::on(Fault::BlindCommit) && (next.rest.end().is_some() || !self.pulse().is_dead());
        let (pulse, version) = if blind {
            (self.pulse(), self.version())
        } else {
            (pulse, version)
        };
        // While limits are exchanged touches wait for the lock: none is answered the old limits after the new ones are in force.
        let exchanged = !Arc::ptr_eq(&self.limits.load(), &next.limits);
        let marked = exchanged && !sabotage::on(Fault::UnmarkedAdoption);
        let swapped = if marked { next.pulse.slowed() } else { next.pulse };
        if self.version() != version || !self.swap_pulse(pulse, swapped) {
            return false;
        }
        inner.rest = next.rest.clone();
        if exchanged {
            self.limits.store(Arc::clone(&next.limits));
        }
        self.set_version(next.version);
        if marked {
            self.pulse.store(next.pulse.to_word(), Ordering::Release);
        }
        if next.rest.end().is_some() {
            // The history is kept with the tombstone.
            self.write_all_down(&mut inner.story, pulse.last_activity());
        }
        publish(next, &mut inner.story);
        true
    }

    /// Counts a touch for the session's history. `before` is the last activity before it.
    ///
    /// Touches that count by one rule, as nearly all of a busy session do, are only added up beside the version until somebody
    /// asks or another rule counts: the last of them is the last activity. Answers whether it is the first of a row.
    pub fn tally(&self, rule: &RuleName, counted: bool, before: Time, at: Time) -> bool {
        let tag = if counted { tag_of(rule) } else { 0 };
        let word = self.version.load(Ordering::Acquire);
        let added = Added::of(word);
        let fits = added.tag == tag || added.tag == 0;
        if tag != 0 && fits && added.count < COUNT_MAX {
            let more = word & VERSION | tag << TAG_SHIFT | (added.count + 1) << COUNT_SHIFT;
            if self
                .version
                .compare_exchange(word, more, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
            {
                if added.count == 0 {
                    self.first_added.store(at.as_nanos(), Ordering::Release);
                }
                return added.count == 0;
            }
        }
        let mut inner = self.inner.lock();
        let story = inner.story.get_or_insert_default();
        if counted {
            self.write_down(story, before);
        }
        story.tally(rule, counted, at);
        true
    }

    /// The session's history, to be read or changed.
    pub fn story<T>(&self, with: impl FnOnce(&mut Option<Box<Story>>) -> T) -> T {
        let mut inner = self.inner.lock();
        self.write_all_down(&mut inner.story, self.pulse().last_activity());
        with(&mut inner.story)
    }

    fn write_all_down(&self, story: &mut Option<Box<Story>>, last: Time) {
        if Added::of(self.version.load(Ordering::Acquire)).count > 0 {
            self.write_down(story.get_or_insert_default(), last);
        }
    }

    /// When the last touch came that was ignored. For those who ask it of every session: it makes no history where none is.
    #[must_use]
    pub fn last_ignored(&self) -> Option<Time> {
        let inner = self.inner.lock();
        let story = inner.story.as_ref()?;
        story.last_ignored().max(story.lease.and_then(|lease| lease.ignored))
    }

    /// Moves what was added up beside the version into the history.
    fn write_down(&self, story: &mut Story, last: Time) {
        let mut added = Added { tag: 0, count: 0 };
        let first = Time::from_nanos(self.first_added.load(Ordering::Acquire));
        let _ = self.version.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            added = Added::of(word);
            Some(word & VERSION)
        });
        if let (1.., Some(rule)) = (added.count, rule_of(added.tag)) {
            let count = u32::try_from(added.count).unwrap_or(u32::MAX);
            story.add_up(&rule, count, first.max(self.origin.created), last);
        }
    }

    fn set_version(&self, version: u32) {
        let _ = self.version.fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
            Some(word & !VERSION | u64::from(version))
        });
    }

    /// Notes that the timeline will look at it at `at`, if not before: of two who arm it at once the earlier counts. Called
    /// under the timeline's lock, so that the entry cannot come out before this is noted.
    pub fn arm(&self, at: Time) {
        self.armed_for.fetch_min(at.as_nanos(), Ordering::AcqRel);
    }

    /// Notes that its entry has come out: whoever changes it from now on arms it.
    pub fn disarm(&self) {
        self.armed_for.store(u64::MAX, Ordering::Release);
    }

    /// When the timeline will look at it next.
    #[must_use]
    pub fn armed_for(&self) -> Time {
        Time::from_nanos(self.armed_for.load(Ordering::Acquire))
    }
}

/// The version word: two bits say which rule is added up, thirty how many touches, thirty-two are the version.
const TAG_SHIFT: u32 = 62;
const COUNT_SHIFT: u32 = 32;
const COUNT_MAX: u64 = (1 << (TAG_SHIFT - COUNT_SHIFT)) - 1;
const VERSION: u64 = u32::MAX as u64;

/// What is added up beside the version.
struct Added {
    tag: u64,
    count: u64,
}

impl Added {
    fn of(word: u64) -> Self {
        Self {
            tag: word >> TAG_SHIFT,
            count: word >> COUNT_SHIFT & COUNT_MAX,
        }
    }
}

/// The rules by which nearly all touches count.
fn tag_of(rule: &RuleName) -> u64 {
    match rule {
        RuleName::DeclaredUser => 1,
        RuleName::UserNavigation => 2,
        RuleName::Unmatched => 3,
        _ => 0,
    }
}

fn rule_of(tag: u64) -> Option<RuleName> {
    match tag {
        1 => Some(RuleName::DeclaredUser),
        2 => Some(RuleName::UserNavigation),
        3 => Some(RuleName::Unmatched),
        _ => None,
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("ref", &self.reference)
            .field("pulse", &self.pulse())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use crate::state::{Identity, Keys, Moment};

    fn session() -> Session {
        let origin = Origin {
            authenticated: Time::START,
            created: Time::START,
            identity: Identity::default(),
        };
        let next = Next::created(&origin, Arc::default(), Time::START, None, Moment::at(Time::START));
        Session::new(Keys::derive(&[7; 32]).session_ref("", "a session"), origin, &next)
    }

    #[test]
    fn what_a_plain_touch_needs_lies_in_one_cache_line() {
        let arc_counts = 16;
        let hot = std::mem::offset_of!(Session, origin) + std::mem::size_of::<Time>();
        assert!(arc_counts + hot <= 64, "{hot}");
        assert_eq!(arc_counts + std::mem::size_of::<Session>(), 128);
    }

    #[test]
    fn touches_are_added_up_by_rule_and_the_version_stays() {
        let session = session();
        let at = |seconds| Time::START + std::time::Duration::from_secs(seconds);
        let touch = |rule: &RuleName, counted, second| {
            let before = session.pulse().last_activity();
            if counted {
                session.swap_pulse(session.pulse(), Pulse::new(at(second)));
            }
            session.tally(rule, counted, before, at(second));
        };
        for second in 1..=5 {
            touch(&RuleName::DeclaredUser, true, second);
        }
        touch(&RuleName::DeclaredBackground, false, 6);
        touch(&RuleName::Unmatched, true, 7);
        touch(&RuleName::DeclaredBackground, false, 8);
        touch(&RuleName::Unmatched, true, 9);
        touch(&RuleName::DeclaredUser, true, 10);
        touch(&RuleName::DeclaredUser, true, 11);
        assert_eq!(session.version(), 1);
        let told = session.story(|story| {
            let tallies = story.as_ref().expect("touched").tallies.clone();
            tallies
                .into_iter()
                .map(|tally| (tally.rule, tally.count, tally.first, tally.last, tally.counted))
                .collect::<Vec<_>>()
        });
        assert_eq!(
            told,
            [
                (RuleName::DeclaredBackground, 2, at(6), at(8), false),
                (RuleName::DeclaredUser, 7, at(1), at(11), true),
                (RuleName::Unmatched, 2, at(7), at(9), true),
            ]
        );
    }
}
