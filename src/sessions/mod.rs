//! The heart: sessions by name, judged in time.
//!
//! A touch of a known session is two calls: find it in the table, raise its pulse. Everything else reads the record, lets the
//! state machine decide, and commits; if somebody was faster, it decides again.

mod admin;
mod answer;
mod create;
mod end_many;
mod explain;
mod judge;
mod keyring;
mod local;
mod meter;
mod page;
mod policies;
mod resolve;
mod rotate;
mod sweep;
mod touch;
mod verbs;
mod vigil;
mod watch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

pub use admin::{Filter, Listed, Stats};
pub use answer::{
    Details, EndAnswer, Error, ExtendAnswer, HoldAnswer, ReleaseAnswer, Report, State, Status, TouchAnswer, TouchResult,
};
pub use create::{Create, Created};
pub use end_many::{EndMany, Ended};
pub use explain::{Explanation, Period, Target, reason_in_words};
pub use meter::Meter;
pub use policies::{Policies, Reloaded};
pub use resolve::Follow;
pub use rotate::{Rotate, Rotated};
pub use watch::{Scope, Subscriber, Watch, WatchContent, WatchError, WatchMessage};

use crate::{
    audit::Audit,
    driver::Alarm,
    event::{Log, Router},
    state::{Moment, Policy, Rest, SessionRef, Tombstone},
    store::{
        Levels, Memory, MemoryCaps, Session, Store,
        shared::{Elsewhere, HELD_FOR, Shared},
    },
    sync::Mutex,
    time::Clock,
    timeline::Timeline,
};

use create::Admissions;
use judge::Backlog;
use keyring::Keyring;
use vigil::Vigil;

/// How the core is set up.
pub struct Setup {
    /// The clock.
    pub clock: Clock,
    /// The key of refs, generated ids and tokens: at least 32 bytes.
    pub master_key: Vec<u8>,
    /// Another one that is accepted, while the key of a shared store is changed.
    pub other_key: Option<Vec<u8>>,
    /// The policies by name.
    pub policies: BTreeMap<String, Policy>,
    /// How much may be kept.
    pub caps: MemoryCaps,
    /// How many events the log keeps for watchers that resume.
    pub replay_events: usize,
    /// How many events may wait for one watcher before it is cut off.
    pub mailbox_size: usize,
    /// How many watchers there may be.
    pub max_watchers: usize,
    /// Where creations, extensions, rotations and ends are written down for auditors.
    pub audit: Audit,
}

/// All sessions of this process.
pub struct Sessions {
    clock: Clock,
    vigil: Vigil,
    keyring: Keyring,
    policies: Policies,
    admissions: Admissions,
    /// What is known in this process alone, unless sidecars share a store.
    memory: Option<Arc<Memory>>,
    store: Arc<dyn Store>,
    log: Arc<Log>,
    router: Arc<Router>,
    watcher_slots: Arc<Semaphore>,
    max_watchers: usize,
    timeline: Mutex<Timeline<Arc<Session>>>,
    /// Slots of the timeline that have fired and are not all judged. Whoever steps holds it.
    backlog: tokio::sync::Mutex<Backlog>,
    alarm: Arc<Alarm>,
    meter: Meter,
    audit: Audit,
}

/// The caller's name for a session.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The raw id: a bearer secret, hashed here and kept nowhere.
    pub session_id: &'a str,
    /// What it means after a Rotate.
    pub follow: Follow,
}

/// A request id, and all else that the request says.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The caller's id of the request.
    pub id: &'a str,
    /// The request without it, encoded.
    pub content: &'a [u8],
}

/// The rest of a record on which only the pulse has a say.
static PLAIN: Rest = Rest::PLAIN;

impl Sessions {
    /// An empty core.
    #[must_use]
    pub fn new(setup: Setup, meter: Meter) -> Arc<Self> {
        let log = Arc::new(Log::new(setup.replay_events));
        let memory = Arc::new(Memory::new(setup.clock.clone(), Arc::clone(&log), setup.caps));
        let router = Router::new(Arc::clone(&log), 1, setup.mailbox_size);
        let store = Arc::clone(&memory) as Arc<dyn Store>;
        let vigil = Vigil::new(setup.clock.clone(), Duration::MAX, Arc::default());
        let epoch = Arc::new(parking_lot::Mutex::new(random()));
        Self::over(setup, meter, store, Some(memory), log, router, vigil, epoch)
    }

    /// A core whose sessions are in a store that others share.
    #[must_use]
    pub fn sharing(setup: Setup, meter: Meter, shared: &Arc<Shared>) -> Arc<Self> {
        let (log, router) = (Arc::clone(shared.log()), Arc::clone(shared.router()));
        let vigil = Vigil::new(setup.clock.clone(), HELD_FOR, shared.held_until());
        let store = Arc::clone(shared) as Arc<dyn Store>;
        Self::over(setup, meter, store, None, log, router, vigil, shared.epoch())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts in which the two ways to be made differ"
    )]
    fn over(
        setup: Setup,
        meter: Meter,
        store: Arc<dyn Store>,
        memory: Option<Arc<Memory>>,
        log: Arc<Log>,
        router: Arc<Router>,
        vigil: Vigil,
        epoch: Arc<parking_lot::Mutex<[u8; 16]>>,
    ) -> Arc<Self> {
        let clock = setup.clock;
        let policies = effective(&*store, setup.policies);
        announce(&*store, &policies);
        Arc::new(Self {
            vigil,
            keyring: Keyring::new(&setup.master_key, setup.other_key.as_deref(), &epoch),
            audit: setup.audit,
            policies: Policies::new(policies),
            admissions: Admissions::default(),
            store,
            memory,
            router,
            log,
            watcher_slots: Arc::new(Semaphore::new(setup.max_watchers)),
            max_watchers: setup.max_watchers,
            timeline: Mutex::new(Timeline::new(clock.now())),
            backlog: tokio::sync::Mutex::default(),
            alarm: Arc::new(Alarm::default()),
            meter,
            clock,
        })
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What is written down for auditors.
    #[must_use]
    pub fn audit(&self) -> &Audit {
        &self.audit
    }

    /// The table of this process, unless sidecars share a store.
    #[must_use]
    pub fn memory(&self) -> Option<&Memory> {
        self.memory.as_deref()
    }

    /// What other sidecars have of a policy, where it is not what this one has: a revision, or none, and how many have it.
    #[must_use]
    pub fn policy_elsewhere(&self, policy: &str) -> Elsewhere {
        self.store.policy_elsewhere(policy)
    }

    /// How far ahead of an activity of a policy's sessions it may be written; `None` if each is noted as it is.
    #[must_use]
    pub fn ahead(&self, policy: &Policy) -> Option<Duration> {
        self.store.ahead(&policy.limits)
    }

    /// Whether other sidecars share the sessions.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.store.is_shared()
    }

    /// How much there is.
    #[must_use]
    pub fn levels(&self) -> Levels {
        self.store.levels()
    }

    /// Puts the policies of a file in force.
    pub fn reload(&self, policies: BTreeMap<String, Policy>) -> Result<Reloaded, String> {
        let reloaded = self.policies.reload(effective(&*self.store, policies))?;
        let in_force = self.policies.all().into_iter().map(|(policy, _)| policy.limits);
        self.store.announce(&in_force.collect::<Vec<_>>());
        Ok(reloaded)
    }

    /// How many watchers there may be.
    #[must_use]
    pub fn max_watchers(&self) -> usize {
        self.max_watchers
    }

    /// The policies in force.
    #[must_use]
    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Who gets which events.
    #[must_use]
    pub fn router(&self) -> &Arc<Router> {
        &self.router
    }

    /// What wakes the driver.
    #[must_use]
    pub fn alarm(&self) -> &Arc<Alarm> {
        &self.alarm
    }

    /// The ref of a session that begins here. One that is there already may have another: ask [`Sessions::known_as`].
    #[must_use]
    pub fn session_ref(&self, name: Name<'_>) -> SessionRef {
        self.keyring.own_ref(name)
    }

    fn moment(&self) -> Moment {
        self.vigil.moment()
    }
}

/// The policies as this store keeps them: where it may learn of activity a moment late, `at_most` makes its limits so much
/// shorter.
fn effective(store: &dyn Store, policies: BTreeMap<String, Policy>) -> BTreeMap<String, Policy> {
    let each = policies.into_iter().map(|(name, mut policy)| {
        policy.limits = Arc::new(store.effective(&policy.limits));
        (name, policy)
    });
    each.collect()
}

fn announce(store: &dyn Store, policies: &BTreeMap<String, Policy>) {
    let limits = policies.values().map(|policy| Arc::clone(&policy.limits));
    store.announce(&limits.collect::<Vec<_>>());
}

fn too_short(min: usize) -> Error {
    Error::Invalid {
        field: "session_id",
        problem: format!("must be at least {min} bytes long (policy: min_id_length)"),
    }
}

/// Bytes from the operating system's generator. Without it no id is secret: the process ends.
fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::error!(%error, "the operating system gives no random bytes");
        std::process::abort();
    }
    bytes
}

/// A master key for those who were given none.
#[must_use]
pub fn random_key() -> Vec<u8> {
    random::<32>().into()
}

/// A session that was looked at now.
enum Examined {
    Live(Arc<Session>),
    Ended(Arc<Tombstone>),
}
