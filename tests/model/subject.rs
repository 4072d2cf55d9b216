//! The code under test beside the naive model: every step is put to both and compared, and audited against the guarantees.

use std::{sync::Arc, time::Duration};

use proptest::{prelude::*, test_runner::TestCaseError};
use session_sidecar::{
    state::{
        Actor, Command, Decision, End, EndReason, Happening, Identity, Limit, Limits, Moment, Next, Origin, Pulse,
        Refusal, Reply, RequestId, Rest, Tombstone, Touched, Unmatched, View, decide, policy::warning_points,
    },
    time::Time,
};

use super::{Answer, Ask, Ended, Model, Rules, Told, When, history::Beginning};

/// Whether what was checked holds.
pub(crate) type Checked = Result<(), TestCaseError>;

/// A session's record, as the code keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) limits: Arc<Limits>,
    pub(crate) pulse: Pulse,
    pub(crate) rest: Rest,
    pub(crate) version: u32,
}

impl Record {
    pub(crate) fn view<'a>(&'a self, origin: &'a Origin) -> View<'a> {
        View {
            origin,
            limits: &self.limits,
            pulse: self.pulse,
            rest: &self.rest,
            version: self.version,
        }
    }
}

/// A session under test.
pub(crate) struct Subject {
    pub(crate) origin: Origin,
    pub(crate) record: Record,
    pub(crate) model: Model,
    pub(crate) idle_timeout: u64,
    audit: Audit,
}

impl Subject {
    /// Creates the session in both worlds. Answers what watchers are told.
    pub(crate) fn create(beginning: &Beginning, when: When) -> Result<(Self, Vec<Told>), TestCaseError> {
        let Beginning {
            rules,
            authenticated_ago,
            idle_for,
            create_request,
        } = beginning.clone();
        let origin = Origin {
            identity: Identity::default(),
            created: time(when.now),
            authenticated: time(when.now - authenticated_ago),
        };
        let idle_timeout = rules.idle_timeout;
        let last_activity = when.now - idle_for;
        let request = create_request.map(request_id);
        let Next {
            limits,
            pulse,
            rest,
            version,
            happenings,
            ..
        } = Next::created(&origin, limits(&rules), time(last_activity), request, moment(when));
        let (model, expected) =
            Model::created(rules, when.now - authenticated_ago, last_activity, create_request, when);
        let told: Vec<Told> = happenings.iter().filter_map(|(_, happening)| told(happening)).collect();
        prop_assert_eq!(&told, &expected, "what Create tells");
        prop_assert_eq!(version as usize, 1 + told.len(), "the first version is 1");
        let mut subject = Self {
            audit: Audit::new(last_activity + idle_timeout, when.now),
            record: Record {
                limits,
                pulse,
                rest,
                version,
            },
            origin,
            model,
            idle_timeout,
        };
        for (_, happening) in &happenings {
            subject.audit.happened(happening, when)?;
        }
        subject.compare(when)?;
        Ok((subject, told))
    }

    pub(crate) fn view(&self) -> View<'_> {
        self.record.view(&self.origin)
    }

    /// Asks both worlds. Answers what watchers are told.
    pub(crate) fn ask(&mut self, ask: Ask, when: When) -> Result<(Answer, Vec<Told>), TestCaseError> {
        let before = self.record.clone();
        let (ask, reply, happenings) = match ask {
            Ask::HotTouch { ago } => {
                match self
                    .record
                    .pulse
                    .touch(&self.origin, &self.record.limits, nanos(ago), moment(when))
                {
                    Touched::Raised(raised) => {
                        self.record.pulse = raised;
                        (ask, Ok(Reply::Counted), Vec::new())
                    }
                    Touched::Stale => (ask, Ok(Reply::Stale), Vec::new()),
                    Touched::Dead | Touched::Slow => self.decide(Ask::Touch { counts: true, ago }, when),
                }
            }
            ask => self.decide(ask, when),
        };
        let (expected, expected_told) = self.model.ask(ask, when);
        let answer = answer(&reply);
        let told: Vec<Told> = happenings.iter().filter_map(|(_, happening)| told(happening)).collect();
        prop_assert_eq!(&answer, &expected, "the answer to {:?}", ask);
        prop_assert_eq!(&told, &expected_told, "what {:?} tells", ask);
        if let Some(Told::Ended(_)) = told.last() {
            prop_assert_eq!(self.view().rest.end().map(|end| end.version), Some(self.record.version));
        }
        self.audit
            .step(&self.origin, &before, &self.record, ask, &reply, &happenings, when)?;
        self.compare(when)?;
        Ok((answer, told))
    }

    fn decide(&mut self, ask: Ask, when: When) -> (Ask, Result<Reply, Refusal>, Vec<(u32, Happening)>) {
        let Decision { next, reply } = decide(&self.view(), &command(ask), moment(when));
        let mut happenings = Vec::new();
        if let Some(next) = next {
            happenings = next.happenings;
            self.record = Record {
                limits: next.limits,
                pulse: next.pulse,
                rest: next.rest,
                version: next.version,
            };
        }
        (ask, reply, happenings)
    }

    /// Compares all that can be asked without a command.
    fn compare(&self, when: When) -> Checked {
        let (view, model, at) = (self.view(), &self.model, moment(when));
        prop_assert_eq!(
            view.pulse.last_activity().as_nanos(),
            model.last_activity(),
            "last activity"
        );
        prop_assert_eq!(view.pulse.is_dead(), model.end().is_some(), "dead");
        prop_assert_eq!(
            view.rest.end().map(|tombstone| ended(tombstone)),
            model.end().cloned(),
            "the end"
        );
        if model.end().is_some() {
            return Ok(());
        }
        let (expire, limit) = view.deadlines(at).expire();
        prop_assert_eq!((expire.as_nanos(), limit), model.expire(when), "expire time and limit");
        prop_assert_eq!(
            view.plain_deadlines().idle.as_nanos(),
            model.idle_deadline(),
            "idle deadline"
        );
        prop_assert_eq!(
            view.next_warning(at).map(Time::as_nanos),
            model.next_warning(when),
            "next warning"
        );
        prop_assert_eq!(view.next_action(at).as_nanos(), model.next_action(when), "next action");
        prop_assert_eq!(view.can_extend(at), model.can_extend(when), "can_extend");
        prop_assert_eq!(view.rest.extensions, model.extensions(), "extensions in a row");
        prop_assert_eq!(view.pulse.is_warned(), model.is_warned(), "a warning stands");
        if view.pulse.is_warned() || view.pulse.is_slow() {
            return Ok(());
        }
        // The hot path and the driver read such a session without its rest.
        let plain = View {
            rest: &Rest::PLAIN,
            ..view
        };
        prop_assert_eq!(
            plain.deadlines(at),
            view.deadlines(at),
            "the rest has no say in the deadlines"
        );
        prop_assert_eq!(plain.next_warning(at), view.next_warning(at), "nor in the warnings");
        prop_assert_eq!(plain.can_extend(at), view.can_extend(at), "nor in can_extend");
        Ok(())
    }
}

/// What the guarantees alone say, from what callers and watchers see, without the model's arithmetic.
struct Audit {
    /// The furthest idle deadline that an acknowledged call established.
    acknowledged: u64,
    /// The latest time that anybody read from the clock.
    clock: u64,
    /// The smallest lead warned of, for the idle and the absolute deadline, and not cleared.
    standing: [Option<Duration>; 2],
    end: Option<Arc<Tombstone>>,
}

impl Audit {
    fn new(acknowledged: u64, clock: u64) -> Self {
        Self {
            acknowledged,
            clock,
            standing: [None, None],
            end: None,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "a step is all of this")]
    fn step(
        &mut self,
        origin: &Origin,
        before: &Record,
        after: &Record,
        ask: Ask,
        reply: &Result<Reply, Refusal>,
        happenings: &[(u32, Happening)],
        when: When,
    ) -> Checked {
        self.clock = self.clock.max(when.now);
        if let Some(end) = &self.end {
            let same = matches!(reply, Err(Refusal::Ended(tombstone)) if Arc::ptr_eq(tombstone, end));
            prop_assert!(same, "G5: {:?} on an ended session got {:?}", ask, reply);
            prop_assert!(happenings.is_empty(), "G5, G6: {:?} after the end", happenings);
            prop_assert_eq!((after.pulse, after.version), (before.pulse, before.version), "G5");
            return Ok(());
        }
        for (_, happening) in happenings {
            self.happened(happening, when)?;
        }
        match (ask, reply) {
            (Ask::Touch { ago, .. } | Ask::HotTouch { ago }, Ok(Reply::Counted)) => {
                let earliest = if ago == 0 { 0 } else { origin.created.as_nanos() };
                let activity = when.now.saturating_sub(ago).max(earliest);
                self.acknowledge(activity + after.limits.idle_timeout.as_nanos() as u64);
            }
            (Ask::Extend { wanted, .. }, Ok(Reply::Extended { .. })) if after.version > before.version => {
                let idle = after.limits.idle_timeout.as_nanos() as u64;
                self.acknowledge(when.now + idle);
                let wanted = when.now.saturating_add(wanted.unwrap_or(idle));
                self.acknowledge(wanted.min(origin.absolute_deadline(&after.limits).as_nanos()));
            }
            _ => {}
        }
        let (old, new) = (before.view(origin), after.view(origin));
        let expire = new.deadlines(moment(when)).expire().0;
        let ended = self.end.is_some();
        prop_assert_eq!(ended, after.pulse.is_dead());
        prop_assert!(ended || expire.as_nanos() > when.now, "G2: live after its deadline");
        prop_assert!(
            expire <= origin.absolute_deadline(&after.limits),
            "G7: expires after the absolute deadline"
        );
        let (from, to) = (before.pulse.last_activity(), after.pulse.last_activity());
        prop_assert!(
            from <= to && to.as_nanos() <= self.clock,
            "G8: activity went from {:?} to {:?}",
            from,
            to
        );
        if matches!(ask, Ask::Judge | Ask::Touch { counts: false, .. }) {
            prop_assert_eq!((to, new.plain_deadlines()), (from, old.plain_deadlines()), "G9");
        }
        let grown = after.version - before.version;
        prop_assert!(
            grown as usize >= happenings.len(),
            "every event has a version of its own"
        );
        prop_assert_eq!(
            grown > 0,
            !happenings.is_empty(),
            "the version grows with all but last activity alone"
        );
        Ok(())
    }

    fn acknowledge(&mut self, deadline: u64) {
        self.acknowledged = self.acknowledged.max(deadline);
    }

    fn happened(&mut self, happening: &Happening, when: When) -> Checked {
        prop_assert!(self.end.is_none(), "G6: {:?} after the end", happening);
        match happening {
            Happening::Warning {
                limit, point, expire, ..
            } => {
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
            }
            Happening::Cleared { limit, expire, .. } => {
                prop_assert_eq!(*limit, Limit::Idle, "G4: an absolute warning was cleared");
                prop_assert!(self.standing[0].take().is_some(), "G4: cleared without a warning");
                prop_assert!(expire.as_nanos() > when.now);
            }
            Happening::Ended(tombstone) => {
                let (limits, at) = (&tombstone.limits, tombstone.end.at.as_nanos());
                prop_assert!(at <= when.now, "ended in the future");
                let points = match tombstone.end.reason {
                    EndReason::IdleTimeout => {
                        prop_assert!(
                            at >= self.acknowledged,
                            "G1: ended at {} before {}",
                            at,
                            self.acknowledged
                        );
                        Some((Limit::Idle, &limits.idle_points))
                    }
                    EndReason::AbsoluteTimeout => Some((Limit::Absolute, &limits.absolute_points)),
                    _ => None,
                };
                if let Some((limit, points)) = points {
                    let warned = self.standing[limit as usize];
                    prop_assert_eq!(warned, points.last().copied(), "G3: ended without its last warning");
                    prop_assert_eq!(tombstone.end.actor, Actor::Policy);
                }
                self.end = Some(Arc::clone(tombstone));
            }
            _ => prop_assert!(!happening.is_public()),
        }
        Ok(())
    }
}

/// The policy of the code for the rules of the model.
fn limits(rules: &Rules) -> Arc<Limits> {
    let leads = |leads: &[u64]| leads.iter().map(|lead| nanos(*lead)).collect::<Vec<_>>();
    let (idle_timeout, absolute_timeout) = (nanos(rules.idle_timeout), nanos(rules.absolute_timeout));
    Arc::new(Limits {
        policy: "random".into(),
        idle_timeout,
        absolute_timeout,
        idle_points: warning_points(&leads(&rules.idle_leads), idle_timeout),
        absolute_points: warning_points(&leads(&rules.absolute_leads), absolute_timeout),
        unmatched: Unmatched::Count,
        max_extensions: rules.max_extensions,
        tombstone_ttl: nanos(rules.tombstone_ttl),
        ..Limits::default()
    })
}

pub(crate) fn command(ask: Ask) -> Command {
    match ask {
        Ask::Judge => Command::Judge,
        Ask::Touch { counts, ago } => Command::Touch {
            counts,
            user: false,
            input_report: false,
            ago: nanos(ago),
            newer: None,
        },
        Ask::HotTouch { ago } => Command::Touch {
            counts: true,
            user: false,
            input_report: false,
            ago: nanos(ago),
            newer: None,
        },
        Ask::Extend { wanted, request } => Command::Extend {
            wanted: wanted.map(nanos),
            request: request.map(request_id),
            newer: None,
        },
        Ask::End { reason, actor } => Command::End {
            end: End {
                reason,
                actor,
                actor_id: "".into(),
                note: "".into(),
                at: Time::ZERO,
            },
            request: None,
        },
    }
}

fn answer(reply: &Result<Reply, Refusal>) -> Answer {
    match reply {
        Ok(Reply::Judged) => Answer::Judged,
        Ok(Reply::Counted) => Answer::Counted,
        Ok(Reply::Ignored) => Answer::Ignored,
        Ok(Reply::Stale) => Answer::Stale,
        Ok(Reply::Extended { granted, clamped }) => Answer::Extended {
            granted: granted.as_nanos() as u64,
            clamped: *clamped,
        },
        Ok(Reply::Ended(_)) => Answer::EndedNow,
        Err(Refusal::Ended(tombstone)) => Answer::EndedBefore(ended(tombstone)),
        Err(Refusal::ExtensionLimit { max }) => Answer::ExtensionLimit(*max),
        Err(Refusal::RequestIdReused) => Answer::RequestIdReused,
        other => unreachable!("{other:?}"),
    }
}

pub(crate) fn told(happening: &Happening) -> Option<Told> {
    Some(match happening {
        Happening::Warning {
            limit,
            point,
            expire,
            can_extend,
        } => Told::Warning {
            limit: *limit,
            lead: point.as_nanos() as u64,
            expire: expire.as_nanos(),
            can_extend: *can_extend,
        },
        Happening::Cleared { limit, cause, expire } => Told::Cleared {
            limit: *limit,
            cause: *cause,
            expire: expire.as_nanos(),
        },
        Happening::Ended(tombstone) => Told::Ended(ended(tombstone)),
        _ => return None,
    })
}

fn ended(tombstone: &Tombstone) -> Ended {
    Ended {
        reason: tombstone.end.reason,
        actor: tombstone.end.actor,
        at: tombstone.end.at.as_nanos(),
        last_activity: tombstone.last_activity.as_nanos(),
        idle_deadline: tombstone.idle_deadline.as_nanos(),
        extensions: tombstone.extensions,
        forget_at: tombstone.forget_at.as_nanos(),
    }
}

pub(crate) fn moment(when: When) -> Moment {
    Moment {
        now: time(when.now),
        held_until: time(when.held_until),
    }
}

pub(crate) fn time(nanos: u64) -> Time {
    Time::from_nanos(nanos)
}

fn nanos(nanos: u64) -> Duration {
    Duration::from_nanos(nanos)
}

fn request_id((key, content): (u64, u64)) -> RequestId {
    RequestId { key, content }
}
