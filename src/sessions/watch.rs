//! One watcher: the state first if it asked for it, then what the log has since, then what happens.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Report, Sessions, State};
use crate::{
    event::{Event, Places, Position, Route, Subscription, TokenError, Trimmed},
    sabotage::{self, Fault},
    state::{Happening, Keys, SessionRef},
    store::{Extent, NotResumed, Resumed, Seen, Unavailable},
    time::Time,
};

/// How many events are read from the log at once.
const READ: usize = 256;

/// Which sessions a watch is about.
#[derive(Debug, Clone)]
pub enum Scope {
    /// Sessions of a tenant by name, with the ids that the caller named them by. An id may stand at more than one ref.
    Sessions(Arc<str>, BTreeMap<SessionRef, Option<String>>),
    /// All sessions of a tenant's subject.
    Subject(Arc<str>, String),
    /// All sessions of a tenant.
    Tenant(Arc<str>),
    /// All sessions of the caller's tenants.
    Everything,
}

/// What a watcher asks for.
#[derive(Debug, Clone)]
pub struct Subscriber {
    /// Which sessions.
    pub scope: Scope,
    /// All tenants of the caller.
    pub tenants: Arc<[Arc<str>]>,
    /// Whether it wants warnings.
    pub warnings: bool,
    /// Whether it wants withdrawals.
    pub cleared: bool,
    /// Whether it wants ends.
    pub ends: bool,
    /// Where to go on.
    pub resume_token: Option<String>,
    /// How often to hear that the stream is alive.
    pub heartbeat: Duration,
    /// Whether to begin with the state.
    pub initial_state: bool,
}

/// One message to a watcher.
#[derive(Debug, Clone)]
pub struct WatchMessage {
    /// What it says.
    pub content: WatchContent,
    /// Go on after it from here.
    pub resume_token: String,
    /// When it happened, or was made.
    pub at: Time,
}

/// What a message says.
#[derive(Debug, Clone)]
pub enum WatchContent {
    /// A session as it was when the watch began.
    Snapshot(Box<Report>),
    /// The state is complete: so many snapshots were sent.
    SnapshotEnd(u64),
    /// Something happened.
    Event(Arc<Event>),
    /// Nothing happened.
    Heartbeat,
    /// The process is about to stop.
    Draining,
}

/// Why a watch cannot begin or go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    /// The token is not one of ours, or not for this caller and scope.
    #[error(
        "resume_token: is not a token of this sidecar for this scope and caller; send one back as it came, unchanged"
    )]
    TokenInvalid,
    /// The log no longer reaches back to the token.
    #[error("the event log no longer reaches back to the resume_token; open again with include_initial_state")]
    TokenExpired,
    /// It did not read in time.
    #[error("messages were not read in time and the stream is cut off; resume from the last message received")]
    TooSlow,
    /// There are too many watchers.
    #[error("there are {max} watchers, the cap (--max-watchers); share one stream among sessions, or raise it")]
    TooMany {
        /// The cap.
        max: usize,
    },
    /// The store cannot know now.
    #[error("the session store is not reachable")]
    Unavailable,
}

/// An open watch.
pub struct Watch {
    sessions: Arc<Sessions>,
    subscriber: Subscriber,
    binding: [u8; 32],
    /// The epoch of the log when the watch began.
    epoch: [u8; 16],
    draining: CancellationToken,
    phase: Phase,
    /// All events up to here were sent, or are not of interest.
    cursor: u64,
    /// The same, in the numbers of the streams. In some it may be further than the log is at the cursor.
    places: Places,
    ready: VecDeque<Arc<Event>>,
    /// Until the log is read up to here, events may be older than the snapshots.
    initial_through: u64,
    /// The sessions that go on, as of the cursor, in the place of those that the scope names. Tokens carry them: tombstones, by
    /// which they could be found again, may be forgotten by then.
    followed: BTreeSet<SessionRef>,
    /// The versions that were snapshotted.
    snapshotted: HashMap<SessionRef, u32>,
    quiet_since: Instant,
    _slot: OwnedSemaphorePermit,
}

enum Phase {
    Snapshots {
        to_come: std::vec::IntoIter<SessionRef>,
        sent: u64,
    },
    /// Reading the log; `again` if it was live before, and more came than was kept for it.
    CatchingUp {
        again: bool,
    },
    Live(Subscription),
    Over,
}

impl Sessions {
    /// Opens a watch. It ends when `draining` is cancelled.
    pub async fn watch(
        self: &Arc<Self>,
        subscriber: Subscriber,
        draining: CancellationToken,
    ) -> Result<Watch, WatchError> {
        let max = self.max_watchers;
        let slot = Arc::clone(&self.watcher_slots).try_acquire_owned();
        let slot = slot.map_err(|_| WatchError::TooMany { max })?;
        let binding = self.keyring.bind(|keys| subscriber.binding(keys));
        // Before the sessions are listed: what happens to them from here on is sent as an event.
        if subscriber.resume_token.is_none() {
            // What has happened before is nothing new, also where it is not known here yet; the initial state is what came of it.
            let level = self.store.barrier().await;
            level.map_err(|Unavailable| WatchError::Unavailable)?;
            self.router.caught_up().await;
        }
        let epoch = self.keyring.tokens().epoch();
        let (now, routed) = self.router.places();
        let mut before = Vec::new();
        let (seq, places, initial, resumes, known) = match &subscriber.resume_token {
            None => (now, routed, subscriber.initial_state, false, Some(Vec::new())),
            Some(token) => match self.open_token(token, &subscriber).await? {
                // The state was not complete: all of it again, without what led to it.
                (position, _) if position.initial => (now, routed, true, false, position.followed),
                (position, resumed) => {
                    before = resumed.before;
                    (resumed.cursor, position.places, false, true, position.followed)
                }
            },
        };
        let mut subscriber = subscriber;
        let mut followed = BTreeSet::new();
        if let Scope::Sessions(tenant, names) = &mut subscriber.scope {
            for successor in known.iter().flatten() {
                names.entry(*successor).or_insert(None);
            }
            // Names that were rotated lead on.
            for name in names.keys().copied().collect::<Vec<_>>() {
                let successors = self.successors_of(tenant, name).await;
                let (successors, complete) = successors.map_err(|Unavailable| WatchError::Unavailable)?;
                if !complete && known.is_none() {
                    // What it followed may be forgotten, and nothing else tells.
                    return Err(WatchError::TokenExpired);
                }
                followed.extend(successors.last());
                for successor in successors {
                    names.entry(successor).or_insert(None);
                }
            }
            match known {
                Some(known) if resumes => followed = known.into_iter().collect(),
                known => followed.extend(known.into_iter().flatten()),
            }
        }
        let phase = if resumes {
            Phase::CatchingUp { again: false }
        } else {
            let to_come = if initial {
                self.in_scope(&subscriber)
                    .await
                    .map_err(|Unavailable| WatchError::Unavailable)?
            } else {
                Vec::new()
            };
            Phase::Snapshots {
                to_come: to_come.into_iter(),
                sent: 0,
            }
        };
        Ok(Watch {
            sessions: Arc::clone(self),
            subscriber,
            binding,
            epoch,
            draining,
            phase,
            cursor: seq,
            places,
            ready: before.into(),
            initial_through: if initial { u64::MAX } else { 0 },
            followed,
            snapshotted: HashMap::new(),
            quiet_since: Instant::now(),
            _slot: slot,
        })
    }

    async fn open_token(&self, token: &str, subscriber: &Subscriber) -> Result<(Position, Resumed), WatchError> {
        if !self.store.is_ready() {
            return Err(WatchError::Unavailable);
        }
        let position = self.keyring.open_token(token, |keys| subscriber.binding(keys));
        let position = position.map_err(|error| match error {
            TokenError::Invalid => WatchError::TokenInvalid,
            TokenError::OtherEpoch => WatchError::TokenExpired,
        })?;
        match self.store.resume(&position.places).await {
            Ok(resumed) => Ok((position, resumed)),
            // All of it comes again.
            Err(NotResumed::Trimmed) if position.initial => Ok((position, Resumed::default())),
            Err(NotResumed::Trimmed) => Err(WatchError::TokenExpired),
            Err(NotResumed::Future) => Err(WatchError::TokenInvalid),
            Err(NotResumed::Unavailable) => Err(WatchError::Unavailable),
        }
    }

    async fn in_scope(&self, subscriber: &Subscriber) -> Result<Vec<SessionRef>, Unavailable> {
        Ok(match &subscriber.scope {
            Scope::Sessions(_, names) => names.keys().copied().collect(),
            Scope::Subject(tenant, subject) => self.store.of_subject(tenant, subject).await?,
            Scope::Tenant(_) | Scope::Everything => {
                let extent = Extent {
                    after: None,
                    live: true,
                    ended: false,
                    most: usize::MAX,
                };
                self.store.scan(extent, Arc::new(|_: &Seen<'_>| true)).await?
            }
        })
    }
}

impl Watch {
    /// What the watcher asked for.
    #[must_use]
    pub fn subscriber(&self) -> &Subscriber {
        &self.subscriber
    }

    /// The next message; `None` after Draining, and after an error.
    pub async fn next(&mut self) -> Option<Result<WatchMessage, WatchError>> {
        if matches!(self.phase, Phase::Over) {
            return None;
        }
        // A stream that always has more must not starve its neighbours.
        tokio::task::coop::consume_budget().await;
        let message = match self.find_next().await {
            Ok(message) => message,
            Err(error) => {
                self.phase = Phase::Over;
                if error == WatchError::TooSlow {
                    return Some(Err(self.cut_off()));
                }
                return Some(Err(error));
            }
        };
        self.quiet_since = Instant::now();
        Some(Ok(message))
    }

    /// Waits until more has happened than is kept for this watcher.
    pub async fn overrun(&self) {
        match &self.phase {
            Phase::Live(subscription) => subscription.overrun().await,
            _ => std::future::pending().await,
        }
    }

    /// Ends the watch of a watcher that does not read.
    pub fn cut_off(&mut self) -> WatchError {
        self.phase = Phase::Over;
        self.sessions.meter.watchers_cut_off.inc();
        WatchError::TooSlow
    }

    async fn find_next(&mut self) -> Result<WatchMessage, WatchError> {
        loop {
            if self.draining.is_cancelled() {
                self.phase = Phase::Over;
                return Ok(self.message(WatchContent::Draining));
            }
            if let Some(event) = self.ready.pop_front() {
                // What is from before this process' log has no place in it.
                self.cursor = self.cursor.max(event.seq);
                if !self.passes(&event) {
                    continue;
                }
                self.follow(&event);
                if self.wants(&event) {
                    event.was_told();
                    let at = event.at;
                    return Ok(WatchMessage {
                        at,
                        ..self.message(WatchContent::Event(event))
                    });
                }
                continue;
            }
            if let Some(message) = self.advance().await? {
                return Ok(message);
            }
        }
    }

    /// Gets more to send, or waits for it. Answers a message if there is one that is not an event.
    async fn advance(&mut self) -> Result<Option<WatchMessage>, WatchError> {
        if self.cursor >= self.initial_through {
            // From here on every event is newer than the snapshots.
            self.snapshotted = HashMap::new();
        }
        match &mut self.phase {
            Phase::Over => Ok(None),
            Phase::Snapshots { to_come, sent } => {
                let Some(reference) = to_come.next() else {
                    let sent = *sent;
                    if self.initial_through > 0 {
                        // What the snapshots know of is in the log.
                        let level = self.sessions.store.barrier().await;
                        level.map_err(|Unavailable| WatchError::Unavailable)?;
                        self.initial_through = self.sessions.log.head();
                    }
                    self.phase = Phase::CatchingUp { again: false };
                    return Ok(Some(self.message(WatchContent::SnapshotEnd(sent))));
                };
                let Some(report) = self.snapshot(reference).await? else {
                    return Ok(None);
                };
                self.snapshotted.insert(reference, report.status.version);
                if let Phase::Snapshots { sent, .. } = &mut self.phase {
                    *sent += 1;
                }
                Ok(Some(self.message(WatchContent::Snapshot(Box::new(report)))))
            }
            Phase::CatchingUp { again } => {
                let again = *again;
                let routed = self.sessions.router.routed();
                let read = self.sessions.log.read(self.cursor, routed, READ);
                let begins_anew = self.epoch != self.sessions.keyring.tokens().epoch();
                let behind = |Trimmed| {
                    if again && !begins_anew {
                        WatchError::TooSlow
                    } else {
                        WatchError::TokenExpired
                    }
                };
                self.ready = read.map_err(behind)?.into();
                if self.ready.is_empty() {
                    let subscribed = self.sessions.router.subscribe(self.subscriber.routes(), self.cursor);
                    if let Ok(subscription) = subscribed {
                        self.phase = Phase::Live(subscription);
                    }
                }
                Ok(None)
            }
            Phase::Live(subscription) => {
                // In this order: what is routed by now is in the mailbox by now.
                let (routed, places) = self.sessions.router.places();
                if !subscription.take(&mut self.ready) {
                    self.phase = Phase::CatchingUp { again: true };
                    return Ok(None);
                }
                if !self.ready.is_empty() {
                    return Ok(None);
                }
                self.cursor = self.cursor.max(routed);
                for (place, routed) in self.places.iter_mut().zip(&places) {
                    *place = (*place).max(*routed);
                }
                let beat = self.quiet_since + self.subscriber.heartbeat;
                tokio::select! {
                    biased;
                    () = self.draining.cancelled() => Ok(None),
                    () = subscription.changed() => Ok(None),
                    () = tokio::time::sleep_until(beat) => Ok(Some(self.message(WatchContent::Heartbeat))),
                }
            }
        }
    }

    /// The state of a session, if it belongs into the initial state.
    async fn snapshot(&self, reference: SessionRef) -> Result<Option<Report>, WatchError> {
        for tenant in self.subscriber.scope.tenants(&self.subscriber.tenants) {
            let report = self.sessions.report(tenant, reference).await;
            let report = report.map_err(|_| WatchError::Unavailable)?;
            let Some(details) = &report.details else { continue };
            let wanted = match &self.subscriber.scope {
                Scope::Sessions(..) => true,
                Scope::Subject(_, subject) => {
                    report.status.state != State::Ended && details.origin.identity.subject() == subject
                }
                Scope::Tenant(_) | Scope::Everything => report.status.state != State::Ended,
            };
            return Ok(wanted.then_some(report));
        }
        Ok(None)
    }

    /// Takes note of an event's place. Answers whether it is a new one.
    fn passes(&mut self, event: &Event) -> bool {
        match self.places.get_mut(usize::from(event.stream)) {
            Some(place) if *place < event.number => {
                *place = event.number;
                true
            }
            _ => false,
        }
    }

    /// Whether an event is of interest: the router knows the route, not the tenant of a ref nor what a snapshot said already.
    fn wants(&self, event: &Event) -> bool {
        if self
            .snapshotted
            .get(&event.session)
            .is_some_and(|version| event.version <= *version)
        {
            return false;
        }
        let kind = match event.what {
            Happening::Warning { .. } => self.subscriber.warnings,
            Happening::Cleared { .. } => self.subscriber.cleared,
            Happening::Ended(_) => self.subscriber.ends,
            // A watch of a tenant or of everything sees the successor by its own events.
            Happening::Succeeded { .. } => {
                matches!(self.subscriber.scope, Scope::Sessions(..) | Scope::Subject(..))
            }
            _ => false,
        };
        kind && self.subscriber.covers(event)
    }

    /// Goes on with the session that takes the place of a watched one.
    fn follow(&mut self, event: &Event) {
        if let Happening::Ended(tombstone) = &event.what
            && self.subscriber.covers(event)
            && let Scope::Sessions(_, names) = &mut self.subscriber.scope
        {
            self.followed.remove(&event.session);
            if let Some(succession) = tombstone.successor {
                names.entry(succession.reference).or_insert(None);
                self.followed.insert(succession.reference);
            }
        }
    }

    fn message(&self, content: WatchContent) -> WatchMessage {
        let initial = self.cursor < self.initial_through;
        let followed = self.followed.iter().copied();
        WatchMessage {
            content,
            resume_token: self
                .sessions
                .keyring
                .tokens()
                .issue(&self.places, initial, followed, &self.binding),
            at: self.sessions.clock.now(),
        }
    }
}

impl Scope {
    /// The tenants whose sessions it can hold, of the caller's.
    fn tenants<'a>(&'a self, callers: &'a [Arc<str>]) -> &'a [Arc<str>] {
        match self {
            Self::Sessions(tenant, _) | Self::Subject(tenant, _) | Self::Tenant(tenant) => std::slice::from_ref(tenant),
            Self::Everything => callers,
        }
    }
}

impl Subscriber {
    fn routes(&self) -> Vec<Route> {
        match &self.scope {
            Scope::Sessions(_, names) => names.keys().map(|name| Route::Session(*name)).collect(),
            Scope::Subject(tenant, subject) => vec![Route::Subject(Arc::clone(tenant), subject.as_str().into())],
            Scope::Tenant(tenant) => vec![Route::Tenant(Arc::clone(tenant))],
            Scope::Everything => self.tenants.iter().cloned().map(Route::Tenant).collect(),
        }
    }

    fn covers(&self, event: &Event) -> bool {
        let tenants = self.scope.tenants(&self.tenants);
        let right_tenant = tenants.iter().any(|tenant| **tenant == *event.identity.tenant());
        (right_tenant || sabotage::on(Fault::EventCrossesTenant))
            && match &self.scope {
                Scope::Sessions(_, names) => names.contains_key(&event.session),
                Scope::Subject(_, subject) => event.identity.subject() == subject,
                Scope::Tenant(_) | Scope::Everything => true,
            }
    }

    /// What its tokens are bound to under a key: the scope and all tenants of the caller, in one order.
    fn binding(&self, keys: &Keys) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&text.len().to_le_bytes()).update(text.as_bytes());
        };
        let mut tenants: Vec<&str> = self.tenants.iter().map(AsRef::as_ref).collect();
        tenants.sort_unstable();
        tenants.into_iter().for_each(&mut add);
        match &self.scope {
            Scope::Sessions(tenant, names) => {
                add("sessions");
                add(tenant);
                let refs = names.iter().map(|(name, id)| match id {
                    Some(id) => keys.session_ref(tenant, id),
                    None => *name,
                });
                let refs: BTreeSet<_> = refs.collect();
                refs.iter().for_each(|name| add(&name.to_string()));
            }
            Scope::Subject(tenant, subject) => {
                add("subject");
                add(tenant);
                add(subject);
            }
            Scope::Tenant(tenant) => {
                add("tenant");
                add(tenant);
            }
            Scope::Everything => add("everything"),
        }
        *hasher.finalize().as_bytes()
    }
}
