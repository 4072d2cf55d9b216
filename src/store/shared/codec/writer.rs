//! From the words of the core to those of the store.

use std::time::Duration;

use prost::Message as _;

use super::{
    ENDED, Fields, OPEN, OPEN_SINCE, SLOW, Scale, WARNED, actor_number, cause_number, limit_number, reason_number, who,
    write_request,
};
use crate::{
    state::{Extra, Happening, Hold, HoldKind, Identity, Limits, Next, Origin, Outcome, Rest, SessionRef, Tombstone},
    store::shared::{
        body,
        limits::{Book, Written, nanos},
    },
    time::Time,
};

/// Writes records and events, and notes which limits must be in the store for others to read them.
pub(in crate::store::shared) struct Writer<'a> {
    pub(in crate::store::shared) book: &'a Book,
    pub(in crate::store::shared) scale: Scale,
    format: u32,
    pub(in crate::store::shared) limits: Vec<Written>,
}

impl<'a> Writer<'a> {
    pub(in crate::store::shared) fn new(book: &'a Book, scale: Scale, format: u32) -> Self {
        Self {
            book,
            scale,
            format,
            limits: Vec::new(),
        }
    }

    fn limits_of(&mut self, limits: &Limits) -> body::LimitsOf {
        let (of, written) = self.book.of(limits);
        self.limits.extend(written);
        of
    }

    /// The first record of a session: it says whose it is, which never changes.
    pub(in crate::store::shared) fn beginning(&mut self, origin: &Origin, next: &Next) -> Fields {
        Fields {
            who: who(&origin.identity).encode_to_vec(),
            ..self.record(origin, next)
        }
    }

    /// The record as it is after a change.
    pub(in crate::store::shared) fn record(&mut self, origin: &Origin, next: &Next) -> Fields {
        let mut flags = 0;
        if next.pulse.is_warned() {
            flags |= WARNED;
        }
        if next.pulse.is_slow() {
            flags |= SLOW;
            if self.format >= OPEN_SINCE && next.view(origin).is_only_raised() {
                flags |= OPEN;
            }
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
            who: Vec::new(),
            end,
            duties: Vec::new(),
            waiting: Vec::new(),
            number: 0,
            ignored: None,
            told: 0,
        }
    }

    fn body(&mut self, origin: &Origin, limits: &Limits, rest: &Rest) -> body::Record {
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
    pub(in crate::store::shared) fn events(
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
