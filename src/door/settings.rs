//! What the door is told: how requests name their session, who may ask, and which routes are public.

use std::{sync::Arc, time::Duration};

use super::authz::Says;
use crate::state::{OneOf, Pattern};

/// The settings of the HTTP door, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The tenant of all sessions of this door.
    pub tenant: Arc<str>,
    /// Cookies that carry a session's id: the first of these that a request has.
    pub cookies: Vec<Cookie>,
    /// A request header that carries it, for callers without cookies. Looked at first.
    pub header: Option<Box<str>>,
    /// Origins beside the request's own host from which scripts may change something, like `https://app.example`.
    pub origins: Vec<Box<str>>,
    /// Where people log in.
    pub login_url: Box<str>,
    /// What becomes of an id that the sidecar has not seen.
    pub unknown: Unknown,
    /// The routes, the first that matches decides.
    pub routes: Vec<Route>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tenant: "".into(),
            cookies: vec![Cookie::default()],
            header: None,
            origins: Vec::new(),
            login_url: "/login".into(),
            unknown: Unknown::Deny,
            routes: Vec::new(),
        }
    }
}

/// A cookie that carries a session's id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cookie {
    /// Its name.
    pub name: Box<str>,
    /// The path that it was set with: without it the browser would not let it go.
    pub path: Box<str>,
    /// The domain that it was set with, if any.
    pub domain: Option<Box<str>>,
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            name: "sessionid".into(),
            path: "/".into(),
            domain: None,
        }
    }
}

/// What becomes of an id that the sidecar has not seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// It is refused.
    Deny,
    /// The request goes on, and no time runs: while applications are switched over one by one.
    AllowUntracked,
    /// A session begins with it, where nothing but the application itself knows who has logged in.
    Start(Starting),
}

/// How many sessions the door may begin. Whoever sends ids that nobody gave out reaches these bounds, and not those of real logins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starting {
    /// None more while the sidecar, or the namespace of its store, has so many live sessions.
    pub max_sessions: usize,
    /// So many a second.
    pub rate: u32,
    /// For how long the application knows a session of its own: none begins with a policy that remembers ended ones for less. None: it
    /// may, and what has ended may come back.
    pub app_session_age: Option<Duration>,
}

/// What is special about some requests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// Hosts, without port; none: all.
    pub host: OneOf<Pattern>,
    /// Paths, without query; none: all.
    pub path: OneOf<Pattern>,
    /// Whether it is for everybody: nobody is refused, and no time runs.
    pub public: bool,
    /// Whether it is never activity.
    pub passive: bool,
    /// The policy of sessions that begin here; none: `default`.
    pub policy: Option<Box<str>>,
}

/// How a request is treated.
#[derive(Debug, Clone, Copy)]
pub struct Treatment<'a> {
    /// It is for everybody.
    pub public: bool,
    /// It is never activity.
    pub passive: bool,
    /// The policy of a session that begins with it; none: `default`.
    pub policy: Option<&'a str>,
}

impl Settings {
    /// What is special about a request. The login page is public by construction: else nobody could ever log in.
    #[must_use]
    pub fn route<'a>(&'a self, host: &str, path: &str, said: &Says<'a>) -> Treatment<'a> {
        let found = self.routes.iter().find(|route| route.is_about(host, path));
        let public = said.public.unwrap_or(found.is_some_and(|route| route.public));
        Treatment {
            public: public && is_unambiguous(path) || self.is_login(host, path),
            passive: said.passive.unwrap_or(found.is_some_and(|route| route.passive)),
            policy: said.policy.or(found.and_then(|route| route.policy.as_deref())),
        }
    }

    fn is_login(&self, host: &str, path: &str) -> bool {
        match self.login_url.split_once("://") {
            None => path == path_of(&self.login_url),
            Some((_, rest)) => {
                let at = rest.find('/').unwrap_or(rest.len());
                let (authority, url) = rest.split_at(at);
                host.eq_ignore_ascii_case(without_port(authority))
                    && path == path_of(if url.is_empty() { "/" } else { url })
            }
        }
    }
}

impl Route {
    fn is_about(&self, host: &str, path: &str) -> bool {
        self.host.admits(host, Pattern::is_match) && self.path.admits(path, Pattern::is_match)
    }
}

/// Whether every server takes a path for the same: what one decodes or joins and another does not may lead past a public route.
fn is_unambiguous(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c", "%25", "%00"]
        .iter()
        .any(|code| lower.contains(code));
    let dots = path.split('/').any(|segment| matches!(segment, "." | ".."));
    !encoded && !dots && !path.contains(['\\', ';']) && !path.contains("//")
}

/// The path of a URL without scheme and host.
fn path_of(url: &str) -> &str {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    &url[..end]
}

/// A host without its port.
pub(crate) fn without_port(authority: &str) -> &str {
    let ipv6 = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    match authority[ipv6..].find(':') {
        Some(colon) => &authority[..ipv6 + colon],
        None => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(globs: &[&str]) -> OneOf<Pattern> {
        OneOf(globs.iter().map(|glob| Pattern::path(glob).unwrap()).collect())
    }

    fn settings(login_url: &str) -> Settings {
        Settings {
            login_url: login_url.into(),
            routes: vec![
                Route {
                    path: globs(&["/static/**"]),
                    public: true,
                    ..Route::default()
                },
                Route {
                    path: globs(&["/poll", "/static/x"]),
                    passive: true,
                    ..Route::default()
                },
            ],
            ..Settings::default()
        }
    }

    fn kind(settings: &Settings, host: &str, path: &str) -> &'static str {
        match settings.route(host, path, &Says::default()) {
            Treatment { public: true, .. } => "public",
            Treatment { passive: true, .. } => "passive",
            _ => "usual",
        }
    }

    #[test]
    fn the_first_route_that_matches_decides() {
        let settings = settings("/login/?theme=dark");
        for (path, expected) in [
            ("/", "usual"),
            ("/static/a/b.css", "public"),
            ("/static/x", "public"),
            ("/poll", "passive"),
            ("/poll/x", "usual"),
            ("/login/", "public"),
            ("/login", "usual"),
        ] {
            assert_eq!(kind(&settings, "shop.example", path), expected, "{path}");
        }
    }

    #[test]
    fn what_servers_read_in_two_ways_is_not_public() {
        let settings = settings("/login");
        for path in [
            "/static/../admin",
            "/static/./a",
            "/static/%2e%2E/admin",
            "/static/a%2Fb",
            "/static//a",
            "/static/..;/admin",
            "/static/a\\..\\b",
            "/static/%252e",
        ] {
            assert_eq!(kind(&settings, "", path), "usual", "{path}");
        }
    }

    #[test]
    fn the_login_page_of_another_host_is_public_there_only() {
        let settings = settings("https://login.example:8443/in");
        assert_eq!(kind(&settings, "LOGIN.example", "/in"), "public");
        assert_eq!(kind(&settings, "shop.example", "/in"), "usual");
        assert_eq!(kind(&settings, "login.example", "/"), "usual");
    }

    #[test]
    fn a_host_is_told_from_its_port() {
        for (authority, host) in [("a", "a"), ("a:80", "a"), ("[::1]", "[::1]"), ("[::1]:80", "[::1]")] {
            assert_eq!(without_port(authority), host);
        }
    }
}
