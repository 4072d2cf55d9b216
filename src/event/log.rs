//! The replay log: bounded, in memory, numbered without gaps.

use std::{collections::VecDeque, sync::Arc};

use tokio::sync::Notify;

use super::{Event, Places};
use crate::{
    sabotage::{self, Fault},
    sync::Mutex,
};

/// The log. Appending is what publishes an event; the router reads it from there.
pub struct Log {
    ring: Mutex<Ring>,
    capacity: usize,
    appended: Notify,
}

struct Ring {
    events: VecDeque<Arc<Event>>,
    /// Place of the newest event; 0 if there never was one.
    head: u64,
    /// Every event up to here is with those who watch.
    routed: u64,
    /// The numbers of the last events of each stream that are not kept any more.
    trimmed: Places,
}

/// How many events more than its capacity a log may keep for the router, which must not be overrun by a burst.
const BACKLOG: usize = 1 << 20;

/// The log no longer reaches back to where a reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trimmed;

impl Log {
    /// An empty log that keeps the last `capacity` events.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            ring: Mutex::new(Ring {
                events: VecDeque::new(),
                head: 0,
                routed: 0,
                trimmed: Places::new(),
            }),
            capacity: capacity.max(1),
            appended: Notify::new(),
        }
    }

    /// Appends an event, and answers it; its `seq` is given here. Called under the lock of the event's session, so that the order of a
    /// session's events is the order of its changes (G4).
    pub fn append(&self, mut event: Event) -> Arc<Event> {
        let (event, trimmed) = {
            let mut ring = self.ring.lock();
            ring.head += 1;
            event.seq = ring.head;
            if event.number == 0 {
                event.number = ring.head;
            }
            let event = Arc::new(event);
            ring.events.push_back(Arc::clone(&event));
            (event, self.trim(&mut ring))
        };
        drop(trimmed);
        self.appended.notify_one();
        event
    }

    /// Takes out the oldest event if there are too many. What is not routed yet stays, as long as there is any end to it.
    fn trim(&self, ring: &mut Ring) -> Option<Arc<Event>> {
        let over = ring.events.len().checked_sub(self.capacity + 1)?;
        let is_routed = ring.events.front().is_some_and(|oldest| oldest.seq <= ring.routed);
        if is_routed || over >= BACKLOG {
            let oldest = ring.events.pop_front()?;
            let stream = usize::from(oldest.stream);
            if ring.trimmed.len() <= stream {
                ring.trimmed.resize(stream + 1, 0);
            }
            ring.trimmed[stream] = oldest.number;
            Some(oldest)
        } else {
            None
        }
    }

    /// Every event up to here has been routed: what was kept for that alone may go.
    pub(super) fn routed_through(&self, seq: u64) {
        let mut ring = self.ring.lock();
        ring.routed = seq;
        let trimmed: Vec<_> = std::iter::from_fn(|| self.trim(&mut ring)).collect();
        drop(ring);
        drop(trimmed);
    }

    /// The oldest event that is kept.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        let ring = self.ring.lock();
        ring.head + 1 - ring.events.len() as u64
    }

    /// The numbers of the last events of each stream that are not kept any more.
    #[must_use]
    pub fn trimmed(&self) -> Places {
        self.ring.lock().trimmed.clone()
    }

    /// The streams go on from other places than these events lead to: nobody can read on over the break.
    pub fn begin_anew(&self, places: &Places) {
        let mut ring = self.ring.lock();
        let old = std::mem::take(&mut ring.events);
        ring.head += 1;
        ring.trimmed.clone_from(places);
        drop(ring);
        drop(old);
        self.appended.notify_one();
    }

    /// Place of the newest event; 0 if there never was one.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.ring.lock().head
    }

    /// Up to `most` events after a place, up to and including another.
    pub fn read(&self, after: u64, through: u64, most: usize) -> Result<Vec<Arc<Event>>, Trimmed> {
        let ring = self.ring.lock();
        let first = ring.head + 1 - ring.events.len() as u64;
        if after + 1 < first && !sabotage::on(Fault::NoGapCheck) {
            return Err(Trimmed);
        }
        let skip = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        let wanted = usize::try_from(through.saturating_sub(after)).unwrap_or(usize::MAX);
        let events = ring.events.iter().skip(skip).take(most.min(wanted));
        Ok(events.cloned().collect())
    }

    /// Waits until something was appended since the last wait. For one reader: the router.
    pub(super) async fn appended(&self) {
        self.appended.notified().await;
    }
}
