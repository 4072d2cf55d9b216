//! What operators ask for: lists and numbers. A scan of all sessions takes a while: it never runs on a
//! thread that serves calls.

use std::{
    collections::{BTreeMap, HashSet},
    iter,
    sync::Arc,
};

use super::{Error, Examined, Report, Sessions, State, Status};
use crate::{
    state::{EndReason, HoldKind, Identity, Moment, SessionRef, Tombstone},
    store::{Memory, Session, Unavailable},
};

/// Which sessions of a tenant. A session must match all that is set.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The tenant.
    pub tenant: Arc<str>,
    /// Whose, or empty.
    pub subject: String,
    /// In which states. Empty: live ones.
    pub states: Vec<State>,
    /// Labels that they carry.
    pub labels: BTreeMap<String, String>,
    /// Under which policy, or empty.
    pub policy: String,
}

/// A page of a list.
pub struct Listed {
    /// The sessions, in the order of the bytes of their refs.
    pub reports: Vec<Report>,
    /// Where the next page begins, if there is one.
    pub next_page: Option<String>,
}

/// A tenant's sessions in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Live, and no warning stands.
    pub active: u64,
    /// Live, and a warning stands.
    pub expiring: u64,
    /// Remembered ends by reason.
    pub ended: Vec<(EndReason, u64)>,
    /// Live ones of which all traffic since their last counted activity was ignored.
    pub ghosts: u64,
    /// Live ones with a WORK hold.
    pub working: u64,
    /// Live ones that would have ended if their policy were enforced.
    pub unenforced: u64,
}

impl Stats {
    fn add_end(&mut self, tombstone: &Tombstone) {
        let reason = tombstone.end.reason;
        match self.ended.iter_mut().find(|(known, _)| *known == reason) {
            _ if tombstone.silent => {}
            Some((_, count)) => *count += 1,
            None => self.ended.push((reason, 1)),
        }
    }
}

/// How many scans of all sessions may run at once.
pub(super) const SCANS: usize = 2;

/// After so many sessions other calls get their turn.
pub(super) const TURN: usize = 256;

impl Filter {
    fn wants(&self, state: State) -> bool {
        match self.states.as_slice() {
            [] => matches!(state, State::Active | State::Expiring),
            states => states.contains(&state),
        }
    }

    pub(super) fn wants_live(&self) -> bool {
        self.wants(State::Active) || self.wants(State::Expiring)
    }

    pub(super) fn covers(&self, identity: &Identity, policy: &str) -> bool {
        identity.tenant() == &*self.tenant
            && (self.subject.is_empty() || identity.subject() == self.subject)
            && (self.policy.is_empty() || policy == self.policy)
            && identity.carries(&self.labels)
    }

    /// Whether a session that is live, or was until just now, matches as it is at a moment.
    pub(super) fn covers_live(&self, session: &Session, moment: Moment) -> bool {
        self.covers(&session.origin().identity, &session.limits().policy)
            && state_of(session, moment).is_some_and(|state| self.wants(state))
    }

    fn covers_report(&self, report: &Report) -> bool {
        let covered = |details: &super::Details| self.covers(&details.origin.identity, &details.limits.policy);
        self.wants(report.status.state) && report.details.as_ref().is_some_and(covered)
    }

    /// Whether it names nothing but a tenant and states: all of it is meant, or somebody forgot the rest.
    #[must_use]
    pub fn is_whole_tenant(&self) -> bool {
        self.subject.is_empty() && self.labels.is_empty() && self.policy.is_empty()
    }

    /// What page tokens are bound to.
    fn binding(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut add = |text: &str| {
            hasher.update(&text.len().to_le_bytes()).update(text.as_bytes());
        };
        add(&self.tenant);
        add(&self.subject);
        add(&self.policy);
        let states = [State::Active, State::Expiring, State::Ended].map(|state| self.wants(state));
        add(&format!("{states:?} {}", self.labels.len()));
        for (key, value) in &self.labels {
            add(key);
            add(value);
        }
        *hasher.finalize().as_bytes()
    }
}

fn place_of(session: &Session) -> usize {
    session.reference().shard(Memory::PLACES)
}

/// What a live session is at a moment, before anybody has judged it. `None`: its end is decided, a tombstone says so.
fn state_of(session: &Session, moment: Moment) -> Option<State> {
    session.read(|view| {
        if view.rest.end().is_some() || view.pulse.is_dead() {
            return None;
        }
        let over = view.limits.enforced && view.deadlines(moment).expire().0 <= moment.now;
        Some(if over {
            State::Ended
        } else {
            Status::live(session.reference(), view, moment).state
        })
    })
}

impl Sessions {
    /// A page of the sessions that match, each judged now.
    pub async fn list(
        self: &Arc<Self>,
        filter: Filter,
        page_size: usize,
        page_token: Option<&str>,
    ) -> Result<Listed, Error> {
        let binding = filter.binding();
        let mut after = match page_token {
            None => None,
            Some(token) => Some(self.pages.open(token, &binding).ok_or_else(|| Error::Invalid {
                field: "page_token",
                problem:
                    "is not a token of this list; begin without one, and keep the filter from page to page".to_owned(),
            })?),
        };
        let filter = Arc::new(filter);
        let mut reports: Vec<Report> = Vec::new();
        loop {
            // One more than fits tells whether there is a next page.
            let most = page_size + 1 - reports.len();
            let found = self.scan(&filter, after, most).await?;
            let exhausted = found.len() < most;
            for (place, reference) in found.into_iter().enumerate() {
                if place % TURN == TURN - 1 {
                    tokio::task::yield_now().await;
                }
                after = Some(reference);
                let report = self.report(&filter.tenant, reference).await?;
                // It may have changed since it was found.
                if filter.covers_report(&report) {
                    reports.push(report);
                }
            }
            if reports.len() > page_size {
                reports.truncate(page_size);
                let last = reports.last().map(|report| report.status.reference);
                return Ok(Listed {
                    reports,
                    next_page: last.map(|last| self.pages.issue(last, &binding)),
                });
            }
            if exhausted {
                return Ok(Listed {
                    reports,
                    next_page: None,
                });
            }
        }
    }

    /// The first sessions after a ref that match as things are, in order.
    async fn scan(
        self: &Arc<Self>,
        filter: &Arc<Filter>,
        after: Option<SessionRef>,
        most: usize,
    ) -> Result<Vec<SessionRef>, Unavailable> {
        let filter = Arc::clone(filter);
        self.aside(move |sessions| {
            let moment = sessions.moment();
            let mut found: Vec<SessionRef> = Vec::new();
            // Places are in the order of refs: what is before the cursor or behind a full page is not looked at.
            let begin = after.map_or(0, |after| after.shard(Memory::PLACES));
            let mut of_subject = sessions.live_of_subject(&filter).map(|own| own.into_iter().peekable());
            for place in begin..Memory::PLACES {
                // Live ones first: what ends meanwhile is then among the ended ones.
                let live = match &mut of_subject {
                    Some(own) => iter::from_fn(|| own.next_if(|session| place_of(session) <= place)).collect(),
                    None => sessions.memory.live_at(place),
                };
                let live = live.iter().filter(|session| filter.covers_live(session, moment));
                let mut here: Vec<_> = live.map(|session| session.reference()).collect();
                if filter.wants(State::Ended) {
                    let ended =
                        sessions.memory.ended_at(place).into_iter().filter(|(_, tombstone)| {
                            filter.covers(&tombstone.origin.identity, &tombstone.limits.policy)
                        });
                    here.extend(ended.map(|(reference, _)| reference));
                }
                here.retain(|reference| after.is_none_or(|after| *reference > after));
                here.sort_unstable();
                here.dedup();
                found.append(&mut here);
                if found.len() >= most {
                    found.truncate(most);
                    break;
                }
            }
            found
        })
        .await
    }

    /// The live sessions that may be those of a filter's subject, in order; `None` if it names none.
    fn live_of_subject(&self, filter: &Filter) -> Option<Vec<Arc<Session>>> {
        if filter.subject.is_empty() {
            return None;
        }
        let refs = self.memory.of_subject(&filter.tenant, &filter.subject).into_iter();
        let mut own: Vec<_> = refs.filter_map(|reference| self.memory.get(reference)).collect();
        own.sort_unstable_by_key(|session| session.reference());
        Some(own)
    }

    /// A tenant's sessions in numbers.
    pub async fn stats(self: &Arc<Self>, tenant: &str) -> Result<Stats, Error> {
        let tenant: Arc<str> = tenant.into();
        let (mut stats, over) = self.aside(move |sessions| sessions.count(&tenant)).await?;
        for session in over {
            match self.examine(session, self.moment()).await? {
                // A touch was faster: it lives.
                Examined::Live(_) => stats.active += 1,
                Examined::Ended(tombstone) => stats.add_end(&tombstone),
            }
        }
        Ok(stats)
    }

    /// Counts all sessions but those whose deadline has passed unnoticed: it answers them.
    fn count(&self, tenant: &str) -> (Stats, Vec<Arc<Session>>) {
        let mut stats = Stats::default();
        let mut over = Vec::new();
        for place in 0..Memory::PLACES {
            let seen = self.count_live(tenant, place, &mut stats, &mut over);
            for (reference, tombstone) in self.memory.ended_at(place) {
                // Seen live, ended since: once is enough.
                if tombstone.origin.identity.tenant() == tenant && !seen.contains(&reference) {
                    stats.add_end(&tombstone);
                }
            }
        }
        (stats, over)
    }

    /// Counts the live sessions of a place. Answers which it saw.
    fn count_live(
        &self,
        tenant: &str,
        place: usize,
        stats: &mut Stats,
        over: &mut Vec<Arc<Session>>,
    ) -> HashSet<SessionRef> {
        let moment = self.moment();
        let mut seen = HashSet::new();
        for session in self.memory.live_at(place) {
            if session.origin().identity.tenant() != tenant {
                continue;
            }
            let state = state_of(&session, moment);
            match state {
                Some(State::Active) => stats.active += 1,
                Some(State::Expiring) => stats.expiring += 1,
                Some(_) => {}
                None => continue,
            }
            seen.insert(session.reference());
            if state == Some(State::Ended) {
                over.push(session);
                continue;
            }
            let last_activity = session.pulse().last_activity();
            let ignored = session.last_ignored();
            stats.ghosts += u64::from(ignored.is_some_and(|ignored| ignored > last_activity));
            let (working, unenforced) = session.read(|view| {
                let working = view.rest.live_holds(moment.now).any(|hold| hold.kind == HoldKind::Work);
                let over = view.deadlines(moment).expire().0 <= moment.now;
                (working, view.rest.unenforced().is_some() || over)
            });
            stats.working += u64::from(working);
            stats.unenforced += u64::from(unenforced);
        }
        seen
    }

    /// Does what takes a while on a thread that serves no calls, and not more than two of those at once: they share the
    /// processors with those that do.
    pub(super) async fn aside<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let _turn = self.scans.acquire().await.map_err(|_| Unavailable)?;
        let sessions = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&sessions))
            .await
            .map_err(|_| Unavailable)
    }
}
