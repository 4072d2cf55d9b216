//! From the wire's words to the core's: everything that comes from outside is bounded here, before it reaches a clock or a
//! table. A refusal names the field and the limit, never the value: it may be a session id.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::{CallError, proto::v1};
use crate::sessions::State;
use crate::state::{Activity, Actor, EndReason, Hints, HoldKind, SessionRef, Visibility};

/// The longest duration that is believed: ten years.
const LONGEST: Duration = Duration::from_secs(3653 * 24 * 3600);

type Read<T> = Result<T, CallError>;

/// A tenant's name.
pub(super) fn tenant<'a>(field: &str, text: &'a str) -> Read<&'a str> {
    visible_ascii(field, text, 0, 128)
}

/// A session id. How short it may be is the policy's affair.
pub(super) fn session_id<'a>(field: &str, text: &'a str) -> Read<&'a str> {
    if text.is_empty() {
        return Err(CallError::invalid(
            field,
            "is required: the session's id, 16 to 256 bytes of visible ASCII",
        ));
    }
    visible_ascii(field, text, 1, 256)
}

/// A ref.
pub(super) fn session_ref(field: &str, text: &str) -> Read<SessionRef> {
    text.parse()
        .map_err(|error| CallError::invalid(field, format!("is not a session_ref: it {error}")))
}

/// A request id, if there is one.
pub(super) fn request_id<'a>(field: &str, text: &'a str) -> Read<Option<&'a str>> {
    Ok(Some(visible_ascii(field, text, 0, 128)?).filter(|text| !text.is_empty()))
}

/// Text for people: bounded, without control characters.
pub(super) fn text<'a>(field: &str, text: &'a str, longest: usize) -> Read<&'a str> {
    if text.len() > longest {
        return Err(CallError::invalid(
            field,
            format!("is {} bytes long; at most {longest} are allowed", text.len()),
        ));
    }
    if text.chars().any(char::is_control) {
        return Err(CallError::invalid(field, "has a control character; remove it"));
    }
    Ok(text)
}

/// Up to eight labels.
pub(super) fn labels(field: &str, labels: BTreeMap<String, String>) -> Read<BTreeMap<String, String>> {
    const MOST: usize = 8;
    if labels.len() > MOST {
        let problem = format!("has {} labels; at most {MOST} are allowed", labels.len());
        return Err(CallError::invalid(field, problem));
    }
    for (key, value) in &labels {
        let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-./".contains(&byte);
        if key.is_empty() || key.len() > 63 || !key.bytes().all(known) {
            let problem = "has a key that is not 1 to 63 bytes of a-z, 0-9, `_`, `-`, `.`, `/`";
            return Err(CallError::invalid(field, problem));
        }
        text(&format!("{field}.{key}"), value, 128)?;
    }
    Ok(labels)
}

/// A duration that may be zero; unset is zero.
pub(super) fn ago(field: &str, duration: Option<prost_types::Duration>) -> Read<Duration> {
    duration.map_or(Ok(Duration::ZERO), |duration| {
        bounded(field, &duration, Duration::ZERO, LONGEST)
    })
}

/// A duration over zero, if there is one.
pub(super) fn span(field: &str, duration: Option<prost_types::Duration>) -> Read<Option<Duration>> {
    let shortest = Duration::from_nanos(1);
    duration
        .map(|duration| bounded(field, &duration, shortest, LONGEST))
        .transpose()
}

/// A duration within bounds.
pub(super) fn bounded(
    field: &str,
    duration: &prost_types::Duration,
    shortest: Duration,
    longest: Duration,
) -> Read<Duration> {
    let range = || {
        let shortest = match shortest.as_nanos() {
            0 => "0 s".to_owned(),
            1 => "over 0 s".to_owned(),
            _ => humantime::format_duration(shortest).to_string(),
        };
        let longest = if longest == LONGEST {
            "10 years".to_owned()
        } else {
            humantime::format_duration(longest).to_string()
        };
        CallError::invalid(field, format!("must be a duration from {shortest} to {longest}"))
    };
    let seconds = u64::try_from(duration.seconds).map_err(|_| range())?;
    let nanos = u32::try_from(duration.nanos).map_err(|_| range())?;
    if nanos >= 1_000_000_000 {
        return Err(CallError::invalid(field, "has nanos outside 0 to 999,999,999"));
    }
    let duration = Duration::new(seconds.min(LONGEST.as_secs() + 1), nanos);
    if duration < shortest || duration > longest {
        return Err(range());
    }
    Ok(duration)
}

/// The activity kind of a touch.
pub(super) fn activity(field: &str, number: i32) -> Read<Activity> {
    Ok(match known(field, number, v1::Activity::try_from(number))? {
        v1::Activity::Unspecified => Activity::Unspecified,
        v1::Activity::User => Activity::User,
        v1::Activity::Background => Activity::Background,
    })
}

/// What is known of the request behind a touch.
pub(super) fn hints<'a>(prefix: &str, hints: &'a v1::TouchHints) -> Read<Hints<'a>> {
    let number = hints.page_visibility;
    let visibility = known(
        &format!("{prefix}page_visibility"),
        number,
        v1::PageVisibility::try_from(number),
    )?;
    let header = |name: &str, text: &'a str, longest: usize| header(&format!("{prefix}{name}"), text, longest);
    let path = header("path", &hints.path, 2048)?;
    Ok(Hints {
        host: header("host", &hints.host, 255)?,
        method: header("method", &hints.method, 32)?,
        path: path.split_once('?').map_or(path, |(path, _)| path),
        sec_fetch_user: header("sec_fetch_user", &hints.sec_fetch_user, 64)?,
        sec_fetch_mode: header("sec_fetch_mode", &hints.sec_fetch_mode, 64)?,
        sec_fetch_dest: header("sec_fetch_dest", &hints.sec_fetch_dest, 64)?,
        sec_purpose: header("sec_purpose", &hints.sec_purpose, 64)?,
        visibility: match visibility {
            v1::PageVisibility::Unspecified => Visibility::Unspecified,
            v1::PageVisibility::Visible => Visibility::Visible,
            v1::PageVisibility::Hidden => Visibility::Hidden,
        },
        input_report: hints.input_report,
    })
}

/// A piece of a request, as it was sent: visible ASCII and spaces.
fn header<'a>(field: &str, text: &'a str, longest: usize) -> Read<&'a str> {
    if text.len() > longest {
        let problem = format!("is {} bytes long; at most {longest} are allowed", text.len());
        return Err(CallError::invalid(field, problem));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
        let problem = "has a byte that is not visible ASCII or a space (0x20 to 0x7e)";
        return Err(CallError::invalid(field, problem));
    }
    Ok(text)
}

/// A hold's id.
pub(super) fn hold_id<'a>(field: &str, text: &'a str) -> Read<&'a str> {
    if text.is_empty() {
        let problem = "is required: the owner's own id of the hold, 1 to 64 bytes of visible ASCII";
        return Err(CallError::invalid(field, problem));
    }
    visible_ascii(field, text, 1, 64)
}

/// A hold's kind.
pub(super) fn hold_kind(field: &str, number: i32) -> Read<HoldKind> {
    match known(field, number, v1::HoldKind::try_from(number))? {
        v1::HoldKind::Unspecified => Err(CallError::invalid(
            field,
            "is required: HOLD_KIND_WORK or HOLD_KIND_PRESENCE",
        )),
        v1::HoldKind::Work => Ok(HoldKind::Work),
        v1::HoldKind::Presence => Ok(HoldKind::Presence),
    }
}

/// How strong an authentication was, or empty.
pub(super) fn authentication_level<'a>(field: &str, text: &'a str) -> Read<&'a str> {
    visible_ascii(field, text, 0, 64)
}

/// The reason of an end, `usual` if it is not said, and the actor.
pub(super) fn end(reason: i32, actor: i32, usual: EndReason) -> Read<(EndReason, Actor)> {
    let reason = match known("reason", reason, v1::EndReason::try_from(reason))? {
        v1::EndReason::Unspecified => usual,
        v1::EndReason::Logout => EndReason::Logout,
        v1::EndReason::Revoked => EndReason::Revoked,
        _ => {
            let problem = "must be END_REASON_LOGOUT or END_REASON_REVOKED: nobody can command the others";
            return Err(CallError::invalid("reason", problem));
        }
    };
    let actor = match known("actor", actor, v1::Actor::try_from(actor))? {
        v1::Actor::Unspecified if reason == EndReason::Logout => Actor::User,
        v1::Actor::Unspecified | v1::Actor::Admin => Actor::Admin,
        v1::Actor::User => Actor::User,
        v1::Actor::Policy => Actor::Policy,
        v1::Actor::System => Actor::System,
    };
    Ok((reason, actor))
}

/// Which kinds of events: warnings, withdrawals, ends.
pub(super) fn kinds(numbers: &[i32]) -> Read<[bool; 3]> {
    if numbers.is_empty() {
        return Ok([true; 3]);
    }
    let mut kinds = [false; 3];
    for (place, number) in numbers.iter().enumerate() {
        let field = format!("kinds[{place}]");
        match known(&field, *number, v1::EventKind::try_from(*number))? {
            v1::EventKind::Unspecified => {
                return Err(CallError::invalid(
                    field,
                    "is unspecified; leave `kinds` empty to get all",
                ));
            }
            v1::EventKind::Warning => kinds[0] = true,
            v1::EventKind::Cleared => kinds[1] = true,
            v1::EventKind::Ended => kinds[2] = true,
        }
    }
    Ok(kinds)
}

/// The states of a filter.
pub(super) fn states(field: &str, numbers: &[i32]) -> Read<Vec<State>> {
    let mut states = Vec::new();
    for (place, number) in numbers.iter().enumerate() {
        let field = format!("{field}[{place}]");
        let state = match known(&field, *number, v1::SessionState::try_from(*number))? {
            v1::SessionState::Active => State::Active,
            v1::SessionState::Expiring => State::Expiring,
            v1::SessionState::Ended => State::Ended,
            v1::SessionState::Unspecified | v1::SessionState::Unknown => {
                let problem = "must be ACTIVE, EXPIRING or ENDED; leave `states` empty for live sessions";
                return Err(CallError::invalid(field, problem));
            }
        };
        if !states.contains(&state) {
            states.push(state);
        }
    }
    Ok(states)
}

/// How many on a page: 100 if it is not said.
pub(super) fn page_size(field: &str, size: Option<i32>) -> Read<usize> {
    const USUAL: i32 = 100;
    const MOST: i32 = 1000;
    match size.unwrap_or(USUAL) {
        size @ 1..=MOST => Ok(usize::try_from(size).unwrap_or(1)),
        size => Err(CallError::invalid(field, format!("is {size}; 1 to {MOST} are allowed"))),
    }
}

/// A point in time, if there is one.
pub(super) fn timestamp(field: &str, at: Option<prost_types::Timestamp>) -> Read<Option<SystemTime>> {
    // The years 1 to 9999, as the type itself says.
    const YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
    let Some(at) = at else { return Ok(None) };
    if !YEARS.contains(&at.seconds) || !(0..1_000_000_000).contains(&at.nanos) {
        let problem = "must be a time in the years 1 to 9999, with nanos from 0 to 999,999,999";
        return Err(CallError::invalid(field, problem));
    }
    Ok(SystemTime::try_from(at).ok())
}

fn known<T>(field: &str, number: i32, value: Result<T, prost::UnknownEnumValue>) -> Read<T> {
    value.map_err(|_| CallError::invalid(field, format!("has no value with the number {number}")))
}

fn visible_ascii<'a>(field: &str, text: &'a str, shortest: usize, longest: usize) -> Read<&'a str> {
    if text.len() < shortest || text.len() > longest {
        let problem = format!("is {} bytes long; {shortest} to {longest} are allowed", text.len());
        return Err(CallError::invalid(field, problem));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(CallError::invalid(
            field,
            "has a byte that is not visible ASCII (0x21 to 0x7e)",
        ));
    }
    Ok(text)
}
