//! Many sessions on one timeline, driven the way `sessions/judge.rs` does it: entries fire early and are armed again, and
//! touches on the hot path don't tell the timeline.

use std::{sync::Arc, time::Duration};

use proptest::{prelude::*, test_runner::TestCaseError};
use session_sidecar::{
    state::{Actor, Touched},
    time::Time,
    timeline::Timeline,
};

use super::{
    Answer, Ask, Model, Told, When,
    history::{Beginning, Clock},
    subject::{Checked, Subject},
    translate::{moment, time},
};

/// One slot of the timeline.
pub(crate) const SLOT: u64 = 1 << 22;

/// How late the driver may wake in these histories.
pub(crate) const GRAIN: u64 = 5_000_000;

/// The driver looks at the clock at least this often.
const BEAT: u64 = 1_000_000_000;

/// Many sessions on one timeline, driven the way `sessions/judge.rs` does it.
pub(crate) struct Fleet {
    pub(crate) sessions: Vec<Armed>,
    /// What was answered and told.
    pub(crate) seen: Vec<(Answer, Vec<Told>)>,
    timeline: Timeline<usize>,
    when: When,
    /// When the driver last woke.
    drained: u64,
    /// Nobody ran until then, or idle ends are held until then: what was due before may come later.
    excused_until: u64,
}

/// A session on the timeline.
pub(crate) struct Armed {
    pub(crate) subject: Subject,
    armed_for: Time,
    /// When the model says that something must happen to it.
    promised: u64,
    /// The place of the session that goes on.
    pub(crate) successor: Option<usize>,
}

impl Fleet {
    pub(crate) fn new() -> Self {
        let when = Clock::new().when();
        Self {
            sessions: Vec::new(),
            seen: Vec::new(),
            timeline: Timeline::new(time(when.now)),
            when,
            drained: when.now,
            excused_until: 0,
        }
    }

    pub(crate) fn create(&mut self, beginning: &Arc<Beginning>) -> Result<usize, TestCaseError> {
        let (subject, _) = Subject::create(beginning, self.when)?;
        self.add(subject)
    }

    fn add(&mut self, subject: Subject) -> Result<usize, TestCaseError> {
        let next_action = subject.view().next_action(moment(self.when));
        self.sessions.push(Armed {
            subject,
            armed_for: Time::FAR,
            promised: 0,
            successor: None,
        });
        let id = self.sessions.len() - 1;
        self.arm(id, next_action)?;
        self.promise(id);
        Ok(id)
    }

    fn arm(&mut self, id: usize, at: Time) -> Checked {
        let fires = self.timeline.arm(at, id);
        let (now, horizon) = (time(self.when.now), Duration::from_secs(60));
        prop_assert!(
            fires >= at || fires > now + horizon,
            "armed for {at:?}, fires at {fires:?}"
        );
        prop_assert!(
            fires <= at.max(now) + Duration::from_nanos(SLOT),
            "armed for {at:?}, fires at {fires:?}"
        );
        self.sessions[id].armed_for = fires;
        Ok(())
    }

    fn promise(&mut self, id: usize) {
        let session = &mut self.sessions[id];
        let model = &session.subject.model;
        session.promised = match model.end() {
            Some(_) => u64::MAX,
            // Whoever notes late that it would have ended may find that it should have been forgotten since.
            None if model.observed().is_some() => model.next_action(self.when).max(self.when.now),
            None => {
                let next_action = model.next_action(self.when);
                if model.presence_deadline().is_some() {
                    excused(model, next_action, self.when, self.excused_until)
                } else {
                    next_action
                }
            }
        };
    }

    /// A caller, or the driver, asks something. A touch on the hot path does not tell the timeline.
    pub(crate) fn ask(&mut self, id: usize, ask: Ask) -> Checked {
        let at = moment(self.when);
        let session = &mut self.sessions[id];
        let before = session.subject.record.clone();
        let hot = match ask {
            Ask::HotTouch { ago } if session.subject.is_current() => {
                let touched =
                    before
                        .pulse
                        .touch(&session.subject.origin, &before.limits, Duration::from_nanos(ago), at);
                matches!(touched, Touched::Raised(_) | Touched::Stale)
            }
            _ => false,
        };
        let (answer, told) = session.subject.ask(ask, self.when)?;
        let record = &session.subject.record;
        let changed = (record.pulse, record.version) != (before.pulse, before.version);
        if changed && !hot && !record.pulse.is_dead() {
            let next_action = session.subject.view().next_action(at);
            if next_action < session.armed_for {
                self.arm(id, next_action)?;
            }
        }
        if let Some(successor) = self.sessions[id].subject.take_successor() {
            self.sessions[id].successor = Some(self.add(successor)?);
        }
        self.promise(id);
        // What was past its absolute deadline under a policy that only observed ends when it learns that it is enforced.
        let enforced_now = told.iter().any(|told| matches!(told, Told::Adopted(_)));
        for told in &told {
            if let Told::Ended(end) = told
                && end.actor == Actor::Policy
                && end.at > self.excused_until
                && !enforced_now
            {
                prop_assert!(
                    self.when.now - end.at <= SLOT + GRAIN,
                    "G2: ended {} ns late",
                    self.when.now - end.at
                );
            }
        }
        self.seen.push((answer, told));
        Ok(())
    }

    /// The driver comes to one entry of the timeline.
    fn judge(&mut self, id: usize) -> Checked {
        let session = &self.sessions[id];
        let now = time(self.when.now);
        if session.subject.record.pulse.is_dead() || session.armed_for > now {
            return Ok(());
        }
        let next_action = session.subject.view().next_action(moment(self.when));
        self.sessions[id].armed_for = Time::FAR;
        if next_action > now {
            self.arm(id, next_action)?;
            return Ok(());
        }
        self.ask(id, Ask::Judge)?;
        let session = &self.sessions[id];
        if session.armed_for == Time::FAR && !session.subject.record.pulse.is_dead() {
            let next_action = session.subject.view().next_action(moment(self.when));
            self.arm(id, next_action)?;
        }
        Ok(())
    }

    /// The driver wakes.
    fn drain(&mut self) -> Checked {
        self.nothing_is_later_than(SLOT + GRAIN)?;
        self.drained = self.when.now;
        let mut due = Vec::new();
        while self.timeline.poll(time(self.when.now), &mut due) {}
        for id in due {
            self.judge(id)?;
        }
        let wake = self.timeline.next_wake();
        prop_assert!(
            wake.is_none_or(|wake| wake > time(self.when.now)),
            "due now, and not taken out"
        );
        self.nothing_is_later_than(SLOT)
    }

    /// Time passes. The driver wakes with every beat, and `lag` after the timeline says.
    pub(crate) fn pass(&mut self, nanos: u64, lag: u64) -> Checked {
        let target = self.when.now + nanos;
        loop {
            let wake = self.timeline.next_wake().map_or(u64::MAX, |wake| wake.as_nanos() + lag);
            let wake = wake.min(self.drained + BEAT).max(self.when.now);
            if wake > target {
                break;
            }
            self.when.now = wake;
            self.drain()?;
        }
        self.when.now = target;
        self.nothing_is_later_than(SLOT + GRAIN)
    }

    /// Nothing runs for so long; then idle ends are held.
    pub(crate) fn gap(&mut self, nanos: u64) {
        self.when.now += nanos;
        self.when.held_until = self.when.now + nanos.min(5_000_000_000);
        self.excused_until = self.when.held_until;
        for id in 0..self.sessions.len() {
            self.promise(id);
            let session = &mut self.sessions[id];
            session.promised = session.promised.max(self.when.now);
        }
    }

    fn nothing_is_later_than(&mut self, late: u64) -> Checked {
        for (id, session) in self.sessions.iter_mut().enumerate() {
            if session.promised.saturating_add(late) < self.when.now {
                // A hold that has lapsed meanwhile may have brought a nearer deadline, of which nobody is warned.
                let next_action = session.subject.model.next_action(self.when);
                let due = next_action.max(session.promised);
                session.promised = excused(&session.subject.model, due, self.when, self.excused_until);
            }
            let due = session.promised.saturating_add(late);
            prop_assert!(
                self.when.now <= due,
                "G2, G3: session {} is {} ns late",
                id,
                self.when.now - due + late
            );
        }
        Ok(())
    }
}

/// When something is due of which a gap may have excused the driver: what was due before the hold on expiries is over comes
/// with its end.
fn excused(model: &Model, due: u64, when: When, excused_until: u64) -> u64 {
    let held = when.now < when.held_until && model.presence_deadline().is_some();
    if due <= excused_until && (held || when.now >= excused_until) {
        excused_until
    } else {
        due
    }
}
