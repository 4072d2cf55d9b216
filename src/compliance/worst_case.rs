//! The longest time from a person's last input to the first request that is refused, term by term.

use std::time::Duration;

use super::span;
use crate::state::{Limits, Policy, Rule, Unmatched};

/// How late an end is pushed at most (G2, p99). Calls are not late at all.
pub const PUSH_LATENESS: Duration = Duration::from_millis(50);

/// A term of the worst case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Term {
    /// What it is: a key of the policy, or a property of the sidecar.
    pub name: String,
    /// How much it adds.
    pub duration: Duration,
    /// Why.
    pub explanation: String,
}

/// Where sessions are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// In the memory of one process.
    Memory,
    /// In a store that many share, where activity is written this far ahead.
    Shared {
        /// How far.
        window: Duration,
        /// Whether the idle timeout of a policy with `at_most` is shorter by that already, as it is in force there.
        in_force: bool,
    },
}

impl Kept {
    /// In a shared store, for which nobody has set another window.
    #[must_use]
    pub fn shared(policy: &Policy) -> Self {
        let window = policy.limits.window(None);
        Self::Shared {
            window,
            in_force: false,
        }
    }
}

/// The terms, in the order in which they add up. Their sum is never more than `absolute_timeout`, which ends every session:
/// the term that would go beyond is cut.
#[must_use]
pub fn worst_case(policy: &Policy, kept: Kept) -> Vec<Term> {
    let limits = &policy.limits;
    let mut sum = Sum {
        left: limits.absolute_timeout,
        terms: Vec::new(),
    };
    if !limits.enforced {
        sum.add(
            "enforce",
            Duration::ZERO,
            "enforce = false: nothing is refused at all; the other terms are what would hold".to_owned(),
        );
    }
    if limits.passive {
        sum.all(
            "passive",
            "inactivity does not end the session: only the absolute deadline does",
        );
    } else {
        let why = "inactivity that ends a session".to_owned();
        sum.add("idle_timeout", limits.idle_timeout, why);
    }
    sum.add("lateness", Duration::ZERO, lateness());
    store(&mut sum, limits, kept);
    if !limits.passive {
        work(&mut sum, limits);
        if limits.unmatched == Unmatched::Count {
            sum.all(
                "unmatched",
                "unmatched = \"count\": without bound up to the absolute deadline, for every request that declares \
                 nothing counts, a poll too",
            );
        }
        for rule in limits.rules.own.iter().filter(|rule| counts_without_a_person(rule)) {
            sum.all(
                &format!("rules.{}", rule.name),
                "without bound up to the absolute deadline: this rule counts requests that no person need have caused",
            );
        }
        extend(&mut sum, limits);
    }
    if limits.presence.is_some() {
        sum.add(
            "presence",
            Duration::ZERO,
            "an open page keeps no session alive; that all are closed can only end it earlier".to_owned(),
        );
    }
    sum.terms
}

/// The sum of all terms.
#[must_use]
pub fn total(terms: &[Term]) -> Duration {
    terms.iter().map(|term| term.duration).sum()
}

/// How far WORK holds can put off an idle end.
pub(super) fn work_holds(limits: &Limits) -> Duration {
    let work = limits.work;
    if work.max_live == 0 || limits.passive {
        return Duration::ZERO;
    }
    let standing = work.max_ttl.min(work.budget);
    standing.saturating_add(work.budget).saturating_add(limits.idle_timeout)
}

/// Whether a rule counts what does not say that a person caused it.
pub(super) fn counts_without_a_person(rule: &Rule) -> bool {
    rule.counts && !rule.when.needs_a_person()
}

/// Whether an Extend may reach further than one idle timeout.
pub(super) fn extends_at_will(limits: &Limits) -> bool {
    !limits.at_most && !limits.passive && limits.max_extensions != Some(0)
}

fn lateness() -> String {
    format!(
        "none for calls: a passed deadline is passed for every call. A gateway that waits for the pushed end hears \
         of it within {}. After a stop of this process of more than 5s (suspend, SIGSTOP) idle ends are held for up \
         to 5s",
        span(PUSH_LATENESS)
    )
}

fn store(sum: &mut Sum, limits: &Limits, kept: Kept) {
    let (late, why) = match kept {
        Kept::Memory => (
            Duration::ZERO,
            "sessions live in this process' memory: no other copy is behind".to_owned(),
        ),
        Kept::Shared { .. } if limits.passive => (Duration::ZERO, "no activity is written".to_owned()),
        Kept::Shared { window, in_force: false } if limits.at_most => (
            Duration::ZERO,
            format!(
                "activity is written {} ahead, and the stored idle timeout is shorter by as much (at_most = true)",
                span(window)
            ),
        ),
        Kept::Shared { window, .. } if limits.at_most => (
            window,
            "activity is written so far ahead; the idle timeout is shorter by as much already (at_most = true)".to_owned(),
        ),
        Kept::Shared { window, .. } => (
            window,
            "activity is written so far ahead in the shared store; at_most = true takes it off the idle timeout. After an outage of \
             the store idle ends are held for 5s, and for 60s in all"
                .to_owned(),
        ),
    };
    sum.add("store", late, why);
}

fn work(sum: &mut Sum, limits: &Limits) {
    if limits.work.max_live == 0 {
        sum.add(
            "work_hold",
            Duration::ZERO,
            "work_hold = \"off\": there are none".to_owned(),
        );
        return;
    }
    let work = limits.work;
    let standing = "a hold that was granted just before the last input lives on after it";
    sum.add("work_hold.max_ttl", work.max_ttl.min(work.budget), standing.to_owned());
    let budget = "the next hold may begin just before the idle deadline, and holds reach so far from there";
    sum.add("work_hold.budget", work.budget, budget.to_owned());
    let window = "a full idle timeout follows the end of the last hold";
    sum.add("work_hold.idle_timeout", limits.idle_timeout, window.to_owned());
}

fn extend(sum: &mut Sum, limits: &Limits) {
    if extends_at_will(limits) {
        sum.all(
            "extend",
            "an Extend is input, but its wanted_duration may reach up to the absolute deadline; at_most = true holds \
             it to one idle timeout",
        );
    } else {
        sum.add(
            "extend",
            Duration::ZERO,
            "an Extend is input, and reaches one idle timeout from then at most".to_owned(),
        );
    }
}

struct Sum {
    left: Duration,
    terms: Vec<Term>,
}

impl Sum {
    fn add(&mut self, name: &str, duration: Duration, mut explanation: String) {
        let added = duration.min(self.left);
        if added < duration {
            explanation += &format!(" ({}, cut short by the absolute deadline)", span(duration));
        }
        self.left -= added;
        self.terms.push(Term {
            name: name.to_owned(),
            duration: added,
            explanation,
        });
    }

    /// A term without bound of its own: all that is left.
    fn all(&mut self, name: &str, explanation: &str) {
        let spent = if self.left.is_zero() {
            "; the terms above reach as far already"
        } else {
            ""
        };
        self.add(name, self.left, format!("{explanation}{spent}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{
        compliance::Preset,
        state::{OneOf, Rules, When, Word, WorkLimits},
    };

    fn mins(minutes: u64) -> Duration {
        Duration::from_secs(60 * minutes)
    }

    fn terms(limits: Limits) -> Vec<(String, u64)> {
        let policy = Policy {
            limits: Arc::new(limits),
            ..Policy::default()
        };
        let terms = worst_case(&policy, Kept::Memory);
        assert!(total(&terms) <= policy.limits.absolute_timeout);
        terms
            .into_iter()
            .filter(|term| !term.duration.is_zero())
            .map(|term| (term.name, term.duration.as_secs() / 60))
            .collect()
    }

    fn strict() -> Limits {
        let preset = Preset::named("nist-aal3").unwrap().policy();
        (*preset.limits).clone()
    }

    #[test]
    fn a_strict_policy_is_as_long_as_its_idle_timeout() {
        assert_eq!(terms(strict()), [("idle_timeout".to_owned(), 15)]);
        for preset in &Preset::ALL {
            let policy = preset.policy();
            if policy.limits.unmatched == Unmatched::Ignore {
                assert_eq!(
                    total(&worst_case(&policy, Kept::Memory)),
                    policy.limits.idle_timeout,
                    "{}",
                    preset.name
                );
            }
        }
    }

    #[test]
    fn holds_add_what_they_may_reach_and_an_idle_timeout() {
        let limits = Limits {
            work: WorkLimits {
                max_ttl: mins(5),
                budget: mins(120),
                max_live: 8,
            },
            ..strict()
        };
        let expected = [
            ("idle_timeout", 15),
            ("work_hold.max_ttl", 5),
            ("work_hold.budget", 120),
            ("work_hold.idle_timeout", 15),
        ];
        assert_eq!(
            terms(limits.clone()),
            expected.map(|(name, minutes)| (name.to_owned(), minutes))
        );
        assert_eq!(work_holds(&limits), mins(140));
        let short = Limits {
            absolute_timeout: mins(60),
            ..limits
        };
        let expected = [("idle_timeout", 15), ("work_hold.max_ttl", 5), ("work_hold.budget", 40)];
        assert_eq!(terms(short), expected.map(|(name, minutes)| (name.to_owned(), minutes)));
    }

    #[test]
    fn what_has_no_bound_reaches_to_the_absolute_deadline_by_name() {
        let person = When {
            sec_fetch_user: OneOf([Word("?1".into())].into()),
            ..When::default()
        };
        let anybody = When {
            method: OneOf([Word("GET".into())].into()),
            ..When::default()
        };
        let rule = |name: &str, when: When| {
            Arc::new(Rule {
                name: name.into(),
                counts: true,
                when,
            })
        };
        let reads = Rules {
            own: vec![rule("clicks", person), rule("reads", anybody)],
        };
        for (name, limits) in [
            (
                "unmatched",
                Limits {
                    unmatched: Unmatched::Count,
                    ..strict()
                },
            ),
            (
                "extend",
                Limits {
                    at_most: false,
                    ..strict()
                },
            ),
            (
                "rules.reads",
                Limits {
                    rules: Arc::new(reads),
                    ..strict()
                },
            ),
        ] {
            assert_eq!(terms(limits), [("idle_timeout".to_owned(), 15), (name.to_owned(), 705)]);
        }
        let none = Limits {
            at_most: false,
            max_extensions: Some(0),
            ..strict()
        };
        assert_eq!(terms(none), [("idle_timeout".to_owned(), 15)]);
        let passive = Limits {
            passive: true,
            idle_timeout: Limits::NEVER,
            ..strict()
        };
        assert_eq!(terms(passive), [("passive".to_owned(), 720)]);
    }

    #[test]
    fn the_policy_that_a_new_user_meets_names_what_keeps_sessions_alive() {
        let terms = terms(Limits::default());
        assert_eq!(terms.last(), Some(&("unmatched".to_owned(), 565)));
        let all = worst_case(&Policy::default(), Kept::Memory);
        assert_eq!(total(&all), Limits::default().absolute_timeout);
        let extend = all.last().unwrap();
        assert!(extend.name == "extend" && extend.explanation.ends_with("reach as far already"));
    }

    #[test]
    fn what_adds_nothing_is_named_too() {
        let limits = Limits {
            enforced: false,
            ..strict()
        };
        let policy = Policy {
            limits: Arc::new(limits),
            ..Policy::default()
        };
        let names: Vec<_> = worst_case(&policy, Kept::Memory)
            .into_iter()
            .map(|term| term.name)
            .collect();
        assert_eq!(
            names,
            ["enforce", "idle_timeout", "lateness", "store", "work_hold", "extend"]
        );
    }

    #[test]
    fn a_shared_store_adds_its_window_unless_the_limit_is_an_upper_bound() {
        let store = |limits: Limits, in_force| {
            let policy = Policy {
                limits: Arc::new(limits),
                ..Policy::default()
            };
            let window = policy.limits.window(None);
            let terms = worst_case(&policy, Kept::Shared { window, in_force });
            terms.into_iter().find(|term| term.name == "store").unwrap().duration
        };
        assert_eq!(store(Limits::default(), false), Duration::from_secs(9));
        assert_eq!(store(Limits::default(), true), Duration::from_secs(9));
        assert_eq!(
            store(strict(), false),
            Duration::ZERO,
            "the stored idle timeout is shorter"
        );
        assert_eq!(store(strict(), true), strict().window(None), "it is shorter already");
    }
}
