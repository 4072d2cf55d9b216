//! What failed once must not fail again: seeds in `regressions.txt`, and scripts in `regressions/`. A seed is a line that a
//! person can read, but the script that is drawn from it changes with `script.rs`; a script stays what it is.

use std::{fs, path::Path};

use crate::{
    checker::{self, Tally, Violation},
    script::{self, Script, Size},
    shrink, try_script,
};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/sim");

/// A kept story.
struct Kept {
    name: String,
    script: Script,
}

/// Plays all that is kept. Answers how many fail.
pub(crate) fn replay() -> u64 {
    let mut kept = seeds();
    kept.extend(scripts());
    let failed = kept.iter().filter(|kept| !holds(kept)).count() as u64;
    println!("{} kept stories: {failed} failed", kept.len());
    failed
}

/// What to do so that a seed is played for ever.
pub(crate) fn how_to_keep(seed: u64, size: Size, violation: &Violation) -> String {
    let found = violation.text.split(':').next().unwrap_or_default();
    let line = format!("{seed} {size} {}: {found}", violation.guarantee);
    format!("keep it: add this line to tests/sim/regressions.txt, and say in it what was wrong\n\n    {line}\n")
}

fn holds(kept: &Kept) -> bool {
    let Err(violation) = try_script(&kept.script, &mut Tally::new()) else {
        return true;
    };
    println!("{} is back: {}", kept.name, checker::told(&violation));
    shrink::story(&kept.script, &violation);
    false
}

/// Each line: the seed, the days (or `crowd`), and what it found or shows.
fn seeds() -> Vec<Kept> {
    let file = format!("{FOLDER}/regressions.txt");
    let text = fs::read_to_string(&file).expect("tests/sim/regressions.txt can be read");
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let seed = words.next().map(str::parse::<u64>);
            let (Some(Ok(seed)), Some(Ok(size))) = (seed, words.next().map(str::parse::<Size>)) else {
                panic!("{file}: a line begins with a seed and a number of days, or `crowd`, not {line:?}");
            };
            Kept {
                name: format!("seed {line}"),
                script: script::draw(seed, size),
            }
        })
        .collect()
}

fn scripts() -> Vec<Kept> {
    let folder = format!("{FOLDER}/regressions");
    let files = fs::read_dir(Path::new(&folder)).into_iter().flatten().flatten();
    let mut files: Vec<_> = files.map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
    files.sort();
    files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).expect("a kept script can be read");
            Kept {
                name: file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                script: serde_json::from_str(&text).expect("a kept script is a script"),
            }
        })
        .collect()
}
