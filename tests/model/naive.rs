//! What is asked of the naive model, and what it answers and tells.

use session_sidecar::state::{Actor, Cause, Clamp, EndReason, HoldKind, Limit};

use super::{Answer, Ask, Ended, Own, Request, Rules, Told, When, requests::Requests};

/// How long an old id stands for the session that goes on, unless somebody else has become its owner.
const ALIAS_GRACE: u64 = 5_000_000_000;

/// One line of the history.
#[derive(Debug, Clone, Copy)]
pub(super) enum Past {
    /// A counted touch of activity at that time; the idle timeout is that in force after it.
    Touch {
        activity: u64,
        user: bool,
        idle_timeout: u64,
    },
    /// An Extend: activity now, and a deadline asked for.
    Extend {
        activity: u64,
        until: u64,
        absolute: u64,
        idle_timeout: u64,
    },
    /// An authenticated Rotate.
    Authenticated { activity: u64 },
    /// A Rotate.
    Rotated,
    /// A hold was granted or renewed.
    Held {
        id: u8,
        kind: HoldKind,
        now: u64,
        until: u64,
    },
    /// A hold was released, or somebody noticed that it has lapsed.
    HoldOver { id: u8, at: u64, released: bool },
    /// Watchers were told of this and all longer leads before that deadline.
    Told { limit: Limit, deadline: u64, lead: u64 },
    /// Watchers were told that this is over.
    Withdrawn { limit: Limit },
    /// Time would have ended it.
    Observed { limit: Limit, at: u64 },
    /// Activity gave it time again.
    Revived,
}

/// One session.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    pub(super) rules: Rules,
    own: Own,
    pub(super) created: u64,
    pub(super) authenticated: u64,
    pub(super) first_activity: u64,
    pub(super) history: Vec<Past>,
    requests: Requests,
    end: Option<Ended>,
    /// The session that goes on in its place, and what watchers are told of it at once.
    successor: Option<Box<(Model, Vec<Told>)>>,
}

impl Model {
    /// A new session, and what watchers are told at once.
    pub(crate) fn created(
        policy: &Rules,
        own: Own,
        authenticated: u64,
        first_activity: u64,
        create_request: Option<Request>,
        when: When,
    ) -> (Self, Vec<Told>) {
        let mut model = Self {
            rules: policy.resolved(own),
            own,
            created: when.now,
            authenticated,
            first_activity,
            history: Vec::new(),
            requests: Requests::new(create_request),
            end: None,
            successor: None,
        };
        let told = model.warn(when);
        (model, told)
    }

    /// How it ended, if it did.
    pub(crate) fn end(&self) -> Option<&Ended> {
        self.end.as_ref()
    }

    /// The session that goes on, once.
    pub(crate) fn take_successor(&mut self) -> Option<(Model, Vec<Told>)> {
        self.successor.take().map(|successor| *successor)
    }

    /// Asks something while `policy` is in force. Time comes first: a deadline that has passed has passed for every call (G2).
    pub(crate) fn ask(&mut self, ask: Ask, policy: &Rules, when: When) -> (Answer, Vec<Told>) {
        if let Some(end) = &self.end {
            return (Answer::EndedBefore(end.clone()), Vec::new());
        }
        let (expire, limit) = self.expire(when);
        let over = expire <= when.now;
        if over && self.rules.enforced {
            // Holds and warnings come before the end (G3): all that were due by then.
            let then = When {
                now: expire,
                held_until: 0,
            };
            let mut told = self.lapse(then);
            told.extend(self.warn(then));
            told.extend(self.time_out(limit, expire, when));
            let answer = match (ask, &self.end) {
                (Ask::Judge | Ask::Reload, _) | (_, None) => Answer::Judged,
                (_, Some(end)) => Answer::EndedBefore(end.clone()),
            };
            return (answer, told);
        }
        let mut told = self.lapse(when);
        if over {
            told.extend(self.observe(limit, expire, when));
        }
        let (answer, more) = match ask {
            Ask::Judge | Ask::Reload => (Answer::Judged, self.judge(when)),
            Ask::Touch { counts: false, .. } => (Answer::Ignored, Vec::new()),
            Ask::Touch { user, ago, .. } => self.touch(ago, user, Some(policy), when),
            Ask::HotTouch { ago } => self.touch(ago, false, None, when),
            Ask::Extend { wanted, request } => self.extend(wanted, request, policy, when),
            Ask::Hold { id, kind, ttl } => self.hold(id, kind, ttl, when),
            Ask::Release { id } => self.release(id, when),
            Ask::Rotate {
                new_subject,
                authenticated_ago,
                request,
            } => self.rotate(new_subject, authenticated_ago, request, policy, when),
            Ask::End { reason, actor, request } => self.end_by(reason, actor, request, when),
        };
        told.extend(more);
        (answer, told)
    }

    fn judge(&mut self, when: When) -> Vec<Told> {
        match (self.observed(), self.forgotten_at()) {
            (Some((limit, at)), Some(forgotten_at)) if forgotten_at <= when.now => {
                self.end_now(reason(limit), Actor::Policy, at, when.now);
                if let Some(end) = &mut self.end {
                    end.silent = true;
                }
                Vec::new()
            }
            _ => self.warn(when),
        }
    }

    /// `policy`: the one in force, or none on the hot path, which also leaves warnings to the driver.
    fn touch(&mut self, ago: u64, user: bool, policy: Option<&Rules>, when: When) -> (Answer, Vec<Told>) {
        let activity = if ago == 0 {
            when.now
        } else {
            when.now.saturating_sub(ago).max(self.created)
        };
        // What happens now is never stale, even if another caller read the clock a little later and was here before.
        if ago > 0 && activity < self.last_activity() {
            return (Answer::Stale, Vec::new());
        }
        let touched = |idle_timeout| Past::Touch {
            activity,
            user,
            idle_timeout,
        };
        let Some(policy) = policy else {
            self.history.push(touched(self.rules.idle_timeout));
            return (Answer::Counted, Vec::new());
        };
        let before = self.clone();
        let mut told = Vec::new();
        if let Some(rules) = self.adoptable(policy, when) {
            self.rules = rules;
            self.history.push(touched(self.rules.idle_timeout));
            let closed = self.presence_deadline().is_some_and(|deadline| deadline <= when.now);
            if self.idle_deadline() <= when.now || closed {
                // A reload ends nobody: it waits for later activity.
                *self = before.clone();
                self.history.push(touched(self.rules.idle_timeout));
            } else {
                told.push(Told::Adopted(self.rules.revision));
            }
        } else {
            self.history.push(touched(self.rules.idle_timeout));
        }
        told.extend(self.moved(&before, Cause::Touched, when));
        self.unless_over(&before, Answer::Counted, told, when)
    }

    fn extend(
        &mut self,
        wanted: Option<u64>,
        request: Option<Request>,
        policy: &Rules,
        when: When,
    ) -> (Answer, Vec<Told>) {
        match self.requests.recall(request, when.now) {
            Some(Ok(answer @ Answer::Extended { .. })) => return (answer, Vec::new()),
            Some(_) => return (Answer::RequestIdReused, Vec::new()),
            None => {}
        }
        if let Some(max) = self.rules.max_extensions
            && self.extensions() >= max
            && self.rules.enforced
        {
            return (Answer::ExtensionLimit(max), Vec::new());
        }
        let before = self.clone();
        let mut told = Vec::new();
        if let Some(rules) = self.adoptable(policy, when) {
            told.push(Told::Adopted(rules.revision));
            self.rules = rules;
        }
        let until = when.now.saturating_add(wanted.unwrap_or(self.rules.idle_timeout));
        self.history.push(Past::Extend {
            activity: when.now,
            // The deadline that stands is kept: the Extend answers it.
            until: until.max(before.idle_deadline()),
            absolute: self.absolute_deadline(),
            idle_timeout: self.rules.idle_timeout,
        });
        let answer = Answer::Extended {
            granted: self.expire(when).0.saturating_sub(before.expire(when).0),
            clamped: until > self.absolute_deadline(),
        };
        self.requests.granted(request, when.now, answer.clone());
        told.extend(self.moved(&before, Cause::Extended, when));
        self.unless_over(&before, answer, told, when)
    }

    fn hold(&mut self, id: u8, kind: HoldKind, ttl: u64, when: When) -> (Answer, Vec<Told>) {
        let now = when.now;
        let (max_ttl, max_live) = match (kind, self.rules.presence) {
            (HoldKind::Work, _) => (self.rules.work.max_ttl, self.rules.work.max_live),
            (HoldKind::Presence, Some(presence)) => (presence.max_ttl, presence.max_live),
            (HoldKind::Presence, None) => return (Answer::PresenceOff, Vec::new()),
        };
        let live = self.live(now);
        let renewed = live.iter().find(|span| span.id == id);
        if renewed.is_some_and(|span| span.kind != kind) {
            return (Answer::OtherKind, Vec::new());
        }
        if renewed.is_none() && live.iter().filter(|span| span.kind == kind).count() >= max_live as usize {
            return (Answer::HoldCap(max_live), Vec::new());
        }
        let mut bounds = vec![(now + max_ttl, Clamp::MaxTtl)];
        if kind == HoldKind::Work && self.rules.enforced {
            let from = self.budget_from().unwrap_or(now);
            bounds.push((from + self.rules.work.budget, Clamp::Budget));
        }
        if self.rules.enforced || self.absolute_deadline() > now {
            bounds.push((self.absolute_deadline(), Clamp::Absolute));
        }
        let (bound, clamp) = bounds
            .into_iter()
            .min_by_key(|(bound, _)| *bound)
            .expect("there is one");
        let clamped = (now.saturating_add(ttl) > bound).then_some(clamp);
        // A renewal never shortens what was granted (G1).
        let until = now
            .saturating_add(ttl)
            .min(bound)
            .max(renewed.map_or(0, |span| span.until));
        if until <= now {
            return (Answer::BudgetSpent, Vec::new());
        }
        let answer = Answer::Held {
            granted: until - now,
            clamped,
            created: renewed.is_none(),
        };
        let before = self.clone();
        self.history.push(Past::Held { id, kind, now, until });
        (answer, self.moved(&before, Cause::Held, when))
    }

    fn release(&mut self, id: u8, when: When) -> (Answer, Vec<Told>) {
        let known = self.spans().iter().any(|span| span.id == id && span.over.is_none());
        if !known {
            return (Answer::Released(false), Vec::new());
        }
        let before = self.clone();
        let mut told = vec![self.hold_over(id, when.now, true)];
        told.extend(self.moved(&before, Cause::Released, when));
        // The hold may have been all that kept it: then it is over in the same step.
        let (expire, limit) = self.expire(when);
        if expire <= when.now && self.rules.enforced {
            told.extend(self.time_out(limit, expire, when));
        } else if expire <= when.now {
            told.extend(self.observe(limit, expire, when));
        }
        (Answer::Released(true), told)
    }

    /// Takes note of what has lapsed, the earliest first.
    fn lapse(&mut self, when: When) -> Vec<Told> {
        let mut lapsed = self.spans();
        lapsed.retain(|span| span.over.is_none() && span.until <= when.now);
        lapsed.sort_by_key(|span| span.until);
        let note = |span: &super::formula::Span| self.hold_over(span.id, span.until, false);
        lapsed.iter().map(note).collect()
    }

    fn hold_over(&mut self, id: u8, at: u64, released: bool) -> Told {
        self.history.push(Past::HoldOver { id, at, released });
        Told::HoldOver { at, released }
    }

    fn rotate(
        &mut self,
        new_subject: bool,
        authenticated_ago: Option<u64>,
        request: Option<Request>,
        policy: &Rules,
        when: When,
    ) -> (Answer, Vec<Told>) {
        match self.requests.recall(request, when.now) {
            Some(Ok(Answer::Rotated)) => return (Answer::RotatedBefore, Vec::new()),
            Some(_) => return (Answer::RequestIdReused, Vec::new()),
            None => {}
        }
        let mut next = self.clone();
        if let Some(ago) = authenticated_ago {
            // Both deadlines begin anew, under the policy as it is now.
            if policy.revision >= self.rules.revision {
                next.rules = policy.resolved(self.own);
            }
            if next.rules.enforced && ago >= next.rules.absolute_timeout {
                return (Answer::AuthenticationTooOld, Vec::new());
            }
            next.authenticated = when.now - ago;
            next.history.push(Past::Authenticated { activity: when.now });
        }
        next.history
            .retain(|past| !matches!(past, Past::Told { .. } | Past::Withdrawn { .. }));
        next.history.push(Past::Rotated);
        next.requests.granted(request, when.now, Answer::Rotated);
        let (expire, limit) = next.expire(when);
        let mut first = if !next.rules.enforced && expire <= when.now {
            next.observe(limit, expire, when)
        } else {
            Vec::new()
        };
        first.extend(next.warn(when));
        self.successor = Some(Box::new((next, first)));

        let mut told = self.withdraw(Limit::Idle, Cause::Rotated, when);
        told.extend(self.withdraw(Limit::Absolute, Cause::Rotated, when));
        let trusted = authenticated_ago.is_none() && !new_subject;
        let alias_until = if trusted { when.now + ALIAS_GRACE } else { 0 };
        self.end_now(EndReason::Rotated, Actor::System, when.now, when.now);
        if let Some(end) = &mut self.end {
            end.succession = Some((alias_until, authenticated_ago.is_some()));
            // As long as the old name leads on, it is known.
            end.forget_at = end.forget_at.max(alias_until);
            end.request = request;
            told.push(Told::Ended(end.clone()));
        }
        (Answer::Rotated, told)
    }

    fn end_by(&mut self, reason: EndReason, actor: Actor, request: Option<Request>, when: When) -> (Answer, Vec<Told>) {
        if self.requests.recall(request, when.now).is_some() {
            return (Answer::RequestIdReused, Vec::new());
        }
        self.end_now(reason, actor, when.now, when.now);
        let told = self.end.as_mut().map(|end| {
            end.request = request;
            Told::Ended(end.clone())
        });
        (Answer::EndedNow, told.into_iter().collect())
    }

    /// What a newer revision comes to for this session: its absolute deadline only moves nearer, and not nearer than one idle
    /// window from now. A lower revision never overwrites a higher.
    fn adoptable(&self, policy: &Rules, when: When) -> Option<Rules> {
        if policy.revision <= self.rules.revision {
            return None;
        }
        let mut rules = policy.resolved(self.own);
        let soonest = when.now.saturating_sub(self.authenticated) + rules.idle_timeout;
        rules.absolute_timeout = rules.absolute_timeout.max(soonest).min(self.rules.absolute_timeout);
        Some(rules)
    }

    /// A policy that only observed until now may be enforced from this activity on: what had passed its absolute deadline ends.
    fn unless_over(&mut self, before: &Self, answer: Answer, told: Vec<Told>, when: When) -> (Answer, Vec<Told>) {
        let (expire, limit) = self.expire(when);
        if before.rules.enforced || !self.rules.enforced || expire > when.now {
            return (answer, told);
        }
        let mut told = told;
        told.extend(self.time_out(limit, expire, when));
        let end = self.end.clone().expect("it just ended");
        (Answer::EndedBefore(end), told)
    }

    /// A moved deadline withdraws its warnings (G4), and warns anew in the same breath if it is still near.
    fn moved(&mut self, before: &Self, cause: Cause, when: When) -> Vec<Told> {
        let mut told = Vec::new();
        let mut withdraw = |model: &mut Self, limit, cause| {
            if before.told_lead(limit).is_some() {
                model.history.push(Past::Withdrawn { limit });
                let expire = model.expire(when).0;
                told.push(Told::Cleared { limit, cause, expire });
            }
        };
        if self.idle_deadline() != before.idle_deadline() {
            withdraw(self, Limit::Idle, cause);
        }
        if self.absolute_deadline() != before.absolute_deadline() {
            withdraw(self, Limit::Absolute, Cause::PolicyChanged);
        }
        // What only would have ended lives on when somebody is active, if that gives it time again.
        let active = matches!(cause, Cause::Touched | Cause::Extended);
        if active && (self.expire(when).0 > when.now || self.rules.enforced) {
            self.history.push(Past::Revived);
        }
        told.extend(self.warn(when));
        told
    }

    fn withdraw(&mut self, limit: Limit, cause: Cause, when: When) -> Vec<Told> {
        if self.told_lead(limit).is_none() {
            return Vec::new();
        }
        let expire = self.expire(when).0;
        self.history.push(Past::Withdrawn { limit });
        vec![Told::Cleared { limit, cause, expire }]
    }

    /// Tells of the points that have passed and were not told: those of one deadline in one warning, the smallest lead.
    fn warn(&mut self, when: When) -> Vec<Told> {
        let mut told = Vec::new();
        if self.observed().is_some() {
            return told;
        }
        for limit in [Limit::Idle, Limit::Absolute] {
            if limit == Limit::Idle && self.expire(when).1 != Limit::Idle {
                continue;
            }
            let (expire, deadline) = match limit {
                Limit::Idle => (self.idle_in_force(when), self.idle_deadline()),
                _ => (self.absolute_deadline(), self.absolute_deadline()),
            };
            let due = self.untold(limit);
            let Some(lead) = due.into_iter().filter(|lead| expire - lead <= when.now).min() else {
                continue;
            };
            told.push(Told::Warning {
                limit,
                lead,
                expire,
                can_extend: limit == Limit::Idle && self.can_extend(when),
            });
            // A hold on expiries is no move: what was told stays told.
            self.history.push(Past::Told { limit, deadline, lead });
        }
        told
    }

    /// Notes once, until somebody is active again, that time would have ended it.
    fn observe(&mut self, limit: Limit, at: u64, when: When) -> Vec<Told> {
        if self.observed().is_some() {
            return Vec::new();
        }
        let mut told = vec![Told::Observed { limit, at }];
        told.extend(self.withdraw(Limit::Idle, Cause::NotEnforced, when));
        told.extend(self.withdraw(Limit::Absolute, Cause::NotEnforced, when));
        self.history.push(Past::Observed { limit, at });
        told
    }

    fn time_out(&mut self, limit: Limit, at: u64, when: When) -> Option<Told> {
        self.end_now(reason(limit), Actor::Policy, at, when.now);
        self.end.clone().map(Told::Ended)
    }

    fn end_now(&mut self, reason: EndReason, actor: Actor, at: u64, now: u64) {
        self.end = Some(Ended {
            reason,
            actor,
            at,
            last_activity: self.last_activity(),
            idle_deadline: self.idle_deadline(),
            extensions: self.extensions(),
            forget_at: now + self.rules.tombstone_ttl,
            succession: None,
            request: None,
            silent: false,
        });
    }
}

fn reason(limit: Limit) -> EndReason {
    match limit {
        Limit::Idle => EndReason::IdleTimeout,
        Limit::Absolute => EndReason::AbsoluteTimeout,
        Limit::Presence => EndReason::BrowserClosed,
    }
}
