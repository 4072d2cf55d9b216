//! Activity rules: which touches are a person's and count. Pure: what is known of a request goes in, a verdict comes out.

use std::{fmt, sync::Arc};

use globset::{GlobBuilder, GlobMatcher};

use super::policy::Unmatched;

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

    fn admits(&self, value: &str, matches: impl Fn(&T, &str) -> bool) -> bool {
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
        let glob = GlobBuilder::new(text)
            .literal_separator(true)
            .case_insensitive(any_case)
            .build();
        glob.map(|glob| Self(glob.compile_matcher()))
            .map_err(|error| error.kind().to_string())
    }

    fn is_match(&self, value: &str) -> bool {
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

impl fmt::Display for RuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeclaredUser => "declared-user",
            Self::DeclaredBackground => "declared-background",
            Self::Prefetch => "prefetch",
            Self::HiddenPage => "hidden-page",
            Self::UserNavigation => "user-navigation",
            Self::ScriptRequest => "script-request",
            Self::Unmatched => "unmatched",
            Self::Own(rule) => &rule.name,
        })
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
            Activity::Background => Verdict::of(RuleName::DeclaredBackground, false),
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
mod tests {
    use super::*;

    const NOTHING: Hints<'_> = Hints {
        host: "",
        method: "",
        path: "",
        sec_fetch_user: "",
        sec_fetch_mode: "",
        sec_fetch_dest: "",
        sec_purpose: "",
        visibility: Visibility::Unspecified,
        input_report: false,
    };

    fn words(words: &[&str]) -> OneOf<Word> {
        OneOf(words.iter().map(|word| Word((*word).into())).collect())
    }

    fn paths(globs: &[&str]) -> OneOf<Pattern> {
        OneOf(globs.iter().map(|glob| Pattern::path(glob).unwrap()).collect())
    }

    fn rules(rules: Vec<(&str, bool, When)>) -> Rules {
        let rule = |(name, counts, when): (&str, bool, When)| {
            Arc::new(Rule {
                name: name.into(),
                counts,
                when,
            })
        };
        Rules {
            own: rules.into_iter().map(rule).collect(),
        }
    }

    fn told(verdict: &Verdict) -> (String, bool, bool) {
        (verdict.rule.to_string(), verdict.counts, verdict.user)
    }

    #[test]
    fn built_in_rules_judge_what_a_browser_says_if_the_policy_has_none() {
        let navigation = Hints {
            sec_fetch_mode: "navigate",
            sec_fetch_user: "?1",
            sec_fetch_dest: "document",
            ..NOTHING
        };
        let script = Hints {
            sec_fetch_mode: "cors",
            sec_fetch_dest: "empty",
            ..NOTHING
        };
        let hidden = Hints {
            visibility: Visibility::Hidden,
            ..script
        };
        let table: [(&str, Activity, Hints<'_>, bool, (&str, bool, bool)); 14] = [
            (
                "a navigation",
                Activity::Unspecified,
                navigation,
                false,
                ("user-navigation", true, true),
            ),
            (
                "a navigation by a script",
                Activity::Unspecified,
                Hints {
                    sec_fetch_user: "",
                    ..navigation
                },
                false,
                ("unmatched", true, false),
            ),
            (
                "a prefetch that looks like a navigation",
                Activity::Unspecified,
                Hints {
                    sec_purpose: "prefetch",
                    ..navigation
                },
                false,
                ("prefetch", false, false),
            ),
            (
                "a prerender",
                Activity::Unspecified,
                Hints {
                    sec_purpose: "prefetch;prerender",
                    ..NOTHING
                },
                false,
                ("prefetch", false, false),
            ),
            (
                "a prerender, spaced",
                Activity::Unspecified,
                Hints {
                    sec_purpose: "other; Prerender",
                    ..NOTHING
                },
                false,
                ("prefetch", false, false),
            ),
            (
                "a word that only contains it",
                Activity::Unspecified,
                Hints {
                    sec_purpose: "noprefetch",
                    ..NOTHING
                },
                false,
                ("unmatched", true, false),
            ),
            (
                "a hidden page's poll",
                Activity::Unspecified,
                hidden,
                false,
                ("hidden-page", false, false),
            ),
            (
                "declared in a hidden page",
                Activity::User,
                hidden,
                true,
                ("declared-user", true, true),
            ),
            (
                "a script's request",
                Activity::Unspecified,
                script,
                false,
                ("unmatched", true, false),
            ),
            (
                "a script's request beside input reports",
                Activity::Unspecified,
                script,
                true,
                ("script-request", false, false),
            ),
            (
                "an input report",
                Activity::Unspecified,
                Hints {
                    input_report: true,
                    ..script
                },
                true,
                ("unmatched", true, false),
            ),
            (
                "a declared one beside input reports",
                Activity::User,
                script,
                true,
                ("declared-user", true, true),
            ),
            (
                "a declared poll",
                Activity::Background,
                navigation,
                false,
                ("declared-background", false, false),
            ),
            (
                "nothing known",
                Activity::Unspecified,
                NOTHING,
                true,
                ("unmatched", true, false),
            ),
        ];
        for (case, activity, hints, reports, expected) in table {
            let verdict = Rules::default().judge(activity, Some(&hints), || reports, Unmatched::Count);
            let (name, counts, user) = told(&verdict);
            assert_eq!((name.as_str(), counts, user), expected, "{case}");
        }
    }

    #[test]
    fn without_hints_only_the_declared_kind_and_unmatched_decide() {
        let never = || panic!("not asked");
        for (activity, unmatched, expected) in [
            (Activity::Unspecified, Unmatched::Count, ("unmatched", true, false)),
            (Activity::Unspecified, Unmatched::Ignore, ("unmatched", false, false)),
            (Activity::User, Unmatched::Ignore, ("declared-user", true, true)),
            (
                Activity::Background,
                Unmatched::Count,
                ("declared-background", false, false),
            ),
        ] {
            let (name, counts, user) = told(&Rules::default().judge(activity, None, never, unmatched));
            assert_eq!((name.as_str(), counts, user), expected);
        }
    }

    #[test]
    fn the_first_own_rule_that_matches_decides_and_is_named() {
        let rules = rules(vec![
            (
                "poll",
                false,
                When {
                    path: paths(&["/api/*/poll", "/ws/**"]),
                    ..When::default()
                },
            ),
            (
                "read-api",
                true,
                When {
                    method: words(&["GET", "HEAD"]),
                    path: paths(&["/api/**"]),
                    host: OneOf([Pattern::host("*.shop.example").unwrap()].into()),
                    ..When::default()
                },
            ),
            (
                "seen",
                true,
                When {
                    visibility: Some(Visibility::Visible),
                    sec_fetch_dest: words(&["empty"]),
                    ..When::default()
                },
            ),
            (
                "warm-up",
                false,
                When {
                    sec_purpose: words(&["prefetch"]),
                    ..When::default()
                },
            ),
        ]);
        let api = Hints {
            host: "EU.Shop.Example",
            method: "get",
            path: "/api/v1/orders?page=2",
            ..NOTHING
        };
        let table: [(&str, Hints<'_>, (&str, bool, bool)); 12] = [
            (
                "both match",
                Hints {
                    path: "/api/v1/poll",
                    ..api
                },
                ("poll", false, false),
            ),
            (
                "`*` stays in a segment",
                Hints {
                    path: "/api/v1/a/poll",
                    ..api
                },
                ("read-api", true, true),
            ),
            (
                "`**` crosses",
                Hints {
                    path: "/ws/a/b/c",
                    ..NOTHING
                },
                ("poll", false, false),
            ),
            (
                "the query is not looked at",
                Hints {
                    path: "/x?/ws/a",
                    ..NOTHING
                },
                ("unmatched", false, false),
            ),
            (
                "a query does not hide it",
                Hints {
                    path: "/ws/a?b=/c",
                    ..NOTHING
                },
                ("poll", false, false),
            ),
            ("letters of a host and a method", api, ("read-api", true, true)),
            (
                "another method",
                Hints { method: "POST", ..api },
                ("unmatched", false, false),
            ),
            (
                "another host",
                Hints {
                    host: "shop.example.org",
                    ..api
                },
                ("unmatched", false, false),
            ),
            (
                "an unknown host meets no condition",
                Hints { host: "", ..api },
                ("unmatched", false, false),
            ),
            (
                "visible",
                Hints {
                    visibility: Visibility::Visible,
                    sec_fetch_dest: "empty",
                    ..NOTHING
                },
                ("seen", true, true),
            ),
            (
                "of many words",
                Hints {
                    sec_purpose: "prefetch;prerender",
                    ..NOTHING
                },
                ("warm-up", false, false),
            ),
            (
                "no built-in rule beside own ones",
                Hints {
                    sec_fetch_mode: "navigate",
                    sec_fetch_user: "?1",
                    ..NOTHING
                },
                ("unmatched", false, false),
            ),
        ];
        for (case, hints, expected) in table {
            let verdict = rules.judge(Activity::Unspecified, Some(&hints), || true, Unmatched::Ignore);
            let (name, counts, user) = told(&verdict);
            assert_eq!((name.as_str(), counts, user), expected, "{case}");
        }
        let unknown = rules.judge(Activity::Unspecified, None, || true, Unmatched::Count);
        assert_eq!(told(&unknown), ("unmatched".to_owned(), true, false));
    }

    #[test]
    fn a_declared_kind_is_met_only_by_rules_that_name_it() {
        let rules = rules(vec![
            (
                "robot",
                false,
                When {
                    kind: Some(Activity::User),
                    path: paths(&["/robot/**"]),
                    ..When::default()
                },
            ),
            (
                "sync",
                true,
                When {
                    kind: Some(Activity::Background),
                    ..When::default()
                },
            ),
            (
                "all",
                false,
                When {
                    path: paths(&["/**"]),
                    ..When::default()
                },
            ),
        ]);
        let at = |path: &'static str| Hints { path, ..NOTHING };
        for (activity, hints, expected) in [
            (Activity::User, Some(at("/robot/1")), ("robot", false, false)),
            (Activity::User, Some(at("/page")), ("declared-user", true, true)),
            (Activity::User, None, ("declared-user", true, true)),
            // G9: whatever a rule says.
            (Activity::Background, Some(at("/page")), ("sync", false, false)),
            (Activity::Background, None, ("sync", false, false)),
            (Activity::Unspecified, Some(at("/robot/1")), ("all", false, false)),
        ] {
            let verdict = rules.judge(activity, hints.as_ref(), || false, Unmatched::Count);
            let (name, counts, user) = told(&verdict);
            assert_eq!((name.as_str(), counts, user), expected);
        }
    }

    #[test]
    fn globs_are_what_the_docs_say() {
        for (glob, path, expected) in [
            ("/api/*", "/api/a", true),
            ("/api/*", "/api/a/b", false),
            ("/api/**", "/api/a/b", true),
            ("/api/**", "/api", false),
            ("/api/**", "/api/", true),
            ("/**/poll", "/poll", true),
            ("/**/poll", "/a/b/poll", true),
            ("/**", "/", true),
            ("/{a,b}/x", "/b/x", true),
            ("/v?/x", "/v1/x", true),
            ("/v?/x", "/v//x", false),
            ("/API", "/api", false),
        ] {
            assert_eq!(Pattern::path(glob).unwrap().is_match(path), expected, "{glob} {path}");
        }
        assert!(Pattern::path("/a{b").is_err());
        assert_eq!(format!("{:?}", Pattern::path("/a/*").unwrap()), "\"/a/*\"");
    }

    #[test]
    fn every_built_in_name_is_reserved() {
        for rule in [
            RuleName::DeclaredUser,
            RuleName::DeclaredBackground,
            RuleName::Prefetch,
            RuleName::HiddenPage,
            RuleName::UserNavigation,
            RuleName::ScriptRequest,
            RuleName::Unmatched,
        ] {
            assert!(BUILT_IN.contains(&rule.to_string().as_str()));
        }
    }
}
