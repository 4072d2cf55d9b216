//! A record in the making: what every command does to it.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use super::{
    super::{
        end::{End, Succession, Tombstone},
        happening::{Cause, Happening},
        policy::Limits,
        pulse::Pulse,
        record::{Asked, Fired, Limit, Moment, Origin, Outcome, RequestId, Rest},
        view::{Deadlines, View},
    },
    Successor,
};
use crate::{
    sabotage::{self, Fault},
    time::Time,
};

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
    /// How far the pulse may be ahead of the activity that raised it.
    pub lead: Duration,
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
        request: Option<Asked>,
        moment: Moment,
    ) -> Self {
        let mut next = Self {
            limits,
            pulse: Pulse::new(last_activity),
            rest: Rest::PLAIN,
            version: 1,
            happenings: Vec::new(),
            lead: Duration::ZERO,
            successor: None,
        };
        if let Some(asked) = request {
            next.rest.remember(asked.request, moment.now, Outcome::Created);
        }
        next.begin(origin, moment);
        next
    }

    /// Warns at once if it begins inside a window; if the policy only observes, it may begin after its end.
    pub(super) fn begin(&mut self, origin: &Origin, moment: Moment) {
        let (expire, limit) = self.view(origin).deadlines(moment).expire();
        if !self.limits.enforced && moment.now >= expire {
            self.observe(origin, expire, limit, moment);
        }
        self.warn(origin, moment);
        self.settle();
    }

    pub(super) fn after(view: &View<'_>) -> Self {
        Self {
            limits: Arc::clone(view.limits),
            pulse: view.pulse,
            rest: view.rest.clone(),
            version: view.version,
            happenings: Vec::new(),
            lead: view.lead,
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
            lead: self.lead,
        }
    }

    pub(super) fn happened(&mut self, happening: Happening) {
        self.version += 1;
        self.happenings.push((self.version, happening));
    }

    /// Fires the warning points that have been passed: those of one limit collapse into one warning, the smallest lead.
    pub(super) fn warn(&mut self, origin: &Origin, moment: Moment) {
        if self.rest.unenforced().is_some() {
            return;
        }
        let limits = Arc::clone(&self.limits);
        let deadlines = self.view(origin).deadlines(moment);
        let can_extend = self.view(origin).outlook(moment).can_extend;
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
    pub(super) fn settle(&mut self) {
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
        let warned = self.rest.idle_fired.stands() || self.rest.absolute_fired.stands();
        self.pulse = self.pulse.flagged(warned, self.rest.has_a_say());
    }

    /// Withdraws warnings whose deadline moved, and warns anew if it is still near.
    pub(super) fn deadlines_moved(&mut self, origin: &Origin, before: Deadlines, cause: Cause, moment: Moment) {
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
    pub(super) fn clear(&mut self, origin: &Origin, limit: Limit, cause: Cause, moment: Moment) {
        let fired = match limit {
            Limit::Idle => &mut self.rest.idle_fired,
            Limit::Absolute => &mut self.rest.absolute_fired,
            Limit::Presence => return,
        };
        if std::mem::take(fired).stands() {
            if self
                .rest
                .extra
                .as_ref()
                .is_some_and(|extra| extra.told_before != [None; 2])
            {
                self.rest.extra_mut().told_before[limit as usize] = None;
            }
            let expire = self.view(origin).deadlines(moment).expire().0;
            self.happened(Happening::Cleared { limit, cause, expire });
        }
    }

    /// A person was active: what only lasts until then is over.
    pub(super) fn active(&mut self, user: bool, newer: Option<&Arc<Limits>>, origin: &Origin, moment: Moment) {
        if let Some(newer) = newer.filter(|newer| newer.revision >= self.limits.revision) {
            self.adopt(newer, origin, moment);
        }
        let Some(extra) = self.rest.extra.as_deref() else {
            return;
        };
        if user && extra.budget_from.is_some() {
            self.rest.extra_mut().budget_from = None;
            // Activity at the very moment of the last one leaves the pulse as it is: the version says that this is a change.
            self.version += 1;
        }
    }

    /// Activity gives a session time again that only would have ended. If it gives none (it was too long ago, or the absolute
    /// deadline has passed), the session is noted already.
    pub(super) fn revive(&mut self, origin: &Origin, moment: Moment) {
        if self.rest.unenforced().is_none() {
            return;
        }
        let expire = self.view(origin).deadlines(moment).expire().0;
        if expire > moment.now || self.limits.enforced {
            self.rest.extra_mut().unenforced = None;
            self.version += 1;
        }
    }

    /// A newer revision of the policy reaches the session. It ends nobody and warns nobody by surprise: if the activity was so
    /// long ago that the session would be over under it, it waits for later activity.
    pub(super) fn adopt(&mut self, newer: &Arc<Limits>, origin: &Origin, moment: Moment) {
        let before = Arc::clone(&self.limits);
        let adopted = before.adopted(newer, moment.now.since(origin.authenticated));
        let adopted = if adopted == **newer {
            Arc::clone(newer)
        } else {
            Arc::new(adopted)
        };
        let deadlines = View {
            limits: &adopted,
            ..self.view(origin)
        }
        .plain_deadlines();
        if deadlines.idle.min(deadlines.presence.unwrap_or(Time::FAR)) <= moment.now {
            return;
        }
        self.limits = adopted;
        self.still_fired(&before);
        self.happened(Happening::PolicyAdopted {
            revision: newer.revision,
        });
    }

    /// Leads that were told for a deadline that stays are not told again: what has fired of the newer policy's points.
    fn still_fired(&mut self, before: &Limits) {
        let limits = Arc::clone(&self.limits);
        let kept = self
            .rest
            .extra
            .as_ref()
            .map(|extra| extra.told_before)
            .unwrap_or_default();
        let sides = [
            (self.rest.idle_fired, &before.idle_points, &limits.idle_points),
            (
                self.rest.absolute_fired,
                &before.absolute_points,
                &limits.absolute_points,
            ),
        ];
        let mut fired = [Fired::NONE; 2];
        for (side, (was, old, new)) in sides.into_iter().enumerate() {
            let last = was.points().checked_sub(1).and_then(|last| old.get(last)).copied();
            let Some(told) = last.into_iter().chain(kept[side]).min().filter(|_| was.stands()) else {
                continue;
            };
            let count = new.iter().filter(|lead| **lead >= told).count();
            fired[side] = Fired::of(count);
            // The last of the new points may be longer than what was told, or there may be none.
            if kept[side] != Some(told) {
                self.rest.extra_mut().told_before[side] = Some(told);
            }
        }
        [self.rest.idle_fired, self.rest.absolute_fired] = fired;
    }

    /// Notes the end that time would have brought, if the policy were enforced: once, until somebody is active again.
    pub(super) fn observe(&mut self, origin: &Origin, at: Time, limit: Limit, moment: Moment) {
        if self.rest.unenforced().is_some() {
            return;
        }
        self.happened(Happening::UnenforcedEnd { limit, at });
        self.clear(origin, Limit::Idle, Cause::NotEnforced, moment);
        self.clear(origin, Limit::Absolute, Cause::NotEnforced, moment);
        self.rest.extra_mut().unenforced = Some((limit, at));
    }

    pub(super) fn end(&mut self, origin: &Origin, end: End, now: Time, how: HowEnded) -> Arc<Tombstone> {
        self.version += 1;
        let tombstone = Arc::new(Tombstone {
            origin: origin.clone(),
            limits: Arc::clone(&self.limits),
            last_activity: self.view(origin).last_activity(now),
            idle_deadline: self.view(origin).plain_deadlines().idle,
            extensions: self.rest.extensions,
            version: self.version,
            // An alias needs its tombstone.
            forget_at: how
                .successor
                .map_or(Time::ZERO, |successor| successor.alias_until)
                .max(now + self.limits.tombstone_ttl),
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
pub(super) struct HowEnded {
    pub(super) successor: Option<Succession>,
    pub(super) request: Option<RequestId>,
    pub(super) silent: bool,
}

/// How many points have fired by `now`, and the smallest lead of them, if there are more than before.
fn passed(points: &[Duration], fired: Fired, deadline: Time, now: Time) -> Option<(Fired, Duration)> {
    let count = points.iter().take_while(|lead| deadline - **lead <= now).count();
    if count <= fired.points() && !(sabotage::on(Fault::WarnedTwice) && count > 0) {
        return None;
    }
    Some((Fired::of(count), points[count - 1]))
}
