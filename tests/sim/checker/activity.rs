//! What keeps a session alive: touches and Extends.

use prost::Message as _;
use session_sidecar::rpc::proto::v1::{self, ClearedCause, Limit, TouchResult};
use tonic::Code;

use super::{
    Violation, broken,
    limits::{self, FAR, Limits},
    model::Trial,
    rules,
    session::{Deadlines, Line, Remembered},
    verbs::{Told, expiring, unfit},
};
use crate::history::{Ns, ns, span};

impl Trial<'_> {
    pub(super) fn batch(
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

    pub(super) fn touch(
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
        let counted = expected == TouchResult::Counted;
        *session.story.touches.entry((verdict.rule, counted)).or_default() += 1;
        match expected {
            TouchResult::Ignored => session.story.ignored = Some(moment.now),
            TouchResult::Stale => session.story.stale = Some(moment.now),
            _ => {}
        }
        if counted {
            let expiring = expiring(&answer.status);
            session.reports_input |= touch.hints.as_ref().is_some_and(|hints| hints.input_report);
            session.extensions = 0;
            self.adopt_policy(&reference, ns(&touch.idle_for));
            self.counted(&reference, before, ClearedCause::Touched, verdict.user, expiring);
        }
        self.status(&reference, &answer.status, alias)
    }

    /// A newer revision of the policy reaches a session.
    pub(super) fn adopt_policy(&mut self, reference: &str, ago: Ns) {
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
    pub(super) fn counted(
        &mut self,
        reference: &str,
        before: Deadlines,
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

    pub(super) fn extend(
        &mut self,
        request: &v1::ExtendRequest,
        told: Told<'_, v1::ExtendResponse>,
    ) -> Result<(), Violation> {
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
        session.story.add(moment.now, Line::Extended(granted));
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
}
