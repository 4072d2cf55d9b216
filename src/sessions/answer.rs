//! What callers are answered.

use std::{sync::Arc, time::Duration};

use crate::{
    state::{Clamp, Hold, Limit, Limits, Moment, Origin, Refusal, RuleName, SessionRef, Tombstone, View},
    time::Time,
};

/// What a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Live, and no warning stands.
    Active,
    /// Live, and a warning stands.
    Expiring,
    /// Ended and remembered.
    Ended,
    /// Never existed, or is forgotten.
    Unknown,
}

/// The compact answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// The session's name.
    pub reference: SessionRef,
    /// What it is.
    pub state: State,
    /// When it ends if nothing else happens, or ended.
    pub expire: Option<Time>,
    /// When this was asked.
    pub now: Time,
    /// The limit that sets `expire`, if it is live.
    pub limit: Option<Limit>,
    /// When the next warning is due.
    pub next_warning: Option<Time>,
    /// Whether an Extend would be accepted and could move `expire`.
    pub can_extend: bool,
    /// Grows with every change except last activity alone.
    pub version: u32,
    /// Whether it may have ended, if it is unknown.
    pub may_have_ended: bool,
    /// Whether it was named by its former id.
    pub alias: bool,
    /// Whether it is for reading only.
    pub read_only: bool,
    /// Whether its policy only observes.
    pub observed_only: bool,
    /// Whether it is only what was known here when the shared store went away.
    pub local: bool,
}

impl Status {
    /// The status of a live session.
    #[must_use]
    pub fn live(reference: SessionRef, view: &View<'_>, moment: Moment) -> Self {
        let outlook = view.outlook(moment);
        Self {
            reference,
            state: if view.pulse.is_warned() || outlook.about_to_end {
                State::Expiring
            } else {
                State::Active
            },
            expire: Some(outlook.expire),
            now: moment.now,
            limit: Some(outlook.limit),
            next_warning: outlook.next_warning,
            can_extend: outlook.can_extend,
            version: view.version,
            may_have_ended: false,
            alias: false,
            read_only: view.limits.passive,
            observed_only: !view.limits.enforced,
            local: false,
        }
    }

    /// The status of an ended session.
    #[must_use]
    pub fn ended(reference: SessionRef, tombstone: &Tombstone, now: Time) -> Self {
        Self {
            state: State::Ended,
            expire: Some(tombstone.end.at),
            version: tombstone.version,
            ..Self::unknown(reference, false, now)
        }
    }

    /// The status of an unknown session.
    #[must_use]
    pub fn unknown(reference: SessionRef, may_have_ended: bool, now: Time) -> Self {
        Self {
            reference,
            state: State::Unknown,
            expire: None,
            now,
            limit: None,
            next_warning: None,
            can_extend: false,
            version: 0,
            may_have_ended,
            alias: false,
            read_only: false,
            observed_only: false,
            local: false,
        }
    }
}

/// The full answer.
#[derive(Debug, Clone)]
pub struct Report {
    /// The compact part.
    pub status: Status,
    /// The rest, if the session is known.
    pub details: Option<Details>,
}

/// What is known of a session beside its status.
#[derive(Debug, Clone)]
pub struct Details {
    /// What is fixed.
    pub origin: Origin,
    /// The limits in force.
    pub limits: Arc<Limits>,
    /// The latest counted activity that is known.
    pub last_activity: Time,
    /// By how much the real one may be later.
    pub accuracy: Duration,
    /// The idle deadline.
    pub idle_deadline: Time,
    /// When it ends because its browser is gone, if it is.
    pub presence_deadline: Option<Time>,
    /// Its live holds.
    pub holds: Vec<Hold>,
    /// The limit that would have ended it, and when, if its policy were enforced.
    pub unenforced: Option<(Limit, Time)>,
    /// Extends in a row since the last counted touch.
    pub extensions: u32,
    /// The end, if it has ended.
    pub end: Option<Arc<Tombstone>>,
}

impl Report {
    /// The report of a live session.
    #[must_use]
    pub fn live(reference: SessionRef, view: &View<'_>, moment: Moment) -> Self {
        Self {
            status: Status::live(reference, view, moment),
            details: Some(Details {
                origin: view.origin.clone(),
                limits: Arc::clone(view.limits),
                last_activity: view.last_activity(moment.now),
                accuracy: view.lead,
                idle_deadline: view.deadlines(moment).idle,
                presence_deadline: view.deadlines(moment).presence,
                holds: view.rest.live_holds(moment.now).cloned().collect(),
                unenforced: view.rest.unenforced(),
                extensions: view.rest.extensions,
                end: None,
            }),
        }
    }

    /// The report of an ended session.
    #[must_use]
    pub fn ended(reference: SessionRef, tombstone: Arc<Tombstone>, now: Time) -> Self {
        Self {
            status: Status::ended(reference, &tombstone, now),
            details: Some(Details {
                origin: tombstone.origin.clone(),
                limits: Arc::clone(&tombstone.limits),
                last_activity: tombstone.last_activity,
                accuracy: Duration::ZERO,
                idle_deadline: tombstone.idle_deadline,
                presence_deadline: None,
                holds: Vec::new(),
                unenforced: None,
                extensions: tombstone.extensions,
                end: Some(tombstone),
            }),
        }
    }

    /// The report of an unknown session.
    #[must_use]
    pub fn unknown(reference: SessionRef, may_have_ended: bool, now: Time) -> Self {
        Self {
            status: Status::unknown(reference, may_have_ended, now),
            details: None,
        }
    }
}

/// The answer to a touch.
#[derive(Debug, Clone)]
pub struct TouchAnswer {
    /// The session after it.
    pub status: Status,
    /// What became of it.
    pub result: TouchResult,
    /// The rule that decided whether it counts.
    pub rule: RuleName,
}

/// What became of a touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TouchResult {
    /// It counted.
    Counted,
    /// It did not count.
    Ignored,
    /// It would count, but later activity is known.
    Stale,
    /// It would count, but the shared store cannot be told now: it will be.
    Pending,
}

/// The answer to an Extend.
#[derive(Debug, Clone, Copy)]
pub struct ExtendAnswer {
    /// The session after it.
    pub status: Status,
    /// How far the expire time moved.
    pub granted: Duration,
    /// Whether the absolute deadline cut it short.
    pub clamped: bool,
}

/// The answer to a Hold.
#[derive(Debug, Clone, Copy)]
pub struct HoldAnswer {
    /// The session after it.
    pub status: Status,
    /// How long the hold lives from now.
    pub granted: Duration,
    /// What cut it short.
    pub clamped: Option<Clamp>,
    /// Whether it began now.
    pub created: bool,
}

/// The answer to a Release.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseAnswer {
    /// The session after it.
    pub status: Status,
    /// Whether there was such a hold.
    pub released: bool,
}

/// The answer to an End.
#[derive(Debug, Clone)]
pub struct EndAnswer {
    /// The session after it.
    pub status: Status,
    /// The end.
    pub tombstone: Arc<Tombstone>,
    /// Whether this call ended it.
    pub ended_now: bool,
}

/// Why a command failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The session has ended.
    #[error("the session has ended; send the person to the login page")]
    Ended(SessionRef, Arc<Tombstone>),
    /// The session is unknown.
    #[error("{}", unknown(*may_have_ended))]
    Unknown {
        /// The session.
        reference: SessionRef,
        /// Whether ended sessions had to be forgotten before their time, so that this may be one of them (G10).
        may_have_ended: bool,
    },
    /// The id to create is live.
    #[error("a live session has this id already; create sessions with fresh ids")]
    Exists(SessionRef),
    /// There is no room.
    #[error("the sidecar holds {max_sessions} sessions, its cap (--max-sessions); try again later or raise it")]
    Full {
        /// The cap.
        max_sessions: usize,
    },
    /// The store that the sidecars share is full.
    #[error("the session store is full (its maxmemory); sessions that live go on: give it more memory")]
    StoreFull,
    /// There is no such policy.
    #[error("there is no policy of this name; the sidecar has: {known}")]
    PolicyUnknown {
        /// The names that there are.
        known: String,
    },
    /// A field of the request is out of bounds.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong, and the bound.
        problem: String,
    },
    /// The session to create would have ended already.
    #[error("{field} reaches the {limit} of {bound}: such a session has ended; send the person to the login page")]
    AlreadyPast {
        /// The field.
        field: &'static str,
        /// The limit.
        limit: &'static str,
        /// Its length.
        bound: humantime::FormattedDuration,
    },
    /// The extensions in a row are used up.
    #[error(
        "the session was extended {max} times in a row, the policy's max_extensions; only activity keeps it alive now"
    )]
    ExtensionLimit {
        /// The session.
        reference: SessionRef,
        /// How many the policy grants.
        max: u32,
    },
    /// The id to go on under ended before.
    #[error("a session of the new id has ended before; rotate to a fresh id")]
    NewEnded(Arc<Tombstone>),
    /// The subject has as many sessions as it may.
    #[error(
        "the subject has as many live sessions as the policy's max_sessions_per_subject allows, {max}; end one of them \
         first"
    )]
    SubjectCap {
        /// So many.
        max: u32,
    },
    /// The session is for reading only.
    #[error("the session is for reading only (policy: passive); only GET, HEAD and OPTIONS are welcome")]
    ReadOnly(SessionRef),
    /// The policy does not use presence.
    #[error("the session's policy does not use presence; set its key `presence`, or hold WORK")]
    PresenceOff(SessionRef),
    /// A live hold of this id has the other kind.
    #[error("a live hold of this hold_id has the other kind; use another hold_id")]
    HoldKind(SessionRef),
    /// There are as many holds of this kind as there may be.
    #[error("{}", hold_cap(*max))]
    HoldCap {
        /// The session.
        reference: SessionRef,
        /// So many.
        max: u32,
    },
    /// The budget of WORK is used up.
    #[error("work has held the session for {budget}, the policy's budget; only user activity renews it")]
    HoldBudget {
        /// The session.
        reference: SessionRef,
        /// The budget.
        budget: humantime::FormattedDuration,
    },
    /// The request id came before with other content.
    #[error("this request_id came before with other content; use a fresh one for a new request")]
    RequestIdReused(SessionRef),
    /// The store cannot know now.
    #[error(transparent)]
    Unavailable(#[from] crate::store::Unavailable),
}

fn unknown(may_have_ended: bool) -> &'static str {
    if may_have_ended {
        "the session is not known to this sidecar; it never existed here, or it ended and was forgotten early, for there were more ended \
         sessions than --max-tombstones"
    } else {
        "the session is not known to this sidecar; it never existed here or is forgotten"
    }
}

fn hold_cap(max: u32) -> String {
    if max == 0 {
        return "the session's policy does not use WORK holds; set its key `work_hold`".to_owned();
    }
    format!(
        "the session has as many live holds of this kind as the policy's max_live allows, {max}; release one or wait"
    )
}

impl Error {
    /// The same about the id to go on under.
    pub(super) fn about_the_new_id(self) -> Self {
        match self {
            Self::Invalid { problem, .. } => Self::Invalid {
                field: "new_session_id",
                problem,
            },
            other => other,
        }
    }

    /// A session that was here a moment ago, so surely not one of those that were forgotten early.
    pub(super) fn unknown(reference: SessionRef) -> Self {
        Self::Unknown {
            reference,
            may_have_ended: false,
        }
    }

    /// Why the state machine refused a command on a session.
    pub(super) fn refused(reference: SessionRef, refusal: Refusal) -> Self {
        match refusal {
            Refusal::Ended(tombstone) => Self::Ended(reference, tombstone),
            Refusal::ExtensionLimit { max } => Self::ExtensionLimit { reference, max },
            Refusal::RequestIdReused => Self::RequestIdReused(reference),
            Refusal::PresenceOff => Self::PresenceOff(reference),
            Refusal::HoldKind => Self::HoldKind(reference),
            Refusal::HoldCap { max, .. } => Self::HoldCap { reference, max },
            Refusal::HoldBudget { budget } => Self::HoldBudget {
                reference,
                budget: humantime::format_duration(budget),
            },
            Refusal::AuthenticationTooOld { absolute_timeout } => Self::AlreadyPast {
                field: "authenticated_ago",
                limit: "absolute timeout",
                bound: humantime::format_duration(absolute_timeout),
            },
        }
    }
}
