//! The docs say what the code does.

use std::{env, fs, path::Path};

use session_sidecar::config::options_markdown;

#[test]
fn the_table_of_options_is_the_one_that_the_code_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/options.md");
    let made = options_markdown();
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &made).expect("docs/options.md can be written");
    }
    let written = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == made,
        "docs/options.md is out of date: run UPDATE_DOCS=1 cargo test --test docs"
    );
}
