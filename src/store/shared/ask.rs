//! Questions to the store: each goes out with the time that it is, and each answer tells what time it is there.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering},
};

use futures_util::future::join_all;
use redis::Value;

use super::{
    Shared,
    bucket::{Head, Learned},
    codec::{BROKEN, Fields, Read, Reader, Scale, Unread},
    link::{Call, Fault, GETS_TO_KNOW, Script},
    near, scripts,
};
use crate::{
    state::SessionRef,
    store::{Found, Unavailable},
    time::Time,
};

/// How often a question is asked again because the time was not the one that was thought.
const TRIES: usize = 4;

/// An answer of a bucket.
pub(super) struct Answer {
    pub(super) head: Head,
    /// What comes after the head.
    pub(super) rest: Vec<Value>,
    /// When it was asked for, and when it came.
    pub(super) sent: Time,
    pub(super) received: Time,
}

/// The time that goes before the arguments of a question, when it goes out. Scripts that change something want it.
pub(super) enum Timed {
    /// None does.
    No,
    /// As it is thought to be then.
    Now,
    /// As the arguments were reckoned by: if that was wrong they must be made anew, so the answer may be `clock`.
    By(Scale),
}

/// A question about a session or a bucket.
pub(super) struct Question {
    pub(super) script: &'static Script,
    pub(super) bucket: usize,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) args: Vec<Vec<u8>>,
    pub(super) timed: Timed,
}

pub(super) fn text(value: impl ToString) -> Vec<u8> {
    value.to_string().into_bytes()
}

impl Answer {
    pub(super) fn is(&self, word: &str) -> bool {
        self.head.word == word.as_bytes()
    }

    /// The record behind the head, if there is one.
    pub(super) fn fields(&self) -> Option<Fields> {
        fields(self.rest.first()?)
    }

    pub(super) fn int(&self, place: usize) -> Option<i64> {
        int(self.rest.get(place)?)
    }
}

pub(super) fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        other => std::str::from_utf8(bytes(other)?).ok()?.parse().ok(),
    }
}

pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

pub(super) fn list(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        _ => &[],
    }
}

/// A record as a script answers it: see `FIELDS` in `scripts/time.lua`.
pub(super) fn fields(value: &Value) -> Option<Fields> {
    let values = list(value);
    if values.is_empty() {
        return None;
    }
    // A record is there: if its numbers are none, it is not as if it were not.
    Some(numbered(values).unwrap_or_else(|| Fields {
        flags: BROKEN,
        ..Fields::default()
    }))
}

fn numbered(values: &[Value]) -> Option<Fields> {
    let number = |place: usize| int(values.get(place)?);
    let part = |place: usize| values.get(place).and_then(bytes).unwrap_or_default().to_vec();
    Some(Fields {
        version: u32::try_from(number(0)?).ok()?,
        activity: number(1)?,
        lead: number(2)?,
        flags: u32::try_from(number(3)?).ok()?,
        body: part(6),
        who: part(7),
        end: part(8),
        duties: part(9),
        waiting: part(10),
        number: u64::try_from(number(11).unwrap_or(0)).ok()?,
        ignored: number(12),
        told: u32::try_from(number(13).unwrap_or(0)).ok()?,
    })
}

fn head(values: &[Value]) -> Option<Head> {
    let number = |place: usize| int(values.get(place)?);
    let count = |place: usize| u64::try_from(number(place)?).ok();
    Some(Head {
        word: bytes(values.first()?)?.to_vec(),
        now: number(1)?,
        hold: number(2)?,
        number: count(3)?,
        corrections: count(4)?,
        epoch: bytes(values.get(5)?)?.to_vec(),
        ahead: number(6)?,
    })
}

/// How many values come first in every answer.
const HEAD: usize = 7;

fn gets_to_know() -> bool {
    GETS_TO_KNOW.try_with(|()| ()).is_ok()
}

fn disagrees() -> Fault {
    Fault::Transient("the store's clock does not agree with itself".to_owned())
}

impl Shared {
    /// Asks, and asks again if the time was another one.
    pub(super) async fn ask(&self, question: Question) -> Result<Answer, Fault> {
        self.may_ask()?;
        for _ in 0..TRIES {
            let sent = self.clock.now();
            let mut args = Vec::with_capacity(question.args.len() + 1);
            let bucket = &self.buckets[question.bucket];
            match &question.timed {
                Timed::No => {}
                Timed::Now => args.push(text(bucket.estimate(sent))),
                Timed::By(scale) => args.push(text(bucket.as_sure(scale.write(sent), sent))),
            }
            args.extend(question.args.iter().cloned());
            let reply = self
                .link
                .call(Call {
                    script: question.script,
                    keys: question.keys.clone(),
                    args,
                })
                .await;
            self.meter
                .called(question.script.name, &reply, self.clock.now().since(sent));
            if let Some(answer) = self.learn(question.bucket, reply?, sent).await?
                && (!answer.is("clock") || matches!(question.timed, Timed::By(_)))
            {
                return Ok(answer);
            }
        }
        Err(disagrees())
    }

    /// Nobody reads or writes in a namespace that may be another's, or that may have forgotten the last moments.
    fn may_ask(&self) -> Result<(), Fault> {
        let may = self.joined.load(Ordering::Acquire) || gets_to_know();
        may.then_some(()).ok_or(Fault::Down)
    }

    /// Learns from a reply what time it is; nothing if it was another one, so that it must be asked again.
    async fn learn(&self, bucket: usize, reply: Value, sent: Time) -> Result<Option<Answer>, Fault> {
        let answer = self.answered(bucket, reply, sent)?;
        if let Some(at) = self.stepped(bucket, &answer, sent) {
            self.correct(bucket, at, answer.head.corrections).await?;
            return Ok(None);
        }
        if !gets_to_know() && !self.buckets[bucket].doubt(answer.received).is_zero() {
            return Err(disagrees());
        }
        Ok(Some(answer))
    }

    fn answered(&self, bucket: usize, reply: Value, sent: Time) -> Result<Answer, Fault> {
        let received = self.clock.now();
        let Value::Array(mut values) = reply else {
            return Err(Fault::Refused("a script answered what none of ours does".to_owned()));
        };
        let Some(head) = head(&values) else {
            return Err(Fault::Refused(format!(
                "bucket {bucket} has a meta that is not ours: is another program writing there?"
            )));
        };
        values.drain(..HEAD);
        self.answered.fetch_max(sent.as_nanos(), Ordering::AcqRel);
        Ok(Answer {
            head,
            rest: values,
            sent,
            received,
        })
    }

    /// Learns from an answer what time it is; answers what time it should be if the clock was set.
    fn stepped(&self, bucket: usize, answer: &Answer, sent: Time) -> Option<i64> {
        match self.buckets[bucket].learn(&answer.head, sent, answer.received) {
            Learned::Fine => {
                self.hold(answer.head.hold - answer.head.now, answer.received);
                None
            }
            Learned::Otherwise => {
                // What is at hand was reckoned by another time.
                self.near.clear();
                None
            }
            Learned::Stepped(at) => Some(at),
            Learned::Overtaken => None,
        }
    }

    /// The store's clock was set: the bucket's time goes on as it was.
    async fn correct(&self, bucket: usize, at: i64, corrections: u64) -> Result<(), Fault> {
        let sent = self.clock.now();
        let call = Call {
            script: &scripts::CORRECT,
            keys: vec![self.names.meta(bucket)],
            args: vec![text(at), text(corrections)],
        };
        let reply = self.link.call(call).await;
        self.meter
            .called(scripts::CORRECT.name, &reply, self.clock.now().since(sent));
        let answer = self.answered(bucket, reply?, sent)?;
        if answer.is("ok") {
            self.meter.clock_steps.inc();
            tracing::warn!(
                bucket,
                "the store's clock was set, or another host took over: deadlines do not move, and ends are held for 5 s"
            );
        }
        self.stepped(bucket, &answer, sent);
        Ok(())
    }

    /// Says what went wrong where nobody can do anything about it but the operator.
    pub(super) fn unavailable(&self, fault: &Fault) -> Unavailable {
        if !fault.is_transient() {
            self.meter.complain(fault);
        }
        Unavailable
    }

    /// Reads a record.
    pub(super) async fn read(&self, session: SessionRef) -> Result<Found, Unavailable> {
        let answer = self.ask_record(session).await;
        let answer = answer.map_err(|fault| self.unavailable(&fault))?;
        self.found(session, &answer).await
    }

    /// Asks for a record.
    pub(super) async fn ask_record(&self, session: SessionRef) -> Result<Answer, Fault> {
        let bucket = self.names.bucket(session);
        self.ask(Question {
            script: &scripts::READ,
            bucket,
            keys: vec![self.names.meta(bucket), self.names.record(session)],
            args: Vec::new(),
            timed: Timed::No,
        })
        .await
    }

    /// Asks how far the events of a bucket are.
    pub(super) async fn ask_beat(&self, bucket: usize) -> Result<Answer, Fault> {
        let mut answers = self.ask_beats(bucket..bucket + 1).await;
        answers.pop().map_or(Err(Fault::Down), |(_, answer)| answer)
    }

    /// Asks how far the events of some buckets are, in one call, and takes note of how many sessions they have. What is amiss with
    /// one is nothing to the others.
    pub(super) async fn ask_beats(&self, buckets: Range<usize>) -> Vec<(usize, Result<Answer, Fault>)> {
        let mut answers = Vec::with_capacity(buckets.len());
        let mut waiting: Vec<_> = buckets.collect();
        for _ in 0..TRIES {
            if waiting.is_empty() {
                break;
            }
            let sent = self.clock.now();
            let replies = waiting.iter().zip(self.look_at(&waiting).await);
            let learned = replies.map(|(bucket, reply)| async move {
                match reply {
                    Ok(reply) => (*bucket, self.learn(*bucket, reply, sent).await),
                    Err(fault) => (*bucket, Err(fault)),
                }
            });
            let mut again = Vec::new();
            for (bucket, learned) in join_all(learned).await {
                match learned.transpose() {
                    Some(answer) => answers.push((bucket, answer)),
                    None => again.push(bucket),
                }
            }
            waiting = again;
        }
        answers.extend(waiting.into_iter().map(|bucket| (bucket, Err(disagrees()))));
        for (bucket, answer) in &answers {
            if let Ok(answer) = answer {
                self.buckets[*bucket].count(&answer.head, answer.int(0), answer.int(1));
            }
        }
        answers
    }

    /// Looks at some buckets at once: what is said of each.
    async fn look_at(&self, buckets: &[usize]) -> Vec<Result<Value, Fault>> {
        let of_all = |said: Result<Value, Fault>| vec![said; buckets.len()];
        if let Err(fault) = self.may_ask() {
            return of_all(Err(fault));
        }
        let sent = self.clock.now();
        let call = Call {
            script: &scripts::BEAT,
            keys: buckets.iter().flat_map(|bucket| self.names.indexes(*bucket)).collect(),
            args: Vec::new(),
        };
        let said = match self.link.call(call).await {
            Ok(Value::Array(replies)) if replies.len() == buckets.len() => {
                replies.into_iter().map(Fault::instead).collect()
            }
            other => of_all(other),
        };
        if let Some(outcome) = said.iter().find(|said| said.is_err()).or(said.first()) {
            self.meter
                .called(scripts::BEAT.name, outcome, self.clock.now().since(sent));
        }
        said
    }

    /// What an answer with a record behind it says of a session. A live one is at hand from now on.
    pub(super) async fn found(&self, session: SessionRef, answer: &Answer) -> Result<Found, Unavailable> {
        let Some(fields) = answer.fields() else {
            return Ok(Found::Unknown { may_have_ended: false });
        };
        match self.decode(session, &fields, answer.received).await? {
            Read::Live(live) => {
                let live = Arc::new(live);
                self.keep(&live, answer.head.number);
                Ok(Found::Live(live))
            }
            Read::Ended(tombstone) if tombstone.silent || tombstone.forget_at <= answer.received => {
                Ok(Found::Unknown { may_have_ended: false })
            }
            Read::Ended(tombstone) => Ok(Found::Ended(tombstone)),
            Read::Pending(duties) => Box::pin(self.settle(session, &fields, duties)).await,
        }
    }

    /// Decodes a record, and asks for limits that are not known here yet.
    pub(super) async fn decode(&self, session: SessionRef, fields: &Fields, at: Time) -> Result<Read, Unavailable> {
        for _ in 0..2 {
            // By the bound from which deadlines look nearest: the store's own clock says whether one has passed.
            let (_, most) = self.bucket_of(session).bounds();
            let scale = Scale { skew: most };
            let reader = Reader {
                book: &self.book,
                scale,
            };
            // Activity is free as long as nobody's clock can be past what is written.
            let free = scale.read(fields.activity) - near::MARGIN;
            match reader.record(session, fields, at, free) {
                Ok(read) => return Ok(read),
                Err(Unread::Limits(digest)) => self.learn_limits(digest).await?,
                Err(Unread::Broken(problem)) => {
                    self.meter.unreadable.inc();
                    if self.meter.is_news(session) {
                        tracing::error!(%session, problem, "a record cannot be read: somebody else wrote it, or a newer version");
                    }
                    return Err(Unavailable);
                }
            }
        }
        Err(Unavailable)
    }

    /// Asks what a digest of limits stands for.
    pub(super) async fn learn_limits(&self, digest: u64) -> Result<(), Unavailable> {
        let mut get = redis::cmd("HGET");
        let key = self.names.limits();
        get.arg(&key).arg(format!("{digest:016x}"));
        let value = self
            .link
            .command(&key, get)
            .await
            .map_err(|fault| self.unavailable(&fault))?;
        let Some(known) = bytes(&value) else {
            tracing::error!(digest = %format!("{digest:016x}"), "a record has limits that nobody wrote");
            return Err(Unavailable);
        };
        self.book.learn(digest, known).map_err(|problem| {
            tracing::error!(digest = %format!("{digest:016x}"), problem, "limits cannot be read: a newer version wrote them");
            Unavailable
        })
    }
}
