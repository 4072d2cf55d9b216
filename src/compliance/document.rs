//! The page that OWASP ASVS 5.0 V7.1.1 and V7.1.2 ask for.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{Kept, PUSH_LATENESS, Standard, lint_against, span, total, worst_case};
use crate::state::{AtSubjectCap, Policy, Rule, Unmatched};

/// Writes the documentation of session limits as Markdown, where sessions are kept as `kept` says. What only people know is left open
/// and says so.
#[must_use]
pub fn document(policies: &BTreeMap<String, Policy>, kept: fn(&Policy) -> Kept) -> String {
    let mut page = String::from(
        "# Session limits\n\n\
         How long sessions live, how many a person may have, and what happens at each limit (OWASP ASVS 5.0 V7.1.1 \
         and V7.1.2; NIST SP 800-63B-4 §5.2 asks for the same page). Made by `session-sidecar policy document` from \
         the policy file; the parts in *[brackets]* are for people to fill in. Enforced by session-sidecar, the only \
         judge of time: browsers and cookies decide nothing.\n\n\
         | Policy | Inactivity limit (V7.3.1) | Absolute limit (V7.3.2) | Worst case | Sessions a subject | Enforced \
         |\n\
         |---|---|---|---|---|---|\n",
    );
    for (name, policy) in policies {
        let limits = &policy.limits;
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} | {} | {} |",
            cell(name),
            idle(policy),
            span(limits.absolute_timeout),
            span(total(&worst_case(policy, kept(policy)))),
            sessions(policy),
            if limits.enforced {
                "yes"
            } else {
                "**no, observed only**"
            },
        );
    }
    for (name, policy) in policies {
        write_policy(&mut page, name, policy, kept(policy));
    }
    page
}

fn write_policy(page: &mut String, name: &str, policy: &Policy, kept: Kept) {
    let limits = &policy.limits;
    let _ = write!(
        page,
        "\n## Policy {}\n\nRevision {}. Used for: *[which applications and people]*.\n\n### Limits (V7.1.1)\n\n",
        cell(name),
        limits.revision
    );
    let _ = if limits.passive {
        writeln!(
            page,
            "- **Inactivity**: does not end a session of this policy, which is for reading only."
        )
    } else {
        writeln!(
            page,
            "- **Inactivity**: a session ends {} after the last activity. Warned {}.",
            span(limits.idle_timeout),
            warned(&limits.idle_points)
        )
    };
    let _ = writeln!(
        page,
        "- **Absolute**: a session ends {} after authentication, active or not; only authenticating again moves \
         that. Warned {}.",
        span(limits.absolute_timeout),
        warned(&limits.absolute_points)
    );
    if !limits.passive {
        let _ = writeln!(page, "- **What counts as activity**: {}", activity(policy));
        let extensions = match limits.max_extensions {
            None => "as often as they like".to_owned(),
            Some(0) => "never".to_owned(),
            Some(max) => format!("{max} times in a row without other activity"),
        };
        let _ = writeln!(
            page,
            "- **Staying**: people who are warned may extend {extensions} (WCAG 2.2 SC 2.2.1)."
        );
        let _ = if limits.work.max_live == 0 {
            writeln!(page, "- **Long work without requests**: is not held open.")
        } else {
            writeln!(
                page,
                "- **Long work without requests**: the application may hold the session open for {} at a time and {} \
                 in all, from the first hold since the person's last activity; a whole inactivity limit follows.",
                span(limits.work.max_ttl),
                span(limits.work.budget)
            )
        };
    }
    let _ = match limits.presence {
        None => writeln!(page, "- **A closed browser**: is not noticed."),
        Some(presence) => writeln!(
            page,
            "- **A closed browser**: the session ends {} after the last page was left, {} after it was lost sight of.",
            span(presence.leave_grace),
            span(presence.lost_grace)
        ),
    };
    let _ = writeln!(
        page,
        "- **Afterwards**: why a session ended is remembered for {}.",
        span(limits.tombstone_ttl)
    );
    page.push_str("\nJustification of these limits, in combination with other controls: *[risk analysis]*.\n");
    write_worst_case(page, policy, kept);
    write_departures(page, policy);
    page.push_str("\n### Concurrent sessions (V7.1.2)\n\n");
    page.push_str(&match (policy.max_sessions_per_subject, policy.at_subject_cap) {
        (None, _) => "The number of sessions that a subject may have at once is not limited. Why that is acceptable: \
                      *[risk analysis]*.\n"
            .to_owned(),
        (Some(max), AtSubjectCap::Refuse) => {
            format!(
                "A subject may have {max} at once under this policy. A further login is refused until one of \
                     them has ended.\n"
            )
        }
        (Some(max), AtSubjectCap::EndOldest) => format!(
            "A subject may have {max} at once under this policy. A further login ends the oldest (reason \
             SUPERSEDED), and whoever uses it is told at once.\n"
        ),
    });
}

fn write_worst_case(page: &mut String, policy: &Policy, kept: Kept) {
    let terms = worst_case(policy, kept);
    let _ = write!(
        page,
        "\n### Worst case\n\nFrom a person's last input to the first refused request: at most **{}**. A gateway that \
         relies on the pushed end: {} more.\n\n| Term | Adds | Why |\n|---|---|---|\n",
        span(total(&terms)),
        span(PUSH_LATENESS)
    );
    for term in terms {
        let _ = writeln!(
            page,
            "| `{}` | {} | {} |",
            term.name,
            span(term.duration),
            cell(&term.explanation)
        );
    }
}

fn write_departures(page: &mut String, policy: &Policy) {
    page.push_str("\n### Departures from the standards\n\n");
    let nist = [Standard::NistAal1, Standard::NistAal2, Standard::NistAal3];
    let (from_nist, from_others): (Vec<_>, Vec<_>) = lint_against(policy, &Standard::ALL)
        .into_iter()
        .partition(|finding| nist.contains(&finding.standard));
    for level in nist {
        if !from_nist.iter().any(|finding| finding.standard == level) {
            let _ = writeln!(
                page,
                "- Meets what NIST SP 800-63B-4 says of timeouts at {}.",
                level_name(level)
            );
        }
    }
    if from_nist.is_empty() && from_others.is_empty() {
        page.push_str("- None.\n");
        return;
    }
    page.push_str(
        "\nV7.1.1 asks for a justification of each departure from NIST SP 800-63B at the assurance level that the \
         application needs.\n\n\
         | Section | Key | Departure | Justification |\n|---|---|---|---|\n",
    );
    for finding in from_nist.iter().chain(&from_others) {
        let _ = writeln!(
            page,
            "| {} | `{}` | {} | *[why, or: does not apply]* |",
            finding.source,
            finding.key,
            cell(&finding.problem)
        );
    }
}

fn level_name(level: Standard) -> &'static str {
    match level {
        Standard::NistAal1 => "AAL1",
        Standard::NistAal2 => "AAL2",
        _ => "AAL3",
    }
}

fn idle(policy: &Policy) -> String {
    if policy.limits.passive {
        return "none (reading only)".to_owned();
    }
    span(policy.limits.idle_timeout)
}

fn sessions(policy: &Policy) -> String {
    match (policy.max_sessions_per_subject, policy.at_subject_cap) {
        (None, _) => "not limited".to_owned(),
        (Some(max), AtSubjectCap::Refuse) => format!("{max}, then refused"),
        (Some(max), AtSubjectCap::EndOldest) => format!("{max}, then the oldest ends"),
    }
}

fn warned(points: &[std::time::Duration]) -> String {
    if points.is_empty() {
        return "never".to_owned();
    }
    let leads: Vec<_> = points.iter().copied().map(span).collect();
    format!("{} before", leads.join(" and "))
}

fn activity(policy: &Policy) -> String {
    let limits = &policy.limits;
    let mut text = "what the application declares to be a person's; never what it declares to be background".to_owned();
    let rules = &limits.rules.own;
    if rules.is_empty() {
        text += "; of requests told with hints, navigations that a person started, and no prefetches or requests of \
                 hidden pages";
    } else {
        let named = |counts: bool| {
            let names: Vec<_> = rules
                .iter()
                .filter(|rule| rule.counts == counts)
                .map(|rule: &std::sync::Arc<Rule>| format!("`{}`", rule.name))
                .collect();
            if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            }
        };
        text += &format!("; by rule: counted {}, ignored {}", named(true), named(false));
    }
    text += match limits.unmatched {
        Unmatched::Count => "; and every other request.",
        Unmatched::Ignore => "; no other request.",
    };
    text
}

/// A text for a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compliance::Preset;

    #[test]
    fn the_page_says_what_asvs_asks_for() {
        let mut policies = BTreeMap::from([("default".to_owned(), Policy::default())]);
        for preset in &Preset::ALL {
            policies.insert(preset.name.to_owned(), preset.policy());
        }
        let page = document(&policies, |_| Kept::Memory);
        for told in [
            "| nist-aal3 | 15m | 12h | 15m | not limited | yes |",
            "| owasp-high-value | 5m | 4h | 5m | 1, then the oldest ends | yes |",
            "a session ends 15m after the last activity. Warned 2m and 1m before.",
            "- Meets what NIST SP 800-63B-4 says of timeouts at AAL3.",
            "| `idle_timeout` | 15m | inactivity that ends a session |",
            "| NIST SP 800-63B-4 §5.2 (AAL2) | `unmatched` |",
            "### Concurrent sessions (V7.1.2)",
        ] {
            assert!(page.contains(told), "{told}: {page}");
        }
    }
}
