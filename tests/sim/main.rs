//! The simulation: virtual users, tabs, gateways, reloads, clock jumps, suspends and restarts, all from one seed, played
//! against a whole sidecar in virtual time. A checker of its own reads what callers and watchers saw (`checker`).
//!
//! `./dev sim --seeds N [--from SEED] [--days D] [--crowd]` plays N seeds, and thousands of people at once; `--year` a year in
//! total and a crowd, as `./dev test` does; `--controls` (feature `sabotage`) shows that every known-bad variant is caught.
//! Whatever is played, what failed once is replayed first (`regressions`), and one seed is played twice: the two histories
//! must be the same to the last byte (`repeat`).
#![allow(dead_code, reason = "the checker keeps facts that only a failing story shows")]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a story is for whoever runs it"
)]
#![allow(
    clippy::too_many_arguments,
    reason = "what a call was asked and answered is all of this"
)]

mod calls;
mod checker;
mod history;
mod policies;
mod regressions;
mod repeat;
mod rng;
mod script;
#[path = "../support/shared.rs"]
mod shared;
mod shrink;
#[path = "../support/sidecar.rs"]
mod sidecar;
mod world;

use std::{
    process::ExitCode,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use checker::{Tally, Violation};
use script::{Script, Size};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What `--year` plays: 53 seeds of a week are 371 days; and one crowd.
const YEAR: Plan = Plan {
    from: 1,
    seeds: 53,
    days: 7,
    crowd: true,
};

/// What a plain `cargo test` plays, unoptimised.
const TASTE: Plan = Plan {
    from: 1,
    seeds: 2,
    days: 1,
    crowd: false,
};

/// What must have happened in a year, or the simulation proves nothing.
const LEAST: [(&str, u64); 29] = [
    ("calls", 100_000),
    ("warning IDLE", 5_000),
    ("warning ABSOLUTE", 100),
    ("cleared TOUCHED", 1_000),
    ("cleared EXTENDED", 100),
    ("cleared HELD", 200),
    ("cleared ROTATED", 20),
    ("cleared NOT_ENFORCED", 100),
    ("ended IDLE_TIMEOUT", 2_000),
    ("ended ABSOLUTE_TIMEOUT", 20),
    ("ended BROWSER_CLOSED", 20),
    ("ended SUPERSEDED", 20),
    ("ended ROTATED", 100),
    ("ended LOGOUT", 200),
    ("ended REVOKED", 20),
    ("touch stale", 100),
    ("touch SESSION_ENDED", 1_000),
    ("suspends", 100),
    ("wall clock jumps", 50),
    ("policy reloads", 20),
    ("restarts", 10),
    ("resumes", 200),
    ("foreign tokens refused", 5),
    ("rule polls", 10),
    ("rule background", 5),
    ("tombstones dropped at the cap", 500),
    ("explain OK", 500),
    ("end many OK", 50),
    ("stats OK", 300),
];

#[derive(Clone, Copy)]
struct Plan {
    from: u64,
    seeds: u64,
    days: u64,
    crowd: bool,
}

impl Plan {
    /// The longest story first: nobody waits for it at the end.
    fn stories(self) -> Vec<(u64, Size)> {
        let crowd = self.crowd.then_some((self.from, Size::Crowd));
        let seeds = (self.from..self.from + self.seeds).map(|seed| (seed, Size::Days(self.days)));
        crowd.into_iter().chain(seeds).collect()
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let place = args.iter().position(|arg| arg == name)?;
        args.get(place + 1)?.parse::<u64>().ok()
    };
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    if args.iter().any(|arg| arg == "--controls") {
        return controls(number("--seeds").unwrap_or(60));
    }
    let year = args.iter().any(|arg| arg == "--year");
    let plan = match number("--seeds") {
        _ if year => YEAR,
        Some(seeds) => Plan {
            from: number("--from").unwrap_or(1),
            seeds,
            days: number("--days").unwrap_or(7),
            crowd: args.iter().any(|arg| arg == "--crowd"),
        },
        None => TASTE,
    };
    let mut failures = regressions::replay() + repeat::twice(plan.from, plan.days.min(2));
    let (tally, played, failed) = play_all(plan);
    let days = (played - u64::from(plan.crowd)) * plan.days;
    println!("{played} stories: {days} virtual days");
    if plan.crowd {
        println!("{:>9} people at once in one of them", script::CROWD);
    }
    for (what, count) in &tally {
        println!("{count:>9} {what}");
    }
    let mut short = Vec::new();
    if year && failed.is_none() {
        short.extend((days < 365).then(|| format!("only {days} days, less than a year")));
        for (what, least) in LEAST {
            let count = tally.get(what).copied().unwrap_or(0);
            short.extend((count < least).then(|| format!("only {count} × {what}, not {least}")));
        }
    }
    short
        .iter()
        .for_each(|line| println!("the simulation proves too little: {line}"));
    failures += u64::from(failed.is_some()) + short.len() as u64;
    if let Some((seed, size, violation)) = failed {
        println!("\nseed {seed} breaks {}", checker::told(&violation));
        println!("{}", regressions::how_to_keep(seed, size, &violation));
        shrink::report(&script::draw(seed, size), &violation);
    }
    println!("{} passed, {failures} failed", played - u64::from(failures > 0));
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Plays a script and reads its history.
fn try_script(script: &Script, tally: &mut Tally) -> Result<(), Violation> {
    checker::check(&world::play(script), tally)
}

/// Plays the seeds on two threads, up to the first that fails.
fn play_all(plan: Plan) -> (Tally, u64, Option<(u64, Size, Violation)>) {
    let stories = plan.stories();
    let next = AtomicUsize::new(0);
    let result = Mutex::new((Tally::new(), 0, None));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((seed, size)) = stories.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
                    if result.lock().expect("no panic").2.is_some() {
                        return;
                    }
                    let mut tally = Tally::new();
                    let played = try_script(&script::draw(seed, size), &mut tally);
                    let mut result = result.lock().expect("no panic");
                    tally
                        .into_iter()
                        .for_each(|(what, count)| *result.0.entry(what).or_default() += count);
                    result.1 += 1;
                    if let Err(violation) = played {
                        result.2 = Some((seed, size, violation));
                    }
                }
            });
        }
    });
    result.into_inner().expect("no panic")
}

#[cfg(not(feature = "sabotage"))]
fn controls(_: u64) -> ExitCode {
    println!("--controls needs the feature `sabotage`");
    ExitCode::FAILURE
}

/// Every known-bad variant must be caught, by a guarantee that fits; and the same seeds pass without it.
#[cfg(feature = "sabotage")]
fn controls(seeds: u64) -> ExitCode {
    use std::sync::atomic::AtomicU64;

    use session_sidecar::sabotage::{self, Fault};

    let fitting = |fault: Fault| -> &[&str] {
        match fault {
            Fault::TimerTrusted => &["G1"],
            Fault::CallsWaitForDriver => &["G2", "G5", "G10"],
            Fault::TouchAfterEnd => &["G5"],
            Fault::CauseTrusted => &["G6"],
            Fault::NoGapCheck | Fault::TokenForAnyScope => &["G12"],
            Fault::FollowedForgotten => &["G6", "G12"],
            Fault::LateTombstone => &["G10"],
            Fault::OutOfOrder | Fault::ClearedForgotten => &["G3", "G4"],
            // An end too early, or first an Extend whose grant does not move the deadline.
            Fault::PresenceIgnoresTouch => &["G1", "G7"],
            Fault::BackgroundCounts => &["G9"],
            Fault::ExtendPastAbsolute | Fault::NoBudget => &["G7"],
            Fault::WarnedTwice => &["G3", "G4"],
            Fault::AliasForever => &["G5", "G10"],
            Fault::SubjectCapRace => &["SUBJECT CAP"],
            Fault::EventCrossesTenant => &["G17"],
            Fault::SlowReaderKept => &["G13"],
            Fault::IdLogged => &["G15"],
            Fault::ActivityGoesBack => &["G8"],
            Fault::CapIgnored => &["G11"],
            Fault::DroppedUntold => &["G10"],
            // An end too early, or first a warning or an answer that tells of a deadline that is not held.
            Fault::NoHoldAfterGap => &["G1", "G3", "G14"],
            Fault::RefCrossesTenant => &["G17"],
            // Only an order of threads shows these: tests/races.
            Fault::BlindCommit | Fault::LateSuccessor | Fault::UnmarkedAdoption | Fault::LateDisarm => &[],
        }
    };
    let failed = AtomicU64::new(0);
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(fault) = Fault::ALL.get(next.fetch_add(1, Ordering::Relaxed) as usize).copied() {
                    let caught = (1..=seeds).find_map(|seed| {
                        sabotage::set(Some(fault));
                        let played = try_script(&script::draw(seed, Size::Days(1)), &mut Tally::new());
                        sabotage::set(None);
                        played.err().map(|violation| (seed, violation))
                    });
                    let right = match &caught {
                        Some((seed, violation)) => {
                            let clean = try_script(&script::draw(*seed, Size::Days(1)), &mut Tally::new()).is_ok();
                            clean && fitting(fault).contains(&violation.guarantee)
                        }
                        None => false,
                    };
                    let how = caught.map(|(seed, violation)| format!("seed {seed}: {}", checker::told(&violation)));
                    let how = how.unwrap_or_else(|| "not caught".to_owned());
                    let how: String = how.chars().take(200).collect();
                    println!("{} {fault:?}: {how}", if right { "caught" } else { "WRONG" });
                    failed.fetch_add(u64::from(!right), Ordering::Relaxed);
                }
            });
        }
    });
    let failed = failed.into_inner();
    println!("{} passed, {failed} failed", Fault::ALL.len() as u64 - failed);
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
