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
    let as_it_is = std::env::args().any(|arg| arg == "--as-it-is");
    let (small, violation) = if as_it_is {
        (script.clone(), violation.clone())
    } else {
        shrink(script.clone(), violation.clone())
    };
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
    let mut teller = Teller::default();
    let told = teller.tell(&history);
    let mut lines: Vec<_> = told.lines().collect();
    if lines.len() > 200 {
        // Still long: only what is about the session that it is about, and what befell everybody.
        let words = violation
            .text
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'));
        let name = words
            .filter(|word| word.len() == 22)
            .map(|word| teller.name_of(word))
            .next()
            .unwrap_or_default();
        let everybodys = ["slept", "reloaded", "restarts"];
        lines.retain(|line| {
            line.split(' ').any(|word| word == name) || everybodys.iter().any(|word| line.contains(word))
        });
    }
    let skipped = lines.len().saturating_sub(60);
    if skipped > 0 {
        println!("({skipped} lines before)");
    }
    lines.iter().skip(skipped).for_each(|line| println!("{line}"));
    println!("{} → {}", clock(violation.at), checker::told(violation));
}
