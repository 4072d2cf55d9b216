//! Hold and Release.

use session_sidecar::rpc::proto::v1::{self, ClearedCause, EndReason, HoldClamp, HoldKind};

use super::{
    Violation, broken,
    limits::{FAR, hold_limits},
    model::Trial,
    session::{Hold, Line},
    verbs::{Told, expiring, unfit},
};
use crate::history::{MS, Ns, ns, span};

impl Trial<'_> {
    /// A hold that moved with a rotation may be renewed, and released, through the old id even after the grace, while it lives.
    pub(super) fn resolve_hold(&mut self, tenant: &str, id: &str, hold: &str) -> (String, bool) {
        let (reference, alias) = self.resolve(tenant, id).unwrap_or_default();
        let now = self.moment.now;
        let mut at = reference.clone();
        // The way on is in the tombstones.
        let forgotten = |trial: &Self, name: &str| trial.get(name).is_some_and(|session| session.memory(now).1);
        // The old id is good for holds that began while it led to the session.
        let mut led_until = FAR;
        while let Some(old) = self.get(&at).filter(|_| !forgotten(self, &at))
            && let Some(end) = old.end.as_ref().filter(|end| end.reason == EndReason::Rotated)
        {
            // At the moment of a Rotate it was still the name. A login cuts it off.
            let login = old.alias_until < end.at;
            led_until = led_until.min(if login { -FAR } else { old.alias_until.max(end.at + 1) });
            at = end.successor.clone();
        }
        if at != reference
            && self.get(&at).is_some_and(|session| {
                let held = session.live_hold(hold, now);
                held.is_some_and(|held| held.start < led_until) && session.is_live(self.moment)
            })
        {
            return (at, true);
        }
        (reference, alias)
    }

    pub(super) fn hold(
        &mut self,
        request: &v1::HoldRequest,
        told: Told<'_, v1::HoldResponse>,
    ) -> Result<(), Violation> {
        let moment = self.moment;
        let now = moment.now;
        let (reference, alias) = self.resolve_hold(&request.tenant, &request.session_id, &request.hold_id);
        let work = request.kind() == HoldKind::Work;
        let session = self.now(&reference)?;
        let Some(session) = session.filter(|session| session.end.is_none()) else {
            return match told {
                Ok(_) => Err(broken("G5", format!("{reference} is not live and was held"))),
                Err(refused) => self.not_live(&reference, &refused.reason),
            };
        };
        let spec = session.limits.spec.clone();
        let known = session.live_hold(&request.hold_id, now).cloned();
        let Some((max_ttl, max_live)) = hold_limits(&spec, work) else {
            return match told {
                Err(refused) if refused.reason == "PRESENCE_OFF" => Ok(()),
                other => Err(broken(
                    "API",
                    format!("{reference}: presence is off and the answer is {other:?}"),
                )),
            };
        };
        let budget_from = session.budget_from.unwrap_or(now);
        let budget = if work && spec.enforced {
            budget_from + spec.work_budget as Ns * MS - now
        } else {
            FAR
        };
        let live = session
            .holds
            .values()
            .filter(|hold| hold.work == work && hold.until > now)
            .count();
        let other_kind = known.as_ref().is_some_and(|hold| hold.work != work);
        let full = known.is_none() && live >= max_live;
        let answer = match told {
            Ok(answer) if !other_kind && !full && budget > 0 => answer,
            Ok(_) => {
                return Err(broken(
                    "G7",
                    format!("{reference}: a hold beyond what the policy allows was granted"),
                ));
            }
            Err(refused) => {
                let right = match refused.reason.as_str() {
                    "HOLD_KIND" => other_kind,
                    "HOLD_CAP" => full,
                    "HOLD_BUDGET" => budget <= 0,
                    _ => return self.not_live(&reference, &refused.reason),
                };
                return if right { Ok(()) } else { Err(unfit("hold", refused)) };
            }
        };
        let before = session.plain(now);
        let absolute = if spec.enforced || session.absolute > now {
            session.absolute - now
        } else {
            FAR
        };
        let wanted = ns(&request.ttl);
        let granted = wanted.min(max_ttl).min(budget).min(absolute);
        let until = known.as_ref().map_or(-FAR, |hold| hold.until).max(now + granted);
        let told_ttl = ns(&answer.granted_ttl);
        if told_ttl != until - now || answer.created != known.is_none() {
            return Err(broken(
                "G7",
                format!(
                    "{reference}: granted {} (created {}), expected {}",
                    span(told_ttl),
                    answer.created,
                    span(until - now)
                ),
            ));
        }
        let cut = match answer.clamped_by() {
            HoldClamp::Unspecified => wanted,
            HoldClamp::MaxTtl => max_ttl,
            HoldClamp::Budget => budget,
            HoldClamp::Absolute => absolute,
        };
        let is_cut = granted < wanted;
        if cut != granted || is_cut == (answer.clamped_by() == HoldClamp::Unspecified) {
            return Err(broken(
                "G7",
                format!(
                    "{reference}: a hold is said to be cut by {:?}; wanted {}, granted {}",
                    answer.clamped_by(),
                    span(wanted),
                    span(granted)
                ),
            ));
        }
        if work && session.budget_from.is_none() {
            session.budget_from = Some(now);
        }
        if known.is_none() {
            session.story.add(now, Line::Held(request.hold_id.clone()));
        }
        let start = known.map_or(now, |hold| hold.start);
        session
            .holds
            .insert(request.hold_id.clone(), Hold { work, until, start });
        session.moved(before, ClearedCause::Held, moment, expiring(&answer.status));
        self.status(&reference, &answer.status, alias)
    }

    pub(super) fn release(
        &mut self,
        request: &v1::ReleaseRequest,
        told: Told<'_, v1::ReleaseResponse>,
    ) -> Result<(), Violation> {
        let moment = self.moment;
        let (reference, alias) = self.resolve_hold(&request.tenant, &request.session_id, &request.hold_id);
        let session = self.now(&reference)?;
        let Some(session) = session.filter(|session| session.end.is_none()) else {
            return match told {
                Ok(_) => Err(broken(
                    "G5",
                    format!("{reference} is not live and a hold of it was released"),
                )),
                Err(refused) => self.not_live(&reference, &refused.reason),
            };
        };
        let answer = match told {
            Ok(answer) => answer,
            Err(refused) => return Err(unfit("release", refused)),
        };
        let before = session.plain(moment.now);
        let known = session.live_hold(&request.hold_id, moment.now).cloned();
        if answer.released != known.is_some() {
            return Err(broken("API", format!("{reference}: released is {}", answer.released)));
        }
        if let Some(hold) = known {
            session.holds.remove(&request.hold_id);
            session.hold_ended(&hold, moment.now, true);
            session.moved(before, ClearedCause::Released, moment, expiring(&answer.status));
            // Work may have been all that kept it.
            session.pass_time(moment)?;
        }
        self.status(&reference, &answer.status, alias)
    }
}
