//! Each verb: to where its answer is checked, and which refusals are right.

use session_sidecar::rpc::proto::v1::{self, SessionState};
use tonic::Code;

use super::{Violation, broken, model::Trial};
use crate::history::{Answer, Call, Refused, Request};

pub(super) type Told<'a, T> = Result<&'a T, &'a Refused>;

impl Trial<'_> {
    /// Applies a call to the trial.
    pub(super) fn call(&mut self, call: &Call) -> Result<(), Violation> {
        if let Err(refused) = &call.answer
            && refused.code == Code::Unimplemented
        {
            return Ok(());
        }
        if let Some(field) = call.bad {
            return match &call.answer {
                Err(refused) if refused.code == Code::InvalidArgument && refused.field.starts_with(field) => Ok(()),
                other => Err(broken(
                    "BAD INPUT",
                    format!("{field} is bad, and the answer is {other:?}"),
                )),
            };
        }
        let tenant = tenant_of(&call.request);
        let own = call.tenants.iter().any(|own| own == tenant);
        let denied = matches!(&call.answer, Err(refused) if refused.code == Code::PermissionDenied);
        if own == denied && !matches!(call.request, Request::Batch(_)) {
            return Err(broken(
                "G17",
                format!(
                    "a caller of {:?} names tenant {tenant:?}: {:?}",
                    call.tenants, call.answer
                ),
            ));
        }
        if denied {
            return Ok(());
        }
        macro_rules! told {
            ($kind:ident) => {
                match &call.answer {
                    Ok(Answer::$kind(answer)) => Ok(answer),
                    Err(refused) => Err(refused),
                    Ok(_) => return Err(broken("API", "an answer of another verb".to_owned())),
                }
            };
        }
        match &call.request {
            Request::Create(request) => self.create(request, told!(Create)),
            Request::Touch(request) => match told!(Touch) {
                Ok(answer) => self.touch(request, Ok(answer)),
                Err(refused) => self.touch(request, Err((refused.code, &refused.reason))),
            },
            Request::Batch(request) => self.batch(request, told!(Batch)),
            Request::Check(request) => self.check(request, told!(Check)),
            Request::Extend(request) => self.extend(request, told!(Extend)),
            Request::Hold(request) => self.hold(request, told!(Hold)),
            Request::Release(request) => self.release(request, told!(Release)),
            Request::Rotate(request) => self.rotate(request, told!(Rotate)),
            Request::End(request) => self.end_verb(request, told!(End)),
            Request::List(request) => self.list(request, told!(List)),
            Request::EndMany(request) => self.end_many(request, told!(EndMany)),
            Request::Explain(request) => self.explain(request, told!(Explain)),
            Request::Stats(request) => self.stats(request, told!(Stats)),
        }
    }

    /// A command was refused because its session is not live: is that true?
    pub(super) fn not_live(&mut self, reference: &str, reason: &str) -> Result<(), Violation> {
        let now = self.moment.now;
        let Some(session) = self.now(reference)? else {
            return if reason == "SESSION_UNKNOWN" {
                Ok(())
            } else {
                Err(broken("G10", format!("an id that was never issued is {reason}")))
            };
        };
        let (must, may) = session.memory(now);
        match (&session.end, reason) {
            (None, "SESSION_ENDED") => Err(broken("G1", format!("{reference} is refused as ended; it should live"))),
            (None, _) => Err(broken(
                "G10",
                format!("{reference} is refused as {reason}; it should live"),
            )),
            (Some(_), "SESSION_ENDED") if !may => Ok(()),
            (Some(_), "SESSION_UNKNOWN") if !must => Ok(()),
            (Some(end), _) => Err(broken(
                "G10",
                format!("{reference} ended ({:?}) and is refused as {reason}", end.reason),
            )),
        }
    }

    pub(super) fn refused_ended(&mut self, reference: &str, refused: &Refused) -> Result<(), Violation> {
        self.not_live(reference, &refused.reason)?;
        let end = self.get(reference).and_then(|session| session.end.as_ref());
        let told = refused.metadata.get("reason").map(String::as_str).unwrap_or_default();
        if end.is_some_and(|end| end.reason.as_str_name() != format!("END_REASON_{told}")) {
            return Err(broken("G6", format!("{reference} ended {end:?}, told {told}")));
        }
        Ok(())
    }
}

pub(super) fn expiring(status: &Option<v1::SessionStatus>) -> bool {
    status
        .as_ref()
        .is_some_and(|status| status.state() == SessionState::Expiring)
}

pub(super) fn unfit(verb: &str, refused: &Refused) -> Violation {
    broken(
        "API",
        format!(
            "{verb} is refused with {:?} {} {}: nothing calls for it",
            refused.code, refused.reason, refused.message
        ),
    )
}

fn tenant_of(request: &Request) -> &str {
    match request {
        Request::Create(request) => &request.tenant,
        Request::Touch(request) => &request.tenant,
        Request::Batch(request) => request.touches.first().map_or("", |touch| &touch.tenant),
        Request::Check(request) => &request.tenant,
        Request::Extend(request) => &request.tenant,
        Request::Hold(request) => &request.tenant,
        Request::Release(request) => &request.tenant,
        Request::Rotate(request) => &request.tenant,
        Request::End(request) => &request.tenant,
        Request::List(request) => request.filter.as_ref().map_or("", |filter| &filter.tenant),
        Request::EndMany(request) => request.filter.as_ref().map_or("", |filter| &filter.tenant),
        Request::Explain(request) => &request.tenant,
        Request::Stats(request) => &request.tenant,
    }
}
