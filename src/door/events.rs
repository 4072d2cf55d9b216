//! What happens to a session, as a stream of server-sent events (HTML standard section 9.2). An open stream is an open page.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{
        IntoResponse,
        sse::{Event as Message, Sse},
    },
};
use serde::Serialize;
use serde_json::json;
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Answer, Door,
    answer::{Writer, limit},
    pages::{self, MOST_STREAMS, Page},
    request::{Sender, sender},
};
use crate::{
    event::Event,
    sessions::{Error, Name, Scope, Subscriber, Watch, WatchContent, WatchError},
    state::{Happening, HoldKind, HoldWish, SessionRef},
};

/// How often a stream says that it is alive: more often than what stands between gives up (NGINX: 60 s, Envoy: 5 min).
const HEARTBEAT: Duration = Duration::from_secs(15);

/// When a browser that lost its stream comes back.
const RETRY: Duration = Duration::from_secs(2);

/// How long PRESENCE is held from now on, and how often that is renewed.
const PRESENCE: Duration = Duration::from_secs(90);
const PULSE: Duration = Duration::from_secs(30);

/// How long a message may wait until it is read.
const UNREAD: Duration = Duration::from_secs(10);

/// How many messages may wait.
const IN_STREAM: usize = 16;

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// NGINX would wait until its buffer is full.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

const LONGEST_TOKEN: usize = 1024;

/// `GET /session/events`.
pub(super) async fn stream(State(door): State<Arc<Door>>, headers: HeaderMap, uri: Uri) -> Answer {
    let (name, mut writer) = door.named(&headers)?;
    // No page can read why its stream is refused. It asks, and the answer to that takes the cookie back.
    writer.cookie = None;
    if sender(&door.settings, &headers) == Sender::Foreign {
        let message = "only a page of the site may open this stream, for it says that a page is open";
        return Err(writer.refuse(StatusCode::FORBIDDEN, "FOREIGN_ORIGIN", message));
    }
    let hold = pages::page_of(&uri).map_err(|problem| writer.refuse(StatusCode::BAD_REQUEST, "INVALID", problem))?;
    let token = headers.get(LAST_EVENT_ID).and_then(|token| token.to_str().ok());
    if token.is_some_and(|token| token.len() > LONGEST_TOKEN) {
        let message = "Last-Event-ID is longer than any that was given here";
        return Err(writer.refuse(StatusCode::BAD_REQUEST, "INVALID", message));
    }
    let known = door.not_over(name).await.map_err(|error| writer.refused(&error))?;
    let reference = known.status.reference;
    // Anybody can make an id up, and a stream takes the place of a watcher.
    if known.details.is_none() {
        let unknown = Error::Unknown {
            reference,
            may_have_ended: known.status.may_have_ended,
        };
        return Err(writer.refused(&unknown));
    }
    let Some(page) = door.pages.open(reference, hold) else {
        let message = format!("the session has {MOST_STREAMS} streams; let the pages of a browser share one");
        return Err(writer.refuse(StatusCode::TOO_MANY_REQUESTS, "STREAM_CAP", &message));
    };
    let watch = watch(&door, name, reference, token.filter(|token| !token.is_empty())).await;
    let watch = watch.map_err(|error| writer.not_watched(&error))?;
    let (messages, stream) = mpsc::channel(IN_STREAM);
    let pump = Pump {
        door: Arc::clone(&door),
        session_id: name.session_id.to_owned(),
        reference,
        page,
        messages,
    };
    tokio::spawn(pump.run(watch));
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    Ok((headers, Sse::new(ReceiverStream::new(stream))).into_response())
}

/// A watch of one session. Where its past is forgotten it begins anew, with the state.
async fn watch(
    door: &Arc<Door>,
    name: Name<'_>,
    reference: SessionRef,
    token: Option<&str>,
) -> Result<Watch, WatchError> {
    let subscriber = |token: Option<&str>| Subscriber {
        scope: Scope::Sessions(name.tenant.into(), [(reference, None)].into()),
        tenants: [name.tenant.into()].into(),
        warnings: true,
        cleared: true,
        ends: true,
        resume_token: token.map(str::to_owned),
        heartbeat: HEARTBEAT,
        initial_state: token.is_none(),
    };
    match door.sessions.watch(subscriber(token), door.draining.clone()).await {
        // A browser keeps the last one it was given, also that of another session or sidecar.
        Err(WatchError::TokenExpired | WatchError::TokenInvalid) if token.is_some() => {
            door.sessions.watch(subscriber(None), door.draining.clone()).await
        }
        watch => watch,
    }
}

/// From a watch into a stream. A task of its own, for hyper asks nothing of a stream that is not read.
struct Pump {
    door: Arc<Door>,
    /// Kept as long as the stream is open: PRESENCE is renewed by it.
    session_id: String,
    reference: SessionRef,
    page: Page,
    messages: mpsc::Sender<Result<Message, Infallible>>,
}

impl Pump {
    async fn run(self, mut watch: Watch) {
        let _open = self.door.meter.stream();
        if !self.send(Message::default().retry(RETRY)).await {
            return;
        }
        let mut present = true;
        let mut pulse = Instant::now();
        loop {
            let next = tokio::select! {
                biased;
                () = self.messages.closed() => return,
                () = self.page.left.cancelled(), if present => {
                    present = false;
                    continue;
                }
                () = tokio::time::sleep_until(pulse), if present => {
                    present = self.hold_presence().await;
                    pulse = Instant::now() + PULSE;
                    continue;
                }
                next = watch.next() => next,
            };
            let Some(Ok(message)) = next else { return };
            let writer = self.door.writer(None);
            let (told, over) = match message.content {
                WatchContent::Snapshot(report) => (event("state", &writer.report(&report)), report.details.is_none()),
                WatchContent::SnapshotEnd(_) | WatchContent::Heartbeat => (Message::default().comment("alive"), false),
                WatchContent::Draining => (event("draining", &json!({})), false),
                WatchContent::Event(happened) if happened.session != self.reference => continue,
                WatchContent::Event(happened) => match self.told(&writer, &happened) {
                    Some(told) => told,
                    None => continue,
                },
            };
            if !self.send(told.id(message.resume_token)).await || over {
                return;
            }
        }
    }

    async fn send(&self, message: Message) -> bool {
        matches!(
            tokio::time::timeout(UNREAD, self.messages.send(Ok(message))).await,
            Ok(Ok(()))
        )
    }

    /// Holds PRESENCE for the page. Answers whether to go on with it.
    async fn hold_presence(&self) -> bool {
        let (name, hold) = (self.door.name(&self.session_id), &self.page.hold);
        let held = self.door.sessions.hold(name, presence(hold)).await;
        // Who said meanwhile that it is left has found no hold.
        if self.page.left.is_cancelled() && held.is_ok() {
            let _ = self.door.sessions.release(name, hold).await;
            return false;
        }
        match held {
            Ok(_) | Err(Error::Unavailable(_) | Error::HoldCap { .. }) => true,
            Err(_) => false,
        }
    }

    /// What a browser is told of an event, and whether that is the last.
    fn told(&self, writer: &Writer<'_>, happened: &Event) -> Option<(Message, bool)> {
        let left = |at: crate::time::Time| at.since(self.door.sessions.clock().now()).as_secs_f64();
        Some(match &happened.what {
            Happening::Warning {
                limit: which,
                point,
                expire,
                can_extend,
            } => {
                let warning = json!({
                    "limit": limit(*which),
                    "expires_in": left(*expire),
                    "warn_before": point.as_secs_f64(),
                    "can_extend": can_extend,
                    "version": happened.version,
                });
                (event("warning", &warning), false)
            }
            Happening::Cleared {
                limit: which, expire, ..
            } => {
                let cleared = json!({
                    "limit": limit(*which),
                    "expires_in": left(*expire),
                    "version": happened.version,
                });
                (event("cleared", &cleared), false)
            }
            Happening::Ended(tombstone) => {
                let ended = json!({
                    "end": writer.end(tombstone),
                    "session_ref": self.reference.to_string(),
                    "login_url": &*self.door.settings.login_url,
                });
                (event("ended", &ended), true)
            }
            _ => return None,
        })
    }
}

/// What holds PRESENCE for a page.
pub(super) fn presence(page: &str) -> HoldWish {
    HoldWish {
        id: page.into(),
        kind: HoldKind::Presence,
        ttl: PRESENCE,
        purpose: "an open page".into(),
    }
}

fn event(name: &str, data: &impl Serialize) -> Message {
    let data = serde_json::to_string(data).unwrap_or_default();
    Message::default().event(name).data(data)
}
