//! From the words of the store to those of the core.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use super::{
    BROKEN, ENDED, Fields, PENDING, SLOW, Scale, Unread, WARNED, actor, broken, cause, decode, identity, limit, reason,
    reference, request,
};
use crate::{
    event::Event,
    state::{
        End, Extra, Fired, Happening, Hold, HoldKind, Limits, Next, Origin, Outcome, PresenceEnd, Pulse, Remembered,
        Rest, SessionRef, Succession, Tombstone, view::Record,
    },
    store::{
        Lease, Session,
        shared::{body, limits::Book},
    },
    time::Time,
};

/// What a record is.
#[derive(Debug)]
pub(in crate::store::shared) enum Read {
    Live(Session),
    Ended(Arc<Tombstone>),
    /// It is to go on in the place of another one, which may not have been rotated yet.
    Pending(body::Duties),
}

/// Reads records and events.
pub(in crate::store::shared) struct Reader<'a> {
    pub(in crate::store::shared) book: &'a Book,
    pub(in crate::store::shared) scale: Scale,
}

impl Reader<'_> {
    /// A record, read at `at`.
    pub(in crate::store::shared) fn record(
        &self,
        reference: SessionRef,
        fields: &Fields,
        at: Time,
        free_until: Time,
    ) -> Result<Read, Unread> {
        if fields.flags & BROKEN != 0 {
            return Err(broken("its numbers are none of ours"));
        }
        if fields.flags & PENDING != 0 {
            return Ok(Read::Pending(decode(&fields.duties)?));
        }
        let who: body::Who = decode(&fields.who)?;
        if fields.flags & ENDED != 0 {
            let end: body::End = decode(&fields.end)?;
            return Ok(Read::Ended(Arc::new(self.tombstone(&who, end)?)));
        }
        let (origin, next) = self.live(&who, fields)?;
        let lead = Duration::from_micros(u64::try_from(fields.lead).unwrap_or(0));
        let lease = Lease {
            skew: self.scale.skew,
            lead,
            read_at: at,
            ignored: fields.ignored.map(|at| self.scale.read(at)),
        };
        Ok(Read::Live(
            Session::new(reference, origin, &next).leased(lease, free_until),
        ))
    }

    /// A record that is live, or will be.
    pub(in crate::store::shared) fn live(&self, who: &body::Who, fields: &Fields) -> Result<(Origin, Next), Unread> {
        let record: body::Record = decode(&fields.body)?;
        let (origin, limits, rest) = self.parts(who, &record)?;
        let pulse = Pulse::new(self.scale.read(fields.activity));
        let next = Next {
            limits,
            pulse: pulse.flagged(fields.flags & WARNED != 0, fields.flags & SLOW != 0),
            rest,
            version: fields.version,
            happenings: Vec::new(),
            lead: Duration::from_micros(u64::try_from(fields.lead).unwrap_or(0)),
            successor: None,
        };
        Ok((origin, next))
    }

    fn parts(&self, who: &body::Who, record: &body::Record) -> Result<(Origin, Arc<Limits>, Rest), Unread> {
        let origin = Origin {
            authenticated: self.scale.read(record.authenticated),
            created: self.scale.read(record.created),
            identity: identity(who),
        };
        let fired = |byte: u32| Fired::from_byte(u8::try_from(byte).unwrap_or(0));
        let rest = Rest {
            extensions: record.extensions,
            idle_fired: fired(record.idle_fired),
            absolute_fired: fired(record.absolute_fired),
            extra: record
                .extra
                .as_ref()
                .map(|extra| self.extra(extra))
                .transpose()?
                .map(Arc::new),
        };
        Ok((origin, self.book.limits(&record.limits)?, rest))
    }

    fn extra(&self, extra: &body::Extra) -> Result<Extra, Unread> {
        let at = |micros: Option<i64>| micros.map(|micros| self.scale.read(micros));
        let unenforced = match extra.unenforced_at {
            None => None,
            Some(micros) => Some((limit(extra.unenforced_limit)?, self.scale.read(micros))),
        };
        Ok(Extra {
            extended_until: at(extra.extended_until),
            holds: extra.holds.iter().map(|hold| self.hold(hold)).collect(),
            work_ended: at(extra.work_ended),
            budget_from: at(extra.budget_from),
            presence_ended: at(extra.presence_ended).map(|at| PresenceEnd {
                at,
                released: extra.presence_released,
            }),
            reports_input: extra.reports_input,
            told_before: [extra.told_idle, extra.told_absolute].map(|told| told.map(Duration::from_nanos)),
            unenforced,
            requests: extra
                .requests
                .iter()
                .map(|known| Remembered {
                    request: request(&known.request),
                    at: self.scale.read(known.at),
                    outcome: match known.outcome {
                        2 => Outcome::Extended {
                            granted: Duration::from_nanos(known.granted),
                            clamped: known.clamped,
                        },
                        3 => Outcome::Rotated,
                        _ => Outcome::Created,
                    },
                })
                .collect(),
            end: None,
        })
    }

    fn hold(&self, hold: &body::Hold) -> Hold {
        Hold {
            id: hold.id.as_str().into(),
            kind: if hold.presence {
                HoldKind::Presence
            } else {
                HoldKind::Work
            },
            purpose: hold.purpose.as_str().into(),
            started: self.scale.read(hold.started),
            until: self.scale.read(hold.until),
            renewals: hold.renewals,
        }
    }

    fn tombstone(&self, who: &body::Who, end: body::End) -> Result<Tombstone, Unread> {
        Ok(Tombstone {
            origin: Origin {
                authenticated: self.scale.read(end.authenticated),
                created: self.scale.read(end.created),
                identity: identity(who),
            },
            limits: self.book.limits(&end.limits)?,
            last_activity: self.scale.read(end.last_activity),
            idle_deadline: self.scale.read(end.idle_deadline),
            extensions: end.extensions,
            version: end.version,
            end: End {
                reason: reason(end.reason)?,
                actor: actor(end.actor)?,
                actor_id: end.actor_id.into(),
                note: end.note.into(),
                at: self.scale.read(end.at),
            },
            forget_at: self.scale.read(end.forget_at),
            successor: match end.successor {
                None => None,
                Some(next) => Some(Succession {
                    reference: reference(&next.reference)?,
                    alias_until: self.scale.read(next.alias_until),
                    reauthenticated: next.reauthenticated,
                }),
            },
            request: end.request.map(|known| request(&known)),
            silent: end.silent,
            told: AtomicU32::new(0),
        })
    }

    /// An event and what comes before it. `None`: only the version of a session has changed.
    pub(in crate::store::shared) fn event(
        &self,
        body: &body::Event,
        stream: u16,
        number: u64,
    ) -> Result<Option<Event>, Unread> {
        let Some(what) = &body.what else { return Ok(None) };
        let who = body.who.clone().unwrap_or_default();
        let identity = identity(&who);
        let what = match what {
            body::What::Warning(warning) => Happening::Warning {
                limit: limit(warning.limit)?,
                point: Duration::from_nanos(warning.point),
                expire: self.scale.read(warning.expire),
                can_extend: warning.can_extend,
            },
            body::What::Cleared(cleared) => Happening::Cleared {
                limit: limit(cleared.limit)?,
                cause: cause(cleared.cause)?,
                expire: self.scale.read(cleared.expire),
            },
            body::What::Succeeded(succeeded) => {
                let (origin, limits, rest) = self.parts(&who, &succeeded.record)?;
                Happening::Succeeded {
                    predecessor: reference(&succeeded.predecessor)?,
                    record: Arc::new(Record {
                        origin,
                        limits,
                        pulse: Pulse::new(self.scale.read(succeeded.last_activity)),
                        rest,
                        version: succeeded.version,
                    }),
                }
            }
            body::What::Ended(end) => Happening::Ended(Arc::new(self.tombstone(&who, (**end).clone())?)),
            body::What::Extended(extended) => Happening::Extended {
                granted: Duration::from_nanos(extended.granted),
                clamped: extended.clamped,
            },
            body::What::HoldStarted(hold) => Happening::HoldStarted(self.hold(hold)),
            body::What::HoldEnded(ended) => Happening::HoldEnded {
                hold: self.hold(&ended.hold),
                at: self.scale.read(ended.at),
                released: ended.released,
            },
            body::What::PolicyAdopted(revision) => Happening::PolicyAdopted { revision: *revision },
            body::What::UnenforcedEnd(end) => Happening::UnenforcedEnd {
                limit: limit(end.limit)?,
                at: self.scale.read(end.at),
            },
        };
        Ok(Some(Event {
            seq: 0,
            stream,
            number,
            at: self.scale.read(body.at),
            session: reference(&body.reference)?,
            identity,
            version: body.version,
            what,
            told: AtomicU32::new(0),
        }))
    }
}
