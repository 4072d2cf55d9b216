//! The races of DESIGN.md section 5, in every order that shuttle finds: `cargo test --features shuttle --test races`.
//!
//! The store and the optimistic loops are small here (those of `sessions/mod.rs` and `sessions/judge.rs` without what only
//! production needs), the session and the state machine are the real ones. Every run is judged by what its callers were
//! answered and by the log, whose order is the order in which events were published under the session's lock.
#![cfg(feature = "shuttle")]
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    panic::catch_unwind,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use session_sidecar::{
    state::{
        Actor, Command, End, EndReason, Happening, Identity, Keys, Limit, Limits, Moment, Next, Origin, Refusal, Reply,
        Tombstone, Touched, Unmatched, View, decide,
    },
    store::Session,
    time::Time,
};
use shuttle::{check_dfs, check_random, thread};

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const NANO: Duration = Duration::from_nanos(1);
/// With idle_timeout: the idle deadline of a new session.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// How a change is made true.
#[derive(Clone, Copy, PartialEq)]
enum Commit {
    /// Only if the record is the one it was decided upon.
    Compared,
    /// Whatever has happened since: wrong, and shuttle must notice.
    Blind,
}

/// What the driver does first with an entry that has come out.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    /// Whoever changes the session after the reading sees that it is not armed.
    DisarmThenRead,
    /// A change in between is lost: wrong, and shuttle must notice.
    ReadThenDisarm,
}

/// One session, its log, and what callers were promised.
struct World {
    session: Session,
    commit: Commit,
    /// Appended to under the session's lock. Shuttle does not see this lock: it is never contended.
    log: Mutex<Vec<(u32, Happening)>>,
    /// Last activity and idle deadline that acknowledged calls established.
    acknowledged: Mutex<Vec<(Time, Time)>>,
    /// How the callers of End were answered.
    ends: Mutex<Vec<Arc<Tombstone>>>,
    /// The entries of the timeline.
    timeline: shuttle::sync::Mutex<Vec<Time>>,
}

impl World {
    fn new(commit: Commit) -> Arc<Self> {
        let limits = Limits {
            policy: "default".into(),
            idle_timeout: IDLE,
            absolute_timeout: Duration::from_secs(12 * 3600),
            idle_points: [MINUTE * 2, MINUTE].into(),
            absolute_points: [MINUTE * 10].into(),
            unmatched: Unmatched::Count,
            max_extensions: Some(1),
            tombstone_ttl: MINUTE,
            ..Limits::default()
        };
        let origin = Origin {
            identity: Identity::default(),
            created: Time::START,
            authenticated: Time::START,
        };
        let next = Next::created(&origin, Arc::new(limits), Time::START, None, Moment::at(Time::START));
        let reference = Keys::derive(&[7; 32]).session_ref("", "a session of the races");
        Arc::new(Self {
            session: Session::new(reference, origin, &next),
            commit,
            log: Mutex::default(),
            acknowledged: Mutex::default(),
            ends: Mutex::default(),
            timeline: shuttle::sync::Mutex::default(),
        })
    }

    fn touch(&self, now: Time) {
        self.touch_of(now, now);
    }

    /// Touches the way `Sessions::touch` does: on the hot path if it can.
    fn touch_of(&self, activity: Time, now: Time) {
        let ago = now.since(activity);
        let (origin, moment) = (self.session.origin(), Moment::at(now));
        loop {
            let seen = self.session.pulse();
            match seen.touch(origin, &self.session.limits(), ago, moment) {
                Touched::Dead | Touched::Slow => break,
                Touched::Stale => return,
                Touched::Raised(raised) if self.session.swap_pulse(seen, raised) => {
                    lock(&self.acknowledged).push((activity, activity + IDLE));
                    return;
                }
                Touched::Raised(_) => {}
            }
        }
        if let Ok(Reply::Counted) = self.command(
            &Command::Touch {
                counts: true,
                user: true,
                input_report: false,
                ago,
                newer: None,
            },
            now,
        ) {
            lock(&self.acknowledged).push((activity, activity + IDLE));
        }
    }

    fn extend(&self, now: Time, wanted: Duration) {
        let extend = Command::Extend {
            wanted: Some(wanted),
            request: None,
            newer: None,
        };
        if let Ok(Reply::Extended { .. }) = self.command(&extend, now) {
            lock(&self.acknowledged).push((now, now + wanted.max(IDLE)));
        }
    }

    fn judge(&self, now: Time) {
        assert!(self.command(&Command::Judge, now).is_ok() || self.session.pulse().is_dead());
    }

    fn end(&self, now: Time, actor_id: &str) {
        let end = End {
            reason: EndReason::Logout,
            actor: Actor::User,
            actor_id: actor_id.into(),
            note: "".into(),
            at: Time::ZERO,
        };
        match self.command(&Command::End { end, request: None }, now) {
            Ok(Reply::Ended(tombstone)) | Err(Refusal::Ended(tombstone)) => lock(&self.ends).push(tombstone),
            other => panic!("End was answered {other:?}"),
        }
    }

    /// Decides and commits, again if somebody was faster: `Sessions::change`.
    fn command(&self, command: &Command, now: Time) -> Result<Reply, Refusal> {
        loop {
            let (pulse, version, decision) = self
                .session
                .read(|view| (view.pulse, view.version, decide(view, command, Moment::at(now))));
            let Some(next) = decision.next else {
                return decision.reply;
            };
            let (pulse, version) = match self.commit {
                Commit::Compared => (pulse, version),
                Commit::Blind => (self.session.pulse(), self.session.version()),
            };
            let ended = next.rest.end().is_some();
            let next_action = next.view(self.session.origin()).next_action(Moment::at(now));
            if self.session.change(pulse, version, next, |next, _| self.publish(next)) {
                if !ended && next_action < self.session.armed_for() {
                    self.arm(next_action);
                }
                return decision.reply;
            }
        }
    }

    fn arm(&self, at: Time) {
        let mut timeline = self.timeline.lock().expect("not poisoned");
        timeline.push(at);
        self.session.arm(at);
    }

    fn next_action(&self, now: Time) -> Time {
        self.session.read(|view| view.next_action(Moment::at(now)))
    }

    /// The driver comes to the session's entry of the timeline: `Sessions::judge`.
    fn due(&self, now: Time, order: Order) {
        self.timeline.lock().expect("not poisoned").retain(|entry| *entry > now);
        if self.session.pulse().is_dead() || self.session.armed_for() > now {
            return;
        }
        let next_action = match order {
            Order::DisarmThenRead => {
                self.session.disarm();
                self.next_action(now)
            }
            Order::ReadThenDisarm => {
                let next_action = self.next_action(now);
                self.session.disarm();
                next_action
            }
        };
        if next_action > now {
            self.arm(next_action);
            return;
        }
        self.judge(now);
        if self.session.armed_for() == Time::FAR && !self.session.pulse().is_dead() {
            self.arm(self.next_action(now));
        }
    }

    /// The timeline has an entry for the next thing that is due, and it will not be taken for a stale one.
    fn check_armed(&self, now: Time) {
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

    fn publish(&self, next: Next) {
        lock(&self.log).extend(next.happenings);
    }

    /// Judges a finished run.
    fn check(&self) {
        let log = lock(&self.log);
        let acknowledged = lock(&self.acknowledged);
        let (mut version, mut standing, mut end) = (0, None, None);
        for (happening_version, happening) in log.iter() {
            assert!(*happening_version > version, "versions follow the log: {log:?}");
            version = *happening_version;
            assert!(end.is_none(), "G5, G6: something follows the end: {log:?}");
            match happening {
                Happening::Warning { limit, expire, .. } => {
                    assert_eq!(*limit, Limit::Idle);
                    standing = Some(*expire);
                }
                Happening::Cleared { .. } => assert!(standing.take().is_some(), "G4: cleared before warned: {log:?}"),
                Happening::Ended(tombstone) => end = Some(Arc::clone(tombstone)),
                silent => assert!(!silent.is_public()),
            }
        }
        self.session.read(|view| match end {
            Some(end) => check_end(view, &end, &acknowledged, &lock(&self.ends)),
            None => check_live(view, standing, &acknowledged),
        });
    }
}

fn check_end(view: &View<'_>, end: &Arc<Tombstone>, acknowledged: &[(Time, Time)], answers: &[Arc<Tombstone>]) {
    assert!(view.pulse.is_dead());
    let known = view.rest.end().expect("a dead session has its tombstone");
    assert!(Arc::ptr_eq(known, end), "the log and the record tell the same end");
    for answer in answers {
        assert!(Arc::ptr_eq(answer, end), "G6: every caller of End is told the one end");
    }
    for (activity, deadline) in acknowledged {
        assert!(end.last_activity >= *activity, "an acknowledged touch is lost: {end:?}");
        let timeout = end.end.reason == EndReason::IdleTimeout;
        assert!(
            !timeout || end.end.at >= *deadline,
            "G1: ended before {deadline:?}: {end:?}"
        );
    }
}

fn check_live(view: &View<'_>, standing: Option<Time>, acknowledged: &[(Time, Time)]) {
    assert!(
        !view.pulse.is_dead() && view.rest.end().is_none(),
        "ended without a word"
    );
    let idle = view.plain_deadlines().idle;
    for (activity, deadline) in acknowledged {
        assert!(view.pulse.last_activity() >= *activity, "an acknowledged touch is lost");
        assert!(
            idle >= *deadline,
            "G1: expires at {idle:?}, acknowledged was {deadline:?}"
        );
    }
    assert_eq!(
        view.pulse.is_warned(),
        standing.is_some(),
        "G4: the record and the log agree on what stands"
    );
    assert!(
        standing.is_none_or(|expire| expire == idle),
        "G4: what stands is about the deadline as it is"
    );
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What one thread does.
type Act = fn(&World);

/// Runs the acts side by side, in one order of the many.
fn race(commit: Commit, acts: &'static [Act]) {
    let world = World::new(commit);
    let threads: Vec<_> = acts
        .iter()
        .map(|act| {
            let world = Arc::clone(&world);
            thread::spawn(move || act(&world))
        })
        .collect();
    for thread in threads {
        thread.join().expect("an act failed");
    }
    world.check();
}

/// Random orders of all the acts, and all orders of the first two, as far as they can be told in this time.
fn explore(acts: &'static [Act]) {
    check_random(move || race(Commit::Compared, acts), 5_000);
    check_dfs(move || race(Commit::Compared, &acts[..2]), Some(20_000));
}

/// The idle deadline of a new session.
fn deadline() -> Time {
    Time::START + IDLE
}

/// A nanosecond before it.
fn just_before() -> Time {
    deadline() - NANO
}

/// Inside the first warning window of a new session.
fn warned() -> Time {
    deadline() - MINUTE * 2
}

#[test]
fn g5_touch_and_end() {
    explore(&[
        |world| world.touch(Time::START + MINUTE),
        |world| world.end(Time::START + MINUTE, "a"),
        |world| world.touch(Time::START + MINUTE + NANO),
    ]);
}

#[test]
fn g3_g4_touch_and_warning() {
    explore(&[
        |world| world.touch(warned()),
        |world| world.judge(warned()),
        |world| {
            world.judge(warned() + MINUTE);
            world.touch(warned() + MINUTE);
        },
    ]);
}

#[test]
fn g5_g6_extend_and_end() {
    explore(&[
        |world| world.extend(warned(), IDLE * 2),
        |world| world.end(warned(), "a"),
        |world| world.judge(warned()),
    ]);
}

#[test]
fn g1_g2_touch_and_timeout() {
    explore(&[
        |world| world.touch(just_before()),
        |world| world.judge(deadline()),
        |world| world.touch(deadline()),
    ]);
}

#[test]
fn g1_g4_extend_and_timeout() {
    explore(&[
        |world| world.extend(just_before(), IDLE),
        |world| world.judge(deadline()),
        |world| world.judge(just_before()),
    ]);
}

#[test]
fn g6_two_ends() {
    explore(&[
        |world| world.end(deadline(), "a"),
        |world| world.end(just_before(), "b"),
        |world| world.judge(deadline()),
    ]);
}

#[test]
fn g1_to_g6_everybody_at_once() {
    const ALL: &[Act] = &[
        |world| world.touch(just_before()),
        |world| world.judge(warned()),
        |world| world.extend(just_before(), IDLE),
        |world| world.judge(deadline()),
        |world| world.end(deadline(), "a"),
    ];
    check_random(|| race(Commit::Compared, ALL), 10_000);
}

/// The driver takes out an entry that fired early while a touch moves the next warning to an earlier time than the driver
/// has read. The session was warned, and touches of earlier activity moved its deadline a little at a time.
fn arming(order: Order) {
    let world = World::new(Commit::Compared);
    world.arm(warned());
    world.due(warned(), Order::DisarmThenRead);
    // The last point of the old deadline is what it stays armed for.
    world.touch_of(Time::START + SECOND * 20, warned() + SECOND * 30);
    let now = deadline() - MINUTE;
    assert!(world.session.armed_for() == now && world.next_action(now) == now + SECOND * 20);
    let toucher = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.touch_of(Time::START + SECOND * 70, now))
    };
    world.due(now, order);
    toucher.join().expect("the touch failed");
    assert_eq!(world.next_action(now), now + SECOND * 10);
    world.check_armed(now);
    world.check();
}

/// The driver judges a due warning, and callers move the deadline, each arming the timeline for what it has seen.
fn arming_of_many() {
    let world = World::new(Commit::Compared);
    world.arm(warned());
    let acts: [Act; 2] = [
        |world| world.touch_of(Time::START + SECOND * 20, warned()),
        |world| world.extend(warned(), IDLE),
    ];
    let callers = acts.map(|act| {
        let world = Arc::clone(&world);
        thread::spawn(move || act(&world))
    });
    world.due(warned(), Order::DisarmThenRead);
    for caller in callers {
        caller.join().expect("a caller failed");
    }
    world.check_armed(warned());
    world.check();
}

#[test]
fn g3_touch_and_arming() {
    check_random(arming_of_many, 5_000);
    check_random(|| arming(Order::DisarmThenRead), 5_000);
    check_dfs(|| arming(Order::DisarmThenRead), Some(20_000));
}

/// The negative control of the arming.
#[test]
fn shuttle_catches_a_driver_that_reads_before_it_disarms() {
    let found = catch_unwind(|| check_random(|| arming(Order::ReadThenDisarm), 5_000)).is_err();
    assert!(found, "the lost warning went unnoticed");
}

/// The negative control: if an end or a warning were committed without comparing, shuttle would find a lost touch.
#[test]
fn shuttle_catches_a_commit_that_does_not_compare() {
    const RACES: &[&[Act]] = &[
        &[|world| world.touch(just_before()), |world| world.judge(deadline())],
        &[|world| world.touch(warned()), |world| world.judge(warned())],
        &[|world| world.touch(warned()), |world| world.end(warned(), "a")],
        &[|world| world.extend(warned(), IDLE), |world| world.judge(deadline())],
        &[|world| world.end(warned(), "a"), |world| world.end(warned(), "b")],
    ];
    for (number, acts) in RACES.iter().enumerate() {
        let found = catch_unwind(|| check_random(move || race(Commit::Blind, acts), 2_000)).is_err();
        assert!(found, "race {number} went unnoticed");
    }
}
