//! The policies in force, and how a reload changes them.
//!
//! Sessions keep the limits that they were created with. A reload marks changed limits as superseded; a session that sees
//! the mark at its next counted activity asks [`Policies::current`] and takes over what it finds.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::RwLock;

use crate::state::{Limits, Policy};

/// The policies by name.
pub struct Policies {
    entries: RwLock<BTreeMap<String, Entry>>,
    /// The shortest id that any policy has ever accepted: such sessions may live, and must be found.
    min_id_length: AtomicUsize,
    /// Why the policy file is not in force as it is now; empty if it is.
    file_problem: RwLock<String>,
}

#[derive(Clone)]
struct Entry {
    policy: Policy,
    /// Whether Create may use it. Else it was removed and lives on for its sessions.
    active: bool,
    /// Limits that it had before and that sessions still have.
    older: Vec<Arc<Limits>>,
}

impl Entry {
    fn new(policy: Policy) -> Self {
        Self {
            policy,
            active: true,
            older: Vec::new(),
        }
    }

    /// Whether a session has its limits, of now or of before.
    fn is_used(&self) -> bool {
        is_used(&self.policy.limits) || self.older.iter().any(is_used)
    }
}

/// What a reload changed: names of policies, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// New ones, and removed ones that came back.
    pub added: Vec<String>,
    /// Changed ones.
    pub changed: Vec<String>,
    /// Those that Create may no longer use.
    pub removed: Vec<String>,
    /// Those whose revision in the file is lower than the one in force, which stays.
    pub kept_newer: Vec<String>,
}

impl Reloaded {
    /// Whether everything is as it was.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

impl Policies {
    /// These policies, all active.
    #[must_use]
    pub fn new(policies: BTreeMap<String, Policy>) -> Self {
        let entries: BTreeMap<_, _> = policies
            .into_iter()
            .map(|(name, policy)| (name, Entry::new(policy)))
            .collect();
        Self {
            min_id_length: AtomicUsize::new(shortest_id(&entries).unwrap_or(1)),
            entries: RwLock::new(entries),
            file_problem: RwLock::default(),
        }
    }

    /// Why the policy file is not in force as it is now; empty if it is.
    #[must_use]
    pub fn file_problem(&self) -> String {
        self.file_problem.read().clone()
    }

    /// Says why the policy file is not in force as it is now, or that it is.
    pub fn set_file_problem(&self, problem: String) {
        *self.file_problem.write() = problem;
    }

    /// The policy that Create may use under a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Policy> {
        let entries = self.entries.read();
        let entry = entries.get(name).filter(|entry| entry.active)?;
        Some(entry.policy.clone())
    }

    /// The limits that are in force under a name, for sessions that live: also those of a removed policy.
    #[must_use]
    pub fn current(&self, name: &str) -> Option<Arc<Limits>> {
        let entries = self.entries.read();
        entries.get(name).map(|entry| Arc::clone(&entry.policy.limits))
    }

    /// The names that Create may use.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = self.entries.read();
        let active = entries.iter().filter(|(_, entry)| entry.active);
        active.map(|(name, _)| name.clone()).collect()
    }

    /// The shortest id that a session can have. It never grows: sessions with short ids may live.
    #[must_use]
    pub fn min_id_length(&self) -> usize {
        self.min_id_length.load(Ordering::Relaxed)
    }

    /// All policies, by name, and whether Create may use them.
    #[must_use]
    pub fn all(&self) -> Vec<(Policy, bool)> {
        let entries = self.entries.read();
        let all = entries.values().map(|entry| (entry.policy.clone(), entry.active));
        all.collect()
    }

    /// Takes over what a file says, or nothing of it. A lower revision never overwrites a higher one; the same revision
    /// with other content is refused, unless it is 0. What did not change keeps its limits, so that no session looks for
    /// new ones.
    pub fn reload(&self, policies: BTreeMap<String, Policy>) -> Result<Reloaded, String> {
        let mut entries = self.entries.write();
        let mut next = BTreeMap::new();
        let mut reloaded = Reloaded::default();
        for (name, mut policy) in policies {
            let Some(old) = entries.get(&name) else {
                reloaded.added.push(name.clone());
                next.insert(name, Entry::new(policy));
                continue;
            };
            let (had, has) = (old.policy.limits.revision, policy.limits.revision);
            if policy.limits == old.policy.limits {
                policy.limits = Arc::clone(&old.policy.limits);
            }
            if has == had && has != 0 && policy != old.policy {
                return Err(format!(
                    "[policy.{name}]: its content changed, and its revision is {has} as before: a change needs a \
                     higher revision, or none at all"
                ));
            }
            if has < had {
                reloaded.kept_newer.push(name.clone());
                policy = old.policy.clone();
            }
            if !old.active {
                reloaded.added.push(name.clone());
            } else if policy != old.policy {
                reloaded.changed.push(name.clone());
            }
            next.insert(name, Entry::new(policy));
        }
        let mut superseded = Vec::new();
        for (name, mut old) in std::mem::take(&mut *entries) {
            old.older.retain(is_used);
            if let Some(entry) = next.get_mut(&name) {
                entry.older = old.older;
                if !Arc::ptr_eq(&entry.policy.limits, &old.policy.limits) {
                    superseded.push(Arc::clone(&old.policy.limits));
                    entry.older.push(old.policy.limits);
                }
                continue;
            }
            if old.active {
                reloaded.removed.push(name.clone());
            }
            // Whoever has none of its sessions needs a removed policy no more.
            if old.is_used() {
                next.insert(name, Entry { active: false, ..old });
            }
        }
        if let Some(shortest) = shortest_id(&next) {
            self.min_id_length.fetch_min(shortest, Ordering::Relaxed);
        }
        *entries = next;
        // Only now: a session that sees the mark must find the new limits.
        drop(entries);
        for limits in superseded {
            limits.superseded.set();
        }
        Ok(reloaded)
    }
}

/// Whether a session has these limits, or stricter ones made from them.
fn is_used(limits: &Arc<Limits>) -> bool {
    Arc::strong_count(limits) > 1 || limits.superseded.is_shared()
}

fn shortest_id(entries: &BTreeMap<String, Entry>) -> Option<usize> {
    entries.values().map(|entry| entry.policy.min_id_length).min()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn policy(name: &str, revision: u64, idle_minutes: u64) -> Policy {
        Policy {
            limits: Arc::new(Limits {
                policy: name.into(),
                revision,
                idle_timeout: Duration::from_secs(60 * idle_minutes),
                ..Limits::default()
            }),
            ..Policy::default()
        }
    }

    fn file<const N: usize>(policies: [Policy; N]) -> BTreeMap<String, Policy> {
        let named = policies.map(|policy| (policy.limits.policy.to_string(), policy));
        BTreeMap::from(named)
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_did_not_change_keeps_its_limits() {
        let policies = Policies::new(file([policy("a", 0, 15), policy("b", 3, 15)]));
        let (a, b) = (policies.current("a").unwrap(), policies.current("b").unwrap());
        let reloaded = policies.reload(file([policy("a", 0, 15), policy("b", 3, 15)])).unwrap();
        assert!(reloaded.is_nothing());
        assert!(Arc::ptr_eq(&a, &policies.current("a").unwrap()));
        assert!(Arc::ptr_eq(&b, &policies.current("b").unwrap()));
        assert!(!a.superseded.is_set() && !b.superseded.is_set());
    }

    #[test]
    fn a_change_supersedes_the_limits_that_sessions_have() {
        let policies = Policies::new(file([policy("a", 0, 15), policy("b", 3, 15), policy("c", 0, 15)]));
        let (a, b) = (policies.current("a").unwrap(), policies.current("b").unwrap());
        let own = a.stricter(Some(Duration::from_secs(60)), None);
        let reloaded = policies
            .reload(file([policy("a", 0, 20), policy("b", 4, 20), policy("d", 0, 1)]))
            .unwrap();
        assert_eq!(reloaded.changed, names(&["a", "b"]));
        assert_eq!((reloaded.added, reloaded.removed), (names(&["d"]), names(&["c"])));
        assert!(a.superseded.is_set() && b.superseded.is_set() && own.superseded.is_set());
        let now = policies.current("a").unwrap();
        assert_eq!((now.idle_timeout, now.revision), (Duration::from_secs(1200), 0));
        assert!(!now.superseded.is_set());
        assert_eq!(policies.names(), names(&["a", "b", "d"]));
    }

    #[test]
    fn a_cap_can_change_without_new_limits() {
        let policies = Policies::new(file([policy("a", 0, 15)]));
        let limits = policies.current("a").unwrap();
        let capped = Policy {
            max_sessions_per_subject: Some(2),
            ..policy("a", 0, 15)
        };
        assert_eq!(policies.reload(file([capped])).unwrap().changed, names(&["a"]));
        assert_eq!(policies.get("a").unwrap().max_sessions_per_subject, Some(2));
        assert!(Arc::ptr_eq(&limits, &policies.current("a").unwrap()) && !limits.superseded.is_set());
    }

    #[test]
    fn a_lower_revision_never_overwrites_a_higher_one() {
        let policies = Policies::new(file([policy("a", 3, 15)]));
        for lower in [0, 2] {
            let reloaded = policies.reload(file([policy("a", lower, 20)])).unwrap();
            assert_eq!(reloaded.kept_newer, names(&["a"]));
            assert!(reloaded.is_nothing());
            assert_eq!(policies.current("a").unwrap().idle_timeout, Duration::from_secs(900));
        }
    }

    #[test]
    fn the_same_revision_with_other_content_is_refused_and_nothing_changes() {
        let policies = Policies::new(file([policy("a", 0, 15), policy("b", 3, 15)]));
        let a = policies.current("a").unwrap();
        let error = policies
            .reload(file([policy("a", 0, 20), policy("b", 3, 20)]))
            .unwrap_err();
        assert!(
            error.contains("[policy.b]") && error.contains("revision is 3"),
            "{error}"
        );
        assert!(Arc::ptr_eq(&a, &policies.current("a").unwrap()) && !a.superseded.is_set());
        let capped = Policy {
            max_sessions_per_subject: Some(2),
            ..policy("b", 3, 15)
        };
        policies.reload(file([policy("a", 0, 15), capped])).unwrap_err();
    }

    #[test]
    fn a_removed_policy_lives_on_for_its_sessions_and_is_refused_to_create() {
        let policies = Policies::new(file([policy("a", 3, 15), policy("b", 0, 15)]));
        let session = policies.current("a").unwrap();
        policies.reload(file([policy("b", 0, 15)])).unwrap();
        assert!(policies.get("a").is_none());
        assert!(Arc::ptr_eq(&session, &policies.current("a").unwrap()));
        assert!(!session.superseded.is_set());
        let told: Vec<_> = policies
            .all()
            .into_iter()
            .map(|(policy, active)| (policy.limits.policy.to_string(), active))
            .collect();
        assert_eq!(told, [("a".to_owned(), false), ("b".to_owned(), true)]);
        // It comes back: an older one as it was in force, a newer one as a change.
        let reloaded = policies.reload(file([policy("a", 2, 1), policy("b", 0, 15)])).unwrap();
        assert_eq!((reloaded.added, reloaded.kept_newer), (names(&["a"]), names(&["a"])));
        assert!(Arc::ptr_eq(&session, &policies.get("a").unwrap().limits));
        policies.reload(file([policy("b", 0, 15)])).unwrap();
        policies.reload(file([policy("a", 4, 1), policy("b", 0, 15)])).unwrap();
        assert!(session.superseded.is_set());
    }

    #[test]
    fn a_removed_policy_is_forgotten_when_it_has_no_session() {
        let policies = Policies::new(file([policy("a", 3, 15), policy("b", 0, 15)]));
        let stricter = policies
            .current("a")
            .unwrap()
            .stricter(Some(Duration::from_secs(60)), None);
        policies.reload(file([policy("b", 0, 15)])).unwrap();
        assert!(policies.current("a").is_some(), "a session with stricter limits lives");
        drop(stricter);
        let reloaded = policies.reload(file([policy("b", 0, 15)])).unwrap();
        assert!(reloaded.is_nothing(), "it was removed before");
        assert!(policies.current("a").is_none());
    }

    #[test]
    fn a_removed_policy_waits_for_sessions_that_have_not_followed_its_last_change() {
        let policies = Policies::new(file([policy("a", 0, 15), policy("b", 0, 15)]));
        let session = policies.current("a").unwrap();
        policies.reload(file([policy("a", 0, 20), policy("b", 0, 15)])).unwrap();
        policies.reload(file([policy("b", 0, 15)])).unwrap();
        assert_eq!(policies.current("a").unwrap().idle_timeout, Duration::from_secs(1200));
        drop(session);
        policies.reload(file([policy("b", 0, 15)])).unwrap();
        assert!(policies.current("a").is_none());
    }

    #[test]
    fn the_shortest_id_never_grows() {
        let with = |length| Policy {
            min_id_length: length,
            ..policy("a", 0, 15)
        };
        let policies = Policies::new(file([with(16)]));
        policies.reload(file([with(8)])).unwrap();
        assert_eq!(policies.min_id_length(), 8);
        policies.reload(file([with(32)])).unwrap();
        assert_eq!(policies.min_id_length(), 8, "sessions with ids of 8 bytes may live");
        assert_eq!(policies.get("a").unwrap().min_id_length, 32);
    }
}
