//! Calls by method and code.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tonic::Code;

/// A method of the API.
#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    Create,
    Touch,
    BatchTouch,
    Check,
    Extend,
    Hold,
    Release,
    Rotate,
    End,
    WatchExpiry,
    ListSessions,
    EndSessions,
    ExplainSession,
    ListPolicies,
    GetStats,
    ExtAuthz,
}

const METHODS: [&str; 16] = [
    "Create",
    "Touch",
    "BatchTouch",
    "Check",
    "Extend",
    "Hold",
    "Release",
    "Rotate",
    "End",
    "WatchExpiry",
    "ListSessions",
    "EndSessions",
    "ExplainSession",
    "ListPolicies",
    "GetStats",
    "ExtAuthz",
];

/// The codes by number, by the names that the gRPC specification gives them.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Counts calls. The counters are found once, so that a call pays for an addition only.
pub struct RpcMeter(Vec<[Counter; CODES.len()]>);

impl RpcMeter {
    /// A meter whose metrics are in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let calls = Family::<[(&'static str, &'static str); 2], Counter>::default();
        let meter =
            METHODS.map(|method| CODES.map(|code| calls.get_or_create_owned(&[("method", method), ("code", code)])));
        registry.register("rpcs", "Finished calls, by method and gRPC code", calls);
        Self(meter.into())
    }

    /// The name of a code, as the gRPC specification gives it.
    pub(super) fn name(code: Code) -> &'static str {
        CODES[code as usize]
    }

    /// Whether there is a method of this name.
    pub(super) fn knows(method: &str) -> bool {
        // That of `ext_authz` is called Check, too.
        METHODS[..Method::ExtAuthz as usize].contains(&method)
    }

    pub(super) fn count(&self, method: Method, code: Code) {
        self.0[method as usize][code as usize].inc();
    }
}
