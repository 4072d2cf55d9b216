//! What sharing a store costs, and how late other sidecars hear of what happens.

use std::{
    collections::HashMap,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use session_sidecar::{
    sessions::{Watch, WatchContent},
    state::{Activity, Happening, HoldKind, HoldWish, Limits, SessionRef},
};

use crate::{
    fleet::{Fleet, Id, StoreArgs},
    load::Random,
    report,
    watch::spread,
};

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, clap::Args)]
pub(crate) struct CostArgs {
    #[command(flatten)]
    store: StoreArgs,
    /// The process of the server.
    #[arg(long)]
    pid: u32,
    /// Ends a second, of all sidecars together.
    #[arg(long, default_value_t = 50.0)]
    ends: f64,
    /// How long each is measured, in seconds.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
}

/// Measures what a fleet asks of its store: while nothing happens, and while sessions end.
pub(crate) fn cost(args: &CostArgs) -> anyhow::Result<()> {
    two_threads(async {
        let limits = limits(HOUR, Duration::ZERO);
        let fleet = Fleet::start(&args.store, limits, None).await?;
        // Until all look when it is their turn.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let idle = Cost::of(&fleet, args).await?;
        let all = (args.ends * (args.seconds + 1.0)) as u64;
        let begun = Instant::now();
        // The first ends when all are created and settled.
        let first = Duration::from_secs_f64(1.0 + all as f64 / 1000.0);
        let ends = (0..all).map(|number| {
            let end = first + Duration::from_secs_f64(number as f64 / args.ends);
            (number, HOUR - end.saturating_sub(begun.elapsed()))
        });
        let mut watch = fleet.watch(args.store.sidecars - 1).await?;
        fleet.create(ends).await?;
        if begun.elapsed() > first {
            bail!("the sessions were created too slowly");
        }
        tokio::time::sleep((first + Duration::from_millis(500)).saturating_sub(begun.elapsed())).await;
        let busy = Cost::of(&fleet, args).await?;
        let ended = until_told(&mut watch, all, |_, _| ()).await?;
        report(&serde_json::json!({
            "idle": idle.told(args),
            "busy": busy.told(args),
            "ended": ended,
            "failed_calls": fleet.failed()?,
        }));
        Ok(())
    })
}

/// What was asked of a store in a while.
struct Cost {
    processor: f64,
    looks: u64,
    beats: u64,
}

impl Cost {
    async fn of(fleet: &Fleet, args: &CostArgs) -> anyhow::Result<Self> {
        let so_far = || {
            anyhow::Ok(Self {
                processor: cpu_seconds(args.pid)?,
                looks: fleet.called("due")?,
                beats: fleet.called("beat")?,
            })
        };
        let before = so_far()?;
        tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
        let after = so_far()?;
        Ok(Self {
            processor: after.processor - before.processor,
            looks: after.looks - before.looks,
            beats: after.beats - before.beats,
        })
    }

    fn told(&self, args: &CostArgs) -> serde_json::Value {
        serde_json::json!({
            "cpu": self.processor / args.seconds,
            "looks": self.looks as f64 / args.seconds,
            "beats": self.beats as f64 / args.seconds,
        })
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct WritesArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[arg(long, default_value_t = 100)]
    sessions: u64,
    /// Touches of each session in a window.
    #[arg(long, default_value_t = 10.0)]
    touches: f64,
    /// The window, in seconds.
    #[arg(long, default_value_t = 1.0)]
    window: f64,
    /// How many windows long.
    #[arg(long, default_value_t = 10)]
    windows: u32,
    /// Keep a WORK hold on each session.
    #[arg(long)]
    held: bool,
}

/// Counts what touches write to the store.
pub(crate) fn writes(args: &WritesArgs) -> anyhow::Result<()> {
    two_threads(async {
        let window = Duration::from_secs_f64(args.window);
        let fleet = Fleet::start(&args.store, limits(HOUR, Duration::ZERO), Some(window)).await?;
        fleet
            .create((0..args.sessions).map(|number| (number, Duration::ZERO)))
            .await?;
        if args.held {
            for number in 0..args.sessions {
                hold(&fleet, number).await?;
            }
        }
        let mut touching = Touching {
            fleet: &fleet,
            args,
            begun: Instant::now(),
            done: 0,
        };
        touching.until(2 * window).await?;
        let before = Writes::so_far(&fleet, args.store.port)?;
        let done = touching.done;
        touching.until((2 + args.windows) * window).await?;
        let after = Writes::so_far(&fleet, args.store.port)?;
        let windows = args.sessions as f64 * f64::from(args.windows);
        let in_each = |before: u64, after: u64| (after - before) as f64 / windows;
        report(&serde_json::json!({
            "touches": in_each(done, touching.done),
            "writes": in_each(before.of_activity, after.of_activity),
            "calls": in_each(before.calls, after.calls),
        }));
        Ok(())
    })
}

async fn hold(fleet: &Fleet, number: u64) -> anyhow::Result<()> {
    let wish = HoldWish {
        id: "bench".into(),
        kind: HoldKind::Work,
        ttl: HOUR,
        purpose: "".into(),
    };
    fleet.member(0).hold(Id::of(number).name(), wish).await?;
    Ok(())
}

/// Touches sessions in turn, evenly and at all sidecars.
struct Touching<'a> {
    fleet: &'a Fleet,
    args: &'a WritesArgs,
    begun: Instant,
    done: u64,
}

impl Touching<'_> {
    async fn until(&mut self, end: Duration) -> anyhow::Result<()> {
        let rate = self.args.sessions as f64 * self.args.touches / self.args.window;
        while self.begun.elapsed() < end {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let due = (self.begun.elapsed().as_secs_f64() * rate) as u64;
            try_join_all((self.done..due).map(|touch| self.touch(touch))).await?;
            self.done = due;
        }
        Ok(())
    }

    async fn touch(&self, touch: u64) -> anyhow::Result<()> {
        let sessions = self.args.sessions;
        let member = self.fleet.member((touch / sessions) as usize);
        let id = Id::of(touch % sessions);
        member.touch(id.name(), Activity::User, None, Duration::ZERO).await?;
        Ok(())
    }
}

/// How often activity was written so far, and how many calls concerned sessions at all.
struct Writes {
    of_activity: u64,
    calls: u64,
}

impl Writes {
    fn so_far(fleet: &Fleet, port: u16) -> anyhow::Result<Self> {
        let house = fleet.called("policies")? + fleet.called("presence")?;
        // What touches came to is kept for a while from when it is told, and so is what each sidecar says of itself.
        let told = commands(port, "pexpire")?.saturating_sub(house);
        // Each look at what is due gives a heartbeat.
        let others = fleet.called("due")? + fleet.called("policies")? + told;
        Ok(Self {
            of_activity: commands(port, "hset")?.saturating_sub(others),
            calls: fleet.called("raise")? + fleet.called("commit")? + fleet.called("tally")?,
        })
    }
}

/// How often a server has run a command, in scripts or not.
fn commands(port: u16, name: &str) -> anyhow::Result<u64> {
    let mut connection = ::redis::Client::open(("127.0.0.1", port))?.get_connection()?;
    let stats: String = ::redis::cmd("INFO").arg("commandstats").query(&mut connection)?;
    let mark = format!("cmdstat_{name}:calls=");
    let calls = stats
        .lines()
        .find_map(|line| line.strip_prefix(&mark)?.split(',').next());
    Ok(calls.unwrap_or("0").parse()?)
}

#[derive(Debug, clap::Args)]
pub(crate) struct ElsewhereArgs {
    #[command(flatten)]
    store: StoreArgs,
    #[arg(long, default_value_t = 2000)]
    sessions: u64,
    /// The idle timeout, in seconds.
    #[arg(long, default_value_t = 12.0)]
    idle_timeout: f64,
    /// How long before the deadline to warn, in seconds.
    #[arg(long, default_value_t = 4.0)]
    lead: f64,
    /// The window, in seconds.
    #[arg(long, default_value_t = 1.0)]
    window: f64,
}

/// How often each session is touched.
const TOUCHES: u64 = 4;

/// Measures from a session's last touch to its warning and its end at the watcher of a sidecar that was not touched: how much later
/// they come than by the idle timeout.
pub(crate) fn elsewhere(args: &ElsewhereArgs) -> anyhow::Result<()> {
    two_threads(async {
        let seconds = Duration::from_secs_f64;
        let (idle, lead, window) = (seconds(args.idle_timeout), seconds(args.lead), seconds(args.window));
        let fleet = Fleet::start(&args.store, limits(idle, lead), Some(window)).await?;
        let mut watch = fleet.watch(args.store.sidecars - 1).await?;
        fleet
            .create((0..args.sessions).map(|number| (number, Duration::ZERO)))
            .await?;
        let touched = touch_at_random(&fleet, args, (idle - lead) / 2).await?;
        let (mut warnings, mut ends) = (Vec::new(), Vec::new());
        until_told(&mut watch, args.sessions, |session, happening| {
            let since = touched
                .get(session)
                .map_or(Duration::ZERO, Instant::elapsed)
                .as_secs_f64();
            let late = |due: Duration| ((since - due.as_secs_f64()) * 1e3) as f32;
            match happening {
                Happening::Warning { .. } => warnings.push(late(idle - lead)),
                _ => ends.push(late(idle)),
            }
        })
        .await?;
        report(&serde_json::json!({ "warnings": spread(warnings), "ends": spread(ends) }));
        Ok(())
    })
}

/// Touches sessions at all sidecars but the last one, and tells when each was touched for the last time.
async fn touch_at_random(
    fleet: &Fleet,
    args: &ElsewhereArgs,
    span: Duration,
) -> anyhow::Result<HashMap<SessionRef, Instant>> {
    let (begun, all) = (Instant::now(), args.sessions * TOUCHES);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let (mut touched, mut done) = (HashMap::new(), 0);
    while done < all {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let part = begun.elapsed().as_secs_f64() / span.as_secs_f64();
        let due = ((all as f64 * part) as u64).min(all);
        // The last ones in turn, so that none is left out.
        try_join_all((done..due).map(|touch| {
            let number = if touch < all - args.sessions {
                random.below(args.sessions)
            } else {
                all - touch - 1
            };
            let member = fleet.member(random.below(args.store.sidecars as u64 - 1) as usize);
            let id = Id::of(number);
            touched.insert(member.session_ref(id.name()), Instant::now());
            async move {
                member.touch(id.name(), Activity::User, None, Duration::ZERO).await?;
                anyhow::Ok(())
            }
        }))
        .await?;
        done = due;
    }
    Ok(touched)
}

/// Reads a watch until so many sessions have ended, and tells how many have.
async fn until_told(
    watch: &mut Watch,
    ends: u64,
    mut told: impl FnMut(&SessionRef, &Happening),
) -> anyhow::Result<u64> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let mut ended = 0;
    while ended < ends {
        let message = tokio::time::timeout(PATIENCE, watch.next()).await;
        let message = message.with_context(|| format!("only {ended} ends were told"))?;
        if let WatchContent::Event(event) = message.context("the watch ended")??.content {
            told(&event.session, &event.what);
            ended += u64::from(matches!(event.what, Happening::Ended(_)));
        }
    }
    Ok(ended)
}

/// A policy that says no more than this.
fn limits(idle_timeout: Duration, lead: Duration) -> Limits {
    let idle_points = [lead].into_iter().filter(|lead| !lead.is_zero());
    Limits {
        policy: "default".into(),
        idle_timeout,
        absolute_timeout: 12 * HOUR,
        idle_points: idle_points.collect(),
        tombstone_ttl: HOUR,
        ..Limits::default()
    }
}

/// Processor time of a process, of all its threads.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(thread?.path().join("schedstat"))?;
        let on_processor = stat.split(' ').next().context("a schedstat without a number")?;
        nanos += on_processor.parse::<u64>()?;
    }
    Ok(nanos as f64 / 1e9)
}

fn two_threads<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(task)
}
