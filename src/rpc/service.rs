//! The verbs: read the request, ask the core, write the answer.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::{
    Admission, CallError, Called, Caller, VerbGroup,
    meter::{Method, RpcMeter},
    name,
    proto::v1::{self, session_service_server::SessionService},
    read,
    watch::{self, WatchStream},
    write::{self, Writer},
};
use crate::{
    sessions::{self, Create, Follow, Name, Report, Rotate, Scope, Sessions, Subscriber},
    state::{End, EndReason, HoldWish},
};

const MOST_TOUCHES: usize = 1000;
const MOST_CHECKS: usize = 100;
const MOST_WATCHED: usize = 1000;
const LONGEST_TOKEN: usize = 1024;
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The service over one core.
pub(super) struct Service {
    sessions: Arc<Sessions>,
    writer: Writer,
    meter: Arc<RpcMeter>,
    draining: CancellationToken,
}

impl Service {
    pub(super) fn new(sessions: Arc<Sessions>, meter: Arc<RpcMeter>, draining: CancellationToken) -> Self {
        Self {
            writer: Writer::new(&sessions),
            sessions,
            meter,
            draining,
        }
    }

    /// Counts a call and turns its error into a status.
    fn answer<T>(&self, method: Method, called: Called<T>) -> Result<Response<T>, Status> {
        match called {
            Ok(answer) => {
                self.meter.count(method, tonic::Code::Ok);
                Ok(Response::new(answer))
            }
            Err(error) => {
                let status = error.into_status(&self.writer);
                self.meter.count(method, status.code());
                Err(status)
            }
        }
    }

    async fn do_create(&self, request: Request<v1::CreateRequest>) -> Called<v1::CreateResponse> {
        let (caller, mut request) = open(request)?;
        allow(&caller, VerbGroup::Issue)?;
        let tenant = Arc::clone(own_tenant(&caller, "tenant", &request.tenant)?);
        // What a retry must say again is all of the request but its id.
        let request_id = std::mem::take(&mut request.request_id);
        let content = request.encode_to_vec();
        let created = self
            .sessions
            .create(Create {
                tenant,
                session_id: match request.session_id.as_str() {
                    "" => None,
                    id => Some(read::session_id("session_id", id)?),
                },
                subject: read::text("subject", &request.subject, 256)?,
                policy: match read::text("policy", &request.policy, 128)? {
                    "" => "default",
                    name => name,
                },
                labels: read::labels("labels", request.labels)?,
                idle_timeout: read::span("idle_timeout", request.idle_timeout)?,
                absolute_timeout: read::span("absolute_timeout", request.absolute_timeout)?,
                authenticated_ago: read::ago("authenticated_ago", request.authenticated_ago)?,
                authentication_level: read::authentication_level(
                    "authentication_level",
                    &request.authentication_level,
                )?,
                idle_for: read::ago("idle_for", request.idle_for)?,
                request: read::request_id("request_id", &request_id)?
                    .map(|id| sessions::Request { id, content: &content }),
            })
            .await?;
        Ok(v1::CreateResponse {
            session: Some(self.writer.session(&request.tenant, &created.report)),
            session_id: created.session_id,
            superseded_refs: created.superseded.iter().map(ToString::to_string).collect(),
        })
    }

    async fn do_touch(&self, request: Request<v1::TouchRequest>) -> Called<v1::TouchResponse> {
        self.touch_one(&*caller(&request)?, request.get_ref()).await
    }

    async fn touch_one(&self, caller: &Caller, touch: &v1::TouchRequest) -> Called<v1::TouchResponse> {
        let name = own_name(caller, &touch.tenant, &touch.session_id)?;
        let activity = read::activity("activity", touch.activity)?;
        let ago = read::ago("idle_for", touch.idle_for)?;
        let hints = touch.hints.as_ref();
        let hints = hints.map(|hints| read::hints("hints.", hints)).transpose()?;
        let answer = self.sessions.touch(name, activity, hints.as_ref(), ago).await?;
        Ok(self.writer.touch(&answer))
    }

    async fn do_batch_touch(&self, request: Request<v1::BatchTouchRequest>) -> Called<v1::BatchTouchResponse> {
        let (caller, batch) = open(request)?;
        allow(&caller, VerbGroup::Use)?;
        within("touches", batch.touches.len(), MOST_TOUCHES)?;
        let mut outcomes = Vec::with_capacity(batch.touches.len());
        for touch in &batch.touches {
            use v1::touch_outcome::Outcome;
            let outcome = match self.touch_one(&caller, touch).await {
                Ok(answer) => Outcome::Touch(answer),
                Err(error) => Outcome::Error(error.into_item(&self.writer)),
            };
            outcomes.push(v1::TouchOutcome { outcome: Some(outcome) });
        }
        Ok(v1::BatchTouchResponse { outcomes })
    }

    async fn do_check(&self, request: Request<v1::CheckRequest>) -> Called<v1::CheckResponse> {
        let (caller, request) = open(request)?;
        allow(&caller, VerbGroup::Use)?;
        let tenant = own_tenant(&caller, "tenant", &request.tenant)?;
        let single = request.name.map(|name| match name {
            v1::check_request::Name::SessionId(id) => v1::session_name::Name::SessionId(id),
            v1::check_request::Name::SessionRef(reference) => v1::session_name::Name::SessionRef(reference),
        });
        if let Some(name) = single {
            if !request.sessions.is_empty() {
                let problem = "must be empty if session_id or session_ref is set; ask for one or for many";
                return Err(CallError::invalid("sessions", problem));
            }
            let report = self.report(tenant, "", Some(&name)).await?;
            return Ok(v1::CheckResponse {
                session: Some(self.writer.session(tenant, &report)),
                outcomes: Vec::new(),
            });
        }
        within("sessions", request.sessions.len(), MOST_CHECKS)?;
        let mut outcomes = Vec::with_capacity(request.sessions.len());
        for (place, session) in request.sessions.iter().enumerate() {
            use v1::check_outcome::Outcome;
            let outcome = match self.status_of(tenant, &format!("sessions[{place}]."), session).await {
                Ok(status) => Outcome::Status(status),
                Err(error) => Outcome::Error(error.into_item(&self.writer)),
            };
            outcomes.push(v1::CheckOutcome { outcome: Some(outcome) });
        }
        Ok(v1::CheckResponse {
            session: None,
            outcomes,
        })
    }

    async fn status_of(&self, tenant: &str, prefix: &str, session: &v1::SessionName) -> Called<v1::SessionStatus> {
        let report = self.report(tenant, prefix, session.name.as_ref()).await?;
        Ok(self.writer.status(&report.status))
    }

    /// All that is known of the session that a name stands for: of its successor, if an id is an alias now.
    async fn report(&self, tenant: &str, prefix: &str, name: Option<&v1::session_name::Name>) -> Called<Report> {
        Ok(match name {
            Some(v1::session_name::Name::SessionId(id)) => {
                let name = name::id(&self.sessions, tenant, format!("{prefix}session_id"), id).await?;
                self.sessions.report_by_id(name).await?
            }
            other => {
                let reference = name::reference(&self.sessions, tenant, prefix, other).await?;
                self.sessions.report(tenant, reference).await?
            }
        })
    }

    async fn do_hold(&self, request: Request<v1::HoldRequest>) -> Called<v1::HoldResponse> {
        let (caller, request) = open(request)?;
        let name = own_name(&caller, &request.tenant, &request.session_id)?;
        let wish = HoldWish {
            id: read::hold_id("hold_id", &request.hold_id)?.into(),
            kind: read::hold_kind("kind", request.kind)?,
            ttl: read::span("ttl", request.ttl)?
                .ok_or_else(|| CallError::invalid("ttl", "is required: how long the hold should live, over 0 s"))?,
            purpose: read::text("purpose", &request.purpose, 128)?.into(),
        };
        let answer = self.sessions.hold(name, wish).await?;
        Ok(v1::HoldResponse {
            status: Some(self.writer.status(&answer.status)),
            granted_ttl: Some(write::duration(answer.granted)),
            clamped_by: write::clamp(answer.clamped).into(),
            created: answer.created,
        })
    }

    async fn do_release(&self, request: Request<v1::ReleaseRequest>) -> Called<v1::ReleaseResponse> {
        let (caller, request) = open(request)?;
        let name = own_name(&caller, &request.tenant, &request.session_id)?;
        let hold_id = read::hold_id("hold_id", &request.hold_id)?;
        let answer = self.sessions.release(name, hold_id).await?;
        Ok(v1::ReleaseResponse {
            status: Some(self.writer.status(&answer.status)),
            released: answer.released,
        })
    }

    async fn do_rotate(&self, request: Request<v1::RotateRequest>) -> Called<v1::RotateResponse> {
        let (caller, mut request) = open(request)?;
        allow(&caller, VerbGroup::Issue)?;
        own_tenant(&caller, "tenant", &request.tenant)?;
        let request_id = std::mem::take(&mut request.request_id);
        let content = [b"Rotate ".as_slice(), &request.encode_to_vec()].concat();
        let subject = match request.subject.as_deref() {
            Some("") => {
                let problem = "is empty; leave it out to keep the subject, or give 1 to 256 bytes";
                return Err(CallError::invalid("subject", problem));
            }
            subject => subject.map(|text| read::text("subject", text, 256)).transpose()?,
        };
        let level = read::authentication_level("authentication_level", &request.authentication_level)?;
        let authenticated_ago = request.authenticated_ago;
        if authenticated_ago.is_none() && !level.is_empty() {
            let problem = "needs authenticated_ago beside it: it is the level of a new authentication";
            return Err(CallError::invalid("authentication_level", problem));
        }
        let rotated = self
            .sessions
            .rotate(Rotate {
                name: Name {
                    tenant: &request.tenant,
                    session_id: read::session_id("session_id", &request.session_id)?,
                    follow: Follow::Alias,
                },
                new_session_id: match request.new_session_id.as_str() {
                    "" => None,
                    id if *id == *request.session_id => {
                        let problem = "is the id that the session has already; a new one is needed";
                        return Err(CallError::invalid("new_session_id", problem));
                    }
                    id => Some(read::session_id("new_session_id", id)?),
                },
                subject,
                authenticated_ago: match authenticated_ago {
                    None => None,
                    ago => Some(read::ago("authenticated_ago", ago)?),
                },
                authentication_level: level,
                request: read::request_id("request_id", &request_id)?
                    .map(|id| sessions::Request { id, content: &content }),
            })
            .await?;
        Ok(v1::RotateResponse {
            session_id: rotated.session_id,
            session: Some(self.writer.session(&request.tenant, &rotated.report)),
            previous_end: Some(self.writer.end(&rotated.previous)),
            superseded_refs: rotated.superseded.iter().map(ToString::to_string).collect(),
        })
    }

    async fn do_extend(&self, request: Request<v1::ExtendRequest>) -> Called<v1::ExtendResponse> {
        let (caller, mut request) = open(request)?;
        let request_id = std::mem::take(&mut request.request_id);
        // A name is no content: a retry may come by the id that the session has got meanwhile.
        let session_id = std::mem::take(&mut request.session_id);
        // Told apart from Create's requests with the same id by the method's name.
        let content = [b"Extend ".as_slice(), &request.encode_to_vec()].concat();
        let name = own_name(&caller, &request.tenant, &session_id)?;
        let wanted = read::span("wanted_duration", request.wanted_duration)?;
        let request =
            read::request_id("request_id", &request_id)?.map(|id| sessions::Request { id, content: &content });
        let answer = self.sessions.extend(name, wanted, request).await?;
        let clamped_by = if answer.clamped {
            v1::Limit::Absolute
        } else {
            v1::Limit::Unspecified
        };
        Ok(v1::ExtendResponse {
            status: Some(self.writer.status(&answer.status)),
            granted_duration: Some(write::duration(answer.granted)),
            clamped_by: clamped_by.into(),
        })
    }

    async fn do_end(&self, request: Request<v1::EndRequest>) -> Called<v1::EndResponse> {
        let (caller, mut request) = open(request)?;
        allow(&caller, VerbGroup::End)?;
        let request_id = std::mem::take(&mut request.request_id);
        // As for Extend.
        let session_id = std::mem::take(&mut request.session_id);
        let content = [b"End ".as_slice(), &request.encode_to_vec()].concat();
        own_tenant(&caller, "tenant", &request.tenant)?;
        let session_id = read::session_id("session_id", &session_id)?;
        let (reason, actor) = read::end(request.reason, request.actor, EndReason::Logout)?;
        let end = End {
            reason,
            actor,
            actor_id: read::text("actor_id", &request.actor_id, 128)?.into(),
            note: read::text("note", &request.note, 256)?.into(),
            at: self.sessions.clock().now(),
        };
        let name = Name {
            tenant: &request.tenant,
            session_id,
            follow: Follow::Alias,
        };
        let request =
            read::request_id("request_id", &request_id)?.map(|id| sessions::Request { id, content: &content });
        let answer = self.sessions.end(name, end, request).await?;
        Ok(v1::EndResponse {
            status: Some(self.writer.status(&answer.status)),
            end: Some(self.writer.end(&answer.tombstone)),
            ended_now: answer.ended_now,
        })
    }

    async fn do_watch(&self, request: Request<v1::WatchExpiryRequest>) -> Called<WatchStream> {
        let caller = caller(&request)?;
        let withdrawn = admission(&request)?.withdrawn(request.metadata().as_ref(), Arc::clone(&caller));
        let request = request.into_inner();
        let scope = self.scope(&caller, request.scope).await?;
        let [warnings, cleared, ends] = read::kinds(&request.kinds)?;
        let token = request.resume_token;
        if token.len() > LONGEST_TOKEN {
            let problem = format!("is {} bytes long; at most {LONGEST_TOKEN} are allowed", token.len());
            return Err(CallError::invalid("resume_token", problem));
        }
        if !token.is_empty() && request.include_initial_state {
            let problem = "must be false with a resume_token: resume, or begin anew with the initial state";
            return Err(CallError::invalid("include_initial_state", problem));
        }
        let (shortest, longest) = (Duration::from_secs(1), Duration::from_secs(300));
        let heartbeat = request.heartbeat_interval;
        let heartbeat = heartbeat.map(|interval| read::bounded("heartbeat_interval", &interval, shortest, longest));
        let subscriber = Subscriber {
            scope,
            tenants: Arc::clone(&caller.tenants),
            warnings,
            cleared,
            ends,
            resume_token: Some(token).filter(|token| !token.is_empty()),
            heartbeat: heartbeat.transpose()?.unwrap_or(HEARTBEAT),
            initial_state: request.include_initial_state,
        };
        let watch = self.sessions.watch(subscriber, self.draining.clone()).await?;
        Ok(watch::stream(
            watch,
            withdrawn,
            self.writer.clone(),
            Arc::clone(&self.meter),
        ))
    }

    async fn scope(&self, caller: &Caller, scope: Option<v1::WatchScope>) -> Called<Scope> {
        use v1::watch_scope::Scope as Wire;

        let scope = scope.unwrap_or_default();
        let set = "must be true; leave it out and set another scope instead";
        let Some(wanted) = scope.scope else {
            return Err(CallError::invalid(
                "scope",
                "is required: sessions, a subject, whole_tenant or everything",
            ));
        };
        let own = match &wanted {
            Wire::Sessions(names) => names
                .names
                .iter()
                .all(|name| matches!(name.name, Some(v1::session_name::Name::SessionId(_)))),
            _ => false,
        };
        if !caller.may(VerbGroup::WatchAll) {
            allow(caller, if own { VerbGroup::WatchOwn } else { VerbGroup::WatchAll })?;
        }
        if let Wire::Everything(everything) = wanted {
            if !scope.tenant.is_empty() {
                return Err(CallError::invalid("scope.tenant", "must be empty with `everything`"));
            }
            if !everything {
                return Err(CallError::invalid("scope.everything", set));
            }
            return Ok(Scope::Everything);
        }
        let tenant = Arc::clone(own_tenant(caller, "scope.tenant", &scope.tenant)?);
        match wanted {
            Wire::Sessions(names) => {
                within("scope.sessions.names", names.names.len(), MOST_WATCHED)?;
                let mut by_ref = BTreeMap::new();
                for (place, session) in names.names.into_iter().enumerate() {
                    let prefix = format!("scope.sessions.names[{place}].");
                    let refs = name::watched(&self.sessions, &tenant, &prefix, session.name.as_ref()).await?;
                    let id = match session.name {
                        Some(v1::session_name::Name::SessionId(id)) => Some(id),
                        _ => None,
                    };
                    for reference in refs {
                        // Named twice, by id and by ref: the id is echoed.
                        let known: &mut Option<String> = by_ref.entry(reference).or_insert(None);
                        *known = known.take().or_else(|| id.clone());
                    }
                }
                Ok(Scope::Sessions(tenant, by_ref))
            }
            Wire::Subject(subject) => {
                if subject.is_empty() {
                    return Err(CallError::invalid(
                        "scope.subject",
                        "is empty; 1 to 256 bytes are needed",
                    ));
                }
                Ok(Scope::Subject(
                    tenant,
                    read::text("scope.subject", &subject, 256)?.to_owned(),
                ))
            }
            Wire::WholeTenant(true) => Ok(Scope::Tenant(tenant)),
            Wire::WholeTenant(false) => Err(CallError::invalid("scope.whole_tenant", set)),
            Wire::Everything(_) => Ok(Scope::Everything),
        }
    }
}

/// What the caller of a request may do, and the request.
pub(super) fn open<T>(request: Request<T>) -> Called<(Arc<Caller>, T)> {
    let caller = caller(&request)?;
    Ok((caller, request.into_inner()))
}

/// What the caller of a request may do.
fn caller<T>(request: &Request<T>) -> Called<Arc<Caller>> {
    // Not twice.
    if let Some(received) = request.extensions().get::<Arc<Caller>>() {
        return Ok(Arc::clone(received));
    }
    admission(request)?.admit(request.metadata().as_ref())
}

fn admission<T>(request: &Request<T>) -> Called<&Arc<Admission>> {
    let missing = || CallError::Denied("this connection has no listener; call through one".to_owned());
    request.extensions().get::<Arc<Admission>>().ok_or_else(missing)
}

pub(super) fn allow(caller: &Caller, group: VerbGroup) -> Called<()> {
    if caller.may(group) {
        return Ok(());
    }
    Err(CallError::Denied(format!(
        "this caller may not use verbs of the group `{group}`: the `verbs` of its listener, or of its entry in [[callers]], decide that"
    )))
}

pub(super) fn own_tenant<'a>(caller: &'a Caller, field: &str, name: &str) -> Called<&'a Arc<str>> {
    let name = read::tenant(field, name)?;
    caller.tenant(name).ok_or_else(|| {
        CallError::Denied(format!(
            "{field}: this caller may not name this tenant: the `tenants` of its listener, or of its entry in [[callers]], decide that"
        ))
    })
}

/// The name in a command of the group `use`.
fn own_name<'a>(caller: &Caller, tenant: &'a str, session_id: &'a str) -> Called<Name<'a>> {
    allow(caller, VerbGroup::Use)?;
    own_tenant(caller, "tenant", tenant)?;
    let session_id = read::session_id("session_id", session_id)?;
    Ok(Name {
        tenant,
        session_id,
        follow: Follow::Alias,
    })
}

pub(super) fn within(field: &str, count: usize, most: usize) -> Called<()> {
    if (1..=most).contains(&count) {
        return Ok(());
    }
    Err(CallError::invalid(
        field,
        format!("has {count} items; 1 to {most} are allowed"),
    ))
}

#[tonic::async_trait]
impl SessionService for Service {
    type WatchExpiryStream = WatchStream;

    async fn create(&self, request: Request<v1::CreateRequest>) -> Result<Response<v1::CreateResponse>, Status> {
        self.answer(Method::Create, self.do_create(request).await)
    }

    async fn touch(&self, request: Request<v1::TouchRequest>) -> Result<Response<v1::TouchResponse>, Status> {
        self.answer(Method::Touch, self.do_touch(request).await)
    }

    async fn batch_touch(
        &self,
        request: Request<v1::BatchTouchRequest>,
    ) -> Result<Response<v1::BatchTouchResponse>, Status> {
        self.answer(Method::BatchTouch, self.do_batch_touch(request).await)
    }

    async fn check(&self, request: Request<v1::CheckRequest>) -> Result<Response<v1::CheckResponse>, Status> {
        self.answer(Method::Check, self.do_check(request).await)
    }

    async fn extend(&self, request: Request<v1::ExtendRequest>) -> Result<Response<v1::ExtendResponse>, Status> {
        self.answer(Method::Extend, self.do_extend(request).await)
    }

    async fn hold(&self, request: Request<v1::HoldRequest>) -> Result<Response<v1::HoldResponse>, Status> {
        self.answer(Method::Hold, self.do_hold(request).await)
    }

    async fn release(&self, request: Request<v1::ReleaseRequest>) -> Result<Response<v1::ReleaseResponse>, Status> {
        self.answer(Method::Release, self.do_release(request).await)
    }

    async fn rotate(&self, request: Request<v1::RotateRequest>) -> Result<Response<v1::RotateResponse>, Status> {
        self.answer(Method::Rotate, self.do_rotate(request).await)
    }

    async fn end(&self, request: Request<v1::EndRequest>) -> Result<Response<v1::EndResponse>, Status> {
        self.answer(Method::End, self.do_end(request).await)
    }

    async fn watch_expiry(&self, request: Request<v1::WatchExpiryRequest>) -> Result<Response<WatchStream>, Status> {
        match self.do_watch(request).await {
            // Counted when the stream ends.
            Ok(stream) => Ok(Response::new(stream)),
            Err(error) => self.answer(Method::WatchExpiry, Err(error)),
        }
    }
}
