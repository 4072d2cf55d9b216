//! Extend, Hold, Release, End: each finds the session, lets the state machine decide, and commits.

use std::{sync::Arc, time::Duration};

use super::{
    EndAnswer, Error, ExtendAnswer, HoldAnswer, Name, ReleaseAnswer, Request, Sessions, Status,
    resolve::{Follow, Resolved},
};
use crate::{
    state::{Command, End, HoldWish, Moment, Refusal, Reply, SessionRef, Tombstone},
    store::{Found, Session},
};

/// What a command did.
pub(super) struct Acted {
    /// The session that it was done to.
    pub(super) session: Arc<Session>,
    pub(super) reply: Reply,
    pub(super) status: Status,
}

impl Sessions {
    /// Moves the idle deadline: the person pressed "stay".
    pub async fn extend(
        &self,
        name: Name<'_>,
        wanted: Option<Duration>,
        request: Option<Request<'_>>,
    ) -> Result<ExtendAnswer, Error> {
        let resolved = self.live(name, self.known_as(name).await?).await?;
        let command = Command::Extend {
            wanted,
            request: request.map(|request| self.keyring.request(request)),
            newer: self.newer(&resolved.session.limits()),
        };
        let acted = self.act(resolved, &command, self.moment()).await?;
        let (granted, clamped) = match acted.reply {
            Reply::Extended { granted, clamped } => (granted, clamped),
            _ => (Duration::ZERO, false),
        };
        self.meter.extended.inc();
        Ok(ExtendAnswer {
            status: acted.status,
            granted,
            clamped,
        })
    }

    /// Begins or renews a hold.
    pub async fn hold(&self, name: Name<'_>, wish: HoldWish) -> Result<HoldAnswer, Error> {
        let resolved = self.holder(name, &wish.id).await?;
        let acted = self.act(resolved, &Command::Hold(wish), self.moment()).await?;
        let (granted, clamped, created) = match acted.reply {
            Reply::Held {
                granted,
                clamped,
                created,
            } => (granted, clamped, created),
            _ => (Duration::ZERO, None, false),
        };
        Ok(HoldAnswer {
            status: acted.status,
            granted,
            clamped,
            created,
        })
    }

    /// Ends a hold.
    pub async fn release(&self, name: Name<'_>, id: &str) -> Result<ReleaseAnswer, Error> {
        let resolved = self.holder(name, id).await?;
        let command = Command::Release { id: id.into() };
        let acted = self.act(resolved, &command, self.moment()).await?;
        Ok(ReleaseAnswer {
            status: acted.status,
            released: matches!(acted.reply, Reply::Released(true)),
        })
    }

    /// The live session of a name; for a hold that lives, also by a former id whose grace is over, if that id led to the
    /// session when the hold began: as its name or as its alias.
    async fn holder(&self, name: Name<'_>, hold: &str) -> Result<Resolved, Error> {
        let reference = self.known_as(name).await?;
        let over = match self.live(name, reference).await {
            Err(Error::Ended(ended, tombstone)) if tombstone.successor.is_some() && name.follow != Follow::Never => {
                Error::Ended(ended, tombstone)
            }
            other => return other,
        };
        let Ok(Resolved { session, .. }) = self.lead(name, reference, Follow::Always).await else {
            return Err(over);
        };
        let now = self.clock.now();
        let began = session.read(|view| {
            let mut live = view.rest.live_holds(now);
            live.find(|live| *live.id == *hold).map(|live| live.started)
        });
        match began {
            Some(began) => self.lead(name, reference, Follow::AsAt(began)).await.map_err(|_| over),
            None => Err(over),
        }
    }

    /// Ends a session. On an ended one it answers the first end.
    pub async fn end(&self, name: Name<'_>, end: End, request: Option<Request<'_>>) -> Result<EndAnswer, Error> {
        let request = request.map(|request| self.keyring.request(request));
        let reference = self.known_as(name).await?;
        let command = Command::End { end, request };
        let outcome = match self.live(name, reference).await {
            Ok(resolved) => self.act(resolved, &command, self.moment()).await,
            Err(error) => Err(error),
        };
        let (reference, tombstone, ended_now, alias) = match outcome {
            Ok(Acted {
                session,
                reply: Reply::Ended(tombstone),
                status,
            }) => (session.reference(), tombstone, true, status.alias),
            Ok(acted) => return Err(Error::unknown(acted.session.reference())),
            Err(Error::Ended(ended, tombstone)) => {
                // A retry is told what the first call was told.
                let repeats = request.zip(tombstone.request);
                let retried = match repeats.and_then(|(request, known)| request.repeats(known)) {
                    Some(false) => return Err(Error::RequestIdReused(ended)),
                    same => same.is_some(),
                };
                (ended, tombstone, retried, ended != reference)
            }
            Err(error) => return Err(error),
        };
        let mut status = Status::ended(reference, &tombstone, self.clock.now());
        status.alias = alias;
        Ok(EndAnswer {
            status,
            tombstone,
            ended_now,
        })
    }

    /// Ends a live session for an operator, or because a newer one takes its place. Answers the end if this call brought it.
    pub async fn end_by_ref(&self, reference: SessionRef, end: End) -> Result<Option<Arc<Tombstone>>, Error> {
        let Found::Live(session) = self.store.find(reference).await? else {
            return Ok(None);
        };
        let command = Command::End { end, request: None };
        let changed = self.change(&session, &command, self.moment()).await?;
        Ok(match changed.reply {
            Ok(Reply::Ended(tombstone)) => Some(tombstone),
            _ => None,
        })
    }

    /// Lets the state machine decide a command on a live session, and commits what it says. If the session is rotated
    /// meanwhile, its successor is meant, unless its name means no other.
    pub(super) async fn act(&self, resolved: Resolved, command: &Command, moment: Moment) -> Result<Acted, Error> {
        let Resolved {
            mut session,
            mut alias,
            follow,
        } = resolved;
        let follow = if follow == Follow::Never { follow } else { Follow::Alias };
        loop {
            let reference = session.reference();
            let changed = self.change(&session, command, moment).await?;
            let refusal = match changed.reply {
                Ok(reply) => {
                    let mut status = changed.status;
                    status.alias = alias;
                    let session = changed.session;
                    return Ok(Acted { session, reply, status });
                }
                Err(refusal) => refusal,
            };
            if let Refusal::Ended(tombstone) = &refusal {
                match self.successor(tombstone, follow).await? {
                    Some(Ok(successor)) => {
                        (session, alias) = (successor, true);
                        continue;
                    }
                    // It has ended since: that is the session's end, not the Rotate.
                    Some(Err((successor, end))) => return Err(Error::Ended(successor, end)),
                    None => {}
                }
            }
            return Err(Error::refused(reference, refusal));
        }
    }
}
