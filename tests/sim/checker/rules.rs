//! Which touches count: the declared kind, then the built-in rules by the hints, then the policy's `unmatched`.

use session_sidecar::rpc::proto::v1::{Activity, PageVisibility, TouchRequest};

use crate::policies::Spec;

pub(super) struct Verdict {
    pub(super) counts: bool,
    /// Whether it is surely a person's.
    pub(super) user: bool,
    pub(super) rule: &'static str,
}

pub(super) fn judge(spec: &Spec, touch: &TouchRequest, reports_input: bool) -> Verdict {
    let verdict = |rule, counts, user| Verdict { counts, user, rule };
    match touch.activity() {
        Activity::User => return verdict("declared-user", true, true),
        Activity::Background => return verdict("declared-background", false, false),
        Activity::Unspecified => {}
    }
    if let Some(hints) = &touch.hints {
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
