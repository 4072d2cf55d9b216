//! The state machine: `(record, command, moment) → (record', what happened)`.

mod hold;
mod rotate;

use crate::sabotage::{self, Fault};
use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

pub use rotate::{Rotation, Successor};

use super::{
    hold::{Clamp, HoldKind, HoldWish},
    policy::Limits,
    pulse::{Pulse, Touched},
    record::{
        Actor, Cause, Deadlines, End, EndReason, Happening, Limit, Moment, Origin, Outcome, Recalled, Record,
        RequestId, Rest, Succession, Tombstone, View,
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
        /// Whether it is surely a person's: it renews the budget of WORK.
        user: bool,
        /// Whether it is the browser's own report of input.
        input_report: bool,
        /// How long ago it happened.
        ago: Duration,
        /// A newer revision of the policy, if there is one.
        newer: Option<Arc<Limits>>,
    },
    /// The person pressed "stay".
    Extend {
        /// How long the session should live from now; one idle timeout if unset.
        wanted: Option<Duration>,
        /// The caller's request id.
        request: Option<RequestId>,
        /// A newer revision of the policy, if there is one.
        newer: Option<Arc<Limits>>,
    },
    /// Begin or renew a hold.
    Hold(HoldWish),
    /// End a hold.
    Release {
        /// Its owner's id of it.
        id: Box<str>,
    },
    /// Go on under another name.
    Rotate(Box<Rotation>),
    /// End it now. The time in it is set to now.
    End {
        /// The end.
        end: End,
        /// The caller's request id.
        request: Option<RequestId>,
    },
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
    /// The limits after it.
    pub limits: Arc<Limits>,
    /// The pulse after it.
    pub pulse: Pulse,
    /// The rest after it.
    pub rest: Rest,
    /// The version after it.
    pub version: u32,
    /// What happened, in order, each with the version after it.
    pub happenings: Vec<(u32, Happening)>,
    /// The session that goes on in its place, if it was rotated.
    pub successor: Option<Box<Successor>>,
}

impl Next {
    /// The record of a new session: warned at once if it begins inside a window.
    #[must_use]
    pub fn created(
        origin: &Origin,
        limits: Arc<Limits>,
        last_activity: Time,
        request: Option<RequestId>,
        moment: Moment,
    ) -> Self {
        let mut next = Self {
            limits,
            pulse: Pulse::new(last_activity),
            rest: Rest::PLAIN,
            version: 1,
            happenings: Vec::new(),
            successor: None,
        };
        if let Some(request) = request {
            next.rest.remember(request, moment.now, Outcome::Created);
        }
        next.warn(origin, moment);
        next.settle();
        next
    }

    fn after(view: &View<'_>) -> Self {
        Self {
            limits: Arc::clone(view.limits),
            pulse: view.pulse,
            rest: view.rest.clone(),
            version: view.version,
            happenings: Vec::new(),
            successor: None,
        }
    }

    /// This record, to be read.
    #[must_use]
    pub fn view<'a>(&'a self, origin: &'a Origin) -> View<'a> {
        View {
            origin,
            limits: &self.limits,
            pulse: self.pulse,
            rest: &self.rest,
            version: self.version,
        }
    }

    fn happened(&mut self, happening: Happening) {
        self.version += 1;
        self.happenings.push((self.version, happening));
    }

    /// Fires the warning points that have been passed: those of one limit collapse into one warning, the smallest lead.
    fn warn(&mut self, origin: &Origin, moment: Moment) {
        if self.rest.unenforced().is_some() {
            return;
        }
        let limits = Arc::clone(&self.limits);
        let deadlines = self.view(origin).deadlines(moment);
        let can_extend = self.view(origin).can_extend(moment);
        if deadlines.idle_is_nearest()
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

    /// Sets the flags of the pulse to what the rest says, and forgets an extension that has no say any more.
    fn settle(&mut self) {
        if self.pulse.is_dead() {
            return;
        }
        let plain = self.pulse.last_activity() + self.limits.idle_timeout;
        let activity = self.pulse.last_activity();
        if let Some(extra) = &self.rest.extra {
            let over = extra.extended_until.is_some_and(|until| until <= plain);
            // Activity since: the work that is over has no say any more.
            let done = extra.work_ended.is_some_and(|at| at <= activity);
            if over {
                self.rest.extra_mut().extended_until = None;
            }
            if done {
                self.rest.extra_mut().work_ended = None;
            }
        }
        let warned = self.rest.idle_fired > 0 || self.rest.absolute_fired > 0;
        self.pulse = self.pulse.flagged(warned, self.rest.has_a_say());
    }

    /// Withdraws warnings whose deadline moved, and warns anew if it is still near.
    fn deadlines_moved(&mut self, origin: &Origin, before: Deadlines, cause: Cause, moment: Moment) {
        let after = self.view(origin).plain_deadlines();
        if after.idle != before.idle && !sabotage::on(Fault::ClearedForgotten) {
            self.clear(origin, Limit::Idle, cause, moment);
        }
        if after.absolute != before.absolute {
            self.clear(origin, Limit::Absolute, Cause::PolicyChanged, moment);
        }
        self.warn(origin, moment);
    }

    /// Withdraws the warnings of a limit, if there are any.
    fn clear(&mut self, origin: &Origin, limit: Limit, cause: Cause, moment: Moment) {
        let fired = match limit {
            Limit::Idle => &mut self.rest.idle_fired,
            Limit::Absolute => &mut self.rest.absolute_fired,
            Limit::Presence => return,
        };
        if std::mem::take(fired) > 0 {
            let expire = self.view(origin).deadlines(moment).expire().0;
            self.happened(Happening::Cleared { limit, cause, expire });
        }
    }

    /// A person was active: what only lasts until then is over.
    fn active(&mut self, user: bool, newer: Option<&Arc<Limits>>, origin: &Origin, moment: Moment) {
        if let Some(newer) = newer.filter(|newer| newer.revision >= self.limits.revision) {
            self.adopt(newer, origin, moment);
        }
        let Some(extra) = self.rest.extra.as_deref() else {
            return;
        };
        let renews = user && extra.budget_from.is_some();
        // An absolute deadline that has passed stays passed.
        let revives = extra.unenforced.is_some_and(|(limit, _)| limit != Limit::Absolute);
        if renews {
            self.rest.extra_mut().budget_from = None;
        }
        if revives {
            self.rest.extra_mut().unenforced = None;
        }
    }

    /// A newer revision of the policy reaches the session. It ends nobody and warns nobody by surprise.
    fn adopt(&mut self, newer: &Arc<Limits>, origin: &Origin, moment: Moment) {
        let before = Arc::clone(&self.limits);
        let adopted = before.adopted(newer, moment.now.since(origin.authenticated));
        self.limits = if adopted == **newer {
            Arc::clone(newer)
        } else {
            Arc::new(adopted)
        };
        // Leads that were told for a deadline that stays are not told again.
        let rest = &mut self.rest;
        rest.idle_fired = still_fired(&before.idle_points, rest.idle_fired, &self.limits.idle_points);
        rest.absolute_fired = still_fired(
            &before.absolute_points,
            rest.absolute_fired,
            &self.limits.absolute_points,
        );
        self.happened(Happening::PolicyAdopted {
            revision: newer.revision,
        });
    }

    /// Notes the end that time would have brought, if the policy were enforced: once, until somebody is active again.
    fn observe(&mut self, origin: &Origin, at: Time, limit: Limit, moment: Moment) {
        let noted = self.rest.unenforced();
        if noted.is_some_and(|(noted, _)| noted == Limit::Absolute || limit != Limit::Absolute) {
            return;
        }
        self.happened(Happening::UnenforcedEnd { limit, at });
        self.clear(origin, Limit::Idle, Cause::NotEnforced, moment);
        self.clear(origin, Limit::Absolute, Cause::NotEnforced, moment);
        self.rest.extra_mut().unenforced = Some((limit, at));
    }

    fn end(&mut self, origin: &Origin, end: End, now: Time, how: HowEnded) -> Arc<Tombstone> {
        self.version += 1;
        let tombstone = Arc::new(Tombstone {
            origin: origin.clone(),
            limits: Arc::clone(&self.limits),
            last_activity: self.pulse.last_activity(),
            idle_deadline: self.view(origin).plain_deadlines().idle,
            extensions: self.rest.extensions,
            version: self.version,
            forget_at: now + self.limits.tombstone_ttl,
            end,
            successor: how.successor,
            request: how.request,
            silent: how.silent,
            told: AtomicU32::new(0),
        });
        self.pulse = self.pulse.dead();
        self.rest.bury(Arc::clone(&tombstone));
        self.happenings
            .push((self.version, Happening::Ended(Arc::clone(&tombstone))));
        tombstone
    }
}

/// What an end has beside its reason.
#[derive(Default)]
struct HowEnded {
    successor: Option<Succession>,
    request: Option<RequestId>,
    silent: bool,
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
    /// Held.
    Held {
        /// How long the hold lives from now.
        granted: Duration,
        /// What cut it short.
        clamped: Option<Clamp>,
        /// Whether it began now.
        created: bool,
    },
    /// Released, if there was such a hold.
    Released(bool),
    /// Rotated: the end of the old name.
    Rotated(Arc<Tombstone>),
    /// The same request rotated it before, into this session.
    RotatedBefore,
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
    /// The policy does not use presence.
    PresenceOff,
    /// A live hold of this id has the other kind.
    HoldKind,
    /// There are as many holds of this kind as there may be.
    HoldCap {
        /// Of this kind.
        kind: HoldKind,
        /// So many.
        max: u32,
    },
    /// The budget of WORK is used up.
    HoldBudget {
        /// The budget.
        budget: Duration,
    },
    /// The authentication is older than it may be.
    AuthenticationTooOld {
        /// The absolute timeout.
        absolute_timeout: Duration,
    },
}

/// Decides a command. Time comes first: a deadline that has passed has passed for every command (G2).
#[must_use]
pub fn decide(view: &View<'_>, command: &Command, moment: Moment) -> Decision {
    if let Some(tombstone) = view.rest.end() {
        return refused(Refusal::Ended(Arc::clone(tombstone)));
    }
    let origin = view.origin;
    let mut next = Next::after(view);
    let (expire, limit) = view.deadlines(moment).expire();
    let unnoticed = sabotage::on(Fault::CallsWaitForDriver) && !matches!(command, Command::Judge);
    let over = moment.now >= expire && !unnoticed;
    if over && view.limits.enforced {
        // Whoever comes first ends it, and a warning that was not pushed yet precedes the end (G3).
        next.lapse(Moment::at(expire));
        next.warn(origin, Moment::at(expire));
        let tombstone = next.end(origin, timeout(limit, expire), moment.now, HowEnded::default());
        return Decision {
            next: Some(next),
            reply: match command {
                Command::Judge => Ok(Reply::Judged),
                _ => Err(Refusal::Ended(tombstone)),
            },
        };
    }
    next.lapse(moment);
    if over {
        next.observe(origin, expire, limit, moment);
    }
    let reply = match command {
        Command::Judge => Ok(next.judge(origin, moment)),
        Command::Touch { counts: false, .. } => Ok(Reply::Ignored),
        Command::Touch {
            user,
            input_report,
            ago,
            newer,
            ..
        } => Ok(next.touch(view, *user, *input_report, *ago, newer.as_ref(), moment)),
        Command::Extend { wanted, request, newer } => next.extend(view, *wanted, *request, newer.as_ref(), moment),
        Command::Hold(wish) => next.hold(view, wish, moment),
        Command::Release { id } => Ok(next.release(view, id, moment)),
        Command::Rotate(rotation) => next.rotate(view, rotation, moment),
        Command::End { end, request } => next.end_now(view, end, *request, moment),
    };
    next.settle();
    let changed = next.pulse != view.pulse || next.version != view.version;
    Decision {
        next: changed.then_some(next),
        reply,
    }
}

impl Next {
    fn judge(&mut self, origin: &Origin, moment: Moment) -> Reply {
        if self.rest.unenforced().is_some() && self.view(origin).forgotten_at() <= moment.now {
            let (limit, at) = self.rest.unenforced().unwrap_or((Limit::Idle, moment.now));
            let silent = HowEnded {
                silent: true,
                ..HowEnded::default()
            };
            self.end(origin, timeout(limit, at), moment.now, silent);
        } else {
            self.warn(origin, moment);
        }
        Reply::Judged
    }

    fn touch(
        &mut self,
        view: &View<'_>,
        user: bool,
        input_report: bool,
        ago: Duration,
        newer: Option<&Arc<Limits>>,
        moment: Moment,
    ) -> Reply {
        let Touched::Raised(pulse) = view.pulse.raise(view.origin.created, ago, moment) else {
            return Reply::Stale;
        };
        let before = view.plain_deadlines();
        self.pulse = pulse;
        self.active(user, newer, view.origin, moment);
        if self.rest.extensions > 0 {
            self.rest.extensions = 0;
            self.happened(Happening::ExtensionsReset);
        }
        if input_report && !self.rest.reports_input() {
            self.rest.extra_mut().reports_input = true;
            self.happened(Happening::InputReported);
        }
        self.deadlines_moved(view.origin, before, Cause::Touched, moment);
        Reply::Counted
    }

    fn extend(
        &mut self,
        view: &View<'_>,
        wanted: Option<Duration>,
        request: Option<RequestId>,
        newer: Option<&Arc<Limits>>,
        moment: Moment,
    ) -> Result<Reply, Refusal> {
        match request.and_then(|request| view.rest.recall(request, moment.now)) {
            Some(Recalled::Same(Outcome::Extended { granted, clamped })) => {
                return Ok(Reply::Extended { granted, clamped });
            }
            Some(_) => return Err(Refusal::RequestIdReused),
            None => {}
        }
        let max = view.limits.max_extensions.filter(|_| view.limits.enforced);
        if let Some(max) = max.filter(|max| view.rest.extensions >= *max) {
            return Err(Refusal::ExtensionLimit { max });
        }
        let origin = view.origin;
        let before = view.plain_deadlines();
        let expire_before = view.deadlines(moment).expire().0;
        if let Touched::Raised(pulse) = view.pulse.raise(origin.created, Duration::ZERO, moment) {
            self.pulse = pulse;
        }
        self.active(true, newer, origin, moment);
        let absolute = origin.absolute_deadline(&self.limits);
        let wanted_until = moment.now + self.limits.extension(wanted);
        let reach = if sabotage::on(Fault::ExtendPastAbsolute) {
            Time::FAR
        } else {
            absolute
        };
        let until = self.rest.extended_until().max(wanted_until).min(reach);
        self.rest.extra_mut().extended_until = Some(until);
        self.rest.extensions = self.rest.extensions.saturating_add(1);
        let granted = self.view(origin).deadlines(moment).expire().0.since(expire_before);
        let clamped = wanted_until > absolute;
        self.happened(Happening::Extended { granted, clamped });
        if let Some(request) = request {
            self.rest
                .remember(request, moment.now, Outcome::Extended { granted, clamped });
        }
        self.deadlines_moved(origin, before, Cause::Extended, moment);
        Ok(Reply::Extended { granted, clamped })
    }

    fn end_now(
        &mut self,
        view: &View<'_>,
        end: &End,
        request: Option<RequestId>,
        moment: Moment,
    ) -> Result<Reply, Refusal> {
        if request.is_some_and(|request| view.rest.recall(request, moment.now).is_some()) {
            return Err(Refusal::RequestIdReused);
        }
        let end = End {
            at: moment.now,
            ..end.clone()
        };
        let how = HowEnded {
            request,
            ..HowEnded::default()
        };
        Ok(Reply::Ended(self.end(view.origin, end, moment.now, how)))
    }
}

/// The end that time brings.
fn timeout(limit: Limit, at: Time) -> End {
    End {
        reason: limit.into(),
        actor: Actor::Policy,
        actor_id: "".into(),
        note: "".into(),
        at,
    }
}

/// How many points have fired by `now`, and the smallest lead of them, if there are more than before.
fn passed(points: &[Duration], fired: u8, deadline: Time, now: Time) -> Option<(u8, Duration)> {
    let count = points.iter().take_while(|lead| deadline - **lead <= now).count();
    if count <= usize::from(fired) && !(sabotage::on(Fault::WarnedTwice) && count > 0) {
        return None;
    }
    Some((u8::try_from(count).unwrap_or(u8::MAX), points[count - 1]))
}

/// How many of the new points count as fired if so many of the old ones have.
fn still_fired(old: &[Duration], fired: u8, new: &[Duration]) -> u8 {
    let Some(told) = usize::from(fired).checked_sub(1) else {
        return 0;
    };
    let told = old.get(told).copied().unwrap_or_default();
    let count = new.iter().filter(|lead| **lead >= told).count();
    u8::try_from(count).unwrap_or(u8::MAX).max(1)
}

fn refused(refusal: Refusal) -> Decision {
    Decision {
        next: None,
        reply: Err(refusal),
    }
}
