//! What is kept of a session's life: what happened, what touches came to and to how many watchers an event went. Each sidecar tells
//! what it only counts now and then, and before it answers.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use redis::Value;
use smallvec::SmallVec;

use super::{
    Session, Shared, Story, Unavailable,
    ask::{bytes, list, text},
    body, codec,
    codec::Scale,
    link::Call,
    scripts,
};
use crate::{
    event::Event,
    state::{Happening, Rule, RuleName, SessionRef, When},
    store::Tally,
};

/// So many calls go out together: the server answers others in between.
const AT_ONCE: usize = 32;

/// What is told of that is only counted here.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// What has come to rest.
    Old,
    /// That of one session.
    Session(SessionRef),
    All,
}

impl Whose {
    fn includes(self, session: SessionRef, is_old: bool) -> bool {
        match self {
            Self::Old => is_old,
            Self::Session(one) => one == session,
            Self::All => true,
        }
    }
}

impl Shared {
    /// What is kept of a session's life: what all sidecars saw.
    pub(super) async fn tell_story(&self, session: SessionRef) -> Result<Story, Unavailable> {
        self.flush(Whose::Session(session)).await;
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
                event.told.store(*told, Ordering::Relaxed);
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

    /// Tells of touches that are only counted here, and to how many watchers events went.
    pub(super) async fn flush(&self, whose: Whose) {
        let mut calls: Vec<_> = self
            .to_be_told(whose)
            .iter()
            .filter_map(|session| self.tally_call(session))
            .collect();
        let old = self.clock.now() - Duration::from_secs(2);
        {
            let mut telling = self.telling.lock();
            for (at, event, told) in telling.iter_mut() {
                if whose.includes(event.session, *at < old) {
                    calls.extend(self.told_call(event, told));
                }
            }
            while whose == Whose::Old && telling.front().is_some_and(|(at, ..)| *at < old) {
                telling.pop_front();
            }
        }
        while !calls.is_empty() {
            let few = calls.split_off(calls.len().saturating_sub(AT_ONCE));
            let sent = self.clock.now();
            for reply in self.link.calls(few).await {
                self.meter
                    .called(scripts::TALLY.name, &reply, self.clock.now().since(sent));
                if let Err(fault) = reply {
                    let _ = self.unavailable(&fault);
                }
            }
        }
    }

    /// The sessions of whose touches it is to be told: those that are active are told of when their activity is written.
    fn to_be_told(&self, whose: Whose) -> Vec<Arc<Session>> {
        let now = self.clock.now();
        let is_quiet = |session: &Session| session.free_until() + self.window(&session.limits()) <= now;
        let mut tallied = self.tallied.lock();
        let told = tallied.extract_if(|_, session| whose.includes(session.reference(), is_quiet(session)));
        told.map(|(_, session)| session).collect()
    }

    fn tally_call(&self, session: &Arc<Session>) -> Option<Call> {
        let args = self.take_tallies(session, Duration::ZERO);
        let reference = session.reference();
        (!args.is_empty()).then(|| Call {
            script: &scripts::TALLY,
            keys: vec![
                self.names.meta(self.names.bucket(reference)),
                self.names.tallies(reference),
                self.names.record(reference),
            ],
            args,
        })
    }

    /// What touches of a session came to that is not told yet, as `scripts/counts.lua` wants it; nothing if there were none, or
    /// none so long ago.
    pub(super) fn take_tallies(&self, session: &Session, ago: Duration) -> Vec<Vec<u8>> {
        let Some(lease) = session.lease() else {
            return Vec::new();
        };
        let now = self.clock.now();
        let is_old = |tally: &Tally| tally.first + ago <= now;
        let scale = Scale { skew: lease.skew };
        let tallies: SmallVec<[Tally; 1]> = session.story(|story| {
            let Some(story) = story.as_mut().filter(|story| story.tallies.iter().any(is_old)) else {
                return SmallVec::new();
            };
            let ignored = story.last_ignored();
            if let Some(lease) = &mut story.lease {
                lease.ignored = lease.ignored.max(ignored);
            }
            std::mem::take(&mut story.tallies)
        });
        if tallies.is_empty() {
            return Vec::new();
        }
        let keep = session.read(|view| view.origin.absolute_deadline(view.limits).since(now));
        let mut args = vec![text(
            (keep + session.limits().tombstone_ttl + Duration::from_secs(86_400)).as_millis(),
        )];
        for tally in &tallies {
            args.push(format!("{}{}", if tally.counted { '+' } else { '-' }, tally.rule).into_bytes());
            args.push(text(tally.count));
            args.push(text(scale.write(tally.first)));
            args.push(text(scale.write(tally.last)));
        }
        args
    }

    /// Tells to how many more watchers an event went than were told of before.
    fn told_call(&self, event: &Event, before: &mut u32) -> Option<Call> {
        let told = match &event.what {
            Happening::Ended(end) => end.told.load(Ordering::Relaxed),
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
