//! The policies of the simulation, as an operator writes them. The sidecar gets them as its own types; the checker reads
//! these plain numbers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use session_sidecar::state::{
    Activity, AtSubjectCap, Limits, OneOf, Pattern, Policy, PresenceLimits, Rule, Rules, Unmatched, Visibility, When,
    Word, WorkLimits, policy::warning_points,
};

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// One policy; all times in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    pub(crate) revision: u64,
    pub(crate) idle: u64,
    pub(crate) absolute: u64,
    pub(crate) idle_leads: Vec<u64>,
    pub(crate) absolute_leads: Vec<u64>,
    pub(crate) unmatched_counts: bool,
    pub(crate) max_extensions: Option<u32>,
    pub(crate) tombstone: u64,
    pub(crate) work_ttl: u64,
    pub(crate) work_budget: u64,
    pub(crate) work_live: u32,
    pub(crate) presence: Option<Presence>,
    pub(crate) enforced: bool,
    pub(crate) passive: bool,
    pub(crate) cap: Option<(u32, bool)>,
    pub(crate) rules: Vec<OwnRule>,
}

/// A rule of a policy's own: the conditions that are set must all be met.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct OwnRule {
    pub(crate) name: &'static str,
    pub(crate) counts: bool,
    /// The declared kind, as in a script. `None`: it is about touches that declare none.
    pub(crate) kind: Option<u8>,
    pub(crate) method: Option<&'static str>,
    /// A path, or with a `*` at its end all that begin so.
    pub(crate) path: Option<&'static str>,
    pub(crate) hidden: bool,
}

/// What PRESENCE does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Presence {
    pub(crate) leave: u64,
    pub(crate) lost: u64,
    pub(crate) max_ttl: u64,
    pub(crate) max_live: u32,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            name: "default",
            revision: 1,
            idle: 15 * MINUTE,
            absolute: 12 * HOUR,
            idle_leads: vec![2 * MINUTE, MINUTE],
            absolute_leads: vec![10 * MINUTE, 2 * MINUTE],
            unmatched_counts: true,
            max_extensions: None,
            tombstone: 24 * HOUR,
            work_ttl: 5 * MINUTE,
            work_budget: 2 * HOUR,
            work_live: 8,
            presence: None,
            enforced: true,
            passive: false,
            cap: None,
            rules: Vec::new(),
        }
    }
}

/// Own rules: the first that matches decides, and what none matches is `unmatched`, whatever the built-in rules say.
fn own_rules() -> Vec<OwnRule> {
    let rule = |name, counts| OwnRule {
        name,
        counts,
        ..OwnRule::default()
    };
    vec![
        OwnRule {
            path: Some("/polls/*"),
            ..rule("polls", false)
        },
        OwnRule {
            method: Some("POST"),
            path: Some("/save"),
            ..rule("saves", true)
        },
        OwnRule {
            hidden: true,
            ..rule("hidden-pages", false)
        },
        OwnRule {
            kind: Some(1),
            path: Some("/polls/*"),
            ..rule("said-to-be-a-person", false)
        },
        // It may say so: background never counts (G9).
        OwnRule {
            kind: Some(2),
            method: Some("GET"),
            ..rule("background", true)
        },
    ]
}

/// The names that scripts use, by number.
pub(crate) const NAMES: [&str; 9] = [
    "default", "short", "tabs", "works", "capped", "newest", "observed", "passive", "ruled",
];

/// The policies as they are after `reloads` reloads: one after the other gets a new revision with other limits.
pub(crate) fn specs(reloads: u32) -> Vec<Spec> {
    let mut specs = vec![
        Spec::default(),
        Spec {
            name: "short",
            idle: MINUTE,
            absolute: 10 * MINUTE,
            idle_leads: vec![20 * SECOND, 10 * SECOND, 45 * SECOND],
            absolute_leads: vec![MINUTE, 20 * SECOND],
            unmatched_counts: false,
            max_extensions: Some(3),
            tombstone: 10 * MINUTE,
            ..Spec::default()
        },
        Spec {
            name: "tabs",
            idle: 30 * MINUTE,
            idle_leads: vec![MINUTE],
            presence: Some(Presence {
                leave: 30 * SECOND,
                lost: 3 * MINUTE,
                max_ttl: 10 * MINUTE,
                max_live: 3,
            }),
            tombstone: HOUR,
            ..Spec::default()
        },
        Spec {
            name: "works",
            idle: 5 * MINUTE,
            absolute: 3 * HOUR,
            idle_leads: vec![MINUTE],
            absolute_leads: vec![5 * MINUTE],
            work_ttl: 4 * MINUTE,
            work_budget: 20 * MINUTE,
            work_live: 2,
            presence: Some(Presence {
                leave: 20 * SECOND,
                lost: 6 * MINUTE,
                max_ttl: 5 * MINUTE,
                max_live: 64,
            }),
            ..Spec::default()
        },
        Spec {
            name: "capped",
            cap: Some((2, false)),
            ..Spec::default()
        },
        Spec {
            name: "newest",
            idle: 20 * MINUTE,
            cap: Some((2, true)),
            ..Spec::default()
        },
        Spec {
            name: "observed",
            idle: 10 * MINUTE,
            absolute: 2 * HOUR,
            enforced: false,
            tombstone: 30 * MINUTE,
            ..Spec::default()
        },
        Spec {
            name: "passive",
            absolute: 4 * HOUR,
            idle_leads: Vec::new(),
            passive: true,
            ..Spec::default()
        },
        Spec {
            name: "ruled",
            idle: 10 * MINUTE,
            unmatched_counts: false,
            rules: own_rules(),
            ..Spec::default()
        },
    ];
    for reload in 1..=reloads {
        let spec = &mut specs[(reload as usize * 3 + 1) % 4];
        spec.revision = u64::from(reload) + 1;
        // Now stricter, now looser, and other points.
        let longer = reload % 2 == 0;
        spec.idle = if longer { spec.idle * 3 / 2 } else { spec.idle * 2 / 3 };
        spec.absolute = if longer { spec.absolute * 2 } else { spec.absolute / 2 };
        spec.absolute = spec.absolute.max(spec.idle);
        spec.idle_leads[0] = if longer { 30 * SECOND } else { 50 * SECOND };
    }
    specs
}

/// The policies as the sidecar takes them.
pub(crate) fn policies(specs: &[Spec]) -> BTreeMap<String, Policy> {
    specs.iter().map(|spec| (spec.name.to_owned(), policy(spec))).collect()
}

fn policy(spec: &Spec) -> Policy {
    let ms = Duration::from_millis;
    let leads = |leads: &[u64]| leads.iter().map(|lead| ms(*lead)).collect::<Vec<_>>();
    let idle = if spec.passive { Limits::NEVER } else { ms(spec.idle) };
    Policy {
        limits: Arc::new(Limits {
            policy: spec.name.into(),
            revision: spec.revision,
            idle_timeout: idle,
            absolute_timeout: ms(spec.absolute),
            idle_points: warning_points(&leads(&spec.idle_leads), idle),
            absolute_points: warning_points(&leads(&spec.absolute_leads), ms(spec.absolute)),
            unmatched: if spec.unmatched_counts {
                Unmatched::Count
            } else {
                Unmatched::Ignore
            },
            max_extensions: spec.max_extensions,
            tombstone_ttl: ms(spec.tombstone),
            work: WorkLimits {
                max_ttl: ms(spec.work_ttl),
                budget: ms(spec.work_budget),
                max_live: spec.work_live,
            },
            presence: spec.presence.map(|presence| PresenceLimits {
                leave_grace: ms(presence.leave),
                lost_grace: ms(presence.lost),
                max_ttl: ms(presence.max_ttl),
                max_live: presence.max_live,
            }),
            rules: Arc::new(Rules {
                own: spec.rules.iter().map(rule).collect(),
            }),
            passive: spec.passive,
            enforced: spec.enforced,
            ..Limits::default()
        }),
        max_sessions_per_subject: spec.cap.map(|(most, _)| most),
        at_subject_cap: match spec.cap {
            Some((_, true)) => AtSubjectCap::EndOldest,
            _ => AtSubjectCap::Refuse,
        },
        ..Policy::default()
    }
}

fn rule(rule: &OwnRule) -> Arc<Rule> {
    let path = rule.path.map(|path| Pattern::path(path).expect("a good pattern"));
    Arc::new(Rule {
        name: rule.name.into(),
        counts: rule.counts,
        when: When {
            kind: rule.kind.map(|kind| match kind {
                1 => Activity::User,
                _ => Activity::Background,
            }),
            visibility: rule.hidden.then_some(Visibility::Hidden),
            method: OneOf(rule.method.map(|method| Word(method.into())).into_iter().collect()),
            path: OneOf(path.into_iter().collect()),
            ..When::default()
        },
    })
}
