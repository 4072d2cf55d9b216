//! Live sessions by ref, for the hot path only: two cache misses, where moka's `get` has six and keeps a record of reads that
//! nobody needs here, and in the order of their refs for lists. It is told what the table decides and is never asked whether
//! a session exists: see docs/adr/0007.

use std::sync::Arc;

use hashbrown::HashTable;

use super::Session;
use crate::{state::SessionRef, sync::Mutex};

/// Not a power of two: the tables of a million sessions are then nearly full rather than half empty.
pub(super) const SHARDS: usize = 288;

/// The index, in shards of their own locks. An entry is one pointer: the name is in the session.
pub(super) struct Index(Vec<Mutex<HashTable<Arc<Session>>>>);

impl Index {
    pub(super) fn new() -> Self {
        Self((0..SHARDS).map(|_| Mutex::new(HashTable::new())).collect())
    }

    pub(super) fn insert(&self, session: Arc<Session>) {
        let reference = session.reference();
        let mut shard = self.shard(reference).lock();
        shard.insert_unique(reference.word(), session, |session| session.reference().word());
    }

    pub(super) fn get(&self, reference: SessionRef) -> Option<Arc<Session>> {
        let shard = self.shard(reference).lock();
        let found = shard.find(reference.word(), |session| session.reference() == reference);
        found.cloned()
    }

    /// The sessions of one shard, in no order. Those of a shard come before those of the next one.
    pub(super) fn at(&self, shard: usize) -> Vec<Arc<Session>> {
        self.0[shard].lock().iter().cloned().collect()
    }

    /// Removes this session, and not another one that has its name since.
    pub(super) fn remove(&self, session: &Session) {
        let mut shard = self.shard(session.reference()).lock();
        let this = |known: &Arc<Session>| std::ptr::eq(Arc::as_ptr(known), session);
        if let Ok(entry) = shard.find_entry(session.reference().word(), this) {
            entry.remove();
        }
    }

    fn shard(&self, reference: SessionRef) -> &Mutex<HashTable<Arc<Session>>> {
        &self.0[reference.shard(SHARDS)]
    }
}
