//! Limits: what a policy says, and what it says to one session.

use std::{sync::Arc, time::Duration};

/// A named set of limits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The limits of a session that asked for nothing stricter.
    pub limits: Arc<Limits>,
    /// The shortest session id that Create accepts, in bytes. Default 16 (128 bits: OWASP ASVS 5.0 7.2.3).
    pub min_id_length: usize,
}

/// The limits of one session, resolved when it was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Name of the policy they come from.
    pub policy: Arc<str>,
    /// Inactivity that ends a session.
    pub idle_timeout: Duration,
    /// Time since authentication that ends a session.
    pub absolute_timeout: Duration,
    /// Warning points before the idle deadline, longest lead first.
    pub idle_points: Box<[Duration]>,
    /// Warning points before the absolute deadline, longest lead first.
    pub absolute_points: Box<[Duration]>,
    /// What a touch that declares nothing is.
    pub unmatched: Unmatched,
    /// How many Extends in a row are granted without a counted touch.
    pub max_extensions: Option<u32>,
    /// How long an ended session is remembered.
    pub tombstone_ttl: Duration,
}

/// What a touch is that declares no activity kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatched {
    /// It counts.
    Count,
    /// It does not.
    Ignore,
}

impl Limits {
    /// These limits with stricter timeouts. The warning points stay, as far as they fit.
    #[must_use]
    pub fn stricter(&self, idle_timeout: Duration, absolute_timeout: Duration) -> Self {
        Self {
            idle_timeout,
            absolute_timeout,
            idle_points: warning_points(&self.idle_points, idle_timeout),
            absolute_points: warning_points(&self.absolute_points, absolute_timeout),
            ..self.clone()
        }
    }
}

/// Leads as they are in force under a timeout: longest first, none over half of it, each once.
#[must_use]
pub fn warning_points(leads: &[Duration], timeout: Duration) -> Box<[Duration]> {
    let mut points: Vec<Duration> = leads.iter().map(|lead| (*lead).min(timeout / 2)).collect();
    points.sort_unstable_by(|a, b| b.cmp(a));
    points.dedup();
    points.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g3_a_lead_over_half_the_timeout_fires_at_half_of_it() {
        let seconds = Duration::from_secs;
        let points = warning_points(&[seconds(60), seconds(120)], seconds(900));
        assert_eq!(*points, [seconds(120), seconds(60)]);
        let points = warning_points(&points, seconds(60));
        assert_eq!(*points, [seconds(30)], "both collapse to one point");
    }
}
