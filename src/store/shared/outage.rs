//! While the store is away.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{HELD_FOR, Session, Shared};
use crate::{state::SessionRef, time::Time};

/// What is served while the store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outage {
    /// Sessions that were known to live, for a minute at most.
    Degraded,
    /// Nothing.
    FailClosed,
    /// Sessions that were known to live, until their time is over.
    FailOpen,
}

/// How much activity is remembered until the store is back.
const MOST_UNTOLD: usize = 100_000;

impl Shared {
    /// A session that was known to live when the store went away, if it may still be served.
    pub(super) fn last_known(&self, session: SessionRef, now: Time) -> Option<Arc<Session>> {
        let away = now.since(Time::from_nanos(self.answered.load(Ordering::Acquire)));
        match self.outage {
            Outage::FailClosed => return None,
            Outage::Degraded if away > HELD_FOR => return None,
            Outage::Degraded | Outage::FailOpen => {}
        }
        let known = self.near.get(session)?;
        let live = known.read(|view| view.rest.end().is_none() && view.plain_deadlines().expire().0 > now);
        let young = known
            .lease()
            .is_some_and(|lease| now.since(lease.read_at) < HELD_FOR + Duration::from_secs(60));
        (live && (young || self.outage == Outage::FailOpen)).then_some(known)
    }

    /// Remembers activity until the store is back.
    pub(super) fn untold(&self, session: SessionRef, at: Time) {
        let mut untold = self.untold.lock();
        if untold.len() >= MOST_UNTOLD && !untold.contains_key(&session) {
            self.meter.untold_lost.inc();
            return;
        }
        let known = untold.entry(session).or_insert(at);
        *known = (*known).max(at);
    }

    /// Whether there is activity that was not told yet.
    #[must_use]
    pub fn has_untold(&self) -> bool {
        self.telling_untold.load(Ordering::Acquire) || !self.untold.lock().is_empty()
    }

    /// All that was taken is told, or remembered again.
    pub fn told(&self) {
        self.telling_untold.store(false, Ordering::Release);
    }

    /// The activity that was not told, to be told now.
    pub fn take_untold(&self) -> Vec<(SessionRef, Time)> {
        let mut untold = self.untold.lock();
        self.telling_untold.store(!untold.is_empty(), Ordering::Release);
        std::mem::take(&mut *untold).into_iter().collect()
    }

    /// Whether the store answers.
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(*self.link.status().borrow(), super::link::Status::Up { .. }) && self.joined.load(Ordering::Acquire)
    }
}
