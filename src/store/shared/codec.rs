//! Between the words of the core and those of the store.

mod reader;
mod writer;

pub(super) use reader::{Read, Reader};
pub(super) use writer::Writer;

use super::{body, limits::NotKnown};
use crate::{
    state::{Actor, Cause, EndReason, Identity, Limit, RequestId, SessionRef},
    time::Time,
};

/// Between our clock and a bucket's: by one number, so that what is read and written back is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    /// The bucket's time minus ours, in microseconds.
    pub(super) skew: i64,
}

impl Scale {
    /// Up to the next microsecond: nobody's deadline comes earlier by being written.
    pub(super) fn write(self, at: Time) -> i64 {
        let since_start = nanos_since_start(at);
        let micros = since_start.div_euclid(1000) + i64::from(since_start.rem_euclid(1000) > 0);
        micros.saturating_add(self.skew)
    }

    /// A last moment as scripts are told it: 0 if there is none.
    pub(super) fn latest(self, at: Option<Time>) -> i64 {
        at.map_or(0, |at| self.write(at))
    }

    pub(super) fn read(self, micros: i64) -> Time {
        let since_start = micros.saturating_sub(self.skew).saturating_mul(1000);
        let nanos = as_i64(Time::START).saturating_add(since_start);
        Time::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

/// Whole microseconds of our clock, counted from its start.
pub(super) fn micros(at: Time) -> i64 {
    nanos_since_start(at).div_euclid(1000)
}

fn nanos_since_start(at: Time) -> i64 {
    as_i64(at) - as_i64(Time::START)
}

fn as_i64(at: Time) -> i64 {
    // A moment has 61 bits.
    i64::try_from(at.as_nanos()).unwrap_or(i64::MAX)
}

/// What a record says that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    /// Its limits must be asked for.
    #[error("limits are not known yet")]
    Limits(u64),
    /// Somebody else wrote it.
    #[error("{0}")]
    Broken(String),
}

impl From<NotKnown> for Unread {
    fn from(NotKnown(digest): NotKnown) -> Self {
        Self::Limits(digest)
    }
}

fn broken(what: &str) -> Unread {
    Unread::Broken(what.to_owned())
}

/// A record as its fields are in the store: see `scripts/time.lua`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) version: u32,
    pub(super) activity: i64,
    pub(super) lead: i64,
    pub(super) flags: u32,
    pub(super) body: Vec<u8>,
    pub(super) who: Vec<u8>,
    pub(super) end: Vec<u8>,
    pub(super) duties: Vec<u8>,
    pub(super) waiting: Vec<u8>,
    /// The number of the last event when it was written.
    pub(super) number: u64,
    /// When the last touch came that did not count.
    pub(super) ignored: Option<i64>,
    /// How many entries its timeline has had.
    pub(super) told: u32,
}

/// The flags of a record. A script raises only one that has none or, from format 2, one that is SLOW and OPEN.
pub(super) const WARNED: u32 = 1;
pub(super) const SLOW: u32 = 2;
pub(super) const ENDED: u32 = 4;
pub(super) const PENDING: u32 = 8;
/// Only open pages have a say beside the pulse.
pub(super) const OPEN: u32 = 16;
/// The first format in which records say that.
pub(super) const OPEN_SINCE: u32 = 2;
/// What no script writes: the numbers of a record are none.
pub(super) const BROKEN: u32 = 1 << 31;

pub(super) fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, Unread> {
    M::decode(bytes).map_err(|error| Unread::Broken(error.to_string()))
}

pub(super) fn reference(bytes: &[u8]) -> Result<SessionRef, Unread> {
    let bytes = bytes.try_into().map_err(|_| broken("a ref must have 16 bytes"))?;
    Ok(SessionRef::from_bytes(bytes))
}

pub(super) fn who(identity: &Identity) -> body::Who {
    body::Who {
        tenant: identity.tenant().to_owned(),
        subject: identity.subject().to_owned(),
        level: identity.authentication_level().to_owned(),
        predecessor: identity
            .predecessor()
            .map(|name| name.as_bytes().to_vec())
            .unwrap_or_default(),
        labels: identity.labels(),
    }
}

fn identity(who: &body::Who) -> Identity {
    Identity::new(
        who.tenant.as_str().into(),
        &who.subject,
        &who.level,
        who.labels.clone(),
        reference(&who.predecessor).ok(),
    )
}

fn request(known: &body::Request) -> RequestId {
    RequestId {
        key: known.key,
        content: known.content,
    }
}

fn write_request(request: RequestId) -> body::Request {
    body::Request {
        key: request.key,
        content: request.content,
    }
}

/// Between the values of an enum and their numbers in the store, which never change.
macro_rules! numbered {
    ($read:ident, $write:ident, $what:literal, $type:ident { $($value:ident = $number:literal),+ }) => {
        fn $read(number: u32) -> Result<$type, Unread> {
            match number {
                $($number => Ok($type::$value),)+
                _ => Err(broken(concat!("unknown ", $what))),
            }
        }

        fn $write(value: $type) -> u32 {
            match value {
                $($type::$value => $number,)+
            }
        }
    };
}

numbered!(limit, limit_number, "limit", Limit { Idle = 1, Absolute = 2, Presence = 3 });
numbered!(reason, reason_number, "end reason", EndReason {
    IdleTimeout = 1, AbsoluteTimeout = 2, Logout = 3, Revoked = 4, BrowserClosed = 5, Superseded = 6, Rotated = 7
});
numbered!(actor, actor_number, "actor", Actor { User = 1, Admin = 2, Policy = 3, System = 4 });
numbered!(cause, cause_number, "cause", Cause {
    Touched = 1, Extended = 2, Held = 3, Released = 4, Rotated = 5, PolicyChanged = 6, NotEnforced = 7
});
