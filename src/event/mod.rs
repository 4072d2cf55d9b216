//! What watchers are told: a bounded log that can be replayed, tokens that name a place in it, and the routing of events to
//! the watchers that asked for them.

mod log;
mod router;
mod token;

pub use log::{Log, Trimmed};
pub use router::{Mailbox, Route, Router, Subscription};
pub use token::{Position, TokenError, Tokens};

use std::sync::atomic::{AtomicU32, Ordering};

use smallvec::SmallVec;

use crate::{
    state::{Happening, Identity, SessionRef},
    time::Time,
};

/// How far one has come: the number of the last event in each stream.
pub type Places = SmallVec<[u64; 1]>;

/// One event, at its place in the log.
#[derive(Debug)]
pub struct Event {
    /// Its place in the log of this process. The first event has 1.
    pub seq: u64,
    /// Its place where it is kept for all who share it: in which stream, and the number there. In memory there is one stream,
    /// this process' log.
    pub stream: u16,
    /// See `stream`.
    pub number: u64,
    /// When it happened.
    pub at: Time,
    /// The session that it is about.
    pub session: SessionRef,
    /// Who and what that session is for.
    pub identity: Identity,
    /// The session's version after it.
    pub version: u32,
    /// What happened.
    pub what: Happening,
    /// To how many watchers it was sent. An end counts them in its tombstone.
    pub told: AtomicU32,
}

impl Event {
    /// It was sent to a watcher.
    pub fn was_told(&self) {
        match &self.what {
            Happening::Ended(tombstone) => tombstone.told.fetch_add(1, Ordering::Relaxed),
            _ => self.told.fetch_add(1, Ordering::Relaxed),
        };
    }
}
