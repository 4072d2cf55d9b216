//! The names of keys. What is in braces decides the slot of a cluster: all of a bucket lies in one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use super::link::Address;
use crate::state::SessionRef;

/// The names of one namespace.
pub(super) struct Names {
    namespace: String,
    buckets: Vec<String>,
}

/// The channels of a namespace with so many buckets: each says when something has happened in its bucket.
#[must_use]
pub fn channels(namespace: &str, buckets: usize) -> Vec<Vec<u8>> {
    let names = Names::new(namespace, buckets);
    (0..buckets).map(|bucket| names.channel(bucket)).collect()
}

/// Into how many buckets a namespace is divided whose store is at such an address.
#[must_use]
pub fn buckets(address: &Address) -> usize {
    if address.is_cluster() { 64 } else { 16 }
}

impl Names {
    pub(super) fn new(namespace: &str, buckets: usize) -> Self {
        Self {
            namespace: namespace.to_owned(),
            buckets: (0..buckets)
                .map(|bucket| format!("ss1:{{{namespace}.{bucket}}}:"))
                .collect(),
        }
    }

    /// How many buckets there are.
    pub(super) fn buckets(&self) -> usize {
        self.buckets.len()
    }

    /// The bucket of a session: buckets are in the order of refs.
    pub(super) fn bucket(&self, session: SessionRef) -> usize {
        session.shard(self.buckets.len())
    }

    fn of(&self, bucket: usize, name: &str) -> Vec<u8> {
        format!("{}{name}", self.buckets[bucket]).into_bytes()
    }

    pub(super) fn meta(&self, bucket: usize) -> Vec<u8> {
        self.of(bucket, "m")
    }

    pub(super) fn due(&self, bucket: usize) -> Vec<u8> {
        self.of(bucket, "d")
    }

    pub(super) fn ended(&self, bucket: usize) -> Vec<u8> {
        self.of(bucket, "g")
    }

    pub(super) fn events(&self, bucket: usize) -> Vec<u8> {
        self.of(bucket, "e")
    }

    pub(super) fn channel(&self, bucket: usize) -> Vec<u8> {
        self.of(bucket, "c")
    }

    /// What says which sessions a bucket has: its meta first, as in all keys of a script.
    pub(super) fn indexes(&self, bucket: usize) -> Vec<Vec<u8>> {
        vec![self.meta(bucket), self.due(bucket), self.ended(bucket)]
    }

    /// A record, and when to look at it.
    pub(super) fn record_and_due(&self, session: SessionRef) -> Vec<Vec<u8>> {
        let bucket = self.bucket(session);
        vec![self.meta(bucket), self.record(session), self.due(bucket)]
    }

    /// What the names of the records of a bucket begin with.
    pub(super) fn records(&self, bucket: usize) -> Vec<u8> {
        self.of(bucket, "s:")
    }

    pub(super) fn record(&self, session: SessionRef) -> Vec<u8> {
        self.of(self.bucket(session), &format!("s:{session}"))
    }

    pub(super) fn timeline(&self, session: SessionRef) -> Vec<u8> {
        self.of(self.bucket(session), &format!("y:{session}"))
    }

    pub(super) fn tallies(&self, session: SessionRef) -> Vec<u8> {
        self.of(self.bucket(session), &format!("k:{session}"))
    }

    /// What is fixed for the namespace.
    pub(super) fn namespace(&self) -> Vec<u8> {
        self.of_namespace("n")
    }

    pub(super) fn presence(&self) -> Vec<u8> {
        self.of_namespace("p")
    }

    /// Which servers each sidecar has told what they may have forgotten.
    pub(super) fn told(&self) -> Vec<u8> {
        self.of_namespace("t")
    }

    pub(super) fn limits(&self) -> Vec<u8> {
        self.of_namespace("l")
    }

    /// Which policies each sidecar has.
    pub(super) fn policies(&self) -> Vec<u8> {
        self.of_namespace("r")
    }

    fn of_namespace(&self, name: &str) -> Vec<u8> {
        format!("ss1:{{{}}}:{name}", self.namespace).into_bytes()
    }

    /// Which of two names a session gets that has not begun: of either order the same.
    pub(super) fn claim(&self, one: SessionRef, other: SessionRef) -> Vec<u8> {
        let first = one.min(other);
        self.of(self.bucket(first), &format!("t:{first}"))
    }

    /// The list of a subject's sessions and its ticket, in a slot of their own. They outlive the key of the store, and do not come
    /// from it: whoever may read a record knows its subject.
    pub(super) fn subject(&self, tenant: &str, subject: &str) -> [Vec<u8>; 2] {
        let mut hasher = blake3::Hasher::new_derive_key("session-sidecar 2026 lists of subjects in a store");
        hasher.update(&tenant.len().to_le_bytes()).update(tenant.as_bytes());
        let hash = hasher.update(subject.as_bytes()).finalize();
        let hash = URL_SAFE_NO_PAD.encode(&hash.as_bytes()[..16]);
        ["u", "v"].map(|name| format!("ss1:{{{}.{hash}}}:{name}", self.namespace).into_bytes())
    }
}
