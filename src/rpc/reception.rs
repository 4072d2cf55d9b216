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
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{Admission, RpcMeter, meter::Method, undecodable, write::Writer};
use crate::net::{Patient, TOO_SLOW};

/// Receives calls.
#[derive(Clone)]
pub(super) struct Reception {
    pub(super) meter: Arc<RpcMeter>,
    pub(super) writer: Writer,
}

impl Reception {
    /// The status of a call that is turned away.
    fn turns_away(&self, request: &Request<Body>) -> Option<Status> {
        let error = request.extensions().get::<Admission>()?.turns_away(request.headers())?;
        Some(error.into_status(&self.writer))
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

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path();
        let method = RpcMeter::method(path);
        if let Some(method) = method
            && let Some(status) = self.reception.turns_away(&request)
        {
            self.reception.meter.count(method, status.code());
            return Either::Left(std::future::ready(Ok(status.into_http())));
        }
        // Only reflection has requests of several messages.
        let is_stream = path.starts_with("/grpc.reflection.");
        let request = if is_stream {
            request
        } else {
            let too_slow = || Status::deadline_exceeded(TOO_SLOW).into();
            request.map(|body| Body::new(Patient::new(body, too_slow)))
        };
        Either::Right(Answering {
            answer: self.inner.call(request),
            method,
            meter: Arc::clone(&self.reception.meter),
        })
    }
}

pin_project! {
    /// The answer to a call, as it comes.
    pub(super) struct Answering<F> {
        #[pin]
        answer: F,
        method: Option<Method>,
        meter: Arc<RpcMeter>,
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
                this.meter.count(*method, status.code());
            }
            // The details of the one that it was are none.
            let _ = status.add_header(response.headers_mut());
        }
        Poll::Ready(answered)
    }
}
