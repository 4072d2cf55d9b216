//! What the tests share: a whole sidecar in virtual time (`sidecar`), and short words for what they ask of it.
//!
//! Traps of paused time: it moves only when every task waits for it, so a test never sleeps for real; it jumps, so a test
//! that used TCP would see its sockets time out; `tokio::time::sleep` walks from one timer to the next, while
//! `tokio::time::advance` jumps over them, which the sidecar takes for what it is, a gap (G14).
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test file uses its part of this"
)]

pub mod shared;
mod sidecar;

use std::time::Duration;

use session_sidecar::rpc::proto::v1::{self, watch_expiry_response::Message};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt as _;

pub use sidecar::{Admin, Client, DEFAULT, Options, Sidecar};

/// The program: the one that the environment names, else the one that cargo has built with the tests. Another build may have taken its place
/// since.
pub fn program() -> std::process::Command {
    let named = std::env::var_os("SIDECAR_UNDER_TEST");
    std::process::Command::new(named.unwrap_or_else(|| env!("CARGO_BIN_EXE_session-sidecar").into()))
}

/// Lets virtual time pass, from one timer to the next.
pub async fn pass(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Lets time pass; from the last second on nobody does any background work.
pub async fn pass_without_driver(sidecar: &Sidecar, duration: Duration) {
    use session_sidecar::driver::{Step, Work as _};

    for _ in 1..duration.as_secs() {
        pass(secs(1)).await;
        while sidecar.sessions.step().await == Step::Again {}
    }
    pass(secs(1)).await;
}

pub const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub const fn mins(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// How many sessions are live. Where a store is shared they are counted now and then.
pub async fn live_sessions(sidecar: &Sidecar) -> f64 {
    if shared::address().is_some() {
        pass(secs(1)).await;
    }
    sidecar.metric("live_sessions")
}

/// A duration for the wire.
pub fn wire(duration: Duration) -> Option<prost_types::Duration> {
    Some(prost_types::Duration::try_from(duration).expect("fits"))
}

/// A duration from the wire.
pub fn span(duration: Option<prost_types::Duration>) -> Duration {
    Duration::try_from(duration.expect("a duration")).expect("not negative")
}

/// A recognisable id of the right length.
pub fn id(name: &str) -> String {
    format!("{name:-<24}")
}

pub async fn create(client: &mut Client, name: &str) -> v1::Session {
    create_with(client, name, |_| {}).await
}

pub async fn create_with(client: &mut Client, name: &str, change: impl FnOnce(&mut v1::CreateRequest)) -> v1::Session {
    let mut request = v1::CreateRequest {
        session_id: id(name),
        ..Default::default()
    };
    change(&mut request);
    let created = client.create(request).await.expect("created").into_inner();
    created.session.expect("a session")
}

pub async fn touch(client: &mut Client, name: &str) -> Result<v1::TouchResponse, Status> {
    touch_with(client, name, |_| {}).await
}

pub async fn touch_with(
    client: &mut Client,
    name: &str,
    change: impl FnOnce(&mut v1::TouchRequest),
) -> Result<v1::TouchResponse, Status> {
    let mut request = v1::TouchRequest {
        session_id: id(name),
        ..Default::default()
    };
    change(&mut request);
    client.touch(request).await.map(tonic::Response::into_inner)
}

pub async fn extend(client: &mut Client, name: &str, wanted: Option<Duration>) -> Result<v1::ExtendResponse, Status> {
    let request = v1::ExtendRequest {
        session_id: id(name),
        wanted_duration: wanted.and_then(wire),
        ..Default::default()
    };
    client.extend(request).await.map(tonic::Response::into_inner)
}

pub async fn end(client: &mut Client, name: &str) -> Result<v1::EndResponse, Status> {
    let request = v1::EndRequest {
        session_id: id(name),
        ..Default::default()
    };
    client.end(request).await.map(tonic::Response::into_inner)
}

pub async fn hold(
    client: &mut Client,
    name: &str,
    kind: v1::HoldKind,
    hold_id: &str,
    ttl: Duration,
) -> Result<v1::HoldResponse, Status> {
    let request = v1::HoldRequest {
        session_id: id(name),
        hold_id: hold_id.to_owned(),
        kind: kind.into(),
        ttl: wire(ttl),
        ..Default::default()
    };
    client.hold(request).await.map(tonic::Response::into_inner)
}

/// A WORK hold, by a usual name.
pub async fn work(client: &mut Client, name: &str, ttl: Duration) -> Result<v1::HoldResponse, Status> {
    hold(client, name, v1::HoldKind::Work, "work", ttl).await
}

/// A PRESENCE hold of a tab.
pub async fn page(client: &mut Client, name: &str, tab: &str, ttl: Duration) -> v1::HoldResponse {
    let held = hold(client, name, v1::HoldKind::Presence, tab, ttl).await;
    held.expect("held")
}

pub async fn release(client: &mut Client, name: &str, hold_id: &str) -> Result<v1::ReleaseResponse, Status> {
    let request = v1::ReleaseRequest {
        session_id: id(name),
        hold_id: hold_id.to_owned(),
        ..Default::default()
    };
    client.release(request).await.map(tonic::Response::into_inner)
}

/// Rotates to an own id.
pub async fn rotate(client: &mut Client, from: &str, to: &str) -> v1::RotateResponse {
    rotate_with(client, from, to, |_| {}).await.expect("rotated")
}

pub async fn rotate_with(
    client: &mut Client,
    from: &str,
    to: &str,
    change: impl FnOnce(&mut v1::RotateRequest),
) -> Result<v1::RotateResponse, Status> {
    let mut request = v1::RotateRequest {
        session_id: id(from),
        new_session_id: id(to),
        ..Default::default()
    };
    change(&mut request);
    client.rotate(request).await.map(tonic::Response::into_inner)
}

/// A touch that declares nothing, with hints.
pub async fn touch_hinted(
    client: &mut Client,
    name: &str,
    change: impl FnOnce(&mut v1::TouchHints),
) -> Result<v1::TouchResponse, Status> {
    let mut hints = v1::TouchHints::default();
    change(&mut hints);
    touch_with(client, name, |touch| touch.hints = Some(hints)).await
}

/// A touch that declares a person.
pub async fn touch_user(client: &mut Client, name: &str) -> v1::TouchResponse {
    let touched = touch_with(client, name, |touch| touch.activity = v1::Activity::User.into()).await;
    touched.expect("live")
}

pub async fn check_ref(client: &mut Client, reference: &str) -> v1::Session {
    let request = v1::CheckRequest {
        name: Some(v1::check_request::Name::SessionRef(reference.to_owned())),
        ..Default::default()
    };
    let answer = client.check(request).await.expect("a question is answered");
    answer.into_inner().session.expect("a session")
}

pub async fn check(client: &mut Client, name: &str) -> v1::Session {
    let request = v1::CheckRequest {
        name: Some(v1::check_request::Name::SessionId(id(name))),
        ..Default::default()
    };
    let answer = client.check(request).await.expect("a question is answered");
    answer.into_inner().session.expect("a session")
}

/// Where answers of this run come from.
pub fn scope() -> v1::KnowledgeScope {
    match shared::address() {
        Some(_) => v1::KnowledgeScope::Store,
        None => v1::KnowledgeScope::Memory,
    }
}

pub fn status(session: &v1::Session) -> &v1::SessionStatus {
    session.status.as_ref().expect("a status")
}

/// How long a session has, and the limit that says so.
pub async fn left(client: &mut Client, name: &str) -> (Duration, v1::Limit) {
    left_of(&check(client, name).await)
}

pub fn left_of(session: &v1::Session) -> (Duration, v1::Limit) {
    let status = status(session);
    (span(status.expires_in), status.limit())
}

/// How long it is from one moment of the wire to another.
pub fn between(from: Option<&prost_types::Timestamp>, to: Option<&prost_types::Timestamp>) -> Duration {
    let at = |stamp: Option<&prost_types::Timestamp>| {
        let stamp = stamp.expect("a moment");
        i128::from(stamp.seconds) * 1_000_000_000 + i128::from(stamp.nanos)
    };
    Duration::from_nanos(u64::try_from(at(to) - at(from)).expect("later"))
}

/// When and why a session ended: since its creation.
pub fn ended_after(session: &v1::Session) -> (Duration, v1::EndReason) {
    let end = session.end.as_ref().expect("an end");
    (
        between(session.create_time.as_ref(), end.end_time.as_ref()),
        end.reason(),
    )
}

/// The metadata of a refusal.
pub fn metadata(status: &Status, key: &str) -> String {
    let details = status.get_error_details();
    let info = details.error_info();
    info.and_then(|info| info.metadata.get(key).cloned())
        .unwrap_or_default()
}

pub async fn state(client: &mut Client, name: &str) -> v1::SessionState {
    status(&check(client, name).await).state()
}

/// The reason in a refusal.
pub fn reason(status: &Status) -> (Code, String) {
    let details = status.get_error_details();
    let reason = details.error_info().map(|info| info.reason.clone());
    (status.code(), reason.unwrap_or_default())
}

/// The field that a refusal names.
pub fn field(status: &Status) -> String {
    let details = status.get_error_details();
    let violations = details
        .bad_request()
        .map(|bad| bad.field_violations.clone())
        .unwrap_or_default();
    violations
        .first()
        .map(|violation| violation.field.clone())
        .unwrap_or_default()
}

/// An open watch and the last token that came with it.
pub struct Watcher {
    pub stream: Streaming<v1::WatchExpiryResponse>,
    pub token: String,
}

pub fn everything() -> v1::WatchExpiryRequest {
    scoped(v1::watch_scope::Scope::Everything(true))
}

pub fn by_id(names: &[&str]) -> v1::WatchExpiryRequest {
    let names = names.iter().map(|name| v1::SessionName {
        name: Some(v1::session_name::Name::SessionId(id(name))),
    });
    scoped(v1::watch_scope::Scope::Sessions(v1::SessionNames {
        names: names.collect(),
    }))
}

pub fn by_ref(reference: &str) -> v1::WatchExpiryRequest {
    let name = Some(v1::session_name::Name::SessionRef(reference.to_owned()));
    scoped(v1::watch_scope::Scope::Sessions(v1::SessionNames {
        names: vec![v1::SessionName { name }],
    }))
}

pub fn by_subject(subject: &str) -> v1::WatchExpiryRequest {
    scoped(v1::watch_scope::Scope::Subject(subject.to_owned()))
}

pub fn whole_tenant() -> v1::WatchExpiryRequest {
    scoped(v1::watch_scope::Scope::WholeTenant(true))
}

pub fn scoped(scope: v1::watch_scope::Scope) -> v1::WatchExpiryRequest {
    v1::WatchExpiryRequest {
        scope: Some(v1::WatchScope {
            tenant: String::new(),
            scope: Some(scope),
        }),
        ..Default::default()
    }
}

impl Watcher {
    /// Opens a watch and waits until it is live.
    pub async fn open(client: &mut Client, request: v1::WatchExpiryRequest) -> Self {
        Self::try_open(client, request).await.expect("opens").live().await
    }

    /// One that begins without the state, when it is live.
    pub async fn live(mut self) -> Self {
        match self.next().await {
            Message::SnapshotEnd(_) => self,
            other => panic!("not live: {other:?}"),
        }
    }

    pub async fn try_open(client: &mut Client, request: v1::WatchExpiryRequest) -> Result<Self, Status> {
        let stream = client.watch_expiry(request).await?.into_inner();
        Ok(Self {
            stream,
            token: String::new(),
        })
    }

    /// Goes on after a token.
    pub async fn resume(client: &mut Client, mut request: v1::WatchExpiryRequest, token: &str) -> Result<Self, Status> {
        request.resume_token = token.to_owned();
        request.include_initial_state = false;
        Self::try_open(client, request).await
    }

    /// The next message that is not a heartbeat.
    pub async fn next(&mut self) -> Message {
        self.try_next().await.expect("no error").expect("goes on")
    }

    pub async fn try_next(&mut self) -> Result<Option<Message>, Status> {
        loop {
            let Some(message) = self.stream.message().await? else {
                return Ok(None);
            };
            assert!(!message.resume_token.is_empty() && message.resume_token.len() <= 1024);
            self.token = message.resume_token;
            match message.message.expect("a message") {
                Message::Heartbeat(_) => {}
                other => return Ok(Some(other)),
            }
        }
    }

    /// All that comes within a stretch of virtual time, as short words.
    pub async fn during(&mut self, duration: Duration) -> Vec<String> {
        let mut words = Vec::new();
        let over = tokio::time::sleep(duration);
        tokio::pin!(over);
        loop {
            tokio::select! {
                biased;
                message = self.next() => words.push(word(&message)),
                () = &mut over => return words,
            }
        }
    }
}

/// An event in short: `warning idle 120s`, `cleared touched`, `ended IDLE_TIMEOUT`.
pub fn word(message: &Message) -> String {
    let limit = |limit: v1::Limit| limit.as_str_name().trim_start_matches("LIMIT_").to_lowercase();
    match message {
        Message::Warning(warning) => format!("warning {} {}s", limit(warning.limit()), span(warning.point).as_secs()),
        Message::Cleared(cleared) => {
            let cause = cleared
                .cause()
                .as_str_name()
                .trim_start_matches("CLEARED_CAUSE_")
                .to_lowercase();
            format!("cleared {} {cause}", limit(cleared.limit()))
        }
        Message::Ended(ended) => {
            let reason = ended.end.as_ref().expect("an end").reason();
            format!("ended {}", reason.as_str_name().trim_start_matches("END_REASON_"))
        }
        Message::Snapshot(snapshot) => {
            let state = snapshot.status.as_ref().expect("a status").state();
            format!("snapshot {}", state.as_str_name().trim_start_matches("SESSION_STATE_"))
        }
        Message::SnapshotEnd(end) => format!("live {}", end.snapshot_count),
        Message::Heartbeat(_) => "heartbeat".to_owned(),
        Message::Draining(_) => "draining".to_owned(),
    }
}
