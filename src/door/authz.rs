//! Whether a request may go on to the application, for whoever asks before it forwards: NGINX's `auth_request` and its like by `GET
//! /authz`, Envoy over gRPC (`rpc::ext_authz`). It is a touch: what counts is for the policy's rules to say.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{
    Answer, Door,
    answer::{Refused, is_worthless, state, taken_back},
    cookies,
    request::{Named, named},
    settings::{Cookie, Treatment, Unknown, without_port},
};
use crate::{
    sessions::{Error, Name, Status},
    state::{Activity, EndReason, Hints},
};

/// The ref of the session.
pub(super) const REF: HeaderName = HeaderName::from_static("x-session-ref");
/// Whose it is.
pub(super) const SUBJECT: HeaderName = HeaderName::from_static("x-session-subject");
/// ACTIVE or EXPIRING.
pub const STATE: HeaderName = HeaderName::from_static("x-session-state");
/// Seconds until it ends if nothing else happens.
pub const EXPIRES_IN: HeaderName = HeaderName::from_static("x-session-expires-in");
/// The request's cookies, without those that name a session that is over, or could be read as that.
pub(super) const COOKIES: HeaderName = HeaderName::from_static("x-session-cookies");
/// Where to send the person, for a proxy that can only be told 401.
pub(super) const LOGIN: HeaderName = HeaderName::from_static("x-session-login");
/// Why it has ended.
pub(super) const REASON: HeaderName = HeaderName::from_static("x-session-end-reason");
/// All that say something of a session: what a client writes there itself is not to get to the application.
pub static FROM_HERE: [HeaderName; 7] = [REF, SUBJECT, STATE, EXPIRES_IN, COOKIES, LOGIN, REASON];

/// What stays as it is in a part of a query (RFC 3986 section 2.3).
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// The longest path that is looked at, as over gRPC.
const LONGEST_PATH: usize = 2048;

/// A request that wants to go on to the application.
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its host, without port.
    pub host: &'a str,
    /// Its path and query.
    pub target: &'a str,
    /// Its headers, or those of them that the door looks at ([`Door::looks_at`]).
    pub headers: &'a HeaderMap,
    /// What the proxy itself says of its route, beside the file.
    pub route: Says<'a>,
}

/// What a proxy says of a route. It has the last word, but the login page is always public.
#[derive(Debug, Clone, Copy, Default)]
pub struct Says<'a> {
    /// Whether it is for everybody.
    pub public: Option<bool>,
    /// Whether it is never activity.
    pub passive: Option<bool>,
    /// The policy of sessions that begin here.
    pub policy: Option<&'a str>,
    /// Whether a person is sent to the login page, rather than told 401 with its address.
    pub redirects: bool,
}

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// It goes on.
    Passes(Passes),
    /// It is answered in the application's place.
    Refused(Refused),
    /// It cannot be known now: whoever asks decides whether it goes on.
    Unsure(Error),
}

impl Verdict {
    /// The HTTP status that says it.
    #[must_use]
    pub fn code(&self) -> StatusCode {
        match self {
            Self::Passes(_) => StatusCode::OK,
            Self::Refused(refused) => refused.code(),
            Self::Unsure(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A request that goes on.
#[derive(Debug, Default)]
pub struct Passes {
    /// Its session, and whose it is; none: it has none, or nobody looks.
    pub session: Option<(Status, Option<HeaderValue>)>,
    /// Whether it goes on with other cookies than it has.
    pub other_cookies: bool,
    /// `Set-Cookie`, if the browser is to forget it, unless the application's answer sets it anew.
    pub take_back: Option<HeaderValue>,
    /// Its cookies. The application is to see that of the session that is told, or one that nobody knows, and nothing that it could take
    /// for another's: not that of a session that is over, and none that it may read in two ways. A header that names a session (`header`)
    /// stays as it is.
    pub cookies: Vec<u8>,
}

impl<'a> Asked<'a> {
    /// As NGINX's users pass it (X-Original-URI), or as Traefik, Caddy and others do (X-Forwarded-Uri).
    fn of(headers: &'a HeaderMap, redirects: bool) -> Option<Self> {
        // The first that is there decides, also if it cannot be read: the other may be the client's own.
        let said = |names: [&'static str; 2], default: &'static str| {
            let mut values = names.into_iter().filter_map(|name| headers.get(name));
            let value = values.find(|value| !value.is_empty());
            value.map_or(Some(default), |value| value.to_str().ok())
        };
        let target = said(["x-forwarded-uri", "x-original-uri"], "")?;
        Some(Self {
            method: said(["x-forwarded-method", "x-original-method"], "GET")?,
            host: without_port(said(["x-forwarded-host", "host"], "")?),
            target: target.starts_with('/').then_some(target)?,
            headers,
            route: Says {
                redirects,
                ..Says::default()
            },
        })
    }

    fn path(&self) -> &'a str {
        self.target.split(['?', '#']).next().unwrap_or(self.target)
    }

    fn header(&self, name: &str) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether a person will look at the answer: a navigation, and not what a script asks for.
    fn is_navigation(&self) -> bool {
        match self.header("sec-fetch-mode") {
            Some(mode) => mode == "navigate",
            None => self.header("accept").is_some_and(|accept| accept.contains("text/html")) && self.is_repeatable(),
        }
    }

    /// Whether the person can come back to it: what a form sent is gone.
    fn is_repeatable(&self) -> bool {
        matches!(self.method, "GET" | "HEAD")
    }

    fn hints(&self) -> Hints<'a> {
        let header = |name| self.header(name).filter(|value| value.len() <= 64).unwrap_or("");
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

impl Door {
    /// Whether a header is looked at, beside those that say what is asked about.
    #[must_use]
    pub fn looks_at(&self, header: &str) -> bool {
        const ALL: [&str; 6] = [
            "cookie",
            "accept",
            "sec-fetch-user",
            "sec-fetch-mode",
            "sec-fetch-dest",
            "sec-purpose",
        ];
        ALL.contains(&header) || self.settings.header.as_deref() == Some(header)
    }

    /// What becomes of a request. It is a touch, if its route is not public.
    pub async fn judge(&self, asked: &Asked<'_>) -> Verdict {
        let stranger = self.writer(None);
        if asked.path().len() > LONGEST_PATH {
            let message = "the path is longer than 2048 bytes";
            return Verdict::Refused(stranger.refuse(StatusCode::URI_TOO_LONG, "INVALID", message));
        }
        let route = self.settings.route(asked.host, asked.path(), &asked.route);
        let refused = |refused, ended| Verdict::Refused(self.denied(asked, refused, ended));
        let named = match named(&self.settings, asked.headers) {
            Named::Unclear(problem) => Named::Unclear(problem),
            named => match self.knows_a_guise(asked.headers, &named).await {
                Ok(false) => named,
                Ok(true) => Named::Unclear(
                    "a cookie is not the one that names the session, and some applications would read another session's id in it",
                ),
                Err(error) => return Verdict::Unsure(error),
            },
        };
        let (name, cookie) = match named {
            Named::Id(id, cookie) => (self.name(id), cookie),
            Named::Nothing if route.public => return Verdict::Passes(self.passes(asked, None)),
            Named::Unclear(_) if route.public => {
                let cookies = cookies::without_others(&self.settings, asked.headers, None, true);
                return Verdict::Passes(Passes::with(cookies));
            }
            Named::Nothing => {
                let message = "the request names no session: send the person to the login page";
                return refused(
                    stranger.refuse(StatusCode::UNAUTHORIZED, "SESSION_MISSING", message),
                    None,
                );
            }
            Named::Unclear(problem) => {
                return refused(stranger.refuse(StatusCode::UNAUTHORIZED, "INVALID", problem), None);
            }
        };
        let writer = self.writer(cookie);
        let error = match self.look(name, asked, &route).await {
            Ok(status) => {
                let subject = self.sessions.subject(status.reference).await;
                let subject = subject.and_then(|subject| HeaderValue::from_str(&subject).ok());
                return Verdict::Passes(Passes {
                    session: Some((status, subject)),
                    ..self.passes(asked, cookie)
                });
            }
            Err(error) => error,
        };
        match error {
            Error::Unknown { .. } if route.public || lets_pass(self.settings.unknown, route.passive) => {
                Verdict::Passes(self.passes(asked, cookie))
            }
            Error::Invalid { .. } if route.public => Verdict::Passes(self.passes(asked, None)),
            Error::Ended(_, ref tombstone) if route.public => Verdict::Passes(Passes {
                take_back: cookie
                    .filter(|_| is_worthless(tombstone.end.reason))
                    .and_then(taken_back),
                ..self.passes(asked, None)
            }),
            Error::Ended(_, ref tombstone) => refused(writer.refused(&error), Some(tombstone.end.reason)),
            Error::Unknown { .. } | Error::ReadOnly(_) => refused(writer.refused(&error), None),
            // What names the session cannot be an id: a person comes on by a login only, and a proxy takes 400 for its own fault.
            Error::Invalid { .. } => {
                let refusal = writer.refuse(StatusCode::UNAUTHORIZED, "INVALID", &error.to_string());
                refused(refusal, None)
            }
            error => Verdict::Unsure(error),
        }
    }

    /// Whether some applications would read the id of another session that is or was in the cookies. What nobody knows is another
    /// application's, but of such nobody has many.
    async fn knows_a_guise(&self, headers: &HeaderMap, named: &Named<'_>) -> Result<bool, Error> {
        let judged = if let Named::Id(id, _) = named { id } else { "" };
        match cookies::guises(&self.settings, headers, judged) {
            Some(ids) => self.knows_any(ids).await,
            None => Ok(true),
        }
    }

    /// Refuses an id that nobody knows, if some applications would take it for one that is known: `s:a` for `s%3Aa`.
    async fn is_no_guise(&self, name: Name<'_>) -> Result<(), Error> {
        let mut ids = cookies::ids_of(name.session_id.as_bytes());
        ids.remove(name.session_id);
        if self.knows_any(ids).await? {
            return Err(Error::Invalid {
                field: "session_id",
                problem: "some applications would read the id of another session in it".to_owned(),
            });
        }
        Ok(())
    }

    /// Whether one of these is the id of a session that is or was.
    async fn knows_any(&self, ids: BTreeSet<String>) -> Result<bool, Error> {
        for id in ids {
            match self.report(self.name(&id)).await {
                Ok(report) if report.details.is_some() => return Ok(true),
                Ok(_) | Err(Error::Unknown { .. } | Error::Invalid { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }

    /// A request goes on, with this cookie alone of those that name sessions.
    fn passes(&self, asked: &Asked<'_>, cookie: Option<&Cookie>) -> Passes {
        Passes::with(cookies::without_others(&self.settings, asked.headers, cookie, false))
    }

    /// Finds the session, and touches it if the route is not public.
    async fn look(&self, name: Name<'_>, asked: &Asked<'_>, route: &Treatment<'_>) -> Result<Status, Error> {
        if route.public {
            let report = self.not_over(name).await?;
            if report.details.is_none() {
                self.is_no_guise(name).await?;
            }
            return Ok(report.status);
        }
        let activity = if route.passive {
            Activity::Background
        } else {
            Activity::Unspecified
        };
        let touched = self
            .sessions
            .touch(name, activity, Some(&asked.hints()), Duration::ZERO)
            .await;
        match touched {
            Ok(touched) => Ok(touched.status),
            Err(unknown @ Error::Unknown { .. }) => {
                self.is_no_guise(name).await?;
                if route.passive {
                    return Err(unknown);
                }
                let started = self.start(name, route.policy).await?;
                Ok(started.ok_or(unknown)?.status)
            }
            Err(error) => Err(error),
        }
    }

    /// A refusal, with the way to the login page.
    fn denied(&self, asked: &Asked<'_>, refused: Refused, ended: Option<EndReason>) -> Refused {
        let login = self.login(asked, ended);
        let mut response = refused.into_inner();
        let headers = response.headers_mut();
        if let Some(ended) = ended {
            headers.insert(REASON, HeaderValue::from_static(ended.name()));
        }
        let unauthorized = response.status() == StatusCode::UNAUTHORIZED;
        if unauthorized && let Ok(login) = HeaderValue::from_str(&login) {
            let headers = response.headers_mut();
            headers.insert(LOGIN, login.clone());
            if asked.route.redirects && asked.is_navigation() {
                headers.insert(header::LOCATION, login);
                *response.status_mut() = if asked.is_repeatable() {
                    StatusCode::FOUND
                } else {
                    StatusCode::SEE_OTHER
                };
            }
        }
        response.into()
    }

    /// The login page, told why, and where to go on: only ever to a path of the same site.
    fn login(&self, asked: &Asked<'_>, ended: Option<EndReason>) -> String {
        let url = &self.settings.login_url;
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
            add("reason", ended.name());
        }
        if asked.is_navigation()
            && asked.is_repeatable()
            && asked.target.starts_with('/')
            && !asked.target.starts_with("//")
        {
            add("next", asked.target);
        }
        login
    }
}

pub(super) async fn authorize(State(door): State<Arc<Door>>, headers: HeaderMap, uri: Uri) -> Answer {
    let redirects = uri.query().unwrap_or("").split('&').any(|pair| pair == "deny=redirect");
    let Some(asked) = Asked::of(&headers, redirects) else {
        let message = "no header says which request this is about: pass X-Original-URI, or X-Forwarded-Uri, and the method beside it";
        return Err(door.writer(None).refuse(StatusCode::BAD_REQUEST, "INVALID", message));
    };
    match door.judge(&asked).await {
        Verdict::Passes(passes) => Ok(passes.into_response()),
        Verdict::Refused(refused) => Err(refused),
        Verdict::Unsure(error) => Err(door.writer(None).refused(&error)),
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

impl Passes {
    /// With these cookies, and whether they are others than it has.
    fn with((cookies, other_cookies): (Vec<u8>, bool)) -> Self {
        Self {
            other_cookies,
            cookies,
            ..Self::default()
        }
    }

    /// What is said of the session, to the application and to the browser.
    #[must_use]
    pub fn told(&self) -> Vec<(HeaderName, HeaderValue)> {
        let Some((status, subject)) = &self.session else {
            return Vec::new();
        };
        let mut told = vec![(STATE, HeaderValue::from_static(state(status.state)))];
        let text = |value: String| HeaderValue::try_from(value).ok();
        told.extend(text(status.reference.to_string()).map(|value| (REF, value)));
        if let Some(expire) = status.expire {
            let left = format!("{:.3}", expire.since(status.now).as_secs_f64());
            told.extend(text(left).map(|value| (EXPIRES_IN, value)));
        }
        told.extend(subject.clone().map(|value| (SUBJECT, value)));
        told
    }
}

impl IntoResponse for Passes {
    fn into_response(self) -> Response {
        let mut response = StatusCode::OK.into_response();
        let headers = response.headers_mut();
        headers.extend(self.told());
        if let Ok(cookies) = HeaderValue::from_bytes(&self.cookies) {
            headers.insert(COOKIES, cookies);
        }
        if let Some(take_back) = self.take_back {
            headers.insert(header::SET_COOKIE, take_back);
        }
        response
    }
}
