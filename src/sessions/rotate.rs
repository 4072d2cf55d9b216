//! Rotate: a session goes on under another id.

use std::{sync::Arc, time::Duration};

use super::{
    Error, Name, Report, Request, Sessions,
    create::{self, new_id},
    judge::Terms,
    keyring::{Beginning, Newcomer},
    resolve::Resolved,
    too_short,
};
use crate::{
    state::{Asked, Command, Limits, Reply, Rotation, SessionRef, Tombstone},
    store::Found,
};

/// What Rotate is told.
pub struct Rotate<'a> {
    /// The session as it is named now.
    pub name: Name<'a>,
    /// The caller's own new id.
    pub new_session_id: Option<&'a str>,
    /// Whose session it is from now on, if that changes.
    pub subject: Option<&'a str>,
    /// How long ago the person authenticated, if anybody did.
    pub authenticated_ago: Option<Duration>,
    /// How strong that authentication was, or empty.
    pub authentication_level: &'a str,
    /// The caller's request id and its content.
    pub request: Option<Request<'a>>,
}

/// A rotated session.
pub struct Rotated {
    /// Its new id, to be handed out once.
    pub session_id: String,
    /// The session as it goes on.
    pub report: Report,
    /// How its old name ended.
    pub previous: Arc<Tombstone>,
    /// The sessions that ended because the new subject had too many.
    pub superseded: Vec<SessionRef>,
}

impl Sessions {
    /// Gives a session a new id.
    pub async fn rotate(&self, rotate: Rotate<'_>) -> Result<Rotated, Error> {
        let from = self.known_as(rotate.name).await?;
        loop {
            let done = self.try_rotate(&rotate, from).await;
            // Somebody else rotated it meanwhile: this is a retry of the same request, or it goes on from the successor, if
            // that has not ended since.
            if let Err(Error::Ended(_, tombstone)) = &done
                && tombstone.successor.is_some()
            {
                self.live(rotate.name, from).await?;
                continue;
            }
            return done;
        }
    }

    async fn try_rotate(&self, rotate: &Rotate<'_>, from: SessionRef) -> Result<Rotated, Error> {
        let Name { tenant, .. } = rotate.name;
        let request = rotate.request.map(|request| self.keyring.request(request));
        let newcomer = match (rotate.new_session_id, rotate.request) {
            (Some(own), _) => {
                let refused = self.refuse_ref(tenant, own).await;
                refused.map_err(Error::about_the_new_id)?;
                self.keyring.newcomer(tenant, |_| own.to_owned())
            }
            (None, Some(request)) => self
                .keyring
                .newcomer(tenant, |keys| keys.id_for_rotation(tenant, from, request.id)),
            (None, None) => self.keyring.stranger(tenant, new_id()),
        };
        if let Some(request) = request
            && let Some(done) = self.rotated_before(from, &newcomer, tenant, request).await?
        {
            return Ok(done);
        }
        let resolved = self.live(rotate.name, from).await?;
        let alias = resolved.alias;
        let limits = Arc::clone(&resolved.session.limits());
        let policy = self.policies.get(&limits.policy);
        let min = policy.as_ref().map_or(1, |policy| policy.min_id_length);
        if newcomer.id_length() < min {
            return Err(too_short(min).about_the_new_id());
        }
        let Beginning {
            session_id,
            reference: to,
            not_after,
        } = self.begins_as(&newcomer).await?;
        let identity = resolved.session.origin().identity.clone();
        let new_subject = rotate.subject.is_some_and(|subject| subject != identity.subject());
        let admission = match (&policy, rotate.subject) {
            (Some(policy), Some(subject)) if new_subject => Some(self.admit(policy, tenant, subject, to).await?),
            _ => None,
        };
        let level = rotate.authenticated_ago.map(|_| rotate.authentication_level);
        let rotation = Rotation {
            from: resolved.session.reference(),
            to,
            identity: identity.succeeding(resolved.session.reference(), rotate.subject, level),
            new_subject,
            authenticated_ago: rotate.authenticated_ago,
            current: self.limits_from_now_on(&limits),
            request,
        };
        let moment = self.moment();
        let command = Command::Rotate(Box::new(rotation));
        let terms = Terms {
            supersedes: admission.iter().flat_map(create::Admission::losers).collect(),
            not_after,
        };
        let previous = match self.rotate_live(resolved, &command, &terms).await? {
            Reply::Rotated(tombstone) => tombstone,
            _ => {
                // The machine remembers the request: either it was done just now, or not by this id.
                let done = match request {
                    Some(request) => self.rotated_before(from, &newcomer, tenant, request).await?,
                    None => None,
                };
                return done.ok_or(Error::RequestIdReused(from));
            }
        };
        let superseded = match admission {
            Some(admission) => self.supersede(admission, to, moment.now).await,
            None => Vec::new(),
        };
        let mut report = self.report(tenant, to).await?;
        report.status.alias = alias;
        Ok(Rotated {
            session_id,
            report,
            previous,
            superseded,
        })
    }

    async fn rotate_live(&self, resolved: Resolved, command: &Command, terms: &Terms) -> Result<Reply, Error> {
        let reference = resolved.session.reference();
        let changed = self.change_on(&resolved.session, command, self.moment(), terms).await?;
        changed.reply.map_err(|refusal| Error::refused(reference, refusal))
    }

    /// What a retry is answered: the session that the same request made of this name before, or, if the name was an alias
    /// then, of the one that it stood for.
    async fn rotated_before(
        &self,
        from: SessionRef,
        newcomer: &Newcomer,
        tenant: &str,
        request: Asked,
    ) -> Result<Option<Rotated>, Error> {
        let mut at = from;
        let (tombstone, to, session_id) = loop {
            let Found::Ended(tombstone) = self.store.find(at).await? else {
                return Ok(None);
            };
            let Some(succession) = tombstone.successor else {
                return Ok(None);
            };
            let to = succession.reference;
            match tombstone.request.and_then(|known| request.repeats(known)) {
                Some(true) if let Some(session_id) = newcomer.id_of(to) => break (tombstone, to, session_id),
                Some(_) if at == from => return Err(Error::RequestIdReused(from)),
                _ => at = to,
            }
        };
        let report = self.report(tenant, to).await?;
        match report.details.as_ref().map(|details| details.end.clone()) {
            Some(None) => {}
            Some(Some(end)) => return Err(Error::Ended(to, end)),
            None => return Err(Error::unknown(to)),
        }
        Ok(Some(Rotated {
            session_id: session_id.to_owned(),
            report,
            previous: tombstone,
            superseded: Vec::new(),
        }))
    }

    /// The limits that the policy gives now; if it has an older revision than the session, the session's own.
    fn limits_from_now_on(&self, limits: &Arc<Limits>) -> Option<Arc<Limits>> {
        let current = self.policies.current(&limits.policy);
        current.filter(|current| current.revision >= limits.revision)
    }
}
