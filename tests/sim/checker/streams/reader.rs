//! Where each watcher is in the log: how its stream begins, goes on from a token, and ends.

use std::collections::{BTreeMap, BTreeSet};

use session_sidecar::rpc::proto::v1::{self, session_name::Name, watch_scope::Scope};
use tonic::Code;

use super::{
    super::{Tally, Violation, broken},
    Logged, Streams,
};
use crate::{
    history::{Entry, Ns, Refused, What},
    world::AUDITOR,
};

/// A place in the log that a token stands for.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) scope: Option<v1::WatchScope>,
    pub(super) tenants: Vec<String>,
    pub(super) life: usize,
    pub(super) cursor: usize,
    /// At most so many events had happened.
    pub(super) seen: usize,
    pub(super) initial: bool,
    pub(super) followed: BTreeSet<String>,
    pub(super) snapshots: BTreeMap<String, u64>,
    pub(super) last_ended: String,
}

/// An open stream.
pub(super) struct Open {
    pub(super) request: v1::WatchExpiryRequest,
    pub(super) tenants: Vec<String>,
    /// The next event of the log that may come; those before `certain` may have come before the watch began.
    pub(super) cursor: usize,
    pub(super) certain: usize,
    pub(super) entry: usize,
    pub(super) opened_at: Ns,
    pub(super) live: bool,
    pub(super) ids: BTreeMap<String, String>,
    pub(super) followed: BTreeSet<String>,
    pub(super) snapshots: BTreeMap<String, u64>,
    pub(super) last_ended: String,
    pub(super) stopped: Option<Ns>,
    pub(super) was_stopped: bool,
    pub(super) must_be_cut: bool,
    pub(super) drained: bool,
    pub(super) may_begin_anew: bool,
}

/// Reads a history for all watchers but the auditor.
pub(super) struct Reader<'a> {
    pub(super) streams: &'a Streams,
    pub(super) life: usize,
    pub(super) open: BTreeMap<u32, Open>,
    pub(super) places: BTreeMap<(String, u32), Place>,
    pub(super) ids: BTreeMap<(String, String), String>,
    /// Where an event is in the log of this life.
    pub(super) index: BTreeMap<(String, u64, u8), usize>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(streams: &'a Streams, ids: BTreeMap<(String, String), String>) -> Self {
        let mut reader = Self {
            streams,
            life: 0,
            open: BTreeMap::new(),
            places: BTreeMap::new(),
            ids,
            index: BTreeMap::new(),
        };
        reader.reindex();
        reader
    }
}

impl Reader<'_> {
    pub(super) fn log(&self) -> &[Logged] {
        &self.streams.logs[self.life]
    }

    fn reindex(&mut self) {
        let log = &self.streams.logs[self.life];
        let index = log.iter().enumerate();
        self.index = index
            .map(|(place, event)| ((event.reference.clone(), event.version, event.kind), place))
            .collect();
    }

    pub(super) fn entry(&mut self, place: usize, entry: &Entry, tally: &mut Tally) -> Result<(), Violation> {
        match &entry.what {
            What::Opened {
                watcher,
                tenants,
                request,
                refused,
            } if *watcher != AUDITOR => {
                self.open.remove(watcher);
                let opened = self.opening(*watcher, place, entry.at, tenants, request, refused.as_ref(), tally)?;
                if let Some(open) = opened {
                    self.open.insert(*watcher, open);
                }
                Ok(())
            }
            What::Message { watcher, message } if *watcher != AUDITOR => {
                let Some(mut open) = self.open.remove(watcher) else {
                    return Err(broken("G12", format!("w{watcher} got a message without a stream")));
                };
                let got = self.message(*watcher, &mut open, entry.at, message, tally);
                self.open.insert(*watcher, open);
                got
            }
            What::Closed { watcher, how } if *watcher != AUDITOR => {
                let Some(open) = self.open.remove(watcher) else {
                    return Ok(());
                };
                self.closed(*watcher, &open, entry.at, how.as_ref(), tally)
            }
            What::Reads { watcher, reads } => {
                let log = &self.streams.logs[self.life];
                // A stream's window, what waits in the stream, and some more.
                let most = 65_535 / 150 + 170;
                if let Some(open) = self.open.get_mut(watcher) {
                    if *reads && let Some(since) = open.stopped.take() {
                        let waiting = log
                            .iter()
                            .enumerate()
                            .skip(open.cursor)
                            .take_while(|(_, event)| event.at + 11_000_000_000 < entry.at);
                        let waiting = waiting
                            .filter(|(_, event)| event.at > since && in_scope(open, event))
                            .count();
                        open.must_be_cut |= waiting > most;
                    } else if !*reads {
                        open.stopped = Some(entry.at);
                        open.was_stopped = true;
                    }
                }
                Ok(())
            }
            What::Restarted { .. } => {
                self.open.clear();
                self.life += 1;
                self.reindex();
                Ok(())
            }
            What::Over => {
                for (watcher, open) in &self.open {
                    self.closed(*watcher, open, entry.at, None, tally)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn opening(
        &self,
        watcher: u32,
        entry: usize,
        at: Ns,
        tenants: &[String],
        request: &v1::WatchExpiryRequest,
        refused: Option<&Refused>,
        tally: &mut Tally,
    ) -> Result<Option<Open>, Violation> {
        let log = self.log();
        let before = log.partition_point(|event| event.at < at);
        let through = log.partition_point(|event| event.at <= at);
        let mut open = Open {
            request: request.clone(),
            tenants: tenants.to_vec(),
            cursor: before,
            certain: through,
            entry,
            opened_at: at,
            live: false,
            ids: BTreeMap::new(),
            followed: BTreeSet::new(),
            snapshots: BTreeMap::new(),
            last_ended: String::new(),
            stopped: None,
            was_stopped: false,
            must_be_cut: false,
            drained: false,
            may_begin_anew: true,
        };
        self.name(&mut open);
        for event in &log[..before] {
            // Names that were rotated lead on, as long as that is remembered.
            let known = self.streams.opened.get(&entry);
            let remembered = known.is_none_or(|known| known.iter().any(|known| known.reference == event.reference));
            if remembered && !event.successor.is_empty() && open.followed.contains(&event.reference) {
                open.followed.insert(event.successor.clone());
            }
        }
        if request.resume_token.is_empty() {
            *tally.entry("watches".to_owned()).or_default() += 1;
            return match refused {
                None => Ok(Some(open)),
                Some(refused) => Err(broken("G12", format!("a good watch was refused: {refused:?}"))),
            };
        }
        // A token is a place in the log: two watchers of one scope may have the same one, and have read it differently.
        let token = &request.resume_token;
        let other = self
            .places
            .range((token.clone(), 0)..)
            .next()
            .filter(|((known, _), _)| known == token);
        let own = self.places.get(&(token.clone(), watcher));
        let is_own = own.is_some();
        let Some(place) = own.or(other.map(|(_, place)| place)) else {
            return Err(broken("G12", "a token that nobody was given".to_owned()));
        };
        let foreign = place.scope != request.scope || place.tenants != tenants;
        let gone = place.life != self.life;
        // The log keeps the last `replay` events.
        let surely_trimmed = before.saturating_sub(place.seen) > self.streams.replay;
        // The snapshot of a successor has a place in the log too.
        let between = &log[place.cursor.min(through)..through];
        let maybe_trimmed =
            between.len() + between.iter().filter(|event| !event.successor.is_empty()).count() > self.streams.replay;
        let code = refused.map(|refused| (refused.code, refused.reason.as_str()));
        match code {
            None if foreign => Err(broken(
                "G12",
                "a resume token was accepted for another scope or caller".to_owned(),
            )),
            None if gone => Err(broken(
                "G12",
                "a resume token of an earlier life was accepted".to_owned(),
            )),
            None if surely_trimmed && !place.initial => Err(broken(
                "G12",
                "a resume token was accepted though the log no longer reaches back to it".to_owned(),
            )),
            None => {
                *tally.entry("resumes".to_owned()).or_default() += 1;
                open.live = true;
                open.cursor = place.cursor;
                open.certain = if is_own { place.cursor } else { place.seen };
                open.may_begin_anew = place.initial;
                open.followed.clone_from(&place.followed);
                open.snapshots.clone_from(&place.snapshots);
                open.last_ended.clone_from(&place.last_ended);
                Ok(Some(open))
            }
            Some((Code::InvalidArgument, _)) if foreign => {
                *tally.entry("foreign tokens refused".to_owned()).or_default() += 1;
                Ok(None)
            }
            Some((Code::OutOfRange, "RESUME_TOKEN_EXPIRED")) if gone || maybe_trimmed => {
                let word = if gone {
                    "tokens of an earlier life refused"
                } else {
                    "trimmed tokens refused"
                };
                *tally.entry(word.to_owned()).or_default() += 1;
                Ok(None)
            }
            Some(code) => Err(broken(
                "G12",
                format!("a resume was refused with {code:?}: foreign {foreign}, gone {gone}"),
            )),
        }
    }

    /// The refs that a watch by name means.
    fn name(&self, open: &mut Open) {
        let Some(scope) = &open.request.scope else { return };
        let Some(Scope::Sessions(names)) = &scope.scope else {
            return;
        };
        for name in &names.names {
            match &name.name {
                Some(Name::SessionId(id)) => {
                    if let Some(reference) = self.ids.get(&(scope.tenant.clone(), id.clone())) {
                        open.ids.insert(reference.clone(), id.clone());
                        open.followed.insert(reference.clone());
                    }
                }
                Some(Name::SessionRef(reference)) => {
                    open.followed.insert(reference.clone());
                }
                None => {}
            }
        }
    }

    fn closed(
        &self,
        watcher: u32,
        open: &Open,
        at: Ns,
        how: Option<&Refused>,
        tally: &mut Tally,
    ) -> Result<(), Violation> {
        match how {
            None => {
                if open.must_be_cut {
                    return Err(broken(
                        "G13",
                        format!("w{watcher} did not read for long and was not cut off"),
                    ));
                }
                if open.stopped.is_some() || !open.live {
                    return Ok(());
                }
                let log = self.log();
                self.nothing_missed(watcher, open, log.partition_point(|event| event.at < at))
            }
            Some(how) if how.code == Code::Ok && open.drained => Ok(()),
            Some(how) if how.reason == "WATCHER_TOO_SLOW" && open.was_stopped => {
                *tally.entry("slow watchers cut off".to_owned()).or_default() += 1;
                Ok(())
            }
            Some(how) => Err(broken(
                "G13",
                format!("w{watcher}, which reads, was ended with {how:?}"),
            )),
        }
    }
}

pub(super) fn scope_of(open: &Open) -> Option<&Scope> {
    open.request.scope.as_ref()?.scope.as_ref()
}

pub(super) fn may_see(open: &Open, tenant: &str) -> bool {
    let own = open.tenants.iter().any(|own| own == tenant);
    own && match (&open.request.scope, scope_of(open)) {
        (_, Some(Scope::Everything(_))) => true,
        (Some(scope), _) => scope.tenant == tenant,
        _ => false,
    }
}

pub(super) fn in_scope(open: &Open, event: &Logged) -> bool {
    let kinds = &open.request.kinds;
    let kind = kinds.is_empty() || kinds.contains(&i32::from(event.kind));
    kind && may_see(open, &event.tenant)
        && match scope_of(open) {
            Some(Scope::Sessions(_)) => open.followed.contains(&event.reference),
            Some(Scope::Subject(subject)) => *subject == event.subject,
            _ => true,
        }
}

/// Whether a snapshot told of it already.
pub(super) fn is_old(open: &Open, event: &Logged) -> bool {
    open.snapshots
        .get(&event.reference)
        .is_some_and(|version| event.version <= *version)
}
