//! The admin verbs: read the request, ask the core, write the answer, and a line of the audit log for each call.

use std::{collections::BTreeSet, sync::Arc};

use tonic::{Request, Response, Status};

use super::{
    CallError, Called, Caller, VerbGroup, admin_write,
    meter::{Method, RpcMeter},
    name,
    proto::v1::{self, session_admin_service_server::SessionAdminService},
    read,
    service::{allow, open, own_tenant},
    write::Writer,
};
use crate::{
    audit::{AdminCall, Audit},
    sessions::{EndMany, Filter, Period, Sessions, State, Target},
    state::{Actor, EndReason},
};

const MOST_SPARED: usize = 100;
const LONGEST_TOKEN: usize = 256;

/// A call that is under way, to be written down when it is over, also if its caller does not wait for that.
struct Noted {
    audit: Audit,
    call: AdminCall,
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.audit.admin(std::mem::take(&mut self.call));
    }
}

/// The admin service over one core.
pub(super) struct AdminService {
    sessions: Arc<Sessions>,
    writer: Writer,
    meter: Arc<RpcMeter>,
}

impl AdminService {
    pub(super) fn new(sessions: Arc<Sessions>, meter: Arc<RpcMeter>) -> Self {
        Self {
            writer: Writer::new(&sessions),
            sessions,
            meter,
        }
    }

    /// A call begins: whatever becomes of it, it is written down.
    fn note(&self, method: &'static str) -> Noted {
        Noted {
            audit: self.sessions.audit().clone(),
            call: AdminCall {
                method,
                result: RpcMeter::name(tonic::Code::Cancelled),
                ..AdminCall::default()
            },
        }
    }

    /// Counts a call, and turns its error into a status.
    fn answer<T>(&self, method: Method, mut noted: Noted, called: Called<T>) -> Result<Response<T>, Status> {
        let answer = called.map_err(|error| error.into_status(&self.writer));
        let code = answer.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
        self.meter.count(method, code);
        noted.call.result = RpcMeter::name(code);
        answer.map(Response::new)
    }

    async fn do_list(
        &self,
        request: Request<v1::ListSessionsRequest>,
        call: &mut AdminCall,
    ) -> Called<v1::ListSessionsResponse> {
        let (caller, request) = admit(request, call)?;
        call.actor_id = actor_id(&request.actor_id)?;
        let filter = filter(&caller, request.filter, call)?;
        let page_size = read::page_size("page_size", request.page_size)?;
        let token = request.page_token;
        if token.len() > LONGEST_TOKEN {
            let problem = format!("is {} bytes long; at most {LONGEST_TOKEN} are allowed", token.len());
            return Err(CallError::invalid("page_token", problem));
        }
        let tenant = Arc::clone(&filter.tenant);
        let token = Some(token.as_str()).filter(|token| !token.is_empty());
        let listed = self.sessions.list(filter, page_size, token).await?;
        call.count = Some(listed.reports.len() as u64);
        Ok(v1::ListSessionsResponse {
            sessions: listed
                .reports
                .iter()
                .map(|report| self.writer.session(&tenant, report))
                .collect(),
            next_page_token: listed.next_page.unwrap_or_default(),
        })
    }

    async fn do_end(
        &self,
        request: Request<v1::EndSessionsRequest>,
        call: &mut AdminCall,
    ) -> Called<v1::EndSessionsResponse> {
        let (caller, request) = admit(request, call)?;
        call.actor_id = actor_id(&request.actor_id)?;
        call.dry_run = request.dry_run;
        let filter = filter(&caller, request.filter, call)?;
        if filter.states.contains(&State::Ended) {
            let problem = "may only name live ones, ACTIVE and EXPIRING: what has ended stays ended";
            return Err(CallError::invalid("filter.states", problem));
        }
        if filter.is_whole_tenant() && !request.whole_tenant {
            let problem =
                "must be true to end all sessions of a tenant; or name a subject, labels or a policy in `filter`";
            return Err(CallError::invalid("whole_tenant", problem));
        }
        if !filter.is_whole_tenant() && request.whole_tenant {
            let problem = "must be false if `filter` names a subject, labels or a policy: not all sessions are meant";
            return Err(CallError::invalid("whole_tenant", problem));
        }
        if request.except.len() > MOST_SPARED {
            let problem = format!("has {} items; at most {MOST_SPARED} are allowed", request.except.len());
            return Err(CallError::invalid("except", problem));
        }
        let mut except = BTreeSet::new();
        for (place, name) in request.except.iter().enumerate() {
            let prefix = format!("except[{place}].");
            let reference = name::reference(&self.sessions, &filter.tenant, &prefix, name.name.as_ref()).await?;
            let names = self.sessions.with_successors(&filter.tenant, reference).await;
            except.extend(names.map_err(crate::sessions::Error::from)?);
        }
        if !request.except.is_empty() {
            add_word(&mut call.filter, &format!("except={}", request.except.len()));
        }
        let (reason, actor) = read::end(request.reason, request.actor, EndReason::Revoked)?;
        let actor = match request.actor {
            unset if unset == v1::Actor::Unspecified as i32 => Actor::Admin,
            _ => actor,
        };
        let wanted = EndMany {
            filter,
            except,
            dry_run: request.dry_run,
            reason,
            actor,
            actor_id: call.actor_id.as_str().into(),
            note: read::text("note", &request.note, 256)?.into(),
        };
        let ended = self.sessions.end_many(wanted).await?;
        call.count = Some(ended.matched);
        call.ended = Some(ended.ended);
        Ok(v1::EndSessionsResponse {
            matched_count: ended.matched,
            ended_count: ended.ended,
            session_refs: ended.refs.iter().map(ToString::to_string).collect(),
        })
    }

    async fn do_explain(
        &self,
        request: Request<v1::ExplainSessionRequest>,
        call: &mut AdminCall,
    ) -> Called<v1::ExplainSessionResponse> {
        use v1::explain_session_request::Target as Wire;

        let (caller, request) = admit(request, call)?;
        call.actor_id = actor_id(&request.actor_id)?;
        let tenant = Arc::clone(own_tenant(&caller, "tenant", &request.tenant)?);
        call.tenant = Some(tenant.to_string());
        let target = match request.target {
            None => {
                let problem = "is required, or session_ref or subject_period in its place";
                return Err(CallError::invalid("session_id", problem));
            }
            Some(Wire::SessionId(id)) => {
                let name = name::id(&self.sessions, &tenant, "session_id".to_owned(), &id).await?;
                let known = self.sessions.known_as(name).await?;
                Target::Id(*call.session.insert(known))
            }
            Some(Wire::SessionRef(text)) => Target::Ref(*call.session.insert(read::session_ref("session_ref", &text)?)),
            Some(Wire::SubjectPeriod(period)) => {
                let subject = read::text("subject_period.subject", &period.subject, 256)?;
                if subject.is_empty() {
                    let problem = "is empty; 1 to 256 bytes are needed";
                    return Err(CallError::invalid("subject_period.subject", problem));
                }
                let from = read::timestamp("subject_period.start_time", period.start_time)?;
                let until = read::timestamp("subject_period.end_time", period.end_time)?;
                if from.zip(until).is_some_and(|(from, until)| until < from) {
                    let problem = "is before start_time; a period ends after it began";
                    return Err(CallError::invalid("subject_period.end_time", problem));
                }
                subject.clone_into(&mut call.subject);
                for (name, at) in [("from", from), ("to", until)] {
                    if let Some(at) = at {
                        let at = humantime::format_rfc3339_seconds(at);
                        add_word(&mut call.filter, &format!("{name}={at}"));
                    }
                }
                let clock = self.sessions.clock();
                let period = Period {
                    from: from.map(|from| clock.at_wall(from)),
                    until: until.map(|until| clock.at_wall(until)),
                };
                Target::Subject(subject.to_owned(), period)
            }
        };
        let (explanations, truncated) = self.sessions.explain(&tenant, target).await?;
        call.count = Some(explanations.len() as u64);
        Ok(v1::ExplainSessionResponse {
            explanations: explanations
                .iter()
                .map(|explanation| admin_write::explanation(&self.writer, &tenant, explanation))
                .collect(),
            truncated,
        })
    }

    fn do_policies(
        &self,
        request: Request<v1::ListPoliciesRequest>,
        call: &mut AdminCall,
    ) -> Called<v1::ListPoliciesResponse> {
        let (_, request) = admit(request, call)?;
        call.actor_id = actor_id(&request.actor_id)?;
        let policies = admin_write::policies(&self.sessions);
        call.count = Some(policies.len() as u64);
        Ok(v1::ListPoliciesResponse {
            policies,
            policy_file_problem: self.sessions.policies().file_problem(),
        })
    }

    async fn do_stats(
        &self,
        request: Request<v1::GetStatsRequest>,
        call: &mut AdminCall,
    ) -> Called<v1::GetStatsResponse> {
        let (caller, request) = admit(request, call)?;
        call.actor_id = actor_id(&request.actor_id)?;
        let tenant = own_tenant(&caller, "tenant", &request.tenant)?;
        call.tenant = Some(tenant.to_string());
        let stats = self.sessions.stats(tenant).await?;
        Ok(admin_write::stats(&stats))
    }
}

/// Who calls, which is noted also if they may not, and the request.
fn admit<T>(request: Request<T>, call: &mut AdminCall) -> Called<(Arc<Caller>, T)> {
    let (caller, request) = open(request)?;
    call.known_by.clone_from(&caller.known_by);
    allow(&caller, VerbGroup::Admin)?;
    Ok((caller, request))
}

/// Reads a filter, and notes it for the audit log.
fn filter(caller: &Caller, filter: Option<v1::SessionFilter>, call: &mut AdminCall) -> Called<Filter> {
    let filter = filter.unwrap_or_default();
    let tenant = Arc::clone(own_tenant(caller, "filter.tenant", &filter.tenant)?);
    call.tenant = Some(tenant.to_string());
    let filter = Filter {
        tenant,
        subject: read::text("filter.subject", &filter.subject, 256)?.to_owned(),
        states: read::states("filter.states", &filter.states)?,
        labels: read::labels("filter.labels", filter.labels)?,
        policy: read::text("filter.policy", &filter.policy, 128)?.to_owned(),
    };
    call.subject.clone_from(&filter.subject);
    let mut words = Vec::new();
    if !filter.states.is_empty() {
        let states: Vec<_> = filter
            .states
            .iter()
            .map(|state| format!("{state:?}").to_lowercase())
            .collect();
        words.push(format!("states={}", states.join(",")));
    }
    words.extend(
        filter
            .labels
            .iter()
            .map(|(key, value)| format!("label={key}={value:?}")),
    );
    if !filter.policy.is_empty() {
        words.push(format!("policy={:?}", filter.policy));
    }
    call.filter = words.join(" ");
    Ok(filter)
}

fn add_word(words: &mut String, word: &str) {
    if !words.is_empty() {
        words.push(' ');
    }
    words.push_str(word);
}

fn actor_id(text: &str) -> Called<String> {
    Ok(read::text("actor_id", text, 128)?.to_owned())
}

#[tonic::async_trait]
impl SessionAdminService for AdminService {
    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsResponse>, Status> {
        let mut noted = self.note("ListSessions");
        let called = self.do_list(request, &mut noted.call).await;
        self.answer(Method::ListSessions, noted, called)
    }

    async fn end_sessions(
        &self,
        request: Request<v1::EndSessionsRequest>,
    ) -> Result<Response<v1::EndSessionsResponse>, Status> {
        let mut noted = self.note("EndSessions");
        let called = self.do_end(request, &mut noted.call).await;
        self.answer(Method::EndSessions, noted, called)
    }

    async fn explain_session(
        &self,
        request: Request<v1::ExplainSessionRequest>,
    ) -> Result<Response<v1::ExplainSessionResponse>, Status> {
        let mut noted = self.note("ExplainSession");
        let called = self.do_explain(request, &mut noted.call).await;
        self.answer(Method::ExplainSession, noted, called)
    }

    async fn list_policies(
        &self,
        request: Request<v1::ListPoliciesRequest>,
    ) -> Result<Response<v1::ListPoliciesResponse>, Status> {
        let mut noted = self.note("ListPolicies");
        let called = self.do_policies(request, &mut noted.call);
        self.answer(Method::ListPolicies, noted, called)
    }

    async fn get_stats(&self, request: Request<v1::GetStatsRequest>) -> Result<Response<v1::GetStatsResponse>, Status> {
        let mut noted = self.note("GetStats");
        let called = self.do_stats(request, &mut noted.call).await;
        self.answer(Method::GetStats, noted, called)
    }
}
