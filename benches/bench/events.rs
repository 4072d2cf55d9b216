//! Open pages: what a stream of the door's events costs, and how late a warning is at the one browser that it is for.

use std::{
    cell::Cell,
    fs,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use session_sidecar::rpc::proto::v1;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::Semaphore,
};

use crate::{
    http2::Target,
    load::{one_thread, unix_now, write_id},
    report,
    watch::{seconds, single, spread},
};

#[derive(Debug, clap::Args)]
pub(crate) struct EventsArgs {
    /// The server.
    #[arg(long)]
    target: Target,
    /// Its door.
    #[arg(long)]
    door: SocketAddr,
    /// Its process, to read how much memory it has.
    #[arg(long)]
    pid: u32,
    /// Streams that are open at a time, each of a session of its own. All these sessions but one exist.
    #[arg(long, default_value_t = 10_000)]
    streams: u64,
    /// Sessions that are warned, one after the other.
    #[arg(long, default_value_t = 20)]
    samples: u64,
    /// The policy's idle timeout, in seconds.
    #[arg(long, default_value_t = 3600.0)]
    idle_timeout: f64,
    /// How long before its end a session is warned, in seconds.
    #[arg(long, default_value_t = 1.0)]
    lead: f64,
    /// How long all streams are open before the memory is read, in seconds: a stream says every 15 s that it is alive.
    #[arg(long, default_value_t = 20.0)]
    settle: f64,
}

/// How many streams are being opened at a time.
const OPENING: usize = 64;

/// How long a session has before it is warned, so that its stream is open by then.
const AHEAD: f64 = 0.5;

/// How long anything may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A stream of one session's events.
struct Stream {
    io: TcpStream,
    /// What has come and was not looked at.
    text: Vec<u8>,
}

impl Stream {
    /// Opens one, and waits until it has told the state.
    async fn open(door: SocketAddr, number: u64) -> anyhow::Result<Self> {
        let mut id = [0; 24];
        write_id(number, &mut id);
        let id = String::from_utf8_lossy(&id);
        let request = format!(
            "GET /session/events?page=bench HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\
             sec-fetch-site: same-origin\r\ncookie: sessionid={id}\r\n\r\n"
        );
        let mut io = TcpStream::connect(door).await?;
        io.set_nodelay(true)?;
        io.write_all(request.as_bytes()).await?;
        let mut stream = Self { io, text: Vec::new() };
        match tokio::time::timeout(PATIENCE, stream.event())
            .await
            .context("no state came")??
        {
            state if state == "state" => Ok(stream),
            other => bail!("the first event is {other}"),
        }
    }

    /// The name of the next event.
    async fn event(&mut self) -> anyhow::Result<String> {
        loop {
            while let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                if let Some(name) = line.strip_prefix(b"event: ") {
                    return Ok(String::from_utf8_lossy(name).trim().to_owned());
                }
            }
            if self.io.read_buf(&mut self.text).await? == 0 {
                bail!("the stream was closed");
            }
        }
    }
}

/// The streams that nothing is told.
#[derive(Default)]
struct Quiet {
    open: Cell<u64>,
    /// Why one of them is not quiet, or not open.
    broken: Cell<Option<String>>,
}

impl Quiet {
    fn check(&self) -> anyhow::Result<()> {
        self.broken.take().map_or(Ok(()), |why| bail!("a quiet stream: {why}"))
    }
}

/// Opens the streams, then warns sessions one after the other and measures from the warning point to the arrival at the session's stream.
pub(crate) fn events(args: &EventsArgs) -> anyhow::Result<()> {
    one_thread(async {
        let before = resident_bytes(args.pid)?;
        let (quiet, begun) = (Rc::new(Quiet::default()), Instant::now());
        let opening = Rc::new(Semaphore::new(OPENING));
        let all = args.streams - 1;
        for number in 0..all {
            let (quiet, opening, door) = (Rc::clone(&quiet), Rc::clone(&opening), args.door);
            tokio::task::spawn_local(async move {
                let watched = async {
                    let place = opening.acquire().await?;
                    let mut stream = Stream::open(door, number).await?;
                    drop(place);
                    quiet.open.set(quiet.open.get() + 1);
                    anyhow::Ok(format!("it was told {}", stream.event().await?))
                };
                let why = watched.await.unwrap_or_else(|error| format!("{error:#}"));
                quiet.broken.set(Some(why));
            });
        }
        while quiet.open.get() < all {
            tokio::time::sleep(Duration::from_millis(10)).await;
            quiet.check()?;
        }
        let opened = begun.elapsed();
        tokio::time::sleep(Duration::from_secs_f64(args.settle)).await;
        let grown = resident_bytes(args.pid)?.saturating_sub(before);
        let mut late = Vec::new();
        for sample in 0..args.samples {
            late.push(warned(args, all + sample).await?);
            quiet.check()?;
        }
        report(&serde_json::json!({
            "bytes_each": grown as f64 / all as f64,
            "opened_per_second": all as f64 / opened.as_secs_f64(),
            "warnings": spread(late),
        }));
        Ok(())
    })
}

/// Milliseconds from the warning point of a new session to its browser.
async fn warned(args: &EventsArgs, number: u64) -> anyhow::Result<f32> {
    let mut id = [0; 24];
    write_id(number, &mut id);
    let idle_for = args.idle_timeout - args.lead - AHEAD;
    let create = v1::CreateRequest {
        session_id: String::from_utf8_lossy(&id).into_owned(),
        idle_for: Some(prost_types::Duration {
            seconds: idle_for as i64,
            nanos: (idle_for.fract() * 1e9) as i32,
        }),
        ..Default::default()
    };
    let created: v1::CreateResponse = single(&args.target, "Create", &create).await?;
    let status = created
        .session
        .and_then(|session| session.status)
        .context("no status")?;
    let due = seconds(status.next_warning_time);
    let mut stream = Stream::open(args.door, number).await?;
    if unix_now() > due {
        bail!("the stream was open too late");
    }
    let event = tokio::time::timeout(PATIENCE, stream.event())
        .await
        .context("no warning came")??;
    let now = unix_now();
    if event != "warning" {
        bail!("the session was told {event} instead of its warning");
    }
    Ok(((now - due) * 1e3) as f32)
}

fn resident_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident
        .context("a process without memory")?
        .trim()
        .trim_end_matches(" kB");
    Ok(kilobytes.parse::<u64>()? * 1024)
}
