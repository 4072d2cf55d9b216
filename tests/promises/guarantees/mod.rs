//! The guarantees of the contract, each proven through the API, in virtual time. A test's name begins with what it proves.

mod ends;
mod secrets;
mod streams;
mod time;
mod warnings;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::support::*;
use session_sidecar::{rpc::proto::v1, store::MemoryCaps};
use tonic::Code;
use v1::{SessionState, watch_expiry_response::Message};

const MILLI: Duration = Duration::from_millis(1);
/// G2's bound on what is pushed.
const PROMPT: Duration = Duration::from_millis(50);

fn session_ref(sidecar: &Sidecar, name: &str) -> session_sidecar::state::SessionRef {
    sidecar.sessions.session_ref(session_sidecar::sessions::Name {
        tenant: "",
        session_id: &id(name),
        follow: session_sidecar::sessions::Follow::Never,
    })
}
