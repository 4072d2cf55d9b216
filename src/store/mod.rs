//! Where sessions are kept, behind one trait whose operations are whole: the seam at which a store that many sidecars share
//! stands in for this process' memory.

mod index;
mod memory;
mod session;
pub mod shared;
mod story;
mod subjects;
mod tombstones;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

pub use memory::{Memory, MemoryCaps};
pub use session::{Lease, Session};
pub use story::{Story, Tally};

use crate::{
    event::{Event, Places},
    state::{Limits, Moment, Next, Origin, Pulse, SessionRef, Tombstone},
    time::Time,
};

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
    pub moment: Moment,
    /// The sessions that must end because this one begins.
    pub supersedes: Vec<SessionRef>,
    /// A session that begins does so until then, or not at all; unset: at any time.
    pub not_after: Option<Time>,
}

/// Which of two names a session gets, and until when it must begin: after that it may be the other one.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// The name.
    pub name: SessionRef,
    /// The last moment.
    pub not_after: Time,
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
    /// The store itself is full: its memory, not a cap of ours.
    StoreFull,
    /// There is no room for another session.
    Full {
        /// The cap.
        max_sessions: usize,
    },
}

/// What became of activity that only raises a pulse.
#[derive(Debug)]
pub enum Raised {
    /// It is known: the session as it is now.
    Done(Arc<Session>),
    /// More than the pulse has a say: this is what there is now. Let the state machine decide.
    Decide(Found),
}

/// The store cannot know now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session store cannot be reached; try again in a moment (metric store_up, `session-sidecar store check`)")]
pub struct Unavailable;

/// A session that a scan comes by.
pub enum Seen<'a> {
    /// A live one, as far as time has been judged.
    Live(&'a Arc<Session>),
    /// A remembered one.
    Ended(SessionRef, &'a Arc<Tombstone>),
}

/// What a scan goes through.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// Only what comes after this ref.
    pub after: Option<SessionRef>,
    /// Live sessions.
    pub live: bool,
    /// Remembered ones.
    pub ended: bool,
    /// So many that were wanted are enough.
    pub most: usize,
}

/// Says of a session whether it is wanted.
pub type Wanted = dyn Fn(&Seen<'_>) -> bool + Send + Sync;

/// Where a watcher that resumes goes on.
#[derive(Default)]
pub struct Resumed {
    /// What happened before this process' log begins.
    pub before: Vec<Arc<Event>>,
    /// Then the log after here, but nothing that the watcher has seen.
    pub cursor: u64,
}

/// Why nobody can go on from a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotResumed {
    /// What happened since is not kept any more.
    Trimmed,
    /// Nothing has happened there yet.
    Future,
    /// The store cannot know now.
    Unavailable,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Levels {
    /// Live sessions.
    pub live: usize,
    /// Remembered ends.
    pub remembered: usize,
    /// Ends that were forgotten before their time.
    pub forgotten_early: u64,
}

/// Leave to begin a session of a subject that may have only so many.
#[derive(Debug)]
pub struct Place {
    /// Which version of the subject's list it was given upon.
    pub ticket: u64,
    /// The sessions for which a place was taken only just now: they may not be there yet.
    pub reserved: Vec<SessionRef>,
}

/// The one exit door: every change of a session but the hot touch goes through [`Store::commit`].
#[async_trait]
pub trait Store: Send + Sync {
    /// The session if it is at hand, and activity now costs no more than a look at its pulse. If there is none, ask for it.
    fn at_hand(&self, reference: SessionRef, now: Time) -> Option<Arc<Session>>;

    /// What is known of a session. Within tombstone time an ended session is never unknown, not for an instant (G10).
    async fn find(&self, reference: SessionRef) -> Result<Found, Unavailable>;

    /// Whether there is a copy by which a session is known to be live, so that nobody need be asked.
    fn has_copy(&self, reference: SessionRef, now: Time) -> bool {
        let _ = (reference, now);
        false
    }

    /// What was known of a live session before the store went away, if it may still be served.
    fn remembered_live(&self, reference: SessionRef, now: Time) -> Option<Arc<Session>> {
        let _ = (reference, now);
        None
    }

    /// Activity that could not be told because the store is away: tell it when it is back.
    fn remember_activity(&self, reference: SessionRef, at: Time) {
        let _ = (reference, at);
    }

    /// Activity, `ago` before now, of a session on which only the pulse has a say. Never creates, never revives.
    async fn raise(&self, session: &Arc<Session>, ago: Duration, now: Time) -> Result<Raised, Unavailable> {
        let _ = (ago, now);
        Ok(Raised::Decide(Found::Live(Arc::clone(session))))
    }

    /// Makes a decided change true, all of it or nothing: the record, its end if it ends, and its events at their places in
    /// the log. Exactly one of two commits that expect the same record is done; the other is [`Committed::Lost`].
    async fn commit(&self, commit: Commit) -> Result<Committed, Unavailable>;

    /// A touch was added up in a session's history, the first of a row: it is told when somebody has time for it.
    fn touched(&self, session: &Arc<Session>) {
        let _ = session;
    }

    /// What a session is now, where a copy of it may be older than `moment`; `None`: it is no copy, or a fresh one.
    async fn latest(&self, session: &Session, moment: Time) -> Result<Option<Found>, Unavailable> {
        let _ = (session, moment);
        Ok(None)
    }

    /// Whether this process must look at sessions when their time comes ([`crate::timeline`]); else the store does.
    fn needs_timeline(&self) -> bool;

    /// The limits of a session with this policy as they are in force here.
    fn effective(&self, limits: &Limits) -> Limits {
        limits.clone()
    }

    /// How far ahead of an activity it may be written; `None` if each is noted as it is.
    fn ahead(&self, limits: &Limits) -> Option<Duration> {
        let _ = limits;
        None
    }

    /// These are the limits of this sidecar's policies from now on.
    fn announce(&self, policies: &[Arc<Limits>]) {
        let _ = policies;
    }

    /// The live sessions that may be a subject's.
    async fn of_subject(&self, tenant: &str, subject: &str) -> Result<Vec<SessionRef>, Unavailable>;

    /// The list of a subject's sessions, to be counted before another one begins. `None`: nobody else can begin one meanwhile.
    async fn subject_ticket(&self, tenant: &str, subject: &str) -> Result<Option<Place>, Unavailable> {
        let _ = (tenant, subject);
        Ok(None)
    }

    /// Takes a place in a subject's list for a session that is about to begin, if the list is still the one that was counted.
    async fn take_place(
        &self,
        tenant: &str,
        subject: &str,
        place: &Place,
        newcomer: SessionRef,
    ) -> Result<bool, Unavailable> {
        let _ = (tenant, subject, place, newcomer);
        Ok(true)
    }

    /// Decides which of two names a session gets that is about to begin, for all who are about to: the first one's choice holds.
    async fn claim(&self, wanted: SessionRef, other: SessionRef) -> Result<Claim, Unavailable> {
        let _ = other;
        Ok(Claim {
            name: wanted,
            not_after: Time::FAR,
        })
    }

    /// Notes that the sessions which were to end because this one began have ended.
    async fn superseded(&self, newcomer: SessionRef) -> Result<(), Unavailable> {
        let _ = newcomer;
        Ok(())
    }

    /// Goes through sessions in the order of their refs, and answers those that are wanted. What ends meanwhile is seen, once or
    /// twice.
    async fn scan(&self, extent: Extent, wanted: Arc<Wanted>) -> Result<Vec<SessionRef>, Unavailable>;

    /// What is kept of a session's life.
    async fn story(&self, reference: SessionRef) -> Result<Story, Unavailable>;

    /// Where a watcher goes on that has seen all up to these places.
    async fn resume(&self, places: &Places) -> Result<Resumed, NotResumed>;

    /// Whether ended sessions had to be forgotten before their time, and would not be forgotten yet.
    fn may_have_ended(&self) -> bool {
        false
    }

    /// Whether it can be told from another log where a token comes from.
    fn is_ready(&self) -> bool {
        true
    }

    /// All that has happened up to now is in the log of this process when this is done.
    async fn barrier(&self) -> Result<(), Unavailable> {
        Ok(())
    }

    /// What other sidecars have of a policy, where it is not what this one has.
    fn policy_elsewhere(&self, policy: &str) -> shared::Elsewhere {
        let _ = policy;
        shared::Elsewhere::new()
    }

    /// Whether other sidecars share it.
    fn is_shared(&self) -> bool {
        false
    }

    /// How much there is.
    fn levels(&self) -> Levels;

    /// Gives back the memory of what need not be remembered any more.
    fn sweep(&self);
}
