//! The limits of one session: what its policy says, or what Create asked for if that is stricter.

use std::rc::Rc;

use crate::{
    history::{MS, Ns},
    policies::Spec,
};

/// Later than anything.
pub(super) const FAR: Ns = Ns::MAX / 4;

#[derive(Debug, Clone)]
pub(super) struct Limits {
    pub(super) spec: Rc<Spec>,
    pub(super) own_idle: Option<Ns>,
    pub(super) own_absolute: Option<Ns>,
    /// FAR: none.
    pub(super) idle: Ns,
    pub(super) absolute: Ns,
    pub(super) idle_points: Vec<Ns>,
    pub(super) absolute_points: Vec<Ns>,
}

impl Limits {
    pub(super) fn new(spec: &Rc<Spec>, own_idle: Option<Ns>, own_absolute: Option<Ns>) -> Self {
        let idle = if spec.passive { FAR } else { spec.idle as Ns * MS };
        let idle = own_idle.map_or(idle, |own| own.min(idle));
        let absolute = spec.absolute as Ns * MS;
        let absolute = own_absolute.map_or(absolute, |own| own.min(absolute));
        Self {
            spec: Rc::clone(spec),
            own_idle,
            own_absolute,
            idle,
            absolute,
            idle_points: points(&spec.idle_leads, spec.idle as Ns * MS, idle),
            absolute_points: points(&spec.absolute_leads, spec.absolute as Ns * MS, absolute),
        }
    }
}

impl Limits {
    /// The absolute timeout of a live session under a newer policy.
    pub(super) fn shorten_absolute(&mut self, absolute: Ns) {
        self.absolute = absolute;
        self.absolute_points = points(&self.spec.absolute_leads, self.spec.absolute as Ns * MS, absolute);
    }
}

/// How many of the new leads count as told if so many of the old ones were.
pub(super) fn still_told(old: &[Ns], told: usize, new: &[Ns]) -> usize {
    let Some(smallest) = told.checked_sub(1).and_then(|place| old.get(place)) else {
        return 0;
    };
    new.iter().filter(|lead| *lead >= smallest).count().max(1)
}

/// A lead over half of the effective timeout fires at half of it.
fn points(leads: &[u64], policys: Ns, effective: Ns) -> Vec<Ns> {
    let fit = |lead: u64| (lead as Ns * MS).min(policys / 2).min(effective / 2);
    let mut points: Vec<Ns> = leads.iter().map(|lead| fit(*lead)).collect();
    points.sort_unstable_by(|a, b| b.cmp(a));
    points.dedup();
    points
}

/// The longest TTL and the most live holds of a kind.
pub(super) fn hold_limits(spec: &Spec, work: bool) -> Option<(Ns, usize)> {
    if work {
        return Some((spec.work_ttl as Ns * MS, spec.work_live as usize));
    }
    spec.presence
        .map(|presence| (presence.max_ttl as Ns * MS, presence.max_live as usize))
}
