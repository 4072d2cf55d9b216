//! Limits: what a policy says, and what it says to one session.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use super::rules::{Rules, Unmatched};

/// A named set of limits and rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The limits of a session that asked for nothing stricter.
    pub limits: Arc<Limits>,
    /// The shortest session id that Create accepts, in bytes.
    pub min_id_length: usize,
    /// How many live sessions a subject may have under this policy.
    pub max_sessions_per_subject: Option<u32>,
    /// What happens when a subject has that many.
    pub at_subject_cap: AtSubjectCap,
}

/// What happens when a subject that has as many sessions as it may begins another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtSubjectCap {
    /// The new one is refused.
    Refuse,
    /// The oldest ones end as SUPERSEDED.
    EndOldest,
}

/// The limits of one session, resolved when it was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Name of the policy they come from.
    pub policy: Arc<str>,
    /// Revision of that policy: a newer one reaches a session at its next counted activity.
    pub revision: u64,
    /// Inactivity that ends a session. [`Limits::NEVER`]: none does.
    pub idle_timeout: Duration,
    /// Time since authentication that ends a session.
    pub absolute_timeout: Duration,
    /// Warning points before the idle deadline, longest lead first.
    pub idle_points: Box<[Duration]>,
    /// Warning points before the absolute deadline, longest lead first.
    pub absolute_points: Box<[Duration]>,
    /// What a touch is that declares nothing and that no rule matches.
    pub unmatched: Unmatched,
    /// Which touches count.
    pub rules: Arc<Rules>,
    /// How many Extends in a row are granted without a counted touch.
    pub max_extensions: Option<u32>,
    /// How long an ended session is remembered.
    pub tombstone_ttl: Duration,
    /// Long work.
    pub work: WorkLimits,
    /// Open pages, if they matter.
    pub presence: Option<PresenceLimits>,
    /// Whether the session is for reading only, without an idle limit.
    pub passive: bool,
    /// Whether the timeouts are promised as upper bounds: a shared store must round the idle time down, never up, and an
    /// Extend reaches one idle timeout at most.
    pub at_most: bool,
    /// Whether time ends the session; else it is only observed.
    pub enforced: bool,
    /// The idle timeout that Create asked for, if it is stricter than the policy's.
    pub own_idle_timeout: Option<Duration>,
    /// The absolute timeout that Create asked for, if it is stricter than the policy's.
    pub own_absolute_timeout: Option<Duration>,
    /// Whether a newer revision is in force: shared by all limits that come from one revision.
    pub superseded: Superseded,
}

/// What WORK holds may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkLimits {
    /// The longest TTL.
    pub max_ttl: Duration,
    /// How far from the first hold on they may reach without counted user activity.
    pub budget: Duration,
    /// How many may live at once; 0: there are none.
    pub max_live: u32,
}

/// What PRESENCE holds do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceLimits {
    /// How long after the last page was left the session ends.
    pub leave_grace: Duration,
    /// How long after the last page was lost sight of the session ends.
    pub lost_grace: Duration,
    /// The longest TTL.
    pub max_ttl: Duration,
    /// How many may live at once.
    pub max_live: u32,
}

/// A flag that all limits of one revision of a policy share.
#[derive(Clone, Default)]
pub struct Superseded(Arc<AtomicBool>);

impl Superseded {
    /// A newer revision is in force.
    pub fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether a newer revision is in force.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Whether other limits share it: those of sessions that asked for stricter ones.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl fmt::Debug for Superseded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.is_set())
    }
}

/// Limits that say the same are equal, superseded or not.
impl PartialEq for Superseded {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Superseded {}

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

impl Default for WorkLimits {
    fn default() -> Self {
        Self {
            max_ttl: 5 * MINUTE,
            budget: 2 * HOUR,
            max_live: 8,
        }
    }
}

impl PresenceLimits {
    /// What presence is when it is just switched on.
    #[must_use]
    pub fn usual(idle_timeout: Duration) -> Self {
        Self {
            leave_grace: 30 * SECOND,
            lost_grace: idle_timeout,
            max_ttl: 10 * MINUTE,
            max_live: 64,
        }
    }
}

impl Default for Limits {
    /// The policy that a new user meets.
    fn default() -> Self {
        Self {
            policy: "default".into(),
            revision: 0,
            idle_timeout: 15 * MINUTE,
            absolute_timeout: 12 * HOUR,
            idle_points: [2 * MINUTE, MINUTE].into(),
            absolute_points: [10 * MINUTE, 2 * MINUTE].into(),
            unmatched: Unmatched::Count,
            rules: Arc::default(),
            max_extensions: None,
            tombstone_ttl: 24 * HOUR,
            work: WorkLimits::default(),
            presence: None,
            passive: false,
            at_most: false,
            enforced: true,
            own_idle_timeout: None,
            own_absolute_timeout: None,
            superseded: Superseded::default(),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            limits: Arc::default(),
            min_id_length: 16,
            max_sessions_per_subject: None,
            at_subject_cap: AtSubjectCap::Refuse,
        }
    }
}

impl Limits {
    /// The idle timeout of a session that inactivity does not end: longer than any absolute one.
    pub const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

    /// How far ahead of an activity it may be written where many sidecars share sessions, so that one write covers the next ones:
    /// a hundredth of the idle timeout, 250 ms at least and 10 s at most, unless another span is `wanted`; never more than a quarter
    /// of the time before the first idle warning.
    #[must_use]
    pub fn window(&self, wanted: Option<Duration>) -> Duration {
        let longest = self.idle_points.first().copied().unwrap_or(Duration::ZERO);
        let room = self.idle_timeout.saturating_sub(longest) / 4;
        wanted
            .unwrap_or((self.idle_timeout / 100).clamp(SECOND / 4, 10 * SECOND))
            .min(room)
    }

    /// These limits with stricter timeouts for one session. The warning points stay, as far as they fit.
    #[must_use]
    pub fn stricter(&self, idle_timeout: Option<Duration>, absolute_timeout: Option<Duration>) -> Self {
        let idle = idle_timeout.map_or(self.idle_timeout, |own| own.min(self.idle_timeout));
        let absolute = absolute_timeout.map_or(self.absolute_timeout, |own| own.min(self.absolute_timeout));
        Self {
            idle_timeout: idle,
            absolute_timeout: absolute,
            idle_points: warning_points(&self.idle_points, idle),
            absolute_points: warning_points(&self.absolute_points, absolute),
            own_idle_timeout: idle_timeout,
            own_absolute_timeout: absolute_timeout,
            ..self.clone()
        }
    }

    /// The limits of a live session that a newer revision of its policy reaches, at an activity, `age` after its
    /// authentication. What Create asked for stays in force. The absolute deadline only moves earlier, and not nearer than one
    /// idle window from that activity: a reload ends nobody early and warns nobody by surprise.
    #[must_use]
    pub fn adopted(&self, newer: &Self, age: Duration) -> Self {
        let limits = newer.stricter(self.own_idle_timeout, self.own_absolute_timeout);
        let window = limits
            .idle_timeout
            .min(if newer.passive { NO_IDLE_WINDOW } else { Self::NEVER });
        let nearest = age.saturating_add(window);
        let absolute = self.absolute_timeout.min(limits.absolute_timeout.max(nearest));
        Self {
            absolute_timeout: absolute,
            absolute_points: warning_points(&newer.absolute_points, absolute),
            ..limits
        }
    }

    /// How far from now an Extend reaches: as far as was wanted, one idle timeout if nothing was. Where the timeouts are
    /// promised to be `at_most`, never further than that, or a caller could move the idle deadline to the absolute one.
    #[must_use]
    pub fn extension(&self, wanted: Option<Duration>) -> Duration {
        match wanted {
            Some(wanted) if self.at_most => wanted.min(self.idle_timeout),
            Some(wanted) => wanted,
            None => self.idle_timeout,
        }
    }
}

/// What stands for the idle window of a policy without an idle limit when its absolute limit moves: people need time to finish.
const NO_IDLE_WINDOW: Duration = Duration::from_secs(15 * 60);

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
        let points = warning_points(&[60 * SECOND, 120 * SECOND], 900 * SECOND);
        assert_eq!(*points, [120 * SECOND, 60 * SECOND]);
        let points = warning_points(&points, 60 * SECOND);
        assert_eq!(*points, [30 * SECOND], "both collapse to one point");
    }

    #[test]
    fn a_newer_revision_moves_the_absolute_deadline_only_earlier_and_leaves_an_idle_window() {
        let newer = |idle: u32, absolute: u32| Limits {
            revision: 2,
            idle_timeout: idle * MINUTE,
            absolute_timeout: absolute * MINUTE,
            absolute_points: warning_points(&[20 * MINUTE, MINUTE], absolute * MINUTE),
            ..Limits::default()
        };
        let old = Limits {
            revision: 1,
            absolute_timeout: 600 * MINUTE,
            ..Limits::default()
        };
        for (case, own, newer, age, absolute, points) in [
            ("later is never", None, newer(15, 900), 60, 600, vec![20, 1]),
            ("earlier", None, newer(15, 300), 60, 300, vec![20, 1]),
            ("one idle window away", None, newer(15, 300), 290, 305, vec![20, 1]),
            ("long past", None, newer(15, 300), 400, 415, vec![20, 1]),
            ("not past the old one", None, newer(15, 300), 595, 600, vec![20, 1]),
            ("its own stays", Some(120), newer(15, 300), 60, 120, vec![20, 1]),
            (
                "its own is not passed",
                Some(120),
                newer(15, 300),
                115,
                120,
                vec![20, 1],
            ),
            ("leads fit", None, newer(2, 30), 1, 30, vec![15, 1]),
        ] {
            let own = own.map(|own: u32| own * MINUTE);
            let adopted = old.stricter(None, own).adopted(&newer, age * MINUTE);
            assert_eq!(adopted.absolute_timeout, absolute * MINUTE, "{case}");
            let points: Vec<_> = points.into_iter().map(|lead: u32| lead * MINUTE).collect();
            assert_eq!(*adopted.absolute_points, points, "{case}");
            assert_eq!((adopted.revision, adopted.own_absolute_timeout), (2, own), "{case}");
        }
    }

    #[test]
    fn a_newer_revision_keeps_a_stricter_idle_timeout_and_fits_the_points() {
        let newer = Limits {
            idle_timeout: 30 * MINUTE,
            idle_points: [10 * MINUTE].into(),
            ..Limits::default()
        };
        let old = Limits::default();
        assert_eq!(
            old.adopted(&newer, MINUTE).idle_timeout,
            30 * MINUTE,
            "longer or shorter"
        );
        let adopted = old.stricter(Some(4 * MINUTE), None).adopted(&newer, MINUTE);
        assert_eq!(adopted.idle_timeout, 4 * MINUTE);
        assert_eq!(*adopted.idle_points, [2 * MINUTE]);
        newer.superseded.set();
        assert!(adopted.superseded.is_set(), "the next revision will reach it too");
        // Without an idle limit a quarter of an hour stays.
        let passive = Limits {
            idle_timeout: Limits::NEVER,
            passive: true,
            absolute_timeout: HOUR,
            ..Limits::default()
        };
        assert_eq!(old.adopted(&passive, 2 * HOUR).absolute_timeout, 2 * HOUR + 15 * MINUTE);
    }

    #[test]
    fn an_extension_reaches_as_far_as_wanted_unless_timeouts_are_at_most() {
        let mut limits = Limits::default();
        assert_eq!(limits.extension(None), 15 * MINUTE);
        assert_eq!(limits.extension(Some(HOUR)), HOUR);
        limits.at_most = true;
        assert_eq!(limits.extension(Some(HOUR)), 15 * MINUTE);
        assert_eq!(limits.extension(Some(MINUTE)), MINUTE);
    }
}
