//! From a name to the session that it stands for: itself, or for a while after a Rotate the one that goes on in its place.

use std::sync::Arc;

use super::{Error, Examined, Name, Report, Sessions, too_short};
use crate::{
    sabotage::{self, Fault},
    state::{SessionRef, Tombstone},
    store::{Found, Session, Unavailable},
    time::Time,
};

/// A live session that a caller named.
pub(super) struct Resolved {
    pub(super) session: Arc<Session>,
    /// Whether by its former id.
    pub(super) alias: bool,
    /// What its name means if it is rotated now.
    pub(super) follow: Follow,
}

/// Where a name leads.
pub(super) enum Lead {
    /// To a live session.
    Live(Arc<Session>),
    /// To the name by which it goes on.
    On(SessionRef),
    /// Nowhere: it has ended for good, or is forgotten.
    Over,
}

/// How far an ended name leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Nowhere: the session of this very name is meant, and no other.
    Never,
    /// To the successor, while the old id is an alias.
    Alias,
    /// To the successor, however long ago that was.
    Always,
    /// To where it led at a time.
    AsAt(Time),
}

impl Sessions {
    /// The live session of a name, or why there is none.
    pub(super) async fn live(&self, name: Name<'_>, reference: SessionRef) -> Result<Resolved, Error> {
        self.lead(name, reference, name.follow).await
    }

    /// The live session that a name leads to, or why there is none.
    pub(super) async fn lead(&self, name: Name<'_>, reference: SessionRef, follow: Follow) -> Result<Resolved, Error> {
        match self.store.find(reference).await? {
            Found::Live(session) => Ok(Resolved {
                session,
                alias: false,
                follow,
            }),
            Found::Ended(tombstone) => match self.successor(&tombstone, follow).await? {
                Some(Ok(session)) => Ok(Resolved {
                    session,
                    alias: true,
                    follow,
                }),
                Some(Err((successor, end))) => Err(Error::Ended(successor, end)),
                None => Err(Error::Ended(reference, tombstone)),
            },
            Found::Unknown { may_have_ended } => {
                self.refuse_ref(name.tenant, name.session_id).await?;
                let min = self.policies.min_id_length();
                if name.session_id.len() < min {
                    return Err(too_short(min));
                }
                Err(Error::Unknown {
                    reference,
                    may_have_ended,
                })
            }
        }
    }

    /// The session that goes on in the place of an ended one, or how that one ended; `None` if the name leads nowhere.
    pub(super) async fn successor(
        &self,
        ended: &Arc<Tombstone>,
        follow: Follow,
    ) -> Result<Option<Result<Arc<Session>, (SessionRef, Arc<Tombstone>)>>, Error> {
        let now = self.clock.now();
        let leads = |tombstone: &Tombstone| {
            let succession = tombstone.successor?;
            let led = match follow {
                Follow::Never => false,
                Follow::Alias => now < succession.alias_until || sabotage::on(Fault::AliasForever),
                Follow::Always => true,
                // Never over a login, which leaves no alias: whoever knew the id before it is not the one who logged in.
                Follow::AsAt(at) => {
                    succession.alias_until > tombstone.end.at && (at <= tombstone.end.at || at < succession.alias_until)
                }
            };
            led.then_some(succession.reference)
        };
        let Some(mut reference) = leads(ended) else {
            return Ok(None);
        };
        loop {
            match self.store.find(reference).await? {
                Found::Live(session) => return Ok(Some(Ok(session))),
                Found::Unknown { .. } => return Ok(None),
                Found::Ended(tombstone) => match leads(&tombstone) {
                    Some(next) => reference = next,
                    None => return Ok(Some(Err((reference, tombstone)))),
                },
            }
        }
    }

    /// Where a name that was live a moment ago leads, one step.
    pub(super) async fn lead_on(&self, reference: SessionRef) -> Result<Lead, Error> {
        let tombstone = match self.store.find(reference).await? {
            Found::Live(session) => match self.examine(session, self.moment()).await? {
                Examined::Live(session) => return Ok(Lead::Live(session)),
                Examined::Ended(tombstone) => tombstone,
            },
            Found::Ended(tombstone) => tombstone,
            Found::Unknown { .. } => return Ok(Lead::Over),
        };
        Ok(match &tombstone.successor {
            Some(succession) => Lead::On(succession.reference),
            None => Lead::Over,
        })
    }

    /// The live session of a name that was live a moment ago: itself or, if it was rotated meanwhile, the one that goes on.
    pub(super) async fn goes_on(&self, mut reference: SessionRef) -> Result<Option<Arc<Session>>, Error> {
        loop {
            match self.lead_on(reference).await? {
                Lead::Live(session) => return Ok(Some(session)),
                Lead::On(successor) => reference = successor,
                Lead::Over => return Ok(None),
            }
        }
    }

    /// The ref that an id stands for now, and whether it is the id's own.
    pub(super) async fn stands_for(&self, reference: SessionRef) -> Result<(SessionRef, bool), Error> {
        let Found::Ended(tombstone) = self.store.find(reference).await? else {
            return Ok((reference, false));
        };
        Ok(match self.successor(&tombstone, Follow::Alias).await? {
            Some(Ok(session)) => (session.reference(), true),
            Some(Err((successor, _))) => (successor, true),
            None => (reference, false),
        })
    }

    /// The sessions that go on, one after the other, in the place of a session, and whether the last one of them is known: where
    /// tombstones are forgotten, so is the way. Another tenant's session leads nowhere (G17).
    pub(super) async fn successors_of(
        &self,
        tenant: &str,
        reference: SessionRef,
    ) -> Result<(Vec<SessionRef>, bool), Unavailable> {
        let mut successors = Vec::new();
        let mut at = reference;
        loop {
            let (owner, next) = match self.store.find(at).await? {
                Found::Ended(tombstone) => (tombstone.origin.clone(), tombstone.successor),
                Found::Live(session) => (session.origin().clone(), None),
                Found::Unknown { .. } => return Ok((successors, false)),
            };
            if *owner.identity.tenant() != *tenant {
                return Ok((successors, false));
            }
            let Some(succession) = next else {
                return Ok((successors, true));
            };
            at = succession.reference;
            successors.push(at);
        }
    }

    /// A session and those that went on in its place.
    pub async fn with_successors(&self, tenant: &str, reference: SessionRef) -> Result<Vec<SessionRef>, Unavailable> {
        let (mut names, _) = self.successors_of(tenant, reference).await?;
        names.push(reference);
        Ok(names)
    }

    /// Asks for everything about the session that an id stands for.
    pub async fn report_by_id(&self, name: Name<'_>) -> Result<Report, Error> {
        let reference = self.known_as(name).await?;
        let own = self.report(name.tenant, reference).await?;
        let end = own.details.as_ref().and_then(|details| details.end.as_ref());
        if end.is_none_or(|end| end.successor.is_none()) {
            return Ok(own);
        }
        let (reference, alias) = self.stands_for(reference).await?;
        let mut report = self.report(name.tenant, reference).await?;
        report.status.alias = alias;
        Ok(report)
    }

    /// Asks for everything about a session. `tenant` guards a lookup by ref: another tenant's session is unknown (G17).
    pub async fn report(&self, tenant: &str, reference: SessionRef) -> Result<Report, Error> {
        let found = self.store.find(reference).await;
        let moment = self.moment();
        let found = match found {
            Ok(found) => found,
            Err(Unavailable) => {
                let report = self.report_locally(reference, moment)?;
                return Ok(self.guarded(tenant, reference, report));
            }
        };
        let examined = match found {
            Found::Live(session) => match self.examine(session, moment).await {
                // It was forgotten meanwhile.
                Err(Error::Unknown { may_have_ended, .. }) => {
                    return Ok(Report::unknown(reference, may_have_ended, moment.now));
                }
                examined => examined?,
            },
            Found::Ended(tombstone) => Examined::Ended(tombstone),
            Found::Unknown { may_have_ended } => {
                return Ok(Report::unknown(reference, may_have_ended, moment.now));
            }
        };
        let report = match examined {
            Examined::Live(session) => session.read(|view| Report::live(reference, view, moment)),
            Examined::Ended(tombstone) if tombstone.silent => Report::unknown(reference, false, moment.now),
            Examined::Ended(tombstone) => Report::ended(reference, tombstone, moment.now),
        };
        Ok(self.guarded(tenant, reference, report))
    }

    /// Whose a live session is, if anybody's.
    pub async fn subject(&self, reference: SessionRef) -> Option<String> {
        let session = match self.store.find(reference).await {
            Ok(Found::Live(session)) => Some(session),
            Ok(_) => None,
            Err(Unavailable) => self.store.remembered_live(reference, self.clock.now()),
        };
        let subject = session?.origin().identity.subject().to_owned();
        (!subject.is_empty()).then_some(subject)
    }

    /// A report, if the session is the tenant's (G17).
    fn guarded(&self, tenant: &str, reference: SessionRef, report: Report) -> Report {
        let now = report.status.now;
        let same_tenant = report
            .details
            .as_ref()
            .is_some_and(|details| details.origin.identity.tenant() == tenant);
        if same_tenant || sabotage::on(Fault::RefCrossesTenant) {
            return report;
        }
        // As if it had never been: the same answer as for such a one.
        Report::unknown(reference, self.store.may_have_ended(), now)
    }

    /// Refuses the ref of a known session where an id is due: somebody mixed them up.
    pub async fn refuse_ref(&self, tenant: &str, session_id: &str) -> Result<(), Error> {
        let Ok(reference) = session_id.parse::<SessionRef>() else {
            return Ok(());
        };
        if self.report(tenant, reference).await?.details.is_none() {
            return Ok(());
        }
        Err(Error::Invalid {
            field: "session_id",
            problem: "is a session_ref; a session's id is needed here (a ref is no credential)".to_owned(),
        })
    }
}
