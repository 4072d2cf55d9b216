//! From the streams of all buckets into the log of this process. The streams are the truth; a message only says where to look,
//! and a lost one is made up for by a look at each bucket's number, more than twice a second.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use redis::Value;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{
    Shared, Unavailable,
    ask::{Answer, Question, Timed, bytes, list},
    body,
    codec::{self, Reader, Scale, Unread},
    link::{Fault, Poke, Status},
    scripts,
};
use crate::{
    event::{Event, Places},
    state::Happening,
};

/// How often each bucket's number is looked at. Twice this and a call are less than what a copy is trusted for.
const BEAT: Duration = Duration::from_millis(400);

/// How long to wait before a server is met again that could not be.
const AGAIN: Duration = Duration::from_millis(50);

/// How many events are read at once.
const PAGE: usize = 512;

/// Events that are told of for a while after they were applied.
const TOLD: usize = 65_536;

/// What is read of a bucket's stream.
pub(super) enum Page {
    Events(Vec<(u64, body::Event)>),
    /// What comes next is not kept any more.
    Trimmed,
}

impl Shared {
    /// Follows the events of all buckets for ever, and keeps what time it is there.
    pub async fn follow(self: Arc<Self>) {
        let Some(mut pokes) = self.pokes.lock().take() else {
            return;
        };
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut status = self.link.status();
        // A task of its own: this one waits for what it does now and then.
        let mut meeting = JoinSet::new();
        loop {
            if meeting.is_empty() && self.joined.load(Ordering::Acquire) && !self.strangers().is_empty() {
                let this = Arc::clone(&self);
                meeting.spawn(async move { this.meet().await });
            }
            let mut poked = BTreeSet::new();
            tokio::select! {
                poke = pokes.recv() => match poke {
                    Some(poke) => self.note_poke(&poke, &mut poked),
                    None => return,
                },
                _ = beat.tick() => {
                    if !self.is_up() {
                        self.meter.away.inc_by(BEAT.as_secs_f64());
                    }
                    self.beat().await;
                    continue;
                }
                changed = status.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.status_changed().await;
                    continue;
                }
                Some(met) = meeting.join_next() => {
                    match met {
                        Ok(Ok(())) => {}
                        Ok(Err(problem)) => {
                            self.meter.not_joined(&problem);
                            tokio::time::sleep(AGAIN).await;
                        }
                        // The owner of this task must know.
                        Err(ended) => std::panic::resume_unwind(ended.into_panic()),
                    }
                    self.beat().await;
                    continue;
                }
            }
            while let Ok(poke) = pokes.try_recv() {
                self.note_poke(&poke, &mut poked);
            }
            for bucket in poked {
                // What fails now is made up for at the next beat.
                let _ = self.catch_up(bucket, None).await;
            }
        }
    }

    fn note_poke(&self, poke: &Poke, poked: &mut BTreeSet<usize>) {
        match poke {
            Poke::Message { channel, .. } => {
                let buckets = 0..self.names.buckets();
                poked.extend(buckets.into_iter().find(|bucket| self.channels[*bucket] == *channel));
            }
            Poke::Resubscribed => poked.extend(0..self.names.buckets()),
        }
    }

    /// The store came or went.
    async fn status_changed(&self) {
        let status = self.link.status().borrow().clone();
        match status {
            Status::Down { .. } => {
                // Nothing is answered from copies while nobody tells what happens to them.
                self.buckets.iter().for_each(super::Bucket::distrust);
                self.meter.up.set(0);
            }
            Status::Up { .. } => self.beat().await,
        }
    }

    /// Joins the namespace if that is not done; then looks at each bucket's number, and reads on where there is more.
    async fn beat(&self) {
        self.meter.up.set(i64::from(self.is_up()));
        if !matches!(*self.link.status().borrow(), Status::Up { .. }) {
            return;
        }
        if self.joined.load(Ordering::Acquire) && self.unpublished.load(Ordering::Acquire) {
            let _ = self.publish_policies().await;
        }
        if !self.joined.load(Ordering::Acquire) {
            match self.join().await {
                Ok(()) => {}
                Err(problem) => {
                    self.meter.not_joined(&problem);
                    return;
                }
            }
        }
        join_all(self.groups().map(|group| self.beat_group(group))).await;
    }

    /// The buckets that one call may look at: in a cluster each lies in a slot of its own.
    fn groups(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let buckets = self.names.buckets();
        let together = if self.link.is_cluster() { 1 } else { buckets };
        (0..buckets).step_by(together).map(move |first| first..first + together)
    }

    async fn beat_group(&self, group: Range<usize>) {
        let answers = self.ask_beats(group).await.into_iter();
        let heard = answers.filter_map(|(bucket, answer)| Some(self.hear(bucket, answer.ok()?)));
        join_all(heard).await;
    }

    /// All that has happened up to now is in the log of this process when this is done.
    pub(super) async fn be_level(&self) -> Result<(), Unavailable> {
        let asked = self.clock.now();
        let mut level_at = self.level.lock().await;
        // Whoever came before has asked for all who waited meanwhile.
        if level_at.is_none_or(|at| at < asked) {
            let began = self.clock.now();
            self.beat().await;
            *level_at = Some(began);
        }
        drop(level_at);
        let level = self.buckets.iter().all(|bucket| bucket.is_heard_since(asked));
        level.then_some(()).ok_or(Unavailable)
    }

    async fn hear(&self, bucket: usize, answer: Answer) {
        let same = self.buckets[bucket].gate().epoch == answer.head.epoch;
        let applied = self.applied(bucket);
        if !same || answer.head.number < applied {
            self.lost_history(bucket).await;
            return;
        }
        if answer.head.number > applied && self.catch_up(bucket, Some(answer.head.number)).await.is_err() {
            return;
        }
        if self.applied(bucket) >= answer.head.number {
            self.buckets[bucket].heard(answer.sent);
        }
    }

    /// The number of the last event of a bucket that is applied here.
    pub(super) fn applied(&self, bucket: usize) -> u64 {
        self.buckets[bucket].gate().applied
    }

    /// Reads on in a bucket's stream, to its end or through a number.
    pub(super) async fn catch_up(&self, bucket: usize, through: Option<u64>) -> Result<(), Unavailable> {
        // Two who read on at once would apply the same events twice. One turn for all buckets: events lead from one to another.
        let _turn = self.reading.lock().await;
        self.read_on(bucket, through).await
    }

    async fn read_on(&self, bucket: usize, through: Option<u64>) -> Result<(), Unavailable> {
        loop {
            let applied = self.applied(bucket);
            if through.is_some_and(|through| applied >= through) || !self.joined.load(Ordering::Acquire) {
                return Ok(());
            }
            let page = match self.read_events(bucket, applied, through.unwrap_or(u64::MAX)).await? {
                Page::Events(events) => events,
                Page::Trimmed => {
                    self.lost_history(bucket).await;
                    return Err(Unavailable);
                }
            };
            let full = page.len() == PAGE;
            for (number, body) in page {
                if let Some(after) = body.after
                    && let Ok(other) = usize::try_from(after.bucket)
                    && other != bucket
                    && other < self.names.buckets()
                {
                    // What led to it comes first. It was there before, so nobody waits for anybody in a circle.
                    if self.applied(other) < after.number {
                        Box::pin(self.read_on(other, Some(after.number))).await?;
                    }
                }
                self.apply(bucket, number, &body).await?;
            }
            if !full {
                return Ok(());
            }
        }
    }

    /// Takes note of an event: copies of the session go, watchers are told.
    async fn apply(&self, bucket: usize, number: u64, body: &body::Event) -> Result<(), Unavailable> {
        let stream = u16::try_from(bucket).unwrap_or(u16::MAX);
        let event = self.event(body, stream, number).await?;
        let session = codec::reference(&body.reference).ok();
        let mut gate = self.buckets[bucket].gate();
        if gate.applied >= number {
            return Ok(());
        }
        gate.applied = number;
        gate.last = Some(body.clone());
        self.note_event(body);
        if let Some(session) = session
            && self
                .near
                .get(session)
                .is_some_and(|known| known.version() < body.version)
        {
            self.near.remove(session);
        }
        if let Some(event) = event.filter(|event| event.what.is_public()) {
            let event = self.log.append(event);
            self.tell_later(event);
        }
        Ok(())
    }

    /// Decodes an event, and asks for limits that are not known here yet.
    pub(super) async fn event(
        &self,
        body: &body::Event,
        stream: u16,
        number: u64,
    ) -> Result<Option<Event>, Unavailable> {
        let bucket = codec::reference(&body.reference).map_or(0, |session| self.names.bucket(session));
        let reader = Reader {
            book: &self.book,
            scale: Scale {
                skew: self.buckets[bucket].bounds().1,
            },
        };
        for _ in 0..2 {
            match reader.event(body, stream, number) {
                Ok(event) => return Ok(event),
                Err(Unread::Limits(digest)) => self.learn_limits(digest).await?,
                Err(Unread::Broken(problem)) => {
                    self.meter.unreadable.inc();
                    tracing::error!(
                        problem,
                        bucket,
                        "an event cannot be read: somebody else wrote it, or a newer version"
                    );
                    return Ok(None);
                }
            }
        }
        Err(Unavailable)
    }

    fn tell_later(&self, event: Arc<Event>) {
        if matches!(event.what, Happening::Succeeded { .. }) {
            return;
        }
        let mut telling = self.telling.lock();
        if telling.len() >= TOLD {
            telling.pop_front();
        }
        telling.push_back((self.clock.now(), event, 0));
    }

    /// The events of a bucket after a number.
    pub(super) async fn read_events(&self, bucket: usize, after: u64, through: u64) -> Result<Page, Unavailable> {
        let key = self.names.events(bucket);
        let mut range = redis::cmd("XRANGE");
        range.arg(&key).arg(format!("{}-0", after + 1));
        if through == u64::MAX {
            range.arg("+");
        } else {
            range.arg(format!("{through}-0"));
        }
        range.arg("COUNT").arg(PAGE);
        let reply = self.link.command(&key, range).await;
        let reply = reply.map_err(|fault| self.unavailable(&fault))?;
        let mut events = Vec::new();
        for entry in list(&reply) {
            let Some((number, body)) = read_entry(entry) else {
                // If it took the place of one of ours, that one is missing: then what comes next is not the one expected.
                self.meter.unreadable.inc();
                let _ = self.unavailable(&Fault::Refused(format!(
                    "the events of bucket {bucket} hold what is none of ours: another program writes there"
                )));
                continue;
            };
            let expected = after + 1 + events.len() as u64;
            if number != expected {
                return Ok(Page::Trimmed);
            }
            events.push((number, body));
        }
        Ok(Page::Events(events))
    }

    /// What happened in a bucket is not known any more: it was trimmed before it was read, or the store lost it. Copies go, and
    /// watchers are told to begin anew, for they may have missed something.
    pub(super) async fn lost_history(&self, bucket: usize) {
        if !self.joined.swap(false, Ordering::AcqRel) {
            return;
        }
        self.buckets.iter().for_each(super::Bucket::distrust);
        self.near.clear();
        self.meter.histories_lost.inc();
        tracing::warn!(
            bucket,
            "the store's events do not go on from where they were (it lost its data, or they were trimmed): watchers begin anew"
        );
    }

    /// Whether the events of buckets go on from where this sidecar has followed them. If not, a new epoch says so to all.
    pub(super) async fn all_go_on(&self, buckets: &[usize]) -> Result<bool, super::Unjoined> {
        let mut all = true;
        for bucket in buckets.iter().copied() {
            if self.goes_on(bucket).await? {
                continue;
            }
            all = false;
            let epoch = self.buckets[bucket].gate().epoch.clone();
            let question = Question {
                script: &scripts::ANEW,
                bucket,
                keys: vec![self.names.meta(bucket)],
                args: vec![epoch, fresh_epoch()?],
                timed: Timed::No,
            };
            self.ask(question).await?;
        }
        Ok(all)
    }

    /// Opens each bucket: what happens from here on is followed.
    pub(super) async fn open_buckets(&self) -> Result<(), super::Unjoined> {
        let mut epochs = blake3::Hasher::new();
        let mut begins = Places::new();
        for bucket in 0..self.names.buckets() {
            let question = Question {
                script: &scripts::OPEN,
                bucket,
                keys: vec![self.names.meta(bucket)],
                args: vec![fresh_epoch()?],
                timed: Timed::No,
            };
            let answer = self.ask(question).await.map_err(super::Unjoined::from)?;
            epochs.update(&answer.head.epoch);
            begins.push(answer.head.number);
            let mut gate = self.buckets[bucket].gate();
            gate.applied = answer.head.number;
            gate.last = None;
            gate.epoch = answer.head.epoch;
            self.router.begin_at(bucket, answer.head.number);
        }
        *self.begins.lock() = begins.clone();
        epochs.finalize_xof().fill(&mut *self.epoch.lock());
        // All that was known before has no place among these.
        self.log.begin_anew(&begins);
        Ok(())
    }
}

/// An epoch that no bucket had before.
fn fresh_epoch() -> Result<Vec<u8>, super::Unjoined> {
    let mut fresh = [0; 8];
    getrandom::fill(&mut fresh).map_err(|error| super::Unjoined::Store(error.to_string()))?;
    Ok(format!("{:016x}", u64::from_le_bytes(fresh)).into_bytes())
}

/// An entry of a stream: `number-0` and its body.
pub(super) fn read_entry(entry: &Value) -> Option<(u64, body::Event)> {
    let [id, fields] = list(entry) else { return None };
    let id = std::str::from_utf8(bytes(id)?).ok()?;
    let number = id.strip_suffix("-0")?.parse().ok()?;
    let (name, body) = match fields {
        Value::Map(pairs) => pairs.first().map(|(name, body)| (name, body))?,
        other => (list(other).first()?, list(other).get(1)?),
    };
    if bytes(name)? != b"b" {
        return None;
    }
    Some((number, codec::decode(bytes(body)?).ok()?))
}
