//! One session and all who race for it, small enough for shuttle.
//!
//! The session and the state machine are the real ones. What is around them is a replica of `sessions/{touch,verbs,judge}.rs`
//! and of `store/memory.rs` without what only production needs: moka and the index are one slot, and the log is a list.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use session_sidecar::{
    state::{
        Actor, Command, End, EndReason, Happening, HoldKind, HoldWish, Identity, Keys, Limits, Moment, Next, Origin,
        Pulse, Refusal, Reply, Rotation, RuleName, SessionRef, Successor, Tombstone, Touched, Unmatched, View,
        WorkLimits, decide,
    },
    store::Session,
    time::Time,
};

use crate::check;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const NANO: Duration = Duration::from_nanos(1);
/// With idle_timeout: the idle deadline of a new session.
pub(crate) const IDLE: Duration = Duration::from_secs(15 * 60);

/// What is wrong in this world: shuttle must notice.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Flaw {
    /// Nothing.
    None,
    /// A change is made true whatever has happened since it was decided.
    BlindCommit,
    /// The driver reads before it notes that the session is not armed: a change in between is lost.
    ReadThenDisarm,
    /// The old name has ended before its successor can be found.
    SuccessorLater,
    /// A touch reads the limits before the pulse, and takes what it has read.
    LimitsFirst,
}

/// What a caller was answered.
#[derive(Clone, Copy)]
pub(crate) struct Promise {
    /// The last activity then.
    pub(crate) activity: Time,
    /// The idle deadline then.
    pub(crate) idle: Time,
    /// Whether it was about the successor, and the version then.
    pub(crate) version: (bool, u32),
}

/// One session, its log, and what callers were promised.
pub(crate) struct World {
    pub(crate) session: Arc<Session>,
    /// The session under its next name, once it can be found.
    successor: shuttle::sync::Mutex<Option<Arc<Session>>>,
    /// The newer revision of the policy, if there is one.
    newer: Option<Arc<Limits>>,
    flaw: Flaw,
    /// Whether something in this world may move the deadline nearer.
    may_shorten: AtomicBool,
    /// How many touches were counted.
    counted: AtomicU32,
    /// Appended to under the session's lock. Shuttle does not see these locks: they are never contended.
    log: Mutex<Vec<(SessionRef, u32, Happening)>>,
    promises: Mutex<Vec<Promise>>,
    ends: Mutex<Vec<Arc<Tombstone>>>,
    /// The entries of the timeline.
    timeline: shuttle::sync::Mutex<Vec<Time>>,
}

impl World {
    pub(crate) fn new(flaw: Flaw) -> Arc<Self> {
        let limits = Limits {
            policy: "default".into(),
            idle_timeout: IDLE,
            absolute_timeout: Duration::from_secs(12 * 3600),
            idle_points: [MINUTE * 2, MINUTE].into(),
            absolute_points: [MINUTE * 10].into(),
            unmatched: Unmatched::Count,
            max_extensions: Some(1),
            tombstone_ttl: MINUTE,
            work: WorkLimits {
                max_ttl: MINUTE * 20,
                ..WorkLimits::default()
            },
            ..Limits::default()
        };
        Arc::new(Self::under(limits, None, flaw))
    }

    /// A world with a newer revision of the policy, with a shorter idle timeout, that is not in force yet.
    pub(crate) fn with_newer_limits(flaw: Flaw) -> Arc<Self> {
        let old = Limits {
            idle_timeout: IDLE,
            idle_points: [MINUTE * 2].into(),
            ..Limits::default()
        };
        let newer = Limits {
            revision: 1,
            idle_timeout: MINUTE * 6,
            ..Limits::default()
        };
        Arc::new(Self::under(old, Some(Arc::new(newer)), flaw))
    }

    fn under(limits: Limits, newer: Option<Arc<Limits>>, flaw: Flaw) -> Self {
        let origin = Origin {
            identity: Identity::default(),
            created: Time::START,
            authenticated: Time::START,
        };
        let next = Next::created(&origin, Arc::new(limits), Time::START, None, Moment::at(Time::START));
        Self {
            session: Arc::new(Session::new(name("a session of the races"), origin, &next)),
            successor: shuttle::sync::Mutex::default(),
            may_shorten: AtomicBool::new(newer.is_some()),
            newer,
            flaw,
            counted: AtomicU32::new(0),
            log: Mutex::default(),
            promises: Mutex::default(),
            ends: Mutex::default(),
            timeline: shuttle::sync::Mutex::default(),
        }
    }

    pub(crate) fn touch(&self, now: Time) {
        self.touch_of(now, now);
    }

    pub(crate) fn reload_and_touch(&self, now: Time) {
        self.session.limits().superseded.set();
        self.touch(now);
    }

    /// Touches the way `Sessions::touch` does: on the hot path if it can.
    pub(crate) fn touch_of(&self, activity: Time, now: Time) {
        let ago = now.since(activity);
        if let Some(answered) = self.touch_plainly(ago, now) {
            return self.promised(answered);
        }
        let Ok(session) = self.live(now) else { return };
        let limits = Arc::clone(&session.limits());
        let newer = self.newer.clone().filter(|_| limits.superseded.is_set());
        let touch = Command::Touch {
            counts: true,
            user: true,
            input_report: false,
            ago,
            newer,
        };
        let before = session.pulse().last_activity();
        if let Ok((session, Reply::Counted, promise)) = self.act(session, &touch, now) {
            self.tally(&session, before, now);
            self.promised(Some(promise));
        }
    }

    /// Counts a touch for the session's history, as `Sessions::touch` does.
    fn tally(&self, session: &Session, before: Time, now: Time) {
        session.tally(&RuleName::DeclaredUser, true, before, now);
        self.counted.fetch_add(1, Ordering::Relaxed);
    }

    /// `touch_plainly` of `sessions/touch.rs`: `None` if the state machine has a say, `Some(None)` if the touch is stale.
    fn touch_plainly(&self, ago: Duration, now: Time) -> Option<Option<Promise>> {
        let session = &self.session;
        let at_first = Arc::clone(&session.limits());
        loop {
            let version = session.version();
            let seen = session.pulse();
            let mut limits = match self.flaw {
                Flaw::LimitsFirst => Arc::clone(&at_first),
                _ => Arc::clone(&session.limits()),
            };
            if limits.superseded.is_set() {
                return None;
            }
            let pulse = match seen.touch(session.origin(), &limits, ago, Moment::at(now)) {
                Touched::Dead | Touched::Slow => return None,
                Touched::Stale => return Some(None),
                Touched::Raised(raised) => raised,
            };
            if pulse == seen || session.swap_pulse(seen, pulse) {
                let version_now = session.version();
                if version_now != version && self.flaw != Flaw::LimitsFirst {
                    limits = Arc::clone(&session.limits());
                }
                let activity = pulse.last_activity();
                let idle = activity + limits.idle_timeout;
                let version = (false, version_now);
                self.tally(session, seen.last_activity(), now);
                return Some(Some(Promise {
                    activity,
                    idle,
                    version,
                }));
            }
        }
    }

    pub(crate) fn extend(&self, now: Time, wanted: Duration) {
        let extend = Command::Extend {
            wanted: Some(wanted),
            request: None,
            newer: None,
        };
        self.ask(&extend, now);
    }

    pub(crate) fn hold(&self, now: Time, ttl: Duration) {
        let wish = HoldWish {
            id: "an upload".into(),
            kind: HoldKind::Work,
            ttl,
            purpose: "".into(),
        };
        self.ask(&Command::Hold(wish), now);
    }

    pub(crate) fn release(&self, now: Time) {
        self.may_shorten.store(true, Ordering::Relaxed);
        self.ask(&Command::Release { id: "an upload".into() }, now);
    }

    pub(crate) fn judge(&self, now: Time) {
        let successor = self.find_successor();
        let session = successor.unwrap_or_else(|| Arc::clone(&self.session));
        assert!(self.change(&session, &Command::Judge, now).is_ok() || session.pulse().is_dead());
        // What has passed has passed, unless somebody was faster; and what moves a deadline nearer comes before it here.
        session.read(|view| {
            let expire = view.plain_deadlines().expire().0;
            let may_shorten = self.may_shorten.load(Ordering::Relaxed);
            assert!(
                view.pulse.is_dead() || expire > now || may_shorten,
                "G2: alive after {expire:?}, at {now:?}"
            );
        });
    }

    pub(crate) fn end(&self, now: Time, actor_id: &str) {
        let end = End {
            reason: EndReason::Logout,
            actor: Actor::User,
            actor_id: actor_id.into(),
            note: "".into(),
            at: Time::ZERO,
        };
        let command = Command::End { end, request: None };
        let answered = self.live(now).and_then(|session| self.act(session, &command, now));
        match answered {
            Ok((_, Reply::Ended(tombstone), _)) | Err(Refusal::Ended(tombstone)) => lock(&self.ends).push(tombstone),
            Ok((_, other, _)) => panic!("End was answered {other:?}"),
            Err(other) => panic!("End was refused: {other:?}"),
        }
    }

    pub(crate) fn rotate(&self, now: Time) {
        let rotation = Rotation {
            from: self.session.reference(),
            to: name("its next name"),
            identity: Identity::default(),
            new_subject: false,
            authenticated_ago: None,
            current: None,
            request: None,
        };
        match self.change(&self.session, &Command::Rotate(Box::new(rotation)), now) {
            Ok((Reply::Rotated(_), _)) | Err(Refusal::Ended(_)) => {}
            other => panic!("Rotate was answered {:?}", other.map(|(reply, _)| reply)),
        }
    }

    fn ask(&self, command: &Command, now: Time) {
        if let Ok((_, _, promise)) = self.live(now).and_then(|session| self.act(session, command, now)) {
            self.promised(Some(promise));
        }
    }

    fn promise(&self, session: &Arc<Session>, view: &View<'_>) -> Promise {
        Promise {
            activity: view.pulse.last_activity(),
            idle: view.plain_deadlines().idle,
            version: (!Arc::ptr_eq(session, &self.session), view.version),
        }
    }

    fn promised(&self, promise: Option<Promise>) {
        lock(&self.promises).extend(promise);
    }

    /// The live session that the old name stands for: `Sessions::live`.
    fn live(&self, now: Time) -> Result<Arc<Session>, Refusal> {
        if !self.session.pulse().is_dead() {
            return Ok(Arc::clone(&self.session));
        }
        let tombstone = self.session.read(|view| view.rest.end().cloned());
        let tombstone = tombstone.expect("a dead session has its tombstone");
        self.alias(&tombstone, now).ok_or(Refusal::Ended(tombstone))
    }

    fn alias(&self, ended: &Tombstone, now: Time) -> Option<Arc<Session>> {
        ended.successor.filter(|succession| now < succession.alias_until)?;
        let successor = self.find_successor();
        Some(successor.expect("G10: who finds the old name ended finds the session that goes on"))
    }

    fn find_successor(&self) -> Option<Arc<Session>> {
        self.successor.lock().expect("not poisoned").clone()
    }

    /// Does it, to the successor if somebody rotates the session meanwhile: `Sessions::act`.
    fn act(
        &self,
        mut session: Arc<Session>,
        command: &Command,
        now: Time,
    ) -> Result<(Arc<Session>, Reply, Promise), Refusal> {
        loop {
            match self.change(&session, command, now) {
                Err(Refusal::Ended(tombstone)) => match self.alias(&tombstone, now) {
                    Some(successor) => session = successor,
                    None => return Err(Refusal::Ended(tombstone)),
                },
                answer => return answer.map(|(reply, promise)| (session, reply, promise)),
            }
        }
    }

    /// Decides and commits, again if somebody was faster: `Sessions::change`.
    fn change(&self, session: &Arc<Session>, command: &Command, now: Time) -> Result<(Reply, Promise), Refusal> {
        let moment = Moment::at(now);
        loop {
            let (pulse, version, decision, as_it_is) = session.read(|view| {
                let promise = self.promise(session, view);
                (view.pulse, view.version, decide(view, command, moment), promise)
            });
            let Some(next) = decision.next else {
                return decision.reply.map(|reply| (reply, as_it_is));
            };
            let (pulse, version) = match self.flaw {
                Flaw::BlindCommit => (session.pulse(), session.version()),
                _ => (pulse, version),
            };
            let ended = next.rest.end().is_some();
            let view = next.view(session.origin());
            let next_action = view.next_action(moment);
            let promise = self.promise(session, &view);
            if self.commit(session, (pulse, version), next) {
                if !ended && next_action < session.armed_for() {
                    self.arm(session, next_action);
                }
                return decision.reply.map(|reply| (reply, promise));
            }
        }
    }

    /// `Memory::change`, and `Memory::rotate` if there is a successor.
    fn commit(&self, session: &Session, (pulse, version): (Pulse, u32), mut next: Next) -> bool {
        let Some(successor) = next.successor.take() else {
            return session.change(pulse, version, next, |next, _| self.publish(session, next));
        };
        let Successor {
            reference,
            origin,
            next: first,
        } = *successor;
        let new = Arc::new(Session::new(reference, origin, &first));
        let enter = || *self.successor.lock().expect("not poisoned") = Some(Arc::clone(&new));
        new.story(|_| {
            let done = session.change(pulse, version, next, |next, _| {
                self.publish(session, next);
                if self.flaw != Flaw::SuccessorLater {
                    enter();
                }
            });
            if done {
                if self.flaw == Flaw::SuccessorLater {
                    enter();
                }
                self.publish(&new, first);
            }
            done
        })
    }

    fn publish(&self, session: &Session, next: Next) {
        let happenings = next.happenings.into_iter();
        lock(&self.log).extend(happenings.map(|(version, what)| (session.reference(), version, what)));
    }

    fn arm(&self, session: &Session, at: Time) {
        let mut timeline = self.timeline.lock().expect("not poisoned");
        timeline.push(at);
        session.arm(at);
    }

    pub(crate) fn arm_first(&self, at: Time) {
        self.arm(&self.session, at);
    }

    pub(crate) fn next_action(&self, now: Time) -> Time {
        self.session.read(|view| view.next_action(Moment::at(now)))
    }

    /// The driver comes to the session's entry of the timeline: `Sessions::judge`.
    pub(crate) fn due(&self, now: Time) {
        self.timeline.lock().expect("not poisoned").retain(|entry| *entry > now);
        if self.session.pulse().is_dead() || self.session.armed_for() > now {
            return;
        }
        let next_action = if self.flaw == Flaw::ReadThenDisarm {
            let next_action = self.next_action(now);
            self.session.disarm();
            next_action
        } else {
            self.session.disarm();
            self.next_action(now)
        };
        if next_action > now {
            self.arm(&self.session, next_action);
            return;
        }
        self.judge(now);
        if self.session.armed_for() == Time::FAR && !self.session.pulse().is_dead() {
            self.arm(&self.session, self.next_action(now));
        }
    }

    /// The timeline has an entry for the next thing that is due, and it will not be taken for a stale one.
    pub(crate) fn check_armed(&self, now: Time) {
        let (armed_for, next_action) = (self.session.armed_for(), self.next_action(now));
        assert!(
            armed_for <= next_action,
            "G3: armed for {armed_for:?}, but {next_action:?} is due"
        );
        let timeline = self.timeline.lock().expect("not poisoned");
        assert!(
            timeline.contains(&armed_for),
            "armed for {armed_for:?} without an entry: {timeline:?}"
        );
    }

    /// Judges a finished run.
    pub(crate) fn check(&self) {
        self.check_history();
        self.check_log();
        // G2: whatever has happened, the deadline that stands is the end.
        let session = self.find_successor().unwrap_or_else(|| Arc::clone(&self.session));
        if !session.pulse().is_dead() {
            let expire = session.read(|view| view.plain_deadlines().expire().0);
            self.judge(expire);
            let end = session.read(|view| view.rest.end().map(|end| end.end.at));
            assert_eq!(
                end,
                Some(expire),
                "G2: a deadline has passed, and nobody has ended the session"
            );
        }
    }

    /// Every touch that counted is in the history.
    fn check_history(&self) {
        let sum = |session: &Session| {
            session.story(|story| {
                story
                    .iter()
                    .flat_map(|story| &story.tallies)
                    .map(|tally| tally.count)
                    .sum::<u32>()
            })
        };
        let successor = self.find_successor();
        let told = sum(&self.session) + successor.map_or(0, |successor| sum(&successor));
        assert_eq!(
            told,
            self.counted.load(Ordering::Relaxed),
            "a touch is missing from the history"
        );
    }

    fn check_log(&self) {
        let log = lock(&self.log);
        let (promises, ends) = (lock(&self.promises), lock(&self.ends));
        let (successor, may_shorten) = (self.find_successor(), self.may_shorten.load(Ordering::Relaxed));
        let end = check::log_of(&self.session, &log);
        let goes_on = end.as_ref().is_some_and(|end| end.successor.is_some());
        assert_eq!(goes_on, successor.is_some(), "a successor, and only after a Rotate");
        check::order_of(&self.session, &log);
        match successor {
            Some(successor) => {
                let end = check::log_of(&successor, &log);
                check::session(&successor, end.as_ref(), &promises, &ends, may_shorten);
            }
            None => check::session(&self.session, end.as_ref(), &promises, &ends, may_shorten),
        }
    }
}

fn name(id: &str) -> SessionRef {
    Keys::derive(&[7; 32]).session_ref("", id)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
