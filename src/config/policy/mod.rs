//! Policies, read from TOML. What is not known is refused with its line and, if something similar is known, that.

mod callers;
mod door;
mod keys;
mod place;
mod rules;
mod values;

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;

pub use callers::{KnownCaller, read_callers};
pub(super) use keys::{CALLER_KEYS, DOOR_KEYS, KEYS, ROUTE_KEYS, RULE_KEYS};
use rules::RuleTable;
use values::{PresetName, Span, Switch};

use crate::{
    door::Settings,
    files,
    state::{AtSubjectCap, Limits, Policy, PresenceLimits, Superseded, Unmatched, WorkLimits, policy::warning_points},
};

const SECOND: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3653 * 24 * 3600);
const LONGEST_TTL: Duration = Duration::from_secs(24 * 3600);
const SHORTEST_LEAD: Duration = Duration::from_millis(1);
const MOST_POINTS: usize = 16;
const MOST_POLICIES: usize = 1_000;
const MOST_HOLDS: u32 = 256;
const A_MILLION: u32 = 1_000_000;

/// So short that a whole life can be watched.
const DEMO: &str = r#"
[policy.default]
idle_timeout = "20s"
absolute_timeout = "10m"
warn_before = ["10s", "5s"]
absolute_warn_before = ["1m", "20s"]
"#;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    policy: BTreeMap<String, Table>,
    door: Option<door::DoorTable>,
    #[serde(default)]
    callers: Vec<callers::KnownTable>,
}

/// What a policy file says.
#[derive(Debug)]
pub struct PolicyFile {
    /// The policies, by name.
    pub policies: BTreeMap<String, Policy>,
    /// What the door is told.
    pub door: Settings,
    /// Who may do what, whichever listener they come by.
    pub callers: Vec<KnownCaller>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Table {
    preset: Option<PresetName>,
    revision: Option<u64>,
    idle_timeout: Option<Span>,
    absolute_timeout: Option<Span>,
    warn_before: Option<Vec<Span>>,
    absolute_warn_before: Option<Vec<Span>>,
    unmatched: Option<UnmatchedKey>,
    max_extensions: Option<u32>,
    tombstone_ttl: Option<Span>,
    min_id_length: Option<usize>,
    work_hold: Option<Switch<WorkTable>>,
    presence: Option<Switch<PresenceTable>>,
    max_sessions_per_subject: Option<u32>,
    at_subject_cap: Option<AtSubjectCapKey>,
    passive: Option<bool>,
    at_most: Option<bool>,
    enforce: Option<bool>,
    rules: Option<Vec<RuleTable>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WorkTable {
    max_ttl: Option<Span>,
    budget: Option<Span>,
    max_live: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PresenceTable {
    leave_grace: Option<Span>,
    lost_grace: Option<Span>,
    max_ttl: Option<Span>,
    max_live: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum UnmatchedKey {
    Count,
    Ignore,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AtSubjectCapKey {
    Refuse,
    EndOldest,
}

/// Reads the policies of a file.
pub fn read(path: &Path) -> anyhow::Result<BTreeMap<String, Policy>> {
    Ok(read_whole(path)?.policies)
}

/// Reads a file.
pub(super) fn read_whole(path: &Path) -> anyhow::Result<PolicyFile> {
    let text = files::read_text(path).with_context(|| format!("--policy-file {} cannot be read", path.display()))?;
    parse_whole(&text).with_context(|| format!("--policy-file {}", path.display()))
}

/// What `serve` is told without a file: with `--dev` a policy so short that a whole life can be watched.
pub(super) fn without_file(dev: bool) -> anyhow::Result<PolicyFile> {
    let text = if dev { DEMO } else { "" };
    whole(text, tables(text)?)
}

/// Reads the policies of a file's text. A file without any is bad: it is empty for a moment while it is written, or for good on a
/// full disk, and must not take the place of all policies.
pub fn parse_file(text: &str) -> anyhow::Result<BTreeMap<String, Policy>> {
    Ok(parse_whole(text)?.policies)
}

/// The same, with all else that the file says.
pub fn parse_whole(text: &str) -> anyhow::Result<PolicyFile> {
    let file = tables(text)?;
    if file.policy.is_empty() {
        bail!("it has no policy: write at least `[policy.default]`; that alone is the policy that a new user meets");
    }
    whole(text, file)
}

/// Reads policies. Without any there is one, `default`.
pub fn parse(text: &str) -> anyhow::Result<BTreeMap<String, Policy>> {
    Ok(whole(text, tables(text)?)?.policies)
}

/// Reads what a file's text says to the door.
pub fn parse_door(text: &str) -> anyhow::Result<Settings> {
    Ok(whole(text, tables(text)?)?.door)
}

/// All that a file says: the door's table may speak of policies.
fn whole(text: &str, mut file: File) -> anyhow::Result<PolicyFile> {
    if file.policy.is_empty() {
        file.policy.insert("default".to_owned(), Table::default());
    }
    let door = file.door.take().unwrap_or_default();
    let callers = callers::check(std::mem::take(&mut file.callers))?;
    let policies = policies(text, file)?;
    Ok(PolicyFile {
        door: door::check(door, &policies).context("[door]")?,
        policies,
        callers,
    })
}

fn tables(text: &str) -> anyhow::Result<File> {
    if text.len() > files::MOST_BYTES {
        bail!("it has {} bytes; at most {} are allowed", text.len(), files::MOST_BYTES);
    }
    let file: File = toml::from_str(text).map_err(|error| explain(text, &error))?;
    if file.policy.len() > MOST_POLICIES {
        bail!(
            "it has {} policies; at most {MOST_POLICIES} are allowed",
            file.policy.len()
        );
    }
    Ok(file)
}

fn policies(text: &str, file: File) -> anyhow::Result<BTreeMap<String, Policy>> {
    file.policy
        .into_iter()
        .map(|(name, table)| {
            let policy = check(&name, table).map_err(|error| {
                let error = format!("{error:#}");
                match place::line_of(text, &name, &error) {
                    Some(line) => anyhow!("{line}: [policy.{name}]: {error}"),
                    None => anyhow!("[policy.{name}]: {error}"),
                }
            })?;
            Ok((name, policy))
        })
        .collect()
}

/// An error of the TOML reader, with what was probably meant.
fn explain(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let line = place::line_at(text, error.span().map_or(0, |span| span.start));
    let message = place::in_plain_words(error.message());
    // "unknown field `idle_timout`, expected one of `idle_timeout`, `absolute_timeout`, …"
    let mut names = message.split('`').skip(1).step_by(2);
    let similar = names.next().and_then(|unknown| {
        names
            .map(|known| (strsim::jaro_winkler(unknown, known), known))
            .filter(|(similarity, _)| *similarity > 0.7)
            .max_by(|(a, _), (b, _)| a.total_cmp(b))
    });
    match similar {
        Some((_, meant)) => anyhow!("{line}: {message}; did you mean `{meant}`?"),
        None if message.starts_with("invalid ") || message.starts_with("expected ") => {
            // What the reader wanted is a kind of value; what the key is for is in the docs.
            let right = place::what_is_right(&line)
                .map(|says| format!(". {says}"))
                .unwrap_or_default();
            anyhow!("{line}: {message}{right}")
        }
        None => anyhow!("{line}: {message}"),
    }
}

/// What a policy is: the keys that are set, over those of its preset or of the policy that a new user meets.
fn check(name: &str, table: Table) -> anyhow::Result<Policy> {
    if name.is_empty() || name.len() > 128 {
        bail!("a policy's name must be 1 to 128 bytes long");
    }
    let base = table.preset.map(|preset| preset.0.policy()).unwrap_or_default();
    let base_limits = &base.limits;
    let passive = table.passive.unwrap_or(base_limits.passive);
    if passive && (table.idle_timeout.is_some() || table.warn_before.as_ref().is_some_and(|leads| !leads.is_empty())) {
        bail!("idle_timeout and warn_before cannot be set with passive = true: inactivity does not end such a session");
    }
    let absolute_timeout = span("absolute_timeout", table.absolute_timeout, base_limits.absolute_timeout)?;
    let idle_timeout = if passive {
        Limits::NEVER
    } else {
        let idle_timeout = span("idle_timeout", table.idle_timeout, base_limits.idle_timeout)?;
        if idle_timeout > absolute_timeout {
            bail!(
                "idle_timeout must be at most absolute_timeout ({}): a longer one would never be reached",
                humantime::format_duration(absolute_timeout)
            );
        }
        idle_timeout
    };
    let idle_points = if passive {
        Box::default()
    } else {
        points("warn_before", table.warn_before, &base_limits.idle_points, idle_timeout)?
    };
    let absolute_points = points(
        "absolute_warn_before",
        table.absolute_warn_before,
        &base_limits.absolute_points,
        absolute_timeout,
    )?;
    let window = idle_timeout.min(absolute_timeout);
    let max_sessions_per_subject = match table.max_sessions_per_subject {
        Some(max) => Some(number("max_sessions_per_subject", max, 1, A_MILLION)?),
        None => base.max_sessions_per_subject,
    };
    if table.at_subject_cap.is_some() && max_sessions_per_subject.is_none() {
        bail!("at_subject_cap needs max_sessions_per_subject: without it there is no cap");
    }
    let min_id_length = table.min_id_length.unwrap_or(base.min_id_length);
    if !(1..=256).contains(&min_id_length) {
        bail!("min_id_length must be from 1 to 256");
    }
    let max_extensions = match table.max_extensions {
        Some(max) => Some(number("max_extensions", max, 0, A_MILLION)?),
        None => base_limits.max_extensions,
    };
    Ok(Policy {
        limits: Arc::new(Limits {
            policy: name.into(),
            revision: table.revision.unwrap_or_default(),
            idle_timeout,
            absolute_timeout,
            idle_points,
            absolute_points,
            unmatched: match table.unmatched {
                Some(UnmatchedKey::Count) => Unmatched::Count,
                Some(UnmatchedKey::Ignore) => Unmatched::Ignore,
                None => base_limits.unmatched,
            },
            rules: match table.rules {
                Some(tables) => Arc::new(rules::check(tables)?),
                None => Arc::clone(&base_limits.rules),
            },
            max_extensions,
            tombstone_ttl: span("tombstone_ttl", table.tombstone_ttl, base_limits.tombstone_ttl)?,
            work: work(table.work_hold, base_limits.work)?,
            presence: presence(table.presence, base_limits.presence, window)?,
            passive,
            at_most: table.at_most.unwrap_or(base_limits.at_most),
            enforced: table.enforce.unwrap_or(base_limits.enforced),
            own_idle_timeout: None,
            own_absolute_timeout: None,
            superseded: Superseded::default(),
        }),
        min_id_length,
        max_sessions_per_subject,
        at_subject_cap: match table.at_subject_cap {
            Some(AtSubjectCapKey::Refuse) => AtSubjectCap::Refuse,
            Some(AtSubjectCapKey::EndOldest) => AtSubjectCap::EndOldest,
            None => base.at_subject_cap,
        },
    })
}

fn work(key: Option<Switch<WorkTable>>, base: WorkLimits) -> anyhow::Result<WorkLimits> {
    let on = if base.max_live == 0 {
        WorkLimits::default()
    } else {
        base
    };
    Ok(match key {
        None => base,
        Some(Switch::On) => on,
        Some(Switch::Off) => WorkLimits {
            max_live: 0,
            ..WorkLimits::default()
        },
        Some(Switch::Table(table)) => WorkLimits {
            max_ttl: ttl("work_hold.max_ttl", table.max_ttl, on.max_ttl)?,
            budget: span("work_hold.budget", table.budget, on.budget)?,
            max_live: number(
                "work_hold.max_live",
                table.max_live.unwrap_or(on.max_live),
                1,
                MOST_HOLDS,
            )?,
        },
    })
}

fn presence(
    key: Option<Switch<PresenceTable>>,
    base: Option<PresenceLimits>,
    window: Duration,
) -> anyhow::Result<Option<PresenceLimits>> {
    let on = base.unwrap_or_else(|| PresenceLimits::usual(window));
    Ok(match key {
        None => base,
        Some(Switch::On) => Some(on),
        Some(Switch::Off) => None,
        Some(Switch::Table(table)) => Some(PresenceLimits {
            leave_grace: span("presence.leave_grace", table.leave_grace, on.leave_grace)?,
            lost_grace: span("presence.lost_grace", table.lost_grace, on.lost_grace)?,
            max_ttl: ttl("presence.max_ttl", table.max_ttl, on.max_ttl)?,
            max_live: number(
                "presence.max_live",
                table.max_live.unwrap_or(on.max_live),
                1,
                MOST_HOLDS,
            )?,
        }),
    })
}

fn points(
    key: &str,
    leads: Option<Vec<Span>>,
    base: &[Duration],
    timeout: Duration,
) -> anyhow::Result<Box<[Duration]>> {
    let Some(leads) = leads else {
        return Ok(warning_points(base, timeout));
    };
    if leads.len() > MOST_POINTS {
        bail!(
            "{key} has {} warning points; at most {MOST_POINTS} are allowed",
            leads.len()
        );
    }
    let leads: Vec<_> = leads.into_iter().map(|lead| lead.0).collect();
    if leads.iter().any(|lead| *lead < SHORTEST_LEAD || *lead > LONGEST) {
        bail!("{key} must be from 1ms to 10 years");
    }
    Ok(warning_points(&leads, timeout))
}

fn span(key: &str, value: Option<Span>, base: Duration) -> anyhow::Result<Duration> {
    match value {
        Some(Span(value)) if value < SECOND || value > LONGEST => bail!("{key} must be from 1s to 10 years"),
        Some(Span(value)) => Ok(value),
        None => Ok(base),
    }
}

fn ttl(key: &str, value: Option<Span>, base: Duration) -> anyhow::Result<Duration> {
    match value {
        Some(Span(value)) if value < SECOND || value > LONGEST_TTL => bail!("{key} must be from 1s to 24h"),
        Some(Span(value)) => Ok(value),
        None => Ok(base),
    }
}

fn number(key: &str, value: u32, least: u32, most: u32) -> anyhow::Result<u32> {
    if !(least..=most).contains(&value) {
        bail!("{key} must be from {least} to {most}");
    }
    Ok(value)
}

#[cfg(test)]
mod tests;
