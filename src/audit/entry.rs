//! A line of the audit log: what it says and how it is read back.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{AdminCall, Note, SubjectForm, What};
use crate::{
    state::{Actor, EndReason, Identity, Keys, Limits, Origin, SessionRef, Tombstone},
    time::{Clock, Time},
};

/// The version of what is written. Fields are added without a new one; a meaning is never changed without it.
pub const VERSION: u32 = 1;

/// A line. What does not apply is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Entry {
    /// [`VERSION`].
    pub v: u32,
    /// When it was written down: RFC 3339, UTC, milliseconds.
    pub time: String,
    /// `create`, `rotate`, `extend`, `end`, `admin`, or `lost`.
    pub event: String,
    /// The session. In a `rotate` the one that ended.
    #[serde(rename = "ref", skip_serializing_if = "String::is_empty")]
    pub session: String,
    /// The session that goes on in its place.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub successor_ref: String,
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Whose, in plain text. In a `rotate` the one whose it is from then on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// Whose, as a keyed hash.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject_hash: String,
    /// Whose it was before a `rotate`, if that changed.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub previous_subject: String,
    /// The same as a keyed hash.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub previous_subject_hash: String,
    /// The policy.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy: String,
    /// Its revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_revision: Option<u64>,
    /// The idle timeout in force; absent if there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_timeout_seconds: Option<f64>,
    /// The absolute timeout in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub absolute_timeout_seconds: Option<f64>,
    /// When the person authenticated.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub authentication_time: String,
    /// How strong that was, in the caller's word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub authentication_level: String,
    /// Whether the person authenticated anew at a `rotate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reauthenticated: Option<bool>,
    /// How far an `extend` moved the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub granted_seconds: Option<f64>,
    /// `ABSOLUTE` if the absolute deadline cut it short.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub clamped_by: String,
    /// Why it ended: the API's names without their prefix.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Who ended it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub actor: String,
    /// Which user or program exactly; in an `admin` who asked, as the caller said.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub actor_id: String,
    /// By what the caller of an `admin` is known: its entry of `[[callers]]`, or its listener.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub known_by: String,
    /// What they noted.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// When it ended: for a timeout the deadline itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub end_time: String,
    /// The latest counted activity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_activity_time: String,
    /// When the sidecar came to know it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub create_time: String,
    /// The method of an `admin`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// What it asked for, in words, beside tenant, subject and ref.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub filter: String,
    /// How many sessions matched, were listed or explained; in a `lost` how many lines are missing before this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// How many it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_count: Option<u64>,
    /// Whether it only counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What became of an `admin`: `OK`, `PERMISSION_DENIED`, `INVALID_ARGUMENT`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub result: String,
}

/// A line that is not one of ours, or of a version that is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a line of an audit log of version {VERSION}")]
pub struct NotUnderstood;

impl Entry {
    /// Reads a line.
    pub fn read(line: &str) -> Result<Self, NotUnderstood> {
        let entry: Self = serde_json::from_str(line).map_err(|_| NotUnderstood)?;
        if entry.v == VERSION {
            Ok(entry)
        } else {
            Err(NotUnderstood)
        }
    }
}

/// Writes notes as lines.
pub(super) struct Lines {
    pub(super) clock: Clock,
    pub(super) subjects: SubjectForm,
    pub(super) keys: Keys,
}

impl Lines {
    /// Appends a note as a line.
    pub(super) fn write(&self, note: &Note, bytes: &mut Vec<u8>) {
        let mut entry = self.entry(&note.what);
        entry.v = VERSION;
        entry.time = self.time(note.at);
        if let Err(error) = serde_json::to_writer(&mut *bytes, &entry) {
            tracing::error!(%error, event = entry.event, "a line of the audit log could not be made");
            return;
        }
        bytes.push(b'\n');
    }

    fn entry(&self, what: &What) -> Entry {
        match what {
            What::Created {
                session,
                identity,
                limits,
                authenticated,
            } => Entry {
                event: "create".to_owned(),
                session: session.to_string(),
                idle_timeout_seconds: (limits.idle_timeout < Limits::NEVER).then(|| seconds(limits.idle_timeout)),
                absolute_timeout_seconds: Some(seconds(limits.absolute_timeout)),
                authentication_time: self.time(*authenticated),
                authentication_level: identity.authentication_level().to_owned(),
                ..self.of(identity, limits)
            },
            What::Extended {
                session,
                identity,
                limits,
                granted,
                clamped,
            } => Entry {
                event: "extend".to_owned(),
                session: session.to_string(),
                granted_seconds: Some(seconds(*granted)),
                clamped_by: if *clamped { "ABSOLUTE".to_owned() } else { String::new() },
                ..self.of(identity, limits)
            },
            What::Rotated {
                ended,
                session,
                successor,
                origin,
                limits,
            } => self.rotated(ended, *session, *successor, origin, limits),
            What::Ended(session, tombstone) => Entry {
                event: "end".to_owned(),
                session: session.to_string(),
                ..self.end(tombstone)
            },
            What::Admin(call) => self.admin(call),
            What::Lost(count) => Entry {
                event: "lost".to_owned(),
                count: Some(*count),
                ..Entry::default()
            },
        }
    }

    fn of(&self, identity: &Identity, limits: &Limits) -> Entry {
        let (subject, subject_hash) = self.subject(identity.tenant(), identity.subject());
        Entry {
            tenant: Some(identity.tenant().to_owned()),
            subject,
            subject_hash,
            policy: limits.policy.to_string(),
            policy_revision: Some(limits.revision),
            ..Entry::default()
        }
    }

    fn end(&self, tombstone: &Tombstone) -> Entry {
        let end = &tombstone.end;
        Entry {
            reason: end.reason.name().to_owned(),
            actor: actor(end.actor).to_owned(),
            actor_id: end.actor_id.to_string(),
            note: end.note.to_string(),
            end_time: self.time(end.at),
            last_activity_time: self.time(tombstone.last_activity),
            create_time: self.time(tombstone.origin.created),
            ..self.of(&tombstone.origin.identity, &tombstone.limits)
        }
    }

    fn rotated(
        &self,
        ended: &Tombstone,
        session: SessionRef,
        successor: SessionRef,
        origin: &Origin,
        limits: &Limits,
    ) -> Entry {
        let identity = &origin.identity;
        let now = self.of(identity, limits);
        let before = self.of(&ended.origin.identity, limits);
        let changed = identity.subject() != ended.origin.identity.subject();
        let if_changed = |text: String| if changed { text } else { String::new() };
        Entry {
            event: "rotate".to_owned(),
            session: session.to_string(),
            successor_ref: successor.to_string(),
            reauthenticated: ended.successor.map(|next| next.reauthenticated),
            authentication_time: self.time(origin.authenticated),
            authentication_level: identity.authentication_level().to_owned(),
            previous_subject: if_changed(before.subject),
            previous_subject_hash: if_changed(before.subject_hash),
            subject: now.subject,
            subject_hash: now.subject_hash,
            policy_revision: now.policy_revision,
            ..self.end(ended)
        }
    }

    fn admin(&self, call: &AdminCall) -> Entry {
        let tenant = call.tenant.clone();
        let (subject, subject_hash) = self.subject(tenant.as_deref().unwrap_or_default(), &call.subject);
        Entry {
            event: "admin".to_owned(),
            session: call.session.map(|session| session.to_string()).unwrap_or_default(),
            tenant,
            subject,
            subject_hash,
            actor_id: call.actor_id.clone(),
            known_by: call.known_by.to_string(),
            method: call.method.to_owned(),
            filter: call.filter.clone(),
            count: call.count,
            ended_count: call.ended,
            dry_run: call.dry_run,
            result: call.result.to_owned(),
            ..Entry::default()
        }
    }

    /// A subject in the form in which it is written down: plain, hashed.
    fn subject(&self, tenant: &str, subject: &str) -> (String, String) {
        match self.subjects {
            _ if subject.is_empty() => (String::new(), String::new()),
            SubjectForm::None => (String::new(), String::new()),
            SubjectForm::Plain => (subject.to_owned(), String::new()),
            SubjectForm::Hash => (String::new(), self.keys.subject_hash(tenant, subject)),
        }
    }

    fn time(&self, at: Time) -> String {
        let wall: SystemTime = self.clock.wall(at);
        humantime::format_rfc3339_millis(wall).to_string()
    }
}

/// To the millisecond.
fn seconds(duration: Duration) -> f64 {
    duration.as_millis() as f64 / 1000.0
}

impl Entry {
    /// Why the session ended, if this says so.
    #[must_use]
    pub fn end_reason(&self) -> Option<EndReason> {
        EndReason::ALL.into_iter().find(|reason| reason.name() == self.reason)
    }
}

fn actor(actor: Actor) -> &'static str {
    match actor {
        Actor::User => "USER",
        Actor::Admin => "ADMIN",
        Actor::Policy => "POLICY",
        Actor::System => "SYSTEM",
    }
}
