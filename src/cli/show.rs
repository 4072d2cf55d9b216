//! Answers, for people or as JSON.

use anyhow::Context as _;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};

use crate::rpc::proto::{DESCRIPTORS, v1};

/// The canonical JSON of a message, on one line. It leaves out what is zero or empty.
pub(super) fn json<M: Message>(message: &M, name: &str) -> anyhow::Result<String> {
    json_with(message, name, &SerializeOptions::new())
}

/// The same with zeros: for counts, that a script wants to read as numbers.
pub(super) fn json_with_zeros<M: Message>(message: &M, name: &str) -> anyhow::Result<String> {
    json_with(message, name, &SerializeOptions::new().skip_default_fields(false))
}

fn json_with<M: Message>(message: &M, name: &str, options: &SerializeOptions) -> anyhow::Result<String> {
    let pool = DescriptorPool::decode(DESCRIPTORS)?;
    let descriptor = pool.get_message_by_name(name).context("no such message")?;
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
    let mut bytes = Vec::new();
    dynamic.serialize_with_options(&mut serde_json::Serializer::new(&mut bytes), options)?;
    Ok(String::from_utf8(bytes)?)
}

pub(super) fn status(status: &v1::SessionStatus) -> String {
    let state = status.state().as_str_name().trim_start_matches("SESSION_STATE_");
    let mut line = format!("{state} {}", status.session_ref);
    if status.expires_in.is_some() {
        let limit = limit(status.limit());
        let ends = if status.observed_only { "would end" } else { "ends" };
        line += &format!(", {ends} in {} ({limit})", span(status.expires_in.as_ref()));
    }
    if status.alias {
        line += ", named by its former id";
    }
    if status.read_only {
        line += ", for reading only";
    }
    if status.observed_only {
        line += ", only observed";
    }
    if status.may_have_ended {
        line += ", may have ended: ended sessions had to be forgotten early";
    }
    line
}

pub(super) fn session(session: &v1::Session) -> String {
    let mut line = status(&session.status.clone().unwrap_or_default());
    if !session.subject.is_empty() {
        line += &format!(", subject {:?}", session.subject);
    }
    if !session.policy.is_empty() {
        line += &format!(", policy {}", session.policy);
    }
    if !session.authentication_level.is_empty() {
        line += &format!(", authenticated {:?}", session.authentication_level);
    }
    if !session.predecessor_ref.is_empty() {
        line += &format!(", was {}", session.predecessor_ref);
    }
    for held in &session.holds {
        line += &format!(", {}", hold(held));
    }
    if let Some(would_be) = &session.unenforced_end {
        line += &format!(", would have ended: {}", end(would_be));
    }
    if let Some(ended) = &session.end {
        line += &format!(", {}", end(ended));
    }
    line
}

fn hold(hold: &v1::SessionHold) -> String {
    let kind = hold.kind().as_str_name().trim_start_matches("HOLD_KIND_");
    let mut text = format!(
        "hold {:?} ({kind}) for {} more",
        hold.hold_id,
        span(hold.expires_in.as_ref())
    );
    if !hold.purpose.is_empty() {
        text += &format!(", purpose {:?}", hold.purpose);
    }
    text
}

/// The sessions that ended for a new one, a line each.
pub(super) fn superseded(refs: &[String]) -> impl Iterator<Item = String> {
    refs.iter()
        .map(|reference| format!("ended SUPERSEDED {reference}: the subject had too many"))
}

pub(super) fn end(end: &v1::SessionEnd) -> String {
    let mut line = format!(
        "{} by {}",
        end.reason().as_str_name().trim_start_matches("END_REASON_"),
        end.actor().as_str_name().trim_start_matches("ACTOR_"),
    );
    if !end.actor_id.is_empty() {
        line += &format!(" {:?}", end.actor_id);
    }
    line += &format!(" at {}", time(end.end_time.as_ref()));
    if !end.successor_ref.is_empty() {
        line += &format!(", goes on as {}", end.successor_ref);
    }
    if !end.note.is_empty() {
        line += &format!(", note {:?}", end.note);
    }
    line
}

pub(super) fn message(message: &v1::WatchExpiryResponse) -> String {
    use v1::watch_expiry_response::Message;

    let at = time(message.emit_time.as_ref());
    let what = match &message.message {
        None => "?".to_owned(),
        Some(Message::Snapshot(snapshot)) => format!(
            "SNAPSHOT  {}{}{}",
            status(&snapshot.status.clone().unwrap_or_default()),
            whose(snapshot.session.as_ref()),
            if snapshot.predecessor_ref.is_empty() {
                String::new()
            } else {
                format!(", was {}", snapshot.predecessor_ref)
            }
        ),
        Some(Message::SnapshotEnd(end)) => format!("LIVE      after {} snapshots", end.snapshot_count),
        Some(Message::Warning(warning)) => format!(
            "WARNING   {} ends in {} ({}), {}",
            who(warning.session.as_ref()),
            span(warning.expires_in.as_ref()),
            limit(warning.limit()),
            if warning.can_extend {
                "can be extended"
            } else {
                "cannot be extended"
            },
        ),
        Some(Message::Cleared(cleared)) => format!(
            "CLEARED   {} {}, ends in {} now",
            who(cleared.session.as_ref()),
            cleared
                .cause()
                .as_str_name()
                .trim_start_matches("CLEARED_CAUSE_")
                .to_lowercase(),
            span(cleared.expires_in.as_ref()),
        ),
        Some(Message::Ended(ended)) => format!(
            "ENDED     {} {}",
            who(ended.session.as_ref()),
            end(&ended.end.clone().unwrap_or_default()),
        ),
        Some(Message::Heartbeat(_)) => "HEARTBEAT".to_owned(),
        Some(Message::Draining(_)) => "DRAINING  the sidecar is about to stop".to_owned(),
    };
    format!("{at} {what}")
}

/// A duration to a tenth of a second.
pub(super) fn span(duration: Option<&prost_types::Duration>) -> String {
    let duration = duration.copied().unwrap_or_default();
    let tenths = duration.seconds * 10 + i64::from((duration.nanos + 50_000_000) / 100_000_000);
    let (seconds, tenths) = (tenths / 10, tenths % 10);
    if seconds >= 60 {
        let whole = std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        return humantime::format_duration(whole).to_string();
    }
    format!("{seconds}.{tenths}s")
}

pub(super) fn time(timestamp: Option<&prost_types::Timestamp>) -> String {
    let time = timestamp.and_then(|timestamp| std::time::SystemTime::try_from(*timestamp).ok());
    time.map_or_else(
        || "?".to_owned(),
        |time| humantime::format_rfc3339_millis(time).to_string(),
    )
}

pub(super) fn limit(limit: v1::Limit) -> &'static str {
    limit.as_str_name().trim_start_matches("LIMIT_")
}

fn who(session: Option<&v1::EventSession>) -> String {
    let reference = session.map(|session| session.session_ref.as_str()).unwrap_or_default();
    format!("{reference}{}", whose(session))
}

fn whose(session: Option<&v1::EventSession>) -> String {
    match session.map(|session| session.subject.as_str()) {
        None | Some("") => String::new(),
        Some(subject) => format!(" (subject {subject:?})"),
    }
}
