//! What DESIGN.md works out from the history of a session: deadlines, holds, budgets, points.

use session_sidecar::state::{HoldKind, Limit};

use super::{Model, When, naive::Past};

/// A hold, from its grant to its end.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) id: u8,
    pub(crate) kind: HoldKind,
    pub(crate) until: u64,
    /// How it ended, if anybody has noticed: when, and whether it was released.
    pub(crate) over: Option<(u64, bool)>,
}

impl Model {
    /// The latest counted activity.
    pub(crate) fn last_activity(&self) -> u64 {
        let activities = self.history.iter().filter_map(|past| match past {
            Past::Touch { activity, .. } | Past::Extend { activity, .. } | Past::Authenticated { activity } => {
                Some(*activity)
            }
            _ => None,
        });
        activities.fold(self.first_activity, u64::max)
    }

    /// Every hold that there was, in the order of their ends, those that live last.
    pub(crate) fn spans(&self) -> Vec<Span> {
        let (mut over, mut open): (Vec<Span>, Vec<Span>) = Default::default();
        for past in &self.history {
            match past {
                Past::Held { id, kind, until, .. } => match open.iter_mut().find(|span| span.id == *id) {
                    Some(span) => span.until = *until,
                    None => open.push(Span {
                        id: *id,
                        kind: *kind,
                        until: *until,
                        over: None,
                    }),
                },
                Past::HoldOver { id, at, released } => {
                    let place = open.iter().position(|span| span.id == *id).expect("it was open");
                    let span = open.remove(place);
                    over.push(Span {
                        over: Some((*at, *released)),
                        ..span
                    });
                }
                _ => {}
            }
        }
        over.extend(open);
        over
    }

    /// The holds that live now.
    pub(crate) fn live(&self, now: u64) -> Vec<Span> {
        let mut spans = self.spans();
        spans.retain(|span| span.over.is_none() && span.until > now);
        spans
    }

    /// The furthest end of a WORK hold, past or to come.
    fn furthest_work(&self) -> Option<u64> {
        let spans = self.spans();
        let work = spans.iter().filter(|span| span.kind == HoldKind::Work);
        work.map(|span| span.over.map_or(span.until, |(at, _)| at)).max()
    }

    /// `max(max(last activity, furthest WORK end) + idle_timeout, extended_until)`.
    pub(crate) fn idle_deadline(&self) -> u64 {
        let from = self.last_activity().max(self.furthest_work().unwrap_or(0));
        (from + self.rules.idle_timeout).max(self.extended_until())
    }

    /// The furthest deadline that an Extend gave, until activity has reached it.
    fn extended_until(&self) -> u64 {
        let (mut activity, mut extended) = (self.first_activity, 0);
        for past in &self.history {
            let idle_timeout = match past {
                Past::Touch {
                    activity: at,
                    idle_timeout,
                    ..
                } => {
                    activity = activity.max(*at);
                    *idle_timeout
                }
                Past::Extend {
                    activity: at,
                    until,
                    absolute,
                    idle_timeout,
                } => {
                    activity = activity.max(*at);
                    extended = extended.max(*until).min(*absolute);
                    *idle_timeout
                }
                Past::Authenticated { activity: at } => {
                    activity = activity.max(*at);
                    extended = 0;
                    0
                }
                _ => continue,
            };
            if extended <= activity + idle_timeout {
                extended = 0;
            }
        }
        extended
    }

    /// Authentication + absolute_timeout.
    pub(crate) fn absolute_deadline(&self) -> u64 {
        self.authenticated + self.rules.absolute_timeout
    }

    /// When the browser counts as closed, if no hold lives by then: the later of the last PRESENCE end and the last counted
    /// activity, plus the grace; none before the first PRESENCE hold, and not before WORK is over.
    pub(crate) fn presence_deadline(&self) -> Option<u64> {
        let presence = self.rules.presence?;
        let mut last = None;
        for span in self.spans().iter().filter(|span| span.kind == HoldKind::Presence) {
            let (at, released) = span.over.unwrap_or((span.until, false));
            if last.is_none_or(|(known, _)| at >= known) {
                last = Some((at, released));
            }
        }
        let (end, released) = last?;
        let grace = if released {
            presence.leave_grace
        } else {
            presence.lost_grace
        };
        let deadline = end.max(self.last_activity()) + grace;
        Some(deadline.max(self.furthest_work().unwrap_or(0)))
    }

    /// After a gap idle and presence deadlines are held; absolute ones never are (G14).
    fn held(deadline: u64, when: When) -> u64 {
        let held = if when.now < when.held_until { when.held_until } else { 0 };
        deadline.max(held)
    }

    pub(super) fn idle_in_force(&self, when: When) -> u64 {
        Self::held(self.idle_deadline(), when)
    }

    /// None while a hold lives.
    pub(crate) fn presence_in_force(&self, when: When) -> Option<u64> {
        if !self.live(when.now).is_empty() {
            return None;
        }
        self.presence_deadline().map(|deadline| Self::held(deadline, when))
    }

    /// The expire time and its limit: on a tie the absolute one, and presence only if it is strictly nearest.
    pub(crate) fn expire(&self, when: When) -> (u64, Limit) {
        let mut nearest = (self.absolute_deadline(), Limit::Absolute);
        if self.idle_in_force(when) < nearest.0 {
            nearest = (self.idle_in_force(when), Limit::Idle);
        }
        match self.presence_in_force(when) {
            Some(presence) if presence < nearest.0 => (presence, Limit::Presence),
            _ => nearest,
        }
    }

    /// Extends in a row without a counted Touch or a Rotate.
    pub(crate) fn extensions(&self) -> u32 {
        let row = self
            .history
            .iter()
            .rev()
            .take_while(|past| !matches!(past, Past::Touch { .. } | Past::Rotated));
        row.filter(|past| matches!(past, Past::Extend { .. })).count() as u32
    }

    pub(crate) fn can_extend(&self, when: When) -> bool {
        let left = self.rules.max_extensions.is_none_or(|max| self.extensions() < max);
        (left || !self.rules.enforced) && self.expire(when).1 != Limit::Absolute
    }

    /// When the first WORK hold was granted since the last activity that was surely a person's.
    pub(crate) fn budget_from(&self) -> Option<u64> {
        let since = self.history.iter().rev().take_while(|past| {
            !matches!(
                past,
                Past::Touch { user: true, .. } | Past::Extend { .. } | Past::Authenticated { .. }
            )
        });
        let grants = since.filter_map(|past| match past {
            Past::Held {
                kind: HoldKind::Work,
                now,
                ..
            } => Some(*now),
            _ => None,
        });
        grants.last()
    }

    /// The end that time would have brought if the policy were enforced: until activity gives it time again.
    pub(crate) fn observed(&self) -> Option<(Limit, u64)> {
        let mut since = self
            .history
            .iter()
            .rev()
            .take_while(|past| !matches!(past, Past::Revived | Past::Authenticated { .. }));
        since.find_map(|past| match past {
            Past::Observed { limit, at } => Some((*limit, *at)),
            _ => None,
        })
    }

    /// When a session is forgotten that only would have ended.
    pub(crate) fn forgotten_at(&self) -> Option<u64> {
        let (_, at) = self.observed()?;
        // Whatever a hold is for, it is a use; and so is the creation of a session that was idle for long before.
        let held = self
            .spans()
            .into_iter()
            .map(|span| span.over.map_or(span.until, |(at, _)| at));
        let used = held.fold(self.last_activity().max(self.created), u64::max);
        Some(at.max(used) + self.rules.tombstone_ttl)
    }

    /// When the next point is due, seen from the deadlines in force.
    pub(crate) fn next_warning(&self, when: When) -> Option<u64> {
        if self.observed().is_some() {
            return None;
        }
        let (expire, limit) = self.expire(when);
        let next = |limit: Limit, deadline: u64| self.untold(limit).into_iter().max().map(|lead| deadline - lead);
        let idle = next(Limit::Idle, self.idle_in_force(when)).filter(|_| limit == Limit::Idle);
        let absolute = next(Limit::Absolute, self.absolute_deadline());
        idle.into_iter().chain(absolute).min().filter(|at| *at < expire)
    }

    /// When somebody must look at it if nothing else happens: when it is warned, ends, or would end because its last page was
    /// lost sight of.
    pub(crate) fn next_action(&self, when: When) -> u64 {
        if let Some(at) = self.forgotten_at() {
            return at;
        }
        let lost = if self.live(when.now).is_empty() {
            None
        } else {
            self.presence_deadline()
        };
        let (expire, _) = self.expire(when);
        self.next_warning(when).into_iter().chain(lost).fold(expire, u64::min)
    }

    /// Whether a warning stands: EXPIRING.
    pub(crate) fn is_warned(&self) -> bool {
        self.told_lead(Limit::Idle).is_some() || self.told_lead(Limit::Absolute).is_some()
    }

    /// The leads in force, none over half the timeout, that were not told for the deadline as it stands.
    pub(super) fn untold(&self, limit: Limit) -> Vec<u64> {
        let (leads, timeout) = match limit {
            Limit::Idle => (&self.rules.idle_leads, self.rules.idle_timeout),
            _ => (&self.rules.absolute_leads, self.rules.absolute_timeout),
        };
        let told = self.told_lead(limit).unwrap_or(u64::MAX);
        let in_force = leads.iter().map(|lead| (*lead).min(timeout / 2));
        in_force.filter(|lead| *lead < told).collect()
    }

    /// The smallest lead that was told for the deadline as it stands and not withdrawn.
    pub(super) fn told_lead(&self, about: Limit) -> Option<u64> {
        let of = match about {
            Limit::Idle => self.idle_deadline(),
            _ => self.absolute_deadline(),
        };
        let standing = self.history.iter().rev().take_while(|past| match past {
            Past::Withdrawn { limit } => *limit != about,
            _ => true,
        });
        let told = standing.filter_map(|past| match past {
            Past::Told { limit, deadline, lead } if (*limit, *deadline) == (about, of) => Some(*lead),
            _ => None,
        });
        told.min()
    }
}
