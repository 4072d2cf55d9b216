use std::sync::Arc;

use super::*;
use crate::{
    compliance::Preset,
    state::{OneOf, Rule, Rules, When, Word, WorkLimits, policy::warning_points},
};

fn mins(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

fn preset(name: &str) -> Policy {
    Preset::named(name).unwrap().policy()
}

fn with(policy: &Policy, change: impl FnOnce(&mut Limits)) -> Policy {
    let mut limits = (*policy.limits).clone();
    change(&mut limits);
    Policy {
        limits: Arc::new(limits),
        ..policy.clone()
    }
}

/// Source and key of each finding.
fn found(policy: &Policy, standards: &[Standard]) -> Vec<(String, String)> {
    let findings = lint_against(policy, standards);
    findings
        .into_iter()
        .map(|finding| (finding.source, finding.key))
        .collect()
}

#[test]
fn a_preset_has_no_finding_under_its_own_standard() {
    for (name, standards) in [
        ("nist-aal1", vec![Standard::NistAal1, Standard::Wcag]),
        (
            "nist-aal2",
            vec![Standard::NistAal1, Standard::NistAal2, Standard::Wcag],
        ),
        (
            "nist-aal3",
            vec![
                Standard::NistAal1,
                Standard::NistAal2,
                Standard::NistAal3,
                Standard::PciDss,
                Standard::Wcag,
            ],
        ),
        ("pci-dss-8.2.8", vec![Standard::PciDss, Standard::Wcag]),
        ("owasp-high-value", Standard::ALL.to_vec()),
    ] {
        assert_eq!(lint_against(&preset(name), &standards), [], "{name}");
    }
}

/// What it is about, a change of a policy without findings, and source and key of the findings then.
type Case = (
    &'static str,
    Box<dyn FnOnce(&mut Limits)>,
    Vec<(&'static str, &'static str)>,
);

#[test]
fn each_departure_is_named_with_its_section() {
    let owasp = preset("owasp-high-value");
    let holds = WorkLimits {
        max_ttl: mins(1),
        budget: mins(10),
        max_live: 8,
    };
    let reads = Rules {
        own: vec![Arc::new(Rule {
            name: "reads".into(),
            counts: true,
            when: When {
                method: OneOf([Word("GET".into())].into()),
                ..When::default()
            },
        })],
    };
    let cases: Vec<Case> = vec![
        (
            "an hour and a bit",
            Box::new(|limits: &mut Limits| limits.idle_timeout = mins(61)),
            vec![
                ("NIST SP 800-63B-4 §2.2.3 (AAL2)", "idle_timeout"),
                ("NIST SP 800-63B-4 §2.3.3 (AAL3)", "idle_timeout"),
                ("PCI DSS 4.0.1 req. 8.2.8", "idle_timeout"),
                ("OWASP ASVS 5.0 V7.1.1", "idle_timeout"),
            ],
        ),
        (
            "20 minutes",
            Box::new(|limits| limits.idle_timeout = mins(20)),
            vec![
                ("NIST SP 800-63B-4 §2.3.3 (AAL3)", "idle_timeout"),
                ("PCI DSS 4.0.1 req. 8.2.8", "idle_timeout"),
            ],
        ),
        (
            "31 days",
            Box::new(|limits| limits.absolute_timeout = 31 * DAY),
            vec![
                ("NIST SP 800-63B-4 §2.1.3 (AAL1)", "absolute_timeout"),
                ("NIST SP 800-63B-4 §2.2.3 (AAL2)", "absolute_timeout"),
                ("NIST SP 800-63B-4 §2.3.3 (AAL3)", "absolute_timeout"),
                ("OWASP ASVS 5.0 V7.1.1", "absolute_timeout"),
            ],
        ),
        (
            "holds: 5 + 1 + 10 + 5 minutes",
            Box::new(move |limits| limits.work = holds),
            vec![
                ("NIST SP 800-63B-4 §5.2 (AAL3)", "work_hold"),
                ("PCI DSS 4.0.1 req. 8.2.8", "work_hold"),
            ],
        ),
        (
            "unmatched",
            Box::new(|limits| limits.unmatched = Unmatched::Count),
            vec![
                ("NIST SP 800-63B-4 §5.2 (AAL2)", "unmatched"),
                ("NIST SP 800-63B-4 §5.2 (AAL3)", "unmatched"),
                ("PCI DSS 4.0.1 req. 8.2.8", "unmatched"),
                ("OWASP ASVS 5.0 V7.3.1", "unmatched"),
            ],
        ),
        (
            "a rule that counts anything",
            Box::new(|limits| limits.rules = Arc::new(reads)),
            vec![
                ("NIST SP 800-63B-4 §5.2 (AAL2)", "rules.reads"),
                ("NIST SP 800-63B-4 §5.2 (AAL3)", "rules.reads"),
                ("PCI DSS 4.0.1 req. 8.2.8", "rules.reads"),
                ("OWASP ASVS 5.0 V7.3.1", "rules.reads"),
            ],
        ),
        (
            "Extends at will",
            Box::new(|limits| limits.at_most = false),
            vec![
                ("NIST SP 800-63B-4 §5.2 (AAL2)", "at_most"),
                ("NIST SP 800-63B-4 §5.2 (AAL3)", "at_most"),
                ("PCI DSS 4.0.1 req. 8.2.8", "at_most"),
            ],
        ),
        (
            "not enforced",
            Box::new(|limits| limits.enforced = false),
            vec![
                ("NIST SP 800-63B-4 §5.2 (AAL1)", "enforce"),
                ("NIST SP 800-63B-4 §5.2 (AAL2)", "enforce"),
                ("NIST SP 800-63B-4 §5.2 (AAL3)", "enforce"),
                ("PCI DSS 4.0.1 req. 8.2.8", "enforce"),
                ("OWASP ASVS 5.0 V7.3.1", "enforce"),
                ("OWASP ASVS 5.0 V7.3.2", "enforce"),
            ],
        ),
        (
            "passive",
            Box::new(|limits| {
                limits.passive = true;
                limits.idle_timeout = Limits::NEVER;
            }),
            vec![
                ("NIST SP 800-63B-4 §2.2.3 (AAL2)", "passive"),
                ("NIST SP 800-63B-4 §2.3.3 (AAL3)", "passive"),
                ("PCI DSS 4.0.1 req. 8.2.8", "passive"),
                ("OWASP ASVS 5.0 V7.3.1", "passive"),
            ],
        ),
        (
            "19 seconds",
            Box::new(|limits| {
                limits.idle_points = [Duration::from_secs(19)].into();
                limits.absolute_points = Box::default();
                limits.max_extensions = Some(9);
            }),
            vec![
                ("WCAG 2.2 SC 2.2.1 (Level A)", "warn_before"),
                ("WCAG 2.2 SC 2.2.1 (Level A)", "max_extensions"),
                ("WCAG 2.2 SC 2.2.1 (Level A)", "absolute_warn_before"),
            ],
        ),
        (
            "20 seconds and 10 times",
            Box::new(|limits| {
                limits.idle_points = [Duration::from_secs(20)].into();
                limits.max_extensions = Some(10);
            }),
            vec![],
        ),
    ];
    for (case, change, expected) in cases {
        let found = found(&with(&owasp, change), &Standard::ALL);
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(source, key)| (source.to_owned(), key.to_owned()))
            .collect();
        assert_eq!(found, expected, "{case}");
    }
}

#[test]
fn what_is_asked_of_a_policy_as_a_whole() {
    let policy = Policy {
        max_sessions_per_subject: None,
        min_id_length: 16,
        ..preset("owasp-high-value")
    };
    let found = found(&policy, &[Standard::OwaspAsvs]);
    let expected = [
        ("OWASP ASVS 5.0 V7.1.2", "max_sessions_per_subject"),
        ("OWASP ASVS 5.0 V7.2.3", "min_id_length"),
    ];
    assert_eq!(found, expected.map(|(source, key)| (source.to_owned(), key.to_owned())));
}

#[test]
fn wcag_lets_long_limits_be() {
    let long = with(&preset("nist-aal1"), |limits| {
        limits.idle_timeout = 21 * HOUR;
        limits.idle_points = Box::default();
        limits.absolute_points = Box::default();
        limits.max_extensions = Some(0);
    });
    assert_eq!(found(&long, &[Standard::Wcag]), []);
}

#[test]
fn a_finding_says_by_how_much_and_what_would_do() {
    let policy = with(&preset("nist-aal2"), |limits| {
        limits.idle_timeout = Duration::from_secs(30);
        limits.idle_points = warning_points(&[mins(1)], Duration::from_secs(30));
    });
    let findings = lint_against(&policy, &[Standard::Wcag]);
    let problem = &findings[0].problem;
    assert!(problem.contains("15s before, as idle_timeout is 30s"), "{problem}");
    assert!(problem.contains("idle_timeout of at least 40s"), "{problem}");
    let policy = with(&preset("nist-aal2"), |limits| limits.absolute_timeout = 25 * HOUR);
    let findings = lint_against(&policy, &[Standard::NistAal2]);
    assert_eq!(
        findings[0].problem,
        "absolute_timeout is 25h; the overall timeout SHOULD be no more than 24h"
    );
}

#[test]
fn the_policy_that_a_new_user_meets_is_told_where_it_departs() {
    let keys: Vec<_> = lint(&Policy::default())
        .into_iter()
        .map(|finding| finding.key)
        .collect();
    for key in [
        "unmatched",
        "work_hold",
        "at_most",
        "max_sessions_per_subject",
        "min_id_length",
    ] {
        assert!(keys.iter().any(|found| found == key), "{key}: {keys:?}");
    }
}
