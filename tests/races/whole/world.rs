//! One session and all who race for it: the real core, `Sessions` over `store::Memory`, under shuttle.
//!
//! Its locks and atomics are shuttle's (`src/sync.rs`), so shuttle may change from one thread to another at each of them. What
//! is not shuttle's happens in one piece: moka, the policies, the clock, counters. Nothing of them waits for anybody.
//!
//! Acts never fail by themselves: what is wrong is noted, and the run is judged when every act is over. So no thread is
//! thrown away inside moka's eviction listener, which would abort the process.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use session_sidecar::{
    audit::Audit,
    driver::{Step, Work as _},
    event::Event,
    sessions::{
        Create, Error, Follow, Meter, Name, Rotate, Scope, Sessions, Setup, State, Status, Subscriber, TouchResult,
        Watch, WatchContent,
    },
    state::{Activity, Actor, End, EndReason, HoldKind, HoldWish, Limits, Policy, Tombstone, WorkLimits},
    store::MemoryCaps,
    time::{Clock, Time},
};
use shuttle::future::block_on;
use tokio_util::sync::CancellationToken;

use super::check;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const NANO: Duration = Duration::from_nanos(1);
/// Longer than a slot of the timeline: whatever is due now has fired by then.
pub(crate) const SLOT: Duration = Duration::from_millis(5);
/// Short of what is taken for a gap (G14), so that a thread may move the clock over all of it at once.
pub(crate) const IDLE: Duration = Duration::from_secs(4);
/// The warning points of a session.
pub(crate) const POINTS: [Duration; 2] = [Duration::from_secs(2), SECOND];
/// The idle timeout of the newer revision of the policy.
pub(crate) const NEWER_IDLE: Duration = Duration::from_secs(3);
const HOLD: &str = "an upload";
const ID: &str = "a session of the races";
/// So long does the longest hold live, and then an idle window.
const LIFE: Duration = Duration::from_secs(15);

/// What a caller was answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    /// When it was asked.
    pub(crate) at: Time,
    /// The activity that it counted, if it did.
    pub(crate) activity: Option<Time>,
    /// The idle deadline then.
    pub(crate) idle: Time,
    /// Nothing that was known of the session then is later than this.
    pub(crate) covers: Time,
    /// How often it had been rotated, and the version then.
    pub(crate) version: (usize, u32),
}

/// One session and what callers were told of it.
pub(crate) struct World {
    clock: Clock,
    sessions: Arc<Sessions>,
    watch: Mutex<Option<Watch>>,
    promises: Mutex<Vec<Promise>>,
    /// The ends that callers of End were answered, and whether the caller was told that it was its own.
    ends: Mutex<Vec<(Arc<Tombstone>, bool)>>,
    /// The status of each promise.
    statuses: Mutex<Vec<Status>>,
    /// Whether anybody has been told that the session is over.
    over: AtomicBool,
    /// Whether something may move the deadline nearer.
    may_shorten: AtomicBool,
    wrong: Mutex<Vec<String>>,
}

impl World {
    /// A session that begins at [`Time::START`], somebody who watches it, and no driver but the acts that drive.
    pub(crate) fn new() -> Self {
        let clock = Clock::of_runtime();
        let setup = Setup {
            clock: clock.clone(),
            master_key: vec![7; 32],
            other_key: None,
            policies: policies(0, IDLE),
            caps: MemoryCaps {
                max_sessions: 1,
                max_tombstones: 100,
            },
            replay_events: 1_000,
            mailbox_size: 1_000,
            max_watchers: 1,
            audit: Audit::default(),
        };
        let sessions = Sessions::new(setup, Meter::register(&mut Registry::default()));
        let created = block_on(sessions.create(Create {
            session_id: Some(ID),
            policy: "default",
            ..Create::default()
        }));
        let status = created.expect("created").report.status;
        let subscriber = Subscriber {
            scope: Scope::Sessions("".into(), BTreeMap::from([(status.reference, None)])),
            tenants: ["".into()].into(),
            warnings: true,
            cleared: true,
            ends: true,
            resume_token: None,
            heartbeat: Duration::from_secs(3600),
            initial_state: false,
        };
        let watch = block_on(sessions.watch(subscriber, CancellationToken::new()));
        let world = Self {
            clock,
            sessions,
            watch: Mutex::new(watch.ok()),
            promises: Mutex::default(),
            ends: Mutex::default(),
            statuses: Mutex::default(),
            over: AtomicBool::new(false),
            may_shorten: AtomicBool::new(false),
            wrong: Mutex::default(),
        };
        world.promised(&status, Some(status.now));
        world
    }

    /// Time passes, and the driver does what becomes due meanwhile.
    pub(crate) fn live_until(&self, at: Time) {
        while self.clock.now() < at {
            let left = at.since(self.clock.now());
            self.clock.advance(left.min(SECOND));
            self.drive();
        }
    }

    /// Time passes, and the driver has not come to anything yet.
    pub(crate) fn pass_until(&self, at: Time) {
        self.clock.advance(at.since(self.clock.now()));
    }

    /// The driver does what is due.
    pub(crate) fn drive(&self) {
        while block_on(self.sessions.step()) == Step::Again {}
    }

    /// The driver wakes when this moment has come.
    pub(crate) fn drive_at(&self, at: Time) {
        self.pass_until(at + SLOT);
        self.drive();
    }

    pub(crate) fn touch(&self) {
        self.touch_of(Duration::ZERO);
    }

    /// A touch that tells of an activity so long ago.
    pub(crate) fn touch_of(&self, ago: Duration) {
        let was_over = self.is_over();
        match block_on(self.sessions.touch(self.name(), Activity::User, None, ago)) {
            Ok(answer) => {
                let counted = answer.result == TouchResult::Counted;
                self.succeeded(was_over, &answer.status, counted.then_some(answer.status.now - ago));
            }
            Err(error) => self.refused(&error),
        }
    }

    pub(crate) fn extend(&self, wanted: Duration) {
        let was_over = self.is_over();
        match block_on(self.sessions.extend(self.name(), Some(wanted), None)) {
            Ok(answer) => self.succeeded(was_over, &answer.status, Some(answer.status.now)),
            Err(error) => self.refused(&error),
        }
    }

    pub(crate) fn hold(&self, ttl: Duration) {
        let was_over = self.is_over();
        let wish = HoldWish {
            id: HOLD.into(),
            kind: HoldKind::Work,
            ttl,
            purpose: "".into(),
        };
        match block_on(self.sessions.hold(self.name(), wish)) {
            Ok(answer) => self.succeeded(was_over, &answer.status, None),
            Err(error) => self.refused(&error),
        }
    }

    pub(crate) fn release(&self) {
        self.may_shorten.store(true, Ordering::SeqCst);
        let was_over = self.is_over();
        match block_on(self.sessions.release(self.name(), HOLD)) {
            Ok(answer) => self.succeeded(was_over, &answer.status, None),
            Err(error) => self.refused(&error),
        }
    }

    pub(crate) fn rotate(&self, to: &'static str) {
        let was_over = self.is_over();
        let rotate = Rotate {
            name: self.name(),
            new_session_id: Some(to),
            subject: None,
            authenticated_ago: None,
            authentication_level: "",
            request: None,
        };
        match block_on(self.sessions.rotate(rotate)) {
            // It may have been ended since.
            Ok(rotated) if rotated.report.status.state != State::Ended => {
                self.succeeded(was_over, &rotated.report.status, None);
            }
            Ok(rotated) => self.require(!was_over, "G5: rotated after its end", &rotated.report.status),
            Err(error) => self.refused(&error),
        }
    }

    pub(crate) fn end(&self, actor_id: &str) {
        let end = End {
            reason: EndReason::Logout,
            actor: Actor::User,
            actor_id: actor_id.into(),
            note: "".into(),
            at: Time::ZERO,
        };
        match block_on(self.sessions.end(self.name(), end, None)) {
            Ok(answer) => {
                self.require(
                    answer.tombstone.successor.is_none(),
                    "End was answered a Rotate",
                    &answer.tombstone,
                );
                lock(&self.ends).push((answer.tombstone, answer.ended_now));
                self.over.store(true, Ordering::SeqCst);
            }
            Err(error) => self.require(false, "End was refused", &error),
        }
    }

    /// Asks, which changes nothing (G9).
    pub(crate) fn ask(&self) {
        let was_over = self.is_over();
        match block_on(self.sessions.report_by_id(self.name())) {
            Ok(report) if report.status.state == State::Ended => self.over.store(true, Ordering::SeqCst),
            Ok(report) => {
                self.require(report.status.state != State::Unknown, "G10: unknown", &report.status);
                self.require(!was_over, "G5: live after its end", &report.status);
                let late = report.status.expire.is_some_and(|expire| expire <= report.status.now);
                self.require(!late, "G2: live after its deadline", &report.status);
            }
            Err(error) => self.require(false, "a question was refused", &error),
        }
    }

    /// A newer revision of the policy comes, with a shorter idle timeout.
    pub(crate) fn reload(&self) {
        self.may_shorten.store(true, Ordering::SeqCst);
        let reloaded = self.sessions.policies().reload(policies(1, NEWER_IDLE));
        self.require(reloaded.is_ok(), "the reload was refused", &reloaded);
    }

    fn name(&self) -> Name<'static> {
        Name {
            tenant: "",
            session_id: ID,
            follow: Follow::Alias,
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn succeeded(&self, was_over: bool, status: &Status, activity: Option<Time>) {
        self.require(!was_over, "G5: somebody succeeded after the end was told", status);
        self.promised(status, activity);
    }

    fn promised(&self, status: &Status, activity: Option<Time>) {
        lock(&self.statuses).push(*status);
        let Some(idle) = status.expire else {
            return self.require(false, "no expire time", status);
        };
        lock(&self.promises).push(Promise {
            at: status.now,
            activity,
            idle,
            covers: idle - NEWER_IDLE,
            version: (0, status.version),
        });
    }

    fn refused(&self, error: &Error) {
        match error {
            Error::Ended(_, tombstone) => {
                // The old id is an alias all the time.
                self.require(tombstone.successor.is_none(), "G10: its name leads nowhere", tombstone);
                self.over.store(true, Ordering::SeqCst);
            }
            Error::ExtensionLimit { .. } => {}
            error => self.require(false, "G10: refused", error),
        }
    }

    fn require(&self, is_right: bool, what: &str, of: &dyn Debug) {
        if !is_right {
            lock(&self.wrong).push(format!("{what}: {of:?}"));
        }
    }

    /// Judges a finished run, when the session has lived to its end.
    pub(crate) fn check(&self) {
        let since = self.clock.now();
        let live = self.sessions.levels().live;
        assert!(live <= 1, "one session took {live} places");
        block_on(self.sessions.advance(LIFE));
        assert_eq!(self.sessions.levels().live, 0, "G2: it never ends");
        let wrong = lock(&self.wrong);
        assert!(wrong.is_empty(), "{wrong:?}");
        let mut promises = lock(&self.promises).clone();
        let log = self.told();
        let names = check::names(&log);
        for (promise, status) in promises.iter_mut().zip(&*lock(&self.statuses)) {
            let rotations = names.iter().position(|name| *name == status.reference);
            promise.version.0 = rotations.expect("an answer is about a session that the log knows");
        }
        assert_eq!(
            self.sessions.levels().remembered,
            names.len(),
            "G10: all are remembered"
        );
        check::run(&check::Run {
            log,
            promises,
            ends: lock(&self.ends).clone(),
            may_shorten: self.may_shorten.load(Ordering::SeqCst),
            since,
        });
    }

    /// What its watcher was told from the beginning.
    fn told(&self) -> Vec<Arc<Event>> {
        // It routes all that there is, then waits for more.
        let routes_for_ever = Arc::clone(self.sessions.router()).run();
        assert_eq!(routes_for_ever.now_or_never(), None);
        let mut watch = lock(&self.watch);
        let watch = watch.as_mut().expect("a watch");
        let mut events = Vec::new();
        while let Some(message) = watch.next().now_or_never() {
            match message.expect("an open stream").expect("a good stream").content {
                WatchContent::Event(event) => events.push(event),
                WatchContent::SnapshotEnd(0) => {}
                other => panic!("the watcher was told {other:?}"),
            }
        }
        events
    }
}

fn policies(revision: u64, idle_timeout: Duration) -> BTreeMap<String, Policy> {
    let limits = Limits {
        revision,
        idle_timeout,
        absolute_timeout: Duration::from_secs(3600),
        idle_points: if revision == 0 { POINTS.into() } else { [SECOND].into() },
        absolute_points: [].into(),
        max_extensions: Some(1),
        tombstone_ttl: Duration::from_secs(600),
        work: WorkLimits {
            max_ttl: Duration::from_secs(10),
            ..WorkLimits::default()
        },
        ..Limits::default()
    };
    let policy = Policy {
        limits: Arc::new(limits),
        ..Policy::default()
    };
    BTreeMap::from([("default".to_owned(), policy)])
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
