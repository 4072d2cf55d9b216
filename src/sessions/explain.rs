//! "Why was I logged out?": what is kept of a session's life, and the answer in a sentence.

use std::sync::{Arc, atomic::Ordering};

use super::{Error, Report, Sessions};
use crate::{
    event::Event,
    state::{Actor, EndReason, Happening, HoldKind, Limit, SessionRef, Tombstone},
    store::{Extent, Found, Seen, Story, Tally},
    time::{Clock, Time},
};

/// Which sessions to explain.
pub enum Target {
    /// This one and, if it was rotated, those that went on in its place.
    Id(SessionRef),
    /// This one.
    Ref(SessionRef),
    /// A person's.
    Subject(String, Period),
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// From when on. Unset: as far back as is remembered.
    pub from: Option<Time>,
    /// Until when. Unset: now.
    pub until: Option<Time>,
}

/// What is kept of one session's life.
pub struct Explanation {
    /// The session as it is now.
    pub report: Report,
    /// What happened, and what its touches came to.
    pub story: Story,
    /// Whether the person authenticated anew when it took the place of another one; unset if it did not take one.
    pub began_reauthenticated: Option<bool>,
    /// The answer.
    pub summary: String,
}

/// How many sessions are explained at once.
const MOST: usize = 100;

impl Sessions {
    /// Explains sessions, the latest first. Answers also whether there were more than fit.
    pub async fn explain(&self, tenant: &str, target: Target) -> Result<(Vec<Explanation>, bool), Error> {
        let mut reports = Vec::new();
        match target {
            Target::Ref(reference) => reports.push(self.report(tenant, reference).await?),
            Target::Id(reference) => {
                for name in self.with_successors(tenant, reference).await? {
                    reports.push(self.report(tenant, name).await?);
                }
            }
            Target::Subject(subject, period) => {
                for reference in self.ever_of_subject(tenant, subject.clone()).await? {
                    let report = self.report(tenant, reference).await?;
                    let now = report.status.now;
                    if report.details.as_ref().is_some_and(|details| {
                        let end = details.end.as_ref().map_or(now, |tombstone| tombstone.end.at);
                        details.origin.identity.subject() == subject
                            && details.origin.created <= period.until.unwrap_or(now)
                            && period.from.is_none_or(|from| end >= from)
                    }) {
                        reports.push(report);
                    }
                }
            }
        }
        reports.retain(|report| report.details.is_some());
        reports.sort_by_key(|report| std::cmp::Reverse(latest(report)));
        let truncated = reports.len() > MOST;
        reports.truncate(MOST);
        let mut explained = Vec::with_capacity(reports.len());
        for report in reports {
            explained.push(self.explained(report).await?);
        }
        Ok((explained, truncated))
    }

    /// The live and the remembered sessions that may be a subject's.
    async fn ever_of_subject(&self, tenant: &str, subject: String) -> Result<Vec<SessionRef>, Error> {
        // Live ones first: what ends meanwhile is then among the ended ones.
        let mut refs = self.store.of_subject(tenant, &subject).await?;
        let extent = Extent {
            after: None,
            live: false,
            ended: true,
            most: usize::MAX,
        };
        let tenant = tenant.to_owned();
        let wanted = move |seen: &Seen<'_>| match seen {
            Seen::Live(_) => false,
            Seen::Ended(_, tombstone) => {
                let identity = &tombstone.origin.identity;
                identity.tenant() == tenant && identity.subject() == subject
            }
        };
        refs.extend(self.store.scan(extent, Arc::new(wanted)).await?);
        refs.sort_unstable();
        refs.dedup();
        Ok(refs)
    }

    async fn explained(&self, report: Report) -> Result<Explanation, Error> {
        let mut story = self.store.story(report.status.reference).await?;
        story.tallies.sort_by_key(|tally| tally.first);
        let end = report.details.as_ref().and_then(|details| details.end.as_ref());
        if let Some(end) = end.filter(|_| self.store.is_shared()) {
            end.told.store(story.end_told, Ordering::Relaxed);
        }
        let summary = summary(&report, &story, &self.clock);
        Ok(Explanation {
            began_reauthenticated: self.began_reauthenticated(&report).await?,
            report,
            story,
            summary,
        })
    }

    async fn began_reauthenticated(&self, report: &Report) -> Result<Option<bool>, Error> {
        let Some(details) = &report.details else {
            return Ok(None);
        };
        let origin = &details.origin;
        let Some(predecessor) = origin.identity.predecessor() else {
            return Ok(None);
        };
        Ok(Some(match self.store.find(predecessor).await? {
            Found::Ended(tombstone) => tombstone.successor.is_some_and(|next| next.reauthenticated),
            // Forgotten: only a new authentication can be younger than the session.
            _ => origin.authenticated > origin.created,
        }))
    }
}

/// By when the latest come first: live ones, then those that ended last.
fn latest(report: &Report) -> (Time, Option<Time>) {
    let end = report.details.as_ref().and_then(|details| details.end.as_ref());
    let created = report.details.as_ref().map(|details| details.origin.created);
    (end.map_or(Time::FAR, |tombstone| tombstone.end.at), created)
}

/// An end reason as the rest of a sentence that begins with "It ended".
#[must_use]
pub fn reason_in_words(reason: EndReason) -> &'static str {
    match reason {
        EndReason::IdleTimeout => "by inactivity",
        EndReason::AbsoluteTimeout => "because the longest time since login had passed",
        EndReason::BrowserClosed => "because its browser was closed or out of reach",
        EndReason::Logout => "by logout",
        EndReason::Revoked => "because it was revoked",
        EndReason::Superseded => "because a newer session of the same person took its place",
        EndReason::Rotated => "under this name only: it was given a new id and goes on",
    }
}

/// The answer in a sentence, for somebody on the telephone.
#[must_use]
fn summary(report: &Report, story: &Story, clock: &Clock) -> String {
    let Some(details) = &report.details else {
        return "Not known here: it never existed, or ended longer ago than is remembered.".to_owned();
    };
    let now = report.status.now;
    let ended = details.end.as_deref();
    let teller = Teller {
        clock,
        day: day(clock, ended.map_or(now, |tombstone| tombstone.end.at)),
    };
    let mut clauses = Vec::new();
    let head = match ended {
        Some(tombstone) => format!("Ended on {} at {}", teller.day, teller.ended(tombstone)),
        None => format!("Live on {} at {}", teller.day, teller.live(report, details.unenforced)),
    };
    let last = details.last_activity;
    let by_time = ended.is_none_or(|tombstone| tombstone.end.actor == Actor::Policy);
    if by_time {
        clauses.push(format!("the last counted activity was at {}", teller.time(last)));
        clauses.extend(ignored(&teller, &story.tallies, last));
        clauses.extend(work(&teller, &story.events, last));
        clauses.extend(extended(&teller, &story.events, last));
    }
    let timeout =
        ended.is_some_and(|end| matches!(end.end.reason, EndReason::IdleTimeout | EndReason::AbsoluteTimeout));
    clauses.extend(warned(&story.events, last, timeout));
    if let Some(tombstone) = ended.filter(|end| end.end.actor != Actor::User) {
        let told = tombstone.told.load(Ordering::Relaxed);
        clauses.push(format!("the end was sent to {}", count(u64::from(told), "watcher")));
    }
    if clauses.is_empty() {
        return format!("{head}.");
    }
    format!("{head}: {}.", clauses.join("; "))
}

/// Tells times of day; the date only where it is another one.
struct Teller<'a> {
    clock: &'a Clock,
    day: String,
}

fn day(clock: &Clock, at: Time) -> String {
    let full = humantime::format_rfc3339_seconds(clock.wall(at)).to_string();
    full.split('T').next().unwrap_or_default().to_owned()
}

impl Teller<'_> {
    fn time(&self, at: Time) -> String {
        let full = humantime::format_rfc3339_seconds(self.clock.wall(at)).to_string();
        let (day, time) = full.split_once('T').unwrap_or(("", &full));
        let time = time.trim_end_matches('Z');
        if day == self.day {
            return time.to_owned();
        }
        format!("{time} on {day}")
    }

    fn ended(&self, tombstone: &Tombstone) -> String {
        let end = &tombstone.end;
        let mut head = format!("{} UTC {}", self.time(end.at), reason_in_words(end.reason));
        let limits = &tombstone.limits;
        match end.reason {
            EndReason::IdleTimeout => head += &format!(" ({})", humantime::format_duration(limits.idle_timeout)),
            EndReason::AbsoluteTimeout => {
                head += &format!(" ({})", humantime::format_duration(limits.absolute_timeout));
            }
            EndReason::Rotated => {
                if let Some(next) = tombstone.successor {
                    head += &format!(" as {}", next.reference);
                }
            }
            EndReason::Logout | EndReason::Revoked => {
                head += match end.actor {
                    Actor::User => ", by the person",
                    Actor::Admin => ", by an administrator",
                    Actor::Policy => ", by a policy",
                    Actor::System => ", by a program",
                };
                if !end.actor_id.is_empty() {
                    head += &format!(" ({})", end.actor_id);
                }
                if !end.note.is_empty() {
                    head += &format!(", who noted {:?}", end.note);
                }
            }
            EndReason::BrowserClosed | EndReason::Superseded => {}
        }
        head
    }

    fn live(&self, report: &Report, unenforced: Option<(Limit, Time)>) -> String {
        let mut head = format!("{} UTC", self.time(report.status.now));
        if let Some((limit, at)) = unenforced {
            head += &format!(
                ", though it would have ended at {} {} if its policy were enforced",
                self.time(at),
                reason_in_words(limit.into())
            );
        } else if let (Some(at), Some(limit)) = (report.status.expire, report.status.limit) {
            let (at, why) = (self.time(at), reason_in_words(limit.into()));
            head += &if report.status.observed_only {
                format!(", and would end at {at} {why} if its policy were enforced")
            } else {
                format!(", and will end at {at} {why}")
            };
        }
        head
    }
}

/// What was ignored since the last counted activity, by rule: most often this is the answer.
fn ignored<'a>(teller: &Teller<'_>, tallies: &'a [Tally], last: Time) -> impl Iterator<Item = String> + use<'a> {
    let told: Vec<String> = tallies
        .iter()
        .filter(|tally| !tally.counted && tally.last > last)
        .map(|tally| {
            let requests = count(u64::from(tally.count), "request");
            if tally.first > last {
                return format!("{requests} since did not count (rule {})", tally.rule);
            }
            let latest = teller.time(tally.last);
            format!(
                "{requests} did not count, the last one at {latest} (rule {})",
                tally.rule
            )
        })
        .collect();
    told.into_iter()
}

fn work(teller: &Teller<'_>, events: &[Arc<Event>], last: Time) -> Option<String> {
    let ends = events.iter().filter_map(|event| match &event.what {
        Happening::HoldEnded { hold, at, .. } if hold.kind == HoldKind::Work && *at > last => Some((*at, hold)),
        _ => None,
    });
    let (at, hold) = ends.max_by_key(|(at, _)| *at)?;
    let purpose = if hold.purpose.is_empty() {
        String::new()
    } else {
        format!(" ({})", hold.purpose)
    };
    Some(format!("work{purpose} held it until {}", teller.time(at)))
}

fn extended(teller: &Teller<'_>, events: &[Arc<Event>], last: Time) -> Option<String> {
    let extensions = || {
        let since = events.iter().filter(move |event| event.at >= last);
        since.filter(|event| matches!(event.what, Happening::Extended { .. }))
    };
    let latest = extensions().next_back()?;
    let times = count(extensions().count() as u64, "time");
    Some(format!(
        "it was extended {times}, the last at {}",
        teller.time(latest.at)
    ))
}

/// How many warnings went to how many watchers since the last counted activity.
fn warned(events: &[Arc<Event>], last: Time, must_say: bool) -> Option<String> {
    let since = events.iter().filter(|event| event.at > last);
    let warnings: Vec<u32> = since
        .filter(|event| matches!(event.what, Happening::Warning { .. }))
        .map(|event| event.told.load(Ordering::Relaxed))
        .collect();
    let (Some(fewest), Some(most)) = (warnings.iter().min(), warnings.iter().max()) else {
        return must_say.then(|| "no warning was due".to_owned());
    };
    let warned = count(warnings.len() as u64, "warning");
    let each = if warnings.len() > 1 { " each" } else { "" };
    Some(match (*fewest, *most) {
        (_, 0) => format!("{warned} reached nobody, for no watcher was there"),
        (same, most) if same == most => format!("{warned} went to {}{each}", count(u64::from(most), "watcher")),
        (fewest, most) => format!("{warned} went to {fewest} to {most} watchers each"),
    })
}

fn count(number: u64, of: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {of}{plural}")
}
