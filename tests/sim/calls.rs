//! From the script's numbers to requests of the wire.

use std::collections::BTreeMap;

use session_sidecar::rpc::proto::v1::{self, session_name::Name};

use crate::{
    history::Request,
    script::{Action, Ask, Scope, TENANTS, Touch, policy_name, tenant_of},
    world::CANARY,
};

/// What the callers know of sessions: the ids that they chose or were given, and the refs that answers told.
pub(crate) struct Names {
    seed: u64,
    ids: BTreeMap<u32, String>,
    refs: BTreeMap<u32, String>,
}

impl Names {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            ids: BTreeMap::new(),
            refs: BTreeMap::new(),
        }
    }

    /// The id of a session: what was handed out, or what its caller would have chosen.
    pub(crate) fn id(&self, session: u32) -> String {
        let own = || format!("{CANARY}{:x}-{session:06}-padding", self.seed);
        self.ids.get(&session).cloned().unwrap_or_else(own)
    }

    fn own_id(&self, session: u32) -> String {
        format!("{CANARY}{:x}-{session:06}-padding", self.seed)
    }

    fn reference(&self, session: u32) -> Option<&String> {
        self.refs.get(&session)
    }

    pub(crate) fn learn(&mut self, action: &Action, learnt: Option<(String, String)>) {
        let (Some((id, reference)), Action::Create { session, .. } | Action::Rotate { to: session, .. }) =
            (learnt, action)
        else {
            return;
        };
        self.ids.insert(*session, id);
        self.refs.insert(*session, reference);
    }
}

fn wire(ms: u64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration {
        seconds: (ms / 1_000) as i64,
        nanos: (ms % 1_000 * 1_000_000) as i32,
    })
}

fn request_id(names: &Names, request: Option<u32>) -> String {
    request
        .map(|number| format!("request-{:x}-{number}", names.seed))
        .unwrap_or_default()
}

fn subject_name(subject: u8) -> String {
    if subject == 0 {
        String::new()
    } else {
        format!("person-{subject}")
    }
}

/// The request of an action: whose it is, what it says, and the field that it breaks on purpose.
pub(crate) fn request(action: &Action, names: &Names) -> Option<(usize, Request, Option<&'static str>)> {
    let of = |session: u32| TENANTS[tenant_of(session)].to_owned();
    let (session, request) = match action {
        Action::Create {
            session,
            policy,
            subject,
            own_id,
            idle,
            absolute,
            authenticated_ago,
            idle_for,
            request,
        } => {
            // Without an own id the sidecar makes one; from a request id, so that a story repeats.
            let own = *own_id || request.is_none();
            let create = v1::CreateRequest {
                tenant: of(*session),
                session_id: if own { names.own_id(*session) } else { String::new() },
                subject: subject_name(*subject),
                policy: policy_name(*policy).to_owned(),
                labels: BTreeMap::from([("number".to_owned(), session.to_string())]),
                idle_timeout: idle.and_then(wire),
                absolute_timeout: absolute.and_then(wire),
                authenticated_ago: wire(*authenticated_ago).filter(|_| *authenticated_ago > 0),
                idle_for: wire(*idle_for).filter(|_| *idle_for > 0),
                request_id: request_id(names, *request),
                authentication_level: String::new(),
            };
            (*session, Request::Create(create))
        }
        Action::Touch(touch) => (touch.session, Request::Touch(touch_request(touch, names))),
        Action::Batch(touches) => {
            let first = touches.first()?.session;
            let touches = touches.iter().map(|touch| touch_request(touch, names)).collect();
            (first, Request::Batch(v1::BatchTouchRequest { touches }))
        }
        Action::Check { session, by_ref } => {
            let reference = names.reference(*session).filter(|_| *by_ref);
            let name = match reference {
                Some(reference) => v1::check_request::Name::SessionRef(reference.clone()),
                None => v1::check_request::Name::SessionId(names.id(*session)),
            };
            (*session, Request::Check(check(of(*session), name)))
        }
        Action::CheckMany(sessions) => {
            let first = *sessions.first()?;
            let some = sessions
                .iter()
                .filter(|session| tenant_of(**session) == tenant_of(first));
            let many = v1::CheckRequest {
                tenant: of(first),
                name: None,
                sessions: some.map(|session| named(Name::SessionId(names.id(*session)))).collect(),
            };
            (first, Request::Check(many))
        }
        Action::Extend {
            session,
            wanted,
            request,
        } => {
            let extend = v1::ExtendRequest {
                tenant: of(*session),
                session_id: names.id(*session),
                wanted_duration: wanted.and_then(wire),
                request_id: request_id(names, *request),
            };
            (*session, Request::Extend(extend))
        }
        Action::Hold {
            session,
            hold,
            work,
            ttl,
        } => {
            let kind = if *work {
                v1::HoldKind::Work
            } else {
                v1::HoldKind::Presence
            };
            let hold = v1::HoldRequest {
                tenant: of(*session),
                session_id: names.id(*session),
                hold_id: format!("hold-{hold}"),
                kind: kind.into(),
                ttl: wire(*ttl),
                purpose: "the simulation".to_owned(),
            };
            (*session, Request::Hold(hold))
        }
        Action::Release { session, hold } => {
            let release = v1::ReleaseRequest {
                tenant: of(*session),
                session_id: names.id(*session),
                hold_id: format!("hold-{hold}"),
            };
            (*session, Request::Release(release))
        }
        Action::Rotate {
            session,
            to,
            authenticated_ago,
            subject,
            request,
        } => {
            let made = request.is_some_and(|number| number % 2 == 0);
            let rotate = v1::RotateRequest {
                tenant: of(*session),
                session_id: names.id(*session),
                new_session_id: if made { String::new() } else { names.own_id(*to) },
                subject: subject.map(subject_name),
                authenticated_ago: authenticated_ago.and_then(wire),
                authentication_level: String::new(),
                request_id: request_id(names, *request),
            };
            (*session, Request::Rotate(rotate))
        }
        Action::End {
            session,
            revoked,
            request,
        } => {
            let reason = if *revoked {
                v1::EndReason::Revoked
            } else {
                v1::EndReason::Logout
            };
            let end = v1::EndRequest {
                tenant: of(*session),
                session_id: names.id(*session),
                reason: reason.into(),
                actor_id: "somebody".to_owned(),
                request_id: request_id(names, *request),
                ..Default::default()
            };
            (*session, Request::End(end))
        }
        Action::Admin {
            session,
            subject,
            ask,
            stranger,
        } => {
            let asker = (tenant_of(*session) + usize::from(*stranger)) % TENANTS.len();
            return Some((asker, ask_of(*session, *subject, *ask, names), None));
        }
        Action::Stranger { session, how } => {
            let other = (tenant_of(*session) + 1) % TENANTS.len();
            let reference = names.reference(*session).cloned();
            let request = match (how, reference) {
                (0, Some(reference)) => Request::Check(check(
                    TENANTS[other].to_owned(),
                    v1::check_request::Name::SessionRef(reference),
                )),
                (1, _) => Request::Touch(touch_request(
                    &Touch {
                        session: *session,
                        activity: 1,
                        ago: 0,
                        hint: 0,
                    },
                    names,
                )),
                _ => {
                    let touch = Touch {
                        session: *session,
                        activity: 1,
                        ago: 0,
                        hint: 0,
                    };
                    let touch = touch_request(&touch, names);
                    Request::Touch(v1::TouchRequest {
                        tenant: TENANTS[other].to_owned(),
                        ..touch
                    })
                }
            };
            return Some((other, request, None));
        }
        Action::Bad { session, which } => {
            let (request, field) = bad(*session, *which, names);
            return Some((tenant_of(*session), request, Some(field)));
        }
        _ => return None,
    };
    Some((tenant_of(session), request, None))
}

/// What an operator asks.
fn ask_of(session: u32, subject: u8, ask: Ask, names: &Names) -> Request {
    let tenant = TENANTS[tenant_of(session)].to_owned();
    let filter = |whole: bool| v1::SessionFilter {
        tenant: tenant.clone(),
        subject: if whole { String::new() } else { subject_name(subject) },
        ..Default::default()
    };
    let actor_id = "operator".to_owned();
    match ask {
        Ask::List { whole, ended, page } => {
            let mut filter = filter(whole);
            if ended {
                let all = [
                    v1::SessionState::Active,
                    v1::SessionState::Expiring,
                    v1::SessionState::Ended,
                ];
                filter.states = all.map(i32::from).to_vec();
            }
            Request::List(v1::ListSessionsRequest {
                filter: Some(filter),
                page_size: Some(i32::from(page)),
                page_token: String::new(),
                actor_id,
            })
        }
        Ask::End { dry_run, spared } => {
            let name = match names.reference(session) {
                Some(reference) => Name::SessionRef(reference.clone()),
                None => Name::SessionId(names.id(session)),
            };
            Request::EndMany(v1::EndSessionsRequest {
                filter: Some(filter(false)),
                except: spared.then(|| named(name)).into_iter().collect(),
                dry_run,
                actor_id,
                ..Default::default()
            })
        }
        Ask::Explain { by_ref } => {
            use v1::explain_session_request::Target;

            let reference = names.reference(session).filter(|_| by_ref);
            let target = match reference {
                Some(reference) => Target::SessionRef(reference.clone()),
                None => Target::SessionId(names.id(session)),
            };
            Request::Explain(v1::ExplainSessionRequest {
                tenant,
                target: Some(target),
                actor_id,
            })
        }
        Ask::Stats => Request::Stats(v1::GetStatsRequest { tenant, actor_id }),
    }
}

fn bad(session: u32, which: u8, names: &Names) -> (Request, &'static str) {
    let touch = touch_request(
        &Touch {
            session,
            activity: 1,
            ago: 0,
            hint: 0,
        },
        names,
    );
    let negative = Some(prost_types::Duration { seconds: -1, nanos: 0 });
    match which {
        0 => (
            Request::Touch(v1::TouchRequest {
                session_id: String::new(),
                ..touch
            }),
            "session_id",
        ),
        1 => (
            Request::Touch(v1::TouchRequest {
                session_id: "x".repeat(257),
                ..touch
            }),
            "session_id",
        ),
        2 => (Request::Touch(v1::TouchRequest { activity: 77, ..touch }), "activity"),
        3 => (
            Request::Touch(v1::TouchRequest {
                idle_for: negative,
                ..touch
            }),
            "idle_for",
        ),
        4 => {
            let name = named(Name::SessionId(touch.session_id));
            let sessions = vec![name; 101];
            (
                Request::Check(v1::CheckRequest {
                    tenant: touch.tenant,
                    name: None,
                    sessions,
                }),
                "sessions",
            )
        }
        5 => {
            let extend = v1::ExtendRequest {
                tenant: touch.tenant,
                session_id: touch.session_id,
                wanted_duration: wire(0),
                request_id: String::new(),
            };
            (Request::Extend(extend), "wanted_duration")
        }
        6 => {
            let end = v1::EndRequest {
                tenant: touch.tenant,
                session_id: touch.session_id,
                reason: v1::EndReason::IdleTimeout.into(),
                ..Default::default()
            };
            (Request::End(end), "reason")
        }
        _ => (
            Request::Batch(v1::BatchTouchRequest {
                touches: vec![touch; 1001],
            }),
            "touches",
        ),
    }
}

fn check(tenant: String, name: v1::check_request::Name) -> v1::CheckRequest {
    v1::CheckRequest {
        tenant,
        name: Some(name),
        sessions: Vec::new(),
    }
}

fn named(name: Name) -> v1::SessionName {
    v1::SessionName { name: Some(name) }
}

fn touch_request(touch: &Touch, names: &Names) -> v1::TouchRequest {
    v1::TouchRequest {
        tenant: TENANTS[tenant_of(touch.session)].to_owned(),
        session_id: names.id(touch.session),
        activity: i32::from(touch.activity),
        idle_for: wire(touch.ago).filter(|_| touch.ago > 0),
        hints: hints(touch.hint),
    }
}

fn hints(hint: u8) -> Option<v1::TouchHints> {
    let text = str::to_owned;
    Some(match hint {
        1 => v1::TouchHints {
            method: text("GET"),
            path: text("/page"),
            ..Default::default()
        },
        2 => v1::TouchHints {
            sec_purpose: text("prefetch;prerender"),
            ..Default::default()
        },
        3 => v1::TouchHints {
            page_visibility: v1::PageVisibility::Hidden.into(),
            ..Default::default()
        },
        4 => v1::TouchHints {
            sec_fetch_mode: text("navigate"),
            sec_fetch_user: text("?1"),
            sec_fetch_dest: text("document"),
            ..Default::default()
        },
        5 => v1::TouchHints {
            sec_fetch_mode: text("cors"),
            sec_fetch_dest: text("empty"),
            ..Default::default()
        },
        6 => v1::TouchHints {
            input_report: true,
            ..Default::default()
        },
        7 => v1::TouchHints {
            method: text("POST"),
            path: text("/save"),
            ..Default::default()
        },
        8 => v1::TouchHints {
            method: text("GET"),
            path: text("/polls/7?since=3"),
            ..Default::default()
        },
        _ => return None,
    })
}

/// A watch of everything that the caller may see.
pub(crate) fn watch_everything() -> v1::WatchExpiryRequest {
    v1::WatchExpiryRequest {
        scope: Some(v1::WatchScope {
            tenant: String::new(),
            scope: Some(v1::watch_scope::Scope::Everything(true)),
        }),
        heartbeat_interval: wire(300_000),
        ..Default::default()
    }
}

/// The watch of a script.
pub(crate) fn watch(
    names: &Names,
    tenant: usize,
    scope: &Scope,
    kinds: u8,
    initial: bool,
    watcher: u32,
) -> v1::WatchExpiryRequest {
    use v1::watch_scope::Scope as Wire;

    let names_of = |sessions: &[u32], by_ref: bool| {
        let names = sessions
            .iter()
            .map(|session| match names.reference(*session).filter(|_| by_ref) {
                Some(reference) => named(Name::SessionRef(reference.clone())),
                None => named(Name::SessionId(names.id(*session))),
            });
        Wire::Sessions(v1::SessionNames { names: names.collect() })
    };
    let wanted = match scope {
        Scope::Everything => Wire::Everything(true),
        Scope::Tenant => Wire::WholeTenant(true),
        Scope::Subject(subject) => Wire::Subject(subject_name(*subject)),
        Scope::Ids(sessions) => names_of(sessions, false),
        Scope::Refs(sessions) => names_of(sessions, true),
    };
    let tenant = if *scope == Scope::Everything {
        ""
    } else {
        TENANTS[tenant]
    };
    v1::WatchExpiryRequest {
        scope: Some(v1::WatchScope {
            tenant: tenant.to_owned(),
            scope: Some(wanted),
        }),
        kinds: (1..=3).filter(|kind| kinds & (1 << (kind - 1)) != 0).collect(),
        heartbeat_interval: wire(if watcher.is_multiple_of(4) { 60_000 } else { 300_000 }),
        include_initial_state: initial,
        resume_token: String::new(),
    }
}

/// The ids that a watch named its sessions by.
pub(crate) fn own_ids(request: &v1::WatchExpiryRequest) -> Vec<String> {
    let Some(v1::watch_scope::Scope::Sessions(names)) = request.scope.as_ref().and_then(|scope| scope.scope.as_ref())
    else {
        return Vec::new();
    };
    let ids = names.names.iter().filter_map(|name| match &name.name {
        Some(Name::SessionId(id)) => Some(id.clone()),
        _ => None,
    });
    ids.collect()
}
