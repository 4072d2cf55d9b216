//! Between the words of the model and those of the code.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use session_sidecar::{
    state::{
        Asked, Command, End, Happening, HoldWish, Identity, Keys, Limits, Moment, PresenceLimits, Refusal, Reply,
        RequestId, Rotation, SessionRef, Tombstone, Unmatched, WorkLimits, policy::warning_points,
    },
    time::Time,
};

use super::{Answer, Ask, Ended, Own, Request, Rules, Told, When};

/// The names under which a session begins and goes on: the state machine only hands them on.
static NAMES: LazyLock<[SessionRef; 2]> = LazyLock::new(|| {
    let keys = Keys::derive(&[7; 32]);
    ["a", "b"].map(|id| keys.session_ref("", id))
});

/// The limits of the code for a policy of the model.
pub(crate) fn limits(rules: &Rules) -> Arc<Limits> {
    let leads = |leads: &[u64]| leads.iter().map(|lead| nanos(*lead)).collect::<Vec<_>>();
    let (idle_timeout, absolute_timeout) = (nanos(rules.idle_timeout), nanos(rules.absolute_timeout));
    Arc::new(Limits {
        policy: "random".into(),
        revision: rules.revision,
        idle_timeout,
        absolute_timeout,
        idle_points: warning_points(&leads(&rules.idle_leads), idle_timeout),
        absolute_points: warning_points(&leads(&rules.absolute_leads), absolute_timeout),
        unmatched: Unmatched::Count,
        max_extensions: rules.max_extensions,
        tombstone_ttl: nanos(rules.tombstone_ttl),
        work: WorkLimits {
            max_ttl: nanos(rules.work.max_ttl),
            budget: nanos(rules.work.budget),
            max_live: rules.work.max_live,
        },
        presence: rules.presence.map(|presence| PresenceLimits {
            leave_grace: nanos(presence.leave_grace),
            lost_grace: nanos(presence.lost_grace),
            max_ttl: nanos(presence.max_ttl),
            max_live: presence.max_live,
        }),
        enforced: rules.enforced,
        ..Limits::default()
    })
}

/// The limits of a new session.
pub(crate) fn resolved(policy: &Arc<Limits>, own: Own) -> Arc<Limits> {
    match (own.idle, own.absolute) {
        (None, None) => Arc::clone(policy),
        (idle, absolute) => Arc::new(policy.stricter(idle.map(nanos), absolute.map(nanos))),
    }
}

/// The command of the code for an ask, while these limits are the newest.
pub(crate) fn command(ask: Ask, in_force: &Arc<Limits>, own: &Arc<Limits>) -> Command {
    let newer = (in_force.revision != own.revision).then(|| Arc::clone(in_force));
    match ask {
        Ask::Judge | Ask::Reload => Command::Judge,
        Ask::Touch { counts, user, ago } => Command::Touch {
            counts,
            user,
            input_report: false,
            ago: nanos(ago),
            newer,
        },
        Ask::HotTouch { ago } => Command::Touch {
            counts: true,
            user: false,
            input_report: false,
            ago: nanos(ago),
            newer,
        },
        Ask::Extend { wanted, request } => Command::Extend {
            wanted: wanted.map(nanos),
            request: request.map(request_id),
            newer,
        },
        Ask::Hold { id, kind, ttl } => Command::Hold(HoldWish {
            id: hold_id(id),
            kind,
            ttl: nanos(ttl),
            purpose: "".into(),
        }),
        Ask::Release { id } => Command::Release { id: hold_id(id) },
        Ask::Rotate {
            new_subject,
            authenticated_ago,
            request,
        } => Command::Rotate(Box::new(Rotation {
            from: NAMES[0],
            to: NAMES[1],
            identity: Identity::default().succeeding(NAMES[0], None, None),
            new_subject,
            authenticated_ago: authenticated_ago.map(nanos),
            current: (in_force.revision >= own.revision).then(|| Arc::clone(in_force)),
            request: request.map(request_id),
        })),
        Ask::End { reason, actor, request } => Command::End {
            end: End {
                reason,
                actor,
                actor_id: "".into(),
                note: "".into(),
                at: Time::ZERO,
            },
            request: request.map(request_id),
        },
    }
}

pub(crate) fn answer(reply: &Result<Reply, Refusal>) -> Answer {
    match reply {
        Ok(Reply::Judged) => Answer::Judged,
        Ok(Reply::Counted) => Answer::Counted,
        Ok(Reply::Ignored) => Answer::Ignored,
        Ok(Reply::Stale) => Answer::Stale,
        Ok(Reply::Extended { granted, clamped }) => Answer::Extended {
            granted: as_nanos(*granted),
            clamped: *clamped,
        },
        Ok(Reply::Held {
            granted,
            clamped,
            created,
        }) => Answer::Held {
            granted: as_nanos(*granted),
            clamped: *clamped,
            created: *created,
        },
        Ok(Reply::Released(released)) => Answer::Released(*released),
        Ok(Reply::Rotated(_)) => Answer::Rotated,
        Ok(Reply::RotatedBefore) => Answer::RotatedBefore,
        Ok(Reply::Ended(_)) => Answer::EndedNow,
        Err(Refusal::Ended(tombstone)) => Answer::EndedBefore(ended(tombstone)),
        Err(Refusal::ExtensionLimit { max }) => Answer::ExtensionLimit(*max),
        Err(Refusal::RequestIdReused) => Answer::RequestIdReused,
        Err(Refusal::PresenceOff) => Answer::PresenceOff,
        Err(Refusal::HoldKind) => Answer::OtherKind,
        Err(Refusal::HoldCap { max, .. }) => Answer::HoldCap(*max),
        Err(Refusal::HoldBudget { .. }) => Answer::BudgetSpent,
        Err(Refusal::AuthenticationTooOld { .. }) => Answer::AuthenticationTooOld,
    }
}

/// What the model would call this, if it speaks of it.
pub(crate) fn told((_, happening): &(u32, Happening)) -> Option<Told> {
    Some(match happening {
        Happening::Warning {
            limit,
            point,
            expire,
            can_extend,
        } => Told::Warning {
            limit: *limit,
            lead: as_nanos(*point),
            expire: expire.as_nanos(),
            can_extend: *can_extend,
        },
        Happening::Cleared { limit, cause, expire } => Told::Cleared {
            limit: *limit,
            cause: *cause,
            expire: expire.as_nanos(),
        },
        Happening::Ended(tombstone) if !tombstone.silent => Told::Ended(ended(tombstone)),
        Happening::HoldEnded { at, released, .. } => Told::HoldOver {
            at: at.as_nanos(),
            released: *released,
        },
        Happening::PolicyAdopted { revision } => Told::Adopted(*revision),
        Happening::UnenforcedEnd { limit, at } => Told::Observed {
            limit: *limit,
            at: at.as_nanos(),
        },
        _ => return None,
    })
}

pub(crate) fn ended(tombstone: &Tombstone) -> Ended {
    Ended {
        reason: tombstone.end.reason,
        actor: tombstone.end.actor,
        at: tombstone.end.at.as_nanos(),
        last_activity: tombstone.last_activity.as_nanos(),
        idle_deadline: tombstone.idle_deadline.as_nanos(),
        extensions: tombstone.extensions,
        forget_at: tombstone.forget_at.as_nanos(),
        succession: tombstone
            .successor
            .map(|next| (next.alias_until.as_nanos(), next.reauthenticated)),
        request: tombstone.request.map(|request| (request.key, request.content)),
        silent: tombstone.silent,
    }
}

pub(crate) fn hold_id(id: u8) -> Box<str> {
    format!("hold-{id}").into()
}

pub(crate) fn moment(when: When) -> Moment {
    Moment {
        now: time(when.now),
        held_until: time(when.held_until),
        held_for: std::time::Duration::MAX,
    }
}

pub(crate) fn time(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

pub(crate) fn nanos(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

pub(crate) fn as_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn request_id((key, content): Request) -> Asked {
    RequestId { key, content }.into()
}
