//! What is counted about the shared store, and what is said about it once.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, global,
    trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _},
};
use parking_lot::Mutex;
use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use super::{Unjoined, link::Fault};
use crate::state::SessionRef;

type Labelled = Family<[(&'static str, &'static str); 2], Counter>;

/// What is counted about the store.
#[derive(Clone)]
pub struct StoreMeter {
    calls: Labelled,
    latency: Histogram,
    lag: Histogram,
    pub(super) up: Gauge,
    pub(super) lease_hits: Counter,
    pub(super) lease_missed: Counter,
    pub(super) replayed: Counter,
    pub(super) clock_steps: Counter,
    pub(super) unreadable: Counter,
    pub(super) histories_lost: Counter,
    pub(super) untold_lost: Counter,
    pub(super) mismatches: Gauge,
    pub(super) away: Counter<f64, AtomicU64>,
    pub(super) restored: Counter,
    said: Arc<Mutex<(String, Option<String>)>>,
    unread: Arc<Mutex<BTreeSet<SessionRef>>>,
}

/// Bounds of the latency of calls, in seconds: one within the machine takes a tenth of a millisecond.
const LATENCY: [f64; 10] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.25];
const LAG: [f64; 8] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

impl StoreMeter {
    /// A meter whose metrics are in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let meter = Self {
            calls: Labelled::default(),
            latency: Histogram::new(LATENCY),
            lag: Histogram::new(LAG),
            up: Gauge::default(),
            lease_hits: Counter::default(),
            lease_missed: Counter::default(),
            replayed: Counter::default(),
            clock_steps: Counter::default(),
            unreadable: Counter::default(),
            histories_lost: Counter::default(),
            untold_lost: Counter::default(),
            mismatches: Gauge::default(),
            away: Counter::default(),
            restored: Counter::default(),
            said: Arc::default(),
            unread: Arc::default(),
        };
        registry.register(
            "store_calls",
            "Calls of the shared store, by operation and outcome",
            meter.calls.clone(),
        );
        registry.register_with_unit(
            "store_call_latency",
            "How long calls of the shared store took that were answered",
            Unit::Seconds,
            meter.latency.clone(),
        );
        registry.register_with_unit(
            "store_sweep_lag",
            "From the deadline of what was due to when it was found in the shared store",
            Unit::Seconds,
            meter.lag.clone(),
        );
        registry.register("store_up", "1 while the shared store can be reached", meter.up.clone());
        registry.register_with_unit(
            "store_away",
            "Time in which the shared store could not be used",
            Unit::Seconds,
            meter.away.clone(),
        );
        registry.register(
            "policy_mismatches",
            "Policies of which other sidecars of the namespace have other content",
            meter.mismatches.clone(),
        );
        for (name, help, counter) in [
            (
                "store_lease_hits",
                "Touches that cost the shared store nothing",
                &meter.lease_hits,
            ),
            (
                "store_lease_misses",
                "Touches that were written to the shared store",
                &meter.lease_missed,
            ),
            (
                "store_replayed_events",
                "Events read again for watchers that resumed",
                &meter.replayed,
            ),
            (
                "store_clock_steps",
                "Corrections of the shared store's clock by this sidecar",
                &meter.clock_steps,
            ),
            (
                "store_unreadable",
                "Records and events that could not be read",
                &meter.unreadable,
            ),
            (
                "store_histories_lost",
                "How often the events of the shared store did not go on",
                &meter.histories_lost,
            ),
            (
                "store_restored",
                "Changes that the shared store had forgotten and was told again",
                &meter.restored,
            ),
            (
                "store_untold_lost",
                "Activity that could not be remembered while the store was away",
                &meter.untold_lost,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        meter
    }

    pub(super) fn called(&self, operation: &'static str, reply: &Result<redis::Value, Fault>, took: Duration) {
        let outcome = match reply {
            Ok(_) => {
                self.latency.observe(took.as_secs_f64());
                "ok"
            }
            Err(Fault::Down) => "down",
            Err(Fault::Timeout) => "timeout",
            Err(Fault::Full(_)) => "full",
            Err(Fault::Transient(_)) => "transient",
            Err(Fault::Refused(_)) => "refused",
        };
        self.calls
            .get_or_create(&[("operation", operation), ("outcome", outcome)])
            .inc();
        span(operation, outcome, took);
    }

    pub(super) fn sweep_lag(&self, lag: Duration) {
        self.lag.observe(lag.as_secs_f64());
    }

    /// Says what only an operator can mend: once, until it is another thing.
    pub(super) fn complain(&self, fault: &Fault) {
        let problem = fault.to_string();
        let mut said = self.said.lock();
        if said.0 != problem {
            tracing::error!(%problem, "the store refuses what it is asked");
            said.0 = problem;
        }
    }

    /// Whether it was not said yet that this record cannot be read: it may be asked for again and again.
    pub(super) fn is_news(&self, session: SessionRef) -> bool {
        const MOST: usize = 1024;
        let mut unread = self.unread.lock();
        if unread.len() >= MOST {
            unread.clear();
        }
        unread.insert(session)
    }

    /// Says why the sidecar is not in its namespace: once, until it is another reason.
    pub(super) fn not_joined(&self, problem: &Unjoined) {
        let (transient, problem) = (problem.is_transient(), problem.to_string());
        let mut said = self.said.lock();
        if said.1.as_ref() == Some(&problem) {
            return;
        }
        if transient {
            tracing::warn!(%problem, "the sidecar cannot come into its namespace yet; it goes on trying");
        } else {
            tracing::error!(%problem, "the sidecar cannot come into its namespace; it goes on trying");
        }
        said.1 = Some(problem);
    }
}

/// The span of a call that is over, below that of the gRPC call that made it, if that has one. By the semantic conventions for Redis.
fn span(operation: &'static str, outcome: &'static str, took: Duration) {
    let parent = Context::current();
    if !parent.has_active_span() {
        return;
    }
    let tracer = global::tracer(env!("CARGO_PKG_NAME"));
    // By the wall's clock, as the library's own are.
    #[allow(clippy::disallowed_methods)]
    let ended = SystemTime::now();
    let builder = tracer
        .span_builder(format!("EVALSHA {operation}"))
        .with_kind(SpanKind::Client)
        .with_start_time(ended.checked_sub(took).unwrap_or(ended))
        .with_attributes([
            KeyValue::new("db.system.name", "redis"),
            KeyValue::new("db.operation.name", "EVALSHA"),
            KeyValue::new("db.stored_procedure.name", operation),
        ]);
    let mut span = tracer.build_with_context(builder, &parent);
    if outcome != "ok" {
        span.set_attribute(KeyValue::new("error.type", outcome));
        span.set_status(Status::error(""));
    }
    span.end_with_timestamp(ended);
}
