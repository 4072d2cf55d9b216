//! Time passing where sidecars share a store: what is due is looked at where it is kept, and activity that could not be told is
//! told when the store is back.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{Error, Sessions};
use crate::{
    state::{Command, SessionRef},
    store::{
        Found, Raised, Store as _,
        shared::{DueSession, Shared},
    },
    time::Time,
};

/// So much activity is told at once.
const PAGE: usize = 128;

/// How long to wait after the store could not be asked.
const AGAIN: Duration = Duration::from_millis(250);

impl Sessions {
    /// Looks at what is due in the shared store, for ever.
    pub async fn sweep_store(self: Arc<Self>, shared: Arc<Shared>) {
        let buckets = 0..shared.buckets();
        join_all(buckets.map(|bucket| self.sweep_bucket(&shared, bucket))).await;
    }

    async fn sweep_bucket(self: &Arc<Self>, shared: &Arc<Shared>, bucket: usize) {
        loop {
            // People whose activity could not be told come first.
            if !shared.is_up() || shared.has_untold() {
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            let Ok(due) = shared.due(bucket).await else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            join_all(due.sessions.iter().map(|due| self.judge_kept(shared, due))).await;
            tokio::time::sleep(due.next.since(self.clock.now())).await;
        }
    }

    /// Judges a session that the index of the store says is due. It may have been touched since: touches do not change the index.
    async fn judge_kept(&self, shared: &Shared, due: &DueSession) {
        let session = &due.session;
        let reference = session.reference();
        if !due.supersedes.is_empty() {
            self.finish_superseding(reference, &due.supersedes).await;
        }
        let moment = self.moment();
        let next_action = session.read(|view| view.next_action(moment));
        let done = if next_action > moment.now {
            shared.rearm(session, next_action).await.map_err(Error::from)
        } else {
            let judged = self.change(session, &Command::Judge, moment).await;
            judged.map(|changed| self.note_lateness(&changed.happenings))
        };
        if let Err(error) = done {
            // It stays in the index, and whoever looks next tries again.
            tracing::debug!(%error, session = %reference, "a due session could not be judged yet");
        }
    }

    /// Ends those in whose place a session has begun, because the sidecar that began it did not come to it.
    async fn finish_superseding(&self, newcomer: SessionRef, losers: &[SessionRef]) {
        let now = self.clock.now();
        for loser in losers {
            let done = match self.goes_on(*loser).await {
                Ok(Some(session)) => self.supersede_one(&session, now).await.map(drop),
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                tracing::debug!(%error, session = %loser, "a session is not superseded yet");
                return;
            }
        }
        if let Err(error) = self.store.superseded(newcomer).await {
            tracing::debug!(%error, session = %newcomer, "it is not noted that all were superseded");
        }
    }

    /// Tells of activity that could not be told while the store was away, for ever.
    pub async fn tell_untold(self: Arc<Self>, shared: Arc<Shared>) {
        loop {
            if shared.is_up() {
                let untold = shared.take_untold();
                for page in untold.chunks(PAGE) {
                    let told = join_all(page.iter().map(|(session, at)| self.tell_one(*session, *at))).await;
                    for ((session, at), told) in page.iter().zip(told) {
                        if told.is_err() {
                            shared.remember_activity(*session, *at);
                        }
                    }
                }
                shared.told();
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn tell_one(&self, reference: SessionRef, at: Time) -> Result<(), Error> {
        let Found::Live(mut session) = self.store.find(reference).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        match self.store.raise(&session, now.since(at), now).await? {
            Raised::Done(_) => return Ok(()),
            Raised::Decide(Found::Live(found)) => session = found,
            Raised::Decide(_) => return Ok(()),
        }
        let command = Command::Touch {
            counts: true,
            user: false,
            input_report: false,
            ago: self.clock.now().since(at),
            newer: None,
        };
        self.change(&session, &command, self.moment()).await.map(drop)
    }
}
