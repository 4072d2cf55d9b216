//! What is asked of a session, and what is answered.

use std::{sync::Arc, time::Duration};

use super::{
    super::{
        end::{End, Tombstone},
        hold::{Clamp, HoldKind, HoldWish},
        policy::Limits,
        record::Asked,
    },
    Next, Rotation,
};

/// What is asked of a live session.
#[derive(Debug, Clone)]
pub enum Command {
    /// Nothing but that time has passed: warn and end as it is due.
    Judge,
    /// Activity `ago` before now, if it counts.
    Touch {
        /// Whether it counts.
        counts: bool,
        /// Whether it is surely a person's: it renews the budget of WORK.
        user: bool,
        /// Whether it is the browser's own report of input.
        input_report: bool,
        /// How long ago it happened.
        ago: Duration,
        /// A newer revision of the policy, if there is one.
        newer: Option<Arc<Limits>>,
    },
    /// The person pressed "stay".
    Extend {
        /// How long the session should live from now; one idle timeout if unset.
        wanted: Option<Duration>,
        /// The caller's request id.
        request: Option<Asked>,
        /// A newer revision of the policy, if there is one.
        newer: Option<Arc<Limits>>,
    },
    /// Begin or renew a hold.
    Hold(HoldWish),
    /// End a hold.
    Release {
        /// Its owner's id of it.
        id: Box<str>,
    },
    /// Go on under another name.
    Rotate(Box<Rotation>),
    /// End it now. The time in it is set to now.
    End {
        /// The end.
        end: End,
        /// The caller's request id.
        request: Option<Asked>,
    },
}

impl Command {
    /// Whether somebody asks for a change: neither the passing of time nor activity.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        !matches!(self, Self::Judge | Self::Touch { .. })
    }

    /// Whether it does no more than raise the pulse, if only that has a say in the session.
    #[must_use]
    pub fn raises_only(&self) -> bool {
        matches!(
            self,
            Self::Touch {
                counts: true,
                input_report: false,
                newer: None,
                ..
            }
        )
    }
}

/// What became of a command.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The record after it; `None` if nothing changed.
    pub next: Option<Next>,
    /// The answer, or why it was refused.
    pub reply: Result<Reply, Refusal>,
}

/// The answer to a command that was not refused.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Judged.
    Judged,
    /// The touch counted.
    Counted,
    /// The touch does not count.
    Ignored,
    /// The touch would count, but later activity is known.
    Stale,
    /// Extended, now or by the same request before.
    Extended {
        /// How far the expire time moved.
        granted: Duration,
        /// Whether the absolute deadline cut it short.
        clamped: bool,
    },
    /// Held.
    Held {
        /// How long the hold lives from now.
        granted: Duration,
        /// What cut it short.
        clamped: Option<Clamp>,
        /// Whether it began now.
        created: bool,
    },
    /// Released, if there was such a hold.
    Released(bool),
    /// Rotated: the end of the old name.
    Rotated(Arc<Tombstone>),
    /// The same request rotated it before, into this session.
    RotatedBefore,
    /// Ended by this command.
    Ended(Arc<Tombstone>),
}

/// Why a command was refused.
#[derive(Debug, Clone)]
pub enum Refusal {
    /// The session ended before; if it ended just now, the decision's record says so.
    Ended(Arc<Tombstone>),
    /// The extensions in a row are used up.
    ExtensionLimit {
        /// How many the policy grants.
        max: u32,
    },
    /// The request id came before with other content.
    RequestIdReused,
    /// The policy does not use presence.
    PresenceOff,
    /// A live hold of this id has the other kind.
    HoldKind,
    /// There are as many holds of this kind as there may be.
    HoldCap {
        /// Of this kind.
        kind: HoldKind,
        /// So many.
        max: u32,
    },
    /// The budget of WORK is used up.
    HoldBudget {
        /// The budget.
        budget: Duration,
    },
    /// The authentication is older than it may be.
    AuthenticationTooOld {
        /// The absolute timeout.
        absolute_timeout: Duration,
    },
}
