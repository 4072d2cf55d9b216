//! The end of many sessions: what an operator revokes. Nobody slips through by a Rotate while we look.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use super::{Error, Filter, Sessions, admin::TURN, resolve::Lead};
use crate::{
    state::{Actor, End, EndReason, SessionRef},
    store::{Extent, Found, Seen, Session, Unavailable},
    time::Time,
};

/// An end of many sessions.
pub struct EndMany {
    /// Which.
    pub filter: Filter,
    /// But not these, nor what goes on in their place.
    pub except: BTreeSet<SessionRef>,
    /// Only count them.
    pub dry_run: bool,
    /// Why.
    pub reason: EndReason,
    /// Who.
    pub actor: Actor,
    /// Which user or program exactly, or empty.
    pub actor_id: Box<str>,
    /// For later readers, or empty.
    pub note: Box<str>,
}

/// What an end of many sessions did.
#[derive(Debug, Clone, Default)]
pub struct Ended {
    /// How many live sessions matched.
    pub matched: u64,
    /// How many of them this call ended.
    pub ended: u64,
    /// The first of those that matched.
    pub refs: Vec<SessionRef>,
}

/// How many refs an end of many answers.
const MOST_REFS: usize = 1000;

/// One call under way.
struct Revocation {
    wanted: EndMany,
    began: Time,
    /// Names that were led on from: all names of a session are one session.
    visited: HashSet<SessionRef>,
}

impl Sessions {
    /// Ends all live sessions that match and that began before this call, or counts them. It goes on to its end even if the
    /// caller goes away: half of a revocation is worse than either.
    pub async fn end_many(self: &Arc<Self>, wanted: EndMany) -> Result<Ended, Error> {
        let sessions = Arc::clone(self);
        let done = tokio::spawn(async move { sessions.end_all(wanted).await });
        done.await.map_err(|_| Unavailable)?
    }

    async fn end_all(self: Arc<Self>, wanted: EndMany) -> Result<Ended, Error> {
        if !wanted.filter.wants_live() {
            return Ok(Ended::default());
        }
        let began = self.moment().now;
        let mut names = self.names(&wanted.filter).await?;
        names.sort_unstable();
        let mut revocation = Revocation {
            wanted,
            began,
            visited: HashSet::new(),
        };
        let mut done = Ended::default();
        for (place, name) in names.into_iter().enumerate() {
            if place % TURN == TURN - 1 {
                tokio::task::yield_now().await;
            }
            if let Some((name, by_us)) = self.end_one(&mut revocation, name).await? {
                done.matched += 1;
                done.ended += u64::from(by_us);
                if done.refs.len() < MOST_REFS {
                    done.refs.push(name);
                }
            }
        }
        Ok(done)
    }

    /// Of every session that may match at least one name: its own, or a former one that leads to it. While it is rotated it goes
    /// from one place to another, perhaps to one that was looked at already; then its former name is among the ended ones.
    async fn names(&self, filter: &Filter) -> Result<Vec<SessionRef>, Unavailable> {
        if !filter.subject.is_empty() {
            // All of them at once: each is there by the name that it leaves until it is there by the next.
            return self.store.of_subject(&filter.tenant, &filter.subject).await;
        }
        let extent = Extent {
            after: None,
            live: true,
            ended: true,
            most: usize::MAX,
        };
        let filter = filter.clone();
        let wanted = move |seen: &Seen<'_>| match seen {
            Seen::Live(session) => filter.covers(&session.origin().identity, &session.limits().policy),
            Seen::Ended(_, tombstone) => {
                tombstone.successor.is_some() && filter.covers(&tombstone.origin.identity, &tombstone.limits.policy)
            }
        };
        self.store.scan(extent, Arc::new(wanted)).await
    }

    /// Ends, or counts, the session that a name leads to. Answers it if it matched, and whether this call ended it.
    async fn end_one(
        &self,
        revocation: &mut Revocation,
        mut name: SessionRef,
    ) -> Result<Option<(SessionRef, bool)>, Error> {
        let mut matched = None;
        if !revocation.visited.insert(name) {
            return Ok(None);
        }
        loop {
            match self.lead_on(name).await? {
                Lead::Live(session) if !self.is_meant(revocation, &session).await? => {
                    // Unless that is because it has ended, or was rotated, since it was found: look again.
                    if !session.pulse().is_dead() {
                        return Ok(None);
                    }
                }
                Lead::Live(_) if revocation.wanted.dry_run => return Ok(Some((name, false))),
                Lead::Live(_) => {
                    matched = Some((name, false));
                    // If somebody was faster, it has ended or goes on by another name.
                    if self.end_by_ref(name, revocation.end(self.clock.now())).await?.is_some() {
                        return Ok(Some((name, true)));
                    }
                }
                Lead::On(successor) if revocation.visited.insert(successor) => name = successor,
                Lead::On(_) => return Ok(matched),
                Lead::Over => {
                    // Nobody was found by this name: whoever comes to it by a former one looks again.
                    revocation.visited.remove(&name);
                    return Ok(matched);
                }
            }
        }
    }

    /// Whether a live session is one of those to end: it matches, was there when the call began, and is not spared by any name.
    async fn is_meant(&self, revocation: &Revocation, session: &Arc<Session>) -> Result<bool, Error> {
        let Revocation { wanted, began, .. } = revocation;
        // A successor keeps the time at which the session began.
        if !wanted.filter.covers_live(session, self.moment()) || session.origin().created > *began {
            return Ok(false);
        }
        if wanted.except.is_empty() {
            return Ok(true);
        }
        let mut name = session.reference();
        let mut former = session.origin().identity.predecessor();
        while !wanted.except.contains(&name) {
            let Some(predecessor) = former else {
                return Ok(true);
            };
            name = predecessor;
            former = match self.store.find(name).await? {
                Found::Ended(tombstone) => tombstone.origin.identity.predecessor(),
                Found::Live(_) | Found::Unknown { .. } => None,
            };
        }
        Ok(false)
    }
}

impl Revocation {
    fn end(&self, at: Time) -> End {
        let EndMany {
            reason,
            actor,
            actor_id,
            note,
            ..
        } = &self.wanted;
        End {
            reason: *reason,
            actor: *actor,
            actor_id: actor_id.clone(),
            note: note.clone(),
            at,
        }
    }
}
