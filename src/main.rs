//! The session-sidecar program: reads what it is told, runs it, and maps what became of it to an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use session_sidecar::{
    app::{App, BadStore},
    audit::Output,
    cli,
    config::{Cli, Command, Config, LogFormat, ServeArgs, options_markdown},
    huge_pages, telemetry,
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `EX_USAGE` of sysexits.h: the configuration is wrong, so restarting will not help.
const BAD_CONFIG: u8 = 64;

/// 128 + SIGTERM: the second signal does not wait for anything.
const KILLED: i32 = 143;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => dispatch(cli.command),
        Err(error) => {
            let asked_for_help = !error.use_stderr();
            let _ = error.print();
            if asked_for_help {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(BAD_CONFIG)
            }
        }
    }
}

fn dispatch(command: Command) -> ExitCode {
    match command {
        Command::Serve(args) => serve(&args),
        Command::CheckConfig(args) => match telemetry::parse_filter(&args.log).and_then(|_| Config::resolve(&args)) {
            Ok(config) => match Output::check(&config.audit_log) {
                Ok(()) => cli::print_config(&config),
                Err(error) => bad_audit_log(&config, error),
            },
            Err(error) => bad_config(&error),
        },
        Command::Options => cli::print(&options_markdown()),
        Command::Policy(args) => cli::policy::run(&args.command).unwrap_or_else(|error| bad_config(&error)),
        Command::Store(args) => cli::store::run(&args.command).unwrap_or_else(|error| bad_config(&error)),
        client => cli::run(client),
    }
}

fn serve(args: &ServeArgs) -> ExitCode {
    huge_pages::put_off();
    let json = match args.log_format {
        Some(format) => format == LogFormat::Json,
        None => !args.dev,
    };
    if let Err(error) = telemetry::start_log(&args.log, json) {
        return bad_config(&error);
    }
    let config = match Config::resolve(args) {
        Ok(config) => config,
        Err(error) => return bad_config(&error),
    };
    // A log that nobody can write is a wrong configuration, not bad luck: it is opened before anything runs.
    let audit = match Output::open(&config.audit_log) {
        Ok(audit) => audit,
        Err(error) => return bad_audit_log(&config, error),
    };
    match run(args, config, audit) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            if error.is::<BadStore>() {
                ExitCode::from(BAD_CONFIG)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn bad_audit_log(config: &Config, error: std::io::Error) -> ExitCode {
    let error = anyhow::Error::new(error);
    bad_config(&error.context(format!("--audit-log {} cannot be opened", config.audit_log)))
}

fn run(args: &ServeArgs, config: Config, audit: Option<Output>) -> anyhow::Result<()> {
    // With one processor the single-threaded runtime is faster.
    let workers = match args.workers {
        Some(workers) => workers.get(),
        None => std::thread::available_parallelism()?.get(),
    };
    let runtime = if workers == 1 {
        runtime::Builder::new_current_thread().enable_all().build()?
    } else {
        runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .enable_all()
            .build()?
    };
    let result = runtime.block_on(async {
        let app = App::build(config, audit).await?;
        for endpoint in &app.endpoints {
            tracing::info!(%endpoint, "listening");
        }
        if let Some(address) = app.admin_address {
            tracing::info!(endpoint = %format!("http://{address}"), "listening for admin");
        }
        if let Some(address) = app.door_address {
            tracing::info!(endpoint = %format_args!("http://{address}"), "listening for the door");
        }
        tracing::info!("{}", app.durability());
        let stop = stop_signal()?;
        app.run(stop).await
    });
    // What did not finish within the drain timeout is not waited for.
    runtime.shutdown_background();
    result
}

/// Done at the first SIGTERM or SIGINT. A second one ends the process at once.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(KILLED);
        });
    })
}

fn bad_config(error: &anyhow::Error) -> ExitCode {
    cli::print_error(&format!("{error:#}"));
    ExitCode::from(BAD_CONFIG)
}
