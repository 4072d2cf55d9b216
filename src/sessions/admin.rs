//! What operators ask for: lists and numbers. A scan of all sessions takes a while: it never runs on a
//! thread that serves calls.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{Error, Examined, Report, Sessions, State, Status};
use crate::{
    state::{EndReason, HoldKind, Identity, Moment, SessionRef, Tombstone},
    store::{Extent, Seen, Session, Unavailable},
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
    pub async fn list(&self, filter: Filter, page_size: usize, page_token: Option<&str>) -> Result<Listed, Error> {
        let binding = filter.binding();
        let mut after = match page_token {
            None => None,
            Some(token) => Some(self.keyring.open_page(token, &binding).ok_or_else(|| Error::Invalid {
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
            let found = self.candidates(&filter, after, most).await?;
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
                    next_page: last.map(|last| self.keyring.issue_page(last, &binding)),
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
    async fn candidates(
        &self,
        filter: &Arc<Filter>,
        after: Option<SessionRef>,
        most: usize,
    ) -> Result<Vec<SessionRef>, Unavailable> {
        let ended = filter.wants(State::Ended);
        if !filter.subject.is_empty() && !ended {
            let mut own = self.store.of_subject(&filter.tenant, &filter.subject).await?;
            own.sort_unstable();
            let after = own.into_iter().filter(|own| after.is_none_or(|after| *own > after));
            return Ok(after.take(most).collect());
        }
        let extent = Extent {
            after,
            // A live one may have ended without anybody having noticed.
            live: true,
            ended,
            most,
        };
        let filter = Arc::clone(filter);
        let moment = self.moment();
        let wanted = move |seen: &Seen<'_>| match seen {
            Seen::Live(session) => filter.covers_live(session, moment),
            Seen::Ended(_, tombstone) => filter.covers(&tombstone.origin.identity, &tombstone.limits.policy),
        };
        self.store.scan(extent, Arc::new(wanted)).await
    }

    /// A tenant's sessions in numbers.
    pub async fn stats(&self, tenant: &str) -> Result<Stats, Error> {
        let count = Arc::new(Mutex::new(Count::default()));
        let extent = Extent {
            after: None,
            live: true,
            ended: true,
            most: usize::MAX,
        };
        let wanted = {
            let (tenant, count, moment) = (tenant.to_owned(), Arc::clone(&count), self.moment());
            move |seen: &Seen<'_>| {
                count.lock().add(&tenant, seen, moment);
                false
            }
        };
        self.store.scan(extent, Arc::new(wanted)).await?;
        let Count { mut stats, over, .. } = std::mem::take(&mut *count.lock());
        for session in over {
            match self.examine(session, self.moment()).await? {
                // A touch was faster: it lives.
                Examined::Live(_) => stats.active += 1,
                Examined::Ended(tombstone) => stats.add_end(&tombstone),
            }
        }
        Ok(stats)
    }
}

/// What has been counted so far.
#[derive(Default)]
struct Count {
    stats: Stats,
    /// Those whose deadline has passed unnoticed.
    over: Vec<Arc<Session>>,
    /// Those that were seen live near here: they may have ended since, and once is enough.
    seen: HashSet<SessionRef>,
    place: usize,
}

/// How many stretches of refs there are, of which `Count` remembers one.
const PLACES: usize = 288;

impl Count {
    fn add(&mut self, tenant: &str, seen: &Seen<'_>, moment: Moment) {
        let reference = match seen {
            Seen::Live(session) => session.reference(),
            Seen::Ended(reference, _) => *reference,
        };
        if self.place != reference.shard(PLACES) {
            self.place = reference.shard(PLACES);
            self.seen.clear();
        }
        match seen {
            Seen::Live(session) => self.add_live(tenant, session, moment),
            Seen::Ended(_, tombstone) => {
                if tombstone.origin.identity.tenant() == tenant && !self.seen.contains(&reference) {
                    self.stats.add_end(tombstone);
                }
            }
        }
    }

    fn add_live(&mut self, tenant: &str, session: &Arc<Session>, moment: Moment) {
        if session.origin().identity.tenant() != tenant {
            return;
        }
        let state = state_of(session, moment);
        match state {
            Some(State::Active) => self.stats.active += 1,
            Some(State::Expiring) => self.stats.expiring += 1,
            Some(_) => {}
            None => return,
        }
        self.seen.insert(session.reference());
        if state == Some(State::Ended) {
            self.over.push(Arc::clone(session));
            return;
        }
        let last_activity = session.read(|view| view.last_activity(moment.now));
        let ignored = session.last_ignored();
        self.stats.ghosts += u64::from(ignored.is_some_and(|ignored| ignored > last_activity));
        let (working, unenforced) = session.read(|view| {
            let working = view.rest.live_holds(moment.now).any(|hold| hold.kind == HoldKind::Work);
            let over = view.deadlines(moment).expire().0 <= moment.now;
            (working, view.rest.unenforced().is_some() || over)
        });
        self.stats.working += u64::from(working);
        self.stats.unenforced += u64::from(unenforced);
    }
}
