//! `explain --from-log`: the answer from the audit log alone, when the process that knew more is gone.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader},
    path::Path,
    time::SystemTime,
};

use anyhow::{Context as _, bail};
use serde::Serialize;

use super::{admin::indented, out, table::table};
use crate::{
    audit::Entry,
    config::{ExplainArgs, read_key},
    sessions::reason_in_words,
    state::Keys,
};

/// What the log says of one session.
#[derive(Debug, Default, Serialize)]
struct Told {
    session_ref: String,
    summary: String,
    entries: Vec<Entry>,
}

pub(super) fn explain(log: &Path, args: &ExplainArgs) -> anyhow::Result<()> {
    let wanted = Wanted::of(args)?;
    let reader: Box<dyn BufRead> = if log == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = fs::File::open(log).with_context(|| format!("--from-log {} cannot be read", log.display()))?;
        Box::new(BufReader::new(file))
    };
    let found = find(reader, &wanted)?;
    if found.not_understood > 0 {
        super::warn(&format!(
            "lines that are no audit log, or none that this version understands, were left out: {}",
            found.not_understood
        ));
    }
    if found.sessions.is_empty() {
        bail!("the log says nothing of it{}", wanted.hint(found.hashed));
    }
    for (place, told) in found.sessions.iter().enumerate() {
        if args.admin.client.json {
            out(&serde_json::to_string(told)?)?;
            continue;
        }
        if place > 0 {
            out("")?;
        }
        out(&text(told))?;
    }
    if found.lost > 0 {
        super::warn(&format!("the log says that {} of its lines were lost", found.lost));
    }
    Ok(())
}

/// Whom to look for.
struct Wanted {
    tenant: String,
    session: Option<String>,
    subject: Option<String>,
    subject_hash: Option<String>,
    from: Option<SystemTime>,
    to: Option<SystemTime>,
}

impl Wanted {
    fn of(args: &ExplainArgs) -> anyhow::Result<Self> {
        if args.session_ref.is_none() && args.subject.is_none() {
            bail!("--from-log needs --ref or --subject: ids are not in an audit log");
        }
        let tenant = args.admin.client.tenant.clone();
        let key = args
            .key_file
            .as_ref()
            .map(|path| read_key("--key-file", path))
            .transpose()?;
        let keys = key.map(|key| Keys::derive(&key));
        Ok(Self {
            subject_hash: keys
                .zip(args.subject.as_deref())
                .map(|(keys, subject)| keys.subject_hash(&tenant, subject)),
            tenant,
            session: args.session_ref.clone(),
            subject: args.subject.clone(),
            from: args.from.map(SystemTime::from),
            to: args.to.map(SystemTime::from),
        })
    }

    fn is_subject_of(&self, plain: &str, hash: &str) -> bool {
        let same = |wanted: &Option<String>, found: &str| !found.is_empty() && wanted.as_deref() == Some(found);
        same(&self.subject, plain) || same(&self.subject_hash, hash)
    }

    fn hint(&self, hashed: bool) -> &'static str {
        if self.subject.is_some() && self.subject_hash.is_none() && hashed {
            "; its subjects are hashed: give the sidecar's --key-file"
        } else {
            ""
        }
    }

    /// Whether a session was live at some time of the period, as far as the log says when it began and ended.
    fn is_in_time(&self, entries: &[Entry]) -> bool {
        let time = |text: &str| humantime::parse_rfc3339(text).ok();
        let first = entries.first().and_then(|entry| {
            let created = (entry.event == "end").then(|| time(&entry.create_time)).flatten();
            created.or_else(|| time(&entry.time))
        });
        let end = entries.iter().find_map(|entry| time(&entry.end_time));
        self.to.zip(first).is_none_or(|(to, first)| first <= to)
            && self.from.zip(end).is_none_or(|(from, end)| end >= from)
    }
}

#[derive(Default)]
struct FoundInLog {
    /// The latest first.
    sessions: Vec<Told>,
    not_understood: u64,
    lost: u64,
    /// Whether subjects are hashed in it.
    hashed: bool,
}

/// Reads the log once: sessions are collected as their lines come, for a line that names the person names the session too.
fn find(reader: impl BufRead, wanted: &Wanted) -> anyhow::Result<FoundInLog> {
    let mut found = FoundInLog::default();
    let mut by_ref: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
    for line in reader.lines() {
        let line = line.context("the log cannot be read")?;
        if line.trim().is_empty() {
            continue;
        }
        let Ok(entry) = Entry::read(&line) else {
            found.not_understood += 1;
            continue;
        };
        found.hashed |= !entry.subject_hash.is_empty();
        match entry.event.as_str() {
            "lost" => found.lost += entry.count.unwrap_or(0),
            "admin" => {}
            _ if entry.tenant.as_deref() != Some(&*wanted.tenant) => {}
            "rotate" => {
                let after = wanted.session.as_deref() == Some(&*entry.successor_ref)
                    || wanted.is_subject_of(&entry.subject, &entry.subject_hash);
                let changed = !entry.previous_subject.is_empty() || !entry.previous_subject_hash.is_empty();
                let before = wanted.session.as_deref() == Some(&*entry.session)
                    || by_ref.contains_key(&entry.session)
                    || wanted.is_subject_of(&entry.previous_subject, &entry.previous_subject_hash)
                    || (!changed && wanted.is_subject_of(&entry.subject, &entry.subject_hash));
                if before {
                    by_ref.entry(entry.session.clone()).or_default().push(entry.clone());
                }
                if after {
                    by_ref.entry(entry.successor_ref.clone()).or_default().push(entry);
                }
            }
            _ => {
                let meant = wanted.session.as_deref() == Some(&*entry.session)
                    || wanted.is_subject_of(&entry.subject, &entry.subject_hash);
                if meant {
                    by_ref.entry(entry.session.clone()).or_default().push(entry);
                }
            }
        }
    }
    let sessions = by_ref.into_iter().filter(|(_, entries)| wanted.is_in_time(entries));
    found.sessions = sessions
        .map(|(session_ref, entries)| Told {
            summary: summary(&session_ref, &entries),
            session_ref,
            entries,
        })
        .collect();
    found.sessions.sort_by(|a, b| latest(b).cmp(latest(a)));
    Ok(found)
}

fn latest(told: &Told) -> &str {
    told.entries.last().map_or("", |entry| &entry.time)
}

/// The answer in a sentence, as far as the log knows it.
fn summary(session_ref: &str, entries: &[Entry]) -> String {
    let end = entries
        .iter()
        .find(|entry| !entry.end_time.is_empty() && entry.session == session_ref);
    let Some(end) = end else {
        let last = entries.last().map_or("", |entry| &entry.time);
        return format!("The log tells of no end; its last line about the session is of {last}.");
    };
    let why = end
        .end_reason()
        .map_or_else(|| end.reason.clone(), |reason| reason_in_words(reason).to_owned());
    let mut sentence = format!("Ended at {} {why}", end.end_time);
    if !end.successor_ref.is_empty() {
        sentence += &format!(" as {}", end.successor_ref);
    }
    let by_hand = matches!(end.reason.as_str(), "LOGOUT" | "REVOKED");
    if by_hand {
        sentence += &format!(", by {}", end.actor);
        if !end.actor_id.is_empty() {
            sentence += &format!(" ({})", end.actor_id);
        }
        if !end.note.is_empty() {
            sentence += &format!(", who noted {:?}", end.note);
        }
    } else if !end.last_activity_time.is_empty() {
        sentence += &format!(": the last counted activity was at {}", end.last_activity_time);
    }
    let extensions = entries.iter().filter(|entry| entry.event == "extend").count();
    if extensions > 0 {
        let plural = if extensions == 1 { "" } else { "s" };
        sentence += &format!("; it had been extended {extensions} time{plural}");
    }
    sentence + "."
}

fn text(told: &Told) -> String {
    let rows: Vec<_> = told
        .entries
        .iter()
        .map(|entry| vec![entry.time.clone(), what(&told.session_ref, entry)])
        .collect();
    let lines = indented(&table(&["TIME", "WHAT THE LOG SAYS"], &rows));
    format!("{}: {}\n\n{lines}", told.session_ref, told.summary)
}

fn what(session_ref: &str, entry: &Entry) -> String {
    let policy = format!(
        "policy {} revision {}",
        entry.policy,
        entry.policy_revision.unwrap_or(0)
    );
    match entry.event.as_str() {
        "create" => format!("created, {policy}"),
        "extend" => {
            let granted = entry.granted_seconds.unwrap_or(0.0);
            let clamped = if entry.clamped_by.is_empty() {
                ""
            } else {
                ", cut short by the absolute deadline"
            };
            format!("extended by {granted} s{clamped}")
        }
        "rotate" if entry.successor_ref == session_ref => format!("took the place of {}", entry.session),
        "rotate" => format!("got a new id and goes on as {}", entry.successor_ref),
        "end" => {
            let mut what = format!("ended: {} by {}", entry.reason, entry.actor);
            if !entry.actor_id.is_empty() {
                what += &format!(" {:?}", entry.actor_id);
            }
            what + &format!(" at {}", entry.end_time)
        }
        other => other.to_owned(),
    }
}
