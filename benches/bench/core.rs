//! The core without gRPC: what a touch costs where it is judged.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures_util::FutureExt as _;
use prometheus_client::registry::Registry;
use session_sidecar::{
    audit::Audit,
    driver,
    sessions::{Create, Follow, Meter, Name, Sessions, Setup},
    state::{Activity, End, Limits, Policy, Unmatched},
    store::MemoryCaps,
    time::Clock,
};

use crate::{
    load::{Random, write_id},
    report,
};

#[derive(Debug, clap::Args)]
pub(crate) struct CoreArgs {
    #[arg(long, default_value_t = 1_000_000)]
    sessions: u64,
    #[arg(long, default_value_t = 1)]
    threads: u64,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// A core that runs, with the threads of the real program.
pub(crate) fn started(max_watchers: usize) -> anyhow::Result<Arc<Sessions>> {
    let hour = Duration::from_secs(3600);
    let limits = Limits {
        policy: "default".into(),
        idle_timeout: hour,
        absolute_timeout: 12 * hour,
        idle_points: [hour / 30, hour / 60].into(),
        absolute_points: [hour / 6, hour / 30].into(),
        unmatched: Unmatched::Count,
        max_extensions: None,
        tombstone_ttl: 24 * hour,
        ..Limits::default()
    };
    let policy = Policy {
        limits: Arc::new(limits),
        ..Policy::default()
    };
    let sessions = Sessions::new(
        Setup {
            clock: Clock::system(),
            master_key: vec![7; 32],
            other_key: None,
            policies: BTreeMap::from([("default".to_owned(), policy)]),
            caps: MemoryCaps {
                max_sessions: usize::MAX >> 3,
                max_tombstones: 1_000_000,
            },
            replay_events: 262_144,
            mailbox_size: 8192,
            max_watchers,
            audit: Audit::default(),
        },
        Meter::register(&mut Registry::default()),
    );
    let alarm = Arc::clone(sessions.alarm());
    driver::spawn_thread(
        "driver",
        driver::run(Arc::clone(&sessions), sessions.clock().clone(), alarm),
    )?;
    driver::spawn_thread("router", Arc::clone(sessions.router()).run())?;
    Ok(sessions)
}

/// Fills a core and touches random sessions of it.
pub(crate) fn run(args: &CoreArgs) -> anyhow::Result<()> {
    let sessions = started(1)?;
    for number in 0..args.sessions {
        create(&sessions, number).with_context(|| format!("session {number} is not created"))?;
    }
    let stop = AtomicBool::new(false);
    let begin = Instant::now();
    let touched: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (1..=args.threads)
            .map(|thread| {
                let (sessions, stop) = (&sessions, &stop);
                scope.spawn(move || touch_until(sessions, thread, args.sessions, stop))
            })
            .collect();
        std::thread::sleep(Duration::from_secs_f64(args.seconds));
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    report(&serde_json::json!({ "per_second": touched as f64 / begin.elapsed().as_secs_f64() }));
    Ok(())
}

fn touch_until(sessions: &Sessions, seed: u64, count: u64, stop: &AtomicBool) -> u64 {
    let mut random = Random(0x9e37_79b9_7f4a_7c15 * seed);
    let mut touched = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..256 {
            let mut id = [0; 24];
            write_id(random.below(count), &mut id);
            let name = Name {
                tenant: "",
                session_id: std::str::from_utf8(&id).unwrap_or_default(),
                follow: Follow::Alias,
            };
            // In memory a touch never waits.
            let answer = sessions
                .touch(name, Activity::User, None, Duration::ZERO)
                .now_or_never();
            touched += u64::from(matches!(answer, Some(Ok(_))));
        }
    }
    touched
}

/// Creates a session by its number.
pub(crate) fn create(sessions: &Sessions, number: u64) -> Option<()> {
    let mut id = [0; 24];
    write_id(number, &mut id);
    let created = sessions.create(Create {
        session_id: Some(std::str::from_utf8(&id).ok()?),
        policy: "default",
        ..Create::default()
    });
    created.now_or_never()?.ok().map(|_| ())
}

/// Ends a session by its number.
pub(crate) async fn end(sessions: &Sessions, number: u64, end: End) -> anyhow::Result<()> {
    let mut id = [0; 24];
    write_id(number, &mut id);
    let name = Name {
        tenant: "",
        session_id: std::str::from_utf8(&id)?,
        follow: Follow::Alias,
    };
    sessions.end(name, end, None).await?;
    Ok(())
}
