//! Spans of calls, for OpenTelemetry: children of what the caller's `traceparent` says (W3C Trace Context), by the semantic conventions
//! for gRPC. Nothing of a request is in them, so no session's id either.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context as Polling, Poll, ready},
};

use futures_util::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use opentelemetry::{
    Context, KeyValue,
    global::BoxedTracer,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{FutureExt as _, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::{Code, body::Body, codegen::Bytes};
use tower::{Layer, Service};

use super::RpcMeter;

/// Gives calls spans.
#[derive(Clone)]
pub struct Traces {
    /// Makes them.
    pub tracer: Arc<BoxedTracer>,
    /// Whether the span that a caller's metadata names is the parent of its call's; if not, each call begins a trace.
    pub follow_callers: bool,
}

impl Traces {
    /// The span of a call of a verb; what else is served is of no interest.
    fn begin(&self, request: &Request<Body>) -> Option<CallSpan> {
        let path = request.uri().path();
        RpcMeter::method(path)?;
        let path = path.trim_start_matches('/');
        let parent = if self.follow_callers {
            TraceContextPropagator::new().extract(&Metadata(request.headers()))
        } else {
            Context::new()
        };
        let builder = self.tracer.span_builder(path.to_owned()).with_kind(SpanKind::Server);
        let builder = builder.with_attributes([
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", path.to_owned()),
        ]);
        let span = self.tracer.build_with_context(builder, &parent);
        Some(CallSpan {
            context: parent.with_span(span),
            code: None,
        })
    }
}

struct Metadata<'a>(&'a HeaderMap);

impl Extractor for Metadata<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// The span of a call. It ends when this is dropped.
struct CallSpan {
    context: Context,
    /// How the call ended, as far as it did.
    code: Option<Code>,
}

impl CallSpan {
    /// Headers of an answer that is an error, or trailers.
    fn hears(&mut self, headers: &HeaderMap) {
        if let Some(code) = headers.get("grpc-status") {
            self.code = Some(Code::from_bytes(code.as_bytes()));
        }
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        // Nobody waited for its end.
        let code = self.code.unwrap_or(Code::Cancelled);
        let span = self.context.span();
        span.set_attribute(KeyValue::new("rpc.response.status_code", RpcMeter::name(code)));
        // Those that are the server's fault.
        if matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        ) {
            span.set_attribute(KeyValue::new("error.type", RpcMeter::name(code)));
            span.set_status(Status::error(""));
        }
        span.end();
    }
}

impl<S> Layer<S> for Traces {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced {
            inner,
            traces: self.clone(),
        }
    }
}

/// A service whose calls have spans.
#[derive(Clone)]
pub struct Traced<S> {
    inner: S,
    traces: Traces,
}

impl<S> Service<Request<Body>> for Traced<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Future: Send + 'static>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Polling<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let span = self.traces.begin(&request);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let Some(mut span) = span else {
                return answer.await;
            };
            let answer = answer.with_context(span.context.clone()).await?;
            span.hears(answer.headers());
            Ok(answer.map(|body| Body::new(TracedBody { body, span })))
        })
    }
}

/// An answer's body: the call ends with it.
struct TracedBody {
    body: Body,
    span: CallSpan,
}

impl http_body::Body for TracedBody {
    type Data = Bytes;
    type Error = tonic::Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Polling<'_>) -> Poll<Option<Result<Frame<Bytes>, tonic::Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(trailers) = frame.trailers_ref()
        {
            self.span.hears(trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
