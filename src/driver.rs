//! The only place that sleeps. It asks for a step, sleeps until the next one is due, and is woken if something becomes due
//! earlier. In production it has a thread of its own, so that a saturated runtime cannot delay it; under test it runs in
//! tokio's virtual time.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use tokio::sync::Notify;

use crate::time::{Clock, Time};

/// It looks at the clock at least this often: that is how a gap (suspend, SIGSTOP) is noticed.
pub const BEAT: Duration = Duration::from_secs(1);

/// What is driven.
pub trait Work: Send + Sync {
    /// Does what is due, or part of it.
    fn step(&self) -> impl Future<Output = Step> + Send;
}

/// What a step leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// More is due.
    Again,
    /// Nothing is due before then.
    Until(Time),
}

/// Wakes the driver when something becomes due before it meant to wake.
#[derive(Default)]
pub struct Alarm {
    sleeps_until: AtomicU64,
    ring: Notify,
}

impl Alarm {
    /// Something is due at `at`.
    pub fn due(&self, at: Time) {
        if at.as_nanos() < self.sleeps_until.load(Ordering::SeqCst) {
            self.ring.notify_one();
        }
    }

    /// The clock was moved.
    pub fn clock_moved(&self) {
        self.ring.notify_one();
    }
}

/// Drives for ever.
pub async fn run<W: Work>(work: Arc<W>, clock: Clock, alarm: Arc<Alarm>) {
    loop {
        // Whatever is armed from here on rings, until the step has said how long to sleep.
        alarm.sleeps_until.store(u64::MAX, Ordering::SeqCst);
        let until = match work.step().await {
            Step::Again => {
                tokio::task::yield_now().await;
                continue;
            }
            Step::Until(until) => until,
        };
        alarm.sleeps_until.store(until.as_nanos(), Ordering::SeqCst);
        let nap = until.since(clock.now()).min(BEAT);
        tokio::select! {
            () = tokio::time::sleep(nap) => {}
            () = alarm.ring.notified() => {}
        }
    }
}

/// Runs a task that must never end on a thread of its own. If it ends, by a panic or otherwise, the process ends: a sidecar
/// that answers but never warns is worse than a restart.
pub fn spawn_thread<F>(name: &'static str, task: F) -> std::io::Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _guard = AbortOnDrop(name);
        runtime.block_on(task);
    })?;
    Ok(())
}

struct AbortOnDrop(&'static str);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        tracing::error!(thread = self.0, "a thread that must not end has ended");
        std::process::abort();
    }
}
