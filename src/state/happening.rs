//! What happens to sessions: what watchers are told, and what their history keeps.

use std::{sync::Arc, time::Duration};

use super::{end::Tombstone, hold::Hold, name::SessionRef, record::Limit, view::Record};
use crate::time::Time;

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
