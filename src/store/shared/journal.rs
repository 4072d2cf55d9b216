//! What this sidecar wrote in the last seconds, in case the store forgets it: a replica that takes over may be a second behind. It
//! is told again then. Activity counts by its latest, an end wins over everything, and a session is created only where nothing is.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use futures_util::TryStreamExt as _;

use parking_lot::Mutex;
use prost::Message as _;

use super::{
    Shared, Unjoined,
    ask::{Question, Timed, text},
    body,
    codec::{self, ENDED, PENDING, Read},
    commit::Change,
    link::Fault,
    scripts,
};
use crate::{state::SessionRef, time::Time};

/// How far back it reaches.
const REACH: Duration = Duration::from_secs(10);

/// How many entries it has at most.
const MOST: usize = 65_536;

/// So many sessions are told of at once.
const AT_ONCE: usize = 64;

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

impl Entry {
    /// Whether a successor was written that was not live yet.
    fn waits(&self) -> bool {
        match self {
            Self::Written(args) => Change::field_of(args, b"f") == Some(PENDING.to_string().as_bytes()),
            Self::Raised(..) | Self::Ended(_) => false,
        }
    }
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
    /// Tells again what was done in the last seconds in these buckets, each session's in its order. Whether the events of a bucket go on
    /// is behind it: then those that were heard of are there.
    pub(super) async fn tell_all_again(&self, buckets: &BTreeMap<usize, bool>) -> Result<(), Unjoined> {
        let mut sessions: HashMap<SessionRef, Vec<Entry>> = HashMap::new();
        for (session, entry) in self.journal.recent(self.clock.now()) {
            match buckets.get(&self.names.bucket(session)) {
                None => {}
                Some(true) if matches!(entry, Entry::Ended(_)) => {}
                Some(_) => sessions.entry(session).or_default().push(entry),
            }
        }
        futures_util::stream::iter(sessions.into_iter().map(Ok::<_, Fault>))
            .try_for_each_concurrent(AT_ONCE, |(session, entries)| async move {
                // A successor that waited was written anew: only the last time counts.
                let last = entries.iter().rposition(Entry::waits);
                for (place, entry) in entries.into_iter().enumerate() {
                    if !entry.waits() || Some(place) == last {
                        self.tell_again(session, entry).await?;
                    }
                }
                Ok(())
            })
            .await?;
        Ok(())
    }

    async fn tell_again(&self, session: SessionRef, entry: Entry) -> Result<(), Fault> {
        let (script, args) = match entry {
            Entry::Written(args) => (&scripts::RESTORE, args),
            Entry::Raised(activity, lead) => (&scripts::RETOUCH, vec![text(activity), text(lead)]),
            Entry::Ended(event) => return self.end_again(session, &event).await,
        };
        let (begins, end) = (args.first().is_some_and(Vec::is_empty), ended_in(&args));
        let answer = self
            .ask(Question {
                script,
                bucket: self.names.bucket(session),
                keys: self.commit_keys(session),
                args,
                timed: Timed::Now,
            })
            .await?;
        if answer.is("done") {
            self.meter.restored.inc();
        }
        if answer.is("done") && begins {
            self.list_again(session).await?;
        }
        match end {
            // It was changed meanwhile by somebody who did not know.
            Some(end) if answer.is("live") => self.end_again(session, &end).await,
            _ => Ok(()),
        }
    }

    /// A session that was forgotten may have been forgotten by its subject's list too.
    async fn list_again(&self, session: SessionRef) -> Result<(), Fault> {
        let answer = self.ask_record(session).await?;
        let fields = answer.fields().unwrap_or_default();
        let Ok(Read::Live(live)) = self.decode(session, &fields, answer.received).await else {
            return Ok(());
        };
        let identity = &live.origin().identity;
        if identity.subject().is_empty() {
            return Ok(());
        }
        let listed = self.try_list(identity.tenant(), identity.subject(), session, None);
        listed.await.map(drop)
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

/// The end in what the script `commit` was told, if a session ends by it.
fn ended_in(args: &[Vec<u8>]) -> Option<body::Event> {
    let ended = |event: &body::Event| matches!(event.what, Some(body::What::Ended(_)));
    let events = Change::events_of(args).filter_map(|body| codec::decode(body).ok());
    events.into_iter().find(ended)
}
