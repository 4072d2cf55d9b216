//! What an answer says of a session against what it must be.

use session_sidecar::rpc::proto::v1::{self, Limit, SessionState};

use super::{Violation, broken, limits::FAR, model::Trial, session::Session, verbs::Told};
use crate::history::{clock, ns, span};

impl Trial<'_> {
    pub(super) fn check(
        &mut self,
        request: &v1::CheckRequest,
        told: Told<'_, v1::CheckResponse>,
    ) -> Result<(), Violation> {
        let Ok(answer) = told else {
            return Err(broken("API", "a good question was refused".to_owned()));
        };
        match &request.name {
            Some(v1::check_request::Name::SessionId(id)) => {
                let (reference, alias) = self.resolve(&request.tenant, id).unwrap_or_default();
                self.question(&request.tenant, &reference, alias, answer.session.as_ref(), id)
            }
            Some(v1::check_request::Name::SessionRef(reference)) => {
                let of_tenant = self
                    .get(reference)
                    .is_some_and(|session| session.tenant == request.tenant);
                let session = answer.session.as_ref();
                if !of_tenant {
                    let state = session
                        .and_then(|session| session.status.as_ref())
                        .map(v1::SessionStatus::state);
                    return if state == Some(SessionState::Unknown) {
                        Ok(())
                    } else {
                        Err(broken("G17", format!("another tenant's session is {state:?}")))
                    };
                }
                self.question(&request.tenant, reference, false, session, "")
            }
            None => {
                for (name, outcome) in request.sessions.iter().zip(&answer.outcomes) {
                    let Some(v1::session_name::Name::SessionId(id)) = &name.name else {
                        continue;
                    };
                    let Some(v1::check_outcome::Outcome::Status(status)) = &outcome.outcome else {
                        return Err(broken("API", format!("a question was answered with {outcome:?}")));
                    };
                    let (reference, alias) = self.resolve(&request.tenant, id).unwrap_or_default();
                    self.question_status(&request.tenant, &reference, alias, status, id)?;
                }
                Ok(())
            }
        }
    }

    pub(super) fn question(
        &mut self,
        tenant: &str,
        reference: &str,
        alias: bool,
        told: Option<&v1::Session>,
        id: &str,
    ) -> Result<(), Violation> {
        let Some(status) = told.and_then(|session| session.status.as_ref()) else {
            return Err(broken("API", "an answer without status".to_owned()));
        };
        if self.question_status(tenant, reference, alias, status, id)? {
            return self.session(reference, told, alias);
        }
        Ok(())
    }

    /// Answers whether the session is known.
    pub(super) fn question_status(
        &mut self,
        tenant: &str,
        reference: &str,
        alias: bool,
        status: &v1::SessionStatus,
        id: &str,
    ) -> Result<bool, Violation> {
        let now = self.moment.now;
        if status.alias && !alias {
            return Err(broken(
                "G5",
                format!("{reference}: an old id stands for its successor after the grace"),
            ));
        }
        self.learn(tenant, id, &status.session_ref)
            .or_else(|error| if alias { Ok(()) } else { Err(error) })?;
        let (must, may) = match self.now(reference)? {
            Some(session) => session.memory(now),
            None => (false, true),
        };
        if status.state() != SessionState::Unknown {
            if !must && self.get(reference).is_none() {
                return Err(broken(
                    "G10",
                    format!("an id that was never issued is {:?}", status.state()),
                ));
            }
            self.status(reference, &Some(status.clone()), alias)?;
            return Ok(true);
        }
        // Of one that was only observed, whoever forgets it knows that it has not ended.
        let observed = self.get(reference).is_some_and(|session| session.observed_out());
        let forgot_early = self.model.graves.forgot_early(now);
        if status.may_have_ended != forgot_early && !(observed && !status.may_have_ended) {
            return Err(broken(
                "G10",
                format!(
                    "{reference} is UNKNOWN and may_have_ended is {}: {} tombstones were dropped at the cap",
                    status.may_have_ended, self.model.graves.dropped
                ),
            ));
        }
        if must {
            return Err(broken(
                "G10",
                format!("{reference} is UNKNOWN within its tombstone time, or while it lives"),
            ));
        }
        let _ = may;
        Ok(false)
    }

    /// Compares a whole session with what it must be.
    pub(super) fn session(
        &mut self,
        reference: &str,
        told: Option<&v1::Session>,
        alias: bool,
    ) -> Result<(), Violation> {
        let moment = self.moment;
        let Some(told) = told else {
            return Err(broken("API", "no session in the answer".to_owned()));
        };
        self.status(reference, &told.status, alias)?;
        let Some(session) = self.get(reference) else {
            return Ok(());
        };
        if session.end.is_some() {
            return self.end(session, told.end.as_ref());
        }
        let plain = session.plain(moment.now);
        let activity = self.time(&told.last_activity_time);
        if activity != session.activity || activity > moment.now {
            let off = span(activity - session.activity);
            return Err(broken("G8", format!("{reference}: last activity is {off} off")));
        }
        let mut holds: Vec<_> = told
            .holds
            .iter()
            .map(|hold| (hold.hold_id.clone(), self.time(&hold.expire_time)))
            .collect();
        holds.sort();
        let expected: Vec<_> = session
            .holds
            .iter()
            .map(|(id, hold)| (id.clone(), hold.until))
            .collect();
        if holds != expected {
            return Err(broken(
                "G1",
                format!("{reference}: holds {holds:?}, expected {expected:?}"),
            ));
        }
        let facts = [
            ("subject", told.subject == session.subject),
            ("tenant", told.tenant == session.tenant),
            ("labels", told.labels == session.labels),
            ("policy", told.policy == session.limits.spec.name),
            ("extensions", told.extensions == session.extensions),
            (
                "absolute_expire_time",
                self.time(&told.absolute_expire_time) == session.absolute,
            ),
            (
                "authentication_time",
                self.time(&told.authentication_time) == session.authenticated,
            ),
            (
                "idle_timeout",
                session.limits.idle >= FAR || ns(&told.idle_timeout) == session.limits.idle,
            ),
            (
                "absolute_timeout",
                ns(&told.absolute_timeout) == session.limits.absolute,
            ),
            ("predecessor_ref", told.predecessor_ref == session.predecessor),
            (
                "idle_expire_time",
                session.limits.idle >= FAR
                    || [plain.idle, session.deadlines(moment).idle].contains(&self.time(&told.idle_expire_time)),
            ),
            (
                "presence_expire_time",
                [plain.presence, session.deadlines(moment).presence]
                    .contains(&told.presence_expire_time.as_ref().map(|at| self.time(&Some(*at)))),
            ),
        ];
        for (fact, right) in facts {
            if !right {
                return Err(broken(
                    "G7",
                    format!("{reference}: {fact} is wrong in {told:?}; expected {session:?}"),
                ));
            }
        }
        Ok(())
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
        let expected = if session.shows_expiring(moment) {
            SessionState::Expiring
        } else {
            SessionState::Active
        };
        if state != expected && session.enforced() {
            return Err(broken("G3", format!("{name} is {state:?}, expected {expected:?}")));
        }
        let next = status.next_warning_time.as_ref().map(|at| self.time(&Some(*at)));
        let Some(session) = self.get_mut(reference) else {
            return Ok(());
        };
        let due = session.next_warning(moment);
        if next != due {
            let (next, due) = (next.map(clock), due.map(clock));
            let name = &session.reference;
            return Err(broken(
                "G3",
                format!("{name}: the next warning is told for {next:?}, expected {due:?}"),
            ));
        }
        let max = session.limits.spec.max_extensions;
        let can = limit != Limit::Absolute && max.is_none_or(|max| session.extensions < max);
        let name = &session.reference;
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
}
