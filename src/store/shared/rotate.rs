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
    ask::{Answer, Question, text},
    body,
    codec::{self, Fields, PENDING, Read, Reader, Scale, Writer},
    commit::{Change, set},
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
        } = commit
        else {
            return Err(Unavailable);
        };
        let (Some(lease), Some(successor)) = (session.lease(), next.successor.take()) else {
            return Err(Unavailable);
        };
        let to = successor.reference;
        let bucket = self.names.bucket(to);
        if self.buckets[bucket].estimate(moment.now) == 0 {
            self.read(to).await?;
        }
        // First step: the successor, pending.
        let scale = Scale {
            skew: self.buckets[bucket].bounds().1,
        };
        let (origin, first) = (&successor.origin, &successor.next);
        let mut writer = Writer::new(&self.book, scale);
        let fields = writer.record(origin, first);
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
        let duties = body::Duties {
            predecessor: reference.as_bytes().to_vec(),
            since: scale.write(moment.now),
            supersedes: supersedes.iter().map(|name| name.as_bytes().to_vec()).collect(),
            flags: fields.flags,
            next_action: scale.write(first.view(origin).next_action(moment)),
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
        let mut fields_set = set(&pending, origin, first, scale);
        fields_set.push(("w", pending.who.clone()));
        fields_set.push(("p", pending.duties.clone()));
        fields_set.push(("q", pending.waiting.clone()));
        let first_step = |script, expected| Change {
            session: to,
            script,
            expected,
            deadline: None,
            latest: 0,
            due: Some(scale.write(moment.now + UNFINISHED)),
            remembered_until: None,
            keep: Self::keep_for(origin, first, moment.now),
            set: fields_set.clone(),
            events: Vec::new(),
        };
        let answer = self.run(first_step(&scripts::CREATE, None)).await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(Fault::Full(_)) => return Ok(Committed::StoreFull),
            Err(fault) => return Err(self.unavailable(&fault)),
        };
        if !answer.is("ok") {
            // Taken; or this very rotation was begun before, and the one who began it is gone.
            let Some(Ok(known)) = answer
                .fields()
                .map(|fields| codec::decode::<body::Duties>(&fields.duties))
            else {
                return self.taken(reference, to, &answer).await;
            };
            if known.predecessor != reference.as_bytes() {
                return self.taken(reference, to, &answer).await;
            }
            // If it is done already, the old name has ended; else what was written is taken over, and of two who go on from
            // there one is the first to end the old name.
            if let Found::Live(_) = self.found(to, &answer).await? {
                return Ok(Committed::Lost(self.read(reference).await?));
            }
            let known = answer.fields().unwrap_or_default();
            let taken_over = self
                .run(first_step(&scripts::COMMIT, Some((known.version, known.activity))))
                .await
                .map_err(|fault| self.unavailable(&fault))?;
            if !taken_over.is("ok") {
                // Somebody else has gone on from there.
                return Ok(Committed::Lost(self.read(reference).await?));
            }
        }
        // Second step: the old name ends.
        let old = Scale { skew: lease.skew };
        let mut writer = Writer::new(&self.book, old);
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
                session: reference,
                script: &scripts::COMMIT,
                expected: Some((version, old.write(pulse.last_activity()))),
                deadline: None,
                latest: old.write(moment.now + PATIENCE),
                due: None,
                remembered_until: Some(old.write(end.forget_at)),
                keep: Self::keep_for(origin_before, &next, moment.now),
                set: set(&fields, origin_before, &next, old),
                events,
            })
            .await
            .map_err(|fault| self.unavailable(&fault))?;
        if !ended.is("ok") {
            // A retry of the same request may go on from what was written, or has just done so: the sweep forgets it when nobody can
            // any more. Without a request nobody else has its name.
            if end.request.is_none() {
                self.forget(to, pending.version, 0).await;
            }
            return Ok(Committed::Lost(self.lost(reference, &ended).await?));
        }
        self.near.remove(reference);
        self.unlist(origin_before, reference).await;
        // Third step: the successor goes live.
        match self
            .go_live(to, &pending, &duties, (self.names.bucket(reference), ended.head.number))
            .await?
        {
            Found::Live(session) => {
                for bucket in [self.names.bucket(reference), bucket] {
                    self.recount(bucket).await;
                }
                Ok(Committed::Done(session))
            }
            // Somebody else has finished it, and it has ended since.
            other => Ok(Committed::Taken(other)),
        }
    }

    /// The new name is not free. Unless the old one was rotated into it just now, by a retry of the same request perhaps.
    async fn taken(&self, from: SessionRef, to: SessionRef, answer: &Answer) -> Result<Committed, Unavailable> {
        let found = self.found(to, answer).await?;
        Ok(match self.read(from).await? {
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
                session,
                script: &scripts::COMMIT,
                expected: Some((pending.version, pending.activity)),
                deadline: None,
                latest: 0,
                due: Some(due),
                remembered_until: None,
                // It was set when it was written, and that was just now.
                keep: self.keep_of(session, pending)?,
                set: vec![("f", text(duties.flags)), ("p", left), ("q", Vec::new())],
                events: events.collect(),
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

    fn keep_of(&self, session: SessionRef, pending: &Fields) -> Result<Duration, Unavailable> {
        let scale = Scale {
            skew: self.bucket_of(session).bounds().1,
        };
        let reader = Reader {
            book: &self.book,
            scale,
        };
        let who = codec::decode(&pending.who).unwrap_or_default();
        let (origin, next) = reader.live(&who, pending).map_err(|_| Unavailable)?;
        Ok(Self::keep_for(&origin, &next, self.clock.now()))
    }

    /// Finishes what somebody else began: if the other session has ended by going on as this one, this one is live; if it
    /// cannot any more, this one never was.
    pub(super) async fn settle(
        &self,
        session: SessionRef,
        pending: &Fields,
        duties: body::Duties,
    ) -> Result<Found, Unavailable> {
        let unknown = Found::Unknown { may_have_ended: false };
        let Ok(predecessor) = codec::reference(&duties.predecessor) else {
            return Err(Unavailable);
        };
        let answer = self.ask_record(predecessor).await?;
        let before = answer.fields().unwrap_or_default();
        if before.flags & codec::ENDED != 0 {
            let end: body::End = codec::decode(&before.end).map_err(|_| Unavailable)?;
            let goes_on = end.successor.is_some_and(|next| next.reference == session.as_bytes());
            if goes_on {
                let after = (self.names.bucket(predecessor), before.number);
                // Limits may have to be asked for first.
                if let Err(Unavailable) = self.keep_of(session, pending) {
                    let live = Fields {
                        flags: duties.flags,
                        ..pending.clone()
                    };
                    self.decode(session, &live, answer.received).await?;
                }
                return self.go_live(session, pending, &duties, after).await;
            }
        }
        // Not yet, or never: it is forgotten once the other one cannot end so any more.
        let twice = i64::try_from(2 * PATIENCE.as_micros()).unwrap_or(0);
        self.forget(session, pending.version, duties.since + twice).await;
        Ok(unknown)
    }

    async fn ask_record(&self, session: SessionRef) -> Result<Answer, Unavailable> {
        let bucket = self.names.bucket(session);
        let question = Question {
            script: &scripts::READ,
            bucket,
            keys: vec![self.names.meta(bucket), self.names.record(session)],
            args: Vec::new(),
            timed: false,
        };
        self.ask(question).await.map_err(|fault| self.unavailable(&fault))
    }

    /// Forgets a pending session, not before a time of its bucket.
    async fn forget(&self, session: SessionRef, version: u32, not_before: i64) {
        let bucket = self.names.bucket(session);
        let question = Question {
            script: &scripts::DROP,
            bucket,
            keys: vec![
                self.names.meta(bucket),
                self.names.record(session),
                self.names.due(bucket),
            ],
            args: vec![text(version), text(not_before), session.to_string().into_bytes()],
            timed: true,
        };
        // Whoever comes by it next tries again.
        if let Err(fault) = self.ask(question).await {
            let _ = self.unavailable(&fault);
        }
    }

    /// What had to end because this session began has ended.
    pub(super) async fn duties_done(&self, session: SessionRef) -> Result<(), Unavailable> {
        for _ in 0..8 {
            let answer = self.ask_record(session).await?;
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
            let next_action = live.read(|view| view.next_action(Moment::at(self.clock.now())));
            let done = self
                .run(Change {
                    session,
                    script: &scripts::COMMIT,
                    expected: Some((fields.version, fields.activity)),
                    deadline: None,
                    latest: 0,
                    due: Some(scale.write(next_action)),
                    remembered_until: None,
                    keep: self.keep_of(session, &fields)?,
                    set: vec![("p", Vec::new())],
                    events: Vec::new(),
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
