//! Getting to know a server: one that took over from another, or came back after a restart, may have forgotten the last moments.
//! Until what this sidecar and the others wrote then is told again, and ends are held, nobody asks it anything else: the link sees
//! to that, so that no call slips through in between.

use std::{collections::BTreeSet, sync::atomic::Ordering, time::Duration};

use futures_util::future::try_join_all;

use super::{
    Shared, Unjoined,
    ask::{Question, Timed},
    link::{Fault, GETS_TO_KNOW, Status},
    scripts,
};

/// How long to wait for the other sidecars to tell again what they wrote: after that they count as gone.
const OTHERS: Duration = Duration::from_secs(3);

/// After so long it is begun anew.
const LONGEST: Duration = Duration::from_secs(8);

/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(30);

impl Shared {
    /// The servers that are connected.
    pub(super) fn connected(&self) -> BTreeSet<String> {
        match &*self.link.status().borrow() {
            Status::Up { servers, .. } => servers.iter().map(super::link::Server::identity).collect(),
            Status::Down { .. } => BTreeSet::new(),
        }
    }

    /// Those of them that this sidecar does not know.
    pub(super) fn strangers(&self) -> BTreeSet<String> {
        let known = self.known.lock();
        self.connected().difference(&known).cloned().collect()
    }

    /// Gets to know the servers that are new, and has them asked by everybody then. Others are asked meanwhile.
    pub(super) async fn meet(&self) -> Result<(), Unjoined> {
        let _turn = self.joining.lock().await;
        let strangers = self.strangers();
        if strangers.is_empty() || !self.joined.load(Ordering::Acquire) {
            return Ok(());
        }
        let met = GETS_TO_KNOW.scope((), self.get_to_know(strangers));
        match tokio::time::timeout(LONGEST, met).await {
            Ok(met) => met,
            Err(_) => Err(Unjoined::Store("getting to know a server took too long".to_owned())),
        }
    }

    async fn get_to_know(&self, strangers: BTreeSet<String>) -> Result<(), Unjoined> {
        let all = 0..self.names.buckets();
        let theirs: Vec<_> = all
            .filter(|bucket| {
                let server = self.link.server(&self.names.meta(*bucket));
                server.is_some_and(|server| strangers.contains(&server.identity()))
            })
            .collect();
        for bucket in &theirs {
            self.buckets[*bucket].distrust();
        }
        self.publish_policies().await?;
        self.recover(&theirs).await?;
        if !self.all_go_on(&theirs).await? {
            self.joined.store(false, Ordering::Release);
            return self.come_in().await;
        }
        self.wait_for_others(&strangers).await;
        // Only from now on can people be active.
        try_join_all(theirs.iter().map(|bucket| self.hold_ends(*bucket))).await?;
        // What is at hand may say the same version of a session as the store, and mean another one.
        self.near.clear();
        self.welcome(strangers);
        Ok(())
    }

    /// These servers are known from now on: everybody may ask them.
    pub(super) fn welcome(&self, servers: BTreeSet<String>) {
        let mut known = self.known.lock();
        known.extend(servers);
        self.link.admit(known.clone());
    }

    /// Before anybody else is answered: ends are held, for people could not be active, and what the store may have forgotten is told
    /// again.
    pub(super) async fn recover(&self, buckets: &[usize]) -> Result<(), Unjoined> {
        let goes_on = try_join_all(buckets.iter().map(|bucket| self.goes_on(*bucket))).await?;
        try_join_all(buckets.iter().map(|bucket| self.hold_ends(*bucket))).await?;
        let told = buckets.iter().copied().zip(goes_on).collect();
        self.tell_all_again(&told).await
    }

    async fn hold_ends(&self, bucket: usize) -> Result<(), Fault> {
        let question = Question {
            script: &scripts::DUE,
            bucket,
            keys: self.names.indexes(bucket),
            args: self.due_args(bucket, 0, Duration::ZERO, true),
            timed: Timed::Now,
        };
        self.ask(question).await.map(drop)
    }

    /// Says that this sidecar has told these servers all it has to tell, and waits until the others have too: until then nobody can say
    /// that a session is not there.
    pub(super) async fn wait_for_others(&self, strangers: &BTreeSet<String>) {
        let began = self.clock.now();
        // No answer is none.
        while self.be_there(false, strangers).await != Some(0) {
            if self.clock.now().since(began) >= OTHERS {
                tracing::warn!(
                    "other sidecars have not told a new server what they wrote; what only they know may be lost"
                );
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
