//! Load: sessions by number, created, touched one by one or in batches.

use std::{
    cell::Cell,
    fs,
    rc::Rc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, bail};
use prost::Message as _;
use session_sidecar::rpc::proto::v1;
use tokio::task::LocalSet;

use crate::{
    http2::{self, Calls, LOCALHOST, OPEN, Options, Target},
    report,
};

const SERVICE: &str = "/sessionsidecar.v1.SessionService";

/// How long any load may take at most.
const LONGEST: Duration = Duration::from_secs(600);

/// The id of a session by its number: 24 bytes.
pub(crate) fn write_id(number: u64, id: &mut [u8; 24]) {
    id.copy_from_slice(b"bench-session-0000000000");
    let mut rest = number;
    for place in (14..24).rev() {
        id[place] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

/// Numbers that look random: xorshift.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(bound)) >> 64) as u64
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct TouchArgs {
    /// The server.
    #[arg(long)]
    target: Target,
    /// Its process, to read what processor time it takes.
    #[arg(long)]
    pid: u32,
    /// How many sessions there are.
    #[arg(long)]
    ids: u64,
    /// Ids in one call: 1 is Touch, more is `BatchTouch`.
    #[arg(long, default_value_t = 1)]
    batch: usize,
    #[arg(long, default_value_t = 10)]
    connections: usize,
    /// Calls at a time on each connection.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// The `:authority` that the client sends.
    #[arg(long, default_value = LOCALHOST)]
    authority: String,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
}

#[derive(Default)]
struct Tally {
    ok: Cell<u64>,
    failed: Cell<u64>,
    stop: Cell<bool>,
}

struct Touches {
    tally: Rc<Tally>,
    random: Random,
    ids: u64,
    batch: usize,
}

impl Calls for Touches {
    fn request(&mut self, message: &mut Vec<u8>) -> bool {
        if self.tally.stop.get() {
            return false;
        }
        for _ in 0..self.batch {
            let mut id = [0; 24];
            write_id(self.random.below(self.ids), &mut id);
            if self.batch > 1 {
                // BatchTouchRequest.touches, 26 bytes.
                message.extend_from_slice(&[0x0a, 26]);
            }
            // TouchRequest.session_id, 24 bytes.
            message.extend_from_slice(&[0x12, 24]);
            message.extend_from_slice(&id);
        }
        true
    }

    fn message(&mut self, stream: u32, message: &[u8]) {
        // All of them would cost more than the touches; the status is read of all.
        if self.batch == 1 || stream % 64 != 1 {
            return;
        }
        let all_touched = v1::BatchTouchResponse::decode(message).is_ok_and(|answer| {
            let touched =
                |outcome: &v1::TouchOutcome| matches!(outcome.outcome, Some(v1::touch_outcome::Outcome::Touch(_)));
            answer.outcomes.len() == self.batch && answer.outcomes.iter().all(touched)
        });
        if !all_touched {
            self.tally.failed.set(self.tally.failed.get() + 1);
        }
    }

    fn over(&mut self, _: u32, ok: bool) {
        let tally = if ok { &self.tally.ok } else { &self.tally.failed };
        tally.set(tally.get() + 1);
    }
}

/// Touches random sessions for a while.
pub(crate) fn touch(args: &TouchArgs) -> anyhow::Result<()> {
    let tally = Rc::new(Tally::default());
    let method = if args.batch == 1 { "Touch" } else { "BatchTouch" };
    let path = format!("{SERVICE}/{method}");
    let options = Options {
        path: &path,
        authority: &args.authority,
        in_flight: args.streams,
        window: OPEN,
    };
    let measured = one_thread(async {
        let callers = (0..args.connections).map(|connection| {
            let mut touches = Touches {
                tally: Rc::clone(&tally),
                random: Random(0x9e37_79b9_7f4a_7c15 * (connection as u64 + 1)),
                ids: args.ids,
                batch: args.batch,
            };
            async move { http2::call(&args.target, options, &mut touches).await }
        });
        let clock = async {
            tokio::time::sleep(Duration::from_secs_f64(args.warm_up)).await;
            let (begin, ok, cpu) = (Instant::now(), tally.ok.get(), cpu_ticks(args.pid)?);
            tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
            let (took, done) = (begin.elapsed().as_secs_f64(), tally.ok.get() - ok);
            let ticks = cpu_ticks(args.pid)? - cpu;
            tally.stop.set(true);
            anyhow::Ok((took, done, ticks))
        };
        let (measured, ended) = tokio::join!(clock, futures_util::future::join_all(callers));
        for end in ended {
            end.context("a connection failed")?;
        }
        measured
    })?;
    let (seconds, calls, ticks) = measured;
    if tally.failed.get() > 0 || calls == 0 {
        bail!("{} calls failed, {calls} succeeded", tally.failed.get());
    }
    report(&serde_json::json!({
        "per_second": calls as f64 * args.batch as f64 / seconds,
        // Ticks are hundredths of a second.
        "cpu_us": ticks as f64 * 1e4 / (calls as f64 * args.batch as f64),
        "calls": calls,
    }));
    Ok(())
}

#[derive(Debug, clap::Args)]
pub(crate) struct FillArgs {
    /// The server.
    #[arg(long)]
    target: Target,
    /// How many sessions.
    #[arg(long)]
    sessions: u64,
    /// Give each a subject of 36 bytes.
    #[arg(long)]
    subjects: bool,
    /// The policy's idle timeout, in seconds.
    #[arg(long, default_value_t = 3600.0)]
    idle_timeout: f64,
    /// When the first idle deadline is due, in seconds of Unix time; without it all sessions are fresh.
    #[arg(long)]
    first_end: Option<f64>,
    /// Seconds from the first deadline to the last.
    #[arg(long, default_value_t = 60.0)]
    spread: f64,
}

struct Creates<'a> {
    args: &'a FillArgs,
    next: &'a Cell<u64>,
    tally: &'a Tally,
}

impl Calls for Creates<'_> {
    fn request(&mut self, message: &mut Vec<u8>) -> bool {
        let number = self.next.get();
        if number >= self.args.sessions {
            return false;
        }
        self.next.set(number + 1);
        let mut id = [0; 24];
        write_id(number, &mut id);
        let idle_for = self.args.first_end.map(|first| {
            let end = first + self.args.spread * number as f64 / self.args.sessions as f64;
            let idle_for = (self.args.idle_timeout - (end - unix_now())).max(0.0);
            prost_types::Duration {
                seconds: idle_for as i64,
                nanos: (idle_for.fract() * 1e9) as i32,
            }
        });
        let create = v1::CreateRequest {
            session_id: String::from_utf8_lossy(&id).into_owned(),
            subject: if self.args.subjects {
                format!("user-00000000-0000-0000-{number:012}")
            } else {
                String::new()
            },
            idle_for,
            ..Default::default()
        };
        create.encode(message).is_ok()
    }

    fn message(&mut self, _: u32, _: &[u8]) {}

    fn over(&mut self, _: u32, ok: bool) {
        let tally = if ok { &self.tally.ok } else { &self.tally.failed };
        tally.set(tally.get() + 1);
    }
}

/// Creates sessions.
pub(crate) fn fill(args: &FillArgs) -> anyhow::Result<()> {
    let (next, tally) = (Cell::new(0), Tally::default());
    let path = format!("{SERVICE}/Create");
    let options = Options {
        path: &path,
        authority: LOCALHOST,
        in_flight: 32,
        window: OPEN,
    };
    let begin = Instant::now();
    one_thread(async {
        let callers = (0..4).map(|_| async {
            let mut creates = Creates {
                args,
                next: &next,
                tally: &tally,
            };
            http2::call(&args.target, options, &mut creates).await
        });
        for end in futures_util::future::join_all(callers).await {
            end.context("a connection failed")?;
        }
        anyhow::Ok(())
    })?;
    if tally.failed.get() > 0 {
        bail!("{} creates failed, {} succeeded", tally.failed.get(), tally.ok.get());
    }
    report(&serde_json::json!({
        "sessions": tally.ok.get(),
        "per_second": tally.ok.get() as f64 / begin.elapsed().as_secs_f64(),
    }));
    Ok(())
}

/// Runs on this thread alone, for a bounded time.
pub(crate) fn one_thread<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(LONGEST, task).await.context("took too long")?
    })
}

pub(crate) fn unix_now() -> f64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

/// User and system time of a process: fields 14 and 15 of its `stat`.
pub(crate) fn cpu_ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, after_name) = stat.rsplit_once(") ").context("a stat without a name")?;
    let ticks = after_name.split(' ').skip(11).take(2);
    Ok(ticks.filter_map(|field| field.parse::<u64>().ok()).sum())
}
