//! Activity rules: which touches are a person's and count. Pure: what is known of a request goes in, a verdict comes out.

use std::{fmt, sync::Arc};

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
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// The rules.
    pub own: Vec<Arc<Rule>>,
}

/// One rule of a policy.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, told in answers.
    pub name: Box<str>,
    /// Whether what it matches counts.
    pub counts: bool,
}

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

impl Rules {
    /// Judges a touch. BACKGROUND never counts (G9). `reports_input` answers whether the session's browser reports input itself;
    /// it is asked only if the answer matters.
    #[must_use]
    pub fn judge(
        &self,
        activity: Activity,
        hints: Option<&Hints<'_>>,
        reports_input: impl FnOnce() -> bool,
        unmatched: Unmatched,
    ) -> Verdict {
        let _ = (hints, reports_input);
        let (rule, counts) = match activity {
            Activity::User => (RuleName::DeclaredUser, true),
            Activity::Background => (RuleName::DeclaredBackground, false),
            Activity::Unspecified => (RuleName::Unmatched, unmatched == Unmatched::Count),
        };
        Verdict {
            counts,
            user: activity == Activity::User,
            rule,
        }
    }
}
