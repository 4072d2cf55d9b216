//! What the door counts.

use axum::{
    extract::{MatchedPath, Request, State},
    http::StatusCode,
    middleware::Next,
    response::Response,
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

type Labels = [(&'static str, String); 2];

/// Its metrics.
#[derive(Clone, Default)]
pub struct DoorMeter {
    answers: Family<Labels, Counter>,
    streams: Gauge,
    pub(super) started: Counter,
    pub(super) not_started: Counter,
}

impl DoorMeter {
    /// A meter whose metrics are in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let meter = Self::default();
        registry.register(
            "door_answers",
            "Answers of the HTTP door, and of ext_authz, by path and code",
            meter.answers.clone(),
        );
        registry.register(
            "door_streams",
            "Open streams of events at the HTTP door",
            meter.streams.clone(),
        );
        registry.register(
            "door_started_sessions",
            "Sessions begun with an unknown id",
            meter.started.clone(),
        );
        registry.register(
            "door_refused_starts",
            "Unknown ids with which none began: by the cap, the rate, or since they can be none",
            meter.not_started.clone(),
        );
        meter
    }

    /// Counts an answer.
    pub(super) fn count(&self, path: &str, code: StatusCode) {
        let labels = [("path", path.to_owned()), ("code", code.as_str().to_owned())];
        self.answers.get_or_create(&labels).inc();
    }

    /// Counts a stream as open until the answer is dropped.
    pub(super) fn stream(&self) -> OpenStream {
        self.streams.inc();
        OpenStream(self.streams.clone())
    }
}

pub(super) struct OpenStream(Gauge);

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.dec();
    }
}

pub(super) async fn count(State(meter): State<DoorMeter>, request: Request, next: Next) -> Response {
    // Never the path itself: anybody can make up new ones.
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("other", MatchedPath::as_str)
        .to_owned();
    let response = next.run(request).await;
    meter.count(&path, response.status());
    response
}
