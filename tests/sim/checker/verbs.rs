//! Each verb: what its answer must be, and what it does to the session.

use std::collections::{BTreeMap, VecDeque};

use prost::Message as _;
use session_sidecar::rpc::proto::v1::{
    self, Actor, ClearedCause, EndReason, HoldKind, Limit, SessionState, TouchResult,
};
use tonic::Code;

use super::{
    Violation, broken,
    limits::{self, FAR, Limits, hold_limits},
    model::{ALIAS, Trial},
    rules,
    session::{Hold, Owed, Remembered, Session},
};
use crate::history::{Answer, Call, MS, Ns, Refused, Request, ns, span};

type Told<'a, T> = Result<&'a T, &'a Refused>;

impl Trial<'_> {
    /// Applies a call to the trial.
    pub(super) fn call(&mut self, call: &Call) -> Result<(), Violation> {
        if let Err(refused) = &call.answer
            && refused.code == Code::Unimplemented
        {
            return Ok(());
        }
        if let Some(field) = call.bad {
            return match &call.answer {
                Err(refused) if refused.code == Code::InvalidArgument && refused.field.starts_with(field) => Ok(()),
                other => Err(broken(
                    "BAD INPUT",
                    format!("{field} is bad, and the answer is {other:?}"),
                )),
            };
        }
        let tenant = tenant_of(&call.request);
        let own = call.tenants.iter().any(|own| own == tenant);
        let denied = matches!(&call.answer, Err(refused) if refused.code == Code::PermissionDenied);
        if own == denied && !matches!(call.request, Request::Batch(_)) {
            return Err(broken(
                "G17",
                format!(
                    "a caller of {:?} names tenant {tenant:?}: {:?}",
                    call.tenants, call.answer
                ),
            ));
        }
        if denied {
            return Ok(());
        }
        macro_rules! told {
            ($kind:ident) => {
                match &call.answer {
                    Ok(Answer::$kind(answer)) => Ok(answer),
                    Err(refused) => Err(refused),
                    Ok(_) => return Err(broken("API", "an answer of another verb".to_owned())),
                }
            };
        }
        match &call.request {
            Request::Create(request) => self.create(request, told!(Create)),
            Request::Touch(request) => match told!(Touch) {
                Ok(answer) => self.touch(request, Ok(answer)),
                Err(refused) => self.touch(request, Err((refused.code, &refused.reason))),
            },
            Request::Batch(request) => self.batch(request, told!(Batch)),
            Request::Check(request) => self.check(request, told!(Check)),
            Request::Extend(request) => self.extend(request, told!(Extend)),
            Request::Hold(request) => self.hold(request, told!(Hold)),
            Request::Release(request) => self.release(request, told!(Release)),
            Request::Rotate(request) => self.rotate(request, told!(Rotate)),
            Request::End(request) => self.end_verb(request, told!(End)),
        }
    }

    fn create(&mut self, request: &v1::CreateRequest, told: Told<'_, v1::CreateResponse>) -> Result<(), Violation> {
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
                if self.live_count(true) >= self.model.max_sessions {
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
                    "SESSION_CAP" => self.live_count(false) >= self.model.max_sessions,
                    "SUBJECT_CAP" => cap.is_some_and(|(most, end_oldest)| !end_oldest && others.len() >= most as usize),
                    _ => false,
                };
                if right { Ok(()) } else { Err(unfit("create", refused)) }
            }
        }
    }

    /// The cap of sessions of a subject: none over it, and the oldest give way.
    fn supersede(&mut self, cap: Option<(u32, bool)>, others: Vec<String>, told: &[String]) -> Result<(), Violation> {
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

    fn batch(
        &mut self,
        request: &v1::BatchTouchRequest,
        told: Told<'_, v1::BatchTouchResponse>,
    ) -> Result<(), Violation> {
        let Ok(answer) = told else {
            return Err(broken("API", "a good batch was refused".to_owned()));
        };
        if answer.outcomes.len() != request.touches.len() {
            return Err(broken("API", "not one outcome for each touch".to_owned()));
        }
        for (touch, outcome) in request.touches.iter().zip(&answer.outcomes) {
            match &outcome.outcome {
                Some(v1::touch_outcome::Outcome::Touch(touched)) => self.touch(touch, Ok(touched))?,
                Some(v1::touch_outcome::Outcome::Error(error)) => {
                    self.touch(touch, Err((Code::from(error.code), &error.reason)))?;
                    if error.end.is_some()
                        && let Some(session) = self.get(&error.session_ref)
                    {
                        self.end(session, error.end.as_ref())?;
                    }
                }
                None => return Err(broken("API", "an empty outcome".to_owned())),
            }
        }
        Ok(())
    }

    fn touch(
        &mut self,
        touch: &v1::TouchRequest,
        told: Result<&v1::TouchResponse, (Code, &String)>,
    ) -> Result<(), Violation> {
        let moment = self.moment;
        let known = self.resolve(&touch.tenant, &touch.session_id);
        let (reference, alias) = known.unwrap_or_default();
        let answer = match told {
            Ok(answer) => answer,
            Err((_, reason)) => {
                if reason == "READ_ONLY_SESSION" {
                    let method = touch
                        .hints
                        .as_ref()
                        .map(|hints| hints.method.as_str())
                        .unwrap_or_default();
                    let live = self
                        .now(&reference)?
                        .is_some_and(|session| session.end.is_none() && session.limits.spec.passive);
                    let writes = !matches!(method, "" | "GET" | "HEAD" | "OPTIONS");
                    return if live && writes {
                        Ok(())
                    } else {
                        Err(broken("API", format!("touch refused as {reason}")))
                    };
                }
                return self.not_live(&reference, reason);
            }
        };
        let Some(session) = self.now(&reference)? else {
            return Err(broken("G10", "a session that was never issued was touched".to_owned()));
        };
        if session.end.is_some() {
            return Err(broken("G5", format!("{reference} ended and was touched")));
        }
        let verdict = rules::judge(&session.limits.spec, touch, session.reports_input);
        let before = session.plain(moment.now);
        let mut expected = TouchResult::Ignored;
        if verdict.counts {
            expected = if session.active(moment.now - ns(&touch.idle_for)) {
                TouchResult::Counted
            } else {
                TouchResult::Stale
            };
        }
        if answer.result() != expected || answer.counted != (expected == TouchResult::Counted) {
            let guarantee = if expected == TouchResult::Ignored { "G9" } else { "G8" };
            return Err(broken(
                guarantee,
                format!(
                    "{reference}: the touch was {:?}, expected {expected:?}",
                    answer.result()
                ),
            ));
        }
        if answer.rule != verdict.rule {
            return Err(broken(
                "API",
                format!("{reference}: rule {:?}, expected {:?}", answer.rule, verdict.rule),
            ));
        }
        if expected == TouchResult::Counted {
            let expiring = expiring(&answer.status);
            session.reports_input |= touch.hints.as_ref().is_some_and(|hints| hints.input_report);
            session.extensions = 0;
            self.adopt_policy(&reference, ns(&touch.idle_for));
            self.counted(&reference, before, ClearedCause::Touched, verdict.user, expiring);
        }
        self.status(&reference, &answer.status, alias)
    }

    /// A newer revision of the policy reaches a session.
    fn adopt_policy(&mut self, reference: &str, ago: Ns) {
        let now = self.moment.now;
        let name = self.get(reference).map(|session| session.limits.spec.name);
        let newest = name.and_then(|name| self.model.specs.get(name)).cloned();
        let (Some(spec), Some(session)) = (newest, self.get_mut(reference)) else {
            return;
        };
        if spec.revision <= session.limits.spec.revision {
            return;
        }
        // The absolute deadline never moves later, and not nearer than one idle window from now.
        let mut limits = Limits::new(&spec, session.limits.own_idle, session.limits.own_absolute);
        // Activity that is told late brings no limits by which the session would be over, or warned of, already.
        if ago >= limits.idle / 2 {
            return;
        }
        let soonest = (now - session.authenticated).saturating_add(limits.idle);
        limits.shorten_absolute(limits.absolute.max(soonest).min(session.limits.absolute));
        let before = session.clone();
        session.idle_fired = limits::still_told(&session.limits.idle_points, session.idle_fired, &limits.idle_points);
        let told = &session.limits.absolute_points;
        session.absolute_fired = limits::still_told(told, session.absolute_fired, &limits.absolute_points);
        session.absolute = session.authenticated + limits.absolute;
        session.limits = limits;
        // It ends nobody: if the activity was so long ago that the session would be over, it waits for later activity.
        let after = session.plain(now);
        if after.idle <= now || after.presence.is_some_and(|at| at <= now) {
            *session = before;
        }
    }

    /// What any counted activity does. `user`: it is surely a person's.
    fn counted(
        &mut self,
        reference: &str,
        before: super::session::Deadlines,
        cause: ClearedCause,
        user: bool,
        expiring: bool,
    ) {
        let moment = self.moment;
        let Some(session) = self.get_mut(reference) else { return };
        // Activity takes back the note if it gives the session time again: no activity moves an absolute deadline.
        if session.enforced() || session.deadlines(moment).expire().0 > moment.now {
            session.noted = None;
        }
        if user {
            session.budget_from = None;
        }
        session.moved(before, cause, moment, expiring);
    }

    fn check(&mut self, request: &v1::CheckRequest, told: Told<'_, v1::CheckResponse>) -> Result<(), Violation> {
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

    fn question(
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
    fn question_status(
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
        if must && !status.may_have_ended {
            return Err(broken(
                "G10",
                format!("{reference} is UNKNOWN within its tombstone time, or while it lives"),
            ));
        }
        let _ = may;
        Ok(false)
    }

    /// Compares a whole session with what it must be.
    fn session(&mut self, reference: &str, told: Option<&v1::Session>, alias: bool) -> Result<(), Violation> {
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

    fn extend(&mut self, request: &v1::ExtendRequest, told: Told<'_, v1::ExtendResponse>) -> Result<(), Violation> {
        let moment = self.moment;
        let (reference, alias) = self.resolve(&request.tenant, &request.session_id).unwrap_or_default();
        let content = [b"extend".as_slice(), &request.encode_to_vec()].concat();
        let answer = match told {
            Ok(answer) => answer,
            Err(refused) => {
                let session = self.now(&reference)?.filter(|session| session.end.is_none());
                let right = match (refused.reason.as_str(), session) {
                    ("EXTENSION_LIMIT", Some(session)) => session
                        .limits
                        .spec
                        .max_extensions
                        .is_some_and(|max| session.extensions >= max),
                    ("REQUEST_ID_REUSED", Some(session)) => session.recall(&request.request_id, moment.now).is_some(),
                    _ => return self.not_live(&reference, &refused.reason),
                };
                return if right { Ok(()) } else { Err(unfit("extend", refused)) };
            }
        };
        let Some(session) = self.now(&reference)? else {
            return Err(broken("G10", "a session that was never issued was extended".to_owned()));
        };
        if session.end.is_some() {
            return Err(broken("G5", format!("{reference} ended and was extended")));
        }
        let clamped = answer.clamped_by() == Limit::Absolute;
        let known = session
            .recall(&request.request_id, moment.now)
            .filter(|_| !request.request_id.is_empty());
        if let Some(known) = known.cloned() {
            if known.content != content || known.granted != Some((ns(&answer.granted_duration), clamped)) {
                return Err(broken("API", format!("{reference}: a retry was answered otherwise")));
            }
            return self.status(&reference, &answer.status, alias);
        }
        if session
            .limits
            .spec
            .max_extensions
            .is_some_and(|max| session.extensions >= max)
        {
            return Err(broken(
                "G7",
                format!("{reference} was extended more often than the policy allows"),
            ));
        }
        let before = session.plain(moment.now);
        let expire_before = session.deadlines(moment).expire().0;
        session.active(moment.now);
        session.extensions += 1;
        self.adopt_policy(&reference, 0);
        let Some(session) = self.get_mut(&reference) else {
            return Ok(());
        };
        let wanted = match request.wanted_duration {
            Some(_) => moment.now + ns(&request.wanted_duration),
            None if session.limits.idle >= FAR => FAR,
            None => moment.now + session.limits.idle,
        };
        session.extended_until = before.idle.max(wanted).min(session.absolute);
        let should_clamp = wanted > session.absolute;
        self.counted(
            &reference,
            before,
            ClearedCause::Extended,
            true,
            expiring(&answer.status),
        );
        let Some(session) = self.get_mut(&reference) else {
            return Ok(());
        };
        let granted = (session.deadlines(moment).expire().0 - expire_before).max(0);
        if ns(&answer.granted_duration) != granted || clamped != should_clamp {
            let told = span(ns(&answer.granted_duration));
            return Err(broken(
                "G7",
                format!(
                    "{reference}: granted {told} (clamped {clamped}), expected {} ({should_clamp})",
                    span(granted)
                ),
            ));
        }
        if !request.request_id.is_empty() {
            let id = request.request_id.clone();
            session.requests.push(Remembered {
                id,
                content,
                at: moment.now,
                granted: Some((granted, clamped)),
            });
        }
        self.status(&reference, &answer.status, alias)
    }

    /// A hold that moved with a rotation may be renewed, and released, through the old id even after the grace, while it lives.
    fn resolve_hold(&mut self, tenant: &str, id: &str, hold: &str) -> (String, bool) {
        let (reference, alias) = self.resolve(tenant, id).unwrap_or_default();
        let now = self.moment.now;
        let mut at = reference.clone();
        let rotated = self.get(&at).and_then(|session| session.end.as_ref()).map(|end| end.at);
        while let Some(end) = self
            .get(&at)
            .and_then(|session| session.end.as_ref())
            .filter(|end| end.reason == EndReason::Rotated)
        {
            at = end.successor.clone();
        }
        if at != reference
            && self.get(&at).is_some_and(|session| {
                let held = session.live_hold(hold, now);
                held.is_some_and(|held| rotated.is_some_and(|at| held.start <= at)) && session.is_live(self.moment)
            })
        {
            return (at, true);
        }
        (reference, alias)
    }

    fn hold(&mut self, request: &v1::HoldRequest, told: Told<'_, v1::HoldResponse>) -> Result<(), Violation> {
        let moment = self.moment;
        let now = moment.now;
        let (reference, alias) = self.resolve_hold(&request.tenant, &request.session_id, &request.hold_id);
        let work = request.kind() == HoldKind::Work;
        let session = self.now(&reference)?;
        let Some(session) = session.filter(|session| session.end.is_none()) else {
            return match told {
                Ok(_) => Err(broken("G5", format!("{reference} is not live and was held"))),
                Err(refused) => self.not_live(&reference, &refused.reason),
            };
        };
        let spec = session.limits.spec.clone();
        let known = session.live_hold(&request.hold_id, now).cloned();
        let Some((max_ttl, max_live)) = hold_limits(&spec, work) else {
            return match told {
                Err(refused) if refused.reason == "PRESENCE_OFF" => Ok(()),
                other => Err(broken(
                    "API",
                    format!("{reference}: presence is off and the answer is {other:?}"),
                )),
            };
        };
        let budget_from = session.budget_from.unwrap_or(now);
        let budget = if work && spec.enforced {
            budget_from + spec.work_budget as Ns * MS - now
        } else {
            FAR
        };
        let live = session
            .holds
            .values()
            .filter(|hold| hold.work == work && hold.until > now)
            .count();
        let other_kind = known.as_ref().is_some_and(|hold| hold.work != work);
        let full = known.is_none() && live >= max_live;
        let answer = match told {
            Ok(answer) if !other_kind && !full && budget > 0 => answer,
            Ok(_) => {
                return Err(broken(
                    "G7",
                    format!("{reference}: a hold beyond what the policy allows was granted"),
                ));
            }
            Err(refused) => {
                let right = match refused.reason.as_str() {
                    "HOLD_KIND" => other_kind,
                    "HOLD_CAP" => full,
                    "HOLD_BUDGET" => budget <= 0,
                    _ => return self.not_live(&reference, &refused.reason),
                };
                return if right { Ok(()) } else { Err(unfit("hold", refused)) };
            }
        };
        let before = session.plain(now);
        let absolute = if spec.enforced || session.absolute > now {
            session.absolute - now
        } else {
            FAR
        };
        let granted = ns(&request.ttl).min(max_ttl).min(budget).min(absolute);
        let until = known.as_ref().map_or(-FAR, |hold| hold.until).max(now + granted);
        let told_ttl = ns(&answer.granted_ttl);
        if told_ttl != until - now || answer.created != known.is_none() {
            return Err(broken(
                "G7",
                format!(
                    "{reference}: granted {} (created {}), expected {}",
                    span(told_ttl),
                    answer.created,
                    span(until - now)
                ),
            ));
        }
        if work && session.budget_from.is_none() {
            session.budget_from = Some(now);
        }
        let start = known.map_or(now, |hold| hold.start);
        session
            .holds
            .insert(request.hold_id.clone(), Hold { work, until, start });
        session.moved(before, ClearedCause::Held, moment, expiring(&answer.status));
        self.status(&reference, &answer.status, alias)
    }

    fn release(&mut self, request: &v1::ReleaseRequest, told: Told<'_, v1::ReleaseResponse>) -> Result<(), Violation> {
        let moment = self.moment;
        let (reference, alias) = self.resolve_hold(&request.tenant, &request.session_id, &request.hold_id);
        let session = self.now(&reference)?;
        let Some(session) = session.filter(|session| session.end.is_none()) else {
            return match told {
                Ok(_) => Err(broken(
                    "G5",
                    format!("{reference} is not live and a hold of it was released"),
                )),
                Err(refused) => self.not_live(&reference, &refused.reason),
            };
        };
        let answer = match told {
            Ok(answer) => answer,
            Err(refused) => return Err(unfit("release", refused)),
        };
        let before = session.plain(moment.now);
        let known = session.live_hold(&request.hold_id, moment.now).cloned();
        if answer.released != known.is_some() {
            return Err(broken("API", format!("{reference}: released is {}", answer.released)));
        }
        if let Some(hold) = known {
            session.holds.remove(&request.hold_id);
            session.hold_ended(&hold, moment.now, true);
            session.moved(before, ClearedCause::Released, moment, expiring(&answer.status));
        }
        self.status(&reference, &answer.status, alias)
    }

    fn rotate(&mut self, request: &v1::RotateRequest, told: Told<'_, v1::RotateResponse>) -> Result<(), Violation> {
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

    fn end_verb(&mut self, request: &v1::EndRequest, told: Told<'_, v1::EndResponse>) -> Result<(), Violation> {
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

    /// A command was refused because its session is not live: is that true?
    fn not_live(&mut self, reference: &str, reason: &str) -> Result<(), Violation> {
        let now = self.moment.now;
        let Some(session) = self.now(reference)? else {
            return if reason == "SESSION_UNKNOWN" {
                Ok(())
            } else {
                Err(broken("G10", format!("an id that was never issued is {reason}")))
            };
        };
        let (must, may) = session.memory(now);
        match (&session.end, reason) {
            (None, "SESSION_ENDED") => Err(broken("G1", format!("{reference} is refused as ended; it should live"))),
            (None, _) => Err(broken(
                "G10",
                format!("{reference} is refused as {reason}; it should live"),
            )),
            (Some(_), "SESSION_ENDED") if !may => Ok(()),
            (Some(_), "SESSION_UNKNOWN") if !must => Ok(()),
            (Some(end), _) => Err(broken(
                "G10",
                format!("{reference} ended ({:?}) and is refused as {reason}", end.reason),
            )),
        }
    }

    fn refused_ended(&mut self, reference: &str, refused: &Refused) -> Result<(), Violation> {
        self.not_live(reference, &refused.reason)?;
        let end = self.get(reference).and_then(|session| session.end.as_ref());
        let told = refused.metadata.get("reason").map(String::as_str).unwrap_or_default();
        if end.is_some_and(|end| end.reason.as_str_name() != format!("END_REASON_{told}")) {
            return Err(broken("G6", format!("{reference} ended {end:?}, told {told}")));
        }
        Ok(())
    }
}

fn expiring(status: &Option<v1::SessionStatus>) -> bool {
    status
        .as_ref()
        .is_some_and(|status| status.state() == SessionState::Expiring)
}

fn unfit(verb: &str, refused: &Refused) -> Violation {
    broken(
        "API",
        format!(
            "{verb} is refused with {:?} {} {}: nothing calls for it",
            refused.code, refused.reason, refused.message
        ),
    )
}

fn tenant_of(request: &Request) -> &str {
    match request {
        Request::Create(request) => &request.tenant,
        Request::Touch(request) => &request.tenant,
        Request::Batch(request) => request.touches.first().map_or("", |touch| &touch.tenant),
        Request::Check(request) => &request.tenant,
        Request::Extend(request) => &request.tenant,
        Request::Hold(request) => &request.tenant,
        Request::Release(request) => &request.tenant,
        Request::Rotate(request) => &request.tenant,
        Request::End(request) => &request.tenant,
    }
}
