//! Which sessions a subject has.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher as _, RandomState},
};

use crate::{
    state::{Identity, SessionRef},
    sync::Mutex,
};

/// Not a power of two: the maps of a million or of ten million subjects are then nearly full rather than half empty.
const SHARDS: usize = 72;

/// The index, in shards of their own locks. Subjects are kept by a 64-bit hash under a random key, to be small: whoever reads
/// a set looks at each session's own subject.
pub(super) struct Subjects {
    shards: Vec<Mutex<HashMap<u64, Refs>>>,
    hasher: RandomState,
}

/// Most subjects have one session.
enum Refs {
    One(SessionRef),
    Many(Vec<SessionRef>),
}

impl Subjects {
    pub(super) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    pub(super) fn insert(&self, identity: &Identity, reference: SessionRef) {
        if identity.subject().is_empty() {
            return;
        }
        let (hash, shard) = self.place(identity.tenant(), identity.subject());
        match shard.lock().entry(hash) {
            Entry::Vacant(vacant) => {
                vacant.insert(Refs::One(reference));
            }
            Entry::Occupied(mut known) => match known.get_mut() {
                Refs::One(first) => {
                    let many = vec![*first, reference];
                    *known.get_mut() = Refs::Many(many);
                }
                Refs::Many(many) => many.push(reference),
            },
        }
    }

    pub(super) fn remove(&self, identity: &Identity, reference: SessionRef) {
        if identity.subject().is_empty() {
            return;
        }
        let (hash, shard) = self.place(identity.tenant(), identity.subject());
        if let Entry::Occupied(mut known) = shard.lock().entry(hash) {
            let gone = match known.get_mut() {
                Refs::One(one) => *one == reference,
                Refs::Many(many) => {
                    many.retain(|known| *known != reference);
                    many.is_empty()
                }
            };
            if gone {
                known.remove();
            }
        }
    }

    /// The sessions that may be this subject's.
    pub(super) fn get(&self, tenant: &str, subject: &str) -> Vec<SessionRef> {
        let (hash, shard) = self.place(tenant, subject);
        match shard.lock().get(&hash) {
            None => Vec::new(),
            Some(Refs::One(one)) => vec![*one],
            Some(Refs::Many(many)) => many.clone(),
        }
    }

    fn place(&self, tenant: &str, subject: &str) -> (u64, &Mutex<HashMap<u64, Refs>>) {
        let hash = self.hasher.hash_one((tenant, subject));
        (hash, &self.shards[(hash >> 32) as usize % SHARDS])
    }
}
