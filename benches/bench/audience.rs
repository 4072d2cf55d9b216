//! Watchers without gRPC: how long the core takes to hand one event to thousands of them.

use std::{sync::Arc, time::Duration, time::Instant};

use anyhow::{Context as _, bail};
use session_sidecar::{
    sessions::{Scope, Subscriber, WatchContent},
    state::{Actor, End, EndReason},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{core, report, watch::spread};

#[derive(Debug, clap::Args)]
pub(crate) struct AudienceArgs {
    #[arg(long, default_value_t = 5000)]
    watchers: usize,
    #[arg(long, default_value_t = 20)]
    events: u64,
}

/// Measures from the first delivery to the last.
pub(crate) fn run(args: &AudienceArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let took = runtime.block_on(async {
        let sessions = core::started(args.watchers)?;
        let (told, mut deliveries) = mpsc::unbounded_channel();
        for _ in 0..args.watchers {
            let subscriber = Subscriber {
                scope: Scope::Everything,
                tenants: Arc::new(["".into()]),
                warnings: true,
                cleared: true,
                ends: true,
                resume_token: None,
                heartbeat: Duration::from_secs(300),
                initial_state: false,
            };
            let mut watch = sessions.watch(subscriber, CancellationToken::new()).await?;
            let told = told.clone();
            tokio::spawn(async move {
                while let Some(Ok(message)) = watch.next().await {
                    if matches!(message.content, WatchContent::Event(_) | WatchContent::SnapshotEnd(_)) {
                        let _ = told.send(Instant::now());
                    }
                }
            });
        }
        // The SnapshotEnds, then the events.
        let mut took = Vec::new();
        for event in 0..=args.events {
            if event > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
                core::create(&sessions, event).context("a session is not created")?;
                let end = End {
                    reason: EndReason::Logout,
                    actor: Actor::User,
                    actor_id: "".into(),
                    note: "".into(),
                    at: sessions.clock().now(),
                };
                core::end(&sessions, event, end).await?;
            }
            let mut times = Vec::with_capacity(args.watchers);
            while times.len() < args.watchers {
                match tokio::time::timeout(Duration::from_secs(10), deliveries.recv()).await {
                    Ok(Some(at)) => times.push(at),
                    _ => bail!("only {} watchers were told", times.len()),
                }
            }
            let (first, last) = (times.iter().min(), times.iter().max());
            if let (Some(first), Some(last), true) = (first, last, event > 0) {
                took.push(last.duration_since(*first).as_secs_f32() * 1e3);
            }
        }
        anyhow::Ok(took)
    })?;
    report(&serde_json::json!({ "first_to_last_ms": spread(took) }));
    Ok(())
}
