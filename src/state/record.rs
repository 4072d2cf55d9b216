//! A session's record: what is fixed, and what only the state machine changes.

use std::{sync::Arc, time::Duration};

use super::{
    end::Tombstone,
    hold::{Hold, HoldKind, PresenceEnd},
    identity::Identity,
    policy::Limits,
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

/// When a question is asked or a command given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The time.
    pub now: Time,
    /// Until when idle ends are held because the sidecar could not be reached for a while (G14). In the past: they are not.
    pub held_until: Time,
    /// How far past its deadline a session may be held at most.
    pub held_for: Duration,
}

impl Moment {
    /// A moment at which nothing is held.
    #[must_use]
    pub fn at(now: Time) -> Self {
        Self {
            now,
            held_until: Time::ZERO,
            held_for: Duration::MAX,
        }
    }

    /// A deadline while expiries are held.
    pub(super) fn held(self, at: Time) -> Time {
        at.max(self.held_until.min(at + self.held_for))
    }

    pub(super) fn holds(self) -> bool {
        self.now < self.held_until
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
    /// Which idle warning points have fired for the deadline as it stands.
    pub idle_fired: Fired,
    /// Which absolute warning points have fired.
    pub absolute_fired: Fired,
    /// What few sessions have.
    pub extra: Option<Arc<Extra>>,
}

/// Which warning points have fired, the longest leads first, and whether a warning stands. A warning of a lead that the policy
/// has no more stands without any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fired(u8);

impl Fired {
    const STANDS: u8 = 0x80;

    /// These, as a byte to be kept.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        self.0
    }

    /// Those in a byte that was kept.
    #[must_use]
    pub fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// None, and no warning stands.
    pub const NONE: Self = Self(0);

    /// A warning stands, and so many points have fired.
    pub(super) fn of(points: usize) -> Self {
        let points = u8::try_from(points).unwrap_or(u8::MAX).min(Self::STANDS - 1);
        Self(Self::STANDS | points)
    }

    /// How many have fired.
    #[must_use]
    pub fn points(self) -> usize {
        usize::from(self.0 & !Self::STANDS)
    }

    /// Whether a warning stands.
    #[must_use]
    pub fn stands(self) -> bool {
        self.0 & Self::STANDS != 0
    }
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
    /// The smallest leads that were told under older revisions, idle and absolute, while their warnings stand.
    pub told_before: [Option<Duration>; 2],
    /// The limit that would have ended the session, and when, if its policy were enforced.
    pub unenforced: Option<(Limit, Time)>,
    /// The last requests and what they were answered.
    pub requests: Vec<Remembered>,
    /// The end, once it is decided.
    pub end: Option<Arc<Tombstone>>,
}

impl Rest {
    /// The rest of a session on whose deadline only the pulse has a say.
    pub const PLAIN: Self = Self {
        extensions: 0,
        idle_fired: Fired::NONE,
        absolute_fired: Fired::NONE,
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

    /// Whether of all this only open pages, now or before, have a say in the deadlines: then activity changes nothing but the pulse.
    pub(super) fn only_pages_have_a_say(&self) -> bool {
        let extra = self.extra.as_ref().is_none_or(|extra| {
            extra.extended_until.is_none()
                && extra.holds.iter().all(|hold| hold.kind == HoldKind::Presence)
                && extra.work_ended.is_none()
                && extra.budget_from.is_none()
                && extra.unenforced.is_none()
        });
        extra && self.extensions == 0
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
    pub fn recall(&self, asked: Asked, now: Time) -> Option<Recalled> {
        let remembered =
            |known: &&Remembered| known.outcome == Outcome::Created || now.since(known.at) <= REQUEST_MEMORY;
        let mut requests = self.extra.as_ref()?.requests.iter().filter(remembered);
        requests.find_map(|known| {
            Some(match asked.repeats(known.request)? {
                true => Recalled::Same(known.outcome),
                false => Recalled::OtherContent,
            })
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

/// A request as it comes: as it is remembered from now on and, where another key is accepted beside ours, as those may have
/// remembered it whose key that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// Under our key.
    pub request: RequestId,
    /// Under the other one.
    pub other: Option<RequestId>,
}

impl Asked {
    /// Whether it says the same as a remembered request of its id; `None` if that has another id.
    #[must_use]
    pub fn repeats(&self, known: RequestId) -> Option<bool> {
        let mut forms = [Some(self.request), self.other].into_iter().flatten();
        forms
            .find(|form| form.key == known.key)
            .map(|form| form.content == known.content)
    }
}

impl From<RequestId> for Asked {
    fn from(request: RequestId) -> Self {
        Self { request, other: None }
    }
}

/// A request that is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remembered {
    /// The request.
    pub request: RequestId,
    /// When it came.
    pub at: Time,
    /// What it was answered.
    pub outcome: Outcome,
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
