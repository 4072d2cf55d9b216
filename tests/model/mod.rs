//! The naive model of one session: a list of what happened to it and plain numbers of nanoseconds. It keeps no state that
//! could go stale: every answer is worked out from the whole list. It is written from DESIGN.md sections 2 to 4, not from the
//! code, and shares only names (limits, causes, reasons, kinds of holds) with it.

pub(crate) mod audit;
pub(crate) mod fleet;
mod formula;
pub(crate) mod history;
mod naive;
mod requests;
pub(crate) mod subject;
pub(crate) mod translate;

pub(crate) use naive::Model;
use session_sidecar::state::{Actor, Cause, Clamp, EndReason, HoldKind, Limit};

/// A policy as an operator writes it, or what it comes to for one session.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) revision: u64,
    pub(crate) idle_timeout: u64,
    pub(crate) absolute_timeout: u64,
    pub(crate) idle_leads: Vec<u64>,
    pub(crate) absolute_leads: Vec<u64>,
    pub(crate) max_extensions: Option<u32>,
    pub(crate) tombstone_ttl: u64,
    pub(crate) work: Work,
    pub(crate) presence: Option<Presence>,
    pub(crate) enforced: bool,
}

/// What a policy says of WORK.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Work {
    pub(crate) max_ttl: u64,
    pub(crate) budget: u64,
    pub(crate) max_live: u32,
}

/// What a policy says of PRESENCE.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Presence {
    pub(crate) leave_grace: u64,
    pub(crate) lost_grace: u64,
    pub(crate) max_ttl: u64,
    pub(crate) max_live: u32,
}

/// The stricter timeouts that Create asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Own {
    pub(crate) idle: Option<u64>,
    pub(crate) absolute: Option<u64>,
}

impl Rules {
    /// What the policy comes to for a session with stricter timeouts. A lead over half its timeout fires at half of it.
    pub(crate) fn resolved(&self, own: Own) -> Self {
        let half = |leads: &[u64], timeout: u64| leads.iter().map(|lead| (*lead).min(timeout / 2)).collect();
        Self {
            idle_timeout: own.idle.map_or(self.idle_timeout, |own| own.min(self.idle_timeout)),
            absolute_timeout: own
                .absolute
                .map_or(self.absolute_timeout, |own| own.min(self.absolute_timeout)),
            idle_leads: half(&self.idle_leads, self.idle_timeout),
            absolute_leads: half(&self.absolute_leads, self.absolute_timeout),
            ..self.clone()
        }
    }
}

/// When something is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct When {
    pub(crate) now: u64,
    pub(crate) held_until: u64,
}

/// A request id and what else the request says.
pub(crate) type Request = (u64, u64);

/// What is asked of the session.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    Judge,
    /// The policy file changes. Nothing happens to the session: it is judged.
    Reload,
    Touch {
        counts: bool,
        user: bool,
        ago: u64,
    },
    /// A touch on the hot path: it leaves warnings that are due to the driver.
    HotTouch {
        ago: u64,
    },
    Extend {
        wanted: Option<u64>,
        request: Option<Request>,
    },
    Hold {
        id: u8,
        kind: HoldKind,
        ttl: u64,
    },
    Release {
        id: u8,
    },
    Rotate {
        new_subject: bool,
        authenticated_ago: Option<u64>,
        request: Option<Request>,
    },
    End {
        reason: EndReason,
        actor: Actor,
        request: Option<Request>,
    },
}

impl Ask {
    /// Whether it is activity if it is granted.
    pub(crate) fn is_activity(self) -> bool {
        matches!(
            self,
            Self::Touch { counts: true, .. } | Self::HotTouch { .. } | Self::Extend { .. }
        )
    }

    /// Whether it can neither keep the session alive nor end it (G9).
    pub(crate) fn is_background(self) -> bool {
        matches!(self, Self::Judge | Self::Touch { counts: false, .. })
    }
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Judged,
    Counted,
    Ignored,
    Stale,
    Extended {
        granted: u64,
        clamped: bool,
    },
    Held {
        granted: u64,
        clamped: Option<Clamp>,
        created: bool,
    },
    Released(bool),
    Rotated,
    RotatedBefore,
    EndedNow,
    EndedBefore(Ended),
    ExtensionLimit(u32),
    RequestIdReused,
    PresenceOff,
    OtherKind,
    HoldCap(u32),
    BudgetSpent,
    AuthenticationTooOld,
}

/// What watchers are told, and of what is only written down, what the guarantees speak of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Warning {
        limit: Limit,
        lead: u64,
        expire: u64,
        can_extend: bool,
    },
    Cleared {
        limit: Limit,
        cause: Cause,
        expire: u64,
    },
    Ended(Ended),
    /// Written down: a hold is over.
    HoldOver {
        at: u64,
        released: bool,
    },
    /// Written down: a newer revision reached the session.
    Adopted(u64),
    /// Written down: time would have ended it.
    Observed {
        limit: Limit,
        at: u64,
    },
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) reason: EndReason,
    pub(crate) actor: Actor,
    pub(crate) at: u64,
    pub(crate) last_activity: u64,
    pub(crate) idle_deadline: u64,
    pub(crate) extensions: u32,
    pub(crate) forget_at: u64,
    /// Until when its id stands for its successor, and whether the person authenticated anew.
    pub(crate) succession: Option<(u64, bool)>,
    pub(crate) request: Option<Request>,
    /// Whether nobody is told.
    pub(crate) silent: bool,
}
