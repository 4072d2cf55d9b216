//! Where sessions are kept, behind one trait whose operations are whole: the seam at which a store that many sidecars share
//! can stand in for this process' memory.

mod index;
mod memory;
mod session;
pub mod shared;
mod story;
mod subjects;
mod tombstones;

use std::sync::Arc;

use async_trait::async_trait;

pub use memory::{Memory, MemoryCaps};
pub use session::Session;
pub use story::{Story, Tally};

use crate::state::{Next, Origin, Pulse, SessionRef, Tombstone};
use crate::time::Time;

/// What is known of a session.
#[derive(Debug, Clone)]
pub enum Found {
    /// It is live, as far as time has been judged.
    Live(Arc<Session>),
    /// It has ended and is remembered.
    Ended(Arc<Tombstone>),
    /// It never existed, or is forgotten.
    Unknown {
        /// Whether ended sessions had to be forgotten before their time, so that this may be one of them.
        may_have_ended: bool,
    },
}

/// What a commit expects to find.
pub enum Expected {
    /// Nothing of that name, live or remembered: the session is created.
    Nothing(Origin),
    /// This session, as it was read.
    Session {
        /// The session.
        session: Arc<Session>,
        /// Its pulse when it was read.
        pulse: Pulse,
        /// Its version when it was read.
        version: u32,
    },
}

/// A decided change, to be made true.
pub struct Commit {
    /// The session's name.
    pub reference: SessionRef,
    /// What it was decided upon.
    pub expected: Expected,
    /// The record after it, and what happened.
    pub next: Next,
    /// When it was decided.
    pub at: Time,
}

/// What became of a commit.
#[derive(Debug)]
pub enum Committed {
    /// It is true now. After a rotation this is the successor.
    Done(Arc<Session>),
    /// Somebody was faster: this is what there is now. Decide again.
    Lost(Found),
    /// The name that the session was to go on under is not free.
    Taken(Found),
    /// There is no room for another session.
    Full {
        /// The cap.
        max_sessions: usize,
    },
}

/// The store cannot know now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session store is not reachable")]
pub struct Unavailable;

/// The one exit door: every change of a session but the hot touch goes through [`Store::commit`].
#[async_trait]
pub trait Store: Send + Sync {
    /// What is known of a session. Within tombstone time an ended session is never unknown, not for an instant (G10).
    async fn find(&self, reference: SessionRef) -> Result<Found, Unavailable>;

    /// Makes a decided change true, all of it or nothing: the record, its end if it ends, and its events at their places in
    /// the log. Exactly one of two commits that expect the same record is done; the other is [`Committed::Lost`].
    async fn commit(&self, commit: Commit) -> Result<Committed, Unavailable>;
}
