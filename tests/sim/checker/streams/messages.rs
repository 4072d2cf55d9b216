//! What a watcher is told: nothing lost, nothing twice, in order, and nothing of others.

use std::collections::BTreeSet;

use session_sidecar::rpc::proto::v1::{self, watch_expiry_response::Message, watch_scope::Scope};

use super::{
    super::{Tally, Violation, broken, kind_of},
    reader::{Open, Place, Reader, in_scope, is_old, may_see, scope_of},
};
use crate::history::{Ns, session_of};

impl Reader<'_> {
    pub(super) fn message(
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
        open.certain = open.certain.max(open.cursor);
        if kind == 3 {
            open.last_ended.clone_from(name);
            if !event.successor.is_empty() && matches!(scope_of(open), Some(Scope::Sessions(_))) {
                open.followed.insert(event.successor.clone());
            }
        }
        Ok(())
    }

    /// Nothing in scope between where the watcher is and that place.
    pub(super) fn nothing_missed(&self, watcher: u32, open: &Open, place: usize) -> Result<(), Violation> {
        let from = open.cursor.max(open.certain);
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
}
