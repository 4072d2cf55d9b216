//! The state machine: `(record, command, moment) → (record', what happened)`.

mod command;
mod hold;
mod next;
mod rotate;

use std::{sync::Arc, time::Duration};

pub use command::{Command, Decision, Refusal, Reply};
pub use next::Next;
pub use rotate::{Rotation, Successor};

use super::{
    end::{Actor, End},
    happening::{Cause, Happening},
    policy::Limits,
    pulse::{Pulse, Touched},
    record::{Asked, Limit, Moment, Origin, Outcome, Recalled},
    view::View,
};
use crate::{
    sabotage::{self, Fault},
    time::Time,
};

use next::HowEnded;

/// Decides a command. Time comes first: a deadline that has passed has passed for every command (G2).
#[must_use]
pub fn decide(view: &View<'_>, command: &Command, moment: Moment) -> Decision {
    if let Some(tombstone) = view.rest.end() {
        return refused(Refusal::Ended(Arc::clone(tombstone)));
    }
    let origin = view.origin;
    let mut next = Next::after(view);
    let (expire, limit) = view.deadlines(moment).expire();
    let unnoticed = sabotage::on(Fault::CallsWaitForDriver) && !matches!(command, Command::Judge);
    let over = moment.now >= expire && !unnoticed;
    if over && view.limits.enforced {
        // Whoever comes first ends it, and a warning that was not pushed yet precedes the end (G3).
        next.lapse(Moment::at(expire));
        next.warn(origin, Moment::at(expire));
        let tombstone = next.end(origin, timeout(limit, expire), moment.now, HowEnded::default());
        return Decision {
            next: Some(next),
            reply: match command {
                Command::Judge => Ok(Reply::Judged),
                _ => Err(Refusal::Ended(tombstone)),
            },
        };
    }
    next.lapse(moment);
    if over {
        next.observe(origin, expire, limit, moment);
    }
    let mut reply = match command {
        Command::Judge => Ok(next.judge(origin, moment)),
        Command::Touch { counts: false, .. } => Ok(Reply::Ignored),
        Command::Touch {
            user,
            input_report,
            ago,
            newer,
            ..
        } => Ok(next.touch(view, *user, *input_report, *ago, newer.as_ref(), moment)),
        Command::Extend { wanted, request, newer } => next.extend(view, *wanted, *request, newer.as_ref(), moment),
        Command::Hold(wish) => next.hold(view, wish, moment),
        Command::Release { id } => Ok(next.release(view, id, moment)),
        Command::Rotate(rotation) => next.rotate(view, rotation, moment),
        Command::End { end, request } => next.end_now(view, end, *request, moment),
    };
    if next.limits.enforced && !view.limits.enforced {
        // The policy is enforced from this activity on: what is past its absolute deadline has no time left.
        let (expire, limit) = next.view(origin).deadlines(moment).expire();
        if moment.now >= expire {
            let end = timeout(limit, expire);
            reply = Err(Refusal::Ended(next.end(origin, end, moment.now, HowEnded::default())));
        }
    }
    next.settle();
    let changed = next.pulse != view.pulse || next.version != view.version;
    Decision {
        next: changed.then_some(next),
        reply,
    }
}

impl Next {
    fn judge(&mut self, origin: &Origin, moment: Moment) -> Reply {
        if self.rest.unenforced().is_some() && self.view(origin).forgotten_at() <= moment.now {
            let (limit, at) = self.rest.unenforced().unwrap_or((Limit::Idle, moment.now));
            let silent = HowEnded {
                silent: true,
                ..HowEnded::default()
            };
            self.end(origin, timeout(limit, at), moment.now, silent);
        } else {
            self.warn(origin, moment);
        }
        Reply::Judged
    }

    fn touch(
        &mut self,
        view: &View<'_>,
        user: bool,
        input_report: bool,
        ago: Duration,
        newer: Option<&Arc<Limits>>,
        moment: Moment,
    ) -> Reply {
        let Touched::Raised(pulse) = view.pulse.raise(view.origin.created, ago, moment) else {
            return Reply::Stale;
        };
        let before = view.plain_deadlines();
        self.raised(pulse);
        self.active(user, newer, view.origin, moment);
        if self.rest.extensions > 0 {
            self.rest.extensions = 0;
            self.happened(Happening::ExtensionsReset);
        }
        if input_report && !self.rest.reports_input() {
            self.rest.extra_mut().reports_input = true;
            self.happened(Happening::InputReported);
        }
        self.revive(view.origin, moment);
        self.deadlines_moved(view.origin, before, Cause::Touched, moment);
        Reply::Counted
    }

    /// Activity is known exactly now, unless what was known reaches further.
    fn raised(&mut self, pulse: Pulse) {
        if pulse.last_activity() != self.pulse.last_activity() {
            self.lead = Duration::ZERO;
        }
        self.pulse = pulse;
    }

    fn extend(
        &mut self,
        view: &View<'_>,
        wanted: Option<Duration>,
        request: Option<Asked>,
        newer: Option<&Arc<Limits>>,
        moment: Moment,
    ) -> Result<Reply, Refusal> {
        match request.and_then(|request| view.rest.recall(request, moment.now)) {
            Some(Recalled::Same(Outcome::Extended { granted, clamped })) => {
                return Ok(Reply::Extended { granted, clamped });
            }
            Some(_) => return Err(Refusal::RequestIdReused),
            None => {}
        }
        let max = view.limits.max_extensions.filter(|_| view.limits.enforced);
        if let Some(max) = max.filter(|max| view.rest.extensions >= *max) {
            return Err(Refusal::ExtensionLimit { max });
        }
        let origin = view.origin;
        let before = view.plain_deadlines();
        let expire_before = view.deadlines(moment).expire().0;
        if let Touched::Raised(pulse) = view.pulse.raise(origin.created, Duration::ZERO, moment) {
            self.raised(pulse);
        }
        self.active(true, newer, origin, moment);
        let absolute = origin.absolute_deadline(&self.limits);
        let wanted_until = moment.now + self.limits.extension(wanted);
        let reach = if sabotage::on(Fault::ExtendPastAbsolute) {
            Time::FAR
        } else {
            absolute
        };
        // The deadline that stands, by a hold perhaps, is kept too: the Extend has answered it (G1).
        let until = before.idle.max(wanted_until).min(reach);
        self.rest.extra_mut().extended_until = Some(until);
        self.rest.extensions = self.rest.extensions.saturating_add(1);
        let granted = self.view(origin).deadlines(moment).expire().0.since(expire_before);
        let clamped = wanted_until > absolute;
        self.happened(Happening::Extended { granted, clamped });
        if let Some(asked) = request {
            self.rest
                .remember(asked.request, moment.now, Outcome::Extended { granted, clamped });
        }
        self.revive(origin, moment);
        self.deadlines_moved(origin, before, Cause::Extended, moment);
        Ok(Reply::Extended { granted, clamped })
    }

    fn end_now(
        &mut self,
        view: &View<'_>,
        end: &End,
        request: Option<Asked>,
        moment: Moment,
    ) -> Result<Reply, Refusal> {
        if request.is_some_and(|request| view.rest.recall(request, moment.now).is_some()) {
            return Err(Refusal::RequestIdReused);
        }
        let end = End {
            at: moment.now,
            ..end.clone()
        };
        let how = HowEnded {
            request: request.map(|asked| asked.request),
            ..HowEnded::default()
        };
        Ok(Reply::Ended(self.end(view.origin, end, moment.now, how)))
    }
}

/// The end that time brings.
fn timeout(limit: Limit, at: Time) -> End {
    End {
        reason: limit.into(),
        actor: Actor::Policy,
        actor_id: "".into(),
        note: "".into(),
        at,
    }
}

fn refused(refusal: Refusal) -> Decision {
    Decision {
        next: None,
        reply: Err(refusal),
    }
}
