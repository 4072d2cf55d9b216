//! The commands for people at a terminal: each is one call of the API.

mod admin;
mod client;
mod from_log;
pub mod policy;
mod show;
pub mod store;
mod table;
mod verbs;
mod watch;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};

use crate::{
    compliance::span,
    config::{ActorArg, AdvanceArgs, Command, Config, ReasonArg, RequestArgs, TargetArgs},
    rpc::proto::{dev, v1},
};

/// Runs a client command.
#[must_use]
pub fn run(command: Command) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.context("no runtime").and_then(|runtime| {
        runtime.block_on(async {
            match command {
                Command::Healthcheck(args) => healthcheck(&args).await,
                Command::Create(args) => verbs::create(args).await,
                Command::Touch(args) => verbs::touch(args).await,
                Command::Check(args) => verbs::check(args).await,
                Command::Extend(args) => verbs::extend(args).await,
                Command::Hold(args) => verbs::hold(args).await,
                Command::Release(args) => verbs::release(args).await,
                Command::Rotate(args) => verbs::rotate(args).await,
                Command::End(args) => verbs::end(args).await,
                Command::Watch(args) => watch::watch(args).await,
                Command::List(args) => admin::list(args).await,
                Command::EndSessions(args) => admin::end_sessions(args).await,
                Command::Explain(args) => match &args.from_log {
                    Some(log) => from_log::explain(log, &args),
                    None => admin::explain(*args).await,
                },
                Command::Policies(args) => admin::policies(args).await,
                Command::Stats(args) => admin::stats(args).await,
                Command::Advance(args) => advance(&args).await,
                Command::Serve(_)
                | Command::CheckConfig(_)
                | Command::Options
                | Command::Policy(_)
                | Command::Store(_) => {
                    bail!("not a client command")
                }
            }
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a text on standard output.
#[must_use]
pub fn print(text: &str) -> ExitCode {
    match out(text.trim_end()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Prints what went wrong on standard error.
pub fn print_error(message: &str) {
    let _ = writeln!(io::stderr(), "error: {message}");
}

/// Says something beside the answer, on standard error.
fn warn(message: &str) {
    let _ = writeln!(io::stderr(), "warning: {message}");
}

/// Prints what `check-config` found.
#[must_use]
pub fn print_config(config: &Config) -> ExitCode {
    let mut lines = vec!["the configuration is good".to_owned()];
    lines.extend(
        config
            .listen
            .iter()
            .map(|listen| format!("  listens at {}", listen.endpoint)),
    );
    for (name, policy) in &config.policies {
        let limits = &policy.limits;
        lines.push(format!(
            "  policy {name}: idle_timeout {}, absolute_timeout {}{}",
            if limits.passive {
                "none (passive)".to_owned()
            } else {
                span(limits.idle_timeout)
            },
            span(limits.absolute_timeout),
            if limits.enforced { "" } else { ", not enforced" }
        ));
    }
    lines.extend(config.warnings.iter().map(|warning| format!("warning: {warning}")));
    print(&lines.join("\n"))
}

async fn healthcheck(args: &TargetArgs) -> anyhow::Result<()> {
    let mut health = client::health(args).await?;
    let answer = health
        .check(HealthCheckRequest::default())
        .await
        .map_err(client::explain)?;
    match answer.into_inner().status() {
        ServingStatus::Serving => out("serving"),
        other => bail!("{}", other.as_str_name()),
    }
}

async fn advance(args: &AdvanceArgs) -> anyhow::Result<()> {
    let mut clock = client::test_clock(&args.target).await?;
    let request = dev::AdvanceRequest {
        duration: Some(duration(args.duration)?),
    };
    clock.advance(request).await.map_err(client::explain)?;
    out(&format!("the clock is {} further", args.duration))
}

fn labels(pairs: Vec<String>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for label in pairs {
        let Some((key, value)) = label.split_once('=') else {
            bail!("--label {label:?} must be KEY=VALUE");
        };
        labels.insert(key.to_owned(), value.to_owned());
    }
    Ok(labels)
}

fn reason(reason: ReasonArg) -> v1::EndReason {
    match reason {
        ReasonArg::Logout => v1::EndReason::Logout,
        ReasonArg::Revoked => v1::EndReason::Revoked,
    }
}

fn actor(actor: Option<ActorArg>) -> v1::Actor {
    match actor {
        None => v1::Actor::Unspecified,
        Some(ActorArg::User) => v1::Actor::User,
        Some(ActorArg::Admin) => v1::Actor::Admin,
        Some(ActorArg::Policy) => v1::Actor::Policy,
        Some(ActorArg::System) => v1::Actor::System,
    }
}

/// Reads a request id, if there is one to read. At most one of the files may be standard input.
fn read_request_id(request: &RequestArgs, others: &[(&str, &Path)]) -> anyhow::Result<String> {
    let stdin = Path::new("-");
    let request = request.request_id_file.as_deref();
    let named = request.map(|path| ("--request-id-file", path));
    let from_stdin: Vec<_> = others
        .iter()
        .copied()
        .chain(named)
        .filter_map(|(flag, path)| (path == stdin).then_some(flag))
        .collect();
    if from_stdin.len() > 1 {
        bail!(
            "{} cannot both be standard input; name a file",
            from_stdin.join(" and ")
        );
    }
    let text = request.map(|path| read("--request-id-file", path)).transpose()?;
    Ok(text.unwrap_or_default().trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads one id: what a file holds, without the line end.
fn read_id(path: &Path) -> anyhow::Result<String> {
    Ok(read("--id-file", path)?.trim_end_matches(['\r', '\n']).to_owned())
}

fn read(flag: &str, path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .context("standard input cannot be read")?;
        return Ok(text);
    }
    fs::read_to_string(path).with_context(|| format!("{flag} {} cannot be read", path.display()))
}

fn duration(duration: humantime::Duration) -> anyhow::Result<prost_types::Duration> {
    prost_types::Duration::try_from(*duration).context("the duration is too long")
}

/// Prints a line, at once: somebody may be reading along.
fn out(line: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    Ok(())
}
