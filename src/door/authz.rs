//! `GET /authz`: whether a request may go on to the application, for NGINX's `auth_request` and other proxies that ask before they
//! forward. It is a touch: what counts is for the policy's rules to say.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    Answer, Door,
    answer::{Refused, reason},
    request::{self, Named, named},
    settings::{Cookie, Unknown, without_port},
};
use crate::{
    sessions::{Error, Status},
    state::{Activity, EndReason, Hints},
};

/// What the application, or the proxy, is told.
const REF: HeaderName = HeaderName::from_static("x-session-ref");
const SUBJECT: HeaderName = HeaderName::from_static("x-session-subject");
const STATE: HeaderName = HeaderName::from_static("x-session-state");
const EXPIRES_IN: HeaderName = HeaderName::from_static("x-session-expires-in");
/// The request's cookies, without that of a session that is over.
const COOKIES: HeaderName = HeaderName::from_static("x-session-cookies");
/// Where to send the person, for a proxy that can only be told 401.
const LOGIN: HeaderName = HeaderName::from_static("x-session-login");
const REASON: HeaderName = HeaderName::from_static("x-session-end-reason");

/// What stays as it is in a part of a query (RFC 3986 section 2.3).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// The longest path that is looked at, as over gRPC.
const LONGEST_PATH: usize = 2048;

/// The request that the proxy asks about.
struct Asked<'a> {
    method: &'a str,
    host: &'a str,
    /// With query.
    target: &'a str,
    headers: &'a HeaderMap,
}

impl<'a> Asked<'a> {
    /// As NGINX's users pass it (X-Original-URI), or as Traefik, Caddy and others do (X-Forwarded-Uri).
    fn of(headers: &'a HeaderMap) -> Option<Self> {
        let said = |names: [&'static str; 2]| {
            let mut values = names.into_iter().filter_map(|name| headers.get(name)?.to_str().ok());
            values.find(|value| !value.is_empty())
        };
        let target = said(["x-forwarded-uri", "x-original-uri"])?;
        let host = said(["x-forwarded-host", "host"]).map_or("", without_port);
        Some(Self {
            method: said(["x-forwarded-method", "x-original-method"]).unwrap_or("GET"),
            host,
            target: target.starts_with('/').then_some(target)?,
            headers,
        })
    }

    fn path(&self) -> &'a str {
        self.target.split(['?', '#']).next().unwrap_or(self.target)
    }

    /// Whether a person will look at the answer: a navigation, and not what a script asks for.
    fn is_navigation(&self) -> bool {
        let header = |name: &str| self.headers.get(name).and_then(|value| value.to_str().ok());
        match header("sec-fetch-mode") {
            Some(mode) => mode == "navigate" && matches!(self.method, "GET" | "HEAD"),
            None => header("accept").is_some_and(|accept| accept.contains("text/html")) && self.method == "GET",
        }
    }

    fn hints(&self) -> Hints<'a> {
        let header = |name: &str| {
            let value = self.headers.get(name).and_then(|value| value.to_str().ok());
            value.filter(|value| value.len() <= 64).unwrap_or("")
        };
        Hints {
            host: if self.host.len() <= 255 { self.host } else { "" },
            method: if self.method.len() <= 32 { self.method } else { "" },
            path: self.path(),
            sec_fetch_user: header("sec-fetch-user"),
            sec_fetch_mode: header("sec-fetch-mode"),
            sec_fetch_dest: header("sec-fetch-dest"),
            sec_purpose: header("sec-purpose"),
            ..Hints::default()
        }
    }
}

pub(super) async fn authorize(State(door): State<Arc<Door>>, headers: HeaderMap, uri: Uri) -> Answer {
    let stranger = door.writer(None);
    let Some(asked) = Asked::of(&headers) else {
        let message = "no header says which request this is about: pass X-Original-URI, or X-Forwarded-Uri, and the method beside it";
        return Err(stranger.refuse(StatusCode::BAD_REQUEST, "INVALID", message));
    };
    if asked.path().len() > LONGEST_PATH {
        let message = "the path is longer than 2048 bytes";
        return Err(stranger.refuse(StatusCode::BAD_REQUEST, "INVALID", message));
    }
    let redirects = uri.query().unwrap_or("").split('&').any(|pair| pair == "deny=redirect");
    let denial = Denial {
        door: &door,
        asked: &asked,
        redirects,
    };
    let route = door.settings.route(asked.host, asked.path());
    let (name, cookie) = match named(&door.settings, &headers) {
        Named::Id(id, cookie) => (door.name(id), cookie),
        Named::Nothing | Named::Unclear(_) if route.public => return Ok(allowed(&headers, None)),
        Named::Nothing => {
            let message = "the request names no session: send the person to the login page";
            let refusal = stranger.refuse(StatusCode::UNAUTHORIZED, "SESSION_MISSING", message);
            return Ok(denial.of(refusal, None));
        }
        Named::Unclear(problem) => {
            let refusal = stranger.refuse(StatusCode::UNAUTHORIZED, "INVALID", problem);
            return Ok(denial.of(refusal, None));
        }
    };
    let writer = door.writer(cookie);
    let looked = async {
        let mut report = door.not_over(name).await?;
        if route.public {
            return Ok(report);
        }
        let activity = if route.passive {
            Activity::Background
        } else {
            Activity::Unspecified
        };
        let hints = asked.hints();
        let touched = door
            .sessions
            .touch(name, activity, Some(&hints), std::time::Duration::ZERO)
            .await;
        match touched {
            Ok(touched) => report.status = touched.status,
            Err(unknown @ Error::Unknown { .. }) if !route.passive => {
                report = door.start(name, route.policy.as_deref()).await?.ok_or(unknown)?;
            }
            Err(error) => return Err(error),
        }
        Ok(report)
    };
    match looked.await {
        Ok(report) => {
            let mut response = allowed(&headers, None);
            tell(&mut response, &report.status);
            if let Some(details) = report.details
                && let Ok(subject) = HeaderValue::from_str(details.origin.identity.subject())
            {
                response.headers_mut().insert(SUBJECT, subject);
            }
            Ok(response)
        }
        Err(Error::Unknown { .. }) if route.public || lets_pass(door.settings.unknown, route.passive) => {
            Ok(allowed(&headers, None))
        }
        Err(Error::Invalid { .. }) if route.public => Ok(allowed(&headers, None)),
        Err(Error::Ended(..)) if route.public => {
            let mut response = allowed(&headers, cookie);
            writer.take_back(&mut response);
            Ok(response)
        }
        Err(Error::Ended(reference, tombstone)) => {
            let reason = tombstone.end.reason;
            let refusal = writer.refused(&Error::Ended(reference, tombstone));
            Ok(denial.of(refusal, Some(reason)))
        }
        Err(error @ Error::Unknown { .. }) => Ok(denial.of(writer.refused(&error), None)),
        // What names the session cannot be an id: a person comes on by a login only, and a proxy takes 400 for its own fault.
        Err(error @ Error::Invalid { .. }) => {
            let refusal = writer.refuse(StatusCode::UNAUTHORIZED, "INVALID", &error.to_string());
            Ok(denial.of(refusal, None))
        }
        Err(error) => Err(writer.refused(&error)),
    }
}

/// Whether an id that nobody has seen goes on to the application. Nothing begins by what a page asks again and again.
fn lets_pass(unknown: Unknown, passive: bool) -> bool {
    match unknown {
        Unknown::Deny => false,
        Unknown::AllowUntracked => true,
        Unknown::Start(_) => passive,
    }
}

/// The request may go on, without the cookie of a session that is over.
fn allowed(headers: &HeaderMap, over: Option<&Cookie>) -> Response {
    let mut response = StatusCode::OK.into_response();
    let kept = request::cookies_without(headers, over.map(|cookie| &*cookie.name));
    if let Ok(kept) = HeaderValue::from_bytes(&kept) {
        response.headers_mut().insert(COOKIES, kept);
    }
    response
}

fn tell(response: &mut Response, status: &Status) {
    let headers = response.headers_mut();
    let mut say = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    say(REF, &status.reference.to_string());
    say(STATE, super::answer::state(status.state));
    if let Some(expire) = status.expire {
        say(EXPIRES_IN, &format!("{:.3}", expire.since(status.now).as_secs_f64()));
    }
}

/// How a request is refused whose session is over, or that has none.
struct Denial<'a> {
    door: &'a Door,
    asked: &'a Asked<'a>,
    redirects: bool,
}

impl Denial<'_> {
    /// A refusal, with the way to the login page.
    fn of(&self, refusal: Refused, ended: Option<EndReason>) -> Response {
        let login = self.login(ended);
        let mut response = refusal.into_inner();
        let headers = response.headers_mut();
        if let Some(ended) = ended {
            headers.insert(REASON, HeaderValue::from_static(reason(ended)));
        }
        if let Ok(login) = HeaderValue::from_str(&login) {
            headers.insert(LOGIN, login.clone());
            if self.redirects && self.asked.is_navigation() {
                headers.insert(header::LOCATION, login);
                *response.status_mut() = StatusCode::FOUND;
            }
        }
        response
    }

    /// The login page, told why, and where to go on: only ever to a path of the same site.
    fn login(&self, ended: Option<EndReason>) -> String {
        let url = &self.door.settings.login_url;
        let mut login = url.to_string();
        let mut separator = if url.contains('?') { '&' } else { '?' };
        let mut add = |key: &str, value: &str| {
            login.push(separator);
            separator = '&';
            login.push_str(key);
            login.push('=');
            login.extend(utf8_percent_encode(value, PLAIN));
        };
        if let Some(ended) = ended {
            add("reason", reason(ended));
        }
        if self.asked.is_navigation() && !self.asked.target.starts_with("//") {
            add("next", self.asked.target);
        }
        login
    }
}
