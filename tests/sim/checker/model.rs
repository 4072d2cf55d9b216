//! All sessions as they must be, and a trial: what they would be if something happened next. A trial that fits what was seen
//! becomes the model.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
};

use session_sidecar::rpc::proto::v1::{Actor, EndReason};

use super::{
    Violation, broken,
    session::{End, Moment, Session},
};
use crate::{
    history::{Ns, SECOND},
    policies::{Spec, specs},
    world::WALL_START,
};

/// How long an old id stands for the successor.
pub(super) const ALIAS: Ns = 5 * SECOND;

pub(super) struct Model {
    pub(super) sessions: BTreeMap<String, Session>,
    ids: BTreeMap<(String, String), String>,
    subjects: BTreeMap<(String, String), BTreeSet<String>>,
    pub(super) specs: BTreeMap<&'static str, Rc<Spec>>,
    pub(super) caps: Caps,
    pub(super) graves: Graves,
    pub(super) wall: i128,
}

/// How much fits.
#[derive(Clone, Copy, Default)]
pub(super) struct Caps {
    pub(super) max_sessions: usize,
    pub(super) max_tombstones: usize,
}

/// The tombstones, in the order of the ends: at the cap the oldest goes before its time.
#[derive(Default)]
pub(super) struct Graves {
    /// Each with the time until which it should be remembered.
    order: VecDeque<(String, Ns)>,
    pub(super) dropped: u64,
    /// Until when the latest of those that were dropped should have been remembered.
    dropped_until: Ns,
}

impl Graves {
    /// Whether who is unknown may have ended all the same.
    pub(super) fn forgot_early(&self, now: Ns) -> bool {
        self.dropped > 0 && self.dropped_until > now
    }
}

impl Model {
    pub(super) fn new(caps: Caps, reloads: u32, wall: i128) -> Self {
        let mut model = Self {
            sessions: BTreeMap::new(),
            ids: BTreeMap::new(),
            subjects: BTreeMap::new(),
            specs: BTreeMap::new(),
            caps,
            graves: Graves::default(),
            wall,
        };
        model.reload(reloads);
        model
    }

    pub(super) fn reload(&mut self, reloads: u32) {
        self.specs = specs(reloads)
            .into_iter()
            .map(|spec| (spec.name, Rc::new(spec)))
            .collect();
    }

    pub(super) fn adopt(&mut self, changed: BTreeMap<String, Session>, ids: Vec<((String, String), String)>) {
        for (reference, session) in changed {
            if !session.subject.is_empty() {
                let subject = (session.tenant.clone(), session.subject.clone());
                self.subjects.entry(subject).or_default().insert(reference.clone());
            }
            self.sessions.insert(reference, session);
        }
        self.ids.extend(ids);
    }

    /// An end was told: its tombstone takes a place, and at the cap that of the oldest. Answers whether one had to go early.
    pub(super) fn bury(&mut self, reference: &str, now: Ns) -> bool {
        let forget_at = |session: &Session| session.memory_until();
        let Some(until) = self.sessions.get(reference).and_then(forget_at) else {
            return false;
        };
        while self.graves.order.front().is_some_and(|(_, until)| *until <= now) {
            self.graves.order.pop_front();
        }
        let mut dropped = false;
        if self.graves.order.len() >= self.caps.max_tombstones
            && let Some((oldest, until)) = self.graves.order.pop_front()
        {
            self.graves.dropped += 1;
            self.graves.dropped_until = self.graves.dropped_until.max(until);
            dropped = true;
            // Its name may have been forgotten, used again and ended again: that one stays.
            let oldest = self
                .sessions
                .get_mut(&oldest)
                .filter(|session| forget_at(session) == Some(until));
            if let Some(oldest) = oldest {
                oldest.forgotten = true;
            }
        }
        self.graves.order.push_back((reference.to_owned(), until));
        dropped
    }

    pub(super) fn reference(&self, tenant: &str, id: &str) -> Option<&String> {
        self.ids.get(&(tenant.to_owned(), id.to_owned()))
    }
}

/// What would be.
#[derive(Clone)]
pub(super) struct Trial<'a> {
    pub(super) model: &'a Model,
    pub(super) moment: Moment,
    pub(super) changed: BTreeMap<String, Session>,
    pub(super) ids: Vec<((String, String), String)>,
}

impl<'a> Trial<'a> {
    pub(super) fn new(model: &'a Model, moment: Moment) -> Self {
        Self {
            model,
            moment,
            changed: BTreeMap::new(),
            ids: Vec::new(),
        }
    }

    pub(super) fn get(&self, reference: &str) -> Option<&Session> {
        self.changed
            .get(reference)
            .or_else(|| self.model.sessions.get(reference))
    }

    pub(super) fn get_mut(&mut self, reference: &str) -> Option<&mut Session> {
        if !self.changed.contains_key(reference) {
            let session = self.model.sessions.get(reference)?.clone();
            self.changed.insert(reference.to_owned(), session);
        }
        self.changed.get_mut(reference)
    }

    /// The session after time has passed for it, if there ever was one.
    pub(super) fn now(&mut self, reference: &str) -> Result<Option<&mut Session>, Violation> {
        let moment = self.moment;
        let Some(session) = self.get_mut(reference) else {
            return Ok(None);
        };
        session.pass_time(moment)?;
        session.settle_holds(moment.now);
        Ok(Some(session))
    }

    /// Notes which ref an id has: always the same.
    pub(super) fn learn(&mut self, tenant: &str, id: &str, reference: &str) -> Result<(), Violation> {
        if id.is_empty() {
            return Ok(());
        }
        if let Some(known) = self.model.reference(tenant, id)
            && known != reference
        {
            return Err(broken("G17", format!("an id has two refs, {known} and {reference}")));
        }
        self.ids
            .push(((tenant.to_owned(), id.to_owned()), reference.to_owned()));
        Ok(())
    }

    fn reference(&self, tenant: &str, id: &str) -> Option<String> {
        let fresh = self.ids.iter().find(|((of, known), _)| of == tenant && known == id);
        let fresh = fresh.map(|(_, reference)| reference);
        fresh.or_else(|| self.model.reference(tenant, id)).cloned()
    }

    /// Which session an id names now, and whether by an alias.
    pub(super) fn resolve(&self, tenant: &str, id: &str) -> Option<(String, bool)> {
        let mut reference = self.reference(tenant, id)?;
        let mut alias = false;
        while let Some(session) = self.get(&reference)
            && let Some(end) = &session.end
            && end.reason == EndReason::Rotated
            && !session.forgotten
            && self.moment.now < session.alias_until
        {
            reference = end.successor.clone();
            alias = true;
        }
        Some((reference, alias))
    }

    /// The live sessions of a subject under a policy, the oldest first.
    pub(super) fn of_subject(&self, tenant: &str, subject: &str, policy: &str) -> Vec<String> {
        let known = self.model.subjects.get(&(tenant.to_owned(), subject.to_owned()));
        let mut all: BTreeSet<&String> = known.into_iter().flatten().collect();
        all.extend(self.changed.keys());
        let mut live: Vec<_> = all
            .into_iter()
            .filter_map(|reference| self.get(reference))
            .filter(|session| session.tenant == tenant && session.subject == subject)
            .filter(|session| session.limits.spec.name == policy && session.is_live(self.moment))
            .map(|session| (session.created, session.reference.clone()))
            .collect();
        live.sort();
        live.into_iter().map(|(_, reference)| reference).collect()
    }

    /// How many sessions live; at least, or at most, for those whose time is just over may be counted or not.
    pub(super) fn live_count(&self, at_least: bool) -> usize {
        let model = self
            .model
            .sessions
            .keys()
            .filter(|reference| !self.changed.contains_key(*reference));
        let sessions = model
            .filter_map(|reference| self.model.sessions.get(reference))
            .chain(self.changed.values());
        sessions
            .filter(|session| session.end.is_none() && (!at_least || session.is_live(self.moment)))
            .count()
    }

    /// A timestamp of the wire, as of now, in virtual time.
    pub(super) fn time(&self, timestamp: &Option<prost_types::Timestamp>) -> Ns {
        let Some(timestamp) = timestamp else { return Ns::MIN };
        let nanos = i128::from(timestamp.seconds) * 1_000_000_000 + i128::from(timestamp.nanos);
        (nanos - WALL_START - self.model.wall) as Ns
    }

    /// Ends a live session by a command.
    pub(super) fn end_now(
        &mut self,
        reference: &str,
        reason: EndReason,
        actor: Actor,
        actor_id: &str,
        successor: &str,
    ) {
        let now = self.moment.now;
        if let Some(session) = self.get_mut(reference) {
            session.owed.push_back(super::session::Owed::Ended);
            session.end = Some(End {
                reason,
                actor,
                at: now,
                noticed: now,
                successor: successor.to_owned(),
                actor_id: actor_id.to_owned(),
            });
        }
    }
}
