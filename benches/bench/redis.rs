//! The peer: keys of Redis with the same deadlines, and how late its `expired` keyspace events are.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use anyhow::bail;

use crate::{load::unix_now, report, watch::spread};

#[derive(Debug, clap::Args)]
pub(crate) struct RedisArgs {
    /// The server.
    #[arg(long)]
    port: u16,
    /// How many keys.
    #[arg(long)]
    keys: u64,
    /// When the first is due, in seconds of Unix time.
    #[arg(long)]
    first_end: f64,
    /// Seconds from the first deadline to the last.
    #[arg(long, default_value_t = 60.0)]
    spread: f64,
    /// At most so long after the last deadline, in seconds.
    #[arg(long, default_value_t = 60.0)]
    patience: f64,
}

/// Sets the keys, then listens to their ends.
pub(crate) fn run(args: &RedisArgs) -> anyhow::Result<()> {
    set(args)?;
    let mut io = TcpStream::connect(("127.0.0.1", args.port))?;
    io.write_all(b"SUBSCRIBE __keyevent@0__:expired\r\n")?;
    io.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut lines = BufReader::with_capacity(1 << 20, io);
    let over = args.first_end + args.spread + args.patience;
    let mut late = Vec::new();
    let mut line = String::new();
    while (late.len() as u64) < args.keys && unix_now() < over {
        match lines.read_line(&mut line) {
            Ok(0) => bail!("the server hung up"),
            Ok(_) => {}
            // Nothing for a second: half a line may have come.
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock) => continue,
            Err(error) => return Err(error.into()),
        }
        // "s:NUMBER:DEADLINE"
        if let Some(due) = line.strip_prefix("s:").and_then(|key| key.trim_end().split(':').nth(1)) {
            late.push((unix_now() * 1e3 - due.parse::<f64>()?) as f32);
        }
        line.clear();
    }
    report(&serde_json::json!({ "ends": spread(late) }));
    Ok(())
}

fn set(args: &RedisArgs) -> anyhow::Result<()> {
    let mut io = TcpStream::connect(("127.0.0.1", args.port))?;
    let begin = Instant::now();
    let mut answers = vec![0; 5 * 1000];
    for chunk in 0..args.keys.div_ceil(1000) {
        let mut commands = String::new();
        let numbers = chunk * 1000..args.keys.min((chunk + 1) * 1000);
        let count = numbers.end - numbers.start;
        for number in numbers {
            let due = args.first_end + args.spread * number as f64 / args.keys as f64;
            let due = (due * 1e3) as u64;
            commands += &format!("SET s:{number:010}:{due} 012345678901234567890123 PXAT {due}\r\n");
        }
        io.write_all(commands.as_bytes())?;
        // "+OK\r\n" each.
        let answers = &mut answers[..5 * count as usize];
        io.read_exact(answers)?;
        if !answers.chunks(5).all(|answer| answer == b"+OK\r\n") {
            bail!("a SET failed");
        }
        if begin.elapsed() > Duration::from_secs(120) {
            bail!("the keys took too long to set");
        }
    }
    Ok(())
}
