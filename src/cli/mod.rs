//! The commands for people at a terminal: each is one call of the API.

mod client;
pub mod policy;
mod show;

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
    config::{
        ActivityArg, ActorArg, AdvanceArgs, CheckArgs, Command, Config, CreateArgs, EndArgs, ExtendArgs, ReasonArg,
        TargetArgs, TouchArgs, WatchArgs,
    },
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
                Command::Create(args) => create(args).await,
                Command::Touch(args) => touch(args).await,
                Command::Check(args) => check(args).await,
                Command::Extend(args) => extend(args).await,
                Command::End(args) => end(args).await,
                Command::Watch(args) => watch(args).await,
                Command::Advance(args) => advance(&args).await,
                Command::Serve(_) | Command::CheckConfig(_) | Command::Options | Command::Policy(_) => {
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
    print(&lines.join("\n"))
}

async fn healthcheck(args: &TargetArgs) -> anyhow::Result<()> {
    let mut health = client::health(&args.target).await?;
    let answer = health
        .check(HealthCheckRequest::default())
        .await
        .map_err(client::explain)?;
    match answer.into_inner().status() {
        ServingStatus::Serving => out("serving"),
        other => bail!("{}", other.as_str_name()),
    }
}

async fn create(args: CreateArgs) -> anyhow::Result<()> {
    let mut labels = BTreeMap::new();
    for label in args.labels {
        let Some((key, value)) = label.split_once('=') else {
            bail!("--label {label:?} must be KEY=VALUE");
        };
        labels.insert(key.to_owned(), value.to_owned());
    }
    let request = v1::CreateRequest {
        tenant: args.client.tenant,
        session_id: args.id_file.as_deref().map(read_id).transpose()?.unwrap_or_default(),
        subject: args.subject,
        policy: args.policy,
        labels,
        idle_timeout: args.idle_timeout.map(duration).transpose()?,
        absolute_timeout: args.absolute_timeout.map(duration).transpose()?,
        authenticated_ago: args.authenticated_ago.map(duration).transpose()?,
        idle_for: args.idle_for.map(duration).transpose()?,
        request_id: args.request_id,
        authentication_level: String::new(),
    };
    let mut sessions = client::sessions(&args.client.target.target).await?;
    let answer = sessions.create(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.CreateResponse")?);
    }
    // The id alone on standard output, so that a shell can keep it; the rest is for people.
    let session = answer.session.unwrap_or_default();
    let _ = writeln!(io::stderr(), "{}", show::session(&session));
    out(&answer.session_id)
}

async fn touch(args: TouchArgs) -> anyhow::Result<()> {
    let activity = match args.activity {
        ActivityArg::Unspecified => v1::Activity::Unspecified,
        ActivityArg::User => v1::Activity::User,
        ActivityArg::Background => v1::Activity::Background,
    };
    let request = v1::TouchRequest {
        tenant: args.client.tenant,
        session_id: read_id(&args.id.id_file)?,
        activity: activity.into(),
        idle_for: args.idle_for.map(duration).transpose()?,
        hints: None,
    };
    let mut sessions = client::sessions(&args.client.target.target).await?;
    let answer = sessions.touch(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.TouchResponse")?);
    }
    let status = show::status(&answer.status.clone().unwrap_or_default());
    let result = answer
        .result()
        .as_str_name()
        .trim_start_matches("TOUCH_RESULT_")
        .to_lowercase();
    out(&format!("{result} ({}); {status}", answer.rule))
}

async fn check(args: CheckArgs) -> anyhow::Result<()> {
    let name = match args.session_ref {
        Some(reference) => v1::check_request::Name::SessionRef(reference),
        None => v1::check_request::Name::SessionId(read_id(&args.id.id_file)?),
    };
    let request = v1::CheckRequest {
        tenant: args.client.tenant,
        name: Some(name),
        sessions: Vec::new(),
    };
    let mut sessions = client::sessions(&args.client.target.target).await?;
    let answer = sessions.check(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.CheckResponse")?);
    }
    out(&show::session(&answer.session.unwrap_or_default()))
}

async fn extend(args: ExtendArgs) -> anyhow::Result<()> {
    let request = v1::ExtendRequest {
        tenant: args.client.tenant,
        session_id: read_id(&args.id.id_file)?,
        wanted_duration: args.wanted.map(duration).transpose()?,
        request_id: args.request_id,
    };
    let mut sessions = client::sessions(&args.client.target.target).await?;
    let answer = sessions.extend(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.ExtendResponse")?);
    }
    let status = show::status(&answer.status.clone().unwrap_or_default());
    let granted = show::span(answer.granted_duration.as_ref());
    let clamped = if answer.clamped_by() == v1::Limit::Absolute {
        ", cut short by the absolute deadline"
    } else {
        ""
    };
    out(&format!("extended by {granted}{clamped}; {status}"))
}

async fn end(args: EndArgs) -> anyhow::Result<()> {
    let reason = match args.reason {
        ReasonArg::Logout => v1::EndReason::Logout,
        ReasonArg::Revoked => v1::EndReason::Revoked,
    };
    let actor = match args.actor {
        None => v1::Actor::Unspecified,
        Some(ActorArg::User) => v1::Actor::User,
        Some(ActorArg::Admin) => v1::Actor::Admin,
        Some(ActorArg::Policy) => v1::Actor::Policy,
        Some(ActorArg::System) => v1::Actor::System,
    };
    let request = v1::EndRequest {
        tenant: args.client.tenant,
        session_id: read_id(&args.id.id_file)?,
        reason: reason.into(),
        actor: actor.into(),
        actor_id: args.actor_id,
        note: args.note,
        request_id: String::new(),
    };
    let mut sessions = client::sessions(&args.client.target.target).await?;
    let answer = sessions.end(request).await.map_err(client::explain)?.into_inner();
    if args.client.json {
        return out(&show::json(&answer, "sessionsidecar.v1.EndResponse")?);
    }
    let when = if answer.ended_now {
        "ended now"
    } else {
        "had ended before"
    };
    out(&format!("{when}: {}", show::end(&answer.end.unwrap_or_default())))
}

async fn watch(args: WatchArgs) -> anyhow::Result<()> {
    use v1::{session_name::Name, watch_scope::Scope};

    let names = |names: Vec<Name>| {
        let names = names
            .into_iter()
            .map(|name| v1::SessionName { name: Some(name) })
            .collect();
        Scope::Sessions(v1::SessionNames { names })
    };
    let scope = if let Some(path) = &args.id_file {
        let text = read(path)?;
        let ids = text.lines().map(str::trim).filter(|id| !id.is_empty());
        names(ids.map(|id| Name::SessionId(id.to_owned())).collect())
    } else if !args.refs.is_empty() {
        names(args.refs.into_iter().map(Name::SessionRef).collect())
    } else if let Some(subject) = args.subject {
        Scope::Subject(subject)
    } else if args.whole_tenant {
        Scope::WholeTenant(true)
    } else {
        Scope::Everything(true)
    };
    let tenant = if matches!(scope, Scope::Everything(_)) {
        String::new()
    } else {
        args.client.tenant
    };
    let request = v1::WatchExpiryRequest {
        scope: Some(v1::WatchScope {
            tenant,
            scope: Some(scope),
        }),
        kinds: Vec::new(),
        resume_token: args.resume_token,
        heartbeat_interval: args.heartbeat.map(duration).transpose()?,
        include_initial_state: args.initial_state,
    };
    let mut sessions = client::sessions(&args.client.target.target).await?;
    let mut stream = sessions
        .watch_expiry(request)
        .await
        .map_err(client::explain)?
        .into_inner();
    while let Some(message) = stream.message().await.map_err(client::explain)? {
        let heartbeat = matches!(message.message, Some(v1::watch_expiry_response::Message::Heartbeat(_)));
        if heartbeat && !args.show_heartbeats {
            continue;
        }
        if args.client.json {
            out(&show::json(&message, "sessionsidecar.v1.WatchExpiryResponse")?)?;
        } else {
            out(&show::message(&message))?;
        }
    }
    Ok(())
}

async fn advance(args: &AdvanceArgs) -> anyhow::Result<()> {
    let mut clock = client::test_clock(&args.target.target).await?;
    let request = dev::AdvanceRequest {
        duration: Some(duration(args.duration)?),
    };
    clock.advance(request).await.map_err(client::explain)?;
    out(&format!("the clock is {} further", args.duration))
}

/// Reads one id: what a file holds, without the line end.
fn read_id(path: &Path) -> anyhow::Result<String> {
    Ok(read(path)?.trim_end_matches(['\r', '\n']).to_owned())
}

fn read(path: &Path) -> anyhow::Result<String> {
    if path == Path::new("-") {
        let mut text = String::new();
        io::stdin()
            .read_to_string(&mut text)
            .context("standard input cannot be read")?;
        return Ok(text);
    }
    fs::read_to_string(path).with_context(|| format!("--id-file {} cannot be read", path.display()))
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
