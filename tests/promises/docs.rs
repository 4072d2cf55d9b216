//! The docs say what the code does.

use std::{env, fs, path::Path};

use session_sidecar::{
    compliance::{Preset, toml},
    config::{options_markdown, parse_policies},
    store::shared::trial::acl_line,
};

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
        "docs/options.md is out of date: run UPDATE_DOCS=1 cargo test --test promises docs::"
    );
}

/// The blocks of a page that are fenced as TOML, each with its line.
fn toml_blocks(page: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in page.lines().enumerate() {
        match (&mut open, line.trim()) {
            (None, "```toml") => open = Some((number + 1, String::new())),
            (None, _) => {}
            (Some(_), "```") => blocks.extend(open.take()),
            (Some((_, block)), _) => {
                block.push_str(line);
                block.push('\n');
            }
        }
    }
    blocks
}

#[test]
fn every_policy_in_the_docs_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).expect("docs");
    let mut pages: Vec<_> = docs.map(|entry| entry.expect("an entry").path()).collect();
    pages.push(root.join("README.md"));
    let mut seen = 0;
    for path in pages
        .iter()
        .filter(|path| path.extension().is_some_and(|kind| kind == "md"))
    {
        let page = fs::read_to_string(path).expect("a page");
        for (line, block) in toml_blocks(&page) {
            seen += 1;
            let policies = parse_policies(&block);
            let policies = policies.unwrap_or_else(|error| panic!("{}:{line}: {error:#}", path.display()));
            for policy in policies.values() {
                let text = toml(policy);
                assert_eq!(
                    &parse_policies(&text).expect("policies")[&*policy.limits.policy],
                    policy,
                    "{text}"
                );
            }
        }
    }
    assert!(seen >= 9, "{seen} examples were found");
}

#[test]
fn the_first_policy_of_the_page_is_the_default_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md");
    let page = fs::read_to_string(path).expect("a page");
    let (_, block) = toml_blocks(&page).swap_remove(0);
    assert_eq!(
        parse_policies(&block).expect("policies"),
        parse_policies("").expect("policies")
    );
}

#[test]
fn the_page_shows_the_presets_as_they_are() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/policies.md");
    let page = fs::read_to_string(path).expect("a page");
    for preset in &Preset::ALL {
        let limits = preset.policy().limits;
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", preset.name)));
        let cells: Vec<_> = row.expect("a row").split('|').map(str::trim).collect();
        let read = |cell: &str| humantime::parse_duration(&cell.replace(' ', "")).expect("a duration");
        assert_eq!(
            (read(cells[2]), read(cells[3])),
            (limits.idle_timeout, limits.absolute_timeout),
            "{}",
            preset.name
        );
    }
}

#[test]
fn the_page_tells_the_rights_that_the_stores_user_needs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/one-pod-or-many.md");
    let page = fs::read_to_string(path).expect("a page");
    let line = |address: &str| acl_line(&address.parse().expect("an address"));
    let least = line("redis://localhost");
    assert!(
        page.contains(&format!("\nACL SETUSER session-sidecar on >PASSWORD {least}\n")),
        "{least}"
    );
    for address in ["redis+cluster://localhost:1", "redis://localhost/1"] {
        for right in line(address)
            .split(' ')
            .filter(|right| !least.split(' ').any(|known| known == *right))
        {
            assert!(page.contains(&format!("`{right}`")), "{right}");
        }
    }
}
