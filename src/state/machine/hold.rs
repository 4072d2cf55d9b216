//! Holds: begun, renewed, released, lapsed.

use super::{
    super::{
        happening::{Cause, Happening},
        hold::{Clamp, Hold, HoldKind, HoldWish, PresenceEnd},
        record::Moment,
        view::View,
    },
    HowEnded, Next, Refusal, Reply, timeout,
};
use crate::{
    sabotage::{self, Fault},
    time::Time,
};

impl Next {
    /// Takes note of holds that have lapsed.
    pub(super) fn lapse(&mut self, moment: Moment) {
        let lapsed = |hold: &Hold| hold.until <= moment.now;
        if !self
            .rest
            .extra
            .as_ref()
            .is_some_and(|extra| extra.holds.iter().any(lapsed))
        {
            return;
        }
        let holds = &mut self.rest.extra_mut().holds;
        let (mut over, live): (Vec<_>, Vec<_>) = std::mem::take(holds).into_iter().partition(lapsed);
        *holds = live;
        over.sort_by_key(|hold| hold.until);
        for hold in over {
            let at = hold.until;
            self.hold_ended(hold, at, false);
        }
    }

    pub(super) fn hold(&mut self, view: &View<'_>, wish: &HoldWish, moment: Moment) -> Result<Reply, Refusal> {
        let Moment { now, .. } = moment;
        let limits = view.limits;
        let (max_ttl, max_live) = match (wish.kind, &limits.presence) {
            (HoldKind::Work, _) => (limits.work.max_ttl, limits.work.max_live),
            (HoldKind::Presence, Some(presence)) => (presence.max_ttl, presence.max_live),
            (HoldKind::Presence, None) => return Err(Refusal::PresenceOff),
        };
        let known = self.rest.live_holds(now).find(|hold| hold.id == wish.id).cloned();
        if known.as_ref().is_some_and(|known| known.kind != wish.kind) {
            return Err(Refusal::HoldKind);
        }
        let live = self.rest.live_holds(now).filter(|hold| hold.kind == wish.kind).count();
        if known.is_none() && live >= max_live as usize {
            return Err(Refusal::HoldCap {
                kind: wish.kind,
                max: max_live,
            });
        }
        let before = view.plain_deadlines();
        let mut until = now + wish.ttl;
        let mut clamped = None;
        let mut at_most = |bound: Time, clamp| {
            if until > bound {
                (until, clamped) = (bound, Some(clamp));
            }
        };
        at_most(now + max_ttl, Clamp::MaxTtl);
        if wish.kind == HoldKind::Work && limits.enforced && !sabotage::on(Fault::NoBudget) {
            at_most(self.budget_from(now) + limits.work.budget, Clamp::Budget);
        }
        // An absolute deadline that is only observed refuses nothing once it has passed.
        if limits.enforced || before.absolute > now {
            at_most(before.absolute, Clamp::Absolute);
        }
        // A renewal never shortens what was granted (G1).
        let until = known.as_ref().map_or(until, |known| until.max(known.until));
        if until <= now {
            return Err(Refusal::HoldBudget {
                budget: limits.work.budget,
            });
        }
        let granted = until.since(now);
        let created = known.is_none();
        self.grant(wish, until, now);
        self.deadlines_moved(view.origin, before, Cause::Held, moment);
        Ok(Reply::Held {
            granted,
            clamped,
            created,
        })
    }

    pub(super) fn release(&mut self, view: &View<'_>, id: &str, moment: Moment) -> Reply {
        let known = self
            .rest
            .extra
            .as_ref()
            .and_then(|extra| extra.holds.iter().position(|hold| *hold.id == *id));
        let Some(place) = known else {
            return Reply::Released(false);
        };
        let before = view.plain_deadlines();
        let hold = self.rest.extra_mut().holds.remove(place);
        self.hold_ended(hold, moment.now, true);
        self.deadlines_moved(view.origin, before, Cause::Released, moment);
        // Work may have been all that kept a session whose browser is long gone: its time is over now, and not at some later look.
        let (expire, limit) = self.view(view.origin).deadlines(moment).expire();
        if expire > moment.now {
            return Reply::Released(true);
        }
        if view.limits.enforced {
            self.end(view.origin, timeout(limit, expire), moment.now, HowEnded::default());
        } else {
            self.observe(view.origin, expire, limit, moment);
        }
        Reply::Released(true)
    }

    fn grant(&mut self, wish: &HoldWish, until: Time, now: Time) {
        let budget_from = self.budget_from(now);
        let extra = self.rest.extra_mut();
        if wish.kind == HoldKind::Work {
            extra.budget_from = Some(budget_from);
        }
        if let Some(known) = extra.holds.iter_mut().find(|hold| hold.id == wish.id) {
            known.until = until;
            known.renewals = known.renewals.saturating_add(1);
            if !wish.purpose.is_empty() {
                known.purpose = wish.purpose.clone();
            }
            self.happened(Happening::HoldRenewed);
            return;
        }
        let hold = Hold {
            id: wish.id.clone(),
            kind: wish.kind,
            purpose: wish.purpose.clone(),
            started: now,
            until,
            renewals: 0,
        };
        extra.holds.push(hold.clone());
        self.happened(Happening::HoldStarted(hold));
    }

    fn hold_ended(&mut self, hold: Hold, at: Time, released: bool) {
        let extra = self.rest.extra_mut();
        match hold.kind {
            HoldKind::Work => extra.work_ended = extra.work_ended.max(Some(at)),
            HoldKind::Presence => {
                if extra.presence_ended.is_none_or(|known| known.at <= at) {
                    extra.presence_ended = Some(PresenceEnd { at, released });
                }
            }
        }
        self.happened(Happening::HoldEnded { hold, at, released });
    }

    fn budget_from(&self, now: Time) -> Time {
        let from = self.rest.extra.as_ref().and_then(|extra| extra.budget_from);
        from.unwrap_or(now)
    }
}
