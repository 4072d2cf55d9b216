//! How long to wait before trying again: a random part of a span that doubles, so that a fleet does not come back in step.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(50);
const MOST: Duration = Duration::from_secs(2);

/// The waits after failures in a row.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(FIRST)
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        let span = self.0;
        self.0 = (span * 2).min(MOST);
        let mut bytes = [0; 4];
        // Without randomness the whole span is waited for.
        if getrandom::fill(&mut bytes).is_err() {
            return span;
        }
        span.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_stay_under_two_seconds() {
        let mut backoff = Backoff::new();
        for most in [50, 100, 200, 400, 800, 1600, 2000, 2000] {
            assert!(backoff.next() <= Duration::from_millis(most));
        }
    }
}
