//! Time passing: commands are decided and committed here, and what is due is judged, whether or not anybody asks.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{Error, Examined, PLAIN, Sessions, Status};
use crate::{
    driver::{BEAT, Step, Work},
    sabotage::{self, Fault},
    state::{Actor, Command, End, EndReason, Happening, Moment, Refusal, Reply, SessionRef, View, decide},
    store::{Commit, Committed, Expected, Found, Session, Unavailable},
    time::Time,
    timeline::fires_at,
};

/// How many sessions are judged before other slots get their turn: a million identical deadlines must not delay the next
/// slot's warnings.
const CHUNK: usize = 512;

/// How often a change is decided anew because somebody was faster.
const MOST_TRIES: usize = 1_000;

/// How far a test clock moves at once: short of what counts as a gap.
const ADVANCE_STEP: Duration = Duration::from_secs(4);

/// Slots that have fired.
#[derive(Default)]
pub(super) struct Backlog {
    slots: VecDeque<Vec<Arc<Session>>>,
    housekept: Option<Time>,
}

/// What a command did.
pub(super) struct Changed {
    /// The session after it; after a Rotate the one that goes on.
    pub(super) session: Arc<Session>,
    pub(super) reply: Result<Reply, Refusal>,
    pub(super) status: Status,
    pub(super) happenings: Happenings,
}

impl Changed {
    /// Nothing: the session has ended meanwhile, or was forgotten.
    fn over(session: Arc<Session>, found: Found, moment: Moment) -> Result<Self, Error> {
        let reference = session.reference();
        let Found::Ended(tombstone) = found else {
            return Err(Error::unknown(reference));
        };
        Ok(Self {
            session,
            status: Status::ended(reference, &tombstone, moment.now),
            reply: Err(Refusal::Ended(tombstone)),
            happenings: Vec::new(),
        })
    }
}

/// On what terms a session goes on under another name.
#[derive(Default)]
pub(super) struct Terms {
    /// Those that must end because it does.
    pub(super) supersedes: Vec<SessionRef>,
    /// Not after this.
    pub(super) not_after: Option<Time>,
}

type Happenings = Vec<(u32, Happening)>;

impl Sessions {
    /// Looks at a session: ends it if its deadline has passed, whether or not the driver has come to it (G2). Whoever tells of
    /// it as live then tells of this moment: at a later one it may be over.
    pub(super) async fn examine(&self, session: Arc<Session>, moment: Moment) -> Result<Examined, Error> {
        let over = session.read(|view| view.pulse.is_dead() || view.deadlines(moment).expire().0 <= moment.now);
        let session = if over {
            let changed = self.change(&session, &Command::Judge, moment).await?;
            if let Err(Refusal::Ended(tombstone)) = changed.reply {
                return Ok(Examined::Ended(tombstone));
            }
            changed.session
        } else {
            session
        };
        // A touch may have been faster than the end.
        Ok(match session.read(|view| view.rest.end().cloned()) {
            Some(tombstone) => Examined::Ended(tombstone),
            None => Examined::Live(session),
        })
    }

    /// Puts a session on the timeline.
    pub(super) fn arm(&self, session: &Arc<Session>, at: Time) {
        if !self.store.needs_timeline() {
            return;
        }
        let fires = {
            let mut timeline = self.timeline.lock();
            let fires = timeline.arm(at, Arc::clone(session));
            session.arm(fires);
            fires
        };
        self.alarm.due(fires);
    }

    /// A session began.
    pub(super) fn created(&self, session: &Arc<Session>, happenings: &Happenings) {
        self.meter.created.inc();
        tracing::debug!(session = %session.reference(), "created");
        self.audit.created(session);
        self.tell(session, happenings);
    }

    /// Counts what happened, and tells the log of the process by ref only (G15).
    fn tell(&self, of: &Session, happenings: &Happenings) {
        let session = of.reference();
        for (_, happening) in happenings {
            self.audit.happened(of, happening);
            match happening {
                Happening::Warning { limit, .. } => {
                    self.meter.warned(*limit);
                    tracing::debug!(%session, ?limit, "warned");
                }
                Happening::Cleared { limit, cause, .. } => {
                    tracing::debug!(%session, ?limit, ?cause, "warnings withdrawn");
                }
                Happening::Ended(tombstone) if !tombstone.silent => {
                    let end = &tombstone.end;
                    self.meter.ended(end.reason);
                    tracing::debug!(%session, reason = ?end.reason, actor = ?end.actor, "ended");
                }
                Happening::UnenforcedEnd { limit, .. } => {
                    self.meter.unenforced_end(*limit);
                    tracing::debug!(%session, ?limit, "would have ended, but its policy only observes");
                }
                Happening::HoldStarted(hold) => self.meter.hold_started(hold.kind),
                _ => {}
            }
        }
    }

    /// Moves a test clock forward, from one thing that is due to the next, so that each happens at its own time. When it
    /// returns, all that became due is in the log.
    pub async fn advance(&self, by: Duration) {
        // What is due just before the target fires a moment after it.
        let target = fires_at(self.clock.now() + by);
        loop {
            let wake = loop {
                match self.step().await {
                    Step::Again => {}
                    Step::Until(at) => break at,
                }
            };
            let now = self.clock.now();
            if now >= target {
                break;
            }
            self.clock.advance(wake.min(target).since(now).min(ADVANCE_STEP));
        }
        self.alarm.clock_moved();
    }

    /// Decides and commits, again if somebody was faster.
    pub(super) async fn change(
        &self,
        session: &Arc<Session>,
        command: &Command,
        moment: Moment,
    ) -> Result<Changed, Error> {
        self.change_on(session, command, moment, &Terms::default()).await
    }

    /// The same for a Rotate, on the terms on which the session may go on.
    pub(super) async fn change_on(
        &self,
        session: &Arc<Session>,
        command: &Command,
        moment: Moment,
        terms: &Terms,
    ) -> Result<Changed, Error> {
        let reference = session.reference();
        let mut session = Arc::clone(session);
        let mut moment = moment;
        let asked = moment.now;
        for tries in 0..MOST_TRIES {
            if tries > 0 {
                // It took a while to find out: ends may be held since.
                moment = self.moment();
            }
            let (pulse, version, decision) =
                session.read(|view| (view.pulse, view.version, decide(view, command, moment)));
            let Some(next) = decision.next else {
                // That nothing is to be done must not be said of a copy that others have changed meanwhile.
                if command.is_asked_for()
                    && let Some(found) = self.store.latest(&session, asked).await?
                {
                    session = match found {
                        Found::Live(found) => found,
                        over => return Changed::over(session, over, moment),
                    };
                    continue;
                }
                let status = session.read(|view| match view.rest.end() {
                    Some(tombstone) => Status::ended(reference, tombstone, moment.now),
                    None => Status::live(reference, view, moment),
                });
                return Ok(Changed {
                    session,
                    reply: decision.reply,
                    status,
                    happenings: Vec::new(),
                });
            };
            let view = next.view(session.origin());
            let (status, next_action) = match next.rest.end() {
                Some(tombstone) => (Status::ended(reference, tombstone, moment.now), Time::FAR),
                None => (Status::live(reference, &view, moment), view.next_action(moment)),
            };
            let happenings = next.happenings.clone();
            let successor = next.successor.clone();
            let commit = Commit {
                reference,
                expected: Expected::Session {
                    session: Arc::clone(&session),
                    pulse,
                    version,
                },
                next,
                moment,
                supersedes: terms.supersedes.clone(),
                not_after: terms.not_after,
            };
            session = match self.store.commit(commit).await? {
                Committed::Done(done) => {
                    self.tell(&session, &happenings);
                    let next_action = match successor {
                        Some(successor) => {
                            self.audit.rotated(reference, &happenings, &successor);
                            self.tell(&done, &successor.next.happenings);
                            successor.next.view(&successor.origin).next_action(moment)
                        }
                        None => next_action,
                    };
                    // What moves a deadline earlier arms the session at once; what moves it later leaves that to the driver.
                    if next_action < done.armed_for() {
                        self.arm(&done, next_action);
                    }
                    return Ok(Changed {
                        session: done,
                        reply: decision.reply,
                        status,
                        happenings,
                    });
                }
                Committed::Lost(Found::Live(session)) => session,
                Committed::Lost(over) => return Changed::over(session, over, moment),
                Committed::Taken(Found::Live(taken)) => return Err(Error::Exists(taken.reference())),
                Committed::Taken(Found::Ended(tombstone)) => return Err(Error::NewEnded(tombstone)),
                Committed::Taken(Found::Unknown { .. }) => return Err(Unavailable.into()),
                Committed::StoreFull => return Err(Error::StoreFull),
                Committed::Full { .. } => return Err(Error::unknown(reference)),
            };
        }
        // Others change it all the time.
        Err(Unavailable.into())
    }

    /// Judges one session that the timeline says is due.
    async fn judge(&self, session: &Arc<Session>, moment: Moment) {
        if session.pulse().is_dead() || session.armed_for() > moment.now {
            return;
        }
        // Not armed any more, and that before the record is read: a change that this reading misses arms it.
        if !sabotage::on(Fault::LateDisarm) {
            session.disarm();
        }
        let pulse = session.pulse();
        let next_action = if pulse.is_warned() || pulse.is_slow() {
            session.read(|view| view.next_action(moment))
        } else {
            let view = View {
                origin: session.origin(),
                limits: &session.limits(),
                pulse,
                rest: &PLAIN,
                version: 0,
                lead: Duration::ZERO,
            };
            view.next_action(moment)
        };
        if sabotage::on(Fault::LateDisarm) {
            session.disarm();
        }
        if sabotage::on(Fault::TimerTrusted) && next_action > moment.now {
            let command = Command::End {
                end: timer_end(),
                request: None,
            };
            let _ended = self.change(session, &command, moment).await;
            return;
        }
        if next_action > moment.now {
            // It was touched since it was armed: this is all that a touch costs the timeline.
            self.arm(session, next_action);
            return;
        }
        match self.change(session, &Command::Judge, moment).await {
            Ok(changed) => self.note_lateness(&changed.happenings),
            Err(error) => tracing::error!(%error, session = %session.reference(), "a due session could not be judged"),
        }
        if session.armed_for() == Time::FAR && !session.pulse().is_dead() {
            let next_action = session.read(|view| view.next_action(moment));
            self.arm(session, next_action);
        }
    }

    pub(super) fn note_lateness(&self, happenings: &Happenings) {
        let now = self.clock.now();
        for (_, happening) in happenings {
            match happening {
                Happening::Warning { point, expire, .. } => self.meter.warning_was_late(now.since(*expire - *point)),
                Happening::Ended(tombstone) if tombstone.end.actor == Actor::Policy && !tombstone.silent => {
                    self.meter.end_was_late(now.since(tombstone.end.at));
                }
                _ => {}
            }
        }
    }

    fn housekeep(&self, backlog: &mut Backlog, now: Time) {
        if backlog.housekept.is_some_and(|last| now.since(last) < BEAT) {
            return;
        }
        backlog.housekept = Some(now);
        self.store.sweep();
        if let Some(off) = self.clock.follow_wall_clock() {
            tracing::warn!(
                seconds = off.as_secs(),
                "the wall clock was set; deadlines did not move"
            );
        }
    }
}

impl Work for Sessions {
    async fn step(&self) -> Step {
        let mut backlog = self.backlog.lock().await;
        let moment = self.vigil.beat();
        self.housekeep(&mut backlog, moment.now);
        let wake = {
            let mut timeline = self.timeline.lock();
            let mut due = Vec::new();
            while timeline.poll(moment.now, &mut due) {
                backlog.slots.push_back(std::mem::take(&mut due));
            }
            timeline.next_wake()
        };
        let Some(mut slot) = backlog.slots.pop_front() else {
            return Step::Until(wake.unwrap_or(moment.now + BEAT));
        };
        for _ in 0..CHUNK {
            let Some(session) = slot.pop() else { break };
            self.judge(&session, moment).await;
        }
        if !slot.is_empty() {
            backlog.slots.push_back(slot);
        }
        Step::Again
    }
}

/// The end of a driver that trusts its timer.
fn timer_end() -> End {
    End {
        reason: EndReason::IdleTimeout,
        actor: Actor::Policy,
        actor_id: "".into(),
        note: "".into(),
        at: Time::ZERO,
    }
}
