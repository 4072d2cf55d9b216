//! Logs, traces, and the metrics that belong to the process rather than to a room.

mod traces;

use std::{io::IsTerminal as _, sync::Arc};

use anyhow::Context as _;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use crate::sessions::Sessions;

pub use traces::Tracing;

/// The prefix of every metric.
pub const PREFIX: &str = "session_sidecar";

/// Reads what to log.
pub fn parse_filter(filter: &str) -> anyhow::Result<EnvFilter> {
    EnvFilter::try_new(filter).with_context(|| format!("--log {filter:?} must be a level or tracing directives"))
}

/// Starts the log, on standard error.
pub fn start_log(filter: &str, json: bool) -> anyhow::Result<()> {
    let filter = parse_filter(filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let colours = std::io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    if json {
        registry.with(layer.json().flatten_event(true)).init();
    } else {
        registry.with(layer.with_target(false)).init();
    }
    Ok(())
}

/// Gauges that are read when somebody asks for them.
pub struct Levels(pub Arc<Sessions>);

impl std::fmt::Debug for Levels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Levels").finish_non_exhaustive()
    }
}

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let store = self.0.levels();
        let levels = [
            ("live_sessions", "Live sessions", store.live),
            ("tombstones", "Ended sessions that are remembered", store.remembered),
            ("watchers", "Open watches that are live", self.0.router().watchers()),
        ];
        for (name, help, level) in levels {
            let gauge = ConstGauge::new(i64::try_from(level).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let dropped = ConstCounter::new(store.forgotten_early);
        dropped.encode(encoder.encode_descriptor(
            "tombstones_dropped",
            "Ended sessions that were forgotten before their time because of --max-tombstones",
            None,
            dropped.metric_type(),
        )?)
    }
}
