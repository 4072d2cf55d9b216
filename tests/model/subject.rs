//! The code under test beside the naive model: every step is put to both and compared, and audited against the guarantees.

use std::{sync::Arc, time::Duration};

use proptest::{prelude::*, test_runner::TestCaseError};
use session_sidecar::{
    state::{
        Decision, Happening, HoldKind, Identity, Limits, Next, Origin, Pulse, Refusal, Reply, Rest, Successor, Touched,
        View, decide,
    },
    time::Time,
};

use super::{
    Answer, Ask, Model, Told, When,
    audit::{Audit, Seen},
    history::Beginning,
    translate::{answer, as_nanos, command, ended, hold_id, limits, moment, nanos, request_id, resolved, time, told},
};

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
            lead: Duration::ZERO,
        }
    }

    pub(crate) fn of(next: Next) -> Self {
        Self {
            limits: next.limits,
            pulse: next.pulse,
            rest: next.rest,
            version: next.version,
        }
    }
}

/// A session under test.
pub(crate) struct Subject {
    pub(crate) origin: Origin,
    pub(crate) record: Record,
    pub(crate) model: Model,
    /// What lengths of time in a history are relative to.
    pub(crate) idle_timeout: u64,
    beginning: Arc<Beginning>,
    policies: Arc<[Arc<Limits>]>,
    in_force: usize,
    audit: Audit,
    successor: Option<Box<Subject>>,
}

type Happenings = Vec<(u32, Happening)>;

impl Subject {
    /// Creates the session in both worlds. Answers what watchers are told.
    pub(crate) fn create(beginning: &Arc<Beginning>, when: When) -> Result<(Self, Vec<Told>), TestCaseError> {
        let origin = Origin {
            identity: Identity::default(),
            created: time(when.now),
            authenticated: time(when.now - beginning.authenticated_ago),
        };
        let policies: Arc<[_]> = beginning.policies.iter().map(limits).collect();
        let last_activity = when.now - beginning.idle_for;
        let next = Next::created(
            &origin,
            resolved(&policies[0], beginning.own),
            time(last_activity),
            beginning.create_request.map(request_id),
            moment(when),
        );
        let (model, expected) = Model::created(
            &beginning.policies[0],
            beginning.own,
            when.now - beginning.authenticated_ago,
            last_activity,
            beginning.create_request,
            when,
        );
        let happenings = next.happenings.clone();
        let told: Vec<Told> = happenings.iter().filter_map(told).collect();
        prop_assert_eq!(&told, &expected, "what Create tells");
        prop_assert_eq!(next.version as usize, 1 + happenings.len(), "the first version is 1");
        let mut subject = Self {
            audit: Audit::new(last_activity, when.now, &origin, &next.limits),
            idle_timeout: as_nanos(next.limits.idle_timeout),
            record: Record::of(next),
            origin,
            model,
            beginning: Arc::clone(beginning),
            policies,
            in_force: 0,
            successor: None,
        };
        subject.audit.begun(&happenings, when)?;
        subject.compare(when)?;
        Ok((subject, told))
    }

    pub(crate) fn view(&self) -> View<'_> {
        self.record.view(&self.origin)
    }

    /// The session that goes on in its place, once.
    pub(crate) fn take_successor(&mut self) -> Option<Self> {
        self.successor.take().map(|successor| *successor)
    }

    /// The limits that the policy gives now.
    pub(crate) fn in_force(&self) -> &Arc<Limits> {
        &self.policies[self.in_force]
    }

    /// Whether a touch may take the hot path: not if it could bring a newer revision.
    pub(crate) fn is_current(&self) -> bool {
        self.in_force().revision == self.record.limits.revision
    }

    /// Asks both worlds. Answers what watchers are told.
    pub(crate) fn ask(&mut self, ask: Ask, when: When) -> Result<(Answer, Vec<Told>), TestCaseError> {
        if matches!(ask, Ask::Reload) {
            self.in_force = (self.in_force + 1) % self.policies.len();
        }
        let before = self.record.clone();
        let slow = |ago| Ask::Touch {
            counts: true,
            user: false,
            ago,
        };
        let (ask, (reply, happenings, successor)) = match ask {
            Ask::HotTouch { ago } if self.is_current() => {
                let limits = &self.record.limits;
                match self.record.pulse.touch(&self.origin, limits, nanos(ago), moment(when)) {
                    Touched::Raised(raised) => {
                        self.record.pulse = raised;
                        (ask, (Ok(Reply::Counted), Vec::new(), None))
                    }
                    Touched::Stale => (ask, (Ok(Reply::Stale), Vec::new(), None)),
                    Touched::Dead | Touched::Slow => (slow(ago), self.decide(slow(ago), when)),
                }
            }
            Ask::HotTouch { ago } => (slow(ago), self.decide(slow(ago), when)),
            ask => (ask, self.decide(ask, when)),
        };
        let policy = &self.beginning.policies[self.in_force];
        let (expected, expected_told) = self.model.ask(ask, policy, when);
        let answer = answer(&reply);
        let told: Vec<Told> = happenings.iter().filter_map(told).collect();
        prop_assert_eq!(&answer, &expected, "the answer to {:?}", ask);
        prop_assert_eq!(&told, &expected_told, "what {:?} tells", ask);
        if let Some(Told::Ended(_)) = told.last() {
            prop_assert_eq!(self.record.rest.end().map(|end| end.version), Some(self.record.version));
        }
        self.audit.step(&Seen {
            origin: &self.origin,
            before: &before,
            after: &self.record,
            ask,
            reply: &reply,
            happenings: &happenings,
            when,
        })?;
        self.compare(when)?;
        self.succeed(successor, when)?;
        Ok((answer, told))
    }

    fn decide(&mut self, ask: Ask, when: When) -> (Result<Reply, Refusal>, Happenings, Option<Box<Successor>>) {
        let command = command(ask, self.in_force(), &self.record.limits);
        let Decision { next, reply } = decide(&self.view(), &command, moment(when));
        let Some(mut next) = next else {
            return (reply, Vec::new(), None);
        };
        let happenings = std::mem::take(&mut next.happenings);
        let successor = next.successor.take();
        self.record = Record::of(*Box::new(next));
        (reply, happenings, successor)
    }

    /// The session goes on under another name, in both worlds or in none.
    fn succeed(&mut self, successor: Option<Box<Successor>>, when: When) -> Checked {
        let expected = self.model.take_successor();
        prop_assert_eq!(successor.is_some(), expected.is_some(), "goes on");
        let (Some(successor), Some((model, expected))) = (successor, expected) else {
            return Ok(());
        };
        let Successor { origin, next, .. } = *successor;
        let happenings = next.happenings.clone();
        let told: Vec<Told> = happenings.iter().filter_map(told).collect();
        prop_assert_eq!(&told, &expected, "what the successor tells");
        let first = happenings.first().map(|(version, _)| *version);
        prop_assert_eq!(first, Some(1), "its snapshot is its first version");
        prop_assert_eq!(next.version as usize, happenings.len());
        let mut subject = Self {
            audit: self.audit.succeeding(&origin, &next.limits),
            idle_timeout: self.idle_timeout,
            record: Record::of(next),
            origin,
            model,
            beginning: Arc::clone(&self.beginning),
            policies: Arc::clone(&self.policies),
            in_force: self.in_force,
            successor: None,
        };
        subject.audit.begun(&happenings, when)?;
        subject.compare(when)?;
        self.successor = Some(Box::new(subject));
        Ok(())
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
            view.plain_deadlines().absolute.as_nanos(),
            model.absolute_deadline(),
            "absolute deadline"
        );
        prop_assert_eq!(
            view.deadlines(at).presence.map(Time::as_nanos),
            model.presence_in_force(when),
            "presence deadline"
        );
        prop_assert_eq!(
            view.outlook(at).next_warning.map(Time::as_nanos),
            model.next_warning(when),
            "next warning"
        );
        let (next_action, expected) = (view.next_action(at).as_nanos(), model.next_action(when));
        if when.now < when.held_until && model.presence_deadline().is_some() {
            // While expiries are held, it may be looked at when the presence deadline would have been.
            prop_assert!(next_action <= expected, "next action {next_action}, not {expected}");
        } else {
            prop_assert_eq!(next_action, expected, "next action");
        }
        prop_assert_eq!(view.outlook(at).can_extend, model.can_extend(when), "can_extend");
        prop_assert_eq!(view.rest.extensions, model.extensions(), "extensions in a row");
        prop_assert_eq!(view.pulse.is_warned(), model.is_warned(), "a warning stands");
        let unenforced = view.rest.unenforced().map(|(limit, at)| (limit, at.as_nanos()));
        prop_assert_eq!(unenforced, model.observed(), "the end that was only noted");
        let budget_from = view.rest.extra.as_ref().and_then(|extra| extra.budget_from);
        prop_assert_eq!(budget_from.map(Time::as_nanos), model.budget_from(), "budget");
        self.compare_holds(when)?;
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
        prop_assert_eq!(
            plain.outlook(at).next_warning,
            view.outlook(at).next_warning,
            "nor in the warnings"
        );
        prop_assert_eq!(plain.next_action(at), view.next_action(at), "nor in when to look");
        prop_assert_eq!(
            plain.outlook(at).can_extend,
            view.outlook(at).can_extend,
            "nor in can_extend"
        );
        Ok(())
    }

    fn compare_holds(&self, when: When) -> Checked {
        let live = self.record.rest.live_holds(time(when.now));
        let mut live: Vec<_> = live
            .map(|hold| (hold.id.clone(), hold.kind, hold.until.as_nanos()))
            .collect();
        let expected = self.model.live(when.now).into_iter();
        let mut expected: Vec<_> = expected.map(|span| (hold_id(span.id), span.kind, span.until)).collect();
        let order = |(id, kind, until): &(Box<str>, HoldKind, u64)| (id.clone(), *kind == HoldKind::Work, *until);
        live.sort_by_key(order);
        expected.sort_by_key(order);
        prop_assert_eq!(live, expected, "live holds");
        Ok(())
    }
}
