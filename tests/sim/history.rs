//! What callers and watchers saw, in order: all that the checker gets to read, and what a person reads as a story.

use std::{collections::BTreeMap, fmt::Write as _};

use session_sidecar::rpc::proto::v1::{self, watch_expiry_response::Message};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Nanoseconds of virtual time since the world began.
pub(crate) type Ns = i64;

pub(crate) const MS: Ns = 1_000_000;
pub(crate) const SECOND: Ns = 1_000 * MS;

/// One line of the history.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) at: Ns,
    pub(crate) what: What,
}

/// What was seen.
#[derive(Debug, Clone)]
pub(crate) enum What {
    Called(Box<Call>),
    /// A stream was asked for.
    Opened {
        watcher: u32,
        tenants: Vec<String>,
        request: Box<v1::WatchExpiryRequest>,
        refused: Option<Refused>,
    },
    Message {
        watcher: u32,
        message: Box<v1::WatchExpiryResponse>,
    },
    /// A stream ended: by its client (`None`), by the server with OK or an error.
    Closed {
        watcher: u32,
        how: Option<Refused>,
    },
    Reads {
        watcher: u32,
        reads: bool,
    },
    /// The machine stood still from `from` until now.
    Gap {
        from: Ns,
    },
    /// From now on the wall clock shows `offset` more than virtual time.
    Wall {
        offset: i128,
    },
    Reloaded {
        reloads: u32,
    },
    Restarted {
        offset: i128,
    },
    /// A raw id was found where none may be.
    Leak {
        place: String,
    },
    /// The watcher's queue and the log, for the limits that depend on them.
    World {
        replay_events: usize,
        mailbox: usize,
        max_sessions: usize,
        max_tombstones: usize,
    },
    /// What /metrics says of tombstones that were dropped at the cap.
    Dropped {
        tombstones: u64,
    },
    Over,
}

/// One call.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// The tenants of the caller.
    pub(crate) tenants: Vec<String>,
    /// Calls of one race carry the same number; others 0.
    pub(crate) race: u32,
    pub(crate) request: Request,
    pub(crate) answer: Result<Answer, Refused>,
    /// When it was sent; the entry says when it was answered.
    pub(crate) sent: Ns,
    /// The field that a request breaks on purpose.
    pub(crate) bad: Option<&'static str>,
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) enum Request {
    Create(v1::CreateRequest),
    Touch(v1::TouchRequest),
    Batch(v1::BatchTouchRequest),
    Check(v1::CheckRequest),
    Extend(v1::ExtendRequest),
    Hold(v1::HoldRequest),
    Release(v1::ReleaseRequest),
    Rotate(v1::RotateRequest),
    End(v1::EndRequest),
    List(v1::ListSessionsRequest),
    EndMany(v1::EndSessionsRequest),
    Explain(v1::ExplainSessionRequest),
    Stats(v1::GetStatsRequest),
}

/// An answer that is no refusal.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Create(v1::CreateResponse),
    Touch(v1::TouchResponse),
    Batch(v1::BatchTouchResponse),
    Check(v1::CheckResponse),
    Extend(v1::ExtendResponse),
    Hold(v1::HoldResponse),
    Release(v1::ReleaseResponse),
    Rotate(v1::RotateResponse),
    End(v1::EndResponse),
    /// All pages as one.
    List(v1::ListSessionsResponse),
    EndMany(v1::EndSessionsResponse),
    Explain(v1::ExplainSessionResponse),
    Stats(v1::GetStatsResponse),
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: Code,
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) field: String,
    pub(crate) metadata: BTreeMap<String, String>,
}

impl Refused {
    pub(crate) fn from_status(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info();
        let violation = details.bad_request().and_then(|bad| bad.field_violations.first());
        Self {
            code: status.code(),
            reason: info.map(|info| info.reason.clone()).unwrap_or_default(),
            message: status.message().to_owned(),
            field: violation.map(|violation| violation.field.clone()).unwrap_or_default(),
            metadata: info
                .map(|info| info.metadata.clone().into_iter().collect())
                .unwrap_or_default(),
        }
    }

    pub(crate) fn ok() -> Self {
        Self {
            code: Code::Ok,
            reason: String::new(),
            message: String::new(),
            field: String::new(),
            metadata: BTreeMap::new(),
        }
    }
}

/// The session that an event is about.
pub(crate) fn session_of(message: &Message) -> Option<&v1::EventSession> {
    match message {
        Message::Snapshot(snapshot) => snapshot.session.as_ref(),
        Message::Warning(warning) => warning.session.as_ref(),
        Message::Cleared(cleared) => cleared.session.as_ref(),
        Message::Ended(ended) => ended.session.as_ref(),
        _ => None,
    }
}

/// A duration of the wire in nanoseconds.
pub(crate) fn ns(duration: &Option<prost_types::Duration>) -> Ns {
    duration
        .as_ref()
        .map_or(0, |duration| duration.seconds * SECOND + Ns::from(duration.nanos))
}

/// Writes a history down for people: one line for each thing that was seen.
#[derive(Default)]
pub(crate) struct Teller {
    refs: BTreeMap<String, String>,
}

impl Teller {
    pub(crate) fn tell(&mut self, history: &[Entry]) -> String {
        let mut story = String::new();
        for entry in history {
            if let What::Message { message, .. } = &entry.what
                && matches!(message.message, Some(Message::Heartbeat(_)))
            {
                continue;
            }
            let line = self.line(&entry.what);
            let _ = writeln!(story, "{} {line}", clock(entry.at));
        }
        story
    }

    /// Tells one entry.
    pub(crate) fn line(&mut self, what: &What) -> String {
        match what {
            What::Called(call) => {
                self.learn(call);
                let race = if call.race > 0 { "(at once) " } else { "" };
                let tenant = call.tenants.first().filter(|tenant| !tenant.is_empty());
                let tenant = tenant.map(|tenant| format!("[{tenant}] ")).unwrap_or_default();
                let answer = match &call.answer {
                    Ok(answer) => self.answer(answer),
                    Err(refused) => self.refusal(refused),
                };
                format!("{race}{tenant}{} → {answer}", self.request(&call.request))
            }
            What::Opened {
                watcher,
                request,
                refused,
                ..
            } => {
                let scope = request.scope.as_ref().and_then(|scope| scope.scope.as_ref());
                let scope = match scope {
                    Some(v1::watch_scope::Scope::Sessions(names)) => format!("{} sessions", names.names.len()),
                    Some(v1::watch_scope::Scope::Subject(subject)) => format!("subject {subject}"),
                    Some(v1::watch_scope::Scope::WholeTenant(_)) => "its tenant".to_owned(),
                    _ => "everything".to_owned(),
                };
                let how = if request.resume_token.is_empty() {
                    "watches"
                } else {
                    "resumes"
                };
                let state = if request.include_initial_state {
                    " with the state"
                } else {
                    ""
                };
                let refused = refused.as_ref().map(|refused| format!(" → {}", self.refusal(refused)));
                format!("w{watcher} {how} {scope}{state}{}", refused.unwrap_or_default())
            }
            What::Message { watcher, message } => {
                let text = message.message.as_ref().map(|message| self.message(message));
                format!("   w{watcher} ← {}", text.unwrap_or_default())
            }
            What::Closed { watcher, how: None } => format!("w{watcher} is cut"),
            What::Closed {
                watcher,
                how: Some(how),
            } => format!("   w{watcher} ends: {}", self.refusal(how)),
            What::Reads { watcher, reads: true } => format!("w{watcher} reads on"),
            What::Reads { watcher, .. } => format!("w{watcher} stops reading"),
            What::Gap { from } => format!("the machine slept since {}", clock(*from)),
            What::Wall { .. } => "the wall clock is set".to_owned(),
            What::Reloaded { reloads } => format!("policies reloaded ({reloads})"),
            What::Restarted { .. } => "the sidecar restarts".to_owned(),
            What::Leak { place } => format!("a raw session id was found: {place}"),
            What::World { .. } => "the world begins".to_owned(),
            What::Dropped { tombstones } => format!("/metrics: {tombstones} tombstones dropped at the cap"),
            What::Over => "the world ends".to_owned(),
        }
    }

    fn learn(&mut self, call: &Call) {
        let (id, reference) = match (&call.request, &call.answer) {
            (_, Ok(Answer::Create(created))) => (&created.session_id, created.session.as_ref()),
            (_, Ok(Answer::Rotate(rotated))) => (&rotated.session_id, rotated.session.as_ref()),
            _ => return,
        };
        let Some(status) = reference.and_then(|session| session.status.as_ref()) else {
            return;
        };
        let count = self.refs.len() + 1;
        let name = own_name(id).unwrap_or_else(|| format!("made{count}"));
        self.refs.entry(status.session_ref.clone()).or_insert(name);
    }

    pub(crate) fn name_of(&self, reference: &str) -> String {
        self.name(reference)
    }

    fn name(&self, reference: &str) -> String {
        self.refs
            .get(reference)
            .cloned()
            .unwrap_or_else(|| format!("ref {reference}"))
    }

    fn by_id(&self, id: &str) -> String {
        own_name(id).unwrap_or_else(|| "(made id)".to_owned())
    }

    fn touch(&self, touch: &v1::TouchRequest) -> String {
        let kind = short(touch.activity().as_str_name(), "ACTIVITY_");
        let ago = ns(&touch.idle_for);
        let ago = if ago > 0 {
            format!(" {} ago", span(ago))
        } else {
            String::new()
        };
        let hints = touch
            .hints
            .as_ref()
            .map(|hints| format!(" {hints:?}"))
            .unwrap_or_default();
        format!("{} {kind}{ago}{hints}", self.by_id(&touch.session_id))
    }

    fn request(&self, request: &Request) -> String {
        let with = |id: &str| {
            if id.is_empty() {
                String::new()
            } else {
                format!(" request {id}")
            }
        };
        match request {
            Request::Create(create) => {
                let mut text = format!("create {}", self.by_id(&create.session_id));
                for (key, value) in [("policy", &create.policy), ("subject", &create.subject)] {
                    if !value.is_empty() {
                        let _ = write!(text, " {key} {value}");
                    }
                }
                for (key, value) in [
                    ("idle_timeout", &create.idle_timeout),
                    ("absolute_timeout", &create.absolute_timeout),
                    ("authenticated_ago", &create.authenticated_ago),
                    ("idle_for", &create.idle_for),
                ] {
                    if value.is_some() {
                        let _ = write!(text, " {key} {}", span(ns(value)));
                    }
                }
                text + &with(&create.request_id)
            }
            Request::Touch(touch) => format!("touch {}", self.touch(touch)),
            Request::Batch(batch) => {
                let touches: Vec<_> = batch.touches.iter().map(|touch| self.touch(touch)).collect();
                format!("batch touch: {}", touches.join(", "))
            }
            Request::Check(check) => match &check.name {
                Some(v1::check_request::Name::SessionId(id)) => format!("check {}", self.by_id(id)),
                Some(v1::check_request::Name::SessionRef(name)) => format!("check {} by ref", self.name(name)),
                None => format!("check {} sessions", check.sessions.len()),
            },
            Request::Extend(extend) => {
                let wanted = extend
                    .wanted_duration
                    .is_some()
                    .then(|| span(ns(&extend.wanted_duration)));
                let wanted = wanted.map(|wanted| format!(" by {wanted}")).unwrap_or_default();
                format!(
                    "extend {}{wanted}{}",
                    self.by_id(&extend.session_id),
                    with(&extend.request_id)
                )
            }
            Request::Hold(hold) => format!(
                "hold {} {} {} for {}",
                self.by_id(&hold.session_id),
                hold.hold_id,
                short(hold.kind().as_str_name(), "HOLD_KIND_"),
                span(ns(&hold.ttl))
            ),
            Request::Release(release) => format!("release {} {}", self.by_id(&release.session_id), release.hold_id),
            Request::Rotate(rotate) => {
                let again = rotate
                    .authenticated_ago
                    .is_some()
                    .then(|| span(ns(&rotate.authenticated_ago)));
                let again = again.map(|ago| format!(" authenticated {ago} ago")).unwrap_or_default();
                let subject = rotate.subject.as_ref().map(|subject| format!(" subject {subject}"));
                format!(
                    "rotate {} to {}{again}{}{}",
                    self.by_id(&rotate.session_id),
                    self.by_id(&rotate.new_session_id),
                    subject.unwrap_or_default(),
                    with(&rotate.request_id)
                )
            }
            Request::End(end) => format!(
                "end {} {}{}",
                self.by_id(&end.session_id),
                short(end.reason().as_str_name(), "END_REASON_"),
                with(&end.request_id)
            ),
            Request::List(list) => format!("operator lists {}", self.filter(&list.filter)),
            Request::EndMany(end) => {
                let how = if end.dry_run { "would end" } else { "ends" };
                let except: Vec<_> = end.except.iter().map(|name| format!("{name:?}")).collect();
                format!("operator {how} {} except {except:?}", self.filter(&end.filter))
            }
            Request::Explain(explain) => match &explain.target {
                Some(v1::explain_session_request::Target::SessionId(id)) => {
                    format!("operator asks why of {}", self.by_id(id))
                }
                Some(v1::explain_session_request::Target::SessionRef(name)) => {
                    format!("operator asks why of {} by ref", self.name(name))
                }
                _ => "operator asks why".to_owned(),
            },
            Request::Stats(_) => "operator counts".to_owned(),
        }
    }

    fn filter(&self, filter: &Option<v1::SessionFilter>) -> String {
        let filter = filter.clone().unwrap_or_default();
        let whose = if filter.subject.is_empty() {
            "all"
        } else {
            &filter.subject
        };
        let ended = if filter.states.is_empty() {
            ""
        } else {
            ", ended ones too"
        };
        format!("sessions of {whose}{ended}")
    }

    fn status(&self, status: &Option<v1::SessionStatus>) -> String {
        let Some(status) = status else {
            return "no status".to_owned();
        };
        let mut text = format!(
            "{} {}",
            self.name(&status.session_ref),
            short(status.state().as_str_name(), "SESSION_STATE_")
        );
        if status.expires_in.is_some() {
            let limit = short(status.limit().as_str_name(), "LIMIT_");
            let _ = write!(text, " expires in {} ({limit})", span(ns(&status.expires_in)));
        }
        let _ = write!(text, " v{}", status.version);
        if status.alias {
            text.push_str(" alias");
        }
        text
    }

    fn session(&self, session: &Option<v1::Session>) -> String {
        let Some(session) = session else {
            return "no session".to_owned();
        };
        let end = session
            .end
            .as_ref()
            .map(|end| format!(" {}", self.end(end)))
            .unwrap_or_default();
        let holds: Vec<_> = session.holds.iter().map(|hold| hold.hold_id.as_str()).collect();
        let holds = if holds.is_empty() {
            String::new()
        } else {
            format!(" holds {}", holds.join(" "))
        };
        format!("{}{end}{holds}", self.status(&session.status))
    }

    fn end(&self, end: &v1::SessionEnd) -> String {
        let successor = if end.successor_ref.is_empty() {
            String::new()
        } else {
            format!(" → {}", self.name(&end.successor_ref))
        };
        format!(
            "{} by {}{successor}",
            short(end.reason().as_str_name(), "END_REASON_"),
            short(end.actor().as_str_name(), "ACTOR_")
        )
    }

    fn answer(&self, answer: &Answer) -> String {
        match answer {
            Answer::Create(created) => {
                let superseded: Vec<_> = created.superseded_refs.iter().map(|name| self.name(name)).collect();
                let superseded = if superseded.is_empty() {
                    String::new()
                } else {
                    format!(" superseding {}", superseded.join(" "))
                };
                format!("{}{superseded}", self.session(&created.session))
            }
            Answer::Touch(touched) => self.touched(touched),
            Answer::Batch(batch) => {
                let outcomes = batch.outcomes.iter().map(|outcome| match &outcome.outcome {
                    Some(v1::touch_outcome::Outcome::Touch(touched)) => self.touched(touched),
                    Some(v1::touch_outcome::Outcome::Error(error)) => error.reason.clone(),
                    None => String::new(),
                });
                outcomes.collect::<Vec<_>>().join(", ")
            }
            Answer::Check(check) if check.session.is_some() => self.session(&check.session),
            Answer::Check(check) => {
                let outcomes = check.outcomes.iter().map(|outcome| match &outcome.outcome {
                    Some(v1::check_outcome::Outcome::Status(status)) => self.status(&Some(status.clone())),
                    other => format!("{other:?}"),
                });
                outcomes.collect::<Vec<_>>().join(", ")
            }
            Answer::Extend(extended) => format!(
                "granted {}, {}",
                span(ns(&extended.granted_duration)),
                self.status(&extended.status)
            ),
            Answer::Hold(held) => format!("granted {}, {}", span(ns(&held.granted_ttl)), self.status(&held.status)),
            Answer::Release(released) => format!("released {}, {}", released.released, self.status(&released.status)),
            Answer::Rotate(rotated) => self.session(&rotated.session),
            Answer::End(ended) => {
                let end = ended.end.as_ref().map(|end| self.end(end)).unwrap_or_default();
                format!("{end}{}", if ended.ended_now { " now" } else { " before" })
            }
            Answer::List(list) => {
                let names = list.sessions.iter().map(|session| self.status(&session.status));
                names.collect::<Vec<_>>().join(", ")
            }
            Answer::EndMany(ended) => {
                let names: Vec<_> = ended.session_refs.iter().map(|name| self.name(name)).collect();
                let (of, count) = (ended.matched_count, ended.ended_count);
                format!("{count} of {of}: {}", names.join(" "))
            }
            Answer::Explain(told) => {
                let told = told.explanations.iter().map(|told| told.summary.as_str());
                told.collect::<Vec<_>>().join(" / ")
            }
            Answer::Stats(stats) => format!("{stats:?}"),
        }
    }

    fn touched(&self, touched: &v1::TouchResponse) -> String {
        format!(
            "{} by {}, {}",
            short(touched.result().as_str_name(), "TOUCH_RESULT_"),
            touched.rule,
            self.status(&touched.status)
        )
    }

    fn refusal(&self, refused: &Refused) -> String {
        let reason = refused
            .metadata
            .get("reason")
            .map(|reason| format!(" {reason}"))
            .unwrap_or_default();
        let field = if refused.field.is_empty() {
            String::new()
        } else {
            format!(" {}", refused.message)
        };
        format!("{:?} {}{reason}{field}", refused.code, refused.reason)
    }

    fn message(&self, message: &Message) -> String {
        let session =
            session_of(message).map(|session| format!("{} v{}", self.name(&session.session_ref), session.version));
        let session = session.unwrap_or_default();
        match message {
            Message::Warning(warning) => format!(
                "warning {session} {} at {} before, ends in {}",
                short(warning.limit().as_str_name(), "LIMIT_"),
                span(ns(&warning.point)),
                span(ns(&warning.expires_in))
            ),
            Message::Cleared(cleared) => format!(
                "cleared {session} {} {}, ends in {}",
                short(cleared.limit().as_str_name(), "LIMIT_"),
                short(cleared.cause().as_str_name(), "CLEARED_CAUSE_"),
                span(ns(&cleared.expires_in))
            ),
            Message::Ended(ended) => {
                format!(
                    "ended {session} {}",
                    ended.end.as_ref().map(|end| self.end(end)).unwrap_or_default()
                )
            }
            Message::Snapshot(snapshot) => format!("snapshot {session} {}", self.status(&snapshot.status)),
            Message::SnapshotEnd(end) => format!("live, {} snapshots", end.snapshot_count),
            Message::Heartbeat(_) => "heartbeat".to_owned(),
            Message::Draining(_) => "draining".to_owned(),
        }
    }
}

/// The name of a session in a story, if the simulation chose its id.
fn own_name(id: &str) -> Option<String> {
    let number = id.strip_prefix(crate::world::CANARY)?.split('-').nth(1)?;
    Some(format!("s{}", number.trim_start_matches('0')))
}

pub(crate) fn short<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// Virtual time for people.
pub(crate) fn clock(at: Ns) -> String {
    let ms = at / MS;
    let (days, rest) = (ms / 86_400_000, ms % 86_400_000);
    let micros = at % MS / 1_000;
    let micros = if micros == 0 {
        String::new()
    } else {
        format!("+{micros}us")
    };
    format!(
        "{days}d {:02}:{:02}:{:02}.{:03}{micros}",
        rest / 3_600_000,
        rest / 60_000 % 60,
        rest / 1_000 % 60,
        rest % 1_000
    )
}

/// A length of time for people.
pub(crate) fn span(length: Ns) -> String {
    let ms = length / MS;
    match ms {
        _ if length < 0 => format!("-{}", span(-length)),
        0..60_000 => format!("{}.{:03}s", ms / 1_000, ms % 1_000),
        _ => format!("{}m{:02}.{:03}s", ms / 60_000, ms / 1_000 % 60, ms % 1_000),
    }
}
