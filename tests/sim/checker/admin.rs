//! What operators are answered: lists, ends of many, explanations and numbers agree with the history, and never tell of
//! another tenant (G17).

use std::collections::BTreeSet;

use session_sidecar::rpc::proto::v1::{
    self, Actor, EndReason, SessionState, explain_session_request::Target, history_entry::Entry, session_name::Name,
};

use super::{
    Violation, broken,
    model::Trial,
    session::{Line, Session},
    verbs::{Told, unfit},
};
use crate::history::{Ns, ns};

impl Trial<'_> {
    pub(super) fn list(
        &mut self,
        request: &v1::ListSessionsRequest,
        told: Told<'_, v1::ListSessionsResponse>,
    ) -> Result<(), Violation> {
        let answer = told.map_err(|refused| unfit("list", refused))?;
        let filter = request.filter.clone().unwrap_or_default();
        let ended_too = filter.states().any(|state| state == SessionState::Ended);
        let (must, may) = self.of_filter(&filter, ended_too)?;
        let listed: Vec<_> = answer.sessions.iter().map(ref_of).collect();
        compare("a list", &listed, &must, &may)?;
        for session in &answer.sessions {
            self.now(&ref_of(session))?;
            self.session(&ref_of(session), Some(session), false)?;
        }
        Ok(())
    }

    pub(super) fn end_many(
        &mut self,
        request: &v1::EndSessionsRequest,
        told: Told<'_, v1::EndSessionsResponse>,
    ) -> Result<(), Violation> {
        let answer = told.map_err(|refused| unfit("end many", refused))?;
        let filter = request.filter.clone().unwrap_or_default();
        let (mut live, _) = self.of_filter(&filter, false)?;
        for name in &request.except {
            let reference = match &name.name {
                Some(Name::SessionRef(reference)) => Some(reference.clone()),
                Some(Name::SessionId(id)) => self.model.reference(&filter.tenant, id).cloned(),
                None => None,
            };
            for (spared, _) in self.chain(reference.unwrap_or_default())? {
                live.remove(&spared);
            }
        }
        compare("an end of many", &answer.session_refs, &live, &live)?;
        let ended = if request.dry_run { 0 } else { live.len() as u64 };
        if (answer.matched_count, answer.ended_count) != (live.len() as u64, ended) {
            return Err(broken(
                "ADMIN",
                format!("an end of many says {answer:?}; {} match", live.len()),
            ));
        }
        if !request.dry_run {
            for reference in live {
                self.end_now(&reference, EndReason::Revoked, Actor::Admin, &request.actor_id, "");
            }
        }
        Ok(())
    }

    pub(super) fn explain(
        &mut self,
        request: &v1::ExplainSessionRequest,
        told: Told<'_, v1::ExplainSessionResponse>,
    ) -> Result<(), Violation> {
        let answer = told.map_err(|refused| unfit("explain", refused))?;
        let chain = match &request.target {
            Some(Target::SessionId(id)) => {
                let reference = self.model.reference(&request.tenant, id).cloned();
                self.chain(reference.unwrap_or_default())?
            }
            Some(Target::SessionRef(reference)) => {
                let mut chain = self.chain(reference.clone())?;
                chain.truncate(1);
                chain
            }
            _ => return Ok(()),
        };
        let own = chain.into_iter().filter(|(reference, _)| {
            let session = self.get(reference);
            session.is_some_and(|session| session.tenant == request.tenant)
        });
        let own: Vec<_> = own.collect();
        let must = own.iter().filter(|(_, (must, _))| *must);
        let must = must.map(|(reference, _)| reference.clone()).collect();
        let may = own.iter().filter(|(_, (_, gone))| !*gone);
        let may = may.map(|(reference, _)| reference.clone()).collect();
        let told = answer.explanations.iter().filter_map(|told| told.session.as_ref());
        compare("an explanation", &told.map(ref_of).collect::<Vec<_>>(), &must, &may)?;
        for told in &answer.explanations {
            let Some(session) = &told.session else { continue };
            let reference = ref_of(session);
            self.session(&reference, told.session.as_ref(), false)?;
            if let Some(session) = self.get(&reference) {
                self.told_rightly(session, told)?;
            }
        }
        Ok(())
    }

    /// Whether an explanation tells what watchers and callers were told.
    fn told_rightly(&self, session: &Session, told: &v1::SessionExplanation) -> Result<(), Violation> {
        let name = &session.reference;
        let mut lines: Vec<(Ns, Line)> = Vec::new();
        for entry in &told.history {
            let at = self.time(&entry.time);
            let line = match &entry.entry {
                Some(Entry::Warning(warning)) => Line::Warning(warning.limit(), ns(&warning.point)),
                Some(Entry::Cleared(cleared)) => Line::Cleared(cleared.limit(), cleared.cause()),
                Some(Entry::Extended(extended)) => Line::Extended(ns(&extended.granted_duration)),
                Some(Entry::HoldStarted(started)) => Line::Held(started.hold_id.clone()),
                Some(Entry::Ended(ended)) => {
                    self.end(session, ended.end.as_ref())?;
                    continue;
                }
                _ => continue,
            };
            lines.push((at, line));
        }
        // One change may be several lines of one instant, in an order of its own.
        let of_kind = |lines: &[(Ns, Line)], kind: &Line| -> Vec<(Ns, Line)> {
            let same = |line: &Line| std::mem::discriminant(line) == std::mem::discriminant(kind);
            lines.iter().filter(|(_, line)| same(line)).cloned().collect()
        };
        for (_, kind) in session.story.lines.iter().chain(&lines) {
            let (told_of, happened) = (of_kind(&lines, kind), of_kind(&session.story.lines, kind));
            let complete = told.history_dropped_count > 0 || told_of.len() == happened.len();
            if !happened.ends_with(&told_of) || !complete {
                return Err(broken(
                    "ADMIN",
                    format!("{name}: the explanation tells of {told_of:?}; what happened is {happened:?}"),
                ));
            }
        }
        let tallies = told.tallies.iter();
        let tallies = tallies.map(|tally| ((tally.rule.as_str(), tally.counted), tally.touch_count));
        let tallies: Vec<_> = tallies
            .collect::<std::collections::BTreeMap<_, _>>()
            .into_iter()
            .collect();
        let touches: Vec<_> = session
            .story
            .touches
            .iter()
            .map(|(rule, count)| (*rule, *count))
            .collect();
        if tallies != touches {
            return Err(broken(
                "ADMIN",
                format!("{name}: the explanation counts {tallies:?}; the touches were {touches:?}"),
            ));
        }
        Ok(())
    }

    pub(super) fn stats(
        &mut self,
        request: &v1::GetStatsRequest,
        told: Told<'_, v1::GetStatsResponse>,
    ) -> Result<(), Violation> {
        let answer = told.map_err(|refused| unfit("stats", refused))?;
        let moment = self.moment;
        let filter = v1::SessionFilter {
            tenant: request.tenant.clone(),
            ..Default::default()
        };
        // Who counts ends what is over.
        self.of_filter(&filter, true)?;
        let (live, _) = self.of_filter(&filter, false)?;
        let live: Vec<&Session> = live.iter().filter_map(|reference| self.get(reference)).collect();
        let count = |is: &dyn Fn(&Session) -> bool| live.iter().filter(|session| is(session)).count() as u64;
        let of_state = |state| {
            let counts = answer.states.iter().filter(|count| count.state() == state);
            counts.map(|count| count.session_count).sum::<u64>()
        };
        let (active, expiring) = (of_state(SessionState::Active), of_state(SessionState::Expiring));
        let surely = count(&|session| session.enforced() && session.shows_expiring(moment));
        let perhaps = count(&|session| !session.enforced() || session.shows_expiring(moment));
        let ignored = |session: &Session, at: Option<Ns>| at.is_some_and(|at| at > session.activity);
        let ghosts = count(&|session| ignored(session, session.story.ignored));
        let with_stale = count(&|session| ignored(session, session.story.ignored.max(session.story.stale)));
        let working = count(&|session| session.holds.values().any(|hold| hold.work && hold.until > moment.now));
        let over = |session: &Session| session.deadlines(moment).expire().0 <= moment.now;
        let unenforced = count(&|session| !session.enforced() && (session.noted.is_some() || over(session)));
        let right = active + expiring == live.len() as u64
            && (surely..=perhaps).contains(&expiring)
            && (ghosts..=with_stale).contains(&answer.ghost_session_count)
            && answer.working_session_count == working
            && answer.unenforced_end_count == unenforced;
        if !right {
            let live = live.len();
            // More than there are can only be others'.
            let guarantee = if active + expiring > live as u64 {
                "G17"
            } else {
                "ADMIN"
            };
            return Err(broken(
                guarantee,
                format!(
                    "{answer:?}: {live} live, expiring {surely} to {perhaps}, ghosts {ghosts} to {with_stale}, \
                     working {working}, unenforced {unenforced}"
                ),
            ));
        }
        for told in &answer.reasons {
            let reason = told.reason();
            let of_reason = |session: &&Session| {
                let end = session.end.as_ref();
                session.tenant == request.tenant && end.is_some_and(|end| end.reason == reason)
            };
            let memories: Vec<_> = self
                .all()
                .filter(of_reason)
                .map(|session| session.memory(moment.now))
                .collect();
            let least = memories.iter().filter(|(must, _)| *must).count() as u64;
            let most = memories.iter().filter(|(_, gone)| !*gone).count() as u64;
            if !(least..=most).contains(&told.session_count) {
                let count = told.session_count;
                return Err(broken(
                    "ADMIN",
                    format!("{count} ends by {reason:?} are counted; there are {least} to {most}"),
                ));
            }
        }
        Ok(())
    }

    /// The sessions that match a filter: those that must be told, and those that may.
    fn of_filter(
        &mut self,
        filter: &v1::SessionFilter,
        ended_too: bool,
    ) -> Result<(BTreeSet<String>, BTreeSet<String>), Violation> {
        let now = self.moment.now;
        let matching = self.all().filter(|session| {
            let subject = filter.subject.is_empty() || session.subject == filter.subject;
            session.tenant == filter.tenant && subject && !session.memory(now).1
        });
        let matching: Vec<String> = matching.map(|session| session.reference.clone()).collect();
        let (mut must, mut may) = (BTreeSet::new(), BTreeSet::new());
        for reference in matching {
            let Some(mut judged) = self.get(&reference).cloned() else {
                continue;
            };
            let was_live = judged.end.is_none();
            judged.pass_time(self.moment)?;
            if was_live && judged.end.is_some() {
                // Its time has just passed. Whoever only wants live ones passes it over, and the driver ends it.
                if !ended_too {
                    continue;
                }
                self.now(&reference)?;
            }
            let Some(session) = self.get(&reference) else { continue };
            let (surely, gone) = session.memory(now);
            if session.end.is_none() || (ended_too && !gone) {
                may.insert(reference.clone());
                if session.end.is_none() || surely {
                    must.insert(reference);
                }
            }
        }
        Ok((must, may))
    }

    fn all(&self) -> impl Iterator<Item = &Session> {
        let unchanged = self.model.sessions.iter();
        let unchanged = unchanged.filter(|(reference, _)| !self.changed.contains_key(*reference));
        unchanged.map(|(_, session)| session).chain(self.changed.values())
    }

    /// A session and those that went on in its place, as far as that is remembered: each with whether it must be, or is
    /// forgotten.
    fn chain(&mut self, reference: String) -> Result<Vec<(String, (bool, bool))>, Violation> {
        let now = self.moment.now;
        let mut chain = Vec::new();
        let mut next = Some(reference);
        let mut surely = true;
        while let Some(reference) = next.take() {
            self.now(&reference)?;
            let Some(session) = self.get(&reference) else { break };
            let (must, gone) = session.memory(now);
            surely &= must;
            let successor = session.end.as_ref().map(|end| end.successor.clone());
            next = successor.filter(|name| !name.is_empty() && !gone);
            chain.push((reference, (surely, gone)));
        }
        Ok(chain)
    }
}

fn ref_of(session: &v1::Session) -> String {
    let status = session.status.as_ref();
    status.map(|status| status.session_ref.clone()).unwrap_or_default()
}

/// What is told of each session once, of all that must be, and of none that may not.
fn compare(what: &str, told: &[String], must: &BTreeSet<String>, may: &BTreeSet<String>) -> Result<(), Violation> {
    let once: BTreeSet<String> = told.iter().cloned().collect();
    if once.len() != told.len() {
        return Err(broken("ADMIN", format!("{what} tells of a session twice: {told:?}")));
    }
    if let Some(missing) = must.difference(&once).next() {
        return Err(broken("ADMIN", format!("{what} does not tell of {missing}")));
    }
    match once.difference(may).next() {
        None => Ok(()),
        Some(other) => Err(broken(
            "G17",
            format!("{what} tells of {other}: not known any more, of another tenant, or not asked for"),
        )),
    }
}
