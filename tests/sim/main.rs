//! The simulation.
#![allow(dead_code)]
mod calls;
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
    let script = script::draw(seed, days);
    println!("{} steps", script.steps.len());
    let begun = std::time::SystemTime::now();
    let history = world::play(&script);
    println!("{} entries in {:?}", history.len(), begun.elapsed());
    let story = history::Teller::default().tell(&history);
    for line in story.lines().take(60) {
        println!("{line}");
    }
}
