//! A policy that is written down and read back is the same policy, whatever its keys say.

use std::{sync::Arc, time::Duration};

use proptest::{collection::vec, option, prelude::*, sample::select};
use session_sidecar::{
    compliance::{Kept, lint, toml, total, worst_case},
    config::parse_policies,
    state::{
        Activity, AtSubjectCap, Limits, OneOf, Pattern, Policy, PresenceLimits, Rule, Rules, Superseded, Unmatched,
        Visibility, When, Word, WorkLimits, policy::warning_points,
    },
};

fn span(most_seconds: u64) -> impl Strategy<Value = Duration> {
    prop_oneof![
        (1..=most_seconds).prop_map(Duration::from_secs),
        (1_000_000_000..=most_seconds * 1_000_000_000).prop_map(Duration::from_nanos),
    ]
}

fn words() -> impl Strategy<Value = OneOf<Word>> {
    vec("[!-~]{1,20}", 0..3).prop_map(|words| OneOf(words.into_iter().map(|word| Word(word.into())).collect()))
}

fn patterns() -> impl Strategy<Value = OneOf<Pattern>> {
    let globs = ["/api/*", "/a/**", "/{a,b}/?", "/\\*", "/\"quoted\"", "*.example"];
    vec(select(globs.to_vec()), 0..3).prop_map(|globs| {
        OneOf(
            globs
                .into_iter()
                .map(|glob| Pattern::path(glob).expect("a glob"))
                .collect(),
        )
    })
}

fn when() -> impl Strategy<Value = When> {
    let kind = option::of(select(vec![Activity::User, Activity::Unspecified]));
    let visibility = option::of(select(vec![Visibility::Visible, Visibility::Hidden]));
    (
        kind,
        visibility,
        words(),
        words(),
        words(),
        words(),
        words(),
        patterns(),
    )
        .prop_map(|(kind, visibility, method, user, mode, dest, purpose, path)| When {
            kind,
            visibility,
            method,
            sec_fetch_user: user,
            sec_fetch_mode: mode,
            sec_fetch_dest: dest,
            sec_purpose: purpose,
            host: OneOf::default(),
            path,
        })
}

fn rules() -> impl Strategy<Value = Rules> {
    let some = when().prop_filter("a condition", |when| !when.is_empty());
    vec((some, any::<bool>()), 0..4).prop_map(|rules| Rules {
        own: rules
            .into_iter()
            .enumerate()
            .map(|(n, (when, counts))| {
                Arc::new(Rule {
                    name: format!("rule-{n}").into(),
                    counts,
                    when,
                })
            })
            .collect(),
    })
}

fn timeouts() -> impl Strategy<Value = Limits> {
    let leads = || vec(span(3_600), 0..4);
    (
        (span(40_000_000), span(40_000_000), leads(), leads(), any::<bool>()),
        (
            0..=i64::MAX as u64,
            any::<bool>(),
            any::<bool>(),
            any::<bool>(),
            span(1_000_000),
        ),
        (option::of(0..=1_000_000_u32), span(86_400), span(864_000), 0..=256_u32),
        option::of((span(86_400), span(86_400), span(86_400), 1..=256_u32)),
        rules(),
    )
        .prop_map(
            |(
                (a, b, idle_leads, absolute_leads, passive),
                (revision, count, at_most, enforced, tombstone_ttl),
                (max_extensions, max_ttl, budget, max_live),
                presence,
                rules,
            )| {
                let (idle_timeout, absolute_timeout) = (a.min(b), a.max(b));
                Limits {
                    policy: "p".into(),
                    revision,
                    idle_timeout: if passive { Limits::NEVER } else { idle_timeout },
                    absolute_timeout,
                    idle_points: if passive {
                        Box::default()
                    } else {
                        warning_points(&idle_leads, idle_timeout)
                    },
                    absolute_points: warning_points(&absolute_leads, absolute_timeout),
                    unmatched: if count { Unmatched::Count } else { Unmatched::Ignore },
                    rules: Arc::new(rules),
                    max_extensions,
                    tombstone_ttl,
                    work: if max_live == 0 {
                        WorkLimits {
                            max_live,
                            ..WorkLimits::default()
                        }
                    } else {
                        WorkLimits {
                            max_ttl,
                            budget,
                            max_live,
                        }
                    },
                    presence: presence.map(|(leave_grace, lost_grace, max_ttl, max_live)| PresenceLimits {
                        leave_grace,
                        lost_grace,
                        max_ttl,
                        max_live,
                    }),
                    passive,
                    at_most,
                    enforced,
                    own_idle_timeout: None,
                    own_absolute_timeout: None,
                    superseded: Superseded::default(),
                }
            },
        )
}

fn policy() -> impl Strategy<Value = Policy> {
    let cap = option::of((1..=1_000_000_u32, any::<bool>()));
    (timeouts(), 1..=256_usize, cap, "[ -~]{1,30}|ä|a\\.b").prop_map(|(limits, min_id_length, cap, name)| Policy {
        limits: Arc::new(Limits {
            policy: name.into(),
            ..limits
        }),
        min_id_length,
        max_sessions_per_subject: cap.map(|(max, _)| max),
        at_subject_cap: match cap {
            Some((_, true)) => AtSubjectCap::EndOldest,
            _ => AtSubjectCap::Refuse,
        },
    })
}

proptest! {
    #[test]
    fn a_policy_survives_being_written_down(policy in policy()) {
        let text = toml(&policy);
        let read = parse_policies(&text).unwrap_or_else(|error| panic!("{error:#}\n{text}"));
        prop_assert_eq!(read.len(), 1);
        prop_assert_eq!(&read[&*policy.limits.policy], &policy, "{}", text);
    }

    #[test]
    fn the_worst_case_is_never_more_than_the_absolute_timeout(policy in policy()) {
        for kept in [Kept::Memory, Kept::shared(&policy)] {
            let terms = worst_case(&policy, kept);
            prop_assert!(total(&terms) <= policy.limits.absolute_timeout);
            if !policy.limits.passive {
                prop_assert!(total(&terms) >= policy.limits.idle_timeout);
            }
        }
        let _ = lint(&policy);
    }
}

#[test]
fn the_policy_that_a_new_user_meets_survives_too() {
    let policy = Policy::default();
    assert_eq!(parse_policies(&toml(&policy)).expect("policies")["default"], policy);
}
