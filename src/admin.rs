//! The admin door: metrics and probes over plain HTTP. It changes nothing.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::net::TcpListener;

use crate::net;

/// How many connections may be open: probes and scrapers are few, and strangers are not to take the process' file descriptors.
const MOST_CONNECTIONS: usize = 256;

/// Whether calls are welcome.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Says so.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn is_ready(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Serves until `stop` is done.
pub async fn serve(listener: TcpListener, registry: Registry, readiness: Readiness, stop: impl Future<Output = ()>) {
    let app = Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(metrics).with_state(Arc::new(registry)));
    net::serve_http1(listener, app, MOST_CONNECTIONS, stop).await;
}

async fn readyz(State(readiness): State<Readiness>) -> impl IntoResponse {
    if readiness.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready: starting or draining\n")
    }
}

async fn metrics(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => {
            let kind = "text/plain; version=0.0.4; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], classic(&text)).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// OpenMetrics as the classic text format, which every scraper and linter reads: there a counter's HELP and TYPE carry the
/// `_total` of its samples, and nothing marks the end.
fn classic(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = "";
    for line in openmetrics.lines() {
        if line.starts_with("# HELP ") {
            help = line;
            continue;
        }
        let counter = line
            .strip_prefix("# TYPE ")
            .and_then(|line| line.strip_suffix(" counter"));
        let rest = help.strip_prefix("# HELP ").and_then(|help| help.split_once(' '));
        match (counter, rest) {
            (Some(name), Some((_, rest))) => {
                text += &format!("# HELP {name}_total {rest}\n# TYPE {name}_total counter\n");
            }
            _ if line.starts_with("# TYPE ") => text += &format!("{help}\n{line}\n"),
            _ if line.starts_with('#') => {}
            _ => text += &format!("{line}\n"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::classic;

    #[test]
    fn a_counter_is_named_as_its_samples_are() {
        let openmetrics = "# HELP a_b Some help.\n# TYPE a_b counter\na_b_total 1\n\
                           # HELP c Other.\n# TYPE c gauge\n# UNIT c seconds\nc 2\n# EOF\n";
        let expected = "# HELP a_b_total Some help.\n# TYPE a_b_total counter\na_b_total 1\n\
                        # HELP c Other.\n# TYPE c gauge\nc 2\n";
        assert_eq!(classic(openmetrics), expected);
    }
}
