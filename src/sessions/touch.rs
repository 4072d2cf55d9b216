//! Touch, the hot verb: find the session, judge whether it counts, raise its pulse.

use std::{sync::Arc, time::Duration};

use super::{Error, Examined, Name, PLAIN, Sessions, Status, TouchAnswer, TouchResult, resolve::Resolved};
use crate::{
    state::{Activity, Command, Hints, Limits, Moment, Pulse, Reply, Touched, View},
    store::Session,
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
        let answer = self.touch_uncounted(name, activity, hints, ago).await;
        let touches = &self.meter.touches;
        match &answer {
            Ok(answer) => match answer.result {
                TouchResult::Counted => touches.counted.inc(),
                TouchResult::Ignored => touches.ignored.inc(),
                TouchResult::Stale => touches.stale.inc(),
            },
            Err(Error::Ended(..)) => touches.ended.inc(),
            Err(Error::Unknown(_)) => touches.unknown.inc(),
            Err(_) => 0,
        };
        answer
    }

    async fn touch_uncounted(
        &self,
        name: Name<'_>,
        activity: Activity,
        hints: Option<&Hints<'_>>,
        ago: Duration,
    ) -> Result<TouchAnswer, Error> {
        let reference = self.session_ref(name);
        let moment = self.moment();
        let resolved = match self.memory.get(reference) {
            Some(session) => Resolved { session, alias: false },
            None => self.live(name, reference).await?,
        };
        let session = &resolved.session;
        let limits = session.limits();
        if limits.passive && limits.enforced && hints.is_some_and(|hints| writes(hints)) {
            // An end is told first.
            let reference = session.reference();
            return Err(match self.examine(Arc::clone(session)).await? {
                Examined::Live(_) => Error::ReadOnly(reference),
                Examined::Ended(tombstone) => Error::Ended(reference, tombstone),
            });
        }
        let reports_input = || session.read(|view| view.rest.reports_input());
        let verdict = limits.rules.judge(activity, hints, reports_input, limits.unmatched);
        let input_report = verdict.counts && hints.is_some_and(|hints| hints.input_report);
        let newer = || self.newer(&limits).filter(|_| verdict.counts);
        let plain = !(limits.superseded.is_set() && verdict.counts) && !(input_report && !reports_input());
        while plain {
            let seen = session.pulse();
            let (result, pulse) = match seen.touch(session.origin(), &limits, ago, moment) {
                Touched::Dead | Touched::Slow => break,
                Touched::Raised(_) | Touched::Stale if !verdict.counts => (TouchResult::Ignored, seen),
                Touched::Stale => (TouchResult::Stale, seen),
                Touched::Raised(raised) => (TouchResult::Counted, raised),
            };
            // Nothing to raise is nothing to swap; and whoever loses the race looks again.
            if pulse == seen || session.swap_pulse(seen, pulse) {
                session.tally(&verdict.rule, result == TouchResult::Counted, moment.now);
                let mut status = plain_status(session, &limits, pulse, moment);
                status.alias = resolved.alias;
                return Ok(TouchAnswer {
                    status,
                    result,
                    rule: verdict.rule,
                });
            }
        }
        let command = Command::Touch {
            counts: verdict.counts,
            user: verdict.user,
            input_report,
            ago,
            newer: newer(),
        };
        drop(limits);
        let acted = self.act(resolved, &command, moment).await?;
        let result = match acted.reply {
            Reply::Counted => TouchResult::Counted,
            Reply::Stale => TouchResult::Stale,
            _ => TouchResult::Ignored,
        };
        let counted = result == TouchResult::Counted;
        acted.session.tally(&verdict.rule, counted, moment.now);
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

/// Whether a request may change something.
fn writes(hints: &Hints<'_>) -> bool {
    !hints.method.is_empty() && !SAFE_METHODS.contains(&hints.method)
}

/// The status of a session on which only its pulse has a say.
fn plain_status(session: &Session, limits: &Arc<Limits>, pulse: Pulse, moment: Moment) -> Status {
    let view = View {
        origin: session.origin(),
        limits,
        pulse,
        rest: &PLAIN,
        version: session.version(),
    };
    Status::live(session.reference(), &view, moment)
}
