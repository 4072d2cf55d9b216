//! Every other watcher against the log: nothing lost, nothing twice, in order, nothing of others; tokens; slow readers.

mod messages;
mod reader;

use std::collections::BTreeMap;

use session_sidecar::rpc::proto::v1::{self, watch_expiry_response::Message};

use super::{Tally, Violation, model::Model, session::Moment};
use crate::history::{Entry, Ns, What, session_of, short};
use reader::Reader;

/// An event at its place in the log.
struct Logged {
    at: Ns,
    kind: u8,
    reference: String,
    version: u64,
    tenant: String,
    subject: String,
    successor: String,
}

/// What is known of the sessions when a watch begins with the state.
struct Known {
    reference: String,
    tenant: String,
    subject: String,
    live: bool,
}

pub(super) struct Streams {
    replay: usize,
    mailbox: usize,
    /// The log of each life of the sidecar.
    logs: Vec<Vec<Logged>>,
    restarts: Vec<usize>,
    opened: BTreeMap<usize, Vec<Known>>,
}

impl Streams {
    pub(super) fn new(replay: usize, mailbox: usize) -> Self {
        Self {
            replay,
            mailbox,
            logs: vec![Vec::new()],
            restarts: Vec::new(),
            opened: BTreeMap::new(),
        }
    }

    pub(super) fn logged(&mut self, _entry: usize, at: Ns, response: &v1::WatchExpiryResponse, tally: &mut Tally) {
        let Some(message) = &response.message else { return };
        let Some(session) = session_of(message) else { return };
        let (kind, word) = match message {
            Message::Warning(warning) => (1, format!("warning {}", short(warning.limit().as_str_name(), "LIMIT_"))),
            Message::Cleared(cleared) => (
                2,
                format!("cleared {}", short(cleared.cause().as_str_name(), "CLEARED_CAUSE_")),
            ),
            Message::Ended(ended) => {
                let reason = ended.end.as_ref().map(v1::SessionEnd::reason).unwrap_or_default();
                (3, format!("ended {}", short(reason.as_str_name(), "END_REASON_")))
            }
            _ => return,
        };
        *tally.entry(word).or_default() += 1;
        let end = match message {
            Message::Ended(ended) => ended.end.as_ref(),
            _ => None,
        };
        if let Some(log) = self.logs.last_mut() {
            log.push(Logged {
                at,
                kind,
                reference: session.session_ref.clone(),
                version: session.version,
                tenant: session.tenant.clone(),
                subject: session.subject.clone(),
                successor: end.map(|end| end.successor_ref.clone()).unwrap_or_default(),
            });
        }
    }

    pub(super) fn restarted(&mut self, entry: usize, _old: &Model) {
        self.logs.push(Vec::new());
        self.restarts.push(entry);
    }

    /// Notes what a watch that begins now would be told.
    pub(super) fn opened(&mut self, entry: usize, model: &Model, moment: Moment) {
        let known = model
            .sessions
            .values()
            .filter(|session| session.is_live(moment) || (session.end.is_some() && session.memory(moment.now).0));
        let known = known.map(|session| Known {
            reference: session.reference.clone(),
            tenant: session.tenant.clone(),
            subject: session.subject.clone(),
            live: session.is_live(moment),
        });
        self.opened.insert(entry, known.collect());
    }

    /// Reads the history once more, for the watchers.
    pub(super) fn check(&self, history: &[Entry], tally: &mut Tally) -> Result<(), Violation> {
        let mut reader = Reader::new(self, ids(history));
        for (place, entry) in history.iter().enumerate() {
            reader.entry(place, entry, tally).map_err(|violation| Violation {
                at: entry.at,
                ..violation
            })?;
        }
        Ok(())
    }
}

/// The ref of every id that answers told.
fn ids(history: &[Entry]) -> BTreeMap<(String, String), String> {
    use crate::history::{Answer, Request};

    let mut ids = BTreeMap::new();
    for entry in history {
        let What::Called(call) = &entry.what else { continue };
        let (tenant, id, session) = match (&call.request, &call.answer) {
            (Request::Create(request), Ok(Answer::Create(created))) => {
                (&request.tenant, &created.session_id, &created.session)
            }
            (Request::Rotate(request), Ok(Answer::Rotate(rotated))) => {
                (&request.tenant, &rotated.session_id, &rotated.session)
            }
            _ => continue,
        };
        if let Some(status) = session.as_ref().and_then(|session| session.status.as_ref()) {
            ids.insert((tenant.clone(), id.clone()), status.session_ref.clone());
        }
    }
    ids
}
