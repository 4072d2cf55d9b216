//! The policies in force.

use std::{collections::BTreeMap, sync::Arc};

use crate::state::{Limits, Policy};

/// The policies by name.
pub struct Policies(BTreeMap<String, Policy>);

impl Policies {
    /// These policies.
    #[must_use]
    pub fn new(policies: BTreeMap<String, Policy>) -> Self {
        Self(policies)
    }

    /// A policy that Create may use.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Policy> {
        self.0.get(name).cloned()
    }

    /// The limits that a policy gives now, to live sessions too.
    #[must_use]
    pub fn current(&self, name: &str) -> Option<Arc<Limits>> {
        self.0.get(name).map(|policy| Arc::clone(&policy.limits))
    }

    /// The names of those that Create may use.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// The shortest id that any of them accepts.
    #[must_use]
    pub fn min_id_length(&self) -> usize {
        self.0.values().map(|policy| policy.min_id_length).min().unwrap_or(1)
    }
}
