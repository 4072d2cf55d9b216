//! From the log to the watchers: one task finds, for each event, the watchers that asked for it, and puts it in their
//! mailboxes. Who does not empty a mailbox that is full goes back to the log; nobody waits for it (G13).

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Event, Log, Places};
use crate::state::{Happening, SessionRef};

/// How many events are routed between two looks at what else there is to do.
const BATCH: usize = 1024;

/// What a watcher asks for. A watcher may have several routes; an event comes to it once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Route {
    /// One session.
    Session(SessionRef),
    /// The sessions of a tenant's subject.
    Subject(Arc<str>, Box<str>),
    /// The sessions of a tenant.
    Tenant(Arc<str>),
}

/// Who gets what.
pub struct Router {
    log: Arc<Log>,
    table: Mutex<Table>,
    mailbox_size: usize,
    routed_more: Notify,
}

type Mailboxes = Vec<Arc<Mailbox>>;

#[derive(Default)]
struct Table {
    /// Every event up to here is in the mailboxes.
    routed: u64,
    /// The same, in the numbers of the streams.
    places: Places,
    next_id: u64,
    sessions: HashMap<SessionRef, Mailboxes>,
    /// By tenant, then by subject.
    subjects: HashMap<Arc<str>, HashMap<Box<str>, Mailboxes>>,
    tenants: HashMap<Arc<str>, Mailboxes>,
    mailboxes: HashMap<u64, Arc<Mailbox>>,
}

/// Events on their way to one watcher.
pub struct Mailbox {
    id: u64,
    size: usize,
    content: Mutex<Content>,
    changed: Notify,
}

#[derive(Default)]
struct Content {
    events: VecDeque<Arc<Event>>,
    /// The newest event that was put in: a watcher with two routes to it gets it once.
    newest: u64,
    /// The sessions that it came to by following a Rotate.
    followed: Vec<SessionRef>,
    /// More came than there is room for: what was in it is in the log.
    overrun: bool,
}

/// A watcher's place in the router; dropping it gives the place up.
pub struct Subscription {
    router: Arc<Router>,
    mailbox: Arc<Mailbox>,
    routes: Vec<Route>,
}

impl Router {
    /// A router that reads this log, which so many streams flow into, and gives each watcher room for `mailbox_size` events.
    #[must_use]
    pub fn new(log: Arc<Log>, streams: usize, mailbox_size: usize) -> Arc<Self> {
        Arc::new(Self {
            log,
            table: Mutex::new(Table {
                places: std::iter::repeat_n(0, streams.max(1)).collect(),
                ..Table::default()
            }),
            mailbox_size: mailbox_size.max(1),
            routed_more: Notify::new(),
        })
    }

    /// Every event up to here has been routed.
    #[must_use]
    pub fn routed(&self) -> u64 {
        self.table.lock().routed
    }

    /// The same, and how far that is in each stream.
    #[must_use]
    pub fn places(&self) -> (u64, Places) {
        let table = self.table.lock();
        (table.routed, table.places.clone())
    }

    /// This is where the streams begin for this process: what is before is not routed.
    pub fn begin_at(&self, stream: usize, number: u64) {
        let mut table = self.table.lock();
        if let Some(place) = table.places.get_mut(stream) {
            *place = number;
        }
    }

    /// Waits until all that is in the log now is routed.
    pub async fn caught_up(&self) {
        let head = self.log.head();
        loop {
            // In this order: whoever routes more from here on wakes us.
            let more = self.routed_more.notified();
            if self.routed() >= head {
                return;
            }
            more.await;
        }
    }

    /// How many watchers are subscribed.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.table.lock().mailboxes.len()
    }

    /// Subscribes a watcher that has read the log up to `after`, if that is where the router is; else answers where the router
    /// is: read on up to there and try again.
    pub fn subscribe(self: &Arc<Self>, routes: Vec<Route>, after: u64) -> Result<Subscription, u64> {
        let mut table = self.table.lock();
        if table.routed != after {
            return Err(table.routed);
        }
        table.next_id += 1;
        let mailbox = Arc::new(Mailbox {
            id: table.next_id,
            size: self.mailbox_size,
            content: Mutex::default(),
            changed: Notify::new(),
        });
        for route in &routes {
            table.route_mut(route).push(Arc::clone(&mailbox));
        }
        table.mailboxes.insert(mailbox.id, Arc::clone(&mailbox));
        Ok(Subscription {
            router: Arc::clone(self),
            mailbox,
            routes,
        })
    }

    /// Routes events for ever. Run it as one task.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.log.appended().await;
            while self.route_batch() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Routes up to a batch. Answers whether there may be more.
    fn route_batch(&self) -> bool {
        let mut table = self.table.lock();
        let Ok(events) = self.log.read(table.routed, u64::MAX, BATCH) else {
            // The log was overrun before it was routed. Nobody is left to think that nothing happened.
            table.mailboxes.values().for_each(|mailbox| mailbox.overrun());
            table.routed = self.log.head();
            drop(table);
            self.routed_more.notify_waiters();
            return true;
        };
        for event in &events {
            table.deliver(event);
            table.routed = event.seq;
            if let Some(place) = table.places.get_mut(usize::from(event.stream)) {
                *place = event.number;
            }
        }
        let routed = table.routed;
        drop(table);
        // Whoever subscribes need not wait while old events are given up.
        self.log.routed_through(routed);
        self.routed_more.notify_waiters();
        events.len() == BATCH
    }
}

impl Table {
    fn route_mut(&mut self, route: &Route) -> &mut Mailboxes {
        match route {
            Route::Session(session) => self.sessions.entry(*session).or_default(),
            Route::Subject(tenant, subject) => {
                let subjects = self.subjects.entry(Arc::clone(tenant)).or_default();
                subjects.entry(subject.clone()).or_default()
            }
            Route::Tenant(tenant) => self.tenants.entry(Arc::clone(tenant)).or_default(),
        }
    }

    fn deliver(&mut self, event: &Arc<Event>) {
        let by_session = self.sessions.get(&event.session);
        let by_subject = self
            .subjects
            .get(event.identity.tenant())
            .and_then(|subjects| subjects.get(event.identity.subject()));
        let by_tenant = self.tenants.get(event.identity.tenant());
        for mailbox in [by_session, by_subject, by_tenant].into_iter().flatten().flatten() {
            mailbox.put(event);
        }
        if let Happening::Ended(tombstone) = &event.what
            && let Some(succession) = tombstone.successor
        {
            self.follow(event.session, succession.reference);
        }
    }

    /// Whoever watches a session by name watches the one that goes on in its place, from its first event on.
    fn follow(&mut self, from: SessionRef, to: SessionRef) {
        let Some(watchers) = self.sessions.get(&from).cloned() else {
            return;
        };
        let known = self.sessions.entry(to).or_default();
        for mailbox in watchers {
            if known.iter().all(|known| known.id != mailbox.id) {
                mailbox.content.lock().followed.push(to);
                known.push(mailbox);
            }
        }
    }

    fn remove(&mut self, subscription: &Subscription) {
        let id = subscription.mailbox.id;
        self.mailboxes.remove(&id);
        let followed = std::mem::take(&mut subscription.mailbox.content.lock().followed);
        let followed: Vec<_> = followed.into_iter().map(Route::Session).collect();
        for route in subscription.routes.iter().chain(&followed) {
            let watchers = self.route_mut(route);
            watchers.retain(|mailbox| mailbox.id != id);
            if !watchers.is_empty() {
                continue;
            }
            match route {
                Route::Session(session) => drop(self.sessions.remove(session)),
                Route::Tenant(tenant) => drop(self.tenants.remove(tenant)),
                Route::Subject(tenant, subject) => {
                    if let Some(subjects) = self.subjects.get_mut(tenant) {
                        subjects.remove(subject);
                        if subjects.is_empty() {
                            self.subjects.remove(tenant);
                        }
                    }
                }
            }
        }
    }
}

impl Mailbox {
    fn put(&self, event: &Arc<Event>) {
        let mut content = self.content.lock();
        if content.overrun || content.newest == event.seq {
            return;
        }
        if content.events.len() >= self.size {
            drop(content);
            self.overrun();
            return;
        }
        content.newest = event.seq;
        content.events.push_back(Arc::clone(event));
        let was_empty = content.events.len() == 1;
        drop(content);
        if was_empty {
            self.changed.notify_one();
        }
    }

    fn overrun(&self) {
        let mut content = self.content.lock();
        content.overrun = true;
        content.events = VecDeque::new();
        drop(content);
        self.changed.notify_one();
    }
}

impl Subscription {
    /// Moves what has come into `events`. Answers false if more came than there was room for: read on in the log.
    pub fn take(&self, events: &mut VecDeque<Arc<Event>>) -> bool {
        let mut content = self.mailbox.content.lock();
        if events.is_empty() {
            std::mem::swap(events, &mut content.events);
        } else {
            events.append(&mut content.events);
        }
        !content.overrun
    }

    /// Waits until more has come than there is room for.
    pub async fn overrun(&self) {
        while !self.mailbox.content.lock().overrun {
            self.mailbox.changed.notified().await;
        }
    }

    /// Waits until something has come.
    pub async fn changed(&self) {
        self.mailbox.changed.notified().await;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let router = Arc::clone(&self.router);
        router.table.lock().remove(self);
    }
}
