//! What must hold of every finished run, whatever the order was: read from what callers were answered and a watcher was told.

use std::sync::Arc;

use session_sidecar::{
    event::Event,
    state::{Cause, EndReason, Happening, Limit, SessionRef, Tombstone},
    time::Time,
};

use super::world::{IDLE, NEWER_IDLE, POINTS, Promise, SECOND, SLOT};

/// A finished run.
pub(crate) struct Run {
    pub(crate) log: Vec<Arc<Event>>,
    pub(crate) promises: Vec<Promise>,
    pub(crate) ends: Vec<(Arc<Tombstone>, bool)>,
    pub(crate) may_shorten: bool,
    /// When the race was over. From here on the driver was on time.
    pub(crate) since: Time,
}

/// The names that the session had, in their order.
pub(crate) fn names(log: &[Arc<Event>]) -> Vec<SessionRef> {
    let mut names: Vec<SessionRef> = Vec::new();
    for event in log {
        if !names.contains(&event.session) {
            names.push(event.session);
        }
    }
    names
}

pub(crate) fn run(run: &Run) {
    let names = names(&run.log);
    let mut last = None;
    for (number, name) in names.iter().enumerate() {
        let own: Vec<_> = run.log.iter().filter(|event| event.session == *name).collect();
        let end = log_of(&own);
        let next = names.get(number + 1);
        assert_eq!(end.successor.map(|next| next.reference), next.copied(), "{:?}", run.log);
        if next.is_some() {
            assert_eq!(end.end.reason, EndReason::Rotated);
        }
        last = Some(end);
    }
    in_order(&run.log, &names);
    let last = last.expect("it had a name");
    warned(run, &last);
    for (answer, _) in &run.ends {
        assert!(
            Arc::ptr_eq(answer, &last),
            "G6: every caller of End is told the one end"
        );
    }
    let own = run.ends.iter().filter(|(_, own)| *own).count();
    let timeout = last.end.reason == EndReason::IdleTimeout;
    assert_eq!(own, usize::from(!timeout), "G6: one ends it: {:?}", run.ends);
    keeps(run, last.last_activity, timeout.then_some(last.end.at));
}

/// What is told of one name has versions that grow, clears only what was warned, and ends with its one end.
fn log_of(own: &[&Arc<Event>]) -> Arc<Tombstone> {
    let (mut version, mut standing, mut end) = (0, None, None);
    for event in own {
        assert!(event.version > version, "versions follow the log: {own:?}");
        version = event.version;
        assert!(end.is_none(), "G5, G6: something follows the end: {own:?}");
        match &event.what {
            Happening::Warning { limit, expire, .. } => {
                assert_eq!(*limit, Limit::Idle);
                assert!(
                    standing.is_none_or(|known| known == *expire),
                    "G4: moved, not cleared: {own:?}"
                );
                standing = Some(*expire);
            }
            Happening::Cleared { expire, cause, .. } => {
                let was = standing
                    .take()
                    .unwrap_or_else(|| panic!("G4: cleared before warned: {own:?}"));
                assert!(
                    was != *expire || *cause == Cause::Rotated,
                    "G4: cleared, not moved: {own:?}"
                );
            }
            Happening::Ended(tombstone) => {
                let timeout = tombstone.end.reason == EndReason::IdleTimeout;
                let late = standing.is_some_and(|expire| timeout && expire != tombstone.end.at);
                assert!(!late, "G4: another end than was warned of: {own:?}");
                end = Some(Arc::clone(tombstone));
            }
            Happening::Succeeded { .. } => assert_eq!(version, 1, "a successor's first word: {own:?}"),
            other => panic!("nobody is told {other:?}"),
        }
    }
    end.unwrap_or_else(|| panic!("G2: it never ended: {own:?}"))
}

/// G12: the end of an old name comes before all that is told of the new one.
fn in_order(log: &[Arc<Event>], names: &[SessionRef]) {
    let place = |event: &Arc<Event>| names.iter().position(|name| *name == event.session);
    assert!(
        log.is_sorted_by_key(place),
        "the successor was told of before the old name's end: {log:?}"
    );
}

/// Whatever became due after the race was told in time, each warning once.
fn warned(run: &Run, last: &Tombstone) {
    let deadline = last.end.at;
    if last.end.reason != EndReason::IdleTimeout {
        return;
    }
    let is_end = |event: &&Arc<Event>| matches!(&event.what, Happening::Ended(end) if end.successor.is_none());
    let told = run.log.iter().rfind(is_end).expect("an end").at;
    let may_be_told = deadline.max(run.since);
    assert!(
        told >= deadline && told.since(may_be_told) <= SLOT,
        "G2: told at {told:?}, due at {deadline:?}"
    );
    let (idle, points) = match last.limits.idle_timeout {
        NEWER_IDLE => (NEWER_IDLE, &[SECOND][..]),
        _ => (IDLE, &POINTS[..]),
    };
    assert_eq!(last.limits.idle_timeout, idle);
    for point in points.iter().filter(|point| deadline - **point > run.since) {
        let due = deadline - *point;
        let told: Vec<_> = run
            .log
            .iter()
            .filter(|event| is_warning(event, *point, deadline))
            .collect();
        let in_time = told.iter().all(|event| event.at >= due && event.at.since(due) <= SLOT);
        assert!(told.len() == 1 && in_time, "G3: due at {due:?}: {:?}", run.log);
    }
}

fn is_warning(event: &Event, of: std::time::Duration, deadline: Time) -> bool {
    matches!(event.what, Happening::Warning { point, expire, .. } if point == of && expire == deadline)
}

/// Every promise holds to the end, and it ends when the last of them does. Only where a Release or a newer revision may
/// shorten the deadline, a later answer may have taken the place of an earlier one.
fn keeps(run: &Run, last_activity: Time, idle: Option<Time>) {
    let Run {
        promises, may_shorten, ..
    } = run;
    for promise in promises {
        let kept = promise.activity.is_none_or(|activity| last_activity >= activity);
        assert!(kept, "G8: an acknowledged touch is lost: {promise:?}");
        // What is asked of a session that has not been kept alive until then comes too late.
        let alive = promises
            .iter()
            .any(|earlier| earlier.at < promise.at && earlier.idle > promise.at);
        assert!(alive || promise.at == Time::START, "G2: {promise:?} of {promises:?}");
        let replaced = |later: &Promise| {
            later.version > promise.version && promise.activity.is_none_or(|activity| later.covers >= activity)
        };
        let replaced = *may_shorten && promises.iter().any(replaced);
        if let Some(idle) = idle.filter(|_| !replaced) {
            assert!(idle >= promise.idle, "G1: {idle:?}, but {promise:?} was acknowledged");
        }
    }
    if let Some(idle) = idle {
        let last = promises.iter().any(|promise| promise.idle == idle);
        assert!(last, "G2: {idle:?} was promised to nobody: {promises:?}");
    }
}
