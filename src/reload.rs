//! Follows the policy file: a change is taken over while sessions live. See `docs/adr/0008-the-policy-file-is-polled.md`. Other files
//! that are followed are looked at in the same rhythm: [`Settling`].

use std::{panic::resume_unwind, path::PathBuf, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use tokio::{
    task::{JoinError, JoinHandle},
    time::timeout,
};
use tracing::{info, warn};

use crate::{
    config::{PolicyFile, parse_whole},
    files,
    sessions::Reloaded,
};

/// How often the file is looked at.
const POLL: Duration = Duration::from_secs(2);

/// How long a look may take until that is told.
const LONG: Duration = Duration::from_secs(10);

/// How long after a first look at other content the second one comes, which must see the same: an editor that writes in place
/// leaves half a file for a moment, and half a file can be a valid one.
const SETTLE: Duration = Duration::from_millis(250);

/// What is counted about reloads.
#[derive(Clone)]
pub struct ReloadMeter {
    applied: Counter,
    unchanged: Counter,
    refused: Counter,
    in_force: Gauge,
}

impl ReloadMeter {
    /// A meter whose metrics are in `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let outcomes = Family::<[(&'static str, &'static str); 1], Counter>::default();
        let outcome = |outcome| outcomes.get_or_create_owned(&[("outcome", outcome)]);
        let meter = Self {
            applied: outcome("applied"),
            unchanged: outcome("unchanged"),
            refused: outcome("refused"),
            in_force: Gauge::default(),
        };
        // What was read at start is in force.
        meter.in_force.set(1);
        registry.register(
            "policy_reloads",
            "Contents of the policy file that were read while running, by what became of them",
            outcomes,
        );
        registry.register(
            "policy_file_in_force",
            "1 if the policy file as it is now is in force, 0 if it is bad and older policies are",
            meter.in_force.clone(),
        );
        meter
    }
}

/// Follows a policy file until `stop` is done. Each new content is parsed and given to `apply` once; a bad one is told once and
/// changes nothing. `problem` is told why the file is not in force as it is, or nothing if it is.
///
/// The first look applies what is there, in case the file changed since the start: if it did not, that changes nothing.
pub async fn follow<A, P, S>(path: PathBuf, apply: A, problem: P, meter: ReloadMeter, stop: S)
where
    A: Fn(PolicyFile) -> Result<Reloaded, String> + Send + 'static,
    P: Fn(String) + Send + 'static,
    S: Future<Output = ()>,
{
    tokio::pin!(stop);
    let mut follower = Follower {
        path,
        apply,
        problem,
        meter,
        looks: Settling::new(None),
    };
    loop {
        // In a thread that may hang with a file system: what is applied can name files as well.
        let name = follower.path.display().to_string();
        let looked = tokio::task::spawn_blocking(move || {
            let looked = files::read_text(&follower.path).map_err(|error| format!("cannot be read: {error}"));
            let nap = follower.saw(looked);
            (follower, nap)
        });
        let nap = match in_time_or_told(looked, &name).await.map_err(JoinError::try_into_panic) {
            Ok((back, nap)) => {
                follower = back;
                nap
            }
            Err(Ok(panic)) => resume_unwind(panic),
            // The runtime ends.
            Err(Err(_)) => return,
        };
        tokio::select! {
            () = &mut stop => return,
            () = tokio::time::sleep(nap) => {}
        }
    }
}

/// Waits for a look at files, and tells if that takes long: a file system is away.
pub(crate) async fn in_time_or_told<T>(mut looking: JoinHandle<T>, files: &str) -> Result<T, JoinError> {
    if let Ok(looked) = timeout(LONG, &mut looking).await {
        return looked;
    }
    warn!(
        files,
        "files cannot be read for 10 s, or what they name: what they said before stays in force"
    );
    looking.await
}

/// What a look at the file found: its content, or why there is none.
type Look = Result<String, String>;

/// Tells of looks at something that changes which are news: what is other than before, and the same at two looks.
pub struct Settling<L> {
    /// What was dealt with last.
    settled: Option<L>,
    /// Something else, seen once.
    candidate: Option<L>,
}

impl<L: PartialEq> Settling<L> {
    /// Nothing is news that is like this.
    pub fn new(settled: Option<L>) -> Self {
        Self {
            settled,
            candidate: None,
        }
    }

    /// Whether a look is news, and when to look again.
    pub fn saw(&mut self, look: L) -> (bool, Duration) {
        if self.settled.as_ref() == Some(&look) {
            self.candidate = None;
            return (false, POLL);
        }
        if self.candidate.as_ref() != Some(&look) {
            self.candidate = Some(look);
            return (false, SETTLE);
        }
        self.candidate = None;
        self.settled = Some(look);
        (true, POLL)
    }
}

struct Follower<A, P> {
    path: PathBuf,
    apply: A,
    problem: P,
    meter: ReloadMeter,
    looks: Settling<Look>,
}

impl<A, P> Follower<A, P>
where
    A: Fn(PolicyFile) -> Result<Reloaded, String>,
    P: Fn(String),
{
    /// Deals with a look, and answers when to look again.
    fn saw(&mut self, look: Look) -> Duration {
        let (news, nap) = self.looks.saw(look);
        let Some(look) = self.looks.settled.as_ref().filter(|_| news) else {
            return nap;
        };
        match self.take_over(look) {
            Ok(reloaded) => self.applied(&reloaded),
            Err(error) => {
                self.meter.refused.inc();
                self.meter.in_force.set(0);
                warn!(file = %self.path.display(), %error, "the policy file is bad: the policies stay as they were");
                (self.problem)(error);
            }
        }
        nap
    }

    fn take_over(&self, look: &Look) -> Result<Reloaded, String> {
        let text = look.as_ref().map_err(Clone::clone)?;
        (self.apply)(parse_whole(text).map_err(|error| format!("{error:#}"))?)
    }

    fn applied(&self, reloaded: &Reloaded) {
        let path = &self.path;
        self.meter.in_force.set(1);
        let older = reloaded.kept_newer.iter();
        let older: Vec<_> = older
            .map(|name| format!("[policy.{name}]: its revision is lower than the one in force, which stays"))
            .collect();
        (self.problem)(older.join("; "));
        for name in &reloaded.kept_newer {
            warn!(file = %path.display(), policy = %name, "its revision is lower than the one in force, which stays");
        }
        if reloaded.is_nothing() {
            self.meter.unchanged.inc();
            return;
        }
        self.meter.applied.inc();
        info!(
            file = %path.display(),
            added = %reloaded.added.join(", "),
            changed = %reloaded.changed.join(", "),
            removed = %reloaded.removed.join(", "),
            "the policy file changed; each session follows at its next counted activity"
        );
    }
}

#[cfg(test)]
mod tests;
