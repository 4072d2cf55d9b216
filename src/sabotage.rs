//! Known-bad variants: each is a mistake that somebody could make, and the simulator's checker must catch it (`tests/sim`), or
//! `tests/races` where only an order of threads shows it.
//! Without the feature `sabotage` nothing of this is in the program: [`on`] is a constant.

#[cfg(all(feature = "sabotage", not(debug_assertions)))]
compile_error!("the feature `sabotage` breaks the sidecar on purpose: never build a release with it");

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The timer is trusted over the deadline: a wake-up ends a session though a touch has moved its deadline.
    TimerTrusted,
    /// A passed deadline has passed for callers only once the driver has noticed it.
    CallsWaitForDriver,
    /// A touch of an ended session is answered as if it lived.
    TouchAfterEnd,
    /// moka's cause of a removal is trusted: what was removed explicitly was revoked.
    CauseTrusted,
    /// A watcher resumes although the log no longer reaches back to its token.
    NoGapCheck,
    /// The tombstone is made after the session has left the table.
    LateTombstone,
    /// What happened together is logged in another order.
    OutOfOrder,
    /// A warning's withdrawal is forgotten.
    ClearedForgotten,
    /// Activity does not cancel the end of a session whose browser seemed to be gone.
    PresenceIgnoresTouch,
    /// Background touches count.
    BackgroundCounts,
    /// An Extend reaches past the absolute deadline.
    ExtendPastAbsolute,
    /// A warning point fires again.
    WarnedTwice,
    /// The old id stands for the successor for ever.
    AliasForever,
    /// WORK has no budget.
    NoBudget,
    /// Two who begin sessions of one subject at once both take the last place.
    SubjectCapRace,
    /// A watcher that resumes gets events of other tenants.
    EventCrossesTenant,
    /// A resume token is accepted for another scope.
    TokenForAnyScope,
    /// A watcher that does not read is kept.
    SlowReaderKept,
    /// A raw session id is logged.
    IdLogged,
    /// Activity that is told late sets last activity back.
    ActivityGoesBack,
    /// Sessions are created over the cap.
    CapIgnored,
    /// Who is unknown is not told that a tombstone went before its time.
    DroppedUntold,
    /// After a gap expiries are not held.
    NoHoldAfterGap,
    /// A ref of another tenant is answered.
    RefCrossesTenant,
    /// A resume token does not carry what the watch has come to follow.
    FollowedForgotten,
    /// A change is made true whatever has happened since it was decided.
    BlindCommit,
    /// The old name has ended before its successor can be found.
    LateSuccessor,
    /// Touches go on while limits are exchanged.
    UnmarkedAdoption,
    /// The driver reads before it notes that the session is not armed: a change in between is lost.
    LateDisarm,
}

impl Fault {
    /// All that a simulation shows.
    pub const ALL: [Self; 25] = [
        Self::TimerTrusted,
        Self::CallsWaitForDriver,
        Self::TouchAfterEnd,
        Self::CauseTrusted,
        Self::NoGapCheck,
        Self::LateTombstone,
        Self::OutOfOrder,
        Self::ClearedForgotten,
        Self::PresenceIgnoresTouch,
        Self::BackgroundCounts,
        Self::ExtendPastAbsolute,
        Self::WarnedTwice,
        Self::AliasForever,
        Self::NoBudget,
        Self::SubjectCapRace,
        Self::EventCrossesTenant,
        Self::TokenForAnyScope,
        Self::SlowReaderKept,
        Self::IdLogged,
        Self::ActivityGoesBack,
        Self::CapIgnored,
        Self::DroppedUntold,
        Self::NoHoldAfterGap,
        Self::RefCrossesTenant,
        Self::FollowedForgotten,
    ];
}

#[cfg(feature = "sabotage")]
std::thread_local! {
    static FAULT: std::cell::Cell<Option<Fault>> = const { std::cell::Cell::new(None) };
}

/// Makes a mistake on this thread from now on, or none.
#[cfg(feature = "sabotage")]
pub fn set(fault: Option<Fault>) {
    FAULT.set(fault);
}

/// Whether this mistake is to be made.
#[cfg(feature = "sabotage")]
#[must_use]
pub fn on(fault: Fault) -> bool {
    FAULT.get() == Some(fault)
}

/// Whether this mistake is to be made: never.
#[cfg(not(feature = "sabotage"))]
#[must_use]
pub const fn on(_: Fault) -> bool {
    false
}
