//! The one word that a touch changes.

use std::{fmt, time::Duration};

use super::{
    policy::Limits,
    record::{Moment, Origin},
};
use crate::{
    sabotage::{self, Fault},
    time::Time,
};

/// Last activity and three flags, in one word that can be compared and swapped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Pulse(u64);

/// What a touch makes of a pulse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touched {
    /// It counts; this is the pulse after it.
    Raised(Pulse),
    /// It would count, but later activity is known.
    Stale,
    /// The session has ended.
    Dead,
    /// Only the state machine can tell: a warning stands, the deadline is not the plain one, or it has passed.
    Slow,
}

impl Pulse {
    const DEAD: u64 = 1;
    const WARNED: u64 = 2;
    const SLOW: u64 = 4;
    const FLAG_BITS: u32 = 3;

    /// A pulse without flags.
    #[must_use]
    pub fn new(last_activity: Time) -> Self {
        Self(last_activity.as_nanos() << Self::FLAG_BITS)
    }

    /// The word.
    #[must_use]
    pub fn to_word(self) -> u64 {
        self.0
    }

    /// The pulse in a word that [`Pulse::to_word`] gave.
    #[must_use]
    pub fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The latest counted activity.
    #[must_use]
    pub fn last_activity(self) -> Time {
        Time::from_nanos(self.0 >> Self::FLAG_BITS)
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn is_dead(self) -> bool {
        self.0 & Self::DEAD != 0
    }

    /// Whether a warning stands.
    #[must_use]
    pub fn is_warned(self) -> bool {
        self.0 & Self::WARNED != 0
    }

    /// Whether the rest of the record has a say in the deadline.
    #[must_use]
    pub fn is_slow(self) -> bool {
        self.0 & Self::SLOW != 0
    }

    /// This pulse after the end.
    #[must_use]
    pub fn dead(self) -> Self {
        Self(self.0 | Self::DEAD)
    }

    /// This pulse while only the lock tells more of the session.
    #[must_use]
    pub fn slowed(self) -> Self {
        Self(self.0 | Self::SLOW)
    }

    /// A live pulse with just these flags.
    #[must_use]
    pub fn flagged(self, warned: bool, slow: bool) -> Self {
        let warned = if warned { Self::WARNED } else { 0 };
        let slow = if slow { Self::SLOW } else { 0 };
        Self(Self::new(self.last_activity()).0 | warned | slow)
    }

    /// A counted touch that tells of activity `ago` before the moment, on the hot path: it may only raise the pulse of a
    /// session whose deadline is the plain one and has not passed.
    #[must_use]
    pub fn touch(self, origin: &Origin, limits: &Limits, ago: Duration, moment: Moment) -> Touched {
        if self.is_dead() {
            return Touched::Dead;
        }
        let expire = (self.last_activity() + limits.idle_timeout).min(origin.absolute_deadline(limits));
        if self.is_warned() || self.is_slow() || moment.now >= expire {
            return Touched::Slow;
        }
        self.raise(origin.created, ago, moment)
    }

    /// Raises last activity, never backwards and never past now (G8). Keeps the flags.
    #[must_use]
    pub(super) fn raise(self, created: Time, ago: Duration, moment: Moment) -> Touched {
        let known = self.last_activity();
        let activity = if ago.is_zero() {
            // Two callers may read the clock in one order and get here in the other: both touched now.
            moment.now.max(known)
        } else {
            (moment.now - ago).max(created)
        };
        if activity < known && !sabotage::on(Fault::ActivityGoesBack) {
            return Touched::Stale;
        }
        let flags = self.0 & ((1 << Self::FLAG_BITS) - 1);
        Touched::Raised(Self(Self::new(activity).0 | flags))
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.last_activity())?;
        for (set, name) in [
            (self.is_dead(), "DEAD"),
            (self.is_warned(), "WARNED"),
            (self.is_slow(), "SLOW"),
        ] {
            if set {
                write!(f, "+{name}")?;
            }
        }
        Ok(())
    }
}
