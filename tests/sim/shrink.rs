//! A failing script becomes a small one, and a story that a person can read.

use std::path::PathBuf;

use crate::{
    checker::{self, Tally, Violation},
    history::{MS, Teller, clock},
    script::Script,
    try_script, world,
};

/// How many scripts are tried.
const TRIES: usize = 400;

/// Shrinks, tells, and keeps the script.
pub(crate) fn report(script: &Script, violation: &Violation) {
    let (small, violation) = shrink(script.clone(), violation.clone());
    println!("shrunk from {} steps to {}:\n", script.steps.len(), small.steps.len());
    story(&small, &violation);
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("seed-{}.json", script.seed));
    let kept = serde_json::to_string(&small).map(|text| std::fs::write(&file, text));
    if matches!(kept, Ok(Ok(()))) {
        println!("\nkeep it: cp {} tests/sim/regressions/", file.display());
    }
}

/// Drops steps, halves first, as long as the same guarantee breaks.
fn shrink(mut script: Script, mut violation: Violation) -> (Script, Violation) {
    script.until_ms = script.until_ms.min((violation.at / MS) as u64 + 61_000);
    script.steps.retain(|step| step.at_ms < script.until_ms);
    let mut tries = 0;
    let mut size = script.steps.len() / 2;
    while size > 0 && tries < TRIES {
        let mut begin = 0;
        while begin < script.steps.len() && tries < TRIES {
            tries += 1;
            let mut smaller = script.clone();
            smaller.steps.drain(begin..(begin + size).min(script.steps.len()));
            match try_script(&smaller, &mut Tally::new()) {
                Err(found) if found.guarantee == violation.guarantee => (script, violation) = (smaller, found),
                _ => begin += size,
            }
        }
        size /= 2;
    }
    (script, violation)
}

/// Tells what led to a violation.
pub(crate) fn story(script: &Script, violation: &Violation) {
    let mut history = world::play(script);
    history.retain(|entry| entry.at <= violation.at);
    let told = Teller::default().tell(&history);
    let lines: Vec<_> = told.lines().collect();
    let skipped = lines.len().saturating_sub(60);
    if skipped > 0 {
        println!("({skipped} lines before)");
    }
    lines.iter().skip(skipped).for_each(|line| println!("{line}"));
    println!("{} → {}", clock(violation.at), checker::told(violation));
}
