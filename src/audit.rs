//! The audit log: one line of JSON for each session that is created, rotated, extended or ended, and for each admin call.
//! Beside the program's own log, to a target of its own. It names sessions by ref and never by id (G15).
//!
//! Whoever has something to write down puts it into a bounded queue; one thread writes. A full queue makes callers wait while
//! the writer makes progress, and only for a moment if it makes none: the driver must go on warning and ending. What is lost
//! then is counted, logged, and said in the audit log itself as soon as it can be written again.

mod entry;
mod output;
mod queue;

use std::{sync::Arc, time::Duration};

use prometheus_client::{metrics::counter::Counter, registry::Registry};

pub use entry::{Entry, NotUnderstood, VERSION};
pub use output::{Output, Target};

use entry::Lines;
use queue::Queue;

use crate::{
    state::{Happening, Identity, Keys, Limits, Origin, SessionRef, Successor, Tombstone},
    store::Session,
    time::{Clock, Time},
};

/// How a subject is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectForm {
    /// As it is.
    Plain,
    /// As a keyed hash: the same person gives the same text, and nobody without the key can guess whom.
    Hash,
    /// Not at all.
    None,
}

/// How the audit log is set up.
pub struct Setup<'a> {
    /// Where it is written to.
    pub output: Output,
    /// How subjects are written down.
    pub subjects: SubjectForm,
    /// The key of subjects' hashes follows from it.
    pub master_key: &'a [u8],
    /// What time it is.
    pub clock: Clock,
    /// How many lines may wait to be written.
    pub queue: usize,
}

/// What is counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meter {
    written: Counter,
    lost: Counter,
}

/// The audit log, or none: then nothing is done.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

struct Inner {
    clock: Clock,
    queue: Arc<Queue>,
}

/// One thing to write down. Small, and made without formatting anything: that is the writer's work.
pub(crate) struct Note {
    at: Time,
    what: What,
}

pub(crate) enum What {
    Created {
        session: SessionRef,
        identity: Identity,
        limits: Arc<Limits>,
        authenticated: Time,
    },
    Extended {
        session: SessionRef,
        identity: Identity,
        limits: Arc<Limits>,
        granted: Duration,
        clamped: bool,
    },
    Rotated {
        ended: Arc<Tombstone>,
        session: SessionRef,
        successor: SessionRef,
        origin: Origin,
        limits: Arc<Limits>,
    },
    Ended(SessionRef, Arc<Tombstone>),
    Admin(Box<AdminCall>),
    Lost(u64),
}

/// A call of the admin service. Only what was read and found good is in it, never a session id.
#[derive(Debug, Clone, Default)]
pub struct AdminCall {
    /// The method.
    pub method: &'static str,
    /// The tenant, if the caller may name it.
    pub tenant: Option<String>,
    /// Whose sessions, or empty.
    pub subject: String,
    /// Which session, if one was named, by id or ref.
    pub session: Option<SessionRef>,
    /// What else was asked for, in words.
    pub filter: String,
    /// How many sessions matched, were listed or were explained.
    pub count: Option<u64>,
    /// How many it ended.
    pub ended: Option<u64>,
    /// Whether it only counted.
    pub dry_run: bool,
    /// Who asked, as the caller says.
    pub actor_id: String,
    /// Who asked, by what the caller is known by.
    pub known_by: Box<str>,
    /// What became of it: the name of a gRPC code.
    pub result: &'static str,
}

impl Audit {
    /// Starts the writer on a thread of its own.
    pub fn start(setup: Setup<'_>, registry: &mut Registry) -> std::io::Result<Self> {
        let meter = Meter::default();
        registry.register("audit_lines", "Lines written to the audit log", meter.written.clone());
        registry.register(
            "audit_lost",
            "Lines that could not be written to the audit log, and never will be",
            meter.lost.clone(),
        );
        let lines = Lines {
            clock: setup.clock.clone(),
            subjects: setup.subjects,
            keys: Keys::derive(setup.master_key),
        };
        Ok(Self(Some(Arc::new(Inner {
            clock: setup.clock,
            queue: Queue::start(setup.queue, setup.output, lines, meter)?,
        }))))
    }

    /// A session began.
    pub(crate) fn created(&self, session: &Session) {
        self.note(|| What::Created {
            session: session.reference(),
            identity: session.origin().identity.clone(),
            limits: Arc::clone(&session.limits()),
            authenticated: session.origin().authenticated,
        });
    }

    /// Something happened to a session. Most of it is nothing for an auditor.
    pub(crate) fn happened(&self, session: &Session, happening: &Happening) {
        match happening {
            // A rotation is written down whole: see `rotated`.
            Happening::Ended(tombstone) if !tombstone.silent && tombstone.successor.is_none() => {
                self.note(|| What::Ended(session.reference(), Arc::clone(tombstone)));
            }
            Happening::Extended { granted, clamped } => self.note(|| What::Extended {
                session: session.reference(),
                identity: session.origin().identity.clone(),
                limits: Arc::clone(&session.limits()),
                granted: *granted,
                clamped: *clamped,
            }),
            _ => {}
        }
    }

    /// A session goes on under another name.
    pub(crate) fn rotated(&self, session: SessionRef, happenings: &[(u32, Happening)], successor: &Successor) {
        for (_, happening) in happenings {
            if let Happening::Ended(tombstone) = happening {
                self.note(|| What::Rotated {
                    ended: Arc::clone(tombstone),
                    session,
                    successor: successor.reference,
                    origin: successor.origin.clone(),
                    limits: Arc::clone(&successor.next.limits),
                });
            }
        }
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The admin service was called.
    pub fn admin(&self, call: AdminCall) {
        self.note(|| What::Admin(Box::new(call)));
    }

    /// Opens the file anew, after somebody has moved it away.
    pub fn reopen(&self) {
        if let Some(inner) = &self.0 {
            inner.queue.reopen();
        }
    }

    /// Writes down all that waits, within a time, and stops. What comes later is not written: the process is about to end.
    pub fn close(&self, within: Duration) {
        if let Some(inner) = &self.0 {
            inner.queue.close(within);
        }
    }

    fn note(&self, what: impl FnOnce() -> What) {
        if let Some(inner) = &self.0 {
            inner.queue.put(Note {
                at: inner.clock.now(),
                what: what(),
            });
        }
    }
}
