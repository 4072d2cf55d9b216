//! What the door answers: JSON, and the cookie of an ended session taken back.

use std::time::Duration;

use axum::{
    body::Body,
    http::{self, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Serialize, Serializer};

use super::settings::{Cookie, Settings};
use crate::{
    sessions::{Error, Report, State, Status, WatchError, reason_in_words},
    state::{EndReason, Limit, Limits, Tombstone},
    time::{Clock, Time},
};

/// A session as a browser is told of it: nothing that is not its person's business.
#[derive(Debug, Serialize)]
pub(super) struct Session {
    /// A short name of it that is no secret: people may tell it to those who help them.
    #[serde(skip_serializing_if = "Option::is_none")]
    session_ref: Option<String>,
    /// NONE: the request names none.
    state: &'static str,
    /// Seconds until it ends if nothing else happens. Count from when the answer came, by a clock that nobody sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<f64>,
    /// The limit that sets that.
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'static str>,
    /// Seconds until the next warning.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_warning_in: Option<f64>,
    /// Whether the person can still put the end off.
    can_extend: bool,
    /// Grows with every change except last activity alone.
    version: u32,
    /// The idle timeout in seconds, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout: Option<f64>,
    /// Whether the policy wants to know of open pages, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    presence: Option<bool>,
    /// How many seconds a hold was granted from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    granted_ttl: Option<f64>,
    /// Where people log in.
    login_url: String,
    /// The end, if it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<End>,
}

/// An end as a browser is told of it. Not by whom, and no note: those are for support staff.
#[derive(Debug, Serialize)]
pub(super) struct End {
    #[serde(serialize_with = "name")]
    reason: EndReason,
    /// In words, for those who have no better.
    message: &'static str,
    /// RFC 3339, by the sidecar's clock.
    end_time: String,
}

/// A refusal.
#[derive(Debug, Serialize)]
struct Refusal<'a> {
    error: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_ref: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<End>,
    login_url: &'a str,
}

impl Session {
    /// Says how long a hold was granted.
    pub(super) fn granted(&mut self, ttl: Duration) {
        self.granted_ttl = Some(ttl.as_secs_f64());
    }
}

/// An answer in JSON.
pub(super) type Json = http::Response<Vec<u8>>;

/// An answer that says no.
#[derive(Debug)]
pub struct Refused(Box<Json>);

impl Refused {
    /// Its status.
    #[must_use]
    pub fn code(&self) -> StatusCode {
        self.0.status()
    }

    /// The answer.
    #[must_use]
    pub fn into_inner(self) -> Json {
        *self.0
    }
}

impl From<Json> for Refused {
    fn from(response: Json) -> Self {
        Self(Box::new(response))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.into_inner().map(Body::from)
    }
}

/// Writes answers.
pub(super) struct Writer<'a> {
    pub(super) clock: &'a Clock,
    pub(super) settings: &'a Settings,
    /// The cookie that named the session, if one did.
    pub(super) cookie: Option<&'a Cookie>,
}

impl Writer<'_> {
    pub(super) fn none(&self) -> Session {
        Session {
            session_ref: None,
            state: "NONE",
            expires_in: None,
            limit: None,
            next_warning_in: None,
            can_extend: false,
            version: 0,
            idle_timeout: None,
            presence: Some(false),
            granted_ttl: None,
            login_url: self.settings.login_url.to_string(),
            end: None,
        }
    }

    pub(super) fn status(&self, status: &Status) -> Session {
        let live = matches!(status.state, State::Active | State::Expiring);
        let left = |at: Option<Time>| at.filter(|_| live).map(|at| at.since(status.now).as_secs_f64());
        Session {
            session_ref: Some(status.reference.to_string()),
            state: state(status.state),
            expires_in: left(status.expire),
            limit: status.limit.map(limit),
            next_warning_in: left(status.next_warning),
            can_extend: status.can_extend,
            version: status.version,
            presence: None,
            ..self.none()
        }
    }

    pub(super) fn report(&self, report: &Report) -> Session {
        let mut session = self.status(&report.status);
        if let Some(details) = &report.details {
            let limits = &details.limits;
            session.idle_timeout = (limits.idle_timeout < Limits::NEVER).then(|| limits.idle_timeout.as_secs_f64());
            session.presence = Some(limits.presence.is_some());
            session.end = details.end.as_deref().map(|tombstone| self.end(tombstone));
        }
        session
    }

    pub(super) fn end(&self, tombstone: &Tombstone) -> End {
        let end = &tombstone.end;
        End {
            reason: end.reason,
            message: reason_in_words(end.reason),
            end_time: humantime::format_rfc3339_millis(self.clock.wall(end.at)).to_string(),
        }
    }

    /// An answer about a session: the cookie of one that has ended is taken back, for the browser would send it for ever.
    pub(super) fn about(&self, session: &Session) -> Response {
        let over = session.end.as_ref().is_some_and(|end| is_worthless(end.reason));
        let mut response = json(StatusCode::OK, session);
        if over {
            self.take_back(&mut response);
        }
        response.map(Body::from)
    }

    /// A refusal by the core.
    pub(super) fn refused(&self, error: &Error) -> Refused {
        let (code, name) = match error {
            Error::Ended(..) => (StatusCode::UNAUTHORIZED, "SESSION_ENDED"),
            Error::Unknown { .. } => (StatusCode::UNAUTHORIZED, "SESSION_UNKNOWN"),
            Error::Invalid { .. } => (StatusCode::BAD_REQUEST, "INVALID"),
            Error::ExtensionLimit { .. } => (StatusCode::CONFLICT, "EXTENSION_LIMIT"),
            Error::PresenceOff(_) => (StatusCode::CONFLICT, "PRESENCE_OFF"),
            Error::HoldKind(_) => (StatusCode::CONFLICT, "HOLD_KIND"),
            Error::HoldCap { .. } => (StatusCode::TOO_MANY_REQUESTS, "HOLD_CAP"),
            Error::HoldBudget { .. } => (StatusCode::TOO_MANY_REQUESTS, "HOLD_BUDGET"),
            Error::ReadOnly(_) => (StatusCode::FORBIDDEN, "READ_ONLY_SESSION"),
            Error::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
            // What only Create and Rotate are refused by.
            _ => (StatusCode::CONFLICT, "CONFLICT"),
        };
        let ended = match error {
            Error::Ended(reference, tombstone) => Some((*reference, tombstone)),
            _ => None,
        };
        let mut response = json(
            code,
            &Refusal {
                error: name,
                message: &error.to_string(),
                session_ref: ended.map(|(reference, _)| reference.to_string()),
                end: ended.map(|(_, tombstone)| self.end(tombstone)),
                login_url: &self.settings.login_url,
            },
        );
        if ended.is_some_and(|(_, tombstone)| is_worthless(tombstone.end.reason)) {
            self.take_back(&mut response);
        }
        if code == StatusCode::SERVICE_UNAVAILABLE {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.into()
    }

    /// A refusal of a stream.
    pub(super) fn not_watched(&self, error: &WatchError) -> Refused {
        let (code, name) = match error {
            WatchError::TooMany { .. } => (StatusCode::TOO_MANY_REQUESTS, "STREAM_CAP"),
            WatchError::TokenInvalid => (StatusCode::BAD_REQUEST, "INVALID"),
            _ => (StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE"),
        };
        let mut response = self.refuse(code, name, &error.to_string()).into_inner();
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        response.into()
    }

    /// A refusal by the door itself.
    pub(super) fn refuse(&self, code: StatusCode, error: &'static str, message: &str) -> Refused {
        let refusal = Refusal {
            error,
            message,
            session_ref: None,
            end: None,
            login_url: &self.settings.login_url,
        };
        json(code, &refusal).into()
    }

    /// Has the browser forget the cookie that named an ended session (RFC 6265 section 5.3: same name, path and domain).
    fn take_back(&self, response: &mut Json) {
        if let Some(value) = self.cookie.and_then(taken_back) {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
    }
}

/// Whether the browser is to forget the cookie that names an ended session. Not where it was rotated: the browser has the new one
/// already, or gets it by another answer of these moments, and it is the same cookie.
pub(super) fn is_worthless(reason: EndReason) -> bool {
    reason != EndReason::Rotated
}

fn name<S: Serializer>(reason: &EndReason, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(reason.name())
}

/// `Set-Cookie` of a cookie that is to be forgotten.
pub(super) fn taken_back(cookie: &Cookie) -> Option<HeaderValue> {
    let domain = cookie.domain.as_ref().map(|domain| format!("; Domain={domain}"));
    // A browser takes no cookie of these names without Secure (RFC 6265bis section 4.1.3).
    let secure = ["__Secure-", "__Host-"]
        .iter()
        .any(|prefix| cookie.name.starts_with(prefix));
    let text = format!(
        "{}=; Path={}{}; Max-Age=0{}; HttpOnly; SameSite=Lax",
        cookie.name,
        cookie.path,
        domain.unwrap_or_default(),
        if secure { "; Secure" } else { "" }
    );
    HeaderValue::try_from(text).ok()
}

fn json(code: StatusCode, body: &impl Serialize) -> Json {
    let written = serde_json::to_vec(body);
    let code = if written.is_ok() {
        code
    } else {
        StatusCode::INTERNAL_SERVER_ERROR
    };
    let mut response = Json::new(written.unwrap_or_default());
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::VARY, HeaderValue::from_static("Cookie"));
    response
}

pub(super) fn state(state: State) -> &'static str {
    match state {
        State::Active => "ACTIVE",
        State::Expiring => "EXPIRING",
        State::Ended => "ENDED",
        State::Unknown => "UNKNOWN",
    }
}

pub(super) fn limit(limit: Limit) -> &'static str {
    match limit {
        Limit::Idle => "IDLE",
        Limit::Absolute => "ABSOLUTE",
        Limit::Presence => "PRESENCE",
    }
}
