//! What this sidecar knows of a bucket: what time it is there, how far its events are known, whether ends are held.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

use super::codec::micros;
use crate::time::Time;

/// A bucket.
#[derive(Default)]
pub(super) struct Bucket {
    reckoning: Mutex<Reckoning>,
    /// Until when sessions may be answered from what is known here.
    healthy_until: AtomicU64,
    /// Whoever takes note of events, or of a record that was read, has it.
    gate: Mutex<Gate>,
    /// Whether nobody has looked at what is due for a while.
    neglected: AtomicBool,
    pub(super) live: AtomicU64,
    pub(super) remembered: AtomicU64,
    /// What time it was there when the sessions were as many as that.
    counted: Mutex<i64>,
}

/// How far events are known.
#[derive(Default)]
pub(super) struct Gate {
    /// The number of the last event that is applied here.
    pub(super) applied: u64,
    /// That event.
    pub(super) last: Option<super::body::Event>,
    /// The epoch of the events; empty if it is not known yet.
    pub(super) epoch: Vec<u8>,
}

/// What comes first in each reply of a script.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) word: Vec<u8>,
    /// The bucket's time, in microseconds.
    pub(super) now: i64,
    pub(super) hold: i64,
    pub(super) number: u64,
    pub(super) corrections: u64,
    pub(super) epoch: Vec<u8>,
    /// How far its clock is ahead of the last heartbeat.
    pub(super) ahead: i64,
}

/// The bucket's time minus ours, in microseconds: somewhere between two bounds, for a reply was made some time between when
/// it was asked for and when it came.
#[derive(Debug, Default, Clone, Copy)]
struct Reckoning {
    least: i64,
    most: i64,
    /// When the bounds were begun anew, and when for the first time. Unset: nothing is known.
    since: Option<Time>,
    first: Option<Time>,
    corrections: u64,
    /// How far the clock was ahead of the last heartbeat.
    ahead: i64,
}

/// What a reply says about time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Learned {
    /// It goes on as it should.
    Fine,
    /// It is another one than was thought here.
    Otherwise,
    /// The clock was set: this is the time that it is.
    Stepped(i64),
    /// Nothing: the reply was made before a correction that is known here already.
    Overtaken,
}

/// A clock that is further off than this was set.
const STEP: i64 = 1_000_000;
const BACK: i64 = -STEP;
/// A bucket at which nobody has looked for so long, in microseconds, is neglected.
const NEGLECTED: i64 = 2_000_000;
/// What is known here may be answered for so long.
const TRUSTED: Duration = Duration::from_millis(1200);
/// How long bounds are narrowed: clocks drift.
const FRESH: Duration = Duration::from_secs(10);
/// Who has known a clock for less than this does not say that it is the right one: it may have been set just before, and those who
/// can tell do so sooner.
const UNSURE: Duration = Duration::from_secs(2);
/// Who has not known a clock for so long does not correct it.
const NEWCOMER: Duration = Duration::from_millis(500);

impl Bucket {
    /// Takes note of a reply.
    pub(super) fn learn(&self, head: &Head, sent: Time, received: Time) -> Learned {
        self.neglected.store(head.ahead > NEGLECTED, Ordering::Release);
        self.reckoning.lock().learn(head, sent, received)
    }

    /// What time it is there, with a minus if that is not known for sure; 0 if it is not known at all.
    pub(super) fn estimate(&self, now: Time) -> i64 {
        let reckoning = *self.reckoning.lock();
        match reckoning.since {
            None => 0,
            Some(_) => reckoning.as_sure(micros(now) + i64::midpoint(reckoning.least, reckoning.most), now),
        }
    }

    /// A time there, with a minus if what time it is there is not known for sure.
    pub(super) fn as_sure(&self, at: i64, now: Time) -> i64 {
        self.reckoning.lock().as_sure(at, now)
    }

    /// Whether nothing is known of what time it is there.
    pub(super) fn is_new(&self) -> bool {
        self.reckoning.lock().since.is_none()
    }

    /// For how long it cannot be told here whether its clock was set: those who can tell do so meanwhile.
    pub(super) fn doubt(&self, now: Time) -> Duration {
        self.reckoning.lock().doubt(now)
    }

    /// Whether what time it is there has been known for a moment only.
    pub(super) fn is_unsure(&self, now: Time) -> bool {
        let reckoning = self.reckoning.lock();
        reckoning.first.is_none_or(|first| now.since(first) < UNSURE)
    }

    /// For how long that may come to be so: nobody has looked for a while.
    pub(super) fn doubt_ahead(&self, now: Time) -> Duration {
        let soon = STEP - i64::try_from(NEWCOMER.as_micros()).unwrap_or(0);
        self.reckoning.lock().doubt_at(soon, now)
    }

    /// The bounds of the bucket's time minus ours.
    pub(super) fn bounds(&self) -> (i64, i64) {
        let reckoning = self.reckoning.lock();
        (reckoning.least, reckoning.most)
    }

    /// Whether what is known here may be answered.
    pub(super) fn is_healthy(&self, now: Time) -> bool {
        now.as_nanos() < self.healthy_until.load(Ordering::Acquire)
    }

    /// Whether nobody looks at what is due, though somebody should.
    pub(super) fn is_neglected(&self) -> bool {
        self.neglected.load(Ordering::Acquire)
    }

    /// All that happened until `at` is known here.
    pub(super) fn heard(&self, at: Time) {
        self.healthy_until
            .fetch_max((at + TRUSTED).as_nanos(), Ordering::AcqRel);
    }

    /// Whether all that happened until `at` is known here.
    pub(super) fn is_heard_since(&self, at: Time) -> bool {
        (at + TRUSTED).as_nanos() <= self.healthy_until.load(Ordering::Acquire)
    }

    /// Something is amiss: nothing is answered from what is known here.
    pub(super) fn distrust(&self) {
        self.healthy_until.store(0, Ordering::Release);
    }

    /// A session began in it.
    pub(super) fn one_more(&self, head: &Head) {
        let mut counted = self.counted.lock();
        *counted = (*counted).max(head.now);
        self.live.fetch_add(1, Ordering::Relaxed);
    }

    /// A session ended in it.
    pub(super) fn one_less(&self, head: &Head) {
        let mut counted = self.counted.lock();
        *counted = (*counted).max(head.now);
        let less = |live: u64| Some(live.saturating_sub(1));
        let _ = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// So many sessions were counted in it. An answer that others have overtaken says nothing new.
    pub(super) fn count(&self, head: &Head, live: Option<i64>, remembered: Option<i64>) {
        let mut counted = self.counted.lock();
        if head.now < *counted {
            return;
        }
        *counted = head.now;
        let to = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
        self.live.store(to(live), Ordering::Relaxed);
        self.remembered.store(to(remembered), Ordering::Relaxed);
    }

    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock()
    }
}

impl Reckoning {
    /// Who has only just come cannot tell whether the clock was set.
    fn as_sure(&self, at: i64, now: Time) -> i64 {
        match self.first {
            Some(first) if now.since(first) >= NEWCOMER => at,
            _ => -at,
        }
    }

    fn doubt(&self, now: Time) -> Duration {
        self.doubt_at(STEP, now)
    }

    /// The same for a clock that may seem to have been set by so much.
    fn doubt_at(&self, step: i64, now: Time) -> Duration {
        let age = self.first.map_or(Duration::ZERO, |first| now.since(first));
        match self.ahead {
            // It was set: time does not go back.
            ..=BACK => UNSURE.saturating_sub(age),
            // Nobody looked for a while, or it was set.
            ahead if ahead >= step => NEWCOMER.saturating_sub(age),
            _ => Duration::ZERO,
        }
    }

    fn learn(&mut self, head: &Head, sent: Time, received: Time) -> Learned {
        // As its clock runs, also where that is behind the heartbeat and its time stands still.
        let clock = head.now + head.ahead.min(0);
        let (least, most) = (clock - micros(received), clock - micros(sent));
        let renew = |this: &mut Self| {
            (this.least, this.most) = (least, most);
            this.since = Some(received);
            this.corrections = head.corrections;
        };
        if head.corrections < self.corrections && self.since.is_some_and(|since| sent < since) {
            return Learned::Overtaken;
        }
        self.ahead = head.ahead;
        let (Some(since), Some(first)) = (self.since, self.first) else {
            renew(self);
            self.first = Some(received);
            return Learned::Fine;
        };
        let knows = received.since(first) >= NEWCOMER;
        let back = most < self.least - STEP;
        let forward = least > self.most + STEP;
        let otherwise = back || forward;
        let learned = if otherwise { Learned::Otherwise } else { Learned::Fine };
        // Rather behind than ahead: nobody's deadline comes early.
        let stepped = Learned::Stepped(micros(received) + self.least);
        if head.corrections != self.corrections {
            // A correction is a heartbeat. If the clock is far from the last one it was set once more.
            if otherwise && head.ahead.abs() > STEP {
                if knows {
                    return stepped;
                }
                self.first = Some(received);
            }
            renew(self);
            return learned;
        }
        if otherwise {
            // If others have kept the heartbeat at the new time, it is our clock that stood still.
            let others_agree = if back { head.ahead >= -STEP } else { head.ahead < STEP };
            if knows && !others_agree {
                return stepped;
            }
            renew(self);
            self.first = Some(received);
            return learned;
        }
        if head.ahead < BACK && received.since(first) >= UNSURE {
            // It was set before this sidecar came, and nobody is left who knows by how much: time goes on from the last heartbeat.
            return Learned::Stepped(head.now);
        }
        let drifted = most < self.least || least > self.most;
        if drifted || (received.since(since) > FRESH && most - least < STEP / 20) {
            renew(self);
        } else {
            self.least = self.least.max(least);
            self.most = self.most.min(most);
        }
        Learned::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::START + Duration::from_millis(millis)
    }

    /// The server says at `sent` + 1 ms that it is `millis`.
    fn reply(reckoning: &mut Reckoning, sent: u64, millis: i64, ahead: i64, corrections: u64) -> Learned {
        let head = Head {
            word: Vec::new(),
            now: millis * 1000,
            hold: 0,
            number: 0,
            corrections,
            epoch: Vec::new(),
            ahead: ahead * 1000,
        };
        reckoning.learn(&head, at(sent), at(sent + 2))
    }

    #[test]
    fn g14_a_clock_that_was_set_is_told_from_a_reply_that_was_slow() {
        let mut known = Reckoning::default();
        assert_eq!(reply(&mut known, 0, 1_001, 250, 0), Learned::Fine);
        assert_eq!(reply(&mut known, 5_000, 6_001, 250, 0), Learned::Fine);
        // It was under way, or we stood still, for four seconds.
        let head = Head {
            now: 7_000_000,
            ..Head::default()
        };
        assert_eq!(known.learn(&head, at(6_000), at(10_000)), Learned::Fine);
        let Learned::Stepped(now) = reply(&mut known, 11_000, 72_001, 60_250, 0) else {
            panic!("a minute forward");
        };
        assert!((now - 12_002_000).abs() < 2_000, "{now}");
        let Learned::Stepped(now) = reply(&mut known, 12_000, 3_001, -10_000, 0) else {
            panic!("ten seconds back");
        };
        assert!((now - 13_002_000).abs() < 2_000, "{now}");
        // Somebody has corrected it: the new time is taken as it is.
        assert_eq!(reply(&mut known, 13_000, 4_001, 250, 1), Learned::Otherwise);
        assert_eq!(reply(&mut known, 14_000, 5_001, 250, 1), Learned::Fine);
    }

    #[test]
    fn g14_a_sidecar_whose_own_clock_stood_still_corrects_nobody() {
        let mut known = Reckoning::default();
        reply(&mut known, 0, 1_001, 250, 0);
        reply(&mut known, 5_000, 6_001, 250, 0);
        assert_eq!(
            reply(&mut known, 6_000, 67_001, 250, 0),
            Learned::Otherwise,
            "others were there all the time"
        );
        assert!(matches!(
            reply(&mut known, 7_000, 128_001, 61_000, 0),
            Learned::Stepped(_)
        ));
    }

    #[test]
    fn g14_a_clock_that_is_set_twice_is_corrected_twice_by_who_has_not_heard_of_the_first_correction() {
        let mut known = Reckoning::default();
        reply(&mut known, 0, 1_001, 250, 0);
        let Learned::Stepped(now) = reply(&mut known, 5_000, 34_701, 28_700, 1) else {
            panic!("half a minute forward, since a correction");
        };
        assert!((now - 6_002_000).abs() < 3_000, "{now}");
        assert_eq!(reply(&mut known, 5_010, 6_010, 0, 2), Learned::Fine, "what it becomes");
    }

    #[test]
    fn g14_a_newcomer_to_whom_a_clock_set_after_a_correction_is_shown_is_a_newcomer_again() {
        let mut known = Reckoning::default();
        reply(&mut known, 0, 1_001, 250, 0);
        assert_eq!(reply(&mut known, 400, 30_101, 28_700, 1), Learned::Otherwise);
        let doubts = |millis| !known.doubt(at(millis)).is_zero();
        assert!(doubts(890) && !doubts(910));
    }

    #[test]
    fn g14_a_reply_that_was_made_before_a_correction_says_nothing_after_it() {
        let mut known = Reckoning::default();
        reply(&mut known, 0, 1_001, 250, 0);
        reply(&mut known, 5_000, 6_001, 250, 1);
        let bounds = (known.least, known.most);
        let head = Head {
            now: 66_000_000,
            ahead: 60_000_000,
            ..Head::default()
        };
        assert_eq!(known.learn(&head, at(4_990), at(5_010)), Learned::Overtaken);
        assert_eq!((known.least, known.most, known.corrections), (bounds.0, bounds.1, 1));
        assert_eq!(
            reply(&mut known, 5_020, 6_021, 250, 0),
            Learned::Fine,
            "the store has forgotten it"
        );
        assert_eq!(known.corrections, 0);
    }

    #[test]
    fn g14_a_newcomer_takes_the_time_as_it_finds_it() {
        let mut known = Reckoning::default();
        reply(&mut known, 0, 1_001, 250, 0);
        assert_eq!(reply(&mut known, 300, 61_301, 60_000, 0), Learned::Otherwise);
    }

    #[test]
    fn bounds_become_narrower_and_follow_drift() {
        let mut known = Reckoning::default();
        reply(&mut known, 0, 1_001, 0, 0);
        let wide = known.most - known.least;
        let head = Head {
            now: 2_000_100,
            ..Head::default()
        };
        known.learn(&head, at(1_000), at(1_000) + Duration::from_micros(200));
        assert!(known.most - known.least < wide / 2);
        reply(&mut known, 20_000, 21_003, 0, 0);
        assert_eq!(
            (known.least, known.most),
            (21_003_000 - 20_002_000, 21_003_000 - 20_000_000)
        );
    }
}
