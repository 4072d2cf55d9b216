//! What is counted about sessions. No label is ever a session, a subject or a tenant (G15).

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::state::{EndReason, HoldKind, Limit};

type Labelled = Family<[(&'static str, &'static str); 1], Counter>;

/// The counters and histograms of the core, named in a registry.
pub struct Meter {
    pub(super) created: Counter,
    pub(super) extended: Counter,
    pub(super) touches: Touches,
    pub(super) watchers_cut_off: Counter,
    ends: Vec<(EndReason, Counter)>,
    unenforced_ends: Vec<(Limit, Counter)>,
    holds: Vec<(HoldKind, Counter)>,
    warnings_idle: Counter,
    warnings_absolute: Counter,
    warning_lateness: Histogram,
    end_lateness: Histogram,
}

/// Touches by result.
pub(super) struct Touches {
    pub(super) pending: Counter,
    pub(super) counted: Counter,
    pub(super) ignored: Counter,
    pub(super) stale: Counter,
    pub(super) ended: Counter,
    pub(super) unknown: Counter,
}

const END_REASONS: [(EndReason, &str); 7] = [
    (EndReason::IdleTimeout, "idle_timeout"),
    (EndReason::AbsoluteTimeout, "absolute_timeout"),
    (EndReason::Logout, "logout"),
    (EndReason::Revoked, "revoked"),
    (EndReason::BrowserClosed, "browser_closed"),
    (EndReason::Superseded, "superseded"),
    (EndReason::Rotated, "rotated"),
];

const LIMITS: [(Limit, &str); 3] = [
    (Limit::Idle, "idle"),
    (Limit::Absolute, "absolute"),
    (Limit::Presence, "presence"),
];

const HOLD_KINDS: [(HoldKind, &str); 2] = [(HoldKind::Work, "work"), (HoldKind::Presence, "presence")];

/// Bounds of the lateness histograms, in seconds: dense around the 50 ms that G2 promises.
const LATENESS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

impl Meter {
    /// A meter whose metrics are in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let touches = Labelled::default();
        let touch = |result| touches.get_or_create_owned(&[("result", result)]);
        let ends = Labelled::default();
        let warnings = Labelled::default();
        let unenforced = Labelled::default();
        let holds = Labelled::default();
        let meter = Self {
            created: Counter::default(),
            extended: Counter::default(),
            touches: Touches {
                pending: touch("pending"),
                counted: touch("counted"),
                ignored: touch("ignored"),
                stale: touch("stale"),
                ended: touch("ended"),
                unknown: touch("unknown"),
            },
            watchers_cut_off: Counter::default(),
            ends: END_REASONS
                .map(|(reason, name)| (reason, ends.get_or_create_owned(&[("reason", name)])))
                .into(),
            unenforced_ends: LIMITS
                .map(|(limit, name)| (limit, unenforced.get_or_create_owned(&[("limit", name)])))
                .into(),
            holds: HOLD_KINDS
                .map(|(kind, name)| (kind, holds.get_or_create_owned(&[("kind", name)])))
                .into(),
            warnings_idle: warnings.get_or_create_owned(&[("limit", "idle")]),
            warnings_absolute: warnings.get_or_create_owned(&[("limit", "absolute")]),
            warning_lateness: Histogram::new(LATENESS),
            end_lateness: Histogram::new(LATENESS),
        };
        registry.register("sessions_created", "Sessions created", meter.created.clone());
        registry.register("touches", "Touches, by result", touches);
        registry.register("extensions", "Extends that were granted", meter.extended.clone());
        registry.register("sessions_ended", "Sessions ended, by reason", ends);
        registry.register(
            "unenforced_ends",
            "Ends that policies with enforce = false only observed, by limit",
            unenforced,
        );
        registry.register("holds_started", "Holds begun, by kind", holds);
        registry.register("warnings", "Warnings logged, by the limit that is near", warnings);
        registry.register(
            "watchers_cut_off",
            "Watchers that were ended because they did not read",
            meter.watchers_cut_off.clone(),
        );
        registry.register_with_unit(
            "warning_lateness",
            "Time from a warning point to its event in the log",
            Unit::Seconds,
            meter.warning_lateness.clone(),
        );
        registry.register_with_unit(
            "end_lateness",
            "Time from a passed deadline to its event in the log",
            Unit::Seconds,
            meter.end_lateness.clone(),
        );
        meter
    }

    pub(super) fn ended(&self, reason: EndReason) {
        count(&self.ends, reason);
    }

    pub(super) fn unenforced_end(&self, limit: Limit) {
        count(&self.unenforced_ends, limit);
    }

    pub(super) fn hold_started(&self, kind: HoldKind) {
        count(&self.holds, kind);
    }

    pub(super) fn warned(&self, limit: Limit) {
        match limit {
            Limit::Idle => self.warnings_idle.inc(),
            Limit::Absolute => self.warnings_absolute.inc(),
            // A closed browser is never warned of.
            Limit::Presence => 0,
        };
    }

    pub(super) fn warning_was_late(&self, lateness: Duration) {
        self.warning_lateness.observe(lateness.as_secs_f64());
    }

    pub(super) fn end_was_late(&self, lateness: Duration) {
        self.end_lateness.observe(lateness.as_secs_f64());
    }
}

fn count<K: PartialEq>(counters: &[(K, Counter)], key: K) {
    if let Some((_, counter)) = counters.iter().find(|(known, _)| *known == key) {
        counter.inc();
    }
}
