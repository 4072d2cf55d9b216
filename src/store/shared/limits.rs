//! The limits of sessions: written once for all sessions of a revision of a policy, by a digest of what they say. A record
//! carries the digest and what is its own.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::RwLock;
use prost::Message as _;

use super::body;
use crate::state::{
    Activity, Limits, OneOf, Pattern, PresenceLimits, Rule, Rules, Superseded, Unmatched, Visibility, When, Word,
    WorkLimits, policy::warning_points,
};

/// The limits that are known here, and those of this sidecar's own policies.
#[derive(Default)]
pub(super) struct Book {
    known: RwLock<HashMap<u64, Arc<Limits>>>,
    own: RwLock<HashMap<Arc<str>, Arc<Limits>>>,
}

/// Limits as they are to be written: their digest, and what it stands for.
pub(super) struct Written {
    pub(super) digest: u64,
    pub(super) bytes: Vec<u8>,
}

/// Nobody here knows what a digest stands for: ask the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotKnown(pub(super) u64);

impl Book {
    /// These are the policies of this sidecar from now on.
    pub(super) fn own(&self, policies: &[Arc<Limits>]) -> Vec<Written> {
        let mut own = self.own.write();
        own.clear();
        let mut known = self.known.write();
        let each = policies.iter().map(|limits| {
            let written = write(limits);
            own.insert(Arc::clone(&limits.policy), Arc::clone(limits));
            known.insert(written.digest, Arc::clone(limits));
            written
        });
        each.collect()
    }

    /// What the store says a digest stands for.
    pub(super) fn learn(&self, digest: u64, bytes: &[u8]) -> Result<(), String> {
        let limits = read(bytes)?;
        self.known.write().entry(digest).or_insert_with(|| Arc::new(limits));
        Ok(())
    }

    /// The digest of limits, and what must be in the store under it: those of their policy's revision, without what is a
    /// session's own.
    pub(super) fn of(&self, limits: &Limits) -> (body::LimitsOf, Option<Written>) {
        let own = (limits.own_idle_timeout, limits.own_absolute_timeout);
        let base = self.base(limits);
        let digest = base.as_ref().map(|(digest, _)| *digest);
        let (digest, base, written) = match (digest, base) {
            (Some(digest), Some((_, base))) => (digest, base, None),
            _ => {
                let written = write(limits);
                let base = Arc::new(limits.clone());
                self.known.write().insert(written.digest, Arc::clone(&base));
                (written.digest, base, Some(written))
            }
        };
        let absolute = own
            .1
            .map_or(base.absolute_timeout, |own| own.min(base.absolute_timeout));
        let of = body::LimitsOf {
            digest,
            own_idle: own.0.map(nanos),
            own_absolute: own.1.map(nanos),
            absolute: (limits.absolute_timeout != absolute).then(|| nanos(limits.absolute_timeout)),
        };
        (of, written)
    }

    /// The known limits from which these come by what is their own.
    fn base(&self, limits: &Limits) -> Option<(u64, Arc<Limits>)> {
        let known = self.known.read();
        let is_plain = limits.own_idle_timeout.is_none() && limits.own_absolute_timeout.is_none();
        let comes_from = |base: &Arc<Limits>| {
            // Nearly all are just those of a revision.
            if is_plain && **base == *limits {
                return true;
            }
            base.policy == limits.policy
                && base.revision == limits.revision
                && (Arc::ptr_eq(&base.rules, &limits.rules) || base.rules == limits.rules)
                && with_own(
                    base,
                    limits.own_idle_timeout,
                    limits.own_absolute_timeout,
                    Some(limits.absolute_timeout),
                ) == *limits
        };
        let found = known.iter().find(|(_, base)| comes_from(base))?;
        Some((*found.0, Arc::clone(found.1)))
    }

    /// The limits of a session.
    pub(super) fn limits(&self, of: &body::LimitsOf) -> Result<Arc<Limits>, NotKnown> {
        let base = self.known.read().get(&of.digest).cloned().ok_or(NotKnown(of.digest))?;
        let own = self.own.read().get(&base.policy).cloned();
        // A higher revision supersedes; of two that say the same revision nobody knows which is newer.
        let superseded = own.as_ref().is_some_and(|own| own.revision > base.revision);
        let is_plain = of.own_idle.is_none() && of.own_absolute.is_none() && of.absolute.is_none();
        if is_plain && base.superseded.is_set() == superseded {
            return Ok(base);
        }
        let mut limits = with_own(
            &base,
            of.own_idle.map(Duration::from_nanos),
            of.own_absolute.map(Duration::from_nanos),
            of.absolute.map(Duration::from_nanos),
        );
        if limits.superseded.is_set() != superseded {
            limits.superseded = Superseded::default();
            if superseded {
                limits.superseded.set();
            }
        }
        Ok(Arc::new(limits))
    }

    /// The revisions that this sidecar has, by policy.
    pub(super) fn revisions(&self) -> Vec<Arc<Limits>> {
        self.own.read().values().cloned().collect()
    }
}

fn with_own(base: &Limits, idle: Option<Duration>, own: Option<Duration>, absolute: Option<Duration>) -> Limits {
    let mut limits = if idle.is_none() && own.is_none() {
        base.clone()
    } else {
        base.stricter(idle, own)
    };
    if let Some(absolute) = absolute.filter(|absolute| *absolute != limits.absolute_timeout) {
        limits.absolute_timeout = absolute;
        limits.absolute_points = warning_points(&base.absolute_points, absolute);
    }
    limits
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Limits as they are to be written.
pub(super) fn write(limits: &Limits) -> Written {
    let spans = |points: &[Duration]| points.iter().copied().map(nanos).collect();
    let body = body::Limits {
        policy: limits.policy.to_string(),
        revision: limits.revision,
        idle_timeout: nanos(limits.idle_timeout),
        absolute_timeout: nanos(limits.absolute_timeout),
        idle_points: spans(&limits.idle_points),
        absolute_points: spans(&limits.absolute_points),
        unmatched_counts: limits.unmatched == Unmatched::Count,
        rules: limits.rules.own.iter().map(|rule| write_rule(rule)).collect(),
        max_extensions: limits.max_extensions,
        tombstone_ttl: nanos(limits.tombstone_ttl),
        work_max_ttl: nanos(limits.work.max_ttl),
        work_budget: nanos(limits.work.budget),
        work_max_live: limits.work.max_live,
        presence: limits.presence.map(|presence| body::Presence {
            leave_grace: nanos(presence.leave_grace),
            lost_grace: nanos(presence.lost_grace),
            max_ttl: nanos(presence.max_ttl),
            max_live: presence.max_live,
        }),
        passive: limits.passive,
        at_most: limits.at_most,
        observed_only: !limits.enforced,
    };
    let bytes = body.encode_to_vec();
    let mut digest = [0; 8];
    digest.copy_from_slice(&blake3::hash(&bytes).as_bytes()[..8]);
    Written {
        digest: u64::from_le_bytes(digest),
        bytes,
    }
}

fn write_rule(rule: &Rule) -> body::Rule {
    let words = |list: &OneOf<Word>| list.0.iter().map(|word| word.0.to_string()).collect();
    let patterns = |list: &OneOf<Pattern>| list.0.iter().map(|pattern| pattern.text().to_owned()).collect();
    let when = &rule.when;
    body::Rule {
        name: rule.name.to_string(),
        counts: rule.counts,
        kind: match when.kind {
            Some(Activity::User) => 1,
            Some(Activity::Background) => 2,
            Some(Activity::Unspecified) | None => 0,
        },
        visibility: match when.visibility {
            Some(Visibility::Visible) => 1,
            Some(Visibility::Hidden) => 2,
            Some(Visibility::Unspecified) | None => 0,
        },
        method: words(&when.method),
        sec_fetch_user: words(&when.sec_fetch_user),
        sec_fetch_mode: words(&when.sec_fetch_mode),
        sec_fetch_dest: words(&when.sec_fetch_dest),
        sec_purpose: words(&when.sec_purpose),
        host: patterns(&when.host),
        path: patterns(&when.path),
    }
}

/// Limits as they were written.
fn read(bytes: &[u8]) -> Result<Limits, String> {
    let body = body::Limits::decode(bytes).map_err(|error| error.to_string())?;
    let span = Duration::from_nanos;
    let spans = |points: Vec<u64>| points.into_iter().map(span).collect();
    let rules = body.rules.into_iter().map(read_rule).collect::<Result<_, _>>()?;
    Ok(Limits {
        policy: body.policy.into(),
        revision: body.revision,
        idle_timeout: span(body.idle_timeout),
        absolute_timeout: span(body.absolute_timeout),
        idle_points: spans(body.idle_points),
        absolute_points: spans(body.absolute_points),
        unmatched: if body.unmatched_counts {
            Unmatched::Count
        } else {
            Unmatched::Ignore
        },
        rules: Arc::new(Rules { own: rules }),
        max_extensions: body.max_extensions,
        tombstone_ttl: span(body.tombstone_ttl),
        work: WorkLimits {
            max_ttl: span(body.work_max_ttl),
            budget: span(body.work_budget),
            max_live: body.work_max_live,
        },
        presence: body.presence.map(|presence| PresenceLimits {
            leave_grace: span(presence.leave_grace),
            lost_grace: span(presence.lost_grace),
            max_ttl: span(presence.max_ttl),
            max_live: presence.max_live,
        }),
        passive: body.passive,
        at_most: body.at_most,
        enforced: !body.observed_only,
        own_idle_timeout: None,
        own_absolute_timeout: None,
        superseded: Superseded::default(),
    })
}

fn read_rule(body: body::Rule) -> Result<Arc<Rule>, String> {
    let words = |list: Vec<String>| OneOf(list.into_iter().map(|word| Word(word.into())).collect());
    let hosts: Result<Box<[_]>, _> = body.host.iter().map(|text| Pattern::host(text)).collect();
    let paths: Result<Box<[_]>, _> = body.path.iter().map(|text| Pattern::path(text)).collect();
    Ok(Arc::new(Rule {
        name: body.name.into(),
        counts: body.counts,
        when: When {
            kind: match body.kind {
                1 => Some(Activity::User),
                2 => Some(Activity::Background),
                _ => None,
            },
            visibility: match body.visibility {
                1 => Some(Visibility::Visible),
                2 => Some(Visibility::Hidden),
                _ => None,
            },
            method: words(body.method),
            sec_fetch_user: words(body.sec_fetch_user),
            sec_fetch_mode: words(body.sec_fetch_mode),
            sec_fetch_dest: words(body.sec_fetch_dest),
            sec_purpose: words(body.sec_purpose),
            host: OneOf(hosts?),
            path: OneOf(paths?),
        },
    }))
}
