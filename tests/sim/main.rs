//! The simulation.
#![allow(dead_code)]
mod calls;
mod checker;
mod history;
mod policies;
mod rng;
mod script;
mod sidecar;
mod world;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let days: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    let seed: u64 = std::env::args().nth(2).and_then(|n| n.parse().ok()).unwrap_or(1);
    let to: u64 = std::env::args().nth(3).and_then(|n| n.parse().ok()).unwrap_or(seed);
    let mut bad = 0;
    for seed in seed..=to {
        let script = script::draw(seed, days);
        let begun = std::time::SystemTime::now();
        let history = world::play(&script);
        let played = begun.elapsed();
        let mut tally = checker::Tally::new();
        let checked = checker::check(&history, &mut tally);
        println!(
            "seed {seed}: {} steps {} entries in {:?} {:?}",
            script.steps.len(),
            history.len(),
            played,
            begun.elapsed()
        );
        if let Err(violation) = checked {
            println!("{}", checker::told(&violation));
            let mut teller = history::Teller::default();
            let all: Vec<(i64, String)> = history
                .iter()
                .map(|e| (e.at, format!("{} {}", history::clock(e.at), teller.line(&e.what))))
                .collect();
            let reference = violation
                .text
                .split_whitespace()
                .find(|w| w.trim_matches(|c: char| ":,".contains(c)).len() == 22)
                .unwrap_or("?")
                .trim_matches(|c: char| ":,".contains(c))
                .to_owned();
            let name = teller.name_of(&reference);
            println!("{reference} is {name}");
            let related: Vec<&(i64, String)> = all
                .iter()
                .filter(|(at, l)| {
                    *at <= violation.at
                        && (l.contains(&name)
                            || l.contains("slept")
                            || l.contains("reload")
                            || l.contains("restart")
                            || (violation.text.contains("w")
                                && violation.text.split(' ').any(|w| {
                                    w.starts_with('w')
                                        && w[1..].trim_end_matches(':').parse::<u32>().is_ok()
                                        && l.contains(&format!("{} ", w.trim_end_matches(':')))
                                })))
                })
                .collect();
            for (_, line) in related.iter().rev().take(25).rev() {
                println!("  {}", line.chars().take(260).collect::<String>());
            }
            bad += 1;
            if bad > 5 {
                return;
            }
            continue;
        }
        for (what, count) in &tally {
            print!("{what} {count}; ");
        }
        println!();
    }
}
