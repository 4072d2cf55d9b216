//! A record to be read, and the one formula of its deadlines.

use std::{fmt, sync::Arc, time::Duration};

use super::{
    policy::Limits,
    pulse::Pulse,
    record::{Limit, Moment, Origin, Rest},
};
use crate::{
    sabotage::{self, Fault},
    time::Time,
};

/// A session's record, as a value.
#[derive(Debug, Clone)]
pub struct Record {
    /// What is fixed.
    pub origin: Origin,
    /// The limits in force.
    pub limits: Arc<Limits>,
    /// The pulse.
    pub pulse: Pulse,
    /// The rest.
    pub rest: Rest,
    /// Grows with every change except last activity alone.
    pub version: u32,
}

impl Record {
    /// This record, to be read.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View {
            origin: &self.origin,
            limits: &self.limits,
            pulse: self.pulse,
            rest: &self.rest,
            version: self.version,
            lead: Duration::ZERO,
        }
    }
}

/// The deadlines of a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// `max(max(last activity, furthest WORK end) + idle_timeout, extended_until)`, or the end of a hold on expiries.
    pub idle: Time,
    /// Authentication + absolute_timeout.
    pub absolute: Time,
    /// When the session ends because its browser is gone, if it is.
    pub presence: Option<Time>,
}

impl Deadlines {
    /// The one formula: the nearest deadline. On a tie the absolute one, and any other rather than presence.
    #[must_use]
    pub fn expire(self) -> (Time, Limit) {
        let (nearest, limit) = if self.idle < self.absolute {
            (self.idle, Limit::Idle)
        } else {
            (self.absolute, Limit::Absolute)
        };
        match self.presence {
            Some(presence) if presence < nearest => (presence, Limit::Presence),
            _ => (nearest, limit),
        }
    }

    /// Whether inactivity is the nearest limit: idle points fire only then.
    #[must_use]
    pub fn idle_is_nearest(self) -> bool {
        self.expire().1 == Limit::Idle
    }
}

/// What callers are told of the time that is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlook {
    /// When the session ends if nothing else happens.
    pub expire: Time,
    /// The limit that sets it.
    pub limit: Limit,
    /// When the next warning is due if nothing else happens. It may be due already.
    pub next_warning: Option<Time>,
    /// Whether an Extend would be accepted and could still move the expire time.
    pub can_extend: bool,
    /// Whether it only lives because expiries are held (G14).
    pub about_to_end: bool,
}

/// A live session's record, to be read.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What is fixed.
    pub origin: &'a Origin,
    /// The limits in force.
    pub limits: &'a Arc<Limits>,
    /// The pulse.
    pub pulse: Pulse,
    /// The rest.
    pub rest: &'a Rest,
    /// Grows with every change except last activity alone.
    pub version: u32,
    /// How far the pulse may be ahead of the activity that raised it: where sidecars share a store, one write covers the activity
    /// of the next moments too.
    pub lead: Duration,
}

impl View<'_> {
    /// The latest counted activity that is known, never later than now (G8).
    #[must_use]
    pub fn last_activity(&self, now: Time) -> Time {
        let reach = self.pulse.last_activity();
        if self.lead.is_zero() {
            return reach;
        }
        (reach - self.lead).max(self.origin.created.min(reach)).min(now)
    }

    /// This record as a value.
    #[must_use]
    pub fn record(&self) -> Record {
        Record {
            origin: self.origin.clone(),
            limits: Arc::clone(self.limits),
            pulse: self.pulse,
            rest: self.rest.clone(),
            version: self.version,
        }
    }

    /// The deadlines, each as it will be if nothing else happens: live holds lapse at their time. No hold on expiries.
    #[must_use]
    pub fn plain_deadlines(&self) -> Deadlines {
        let activity = self.pulse.last_activity();
        let work = self.rest.work_reaches();
        let idle = work.map_or(activity, |reach| reach.max(activity)) + self.limits.idle_timeout;
        Deadlines {
            idle: idle.max(self.rest.extended_until()),
            absolute: self.absolute_deadline(),
            presence: self.presence_deadline(activity, work),
        }
    }

    fn absolute_deadline(&self) -> Time {
        let absolute = self.origin.absolute_deadline(self.limits);
        if sabotage::on(Fault::ExtendPastAbsolute) {
            return absolute.max(self.rest.extended_until());
        }
        absolute
    }

    /// The later of the last PRESENCE end and the last counted activity, plus the grace; not before WORK is over.
    fn presence_deadline(&self, activity: Time, work: Option<Time>) -> Option<Time> {
        let limits = self.limits.presence.as_ref()?;
        let end = self.rest.presence_ends()?;
        let grace = if end.released {
            limits.leave_grace
        } else {
            limits.lost_grace
        };
        let activity = if sabotage::on(Fault::PresenceIgnoresTouch) {
            end.at
        } else {
            activity
        };
        let deadline = end.at.max(activity) + grace;
        Some(work.map_or(deadline, |reach| reach.max(deadline)))
    }

    /// The deadlines in force at a moment: there is no presence deadline while a hold lives, and while expiries are held (G14)
    /// an idle or presence deadline is not before the end of that.
    #[must_use]
    pub fn deadlines(&self, moment: Moment) -> Deadlines {
        self.in_force(self.plain_deadlines(), moment)
    }

    fn in_force(&self, mut deadlines: Deadlines, moment: Moment) -> Deadlines {
        if deadlines.presence.is_some() && self.rest.live_holds(moment.now).next().is_some() {
            deadlines.presence = None;
        }
        if moment.holds() {
            deadlines.idle = moment.held(deadlines.idle);
            deadlines.presence = deadlines.presence.map(|at| moment.held(at));
        }
        deadlines
    }

    /// Whether activity does nothing but raise the pulse, as long as no deadline has passed.
    #[must_use]
    pub fn is_only_raised(&self) -> bool {
        !self.pulse.is_dead() && !self.pulse.is_warned() && self.rest.only_pages_have_a_say()
    }

    /// The nearest deadline but that of inactivity, as it is if nothing more happens: activity may only put it off.
    #[must_use]
    pub fn raised_until(&self) -> Time {
        let Deadlines { absolute, presence, .. } = self.plain_deadlines();
        presence.map_or(absolute, |presence| presence.min(absolute))
    }

    /// What callers are told of the time that is left.
    #[must_use]
    pub fn outlook(&self, moment: Moment) -> Outlook {
        let plain = self.plain_deadlines();
        let deadlines = self.in_force(plain, moment);
        let (expire, limit) = deadlines.expire();
        let extensions_left = self.limits.max_extensions.is_none_or(|max| self.rest.extensions < max);
        Outlook {
            expire,
            limit,
            next_warning: self.warning_before(deadlines),
            can_extend: limit != Limit::Absolute && (extensions_left || !self.limits.enforced),
            // During a hold of expiries, a session whose plain deadline has passed is about to end.
            about_to_end: self.limits.enforced && plain.expire().0 <= moment.now,
        }
    }

    fn warning_before(&self, deadlines: Deadlines) -> Option<Time> {
        if self.rest.unenforced().is_some() {
            return None;
        }
        let limits = self.limits;
        let idle = limits.idle_points.get(self.rest.idle_fired.points());
        let idle = idle.filter(|_| deadlines.idle_is_nearest());
        let absolute = limits.absolute_points.get(self.rest.absolute_fired.points());
        let idle = idle.map(|lead| deadlines.idle - *lead);
        let absolute = absolute.map(|lead| deadlines.absolute - *lead);
        let expire = deadlines.expire().0;
        idle.into_iter().chain(absolute).min().filter(|at| *at < expire)
    }

    /// When somebody must look at this session again if nothing else happens.
    #[must_use]
    pub fn next_action(&self, moment: Moment) -> Time {
        if self.rest.unenforced().is_some() {
            return self.forgotten_at();
        }
        let plain = self.plain_deadlines();
        // A hold that lapses brings a presence deadline; while expiries are held it is not before the end of that.
        let lapse = plain.presence.filter(|at| *at > moment.now);
        let deadlines = self.in_force(plain, moment);
        let expire = deadlines.expire().0;
        self.warning_before(deadlines)
            .into_iter()
            .chain(lapse)
            .fold(expire, Time::min)
    }

    /// When a session that time has ended for a policy that only observes is forgotten: when nobody has used it for long. It is
    /// used by its creation, which may adopt one that was idle for years, by activity, and by holds of either kind.
    pub(super) fn forgotten_at(&self) -> Time {
        let over = self.rest.unenforced().map(|(_, at)| at);
        let presence = self.rest.presence_ends().map(|end| end.at);
        let used = self.rest.work_reaches().into_iter().chain(presence).chain(over);
        used.fold(self.pulse.last_activity().max(self.origin.created), Time::max) + self.limits.tombstone_ttl
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("pulse", &self.pulse)
            .field("version", &self.version)
            .field("deadlines", &self.plain_deadlines())
            .finish_non_exhaustive()
    }
}
