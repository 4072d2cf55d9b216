//! Who is due, and when to wake: a wheel without clock, locks or I/O. `now` is an argument.
//!
//! An entry fires at most one slot after its time and never before it. What lies beyond the horizon is parked at the horizon
//! and fires early: whoever takes it out looks at its real time and arms it again. So a touch, which moves a deadline away,
//! need not tell the timeline.

use crate::time::Time;

/// 2^22 ns = 4.19 ms.
const SLOT_BITS: u32 = 22;
/// 2^14 slots of 4.19 ms: a horizon of 68.7 s.
const SLOTS: usize = 1 << 14;

/// Entries by the time at which they are due.
pub struct Timeline<T> {
    slots: Vec<Vec<T>>,
    /// One bit per slot that holds anything.
    occupied: Vec<u64>,
    /// The next slot to fire, counted from the beginning of time.
    next: u64,
    len: usize,
}

impl<T> Timeline<T> {
    /// An empty timeline that starts at `now`.
    #[must_use]
    pub fn new(now: Time) -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Vec::new()).collect(),
            occupied: vec![0; SLOTS / 64],
            next: slot_after(now),
            len: 0,
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds an entry that is due at `at`. Answers when it will fire.
    pub fn arm(&mut self, at: Time, entry: T) -> Time {
        let last = self.next + SLOTS as u64 - 1;
        let slot = slot_after(at).clamp(self.next, last);
        let index = index(slot);
        self.slots[index].push(entry);
        self.occupied[index / 64] |= 1 << (index % 64);
        self.len += 1;
        start_of(slot)
    }

    /// Takes out the entries of the earliest slot whose time has come, into `due`. Answers false if there is none.
    pub fn poll(&mut self, now: Time, due: &mut Vec<T>) -> bool {
        let Some(slot) = self.first_occupied() else {
            self.next = self.next.max(slot_after(now));
            return false;
        };
        if start_of(slot) > now {
            self.next = self.next.max(slot_after(now)).min(slot);
            return false;
        }
        let index = index(slot);
        self.occupied[index / 64] &= !(1 << (index % 64));
        self.len -= self.slots[index].len();
        // The memory of a slot goes with its entries: a burst must not keep it for ever.
        due.append(&mut self.slots[index]);
        self.slots[index] = Vec::new();
        self.next = slot;
        true
    }

    /// When to poll next: never before an entry is due, and none is due for more than a slot by then.
    #[must_use]
    pub fn next_wake(&self) -> Option<Time> {
        self.first_occupied().map(start_of)
    }

    fn first_occupied(&self) -> Option<u64> {
        if self.len == 0 {
            return None;
        }
        let words = self.occupied.len();
        let first = index(self.next);
        // The first word is visited twice: its bits from `first` on, and at the end of the round its bits before it.
        for step in 0..=words {
            let word = (first / 64 + step) % words;
            let mut bits = self.occupied[word];
            if step == 0 {
                bits &= u64::MAX << (first % 64);
            } else if step == words {
                bits &= !(u64::MAX << (first % 64));
            }
            if bits != 0 {
                let found = word * 64 + bits.trailing_zeros() as usize;
                let ahead = (found + SLOTS - first) % SLOTS;
                return Some(self.next + ahead as u64);
            }
        }
        None
    }
}

/// When an entry fires that is due at a moment.
#[must_use]
pub fn fires_at(at: Time) -> Time {
    start_of(slot_after(at))
}

/// The first slot that starts at or after a moment: an entry never fires before its time.
fn slot_after(at: Time) -> u64 {
    at.as_nanos().div_ceil(1 << SLOT_BITS)
}

fn start_of(slot: u64) -> Time {
    Time::from_nanos(slot << SLOT_BITS)
}

fn index(slot: u64) -> usize {
    (slot % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SLOT: Duration = Duration::from_nanos(1 << SLOT_BITS);

    fn drain(timeline: &mut Timeline<u32>, now: Time) -> Vec<u32> {
        let mut due = Vec::new();
        while timeline.poll(now, &mut due) {}
        due
    }

    #[test]
    fn an_entry_fires_within_one_slot_and_never_early() {
        let mut timeline = Timeline::new(Time::START);
        let at = Time::START + Duration::from_millis(10_001);
        let fires = timeline.arm(at, 7);
        assert!(fires >= at && fires.since(at) < SLOT);
        assert_eq!(timeline.next_wake(), Some(fires));
        assert_eq!(drain(&mut timeline, at - Duration::from_nanos(1)), [0; 0]);
        assert_eq!(drain(&mut timeline, fires), [7]);
        assert_eq!(timeline.next_wake(), None);
    }

    #[test]
    fn what_lies_beyond_the_horizon_fires_early_to_be_armed_again() {
        let mut timeline = Timeline::new(Time::START);
        let at = Time::START + Duration::from_secs(900);
        let fires = timeline.arm(at, 7);
        assert!(fires < at && fires > Time::START + Duration::from_secs(60));
    }

    #[test]
    fn what_is_armed_in_the_past_fires_at_once() {
        let now = Time::START + Duration::from_secs(100);
        let mut timeline = Timeline::new(now);
        timeline.arm(Time::START, 7);
        assert_eq!(drain(&mut timeline, now + SLOT), [7]);
    }

    proptest! {
        /// Against the naive model, a list: every entry comes out once, none before its time unless it was beyond the
        /// horizon, none later than the first poll a slot after its time.
        #[test]
        fn g1_g2_random_histories_agree_with_a_list(
            steps in prop::collection::vec((0u64..200_000, 0u64..100_000), 1..400)
        ) {
            let mut now = Time::START;
            let mut timeline = Timeline::new(now);
            let mut model: Vec<(Time, u32)> = Vec::new();
            for (number, (wait_ms, lead_ms)) in steps.into_iter().enumerate() {
                let at = now + Duration::from_millis(lead_ms);
                timeline.arm(at, number as u32);
                model.push((at, number as u32));
                now = now + Duration::from_millis(wait_ms / 10);
                let wake = timeline.next_wake().expect("an entry was armed");
                let mut due = Vec::new();
                while timeline.poll(now, &mut due) {}
                prop_assert!(due.is_empty() == (wake > now), "wake {wake:?} now {now:?} due {due:?}");
                for entry in due {
                    let position = model.iter().position(|known| known.1 == entry);
                    let (at, _) = model.remove(position.expect("comes out once"));
                    if at > now {
                        // Parked at the horizon: armed again by whoever takes it out.
                        timeline.arm(at, entry);
                        model.push((at, entry));
                    }
                }
                for (at, _) in &model {
                    prop_assert!(*at + SLOT > now, "late: {at:?} at {now:?}");
                }
                prop_assert_eq!(timeline.len(), model.len());
            }
        }
    }
}
