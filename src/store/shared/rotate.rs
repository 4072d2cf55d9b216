//! A rotation is over two buckets, so it takes three steps: the successor is written, not live yet; the old name ends, if
//! nothing has happened to it meanwhile; the successor goes live. Whoever crashes in between leaves work that anybody who comes
//! by the successor can finish: its record says in whose place it goes on, and whether it does stands in the other's end.
//!
//! After the first step: nothing has happened to the old name; the successor is forgotten after a while. After the second: the
//! old name has ended (G6: once), and its successor is live for whoever looks (G5: it is not another session).

use std::time::Duration;

use prost::Message as _;

use super::{
    Commit, Committed, Expected, Found, Shared, Unavailable,
    ask::{Question, Timed, text},
    body,
    codec::{self, Fields, PENDING, Read, Scale, Writer},
    commit::{Change, HELD, millis, set},
    link::Fault,
    scripts,
};
use crate::state::{Moment, SessionRef};

/// After so long others finish what one sidecar has begun.
pub(super) const UNFINISHED: Duration = Duration::from_secs(1);

/// Until then the old name may end, and after twice that its successor is forgotten if it has not.
const PATIENCE: Duration = Duration::from_secs(3);

impl Shared {
    /// Ends a session under its old name and begins it under the new one.
    pub(super) async fn rotate(&self, commit: Commit) -> Result<Committed, Unavailable> {
        let Commit {
            reference,
            expected:
                Expected::Session {
                    session,
                    pulse,
                    version,
                },
            mut next,
            moment,
            supersedes,
            not_after,
        } = commit
        else {
            return Err(Unavailable);
        };
        let (Some(lease), Some(successor)) = (session.lease(), next.successor.take()) else {
            return Err(Unavailable);
        };
        let to = successor.reference;
        let bucket = self.names.bucket(to);
        if self.buckets[bucket].is_new() {
            self.read(to).await?;
        }
        // First step: the successor, pending.
        let scale = Scale {
            skew: self.buckets[bucket].bounds().1,
        };
        let (origin, first) = (&successor.origin, &successor.next);
        let mut writer = Writer::new(&self.book, scale, self.format);
        let fields = writer.beginning(origin, first);
        let events = writer.events(to, &origin.identity, &first.happenings, first.version, moment.now);
        self.put_limits(std::mem::take(&mut writer.limits)).await?;
        if !origin.identity.subject().is_empty() {
            match self
                .try_list(origin.identity.tenant(), origin.identity.subject(), to, None)
                .await
            {
                Ok(_) => {}
                Err(Fault::Full(_)) => return Ok(Committed::StoreFull),
                Err(fault) => return Err(self.unavailable(&fault)),
            }
        }
        let keep = Self::keep_for(origin, first, moment.now);
        let duties = body::Duties {
            predecessor: reference.as_bytes().to_vec(),
            since: scale.write(moment.now),
            supersedes: supersedes.iter().map(|name| name.as_bytes().to_vec()).collect(),
            flags: fields.flags,
            next_action: scale.write(first.view(origin).next_action(moment)),
            keep: millis(keep),
        };
        let waiting = body::Waiting {
            events: events
                .into_iter()
                .map(|(place, event)| body::WaitingEvent { place, event })
                .collect(),
        };
        let pending = Fields {
            flags: PENDING,
            duties: duties.encode_to_vec(),
            waiting: waiting.encode_to_vec(),
            ..fields
        };
        let mut pending_set = set(&pending, origin, first, scale);
        pending_set.push(("w", pending.who.clone()));
        pending_set.push(("p", pending.duties.clone()));
        pending_set.push(("q", pending.waiting.clone()));
        let written = |before: Change| Change {
            by: Some(scale),
            latest: scale.latest(not_after),
            due: Some(scale.write(moment.now + UNFINISHED)),
            keep,
            set: pending_set.clone(),
            ..before
        };
        let answer = match self.run(written(Change::beginning(to))).await {
            Ok(answer) => answer,
            Err(Fault::Full(_)) => return Ok(Committed::StoreFull),
            Err(fault) => return Err(self.unavailable(&fault)),
        };
        if answer.is("late") {
            return Err(Unavailable);
        }
        if !answer.is("ok") {
            let found = self.found(to, &answer).await?;
            let known = answer.fields().unwrap_or_default();
            let begun: body::Duties = codec::decode(&known.duties).unwrap_or_default();
            let ours = known.flags & PENDING != 0 && begun.predecessor == reference.as_bytes();
            if !ours || matches!(found, Found::Live(_)) {
                return self.taken(reference, found).await;
            }
            // This very rotation was begun before, by a retry or by one who is gone: it goes on from there, and of two who do so one
            // is the first to end the old name.
            let taken_over = written(Change::of(to, known.version, known.activity));
            let taken_over = self.run(taken_over).await.map_err(|fault| self.unavailable(&fault))?;
            if !taken_over.is("ok") {
                return Ok(Committed::Lost(self.read(reference).await?));
            }
        }
        // Second step: the old name ends.
        let old = Scale { skew: lease.skew };
        let mut writer = Writer::new(&self.book, old, self.format);
        let origin_before = session.origin();
        let fields = writer.record(origin_before, &next);
        let events = writer.events(
            reference,
            &origin_before.identity,
            &next.happenings,
            next.version,
            moment.now,
        );
        self.put_limits(std::mem::take(&mut writer.limits)).await?;
        let Some(end) = next.rest.end().cloned() else {
            return Err(Unavailable);
        };
        let ended = self
            .run(Change {
                by: Some(old),
                latest: old.write(moment.now + PATIENCE),
                remembered_until: Some(old.write(end.forget_at)),
                keep: Self::keep_for(origin_before, &next, moment.now),
                set: set(&fields, origin_before, &next, old),
                events,
                ..Change::of(reference, version, old.write(pulse.last_activity()))
            })
            .await
            .map_err(|fault| self.unavailable(&fault))?;
        if !ended.is("ok") {
            let found = self.lost(reference, &ended).await?;
            if matches!(found, Found::Ended(_)) {
                // What was written can go on no more, unless a retry of the same request has gone on with it: whoever looks says so.
                self.read(to).await?;
            }
            return Ok(Committed::Lost(found));
        }
        self.near.remove(reference);
        self.unlist(origin_before, reference).await;
        // Third step: the successor goes live.
        match self
            .go_live(to, &pending, &duties, (self.names.bucket(reference), ended.head.number))
            .await?
        {
            Found::Live(session) => {
                // It takes the place of the old one.
                self.bucket_of(reference).one_less(&ended.head);
                self.buckets[bucket].one_more(&answer.head);
                Ok(Committed::Done(session))
            }
            // Somebody else has finished it, and it has ended since.
            other => Ok(Committed::Taken(other)),
        }
    }

    /// The new name is not free; unless a retry of the same request was faster, or what was there could go on no more.
    async fn taken(&self, from: SessionRef, found: Found) -> Result<Committed, Unavailable> {
        let now = self.read(from).await?;
        if matches!(found, Found::Unknown { .. }) {
            // Another session is being rotated to that name, or was.
            tokio::time::sleep(HELD).await;
            return Ok(Committed::Lost(now));
        }
        Ok(match now {
            Found::Live(_) => Committed::Taken(found),
            over => Committed::Lost(over),
        })
    }

    /// Makes a pending session live, after the event by which the other one ended.
    async fn go_live(
        &self,
        session: SessionRef,
        pending: &Fields,
        duties: &body::Duties,
        (bucket, number): (usize, u64),
    ) -> Result<Found, Unavailable> {
        let waiting: body::Waiting = codec::decode(&pending.waiting).unwrap_or_default();
        let after = body::After {
            bucket: u32::try_from(bucket).unwrap_or(0),
            number,
        };
        let events = waiting.events.into_iter().map(|mut waiting| {
            waiting.event.after = Some(after);
            (waiting.place, waiting.event)
        });
        let mut due = duties.next_action;
        let mut left = Vec::new();
        if !duties.supersedes.is_empty() {
            due = due.min(duties.since);
            left = body::Duties {
                predecessor: Vec::new(),
                ..duties.clone()
            }
            .encode_to_vec();
        }
        let answer = self
            .run(Change {
                due: Some(due),
                keep: Duration::from_millis(duties.keep),
                set: vec![("f", text(duties.flags)), ("p", left), ("q", Vec::new())],
                events: events.collect(),
                ..Change::of(session, pending.version, pending.activity)
            })
            .await
            .map_err(|fault| self.unavailable(&fault))?;
        if !answer.is("ok") {
            // Somebody was faster, or has taken it over.
            return Box::pin(self.found(session, &answer)).await;
        }
        let live = Fields {
            flags: duties.flags,
            ..pending.clone()
        };
        match self.decode(session, &live, answer.received).await? {
            Read::Live(live) => {
                let live = std::sync::Arc::new(live);
                self.keep(&live, answer.head.number);
                Ok(Found::Live(live))
            }
            Read::Ended(_) | Read::Pending(_) => Err(Unavailable),
        }
    }

    /// Finishes what somebody else began: if the other session has ended by going on as this one, this one is live; if it
    /// cannot any more, this one never was.
    pub(super) async fn settle(
        &self,
        session: SessionRef,
        pending: &Fields,
        duties: body::Duties,
    ) -> Result<Found, Unavailable> {
        let Ok(predecessor) = codec::reference(&duties.predecessor) else {
            return Err(Unavailable);
        };
        let answer = self.ask_record(predecessor).await;
        let before = answer
            .map_err(|fault| self.unavailable(&fault))?
            .fields()
            .unwrap_or_default();
        let mut not_before = 0;
        if before.flags & codec::ENDED != 0 {
            let end: body::End = codec::decode(&before.end).map_err(|_| Unavailable)?;
            if end.successor.is_some_and(|next| next.reference == session.as_bytes()) {
                let after = (self.names.bucket(predecessor), before.number);
                return self.go_live(session, pending, &duties, after).await;
            }
            // It has ended otherwise, or goes on as another one: never.
        } else {
            // Not yet, or never: it is forgotten once the other one cannot end so any more.
            let twice = i64::try_from(2 * PATIENCE.as_micros()).unwrap_or(0);
            not_before = duties.since + twice;
        }
        self.forget(session, pending.version, not_before).await;
        Ok(Found::Unknown { may_have_ended: false })
    }

    /// Forgets a pending session, not before a time of its bucket.
    async fn forget(&self, session: SessionRef, version: u32, not_before: i64) {
        let bucket = self.names.bucket(session);
        let question = Question {
            script: &scripts::DROP,
            bucket,
            keys: self.names.record_and_due(session),
            args: vec![text(version), text(not_before), session.to_string().into_bytes()],
            timed: Timed::Now,
        };
        // Whoever comes by it next tries again.
        if let Err(fault) = self.ask(question).await {
            let _ = self.unavailable(&fault);
        }
    }

    /// What had to end because this session began has ended.
    pub(super) async fn duties_done(&self, session: SessionRef) -> Result<(), Unavailable> {
        for _ in 0..8 {
            let answer = self.ask_record(session).await;
            let answer = answer.map_err(|fault| self.unavailable(&fault))?;
            let Some(fields) = answer.fields().filter(|fields| !fields.duties.is_empty()) else {
                return Ok(());
            };
            if fields.flags & (PENDING | codec::ENDED) != 0 {
                return Ok(());
            }
            let Read::Live(live) = self.decode(session, &fields, answer.received).await? else {
                return Ok(());
            };
            let scale = Scale {
                skew: live.lease().map_or(0, |lease| lease.skew),
            };
            let keep = codec::decode::<body::Duties>(&fields.duties).unwrap_or_default().keep;
            let next_action = live.read(|view| view.next_action(Moment::at(self.clock.now())));
            let done = self
                .run(Change {
                    by: Some(scale),
                    due: Some(scale.write(next_action)),
                    keep: Duration::from_millis(keep),
                    set: vec![("p", Vec::new())],
                    ..Change::of(session, fields.version, fields.activity)
                })
                .await
                .map_err(|fault| self.unavailable(&fault))?;
            if done.is("ok") {
                return Ok(());
            }
        }
        Err(Unavailable)
    }

    /// The sessions that must end because this one began, as its record says.
    pub(super) fn duties_of(fields: &Fields) -> Vec<SessionRef> {
        let duties: body::Duties = codec::decode(&fields.duties).unwrap_or_default();
        let names = duties.supersedes.iter();
        names.filter_map(|name| codec::reference(name).ok()).collect()
    }
}
