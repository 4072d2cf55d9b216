//! The state machine: `(record, command, moment) → (record', what happened)`.

use std::{sync::Arc, time::Duration};

use super::{
    pulse::{Pulse, Touched},
    record::{
        Actor, Cause, Deadlines, End, EndReason, Happening, Limit, Moment, Origin, Outcome, Recalled, RequestId, Rest,
        Tombstone, View,
    },
};
use crate::time::Time;

/// What is asked of a live session.
#[derive(Debug, Clone)]
pub enum Command {
    /// Nothing but that time has passed: warn and end as it is due.
    Judge,
    /// Activity `ago` before now, if it counts.
    Touch {
        /// Whether it counts.
        counts: bool,
        /// How long ago it happened.
        ago: Duration,
    },
    /// The person pressed "stay".
    Extend {
        /// How long the session should live from now; one idle timeout if unset.
        wanted: Option<Duration>,
        /// The caller's request id.
        request: Option<RequestId>,
    },
    /// End it now. The time in it is set to now.
    End(End),
}

/// What became of a command.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The record after it; `None` if nothing changed.
    pub next: Option<Next>,
    /// The answer, or why it was refused.
    pub reply: Result<Reply, Refusal>,
}

/// A changed record.
#[derive(Debug, Clone)]
pub struct Next {
    /// The pulse after it.
    pub pulse: Pulse,
    /// The rest after it.
    pub rest: Rest,
    /// The version after it.
    pub version: u32,
    /// What happened, in order. Each happening has a version of its own, the last one's is `version`.
    pub happenings: Vec<Happening>,
}

impl Next {
    /// The record of a new session: warned at once if it begins inside a window.
    #[must_use]
    pub fn created(origin: &Origin, last_activity: Time, request: Option<RequestId>, moment: Moment) -> Self {
        let mut next = Self {
            pulse: Pulse::new(last_activity),
            rest: Rest::PLAIN,
            version: 1,
            happenings: Vec::new(),
        };
        if let Some(request) = request {
            next.rest.remember(request, moment.now, Outcome::Created);
        }
        next.warn(origin, moment);
        next.settle(origin);
        next
    }

    /// This record, to be read.
    #[must_use]
    pub fn view<'a>(&'a self, origin: &'a Origin) -> View<'a> {
        View {
            origin,
            pulse: self.pulse,
            rest: &self.rest,
            version: self.version,
        }
    }

    fn happened(&mut self, happening: Happening) {
        self.version += 1;
        self.happenings.push(happening);
    }

    /// Fires the warning points that have been passed: those of one limit collapse into one warning, the smallest lead.
    fn warn(&mut self, origin: &Origin, moment: Moment) {
        let limits = &origin.limits;
        let deadlines = self.view(origin).deadlines(moment);
        let can_extend = self.view(origin).can_extend(moment);
        if deadlines.idle < deadlines.absolute
            && let Some((fired, point)) = passed(&limits.idle_points, self.rest.idle_fired, deadlines.idle, moment.now)
        {
            self.rest.idle_fired = fired;
            self.happened(Happening::Warning {
                limit: Limit::Idle,
                point,
                expire: deadlines.idle,
                can_extend,
            });
        }
        let absolute = deadlines.absolute;
        if let Some((fired, point)) = passed(&limits.absolute_points, self.rest.absolute_fired, absolute, moment.now) {
            self.rest.absolute_fired = fired;
            self.happened(Happening::Warning {
                limit: Limit::Absolute,
                point,
                expire: absolute,
                can_extend: false,
            });
        }
    }

    /// Sets the flags of the pulse to what the rest says.
    fn settle(&mut self, origin: &Origin) {
        if self.pulse.is_dead() {
            return;
        }
        let warned = self.rest.idle_fired > 0 || self.rest.absolute_fired > 0;
        let plain = self.pulse.last_activity() + origin.limits.idle_timeout;
        let extended = self.rest.extended_until > plain;
        if !extended {
            self.rest.extended_until = Time::ZERO;
        }
        self.pulse = self.pulse.flagged(warned, extended || self.rest.extensions > 0);
    }

    /// Withdraws the idle warnings if the idle deadline moved, and warns anew if it is still near.
    fn idle_deadline_moved(&mut self, origin: &Origin, before: Deadlines, cause: Cause, moment: Moment) {
        let after = self.view(origin).plain_deadlines();
        if after.idle > before.idle && self.rest.idle_fired > 0 {
            self.rest.idle_fired = 0;
            let expire = self.view(origin).deadlines(moment).expire().0;
            self.happened(Happening::Cleared {
                limit: Limit::Idle,
                cause,
                expire,
            });
        }
        self.warn(origin, moment);
    }

    fn end(&mut self, origin: &Origin, end: End, now: Time) -> Arc<Tombstone> {
        self.version += 1;
        let tombstone = Arc::new(Tombstone {
            origin: origin.clone(),
            last_activity: self.pulse.last_activity(),
            idle_deadline: self.view(origin).plain_deadlines().idle,
            extensions: self.rest.extensions,
            version: self.version,
            forget_at: now + origin.limits.tombstone_ttl,
            end,
        });
        self.pulse = self.pulse.dead();
        self.rest.bury(Arc::clone(&tombstone));
        self.happenings.push(Happening::Ended(Arc::clone(&tombstone)));
        tombstone
    }
}

/// The answer to a command that was not refused.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Judged.
    Judged,
    /// The touch counted.
    Counted,
    /// The touch does not count.
    Ignored,
    /// The touch would count, but later activity is known.
    Stale,
    /// Extended, now or by the same request before.
    Extended {
        /// How far the expire time moved.
        granted: Duration,
        /// Whether the absolute deadline cut it short.
        clamped: bool,
    },
    /// Ended by this command.
    Ended(Arc<Tombstone>),
}

/// Why a command was refused.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The session ended before; if it ended just now, the decision's record says so.
    Ended(Arc<Tombstone>),
    /// The extensions in a row are used up.
    ExtensionLimit {
        /// How many the policy grants.
        max: u32,
    },
    /// The request id came before with other content.
    RequestIdReused,
}

/// Decides a command. Time comes first: a deadline that has passed has passed for every command (G2).
#[must_use]
pub fn decide(view: &View<'_>, command: &Command, moment: Moment) -> Decision {
    if let Some(tombstone) = view.rest.end() {
        return refused(Refusal::Ended(Arc::clone(tombstone)));
    }
    let origin = view.origin;
    let mut next = Next {
        pulse: view.pulse,
        rest: view.rest.clone(),
        version: view.version,
        happenings: Vec::new(),
    };
    if let Some(end) = timed_out(view, moment) {
        // Whoever comes first ends it, and a warning that was not pushed yet precedes the end (G3).
        next.warn(origin, Moment::at(end.at));
        let tombstone = next.end(origin, end, moment.now);
        return Decision {
            next: Some(next),
            reply: match command {
                Command::Judge => Ok(Reply::Judged),
                _ => Err(Refusal::Ended(tombstone)),
            },
        };
    }
    let before = view.plain_deadlines();
    let reply = match command {
        Command::Judge => {
            next.warn(origin, moment);
            Reply::Judged
        }
        Command::Touch { counts: false, .. } => return unchanged(Reply::Ignored),
        Command::Touch { counts: true, ago } => {
            let Touched::Raised(pulse) = view.pulse.raise(origin.created, *ago, moment) else {
                return unchanged(Reply::Stale);
            };
            next.pulse = pulse;
            if next.rest.extensions > 0 {
                next.rest.extensions = 0;
                next.version += 1;
            }
            next.idle_deadline_moved(origin, before, Cause::Touched, moment);
            Reply::Counted
        }
        Command::Extend { wanted, request } => {
            match request.and_then(|request| view.rest.recall(request, moment.now)) {
                Some(Recalled::Same(Outcome::Extended { granted, clamped })) => {
                    return unchanged(Reply::Extended { granted, clamped });
                }
                Some(_) => return refused(Refusal::RequestIdReused),
                None => {}
            }
            if let Some(max) = view.limits().max_extensions.filter(|max| view.rest.extensions >= *max) {
                return refused(Refusal::ExtensionLimit { max });
            }
            extend(&mut next, view, *wanted, *request, moment)
        }
        Command::End(end) => {
            let end = End {
                at: moment.now,
                ..end.clone()
            };
            Reply::Ended(next.end(origin, end, moment.now))
        }
    };
    next.settle(origin);
    let changed = next.pulse != view.pulse || next.version != view.version;
    Decision {
        next: changed.then_some(next),
        reply: Ok(reply),
    }
}

fn extend(
    next: &mut Next,
    view: &View<'_>,
    wanted: Option<Duration>,
    request: Option<RequestId>,
    moment: Moment,
) -> Reply {
    let origin = view.origin;
    let before = view.plain_deadlines();
    let expire_before = view.deadlines(moment).expire().0;
    if let Touched::Raised(pulse) = view.pulse.raise(origin.created, Duration::ZERO, moment) {
        next.pulse = pulse;
    }
    let wanted_until = moment.now + wanted.unwrap_or(view.limits().idle_timeout);
    next.rest.extended_until = before.idle.max(wanted_until).min(before.absolute);
    next.rest.extensions = next.rest.extensions.saturating_add(1);
    next.version += 1;
    let granted = next.view(origin).deadlines(moment).expire().0.since(expire_before);
    let clamped = wanted_until > before.absolute;
    if let Some(request) = request {
        next.rest
            .remember(request, moment.now, Outcome::Extended { granted, clamped });
    }
    next.idle_deadline_moved(origin, before, Cause::Extended, moment);
    Reply::Extended { granted, clamped }
}

/// The end that time has brought, if it has. If several deadlines passed, the earliest gives the reason.
fn timed_out(view: &View<'_>, moment: Moment) -> Option<End> {
    let (at, limit) = view.deadlines(moment).expire();
    (moment.now >= at).then(|| End {
        reason: match limit {
            Limit::Idle => EndReason::IdleTimeout,
            Limit::Absolute => EndReason::AbsoluteTimeout,
        },
        actor: Actor::Policy,
        actor_id: "".into(),
        note: "".into(),
        at,
    })
}

/// How many points have fired by `now`, and the smallest lead of them, if there are more than before.
fn passed(points: &[Duration], fired: u8, deadline: Time, now: Time) -> Option<(u8, Duration)> {
    let count = points.iter().take_while(|lead| deadline - **lead <= now).count();
    if count <= usize::from(fired) {
        return None;
    }
    Some((u8::try_from(count).unwrap_or(u8::MAX), points[count - 1]))
}

fn unchanged(reply: Reply) -> Decision {
    Decision {
        next: None,
        reply: Ok(reply),
    }
}

fn refused(refusal: Refusal) -> Decision {
    Decision {
        next: None,
        reply: Err(refusal),
    }
}
