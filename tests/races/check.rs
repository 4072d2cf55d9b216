//! What must hold of every finished run, whatever the order was.

use std::sync::Arc;

use session_sidecar::{
    state::{EndReason, Happening, Limit, SessionRef, Tombstone, View},
    store::Session,
    time::Time,
};

use crate::world::Promise;

type Entry = (SessionRef, u32, Happening);

/// The log of one session tells of its versions in order, clears only what was warned, and ends with its end, if it has one.
/// What stands at the end of the log stands in the record.
pub(crate) fn log_of(session: &Session, log: &[Entry]) -> Option<Arc<Tombstone>> {
    let own = log.iter().filter(|(reference, ..)| *reference == session.reference());
    let (mut version, mut standing, mut end) = (0, None, None);
    for (_, happening_version, happening) in own {
        assert!(*happening_version > version, "versions follow the log: {log:?}");
        version = *happening_version;
        assert!(end.is_none(), "G5, G6: something follows the end: {log:?}");
        match happening {
            Happening::Warning { limit, expire, .. } => {
                assert_eq!(*limit, Limit::Idle);
                standing = Some(*expire);
            }
            Happening::Cleared { .. } => assert!(standing.take().is_some(), "G4: cleared before warned: {log:?}"),
            Happening::Ended(tombstone) => end = Some(Arc::clone(tombstone)),
            Happening::Succeeded { .. } => assert_eq!(version, 1, "a successor's first word: {log:?}"),
            silent => assert!(!silent.is_public()),
        }
    }
    if end.is_none() {
        session.read(|view| {
            let warned = view.pulse.is_warned();
            assert_eq!(
                warned,
                standing.is_some(),
                "G4: the record and the log agree on what stands"
            );
            let idle = view.plain_deadlines().idle;
            let current = standing.is_none_or(|expire| expire == idle);
            assert!(current, "G4: what stands is about the deadline as it is");
        });
    }
    end
}

/// G12: the end of the old name comes before all that is told of the new one.
pub(crate) fn order_of(first: &Session, log: &[Entry]) {
    let of_first = |(reference, ..): &Entry| *reference == first.reference();
    let last_of_first = log.iter().rposition(of_first);
    let first_of_next = log.iter().position(|entry| !of_first(entry));
    if let (Some(last), Some(next)) = (last_of_first, first_of_next) {
        assert!(
            last < next,
            "the successor was told of before the old name's end: {log:?}"
        );
    }
}

/// The session as it is now keeps what callers were promised.
pub(crate) fn session(
    session: &Session,
    end: Option<&Arc<Tombstone>>,
    promises: &[Promise],
    answers: &[Arc<Tombstone>],
    may_shorten: bool,
) {
    session.read(|view| match end {
        Some(end) => ended(view, end, promises, answers, may_shorten),
        None => live(view, promises, answers, may_shorten),
    });
}

fn ended(view: &View<'_>, end: &Arc<Tombstone>, promises: &[Promise], answers: &[Arc<Tombstone>], may_shorten: bool) {
    assert!(view.pulse.is_dead());
    let known = view.rest.end().expect("a dead session has its tombstone");
    assert!(Arc::ptr_eq(known, end), "the log and the record tell the same end");
    for answer in answers {
        assert!(Arc::ptr_eq(answer, end), "G6: every caller of End is told the one end");
    }
    let timeout = end.end.reason == EndReason::IdleTimeout;
    keeps(end.last_activity, timeout.then_some(end.end.at), promises, may_shorten);
}

fn live(view: &View<'_>, promises: &[Promise], answers: &[Arc<Tombstone>], may_shorten: bool) {
    let untold = !view.pulse.is_dead() && view.rest.end().is_none();
    assert!(untold, "ended without a word");
    assert!(answers.is_empty(), "G5: an End was answered, and the session lives");
    keeps(
        view.pulse.last_activity(),
        Some(view.plain_deadlines().idle),
        promises,
        may_shorten,
    );
}

/// Every promise holds to the end. Only where a Release or a newer revision may shorten the deadline, a later answer may have
/// taken the place of an earlier one.
fn keeps(last_activity: Time, idle: Option<Time>, promises: &[Promise], may_shorten: bool) {
    for promise in promises {
        assert!(last_activity >= promise.activity, "G8: an acknowledged touch is lost");
        let replaced = |later: &Promise| later.version > promise.version && later.activity >= promise.activity;
        let replaced = may_shorten && promises.iter().any(replaced);
        if let Some(idle) = idle.filter(|_| !replaced) {
            assert!(
                idle >= promise.idle,
                "G1: {idle:?}, but {:?} was acknowledged",
                promise.idle
            );
        }
    }
}
