//! What stays of ended sessions: bounded in time and in number.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::story::Story;
use crate::{
    sabotage::{self, Fault},
    state::{SessionRef, Tombstone},
    sync::{Mutex, MutexGuard},
    time::Time,
};

/// A small cap is kept exactly, by one shard; a large one is split, and kept by each of them.
const SHARDS: usize = 64;
const LARGE: usize = 65_536;

/// An ended session and its history.
struct Grave {
    tombstone: Arc<Tombstone>,
    story: Option<Box<Story>>,
}

/// The tombstones, in shards of their own locks.
pub(super) struct Tombstones {
    shards: Vec<Mutex<Shard>>,
    max_per_shard: usize,
    /// Until when the latest of those that were dropped at the cap should have been remembered.
    dropped_until: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Shard {
    by_ref: HashMap<SessionRef, Grave>,
    /// In the order of their ends, with the time until which each is remembered: the first is forgotten first.
    order: VecDeque<(SessionRef, Time)>,
}

impl Tombstones {
    /// Room for `max` tombstones.
    pub(super) fn new(max: usize) -> Self {
        let shards = if max < LARGE { 1 } else { SHARDS };
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            max_per_shard: max.div_ceil(shards).max(1),
            dropped_until: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    /// Adds a tombstone and the history of its session. At the cap the oldest goes, and is counted.
    pub(super) fn insert(
        &self,
        reference: SessionRef,
        tombstone: Arc<Tombstone>,
        story: Option<Box<Story>>,
        now: Time,
    ) {
        let mut shard = self.shard(reference);
        shard.forget(now, 2);
        if shard.order.len() >= self.max_per_shard
            && let Some(forget_at) = shard.pop()
            && forget_at > now
        {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            self.dropped_until.fetch_max(forget_at.as_nanos(), Ordering::AcqRel);
        }
        shard.order.push_back((reference, tombstone.forget_at));
        let grave = Grave { tombstone, story };
        shard.by_ref.insert(reference, grave);
    }

    /// The history of an ended session, if there is any.
    pub(super) fn story(&self, reference: SessionRef) -> Option<Story> {
        let shard = self.shard(reference);
        let grave = shard.by_ref.get(&reference)?;
        grave.story.as_deref().cloned()
    }

    /// Those of one of so many places (see [`SessionRef::shard`]) that are still remembered.
    pub(super) fn at(&self, place: usize, places: usize, now: Time) -> Vec<(SessionRef, Arc<Tombstone>)> {
        let shards = self.shards.len();
        // The shards that the place overlaps.
        let (first, last) = (place * shards / places, ((place + 1) * shards - 1) / places);
        let mut found = Vec::new();
        for shard in &self.shards[first..=last] {
            let shard = shard.lock();
            let here = shard.by_ref.iter().filter(|(reference, grave)| {
                // The name first: it is at hand, the tombstone is somewhere in memory.
                reference.shard(places) == place && grave.tombstone.forget_at > now
            });
            found.extend(here.map(|(reference, grave)| (*reference, Arc::clone(&grave.tombstone))));
        }
        found
    }

    /// The tombstone of a session, if it is still remembered.
    pub(super) fn get(&self, reference: SessionRef, now: Time) -> Option<Arc<Tombstone>> {
        let shard = self.shard(reference);
        shard
            .by_ref
            .get(&reference)
            .map(|grave| &grave.tombstone)
            .filter(|tombstone| tombstone.forget_at > now)
            .cloned()
    }

    /// Whether a tombstone was dropped that should still be remembered.
    pub(super) fn forgot_early(&self, now: Time) -> bool {
        self.dropped_until.load(Ordering::Acquire) > now.as_nanos() && !sabotage::on(Fault::DroppedUntold)
    }

    /// How many were dropped at the cap.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().order.len()).sum()
    }

    /// Gives back the memory of some of what is to be forgotten by now: little at a time, for others wait meanwhile.
    pub(super) fn sweep(&self, now: Time) {
        for shard in &self.shards {
            shard.lock().forget(now, 16_384 / self.shards.len());
        }
    }

    fn shard(&self, reference: SessionRef) -> MutexGuard<'_, Shard> {
        self.shards[reference.shard(self.shards.len())].lock()
    }
}

impl Shard {
    /// Removes up to `most` of the oldest whose time is over. One with a longer memory keeps later ones behind it in memory;
    /// they are unknown all the same.
    fn forget(&mut self, now: Time, most: usize) {
        for _ in 0..most {
            if self.order.front().is_none_or(|(_, forget_at)| *forget_at > now) {
                return;
            }
            self.pop();
        }
    }

    /// Removes the oldest. Answers until when it should have been remembered.
    fn pop(&mut self) -> Option<Time> {
        let (reference, forget_at) = self.order.pop_front()?;
        // The same name may have been forgotten, used again and ended again: that one stays.
        if self
            .by_ref
            .get(&reference)
            .is_some_and(|grave| grave.tombstone.forget_at == forget_at)
        {
            self.by_ref.remove(&reference);
        }
        Some(forget_at)
    }
}
