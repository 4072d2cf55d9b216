//! The one place where an error becomes a gRPC status, or the error of one item of a batch.

use std::{collections::HashMap, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{proto::v1, write::Writer};
use crate::{
    sessions::{Error, WatchError},
    state::{SessionRef, Tombstone},
};

/// The domain of our `ErrorInfo` reasons.
pub const DOMAIN: &str = "sessionsidecar.v1";

/// When to ask again if the sidecar cannot know now.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What becomes of a call.
pub(super) type Called<T> = Result<T, CallError>;

/// Why a call fails.
#[derive(Debug)]
pub(super) enum CallError {
    /// A field is out of bounds.
    Invalid {
        /// The field.
        field: String,
        /// What is wrong, the bound, what to do.
        problem: String,
    },
    /// The caller may not do this.
    Denied(String),
    /// The caller does not show who it is.
    Unauthenticated(&'static str),
    /// What the caller may do has changed while the call was under way.
    CallerChanged,
    /// The core refused.
    Core(Error),
    /// The watch cannot begin or go on.
    Watch(WatchError),
}

impl CallError {
    pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid {
            field: field.into(),
            problem: problem.into(),
        }
    }

    /// The status of a call that fails with this.
    pub(super) fn into_status(self, writer: &Writer) -> Status {
        let message = self.message();
        let (code, reason) = self.code_and_reason();
        let mut details = ErrorDetails::new();
        if let Some((field, problem)) = self.violation() {
            details.add_bad_request_violation(field, problem);
        }
        if code == Code::Unavailable {
            details.set_retry_info(Some(RETRY_AFTER));
        }
        if !reason.is_empty() {
            let mut metadata = HashMap::new();
            if let Some(reference) = self.session_ref() {
                metadata.insert("session_ref".to_owned(), reference.to_string());
            }
            if matches!(
                self,
                Self::Core(Error::Unknown {
                    may_have_ended: true,
                    ..
                })
            ) {
                metadata.insert("may_have_ended".to_owned(), "true".to_owned());
            }
            if let Some(tombstone) = self.tombstone() {
                metadata.extend(writer.end_metadata(tombstone));
            }
            details.set_error_info(reason, DOMAIN, metadata);
        }
        Status::with_error_details(code, message, details)
    }

    /// The error of one item that fails with this.
    pub(super) fn into_item(self, writer: &Writer) -> v1::ItemError {
        let (code, reason) = self.code_and_reason();
        v1::ItemError {
            code: code as i32,
            message: self.message(),
            reason: reason.to_owned(),
            session_ref: self.session_ref().map(|name| name.to_string()).unwrap_or_default(),
            end: self.tombstone().map(|tombstone| writer.end(tombstone)),
        }
    }

    fn code_and_reason(&self) -> (Code, &'static str) {
        match self {
            Self::Invalid { .. } => (Code::InvalidArgument, ""),
            Self::Denied(_) => (Code::PermissionDenied, "CALLER_NOT_ALLOWED"),
            Self::Unauthenticated(_) => (Code::Unauthenticated, "CALLER_NOT_AUTHENTICATED"),
            Self::CallerChanged => (Code::Unavailable, "CALLER_CHANGED"),
            Self::Core(error) => match error {
                Error::Ended(..) => (Code::FailedPrecondition, "SESSION_ENDED"),
                Error::Unknown { .. } => (Code::NotFound, "SESSION_UNKNOWN"),
                Error::Exists(_) => (Code::AlreadyExists, "SESSION_EXISTS"),
                Error::Full { .. } => (Code::ResourceExhausted, "SESSION_CAP"),
                Error::StoreFull => (Code::ResourceExhausted, "STORE_FULL"),
                Error::PolicyUnknown { .. } => (Code::FailedPrecondition, "POLICY_UNKNOWN"),
                Error::Invalid { .. } => (Code::InvalidArgument, ""),
                Error::AlreadyPast { .. } => (Code::FailedPrecondition, "ALREADY_PAST_LIMIT"),
                Error::ExtensionLimit { .. } => (Code::FailedPrecondition, "EXTENSION_LIMIT"),
                Error::RequestIdReused(_) => (Code::FailedPrecondition, "REQUEST_ID_REUSED"),
                Error::NewEnded(_) => (Code::FailedPrecondition, "NEW_SESSION_ENDED"),
                Error::SubjectCap { .. } => (Code::ResourceExhausted, "SUBJECT_CAP"),
                Error::ReadOnly(_) => (Code::FailedPrecondition, "READ_ONLY_SESSION"),
                Error::PresenceOff(_) => (Code::FailedPrecondition, "PRESENCE_OFF"),
                Error::HoldKind(_) => (Code::FailedPrecondition, "HOLD_KIND"),
                Error::HoldCap { .. } => (Code::ResourceExhausted, "HOLD_CAP"),
                Error::HoldBudget { .. } => (Code::ResourceExhausted, "HOLD_BUDGET"),
                Error::Unavailable(_) => (Code::Unavailable, "STORE_UNAVAILABLE"),
            },
            Self::Watch(error) => match error {
                WatchError::TokenInvalid => (Code::InvalidArgument, ""),
                WatchError::TokenExpired => (Code::OutOfRange, "RESUME_TOKEN_EXPIRED"),
                WatchError::TooSlow => (Code::ResourceExhausted, "WATCHER_TOO_SLOW"),
                WatchError::TooMany { .. } => (Code::ResourceExhausted, "WATCHER_CAP"),
                WatchError::Unavailable => (Code::Unavailable, "STORE_UNAVAILABLE"),
            },
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Invalid { field, problem } => format!("{field}: {problem}"),
            Self::Denied(message) => message.clone(),
            Self::Unauthenticated(message) => (*message).to_owned(),
            Self::CallerChanged => "what this caller may do has changed: watch again, with the resume token".to_owned(),
            Self::Core(error) => error.to_string(),
            Self::Watch(error) => error.to_string(),
        }
    }

    fn violation(&self) -> Option<(String, String)> {
        match self {
            Self::Invalid { field, problem } => Some((field.clone(), problem.clone())),
            Self::Core(Error::Invalid { field, problem }) => Some(((*field).to_owned(), problem.clone())),
            Self::Watch(WatchError::TokenInvalid) => {
                let problem = "is not a token of this sidecar for this scope and caller";
                Some(("resume_token".to_owned(), problem.to_owned()))
            }
            _ => None,
        }
    }

    fn session_ref(&self) -> Option<SessionRef> {
        match self {
            Self::Core(
                Error::Ended(reference, _)
                | Error::Unknown { reference, .. }
                | Error::Exists(reference)
                | Error::RequestIdReused(reference)
                | Error::ReadOnly(reference)
                | Error::PresenceOff(reference)
                | Error::HoldKind(reference)
                | Error::HoldCap { reference, .. }
                | Error::HoldBudget { reference, .. }
                | Error::ExtensionLimit { reference, .. },
            ) => Some(*reference),
            _ => None,
        }
    }

    fn tombstone(&self) -> Option<&Tombstone> {
        match self {
            Self::Core(Error::Ended(_, tombstone)) => Some(tombstone),
            _ => None,
        }
    }
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl From<WatchError> for CallError {
    fn from(error: WatchError) -> Self {
        Self::Watch(error)
    }
}
