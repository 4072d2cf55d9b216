//! Where a policy departs from the standards, with the section that says so.

use std::time::Duration;

use super::{
    span,
    worst_case::{counts_without_a_person, extends_at_will, work_holds},
};
use crate::state::{Limits, Policy, Unmatched};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const QUARTER: Duration = Duration::from_secs(15 * 60);

/// WCAG 2.2.1: a longer limit need not be adjustable.
const TWENTY_HOURS: Duration = Duration::from_secs(20 * 3600);
/// WCAG 2.2.1: how long there must be to react to a warning.
const TIME_TO_REACT: Duration = Duration::from_secs(20);
/// WCAG 2.2.1: how often a limit must be extendable.
const EXTENSIONS: u32 = 10;
/// What 128 bits take at least, in bytes of visible ASCII (94 characters).
const BYTES_OF_128_BITS: usize = 20;

/// A standard that a policy can be held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standard {
    /// NIST SP 800-63B-4, authentication assurance level 1.
    NistAal1,
    /// NIST SP 800-63B-4, authentication assurance level 2.
    NistAal2,
    /// NIST SP 800-63B-4, authentication assurance level 3.
    NistAal3,
    /// PCI DSS 4.0.1, requirement 8.2.8.
    PciDss,
    /// OWASP ASVS 5.0, chapter V7.
    OwaspAsvs,
    /// WCAG 2.2, success criterion 2.2.1.
    Wcag,
}

impl Standard {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::NistAal1,
        Self::NistAal2,
        Self::NistAal3,
        Self::PciDss,
        Self::OwaspAsvs,
        Self::Wcag,
    ];
}

/// One way in which a policy departs from a standard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The standard.
    pub standard: Standard,
    /// The standard and its section, as an auditor names it.
    pub source: String,
    /// The key of the policy.
    pub key: String,
    /// What departs and by how much, and what would conform.
    pub problem: String,
}

/// All departures from all standards. Few policies have none: AAL1 and AAL3 are for different sites.
#[must_use]
pub fn lint(policy: &Policy) -> Vec<Finding> {
    lint_against(policy, &Standard::ALL)
}

/// The departures from some standards.
#[must_use]
pub fn lint_against(policy: &Policy, standards: &[Standard]) -> Vec<Finding> {
    let mut report = Report {
        policy,
        limits: &policy.limits,
        findings: Vec::new(),
    };
    for standard in standards {
        match standard {
            Standard::NistAal1 => report.nist(&AAL1),
            Standard::NistAal2 => report.nist(&AAL2),
            Standard::NistAal3 => report.nist(&AAL3),
            Standard::PciDss => report.pci(),
            Standard::OwaspAsvs => report.asvs(),
            Standard::Wcag => report.wcag(),
        }
    }
    report.findings
}

/// What NIST SP 800-63B-4 asks at a level.
struct Level {
    standard: Standard,
    name: &'static str,
    section: &'static str,
    /// The inactivity timeout, a SHOULD.
    idle: Option<Duration>,
    /// The overall timeout.
    overall: Duration,
    /// Whether it is a SHALL or a SHOULD.
    verb: &'static str,
}

const AAL1: Level = Level {
    standard: Standard::NistAal1,
    name: "AAL1",
    section: "§2.1.3",
    idle: None,
    overall: Duration::from_secs(30 * 24 * 3600),
    verb: "SHOULD",
};
const AAL2: Level = Level {
    standard: Standard::NistAal2,
    name: "AAL2",
    section: "§2.2.3",
    idle: Some(HOUR),
    overall: DAY,
    verb: "SHOULD",
};
const AAL3: Level = Level {
    standard: Standard::NistAal3,
    name: "AAL3",
    section: "§2.3.3",
    idle: Some(QUARTER),
    overall: Duration::from_secs(12 * 3600),
    verb: "SHALL",
};

struct Report<'a> {
    policy: &'a Policy,
    limits: &'a Limits,
    findings: Vec<Finding>,
}

impl Report<'_> {
    fn finds(&mut self, standard: Standard, source: &str, key: &str, problem: String) {
        self.findings.push(Finding {
            standard,
            source: source.to_owned(),
            key: key.to_owned(),
            problem,
        });
    }

    fn nist(&mut self, level: &Level) {
        let Level { standard, name, .. } = *level;
        let absolute = self.limits.absolute_timeout;
        let limits_of = format!("NIST SP 800-63B-4 {} ({name})", level.section);
        let reauthentication = format!("NIST SP 800-63B-4 §5.2 ({name})");
        if absolute > level.overall {
            let problem = format!(
                "absolute_timeout is {}; the overall timeout {} be no more than {}",
                span(absolute),
                level.verb,
                span(level.overall)
            );
            self.finds(standard, &limits_of, "absolute_timeout", problem);
        }
        if let Some(most) = level.idle {
            self.idle(standard, &limits_of, &reauthentication, most, "SHOULD be");
        }
        self.enforced(
            standard,
            &reauthentication,
            "a session SHALL be terminated when either timeout expires",
        );
    }

    fn pci(&mut self) {
        let source = "PCI DSS 4.0.1 req. 8.2.8";
        self.idle(Standard::PciDss, source, source, QUARTER, "must be");
        let asked = "who was idle for more than 15m must authenticate again";
        self.enforced(Standard::PciDss, source, asked);
    }

    /// What an inactivity timeout of `most` asks: of the timeout itself, and of all that can put it off without a
    /// person.
    fn idle(&mut self, standard: Standard, timeout: &str, activity: &str, most: Duration, verb: &str) {
        let limits = self.limits;
        let most_said = span(most);
        if limits.passive {
            let problem = format!(
                "passive = true: inactivity never ends the session; its timeout {verb} no more than {most_said}"
            );
            self.finds(standard, timeout, "passive", problem);
            return;
        }
        let idle = limits.idle_timeout;
        if idle > most {
            let problem = format!(
                "idle_timeout is {}; the inactivity timeout {verb} no more than {most_said}",
                span(idle)
            );
            self.finds(standard, timeout, "idle_timeout", problem);
        }
        // What ends by its absolute deadline within the time is not put off beyond it.
        if limits.absolute_timeout <= most {
            return;
        }
        let held = idle.saturating_add(work_holds(limits));
        if limits.work.max_live > 0 && held > most {
            let problem = format!(
                "WORK holds can keep the session usable until {} after the last input, longer than {most_said}: \
                 work_hold = \"off\", or a shorter idle_timeout, max_ttl and budget",
                span(held.min(limits.absolute_timeout))
            );
            self.finds(standard, activity, "work_hold", problem);
        }
        if extends_at_will(limits) {
            let problem = format!(
                "an Extend may ask for any wanted_duration, up to {} without input: at_most = true holds it to one \
                 idle timeout",
                span(limits.absolute_timeout)
            );
            self.finds(standard, activity, "at_most", problem);
        }
        self.counts_anything(standard, activity);
    }

    /// Only a person's activity may put off an idle end.
    fn counts_anything(&mut self, standard: Standard, source: &str) {
        let limits = self.limits;
        if limits.passive {
            return;
        }
        if limits.unmatched == Unmatched::Count {
            let problem = format!(
                "unmatched = \"count\": every request that declares nothing counts, so that a poll keeps the session \
                 alive up to {}: unmatched = \"ignore\", with declared kinds or rules for what people do",
                span(limits.absolute_timeout)
            );
            self.finds(standard, source, "unmatched", problem);
        }
        let rules = limits.rules.own.iter().filter(|rule| counts_without_a_person(rule));
        for rule in rules.map(|rule| rule.name.clone()).collect::<Vec<_>>() {
            let problem = format!(
                "it counts requests that no person need have caused, so that they keep the session alive up to {}: \
                 let it ask for sec_fetch_user = \"?1\" or kind = \"user\"",
                span(limits.absolute_timeout)
            );
            self.finds(standard, source, &format!("rules.{rule}"), problem);
        }
    }

    fn enforced(&mut self, standard: Standard, source: &str, asked: &str) {
        if !self.limits.enforced {
            let problem = format!("enforce = false: time ends nothing; {asked}");
            self.finds(standard, source, "enforce", problem);
        }
    }

    fn asvs(&mut self) {
        const STANDARD: Standard = Standard::OwaspAsvs;
        let limits = self.limits;
        let documented = "OWASP ASVS 5.0 V7.1.1";
        if !limits.passive && limits.idle_timeout > HOUR {
            let problem = format!(
                "idle_timeout is {}, over the 1h of NIST SP 800-63B-4 §2.2.3 (AAL2): the documentation must justify it",
                span(limits.idle_timeout)
            );
            self.finds(STANDARD, documented, "idle_timeout", problem);
        }
        if limits.absolute_timeout > DAY {
            let problem = format!(
                "absolute_timeout is {}, over the 24h of NIST SP 800-63B-4 §2.2.3 (AAL2): the documentation must \
                 justify it",
                span(limits.absolute_timeout)
            );
            self.finds(STANDARD, documented, "absolute_timeout", problem);
        }
        if self.policy.max_sessions_per_subject.is_none() {
            let problem = "how many sessions a subject may have is not limited; how many are allowed, and what \
                           happens then, must be defined: max_sessions_per_subject and at_subject_cap"
                .to_owned();
            self.finds(STANDARD, "OWASP ASVS 5.0 V7.1.2", "max_sessions_per_subject", problem);
        }
        if self.policy.min_id_length < BYTES_OF_128_BITS {
            let problem = format!(
                "min_id_length is {}: so short an id cannot have the 128 bits of entropy that are asked for; 22 \
                 characters of base64url or 32 of hex can",
                self.policy.min_id_length
            );
            self.finds(STANDARD, "OWASP ASVS 5.0 V7.2.3", "min_id_length", problem);
        }
        let inactivity = "OWASP ASVS 5.0 V7.3.1";
        if limits.passive {
            let problem =
                "passive = true: there is no inactivity timeout; the documentation must say why none is needed"
                    .to_owned();
            self.finds(STANDARD, inactivity, "passive", problem);
        }
        self.counts_anything(STANDARD, inactivity);
        self.enforced(
            STANDARD,
            inactivity,
            "there must be an inactivity timeout that enforces reauthentication",
        );
        self.enforced(
            STANDARD,
            "OWASP ASVS 5.0 V7.3.2",
            "there must be an absolute lifetime that enforces reauthentication",
        );
    }

    fn wcag(&mut self) {
        const STANDARD: Standard = Standard::Wcag;
        const SOURCE: &str = "WCAG 2.2 SC 2.2.1 (Level A)";
        let limits = self.limits;
        if !limits.enforced {
            return;
        }
        let idle_binds = !limits.passive && limits.idle_timeout <= TWENTY_HOURS;
        if idle_binds {
            if let Some(problem) = too_late(&limits.idle_points, "warn_before", "idle_timeout", limits.idle_timeout) {
                self.finds(STANDARD, SOURCE, "warn_before", problem);
            }
            if let Some(max) = limits.max_extensions.filter(|max| *max < EXTENSIONS) {
                let problem =
                    format!("max_extensions is {max}; a person must be able to extend at least {EXTENSIONS} times");
                self.finds(STANDARD, SOURCE, "max_extensions", problem);
            }
        }
        if limits.absolute_timeout <= TWENTY_HOURS {
            let (key, timeout) = ("absolute_warn_before", limits.absolute_timeout);
            if let Some(problem) = too_late(&limits.absolute_points, key, "absolute_timeout", timeout) {
                self.finds(STANDARD, SOURCE, key, problem);
            }
        }
    }
}

/// What is wrong with warning points that leave less than 20 s.
fn too_late(points: &[Duration], key: &str, timeout_key: &str, timeout: Duration) -> Option<String> {
    match points.first() {
        None => Some(format!(
            "{key} is empty: people must be warned at least {} before",
            span(TIME_TO_REACT)
        )),
        Some(longest) if *longest >= TIME_TO_REACT => None,
        Some(longest) if timeout < 2 * TIME_TO_REACT => Some(format!(
            "the first warning comes {} before, as {timeout_key} is {}; people must have at least {}, which takes a \
             {timeout_key} of at least {}",
            span(*longest),
            span(timeout),
            span(TIME_TO_REACT),
            span(2 * TIME_TO_REACT)
        )),
        Some(longest) => Some(format!(
            "the first warning comes {} before; people must have at least {}",
            span(*longest),
            span(TIME_TO_REACT)
        )),
    }
}

#[cfg(test)]
mod tests;
