//! Create, and how many sessions a subject may have.

use std::{
    collections::BTreeMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    Error, Examined, Report, Request, Sessions,
    keyring::{Beginning, Newcomer},
    random, too_short,
};
use crate::{
    sabotage::{self, Fault},
    state::{
        Actor, Asked, AtSubjectCap, End, EndReason, Identity, Limits, Next, Origin, Outcome, Policy, Recalled,
        SessionRef,
    },
    store::{Commit, Committed, Expected, Found, Session, Unavailable},
    time::Time,
};

/// What Create is told.
#[derive(Default)]
pub struct Create<'a> {
    /// The tenant.
    pub tenant: Arc<str>,
    /// The caller's own id.
    pub session_id: Option<&'a str>,
    /// Whose session it is, or empty.
    pub subject: &'a str,
    /// Name of the policy.
    pub policy: &'a str,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// A stricter idle timeout.
    pub idle_timeout: Option<Duration>,
    /// A stricter absolute timeout.
    pub absolute_timeout: Option<Duration>,
    /// How long ago the person authenticated.
    pub authenticated_ago: Duration,
    /// How strong that authentication was, or empty.
    pub authentication_level: &'a str,
    /// How long ago the last activity was.
    pub idle_for: Duration,
    /// The caller's request id and its content.
    pub request: Option<Request<'a>>,
}

/// A created session.
pub struct Created {
    /// Its id, to be handed out once.
    pub session_id: String,
    /// The session.
    pub report: Report,
    /// The sessions that ended because the subject had too many.
    pub superseded: Vec<SessionRef>,
}

/// Those who begin sessions of one subject take turns where there is a cap: so two of them cannot both take the last place.
pub(super) struct Admissions {
    turns: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Default for Admissions {
    fn default() -> Self {
        Self {
            turns: (0..64).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Admissions {
    /// Subjects share turns, so whoever has one never waits for another.
    fn turn_of(&self, tenant: &str, subject: &str) -> &Mutex<()> {
        let hash = self.hasher.hash_one((tenant, subject)) as usize;
        &self.turns[hash % self.turns.len()]
    }
}

/// How long to wait for a session that somebody else has taken a place for, and how often.
const COMING: Duration = Duration::from_millis(50);
const MOST_TRIES: usize = 40;

/// A turn, and who goes when the new session is there.
pub(super) struct Admission<'a> {
    _turn: Option<MutexGuard<'a, ()>>,
    losers: Vec<Arc<Session>>,
}

impl Admission<'_> {
    /// Who goes when the new session is there.
    pub(super) fn losers(&self) -> Vec<SessionRef> {
        self.losers.iter().map(|loser| loser.reference()).collect()
    }
}

impl Sessions {
    /// Starts a session.
    pub async fn create(&self, create: Create<'_>) -> Result<Created, Error> {
        let tenant = &create.tenant;
        let newcomer = match (create.session_id, create.request) {
            (Some(own), _) => self.keyring.newcomer(tenant, |_| own.to_owned()),
            (None, Some(request)) => self
                .keyring
                .newcomer(tenant, |keys| keys.id_for_request(tenant, request.id)),
            (None, None) => self.keyring.stranger(tenant, new_id()),
        };
        let request = create.request.map(|request| self.keyring.request(request));
        // A retry is answered with what was created, even if a limit has changed its mind since.
        if let Some(request) = request
            && let Found::Live(session) = self.store.find(self.newcomer_is_known_as(&newcomer).await?).await?
        {
            return self.created_before(&newcomer, session, request).await;
        }
        let policy = self.policies.get(create.policy).ok_or_else(|| Error::PolicyUnknown {
            known: self.policies.names().join(", "),
        })?;
        if let Some(own) = create.session_id {
            self.refuse_ref(&create.tenant, own).await?;
            if own.len() < policy.min_id_length {
                return Err(too_short(policy.min_id_length));
            }
        }
        let limits = stricter(&policy, create.idle_timeout, create.absolute_timeout)?;
        let limits = if create.idle_timeout.is_some() {
            Arc::new(self.store.effective(&limits))
        } else {
            limits
        };
        if limits.enforced && create.idle_for >= limits.idle_timeout {
            return Err(already_past("idle_for", "idle timeout", limits.idle_timeout));
        }
        if limits.enforced && create.authenticated_ago >= limits.absolute_timeout {
            let bound = limits.absolute_timeout;
            return Err(already_past("authenticated_ago", "absolute timeout", bound));
        }
        let Beginning {
            session_id,
            reference,
            not_after,
        } = self.begins_as(&newcomer).await?;
        if sabotage::on(Fault::IdLogged) {
            tracing::debug!(session_id, "to be created");
        }
        let admission = self.admit(&policy, &create.tenant, create.subject, reference).await?;
        let moment = self.moment();
        let level = create.authentication_level;
        let origin = Origin {
            identity: Identity::new(create.tenant, create.subject, level, create.labels, None),
            created: moment.now,
            authenticated: moment.now - create.authenticated_ago,
        };
        let next = Next::created(&origin, limits, moment.now - create.idle_for, request, moment);
        let report = Report::live(reference, &next.view(&origin), moment);
        let next_action = next.view(&origin).next_action(moment);
        let happenings = next.happenings.clone();
        let committed = self
            .store
            .commit(Commit {
                reference,
                expected: Expected::Nothing(origin),
                next,
                moment,
                supersedes: admission.losers(),
                not_after,
            })
            .await?;
        match committed {
            Committed::Done(session) => {
                self.arm(&session, next_action);
                self.created(&session, &happenings);
                let superseded = self.supersede(admission, reference, moment.now).await;
                Ok(Created {
                    session_id,
                    report,
                    superseded,
                })
            }
            Committed::Lost(Found::Live(session)) => match request {
                Some(request) => self.created_before(&newcomer, session, request).await,
                None => match self.examine(session, moment).await? {
                    Examined::Live(_) => Err(Error::Exists(reference)),
                    Examined::Ended(tombstone) => Err(Error::Ended(reference, tombstone)),
                },
            },
            Committed::Lost(Found::Ended(tombstone)) => Err(Error::Ended(reference, tombstone)),
            // It was there and is forgotten within one call: the caller may try again.
            Committed::Lost(Found::Unknown { .. }) | Committed::Taken(_) => Err(Unavailable.into()),
            Committed::Full { max_sessions } => Err(Error::Full { max_sessions }),
            Committed::StoreFull => Err(Error::StoreFull),
        }
    }

    async fn created_before(
        &self,
        newcomer: &Newcomer,
        session: Arc<Session>,
        request: Asked,
    ) -> Result<Created, Error> {
        let reference = session.reference();
        let moment = self.moment();
        let session = match self.examine(session, moment).await? {
            Examined::Live(session) => session,
            Examined::Ended(tombstone) => return Err(Error::Ended(reference, tombstone)),
        };
        session.read(|view| match view.rest.recall(request, moment.now) {
            Some(Recalled::Same(Outcome::Created)) => Ok(Created {
                session_id: newcomer.id_of(reference).unwrap_or_default().to_owned(),
                report: Report::live(reference, view, moment),
                superseded: Vec::new(),
            }),
            Some(_) => Err(Error::RequestIdReused(reference)),
            None => Err(Error::Exists(reference)),
        })
    }

    /// Takes a turn to begin a session of a subject, and says who must go for it, or that there is no place.
    pub(super) async fn admit(
        &self,
        policy: &Policy,
        tenant: &str,
        subject: &str,
        newcomer: SessionRef,
    ) -> Result<Admission<'_>, Error> {
        let open = Admission {
            _turn: None,
            losers: Vec::new(),
        };
        let Some(max) = policy.max_sessions_per_subject.filter(|_| policy.limits.enforced) else {
            return Ok(open);
        };
        if subject.is_empty() {
            return Ok(open);
        }
        let turn = self.admissions.turn_of(tenant, subject).lock().await;
        // A name that is taken, perhaps by a retry of the same request just now, takes no place: the commit will say so.
        if !matches!(self.store.find(newcomer).await?, Found::Unknown { .. }) {
            return Ok(open);
        }
        let mut tries = 0;
        let losers = loop {
            let place = self.store.subject_ticket(tenant, subject).await?;
            let mut peers = BTreeMap::new();
            for reference in self.store.of_subject(tenant, subject).await? {
                if let Some(session) = self.goes_on(reference).await?
                    && is_of(&session, tenant, subject)
                    && session.limits().policy == policy.limits.policy
                {
                    peers.insert((session.origin().created, session.reference()), session);
                }
            }
            let Some(place) = place else {
                break self.losers(policy, max, peers, 0)?;
            };
            // Elsewhere somebody has taken a place, and their session is not there yet.
            let mut coming = 0;
            let counted: Vec<_> = peers
                .values()
                .map(|session| session.reference())
                .chain([newcomer])
                .collect();
            for reserved in place.reserved.iter().filter(|reserved| !counted.contains(reserved)) {
                match self.store.find(*reserved).await? {
                    Found::Unknown { .. } => coming += 1,
                    // It came while the others were counted.
                    Found::Live(session)
                        if is_of(&session, tenant, subject) && session.limits().policy == policy.limits.policy =>
                    {
                        peers.insert((session.origin().created, *reserved), session);
                    }
                    Found::Live(_) | Found::Ended(_) => {}
                }
            }
            let must_go = (peers.len() + coming + 1).saturating_sub(max as usize);
            let wait = policy.at_subject_cap == AtSubjectCap::EndOldest && must_go > peers.len();
            let losers = self.losers(policy, max, peers, coming)?;
            if !wait && self.store.take_place(tenant, subject, &place, newcomer).await? {
                break losers;
            }
            tries += 1;
            if tries >= MOST_TRIES {
                return Err(Unavailable.into());
            }
            if wait {
                tokio::time::sleep(COMING).await;
            }
        };
        let turn = if sabotage::on(Fault::SubjectCapRace) {
            drop(turn);
            tokio::task::yield_now().await;
            None
        } else {
            Some(turn)
        };
        Ok(Admission { _turn: turn, losers })
    }

    /// Who must go so that one more may begin, or that none may.
    fn losers(
        &self,
        policy: &Policy,
        max: u32,
        peers: BTreeMap<(Time, SessionRef), Arc<Session>>,
        coming: usize,
    ) -> Result<Vec<Arc<Session>>, Error> {
        let too_many = (peers.len() + coming + 1).saturating_sub(max as usize);
        if too_many > 0 && policy.at_subject_cap == AtSubjectCap::Refuse {
            return Err(Error::SubjectCap { max });
        }
        Ok(peers.into_values().take(too_many).collect())
    }

    /// Ends those in whose place a new session has begun, while the turn lasts.
    pub(super) async fn supersede(&self, admission: Admission<'_>, newcomer: SessionRef, now: Time) -> Vec<SessionRef> {
        let mut superseded = Vec::new();
        if admission.losers.is_empty() {
            return superseded;
        }
        let mut all = true;
        for loser in &admission.losers {
            match self.supersede_one(loser, now).await {
                Ok(ended) => superseded.extend(ended),
                Err(error) => {
                    all = false;
                    tracing::warn!(%error, session = %loser.reference(), "a session is not superseded yet");
                }
            }
        }
        // Else whoever looks at the new session next goes on.
        if all && let Err(error) = self.store.superseded(newcomer).await {
            tracing::warn!(%error, session = %newcomer, "it is not noted that all were superseded");
        }
        superseded
    }

    /// Ends one of them, or what goes on in its place if it was rotated since it was counted.
    pub(super) async fn supersede_one(&self, loser: &Session, now: Time) -> Result<Option<SessionRef>, Error> {
        let identity = &loser.origin().identity;
        let end = End {
            reason: EndReason::Superseded,
            actor: Actor::Policy,
            actor_id: "".into(),
            note: "".into(),
            at: now,
        };
        let mut reference = loser.reference();
        while let Some(session) = self.goes_on(reference).await?
            && is_of(&session, identity.tenant(), identity.subject())
        {
            reference = session.reference();
            if self.end_by_ref(reference, end.clone()).await?.is_some() {
                return Ok(Some(reference));
            }
        }
        Ok(None)
    }
}

/// Whether a session is this subject's.
fn is_of(session: &Session, tenant: &str, subject: &str) -> bool {
    let identity = &session.origin().identity;
    identity.tenant() == tenant && identity.subject() == subject
}

/// An id of 256 random bits.
pub(super) fn new_id() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

/// A policy's limits, or stricter ones.
fn stricter(policy: &Policy, idle: Option<Duration>, absolute: Option<Duration>) -> Result<Arc<Limits>, Error> {
    let limits = &policy.limits;
    if idle.is_none() && absolute.is_none() {
        return Ok(Arc::clone(limits));
    }
    let strict = |field, wanted: Option<Duration>, limit: Duration| match wanted {
        Some(wanted) if wanted > limit => Err(Error::Invalid {
            field,
            problem: format!(
                "may only be stricter than the policy: at most {}",
                humantime::format_duration(limit)
            ),
        }),
        wanted => Ok(wanted),
    };
    let idle = strict("idle_timeout", idle, limits.idle_timeout)?;
    let absolute = strict("absolute_timeout", absolute, limits.absolute_timeout)?;
    Ok(Arc::new(limits.stricter(idle, absolute)))
}

fn already_past(field: &'static str, limit: &'static str, bound: Duration) -> Error {
    Error::AlreadyPast {
        field,
        limit,
        bound: humantime::format_duration(bound),
    }
}

#[cfg(all(test, not(feature = "shuttle")))]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::{
        audit::Audit,
        sessions::{Follow, Meter, Name, Rotate, Setup},
        state::AtSubjectCap,
        store::MemoryCaps,
        time::Clock,
    };

    fn one_session_each() -> Arc<Sessions> {
        let policy = Policy {
            max_sessions_per_subject: Some(1),
            at_subject_cap: AtSubjectCap::EndOldest,
            ..Policy::default()
        };
        let setup = Setup {
            clock: Clock::of_runtime(),
            master_key: vec![7; 32],
            other_key: None,
            policies: BTreeMap::from([("default".to_owned(), policy)]),
            caps: MemoryCaps {
                max_sessions: 100,
                max_tombstones: 100,
            },
            replay_events: 100,
            mailbox_size: 100,
            max_watchers: 1,
            audit: Audit::default(),
        };
        Sessions::new(setup, Meter::register(&mut Registry::default()))
    }

    fn named(session_id: &str) -> Name<'_> {
        Name {
            tenant: "",
            session_id,
            follow: Follow::Alias,
        }
    }

    async fn begin(sessions: &Sessions) -> String {
        let create = Create {
            subject: "ada",
            policy: "default",
            ..Create::default()
        };
        sessions.create(create).await.expect("created").session_id
    }

    async fn rotate(sessions: &Sessions, session_id: &str, subject: Option<&str>) -> SessionRef {
        let rotate = Rotate {
            name: named(session_id),
            new_session_id: None,
            subject,
            authenticated_ago: subject.map(|_| Duration::ZERO),
            authentication_level: "",
            request: None,
        };
        let rotated = sessions.rotate(rotate).await.expect("rotated");
        rotated.report.status.reference
    }

    /// The turn of somebody who wants to begin another session of the same subject.
    async fn turn(sessions: &Sessions) -> Admission<'_> {
        let newcomer = sessions.session_ref(named("the one that comes"));
        let policy = sessions.policies.get("default").expect("the policy");
        sessions.admit(&policy, "", "ada", newcomer).await.expect("a turn")
    }

    /// A peer that is rotated between its being counted and its end is ended under the name under which it goes on.
    #[tokio::test(start_paused = true)]
    async fn a_rotate_does_not_save_a_session_that_a_newer_one_supersedes() {
        let sessions = one_session_each();
        let session_id = begin(&sessions).await;
        let admission = turn(&sessions).await;
        let successor = rotate(&sessions, &session_id, None).await;
        let newcomer = SessionRef::from_bytes([9; 16]);
        let superseded = sessions.supersede(admission, newcomer, sessions.clock.now()).await;
        assert_eq!(superseded, [successor]);
        assert!(matches!(
            sessions.memory().expect("in memory").look_up(successor),
            Found::Ended(_)
        ));
    }

    /// Unless it has become somebody else's meanwhile.
    #[tokio::test(start_paused = true)]
    async fn what_has_become_another_subjects_is_not_superseded() {
        let sessions = one_session_each();
        let session_id = begin(&sessions).await;
        let admission = turn(&sessions).await;
        // One who has another turn: the first one is taken here until the end.
        let others = (0..).map(|number| format!("grace{number}"));
        let free = |subject: &String| sessions.admissions.turn_of("", subject).try_lock().is_ok();
        let other = others.into_iter().find(free);
        let successor = rotate(&sessions, &session_id, other.as_deref()).await;
        assert_eq!(sessions.supersede(admission, successor, sessions.clock.now()).await, []);
        assert!(matches!(
            sessions.memory().expect("in memory").look_up(successor),
            Found::Live(_)
        ));
    }

    /// A name that was read from the subject's list just before a Rotate leads to the session that goes on: it is counted.
    #[tokio::test(start_paused = true)]
    async fn a_name_that_was_live_leads_to_the_session_that_goes_on() {
        let sessions = one_session_each();
        let session_id = begin(&sessions).await;
        let before = sessions.session_ref(named(&session_id));
        let successor = rotate(&sessions, &session_id, None).await;
        sessions.advance(Duration::from_secs(6)).await;
        let goes_on = sessions.goes_on(before).await.expect("found").expect("live");
        assert_eq!(goes_on.reference(), successor, "though the old id is no alias any more");
    }
}
