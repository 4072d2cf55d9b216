//! Calls by method and code.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tonic::Code;

use super::proto::{
    envoy::authorization_server::SERVICE_NAME as EXT_AUTHZ,
    v1::{session_admin_service_server::SERVICE_NAME as ADMIN, session_service_server::SERVICE_NAME as SESSIONS},
};

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

impl Method {
    /// The name that it has on the wire and in metrics.
    pub(super) fn name(self) -> &'static str {
        METHODS[self as usize].1
    }

    /// Whether it is one of the admin service's.
    pub(super) fn is_admin(self) -> bool {
        use Method::{EndSessions, ExplainSession, GetStats, ListPolicies, ListSessions};
        matches!(
            self,
            ListSessions | EndSessions | ExplainSession | ListPolicies | GetStats
        )
    }
}

/// All of them, in their order, by the names that they have on the wire and in metrics.
const METHODS: [(Method, &str); 16] = [
    (Method::Create, "Create"),
    (Method::Touch, "Touch"),
    (Method::BatchTouch, "BatchTouch"),
    (Method::Check, "Check"),
    (Method::Extend, "Extend"),
    (Method::Hold, "Hold"),
    (Method::Release, "Release"),
    (Method::Rotate, "Rotate"),
    (Method::End, "End"),
    (Method::WatchExpiry, "WatchExpiry"),
    (Method::ListSessions, "ListSessions"),
    (Method::EndSessions, "EndSessions"),
    (Method::ExplainSession, "ExplainSession"),
    (Method::ListPolicies, "ListPolicies"),
    (Method::GetStats, "GetStats"),
    (Method::ExtAuthz, "ExtAuthz"),
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
        let meter = METHODS
            .map(|(_, method)| CODES.map(|code| calls.get_or_create_owned(&[("method", method), ("code", code)])));
        registry.register("rpcs", "Finished calls, by method and gRPC code", calls);
        Self(meter.into())
    }

    /// The name of a code, as the gRPC specification gives it.
    pub(super) fn name(code: Code) -> &'static str {
        CODES[code as usize]
    }

    /// The method that the path of a request names.
    pub(super) fn method(path: &str) -> Option<Method> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        if service == EXT_AUTHZ {
            return (name == "Check").then_some(Method::ExtAuthz);
        }
        // That of `ext_authz` is called Check, too.
        let ours = &METHODS[..Method::ExtAuthz as usize];
        let found = ours.iter().find(|(_, known)| *known == name);
        found
            .filter(|_| service == SESSIONS || service == ADMIN)
            .map(|(method, _)| *method)
    }

    pub(super) fn count(&self, method: Method, code: Code) {
        self.0[method as usize][code as usize].inc();
    }
}
