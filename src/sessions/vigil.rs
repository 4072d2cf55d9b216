//! Whether somebody could have reached us: after a gap longer than five seconds (suspend, SIGSTOP) idle ends are held for
//! five seconds, so that people who could not touch get a chance (G14).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    sabotage::{self, Fault},
    state::Moment,
    time::{Clock, Time},
};

const GAP: Duration = Duration::from_secs(5);

/// Notices gaps. The driver beats every second; a caller that finds the last beat too long ago is the first after a gap.
pub(super) struct Vigil {
    clock: Clock,
    last_beat: AtomicU64,
    /// Others may set it too: whoever shares a store.
    held_until: Arc<AtomicU64>,
    held_for: Duration,
}

impl Vigil {
    /// A vigil that holds a session at most so far past its deadline.
    pub(super) fn new(clock: Clock, held_for: Duration, held_until: Arc<AtomicU64>) -> Self {
        let now = clock.now().as_nanos();
        Self {
            clock,
            last_beat: AtomicU64::new(now),
            held_until,
            held_for,
        }
    }

    /// The moment that it is now.
    pub(super) fn moment(&self) -> Moment {
        let now = self.clock.now();
        let last_beat = Time::from_nanos(self.last_beat.load(Ordering::Acquire));
        let gap = now.since(last_beat);
        if gap > GAP && !sabotage::on(Fault::NoHoldAfterGap) {
            // The hold first, then the beat: nobody may miss both.
            self.held_until.fetch_max((now + GAP).as_nanos(), Ordering::AcqRel);
            if self.last_beat.fetch_max(now.as_nanos(), Ordering::AcqRel) == last_beat.as_nanos() {
                tracing::warn!(
                    gap_seconds = gap.as_secs(),
                    "the process did not run: idle ends are held for 5 s"
                );
            }
        }
        Moment {
            now,
            held_until: Time::from_nanos(self.held_until.load(Ordering::Acquire)),
            held_for: self.held_for,
        }
    }

    /// The driver runs.
    pub(super) fn beat(&self) -> Moment {
        let moment = self.moment();
        self.last_beat.fetch_max(moment.now.as_nanos(), Ordering::AcqRel);
        moment
    }
}
