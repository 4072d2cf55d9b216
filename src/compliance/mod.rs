//! What the standards ask of a policy: presets that meet them, a lint that names each departure, the worst case computed, and
//! the page for an auditor. Pure: policies go in, texts and findings come out.

mod document;
mod lint;
mod presets;
mod toml;
mod worst_case;

use std::time::Duration;

pub use document::document;
pub use lint::{Finding, Standard, lint, lint_against};
pub use presets::Preset;
pub use toml::toml;
pub use worst_case::{Kept, PUSH_LATENESS, Term, total, worst_case};

/// A duration as a policy file would say it, exactly: "15m", "1h 30m", "30d".
#[must_use]
pub fn span(duration: Duration) -> String {
    const UNITS: [(u128, &str); 7] = [
        (86_400_000_000_000, "d"),
        (3_600_000_000_000, "h"),
        (60_000_000_000, "m"),
        (1_000_000_000, "s"),
        (1_000_000, "ms"),
        (1_000, "us"),
        (1, "ns"),
    ];
    let mut rest = duration.as_nanos();
    let mut parts = Vec::new();
    for (size, unit) in UNITS {
        let count = rest / size;
        // "24h" and "36h" are how people say it; days begin where hours become hard to read.
        if count > 0 && !(unit == "d" && count < 3) {
            parts.push(format!("{count}{unit}"));
            rest %= size;
        }
    }
    if parts.is_empty() {
        return "0s".to_owned();
    }
    parts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_exactly() {
        for (nanos, told) in [
            (0, "0s"),
            (900_000_000_000, "15m"),
            (86_400_000_000_000, "24h"),
            (30 * 86_400_000_000_000, "30d"),
            (5_400_000_000_000, "1h 30m"),
            (500_000_001, "500ms 1ns"),
        ] {
            let duration = Duration::from_nanos(nanos);
            assert_eq!(span(duration), told);
            assert_eq!(humantime::parse_duration(told).unwrap(), duration);
        }
    }
}
