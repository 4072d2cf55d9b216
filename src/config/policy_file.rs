//! Policies, read from TOML. What is not known is refused with its line and, if something similar is known, that.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;

use crate::state::{Limits, Policy, Unmatched, policy::warning_points};

/// The keys of a policy, their defaults and what they say: the table in the docs.
pub(super) const KEYS: [(&str, &str, &str); 8] = [
    (
        "idle_timeout",
        "`\"15m\"`",
        "Inactivity that ends a session (NIST SP 800-63B-4 section 2: at most 1 h at AAL2, 15 min at AAL3). 1 s to 10 years, \
         at most `absolute_timeout`.",
    ),
    (
        "absolute_timeout",
        "`\"12h\"`",
        "Time since authentication that ends a session, active or not (NIST SP 800-63B-4 section 2: at most 24 h at AAL2, \
         12 h at AAL3). 1 s to 10 years.",
    ),
    (
        "warn_before",
        "`[\"2m\", \"60s\"]`",
        "Warning points before the idle deadline, up to 16 (WCAG 2.2.1: at least 20 s). A lead over half of `idle_timeout` \
         fires at half of it.",
    ),
    (
        "absolute_warn_before",
        "`[\"10m\", \"2m\"]`",
        "Warning points before the absolute deadline, up to 16. A lead over half of `absolute_timeout` fires at half of it.",
    ),
    (
        "unmatched",
        "`\"count\"`",
        "What a touch is that declares no activity kind: `\"count\"` or `\"ignore\"`.",
    ),
    (
        "max_extensions",
        "none",
        "How many Extends in a row are granted without a counted touch (WCAG 2.2.1: at least 10).",
    ),
    (
        "tombstone_ttl",
        "`\"24h\"`",
        "How long an ended session is remembered. 1 s to 10 years.",
    ),
    (
        "min_id_length",
        "`16`",
        "The shortest session id that Create accepts, in bytes: 1 to 256 (OWASP ASVS 5.0 7.2.3: 128 bits of entropy).",
    ),
];

const LONGEST: Duration = Duration::from_secs(3653 * 24 * 3600);
const MOST_POINTS: usize = 16;

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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Table {
    idle_timeout: Span,
    absolute_timeout: Span,
    warn_before: Vec<Span>,
    absolute_warn_before: Vec<Span>,
    unmatched: UnmatchedKey,
    max_extensions: Option<u32>,
    tombstone_ttl: Span,
    min_id_length: usize,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Span(Duration);

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum UnmatchedKey {
    Count,
    Ignore,
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let duration = humantime::parse_duration(&text);
        duration
            .map(Self)
            .map_err(|error| format!("{text:?} is not a duration like \"90s\" or \"15m\": {error}"))
    }
}

impl Default for Table {
    fn default() -> Self {
        let seconds = |seconds| Span(Duration::from_secs(seconds));
        Self {
            idle_timeout: seconds(15 * 60),
            absolute_timeout: seconds(12 * 3600),
            warn_before: vec![seconds(120), seconds(60)],
            absolute_warn_before: vec![seconds(600), seconds(120)],
            unmatched: UnmatchedKey::Count,
            max_extensions: None,
            tombstone_ttl: seconds(24 * 3600),
            min_id_length: 16,
        }
    }
}

/// Reads a file.
pub(super) fn load(path: &Path) -> anyhow::Result<BTreeMap<String, Policy>> {
    let text = fs::read_to_string(path).with_context(|| format!("--policy-file {} cannot be read", path.display()))?;
    parse(&text).with_context(|| format!("--policy-file {}", path.display()))
}

/// The policy of `serve --dev`.
pub(super) fn demo() -> anyhow::Result<BTreeMap<String, Policy>> {
    parse(DEMO)
}

/// Reads policies. Without any there is one, `default`.
pub fn parse(text: &str) -> anyhow::Result<BTreeMap<String, Policy>> {
    let mut file: File = toml::from_str(text).map_err(|error| explain(text, &error))?;
    if file.policy.is_empty() {
        file.policy.insert("default".to_owned(), Table::default());
    }
    file.policy
        .into_iter()
        .map(|(name, table)| {
            let policy = check(&name, table).with_context(|| format!("[policy.{name}]"))?;
            Ok((name, policy))
        })
        .collect()
}

/// An error of the TOML reader, with what was probably meant.
fn explain(text: &str, error: &toml::de::Error) -> anyhow::Error {
    let line = error
        .span()
        .map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
    let line = format!(
        "line {line} ({})",
        text.lines().nth(line - 1).unwrap_or_default().trim()
    );
    let message = error.message();
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
        None => anyhow!("{line}: {message}"),
    }
}

fn check(name: &str, table: Table) -> anyhow::Result<Policy> {
    let within = |key: &str, span: Span| {
        if span.0 < Duration::from_secs(1) || span.0 > LONGEST {
            bail!("{key} must be from 1s to 10 years");
        }
        Ok(span.0)
    };
    let points = |key: &str, leads: &[Span], timeout: Duration| {
        if leads.len() > MOST_POINTS {
            bail!(
                "{key} has {} warning points; at most {MOST_POINTS} are allowed",
                leads.len()
            );
        }
        let leads: Vec<_> = leads
            .iter()
            .map(|lead| within(key, *lead))
            .collect::<anyhow::Result<_>>()?;
        Ok(warning_points(&leads, timeout))
    };
    if name.is_empty() || name.len() > 128 {
        bail!("a policy's name must be 1 to 128 bytes long");
    }
    let idle_timeout = within("idle_timeout", table.idle_timeout)?;
    let absolute_timeout = within("absolute_timeout", table.absolute_timeout)?;
    if idle_timeout > absolute_timeout {
        bail!("idle_timeout must be at most absolute_timeout: a longer one would never be reached");
    }
    if !(1..=256).contains(&table.min_id_length) {
        bail!("min_id_length must be from 1 to 256");
    }
    Ok(Policy {
        limits: Arc::new(Limits {
            policy: name.into(),
            idle_timeout,
            absolute_timeout,
            idle_points: points("warn_before", &table.warn_before, idle_timeout)?,
            absolute_points: points("absolute_warn_before", &table.absolute_warn_before, absolute_timeout)?,
            unmatched: match table.unmatched {
                UnmatchedKey::Count => Unmatched::Count,
                UnmatchedKey::Ignore => Unmatched::Ignore,
            },
            max_extensions: table.max_extensions,
            tombstone_ttl: within("tombstone_ttl", table.tombstone_ttl)?,
            ..Limits::default()
        }),
        min_id_length: table.min_id_length,
        ..Policy::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_file_there_is_the_default_policy() {
        let policies = parse("").unwrap();
        let limits = &policies["default"].limits;
        assert_eq!(limits.idle_timeout, Duration::from_secs(900));
        assert_eq!(*limits.idle_points, [Duration::from_secs(120), Duration::from_secs(60)]);
        demo().unwrap();
    }

    #[test]
    fn what_is_wrong_with_a_policy_is_said_with_its_line() {
        for (text, told) in [
            (
                "\n\n[policy.a]\nidle_timout = \"1m\"",
                "line 4 (idle_timout = \"1m\"): unknown field `idle_timout`",
            ),
            ("[policy.a]\nidle_timout = \"1m\"", "did you mean `idle_timeout`?"),
            ("[polcy.a]", "did you mean `policy`?"),
            (
                "[policy.a]\nidle_timeout = \"soon\"",
                "line 2 (idle_timeout = \"soon\"): \"soon\" is not a duration",
            ),
            (
                "[policy.a]\nidle_timeout = \"0s\"",
                "[policy.a]: idle_timeout must be from 1s",
            ),
            ("[policy.a]\nidle_timeout = \"13h\"", "at most absolute_timeout"),
            (
                "[policy.a]\nunmatched = \"maybe\"",
                "line 2 (unmatched = \"maybe\"): unknown variant `maybe`",
            ),
            ("[policy.a]\nmin_id_length = 0", "min_id_length must be from 1 to 256"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(told), "{text:?}: {error}");
        }
    }
}
