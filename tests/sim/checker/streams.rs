//! Every other watcher against the log: nothing lost, nothing twice, in order, nothing of others; tokens; slow readers.

use std::collections::{BTreeMap, BTreeSet};

use session_sidecar::rpc::proto::v1::{
    self, SessionState, session_name::Name, watch_expiry_response::Message, watch_scope::Scope,
};
use tonic::Code;

use super::{Tally, Violation, broken, kind_of, model::Model, session::Moment};
use crate::{
    history::{Entry, Ns, Refused, What, session_of, short},
    world::AUDITOR,
};

/// An event at its place in the log.
struct Logged {
    at: Ns,
    kind: u8,
    reference: String,
    version: u64,
    tenant: String,
    subject: String,
    successor: String,
}

/// What is known of the sessions when a watch begins with the state.
struct Known {
    reference: String,
    tenant: String,
    subject: String,
    live: bool,
}

pub(super) struct Streams {
    replay: usize,
    mailbox: usize,
    /// The log of each life of the sidecar.
    logs: Vec<Vec<Logged>>,
    restarts: Vec<usize>,
    opened: BTreeMap<usize, Vec<Known>>,
}

/// A place in the log that a token stands for.
#[derive(Clone)]
struct Place {
    scope: Option<v1::WatchScope>,
    tenants: Vec<String>,
    life: usize,
    cursor: usize,
    /// At most so many events had happened.
    seen: usize,
    initial: bool,
    followed: BTreeSet<String>,
    snapshots: BTreeMap<String, u64>,
    last_ended: String,
}

/// An open stream.
struct Open {
    request: v1::WatchExpiryRequest,
    tenants: Vec<String>,
    /// The next event of the log that may come; those before `certain` may have come before the watch began.
    cursor: usize,
    certain: usize,
    entry: usize,
    opened_at: Ns,
    live: bool,
    ids: BTreeMap<String, String>,
    followed: BTreeSet<String>,
    snapshots: BTreeMap<String, u64>,
    last_ended: String,
    stopped: Option<Ns>,
    was_stopped: bool,
    must_be_cut: bool,
    drained: bool,
    may_begin_anew: bool,
}

impl Streams {
    pub(super) fn new(replay: usize, mailbox: usize) -> Self {
        Self {
            replay,
            mailbox,
            logs: vec![Vec::new()],
            restarts: Vec::new(),
            opened: BTreeMap::new(),
        }
    }

    pub(super) fn logged(&mut self, _entry: usize, at: Ns, response: &v1::WatchExpiryResponse, tally: &mut Tally) {
        let Some(message) = &response.message else { return };
        let Some(session) = session_of(message) else { return };
        let (kind, word) = match message {
            Message::Warning(warning) => (1, format!("warning {}", short(warning.limit().as_str_name(), "LIMIT_"))),
            Message::Cleared(cleared) => (
                2,
                format!("cleared {}", short(cleared.cause().as_str_name(), "CLEARED_CAUSE_")),
            ),
            Message::Ended(ended) => {
                let reason = ended.end.as_ref().map(v1::SessionEnd::reason).unwrap_or_default();
                (3, format!("ended {}", short(reason.as_str_name(), "END_REASON_")))
            }
            _ => return,
        };
        *tally.entry(word).or_default() += 1;
        let end = match message {
            Message::Ended(ended) => ended.end.as_ref(),
            _ => None,
        };
        if let Some(log) = self.logs.last_mut() {
            log.push(Logged {
                at,
                kind,
                reference: session.session_ref.clone(),
                version: session.version,
                tenant: session.tenant.clone(),
                subject: session.subject.clone(),
                successor: end.map(|end| end.successor_ref.clone()).unwrap_or_default(),
            });
        }
    }

    pub(super) fn restarted(&mut self, entry: usize, _old: &Model) {
        self.logs.push(Vec::new());
        self.restarts.push(entry);
    }

    /// Notes what a watch that begins now would be told.
    pub(super) fn opened(&mut self, entry: usize, model: &Model, moment: Moment) {
        let known = model
            .sessions
            .values()
            .filter(|session| session.is_live(moment) || (session.end.is_some() && session.memory(moment.now).0));
        let known = known.map(|session| Known {
            reference: session.reference.clone(),
            tenant: session.tenant.clone(),
            subject: session.subject.clone(),
            live: session.is_live(moment),
        });
        self.opened.insert(entry, known.collect());
    }

    /// Reads the history once more, for the watchers.
    pub(super) fn check(&self, history: &[Entry], tally: &mut Tally) -> Result<(), Violation> {
        let mut reader = Reader {
            streams: self,
            life: 0,
            open: BTreeMap::new(),
            places: BTreeMap::new(),
            ids: ids(history),
            index: BTreeMap::new(),
        };
        reader.reindex();
        for (place, entry) in history.iter().enumerate() {
            reader.entry(place, entry, tally).map_err(|violation| Violation {
                at: entry.at,
                ..violation
            })?;
        }
        Ok(())
    }
}

/// The ref of every id that answers told.
fn ids(history: &[Entry]) -> BTreeMap<(String, String), String> {
    use crate::history::{Answer, Request};

    let mut ids = BTreeMap::new();
    for entry in history {
        let What::Called(call) = &entry.what else { continue };
        let (tenant, id, session) = match (&call.request, &call.answer) {
            (Request::Create(request), Ok(Answer::Create(created))) => {
                (&request.tenant, &created.session_id, &created.session)
            }
            (Request::Rotate(request), Ok(Answer::Rotate(rotated))) => {
                (&request.tenant, &rotated.session_id, &rotated.session)
            }
            _ => continue,
        };
        if let Some(status) = session.as_ref().and_then(|session| session.status.as_ref()) {
            ids.insert((tenant.clone(), id.clone()), status.session_ref.clone());
        }
    }
    ids
}

struct Reader<'a> {
    streams: &'a Streams,
    life: usize,
    open: BTreeMap<u32, Open>,
    places: BTreeMap<(String, u32), Place>,
    ids: BTreeMap<(String, String), String>,
    /// Where an event is in the log of this life.
    index: BTreeMap<(String, u64, u8), usize>,
}

impl Reader<'_> {
    fn log(&self) -> &[Logged] {
        &self.streams.logs[self.life]
    }

    fn reindex(&mut self) {
        let log = &self.streams.logs[self.life];
        let index = log.iter().enumerate();
        self.index = index
            .map(|(place, event)| ((event.reference.clone(), event.version, event.kind), place))
            .collect();
    }

    fn entry(&mut self, place: usize, entry: &Entry, tally: &mut Tally) -> Result<(), Violation> {
        match &entry.what {
            What::Opened {
                watcher,
                tenants,
                request,
                refused,
            } if *watcher != AUDITOR => {
                self.open.remove(watcher);
                let opened = self.opening(*watcher, place, entry.at, tenants, request, refused.as_ref(), tally)?;
                if let Some(open) = opened {
                    self.open.insert(*watcher, open);
                }
                Ok(())
            }
            What::Message { watcher, message } if *watcher != AUDITOR => {
                let Some(mut open) = self.open.remove(watcher) else {
                    return Err(broken("G12", format!("w{watcher} got a message without a stream")));
                };
                let got = self.message(*watcher, &mut open, entry.at, message, tally);
                self.open.insert(*watcher, open);
                got
            }
            What::Closed { watcher, how } if *watcher != AUDITOR => {
                let Some(open) = self.open.remove(watcher) else {
                    return Ok(());
                };
                self.closed(*watcher, &open, entry.at, how.as_ref(), tally)
            }
            What::Reads { watcher, reads } => {
                let log = &self.streams.logs[self.life];
                // A stream's window, what waits in the stream, and some more.
                let most = 65_535 / 150 + 170;
                if let Some(open) = self.open.get_mut(watcher) {
                    if *reads && let Some(since) = open.stopped.take() {
                        let waiting = log
                            .iter()
                            .enumerate()
                            .skip(open.cursor)
                            .take_while(|(_, event)| event.at + 11_000_000_000 < entry.at);
                        let waiting = waiting
                            .filter(|(_, event)| event.at > since && in_scope(open, event))
                            .count();
                        open.must_be_cut |= waiting > most;
                    } else if !*reads {
                        open.stopped = Some(entry.at);
                        open.was_stopped = true;
                    }
                }
                Ok(())
            }
            What::Restarted { .. } => {
                self.open.clear();
                self.life += 1;
                self.reindex();
                Ok(())
            }
            What::Over => {
                for (watcher, open) in &self.open {
                    self.closed(*watcher, open, entry.at, None, tally)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn opening(
        &self,
        watcher: u32,
        entry: usize,
        at: Ns,
        tenants: &[String],
        request: &v1::WatchExpiryRequest,
        refused: Option<&Refused>,
        tally: &mut Tally,
    ) -> Result<Option<Open>, Violation> {
        let log = self.log();
        let before = log.partition_point(|event| event.at < at);
        let through = log.partition_point(|event| event.at <= at);
        let mut open = Open {
            request: request.clone(),
            tenants: tenants.to_vec(),
            cursor: before,
            certain: through,
            entry,
            opened_at: at,
            live: false,
            ids: BTreeMap::new(),
            followed: BTreeSet::new(),
            snapshots: BTreeMap::new(),
            last_ended: String::new(),
            stopped: None,
            was_stopped: false,
            must_be_cut: false,
            drained: false,
            may_begin_anew: true,
        };
        self.name(&mut open);
        for event in &log[..before] {
            // Names that were rotated lead on, as long as that is remembered.
            let known = self.streams.opened.get(&entry);
            let remembered = known.is_none_or(|known| known.iter().any(|known| known.reference == event.reference));
            if remembered && !event.successor.is_empty() && open.followed.contains(&event.reference) {
                open.followed.insert(event.successor.clone());
            }
        }
        if request.resume_token.is_empty() {
            *tally.entry("watches".to_owned()).or_default() += 1;
            return match refused {
                None => Ok(Some(open)),
                Some(refused) => Err(broken("G12", format!("a good watch was refused: {refused:?}"))),
            };
        }
        // A token is a place in the log: two watchers of one scope may have the same one, and have read it differently.
        let token = &request.resume_token;
        let other = self
            .places
            .range((token.clone(), 0)..)
            .next()
            .filter(|((known, _), _)| known == token);
        let own = self.places.get(&(token.clone(), watcher));
        let is_own = own.is_some();
        let Some(place) = own.or(other.map(|(_, place)| place)) else {
            return Err(broken("G12", "a token that nobody was given".to_owned()));
        };
        let foreign = place.scope != request.scope || place.tenants != tenants;
        let gone = place.life != self.life;
        // The log keeps the last `replay` events.
        let surely_trimmed = before.saturating_sub(place.seen) > self.streams.replay;
        // The snapshot of a successor has a place in the log too.
        let between = &log[place.cursor.min(through)..through];
        let maybe_trimmed =
            between.len() + between.iter().filter(|event| !event.successor.is_empty()).count() > self.streams.replay;
        let code = refused.map(|refused| (refused.code, refused.reason.as_str()));
        match code {
            None if foreign => Err(broken(
                "G12",
                "a resume token was accepted for another scope or caller".to_owned(),
            )),
            None if gone => Err(broken(
                "G12",
                "a resume token of an earlier life was accepted".to_owned(),
            )),
            None if surely_trimmed && !place.initial => Err(broken(
                "G12",
                "a resume token was accepted though the log no longer reaches back to it".to_owned(),
            )),
            None => {
                *tally.entry("resumes".to_owned()).or_default() += 1;
                open.live = true;
                open.cursor = place.cursor;
                open.certain = if is_own { place.cursor } else { place.seen };
                open.may_begin_anew = place.initial;
                open.followed.clone_from(&place.followed);
                open.snapshots.clone_from(&place.snapshots);
                open.last_ended.clone_from(&place.last_ended);
                Ok(Some(open))
            }
            Some((Code::InvalidArgument, _)) if foreign => {
                *tally.entry("foreign tokens refused".to_owned()).or_default() += 1;
                Ok(None)
            }
            Some((Code::OutOfRange, "RESUME_TOKEN_EXPIRED")) if gone || maybe_trimmed => {
                let word = if gone {
                    "tokens of an earlier life refused"
                } else {
                    "trimmed tokens refused"
                };
                *tally.entry(word.to_owned()).or_default() += 1;
                Ok(None)
            }
            Some(code) => Err(broken(
                "G12",
                format!("a resume was refused with {code:?}: foreign {foreign}, gone {gone}"),
            )),
        }
    }

    /// The refs that a watch by name means.
    fn name(&self, open: &mut Open) {
        let Some(scope) = &open.request.scope else { return };
        let Some(Scope::Sessions(names)) = &scope.scope else {
            return;
        };
        for name in &names.names {
            match &name.name {
                Some(Name::SessionId(id)) => {
                    if let Some(reference) = self.ids.get(&(scope.tenant.clone(), id.clone())) {
                        open.ids.insert(reference.clone(), id.clone());
                        open.followed.insert(reference.clone());
                    }
                }
                Some(Name::SessionRef(reference)) => {
                    open.followed.insert(reference.clone());
                }
                None => {}
            }
        }
    }

    fn message(
        &mut self,
        watcher: u32,
        open: &mut Open,
        at: Ns,
        response: &v1::WatchExpiryResponse,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        let Some(message) = &response.message else {
            return Err(broken("API", "an empty message".to_owned()));
        };
        match message {
            Message::Snapshot(snapshot) => self.snapshot(watcher, open, snapshot)?,
            Message::SnapshotEnd(end) => {
                if open.live && !open.may_begin_anew {
                    return Err(broken(
                        "G12",
                        format!("w{watcher} resumed and was given the state without asking"),
                    ));
                }
                open.live = true;
                if end.snapshot_count != open.snapshots.len() as u64 {
                    return Err(broken(
                        "G12",
                        format!("w{watcher}: {} snapshots are told of", end.snapshot_count),
                    ));
                }
                if open.request.include_initial_state {
                    self.state_is_complete(watcher, open)?;
                }
            }
            Message::Heartbeat(_) => *tally.entry("heartbeats".to_owned()).or_default() += 1,
            Message::Draining(_) => open.drained = true,
            event => {
                *tally.entry("events to watchers".to_owned()).or_default() += 1;
                self.event(watcher, open, event)?;
            }
        }
        let log = self.log();
        let initial = !open.live || matches!(message, Message::SnapshotEnd(_)) || at == open.opened_at;
        self.places.insert(
            (response.resume_token.clone(), watcher),
            Place {
                scope: open.request.scope.clone(),
                tenants: open.tenants.clone(),
                life: self.life,
                cursor: open.cursor,
                seen: log.partition_point(|event| event.at <= at),
                initial,
                followed: open.followed.clone(),
                snapshots: open.snapshots.clone(),
                last_ended: open.last_ended.clone(),
            },
        );
        Ok(())
    }

    fn snapshot(&self, watcher: u32, open: &mut Open, snapshot: &v1::Snapshot) -> Result<(), Violation> {
        let Some(session) = &snapshot.session else {
            return Err(broken("API", "a snapshot of nothing".to_owned()));
        };
        if snapshot.predecessor_ref.is_empty() || !open.live {
            if open.live && !open.may_begin_anew {
                return Err(broken("G12", format!("w{watcher} got a snapshot out of the blue")));
            }
            if open.live {
                // It resumed in the middle of the state: all of it again.
                open.live = false;
                open.request.include_initial_state = true;
                open.snapshots.clear();
                let log = self.log();
                open.cursor = log.partition_point(|event| event.at < open.opened_at);
                open.certain = log.partition_point(|event| event.at <= open.opened_at);
            }
        } else {
            let tells_ends = open.request.kinds.is_empty() || open.request.kinds.contains(&3);
            // Who watches only the new name, or the new subject, was not told of the old one.
            let old = self
                .log()
                .iter()
                .find(|event| event.kind == 3 && event.reference == snapshot.predecessor_ref);
            let follows = old.is_some_and(|old| in_scope(open, old));
            if tells_ends && follows && open.last_ended != snapshot.predecessor_ref {
                return Err(broken(
                    "G12",
                    format!("w{watcher}: a successor's snapshot without the Ended of its predecessor"),
                ));
            }
            open.followed.insert(session.session_ref.clone());
        }
        open.snapshots.insert(session.session_ref.clone(), session.version);
        if !may_see(open, &session.tenant) {
            return Err(broken(
                "G17",
                format!("w{watcher} got a snapshot of tenant {:?}", session.tenant),
            ));
        }
        self.echoes(watcher, open, session)
    }

    /// The initial state tells of every live session in scope, and by name also of those that are remembered.
    fn state_is_complete(&self, watcher: u32, open: &Open) -> Result<(), Violation> {
        let Some(known) = self.streams.opened.get(&open.entry) else {
            return Ok(());
        };
        let by_name = matches!(scope_of(open), Some(Scope::Sessions(_)));
        let log = self.log();
        // What happened at the same instant may be told either way.
        let unsure: BTreeSet<&str> = log[open.cursor.min(open.certain)..open.certain]
            .iter()
            .map(|event| event.reference.as_str())
            .collect();
        for known in known {
            let wanted = may_see(open, &known.tenant)
                && match scope_of(open) {
                    Some(Scope::Sessions(_)) => open.followed.contains(&known.reference),
                    Some(Scope::Subject(subject)) => known.live && *subject == known.subject,
                    _ => known.live,
                };
            let told = open.snapshots.contains_key(&known.reference);
            if wanted != told && !unsure.contains(known.reference.as_str()) && (wanted || !by_name) {
                return Err(broken(
                    "G12",
                    format!(
                        "w{watcher}: the state tells of {}: {told}, expected {wanted}",
                        known.reference
                    ),
                ));
            }
        }
        Ok(())
    }

    fn event(&self, watcher: u32, open: &mut Open, message: &Message) -> Result<(), Violation> {
        let Some(session) = session_of(message) else {
            return Ok(());
        };
        if !open.live {
            return Err(broken(
                "G12",
                format!("w{watcher} got an event before the end of the state"),
            ));
        }
        self.echoes(watcher, open, session)?;
        let kind = match message {
            Message::Warning(_) => 1,
            Message::Cleared(_) => 2,
            _ => 3,
        };
        let name = &session.session_ref;
        let Some(place) = self.index.get(&(name.clone(), session.version, kind)) else {
            return Err(broken(
                "G12",
                format!("w{watcher} got a {} of {name} that is not in the log", kind_of(message)),
            ));
        };
        let event = &self.log()[*place];
        if !may_see(open, &event.tenant) || !may_see(open, &session.tenant) {
            return Err(broken(
                "G17",
                format!("w{watcher} got an event of tenant {:?}", event.tenant),
            ));
        }
        if !in_scope(open, event) {
            return Err(broken(
                "G12",
                format!(
                    "w{watcher} got a {} of {name} that it did not ask for",
                    kind_of(message)
                ),
            ));
        }
        if *place < open.cursor {
            return Err(broken(
                "G12",
                format!("w{watcher} got a {} of {name} twice, or out of order", kind_of(message)),
            ));
        }
        self.nothing_missed(watcher, open, *place)?;
        open.cursor = place + 1;
        open.certain = open.certain.max(open.cursor).min(open.cursor.max(open.certain));
        if kind == 3 {
            open.last_ended.clone_from(name);
            if !event.successor.is_empty() && matches!(scope_of(open), Some(Scope::Sessions(_))) {
                open.followed.insert(event.successor.clone());
            }
        }
        Ok(())
    }

    /// Nothing in scope between where the watcher is and that place.
    fn nothing_missed(&self, watcher: u32, open: &Open, place: usize) -> Result<(), Violation> {
        let from = open.cursor.max(if open.cursor < open.certain {
            open.certain
        } else {
            open.cursor
        });
        let log = self.log();
        let missed = log[from.min(place)..place]
            .iter()
            .find(|event| in_scope(open, event) && !is_old(open, event));
        match missed {
            None => Ok(()),
            Some(event) => Err(broken(
                "G12",
                format!(
                    "w{watcher} never got event {} of {} (version {})",
                    event.kind, event.reference, event.version
                ),
            )),
        }
    }

    /// An id is echoed to whoever named the session by it, and to nobody else.
    fn echoes(&self, watcher: u32, open: &Open, session: &v1::EventSession) -> Result<(), Violation> {
        let own = open.ids.get(&session.session_ref).map_or("", String::as_str);
        if session.session_id != own {
            let guarantee = if session.session_id.is_empty() { "API" } else { "G15" };
            return Err(broken(
                guarantee,
                format!(
                    "w{watcher}: session_id of {} is not what it named it by",
                    session.session_ref
                ),
            ));
        }
        Ok(())
    }

    fn closed(
        &self,
        watcher: u32,
        open: &Open,
        at: Ns,
        how: Option<&Refused>,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        match how {
            None => {
                if open.must_be_cut {
                    return Err(broken(
                        "G13",
                        format!("w{watcher} did not read for long and was not cut off"),
                    ));
                }
                if open.stopped.is_some() || !open.live {
                    return Ok(());
                }
                let log = self.log();
                self.nothing_missed(watcher, open, log.partition_point(|event| event.at < at))
            }
            Some(how) if how.code == Code::Ok && open.drained => Ok(()),
            Some(how) if how.reason == "WATCHER_TOO_SLOW" && open.was_stopped => {
                *tally.entry("slow watchers cut off".to_owned()).or_default() += 1;
                Ok(())
            }
            Some(how) => Err(broken(
                "G13",
                format!("w{watcher}, which reads, was ended with {how:?}"),
            )),
        }
    }
}

fn scope_of(open: &Open) -> Option<&Scope> {
    open.request.scope.as_ref()?.scope.as_ref()
}

fn may_see(open: &Open, tenant: &str) -> bool {
    let own = open.tenants.iter().any(|own| own == tenant);
    own && match (&open.request.scope, scope_of(open)) {
        (_, Some(Scope::Everything(_))) => true,
        (Some(scope), _) => scope.tenant == tenant,
        _ => false,
    }
}

fn in_scope(open: &Open, event: &Logged) -> bool {
    let kinds = &open.request.kinds;
    let kind = kinds.is_empty() || kinds.contains(&i32::from(event.kind));
    kind && may_see(open, &event.tenant)
        && match scope_of(open) {
            Some(Scope::Sessions(_)) => open.followed.contains(&event.reference),
            Some(Scope::Subject(subject)) => *subject == event.subject,
            _ => true,
        }
}

/// Whether a snapshot told of it already.
fn is_old(open: &Open, event: &Logged) -> bool {
    open.snapshots
        .get(&event.reference)
        .is_some_and(|version| event.version <= *version)
}

#[allow(dead_code)]
fn live(state: SessionState) -> bool {
    matches!(state, SessionState::Active | SessionState::Expiring)
}
