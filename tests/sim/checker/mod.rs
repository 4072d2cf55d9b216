//! The history checker: code of its own, which knows DESIGN.md sections 2 to 4 and the wire, and nothing of the sidecar's
//! state machine. It reads what callers and watchers saw, and names the guarantee that was broken.

mod activity;
mod admin;
mod answers;
mod events;
mod holds;
mod limits;
mod lives;
mod model;
mod rules;
mod session;
mod streams;
mod verbs;

use std::collections::{BTreeMap, BTreeSet};

use session_sidecar::rpc::proto::v1::{self, watch_expiry_response::Message};

use crate::{
    history::{Answer, Call, Entry, Ns, Request, What, clock, session_of, short},
    world::AUDITOR,
};
use model::{Caps, Model, Trial};
use session::Moment;
use streams::Streams;

/// How long idle and presence ends are held after a gap, and what a gap is.
const GAP: Ns = 5 * crate::history::SECOND;

/// A guarantee that was broken.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) guarantee: &'static str,
    pub(crate) text: String,
    pub(crate) at: Ns,
}

pub(crate) fn broken(guarantee: &'static str, text: String) -> Violation {
    Violation { guarantee, text, at: 0 }
}

/// How much of everything happened.
pub(crate) type Tally = BTreeMap<String, u64>;

/// Reads a history to its end or to the first broken guarantee.
///
/// What is checked, where, and the known-bad variants (`src/sabotage.rs`) that show that the check can fail:
///
/// | | check | variants |
/// |---|---|---|
/// | G1 | `Trial::status`, `events::unexpected_end`: no end before the deadline that the answers established | TimerTrusted, PresenceIgnoresTouch, NoHoldAfterGap |
/// | G2 | `Session::pass_time`, `sweep`: an end within 50 ms, and for every call at once | CallsWaitForDriver |
/// | G3 | `Session::warned`, `check_warnings_came`, `next_warning` | WarnedTwice, OutOfOrder |
/// | G4 | `events::fits`, `events::missing`: what is owed comes, in the order of the log | ClearedForgotten, OutOfOrder |
/// | G5 | `lives`, `activity`, `holds`: an ended session accepts no command and is not made again | TouchAfterEnd, AliasForever |
/// | G6 | `Trial::end`, `events::unexpected_end`: one reason, one Ended | CauseTrusted |
/// | G7 | `extend`, `hold`, `status`: nothing granted past the absolute deadline or a budget | ExtendPastAbsolute, NoBudget |
/// | G8 | `touch`, `session`: last activity, result of late touches | ActivityGoesBack |
/// | G9 | `rules`: what a touch may count for | BackgroundCounts |
/// | G10 | `question_status`, `not_live`, `Model::bury`: remembered, or dropped at the cap and said so | LateTombstone, DroppedUntold |
/// | G11 | `create`: none over the cap; G10 sees a live one dropped | CapIgnored |
/// | G12 | `streams`: tokens, order, nothing lost | NoGapCheck, TokenForAnyScope |
/// | G13 | `streams::closed`: who does not read is cut off, who reads is not | SlowReaderKept |
/// | G14 | `Trial::time`, `Moment`: the wall clock moves no deadline, gaps hold ends | NoHoldAfterGap |
/// | G15 | `world::has_raw_id`: answers, events, the log, /metrics | IdLogged |
/// | G17 | `Trial::call`, `streams`, `admin` | EventCrossesTenant, RefCrossesTenant |
///
/// Beside them: the cap of sessions per subject (SubjectCapRace). G16 needs a durable store, which memory mode is not.
pub(crate) fn check(history: &[Entry], tally: &mut Tally) -> Result<(), Violation> {
    let mut checker = Checker::new(history);
    checker.read(history, tally)?;
    let Checker { streams, .. } = checker;
    streams.check(history, tally)
}

struct Checker {
    model: Model,
    moment: Moment,
    reloads: u32,
    caps: Caps,
    streams: Streams,
}

impl Checker {
    fn new(history: &[Entry]) -> Self {
        let (replay, mailbox, caps) = history
            .iter()
            .find_map(|entry| match entry.what {
                What::World {
                    replay_events,
                    mailbox,
                    max_sessions,
                    max_tombstones,
                } => Some((
                    replay_events,
                    mailbox,
                    Caps {
                        max_sessions,
                        max_tombstones,
                    },
                )),
                _ => None,
            })
            .unwrap_or_default();
        Self {
            model: Model::new(caps, 0, 0),
            moment: Moment {
                now: 0,
                held_until: Ns::MIN,
                held_from: Ns::MIN,
                gap: (Ns::MIN, Ns::MIN),
            },
            reloads: 0,
            caps,
            streams: Streams::new(replay, mailbox),
        }
    }

    fn read(&mut self, history: &[Entry], tally: &mut Tally) -> Result<(), Violation> {
        let mut begin = 0;
        while begin < history.len() {
            let at = history[begin].at;
            let end = begin + history[begin..].iter().take_while(|entry| entry.at == at).count();
            let instant = &history[begin..end];
            let read = self.instant(begin, instant, tally);
            read.map_err(|violation| Violation { at, ..violation })?;
            begin = end;
        }
        Ok(())
    }

    /// All that was seen at one instant of virtual time.
    fn instant(&mut self, first: usize, instant: &[Entry], tally: &mut Tally) -> Result<(), Violation> {
        let now = instant[0].at;
        let mut calls: Vec<&Call> = Vec::new();
        let mut events: Vec<&v1::WatchExpiryResponse> = Vec::new();
        for (place, entry) in instant.iter().enumerate() {
            match &entry.what {
                What::Gap { from } => {
                    self.sweep(*from)?;
                    // One that follows at once is the same one.
                    let (before, until) = self.moment.gap;
                    let again = *from <= until.saturating_add(session::PROMPT);
                    self.moment.gap = (if again { before } else { *from }, now);
                    // The sidecar looks at the clock every second: less than a gap is a stall.
                    let gap = now - from > GAP;
                    if gap {
                        if *from > self.moment.held_until.saturating_add(session::PROMPT) {
                            self.moment.held_from = *from;
                        }
                        self.moment.held_until = now + GAP;
                    }
                    *tally
                        .entry(if gap { "suspends" } else { "stalls" }.to_owned())
                        .or_default() += 1;
                }
                What::Wall { offset } => {
                    self.model.wall = *offset;
                    *tally.entry("wall clock jumps".to_owned()).or_default() += 1;
                }
                What::Reloaded { reloads } => {
                    self.reloads = *reloads;
                    self.model.reload(*reloads);
                    *tally.entry("policy reloads".to_owned()).or_default() += 1;
                }
                What::Restarted { offset } => {
                    self.moment.now = now;
                    self.sweep(now)?;
                    let fresh = Model::new(self.caps, self.reloads, *offset);
                    let old = std::mem::replace(&mut self.model, fresh);
                    self.streams.restarted(first + place, &old);
                    self.moment.held_until = Ns::MIN;
                    *tally.entry("restarts".to_owned()).or_default() += 1;
                }
                What::Leak { place } => return Err(broken("G15", format!("a raw session id in {place}"))),
                What::Called(call) => {
                    if call.sent != entry.at {
                        return Err(broken("G2", "a call took virtual time".to_owned()));
                    }
                    count(call, tally);
                    calls.push(call);
                }
                What::Message {
                    watcher: AUDITOR,
                    message,
                } if message.message.as_ref().and_then(session_of).is_some() => {
                    self.streams.logged(first + place, entry.at, message, tally);
                    events.push(message);
                }
                What::Closed {
                    watcher: AUDITOR,
                    how: Some(how),
                } if how.code != tonic::Code::Ok => {
                    return Err(broken(
                        "G13",
                        format!("a watcher that always reads was cut off: {how:?}"),
                    ));
                }
                What::Dropped { tombstones } if *tombstones != self.model.graves.dropped => {
                    let expected = self.model.graves.dropped;
                    return Err(broken(
                        "G10",
                        format!("/metrics tells of {tombstones} tombstones dropped at the cap, expected {expected}"),
                    ));
                }
                What::Over => self.sweep(now)?,
                _ => {}
            }
        }
        self.moment.now = now;
        for (place, entry) in instant.iter().enumerate() {
            if let What::Opened { watcher, .. } = entry.what
                && watcher != AUDITOR
            {
                self.streams.opened(first + place, &self.model, self.moment);
            }
        }
        self.explain(&calls, &events)?;
        let ended = events.iter().filter_map(|event| match &event.message {
            Some(Message::Ended(ended)) => ended.session.as_ref(),
            _ => None,
        });
        for session in ended {
            let dropped = self.model.bury(&session.session_ref, now);
            *tally.entry("tombstones dropped at the cap".to_owned()).or_default() += u64::from(dropped);
        }
        Ok(())
    }

    /// Finds an order of what happened at one instant in which all of it is right.
    fn explain(&mut self, calls: &[&Call], events: &[&v1::WatchExpiryResponse]) -> Result<(), Violation> {
        let mut near = Vec::new();
        let mut apart = Vec::new();
        if calls.is_empty() {
            apart.extend_from_slice(events);
        } else {
            let touched = self.touched(calls);
            for event in events {
                let session = event.message.as_ref().and_then(session_of);
                let is_near = session.is_some_and(|session| touched.contains(&session.session_ref));
                if is_near { near.push(*event) } else { apart.push(*event) }
            }
            let trial = Trial::new(&self.model, self.moment);
            let mut search = Search {
                calls,
                events: &near,
                deepest: None,
                budget: 50_000,
            };
            let Some(found) = search.go(trial, 0, 0) else {
                let violation = search.deepest.map(|(_, violation)| violation);
                return Err(violation.unwrap_or_else(|| broken("API", "no order of this instant is right".to_owned())));
            };
            let Trial { changed, ids, .. } = found;
            self.model.adopt(changed, ids);
        }
        let mut open = BTreeSet::new();
        for event in apart {
            let mut trial = Trial::new(&self.model, self.moment);
            let reference = trial.event(event)?;
            let Trial { changed, ids, .. } = trial;
            self.model.adopt(changed, ids);
            open.insert(reference);
        }
        for reference in open {
            if let Some(owed) = self
                .model
                .sessions
                .get(&reference)
                .and_then(|session| session.owed.front())
            {
                return Err(events::missing(&reference, owed));
            }
        }
        Ok(())
    }

    /// The sessions that calls can have to do with.
    fn touched(&self, calls: &[&Call]) -> BTreeSet<String> {
        let mut touched = BTreeSet::new();
        let mut add_id = |tenant: &str, id: &str| {
            let mut next = self.model.reference(tenant, id).cloned();
            while let Some(reference) = next {
                let end = self
                    .model
                    .sessions
                    .get(&reference)
                    .and_then(|session| session.end.as_ref());
                next = end.map(|end| end.successor.clone()).filter(|name| !name.is_empty());
                touched.insert(reference);
            }
        };
        let mut refs = Vec::new();
        let mut filters: Vec<&v1::SessionFilter> = Vec::new();
        let mut tenants = Vec::new();
        for call in calls {
            match &call.request {
                Request::Create(request) => add_id(&request.tenant, &request.session_id),
                Request::Touch(request) => add_id(&request.tenant, &request.session_id),
                Request::Batch(batch) => {
                    for touch in &batch.touches {
                        add_id(&touch.tenant, &touch.session_id);
                    }
                }
                Request::Check(check) => {
                    match &check.name {
                        Some(v1::check_request::Name::SessionId(id)) => add_id(&check.tenant, id),
                        Some(v1::check_request::Name::SessionRef(name)) => refs.push(name.clone()),
                        None => {}
                    }
                    for name in &check.sessions {
                        if let Some(v1::session_name::Name::SessionId(id)) = &name.name {
                            add_id(&check.tenant, id);
                        }
                    }
                }
                Request::Extend(request) => add_id(&request.tenant, &request.session_id),
                Request::Hold(request) => add_id(&request.tenant, &request.session_id),
                Request::Release(request) => add_id(&request.tenant, &request.session_id),
                Request::Rotate(request) => {
                    add_id(&request.tenant, &request.session_id);
                    add_id(&request.tenant, &request.new_session_id);
                }
                Request::End(request) => add_id(&request.tenant, &request.session_id),
                Request::List(list) => filters.extend(&list.filter),
                Request::EndMany(end) => filters.extend(&end.filter),
                Request::Stats(stats) => tenants.push(stats.tenant.as_str()),
                Request::Explain(explain) => match &explain.target {
                    Some(v1::explain_session_request::Target::SessionId(id)) => add_id(&explain.tenant, id),
                    Some(v1::explain_session_request::Target::SessionRef(name)) => refs.push(name.clone()),
                    _ => {}
                },
            }
            let (session, more) = match &call.answer {
                Ok(Answer::Create(created)) => (created.session.as_ref(), created.superseded_refs.clone()),
                Ok(Answer::Rotate(rotated)) => (rotated.session.as_ref(), rotated.superseded_refs.clone()),
                _ => (None, Vec::new()),
            };
            refs.extend(
                session
                    .and_then(|session| session.status.as_ref())
                    .map(|status| status.session_ref.clone()),
            );
            refs.extend(more);
            if let Err(refused) = &call.answer {
                refs.extend(refused.metadata.get("session_ref").cloned());
            }
        }
        tenants.extend(filters.iter().map(|filter| filter.tenant.as_str()));
        if !tenants.is_empty() {
            let sessions = self.model.sessions.values();
            let live = sessions.filter(|session| session.end.is_none() && tenants.contains(&session.tenant.as_str()));
            refs.extend(live.map(|session| session.reference.clone()));
        }
        touched.extend(refs);
        touched
    }

    /// Nothing that was due is still to come.
    fn sweep(&self, now: Ns) -> Result<(), Violation> {
        let moment = Moment { now, ..self.moment };
        for session in self.model.sessions.values().filter(|session| session.end.is_none()) {
            session.clone().pass_time(moment)?;
        }
        Ok(())
    }
}

/// Looks for an order.
struct Search<'a> {
    calls: &'a [&'a Call],
    events: &'a [&'a v1::WatchExpiryResponse],
    deepest: Option<(usize, Violation)>,
    budget: u32,
}

impl Search<'_> {
    fn go<'m>(&mut self, trial: Trial<'m>, done: u32, seen: usize) -> Option<Trial<'m>> {
        let depth = done.count_ones() as usize + seen;
        if depth == self.calls.len() + self.events.len() {
            let open = trial
                .changed
                .values()
                .find_map(|session| Some((session, session.owed.front()?)));
            let Some((session, owed)) = open else {
                return Some(trial);
            };
            self.failed(depth, events::missing(&session.reference, owed));
            return None;
        }
        self.budget = self.budget.checked_sub(1)?;
        for (place, call) in self.calls.iter().enumerate() {
            // Calls that did not race were made one after the other.
            let blocked = self.calls[..place]
                .iter()
                .enumerate()
                .any(|(before, other)| done & (1 << before) == 0 && (call.race == 0 || other.race != call.race));
            if done & (1 << place) != 0 || blocked {
                continue;
            }
            let mut next = trial.clone();
            match next.call(call) {
                Ok(()) => {
                    if let Some(found) = self.go(next, done | (1 << place), seen) {
                        return Some(found);
                    }
                }
                Err(violation) => self.failed(depth, violation),
            }
        }
        let event = self.events.get(seen)?;
        let mut next = trial;
        match next.event(event) {
            Ok(_) => self.go(next, done, seen + 1),
            Err(violation) => {
                self.failed(depth, violation);
                None
            }
        }
    }

    fn failed(&mut self, depth: usize, violation: Violation) {
        if self.deepest.as_ref().is_none_or(|(deepest, _)| depth > *deepest) {
            self.deepest = Some((depth, violation));
        }
    }
}

fn count(call: &Call, tally: &mut Tally) {
    let verb = match &call.request {
        Request::Create(_) => "create",
        Request::Touch(_) => "touch",
        Request::Batch(_) => "batch touch",
        Request::Check(_) => "check",
        Request::Extend(_) => "extend",
        Request::Hold(_) => "hold",
        Request::Release(_) => "release",
        Request::Rotate(_) => "rotate",
        Request::End(_) => "end",
        Request::List(_) => "list",
        Request::EndMany(_) => "end many",
        Request::Explain(_) => "explain",
        Request::Stats(_) => "stats",
    };
    let how = match &call.answer {
        Ok(Answer::Touch(touched)) => short(touched.result().as_str_name(), "TOUCH_RESULT_").to_lowercase(),
        Ok(_) => "OK".to_owned(),
        Err(refused) if refused.reason.is_empty() => format!("{:?}", refused.code),
        Err(refused) => refused.reason.clone(),
    };
    if let Ok(Answer::Touch(touched)) = &call.answer {
        *tally.entry(format!("rule {}", touched.rule)).or_default() += 1;
    }
    *tally.entry(format!("{verb} {how}")).or_default() += 1;
    *tally.entry("calls".to_owned()).or_default() += 1;
}

/// Says where in the story something is.
pub(crate) fn told(violation: &Violation) -> String {
    format!("{} at {}: {}", violation.guarantee, clock(violation.at), violation.text)
}

pub(crate) fn kind_of(message: &Message) -> &'static str {
    match message {
        Message::Warning(_) => "warning",
        Message::Cleared(_) => "cleared",
        Message::Ended(_) => "ended",
        Message::Snapshot(_) => "snapshot",
        Message::SnapshotEnd(_) => "snapshot end",
        Message::Heartbeat(_) => "heartbeat",
        Message::Draining(_) => "draining",
    }
}
