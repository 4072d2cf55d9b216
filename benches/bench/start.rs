//! How long a server takes from its start to its first answer.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::bail;

use crate::{
    http2::{self, Calls, LOCALHOST, OPEN, Options, Target},
    load::one_thread,
    report,
};

#[derive(Debug, clap::Args)]
pub(crate) struct StartArgs {
    /// The program.
    #[arg(long)]
    program: PathBuf,
    /// Where it will listen.
    #[arg(long)]
    target: Target,
    /// Its arguments.
    #[arg(last = true)]
    arguments: Vec<String>,
}

struct First {
    asked: bool,
    answered: bool,
}

impl Calls for First {
    fn request(&mut self, message: &mut Vec<u8>) -> bool {
        // A Touch of a session that does not exist: NOT_FOUND is an answer.
        message.extend_from_slice(&[0x12, 24]);
        message.extend_from_slice(b"bench-session-9999999999");
        !std::mem::replace(&mut self.asked, true)
    }

    fn message(&mut self, _: u32, _: &[u8]) {}

    fn over(&mut self, _: u32, _: bool) {
        self.answered = true;
    }
}

/// Starts the program, asks it until it answers, and stops it.
pub(crate) fn run(args: &StartArgs) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut child = Command::new(&args.program)
        .args(&args.arguments)
        .stderr(Stdio::null())
        .spawn()?;
    let answered = one_thread(async {
        while begin.elapsed() < Duration::from_secs(10) {
            let mut first = First {
                asked: false,
                answered: false,
            };
            let options = Options {
                path: "/sessionsidecar.v1.SessionService/Touch",
                authority: LOCALHOST,
                in_flight: 1,
                window: OPEN,
            };
            if http2::call(&args.target, options, &mut first).await.is_ok() && first.answered {
                return Ok(begin.elapsed());
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        bail!("no answer within ten seconds")
    });
    child.kill()?;
    child.wait()?;
    report(&serde_json::json!({ "ms": answered?.as_secs_f64() * 1e3 }));
    Ok(())
}
