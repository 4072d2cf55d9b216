//! The rules of a policy, as they are written.

use std::{collections::BTreeSet, sync::Arc};

use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;

use super::values::Texts;
use crate::state::{Activity, OneOf, Pattern, Rule, Rules, Visibility, When, Word, rules::BUILT_IN};

const MOST_RULES: usize = 64;
const MOST_ALTERNATIVES: usize = 16;
const LONGEST_NAME: usize = 63;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleTable {
    name: String,
    verdict: VerdictKey,
    kind: Option<KindKey>,
    host: Option<Texts>,
    method: Option<Texts>,
    path: Option<Texts>,
    sec_fetch_user: Option<Texts>,
    sec_fetch_mode: Option<Texts>,
    sec_fetch_dest: Option<Texts>,
    sec_purpose: Option<Texts>,
    visibility: Option<VisibilityKey>,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum VerdictKey {
    Count,
    Ignore,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum KindKey {
    User,
    Background,
    Unspecified,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum VisibilityKey {
    Visible,
    Hidden,
}

/// Checks and compiles the rules of a policy.
pub(super) fn check(tables: Vec<RuleTable>) -> anyhow::Result<Rules> {
    if tables.len() > MOST_RULES {
        bail!("there are {} rules; at most {MOST_RULES} are allowed", tables.len());
    }
    let mut names = BTreeSet::new();
    let mut own = Vec::with_capacity(tables.len());
    for table in tables {
        check_name(&table.name)?;
        if !names.insert(table.name.clone()) {
            bail!(
                "two rules are named {:?}: answers must say which one decided",
                table.name
            );
        }
        let name = table.name.clone();
        own.push(Arc::new(compile(table).with_context(|| format!("rule {name:?}"))?));
    }
    Ok(Rules { own })
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > LONGEST_NAME || !name.chars().all(plain) {
        bail!("a rule's name must be 1 to {LONGEST_NAME} characters of a-z, 0-9, - and _");
    }
    if BUILT_IN.contains(&name) {
        bail!("a rule cannot be named {name:?}: that is a built-in one");
    }
    Ok(())
}

fn compile(table: RuleTable) -> anyhow::Result<Rule> {
    let when = When {
        kind: table.kind.map(|kind| match kind {
            KindKey::User => Activity::User,
            KindKey::Background => Activity::Background,
            KindKey::Unspecified => Activity::Unspecified,
        }),
        visibility: table.visibility.map(|visibility| match visibility {
            VisibilityKey::Visible => Visibility::Visible,
            VisibilityKey::Hidden => Visibility::Hidden,
        }),
        method: words("method", 32, table.method)?,
        sec_fetch_user: words("sec_fetch_user", 64, table.sec_fetch_user)?,
        sec_fetch_mode: words("sec_fetch_mode", 64, table.sec_fetch_mode)?,
        sec_fetch_dest: words("sec_fetch_dest", 64, table.sec_fetch_dest)?,
        sec_purpose: words("sec_purpose", 64, table.sec_purpose)?,
        host: host_globs(table.host)?,
        path: path_globs(table.path)?,
    };
    if when.is_empty() {
        bail!("it has no condition and would match every touch: say what it is about, or use `unmatched`");
    }
    let counts = table.verdict == VerdictKey::Count;
    if counts && when.kind == Some(Activity::Background) {
        bail!("verdict cannot be \"count\" with kind = \"background\": BACKGROUND never counts");
    }
    Ok(Rule {
        name: table.name.into(),
        counts,
        when,
    })
}

/// A host comes without port and path. An IPv6 address has brackets, or more than one colon.
fn never_a_host(host: &str) -> bool {
    host.contains('/') || !host.contains(['[', '{']) && host.matches(':').count() == 1
}

fn words(key: &str, longest: usize, texts: Option<Texts>) -> anyhow::Result<OneOf<Word>> {
    let words = checked(key, longest, texts)?;
    Ok(OneOf(words.into_iter().map(|text| Word(text.into())).collect()))
}

/// Hosts, as globs.
pub(super) fn host_globs(texts: Option<Texts>) -> anyhow::Result<OneOf<Pattern>> {
    let globs = globs("host", 255, texts, Pattern::host)?;
    match globs.0.iter().map(Pattern::text).find(|host| never_a_host(host)) {
        Some(host) => {
            bail!("host {host:?} can never match: a host comes without port and path; a path goes into `path`")
        }
        None => Ok(globs),
    }
}

/// Paths, as globs.
pub(super) fn path_globs(texts: Option<Texts>) -> anyhow::Result<OneOf<Pattern>> {
    globs("path", 512, texts, Pattern::path)
}

fn globs(
    key: &str,
    longest: usize,
    texts: Option<Texts>,
    compile: impl Fn(&str) -> Result<Pattern, String>,
) -> anyhow::Result<OneOf<Pattern>> {
    let globs = checked(key, longest, texts)?;
    let patterns: Box<[_]> = globs
        .iter()
        .map(|glob| compile(glob).map_err(|error| anyhow!("{key} {glob:?} is not a glob: {error}")))
        .collect::<anyhow::Result<_>>()?;
    Ok(OneOf(patterns))
}

fn checked(key: &str, longest: usize, texts: Option<Texts>) -> anyhow::Result<Vec<String>> {
    let Some(Texts(texts)) = texts else {
        return Ok(Vec::new());
    };
    if !(1..=MOST_ALTERNATIVES).contains(&texts.len()) {
        bail!("{key} must be one text or a list of 1 to {MOST_ALTERNATIVES}");
    }
    for text in &texts {
        if text.is_empty() || text.len() > longest || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("{key} must be 1 to {longest} bytes of visible ASCII");
        }
    }
    Ok(texts)
}
