//! What one session must be, worked out from what callers were told: DESIGN.md section 2, in plain numbers.

use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
};

use session_sidecar::rpc::proto::v1::{Actor, ClearedCause, EndReason, Limit};

use super::{
    Violation, broken,
    limits::{FAR, Limits},
};
use crate::history::{MS, Ns, SECOND, span};

/// G2's bound on what is pushed.
pub(super) const PROMPT: Ns = 50 * MS;

/// When something is looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Ns,
    /// Until when expiries are held after the latest gap.
    pub(super) held_until: Ns,
    /// Since when what is held then was due.
    pub(super) held_from: Ns,
    /// The latest time at which the machine stood still.
    pub(super) gap: (Ns, Ns),
}

impl Moment {
    fn holds(self) -> bool {
        self.now < self.held_until
    }

    /// By when what is due must be pushed: nobody can while the machine stands still.
    fn bound(self, due: Ns, can_be_held: bool) -> Ns {
        let (from, to) = self.gap;
        let mut bound = due;
        if can_be_held && due + PROMPT >= self.held_from && bound < self.held_until {
            bound = self.held_until;
        }
        if bound + PROMPT >= from && bound <= to {
            bound = to;
        }
        bound + PROMPT
    }
}

#[derive(Debug, Clone)]
pub(super) struct Hold {
    pub(super) work: bool,
    pub(super) until: Ns,
    pub(super) start: Ns,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) reason: EndReason,
    pub(super) actor: Actor,
    pub(super) at: Ns,
    pub(super) noticed: Ns,
    pub(super) successor: String,
    pub(super) actor_id: String,
}

/// An event that must come in the same instant.
#[derive(Debug, Clone)]
pub(super) enum Owed {
    Cleared {
        limit: Limit,
        cause: ClearedCause,
        expire: Ns,
    },
    Warning {
        limit: Limit,
        point: Ns,
        expire: Ns,
    },
    Ended,
}

/// A request that is remembered.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) id: String,
    pub(super) content: Vec<u8>,
    pub(super) at: Ns,
    pub(super) granted: Option<(Ns, bool)>,
}

/// What an operator must be told of a session's life.
#[derive(Debug, Clone, Default)]
pub(super) struct Story {
    pub(super) lines: Rc<Vec<(Ns, Line)>>,
    /// How many touches came, by rule and whether they counted.
    pub(super) touches: BTreeMap<(&'static str, bool), u64>,
    /// When the last one came that a rule ignored, and one that was stale.
    pub(super) ignored: Option<Ns>,
    pub(super) stale: Option<Ns>,
}

impl Story {
    pub(super) fn add(&mut self, at: Ns, line: Line) {
        Rc::make_mut(&mut self.lines).push((at, line));
    }
}

/// One line of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Warning(Limit, Ns),
    Cleared(Limit, ClearedCause),
    Extended(Ns),
    Held(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deadlines {
    pub(super) idle: Ns,
    pub(super) absolute: Ns,
    pub(super) presence: Option<Ns>,
}

impl Deadlines {
    /// The one formula. On a tie ABSOLUTE, then IDLE.
    pub(super) fn expire(self) -> (Ns, Limit) {
        let mut nearest = (self.absolute, Limit::Absolute);
        if self.idle < nearest.0 {
            nearest = (self.idle, Limit::Idle);
        }
        match self.presence {
            Some(presence) if presence < nearest.0 => (presence, Limit::Presence),
            _ => nearest,
        }
    }

    fn idle_is_nearest(self) -> bool {
        self.expire().1 == Limit::Idle
    }
}

#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) reference: String,
    pub(super) tenant: String,
    pub(super) subject: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) limits: Limits,
    pub(super) created: Ns,
    pub(super) authenticated: Ns,
    pub(super) activity: Ns,
    pub(super) absolute: Ns,
    pub(super) extended_until: Ns,
    pub(super) extensions: u32,
    pub(super) version: u64,
    /// The version of its latest event.
    pub(super) event_version: u64,
    pub(super) idle_fired: usize,
    pub(super) absolute_fired: usize,
    pub(super) holds: BTreeMap<String, Hold>,
    pub(super) work_end: Ns,
    pub(super) presence_end: Option<(Ns, bool)>,
    pub(super) budget_from: Option<Ns>,
    pub(super) reports_input: bool,
    pub(super) requests: Vec<Remembered>,
    pub(super) end: Option<End>,
    pub(super) predecessor: String,
    /// When something last moved a deadline: what became due by that is due from then on.
    pub(super) changed: Ns,
    pub(super) owed: VecDeque<Owed>,
    pub(super) story: Story,
    /// With `enforce = false`: the deadline that passed, and its limit.
    pub(super) noted: Option<(Ns, Limit)>,
    /// It is unknown by now: it was only observed, and nobody has used it for long; or its tombstone went at the cap.
    pub(super) forgotten: bool,
    /// Whether the old id may still be used (an alias), after a Rotate.
    pub(super) alias_until: Ns,
}

impl Session {
    pub(super) fn enforced(&self) -> bool {
        self.limits.spec.enforced
    }

    /// The furthest end of WORK, past or to come.
    fn work_until(&self) -> Ns {
        let live = self
            .holds
            .values()
            .filter(|hold| hold.work)
            .map(|hold| hold.until)
            .max();
        live.unwrap_or(-FAR).max(self.work_end)
    }

    pub(super) fn plain(&self, now: Ns) -> Deadlines {
        let work = self.work_until();
        let idle = (self.activity.max(work) + self.limits.idle).max(self.extended_until);
        Deadlines {
            idle: if self.limits.idle >= FAR { FAR } else { idle },
            absolute: self.absolute,
            presence: self.presence_deadline(now, work),
        }
    }

    fn presence_deadline(&self, now: Ns, work: Ns) -> Option<Ns> {
        let presence = self.limits.spec.presence?;
        if self.holds.values().any(|hold| hold.until > now) {
            return None;
        }
        let lapsed = self
            .holds
            .values()
            .filter(|hold| !hold.work)
            .map(|hold| (hold.until, false))
            .max();
        let (end, released) = self.presence_end.max(lapsed)?;
        let grace = if released { presence.leave } else { presence.lost };
        Some((end.max(self.activity) + grace as Ns * MS).max(work))
    }

    /// The deadlines in force: while expiries are held, none but the absolute one passes before the end of the hold.
    pub(super) fn deadlines(&self, moment: Moment) -> Deadlines {
        let mut deadlines = self.plain(moment.now);
        if moment.holds() {
            deadlines.idle = deadlines.idle.max(moment.held_until);
            deadlines.presence = deadlines.presence.map(|presence| presence.max(moment.held_until));
        }
        deadlines
    }

    pub(super) fn is_live(&self, moment: Moment) -> bool {
        if self.end.is_some() {
            return false;
        }
        if self.enforced() {
            return self.deadlines(moment).expire().0 > moment.now;
        }
        let expire = self.plain(moment.now).expire().0;
        // Time does not end it, but if nobody uses it for long it is forgotten.
        let over = self
            .noted
            .map_or(expire, |(noted, _)| noted)
            .max(self.used_until(moment.now));
        expire > moment.now || moment.now < over + self.limits.spec.tombstone as Ns * MS
    }

    /// How many idle points have been passed at a moment, if idle points fire at all then.
    fn idle_passed(&self, moment: Moment) -> usize {
        let deadlines = self.deadlines(moment);
        if !deadlines.idle_is_nearest() {
            return 0;
        }
        passed(&self.limits.idle_points, deadlines.idle, moment.now)
    }

    pub(super) fn absolute_passed(&self, now: Ns) -> usize {
        passed(&self.limits.absolute_points, self.absolute, now)
    }

    /// Ends the session if its time is over, and says which events must have come, or come now.
    pub(super) fn pass_time(&mut self, moment: Moment) -> Result<(), Violation> {
        if self.end.is_some() {
            return Ok(());
        }
        self.check_warnings_came(moment)?;
        let plain = self.plain(moment.now).expire();
        // What only would have ended had passed before expiries were held, though nobody has asked since.
        let (at, limit) = if !self.enforced() && plain.0 + PROMPT < moment.held_from {
            plain
        } else {
            self.deadlines(moment).expire()
        };
        let forgettable = !self.enforced() && self.noted.is_some();
        if at > moment.now && !forgettable {
            return Ok(());
        }
        if !self.enforced() {
            self.note_unenforced(at, limit, moment);
            return Ok(());
        }
        let bound = moment.bound(at.max(self.changed), limit != Limit::Absolute);
        if moment.now > bound {
            return Err(broken(
                "G2",
                format!(
                    "{} should have ended at {}; no Ended was pushed within 50 ms",
                    self.reference,
                    crate::history::clock(at)
                ),
            ));
        }
        // A warning that was not pushed yet precedes the end.
        let then = Moment {
            now: at,
            held_until: 0,
            ..moment
        };
        self.owe_warnings(then);
        self.owed.push_back(Owed::Ended);
        self.end = Some(End {
            reason: match limit {
                Limit::Idle => EndReason::IdleTimeout,
                Limit::Presence => EndReason::BrowserClosed,
                _ => EndReason::AbsoluteTimeout,
            },
            actor: Actor::Policy,
            at,
            noticed: moment.now,
            successor: String::new(),
            actor_id: String::new(),
        });
        Ok(())
    }

    /// A session begins.
    pub(super) fn begin(&mut self, moment: Moment) {
        let (expire, limit) = self.deadlines(moment).expire();
        if !self.enforced() {
            self.note_unenforced(expire, limit, moment);
        }
        self.owe_warnings(moment);
    }

    fn note_unenforced(&mut self, at: Ns, limit: Limit, moment: Moment) {
        if at > moment.now {
            // Nothing new has passed.
        } else if self.noted.is_none() {
            self.noted = Some((at, limit));
            for (limit, fired) in [
                (Limit::Idle, &mut self.idle_fired),
                (Limit::Absolute, &mut self.absolute_fired),
            ] {
                if std::mem::take(fired) > 0 {
                    let cause = ClearedCause::NotEnforced;
                    self.owed.push_back(Owed::Cleared {
                        limit,
                        cause,
                        expire: Ns::MIN,
                    });
                }
            }
        }
        let since = self
            .noted
            .map_or(at, |(noted, _)| noted)
            .max(self.used_until(moment.now));
        if moment.now >= since + self.limits.spec.tombstone as Ns * MS {
            self.forgotten = true;
            self.end = Some(End {
                reason: EndReason::Unspecified,
                actor: Actor::Policy,
                at,
                noticed: Ns::MIN / 4,
                successor: String::new(),
                actor_id: String::new(),
            });
        }
    }

    /// The latest use of it, past or to come.
    fn used_until(&self, now: Ns) -> Ns {
        let presence = self.holds.values().filter(|hold| !hold.work).map(|hold| hold.until);
        let presence = presence.chain(self.presence_end.map(|(at, _)| at)).max();
        self.activity
            .max(self.created)
            .max(self.told_until(now))
            .max(presence.unwrap_or(-FAR))
    }

    /// Until when callers were told that it lives, though a deadline was noted: a hold or an Extend says so.
    fn told_until(&self, now: Ns) -> Ns {
        let plain = self.plain(now).idle;
        if self.limits.idle >= FAR {
            -FAR
        } else {
            plain - self.limits.idle
        }
    }

    /// A warning point that is passed must have been pushed by now.
    fn check_warnings_came(&self, moment: Moment) -> Result<(), Violation> {
        if !self.enforced() {
            return Ok(());
        }
        let deadlines = self.deadlines(moment);
        let idle = self
            .limits
            .idle_points
            .get(self.idle_fired)
            .filter(|_| deadlines.idle_is_nearest());
        let absolute = self.limits.absolute_points.get(self.absolute_fired);
        for (lead, deadline, name) in [
            (idle, deadlines.idle, "idle"),
            (absolute, deadlines.absolute, "absolute"),
        ] {
            let Some(lead) = lead else { continue };
            let due = (deadline - lead).max(self.changed).max(self.last_lapse(moment.now));
            if due <= deadlines.expire().0 && moment.now > moment.bound(due, false) {
                return Err(broken(
                    "G3",
                    format!(
                        "{}: the {name} warning {} before was not pushed within 50 ms",
                        self.reference,
                        span(*lead)
                    ),
                ));
            }
        }
        Ok(())
    }

    /// A lapse may make another deadline the nearest.
    fn last_lapse(&self, now: Ns) -> Ns {
        let lapses = self
            .holds
            .values()
            .map(|hold| hold.until)
            .filter(|until| *until <= now)
            .max();
        lapses.unwrap_or(-FAR)
    }

    /// Whatever points are passed by now and not pushed yet must be pushed in this very instant.
    pub(super) fn owe_warnings(&mut self, moment: Moment) {
        if self.noted.is_some() {
            return;
        }
        let deadlines = self.deadlines(moment);
        let count = self.idle_passed(moment);
        if count > self.idle_fired {
            self.idle_fired = count;
            let point = self.limits.idle_points[count - 1];
            self.owed.push_back(Owed::Warning {
                limit: Limit::Idle,
                point,
                expire: deadlines.idle,
            });
        }
        let count = self.absolute_passed(moment.now);
        if count > self.absolute_fired {
            self.absolute_fired = count;
            let point = self.limits.absolute_points[count - 1];
            self.owed.push_back(Owed::Warning {
                limit: Limit::Absolute,
                point,
                expire: deadlines.absolute,
            });
        }
    }

    /// The idle deadline may have moved: a warning of it that stood is withdrawn, and comes anew if it is still near.
    /// `expiring`: the answer says that a warning stands after it.
    pub(super) fn moved(&mut self, before: Deadlines, cause: ClearedCause, moment: Moment, expiring: bool) {
        let after = self.plain(moment.now);
        let mut anew = expiring;
        if after.idle != before.idle {
            self.changed = moment.now;
            if self.idle_fired > 0 {
                self.idle_fired = 0;
                let expire = self.deadlines(moment).expire().0;
                self.owed.push_back(Owed::Cleared {
                    limit: Limit::Idle,
                    cause,
                    expire,
                });
                anew = true;
            }
        }
        if after.absolute != before.absolute && std::mem::take(&mut self.absolute_fired) > 0 {
            let (limit, cause) = (Limit::Absolute, ClearedCause::PolicyChanged);
            let expire = self.deadlines(moment).expire().0;
            self.owed.push_back(Owed::Cleared { limit, cause, expire });
            anew = true;
        }
        if after != before {
            self.changed = moment.now;
        }
        if anew {
            self.owe_warnings(moment);
        }
    }

    /// Whether an answer says that it expires: a warning stands, or it only lives because expiries are held.
    pub(super) fn shows_expiring(&self, moment: Moment) -> bool {
        self.is_expiring() || self.plain(moment.now).expire().0 <= moment.now
    }

    /// When the next warning is due if nothing else happens; it may be due already.
    pub(super) fn next_warning(&self, moment: Moment) -> Option<Ns> {
        if self.noted.is_some() {
            return None;
        }
        let deadlines = self.deadlines(moment);
        let idle = self.limits.idle_points.get(self.idle_fired);
        let idle = idle.filter(|_| deadlines.idle_is_nearest());
        let absolute = self.limits.absolute_points.get(self.absolute_fired);
        let idle = idle.map(|lead| deadlines.idle - lead);
        let absolute = absolute.map(|lead| deadlines.absolute - lead);
        let next = [idle, absolute].into_iter().flatten().min()?;
        (next < deadlines.expire().0).then_some(next)
    }

    pub(super) fn is_expiring(&self) -> bool {
        self.noted.is_none() && (self.idle_fired > 0 || self.absolute_fired > 0)
    }

    /// A warning that nobody's call caused: the driver says that a point is passed.
    pub(super) fn warned(&mut self, limit: Limit, point: Ns, expire: Ns, moment: Moment) -> Result<(), Violation> {
        let deadlines = self.deadlines(moment);
        let (count, fired, deadline, points) = if limit == Limit::Idle {
            (
                self.idle_passed(moment),
                &mut self.idle_fired,
                deadlines.idle,
                &self.limits.idle_points,
            )
        } else {
            let count = passed(&self.limits.absolute_points, self.absolute, moment.now);
            (
                count,
                &mut self.absolute_fired,
                deadlines.absolute,
                &self.limits.absolute_points,
            )
        };
        let name = &self.reference;
        if count == 0 {
            return Err(broken(
                "G3",
                format!("{name} was warned too early, or of a limit that is not the nearest"),
            ));
        }
        if count <= *fired {
            return Err(broken("G3", format!("{name} was warned twice of the same point")));
        }
        if point != points[count - 1] {
            return Err(broken(
                "G3",
                format!("{name} was warned of {}, not of the smallest lead passed", span(point)),
            ));
        }
        if (expire - deadline).abs() > MS / 1000 {
            return Err(broken(
                "G3",
                format!(
                    "{name}: a warning tells of {}, not of its deadline {}",
                    span(expire),
                    span(deadline)
                ),
            ));
        }
        *fired = count;
        Ok(())
    }

    /// A hold that lives at a moment.
    pub(super) fn live_hold(&self, hold: &str, now: Ns) -> Option<&Hold> {
        self.holds.get(hold).filter(|hold| hold.until > now)
    }

    /// What has lapsed is past.
    pub(super) fn settle_holds(&mut self, now: Ns) {
        let lapsed: Vec<_> = self
            .holds
            .iter()
            .filter(|(_, hold)| hold.until <= now)
            .map(|(id, _)| id.clone())
            .collect();
        for id in lapsed {
            if let Some(hold) = self.holds.remove(&id) {
                self.hold_ended(&hold, hold.until, false);
            }
        }
    }

    pub(super) fn hold_ended(&mut self, hold: &Hold, at: Ns, released: bool) {
        if hold.work {
            self.work_end = self.work_end.max(at);
        } else {
            self.presence_end = self.presence_end.max(Some((at, released)));
        }
    }

    /// Activity that counts, now or before. Answers false if later activity is known.
    pub(super) fn active(&mut self, at: Ns) -> bool {
        let at = at.max(self.created);
        if at < self.activity {
            return false;
        }
        self.activity = at;
        true
    }

    /// Whether it must still be remembered, and whether it must be forgotten.
    pub(super) fn memory(&self, now: Ns) -> (bool, bool) {
        if self.forgotten {
            return (false, true);
        }
        let Some(end) = &self.end else { return (true, false) };
        let ttl = self.limits.spec.tombstone as Ns * MS;
        // As long as a rotated session's old name leads on, it is known.
        let until = |from: Ns| (from + ttl).max(self.alias_until);
        (now < until(end.at.min(end.noticed)), now >= until(end.noticed))
    }

    /// Whether it was only observed and is forgotten: it has no end that anybody was told of.
    pub(super) fn observed_out(&self) -> bool {
        self.end
            .as_ref()
            .is_some_and(|end| end.reason == EndReason::Unspecified)
    }

    /// Until when its end should be remembered.
    pub(super) fn memory_until(&self) -> Option<Ns> {
        let end = self.end.as_ref()?;
        Some((end.noticed + self.limits.spec.tombstone as Ns * MS).max(self.alias_until))
    }

    pub(super) fn recall(&self, id: &str, now: Ns) -> Option<&Remembered> {
        let known = self.requests.iter().find(|known| known.id == id)?;
        (known.granted.is_none() || now - known.at <= 600 * SECOND).then_some(known)
    }
}

/// How many points have been passed.
fn passed(points: &[Ns], deadline: Ns, now: Ns) -> usize {
    points.iter().take_while(|lead| deadline - **lead <= now).count()
}
