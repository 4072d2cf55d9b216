//! A session's record, and the one formula of its deadlines.

use crate::sabotage::{self, Fault};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use super::{
    hold::{Hold, HoldKind, PresenceEnd},
    name::SessionRef,
    policy::Limits,
    pulse::Pulse,
};
use crate::time::Time;

/// The limit that sets an expire time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Inactivity.
    Idle,
    /// Time since authentication.
    Absolute,
    /// The browser is gone.
    Presence,
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
    /// The last page was left or lost, and the grace passed.
    BrowserClosed,
    /// A newer session of the same subject took its place.
    Superseded,
    /// It goes on under another name.
    Rotated,
}

impl From<Limit> for EndReason {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Idle => Self::IdleTimeout,
            Limit::Absolute => Self::AbsoluteTimeout,
            Limit::Presence => Self::BrowserClosed,
        }
    }
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
    /// A hold.
    Held,
    /// The release of a hold moved the deadline nearer.
    Released,
    /// The session goes on under another name.
    Rotated,
    /// A newer revision of the policy moved the absolute deadline.
    PolicyChanged,
    /// The deadline passed, and the policy only observes.
    NotEnforced,
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

    pub(super) fn holds(self) -> bool {
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
    authentication_level: Box<str>,
    predecessor: Option<SessionRef>,
    #[expect(
        clippy::box_collection,
        reason = "most have none, and a million of them pay for the empty map"
    )]
    labels: Option<Box<BTreeMap<String, String>>>,
}

impl Identity {
    /// An identity; an empty subject or level is none.
    #[must_use]
    pub fn new(
        tenant: Arc<str>,
        subject: &str,
        authentication_level: &str,
        labels: BTreeMap<String, String>,
        predecessor: Option<SessionRef>,
    ) -> Self {
        let nothing = subject.is_empty() && authentication_level.is_empty() && predecessor.is_none();
        if tenant.is_empty() && labels.is_empty() && nothing {
            return Self::default();
        }
        Self(Some(Arc::new(Known {
            tenant,
            subject: subject.into(),
            authentication_level: authentication_level.into(),
            predecessor,
            labels: (!labels.is_empty()).then(|| Box::new(labels)),
        })))
    }

    /// The identity of the session in whose place it goes on as `predecessor`'s successor.
    #[must_use]
    pub fn succeeding(&self, predecessor: SessionRef, subject: Option<&str>, level: Option<&str>) -> Self {
        let tenant = self
            .0
            .as_ref()
            .map_or_else(|| "".into(), |known| Arc::clone(&known.tenant));
        Self::new(
            tenant,
            subject.unwrap_or(self.subject()),
            level.unwrap_or(self.authentication_level()),
            self.labels(),
            Some(predecessor),
        )
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

    /// How strong the authentication was, in the caller's word, or empty.
    #[must_use]
    pub fn authentication_level(&self) -> &str {
        self.0.as_ref().map_or("", |known| &known.authentication_level)
    }

    /// The session in whose place it goes on.
    #[must_use]
    pub fn predecessor(&self) -> Option<SessionRef> {
        self.0.as_ref().and_then(|known| known.predecessor)
    }

    /// Whether it carries these labels, with these values.
    #[must_use]
    pub fn carries(&self, wanted: &BTreeMap<String, String>) -> bool {
        let labels = self.0.as_ref().and_then(|known| known.labels.as_deref());
        let has = |(key, value): (&String, &String)| labels.is_some_and(|labels| labels.get(key) == Some(value));
        wanted.iter().all(has)
    }

    /// The caller's labels.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        let labels = self.0.as_ref().and_then(|known| known.labels.as_deref());
        labels.cloned().unwrap_or_default()
    }
}

/// What is fixed for the whole life of a session.
///
/// In this order, because a touch needs the first only: see `store::Session`.
#[derive(Debug, Clone)]
#[repr(C)]
pub struct Origin {
    /// When the person authenticated.
    pub authenticated: Time,
    /// When the sidecar came to know it.
    pub created: Time,
    /// Who and what it is for.
    pub identity: Identity,
}

impl Origin {
    /// The absolute deadline under these limits.
    #[must_use]
    pub fn absolute_deadline(&self, limits: &Limits) -> Time {
        self.authenticated + limits.absolute_timeout
    }
}

/// The part of a record that only the state machine changes.
#[derive(Debug, Clone)]
pub struct Rest {
    /// Extends in a row since the last counted touch.
    pub extensions: u32,
    /// How many idle warning points have fired for the deadline as it stands.
    pub idle_fired: u8,
    /// How many absolute warning points have fired.
    pub absolute_fired: u8,
    /// What few sessions have.
    pub extra: Option<Arc<Extra>>,
}

/// What few sessions have.
#[derive(Debug, Clone, Default)]
pub struct Extra {
    /// Up to when Extends moved the idle deadline, if that has a say.
    pub extended_until: Option<Time>,
    /// Live holds, and lapsed ones that nobody has noticed yet.
    pub holds: Vec<Hold>,
    /// The latest end of a WORK hold that is over.
    pub work_ended: Option<Time>,
    /// The first WORK hold since the last surely human activity: the budget counts from here.
    pub budget_from: Option<Time>,
    /// The latest end of a PRESENCE hold that is over.
    pub presence_ended: Option<PresenceEnd>,
    /// Whether the session's browser reports input itself.
    pub reports_input: bool,
    /// The limit that would have ended the session, and when, if its policy were enforced.
    pub unenforced: Option<(Limit, Time)>,
    requests: Vec<Remembered>,
    end: Option<Arc<Tombstone>>,
}

impl Rest {
    /// The rest of a session on whose deadline only the pulse has a say.
    pub const PLAIN: Self = Self {
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

    /// Up to when Extends moved the idle deadline; the beginning of time if they did not.
    #[must_use]
    pub fn extended_until(&self) -> Time {
        let extended = self.extra.as_ref().and_then(|extra| extra.extended_until);
        extended.unwrap_or(Time::ZERO)
    }

    /// The holds that live at a moment.
    pub fn live_holds(&self, now: Time) -> impl Iterator<Item = &Hold> {
        self.holds().iter().filter(move |hold| hold.until > now)
    }

    /// Whether the session's browser reports input itself.
    #[must_use]
    pub fn reports_input(&self) -> bool {
        self.extra.as_ref().is_some_and(|extra| extra.reports_input)
    }

    /// The limit that would have ended the session, and when, if its policy were enforced.
    #[must_use]
    pub fn unenforced(&self) -> Option<(Limit, Time)> {
        self.extra.as_ref().and_then(|extra| extra.unenforced)
    }

    /// Up to where WORK reaches: the latest end of a WORK hold, past or to come.
    #[must_use]
    pub fn work_reaches(&self) -> Option<Time> {
        let live = self.holds().iter().filter(|hold| hold.kind == HoldKind::Work);
        let ended = self.extra.as_ref().and_then(|extra| extra.work_ended);
        live.map(|hold| hold.until).chain(ended).max()
    }

    /// The latest end of a PRESENCE hold, past or to come.
    #[must_use]
    pub fn presence_ends(&self) -> Option<PresenceEnd> {
        let lapse = |hold: &Hold| PresenceEnd {
            at: hold.until,
            released: false,
        };
        let live = self.holds().iter().filter(|hold| hold.kind == HoldKind::Presence);
        let ended = self.extra.as_ref().and_then(|extra| extra.presence_ended);
        ended.into_iter().chain(live.map(lapse)).max_by_key(|end| end.at)
    }

    /// Whether this has a say in the deadlines, beside the pulse.
    pub(super) fn has_a_say(&self) -> bool {
        let extra = self.extra.as_ref().is_some_and(|extra| {
            extra.extended_until.is_some()
                || !extra.holds.is_empty()
                || extra.work_ended.is_some()
                || extra.budget_from.is_some()
                || extra.presence_ended.is_some()
                || extra.unenforced.is_some()
        });
        extra || self.extensions > 0
    }

    /// What few sessions have, to be changed.
    pub(super) fn extra_mut(&mut self) -> &mut Extra {
        Arc::make_mut(self.extra.get_or_insert_default())
    }

    fn holds(&self) -> &[Hold] {
        self.extra.as_ref().map_or(&[], |extra| &extra.holds)
    }

    /// Remembers a request and its outcome: the last eight, and Create's for ever.
    pub(super) fn remember(&mut self, request: RequestId, at: Time, outcome: Outcome) {
        const REMEMBERED: usize = 8;
        let requests = &mut self.extra_mut().requests;
        if requests.len() >= REMEMBERED {
            let oldest = requests.iter().position(|known| known.outcome != Outcome::Created);
            requests.remove(oldest.unwrap_or(0));
        }
        requests.push(Remembered { request, at, outcome });
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
        self.extra_mut().end = Some(tombstone);
    }
}

/// How long the outcome of a request is remembered, if it is among the last eight.
const REQUEST_MEMORY: Duration = Duration::from_secs(600);

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
    /// It rotated the session into this one.
    Rotated,
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
#[derive(Debug)]
pub struct Tombstone {
    /// What was fixed.
    pub origin: Origin,
    /// The limits that were in force.
    pub limits: Arc<Limits>,
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
    /// The session that goes on in its place.
    pub successor: Option<Succession>,
    /// The request that ended it.
    pub request: Option<RequestId>,
    /// Whether nobody is told, and nothing is remembered: a session of a policy that only observes is over when nobody has
    /// used it for long.
    pub silent: bool,
    /// To how many watchers the end was sent.
    pub told: AtomicU32,
}

/// What a rotated session goes on as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Succession {
    /// The session that goes on.
    pub reference: SessionRef,
    /// Until when the old id stands for it.
    pub alias_until: Time,
    /// Whether the person authenticated anew.
    pub reauthenticated: bool,
}

/// What happened to a session. Watchers are told of some of it, see [`Happening::is_public`]; its history keeps nearly all.
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
    /// It goes on in the place of another one: the snapshot for those who watched that.
    Succeeded {
        /// The other one.
        predecessor: SessionRef,
        /// The session as it begins.
        record: Arc<Record>,
    },
    /// It ended.
    Ended(Arc<Tombstone>),
    /// An Extend was granted.
    Extended {
        /// How far the expire time moved.
        granted: Duration,
        /// Whether the absolute deadline cut it short.
        clamped: bool,
    },
    /// A touch ended a row of Extends.
    ExtensionsReset,
    /// A hold began.
    HoldStarted(Hold),
    /// A hold was renewed.
    HoldRenewed,
    /// A hold is over.
    HoldEnded {
        /// The hold.
        hold: Hold,
        /// When.
        at: Time,
        /// Whether its owner released it; else it lapsed.
        released: bool,
    },
    /// A newer revision of the policy reached it.
    PolicyAdopted {
        /// The revision.
        revision: u64,
    },
    /// Its browser reported input itself for the first time.
    InputReported,
    /// Time would have ended it, if its policy were enforced.
    UnenforcedEnd {
        /// The limit.
        limit: Limit,
        /// The deadline.
        at: Time,
    },
}

impl Happening {
    /// Whether watchers are told.
    #[must_use]
    pub fn is_public(&self) -> bool {
        match self {
            Self::Warning { .. } | Self::Cleared { .. } | Self::Succeeded { .. } => true,
            Self::Ended(tombstone) => !tombstone.silent,
            _ => false,
        }
    }

    /// Whether it is worth a line in the session's history.
    #[must_use]
    pub fn is_history(&self) -> bool {
        !matches!(
            self,
            Self::ExtensionsReset | Self::HoldRenewed | Self::InputReported | Self::Ended(_)
        )
    }
}

/// A session's record, as a value.
#[derive(Debug, Clone)]
pub struct Record {
    /// What is fixed.
    pub origin: Origin,
    /// The limits in force.
    pub limits: Arc<Limits>,
    /// The pulse.
    pub pulse: Pulse,
    /// The rest.
    pub rest: Rest,
    /// Grows with every change except last activity alone.
    pub version: u32,
}

impl Record {
    /// This record, to be read.
    #[must_use]
    pub fn view(&self) -> View<'_> {
        View {
            origin: &self.origin,
            limits: &self.limits,
            pulse: self.pulse,
            rest: &self.rest,
            version: self.version,
        }
    }
}

/// The deadlines of a live session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// `max(max(last activity, furthest WORK end) + idle_timeout, extended_until)`, or the end of a hold on expiries.
    pub idle: Time,
    /// Authentication + absolute_timeout.
    pub absolute: Time,
    /// When the session ends because its browser is gone, if it is.
    pub presence: Option<Time>,
}

impl Deadlines {
    /// The one formula: the nearest deadline. On a tie the absolute one, and any other rather than presence.
    #[must_use]
    pub fn expire(self) -> (Time, Limit) {
        let (nearest, limit) = if self.idle < self.absolute {
            (self.idle, Limit::Idle)
        } else {
            (self.absolute, Limit::Absolute)
        };
        match self.presence {
            Some(presence) if presence < nearest => (presence, Limit::Presence),
            _ => (nearest, limit),
        }
    }

    /// Whether inactivity is the nearest limit: idle points fire only then.
    #[must_use]
    pub fn idle_is_nearest(self) -> bool {
        self.expire().1 == Limit::Idle
    }
}

/// A live session's record, to be read.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// What is fixed.
    pub origin: &'a Origin,
    /// The limits in force.
    pub limits: &'a Arc<Limits>,
    /// The pulse.
    pub pulse: Pulse,
    /// The rest.
    pub rest: &'a Rest,
    /// Grows with every change except last activity alone.
    pub version: u32,
}

impl View<'_> {
    /// This record as a value.
    #[must_use]
    pub fn record(&self) -> Record {
        Record {
            origin: self.origin.clone(),
            limits: Arc::clone(self.limits),
            pulse: self.pulse,
            rest: self.rest.clone(),
            version: self.version,
        }
    }

    /// The deadlines, each as it will be if nothing else happens: live holds lapse at their time. No hold on expiries.
    #[must_use]
    pub fn plain_deadlines(&self) -> Deadlines {
        let activity = self.pulse.last_activity();
        let work = self.rest.work_reaches();
        let idle = work.map_or(activity, |reach| reach.max(activity)) + self.limits.idle_timeout;
        Deadlines {
            idle: idle.max(self.rest.extended_until()),
            absolute: self.absolute_deadline(),
            presence: self.presence_deadline(activity, work),
        }
    }

    fn absolute_deadline(&self) -> Time {
        let absolute = self.origin.absolute_deadline(self.limits);
        if sabotage::on(Fault::ExtendPastAbsolute) {
            absolute.max(self.rest.extended_until())
        } else {
            absolute
        }
    }

    /// The later of the last PRESENCE end and the last counted activity, plus the grace; not before WORK is over.
    fn presence_deadline(&self, activity: Time, work: Option<Time>) -> Option<Time> {
        let limits = self.limits.presence.as_ref()?;
        let end = self.rest.presence_ends()?;
        let grace = if end.released {
            limits.leave_grace
        } else {
            limits.lost_grace
        };
        let activity = if sabotage::on(Fault::PresenceIgnoresTouch) {
            end.at
        } else {
            activity
        };
        let deadline = end.at.max(activity) + grace;
        Some(work.map_or(deadline, |reach| reach.max(deadline)))
    }

    /// The deadlines in force at a moment: there is no presence deadline while a hold lives, and while expiries are held (G14)
    /// an idle or presence deadline is not before the end of that.
    #[must_use]
    pub fn deadlines(&self, moment: Moment) -> Deadlines {
        let mut deadlines = self.plain_deadlines();
        if deadlines.presence.is_some() && self.rest.live_holds(moment.now).next().is_some() {
            deadlines.presence = None;
        }
        if moment.holds() {
            deadlines.idle = deadlines.idle.max(moment.held_until);
            deadlines.presence = deadlines.presence.map(|at| at.max(moment.held_until));
        }
        deadlines
    }

    /// Whether an Extend would be accepted and could still move the expire time.
    #[must_use]
    pub fn can_extend(&self, moment: Moment) -> bool {
        let (_, limit) = self.deadlines(moment).expire();
        let left = self.limits.max_extensions.is_none_or(|max| self.rest.extensions < max);
        limit != Limit::Absolute && (left || !self.limits.enforced)
    }

    /// When the next warning is due if nothing else happens. It may be due already.
    #[must_use]
    pub fn next_warning(&self, moment: Moment) -> Option<Time> {
        if self.rest.unenforced().is_some() {
            return None;
        }
        let deadlines = self.deadlines(moment);
        let limits = self.limits;
        let idle = limits.idle_points.get(usize::from(self.rest.idle_fired));
        let idle = idle.filter(|_| deadlines.idle_is_nearest());
        let absolute = limits.absolute_points.get(usize::from(self.rest.absolute_fired));
        let idle = idle.map(|lead| deadlines.idle - *lead);
        let absolute = absolute.map(|lead| deadlines.absolute - *lead);
        let expire = deadlines.expire().0;
        idle.into_iter().chain(absolute).min().filter(|at| *at < expire)
    }

    /// When somebody must look at this session again if nothing else happens.
    #[must_use]
    pub fn next_action(&self, moment: Moment) -> Time {
        if self.rest.unenforced().is_some() {
            return self.forgotten_at();
        }
        // A hold that lapses brings a presence deadline; while expiries are held it is not before the end of that.
        let lapse = self.plain_deadlines().presence.filter(|at| *at > moment.now);
        let expire = self.deadlines(moment).expire().0;
        self.next_warning(moment)
            .into_iter()
            .chain(lapse)
            .fold(expire, Time::min)
    }

    /// When a session that time has ended for a policy that only observes is forgotten.
    pub(super) fn forgotten_at(&self) -> Time {
        let over = self.rest.unenforced().map_or(Time::ZERO, |(_, at)| at);
        let used = self
            .pulse
            .last_activity()
            .max(self.plain_deadlines().idle - self.limits.idle_timeout);
        over.max(used) + self.limits.tombstone_ttl
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
