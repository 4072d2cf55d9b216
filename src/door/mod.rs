//! The HTTP door: what a page may ask about the session whose id its own request carries, in a cookie or a header, and about no other.
//! It stands behind the site's gateway, at the site's own origin; a listener of its own, off by default.
//!
//! Whoever changes something must be a page of the site (`request::sender`) and send our header. A name that was rotated away is
//! over here: the door never follows it (DESIGN.md section 3, Rotate).

mod answer;
mod authz;
mod cookies;
mod events;
mod meter;
mod module;
mod pages;
mod request;
mod settings;
mod starting;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRef, State},
    http::{HeaderMap, StatusCode, Uri},
    middleware::from_fn_with_state,
    response::Response,
    routing::{any, get, post},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use answer::Refused;
pub use authz::{Asked, EXPIRES_IN, FROM_HERE, Passes, STATE, Says, Verdict};
pub use meter::DoorMeter;
pub use settings::{Cookie, Route, Settings, Starting, Unknown};

pub(crate) use cookies::are_alike;
pub(crate) use settings::without_port;

use answer::Writer;
use pages::Pages;
use request::{Named, OWN_HEADER, Sender, named, sender};

use crate::{
    net,
    sessions::{Error, Follow, Name, Report, Sessions},
    state::{Activity, Hints, HoldKind, HoldWish, Visibility},
};

/// The longest body that is read.
const LONGEST_BODY: usize = 4096;

/// The longest duration that is believed: ten years, as over gRPC.
const LONGEST: Duration = Duration::from_secs(3653 * 24 * 3600);

/// What stands before the ids of holds that pages begin: a page can let go of no other.
const PAGES_HOLDS: &str = "page.";

/// The door over one core.
pub struct Door {
    sessions: Arc<Sessions>,
    settings: Settings,
    pages: Arc<Pages>,
    pace: Arc<starting::Pace>,
    meter: DoorMeter,
    draining: CancellationToken,
}

impl Door {
    /// Of which tenant its sessions are.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.settings.tenant
    }

    /// Whether sessions begin here.
    #[must_use]
    pub fn starts_sessions(&self) -> bool {
        matches!(self.settings.unknown, Unknown::Start(_))
    }

    /// Counts an answer that was given elsewhere.
    pub fn count(&self, path: &str, code: StatusCode) {
        self.meter.count(path, code);
    }

    /// A door. Its streams end when `draining` is cancelled.
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, settings: Settings, meter: DoorMeter, draining: CancellationToken) -> Self {
        Self {
            sessions,
            settings,
            pages: Arc::default(),
            pace: Arc::default(),
            meter,
            draining,
        }
    }

    /// The same door, told something else.
    fn told(&self, settings: Settings) -> Self {
        Self {
            sessions: Arc::clone(&self.sessions),
            settings,
            pages: Arc::clone(&self.pages),
            pace: Arc::clone(&self.pace),
            meter: self.meter.clone(),
            draining: self.draining.clone(),
        }
    }

    fn writer<'a>(&'a self, cookie: Option<&'a Cookie>) -> Writer<'a> {
        Writer {
            clock: self.sessions.clock(),
            settings: &self.settings,
            cookie,
        }
    }

    fn name<'a>(&'a self, session_id: &'a str) -> Name<'a> {
        Name {
            tenant: &self.settings.tenant,
            session_id,
            follow: Follow::Never,
        }
    }

    /// All that is known of a session by its own name.
    async fn report(&self, name: Name<'_>) -> Result<Report, Error> {
        let reference = self.sessions.known_as(name).await?;
        self.sessions.report(name.tenant, reference).await
    }

    /// The same; a name that is over is refused.
    async fn not_over(&self, name: Name<'_>) -> Result<Report, Error> {
        let report = self.report(name).await?;
        match report.details.as_ref().and_then(|details| details.end.clone()) {
            Some(tombstone) => Err(Error::Ended(report.status.reference, tombstone)),
            None => Ok(report),
        }
    }

    /// The session that a page of the site wants to change.
    fn changed<'a>(&'a self, headers: &'a HeaderMap) -> Result<(Name<'a>, Writer<'a>), Refused> {
        let stranger = self.writer(None);
        if sender(&self.settings, headers) == Sender::Foreign {
            let message = "the request comes from a page of another site; add its origin to `origins` if it is yours";
            return Err(stranger.refuse(StatusCode::FORBIDDEN, "FOREIGN_ORIGIN", message));
        }
        if !headers.contains_key(OWN_HEADER) {
            let message = "the header X-Session-Sidecar is missing: send it, with any value, so that no page of another site can do this";
            return Err(stranger.refuse(StatusCode::FORBIDDEN, "HEADER_MISSING", message));
        }
        self.named(headers)
    }

    /// The session that a request names.
    fn named<'a>(&'a self, headers: &'a HeaderMap) -> Result<(Name<'a>, Writer<'a>), Refused> {
        let stranger = self.writer(None);
        match named(&self.settings, headers) {
            Named::Nothing => {
                let message = "the request names no session: it has none of the cookies that the door knows";
                Err(stranger.refuse(StatusCode::UNAUTHORIZED, "SESSION_MISSING", message))
            }
            Named::Unclear(problem) => Err(stranger.refuse(StatusCode::BAD_REQUEST, "INVALID", problem)),
            Named::Id(id, cookie) => Ok((self.name(id), self.writer(cookie))),
        }
    }
}

/// The door as it is now: what it is told may change while it is open.
#[derive(Clone)]
pub struct Doors(Arc<ArcSwap<Door>>);

impl Doors {
    /// Begins with this one.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(door)))
    }

    /// From the next request on it is told this. Answers whether that is something else.
    pub fn tell(&self, settings: Settings) -> bool {
        let now = self.0.load();
        let new = now.settings != settings;
        if new {
            self.0.store(Arc::new(now.told(settings)));
        }
        new
    }

    /// The door of this moment.
    #[must_use]
    pub fn now(&self) -> Arc<Door> {
        self.0.load_full()
    }

    /// What it serves.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/session", get(show))
            .route("/session/extend", post(extend))
            .route("/session/activity", post(activity))
            .route("/session/leave", post(leave))
            .route("/session/hold", post(hold))
            .route("/session/release", post(release))
            .route("/session/events", get(events::stream))
            .route("/session/sidecar.js", get(module::module))
            .route("/authz", any(authz::authorize))
            .layer(DefaultBodyLimit::max(LONGEST_BODY))
            .layer(from_fn_with_state(self.0.load().meter.clone(), meter::count))
            .with_state(self)
    }

    /// Serves until `stop` is done, and then lets what is under way end. So many connections may be open: those that come then wait.
    pub async fn serve(self, listener: TcpListener, max_connections: usize, stop: impl Future<Output = ()>) {
        net::serve_http1(listener, self.routes(), max_connections, stop).await;
    }
}

impl FromRef<Doors> for Arc<Door> {
    fn from_ref(doors: &Doors) -> Self {
        doors.now()
    }
}

type Answer = Result<Response, Refused>;

/// What a body says; an empty one says nothing.
fn read<T: DeserializeOwned + Default>(writer: &Writer<'_>, body: &[u8]) -> Result<T, Refused> {
    if body.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_slice(body).map_err(|error| {
        let message = format!("the body is not what is expected here: {error}");
        writer.refuse(StatusCode::BAD_REQUEST, "INVALID", &message)
    })
}

/// A number of seconds, within bounds.
fn seconds(writer: &Writer<'_>, field: &str, seconds: f64, at_least: Duration) -> Result<Duration, Refused> {
    let span = Duration::try_from_secs_f64(seconds).ok();
    span.filter(|span| (at_least..=LONGEST).contains(span)).ok_or_else(|| {
        let least = if at_least.is_zero() { "0" } else { "over 0" };
        let message = format!("{field} must be a number of seconds, from {least} to ten years");
        writer.refuse(StatusCode::BAD_REQUEST, "INVALID", &message)
    })
}

async fn show(State(door): State<Arc<Door>>, headers: HeaderMap) -> Answer {
    let (name, writer) = match named(&door.settings, &headers) {
        Named::Nothing => {
            let writer = door.writer(None);
            return Ok(writer.about(&writer.none()));
        }
        _ => door.named(&headers)?,
    };
    let report = door.report(name).await.map_err(|error| writer.refused(&error))?;
    Ok(writer.about(&writer.report(&report)))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Extend {
    /// How long the session should live from now, in seconds; one idle timeout if unset.
    wanted: Option<f64>,
}

async fn extend(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Answer {
    let (name, writer) = door.changed(&headers)?;
    let asked: Extend = read(&writer, &body)?;
    let positive = Duration::from_nanos(1);
    let wanted = asked.wanted.map(|wanted| seconds(&writer, "wanted", wanted, positive));
    let wanted = wanted.transpose()?;
    let answer = door.sessions.extend(name, wanted, None).await;
    let answer = answer.map_err(|error| writer.refused(&error))?;
    Ok(writer.about(&writer.status(&answer.status)))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Input {
    /// How long ago the person's last input was, in seconds.
    idle_for: f64,
    visibility: Seen,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Seen {
    #[default]
    Unsaid,
    Visible,
    Hidden,
}

async fn activity(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Answer {
    let (name, writer) = door.changed(&headers)?;
    let reported: Input = read(&writer, &body)?;
    let ago = seconds(&writer, "idle_for", reported.idle_for, Duration::ZERO)?;
    let hints = Hints {
        host: request::host(&headers),
        visibility: match reported.visibility {
            Seen::Unsaid => Visibility::Unspecified,
            Seen::Visible => Visibility::Visible,
            Seen::Hidden => Visibility::Hidden,
        },
        input_report: true,
        ..Hints::default()
    };
    let answer = door.sessions.touch(name, Activity::User, Some(&hints), ago).await;
    let answer = answer.map_err(|error| writer.refused(&error))?;
    Ok(writer.about(&writer.status(&answer.status)))
}

/// A page is left. A beacon cannot send our header: then the browser itself must say that the page is one of the site. All that it can
/// do is begin `leave_grace`, and any activity takes that back.
async fn leave(State(door): State<Arc<Door>>, headers: HeaderMap, uri: Uri) -> Answer {
    let stranger = door.writer(None);
    let own = match sender(&door.settings, &headers) {
        Sender::Own => true,
        Sender::Unsaid => headers.contains_key(OWN_HEADER),
        Sender::Foreign => false,
    };
    if !own {
        let message = "only a page of the site may say that it is left: no Origin or Sec-Fetch-Site says so";
        return Err(stranger.refuse(StatusCode::FORBIDDEN, "FOREIGN_ORIGIN", message));
    }
    let (name, writer) = door.named(&headers)?;
    let page = pages::page_of(&uri).map_err(|problem| writer.refuse(StatusCode::BAD_REQUEST, "INVALID", problem))?;
    let left = async {
        let reference = door.sessions.known_as(name).await?;
        let another = door.pages.leave(reference, &page);
        let answer = door.sessions.release(name, &page).await?;
        if answer.released || another {
            return Ok(answer);
        }
        // It was left before its stream was here: it was open all the same.
        match door.sessions.hold(name, events::presence(&page)).await {
            Ok(_) => door.sessions.release(name, &page).await,
            Err(Error::PresenceOff(_) | Error::HoldCap { .. }) => Ok(answer),
            Err(error) => Err(error),
        }
    };
    let answer = left.await.map_err(|error| writer.refused(&error))?;
    Ok(writer.about(&writer.status(&answer.status)))
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct HoldBody {
    /// The page's own id of the work: 1 to 40 of A-Z, a-z, 0-9, `_` and `-`.
    id: String,
    /// How long it should live from now, in seconds; a pulse renews it.
    ttl: f64,
    /// What it is, for people.
    purpose: String,
}

/// The id of a hold that a page begins.
fn work_id(writer: &Writer<'_>, id: &str) -> Result<String, Refused> {
    if pages::is_plain(id) {
        return Ok(format!("{PAGES_HOLDS}{id}"));
    }
    let message = "id must be 1 to 40 characters of A-Z, a-z, 0-9, _ and -: the page's own id of its work";
    Err(writer.refuse(StatusCode::BAD_REQUEST, "INVALID", message))
}

async fn hold(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Answer {
    let (name, writer) = door.changed(&headers)?;
    let asked: HoldBody = read(&writer, &body)?;
    let purpose_is_text = asked.purpose.len() <= 128 && !asked.purpose.chars().any(char::is_control);
    if !purpose_is_text {
        let message = "purpose must be at most 128 bytes without control characters";
        return Err(writer.refuse(StatusCode::BAD_REQUEST, "INVALID", message));
    }
    let wish = HoldWish {
        id: work_id(&writer, &asked.id)?.into(),
        kind: HoldKind::Work,
        ttl: seconds(&writer, "ttl", asked.ttl, Duration::from_nanos(1))?,
        purpose: asked.purpose.into(),
    };
    let answer = door.sessions.hold(name, wish).await;
    let answer = answer.map_err(|error| writer.refused(&error))?;
    let mut session = writer.status(&answer.status);
    session.granted(answer.granted);
    Ok(writer.about(&session))
}

async fn release(State(door): State<Arc<Door>>, headers: HeaderMap, body: Bytes) -> Answer {
    let (name, writer) = door.changed(&headers)?;
    let asked: HoldBody = read(&writer, &body)?;
    let id = work_id(&writer, &asked.id)?;
    let answer = door.sessions.release(name, &id).await;
    let answer = answer.map_err(|error| writer.refused(&error))?;
    Ok(writer.about(&writer.status(&answer.status)))
}
