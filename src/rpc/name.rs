//! The names of sessions in requests: an id or a ref, each in its own field.

use super::{
    error::{CallError, Called},
    proto::v1::session_name::Name as Wire,
    read,
};
use crate::{
    sessions::{Error, Follow, Name, Sessions},
    state::SessionRef,
};

/// An id. The ref of a known session in its place is refused: it would lead to nothing, and nobody would know why.
pub(super) async fn id<'a>(sessions: &Sessions, tenant: &'a str, field: String, text: &'a str) -> Called<Name<'a>> {
    let session_id = read::session_id(&field, text)?;
    match sessions.refuse_ref(tenant, session_id).await {
        Ok(()) => Ok(Name {
            tenant,
            session_id,
            follow: Follow::Alias,
        }),
        Err(Error::Invalid { .. }) => Err(CallError::invalid(
            field,
            "is a session_ref; a session's id is needed here, or the ref in session_ref",
        )),
        Err(error) => Err(error.into()),
    }
}

/// The ref that a name stands for.
pub(super) async fn reference(
    sessions: &Sessions,
    tenant: &str,
    prefix: &str,
    name: Option<&Wire>,
) -> Called<SessionRef> {
    match name {
        Some(Wire::SessionId(text)) => {
            let name = id(sessions, tenant, format!("{prefix}session_id"), text).await?;
            Ok(sessions.known_as(name).await?)
        }
        Some(Wire::SessionRef(text)) => Ok(read::session_ref(&format!("{prefix}session_ref"), text)?),
        None => Err(CallError::invalid(
            format!("{prefix}session_id"),
            "is required, or session_ref in its place",
        )),
    }
}

/// The refs of which one is that of the session that a watch names.
pub(super) async fn watched(
    sessions: &Sessions,
    tenant: &str,
    prefix: &str,
    name: Option<&Wire>,
) -> Called<Vec<SessionRef>> {
    match name {
        Some(Wire::SessionId(text)) => {
            let name = id(sessions, tenant, format!("{prefix}session_id"), text).await?;
            Ok(sessions.may_be_known_as(name).await?)
        }
        other => Ok(vec![reference(sessions, tenant, prefix, other).await?]),
    }
}
