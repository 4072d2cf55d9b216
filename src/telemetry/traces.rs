//! Traces, for OpenTelemetry: where spans go, and what becomes of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{SpanExporter as Otlp, WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracerProvider, SpanData, SpanExporter},
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tonic::transport::{Certificate, ClientTlsConfig};
use tracing::{info, warn};

use crate::{config::TraceConfig, rpc::Traces};

/// What instruments the sidecar: itself.
const SCOPE: &str = env!("CARGO_PKG_NAME");

/// How long the last spans may take to be sent at the end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Sends spans to a collector, until it is closed.
pub struct Tracing {
    provider: SdkTracerProvider,
    follow_callers: bool,
}

impl Tracing {
    /// Begins to send spans. What is not said here is said by the variables of OpenTelemetry, which its library reads.
    pub fn start(config: TraceConfig, registry: &mut Registry) -> anyhow::Result<Self> {
        let mut exporter = Otlp::builder().with_tonic().with_endpoint(&config.endpoint);
        if config.endpoint.starts_with("https://") {
            let mut tls = ClientTlsConfig::new().with_enabled_roots();
            if let Some(ca) = config.ca {
                tls = tls.ca_certificate(Certificate::from_pem(ca));
            }
            exporter = exporter.with_tls_config(tls);
        }
        let exporter = exporter
            .build()
            .context("spans cannot be sent (OTEL_EXPORTER_OTLP_…)")?;
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if let Some(name) = config.service_name {
            resource = resource.with_service_name(name);
        }
        let provider = SdkTracerProvider::builder()
            .with_resource(resource.build())
            .with_batch_exporter(Counted::new(exporter, registry))
            .build();
        global::set_tracer_provider(provider.clone());
        info!(endpoint = %config.endpoint, "calls are traced");
        Ok(Self {
            provider,
            follow_callers: config.follow_callers,
        })
    }

    /// What gives calls spans.
    #[must_use]
    pub fn of_calls(&self) -> Traces {
        Traces {
            tracer: Arc::new(global::tracer(SCOPE)),
            follow_callers: self.follow_callers,
        }
    }

    /// Sends what is left. Blocks.
    pub fn close(self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_WORDS) {
            warn!(%error, "the last spans were not sent");
        }
    }
}

/// An exporter that counts, and tells of it when spans begin to be lost, and when they are sent again.
#[derive(Debug)]
struct Counted {
    exporter: Otlp,
    sent: Counter,
    lost: Counter,
    failing: AtomicBool,
}

impl Counted {
    fn new(exporter: Otlp, registry: &mut Registry) -> Self {
        let spans = Family::<[(&'static str, &'static str); 1], Counter>::default();
        registry.register(
            "trace_spans",
            "Spans for the collector, by what became of them",
            spans.clone(),
        );
        Self {
            exporter,
            sent: spans.get_or_create_owned(&[("outcome", "sent")]),
            lost: spans.get_or_create_owned(&[("outcome", "lost")]),
            failing: AtomicBool::new(false),
        }
    }
}

impl SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len() as u64;
        let sent = self.exporter.export(batch).await;
        match &sent {
            Ok(()) => {
                self.sent.inc_by(spans);
                if self.failing.swap(false, Ordering::Relaxed) {
                    info!("spans reach the collector again");
                }
            }
            Err(error) => {
                self.lost.inc_by(spans);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    warn!(%error, "spans do not reach the collector, and are lost until they do");
                }
            }
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
