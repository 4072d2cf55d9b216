//! From the core's words to the wire's.

use std::time::Duration;

use super::proto::v1;
use crate::{
    event::Event,
    sessions::{Details, Report, Rule, State, Status, TouchAnswer, TouchResult},
    state::{Actor, Cause, EndReason, Happening, Identity, Limit, SessionRef, Tombstone},
    time::{Clock, Time},
};

/// Writes answers; the clock turns moments into timestamps.
#[derive(Clone)]
pub(super) struct Writer(Clock);

impl Writer {
    pub(super) fn new(clock: Clock) -> Self {
        Self(clock)
    }

    pub(super) fn timestamp(&self, at: Time) -> prost_types::Timestamp {
        self.0.wall(at).into()
    }

    pub(super) fn status(&self, status: &Status) -> v1::SessionStatus {
        let live = matches!(status.state, State::Active | State::Expiring);
        v1::SessionStatus {
            session_ref: status.reference.to_string(),
            state: match status.state {
                State::Active => v1::SessionState::Active,
                State::Expiring => v1::SessionState::Expiring,
                State::Ended => v1::SessionState::Ended,
                State::Unknown => v1::SessionState::Unknown,
            }
            .into(),
            expire_time: status.expire.map(|at| self.timestamp(at)),
            expires_in: status.expire.filter(|_| live).map(|at| duration(at.since(status.now))),
            server_time: Some(self.timestamp(status.now)),
            limit: status.limit.map_or(v1::Limit::Unspecified, limit).into(),
            next_warning_time: status.next_warning.map(|at| self.timestamp(at)),
            can_extend: status.can_extend,
            version: status.version.into(),
            scope: v1::KnowledgeScope::Memory.into(),
            may_have_ended: status.may_have_ended,
            ..Default::default()
        }
    }

    pub(super) fn session(&self, tenant: &str, report: &Report) -> v1::Session {
        let status = Some(self.status(&report.status));
        let Some(Details {
            origin,
            last_activity,
            idle_deadline,
            extensions,
            end,
        }) = &report.details
        else {
            return v1::Session {
                status,
                tenant: tenant.to_owned(),
                ..Default::default()
            };
        };
        v1::Session {
            status,
            tenant: tenant.to_owned(),
            subject: origin.identity.subject().to_owned(),
            policy: origin.limits.policy.to_string(),
            idle_timeout: Some(duration(origin.limits.idle_timeout)),
            absolute_timeout: Some(duration(origin.limits.absolute_timeout)),
            create_time: Some(self.timestamp(origin.created)),
            authentication_time: Some(self.timestamp(origin.authenticated)),
            last_activity_time: Some(self.timestamp(*last_activity)),
            idle_expire_time: Some(self.timestamp(*idle_deadline)),
            absolute_expire_time: Some(self.timestamp(origin.absolute_deadline())),
            extensions: *extensions,
            labels: origin.identity.labels(),
            end: end.as_deref().map(|tombstone| self.end(tombstone)),
            ..Default::default()
        }
    }

    pub(super) fn touch(&self, answer: &TouchAnswer) -> v1::TouchResponse {
        v1::TouchResponse {
            status: Some(self.status(&answer.status)),
            counted: answer.result == TouchResult::Counted,
            result: match answer.result {
                TouchResult::Counted => v1::TouchResult::Counted,
                TouchResult::Ignored => v1::TouchResult::Ignored,
                TouchResult::Stale => v1::TouchResult::Stale,
            }
            .into(),
            rule: match answer.rule {
                Rule::DeclaredUser => "declared-user",
                Rule::DeclaredBackground => "declared-background",
                Rule::Unmatched => "unmatched",
            }
            .to_owned(),
        }
    }

    pub(super) fn end(&self, tombstone: &Tombstone) -> v1::SessionEnd {
        let end = &tombstone.end;
        v1::SessionEnd {
            reason: reason(end.reason).into(),
            actor: actor(end.actor).into(),
            actor_id: end.actor_id.to_string(),
            end_time: Some(self.timestamp(end.at)),
            note: end.note.to_string(),
            successor_ref: String::new(),
        }
    }

    /// The end as `ErrorInfo` metadata: the enum values' names without their prefix, the time as RFC 3339.
    pub(super) fn end_metadata(&self, tombstone: &Tombstone) -> Vec<(String, String)> {
        let end = &tombstone.end;
        let time = humantime::format_rfc3339_millis(self.0.wall(end.at)).to_string();
        let short = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_owned();
        let mut metadata = vec![
            (
                "reason".to_owned(),
                short(reason(end.reason).as_str_name(), "END_REASON_"),
            ),
            ("actor".to_owned(), short(actor(end.actor).as_str_name(), "ACTOR_")),
            ("end_time".to_owned(), time),
        ];
        for (key, value) in [("actor_id", &end.actor_id), ("note", &end.note)] {
            if !value.is_empty() {
                metadata.push((key.to_owned(), value.to_string()));
            }
        }
        metadata
    }

    pub(super) fn snapshot(&self, session_id: Option<&String>, report: &Report) -> v1::Snapshot {
        let identity = report.details.as_ref().map(|details| details.origin.identity.clone());
        v1::Snapshot {
            session: Some(event_session(
                report.status.reference,
                session_id,
                &identity.unwrap_or_default(),
                report.status.version,
            )),
            status: Some(self.status(&report.status)),
            end: report
                .details
                .as_ref()
                .and_then(|details| details.end.as_deref())
                .map(|tombstone| self.end(tombstone)),
            predecessor_ref: String::new(),
        }
    }

    pub(super) fn event(&self, session_id: Option<&String>, event: &Event) -> v1::watch_expiry_response::Message {
        use v1::watch_expiry_response::Message;

        let session = Some(event_session(event.session, session_id, &event.identity, event.version));
        match &event.what {
            Happening::Warning {
                limit: near,
                point,
                expire,
                can_extend,
            } => Message::Warning(v1::Warning {
                session,
                limit: limit(*near).into(),
                point: Some(duration(*point)),
                expire_time: Some(self.timestamp(*expire)),
                expires_in: Some(duration(expire.since(event.at))),
                can_extend: *can_extend,
            }),
            Happening::Cleared {
                limit: near,
                cause,
                expire,
            } => Message::Cleared(v1::Cleared {
                session,
                limit: limit(*near).into(),
                cause: match cause {
                    Cause::Touched => v1::ClearedCause::Touched,
                    Cause::Extended => v1::ClearedCause::Extended,
                }
                .into(),
                expire_time: Some(self.timestamp(*expire)),
                expires_in: Some(duration(expire.since(event.at))),
            }),
            Happening::Ended(tombstone) => Message::Ended(v1::Ended {
                session,
                end: Some(self.end(tombstone)),
                create_time: Some(self.timestamp(tombstone.origin.created)),
                last_activity_time: Some(self.timestamp(tombstone.last_activity)),
            }),
        }
    }
}

fn event_session(
    reference: SessionRef,
    session_id: Option<&String>,
    identity: &Identity,
    version: u32,
) -> v1::EventSession {
    v1::EventSession {
        session_ref: reference.to_string(),
        session_id: session_id.cloned().unwrap_or_default(),
        tenant: identity.tenant().to_owned(),
        subject: identity.subject().to_owned(),
        labels: identity.labels(),
        version: version.into(),
    }
}

pub(super) fn limit(limit: Limit) -> v1::Limit {
    match limit {
        Limit::Idle => v1::Limit::Idle,
        Limit::Absolute => v1::Limit::Absolute,
    }
}

fn reason(reason: EndReason) -> v1::EndReason {
    match reason {
        EndReason::IdleTimeout => v1::EndReason::IdleTimeout,
        EndReason::AbsoluteTimeout => v1::EndReason::AbsoluteTimeout,
        EndReason::Logout => v1::EndReason::Logout,
        EndReason::Revoked => v1::EndReason::Revoked,
    }
}

fn actor(actor: Actor) -> v1::Actor {
    match actor {
        Actor::User => v1::Actor::User,
        Actor::Admin => v1::Actor::Admin,
        Actor::Policy => v1::Actor::Policy,
        Actor::System => v1::Actor::System,
    }
}

pub(super) fn duration(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}
