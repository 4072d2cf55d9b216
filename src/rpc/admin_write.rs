//! From the core's words to the wire's, for the admin service.

use std::sync::atomic::Ordering;

use super::{
    proto::v1::{self, history_entry::Entry},
    write::{Writer, cleared_cause, duration, hold_kind, limit, reason},
};
use crate::{
    compliance::{self, Kept},
    event::Event,
    sessions::{Explanation, Sessions, Stats},
    state::{Happening, Limits, Policy, Tombstone},
    store::Tally,
    time::Time,
};

/// What is kept of a session's life.
pub(super) fn explanation(writer: &Writer, tenant: &str, explanation: &Explanation) -> v1::SessionExplanation {
    let story = &explanation.story;
    let mut history: Vec<_> = story
        .events
        .iter()
        .filter_map(|event| entry(writer, event, explanation.began_reauthenticated))
        .collect();
    let details = explanation.report.details.as_ref();
    if let Some(tombstone) = details.and_then(|details| details.end.as_deref()) {
        history.extend(end(writer, tombstone));
    }
    v1::SessionExplanation {
        session: Some(writer.session(tenant, &explanation.report)),
        summary: explanation.summary.clone(),
        history,
        history_dropped_count: story.dropped,
        tallies: story.tallies.iter().map(|tally| rule_tally(writer, tally)).collect(),
    }
}

fn at(writer: &Writer, at: Time, entry: Entry) -> v1::HistoryEntry {
    v1::HistoryEntry {
        time: Some(writer.timestamp(at)),
        entry: Some(entry),
    }
}

/// One thing that happened; `None` if it is nothing for a history.
fn entry(writer: &Writer, event: &Event, began_reauthenticated: Option<bool>) -> Option<v1::HistoryEntry> {
    let watcher_count = event.told.load(Ordering::Relaxed);
    let mut when = event.at;
    let entry = match &event.what {
        Happening::Warning {
            limit: near,
            point,
            expire,
            ..
        } => Entry::Warning(v1::HistoryWarning {
            limit: limit(*near).into(),
            point: Some(duration(*point)),
            expire_time: Some(writer.timestamp(*expire)),
            watcher_count,
        }),
        Happening::Cleared {
            limit: near,
            cause,
            expire,
        } => Entry::Cleared(v1::HistoryCleared {
            limit: limit(*near).into(),
            cause: cleared_cause(*cause).into(),
            expire_time: Some(writer.timestamp(*expire)),
            watcher_count,
        }),
        Happening::Extended { granted, clamped } => Entry::Extended(v1::HistoryExtended {
            granted_duration: Some(duration(*granted)),
            clamped_by: if *clamped {
                v1::Limit::Absolute
            } else {
                v1::Limit::Unspecified
            }
            .into(),
        }),
        Happening::HoldStarted(hold) => Entry::HoldStarted(v1::HistoryHoldStarted {
            hold_id: hold.id.to_string(),
            kind: hold_kind(hold.kind).into(),
            purpose: hold.purpose.to_string(),
            granted_ttl: Some(duration(hold.until.since(hold.started))),
        }),
        Happening::HoldEnded { hold, at, released } => {
            // A lapse is noticed later than it is.
            when = *at;
            Entry::HoldEnded(v1::HistoryHoldEnded {
                hold_id: hold.id.to_string(),
                kind: hold_kind(hold.kind).into(),
                released: *released,
                renewal_count: hold.renewals,
            })
        }
        Happening::Succeeded { predecessor, .. } => Entry::Rotated(v1::HistoryRotated {
            other_ref: predecessor.to_string(),
            is_successor: false,
            reauthenticated: began_reauthenticated.unwrap_or(false),
        }),
        Happening::PolicyAdopted { revision } => Entry::PolicyChanged(v1::HistoryPolicyChanged {
            policy_revision: *revision,
        }),
        Happening::UnenforcedEnd { limit, at } => {
            when = *at;
            Entry::UnenforcedEnd(v1::HistoryUnenforcedEnd {
                reason: reason((*limit).into()).into(),
            })
        }
        Happening::Ended(_) | Happening::ExtensionsReset | Happening::HoldRenewed | Happening::InputReported => {
            return None;
        }
    };
    Some(at(writer, when, entry))
}

/// The end, and before it what it goes on as, if it does.
fn end(writer: &Writer, tombstone: &Tombstone) -> impl Iterator<Item = v1::HistoryEntry> {
    let rotated = tombstone.successor.map(|next| {
        Entry::Rotated(v1::HistoryRotated {
            other_ref: next.reference.to_string(),
            is_successor: true,
            reauthenticated: next.reauthenticated,
        })
    });
    let ended = Entry::Ended(v1::HistoryEnded {
        end: Some(writer.end(tombstone)),
        watcher_count: tombstone.told.load(Ordering::Relaxed),
    });
    let entries = rotated.into_iter().chain([ended]);
    let entries: Vec<_> = entries.map(|entry| at(writer, tombstone.end.at, entry)).collect();
    entries.into_iter()
}

fn rule_tally(writer: &Writer, tally: &Tally) -> v1::RuleTally {
    v1::RuleTally {
        rule: tally.rule.to_string(),
        counted: tally.counted,
        touch_count: tally.count.into(),
        first_time: Some(writer.timestamp(tally.first)),
        last_time: Some(writer.timestamp(tally.last)),
    }
}

/// A tenant's numbers: every state and reason, also those that nobody has, so that a reader need not know them.
pub(super) fn stats(stats: &Stats) -> v1::GetStatsResponse {
    use crate::state::EndReason;

    let ended = stats.ended.iter().map(|(_, count)| count).sum();
    let states = [
        (v1::SessionState::Active, stats.active),
        (v1::SessionState::Expiring, stats.expiring),
        (v1::SessionState::Ended, ended),
    ];
    let reasons = [
        EndReason::IdleTimeout,
        EndReason::AbsoluteTimeout,
        EndReason::BrowserClosed,
        EndReason::Logout,
        EndReason::Revoked,
        EndReason::Superseded,
        EndReason::Rotated,
    ];
    let of = |wanted: EndReason| stats.ended.iter().find(|(known, _)| *known == wanted);
    v1::GetStatsResponse {
        states: states
            .into_iter()
            .map(|(state, session_count)| v1::StateCount {
                state: state.into(),
                session_count,
            })
            .collect(),
        reasons: reasons
            .into_iter()
            .map(|wanted| v1::ReasonCount {
                reason: reason(wanted).into(),
                session_count: of(wanted).map_or(0, |(_, count)| *count),
            })
            .collect(),
        ghost_session_count: stats.ghosts,
        working_session_count: stats.working,
        unenforced_end_count: stats.unenforced,
    }
}

/// The policies as they are in force, each held against the standards.
pub(super) fn policies(sessions: &Sessions) -> Vec<v1::PolicyInfo> {
    let all = sessions.policies().all().into_iter();
    let each = all.map(|(policy, active)| {
        let elsewhere = sessions.policy_elsewhere(&policy.limits.policy);
        v1::PolicyInfo {
            elsewhere: elsewhere
                .into_iter()
                .map(|(revision, sidecar_count)| v1::PolicyElsewhere {
                    missing: revision.is_none(),
                    revision: revision.unwrap_or(0),
                    sidecar_count,
                })
                .collect(),
            ..policy_info(&policy, active, kept(sessions, &policy))
        }
    });
    each.collect()
}

fn kept(sessions: &Sessions, policy: &Policy) -> Kept {
    sessions
        .ahead(policy)
        .map_or(Kept::Memory, |window| Kept::Shared { window, in_force: true })
}

fn policy_info(policy: &Policy, active: bool, kept: Kept) -> v1::PolicyInfo {
    let limits = &policy.limits;
    let terms = compliance::worst_case(policy, kept);
    v1::PolicyInfo {
        name: limits.policy.to_string(),
        revision: limits.revision,
        active,
        enforced: limits.enforced,
        idle_timeout: (limits.idle_timeout < Limits::NEVER).then(|| duration(limits.idle_timeout)),
        absolute_timeout: Some(duration(limits.absolute_timeout)),
        toml: compliance::toml(policy),
        worst_case_duration: Some(duration(compliance::total(&terms))),
        worst_case: terms
            .into_iter()
            .map(|term| v1::WorstCaseTerm {
                name: term.name,
                duration: Some(duration(term.duration)),
                explanation: term.explanation,
            })
            .collect(),
        findings: compliance::lint(policy)
            .into_iter()
            .map(|finding| v1::LintFinding {
                source: finding.source,
                key: finding.key,
                problem: finding.problem,
            })
            .collect(),
        elsewhere: Vec::new(),
    }
}
