//! The naive model of one session: a list of what happened to it and plain numbers of nanoseconds. It keeps no state that
//! could go stale: every answer is worked out from the whole list. It is written from DESIGN.md sections 2 to 4, not from the
//! code, and shares only names (limits, causes, reasons) with it.

pub(crate) mod fleet;
pub(crate) mod history;
pub(crate) mod subject;

use session_sidecar::state::{Actor, Cause, EndReason, Limit};

/// A policy as an operator writes it.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) idle_timeout: u64,
    pub(crate) absolute_timeout: u64,
    pub(crate) idle_leads: Vec<u64>,
    pub(crate) absolute_leads: Vec<u64>,
    pub(crate) max_extensions: Option<u32>,
    pub(crate) tombstone_ttl: u64,
}

/// When something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct When {
    pub(crate) now: u64,
    pub(crate) held_until: u64,
}

/// One line of the history.
#[derive(Debug, Clone, Copy)]
enum Past {
    /// A counted touch of activity at that time.
    Touch { activity: u64 },
    /// An Extend: activity now, and a deadline asked for.
    Extend { activity: u64, until: u64 },
    /// Watchers were told of this and all longer leads before that deadline.
    Told { limit: Limit, deadline: u64, lead: u64 },
}

/// What is asked of the session.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    Judge,
    Touch {
        counts: bool,
        ago: u64,
    },
    /// A touch on the hot path: it leaves warnings that are due to the driver.
    HotTouch {
        ago: u64,
    },
    Extend {
        wanted: Option<u64>,
        request: Option<(u64, u64)>,
    },
    End {
        reason: EndReason,
        actor: Actor,
    },
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Judged,
    Counted,
    Ignored,
    Stale,
    Extended { granted: u64, clamped: bool },
    EndedNow,
    EndedBefore(Ended),
    ExtensionLimit(u32),
    RequestIdReused,
}

/// What watchers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Warning {
        limit: Limit,
        lead: u64,
        expire: u64,
        can_extend: bool,
    },
    Cleared {
        limit: Limit,
        cause: Cause,
        expire: u64,
    },
    Ended(Ended),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) reason: EndReason,
    pub(crate) actor: Actor,
    pub(crate) at: u64,
    pub(crate) last_activity: u64,
    pub(crate) idle_deadline: u64,
    pub(crate) extensions: u32,
    pub(crate) forget_at: u64,
}

/// One session.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    rules: Rules,
    created: u64,
    authenticated: u64,
    first_activity: u64,
    create_request: Option<(u64, u64)>,
    history: Vec<Past>,
    /// Granted Extends with a request id: key, content, when, answer.
    requests: Vec<(u64, u64, u64, Answer)>,
    end: Option<Ended>,
}

impl Model {
    /// A new session, and what watchers are told at once.
    pub(crate) fn created(
        rules: Rules,
        authenticated: u64,
        first_activity: u64,
        create_request: Option<(u64, u64)>,
        when: When,
    ) -> (Self, Vec<Told>) {
        let mut model = Self {
            rules,
            created: when.now,
            authenticated,
            first_activity,
            create_request,
            history: Vec::new(),
            requests: Vec::new(),
            end: None,
        };
        let told = model.warn(when);
        (model, told)
    }

    /// Asks something. Time comes first: a deadline that has passed has passed for every call (G2).
    pub(crate) fn ask(&mut self, ask: Ask, when: When) -> (Answer, Vec<Told>) {
        if let Some(end) = &self.end {
            return (Answer::EndedBefore(end.clone()), Vec::new());
        }
        let (expire, limit) = self.expire(when);
        if expire <= when.now {
            let reason = match limit {
                Limit::Idle => EndReason::IdleTimeout,
                Limit::Absolute => EndReason::AbsoluteTimeout,
                Limit::Presence => EndReason::BrowserClosed,
            };
            // Warnings come before the end (G3): all that were due by then.
            let mut told = self.warn(When {
                now: expire,
                held_until: 0,
            });
            let end = self.end_now(reason, Actor::Policy, expire, when.now);
            told.push(Told::Ended(end.clone()));
            let answer = match ask {
                Ask::Judge => Answer::Judged,
                _ => Answer::EndedBefore(end),
            };
            return (answer, told);
        }
        match ask {
            Ask::Judge => (Answer::Judged, self.warn(when)),
            Ask::Touch { counts: false, .. } => (Answer::Ignored, Vec::new()),
            Ask::Touch { counts: true, ago } => self.touch(ago, true, when),
            Ask::HotTouch { ago } => self.touch(ago, false, when),
            Ask::Extend { wanted, request } => self.extend(wanted, request, when),
            Ask::End { reason, actor } => {
                let end = self.end_now(reason, actor, when.now, when.now);
                (Answer::EndedNow, vec![Told::Ended(end)])
            }
        }
    }

    fn touch(&mut self, ago: u64, warns: bool, when: When) -> (Answer, Vec<Told>) {
        let activity = if ago == 0 {
            when.now
        } else {
            when.now.saturating_sub(ago).max(self.created)
        };
        // What happens now is never stale, even if another caller read the clock a little later and was here before.
        if ago > 0 && activity < self.last_activity() {
            return (Answer::Stale, Vec::new());
        }
        let deadline_before = self.idle_deadline();
        self.history.push(Past::Touch { activity });
        if !warns {
            return (Answer::Counted, Vec::new());
        }
        (Answer::Counted, self.moved(deadline_before, Cause::Touched, when))
    }

    fn extend(&mut self, wanted: Option<u64>, request: Option<(u64, u64)>, when: When) -> (Answer, Vec<Told>) {
        if let Some((key, content)) = request
            && let Some(known) = self.recall(key, when.now)
        {
            let (known_content, answer) = known;
            let same = known_content == content && answer.is_some();
            return (answer.filter(|_| same).unwrap_or(Answer::RequestIdReused), Vec::new());
        }
        if let Some(max) = self.rules.max_extensions
            && self.extensions() >= max
        {
            return (Answer::ExtensionLimit(max), Vec::new());
        }
        let deadline_before = self.idle_deadline();
        let expire_before = self.expire(when).0;
        let until = when.now.saturating_add(wanted.unwrap_or(self.rules.idle_timeout));
        self.history.push(Past::Extend {
            activity: when.now,
            until: until.min(self.absolute_deadline()),
        });
        let answer = Answer::Extended {
            granted: self.expire(when).0 - expire_before,
            clamped: until > self.absolute_deadline(),
        };
        if let Some((key, content)) = request {
            self.requests.push((key, content, when.now, answer.clone()));
        }
        (answer, self.moved(deadline_before, Cause::Extended, when))
    }

    /// A moved deadline withdraws its warnings (G4), and warns anew in the same breath if it is still near.
    fn moved(&mut self, deadline_before: u64, cause: Cause, when: When) -> Vec<Told> {
        let mut told = Vec::new();
        if self.idle_deadline() > deadline_before && self.smallest_told(Limit::Idle, deadline_before).is_some() {
            told.push(Told::Cleared {
                limit: Limit::Idle,
                cause,
                expire: self.expire(when).0,
            });
        }
        told.extend(self.warn(when));
        told
    }

    /// Tells of the points that have passed and were not told: those of one deadline in one warning, the smallest lead.
    fn warn(&mut self, when: When) -> Vec<Told> {
        let mut told = Vec::new();
        for limit in [Limit::Idle, Limit::Absolute] {
            if limit == Limit::Idle && !self.idle_is_nearer(when) {
                continue;
            }
            let expire = match limit {
                Limit::Idle => self.idle_in_force(when),
                _ => self.absolute_deadline(),
            };
            let due = self
                .untold(limit)
                .into_iter()
                .filter(|lead| expire - lead <= when.now)
                .min();
            let Some(lead) = due else { continue };
            told.push(Told::Warning {
                limit,
                lead,
                expire,
                can_extend: limit == Limit::Idle && self.can_extend(when),
            });
            // A hold is no move: what was told stays told.
            let deadline = self.deadline(limit);
            self.history.push(Past::Told { limit, deadline, lead });
        }
        told
    }

    fn end_now(&mut self, reason: EndReason, actor: Actor, at: u64, now: u64) -> Ended {
        let end = Ended {
            reason,
            actor,
            at,
            last_activity: self.last_activity(),
            idle_deadline: self.idle_deadline(),
            extensions: self.extensions(),
            forget_at: now + self.rules.tombstone_ttl,
        };
        self.end = Some(end.clone());
        end
    }

    /// How it ended, if it did.
    pub(crate) fn end(&self) -> Option<&Ended> {
        self.end.as_ref()
    }

    /// The latest counted activity.
    pub(crate) fn last_activity(&self) -> u64 {
        let activities = self.history.iter().filter_map(|past| match past {
            Past::Touch { activity } | Past::Extend { activity, .. } => Some(*activity),
            Past::Told { .. } => None,
        });
        activities.fold(self.first_activity, u64::max)
    }

    /// `max(last activity + idle_timeout, extended_until)`.
    pub(crate) fn idle_deadline(&self) -> u64 {
        let extended = self.history.iter().filter_map(|past| match past {
            Past::Extend { until, .. } => Some(*until),
            Past::Touch { .. } | Past::Told { .. } => None,
        });
        extended.fold(self.last_activity() + self.rules.idle_timeout, u64::max)
    }

    /// Authentication + absolute_timeout.
    pub(crate) fn absolute_deadline(&self) -> u64 {
        self.authenticated + self.rules.absolute_timeout
    }

    fn deadline(&self, limit: Limit) -> u64 {
        match limit {
            Limit::Idle => self.idle_deadline(),
            _ => self.absolute_deadline(),
        }
    }

    /// After a gap idle ends are held; absolute deadlines never are (G14).
    fn idle_in_force(&self, when: When) -> u64 {
        let held = if when.now < when.held_until { when.held_until } else { 0 };
        self.idle_deadline().max(held)
    }

    fn idle_is_nearer(&self, when: When) -> bool {
        self.idle_in_force(when) < self.absolute_deadline()
    }

    /// The expire time and its limit: on a tie the absolute one.
    pub(crate) fn expire(&self, when: When) -> (u64, Limit) {
        if self.idle_is_nearer(when) {
            (self.idle_in_force(when), Limit::Idle)
        } else {
            (self.absolute_deadline(), Limit::Absolute)
        }
    }

    /// Extends in a row without a counted touch.
    pub(crate) fn extensions(&self) -> u32 {
        let row = self
            .history
            .iter()
            .rev()
            .take_while(|past| !matches!(past, Past::Touch { .. }));
        row.filter(|past| matches!(past, Past::Extend { .. })).count() as u32
    }

    pub(crate) fn can_extend(&self, when: When) -> bool {
        let left = self.rules.max_extensions.is_none_or(|max| self.extensions() < max);
        left && self.idle_is_nearer(when)
    }

    /// When the next point is due, seen from the deadlines in force.
    pub(crate) fn next_warning(&self, when: When) -> Option<u64> {
        let next = |limit: Limit, deadline: u64| self.untold(limit).into_iter().max().map(|lead| deadline - lead);
        let idle = next(Limit::Idle, self.idle_in_force(when)).filter(|_| self.idle_is_nearer(when));
        let absolute = next(Limit::Absolute, self.absolute_deadline());
        let expire = self.expire(when).0;
        idle.into_iter().chain(absolute).min().filter(|at| *at < expire)
    }

    /// When somebody must look at it if nothing else happens.
    pub(crate) fn next_action(&self, when: When) -> u64 {
        let expire = self.expire(when).0;
        self.next_warning(when).map_or(expire, |warning| warning.min(expire))
    }

    /// Whether a warning stands: EXPIRING.
    pub(crate) fn is_warned(&self) -> bool {
        let stands = |limit| self.smallest_told(limit, self.deadline(limit)).is_some();
        stands(Limit::Idle) || stands(Limit::Absolute)
    }

    /// The leads in force, none over half the timeout, that were not told for the deadline as it stands.
    fn untold(&self, limit: Limit) -> Vec<u64> {
        let (leads, timeout) = match limit {
            Limit::Idle => (&self.rules.idle_leads, self.rules.idle_timeout),
            _ => (&self.rules.absolute_leads, self.rules.absolute_timeout),
        };
        let told = self.smallest_told(limit, self.deadline(limit)).unwrap_or(u64::MAX);
        let in_force = leads.iter().map(|lead| (*lead).min(timeout / 2));
        in_force.filter(|lead| *lead < told).collect()
    }

    fn smallest_told(&self, about: Limit, of: u64) -> Option<u64> {
        let told = self.history.iter().filter_map(|past| match past {
            Past::Told { limit, deadline, lead } if (*limit, *deadline) == (about, of) => Some(*lead),
            _ => None,
        });
        told.min()
    }

    /// What is remembered of a request id for ten minutes: Create's and the last Extends', eight in all. Create's is kept for
    /// ever and is no answer to an Extend.
    fn recall(&self, key: u64, now: u64) -> Option<(u64, Option<Answer>)> {
        if let Some((created_key, content)) = self.create_request
            && created_key == key
        {
            return Some((content, None));
        }
        let kept = if self.create_request.is_some() { 7 } else { 8 };
        let recent = self.requests.iter().rev().take(kept);
        let mut matching =
            recent.filter(|(known, _, at, _)| *known == key && now.saturating_sub(*at) <= 600_000_000_000);
        matching
            .next()
            .map(|(_, content, _, answer)| (*content, Some(answer.clone())))
    }
}
