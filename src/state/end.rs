//! How sessions end, and what stays of them.

use std::sync::{Arc, atomic::AtomicU32};

use super::{
    name::SessionRef,
    policy::Limits,
    record::{Limit, Origin, RequestId},
};
use crate::time::Time;

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

impl EndReason {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::IdleTimeout,
        Self::AbsoluteTimeout,
        Self::BrowserClosed,
        Self::Logout,
        Self::Revoked,
        Self::Superseded,
        Self::Rotated,
    ];

    /// Its name, as it is written everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::IdleTimeout => "IDLE_TIMEOUT",
            Self::AbsoluteTimeout => "ABSOLUTE_TIMEOUT",
            Self::BrowserClosed => "BROWSER_CLOSED",
            Self::Logout => "LOGOUT",
            Self::Revoked => "REVOKED",
            Self::Superseded => "SUPERSEDED",
            Self::Rotated => "ROTATED",
        }
    }
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
