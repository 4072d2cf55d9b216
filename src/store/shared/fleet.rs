//! The sidecars of a namespace: each says that it is there, so that they share out the work, and which policies it has, so that a
//! mismatch is seen where it matters. That decides nothing: a session keeps the limits that are in its record, and only a higher
//! revision reaches it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};

use super::{
    Shared,
    ask::{bytes, int, list, text},
    limits::write,
    scripts,
    story::Whose,
};

/// What other sidecars have of a policy where this one has something else: a revision, and how many have it. No revision: the policy is
/// not there.
pub type Elsewhere = BTreeMap<Option<u64>, u32>;

/// A sidecar counts as there for so long.
const THERE: Duration = Duration::from_secs(15);

/// How often this sidecar says that it is there.
pub(super) const HOUSE: Duration = Duration::from_secs(5);

impl Shared {
    /// Keeps this sidecar among those that are there, and tells what is only counted here.
    pub async fn keep_house(self: Arc<Self>) {
        let mut tick = interval(HOUSE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if self.is_up() {
                self.be_there(false, &BTreeSet::new()).await;
                self.compare_policies().await;
                self.flush(Whose::Old).await;
                self.near.sweep();
            }
        }
    }

    /// Leaves: what is only counted here is told, and others need not wait for this sidecar.
    pub async fn leave(&self) {
        // A server that has just taken over is told what only this sidecar knows.
        let _ = self.meet().await;
        if self.is_up() {
            self.flush(Whose::All).await;
            self.be_there(true, &BTreeSet::new()).await;
        }
    }

    /// Says that this sidecar is there, or leaves, and learns its rank; says which servers it has told what they may have forgotten,
    /// `strangers` among them, and learns how many others have not told those yet. Nothing if the store does not answer.
    pub(super) async fn be_there(&self, leaves: bool, strangers: &BTreeSet<String>) -> Option<usize> {
        let told: Vec<_> = {
            let (connected, known) = (self.connected(), self.known.lock());
            let told = connected.into_iter();
            told.filter(|server| known.contains(server) || strangers.contains(server))
                .collect()
        };
        let strangers: Vec<_> = strangers.iter().map(String::as_str).collect();
        let args = vec![
            self.name.clone().into_bytes(),
            text(THERE.as_millis()),
            text(u8::from(leaves)),
            told.join(" ").into_bytes(),
            strangers.join(" ").into_bytes(),
            if strangers.is_empty() {
                Vec::new()
            } else {
                self.others.lock().clone()
            },
        ];
        let keys = vec![self.names.presence(), self.names.told()];
        let reply = self.call(&scripts::PRESENCE, keys, args).await.ok()?;
        let number = |place: usize| {
            list(&reply)
                .get(place)
                .and_then(int)
                .and_then(|number| usize::try_from(number).ok())
        };
        if let (Some(rank), Some(count)) = (number(0), number(1)) {
            *self.rank.lock() = (rank, count);
        }
        if strangers.is_empty() {
            *self.others.lock() = list(&reply).get(3).and_then(bytes).unwrap_or_default().to_vec();
        }
        number(2)
    }

    /// Says which policies this sidecar has, and looks which the others have.
    pub(super) async fn compare_policies(&self) {
        let own: BTreeMap<String, (u64, String)> = self
            .book
            .revisions()
            .iter()
            .map(|limits| {
                let digest = format!("{:016x}", write(limits).digest);
                (limits.policy.to_string(), (limits.revision, digest))
            })
            .collect();
        let said: Vec<_> = own
            .iter()
            .map(|(name, (revision, digest))| format!("{revision} {digest} {name}"))
            .collect();
        let args = vec![
            self.name.clone().into_bytes(),
            said.join("\n").into_bytes(),
            text(THERE.as_millis()),
        ];
        let Ok(reply) = self.call(&scripts::POLICIES, vec![self.names.policies()], args).await else {
            return;
        };
        let mut differ: BTreeMap<String, Elsewhere> = BTreeMap::new();
        for other in list(&reply).iter().filter_map(bytes) {
            let theirs = read(&String::from_utf8_lossy(other));
            for name in own.keys().chain(theirs.keys()).collect::<BTreeSet<_>>() {
                if own.get(name) != theirs.get(name) {
                    let revision = theirs.get(name).map(|(revision, _)| *revision);
                    *differ.entry(name.clone()).or_default().entry(revision).or_default() += 1;
                }
            }
        }
        self.meter
            .mismatches
            .set(i64::try_from(differ.len()).unwrap_or(i64::MAX));
        let known = std::mem::replace(&mut *self.elsewhere.lock(), differ.clone());
        if known.keys().ne(differ.keys()) {
            let names: Vec<_> = differ.keys().map(String::as_str).collect();
            if names.is_empty() {
                tracing::info!("all sidecars of the namespace have the same policies");
            } else {
                tracing::warn!(
                    policies = %names.join(", "),
                    "other sidecars of the namespace have other content of these policies: sessions keep what they began with, and the \
                     higher revision reaches them"
                );
            }
        }
    }

    /// What other sidecars have of a policy, where it is not what this one has.
    #[must_use]
    pub fn elsewhere(&self, policy: &str) -> Elsewhere {
        self.elsewhere.lock().get(policy).cloned().unwrap_or_default()
    }
}

/// What a sidecar says that it has.
fn read(said: &str) -> BTreeMap<String, (u64, String)> {
    said.lines()
        .filter_map(|line| {
            let mut parts = line.splitn(3, ' ');
            let (revision, digest, name) = (parts.next()?, parts.next()?, parts.next()?);
            Some((name.to_owned(), (revision.parse().ok()?, digest.to_owned())))
        })
        .collect()
}
