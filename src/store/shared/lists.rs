//! Lists: the sessions of a subject, all sessions from bucket to bucket, and what is kept of a session's life.

use std::{collections::HashMap, sync::Arc, time::Duration};

use redis::Value;
use smallvec::SmallVec;

use super::{
    Extent, Found, Session, Shared, Story, Unavailable, Wanted,
    ask::{bytes, int, list, text},
    body, codec,
    codec::{Reader, Scale, Unread},
    link::{Call, Fault},
    scripts,
};
use crate::{
    state::{Origin, Rule, RuleName, SessionRef, When},
    store::{Seen, Tally},
};

/// How many records are read at once.
const PAGE: usize = 128;

/// A list of a subject is kept as long as a record of a session without end.
const KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

/// For so long a place counts as just taken: the session may not be there yet.
const COMING: Duration = Duration::from_secs(5);

impl Shared {
    fn subject_keys(&self, tenant: &str, subject: &str) -> Vec<Vec<u8>> {
        self.names.subject(&self.keys.subject_list(tenant, subject)).into()
    }

    /// A subject's list: its ticket, all names in it, and those whose place was just taken.
    pub(super) async fn listed(
        &self,
        tenant: &str,
        subject: &str,
    ) -> Result<(u64, Vec<SessionRef>, Vec<SessionRef>), Unavailable> {
        let keys = self.subject_keys(tenant, subject);
        let args = vec![text(COMING.as_millis())];
        let reply = self.call(&scripts::LISTED, keys, args).await;
        let reply = reply.map_err(|fault| self.unavailable(&fault))?;
        let parts = list(&reply);
        let refs = |place: usize| -> Vec<SessionRef> {
            let names = parts.get(place).map(list).unwrap_or_default().iter();
            names.filter_map(read_ref).collect()
        };
        let ticket = parts
            .first()
            .and_then(int)
            .and_then(|ticket| u64::try_from(ticket).ok());
        Ok((ticket.ok_or(Unavailable)?, refs(1), refs(2)))
    }

    /// Puts a session into its subject's list; with a ticket only if nobody else has since.
    pub(super) async fn list(
        &self,
        tenant: &str,
        subject: &str,
        session: SessionRef,
        ticket: Option<u64>,
    ) -> Result<bool, Unavailable> {
        let taken = self.try_list(tenant, subject, session, ticket).await;
        taken.map_err(|fault| self.unavailable(&fault))
    }

    pub(super) async fn try_list(
        &self,
        tenant: &str,
        subject: &str,
        session: SessionRef,
        ticket: Option<u64>,
    ) -> Result<bool, Fault> {
        let keys = self.subject_keys(tenant, subject);
        let args = vec![
            ticket.map(text).unwrap_or_default(),
            session.to_string().into_bytes(),
            text(KEPT.as_millis()),
        ];
        let reply = self.call(&scripts::SUBJECT, keys, args).await?;
        Ok(int(&reply) == Some(1))
    }

    /// Takes an ended session out of its subject's list. If that fails, whoever comes by it does.
    pub(super) async fn unlist(&self, origin: &Origin, session: SessionRef) {
        let (tenant, subject) = (origin.identity.tenant(), origin.identity.subject());
        if subject.is_empty() {
            return;
        }
        let keys = self.subject_keys(tenant, subject);
        let mut remove = redis::cmd("ZREM");
        remove.arg(&keys[0]).arg(session.to_string());
        if let Err(fault) = self.link.command(&keys[0], remove).await {
            let _ = self.unavailable(&fault);
        }
    }

    /// Takes names out of a subject's list that nobody has any more.
    pub(super) async fn tidy(&self, tenant: &str, subject: &str, names: &[SessionRef], reserved: &[SessionRef]) {
        let keys = self.subject_keys(tenant, subject);
        let mut remove = redis::cmd("ZREM");
        remove.arg(&keys[0]);
        let mut any = false;
        for name in names.iter().filter(|name| !reserved.contains(name)) {
            if matches!(self.read(*name).await, Ok(Found::Ended(_) | Found::Unknown { .. })) {
                remove.arg(name.to_string());
                any = true;
            }
        }
        if any && let Err(fault) = self.link.command(&keys[0], remove).await {
            let _ = self.unavailable(&fault);
        }
    }

    /// Walks from bucket to bucket, which are in the order of refs, until enough are found.
    pub(super) async fn scan_buckets(
        &self,
        extent: Extent,
        wanted: &Arc<Wanted>,
    ) -> Result<Vec<SessionRef>, Unavailable> {
        let begin = extent.after.map_or(0, |after| self.names.bucket(after));
        let mut found = Vec::new();
        for bucket in begin..self.names.buckets() {
            for page in self.names_at(bucket, extent).await?.chunks(PAGE) {
                let reads = page.iter().map(|name| self.look(*name));
                for (name, looked) in page.iter().zip(futures_util::future::join_all(reads).await) {
                    let is_wanted = match looked? {
                        Found::Live(session) => extent.live && wanted(&Seen::Live(&session)),
                        Found::Ended(end) => extent.ended && wanted(&Seen::Ended(*name, &end)),
                        Found::Unknown { .. } => false,
                    };
                    if is_wanted {
                        found.push(*name);
                    }
                    if found.len() >= extent.most {
                        return Ok(found);
                    }
                }
            }
        }
        Ok(found)
    }

    /// A record, without keeping a copy: a scan must not drive out what is in use.
    async fn look(&self, session: SessionRef) -> Result<Found, Unavailable> {
        if let Some(known) = self.near.get(session)
            && self.bucket_of(session).is_healthy(self.clock.now())
            && super::near::is_known_live(&known, self.clock.now())
        {
            return Ok(Found::Live(known));
        }
        let answer = self.ask_record(session).await;
        let answer = answer.map_err(|fault| self.unavailable(&fault))?;
        let Some(fields) = answer.fields() else {
            return Ok(Found::Unknown { may_have_ended: false });
        };
        match self.decode(session, &fields, answer.received).await {
            Ok(codec::Read::Live(live)) => Ok(Found::Live(Arc::new(live))),
            Ok(codec::Read::Ended(end)) if !end.silent && end.forget_at > answer.received => Ok(Found::Ended(end)),
            // One that nobody can read is no reason to hide all others.
            Ok(_) | Err(Unavailable) => Ok(Found::Unknown { may_have_ended: false }),
        }
    }

    /// The names in a bucket, in order.
    async fn names_at(&self, bucket: usize, extent: Extent) -> Result<Vec<SessionRef>, Unavailable> {
        let mut names = Vec::new();
        // Live ones first: what ends meanwhile is then among the ended ones.
        let indexes = [
            (extent.live, self.names.due(bucket)),
            (extent.ended, self.names.ended(bucket)),
        ];
        for (_, key) in indexes.into_iter().filter(|(wanted, _)| *wanted) {
            let mut range = redis::cmd("ZRANGE");
            range.arg(&key).arg(0).arg(-1);
            let reply = self.link.command(&key, range).await;
            let reply = reply.map_err(|fault| self.unavailable(&fault))?;
            names.extend(list(&reply).iter().filter_map(read_ref));
        }
        names.retain(|name| extent.after.is_none_or(|after| *name > after));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    /// What is kept of a session's life: what all sidecars saw.
    pub(super) async fn tell_story(&self, session: SessionRef) -> Result<Story, Unavailable> {
        self.flush(true).await;
        let known = self.ask_record(session).await;
        let known = known
            .map_err(|fault| self.unavailable(&fault))?
            .fields()
            .unwrap_or_default();
        let mut range = redis::cmd("LRANGE");
        let timeline = self.names.timeline(session);
        range.arg(&timeline).arg(0).arg(-1);
        let mut all = redis::cmd("HGETALL");
        let tallies = self.names.tallies(session);
        all.arg(&tallies);
        let events = self.link.command(&timeline, range).await;
        let events = events.map_err(|fault| self.unavailable(&fault))?;
        let tallies = self.link.command(&tallies, all).await;
        let tallies = tallies.map_err(|fault| self.unavailable(&fault))?;
        let scale = Scale {
            skew: self.bucket_of(session).bounds().1,
        };
        let mut story = Story {
            dropped: known.told,
            ..Story::default()
        };
        let mut told = HashMap::new();
        for (name, known) in pairs(&tallies) {
            let mut numbers = known.split(' ').map(|number| number.parse::<i64>().unwrap_or(0));
            let (count, first, last) = (numbers.next(), numbers.next(), numbers.next());
            let (Some(count), Some(first), Some(last)) = (count, first, last) else {
                continue;
            };
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            if let Some(version) = name.strip_prefix('!') {
                told.insert(version.parse::<u32>().unwrap_or(0), count);
                continue;
            }
            let Some((counted, rule)) = name.split_at_checked(1) else {
                continue;
            };
            story.tallies.push(Tally {
                rule: rule_named(rule),
                first: scale.read(first),
                last: scale.read(last),
                count,
                counted: counted == "+",
            });
        }
        for value in list(&events) {
            let Some(body) = bytes(value).and_then(|bytes| codec::decode::<body::Event>(bytes).ok()) else {
                continue;
            };
            let Some(event) = self.event(&body, 0, 1).await? else {
                continue;
            };
            if let Some(told) = told.get(&event.version) {
                event.told.store(*told, std::sync::atomic::Ordering::Relaxed);
            }
            story.events.push(Arc::new(event));
        }
        story.dropped = story
            .dropped
            .saturating_sub(u32::try_from(story.events.len()).unwrap_or(u32::MAX));
        story.end_told = told
            .iter()
            .max_by_key(|(version, _)| **version)
            .map_or(0, |(_, told)| *told);
        Ok(story)
    }

    /// Decodes an event, and asks for limits that are not known here yet.
    pub(super) async fn event(
        &self,
        body: &body::Event,
        stream: u16,
        number: u64,
    ) -> Result<Option<crate::event::Event>, Unavailable> {
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

    /// Tells of touches that are only counted here, and to how many watchers events went.
    pub async fn flush(&self, all: bool) {
        let sessions = std::mem::take(&mut *self.tallied.lock());
        let mut calls = Vec::new();
        for session in &sessions {
            calls.extend(self.tallies_of(session));
        }
        let old = self.clock.now() - Duration::from_secs(2);
        {
            let mut telling = self.telling.lock();
            for (at, event, told) in telling.iter_mut() {
                if all || *at < old {
                    calls.extend(self.told_call(event, told));
                }
            }
            while telling.front().is_some_and(|(at, ..)| *at < old) {
                telling.pop_front();
            }
        }
        if calls.is_empty() {
            return;
        }
        for reply in self.link.calls(calls).await {
            if let Err(fault) = reply {
                let _ = self.unavailable(&fault);
            }
        }
    }

    fn tallies_of(&self, session: &Arc<Session>) -> Option<Call> {
        let lease = session.lease()?;
        let scale = Scale { skew: lease.skew };
        let tallies: SmallVec<[Tally; 1]> = session.story(|story| {
            let Some(story) = story.as_mut() else {
                return SmallVec::new();
            };
            let ignored = story.last_ignored();
            if let Some(lease) = &mut story.lease {
                lease.ignored = lease.ignored.max(ignored);
            }
            std::mem::take(&mut story.tallies)
        });
        if tallies.is_empty() {
            return None;
        }
        let keep = session.read(|view| view.origin.absolute_deadline(view.limits).since(self.clock.now()));
        let mut args = vec![text(
            (keep + session.limits().tombstone_ttl + Duration::from_secs(86_400)).as_millis(),
        )];
        for tally in &tallies {
            args.push(format!("{}{}", if tally.counted { '+' } else { '-' }, tally.rule).into_bytes());
            args.push(text(tally.count));
            args.push(text(scale.write(tally.first)));
            args.push(text(scale.write(tally.last)));
        }
        let bucket = self.names.bucket(session.reference());
        Some(Call {
            script: &scripts::TALLY,
            keys: vec![
                self.names.meta(bucket),
                self.names.tallies(session.reference()),
                self.names.record(session.reference()),
            ],
            args,
        })
    }

    /// Tells to how many more watchers an event went than were told of before.
    fn told_call(&self, event: &crate::event::Event, before: &mut u32) -> Option<Call> {
        use std::sync::atomic::Ordering;
        let told = match &event.what {
            crate::state::Happening::Ended(end) => end.told.load(Ordering::Relaxed),
            _ => event.told.load(Ordering::Relaxed),
        };
        let more = told.saturating_sub(*before);
        if more == 0 {
            return None;
        }
        *before = told;
        let bucket = self.names.bucket(event.session);
        let scale = Scale {
            skew: self.buckets[bucket].bounds().1,
        };
        let at = text(scale.write(event.at));
        Some(Call {
            script: &scripts::TALLY,
            keys: vec![
                self.names.meta(bucket),
                self.names.tallies(event.session),
                self.names.record(event.session),
            ],
            args: vec![
                text(Duration::from_secs(30 * 86_400).as_millis()),
                format!("!{}", event.version).into_bytes(),
                text(more),
                at.clone(),
                at,
            ],
        })
    }
}

fn read_ref(value: &Value) -> Option<SessionRef> {
    std::str::from_utf8(bytes(value)?).ok()?.parse().ok()
}

/// The fields of a hash: a server may answer them as a map or as a list.
fn pairs(value: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| String::from_utf8_lossy(bytes(value).unwrap_or_default()).into_owned();
    match value {
        Value::Map(pairs) => pairs.iter().map(|(name, known)| (text(name), text(known))).collect(),
        other => list(other)
            .chunks_exact(2)
            .map(|pair| (text(&pair[0]), text(&pair[1])))
            .collect(),
    }
}

/// A rule by the name that answers tell.
fn rule_named(name: &str) -> RuleName {
    let built_in = [
        RuleName::DeclaredUser,
        RuleName::DeclaredBackground,
        RuleName::Prefetch,
        RuleName::HiddenPage,
        RuleName::UserNavigation,
        RuleName::ScriptRequest,
        RuleName::Unmatched,
    ];
    let known = built_in.into_iter().find(|known| known.as_str() == name);
    known.unwrap_or_else(|| {
        RuleName::Own(Arc::new(Rule {
            name: name.into(),
            counts: true,
            when: When::default(),
        }))
    })
}
