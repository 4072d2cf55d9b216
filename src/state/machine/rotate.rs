//! A session goes on under another name.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        end::{Actor, End, EndReason, Succession},
        happening::{Cause, Happening},
        identity::Identity,
        name::SessionRef,
        policy::Limits,
        pulse::Pulse,
        record::{Asked, Fired, Limit, Moment, Origin, Outcome, Recalled},
        view::{Record, View},
    },
    Next, Refusal, Reply,
    next::HowEnded,
};
use crate::time::Time;

/// What a Rotate asks for.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// The name that it has now.
    pub from: SessionRef,
    /// The name that it goes on under.
    pub to: SessionRef,
    /// Who and what it is for from now on.
    pub identity: Identity,
    /// Whether the subject changes.
    pub new_subject: bool,
    /// How long ago the person authenticated, if anybody did.
    pub authenticated_ago: Option<Duration>,
    /// The policy's limits as they are now: they are in force from a new authentication on.
    pub current: Option<Arc<Limits>>,
    /// The caller's request id.
    pub request: Option<Asked>,
}

/// The session that goes on.
#[derive(Debug, Clone)]
pub struct Successor {
    /// Its name.
    pub reference: SessionRef,
    /// What is fixed.
    pub origin: Origin,
    /// Its first record.
    pub next: Next,
}

/// How long the old id stands for the session, if nobody else has become its owner.
const ALIAS_GRACE: Duration = Duration::from_secs(5);

impl Next {
    pub(super) fn rotate(&mut self, view: &View<'_>, rotation: &Rotation, moment: Moment) -> Result<Reply, Refusal> {
        match rotation
            .request
            .and_then(|request| view.rest.recall(request, moment.now))
        {
            Some(Recalled::Same(Outcome::Rotated)) => return Ok(Reply::RotatedBefore),
            Some(_) => return Err(Refusal::RequestIdReused),
            None => {}
        }
        let successor = self.succeed(view, rotation, moment)?;
        self.clear(view.origin, Limit::Idle, Cause::Rotated, moment);
        self.clear(view.origin, Limit::Absolute, Cause::Rotated, moment);
        let trusted = rotation.authenticated_ago.is_none() && !rotation.new_subject;
        let how = HowEnded {
            successor: Some(Succession {
                reference: rotation.to,
                alias_until: if trusted { moment.now + ALIAS_GRACE } else { Time::ZERO },
                reauthenticated: rotation.authenticated_ago.is_some(),
            }),
            request: rotation.request.map(|asked| asked.request),
            silent: false,
        };
        let end = End {
            reason: EndReason::Rotated,
            actor: Actor::System,
            actor_id: "".into(),
            note: "".into(),
            at: moment.now,
        };
        let tombstone = self.end(view.origin, end, moment.now, how);
        self.successor = Some(Box::new(successor));
        Ok(Reply::Rotated(tombstone))
    }

    /// The session as it goes on: holds and remembered requests move, the row of Extends is over.
    fn succeed(&self, view: &View<'_>, rotation: &Rotation, moment: Moment) -> Result<Successor, Refusal> {
        let now = moment.now;
        let mut next = Self {
            version: 1,
            happenings: Vec::new(),
            ..self.clone()
        };
        let mut origin = Origin {
            identity: rotation.identity.clone(),
            ..view.origin.clone()
        };
        next.rest.extensions = 0;
        next.rest.idle_fired = Fired::NONE;
        next.rest.absolute_fired = Fired::NONE;
        if next.rest.extra.is_some() {
            next.rest.extra_mut().told_before = [None; 2];
        }
        if let Some(ago) = rotation.authenticated_ago {
            let own = (view.limits.own_idle_timeout, view.limits.own_absolute_timeout);
            let current = rotation.current.as_ref().unwrap_or(view.limits);
            next.limits = match own {
                (None, None) => Arc::clone(current),
                (idle, absolute) => Arc::new(current.stricter(idle, absolute)),
            };
            let absolute_timeout = next.limits.absolute_timeout;
            if ago >= absolute_timeout && next.limits.enforced {
                return Err(Refusal::AuthenticationTooOld { absolute_timeout });
            }
            // NIST SP 800-63B-4 section 5.2: reauthentication begins both deadlines anew.
            origin.authenticated = now - ago;
            next.raised(Pulse::new(now.max(view.pulse.last_activity())));
            if next.rest.extra.is_some() {
                let extra = next.rest.extra_mut();
                extra.extended_until = None;
                extra.budget_from = None;
                extra.unenforced = None;
            }
        }
        if let Some(asked) = rotation.request {
            next.rest.remember(asked.request, now, Outcome::Rotated);
        }
        next.settle();
        let record = Record {
            origin: origin.clone(),
            limits: Arc::clone(&next.limits),
            pulse: next.pulse,
            rest: next.rest.clone(),
            version: next.version,
        };
        next.happenings.push((
            next.version,
            Happening::Succeeded {
                predecessor: rotation.from,
                record: Arc::new(record),
            },
        ));
        next.begin(&origin, moment);
        Ok(Successor {
            reference: rotation.to,
            origin,
            next,
        })
    }
}
