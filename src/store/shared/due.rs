//! Who looks at what is due: anybody may, and correctness needs no owner. A script ranks the sidecars that are there; each looks
//! at its own buckets at once, and at those of two others a moment later, in case they have gone.

use std::{sync::Arc, time::Duration};

use super::{
    Session, Shared, Unavailable,
    ask::{Question, Timed, fields, text},
    codec::Read,
    scripts,
};
use crate::{state::SessionRef, time::Time};

/// A session that somebody must look at.
pub struct DueSession {
    /// The session, as its record says.
    pub session: Arc<Session>,
    /// The sessions that must end because this one began.
    pub supersedes: Vec<SessionRef>,
}

/// What is due in a bucket.
pub struct Due {
    /// The sessions.
    pub sessions: Vec<DueSession>,
    /// When to look next.
    pub next: Time,
}

/// So many at once keep the server's block near a millisecond.
const AT_ONCE: usize = 100;

/// How often those look whose turn is the first, the second, the third, and what they leave to those before them.
const TURNS: [(Duration, Duration); 3] = [
    (Duration::from_millis(250), Duration::ZERO),
    (Duration::from_millis(500), Duration::from_millis(500)),
    (Duration::from_millis(750), Duration::from_millis(750)),
];

/// How often those look whether it is their turn whose it is not.
const IDLE: Duration = Duration::from_secs(1);

impl Shared {
    /// How many buckets there are.
    #[must_use]
    pub fn buckets(&self) -> usize {
        self.names.buckets()
    }

    /// How soon after the first this sidecar looks at a bucket; `None` if others do.
    fn turn(&self, bucket: usize) -> Option<usize> {
        let (rank, count) = *self.rank.lock();
        let count = count.max(1);
        let turn = (rank + count - bucket % count) % count;
        if turn < TURNS.len() {
            return Some(turn);
        }
        // Those whose turn it is are gone, and it is not known yet.
        self.buckets[bucket].is_neglected().then_some(TURNS.len() - 1)
    }

    /// Looks at what is due in a bucket, if it is this sidecar's turn.
    pub async fn due(&self, bucket: usize) -> Result<Due, Unavailable> {
        let Some(turn) = self.turn(bucket) else {
            return Ok(Due {
                sessions: Vec::new(),
                next: self.clock.now() + IDLE,
            });
        };
        let (period, leaves) = TURNS[turn];
        let question = Question {
            script: &scripts::DUE,
            bucket,
            keys: self.names.indexes(bucket),
            args: self.due_args(bucket, AT_ONCE, leaves, false),
            timed: Timed::Now,
        };
        let answer = self.ask(question).await.map_err(|fault| self.unavailable(&fault))?;
        self.buckets[bucket].count(&answer.head, answer.int(1), answer.int(2));
        let mut sessions = Vec::new();
        for pair in answer.rest.get(3..).unwrap_or_default().chunks_exact(2) {
            let name = super::ask::bytes(&pair[0]).and_then(|name| std::str::from_utf8(name).ok()?.parse().ok());
            let Some(name) = name else { continue };
            let Some(fields) = fields(&pair[1]) else {
                self.meter.unreadable.inc();
                tracing::error!(session = %name, "a record cannot be read: somebody else wrote it");
                self.put_off(bucket, name).await;
                continue;
            };
            match self.decode(name, &fields, answer.received).await {
                Ok(Read::Live(session)) => sessions.push(DueSession {
                    session: Arc::new(session),
                    supersedes: Self::duties_of(&fields),
                }),
                Ok(Read::Pending(duties)) => {
                    // Whatever becomes of it, somebody looks again.
                    let _ = self.settle(name, &fields, duties).await;
                }
                Ok(Read::Ended(_)) => {}
                // Said already; it must not keep others from their turn.
                Err(Unavailable) => self.put_off(bucket, name).await,
            }
        }
        let now = self.clock.now();
        let next = match answer.int(0) {
            _ if !sessions.is_empty() => now,
            Some(next) if next >= 0 => self.moment_of(bucket, next) + leaves,
            _ => now + period,
        };
        if let Some(first) = sessions.first() {
            let due = first.session.read(|view| view.plain_deadlines().expire().0);
            self.meter.sweep_lag(now.since(due.min(now)));
        }
        Ok(Due {
            sessions,
            next: next.clamp(now + Duration::from_millis(1), now + period),
        })
    }

    /// What the script is told behind the time.
    pub(super) fn due_args(&self, bucket: usize, most: usize, leaves: Duration, holds_ends: bool) -> Vec<Vec<u8>> {
        vec![
            text(most),
            text(leaves.as_micros()),
            text(u8::from(holds_ends)),
            self.names.records(bucket),
            text(u8::from(self.buckets[bucket].is_unsure(self.clock.now()))),
        ]
    }

    fn moment_of(&self, bucket: usize, micros: i64) -> Time {
        super::codec::Scale {
            skew: self.buckets[bucket].bounds().0,
        }
        .read(micros)
    }

    /// A record that cannot be read now is looked at again in a moment, and keeps no other one from its turn.
    async fn put_off(&self, bucket: usize, name: SessionRef) {
        let key = self.names.due(bucket);
        let mut put = redis::cmd("ZADD");
        let (least, _) = self.buckets[bucket].bounds();
        let at = super::codec::Scale { skew: least }.write(self.clock.now() + Duration::from_secs(2));
        put.arg(&key).arg("XX").arg(at).arg(name.to_string());
        if let Err(fault) = self.link.command(&key, put).await {
            let _ = self.unavailable(&fault);
        }
    }
}
