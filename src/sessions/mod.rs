//! The heart: sessions by name, judged in time.
//!
//! A touch of a known session is two calls: find it in the table, raise its pulse. Everything else reads the record, lets the
//! state machine decide, and commits; if somebody was faster, it decides again.

mod answer;
mod judge;
mod meter;
mod policies;
mod vigil;
mod watch;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use answer::{Details, EndAnswer, Error, ExtendAnswer, Report, Rule, State, Status, TouchAnswer, TouchResult};
pub use meter::Meter;
pub use policies::{Policies, Reloaded};
pub use watch::{Scope, Subscriber, Watch, WatchContent, WatchError, WatchMessage};

use crate::{
    driver::Alarm,
    event::{Log, Router, Tokens},
    state::{
        Activity, Command, End, Identity, Keys, Limits, Moment, Next, Origin, Outcome, Policy, Pulse, Recalled, Reply,
        RequestId, Rest, SessionRef, Tombstone, Touched, Unmatched, View,
    },
    store::{Commit, Committed, Expected, Found, Memory, MemoryCaps, Session, Store, Unavailable},
    time::Clock,
    timeline::Timeline,
};

use judge::Backlog;
use vigil::Vigil;

/// How the core is set up.
pub struct Setup {
    /// The clock.
    pub clock: Clock,
    /// The key of refs, generated ids and tokens: at least 32 bytes.
    pub master_key: Vec<u8>,
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
}

/// All sessions of this process.
pub struct Sessions {
    clock: Clock,
    vigil: Vigil,
    keys: Keys,
    policies: BTreeMap<String, Policy>,
    min_id_length: usize,
    memory: Arc<Memory>,
    store: Arc<dyn Store>,
    log: Arc<Log>,
    router: Arc<Router>,
    tokens: Tokens,
    watcher_slots: Arc<Semaphore>,
    max_watchers: usize,
    timeline: Mutex<Timeline<Arc<Session>>>,
    /// Slots of the timeline that have fired and are not all judged. Whoever steps holds it.
    backlog: tokio::sync::Mutex<Backlog>,
    alarm: Arc<Alarm>,
    meter: Meter,
}

/// The caller's name for a session.
#[derive(Clone, Copy)]
pub struct Name<'a> {
    /// The tenant.
    pub tenant: &'a str,
    /// The raw id: a bearer secret, hashed here and kept nowhere.
    pub session_id: &'a str,
}

/// What Create is told.
pub struct Create<'a> {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The caller's own id.
    pub session_id: Option<&'a str>,
    /// Whose session it is, or empty.
    pub subject: &'a str,
    /// Name of the policy.
    pub policy: &'a str,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// A stricter idle timeout.
    pub idle_timeout: Option<Duration>,
    /// A stricter absolute timeout.
    pub absolute_timeout: Option<Duration>,
    /// How long ago the person authenticated.
    pub authenticated_ago: Duration,
    /// How long ago the last activity was.
    pub idle_for: Duration,
    /// The caller's request id and its content.
    pub request: Option<Request<'a>>,
}

/// A request id, and all else that the request says.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The caller's id of the request.
    pub id: &'a str,
    /// The request without it, encoded.
    pub content: &'a [u8],
}

/// A created session.
pub struct Created {
    /// Its id, to be handed out once.
    pub session_id: String,
    /// The session.
    pub report: Report,
}

/// The rest of a record on which only the pulse has a say.
static PLAIN: Rest = Rest::PLAIN;

impl Sessions {
    /// An empty core.
    #[must_use]
    pub fn new(setup: Setup, meter: Meter) -> Arc<Self> {
        let Setup { clock, caps, .. } = setup;
        let keys = Keys::derive(&setup.master_key);
        let log = Arc::new(Log::new(setup.replay_events));
        let memory = Arc::new(Memory::new(clock.clone(), Arc::clone(&log), caps));
        Arc::new(Self {
            vigil: Vigil::new(clock.clone()),
            tokens: Tokens::new(keys.tokens(), random()),
            keys,
            min_id_length: setup
                .policies
                .values()
                .map(|policy| policy.min_id_length)
                .min()
                .unwrap_or(1),
            policies: setup.policies,
            store: Arc::clone(&memory) as Arc<dyn Store>,
            memory,
            router: Router::new(Arc::clone(&log), setup.mailbox_size),
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

    /// What is in memory.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
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

    /// The ref of a session.
    #[must_use]
    pub fn session_ref(&self, name: Name<'_>) -> SessionRef {
        self.keys.session_ref(name.tenant, name.session_id)
    }

    /// Starts a session.
    pub async fn create(&self, create: Create<'_>) -> Result<Created, Error> {
        let policy = self.policies.get(create.policy).ok_or_else(|| Error::PolicyUnknown {
            known: self.policies.keys().cloned().collect::<Vec<_>>().join(", "),
        })?;
        let session_id = match (create.session_id, create.request) {
            (Some(own), _) => {
                self.refuse_ref(&create.tenant, own).await?;
                if own.len() < policy.min_id_length {
                    return Err(too_short(policy.min_id_length));
                }
                own.to_owned()
            }
            (None, Some(request)) => self.keys.id_for_request(&create.tenant, request.id),
            (None, None) => URL_SAFE_NO_PAD.encode(random::<32>()),
        };
        let reference = self.keys.session_ref(&create.tenant, &session_id);
        let request = create
            .request
            .map(|request| self.keys.request(request.id, request.content));
        let moment = self.moment();
        // A retry is answered with what was created, even if a limit has changed its mind since.
        if let Some(request) = request
            && let Found::Live(session) = self.store.find(reference).await?
        {
            return self.created_before(session_id, session, request).await;
        }
        let limits = stricter(policy, create.idle_timeout, create.absolute_timeout)?;
        if create.idle_for >= limits.idle_timeout {
            return Err(already_past("idle_for", "idle timeout", limits.idle_timeout));
        }
        if create.authenticated_ago >= limits.absolute_timeout {
            return Err(already_past(
                "authenticated_ago",
                "absolute timeout",
                limits.absolute_timeout,
            ));
        }
        let origin = Origin {
            limits,
            identity: Identity::new(create.tenant, create.subject, create.labels),
            created: moment.now,
            authenticated: moment.now - create.authenticated_ago,
        };
        let next = Next::created(&origin, moment.now - create.idle_for, request, moment);
        let report = Report::live(reference, &next.view(&origin), moment);
        let next_action = next.view(&origin).next_action(moment);
        let happenings = next.happenings.clone();
        let committed = self
            .store
            .commit(Commit {
                reference,
                expected: Expected::Nothing(origin),
                next,
                at: moment.now,
            })
            .await?;
        match committed {
            Committed::Done(session) => {
                self.arm(&session, next_action);
                self.meter.created.inc();
                self.count(&happenings);
                tracing::debug!(session = %reference, "created");
                Ok(Created { session_id, report })
            }
            Committed::Lost(Found::Live(session)) => match request {
                Some(request) => self.created_before(session_id, session, request).await,
                None => match self.examine(session).await? {
                    Examined::Live(_) => Err(Error::Exists(reference)),
                    Examined::Ended(tombstone) => Err(Error::Ended(reference, tombstone)),
                },
            },
            Committed::Lost(Found::Ended(tombstone)) => Err(Error::Ended(reference, tombstone)),
            // It was there and is forgotten within one call: the caller may try again.
            Committed::Lost(Found::Unknown { .. }) => Err(Unavailable.into()),
            Committed::Full { max_sessions } => Err(Error::Full { max_sessions }),
        }
    }

    async fn created_before(
        &self,
        session_id: String,
        session: Arc<Session>,
        request: RequestId,
    ) -> Result<Created, Error> {
        let reference = session.reference();
        let session = match self.examine(session).await? {
            Examined::Live(session) => session,
            Examined::Ended(tombstone) => return Err(Error::Ended(reference, tombstone)),
        };
        let moment = self.moment();
        session.read(|view| match view.rest.recall(request, moment.now) {
            Some(Recalled::Same(Outcome::Created)) => Ok(Created {
                session_id,
                report: Report::live(reference, view, moment),
            }),
            Some(_) => Err(Error::RequestIdReused(reference)),
            None => Err(Error::Exists(reference)),
        })
    }

    /// Reports activity.
    pub async fn touch(&self, name: Name<'_>, activity: Activity, ago: Duration) -> Result<TouchAnswer, Error> {
        let answer = self.touch_uncounted(name, activity, ago).await;
        let touches = &self.meter.touches;
        match &answer {
            Ok(answer) => match answer.result {
                TouchResult::Counted => touches.counted.inc(),
                TouchResult::Ignored => touches.ignored.inc(),
                TouchResult::Stale => touches.stale.inc(),
            },
            Err(Error::Ended(..)) => touches.ended.inc(),
            Err(Error::Unknown(_)) => touches.unknown.inc(),
            Err(_) => 0,
        };
        answer
    }

    async fn touch_uncounted(&self, name: Name<'_>, activity: Activity, ago: Duration) -> Result<TouchAnswer, Error> {
        let reference = self.session_ref(name);
        let moment = self.moment();
        let session = match self.memory.get(reference) {
            Some(session) => session,
            None => self.live(name, reference).await?,
        };
        let origin = session.origin();
        let (rule, counts) = match (activity, origin.limits.unmatched) {
            (Activity::User, _) => (Rule::DeclaredUser, true),
            (Activity::Background, _) => (Rule::DeclaredBackground, false),
            (Activity::Unspecified, Unmatched::Count) => (Rule::Unmatched, true),
            (Activity::Unspecified, Unmatched::Ignore) => (Rule::Unmatched, false),
        };
        loop {
            let seen = session.pulse();
            let (result, pulse) = match seen.touch(origin, ago, moment) {
                Touched::Dead | Touched::Slow => break,
                Touched::Raised(_) | Touched::Stale if !counts => (TouchResult::Ignored, seen),
                Touched::Stale => (TouchResult::Stale, seen),
                Touched::Raised(raised) => (TouchResult::Counted, raised),
            };
            // Nothing to raise is nothing to swap; and whoever loses the race looks again.
            if pulse == seen || session.swap_pulse(seen, pulse) {
                let status = plain_status(&session, pulse, moment);
                return Ok(TouchAnswer { status, result, rule });
            }
        }
        let command = Command::Touch { counts, ago };
        let (reply, status) = self.command(&session, &command, moment).await?;
        let result = match reply {
            Reply::Counted => TouchResult::Counted,
            Reply::Stale => TouchResult::Stale,
            _ => TouchResult::Ignored,
        };
        Ok(TouchAnswer { status, result, rule })
    }

    /// Asks for everything about a session. `tenant` guards a lookup by ref: another tenant's session is unknown (G17).
    pub async fn report(&self, tenant: &str, reference: SessionRef) -> Result<Report, Error> {
        let examined = match self.store.find(reference).await? {
            Found::Live(session) => self.examine(session).await?,
            Found::Ended(tombstone) => Examined::Ended(tombstone),
            Found::Unknown { may_have_ended } => {
                return Ok(Report::unknown(reference, may_have_ended, self.clock.now()));
            }
        };
        let moment = self.moment();
        let report = match examined {
            Examined::Live(session) => session.read(|view| Report::live(reference, view, moment)),
            Examined::Ended(tombstone) => Report::ended(reference, tombstone, moment.now),
        };
        let same_tenant = report
            .details
            .as_ref()
            .is_some_and(|details| details.origin.identity.tenant() == tenant);
        if same_tenant {
            return Ok(report);
        }
        Ok(Report::unknown(reference, false, moment.now))
    }

    /// Moves the idle deadline: the person pressed "stay".
    pub async fn extend(
        &self,
        name: Name<'_>,
        wanted: Option<Duration>,
        request: Option<Request<'_>>,
    ) -> Result<ExtendAnswer, Error> {
        let session = self.live(name, self.session_ref(name)).await?;
        let request = request.map(|request| self.keys.request(request.id, request.content));
        let command = Command::Extend { wanted, request };
        let (reply, status) = self.command(&session, &command, self.moment()).await?;
        let (granted, clamped) = match reply {
            Reply::Extended { granted, clamped } => (granted, clamped),
            _ => (Duration::ZERO, false),
        };
        self.meter.extended.inc();
        Ok(ExtendAnswer {
            status,
            granted,
            clamped,
        })
    }

    /// Ends a session. On an ended one it answers the first end.
    pub async fn end(&self, name: Name<'_>, end: End) -> Result<EndAnswer, Error> {
        let (outcome, reference) = match self.live(name, self.session_ref(name)).await {
            Ok(session) => {
                let outcome = self.command(&session, &Command::End(end), self.moment()).await;
                (outcome.map(|(reply, _)| reply), session.reference())
            }
            Err(error) => (Err(error), self.session_ref(name)),
        };
        let (tombstone, ended_now) = match outcome {
            Ok(Reply::Ended(tombstone)) => (tombstone, true),
            Ok(_) => return Err(Error::Unknown(reference)),
            Err(Error::Ended(_, tombstone)) => (tombstone, false),
            Err(error) => return Err(error),
        };
        Ok(EndAnswer {
            status: Status::ended(reference, &tombstone, self.clock.now()),
            tombstone,
            ended_now,
        })
    }

    fn moment(&self) -> Moment {
        self.vigil.moment()
    }

    /// The live session of a name, or why there is none.
    async fn live(&self, name: Name<'_>, reference: SessionRef) -> Result<Arc<Session>, Error> {
        match self.store.find(reference).await? {
            Found::Live(session) => Ok(session),
            Found::Ended(tombstone) => Err(Error::Ended(reference, tombstone)),
            Found::Unknown { .. } => {
                self.refuse_ref(name.tenant, name.session_id).await?;
                if name.session_id.len() < self.min_id_length {
                    return Err(too_short(self.min_id_length));
                }
                Err(Error::Unknown(reference))
            }
        }
    }

    /// Refuses the ref of a known session where an id is due: somebody mixed them up.
    async fn refuse_ref(&self, tenant: &str, session_id: &str) -> Result<(), Error> {
        let Ok(reference) = session_id.parse::<SessionRef>() else {
            return Ok(());
        };
        if self.report(tenant, reference).await?.details.is_none() {
            return Ok(());
        }
        Err(Error::Invalid {
            field: "session_id",
            problem: "is a session_ref; a session's id is needed here (a ref is no credential)".to_owned(),
        })
    }
}

/// The status of a session on which only its pulse has a say.
fn plain_status(session: &Session, pulse: Pulse, moment: Moment) -> Status {
    let view = View {
        origin: session.origin(),
        pulse,
        rest: &PLAIN,
        version: session.version(),
    };
    Status::live(session.reference(), &view, moment)
}

/// A policy's limits, or stricter ones.
fn stricter(policy: &Policy, idle: Option<Duration>, absolute: Option<Duration>) -> Result<Arc<Limits>, Error> {
    let limits = &policy.limits;
    if idle.is_none() && absolute.is_none() {
        return Ok(Arc::clone(limits));
    }
    let strict = |field, wanted: Option<Duration>, limit: Duration| match wanted {
        Some(wanted) if wanted > limit => Err(Error::Invalid {
            field,
            problem: format!(
                "may only be stricter than the policy: at most {}",
                humantime::format_duration(limit)
            ),
        }),
        wanted => Ok(wanted),
    };
    let idle = strict("idle_timeout", idle, limits.idle_timeout)?;
    let absolute = strict("absolute_timeout", absolute, limits.absolute_timeout)?;
    Ok(Arc::new(limits.stricter(idle, absolute)))
}

fn already_past(field: &'static str, limit: &'static str, bound: Duration) -> Error {
    Error::AlreadyPast {
        field,
        limit,
        bound: humantime::format_duration(bound),
    }
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
