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

const ALL: [Method; 16] = [
    Method::Create,
    Method::Touch,
    Method::BatchTouch,
    Method::Check,
    Method::Extend,
    Method::Hold,
    Method::Release,
    Method::Rotate,
    Method::End,
    Method::WatchExpiry,
    Method::ListSessions,
    Method::EndSessions,
    Method::ExplainSession,
    Method::ListPolicies,
    Method::GetStats,
    Method::ExtAuthz,
];

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

    /// The method that the path of a request names.
    pub(super) fn method(path: &str) -> Option<Method> {
        let (service, name) = path.strip_prefix('/')?.split_once('/')?;
        if service == EXT_AUTHZ {
            return (name == "Check").then_some(Method::ExtAuthz);
        }
        let known = service == SESSIONS || service == ADMIN;
        // That of `ext_authz` is called Check, too.
        ALL.into_iter()
            .find(|method| known && METHODS[*method as usize] == name && !matches!(method, Method::ExtAuthz))
    }

    pub(super) fn count(&self, method: Method, code: Code) {
        self.0[method as usize][code as usize].inc();
    }
}
