//! A session's record, and the one formula of its deadlines.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use super::{policy::Limits, pulse::Pulse};
use crate::time::Time;

/// The limit that sets an expire time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Inactivity.
    Idle,
    /// Time since authentication.
    Absolute,
}

/// Why a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// No counted activity for the idle timeout.
    IdleTimeout,
    /// The absolute timeout passed.
    AbsoluteTimeout,
    /// The person logged out.
    Logout,
    /// Somebody or something ended it for them.
    Revoked,
}

/// Who ended a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The person whose session it was.
    User,
    /// Another person.
    Admin,
    /// A limit of the policy.
    Policy,
    /// A program.
    System,
}

/// What withdrew a warning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A counted touch.
    Touched,
    /// An Extend.
    Extended,
}

/// When a question is asked or a command given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The time.
    pub now: Time,
    /// Until when idle ends are held because the sidecar could not be reached for a while (G14). In the past: they are not.
    pub held_until: Time,
}

impl Moment {
    /// A moment at which nothing is held.
    #[must_use]
    pub fn at(now: Time) -> Self {
        Self {
            now,
            held_until: Time::ZERO,
        }
    }

    fn holds(self) -> bool {
        self.now < self.held_until
    }
}

/// Who and what a session is for: carried by its events. Most sessions of a single-tenant site without subjects have nothing
/// to say here, and pay one word for it.
#[derive(Debug, Clone, Default)]
pub struct Identity(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    tenant: Arc<str>,
    subject: Box<str>,
    #[expect(
        clippy::box_collection,
        reason = "most have none, and a million of them pay for the empty map"
    )]
    labels: Option<Box<BTreeMap<String, String>>>,
}

impl Identity {
    /// An identity; an empty subject is none.
    #[must_use]
    pub fn new(tenant: Arc<str>, subject: &str, labels: BTreeMap<String, String>) -> Self {
        if tenant.is_empty() && subject.is_empty() && labels.is_empty() {
            return Self::default();
        }
        Self(Some(Arc::new(Known {
            tenant,
            subject: subject.into(),
            labels: (!labels.is_empty()).then(|| Box::new(labels)),
        })))
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        self.0.as_ref().map_or("", |known| &known.tenant)
    }

    /// The subject, or empty.
    #[must_use]
    pub fn subject(&self) -> &str {
        self.0.as_ref().map_or("", |known| &known.subject)
    }

    /// The caller's labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.0.as_ref().and_then(|known| known.labels.as_deref());
        labels.cloned().unwrap_or_default()
    }
}

/// What Create fixed for the whole life of a session.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The limits in force.
    pub limits: Arc<Limits>,
    /// Who and what it is for.
    pub identity: Identity,
    /// When the sidecar came to know it.
    pub created: Time,
    /// When the person authenticated.
    pub authenticated: Time,
}

impl Origin {
    /// The absolute deadline.
    #[must_use]
    pub fn absolute_deadline(&self) -> Time {
        self.authenticated + self.limits.absolute_timeout
    }
}

/// The part of a record that only the state machine changes.
#[derive(Debug, Clone)]
pub struct Rest {
    /// Up to when Extends moved the idle deadline; the beginning of time if they did not.
    pub extended_until: Time,
    /// Extends in a row since the last counted touch.
    pub extensions: u32,
    /// How many idle warning points have fired for the deadline as it stands.
    pub idle_fired: u8,
    /// How many absolute warning points have fired.
    pub absolute_fired: u8,
    /// What few sessions have.
    pub extra: Option<Arc<Extra>>,
}

impl Rest {
    /// The rest of a session on whose deadline only the pulse has a say.
    pub const PLAIN: Self = Self {
        extended_until: Time::ZERO,
        extensions: 0,
        idle_fired: 0,
        absolute_fired: 0,
        extra: None,
    };

    /// The end, once it is decided.
    #[must_use]
    pub fn end(&self) -> Option<&Arc<Tombstone>> {
        self.extra.as_ref().and_then(|extra| extra.end.as_ref())
    }

    /// Remembers a request and its outcome: the last eight, and Create's for ever.
    pub(super) fn remember(&mut self, request: RequestId, at: Time, outcome: Outcome) {
        const REMEMBERED: usize = 8;
        let mut extra = self.extra.take().map_or_else(Extra::default, Arc::unwrap_or_clone);
        if extra.requests.len() >= REMEMBERED {
            let oldest = extra
                .requests
                .iter()
                .position(|known| known.outcome != Outcome::Created)
                .unwrap_or(0);
            extra.requests.remove(oldest);
        }
        extra.requests.push(Remembered { request, at, outcome });
        self.extra = Some(Arc::new(extra));
    }

    /// What was answered to a request before, if it is remembered.
    #[must_use]
    pub fn recall(&self, request: RequestId, now: Time) -> Option<Recalled> {
        let remembered = self.extra.as_ref()?.requests.iter().find(|known| {
            known.request.key == request.key
                && (known.outcome == Outcome::Created || now.since(known.at) <= REQUEST_MEMORY)
        })?;
        Some(if remembered.request.content == request.content {
            Recalled::Same(remembered.outcome)
        } else {
            Recalled::OtherContent
        })
    }

    pub(super) fn bury(&mut self, tombstone: Arc<Tombstone>) {
        let mut extra = self.extra.take().map_or_else(Extra::default, Arc::unwrap_or_clone);
        extra.end = Some(tombstone);
        self.extra = Some(Arc::new(extra));
    }
}

/// How long the outcome of a request is remembered, if it is among the last eight.
const REQUEST_MEMORY: Duration = Duration::from_secs(600);

/// What few sessions have.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    requests: Vec<Remembered>,
    end: Option<Arc<Tombstone>>,
}

/// A caller's request id, hashed, and a hash of all else that the request says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// Hash of the request id.
    pub key: u64,
    /// Hash of the content.
    pub content: u64,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    request: RequestId,
    at: Time,
    outcome: Outcome,
}

/// What a remembered request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It created this session.
    Created,
    /// It extended it.
    Extended {
        /// How far the expire time moved.
        granted: Duration,
        /// Whether the absolute deadline cut it short.
        clamped: bool,
    },
}

/// What is known of a request id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recalled {
    /// The same request came before and got this outcome.
    Same(Outcome),
    /// A different request came with this id.
    OtherContent,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// Who.
    pub actor: Actor,
    /// Which user or program exactly, or empty.
    pub actor_id: Box<str>,
    /// For later readers, or empty.
    pub note: Box<str>,
    /// When: for a timeout the deadline itself.
    pub at: Time,
}

/// What stays of an ended session.
#[derive(Debug, Clone)]
pub struct Tombstone {
    /// What Create fixed.
    pub origin: Origin,
    /// The latest counted activity.
    pub last_activity: Time,
    /// The idle deadline at the end.
    pub idle_deadline: Time,
    /// Extends in a row at the end.
    pub extensions: u32,
    /// The last version.
    pub version: u32,
    /// The end.
    pub end: End,
    /// Until when it is remembered.
    pub forget_at: Time,
}

/// What happened to a session: what watchers are told.
#[derive(Debug, Clone)]
pub enum Happening {
    /// It will end soon.
    Warning {
        /// The limit whose deadline is near.
        limit: Limit,
        /// The lead that was reached.
        point: Duration,
        /// The deadline.
        expire: Time,
        /// Whether an Extend would help.
        can_extend: bool,
    },
    /// The warnings of a limit are withdrawn.
    Cleared {
        /// The limit.
        limit: Limit,
        /// What moved its deadline.
        cause: Cause,
        /// When it ends now.
        expire: Time,
    },
    /// It ended.
    Ended(Arc<Tombstone>),
}

/// Both deadlines of a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// `max(last activity + idle_timeout, extended_until)`, or the end of a hold on idle ends.
    pub idle: Time,
    /// Authentication + absolute_timeout.
    pub absolute: Time,
}

impl Deadlines {
    /// The one formula: the nearer deadline. On a tie the absolute one.
    #[must_use]
    pub fn expire(self) -> (Time, Limit) {
        if self.idle < self.absolute {
            (self.idle, Limit::Idle)
        } else {
            (self.absolute, Limit::Absolute)
        }
    }
}

/// A live session's record, to be read.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What Create fixed.
    pub origin: &'a Origin,
    /// The pulse.
    pub pulse: Pulse,
    /// The rest.
    pub rest: &'a Rest,
    /// Grows with every change except last activity alone.
    pub version: u32,
}

impl View<'_> {
    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.origin.limits
    }

    /// The deadlines without regard to a hold on idle ends.
    #[must_use]
    pub fn plain_deadlines(&self) -> Deadlines {
        let idle = self.pulse.last_activity() + self.limits().idle_timeout;
        Deadlines {
            idle: idle.max(self.rest.extended_until),
            absolute: self.origin.absolute_deadline(),
        }
    }

    /// The deadlines in force at a moment: while idle ends are held, an idle deadline is not before the end of the hold.
    #[must_use]
    pub fn deadlines(&self, moment: Moment) -> Deadlines {
        let plain = self.plain_deadlines();
        if moment.holds() {
            return Deadlines {
                idle: plain.idle.max(moment.held_until),
                ..plain
            };
        }
        plain
    }

    /// Whether an Extend would be accepted and could still move the expire time.
    #[must_use]
    pub fn can_extend(&self, moment: Moment) -> bool {
        let (_, limit) = self.deadlines(moment).expire();
        let left = self
            .limits()
            .max_extensions
            .is_none_or(|max| self.rest.extensions < max);
        limit == Limit::Idle && left
    }

    /// When the next warning is due if nothing else happens. It may be due already.
    #[must_use]
    pub fn next_warning(&self, moment: Moment) -> Option<Time> {
        let deadlines = self.deadlines(moment);
        let limits = self.limits();
        let idle = limits.idle_points.get(usize::from(self.rest.idle_fired));
        let idle = idle.filter(|_| deadlines.idle < deadlines.absolute);
        let absolute = limits.absolute_points.get(usize::from(self.rest.absolute_fired));
        let idle = idle.map(|lead| deadlines.idle - *lead);
        let absolute = absolute.map(|lead| deadlines.absolute - *lead);
        let expire = deadlines.expire().0;
        let next = match (idle, absolute) {
            (Some(idle), Some(absolute)) => Some(idle.min(absolute)),
            (idle, absolute) => idle.or(absolute),
        };
        next.filter(|at| *at < expire)
    }

    /// When somebody must look at this session again if nothing else happens.
    #[must_use]
    pub fn next_action(&self, moment: Moment) -> Time {
        let expire = self.deadlines(moment).expire().0;
        self.next_warning(moment).map_or(expire, |warning| warning.min(expire))
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("pulse", &self.pulse)
            .field("version", &self.version)
            .field("deadlines", &self.plain_deadlines())
            .finish_non_exhaustive()
    }
}
