//! How sessions begin, go on under another name, and end.

use std::collections::{BTreeMap, VecDeque};

use prost::Message as _;
use session_sidecar::rpc::proto::v1::{self, Actor, ClearedCause, EndReason, Limit};
use tonic::Code;

use super::{
    Violation, broken,
    limits::{FAR, Limits},
    model::{ALIAS, Trial},
    session::{Owed, Remembered, Session, Story},
    verbs::{Told, unfit},
};
use crate::history::{MS, Ns, ns};

impl Trial<'_> {
    pub(super) fn create(
        &mut self,
        request: &v1::CreateRequest,
        told: Told<'_, v1::CreateResponse>,
    ) -> Result<(), Violation> {
        let moment = self.moment;
        let Some(spec) = self.model.specs.get(request.policy.as_str()).cloned() else {
            return Ok(());
        };
        let own = |duration: &Option<prost_types::Duration>| duration.is_some().then(|| ns(duration));
        let limits = Limits::new(&spec, own(&request.idle_timeout), own(&request.absolute_timeout));
        let past = spec.enforced
            && (ns(&request.idle_for) >= limits.idle || ns(&request.authenticated_ago) >= limits.absolute);
        let content = request.encode_to_vec();
        let answered = match told {
            Ok(created) => {
                let status = created.session.as_ref().and_then(|session| session.status.as_ref());
                status.map(|status| status.session_ref.clone())
            }
            Err(refused) => refused.metadata.get("session_ref").cloned(),
        };
        if let (Some(reference), Ok(created)) = (&answered, &told) {
            self.learn(&request.tenant, &created.session_id, reference)?;
        }
        let resolved = self
            .resolve(&request.tenant, &request.session_id)
            .map(|(reference, _)| reference);
        let reference = answered.or(resolved).unwrap_or_default();
        let before = self.now(&reference)?.cloned();
        let cap = spec.cap.filter(|_| !request.subject.is_empty());
        let others = self.of_subject(&request.tenant, &request.subject, spec.name);
        match (told, before) {
            (Ok(created), Some(session)) if session.end.is_none() => {
                let same = session
                    .recall(&request.request_id, moment.now)
                    .is_some_and(|known| known.content == content);
                if request.request_id.is_empty() || !same {
                    return Err(broken("API", format!("{reference} is live and was created again")));
                }
                self.session(&reference, created.session.as_ref(), false)
            }
            (Ok(_), Some(session)) if !session.memory(moment.now).1 => {
                Err(broken("G5", format!("{reference} ended and was created again")))
            }
            (Ok(created), _) => {
                if past {
                    return Err(broken("G7", format!("{reference} was created past a limit")));
                }
                if self.live_count(true) >= self.model.caps.max_sessions {
                    return Err(broken(
                        "G11",
                        format!("{reference} was created over the cap of sessions"),
                    ));
                }
                self.supersede(cap, others, &created.superseded_refs)?;
                let now = moment.now;
                let mut session = Session {
                    reference: reference.clone(),
                    tenant: request.tenant.clone(),
                    subject: request.subject.clone(),
                    labels: request.labels.clone(),
                    created: now,
                    authenticated: now - ns(&request.authenticated_ago),
                    activity: now - ns(&request.idle_for),
                    absolute: now - ns(&request.authenticated_ago) + limits.absolute,
                    extended_until: -FAR,
                    extensions: 0,
                    version: 0,
                    event_version: 0,
                    idle_fired: 0,
                    absolute_fired: 0,
                    holds: BTreeMap::new(),
                    work_end: -FAR,
                    presence_end: None,
                    budget_from: None,
                    reports_input: false,
                    requests: Vec::new(),
                    end: None,
                    predecessor: String::new(),
                    changed: now,
                    owed: VecDeque::new(),
                    story: Story::default(),
                    noted: None,
                    forgotten: false,
                    alias_until: -FAR,
                    limits,
                };
                if !request.request_id.is_empty() {
                    let id = request.request_id.clone();
                    session.requests.push(Remembered {
                        id,
                        content,
                        at: now,
                        granted: None,
                    });
                }
                // Created inside a window: warned at once. Created after its end: noted, if the policy only observes.
                session.begin(moment);
                self.changed.insert(reference.clone(), session);
                self.session(&reference, created.session.as_ref(), false)
            }
            (Err(refused), before) => {
                let live = before.as_ref().is_some_and(|session| session.end.is_none());
                let looser = limits.own_idle.is_some_and(|own| own > spec.idle as Ns * MS)
                    || limits.own_absolute.is_some_and(|own| own > spec.absolute as Ns * MS);
                if looser && refused.code == Code::InvalidArgument && refused.field.ends_with("_timeout") {
                    return Ok(());
                }
                let right = match refused.reason.as_str() {
                    "SESSION_EXISTS" => live,
                    "SESSION_ENDED" => return self.refused_ended(&reference, refused),
                    "ALREADY_PAST_LIMIT" => past,
                    "REQUEST_ID_REUSED" => live && !request.request_id.is_empty(),
                    "SESSION_CAP" => self.live_count(false) >= self.model.caps.max_sessions,
                    "SUBJECT_CAP" => cap.is_some_and(|(most, end_oldest)| !end_oldest && others.len() >= most as usize),
                    _ => false,
                };
                if right { Ok(()) } else { Err(unfit("create", refused)) }
            }
        }
    }

    /// The cap of sessions of a subject: none over it, and the oldest give way.
    pub(super) fn supersede(
        &mut self,
        cap: Option<(u32, bool)>,
        others: Vec<String>,
        told: &[String],
    ) -> Result<(), Violation> {
        let Some((most, end_oldest)) = cap else {
            return if told.is_empty() {
                Ok(())
            } else {
                Err(broken(
                    "SUBJECT CAP",
                    "sessions were superseded without a cap".to_owned(),
                ))
            };
        };
        let over = (others.len() + 1).saturating_sub(most as usize);
        if !end_oldest {
            return if over == 0 {
                Ok(())
            } else {
                Err(broken(
                    "SUBJECT CAP",
                    format!("a subject has {} sessions, over its cap", others.len() + 1),
                ))
            };
        }
        let expected = others[..over].to_vec();
        let told = told.to_vec();
        let ages = |refs: &[String]| {
            let mut ages: Vec<_> = refs
                .iter()
                .map(|name| self.get(name).map(|session| session.created))
                .collect();
            ages.sort_unstable();
            ages
        };
        // Of two that are equally old either may go.
        if ages(&told) != ages(&expected) || told.iter().any(|name| !others.contains(name)) {
            return Err(broken(
                "SUBJECT CAP",
                format!("superseded {told:?}, expected {expected:?}"),
            ));
        }
        for reference in told {
            self.now(&reference)?;
            self.end_now(&reference, EndReason::Superseded, Actor::Policy, "", "");
        }
        Ok(())
    }

    pub(super) fn rotate(
        &mut self,
        request: &v1::RotateRequest,
        told: Told<'_, v1::RotateResponse>,
    ) -> Result<(), Violation> {
        let moment = self.moment;
        let now = moment.now;
        let content = request.encode_to_vec();
        let first = self.resolve(&request.tenant, &request.session_id).unwrap_or_default().0;
        // A retry names the id that is old by now.
        let direct = self
            .model
            .reference(&request.tenant, &request.session_id)
            .cloned()
            .unwrap_or_default();
        if let (Some(old), Ok(answer)) = (self.get(&direct), &told)
            && let Some(end) = old.end.clone().filter(|end| end.reason == EndReason::Rotated)
            && !request.request_id.is_empty()
            && self
                .get(&end.successor)
                .is_some_and(|session| session.requests.iter().any(|known| known.content == content))
        {
            let successor = end.successor.clone();
            if successor
                != answer
                    .session
                    .as_ref()
                    .and_then(|session| session.status.as_ref())
                    .map(|status| status.session_ref.clone())
                    .unwrap_or_default()
            {
                return Err(broken(
                    "API",
                    format!("{direct}: a retry of its Rotate gives another session"),
                ));
            }
            return Ok(());
        }
        let reference = first;
        let new = self
            .resolve(&request.tenant, &request.new_session_id)
            .map(|(reference, _)| reference);
        let new_session = match &new {
            Some(new) => self.now(new)?.cloned(),
            None => None,
        };
        let old = self.now(&reference)?.cloned().filter(|session| session.end.is_none());
        let answer = match (told, &old) {
            (Ok(answer), Some(_)) => answer,
            (Ok(_), None) => return Err(broken("G5", format!("{reference} is not live and was rotated"))),
            (Err(refused), None) => return self.not_live(&reference, &refused.reason),
            (Err(refused), Some(_)) => {
                let live = new_session.as_ref().is_some_and(|session| session.end.is_none());
                let right = match refused.reason.as_str() {
                    "SESSION_EXISTS" => live,
                    "NEW_SESSION_ENDED" => new_session.as_ref().is_some_and(|session| session.end.is_some()),
                    "SUBJECT_CAP" => request.subject.is_some(),
                    "REQUEST_ID_REUSED" => !request.request_id.is_empty(),
                    "ALREADY_PAST_LIMIT" => request.authenticated_ago.is_some(),
                    _ => false,
                };
                return if right { Ok(()) } else { Err(unfit("rotate", refused)) };
            }
        };
        let Some(old) = old else { return Ok(()) };
        if new_session.is_some_and(|session| !session.memory(now).1) {
            return Err(broken(
                "G5",
                "a session that was there already was made by a Rotate".to_owned(),
            ));
        }
        let new = answer
            .session
            .as_ref()
            .and_then(|session| session.status.as_ref())
            .map(|status| status.session_ref.clone());
        let new = new.unwrap_or_default();
        self.learn(&request.tenant, &answer.session_id, &new)?;
        let mut session = old.clone();
        let subject = request.subject.clone().unwrap_or_else(|| old.subject.clone());
        let subject_changes = subject != old.subject;
        let again = request.authenticated_ago.is_some();
        session.reference.clone_from(&new);
        session.predecessor.clone_from(&reference);
        session.subject = subject;
        session.extensions = 0;
        (session.version, session.event_version) = (0, 0);
        (session.idle_fired, session.absolute_fired) = (0, 0);
        session.owed.clear();
        session.story = Story::default();
        session.changed = now;
        if again {
            let spec = self
                .model
                .specs
                .get(old.limits.spec.name)
                .cloned()
                .unwrap_or_else(|| old.limits.spec.clone());
            session.limits = Limits::new(&spec, old.limits.own_idle, old.limits.own_absolute);
            session.authenticated = now - ns(&request.authenticated_ago);
            session.absolute = session.authenticated + session.limits.absolute;
            session.activity = now;
            session.extended_until = -FAR;
            session.budget_from = None;
            session.noted = None;
        }
        if !request.request_id.is_empty() {
            let id = request.request_id.clone();
            session.requests.push(Remembered {
                id,
                content,
                at: now,
                granted: None,
            });
        }
        let cap = old
            .limits
            .spec
            .cap
            .filter(|_| subject_changes && !session.subject.is_empty());
        let others = self.of_subject(&session.tenant, &session.subject, old.limits.spec.name);
        self.supersede(cap, others, &answer.superseded_refs)?;
        session.begin(moment);
        self.changed.insert(new.clone(), session);
        if let Some(old) = self.get_mut(&reference) {
            for (limit, fired) in [(Limit::Idle, old.idle_fired), (Limit::Absolute, old.absolute_fired)] {
                if fired > 0 {
                    old.owed.push_back(Owed::Cleared {
                        limit,
                        cause: ClearedCause::Rotated,
                        expire: Ns::MIN,
                    });
                }
            }
            old.alias_until = if again || subject_changes { -FAR } else { now + ALIAS };
        }
        self.end_now(&reference, EndReason::Rotated, Actor::System, "", &new);
        if let Some(old) = self.get(&reference) {
            self.end(old, answer.previous_end.as_ref())?;
        }
        self.session(&new, answer.session.as_ref(), false)
    }

    pub(super) fn end_verb(
        &mut self,
        request: &v1::EndRequest,
        told: Told<'_, v1::EndResponse>,
    ) -> Result<(), Violation> {
        let now = self.moment.now;
        let (reference, alias) = self.resolve(&request.tenant, &request.session_id).unwrap_or_default();
        let content = [b"end".as_slice(), &request.encode_to_vec()].concat();
        let answer = match told {
            Ok(answer) => answer,
            Err(refused) if refused.reason == "REQUEST_ID_REUSED" && !request.request_id.is_empty() => return Ok(()),
            Err(refused) => {
                if self.now(&reference)?.is_some_and(|session| session.memory(now).0) {
                    return Err(broken(
                        "G10",
                        format!("{reference}: End is refused: {} {}", refused.code, refused.reason),
                    ));
                }
                return self.not_live(&reference, &refused.reason);
            }
        };
        let Some(session) = self.now(&reference)? else {
            return Err(broken("G10", "a session that was never issued was ended".to_owned()));
        };
        let was_live = session.end.is_none();
        let retry = !request.request_id.is_empty() && session.requests.iter().any(|known| known.content == content);
        if was_live {
            let revoked = request.reason() == EndReason::Revoked;
            let (reason, actor) = if revoked {
                (EndReason::Revoked, Actor::Admin)
            } else {
                (EndReason::Logout, Actor::User)
            };
            if !request.request_id.is_empty() {
                let id = request.request_id.clone();
                session.requests.push(Remembered {
                    id,
                    content,
                    at: now,
                    granted: None,
                });
            }
            self.end_now(&reference, reason, actor, &request.actor_id, "");
        }
        if answer.ended_now != (was_live || retry) {
            return Err(broken("G6", format!("{reference}: ended_now is {}", answer.ended_now)));
        }
        let Some(session) = self.get(&reference) else {
            return Ok(());
        };
        self.end(session, answer.end.as_ref())?;
        self.status(&reference, &answer.status, alias)
    }
}
