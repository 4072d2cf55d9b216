//! From the core's words to the wire's.

use std::time::Duration;

use super::proto::v1;
use crate::{
    event::Event,
    sessions::{Details, Report, Sessions, State, Status, TouchAnswer, TouchResult},
    state::{
        Actor, Cause, Clamp, EndReason, Happening, Hold, HoldKind, Identity, Limit, Limits, Moment, SessionRef,
        Tombstone,
    },
    time::{Clock, Time},
};

/// Writes answers; the clock turns moments into timestamps.
#[derive(Clone)]
pub(super) struct Writer {
    clock: Clock,
    /// Where answers come from.
    scope: v1::KnowledgeScope,
}

impl Writer {
    pub(super) fn new(sessions: &Sessions) -> Self {
        Self {
            clock: sessions.clock().clone(),
            scope: if sessions.is_shared() {
                v1::KnowledgeScope::Store
            } else {
                v1::KnowledgeScope::Memory
            },
        }
    }

    pub(super) fn timestamp(&self, at: Time) -> prost_types::Timestamp {
        self.clock.wall(at).into()
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
            scope: if status.local {
                v1::KnowledgeScope::Local
            } else {
                self.scope
            }
            .into(),
            may_have_ended: status.may_have_ended,
            alias: status.alias,
            read_only: status.read_only,
            observed_only: status.observed_only,
        }
    }

    pub(super) fn session(&self, tenant: &str, report: &Report) -> v1::Session {
        let status = Some(self.status(&report.status));
        let Some(details) = &report.details else {
            return v1::Session {
                status,
                tenant: tenant.to_owned(),
                ..Default::default()
            };
        };
        let Details { origin, limits, .. } = details;
        let identity = &origin.identity;
        let now = report.status.now;
        v1::Session {
            status,
            tenant: tenant.to_owned(),
            subject: identity.subject().to_owned(),
            policy: limits.policy.to_string(),
            idle_timeout: (limits.idle_timeout < Limits::NEVER).then(|| duration(limits.idle_timeout)),
            absolute_timeout: Some(duration(limits.absolute_timeout)),
            create_time: Some(self.timestamp(origin.created)),
            authentication_time: Some(self.timestamp(origin.authenticated)),
            last_activity_time: Some(self.timestamp(details.last_activity)),
            last_activity_accuracy: (!details.accuracy.is_zero()).then(|| duration(details.accuracy)),
            idle_expire_time: (limits.idle_timeout < Limits::NEVER).then(|| self.timestamp(details.idle_deadline)),
            absolute_expire_time: Some(self.timestamp(origin.absolute_deadline(limits))),
            extensions: details.extensions,
            labels: identity.labels(),
            end: details.end.as_deref().map(|tombstone| self.end(tombstone)),
            policy_revision: limits.revision,
            holds: details.holds.iter().map(|hold| self.hold(hold, now)).collect(),
            authentication_level: identity.authentication_level().to_owned(),
            presence_expire_time: details.presence_deadline.map(|at| self.timestamp(at)),
            predecessor_ref: identity.predecessor().map(|name| name.to_string()).unwrap_or_default(),
            unenforced_end: details.unenforced.map(|(limit, at)| v1::SessionEnd {
                reason: reason(limit.into()).into(),
                actor: v1::Actor::Policy.into(),
                end_time: Some(self.timestamp(at)),
                ..Default::default()
            }),
        }
    }

    fn hold(&self, hold: &Hold, now: Time) -> v1::SessionHold {
        v1::SessionHold {
            hold_id: hold.id.to_string(),
            kind: hold_kind(hold.kind).into(),
            purpose: hold.purpose.to_string(),
            start_time: Some(self.timestamp(hold.started)),
            expire_time: Some(self.timestamp(hold.until)),
            expires_in: Some(duration(hold.until.since(now))),
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
                TouchResult::Pending => v1::TouchResult::Pending,
            }
            .into(),
            rule: answer.rule.as_str().to_owned(),
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
            successor_ref: tombstone
                .successor
                .map(|next| next.reference.to_string())
                .unwrap_or_default(),
        }
    }

    /// The end as `ErrorInfo` metadata: the enum values' names without their prefix, the time as RFC 3339.
    pub(super) fn end_metadata(&self, tombstone: &Tombstone) -> Vec<(String, String)> {
        let end = &tombstone.end;
        let time = humantime::format_rfc3339_millis(self.clock.wall(end.at)).to_string();
        let short = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_owned();
        let mut metadata = vec![
            (
                "reason".to_owned(),
                short(reason(end.reason).as_str_name(), "END_REASON_"),
            ),
            ("actor".to_owned(), short(actor(end.actor).as_str_name(), "ACTOR_")),
            ("end_time".to_owned(), time),
        ];
        if let Some(succession) = tombstone.successor {
            metadata.push(("successor_ref".to_owned(), succession.reference.to_string()));
        }
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
                &identity.clone().unwrap_or_default(),
                report.status.version,
            )),
            status: Some(self.status(&report.status)),
            end: report
                .details
                .as_ref()
                .and_then(|details| details.end.as_deref())
                .map(|tombstone| self.end(tombstone)),
            predecessor_ref: identity
                .as_ref()
                .and_then(Identity::predecessor)
                .map(|name| name.to_string())
                .unwrap_or_default(),
        }
    }

    pub(super) fn event(&self, session_id: Option<&String>, event: &Event) -> v1::watch_expiry_response::Message {
        use v1::watch_expiry_response::Message;

        let session = Some(event_session(event.session, session_id, &event.identity, event.version));
        match &event.what {
            Happening::Succeeded { predecessor, record } => {
                let status = Status::live(event.session, &record.view(), Moment::at(event.at));
                Message::Snapshot(v1::Snapshot {
                    session,
                    status: Some(self.status(&status)),
                    end: None,
                    predecessor_ref: predecessor.to_string(),
                })
            }
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
                cause: cleared_cause(*cause).into(),
                expire_time: Some(self.timestamp(*expire)),
                expires_in: Some(duration(expire.since(event.at))),
            }),
            Happening::Ended(tombstone) => Message::Ended(v1::Ended {
                session,
                end: Some(self.end(tombstone)),
                create_time: Some(self.timestamp(tombstone.origin.created)),
                last_activity_time: Some(self.timestamp(tombstone.last_activity)),
            }),
            // Not told: a heartbeat in its place would only say that the stream is alive.
            _ => Message::Heartbeat(v1::Heartbeat {}),
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
        Limit::Presence => v1::Limit::Presence,
    }
}

pub(super) fn reason(reason: EndReason) -> v1::EndReason {
    match reason {
        EndReason::IdleTimeout => v1::EndReason::IdleTimeout,
        EndReason::AbsoluteTimeout => v1::EndReason::AbsoluteTimeout,
        EndReason::Logout => v1::EndReason::Logout,
        EndReason::Revoked => v1::EndReason::Revoked,
        EndReason::BrowserClosed => v1::EndReason::BrowserClosed,
        EndReason::Superseded => v1::EndReason::Superseded,
        EndReason::Rotated => v1::EndReason::Rotated,
    }
}

pub(super) fn cleared_cause(cause: Cause) -> v1::ClearedCause {
    match cause {
        Cause::Touched => v1::ClearedCause::Touched,
        Cause::Extended => v1::ClearedCause::Extended,
        Cause::Held => v1::ClearedCause::Held,
        Cause::Released => v1::ClearedCause::Released,
        Cause::Rotated => v1::ClearedCause::Rotated,
        Cause::PolicyChanged => v1::ClearedCause::PolicyChanged,
        Cause::NotEnforced => v1::ClearedCause::NotEnforced,
    }
}

pub(super) fn hold_kind(kind: HoldKind) -> v1::HoldKind {
    match kind {
        HoldKind::Work => v1::HoldKind::Work,
        HoldKind::Presence => v1::HoldKind::Presence,
    }
}

pub(super) fn clamp(clamp: Option<Clamp>) -> v1::HoldClamp {
    match clamp {
        None => v1::HoldClamp::Unspecified,
        Some(Clamp::MaxTtl) => v1::HoldClamp::MaxTtl,
        Some(Clamp::Budget) => v1::HoldClamp::Budget,
        Some(Clamp::Absolute) => v1::HoldClamp::Absolute,
    }
}

pub(super) fn actor(actor: Actor) -> v1::Actor {
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
