//! A live session in this process: a pulse that callers raise without a lock, and a rest behind one.

use std::{fmt, sync::atomic::Ordering};

use crate::{
    state::{Next, Origin, Pulse, Rest, SessionRef, View},
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
    rest: Mutex<Rest>,
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
            rest: Mutex::new(next.rest.clone()),
        }
    }

    /// Its name.
    #[must_use]
    pub fn reference(&self) -> SessionRef {
        self.reference
    }

    /// What Create fixed.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
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
        let rest = self.rest.lock();
        read(&View {
            origin: &self.origin,
            pulse: self.pulse(),
            rest: &rest,
            version: self.version(),
        })
    }

    /// Makes a decided change true if the record is still the one it was decided upon, and calls `publish` under the lock.
    pub fn change(&self, pulse: Pulse, version: u32, next: Next, publish: impl FnOnce(Next)) -> bool {
        let mut rest = self.rest.lock();
        if self.version() != version || !self.swap_pulse(pulse, next.pulse) {
            return false;
        }
        *rest = next.rest.clone();
        self.version.store(u64::from(next.version), Ordering::Release);
        publish(next);
        true
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
