//! What the guarantees alone say, from what callers and watchers see, without the model's arithmetic.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use session_sidecar::state::{
    Actor, Cause, EndReason, Happening, HoldKind, Limit, Limits, Origin, Refusal, Reply, Tombstone,
};

use super::{
    Ask, When,
    subject::{Checked, Record},
    translate::{as_nanos, moment},
};

/// One step, as callers and watchers see it.
pub(crate) struct Seen<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) before: &'a Record,
    pub(crate) after: &'a Record,
    pub(crate) ask: Ask,
    pub(crate) reply: &'a Result<Reply, Refusal>,
    pub(crate) happenings: &'a [(u32, Happening)],
    pub(crate) when: When,
}

/// What acknowledged calls have promised, and what has been told.
#[derive(Clone)]
pub(crate) struct Audit {
    /// The latest acknowledged activity.
    activity: u64,
    idle_timeout: u64,
    /// The furthest deadline that an acknowledged Extend gave and no activity has reached.
    extended: u64,
    /// Until when acknowledged holds live, or when they were released.
    holds: Vec<(u8, HoldKind, u64)>,
    /// No Rotate with authentication since: it never moves away (G7).
    absolute: u64,
    /// The latest time that anybody read from the clock.
    clock: u64,
    /// The smallest lead warned of, for the idle and the absolute deadline, and not cleared.
    standing: [Option<Duration>; 2],
    /// Whether an end that is only noted has not been followed by activity.
    noted: bool,
    adopted: bool,
    end: Option<Arc<Tombstone>>,
}

impl Audit {
    pub(crate) fn new(activity: u64, clock: u64, origin: &Origin, limits: &Limits) -> Self {
        Self {
            activity,
            idle_timeout: as_nanos(limits.idle_timeout),
            extended: 0,
            holds: Vec::new(),
            absolute: origin.absolute_deadline(limits).as_nanos(),
            clock,
            standing: [None, None],
            noted: false,
            adopted: false,
            end: None,
        }
    }

    /// What goes on with the successor of a rotated session.
    pub(crate) fn succeeding(&self, origin: &Origin, limits: &Limits) -> Self {
        let reauthenticated = self
            .end
            .as_ref()
            .and_then(|end| end.successor)
            .is_some_and(|next| next.reauthenticated);
        let mut next = Self {
            standing: [None, None],
            end: None,
            ..self.clone()
        };
        if reauthenticated {
            next.activity = self.end.as_ref().map_or(0, |end| end.end.at.as_nanos());
            next.idle_timeout = as_nanos(limits.idle_timeout);
            next.extended = 0;
            next.absolute = origin.absolute_deadline(limits).as_nanos();
            next.noted = false;
        }
        next
    }

    /// What is told of a session at its beginning.
    pub(crate) fn begun(&mut self, happenings: &[(u32, Happening)], when: When) -> Checked {
        for (_, happening) in happenings {
            self.happened(happening, None, when)?;
        }
        Ok(())
    }

    pub(crate) fn step(&mut self, seen: &Seen<'_>) -> Checked {
        let Seen {
            origin,
            before,
            after,
            ask,
            reply,
            happenings,
            when,
        } = *seen;
        self.clock = self.clock.max(when.now);
        if let Some(end) = &self.end {
            let same = matches!(reply, Err(Refusal::Ended(tombstone)) if Arc::ptr_eq(tombstone, end));
            prop_assert!(same, "G5: {:?} on an ended session got {:?}", ask, reply);
            prop_assert!(happenings.is_empty(), "G5, G6: {:?} after the end", happenings);
            prop_assert_eq!((after.pulse, after.version), (before.pulse, before.version), "G5");
            return Ok(());
        }
        self.promises(seen);
        let mut version = before.version;
        for (at, happening) in happenings {
            prop_assert!(*at > version, "every happening has a version of its own");
            version = *at;
            self.happened(happening, Some(seen), when)?;
        }
        prop_assert!(version <= after.version);
        let (old, new) = (before.view(origin), after.view(origin));
        let (expire, limit) = new.deadlines(moment(when)).expire();
        let ended = self.end.is_some();
        prop_assert_eq!(ended, after.pulse.is_dead());
        let enforced = after.limits.enforced;
        prop_assert!(
            ended || !enforced || expire.as_nanos() > when.now,
            "G2: live after its deadline"
        );
        let over = expire.as_nanos() <= when.now;
        // The retry of an Extend is no activity.
        let extended = |(_, happening): &(u32, Happening)| matches!(happening, Happening::Extended { .. });
        if matches!(reply, Ok(Reply::Counted)) || happenings.iter().any(extended) {
            prop_assert!(
                ended || !over || after.rest.unenforced().is_some(),
                "a passed deadline is noted"
            );
            self.noted = over;
        }
        prop_assert!(ended || !over || self.noted, "a passed deadline is noted");
        prop_assert!(
            expire.as_nanos() <= self.absolute,
            "G7: expires after the absolute deadline"
        );
        self.absolute = self.absolute.min(origin.absolute_deadline(&after.limits).as_nanos());
        for (_, happening) in happenings {
            if let Happening::Warning { limit: of, expire, .. } = happening {
                prop_assert!(ended || expire.as_nanos() > when.now, "warned of what has passed");
                prop_assert!(
                    ended || *of != Limit::Idle || limit == Limit::Idle,
                    "an idle warning while {:?} is nearest",
                    limit
                );
            }
        }
        let (from, to) = (before.pulse.last_activity(), after.pulse.last_activity());
        prop_assert!(
            from <= to && to.as_nanos() <= self.clock,
            "G8: activity went from {:?} to {:?}",
            from,
            to
        );
        if ask.is_background() {
            prop_assert_eq!((to, new.plain_deadlines()), (from, old.plain_deadlines()), "G9");
        }
        if matches!(ask, Ask::HotTouch { .. }) {
            prop_assert_eq!(
                before.version,
                after.version,
                "the version grows with all but last activity alone"
            );
        } else if before.version == after.version {
            let visible = |record: &Record| {
                let rest = &record.rest;
                let fired = (rest.idle_fired, rest.absolute_fired);
                (rest.extensions, fired, rest.unenforced(), Arc::as_ptr(&record.limits))
            };
            prop_assert_eq!(
                visible(before),
                visible(after),
                "the version grows with all but last activity alone"
            );
        } else {
            let silent = ask.is_activity() && reply.is_ok();
            prop_assert!(silent || !happenings.is_empty(), "the version grows for nothing");
        }
        Ok(())
    }

    /// What an acknowledged call establishes (G1).
    fn promises(&mut self, seen: &Seen<'_>) {
        let Seen {
            origin,
            after,
            ask,
            reply,
            when,
            before,
            ..
        } = *seen;
        let adopted = !Arc::ptr_eq(&before.limits, &after.limits);
        self.adopted |= adopted;
        self.idle_timeout = as_nanos(after.limits.idle_timeout);
        let mut happenings = seen.happenings.iter();
        let extended = happenings.any(|(_, happening)| matches!(happening, Happening::Extended { .. }));
        match (ask, reply) {
            (Ask::Touch { ago, .. } | Ask::HotTouch { ago }, Ok(Reply::Counted)) => {
                let earliest = if ago == 0 { 0 } else { origin.created.as_nanos() };
                self.active(when.now.saturating_sub(ago).max(earliest));
            }
            // A retry moves nothing.
            (Ask::Extend { wanted, .. }, Ok(Reply::Extended { .. })) if extended => {
                let wanted = when.now.saturating_add(wanted.unwrap_or(self.idle_timeout));
                let absolute = origin.absolute_deadline(&after.limits).as_nanos();
                self.extended = self.extended.max(wanted).min(absolute);
                self.active(when.now);
            }
            (Ask::Hold { id, kind, .. }, Ok(Reply::Held { granted, created, .. })) => {
                let until = when.now + as_nanos(*granted);
                let known = self.holds.iter_mut().rev().find(|(known, _, _)| *known == id);
                match known.filter(|_| !created) {
                    Some((_, _, end)) => *end = until.max(*end),
                    None => self.holds.push((id, kind, until)),
                }
            }
            (Ask::Release { id }, Ok(Reply::Released(true))) => {
                if let Some((_, _, end)) = self.holds.iter_mut().rev().find(|(known, _, _)| *known == id) {
                    *end = when.now;
                }
            }
            _ => {}
        }
    }

    fn active(&mut self, activity: u64) {
        self.activity = self.activity.max(activity);
        if self.extended <= self.activity + self.idle_timeout {
            self.extended = 0;
        }
    }

    fn furthest(&self, kind: HoldKind) -> u64 {
        let ends = self.holds.iter().filter(|(_, known, _)| *known == kind);
        ends.map(|(_, _, end)| *end).max().unwrap_or(0)
    }

    fn happened(&mut self, happening: &Happening, seen: Option<&Seen<'_>>, when: When) -> Checked {
        prop_assert!(self.end.is_none(), "G6: {:?} after the end", happening);
        match happening {
            Happening::Warning {
                limit, point, expire, ..
            } => {
                prop_assert!(*limit != Limit::Presence, "a warning of presence");
                let standing = &mut self.standing[*limit as usize];
                prop_assert!(
                    standing.is_none_or(|lead| *point < lead),
                    "G3: {:?} was pushed before",
                    point
                );
                *standing = Some(*point);
                prop_assert!(
                    (*expire - *point).as_nanos() <= when.now,
                    "G3: a warning before its time"
                );
                let active = seen.is_some_and(|seen| seen.ask.is_activity());
                prop_assert!(!self.noted || active, "warned of an end that is over");
            }
            Happening::Cleared { limit, cause, expire } => {
                let any = matches!(cause, Cause::Rotated | Cause::NotEnforced);
                let fits = match limit {
                    Limit::Idle => *cause != Cause::PolicyChanged,
                    Limit::Absolute => any || *cause == Cause::PolicyChanged,
                    Limit::Presence => false,
                };
                prop_assert!(fits, "G4: {:?} cleared as {:?}", limit, cause);
                let standing = self.standing[*limit as usize].take();
                prop_assert!(standing.is_some(), "G4: cleared without a warning");
                let enforced = seen.is_none_or(|seen| seen.after.limits.enforced && seen.before.limits.enforced);
                prop_assert!(!enforced || expire.as_nanos() > when.now);
            }
            Happening::UnenforcedEnd { limit, at } => {
                prop_assert!(!self.noted, "noted twice");
                prop_assert!(at.as_nanos() <= when.now, "{:?} noted before its time", limit);
                self.noted = true;
            }
            Happening::Ended(tombstone) => self.ended(tombstone, when)?,
            Happening::Succeeded { .. } => {}
            other => prop_assert!(!other.is_public(), "{:?} goes to watchers", other),
        }
        Ok(())
    }

    fn ended(&mut self, tombstone: &Arc<Tombstone>, when: When) -> Checked {
        let (limits, at) = (&tombstone.limits, tombstone.end.at.as_nanos());
        self.end = Some(Arc::clone(tombstone));
        prop_assert!(at <= when.now, "ended in the future");
        if tombstone.silent {
            let ttl = as_nanos(limits.tombstone_ttl);
            prop_assert!(!limits.enforced && self.noted);
            prop_assert!(when.now >= self.activity.max(at) + ttl, "forgotten early");
            return Ok(());
        }
        let points = match tombstone.end.reason {
            EndReason::IdleTimeout => {
                let promised =
                    (self.activity.max(self.furthest(HoldKind::Work)) + self.idle_timeout).max(self.extended);
                prop_assert!(at >= promised, "G1: ended at {} before {}", at, promised);
                Some((Limit::Idle, &limits.idle_points))
            }
            EndReason::AbsoluteTimeout => Some((Limit::Absolute, &limits.absolute_points)),
            EndReason::BrowserClosed => {
                let graces = limits
                    .presence
                    .map(|presence| [presence.leave_grace, presence.lost_grace]);
                let grace = graces.and_then(|graces| graces.into_iter().min());
                prop_assert!(grace.is_some(), "the browser closed, and the policy does not care");
                let (pages, grace) = (self.furthest(HoldKind::Presence), grace.map_or(0, as_nanos));
                prop_assert!(pages > 0, "the browser closed that was never open");
                let promised = (pages.max(self.activity) + grace).max(self.furthest(HoldKind::Work));
                prop_assert!(at >= promised, "G1: closed at {} before {}", at, promised);
                prop_assert_eq!(tombstone.end.actor, Actor::Policy);
                None
            }
            _ => None,
        };
        if let Some((limit, points)) = points {
            prop_assert!(limits.enforced, "the policy only observes");
            let (warned, last) = (self.standing[limit as usize], points.last().copied());
            // Leads of an older revision may have been told instead.
            let enough = self.adopted && last.is_none_or(|last| warned.is_some_and(|warned| warned <= last));
            prop_assert!(
                warned == last || enough,
                "G3: ended without its last warning: {:?} of {:?}",
                warned,
                last
            );
            prop_assert_eq!(tombstone.end.actor, Actor::Policy);
        }
        Ok(())
    }
}
