//! What happens to a call before and after its verb: who may do nothing at all is turned away before what it sends is read, a request
//! must come whole within a time, and one that could not be read is answered in our words and counted.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::future::Either;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tonic::{Code, Status, body::Body};
use tower::{BoxError, Layer, Service};

use super::{Admission, Caller, RpcMeter, meter::Method, undecodable, write::Writer};
use crate::{
    audit::{AdminCall, Audit},
    net::{Patient, TOO_SLOW},
    sessions::Sessions,
};

/// Receives calls.
#[derive(Clone)]
pub(super) struct Reception(Arc<Desk>);

/// What is needed for calls that no verb sees.
struct Desk {
    meter: Arc<RpcMeter>,
    writer: Writer,
    audit: Audit,
}

impl Reception {
    pub(super) fn new(sessions: &Sessions, meter: Arc<RpcMeter>) -> Self {
        Self(Arc::new(Desk {
            meter,
            writer: Writer::new(sessions),
            audit: sessions.audit().clone(),
        }))
    }
}

impl Desk {
    /// Counts a call that no verb has seen, and writes it down if it is an administrator's.
    fn note(&self, method: Method, code: Code, administrator: Option<&Caller>) {
        self.meter.count(method, code);
        if let Some(caller) = administrator {
            self.audit.admin(AdminCall {
                method: method.name(),
                result: RpcMeter::name(code),
                known_by: caller.known_by.clone(),
                ..AdminCall::default()
            });
        }
    }

    /// What a call may do, if that needs to be known by now, which is noted; or the status of one that is turned away.
    fn receive(&self, method: Method, request: &mut Request<Body>) -> Result<Option<Arc<Caller>>, Status> {
        let Some(admission) = request.extensions().get::<Arc<Admission>>() else {
            return Ok(None);
        };
        let received = admission.receive(request.headers(), method.is_admin());
        let caller = received.map_err(|error| error.into_status(&self.writer))?;
        if let Some(caller) = &caller {
            request.extensions_mut().insert(Arc::clone(caller));
        }
        Ok(caller)
    }
}

impl<S> Layer<S> for Reception {
    type Service = Received<S>;

    fn layer(&self, inner: S) -> Received<S> {
        Received {
            inner,
            reception: self.clone(),
        }
    }
}

/// A service whose calls are received.
#[derive(Clone)]
pub(super) struct Received<S> {
    inner: S,
    reception: Reception,
}

impl<S> Service<Request<Body>> for Received<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<std::future::Ready<Result<Response<Body>, S::Error>>, Answering<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        // Only reflection has requests of several messages.
        let is_stream = path.starts_with("/grpc.reflection.");
        let method = RpcMeter::method(path);
        let mut administrator = None;
        if let Some(method) = method {
            match self.reception.0.receive(method, &mut request) {
                Ok(caller) => administrator = caller.filter(|_| method.is_admin()),
                // Whoever it is could fill the audit log.
                Err(status) => {
                    self.reception.0.note(method, status.code(), None);
                    return Either::Left(std::future::ready(Ok(status.into_http())));
                }
            }
        }
        let room = request
            .extensions()
            .get::<Arc<Admission>>()
            .map(|admission| admission.room());
        let head = length_of_head(&request);
        let (parts, body) = request.into_parts();
        let mut body = Patient::new(body, refusal).in_room(room.unwrap_or_default(), head);
        if is_stream {
            // What serves it would end it as if all were well.
            let Some(of_many) = body.of_many() else {
                return Either::Left(std::future::ready(Ok(undecodable::busy().into_http())));
            };
            body = of_many;
        }
        let request = Request::from_parts(parts, Body::new(body));
        Either::Right(Answering {
            answer: self.inner.call(request),
            method,
            administrator,
            reception: self.reception.clone(),
        })
    }
}

/// How much of a request has come before its body.
fn length_of_head(request: &Request<Body>) -> usize {
    let headers = request.headers().iter();
    let uri = request.uri();
    headers
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum::<usize>()
        + uri.path_and_query().map_or(0, |path| path.as_str().len())
        + uri.authority().map_or(0, |authority| authority.as_str().len())
}

/// The status of a request that does not come whole. What answers it in our words is `undecodable`.
fn refusal(why: &'static str) -> BoxError {
    let code = if why == TOO_SLOW {
        Code::DeadlineExceeded
    } else {
        Code::ResourceExhausted
    };
    Status::new(code, why).into()
}

pin_project! {
    /// The answer to a call, as it comes.
    pub(super) struct Answering<F> {
        #[pin]
        answer: F,
        method: Option<Method>,
        administrator: Option<Arc<Caller>>,
        reception: Reception,
    }
}

impl<F, E> Future for Answering<F>
where
    F: Future<Output = Result<Response<Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answered = ready!(this.answer.poll(cx));
        if let Ok(response) = &mut answered
            && let Some(status) = undecodable::blamed(response.headers())
        {
            // No verb has seen it, and none has counted it.
            if let Some(method) = this.method {
                this.reception
                    .0
                    .note(*method, status.code(), this.administrator.as_deref());
            }
            // The details of the one that it was are none.
            let _ = status.add_header(response.headers_mut());
        }
        Poll::Ready(answered)
    }
}
