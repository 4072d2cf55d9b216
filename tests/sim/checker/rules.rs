//! Which touches count: the policy's own rules, or the declared kind, or the built-in rules by the hints, or `unmatched`.

use session_sidecar::rpc::proto::v1::{Activity, PageVisibility, TouchRequest};

use crate::policies::{OwnRule, Spec};

pub(super) struct Verdict {
    pub(super) counts: bool,
    /// Whether it is surely a person's.
    pub(super) user: bool,
    pub(super) rule: &'static str,
}

pub(super) fn judge(spec: &Spec, touch: &TouchRequest, reports_input: bool) -> Verdict {
    let verdict = |rule, counts, user| Verdict { counts, user, rule };
    if let Some(rule) = spec.rules.iter().find(|rule| meets(rule, touch)) {
        let counts = rule.counts && touch.activity() != Activity::Background;
        return verdict(rule.name, counts, counts);
    }
    match touch.activity() {
        Activity::User => return verdict("declared-user", true, true),
        Activity::Background => return verdict("declared-background", false, false),
        Activity::Unspecified => {}
    }
    if let Some(hints) = touch.hints.as_ref().filter(|_| spec.rules.is_empty()) {
        let by_person = hints.sec_fetch_mode == "navigate" && hints.sec_fetch_user == "?1";
        if hints.sec_purpose.contains("prefetch") {
            return verdict("prefetch", false, false);
        }
        if hints.page_visibility() == PageVisibility::Hidden && !by_person {
            return verdict("hidden-page", false, false);
        }
        if by_person {
            return verdict("user-navigation", true, true);
        }
        if hints.sec_fetch_dest == "empty" && reports_input && !hints.input_report {
            return verdict("script-request", false, false);
        }
    }
    verdict("unmatched", spec.unmatched_counts, false)
}

/// Whether a touch meets all that a rule asks for. A declared kind is met only by rules that name it.
fn meets(rule: &OwnRule, touch: &TouchRequest) -> bool {
    let none = Default::default();
    let hints = touch.hints.as_ref().unwrap_or(&none);
    let told = hints.path.split('?').next().unwrap_or_default();
    let path = |wanted: &str| match wanted.strip_suffix('*') {
        Some(beginning) => told.starts_with(beginning),
        None => told == wanted,
    };
    i32::from(rule.kind.unwrap_or(0)) == touch.activity
        && rule.method.is_none_or(|method| hints.method == method)
        && rule.path.is_none_or(path)
        && (!rule.hidden || hints.page_visibility() == PageVisibility::Hidden)
}
