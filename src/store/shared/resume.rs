//! Where a watcher goes on that has watched at another sidecar, or before this one began: what happened before the log of this
//! process is read from the streams.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
};

use super::{Resumed, Shared, Unavailable, body, feed::Page};
use crate::{
    event::{Event, Places},
    store::NotResumed,
};

/// An event's number, what comes before it in another bucket, and the event.
type Earlier = (u64, Option<body::After>, Option<Event>);

/// What happened before this process' log begins, by bucket.
struct Before {
    buckets: Vec<VecDeque<Earlier>>,
    events: Vec<Arc<Event>>,
}

impl Before {
    fn new(buckets: usize) -> Self {
        Self {
            buckets: (0..buckets).map(|_| VecDeque::new()).collect(),
            events: Vec::new(),
        }
    }

    /// Each bucket in its own order, and what led to an event in another bucket before it.
    fn in_order(mut self) -> Vec<Arc<Event>> {
        for bucket in 0..self.buckets.len() {
            self.take(bucket, u64::MAX);
        }
        self.events
    }

    fn take(&mut self, bucket: usize, through: u64) {
        while self
            .buckets
            .get(bucket)
            .and_then(VecDeque::front)
            .is_some_and(|(number, ..)| *number <= through)
        {
            let Some((_, after, event)) = self.buckets[bucket].pop_front() else {
                return;
            };
            if let Some(after) = after
                && let Ok(other) = usize::try_from(after.bucket)
                && other != bucket
            {
                self.take(other, after.number);
            }
            self.events
                .extend(event.filter(|event| event.what.is_public()).map(Arc::new));
        }
    }
}

impl Shared {
    /// Where a watcher goes on that has seen all up to these places.
    pub(super) async fn resume_from(&self, places: &Places) -> Result<Resumed, NotResumed> {
        if places.len() != self.names.buckets() {
            return Err(NotResumed::Future);
        }
        if !self.joined.load(Ordering::Acquire) {
            return Err(NotResumed::Unavailable);
        }
        // First: what is appended from here on is in the log.
        let (oldest, begins) = self.log_begins();
        let mut before = Before::new(self.names.buckets());
        for (bucket, (seen, begin)) in places.iter().zip(&begins).enumerate() {
            let applied = self.applied(bucket);
            if *seen > applied {
                // Another sidecar was faster than this one, or nobody was ever there.
                let through = Some(*seen);
                self.catch_up(bucket, through)
                    .await
                    .map_err(|Unavailable| NotResumed::Unavailable)?;
                if self.applied(bucket) < *seen {
                    // The token is ours, so this was there: the store has lost it.
                    return Err(NotResumed::Trimmed);
                }
            }
            let mut at = *seen;
            while at < *begin {
                let page = self.read_events(bucket, at, *begin).await;
                let events = match page.map_err(|Unavailable| NotResumed::Unavailable)? {
                    // The end of it is not there any more, or its beginning.
                    Page::Events(events) if !events.is_empty() => events,
                    Page::Events(_) | Page::Trimmed => return Err(NotResumed::Trimmed),
                };
                for (number, body) in events {
                    at = number;
                    let stream = u16::try_from(bucket).unwrap_or(u16::MAX);
                    let event = self.event(&body, stream, number).await;
                    let event = event.map_err(|Unavailable| NotResumed::Unavailable)?;
                    before.buckets[bucket].push_back((number, body.after, event));
                }
            }
            self.meter.replayed.inc_by(begin.saturating_sub(*seen));
        }
        Ok(Resumed {
            before: before.in_order(),
            cursor: oldest.saturating_sub(1),
        })
    }

    /// Where the log of this process begins: its oldest event, and the numbers before it.
    fn log_begins(&self) -> (u64, Places) {
        let mut places: Places = self.begins.lock().clone();
        let oldest = self.log.oldest();
        // What was trimmed from the log is in the streams.
        for (place, trimmed) in places.iter_mut().zip(self.log.trimmed()) {
            *place = (*place).max(trimmed);
        }
        (oldest, places)
    }
}
