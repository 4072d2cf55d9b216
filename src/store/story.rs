//! What is kept of a session's life, for whoever asks why it ended: bounded, and kept with the tombstone. Touches are counted
//! by rule, never kept one by one.

use std::sync::Arc;

use smallvec::SmallVec;

use super::session::Lease;
use crate::{event::Event, state::RuleName, time::Time};

/// A session's history.
#[derive(Debug, Clone, Default)]
pub struct Story {
    /// What happened, the oldest first. Watchers were told of some of it.
    pub events: Vec<Arc<Event>>,
    /// How many older entries were dropped.
    pub dropped: u32,
    /// What touches came to, by rule. Most sessions meet one or two rules.
    pub tallies: SmallVec<[Tally; 1]>,
    /// To how many watchers its end was sent, where many sidecars tell of it.
    pub end_told: u32,
    /// What is known of its record in a store that others share.
    pub lease: Option<Lease>,
}

/// What became of touches by one rule.
#[derive(Debug, Clone)]
pub struct Tally {
    /// The rule.
    pub rule: RuleName,
    /// When the first one came.
    pub first: Time,
    /// When the last one came.
    pub last: Time,
    /// How many there were.
    pub count: u32,
    /// Whether they counted.
    pub counted: bool,
}

/// How many entries are kept, and how many rules: a policy has at most 64 of its own.
const MOST_EVENTS: usize = 64;
const MOST_TALLIES: usize = 128;

impl Story {
    /// Adds an entry. At the bound the oldest goes, and is counted.
    pub fn add(&mut self, event: Arc<Event>) {
        if self.events.len() >= MOST_EVENTS {
            self.events.remove(0);
            self.dropped = self.dropped.saturating_add(1);
        }
        self.events.push(event);
    }

    /// Counts a touch.
    pub fn tally(&mut self, rule: &RuleName, counted: bool, at: Time) {
        let known = self.tallies.iter_mut();
        for tally in known {
            if tally.counted == counted && tally.rule == *rule {
                tally.count = tally.count.saturating_add(1);
                tally.last = tally.last.max(at);
                return;
            }
        }
        if self.tallies.len() < MOST_TALLIES {
            self.tallies.push(Tally {
                rule: rule.clone(),
                first: at,
                last: at,
                count: 1,
                counted,
            });
        }
    }

    /// Counts more touches of a rule that counted.
    pub fn add_up(&mut self, rule: &RuleName, count: u32, first: Time, last: Time) {
        let last = last.max(first);
        let known = self
            .tallies
            .iter_mut()
            .find(|tally| tally.counted && tally.rule == *rule);
        if let Some(tally) = known {
            tally.count = tally.count.saturating_add(count);
            tally.last = tally.last.max(last);
            return;
        }
        self.tallies.push(Tally {
            rule: rule.clone(),
            first,
            last,
            count,
            counted: true,
        });
    }

    /// When the last touch came that was ignored.
    #[must_use]
    pub fn last_ignored(&self) -> Option<Time> {
        let ignored = self.tallies.iter().filter(|tally| !tally.counted);
        ignored.map(|tally| tally.last).max()
    }
}
