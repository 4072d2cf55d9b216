//! What is at hand: copies of records that were read or written here a moment ago. Never an authority: an end is always asked
//! for, and what changed elsewhere makes a copy go.

use std::{sync::Arc, time::Duration};

use moka::sync::Cache;

use super::Shared;
use crate::{state::SessionRef, store::Session, time::Time};

/// The copies. Here moka is a cache and nothing else: what it lets go of is read again.
pub(super) struct Near(Cache<SessionRef, Arc<Session>>);

/// How much earlier than it need be free activity ends.
pub(super) const MARGIN: Duration = Duration::from_millis(2);

/// How old a copy may be: clocks drift.
const OLDEST: Duration = Duration::from_secs(60);

impl Near {
    /// Room for so many.
    pub(super) fn new(most: usize) -> Self {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        Self(Cache::builder().max_capacity(most).build())
    }

    pub(super) fn get(&self, session: SessionRef) -> Option<Arc<Session>> {
        self.0.get(&session)
    }

    pub(super) fn insert(&self, session: Arc<Session>) {
        self.0.insert(session.reference(), session);
    }

    pub(super) fn remove(&self, session: SessionRef) {
        self.0.invalidate(&session);
    }

    pub(super) fn clear(&self) {
        self.0.invalidate_all();
    }

    pub(super) fn sweep(&self) {
        self.0.run_pending_tasks();
    }
}

/// Whether a copy says for sure that a session is live: it is young, and its deadline has not passed.
fn is_known_live(session: &Session, now: Time) -> bool {
    let Some(lease) = session.lease() else { return false };
    now.since(lease.read_at) < OLDEST
        && !session.pulse().is_dead()
        && session.read(|view| view.rest.end().is_none() && view.plain_deadlines().expire().0 > now)
}

impl Shared {
    /// A copy that says for sure that a session is live.
    pub(super) fn copy(&self, session: SessionRef, now: Time) -> Option<Arc<Session>> {
        let known = self.near.get(session)?;
        (self.bucket_of(session).is_healthy(now) && is_known_live(&known, now)).then_some(known)
    }

    /// Keeps a copy of a record that was read or written when the bucket's last event had this number; unless more has happened
    /// since, perhaps to this very session.
    pub(super) fn keep(&self, session: &Arc<Session>, number: u64) {
        let gate = self.bucket_of(session.reference()).gate();
        if gate.applied > number {
            return;
        }
        // What is kept already need not be kept again: each renewal of a lease comes by here.
        let as_good = |known: &Arc<Session>| Arc::ptr_eq(known, session) || known.version() > session.version();
        if !self.near.get(session.reference()).as_ref().is_some_and(as_good) {
            self.near.insert(Arc::clone(session));
        }
    }
}
