//! Activity rules: which touches are a person's and count. Pure: what is known of a request goes in, a verdict comes out.

use std::{fmt, sync::Arc};

use globset::{GlobBuilder, GlobMatcher, GlobSet};

use crate::sabotage::{self, Fault};

/// The kind of activity that a touch declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// None.
    Unspecified,
    /// A person's.
    User,
    /// Background.
    Background,
}

/// What a touch is that declares no activity kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatched {
    /// It counts.
    Count,
    /// It does not.
    Ignore,
}

/// Whether a page can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Visibility {
    /// Not said.
    #[default]
    Unspecified,
    /// It can.
    Visible,
    /// It is in the background.
    Hidden,
}

/// What is known of the request behind a touch. Empty: not known. Nothing of it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hints<'a> {
    /// The host, without port.
    pub host: &'a str,
    /// The HTTP method.
    pub method: &'a str,
    /// The path, without query.
    pub path: &'a str,
    /// Sec-Fetch-User.
    pub sec_fetch_user: &'a str,
    /// Sec-Fetch-Mode.
    pub sec_fetch_mode: &'a str,
    /// Sec-Fetch-Dest.
    pub sec_fetch_dest: &'a str,
    /// Sec-Purpose.
    pub sec_purpose: &'a str,
    /// Whether the page can be seen.
    pub visibility: Visibility,
    /// Whether this is the page's own report of input.
    pub input_report: bool,
}

/// A policy's own rules, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// The rules. The first one that matches decides.
    pub own: Vec<Arc<Rule>>,
}

/// One rule of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name, told in answers.
    pub name: Box<str>,
    /// Whether what it matches counts.
    pub counts: bool,
    /// What it matches.
    pub when: When,
}

/// The conditions of a rule: a touch must meet all that are set. What is not known of a request meets no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct When {
    /// The declared kind; unset: none was declared.
    pub kind: Option<Activity>,
    /// Whether the page can be seen.
    pub visibility: Option<Visibility>,
    /// Methods.
    pub method: OneOf<Word>,
    /// Values of Sec-Fetch-User.
    pub sec_fetch_user: OneOf<Word>,
    /// Values of Sec-Fetch-Mode.
    pub sec_fetch_mode: OneOf<Word>,
    /// Values of Sec-Fetch-Dest.
    pub sec_fetch_dest: OneOf<Word>,
    /// Words of Sec-Purpose: each of "prefetch;prerender" is one.
    pub sec_purpose: OneOf<Word>,
    /// Hosts.
    pub host: OneOf<Pattern>,
    /// Paths, without what follows a `?`.
    pub path: OneOf<Pattern>,
}

/// Alternatives, one of which must match. None: the condition is not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOf<T>(pub Box<[T]>);

impl<T> Default for OneOf<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T> OneOf<T> {
    /// Whether the condition is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn admits(&self, value: &str, matches: impl Fn(&T, &str) -> bool) -> bool {
        !self.is_set() || (!value.is_empty() && self.0.iter().any(|wanted| matches(wanted, value)))
    }
}

/// A text that is compared without regard to the case of ASCII letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word(pub Box<str>);

impl Word {
    fn is(&self, value: &str) -> bool {
        value.eq_ignore_ascii_case(&self.0)
    }

    fn is_among(&self, list: &str) -> bool {
        self.is(list) || list.split([';', ',', ' ']).any(|item| self.is(item))
    }
}

/// Longer than any that a policy file may have, and short enough to be compiled.
const LONGEST_PATTERN: usize = 1024;

/// A glob, compiled once: `*` and `?` stay within a segment between slashes, `**` as a whole segment crosses them, `{a,b}` is
/// either.
#[derive(Clone)]
pub struct Pattern(GlobMatcher);

impl Pattern {
    /// A glob over hosts: the case of letters does not matter.
    pub fn host(text: &str) -> Result<Self, String> {
        Self::compile(text, true)
    }

    /// A glob over paths.
    pub fn path(text: &str) -> Result<Self, String> {
        Self::compile(text, false)
    }

    /// The glob as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.glob().glob()
    }

    fn compile(text: &str, any_case: bool) -> Result<Self, String> {
        if text.len() > LONGEST_PATTERN {
            return Err(format!("it is longer than {LONGEST_PATTERN} bytes"));
        }
        let glob = GlobBuilder::new(text)
            .literal_separator(true)
            .case_insensitive(any_case)
            .build()
            .map_err(|error| error.kind().to_string())?;
        // To compile a matcher of what is nested too deeply panics; to compile a set of it is refused.
        GlobSet::new([&glob]).map_err(|_| "its braces are nested too deeply".to_owned())?;
        Ok(Self(glob.compile_matcher()))
    }

    pub(crate) fn is_match(&self, value: &str) -> bool {
        self.0.is_match(value)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.text(), f)
    }
}

/// Patterns that say the same are equal.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.glob() == other.0.glob()
    }
}

impl Eq for Pattern {}

impl When {
    /// Whether it says nothing, so that every touch meets it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kind.is_none() && !self.asks_for_hints()
    }

    /// Whether only what a person did can meet it, as far as a browser or the caller can tell.
    #[must_use]
    pub fn needs_a_person(&self) -> bool {
        let started_by_a_person = |user: &OneOf<Word>| user.is_set() && user.0.iter().all(|word| &*word.0 == "?1");
        self.kind == Some(Activity::User) || started_by_a_person(&self.sec_fetch_user)
    }

    fn asks_for_hints(&self) -> bool {
        self.visibility.is_some()
            || self.method.is_set()
            || self.sec_fetch_user.is_set()
            || self.sec_fetch_mode.is_set()
            || self.sec_fetch_dest.is_set()
            || self.sec_purpose.is_set()
            || self.host.is_set()
            || self.path.is_set()
    }

    /// Whether a touch of the kind that this is about meets it. What is cheap is compared first.
    fn admits(&self, hints: Option<&Hints<'_>>) -> bool {
        let Some(hints) = hints else {
            return !self.asks_for_hints();
        };
        self.visibility.is_none_or(|wanted| wanted == hints.visibility)
            && self.method.admits(hints.method, Word::is)
            && self.sec_fetch_user.admits(hints.sec_fetch_user, Word::is)
            && self.sec_fetch_mode.admits(hints.sec_fetch_mode, Word::is)
            && self.sec_fetch_dest.admits(hints.sec_fetch_dest, Word::is)
            && self.sec_purpose.admits(hints.sec_purpose, Word::is_among)
            && self.host.admits(hints.host, Pattern::is_match)
            && self.path.admits(without_query(hints.path), Pattern::is_match)
    }
}

fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// Names that no rule of a policy may have: answers would not say what decided.
pub const BUILT_IN: [&str; 7] = [
    "declared-user",
    "declared-background",
    "prefetch",
    "hidden-page",
    "user-navigation",
    "script-request",
    "unmatched",
];

/// What decided whether a touch counts.
#[derive(Clone, PartialEq, Eq)]
pub enum RuleName {
    /// The caller declared a person's activity.
    DeclaredUser,
    /// The caller declared background activity.
    DeclaredBackground,
    /// A built-in rule: prefetches and prerenders never count.
    Prefetch,
    /// A built-in rule: requests of a hidden page that no person caused never count.
    HiddenPage,
    /// A built-in rule: a navigation that a person started counts.
    UserNavigation,
    /// A built-in rule: what only a script can have asked for is ignored once the browser reports input itself.
    ScriptRequest,
    /// Nothing matched: the policy's `unmatched`.
    Unmatched,
    /// A rule of the policy.
    Own(Arc<Rule>),
}

impl RuleName {
    /// The name that answers tell.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::DeclaredUser => "declared-user",
            Self::DeclaredBackground => "declared-background",
            Self::Prefetch => "prefetch",
            Self::HiddenPage => "hidden-page",
            Self::UserNavigation => "user-navigation",
            Self::ScriptRequest => "script-request",
            Self::Unmatched => "unmatched",
            Self::Own(rule) => &rule.name,
        }
    }
}

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What a touch is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it counts.
    pub counts: bool,
    /// Whether it is surely a person's: declared, or known by a rule. Such activity renews the budget of WORK holds.
    pub user: bool,
    /// What decided.
    pub rule: RuleName,
}

impl Verdict {
    fn of(rule: RuleName, counts: bool) -> Self {
        Self {
            counts,
            user: counts && rule != RuleName::Unmatched,
            rule,
        }
    }
}

impl Rules {
    /// Judges a touch. BACKGROUND never counts (G9); USER does, unless an own rule about USER says otherwise. What declares
    /// nothing goes through the own rules; if there are none and hints came, the built-in ones; then it is `unmatched`.
    ///
    /// `reports_input` answers whether the session's browser reports input itself; it is asked only if the answer matters.
    #[must_use]
    pub fn judge(
        &self,
        activity: Activity,
        hints: Option<&Hints<'_>>,
        reports_input: impl FnOnce() -> bool,
        unmatched: Unmatched,
    ) -> Verdict {
        if !self.own.is_empty()
            && let Some(rule) = self.own(activity, hints)
        {
            let counts = rule.counts && activity != Activity::Background;
            return Verdict::of(RuleName::Own(Arc::clone(rule)), counts);
        }
        match activity {
            Activity::User => Verdict::of(RuleName::DeclaredUser, true),
            Activity::Background => Verdict::of(RuleName::DeclaredBackground, sabotage::on(Fault::BackgroundCounts)),
            Activity::Unspecified => {
                let built_in = match hints {
                    Some(hints) if self.own.is_empty() => built_in(hints, reports_input),
                    _ => None,
                };
                built_in.unwrap_or_else(|| Verdict::of(RuleName::Unmatched, unmatched == Unmatched::Count))
            }
        }
    }

    /// The first own rule that a touch meets. A declared kind is met only by rules that name it.
    fn own(&self, activity: Activity, hints: Option<&Hints<'_>>) -> Option<&Arc<Rule>> {
        self.own.iter().find(|rule| {
            let kind = rule.when.kind.unwrap_or(Activity::Unspecified);
            kind == activity && rule.when.admits(hints)
        })
    }
}

/// The rules of a policy that has none, for touches that declare nothing.
fn built_in(hints: &Hints<'_>, reports_input: impl FnOnce() -> bool) -> Option<Verdict> {
    let purpose = |word: &str| {
        hints
            .sec_purpose
            .split([';', ',', ' '])
            .any(|item| item.eq_ignore_ascii_case(word))
    };
    if !hints.sec_purpose.is_empty() && (purpose("prefetch") || purpose("prerender")) {
        return Some(Verdict::of(RuleName::Prefetch, false));
    }
    if hints.visibility == Visibility::Hidden {
        return Some(Verdict::of(RuleName::HiddenPage, false));
    }
    if hints.sec_fetch_mode.eq_ignore_ascii_case("navigate") && hints.sec_fetch_user == "?1" {
        return Some(Verdict::of(RuleName::UserNavigation, true));
    }
    // The report itself is made by a script too, and is what the others are ignored for.
    if hints.sec_fetch_dest.eq_ignore_ascii_case("empty") && !hints.input_report && reports_input() {
        return Some(Verdict::of(RuleName::ScriptRequest, false));
    }
    None
}

#[cfg(test)]
mod tests;
