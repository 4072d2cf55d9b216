//! All sessions as they must be, and a trial: what they would be if something happened next. A trial that fits what was seen
//! becomes the model.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use session_sidecar::rpc::proto::v1::{self, Actor, EndReason, Limit, SessionState};

use super::{
    Violation, broken,
    session::{End, Moment, Session},
};
use crate::{
    history::{Ns, SECOND, clock, ns, span},
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
    pub(super) max_sessions: usize,
    pub(super) wall: i128,
}

impl Model {
    pub(super) fn new(max_sessions: usize, reloads: u32, wall: i128) -> Self {
        let mut model = Self {
            sessions: BTreeMap::new(),
            ids: BTreeMap::new(),
            subjects: BTreeMap::new(),
            specs: BTreeMap::new(),
            max_sessions,
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

    /// Compares a status with the session that it must be of.
    pub(super) fn status(
        &mut self,
        reference: &str,
        status: &Option<v1::SessionStatus>,
        alias: bool,
    ) -> Result<(), Violation> {
        let Some(status) = status else {
            return Err(broken("API", "an answer without status".to_owned()));
        };
        let moment = self.moment;
        if status.session_ref != reference {
            return Err(broken(
                "G17",
                format!("an answer about {} where {reference} was meant", status.session_ref),
            ));
        }
        if self.time(&status.server_time) != moment.now {
            return Err(broken(
                "G14",
                format!("server_time is {}", clock(self.time(&status.server_time))),
            ));
        }
        if status.alias != alias {
            return Err(broken(
                "API",
                format!("{reference}: alias is {}, expected {alias}", status.alias),
            ));
        }
        let expire_time = self.time(&status.expire_time);
        let Some(session) = self.get_mut(reference) else {
            return Err(broken(
                "G10",
                format!("{reference} was never issued and is {:?}", status.state()),
            ));
        };
        let name = &session.reference;
        let state = status.state();
        if let Some(end) = &session.end {
            if state != SessionState::Ended {
                return Err(broken(
                    "G5",
                    format!("{name} ended ({:?}) and is {state:?}", end.reason),
                ));
            }
            return Ok(());
        }
        if state == SessionState::Ended {
            return Err(broken("G1", format!("{name} is told to be ended; it should live")));
        }
        let (expire, limit) = session.deadlines(moment).expire();
        let left = (expire - moment.now).max(0);
        if ns(&status.expires_in) != left || status.limit() != limit {
            let (told, by) = (ns(&status.expires_in), status.limit());
            let guarantee = if expire_time > session.absolute {
                "G7"
            } else if told > left {
                "G2"
            } else {
                "G1"
            };
            return Err(broken(
                guarantee,
                format!(
                    "{name} expires in {} by {by:?}; it should be {} by {limit:?}",
                    span(told),
                    span(left)
                ),
            ));
        }
        if expire_time != expire {
            return Err(broken(
                "G14",
                format!("{name}: expire_time {} is not {}", clock(expire_time), clock(expire)),
            ));
        }
        // While expiries are held, a session whose time is over is not simply active.
        let over = session.plain(moment.now).expire().0 <= moment.now;
        let expected = if session.is_expiring() || over {
            SessionState::Expiring
        } else {
            SessionState::Active
        };
        if state != expected && session.enforced() {
            return Err(broken("G3", format!("{name} is {state:?}, expected {expected:?}")));
        }
        let max = session.limits.spec.max_extensions;
        let can = limit != Limit::Absolute && max.is_none_or(|max| session.extensions < max);
        if status.can_extend != can && limit != Limit::Presence && session.enforced() {
            return Err(broken("API", format!("{name}: can_extend is {}", status.can_extend)));
        }
        if status.version < session.version {
            return Err(broken(
                "API",
                format!(
                    "{name}: version went back from {} to {}",
                    session.version, status.version
                ),
            ));
        }
        session.version = status.version;
        Ok(())
    }

    /// Compares an end with the one that the session had.
    pub(super) fn end(&self, session: &Session, told: Option<&v1::SessionEnd>) -> Result<(), Violation> {
        let name = &session.reference;
        let Some(end) = &session.end else {
            return Err(broken("G1", format!("{name} has an end and should live")));
        };
        let Some(told) = told else {
            return Err(broken("G10", format!("{name}: the end is missing")));
        };
        let at = self.time(&told.end_time);
        if told.reason() != end.reason
            || told.actor() != end.actor
            || told.successor_ref != end.successor
            || told.actor_id != end.actor_id
        {
            return Err(broken("G6", format!("{name} ended {told:?}, expected {end:?}")));
        }
        if at != end.at {
            return Err(broken(
                "G2",
                format!("{name} ended at {}, told {}", clock(end.at), clock(at)),
            ));
        }
        Ok(())
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
