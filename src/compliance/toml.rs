//! A policy as TOML that could stand in a policy file: every key, as it is in force.

use std::{fmt::Write as _, time::Duration};

use super::span;
use crate::state::{Activity, AtSubjectCap, OneOf, Pattern, Policy, Rule, Unmatched, Visibility, Word};

/// The policy with all of its keys. Read back, it is an equal policy.
#[must_use]
pub fn toml(policy: &Policy) -> String {
    let limits = &policy.limits;
    let table = format!("policy.{}", key(&limits.policy));
    let mut page = format!("[{table}]\n");
    let mut say = |key: &str, value: String| {
        let _ = writeln!(page, "{key} = {value}");
    };
    say("revision", limits.revision.to_string());
    if !limits.passive {
        say("idle_timeout", duration(limits.idle_timeout));
    }
    say("absolute_timeout", duration(limits.absolute_timeout));
    say("warn_before", durations(&limits.idle_points));
    say("absolute_warn_before", durations(&limits.absolute_points));
    let unmatched = match limits.unmatched {
        Unmatched::Count => "count",
        Unmatched::Ignore => "ignore",
    };
    say("unmatched", text(unmatched));
    if let Some(max) = limits.max_extensions {
        say("max_extensions", max.to_string());
    }
    say("tombstone_ttl", duration(limits.tombstone_ttl));
    say("min_id_length", policy.min_id_length.to_string());
    let work = limits.work;
    if work.max_live == 0 {
        say("work_hold", text("off"));
    } else {
        let (max_ttl, budget) = (duration(work.max_ttl), duration(work.budget));
        say(
            "work_hold",
            format!(
                "{{ max_ttl = {max_ttl}, budget = {budget}, max_live = {} }}",
                work.max_live
            ),
        );
    }
    match limits.presence {
        None => say("presence", text("off")),
        Some(presence) => say(
            "presence",
            format!(
                "{{ leave_grace = {}, lost_grace = {}, max_ttl = {}, max_live = {} }}",
                duration(presence.leave_grace),
                duration(presence.lost_grace),
                duration(presence.max_ttl),
                presence.max_live
            ),
        ),
    }
    if let Some(max) = policy.max_sessions_per_subject {
        say("max_sessions_per_subject", max.to_string());
        let what = match policy.at_subject_cap {
            AtSubjectCap::Refuse => "refuse",
            AtSubjectCap::EndOldest => "end-oldest",
        };
        say("at_subject_cap", text(what));
    }
    say("passive", limits.passive.to_string());
    say("at_most", limits.at_most.to_string());
    say("enforce", limits.enforced.to_string());
    for rule in &limits.rules.own {
        let _ = writeln!(page, "\n[[{table}.rules]]");
        write_rule(&mut page, rule);
    }
    page
}

fn write_rule(page: &mut String, rule: &Rule) {
    let mut say = |key: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(page, "{key} = {value}");
        }
    };
    let when = &rule.when;
    say("name", text(&rule.name));
    let kind = when.kind.map(|kind| match kind {
        Activity::User => "user",
        Activity::Background => "background",
        Activity::Unspecified => "unspecified",
    });
    say("kind", kind.map(text).unwrap_or_default());
    say("host", alternatives(&when.host, Pattern::text));
    say("method", alternatives(&when.method, word));
    say("path", alternatives(&when.path, Pattern::text));
    say("sec_fetch_user", alternatives(&when.sec_fetch_user, word));
    say("sec_fetch_mode", alternatives(&when.sec_fetch_mode, word));
    say("sec_fetch_dest", alternatives(&when.sec_fetch_dest, word));
    say("sec_purpose", alternatives(&when.sec_purpose, word));
    let visibility = when.visibility.and_then(|visibility| match visibility {
        Visibility::Visible => Some("visible"),
        Visibility::Hidden => Some("hidden"),
        Visibility::Unspecified => None,
    });
    say("visibility", visibility.map(text).unwrap_or_default());
    say("verdict", text(if rule.counts { "count" } else { "ignore" }));
}

fn word(word: &Word) -> &str {
    &word.0
}

fn alternatives<T>(any: &OneOf<T>, written: impl Fn(&T) -> &str) -> String {
    match &*any.0 {
        [] => String::new(),
        [one] => text(written(one)),
        many => {
            let texts: Vec<_> = many.iter().map(|one| text(written(one))).collect();
            format!("[{}]", texts.join(", "))
        }
    }
}

fn duration(duration: Duration) -> String {
    text(&span(duration))
}

fn durations(points: &[Duration]) -> String {
    let texts: Vec<_> = points.iter().copied().map(duration).collect();
    format!("[{}]", texts.join(", "))
}

fn key(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !name.is_empty() && name.bytes().all(bare) {
        return name.to_owned();
    }
    text(name)
}

/// A basic string.
fn text(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(c);
            }
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}
