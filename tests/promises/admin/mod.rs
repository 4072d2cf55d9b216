//! What operators and support staff get: lists, ends of many, explanations, numbers; and who may not have them.

mod bad_input;
mod end_many;
mod explain;
mod list;
mod policies;
mod stats;
mod who_may;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use crate::support::*;
use session_sidecar::{
    rpc::{Caller, VerbGroup, proto::v1},
    state::SessionRef,
};
use tonic::{Code, Status};
use v1::{EndReason, SessionState, explain_session_request::Target, history_entry::Entry};

const PRESENCE: &str = "[policy.default]\npresence = \"on\"\n";

fn of(subject: &str) -> Option<v1::SessionFilter> {
    Some(v1::SessionFilter {
        subject: subject.to_owned(),
        ..Default::default()
    })
}

async fn list_with(
    admin: &mut Admin,
    change: impl FnOnce(&mut v1::ListSessionsRequest),
) -> Result<v1::ListSessionsResponse, Status> {
    let mut request = v1::ListSessionsRequest {
        filter: Some(v1::SessionFilter::default()),
        ..Default::default()
    };
    change(&mut request);
    admin.list_sessions(request).await.map(tonic::Response::into_inner)
}

/// The refs that a filter finds, in order.
async fn refs(admin: &mut Admin, filter: v1::SessionFilter) -> Vec<String> {
    let listed = list_with(admin, |list| list.filter = Some(filter))
        .await
        .expect("listed");
    assert!(listed.next_page_token.is_empty());
    listed
        .sessions
        .iter()
        .map(|session| status(session).session_ref.clone())
        .collect()
}

async fn end_with(
    admin: &mut Admin,
    change: impl FnOnce(&mut v1::EndSessionsRequest),
) -> Result<v1::EndSessionsResponse, Status> {
    let mut request = v1::EndSessionsRequest::default();
    change(&mut request);
    admin.end_sessions(request).await.map(tonic::Response::into_inner)
}

async fn explain(admin: &mut Admin, target: Target) -> v1::ExplainSessionResponse {
    let request = v1::ExplainSessionRequest {
        target: Some(target),
        ..Default::default()
    };
    admin.explain_session(request).await.expect("explained").into_inner()
}

/// The explanation of the one session that has this id.
async fn explain_one(admin: &mut Admin, name: &str) -> v1::SessionExplanation {
    let explained = explain(admin, Target::SessionId(id(name))).await;
    assert_eq!(explained.explanations.len(), 1);
    explained.explanations.into_iter().next().expect("one")
}

async fn stats(admin: &mut Admin) -> v1::GetStatsResponse {
    let request = v1::GetStatsRequest::default();
    admin.get_stats(request).await.expect("counted").into_inner()
}

fn states(stats: &v1::GetStatsResponse) -> [u64; 3] {
    let of = |wanted: SessionState| {
        let found = stats.states.iter().find(|count| count.state() == wanted);
        found.map_or(0, |count| count.session_count)
    };
    [SessionState::Active, SessionState::Expiring, SessionState::Ended].map(of)
}

fn ends(stats: &v1::GetStatsResponse, reason: EndReason) -> u64 {
    let found = stats.reasons.iter().find(|count| count.reason() == reason);
    found.expect("every reason is told").session_count
}

/// A history in short words.
fn words(explanation: &v1::SessionExplanation) -> Vec<String> {
    explanation
        .history
        .iter()
        .map(|entry| entry_word(entry.entry.as_ref().expect("an entry")))
        .collect()
}

fn entry_word(entry: &Entry) -> String {
    let lower = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_lowercase();
    match entry {
        Entry::Warning(warning) => format!(
            "warning {} {}s to {}",
            lower(warning.limit().as_str_name(), "LIMIT_"),
            span(warning.point).as_secs(),
            warning.watcher_count
        ),
        Entry::Cleared(cleared) => format!(
            "cleared {} {} to {}",
            lower(cleared.limit().as_str_name(), "LIMIT_"),
            lower(cleared.cause().as_str_name(), "CLEARED_CAUSE_"),
            cleared.watcher_count
        ),
        Entry::Extended(extended) => format!("extended {}s", span(extended.granted_duration).as_secs()),
        Entry::HoldStarted(hold) => format!("hold {} started: {}", hold.hold_id, hold.purpose),
        Entry::HoldEnded(hold) => {
            let how = if hold.released { "released" } else { "lapsed" };
            format!("hold {} {how} after {} renewals", hold.hold_id, hold.renewal_count)
        }
        Entry::Rotated(rotated) => {
            let way = if rotated.is_successor { "to" } else { "from" };
            let anew = if rotated.reauthenticated { " anew" } else { "" };
            format!("rotated {way}{anew}")
        }
        Entry::PolicyChanged(changed) => format!("policy revision {}", changed.policy_revision),
        Entry::UnenforcedEnd(end) => format!("unenforced {}", lower(end.reason().as_str_name(), "END_REASON_")),
        Entry::Ended(ended) => {
            let reason = ended.end.as_ref().expect("an end").reason();
            let reason = lower(reason.as_str_name(), "END_REASON_");
            format!("ended {reason} to {}", ended.watcher_count)
        }
    }
}

async fn background(client: &mut Client, name: &str) {
    touch_with(client, name, |touch| touch.activity = v1::Activity::Background.into())
        .await
        .expect("ignored");
}
