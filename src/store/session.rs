//! A live session in this process: a pulse that callers raise without a lock, and a rest behind one.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
};

use arc_swap::{ArcSwap, Guard};

use super::story::Story;
use crate::{
    state::{Limits, Next, Origin, Pulse, Rest, RuleName, SessionRef, View},
    sync::{AtomicU64, Mutex},
    time::Time,
};

/// A live session. It stays readable after its end: the record then carries the tombstone.
pub struct Session {
    pulse: AtomicU64,
    /// The version, where a touch can read it. Written only under the lock.
    version: AtomicU64,
    /// When the timeline will look at it next; an entry that fires before is stale.
    armed_for: AtomicU64,
    reference: SessionRef,
    origin: Origin,
    /// Written only under the lock, and seldom: when a newer revision of the policy reaches the session.
    limits: ArcSwap<Limits>,
    inner: Mutex<Inner>,
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
        if self.version() != version || !self.swap_pulse(pulse, next.pulse) {
            return false;
        }
        inner.rest = next.rest.clone();
        if !Arc::ptr_eq(&self.limits.load(), &next.limits) {
            self.limits.store(Arc::clone(&next.limits));
        }
        self.version.store(u64::from(next.version), Ordering::Release);
        publish(next, &mut inner.story);
        true
    }

    /// Counts a touch for the session's history.
    pub fn tally(&self, rule: &RuleName, counted: bool, at: Time) {
        let mut inner = self.inner.lock();
        inner.story.get_or_insert_default().tally(rule, counted, at);
    }

    /// The session's history, to be read or changed.
    pub fn story<T>(&self, with: impl FnOnce(&mut Option<Box<Story>>) -> T) -> T {
        with(&mut self.inner.lock().story)
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

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("ref", &self.reference)
            .field("pulse", &self.pulse())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
