//! Lists: the sessions of a subject, and all sessions from bucket to bucket.

use std::{sync::Arc, time::Duration};

use redis::Value;

use super::{
    Extent, Found, Shared, Unavailable, Wanted,
    ask::{bytes, int, list, text},
    codec,
    link::Fault,
    scripts,
};
use crate::{
    state::{Origin, SessionRef},
    store::Seen,
};

/// How many records are read at once.
const PAGE: usize = 128;

/// A list of a subject is kept as long as a record of a session without end.
const KEPT: Duration = Duration::from_secs(400 * 24 * 3600);

/// For so long a place counts as just taken: the session may not be there yet.
const COMING: Duration = Duration::from_secs(5);

impl Shared {
    fn subject_keys(&self, tenant: &str, subject: &str) -> Vec<Vec<u8>> {
        self.names.subject(tenant, subject).into()
    }

    /// A subject's list: its ticket, all names in it, and those whose place was just taken.
    pub(super) async fn listed(
        &self,
        tenant: &str,
        subject: &str,
    ) -> Result<(u64, Vec<SessionRef>, Vec<SessionRef>), Unavailable> {
        let keys = self.subject_keys(tenant, subject);
        let args = vec![text(COMING.as_millis())];
        let reply = self.call(&scripts::LISTED, keys, args).await;
        let reply = reply.map_err(|fault| self.unavailable(&fault))?;
        let parts = list(&reply);
        let refs = |place: usize| -> Vec<SessionRef> {
            let names = parts.get(place).map(list).unwrap_or_default().iter();
            names.filter_map(read_ref).collect()
        };
        let ticket = parts
            .first()
            .and_then(int)
            .and_then(|ticket| u64::try_from(ticket).ok());
        Ok((ticket.ok_or(Unavailable)?, refs(1), refs(2)))
    }

    /// Puts a session into its subject's list; with a ticket only if nobody else has since.
    pub(super) async fn list(
        &self,
        tenant: &str,
        subject: &str,
        session: SessionRef,
        ticket: Option<u64>,
    ) -> Result<bool, Unavailable> {
        let taken = self.try_list(tenant, subject, session, ticket).await;
        taken.map_err(|fault| self.unavailable(&fault))
    }

    pub(super) async fn try_list(
        &self,
        tenant: &str,
        subject: &str,
        session: SessionRef,
        ticket: Option<u64>,
    ) -> Result<bool, Fault> {
        let keys = self.subject_keys(tenant, subject);
        let args = vec![
            ticket.map(text).unwrap_or_default(),
            session.to_string().into_bytes(),
            text(KEPT.as_millis()),
        ];
        let reply = self.call(&scripts::SUBJECT, keys, args).await?;
        Ok(int(&reply) == Some(1))
    }

    /// Takes an ended session out of its subject's list. If that fails, whoever comes by it does.
    pub(super) async fn unlist(&self, origin: &Origin, session: SessionRef) {
        let (tenant, subject) = (origin.identity.tenant(), origin.identity.subject());
        if subject.is_empty() {
            return;
        }
        let keys = self.subject_keys(tenant, subject);
        let mut remove = redis::cmd("ZREM");
        remove.arg(&keys[0]).arg(session.to_string());
        if let Err(fault) = self.link.command(&keys[0], remove).await {
            let _ = self.unavailable(&fault);
        }
    }

    /// Takes names out of a subject's list that nobody has any more.
    pub(super) async fn tidy(&self, tenant: &str, subject: &str, names: &[SessionRef], reserved: &[SessionRef]) {
        let keys = self.subject_keys(tenant, subject);
        let mut remove = redis::cmd("ZREM");
        remove.arg(&keys[0]);
        let mut any = false;
        for name in names.iter().filter(|name| !reserved.contains(name)) {
            if matches!(self.read(*name).await, Ok(Found::Ended(_) | Found::Unknown { .. })) {
                remove.arg(name.to_string());
                any = true;
            }
        }
        if any && let Err(fault) = self.link.command(&keys[0], remove).await {
            let _ = self.unavailable(&fault);
        }
    }

    /// Walks from bucket to bucket, which are in the order of refs, until enough are found.
    pub(super) async fn scan_buckets(
        &self,
        extent: Extent,
        wanted: &Arc<Wanted>,
    ) -> Result<Vec<SessionRef>, Unavailable> {
        let begin = extent.after.map_or(0, |after| self.names.bucket(after));
        let mut found = Vec::new();
        for bucket in begin..self.names.buckets() {
            for page in self.names_at(bucket, extent).await?.chunks(PAGE) {
                let reads = page.iter().map(|name| self.look(*name));
                for (name, looked) in page.iter().zip(futures_util::future::join_all(reads).await) {
                    let is_wanted = match looked? {
                        Found::Live(session) => extent.live && wanted(&Seen::Live(&session)),
                        Found::Ended(end) => extent.ended && wanted(&Seen::Ended(*name, &end)),
                        Found::Unknown { .. } => false,
                    };
                    if is_wanted {
                        found.push(*name);
                    }
                    if found.len() >= extent.most {
                        return Ok(found);
                    }
                }
            }
        }
        Ok(found)
    }

    /// A record, without keeping a copy: a scan must not drive out what is in use.
    async fn look(&self, session: SessionRef) -> Result<Found, Unavailable> {
        if let Some(known) = self.copy(session, self.clock.now()) {
            return Ok(Found::Live(known));
        }
        let answer = self.ask_record(session).await;
        let answer = answer.map_err(|fault| self.unavailable(&fault))?;
        let Some(fields) = answer.fields() else {
            return Ok(Found::Unknown { may_have_ended: false });
        };
        match self.decode(session, &fields, answer.received).await {
            Ok(codec::Read::Live(live)) => Ok(Found::Live(Arc::new(live))),
            Ok(codec::Read::Ended(end)) if !end.silent && end.forget_at > answer.received => Ok(Found::Ended(end)),
            // One that nobody can read is no reason to hide all others.
            Ok(_) | Err(Unavailable) => Ok(Found::Unknown { may_have_ended: false }),
        }
    }

    /// The names in a bucket, in order.
    async fn names_at(&self, bucket: usize, extent: Extent) -> Result<Vec<SessionRef>, Unavailable> {
        let mut names = Vec::new();
        // Live ones first: what ends meanwhile is then among the ended ones.
        let indexes = [
            (extent.live, self.names.due(bucket)),
            (extent.ended, self.names.ended(bucket)),
        ];
        for (_, key) in indexes.into_iter().filter(|(wanted, _)| *wanted) {
            let mut range = redis::cmd("ZRANGE");
            range.arg(&key).arg(0).arg(-1);
            let reply = self.link.command(&key, range).await;
            let reply = reply.map_err(|fault| self.unavailable(&fault))?;
            names.extend(list(&reply).iter().filter_map(read_ref));
        }
        names.retain(|name| extent.after.is_none_or(|after| *name > after));
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }
}

/// A ref in an answer.
pub(super) fn read_ref(value: &Value) -> Option<SessionRef> {
    std::str::from_utf8(bytes(value)?).ok()?.parse().ok()
}
