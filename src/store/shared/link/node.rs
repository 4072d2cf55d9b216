//! One primary: its two connections, and the task that makes them, listens to their heartbeat and makes them anew.
//!
//! The channels are listened to on a connection of their own. When a slot moves away the server unsubscribes by itself, and
//! the client library takes that for the reply to whatever was asked last: on a shared connection every call after it would
//! get the reply of another one.

use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use redis::{Pipeline, PushInfo, PushKind, Value};
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Place, Poke, Server, Unfit,
    backoff::Backoff,
    connect::{Pushed, Wire},
    find::Range,
    hub::Hub,
    server::{Info, ask, examine, refused},
    slots::slot,
};

/// How often the server is asked for a sign of life, and the subscriptions are sent again.
const BEAT: Duration = Duration::from_secs(1);

/// A server that gives no sign of life for so long is gone.
const PONG: Duration = Duration::from_millis(500);

/// So many calls in a row without an answer, and the connection is given up.
const MISSES: u32 = 3;

/// A primary.
pub(super) struct Node {
    pub(super) place: Place,
    /// What it is responsible for.
    ranges: ArcSwap<Vec<Range>>,
    live: ArcSwapOption<Live>,
    /// Whether connecting has succeeded or failed since it was lost.
    tried: AtomicBool,
    /// Whether the log tells already that it is away.
    pub(super) told: AtomicBool,
    /// Beats at once.
    wake: Notify,
    /// It is no primary any more.
    gone: CancellationToken,
}

/// Its connections.
pub(super) struct Live {
    pub(super) calls: Wire,
    feed: Wire,
    server: Mutex<Server>,
    /// Whether it may be asked by anybody; else only by those who get to know it.
    admitted: AtomicBool,
    lost: CancellationToken,
    why: OnceLock<&'static str>,
    /// Calls in a row that were not answered in time.
    misses: AtomicU32,
    /// Numbers the heartbeats, so that each one's answer is known.
    beats: AtomicU64,
    /// When the last answered heartbeat of the channels was sent.
    heard: Mutex<Option<Instant>>,
    /// The last heartbeat got another one's answer.
    out_of_step: AtomicBool,
}

impl Live {
    /// Gives the connections up.
    pub(super) fn lose(&self, why: &'static str) {
        // The first reason counts.
        let _ = self.why.set(why);
        self.lost.cancel();
    }

    /// Something was answered.
    pub(super) fn answered(&self) {
        // Written by every call otherwise, on every core.
        if self.misses.load(Ordering::Relaxed) != 0 {
            self.misses.store(0, Ordering::Relaxed);
        }
    }

    /// A call was not answered in time.
    pub(super) fn missed(&self) {
        if self.misses.fetch_add(1, Ordering::Relaxed) + 1 >= MISSES {
            self.lose("it left several calls in a row unanswered");
        }
    }

    /// What the server is.
    pub(super) fn server(&self) -> Server {
        self.server.lock().clone()
    }

    /// Whether it may be asked by anybody.
    pub(super) fn is_admitted(&self) -> bool {
        self.admitted.load(Ordering::Acquire)
    }

    /// Whether anybody may ask it from now on.
    pub(super) fn admit(&self, admitted: bool) {
        self.admitted.store(admitted, Ordering::Release);
    }

    /// What was published before then has been heard.
    pub(super) fn heard(&self) -> Option<Instant> {
        *self.heard.lock()
    }

    fn is_lost(&self) -> bool {
        self.lost.is_cancelled()
    }
}

impl Node {
    pub(super) fn new(place: Place, ranges: Vec<Range>) -> Self {
        Self {
            place,
            ranges: ArcSwap::from_pointee(ranges),
            live: ArcSwapOption::empty(),
            tried: AtomicBool::new(false),
            told: AtomicBool::new(false),
            wake: Notify::new(),
            gone: CancellationToken::new(),
        }
    }

    /// Its connections, if it has any.
    pub(super) fn live(&self) -> Option<Arc<Live>> {
        self.live.load_full().filter(|live| !live.is_lost())
    }

    /// Whether it is known if it can be reached.
    pub(super) fn tried(&self) -> bool {
        self.tried.load(Ordering::Acquire)
    }

    /// Gives its connections up, if it has any.
    pub(super) fn lose(&self, why: &'static str) {
        if let Some(live) = self.live.load_full() {
            live.lose(why);
        }
    }

    /// What it is responsible for from now on.
    pub(super) fn hand(&self, ranges: Vec<Range>) {
        if **self.ranges.load() != ranges {
            self.ranges.store(Arc::new(ranges));
            self.wake.notify_one();
        }
    }

    /// It is no primary any more: its task ends.
    pub(super) fn dismiss(&self) {
        self.gone.cancel();
        self.live.store(None);
    }

    /// Keeps it connected until it is dismissed.
    pub(super) async fn run(self: Arc<Self>, hub: Arc<Hub>) {
        let mut backoff = Backoff::new();
        while self
            .gone
            .run_until_cancelled(self.live_once(&hub, &mut backoff))
            .await
            .is_some()
        {}
        self.live.store(None);
    }

    async fn live_once(self: &Arc<Self>, hub: &Arc<Hub>, backoff: &mut Backoff) {
        match self.connect(hub).await {
            Ok(live) => {
                let live = Arc::new(live);
                let since = Instant::now();
                self.live.store(Some(Arc::clone(&live)));
                hub.check_in(&live);
                self.tried.store(true, Ordering::Release);
                hub.came(self);
                hub.poke(Poke::Resubscribed);
                let why = self.tend(hub, &live).await;
                live.lose("it was given up");
                self.live.store(None);
                self.tried.store(false, Ordering::Release);
                // A server that drops everybody at once is not asked more often than one that is gone.
                if since.elapsed() >= BEAT {
                    *backoff = Backoff::new();
                }
                hub.went(self, &why);
            }
            Err(unfit) => {
                self.tried.store(true, Ordering::Release);
                hub.went(self, &unfit.to_string());
            }
        }
        hub.relayout.notify_one();
        sleep(backoff.next()).await;
    }

    async fn connect(self: &Arc<Self>, hub: &Arc<Hub>) -> Result<Live, Unfit> {
        let lost = CancellationToken::new();
        let calls = hub.servers.connect(&self.place, watching(lost.clone())).await?;
        let server = examine(&calls, &self.place, hub.manner.database, hub.cluster).await?;
        let feed = hub
            .servers
            .connect(&self.place, self.listening(hub, lost.clone()))
            .await?;
        let live = Live {
            calls,
            feed,
            server: Mutex::new(server),
            admitted: AtomicBool::new(false),
            lost,
            why: OnceLock::new(),
            misses: AtomicU32::new(0),
            beats: AtomicU64::new(0),
            heard: Mutex::new(None),
            out_of_step: AtomicBool::new(false),
        };
        self.listen(hub, &live).await?;
        Ok(live)
    }

    /// What is done with what the server says unasked.
    fn listening(self: &Arc<Self>, hub: &Arc<Hub>, lost: CancellationToken) -> Pushed {
        // Weak: the hub holds the node, and the node the connection that this belongs to.
        let (hub, node): (Weak<Hub>, Weak<Self>) = (Arc::downgrade(hub), Arc::downgrade(self));
        Box::new(move |PushInfo { kind, data }| {
            match kind {
                PushKind::SMessage => {
                    if let (Some(hub), Ok([Value::BulkString(channel), Value::BulkString(payload)])) =
                        (hub.upgrade(), <[Value; 2]>::try_from(data))
                    {
                        hub.poke(Poke::Message { channel, payload });
                    }
                }
                // The slot has moved to another node.
                PushKind::SUnsubscribe => {
                    if let (Some(hub), Some(node)) = (hub.upgrade(), node.upgrade()) {
                        hub.relayout.notify_one();
                        node.wake.notify_one();
                    }
                }
                PushKind::Disconnection => lost.cancel(),
                _ => {}
            }
            Ok(())
        })
    }

    /// Feels the pulse until the connections are lost, and tells why.
    async fn tend(&self, hub: &Hub, live: &Live) -> String {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.tick().await;
        loop {
            tokio::select! {
                biased;
                () = live.lost.cancelled() => break,
                _ = beat.tick() => {}
                () = self.wake.notified() => {}
            }
            let both = async { tokio::try_join!(self.pulse(hub, live), self.listen(hub, live)) };
            match live.lost.run_until_cancelled(timeout(PONG, both)).await {
                None => break,
                Some(Err(_)) => return "it gave no sign of life".to_owned(),
                Some(Ok(Err(unfit))) => return unfit.to_string(),
                Some(Ok(Ok(((), healed)))) => {
                    if healed {
                        hub.poke(Poke::Resubscribed);
                    }
                }
            }
        }
        live.why.get().copied().unwrap_or("the connection was lost").to_owned()
    }

    /// Whether the connection for calls is alive, and the server still a primary.
    async fn pulse(&self, hub: &Hub, live: &Live) -> Result<(), Unfit> {
        let at = self.place.to_string();
        let nonce = live.nonce();
        let mut asked = Pipeline::new();
        asked.cmd("PING").arg(&nonce);
        asked.cmd("INFO").arg("replication");
        let mut answers = ask(&live.calls, &self.place, &asked).await?;
        let info = answers.pop().unwrap_or(Value::Nil);
        let pong = answers.pop().unwrap_or(Value::Nil);
        refused(&at, "PING", &pong)?;
        refused(&at, "INFO", &info)?;
        if pong != Value::BulkString(nonce.into_bytes()) {
            return Err(out_of_step(at));
        }
        let info = Info::of([info]);
        if info.is_replica() {
            return Err(Unfit::Replica { at });
        }
        let changed = {
            let mut server = live.server.lock();
            let before = server.clone();
            info.refresh(&mut server);
            *server != before
        };
        if changed {
            hub.check_in(live);
            hub.refreshed();
        }
        Ok(())
    }

    /// Subscribes to the node's channels, again if that was done before: a subscription can get lost without a word. Answers
    /// whether one had been.
    async fn listen(&self, hub: &Hub, live: &Live) -> Result<bool, Unfit> {
        let at = self.place.to_string();
        let channels: Vec<_> = hub.channels.iter().filter(|channel| self.owns(channel)).collect();
        let nonce = live.nonce();
        let mut asked = Pipeline::with_capacity(channels.len() + 1);
        for channel in &channels {
            asked.cmd("SSUBSCRIBE").arg(channel.as_slice());
        }
        asked.cmd("PING").arg(&nonce);
        let sent = Instant::now();
        let mut answers = ask(&live.feed, &self.place, &asked).await?;
        let pong = answers.pop().unwrap_or(Value::Nil);
        refused(&at, "PING", &pong)?;
        if pong != Value::BulkString(nonce.into_bytes()) {
            // The server unsubscribed in between, see above. The next beat puts that right.
            if live.out_of_step.swap(true, Ordering::Relaxed) {
                return Err(out_of_step(at));
            }
            self.wake.notify_one();
            return Ok(false);
        }
        live.out_of_step.store(false, Ordering::Relaxed);
        let (mut healed, mut all) = (false, true);
        for answer in &answers {
            match answer {
                // The last part counts the subscriptions: if none was lost, it is the same in all replies.
                Value::Push { data, .. } => {
                    let count = usize::try_from(data.last().map_or(0, integer)).unwrap_or(0);
                    healed |= count < channels.len();
                }
                Value::ServerError(error) if matches!(error.code(), "MOVED" | "ASK" | "TRYAGAIN" | "CLUSTERDOWN") => {
                    all = false;
                    hub.relayout.notify_one();
                }
                answer => refused(&at, "SSUBSCRIBE", answer)?,
            }
        }
        *live.heard.lock() = all.then_some(sent);
        Ok(healed)
    }

    fn owns(&self, channel: &[u8]) -> bool {
        let slot = slot(channel);
        self.ranges
            .load()
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&slot))
    }
}

impl Live {
    fn nonce(&self) -> String {
        self.beats.fetch_add(1, Ordering::Relaxed).to_string()
    }
}

/// Only the end of the connection is of interest.
fn watching(lost: CancellationToken) -> Pushed {
    Box::new(move |push| {
        if push.kind == PushKind::Disconnection {
            lost.cancel();
        }
        Ok(())
    })
}

fn integer(value: &Value) -> i64 {
    match value {
        Value::Int(number) => *number,
        _ => 0,
    }
}

fn out_of_step(at: String) -> Unfit {
    Unfit::Unreachable {
        at,
        why: "its answers do not fit the questions".to_owned(),
    }
}
