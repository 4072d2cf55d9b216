//! Touch, the hot verb: find the session, judge whether it counts, raise its pulse.

use std::{sync::Arc, time::Duration};

use super::{Error, Examined, Name, PLAIN, Sessions, Status, TouchAnswer, TouchResult};
use crate::{
    sabotage::{self, Fault},
    state::{Activity, Command, Hints, Limits, Moment, Pulse, Reply, RuleName, SessionRef, Touched, Verdict, View},
    store::{Found, Raised, Session},
};

/// Methods that only read (RFC 9110 section 9.2.1).
const SAFE_METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];

impl Sessions {
    /// Reports activity.
    pub async fn touch(
        &self,
        name: Name<'_>,
        activity: Activity,
        hints: Option<&Hints<'_>>,
        ago: Duration,
    ) -> Result<TouchAnswer, Error> {
        let moment = self.moment();
        let known = self.at_hand(name, moment.now);
        let plain = known.and_then(|session| {
            let (answer, first) = touch_plainly(&session, activity, hints, ago, moment)?;
            if first {
                self.store.touched(&session);
            }
            Some(answer)
        });
        let answer = match plain {
            Some(answer) => Ok(answer),
            // In a box: the short way should not pay for the size of the long one.
            None => Box::pin(self.touch_known(name, activity, hints, ago, moment)).await,
        };
        let touches = &self.meter.touches;
        match &answer {
            Ok(answer) => match answer.result {
                TouchResult::Counted => touches.counted.inc(),
                TouchResult::Ignored => touches.ignored.inc(),
                TouchResult::Stale => touches.stale.inc(),
                TouchResult::Pending => touches.pending.inc(),
            },
            Err(Error::Ended(..)) => touches.ended.inc(),
            Err(Error::Unknown { .. }) => touches.unknown.inc(),
            Err(_) => 0,
        };
        answer
    }

    /// A touch of a session that is not at hand, or on which more than the pulse has a say.
    async fn touch_known(
        &self,
        name: Name<'_>,
        activity: Activity,
        hints: Option<&Hints<'_>>,
        ago: Duration,
        moment: Moment,
    ) -> Result<TouchAnswer, Error> {
        let reference = self.known_as(name).await?;
        match self.touch_slowly(name, reference, activity, hints, ago, moment).await {
            Err(Error::Unavailable(_)) => self.touch_locally(reference, activity, hints, ago, self.moment()),
            answer => answer,
        }
    }

    /// The state machine decides.
    async fn touch_slowly(
        &self,
        name: Name<'_>,
        reference: SessionRef,
        activity: Activity,
        hints: Option<&Hints<'_>>,
        ago: Duration,
        moment: Moment,
    ) -> Result<TouchAnswer, Error> {
        let resolved = match self.live(name, reference).await {
            Err(Error::Ended(reference, tombstone)) if sabotage::on(Fault::TouchAfterEnd) => {
                return Ok(TouchAnswer {
                    status: Status::ended(reference, &tombstone, self.clock.now()),
                    result: TouchResult::Counted,
                    rule: RuleName::DeclaredUser,
                });
            }
            resolved => resolved?,
        };
        let limits = Arc::clone(&resolved.session.limits());
        if limits.passive && limits.enforced && hints.is_some_and(writes) {
            let reference = resolved.session.reference();
            // An end is told first.
            return Err(match self.examine(resolved.session, moment).await? {
                Examined::Live(_) => Error::ReadOnly(reference),
                Examined::Ended(tombstone) => Error::Ended(reference, tombstone),
            });
        }
        let verdict = judge(&resolved.session, &limits, activity, hints);
        // A touch that comes late brings no limits by which the session would be over, or warned of, already.
        let is_near = |newer: &Arc<Limits>| {
            let own = limits.own_idle_timeout.unwrap_or(newer.idle_timeout);
            ago < newer.idle_timeout.min(own) / 2
        };
        let command = Command::Touch {
            counts: verdict.counts,
            user: verdict.user,
            input_report: verdict.counts && hints.is_some_and(|hints| hints.input_report),
            ago,
            newer: self.newer(&limits).filter(|newer| verdict.counts && is_near(newer)),
        };
        let mut resolved = resolved;
        let plain = command.raises_only() && !ago_is_stale(&resolved.session, ago, moment);
        if plain && !limits.superseded.is_set() {
            match self.store.raise(&resolved.session, ago, moment.now).await? {
                Raised::Done(session) => {
                    if session.tally(&verdict.rule, true, session.pulse().last_activity(), moment.now) {
                        self.store.touched(&session);
                    }
                    let mut status = session.read(|view| Status::live(session.reference(), view, moment));
                    status.alias = resolved.alias;
                    return Ok(TouchAnswer {
                        status,
                        result: TouchResult::Counted,
                        rule: verdict.rule,
                    });
                }
                // What has ended is for the machine too: it may go on by another name.
                Raised::Decide(Found::Live(session)) => resolved.session = session,
                Raised::Decide(_) => resolved = self.live(name, reference).await?,
            }
        }
        let before = resolved.session.pulse().last_activity();
        let acted = self.act(resolved, &command, moment).await?;
        let result = match acted.reply {
            Reply::Counted => TouchResult::Counted,
            Reply::Stale => TouchResult::Stale,
            _ => TouchResult::Ignored,
        };
        let counted = result == TouchResult::Counted;
        if acted.session.tally(&verdict.rule, counted, before, moment.now) {
            self.store.touched(&acted.session);
        }
        Ok(TouchAnswer {
            status: acted.status,
            result,
            rule: verdict.rule,
        })
    }

    /// The limits of a newer revision of the policy, if there is one.
    pub(super) fn newer(&self, limits: &Limits) -> Option<Arc<Limits>> {
        if !limits.superseded.is_set() {
            return None;
        }
        self.policies.current(&limits.policy)
    }
}

/// A touch on which only the pulse has a say; `None` if more has.
fn touch_plainly(
    session: &Session,
    activity: Activity,
    hints: Option<&Hints<'_>>,
    ago: Duration,
    moment: Moment,
) -> Option<(TouchAnswer, bool)> {
    loop {
        // In this order: limits that are exchanged after the pulse was read mark it, and the swap fails.
        let version = session.version();
        let seen = session.pulse();
        let limits = session.limits();
        if limits.superseded.is_set() || limits.passive || hints.is_some_and(|hints| hints.input_report) {
            return None;
        }
        let verdict = judge(session, &limits, activity, hints);
        let (result, pulse) = match seen.touch(session.origin(), &limits, ago, moment) {
            Touched::Dead | Touched::Slow => return None,
            Touched::Raised(_) | Touched::Stale if !verdict.counts => (TouchResult::Ignored, seen),
            Touched::Stale if session.covers(ago, moment.now) => (TouchResult::Counted, seen),
            Touched::Stale => (TouchResult::Stale, seen),
            Touched::Raised(raised) => (TouchResult::Counted, raised),
        };
        // Nothing to raise is nothing to swap; and whoever loses the race looks again.
        if pulse == seen || session.swap_pulse(seen, pulse) {
            let counted = result == TouchResult::Counted;
            let first = session.tally(&verdict.rule, counted, seen.last_activity(), moment.now);
            // Unless an activity of the same instant exchanged them, which leaves the pulse as it was and raises the version.
            let version_now = session.version();
            let limits = if version_now == version {
                limits
            } else {
                session.limits()
            };
            let answer = TouchAnswer {
                status: plain_status(session, &limits, pulse, version_now, moment),
                result,
                rule: verdict.rule,
            };
            return Some((answer, first));
        }
    }
}

/// Whether later activity than so long ago is known.
fn ago_is_stale(session: &Session, ago: Duration, moment: Moment) -> bool {
    !ago.is_zero() && moment.now - ago < session.pulse().last_activity() && !session.covers(ago, moment.now)
}

/// Whether a touch counts.
pub(super) fn judge(session: &Session, limits: &Limits, activity: Activity, hints: Option<&Hints<'_>>) -> Verdict {
    let reports_input = || session.read(|view| view.rest.reports_input());
    limits.rules.judge(activity, hints, reports_input, limits.unmatched)
}

/// Whether a request may change something.
fn writes(hints: &Hints<'_>) -> bool {
    !hints.method.is_empty() && !SAFE_METHODS.contains(&hints.method)
}

/// The status of a session on which only its pulse has a say.
fn plain_status(session: &Session, limits: &Arc<Limits>, pulse: Pulse, version: u32, moment: Moment) -> Status {
    let view = View {
        origin: session.origin(),
        limits,
        pulse,
        rest: &PLAIN,
        version,
        lead: Duration::ZERO,
    };
    Status::live(session.reference(), &view, moment)
}
