//! Between the words of the core and those of the store.

use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use prost::Message as _;

use super::{
    body,
    limits::{Book, NotKnown, Written, nanos},
};
use crate::{
    event::Event,
    state::{
        Actor, Cause, End, EndReason, Extra, Fired, Happening, Hold, HoldKind, Identity, Limit, Next, Origin, Outcome,
        PresenceEnd, Pulse, Remembered, RequestId, Rest, SessionRef, Succession, Tombstone, view::Record,
    },
    store::{Lease, Session},
    time::Time,
};

/// Between our clock and a bucket's: by one number, so that what is read and written back is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    /// The bucket's time minus ours, in microseconds.
    pub(super) skew: i64,
}

impl Scale {
    /// Up to the next microsecond: nobody's deadline comes earlier by being written.
    pub(super) fn write(self, at: Time) -> i64 {
        let since_start = nanos_since_start(at);
        let micros = since_start.div_euclid(1000) + i64::from(since_start.rem_euclid(1000) > 0);
        micros.saturating_add(self.skew)
    }

    pub(super) fn read(self, micros: i64) -> Time {
        let since_start = micros.saturating_sub(self.skew).saturating_mul(1000);
        let nanos = as_i64(Time::START).saturating_add(since_start);
        Time::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }
}

/// Whole microseconds of our clock, counted from its start.
pub(super) fn micros(at: Time) -> i64 {
    nanos_since_start(at).div_euclid(1000)
}

fn nanos_since_start(at: Time) -> i64 {
    as_i64(at) - as_i64(Time::START)
}

fn as_i64(at: Time) -> i64 {
    // A moment has 61 bits.
    i64::try_from(at.as_nanos()).unwrap_or(i64::MAX)
}

/// What a record says that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unread {
    /// Its limits must be asked for.
    #[error("limits are not known yet")]
    Limits(u64),
    /// Somebody else wrote it.
    #[error("{0}")]
    Broken(String),
}

impl From<NotKnown> for Unread {
    fn from(NotKnown(digest): NotKnown) -> Self {
        Self::Limits(digest)
    }
}

fn broken(what: &str) -> Unread {
    Unread::Broken(what.to_owned())
}

/// A record as its fields are in the store: see `scripts/time.lua`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) version: u32,
    pub(super) activity: i64,
    pub(super) lead: i64,
    pub(super) flags: u32,
    pub(super) body: Vec<u8>,
    pub(super) who: Vec<u8>,
    pub(super) end: Vec<u8>,
    pub(super) duties: Vec<u8>,
    pub(super) waiting: Vec<u8>,
    /// The number of the last event when it was written.
    pub(super) number: u64,
    /// When the last touch came that did not count.
    pub(super) ignored: Option<i64>,
    /// How many entries its timeline has had.
    pub(super) told: u32,
}

/// The flags of a record: a script raises only one that has none.
pub(super) const WARNED: u32 = 1;
pub(super) const SLOW: u32 = 2;
pub(super) const ENDED: u32 = 4;
pub(super) const PENDING: u32 = 8;
/// What no script writes: the numbers of a record are none.
pub(super) const BROKEN: u32 = 1 << 31;

/// What a record is.
#[derive(Debug)]
pub(super) enum Read {
    Live(Session),
    Ended(Arc<Tombstone>),
    /// It is to go on in the place of another one, which may not have been rotated yet.
    Pending(body::Duties),
}

/// Reads records and events.
pub(super) struct Reader<'a> {
    pub(super) book: &'a Book,
    pub(super) scale: Scale,
}

impl Reader<'_> {
    /// A record, read at `at`.
    pub(super) fn record(
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
    pub(super) fn live(&self, who: &body::Who, fields: &Fields) -> Result<(Origin, Next), Unread> {
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

    fn parts(
        &self,
        who: &body::Who,
        record: &body::Record,
    ) -> Result<(Origin, Arc<crate::state::Limits>, Rest), Unread> {
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
    pub(super) fn event(&self, body: &body::Event, stream: u16, number: u64) -> Result<Option<Event>, Unread> {
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

/// Writes records and events, and notes which limits must be in the store for others to read them.
pub(super) struct Writer<'a> {
    pub(super) book: &'a Book,
    pub(super) scale: Scale,
    pub(super) limits: Vec<Written>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(book: &'a Book, scale: Scale) -> Self {
        Self {
            book,
            scale,
            limits: Vec::new(),
        }
    }

    fn limits_of(&mut self, limits: &crate::state::Limits) -> body::LimitsOf {
        let (of, written) = self.book.of(limits);
        self.limits.extend(written);
        of
    }

    /// The record as it is after a change.
    pub(super) fn record(&mut self, origin: &Origin, next: &Next) -> Fields {
        let mut flags = 0;
        if next.pulse.is_warned() {
            flags |= WARNED;
        }
        if next.pulse.is_slow() {
            flags |= SLOW;
        }
        let mut end = Vec::new();
        if let Some(tombstone) = next.rest.end() {
            flags = ENDED;
            end = self.end(tombstone).encode_to_vec();
        }
        Fields {
            version: next.version,
            activity: self.scale.write(next.pulse.last_activity()),
            lead: i64::try_from(next.lead.as_micros()).unwrap_or(i64::MAX),
            flags,
            body: if end.is_empty() {
                self.body(origin, &next.limits, &next.rest).encode_to_vec()
            } else {
                Vec::new()
            },
            who: who(&origin.identity).encode_to_vec(),
            end,
            duties: Vec::new(),
            waiting: Vec::new(),
            number: 0,
            ignored: None,
            told: 0,
        }
    }

    fn body(&mut self, origin: &Origin, limits: &crate::state::Limits, rest: &Rest) -> body::Record {
        body::Record {
            created: self.scale.write(origin.created),
            authenticated: self.scale.write(origin.authenticated),
            limits: self.limits_of(limits),
            extensions: rest.extensions,
            idle_fired: rest.idle_fired.to_byte().into(),
            absolute_fired: rest.absolute_fired.to_byte().into(),
            extra: rest.extra.as_ref().map(|extra| self.extra(extra)),
        }
    }

    fn extra(&self, extra: &Extra) -> body::Extra {
        let at = |at: Option<Time>| at.map(|at| self.scale.write(at));
        body::Extra {
            extended_until: at(extra.extended_until),
            holds: extra.holds.iter().map(|hold| self.hold(hold)).collect(),
            work_ended: at(extra.work_ended),
            budget_from: at(extra.budget_from),
            presence_ended: at(extra.presence_ended.map(|end| end.at)),
            presence_released: extra.presence_ended.is_some_and(|end| end.released),
            reports_input: extra.reports_input,
            told_idle: extra.told_before[0].map(nanos),
            told_absolute: extra.told_before[1].map(nanos),
            unenforced_limit: extra.unenforced.map_or(0, |(limit, _)| limit_number(limit)),
            unenforced_at: at(extra.unenforced.map(|(_, at)| at)),
            requests: extra
                .requests
                .iter()
                .map(|known| {
                    let (outcome, granted, clamped) = match known.outcome {
                        Outcome::Created => (1, Duration::ZERO, false),
                        Outcome::Extended { granted, clamped } => (2, granted, clamped),
                        Outcome::Rotated => (3, Duration::ZERO, false),
                    };
                    body::Remembered {
                        request: write_request(known.request),
                        at: self.scale.write(known.at),
                        outcome,
                        granted: nanos(granted),
                        clamped,
                    }
                })
                .collect(),
        }
    }

    fn hold(&self, hold: &Hold) -> body::Hold {
        body::Hold {
            id: hold.id.to_string(),
            presence: hold.kind == HoldKind::Presence,
            purpose: hold.purpose.to_string(),
            started: self.scale.write(hold.started),
            until: self.scale.write(hold.until),
            renewals: hold.renewals,
        }
    }

    fn end(&mut self, tombstone: &Tombstone) -> body::End {
        body::End {
            reason: reason_number(tombstone.end.reason),
            actor: actor_number(tombstone.end.actor),
            actor_id: tombstone.end.actor_id.to_string(),
            note: tombstone.end.note.to_string(),
            at: self.scale.write(tombstone.end.at),
            last_activity: self.scale.write(tombstone.last_activity),
            idle_deadline: self.scale.write(tombstone.idle_deadline),
            extensions: tombstone.extensions,
            forget_at: self.scale.write(tombstone.forget_at),
            successor: tombstone.successor.map(|next| body::Succession {
                reference: next.reference.as_bytes().to_vec(),
                alias_until: self.scale.write(next.alias_until),
                reauthenticated: next.reauthenticated,
            }),
            request: tombstone.request.map(write_request),
            silent: tombstone.silent,
            version: tombstone.version,
            created: self.scale.write(tombstone.origin.created),
            authenticated: self.scale.write(tombstone.origin.authenticated),
            limits: self.limits_of(&tombstone.limits),
        }
    }

    /// What happened, and where it goes: to the events (1), to the session's timeline (2), or to both. What nobody is told goes
    /// to the events all the same, without saying what it is, so that everybody knows that the record has changed.
    pub(super) fn events(
        &mut self,
        reference: SessionRef,
        identity: &Identity,
        happenings: &[(u32, Happening)],
        version: u32,
        at: Time,
    ) -> Vec<(u32, body::Event)> {
        let mut events = Vec::with_capacity(happenings.len() + 1);
        let mut published = 0;
        for (version, happening) in happenings {
            let place = u32::from(happening.is_public()) + 2 * u32::from(happening.is_history());
            if place == 0 {
                continue;
            }
            if happening.is_public() {
                published = *version;
            }
            let what = self.what(happening);
            events.push((
                place,
                body::Event {
                    reference: reference.as_bytes().to_vec(),
                    version: *version,
                    at: self.scale.write(at),
                    who: Some(who(identity)),
                    after: None,
                    what,
                },
            ));
        }
        if published < version {
            events.push((
                1,
                body::Event {
                    reference: reference.as_bytes().to_vec(),
                    version,
                    at: self.scale.write(at),
                    ..body::Event::default()
                },
            ));
        }
        events
    }

    fn what(&mut self, happening: &Happening) -> Option<body::What> {
        Some(match happening {
            Happening::Warning {
                limit,
                point,
                expire,
                can_extend,
            } => body::What::Warning(body::Warning {
                limit: limit_number(*limit),
                point: nanos(*point),
                expire: self.scale.write(*expire),
                can_extend: *can_extend,
            }),
            Happening::Cleared { limit, cause, expire } => body::What::Cleared(body::Cleared {
                limit: limit_number(*limit),
                cause: cause_number(*cause),
                expire: self.scale.write(*expire),
            }),
            Happening::Succeeded { predecessor, record } => body::What::Succeeded(Box::new(body::Succeeded {
                predecessor: predecessor.as_bytes().to_vec(),
                record: self.body(&record.origin, &record.limits, &record.rest),
                last_activity: self.scale.write(record.pulse.last_activity()),
                version: record.version,
            })),
            Happening::Ended(tombstone) => body::What::Ended(Box::new(self.end(tombstone))),
            Happening::Extended { granted, clamped } => body::What::Extended(body::Extended {
                granted: nanos(*granted),
                clamped: *clamped,
            }),
            Happening::HoldStarted(hold) => body::What::HoldStarted(self.hold(hold)),
            Happening::HoldEnded { hold, at, released } => body::What::HoldEnded(body::HoldEnded {
                hold: self.hold(hold),
                at: self.scale.write(*at),
                released: *released,
            }),
            Happening::PolicyAdopted { revision } => body::What::PolicyAdopted(*revision),
            Happening::UnenforcedEnd { limit, at } => body::What::UnenforcedEnd(body::UnenforcedEnd {
                limit: limit_number(*limit),
                at: self.scale.write(*at),
            }),
            Happening::ExtensionsReset | Happening::HoldRenewed | Happening::InputReported => return None,
        })
    }
}

pub(super) fn decode<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, Unread> {
    M::decode(bytes).map_err(|error| Unread::Broken(error.to_string()))
}

pub(super) fn reference(bytes: &[u8]) -> Result<SessionRef, Unread> {
    let bytes = bytes.try_into().map_err(|_| broken("a ref must have 16 bytes"))?;
    Ok(SessionRef::from_bytes(bytes))
}

pub(super) fn who(identity: &Identity) -> body::Who {
    body::Who {
        tenant: identity.tenant().to_owned(),
        subject: identity.subject().to_owned(),
        level: identity.authentication_level().to_owned(),
        predecessor: identity
            .predecessor()
            .map(|name| name.as_bytes().to_vec())
            .unwrap_or_default(),
        labels: identity.labels(),
    }
}

fn identity(who: &body::Who) -> Identity {
    Identity::new(
        who.tenant.as_str().into(),
        &who.subject,
        &who.level,
        who.labels.clone(),
        reference(&who.predecessor).ok(),
    )
}

fn request(known: &body::Request) -> RequestId {
    RequestId {
        key: known.key,
        content: known.content,
    }
}

fn write_request(request: RequestId) -> body::Request {
    body::Request {
        key: request.key,
        content: request.content,
    }
}

/// Between the values of an enum and their numbers in the store, which never change.
macro_rules! numbered {
    ($read:ident, $write:ident, $what:literal, $type:ident { $($value:ident = $number:literal),+ }) => {
        fn $read(number: u32) -> Result<$type, Unread> {
            match number {
                $($number => Ok($type::$value),)+
                _ => Err(broken(concat!("unknown ", $what))),
            }
        }

        fn $write(value: $type) -> u32 {
            match value {
                $($type::$value => $number,)+
            }
        }
    };
}

numbered!(limit, limit_number, "limit", Limit { Idle = 1, Absolute = 2, Presence = 3 });
numbered!(reason, reason_number, "end reason", EndReason {
    IdleTimeout = 1, AbsoluteTimeout = 2, Logout = 3, Revoked = 4, BrowserClosed = 5, Superseded = 6, Rotated = 7
});
numbered!(actor, actor_number, "actor", Actor { User = 1, Admin = 2, Policy = 3, System = 4 });
numbered!(cause, cause_number, "cause", Cause {
    Touched = 1, Extended = 2, Held = 3, Released = 4, Rotated = 5, PolicyChanged = 6, NotEnforced = 7
});
