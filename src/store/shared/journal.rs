//! What this sidecar wrote in the last seconds, in case the store forgets it: a replica that takes over may be a second behind. It
//! is told again then. Activity counts by its latest, an end wins over everything, and a session is created only where nothing is.

use std::{collections::VecDeque, time::Duration};

use parking_lot::Mutex;
use prost::Message as _;

use super::{
    Shared, Unjoined,
    ask::{Question, Timed, text},
    body,
    codec::{self, ENDED, PENDING},
    commit::Change,
    link::Fault,
    scripts,
};
use crate::{state::SessionRef, time::Time};

/// How far back it reaches.
const REACH: Duration = Duration::from_secs(10);

/// How many entries it has at most.
const MOST: usize = 65_536;

/// The journal.
#[derive(Default)]
pub(super) struct Journal(Mutex<VecDeque<(Time, SessionRef, Entry)>>);

/// One thing that was done.
#[derive(Clone)]
pub(super) enum Entry {
    /// A change, as the script `commit` was told of it.
    Written(Vec<Vec<u8>>),
    /// Activity up to here, so far ahead.
    Raised(i64, i64),
    /// Somebody ended it: this sidecar has heard of it.
    Ended(Box<body::Event>),
}

impl Journal {
    pub(super) fn note(&self, now: Time, session: SessionRef, entry: Entry) {
        let mut entries = self.0.lock();
        while entries.front().is_some_and(|(at, ..)| *at + REACH < now) || entries.len() >= MOST {
            entries.pop_front();
        }
        entries.push_back((now, session, entry));
    }

    fn recent(&self, now: Time) -> Vec<(SessionRef, Entry)> {
        let entries = self.0.lock();
        let recent = entries.iter().filter(|(at, ..)| *at + REACH >= now);
        recent.map(|(_, session, entry)| (*session, entry.clone())).collect()
    }
}

impl Shared {
    /// Comes back to a store that was away, or that another server has taken over. Before anybody else is answered: ends are held,
    /// for people could not be active, and what the store may have forgotten is told again.
    pub(super) async fn recover(&self) -> Result<(), Unjoined> {
        for bucket in 0..self.names.buckets() {
            let question = Question {
                script: &scripts::DUE,
                bucket,
                keys: self.names.indexes(bucket),
                args: vec![text(0), text(0), text(1), self.names.records(bucket), text(0)],
                timed: Timed::Now,
            };
            self.ask(question).await?;
        }
        for (session, entry) in self.journal.recent(self.clock.now()) {
            self.tell_again(session, entry).await?;
        }
        Ok(())
    }

    async fn tell_again(&self, session: SessionRef, entry: Entry) -> Result<(), Fault> {
        let bucket = self.names.bucket(session);
        let (script, args) = match entry {
            Entry::Written(args) => (&scripts::RESTORE, args),
            Entry::Raised(activity, lead) => (&scripts::RETOUCH, vec![text(activity), text(lead)]),
            Entry::Ended(event) => return self.end_again(session, &event).await,
        };
        let question = Question {
            script,
            bucket,
            keys: self.commit_keys(session),
            args,
            timed: Timed::Now,
        };
        let answer = self.ask(question).await?;
        if answer.is("done") {
            self.meter.restored.inc();
        }
        Ok(())
    }

    /// An end that was heard of is final, even if the store has forgotten it.
    async fn end_again(&self, session: SessionRef, event: &body::Event) -> Result<(), Fault> {
        let Some(body::What::Ended(end)) = &event.what else {
            return Ok(());
        };
        let answer = self.ask_record(session).await?;
        let Some(fields) = answer.fields().filter(|fields| fields.flags & (ENDED | PENDING) == 0) else {
            return Ok(());
        };
        let version = end.version.max(fields.version + 1);
        let end = body::End {
            version,
            ..(**end).clone()
        };
        let keep = u64::try_from(end.forget_at - answer.head.now).unwrap_or(0);
        let change = Change {
            remembered_until: Some(end.forget_at),
            keep: Duration::from_micros(keep) + Duration::from_secs(1),
            set: vec![
                ("v", text(version)),
                ("f", text(ENDED)),
                ("b", Vec::new()),
                ("e", end.encode_to_vec()),
            ],
            events: vec![(
                1,
                body::Event {
                    version,
                    what: Some(body::What::Ended(Box::new(end))),
                    ..event.clone()
                },
            )],
            ..Change::of(session, fields.version, fields.activity)
        };
        if self.run(change).await?.is("ok") {
            self.meter.restored.inc();
        }
        Ok(())
    }

    /// Whether the events of a bucket go on from where this sidecar has followed them: the last one is still there, and the same.
    pub(super) async fn goes_on(&self, bucket: usize) -> Result<bool, Unjoined> {
        let (applied, last, epoch) = {
            let gate = self.buckets[bucket].gate();
            (gate.applied, gate.last.clone(), gate.epoch.clone())
        };
        let answer = self.ask_beat(bucket).await?;
        if answer.head.epoch != epoch || answer.head.number < applied {
            return Ok(false);
        }
        let Some(last) = last else { return Ok(true) };
        let key = self.names.events(bucket);
        let mut range = redis::cmd("XRANGE");
        let id = format!("{applied}-0");
        range.arg(&key).arg(&id).arg(&id);
        let reply = self.link.command(&key, range).await?;
        let known = super::ask::list(&reply).first().and_then(super::feed::read_entry);
        // One that was trimmed was there.
        Ok(known.is_none_or(|(_, body)| body == last))
    }

    /// Notes what was heard of, in case the store forgets it.
    pub(super) fn note_event(&self, body: &body::Event) {
        if let (Some(body::What::Ended(_)), Ok(session)) = (&body.what, codec::reference(&body.reference)) {
            self.journal
                .note(self.clock.now(), session, Entry::Ended(Box::new(body.clone())));
        }
    }
}
