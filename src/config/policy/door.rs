//! The table `[door]`: what the HTTP door is told.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use serde::Deserialize;

use super::rules::{host_globs, path_globs};
use super::values::{Span, Texts};
use crate::{
    door::{Cookie, Route, Settings, Starting, Unknown, are_alike},
    state::Policy,
};

const MOST_COOKIES: usize = 8;
const MOST_ORIGINS: usize = 64;
const MOST_ROUTES: usize = 256;
const LONGEST_URL: usize = 1024;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct DoorTable {
    tenant: Option<String>,
    cookies: Option<Vec<CookieKey>>,
    header: Option<String>,
    origins: Vec<String>,
    login_url: Option<String>,
    unknown: Option<UnknownKey>,
    start: Option<StartTable>,
    routes: Vec<RouteTable>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum CookieKey {
    Name(String),
    Whole(CookieTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CookieTable {
    name: String,
    path: Option<String>,
    domain: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum UnknownKey {
    Deny,
    AllowUntracked,
    Start,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct StartTable {
    max_sessions: Option<usize>,
    rate: Option<u32>,
    app_session_age: Option<Span>,
    allow_revival: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RouteTable {
    host: Option<Texts>,
    path: Option<Texts>,
    public: bool,
    passive: bool,
    policy: Option<String>,
}

/// Checks a table, of a file with these policies.
pub(super) fn check(table: DoorTable, policies: &BTreeMap<String, Policy>) -> anyhow::Result<Settings> {
    let usual = Settings::default();
    let cookies: Vec<Cookie> = match table.cookies {
        None => usual.cookies,
        Some(cookies) if cookies.len() > MOST_COOKIES => {
            bail!(
                "cookies has {} names; at most {MOST_COOKIES} are allowed",
                cookies.len()
            )
        }
        Some(cookies) => cookies.into_iter().map(cookie).collect::<anyhow::Result<_>>()?,
    };
    for (place, cookie) in cookies.iter().enumerate() {
        let alike = |other: &&Cookie| are_alike(&cookie.name, &other.name);
        if let Some(other) = cookies[..place].iter().find(alike) {
            bail!(
                "cookies: some applications take {:?} and {:?} for one name: keep one of them",
                other.name,
                cookie.name
            );
        }
    }
    let header = table.header.map(|name| {
        let known = axum::http::HeaderName::try_from(name.as_str());
        known.context("header is not the name of an HTTP header")?;
        anyhow::Ok(name.to_ascii_lowercase().into())
    });
    let header = header.transpose()?;
    if cookies.is_empty() && header.is_none() {
        bail!("cookies is empty and there is no header: say how requests name their session");
    }
    if table.origins.len() > MOST_ORIGINS {
        bail!(
            "origins has {} entries; at most {MOST_ORIGINS} are allowed",
            table.origins.len()
        );
    }
    for origin in &table.origins {
        let authority = origin.split_once("://").map_or("", |(_, authority)| authority);
        if authority.is_empty() || authority.contains(['/', '?', '#', '*', ' ']) {
            bail!("origins: {origin:?} must be a scheme, a host and perhaps a port, like https://app.example");
        }
    }
    if table.routes.len() > MOST_ROUTES {
        bail!(
            "there are {} routes; at most {MOST_ROUTES} are allowed",
            table.routes.len()
        );
    }
    let tenant = table.tenant.unwrap_or_default();
    if !crate::config::listen::is_tenant(&tenant) {
        bail!("tenant must be at most 128 bytes of visible ASCII");
    }
    let routes: Vec<_> = table
        .routes
        .into_iter()
        .enumerate()
        .map(|(place, table)| route(table).with_context(|| format!("routes[{place}]")))
        .collect::<anyhow::Result<_>>()?;
    let unknown = match (table.unknown, table.start) {
        (Some(UnknownKey::Start), start) => Unknown::Start(starting(start.unwrap_or_default(), &routes, policies)?),
        (_, Some(_)) => bail!("start says how sessions begin here, but none do: write `unknown = \"start\"`"),
        (None | Some(UnknownKey::Deny), None) => Unknown::Deny,
        (Some(UnknownKey::AllowUntracked), None) => Unknown::AllowUntracked,
    };
    if let Some(name) = routes.iter().find_map(|route| route.policy.as_deref())
        && !matches!(unknown, Unknown::Start(_))
    {
        bail!("a route says that sessions begin with the policy {name:?}, but none do: write `unknown = \"start\"`");
    }
    Ok(Settings {
        tenant: tenant.into(),
        cookies,
        header,
        origins: table.origins.into_iter().map(String::into_boxed_str).collect(),
        login_url: login_url(table.login_url)?.unwrap_or(usual.login_url),
        unknown,
        routes,
    })
}

/// An ended session is kept from the application as long as its tombstone lasts. If the application knows its own session for longer,
/// the same cookie would begin a new one here then, and the person would be in again.
fn starting(table: StartTable, routes: &[Route], policies: &BTreeMap<String, Policy>) -> anyhow::Result<Starting> {
    let max_sessions = table.max_sessions.unwrap_or(10_000);
    let rate = table.rate.unwrap_or(50);
    if max_sessions == 0 || !(1..=10_000).contains(&rate) {
        bail!("start: max_sessions must be at least 1, and rate from 1 to 10000 sessions a second");
    }
    let used: BTreeSet<&str> = routes
        .iter()
        .filter_map(|route| route.policy.as_deref())
        .chain(["default"])
        .collect();
    for name in used {
        let Some(policy) = policies.get(name) else {
            bail!("sessions begin with the policy {name:?}, which the file does not have");
        };
        let remembered = policy.limits.tombstone_ttl;
        let age = table.app_session_age.map(|span| span.0);
        if table.allow_revival || age.is_some_and(|age| age <= remembered) {
            continue;
        }
        let remembered = humantime::format_duration(remembered);
        bail!(
            "start: an ended session of the policy {name:?} is remembered for {remembered} (tombstone_ttl); if the application knows its own \
             for longer, the same cookie brings it back then. Say for how long it does: `start = {{ app_session_age = \"{remembered}\" }}`, \
             at most as long as tombstone_ttl; or `allow_revival = true` if that may be"
        );
    }
    Ok(Starting {
        max_sessions,
        rate,
        app_session_age: table
            .app_session_age
            .map(|span| span.0)
            .filter(|_| !table.allow_revival),
    })
}

/// RFC 6265 section 4.1.1: what a browser would take as another attribute, or not at all, is none.
fn cookie(key: CookieKey) -> anyhow::Result<Cookie> {
    let (name, path, domain) = match key {
        CookieKey::Name(name) => (name, None, None),
        CookieKey::Whole(table) => (table.name, table.path, table.domain),
    };
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(token) {
        bail!("cookies: {name:?} must be a cookie's name: 1 to 64 letters, digits and !#$%&'*+-.^_`|~");
    }
    let path = path.unwrap_or_else(|| "/".to_owned());
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b';';
    if !path.starts_with('/') || path.len() > 256 || !path.bytes().all(plain) {
        bail!(
            "cookies: the path of {name:?} must begin with / and have no `;` or space: it is the one that the application sets"
        );
    }
    let host = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if let Some(domain) = &domain
        && (domain.is_empty() || domain.len() > 255 || !domain.bytes().all(host))
    {
        bail!("cookies: the domain of {name:?} must be a host, like shop.example, or be left out");
    }
    if name.starts_with("__Host-") && (domain.is_some() || path != "/") {
        bail!("cookies: {name:?} has no domain and the path /, or browsers do not take it (RFC 6265bis)");
    }
    Ok(Cookie {
        name: name.into(),
        path: path.into(),
        domain: domain.map(String::into_boxed_str),
    })
}

fn login_url(url: Option<String>) -> anyhow::Result<Option<Box<str>>> {
    let Some(url) = url else { return Ok(None) };
    let absolute = ["https://", "http://"].iter().any(|scheme| url.starts_with(scheme));
    let local = url.starts_with('/') && !url.starts_with("//");
    if !(absolute || local) || url.len() > LONGEST_URL || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
        bail!(
            "login_url must be a path that begins with one /, or begin with https://, in at most {LONGEST_URL} bytes of visible ASCII"
        );
    }
    if url.contains('#') {
        bail!("login_url cannot have a fragment: the reason and where to go on are added as a query");
    }
    Ok(Some(url.into()))
}

fn route(table: RouteTable) -> anyhow::Result<Route> {
    if table.host.is_none() && table.path.is_none() {
        bail!("it has neither host nor path, and would be about every request");
    }
    if table.public && (table.passive || table.policy.is_some()) {
        bail!(
            "it is public: nobody is refused, no time runs and no session begins there, so it is neither passive nor has it a policy"
        );
    }
    if !table.public && !table.passive && table.policy.is_none() {
        bail!(
            "it says nothing: a route is public (nobody is refused, no time runs), passive (never activity) or has a policy"
        );
    }
    Ok(Route {
        host: host_globs(table.host)?,
        path: path_globs(table.path)?,
        public: table.public,
        passive: table.passive,
        policy: table.policy.map(String::into_boxed_str),
    })
}
