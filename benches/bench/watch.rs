//! Watchers: how late warnings and ends come to one, and how long an event takes to come to thousands.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use prost::Message as _;
use session_sidecar::rpc::proto::v1::{self, watch_expiry_response::Message, watch_scope::Scope};

use crate::{
    http2::{self, Calls, LOCALHOST, OPEN, Options, Target},
    load::{one_thread, unix_now},
    report,
};

const SERVICE: &str = "/sessionsidecar.v1.SessionService";

#[derive(Debug, clap::Args)]
pub(crate) struct LatenessArgs {
    /// The server.
    #[arg(long)]
    target: Target,
    /// Until so many sessions have ended.
    #[arg(long)]
    sessions: usize,
    /// At most so long, in seconds.
    #[arg(long, default_value_t = 180.0)]
    at_most: f64,
}

/// Watches everything until all sessions have ended.
struct Lateness {
    asked: bool,
    sessions: usize,
    /// Unix time of the last read.
    now: f64,
    /// Milliseconds from the warning point, or the deadline, to here.
    warnings: Vec<f32>,
    ends: Vec<f32>,
    /// Milliseconds from the deadline to the event's place in the log.
    logged: Vec<f32>,
    broken: Option<String>,
}

impl Calls for Lateness {
    fn request(&mut self, message: &mut Vec<u8>) -> bool {
        let wanted = [v1::EventKind::Warning, v1::EventKind::Ended];
        let request = v1::WatchExpiryRequest {
            kinds: wanted.map(Into::into).into(),
            ..watch(Scope::Everything(true))
        };
        !std::mem::replace(&mut self.asked, true) && request.encode(message).is_ok()
    }

    fn woke(&mut self) {
        self.now = unix_now();
    }

    fn message(&mut self, _: u32, message: &[u8]) {
        let Ok(message) = v1::WatchExpiryResponse::decode(message) else {
            self.broken = Some("a message cannot be read".to_owned());
            return;
        };
        let emitted = seconds(message.emit_time);
        match message.message {
            Some(Message::Warning(warning)) => {
                let lead = warning.point.unwrap_or_default();
                let lead = lead.seconds as f64 + f64::from(lead.nanos) / 1e9;
                let due = seconds(warning.expire_time) - lead;
                self.warnings.push(((self.now - due) * 1e3) as f32);
            }
            Some(Message::Ended(ended)) => {
                let due = seconds(ended.end.unwrap_or_default().end_time);
                self.ends.push(((self.now - due) * 1e3) as f32);
                self.logged.push(((emitted - due) * 1e3) as f32);
            }
            _ => {}
        }
    }

    fn over(&mut self, _: u32, ok: bool) {
        self.broken = Some(format!("the watch ended; grpc-status 0: {ok}"));
    }

    fn enough(&self) -> bool {
        self.ends.len() >= self.sessions || self.broken.is_some()
    }
}

/// Measures how late warnings and ends are.
pub(crate) fn lateness(args: &LatenessArgs) -> anyhow::Result<()> {
    let mut watcher = Lateness {
        asked: false,
        sessions: args.sessions,
        now: 0.0,
        warnings: Vec::with_capacity(args.sessions),
        ends: Vec::with_capacity(args.sessions),
        logged: Vec::with_capacity(args.sessions),
        broken: None,
    };
    let path = format!("{SERVICE}/WatchExpiry");
    let timed_out = one_thread(async {
        let watching = http2::call(&args.target, one(&path), &mut watcher);
        match tokio::time::timeout(Duration::from_secs_f64(args.at_most), watching).await {
            Ok(ended) => ended.map(|()| false).context("the connection failed"),
            Err(_) => Ok(true),
        }
    })?;
    if let Some(broken) = watcher.broken {
        bail!("{broken} after {} ends", watcher.ends.len());
    }
    report(&serde_json::json!({
        "timed_out": timed_out,
        "warnings": spread(watcher.warnings),
        "ends": spread(watcher.ends),
        "ends_logged": spread(watcher.logged),
    }));
    Ok(())
}

/// What is said of many measurements.
pub(crate) fn spread(mut values: Vec<f32>) -> serde_json::Value {
    values.sort_unstable_by(f32::total_cmp);
    let at = |part: f64| values.get(((values.len() as f64 * part) as usize).min(values.len().saturating_sub(1)));
    serde_json::json!({
        "count": values.len(),
        "min": values.first(),
        "p50": at(0.5),
        "p99": at(0.99),
        "p999": at(0.999),
        "max": values.last(),
    })
}

pub(crate) fn seconds(time: Option<prost_types::Timestamp>) -> f64 {
    time.map_or(0.0, |time| time.seconds as f64 + f64::from(time.nanos) / 1e9)
}

fn watch(scope: Scope) -> v1::WatchExpiryRequest {
    v1::WatchExpiryRequest {
        scope: Some(v1::WatchScope {
            tenant: String::new(),
            scope: Some(scope),
        }),
        heartbeat_interval: Some(prost_types::Duration { seconds: 300, nanos: 0 }),
        ..Default::default()
    }
}

fn one(path: &str) -> Options<'_> {
    Options {
        path,
        authority: LOCALHOST,
        in_flight: 1,
        window: OPEN,
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct FanOutArgs {
    /// The server.
    #[arg(long)]
    target: Target,
    /// Watchers that read.
    #[arg(long, default_value_t = 5000)]
    watchers: usize,
    /// Their connections.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Watchers that never read, on a connection of their own.
    #[arg(long, default_value_t = 0)]
    stuck: usize,
    /// Events, one after the other.
    #[arg(long, default_value_t = 20)]
    events: usize,
}

const SUBJECT: &str = "everybody";

#[derive(Default)]
struct Audience {
    /// How many watchers have got all up to their SnapshotEnd.
    ready: Cell<usize>,
    /// First and last delivery and how many, by event.
    deliveries: RefCell<HashMap<String, (Instant, Instant, usize)>>,
    failed: Cell<usize>,
}

struct Watchers<'a> {
    to_open: usize,
    audience: &'a Audience,
    now: Instant,
}

impl Calls for Watchers<'_> {
    fn request(&mut self, message: &mut Vec<u8>) -> bool {
        if self.to_open == 0 {
            return false;
        }
        self.to_open -= 1;
        watch(Scope::Subject(SUBJECT.to_owned())).encode(message).is_ok()
    }

    fn woke(&mut self) {
        self.now = Instant::now();
    }

    fn message(&mut self, _: u32, message: &[u8]) {
        match v1::WatchExpiryResponse::decode(message).map(|message| message.message) {
            Ok(Some(Message::SnapshotEnd(_))) => self.audience.ready.set(self.audience.ready.get() + 1),
            Ok(Some(Message::Ended(ended))) => {
                let name = ended.session.map(|session| session.session_ref).unwrap_or_default();
                let mut deliveries = self.audience.deliveries.borrow_mut();
                let delivery = deliveries.entry(name).or_insert((self.now, self.now, 0));
                delivery.1 = self.now;
                delivery.2 += 1;
            }
            _ => {}
        }
    }

    fn over(&mut self, _: u32, _: bool) {
        self.audience.failed.set(self.audience.failed.get() + 1);
    }
}

/// One call.
struct Single {
    request: Option<Vec<u8>>,
    answer: Vec<u8>,
    ok: bool,
}

impl Calls for Single {
    fn request(&mut self, message: &mut Vec<u8>) -> bool {
        self.request.take().map(|request| message.extend(request)).is_some()
    }

    fn message(&mut self, _: u32, message: &[u8]) {
        self.answer = message.to_vec();
    }

    fn over(&mut self, _: u32, ok: bool) {
        self.ok = ok;
    }
}

/// Makes one call.
pub(crate) async fn single<A: prost::Message + Default>(
    target: &Target,
    method: &str,
    request: &impl prost::Message,
) -> anyhow::Result<A> {
    let mut call = Single {
        request: Some(request.encode_to_vec()),
        answer: Vec::new(),
        ok: false,
    };
    http2::call(target, one(&format!("{SERVICE}/{method}")), &mut call).await?;
    if !call.ok {
        bail!("{method} failed");
    }
    Ok(A::decode(call.answer.as_slice())?)
}

/// Measures how long one event takes to come to all watchers, from the first of them to the last.
pub(crate) fn fan_out(args: &FanOutArgs) -> anyhow::Result<()> {
    let audience = Audience::default();
    let path = format!("{SERVICE}/WatchExpiry");
    let begin = Instant::now();
    one_thread(async {
        let mut connections: Vec<_> = (0..args.connections)
            .map(|connection| {
                (
                    args.watchers * (connection + 1) / args.connections - args.watchers * connection / args.connections,
                    OPEN,
                )
            })
            .collect();
        if args.stuck > 0 {
            connections.push((args.stuck, 0));
        }
        let watching = connections.into_iter().map(|(count, window)| {
            let mut watchers = Watchers {
                to_open: count,
                audience: &audience,
                now: begin,
            };
            let options = Options {
                path: &path,
                authority: LOCALHOST,
                in_flight: count,
                window,
            };
            async move { http2::call(&args.target, options, &mut watchers).await }
        });
        let events = async {
            while audience.ready.get() < args.watchers {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            for event in 0..args.events {
                let created: v1::CreateResponse = single(
                    &args.target,
                    "Create",
                    &v1::CreateRequest {
                        subject: SUBJECT.to_owned(),
                        ..Default::default()
                    },
                )
                .await?;
                let end = v1::EndRequest {
                    session_id: created.session_id,
                    ..Default::default()
                };
                let _: v1::EndResponse = single(&args.target, "End", &end).await?;
                let all = |audience: &Audience| {
                    let deliveries = audience.deliveries.borrow();
                    deliveries.len() == event + 1 && deliveries.values().all(|delivery| delivery.2 == args.watchers)
                };
                while !all(&audience) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            anyhow::Ok(())
        };
        tokio::select! {
            ended = events => ended,
            mut ended = futures_util::future::join_all(watching) => match ended.pop() {
                Some(Err(error)) => Err(error).context("a connection failed"),
                _ => bail!("the watches ended"),
            },
        }
    })?;
    let took = |delivery: &(Instant, Instant, usize)| (delivery.1 - delivery.0).as_secs_f32() * 1e3;
    let took: Vec<f32> = audience.deliveries.borrow().values().map(took).collect();
    report(&serde_json::json!({ "first_to_last_ms": spread(took), "failed": audience.failed.get() }));
    Ok(())
}
