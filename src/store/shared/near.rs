//! What is at hand: copies of records that were read or written here a moment ago. Never an authority: an end is always asked
//! for, and what changed elsewhere makes a copy go.

use std::{sync::Arc, time::Duration};

use moka::{policy::EvictionPolicy, sync::Cache};

use super::Shared;
use crate::{
    state::SessionRef,
    store::{
        Session,
        index::{Index, SHARDS},
    },
    time::Time,
};

/// The copies. Here moka is a cache and nothing else: what it lets go of is read again. Beside it is an index for the hot touch, as in
/// memory mode (docs/adr/0007), told of each copy that comes, goes or is replaced before anybody else is.
pub(super) struct Near {
    copies: Cache<SessionRef, Arc<Session>>,
    index: Arc<Index>,
}

/// How much earlier than it need be free activity ends.
pub(super) const MARGIN: Duration = Duration::from_millis(2);

/// How old a copy may be: clocks drift.
const OLDEST: Duration = Duration::from_secs(60);

impl Near {
    /// Room for so many.
    pub(super) fn new(most: usize) -> Self {
        let most = u64::try_from(most).unwrap_or(u64::MAX);
        let index = Arc::new(Index::new());
        let indexed = Arc::clone(&index);
        let copies = Cache::builder()
            .max_capacity(most)
            // It is not told of reads by the index.
            .eviction_policy(EvictionPolicy::lru())
            .eviction_listener(move |_, session: Arc<Session>, _| indexed.remove(&session))
            .build();
        Self { copies, index }
    }

    /// A copy, if it is at hand. One that is not may be there all the same.
    pub(super) fn at_hand(&self, session: SessionRef) -> Option<Arc<Session>> {
        self.index.get(session)
    }

    pub(super) fn get(&self, session: SessionRef) -> Option<Arc<Session>> {
        self.copies.get(&session)
    }

    /// Takes a copy in that is not here: its bucket's gate sees to that.
    pub(super) fn insert(&self, session: Arc<Session>) {
        // First: that takes another one out of the index, or this one if it comes back.
        self.copies.insert(session.reference(), Arc::clone(&session));
        self.index.insert(session);
    }

    pub(super) fn remove(&self, session: SessionRef) {
        self.copies.invalidate(&session);
        while let Some(copy) = self.index.get(session) {
            self.index.remove(&copy);
        }
    }

    pub(super) fn clear(&self) {
        self.copies.invalidate_all();
        // moka lets go of them by and by.
        for shard in 0..SHARDS {
            for copy in self.index.at(shard) {
                self.index.remove(&copy);
            }
        }
    }

    pub(super) fn sweep(&self) {
        self.copies.run_pending_tasks();
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

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use super::*;
    use crate::state::{Identity, Keys, Moment, Next, Origin};

    fn copy(name: &str) -> Arc<Session> {
        let origin = Origin {
            authenticated: Time::START,
            created: Time::START,
            identity: Identity::default(),
        };
        let next = Next::created(&origin, Arc::default(), Time::START, None, Moment::at(Time::START));
        Arc::new(Session::new(
            Keys::derive(&[7; 32]).session_ref("", name),
            origin,
            &next,
        ))
    }

    fn is_at_hand(near: &Near, session: &Arc<Session>) -> bool {
        let found = near.at_hand(session.reference());
        found.is_some_and(|found| Arc::ptr_eq(&found, session))
    }

    #[test]
    fn what_is_replaced_removed_or_cleared_is_not_at_hand() {
        let near = Near::new(10);
        let (old, new, other) = (copy("alice"), copy("alice"), copy("bob"));
        near.insert(Arc::clone(&old));
        assert!(is_at_hand(&near, &old));
        near.insert(Arc::clone(&new));
        near.insert(Arc::clone(&other));
        assert!(is_at_hand(&near, &new), "at once");
        near.remove(new.reference());
        assert!(near.at_hand(new.reference()).is_none() && near.get(new.reference()).is_none());
        near.insert(Arc::clone(&old));
        near.clear();
        assert!(near.at_hand(old.reference()).is_none() && near.at_hand(other.reference()).is_none());
        near.insert(Arc::clone(&other));
        near.sweep();
        assert!(is_at_hand(&near, &other), "it comes back");
    }

    #[test]
    fn no_more_are_at_hand_than_there_is_room_for() {
        let near = Near::new(10);
        let copies: Vec<_> = (0..1000).map(|number| copy(&number.to_string())).collect();
        for copy in &copies {
            near.insert(Arc::clone(copy));
        }
        near.sweep();
        let at_hand = copies.iter().filter(|copy| is_at_hand(&near, copy)).count();
        assert!((1..=10).contains(&at_hand), "{at_hand}");
        assert!(is_at_hand(&near, &copies[999]), "the youngest are");
    }
}
