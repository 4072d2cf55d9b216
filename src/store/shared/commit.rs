//! Changes: a record, its place in the index of what is due, and its events, in one step of the store.

use std::{sync::Arc, time::Duration};

use prost::Message as _;

use super::{
    Commit, Committed, Expected, Found, HELD_FOR, Raised, Session, Shared, Unavailable,
    ask::{Answer, Question, Timed, text},
    body, codec,
    codec::{Fields, Scale, Writer},
    fleet::HOUSE,
    journal::Entry,
    limits::Written,
    link::{Call, Fault, Script},
    near, scripts,
};
use crate::{
    state::{Actor, EndReason, Next, Origin, SessionRef, Tombstone},
    store::Lease,
    time::Time,
};

/// How long after its time a record is kept, only so that nothing stays for ever: it is days behind every deadline.
const GARBAGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long to wait before an end that was held back is looked at again.
pub(super) const HELD: Duration = Duration::from_millis(20);

/// The place of the number of fields among the arguments of the script `commit`, without the time.
const FIELDS: usize = 10;

/// One run of the script `commit`.
pub(super) struct Change {
    pub(super) session: SessionRef,
    pub(super) script: &'static Script,
    /// What times in it were reckoned by, if any.
    pub(super) by: Option<Scale>,
    /// The version and the activity that the record must have; `None` if there must be none.
    pub(super) expected: Option<(u32, i64)>,
    /// The deadline that must have passed, if any, and whether ends of this kind are held.
    pub(super) deadline: Option<(i64, bool)>,
    /// Not after this, or 0.
    pub(super) latest: i64,
    /// When to look at it next.
    pub(super) due: Option<i64>,
    /// Until when it is remembered, once it has ended.
    pub(super) remembered_until: Option<i64>,
    pub(super) keep: Duration,
    /// Fields to set; an empty value takes the field away.
    pub(super) set: Vec<(&'static str, Vec<u8>)>,
    pub(super) events: Vec<(u32, body::Event)>,
}

/// Whole milliseconds, as keys are kept.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The fields that a script reads and those that only we do.
pub(super) fn set(fields: &Fields, origin: &Origin, next: &Next, scale: Scale) -> Vec<(&'static str, Vec<u8>)> {
    let idle = i64::try_from(next.limits.idle_timeout.as_micros()).unwrap_or(i64::MAX);
    vec![
        ("v", text(fields.version)),
        ("t", text(fields.activity)),
        ("l", text(fields.lead)),
        ("f", text(fields.flags)),
        ("i", text(idle)),
        ("a", text(scale.write(next.view(origin).raised_until()))),
        ("b", fields.body.clone()),
        ("e", fields.end.clone()),
    ]
}

impl Change {
    /// A change of nothing yet; the record must be as it was read.
    pub(super) fn of(session: SessionRef, version: u32, activity: i64) -> Self {
        Self {
            session,
            script: &scripts::COMMIT,
            by: None,
            expected: Some((version, activity)),
            deadline: None,
            latest: 0,
            due: None,
            remembered_until: None,
            keep: Duration::ZERO,
            set: Vec::new(),
            events: Vec::new(),
        }
    }

    /// A session that begins, where nothing of its name is.
    pub(super) fn beginning(session: SessionRef) -> Self {
        Self {
            script: &scripts::CREATE,
            expected: None,
            ..Self::of(session, 0, 0)
        }
    }

    /// How many fields are set in the arguments of a run.
    fn fields_in(args: &[Vec<u8>]) -> usize {
        let count = args.get(FIELDS);
        let count = count.and_then(|count| std::str::from_utf8(count).ok()?.parse().ok());
        count.unwrap_or(0)
    }

    /// What a field is set to in the arguments of a run.
    pub(super) fn field_of<'a>(args: &'a [Vec<u8>], name: &[u8]) -> Option<&'a [u8]> {
        let set = args.get(FIELDS + 1..FIELDS + 1 + 2 * Self::fields_in(args))?;
        let mut pairs = set.chunks_exact(2);
        pairs.find(|pair| pair[0] == name).map(|pair| pair[1].as_slice())
    }

    /// The bodies of the events in the arguments of a run.
    pub(super) fn events_of(args: &[Vec<u8>]) -> impl Iterator<Item = &[u8]> {
        let first = FIELDS + 2 + 2 * Self::fields_in(args);
        args.iter().skip(first + 1).step_by(2).map(Vec::as_slice)
    }

    fn args(self, events_kept: usize) -> Vec<Vec<u8>> {
        let (deadline, holds) = match self.deadline {
            None => (0, 0),
            Some((at, true)) => (at, i64::try_from(HELD_FOR.as_micros()).unwrap_or(0)),
            Some((at, false)) => (at, 0),
        };
        let (version, activity) = match self.expected {
            None => (Vec::new(), Vec::new()),
            Some((version, activity)) => (text(version), text(activity)),
        };
        let optional = |at: Option<i64>| at.map(text).unwrap_or_default();
        let mut args = vec![
            version,
            activity,
            text(deadline),
            text(holds),
            text(self.latest),
            optional(self.due),
            optional(self.remembered_until),
            text(millis(self.keep).max(1)),
            self.session.to_string().into_bytes(),
            text(events_kept),
            text(self.set.len()),
        ];
        for (name, value) in self.set {
            args.push(name.as_bytes().to_vec());
            args.push(value);
        }
        args.push(text(self.events.len()));
        for (place, event) in self.events {
            args.push(text(place));
            args.push(event.encode_to_vec());
        }
        args
    }
}

impl Shared {
    /// Runs the script `commit`.
    pub(super) async fn run(&self, change: Change) -> Result<Answer, Fault> {
        let session = change.session;
        let script = change.script;
        let timed = change.by.map_or(Timed::Now, Timed::By);
        let args = change.args(self.events_per_bucket);
        let question = Question {
            script,
            bucket: self.names.bucket(session),
            keys: self.commit_keys(session),
            args: args.clone(),
            timed,
        };
        let answer = self.ask(question).await?;
        if answer.is("ok") {
            self.journal.note(answer.received, session, Entry::Written(args));
        }
        Ok(answer)
    }

    /// What the script `commit` reads and writes.
    pub(super) fn commit_keys(&self, session: SessionRef) -> Vec<Vec<u8>> {
        let bucket = self.names.bucket(session);
        vec![
            self.names.meta(bucket),
            self.names.record(session),
            self.names.due(bucket),
            self.names.events(bucket),
            self.names.channel(bucket),
            self.names.timeline(session),
            self.names.ended(bucket),
        ]
    }

    /// Sees to it that others can read the limits of what is about to be written.
    pub(super) async fn put_limits(&self, written: Vec<Written>) -> Result<(), Unavailable> {
        let put = self.write_limits(written.into_iter()).await;
        put.map_err(|fault| self.unavailable(&fault))
    }

    /// How long a record is kept.
    pub(super) fn keep_for(origin: &Origin, next: &Next, now: Time) -> Duration {
        match next.rest.end() {
            // Nobody is told, and nothing is remembered.
            Some(tombstone) if tombstone.silent => Duration::from_millis(1),
            Some(tombstone) => tombstone.forget_at.since(now) + Duration::from_secs(1),
            None => origin.absolute_deadline(&next.limits).since(now) + next.limits.tombstone_ttl + GARBAGE,
        }
    }

    /// Begins a session.
    pub(super) async fn create(&self, commit: Commit) -> Result<Committed, Unavailable> {
        let Commit {
            reference,
            expected: Expected::Nothing(origin),
            next,
            moment,
            supersedes,
            not_after,
        } = commit
        else {
            return Err(Unavailable);
        };
        if self.at_cap() {
            return Ok(Committed::Full {
                max_sessions: self.max_sessions,
            });
        }
        let bucket = self.names.bucket(reference);
        if self.buckets[bucket].is_new() {
            // What time it is there decides what is written.
            self.read(reference).await?;
        }
        let scale = Scale {
            skew: self.buckets[bucket].bounds().1,
        };
        let mut writer = Writer::new(&self.book, scale, self.format);
        let fields = writer.beginning(&origin, &next);
        let events = writer.events(reference, &origin.identity, &next.happenings, next.version, moment.now);
        let limits = std::mem::take(&mut writer.limits);
        self.put_limits(limits).await?;
        let identity = &origin.identity;
        if !identity.subject().is_empty() {
            // First: who is there is listed. A name in the list that nobody has is taken out by whoever comes by it.
            match self
                .try_list(identity.tenant(), identity.subject(), reference, None)
                .await
            {
                Ok(_) => {}
                Err(Fault::Full(_)) => return Ok(Committed::StoreFull),
                Err(fault) => return Err(self.unavailable(&fault)),
            }
        }
        let keep = Self::keep_for(&origin, &next, moment.now);
        let mut due = scale.write(next.view(&origin).next_action(moment));
        let mut set = set(&fields, &origin, &next, scale);
        set.push(("w", fields.who.clone()));
        if !supersedes.is_empty() {
            // Whoever looks next goes on, if this sidecar does not.
            due = due.min(scale.write(moment.now + super::rotate::UNFINISHED));
            let duties = body::Duties {
                supersedes: supersedes.iter().map(|name| name.as_bytes().to_vec()).collect(),
                keep: millis(keep),
                ..body::Duties::default()
            };
            set.push(("p", duties.encode_to_vec()));
        }
        let answer = self
            .run(Change {
                by: Some(scale),
                latest: scale.latest(not_after),
                due: Some(due),
                keep,
                set,
                events,
                ..Change::beginning(reference)
            })
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(Fault::Full(_)) => return Ok(Committed::StoreFull),
            Err(fault) => return Err(self.unavailable(&fault)),
        };
        if !answer.is("ok") {
            return Ok(Committed::Lost(self.found(reference, &answer).await?));
        }
        self.buckets[bucket].one_more(&answer.head);
        Ok(Committed::Done(self.written(reference, origin, &next, scale, &answer)))
    }

    /// Whether there are as many sessions as there may be, as far as anybody has counted.
    pub(super) fn at_cap(&self) -> bool {
        use crate::store::Store as _;
        self.levels().live >= self.max_sessions
    }

    /// A session as it was just written.
    pub(super) fn written(
        &self,
        reference: SessionRef,
        origin: Origin,
        next: &Next,
        scale: Scale,
        answer: &Answer,
    ) -> Arc<Session> {
        let (_, most) = self.bucket_of(reference).bounds();
        let activity = scale.write(next.pulse.last_activity());
        let free_until = Scale { skew: most }.read(activity) - near::MARGIN;
        let lease = Lease {
            skew: scale.skew,
            lead: next.lead,
            read_at: answer.received,
            ignored: None,
        };
        let session = Arc::new(Session::new(reference, origin, next).leased(lease, free_until));
        if next.rest.end().is_some() {
            self.near.remove(reference);
        } else {
            self.keep(&session, answer.head.number);
        }
        session
    }

    /// Changes or ends a session.
    pub(super) async fn change(&self, commit: Commit) -> Result<Committed, Unavailable> {
        let Commit {
            reference,
            expected:
                Expected::Session {
                    session,
                    pulse,
                    version,
                },
            next,
            moment,
            ..
        } = commit
        else {
            return Err(Unavailable);
        };
        let Some(lease) = session.lease() else {
            return Err(Unavailable);
        };
        let scale = Scale { skew: lease.skew };
        let origin = session.origin();
        let mut writer = Writer::new(&self.book, scale, self.format);
        let fields = writer.record(origin, &next);
        let events = writer.events(reference, &origin.identity, &next.happenings, next.version, moment.now);
        let limits = std::mem::take(&mut writer.limits);
        self.put_limits(limits).await?;
        let end = next.rest.end().cloned();
        let answer = self
            .run(Change {
                by: Some(scale),
                deadline: end.as_ref().and_then(|end| deadline(end, scale)),
                due: match &end {
                    Some(_) => None,
                    None => Some(scale.write(next.view(origin).next_action(moment))),
                },
                remembered_until: end
                    .as_ref()
                    .filter(|end| !end.silent)
                    .map(|end| scale.write(end.forget_at)),
                keep: Self::keep_for(origin, &next, moment.now),
                set: set(&fields, origin, &next, scale),
                events,
                ..Change::of(reference, version, scale.write(pulse.last_activity()))
            })
            .await
            .map_err(|fault| self.unavailable(&fault))?;
        if !answer.is("ok") {
            return self.lost(reference, &answer).await.map(Committed::Lost);
        }
        if end.is_some() {
            self.bucket_of(reference).one_less(&answer.head);
            self.unlist(origin, reference).await;
        }
        Ok(Committed::Done(self.written(
            reference,
            origin.clone(),
            &next,
            scale,
            &answer,
        )))
    }

    /// A change that was not made: what there is now.
    pub(super) async fn lost(&self, reference: SessionRef, answer: &Answer) -> Result<Found, Unavailable> {
        self.near.remove(reference);
        if answer.is("clock") {
            // It was decided by another time than it is.
            return self.read(reference).await;
        }
        if answer.is("held") {
            tokio::time::sleep(HELD).await;
        }
        if answer.is("early") {
            // By a hair: what we think of the store's clock is a bound, so that no deadline comes early.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.found(reference, answer).await
    }

    /// Tells of activity.
    pub(super) async fn raise_pulse(
        &self,
        session: &Arc<Session>,
        ago: Duration,
        now: Time,
    ) -> Result<Raised, Unavailable> {
        const OLD: Duration = Duration::from_secs(30);
        let Some(lease) = session.lease() else {
            return Err(Unavailable);
        };
        let unsaid = session.pulse().is_slow() && self.format < codec::OPEN_SINCE;
        if unsaid || !session.read(|view| view.is_only_raised()) {
            return Ok(Raised::Decide(Found::Live(Arc::clone(session))));
        }
        let reference = session.reference();
        let bucket = self.names.bucket(reference);
        if ago.is_zero() && now < session.free_until() && self.buckets[bucket].is_healthy(now) {
            self.meter.lease_hits.inc();
            return Ok(Raised::Done(Arc::clone(session)));
        }
        self.meter.lease_missed.inc();
        let version = session.version();
        let known = if now.since(lease.read_at) > OLD {
            Vec::new()
        } else {
            text(version)
        };
        let window = self.window(&session.limits());
        let mut args = vec![text(ago.as_micros()), text(window.as_micros()), known];
        if self.is_up() {
            args.extend(self.take_tallies(session, HOUSE));
        }
        let answer = self
            .ask(Question {
                script: &scripts::RAISE,
                bucket,
                keys: vec![
                    self.names.meta(bucket),
                    self.names.record(reference),
                    self.names.tallies(reference),
                ],
                args,
                timed: Timed::Now,
            })
            .await
            .map_err(|fault| self.unavailable(&fault))?;
        if !answer.is("ok") {
            return Ok(Raised::Decide(self.found(reference, &answer).await?));
        }
        let (Some(activity), Some(lead)) = (answer.int(1), answer.int(2)) else {
            return Err(Unavailable);
        };
        self.journal
            .note(answer.received, reference, Entry::Raised(activity, lead));
        if answer.fields().is_some() {
            return Ok(match self.found(reference, &answer).await? {
                Found::Live(session) => Raised::Done(session),
                other => Raised::Decide(other),
            });
        }
        let (_, most) = self.buckets[bucket].bounds();
        let free_until = Scale { skew: most }.read(activity) - near::MARGIN;
        let lead = Duration::from_micros(u64::try_from(lead).unwrap_or(0));
        session.renew(codec::Scale { skew: lease.skew }.read(activity), lead, free_until);
        self.keep(session, answer.head.number);
        Ok(Raised::Done(Arc::clone(session)))
    }

    /// Says when to look at a session next.
    pub async fn rearm(&self, session: &Session, at: Time) -> Result<(), Unavailable> {
        let Some(lease) = session.lease() else {
            return Err(Unavailable);
        };
        let reference = session.reference();
        let bucket = self.names.bucket(reference);
        let scale = Scale { skew: lease.skew };
        let question = Question {
            script: &scripts::REARM,
            bucket,
            keys: self.names.record_and_due(reference),
            args: vec![
                text(session.version()),
                text(scale.write(at)),
                reference.to_string().into_bytes(),
            ],
            timed: Timed::By(scale),
        };
        self.ask(question)
            .await
            .map(drop)
            .map_err(|fault| self.unavailable(&fault))
    }

    /// A script that is not one of a bucket.
    pub(super) async fn call(
        &self,
        script: &'static Script,
        keys: Vec<Vec<u8>>,
        args: Vec<Vec<u8>>,
    ) -> Result<redis::Value, Fault> {
        let sent = self.clock.now();
        let reply = self.link.call(Call { script, keys, args }).await;
        self.meter.called(script.name, &reply, self.clock.now().since(sent));
        reply
    }
}

/// The deadline that must have passed for an end that time brings, and whether such ends are held.
fn deadline(end: &Tombstone, scale: Scale) -> Option<(i64, bool)> {
    let by_time = end.end.actor == Actor::Policy && !end.silent;
    match end.end.reason {
        EndReason::IdleTimeout | EndReason::BrowserClosed if by_time => Some((scale.write(end.end.at), true)),
        EndReason::AbsoluteTimeout if by_time => Some((scale.write(end.end.at), false)),
        _ => None,
    }
}
