//! The peers, the load and the stop-watches of `./dev bench`. `benches/run.py` starts them, beside the real program, and
//! makes a table of what they report: a line of JSON each.

#![expect(clippy::print_stdout, reason = "a report goes to standard output")]
#![expect(
    clippy::disallowed_methods,
    reason = "a stop-watch is no part of the sidecar's one clock"
)]

mod audience;
mod authz;
mod core;
mod events;
mod fleet;
mod floor;
mod http2;
mod load;
mod redis;
mod shared;
mod start;
mod watch;

use clap::Parser;

// The allocator of the real program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
enum Tool {
    /// Serve a handler that does nothing.
    Floor {
        #[arg(long, default_value_t = 2)]
        workers: usize,
        #[arg(long, value_enum, default_value = "constant")]
        answer: floor::Answer,
    },
    /// Touch random sessions of a server.
    Touch(load::TouchArgs),
    /// Create sessions on a server.
    Fill(load::FillArgs),
    /// Ask a server what Envoy asks.
    Check(authz::CheckArgs),
    /// Ask for a page through an Envoy that asks.
    Site(authz::SiteArgs),
    /// Touch random sessions without gRPC.
    Core(core::CoreArgs),
    /// Watch a server and tell how late its warnings and ends are.
    Lateness(watch::LatenessArgs),
    /// Tell how long one event takes to come to thousands of watchers.
    FanOut(watch::FanOutArgs),
    /// The same without gRPC.
    Audience(audience::AudienceArgs),
    /// Open a server's streams of events, and tell what they cost and how late a warning is.
    Events(events::EventsArgs),
    /// Tell how long a server takes to its first answer.
    Start(start::StartArgs),
    /// Tell what a fleet of sidecars asks of its store.
    StoreCost(shared::CostArgs),
    /// Count what touches write to a store.
    StoreWrites(shared::WritesArgs),
    /// Tell how late other sidecars of a store hear of warnings and ends.
    Elsewhere(shared::ElsewhereArgs),
    /// Tell how late Redis's `expired` events are.
    Redis(redis::RedisArgs),
}

fn main() -> anyhow::Result<()> {
    if std::env::args().skip(1).all(|argument| argument.starts_with("--")) {
        println!("These are the tools of benches/run.py: call that, or `./dev bench`.");
        return Ok(());
    }
    match Tool::parse() {
        Tool::Floor { workers, answer } => floor::serve(workers, answer),
        Tool::Touch(args) => load::touch(&args),
        Tool::Fill(args) => load::fill(&args),
        Tool::Check(args) => authz::check(&args),
        Tool::Site(args) => authz::site(&args),
        Tool::Core(args) => core::run(&args),
        Tool::Lateness(args) => watch::lateness(&args),
        Tool::FanOut(args) => watch::fan_out(&args),
        Tool::Audience(args) => audience::run(&args),
        Tool::Events(args) => events::events(&args),
        Tool::Start(args) => start::run(&args),
        Tool::StoreCost(args) => shared::cost(&args),
        Tool::StoreWrites(args) => shared::writes(&args),
        Tool::Elsewhere(args) => shared::elsewhere(&args),
        Tool::Redis(args) => redis::run(&args),
    }
}

/// Tells what was measured.
pub(crate) fn report(measured: &serde_json::Value) {
    println!("{measured}");
}
