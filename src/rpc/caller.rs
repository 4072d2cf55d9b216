//! Who calls: each listener says which tenants its callers may name and which groups of verbs they may use.

use std::{fmt, str::FromStr, sync::Arc};

/// What the callers of a listener may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// How they are known, in words for the audit log.
    pub known_by: Box<str>,
    /// The tenants that they may name.
    pub tenants: Arc<[Arc<str>]>,
    /// The groups of verbs that they may use.
    pub verbs: Vec<VerbGroup>,
}

/// A group of verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VerbGroup {
    /// Touch, BatchTouch, Check, Extend, Hold, Release.
    Use,
    /// Create, Rotate.
    Issue,
    /// End.
    End,
    /// WatchExpiry of sessions that the caller names by their ids.
    WatchOwn,
    /// WatchExpiry of anything else.
    WatchAll,
    /// All of SessionAdminService. No caller may use it unless a listener says so.
    Admin,
}

impl VerbGroup {
    /// All of them, by the names that configuration uses.
    pub const ALL: [(&'static str, Self); 6] = [
        ("use", Self::Use),
        ("issue", Self::Issue),
        ("end", Self::End),
        ("watch-own", Self::WatchOwn),
        ("watch-all", Self::WatchAll),
        ("admin", Self::Admin),
    ];
}

impl fmt::Display for VerbGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(_, group)| group == self)
            .map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

impl FromStr for VerbGroup {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let group = Self::ALL.iter().find(|(known, _)| *known == name);
        group.map(|(_, group)| *group).ok_or_else(|| {
            let known = Self::ALL.map(|(known, _)| known).join(", ");
            format!("there is no verb group {name:?}; there are {known}")
        })
    }
}

impl Default for Caller {
    /// The tenant "" and every verb but those of the group `admin`.
    fn default() -> Self {
        let groups = VerbGroup::ALL.into_iter().map(|(_, group)| group);
        Self {
            known_by: Box::default(),
            tenants: Arc::new(["".into()]),
            verbs: groups.filter(|group| *group != VerbGroup::Admin).collect(),
        }
    }
}

impl Caller {
    /// Whether they may use a group of verbs.
    #[must_use]
    pub fn may(&self, group: VerbGroup) -> bool {
        self.verbs.contains(&group)
    }

    /// Whether they may do the same as another.
    #[must_use]
    pub fn has_rights_of(&self, other: &Self) -> bool {
        (&self.tenants, &self.verbs) == (&other.tenants, &other.verbs)
    }

    /// The tenant of this name, if they may name it.
    #[must_use]
    pub fn tenant(&self, name: &str) -> Option<&Arc<str>> {
        self.tenants.iter().find(|tenant| ***tenant == *name)
    }
}
