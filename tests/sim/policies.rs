//! The policies of the simulation, as an operator writes them. The sidecar gets them as its own types; the checker reads
//! these plain numbers.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use session_sidecar::state::{
    AtSubjectCap, Limits, Policy, PresenceLimits, Unmatched, WorkLimits, policy::warning_points,
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
        }
    }
}

/// The names that scripts use, by number.
pub(crate) const NAMES: [&str; 8] = [
    "default", "short", "tabs", "works", "capped", "newest", "observed", "passive",
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
