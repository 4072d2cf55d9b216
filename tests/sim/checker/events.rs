//! What the log says, event by event.

use session_sidecar::rpc::proto::v1::{self, EndReason, watch_expiry_response::Message};

use super::{
    Violation, broken,
    model::Trial,
    session::{Line, Owed, Session},
};
use crate::history::{Ns, clock, ns, session_of, span};

impl Trial<'_> {
    /// Applies an event to the trial. Answers whose it was.
    pub(super) fn event(&mut self, response: &v1::WatchExpiryResponse) -> Result<String, Violation> {
        let moment = self.moment;
        let Some(message) = &response.message else {
            return Err(broken("API", "an empty message".to_owned()));
        };
        let Some(about) = session_of(message) else {
            return Ok(String::new());
        };
        let name = about.session_ref.clone();
        if self.time(&response.emit_time) != moment.now {
            let at = clock(self.time(&response.emit_time));
            return Err(broken(
                "G2",
                format!("an event about {name} of {at} was delivered late"),
            ));
        }
        if self.get(&name).is_none() {
            return Err(broken("G10", format!("an event about {name}, which was never issued")));
        }
        if self.get(&name).is_some_and(|session| session.owed.is_empty()) {
            self.now(&name)?;
        }
        let expire = match message {
            Message::Warning(warning) => self.time(&warning.expire_time),
            Message::Cleared(cleared) => self.time(&cleared.expire_time),
            _ => 0,
        };
        let Some(session) = self.get_mut(&name) else {
            return Ok(name);
        };
        if (&about.tenant, &about.subject, &about.labels) != (&session.tenant, &session.subject, &session.labels) {
            return Err(broken(
                "G17",
                format!("an event about {name} tells of another tenant, subject or labels"),
            ));
        }
        if about.version <= session.event_version {
            return Err(broken(
                "G4",
                format!("{name}: an event's version {} does not grow", about.version),
            ));
        }
        let told_left = match message {
            Message::Warning(warning) => Some(ns(&warning.expires_in)),
            Message::Cleared(cleared) => Some(ns(&cleared.expires_in)),
            _ => None,
        };
        if told_left.is_some_and(|left| left != (expire - moment.now).max(0)) {
            return Err(broken(
                "G14",
                format!("{name}: expires_in is not expire_time less emit_time"),
            ));
        }
        match session.owed.pop_front() {
            Some(owed) => fits(session, &owed, message, expire)?,
            None => {
                if about.version <= session.version {
                    return Err(broken("G4", format!("{name}: an event that is older than an answer")));
                }
                match message {
                    Message::Warning(warning) => session.warned(warning.limit(), ns(&warning.point), expire, moment)?,
                    Message::Ended(ended) => return Err(unexpected_end(session, ended, moment)),
                    _ => return Err(broken("G4", format!("{name}: a Cleared that nothing calls for"))),
                }
            }
        }
        match message {
            Message::Warning(warning) => {
                let line = Line::Warning(warning.limit(), ns(&warning.point));
                session.story.add(moment.now, line);
            }
            Message::Cleared(cleared) => {
                let line = Line::Cleared(cleared.limit(), cleared.cause());
                session.story.add(moment.now, line);
            }
            _ => {}
        }
        session.event_version = about.version;
        session.version = session.version.max(about.version);
        if let Message::Ended(ended) = message
            && let Some(session) = self.get(&name)
        {
            self.end(session, ended.end.as_ref())?;
            if self.time(&ended.last_activity_time) != session.activity {
                return Err(broken("G8", format!("{name}: Ended tells of another last activity")));
            }
        }
        Ok(name)
    }
}

/// Whether an event is the one that had to come.
fn fits(session: &Session, owed: &Owed, message: &Message, expire: Ns) -> Result<(), Violation> {
    let name = &session.reference;
    let right = match (owed, message) {
        (
            Owed::Cleared {
                limit,
                cause,
                expire: due,
            },
            Message::Cleared(cleared),
        ) => cleared.limit() == *limit && cleared.cause() == *cause && (*due == Ns::MIN || expire == *due),
        (
            Owed::Warning {
                limit,
                point,
                expire: due,
            },
            Message::Warning(warning),
        ) => warning.limit() == *limit && ns(&warning.point) == *point && expire == *due,
        (Owed::Ended, Message::Ended(_)) => true,
        _ => false,
    };
    if right {
        return Ok(());
    }
    let guarantee = match owed {
        Owed::Cleared { .. } => "G4",
        Owed::Warning { .. } => "G3",
        Owed::Ended if matches!(message, Message::Warning(_)) => "G3",
        Owed::Ended => "G6",
    };
    Err(broken(guarantee, format!("{name}: {message:?} where {owed:?} is due")))
}

fn unexpected_end(session: &Session, ended: &v1::Ended, moment: super::Moment) -> Violation {
    let name = &session.reference;
    if session.end.is_some() {
        return broken("G6", format!("{name} has a second Ended"));
    }
    let reason = ended.end.as_ref().map(v1::SessionEnd::reason).unwrap_or_default();
    let by_time = matches!(reason, EndReason::IdleTimeout | EndReason::BrowserClosed);
    let left = session.deadlines(moment).expire().0 - moment.now;
    let guarantee = if by_time { "G1" } else { "G6" };
    broken(
        guarantee,
        format!("{name} ended ({reason:?}), but it had {} to live", span(left)),
    )
}

/// An event that had to come in this instant did not.
pub(super) fn missing(name: &str, owed: &Owed) -> Violation {
    match owed {
        Owed::Cleared { limit, cause, .. } => broken(
            "G4",
            format!("{name}: the warning of {limit:?} was not withdrawn ({cause:?})"),
        ),
        Owed::Warning { limit, point, .. } => broken(
            "G3",
            format!("{name} was not warned ({limit:?}, {} before)", span(*point)),
        ),
        Owed::Ended => broken("G6", format!("{name} ended, and no Ended came")),
    }
}
