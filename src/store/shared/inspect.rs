//! What is in a namespace, read for people. Nothing here writes.

use std::{sync::Arc, time::Duration};

use redis::Value;

use super::{
    Fingerprints, Names, Session, Shared, Unavailable, Wire,
    ask::{bytes, int, list},
    body, codec,
    link::Fault,
};
use crate::{
    state::{SessionRef, Tombstone},
    time::{Clock, Time},
};

/// What is fixed for a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceFacts {
    /// How many buckets it has.
    pub buckets: usize,
    /// What identifies its keys.
    pub keys: Fingerprints,
    /// The format of what is written there.
    pub format: i64,
}

/// What is known of a bucket.
#[derive(Debug, Clone, Default)]
pub struct BucketFacts {
    /// Which one.
    pub bucket: usize,
    /// Its epoch; empty: it was never opened.
    pub epoch: String,
    /// Live sessions.
    pub live: u64,
    /// Remembered ends.
    pub remembered: u64,
    /// The number of its last event.
    pub number: u64,
    /// How long ago somebody looked at what is due; unset: nobody ever did.
    pub beat: Option<Duration>,
    /// For how long ends are still held.
    pub held_for: Duration,
    /// How far its time is off the server's clock, in microseconds, because that was set.
    pub correction: i64,
    /// How often it was corrected.
    pub corrections: u64,
}

/// The limits of a revision of a policy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyFacts {
    /// The policy.
    pub policy: String,
    /// Its revision.
    pub revision: u64,
    /// What records call it.
    pub digest: String,
    /// Its idle timeout; unset for a passive one.
    pub idle_timeout: Option<Duration>,
    /// Its absolute timeout.
    pub absolute_timeout: Duration,
}

/// What is in a namespace.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// What is fixed for it; unset: no sidecar was ever there.
    pub namespace: Option<NamespaceFacts>,
    /// Its buckets.
    pub buckets: Vec<BucketFacts>,
    /// The sidecars that are there, and how long ago each said so.
    pub sidecars: Vec<(String, Duration)>,
    /// The policies that records may name. What cannot be read is left out.
    pub policies: Vec<PolicyFacts>,
}

/// A session, as its record says.
pub enum Known {
    /// It is live.
    Live(Arc<Session>),
    /// It has ended and is remembered.
    Ended(Arc<Tombstone>),
    /// It is to go on in the place of another, which may not have been rotated yet.
    Pending {
        /// The other one.
        predecessor: Option<SessionRef>,
    },
}

/// What a wall clock shows at a moment, in microseconds since 1970.
pub(super) fn wall_micros(clock: &Clock, at: Time) -> i64 {
    let since = clock.wall(at).duration_since(std::time::SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// What is fixed for a namespace, if there is one.
pub(super) async fn namespace_facts(wire: &dyn Wire, names: &Names) -> Result<Option<NamespaceFacts>, Fault> {
    let key = names.namespace();
    let mut get = redis::cmd("HMGET");
    get.arg(&key).arg("p").arg("key").arg("format").arg("other");
    let reply = wire.command(&key, get).await?;
    let parts = list(&reply);
    let Some(buckets) = parts.first().and_then(int) else {
        return Ok(None);
    };
    Ok(Some(NamespaceFacts {
        buckets: usize::try_from(buckets).unwrap_or(0),
        keys: fingerprints(parts.get(1), parts.get(3)),
        format: parts.get(2).and_then(int).unwrap_or(0),
    }))
}

/// The keys of a namespace, as it has them written down.
pub(super) fn fingerprints(own: Option<&Value>, other: Option<&Value>) -> Fingerprints {
    Fingerprints {
        own: word(own),
        other: Some(word(other)).filter(|other| !other.is_empty()),
    }
}

/// A short word that may be shown, whoever wrote it.
fn word(value: Option<&Value>) -> String {
    let text = String::from_utf8_lossy(value.and_then(bytes).unwrap_or_default()).into_owned();
    text.chars().filter(char::is_ascii_graphic).take(32).collect()
}

impl Shared {
    /// Reads what is in the namespace.
    pub async fn inspect(&self) -> Result<Inspection, Fault> {
        let namespace = namespace_facts(&*self.link, &self.names).await?;
        let mut buckets = Vec::new();
        for bucket in 0..self.names.buckets() {
            buckets.push(self.inspect_bucket(bucket).await?);
        }
        Ok(Inspection {
            namespace,
            buckets,
            sidecars: self.inspect_sidecars().await?,
            policies: self.inspect_policies().await?,
        })
    }

    async fn inspect_bucket(&self, bucket: usize) -> Result<BucketFacts, Fault> {
        let meta = self.names.meta(bucket);
        let mut get = redis::cmd("HMGET");
        get.arg(&meta);
        for field in ["c", "h", "hold", "n", "k", "e"] {
            get.arg(field);
        }
        let reply = self.link.command(&meta, get).await?;
        let parts = list(&reply);
        let number = |place: usize| parts.get(place).and_then(int);
        let count = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok()).unwrap_or(0);
        let correction = number(0).unwrap_or(0);
        let now = self.server_time(&meta).await? + correction;
        let span = |micros: i64| Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        Ok(BucketFacts {
            bucket,
            epoch: word(parts.get(5)),
            live: count(self.size(self.names.due(bucket)).await?),
            remembered: count(self.size(self.names.ended(bucket)).await?),
            number: count(number(3)),
            beat: number(1).map(|beat| span(now - beat)),
            held_for: span(number(2).unwrap_or(0) - now),
            correction,
            corrections: count(number(4)),
        })
    }

    async fn size(&self, key: Vec<u8>) -> Result<Option<i64>, Fault> {
        let mut size = redis::cmd("ZCARD");
        size.arg(&key);
        Ok(int(&self.link.command(&key, size).await?))
    }

    /// The server's own clock, in microseconds.
    async fn server_time(&self, key: &[u8]) -> Result<i64, Fault> {
        let time = self.link.command(key, redis::cmd("TIME")).await?;
        let parts: Vec<_> = list(&time).iter().filter_map(int).collect();
        Ok(parts.first().unwrap_or(&0) * 1_000_000 + parts.get(1).unwrap_or(&0))
    }

    async fn inspect_sidecars(&self) -> Result<Vec<(String, Duration)>, Fault> {
        let key = self.names.presence();
        let now = self.server_time(&key).await? / 1000;
        let mut range = redis::cmd("ZRANGE");
        range.arg(&key).arg(0).arg(-1).arg("WITHSCORES");
        let reply = self.link.command(&key, range).await?;
        let mut sidecars = Vec::new();
        for (name, at) in scored(&reply) {
            let age = u64::try_from(now.saturating_sub(at)).unwrap_or(0);
            sidecars.push((name, Duration::from_millis(age)));
        }
        Ok(sidecars)
    }

    async fn inspect_policies(&self) -> Result<Vec<PolicyFacts>, Fault> {
        let key = self.names.limits();
        let mut all = redis::cmd("HGETALL");
        all.arg(&key);
        let reply = self.link.command(&key, all).await?;
        let pairs: Vec<(&Value, &Value)> = match &reply {
            Value::Map(pairs) => pairs.iter().map(|(name, value)| (name, value)).collect(),
            other => list(other).chunks_exact(2).map(|pair| (&pair[0], &pair[1])).collect(),
        };
        let mut policies: Vec<_> = pairs
            .into_iter()
            .filter_map(|(digest, value)| {
                let limits: body::Limits = codec::decode(bytes(value)?).ok()?;
                Some(PolicyFacts {
                    policy: limits.policy,
                    revision: limits.revision,
                    digest: word(Some(digest)),
                    idle_timeout: (!limits.passive).then(|| Duration::from_nanos(limits.idle_timeout)),
                    absolute_timeout: Duration::from_nanos(limits.absolute_timeout),
                })
            })
            .collect();
        policies.sort();
        Ok(policies)
    }

    /// Reads one session; `None`: there is none of that name, or it is forgotten.
    pub async fn inspect_session(&self, session: SessionRef) -> Result<Option<Known>, Unavailable> {
        // Whoever only reads need not come in.
        self.joined.store(true, std::sync::atomic::Ordering::Release);
        let answer = self.ask_record(session).await;
        let answer = answer.map_err(|fault| self.unavailable(&fault))?;
        let Some(fields) = answer.fields() else {
            return Ok(None);
        };
        Ok(Some(match self.decode(session, &fields, answer.received).await? {
            codec::Read::Live(session) => Known::Live(Arc::new(session)),
            codec::Read::Ended(tombstone) => Known::Ended(tombstone),
            codec::Read::Pending(duties) => Known::Pending {
                predecessor: codec::reference(&duties.predecessor).ok(),
            },
        }))
    }
}

/// Members and scores: a server may answer them as pairs or in one list, and scores as numbers or as text.
fn scored(value: &Value) -> Vec<(String, i64)> {
    let score = |value: &Value| match value {
        Value::Double(score) => Some(*score as i64),
        other => int(other),
    };
    let values = list(value);
    if values.iter().all(|value| matches!(value, Value::Array(_))) {
        let pairs = values.iter().map(list);
        return pairs
            .filter_map(|pair| Some((word(pair.first()), score(pair.get(1)?)?)))
            .collect();
    }
    values
        .chunks_exact(2)
        .filter_map(|pair| Some((word(Some(&pair[0])), score(&pair[1])?)))
        .collect()
}
