//! Where in a policy file an error is, and what would be right there.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::{KEYS, RULE_KEYS};

/// The line at a byte of the file, and its number.
pub(super) fn line_at(text: &str, byte: usize) -> String {
    let number = 1 + text[..byte.min(text.len())].matches('\n').count();
    let line = text.lines().nth(number - 1).unwrap_or_default().trim();
    format!("line {number} ({line})")
}

/// The line of the key with which a message about a policy begins: of `work_hold.max_ttl must be …`, or of
/// `rule "polls": path must be …`. The policy's own line, if it begins with none.
pub(super) fn line_of(text: &str, policy: &str, message: &str) -> Option<String> {
    let file = DeTable::parse(text).ok()?;
    let (_, all) = entry(file.get_ref(), "policy")?;
    let (own, table) = entry(all.as_table()?, policy)?;
    let place = place_in(table, message).unwrap_or(own);
    Some(line_at(text, place.start))
}

fn place_in(table: &DeValue<'_>, message: &str) -> Option<Range<usize>> {
    let mut table = table.as_table()?;
    let mut rest = message;
    if let Some((name, of_rule)) = message.strip_prefix("rule \"").and_then(|rest| rest.split_once("\": ")) {
        let (_, rules) = entry(table, "rules")?;
        let named = |rule: &&DeTable<'_>| entry(rule, "name").is_some_and(|(_, known)| known.as_str() == Some(name));
        let mut tables = rules.as_array()?.iter().filter_map(|rule| rule.get_ref().as_table());
        table = tables.find(named)?;
        rest = of_rule;
    }
    let path = rest.split(' ').next()?;
    let mut place = None;
    for key in path.split('.') {
        let Some((span, value)) = entry(table, key) else {
            break;
        };
        place = Some(span);
        match value.as_table() {
            Some(inner) => table = inner,
            None => break,
        }
    }
    // Of a rule at least where it is.
    place.or_else(|| entry(table, "name").map(|(span, _)| span))
}

fn entry<'t, 'i>(table: &'t DeTable<'i>, key: &str) -> Option<(Range<usize>, &'t DeValue<'i>)> {
    let (name, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
    Some((name.span(), value.get_ref()))
}

/// The TOML reader's words for what it expected, in those of the docs.
pub(super) fn in_plain_words(message: &str) -> String {
    let mut message = message.to_owned();
    for (theirs, ours) in [
        ("expected u64", "expected a whole number"),
        ("expected u32", "expected a whole number"),
        ("expected usize", "expected a whole number"),
        ("expected a sequence", "expected a list like [\"2m\", \"60s\"]"),
        ("expected a boolean", "expected true or false"),
        ("expected a string", "expected a text in quotes"),
        ("wanted string or table", "expected a text in quotes"),
    ] {
        message = message.replace(theirs, ours);
    }
    message
}

/// What the docs say of the key that is set in a line such as `line 3 (revision = -1)`.
pub(super) fn what_is_right(line: &str) -> Option<String> {
    let (_, set) = line.split_once(" (")?;
    let name = set.split([' ', '=']).next()?;
    let mut known = KEYS.iter().chain(&RULE_KEYS);
    known
        .find(|(key, ..)| *key == name)
        .map(|(key, _, says)| format!("`{key}`: {says}"))
}
