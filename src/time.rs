//! The one clock of the sidecar, and the one place where it meets the wall clock.
//!
//! [`Time`] is a moment on a clock that counts suspend and that nobody can set (`CLOCK_BOOTTIME`), so a wall-clock jump moves
//! no deadline (G14). Only durations come in; timestamps go out for people to read.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

/// A moment, in nanoseconds on the sidecar's own clock.
///
/// The process starts at [`Time::START`], 36 years into the scale: adopted sessions may have begun long before it. 61 bits
/// are used, so that a moment and three flags fit one atomic word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// When a clock starts.
    pub const START: Self = Self(1 << 60);
    /// The last moment that can be told, 36 years after the start. Later ones are clamped to it.
    pub const FAR: Self = Self((1 << 61) - 1);
    /// The first moment that can be told, 36 years before the start. Earlier ones are clamped to it.
    pub const ZERO: Self = Self(0);

    /// The moment `nanos` into the scale, clamped to it.
    #[must_use]
    pub fn from_nanos(nanos: u64) -> Self {
        Self(nanos.min(Self::FAR.0))
    }

    /// Nanoseconds into the scale.
    #[must_use]
    pub fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self::from_nanos(self.0.saturating_add(nanos))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = (i128::from(self.0) - i128::from(Self::START.0)) as f64 / 1e9;
        write!(f, "T{seconds:+.3}s")
    }
}

/// The clock. Clones tell the same time.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    source: Source,
    /// How far a test clock was moved, in nanoseconds.
    advanced: AtomicU64,
    /// Wall clock minus this clock, in nanoseconds: one number, so that the same moment is always told the same.
    wall_offset: AtomicI64,
}

enum Source {
    /// The machine's clock, counted from when this clock was made.
    Boot { made_at: Duration },
    /// Tokio's clock, which tests pause. Its wall clock is fixed, so that transcripts repeat.
    Tokio { made_at: tokio::time::Instant },
}

/// A wall clock that is further off than this was set by somebody; less is drift.
const WALL_JUMP: Duration = Duration::from_secs(1);

impl Clock {
    /// The machine's clock.
    #[must_use]
    pub fn system() -> Self {
        let clock = Self::with_source(Source::Boot { made_at: boot_time() });
        clock.follow_wall_clock();
        clock
    }

    /// Tokio's clock: virtual where Tokio's is. Its wall clock starts at 2026-01-01.
    #[must_use]
    pub fn of_runtime() -> Self {
        let clock = Self::with_source(Source::Tokio {
            made_at: tokio::time::Instant::now(),
        });
        let wall = 1_767_225_600_000_000_000_i64;
        clock.0.wall_offset.store(wall - as_i64(Time::START), Ordering::Relaxed);
        clock
    }

    fn with_source(source: Source) -> Self {
        Self(Arc::new(Inner {
            source,
            advanced: AtomicU64::new(0),
            wall_offset: AtomicI64::new(0),
        }))
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Time {
        let running = match &self.0.source {
            Source::Boot { made_at } => boot_time().saturating_sub(*made_at),
            Source::Tokio { made_at } => made_at.elapsed(),
        };
        let advanced = Duration::from_nanos(self.0.advanced.load(Ordering::Acquire));
        Time::START + running + advanced
    }

    /// Moves a test clock forward.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.0.advanced.fetch_add(nanos, Ordering::AcqRel);
    }

    /// Sets a test clock's wall clock forward or back, as an operator or a time server does.
    pub fn jump_wall(&self, by_nanos: i64) {
        self.0.wall_offset.fetch_add(by_nanos, Ordering::Relaxed);
    }

    /// What the wall clock showed, or will show, at a moment.
    #[must_use]
    pub fn wall(&self, at: Time) -> SystemTime {
        let nanos = as_i64(at).saturating_add(self.0.wall_offset.load(Ordering::Relaxed));
        SystemTime::UNIX_EPOCH + Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// What the wall clock shows, in seconds since 1970.
    #[must_use]
    pub fn unix_seconds(&self) -> i64 {
        let since = self.wall(self.now()).duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    /// The moment at which the wall clock shows this, by what it shows now: for people who ask about a time of day.
    #[must_use]
    pub fn at_wall(&self, wall: SystemTime) -> Time {
        let nanos = match wall.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_nanos()).unwrap_or(i64::MAX),
            Err(_) => 0,
        };
        let nanos = nanos.saturating_sub(self.0.wall_offset.load(Ordering::Relaxed));
        Time::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// Takes over a wall clock that was set. Answers how far it was off if it was.
    #[expect(clippy::disallowed_methods, reason = "the one place where the wall clock is read")]
    pub fn follow_wall_clock(&self) -> Option<Duration> {
        if matches!(self.0.source, Source::Tokio { .. }) {
            return None;
        }
        let wall = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        let wall = i64::try_from(wall.as_nanos()).unwrap_or(i64::MAX);
        let offset = wall - as_i64(self.now());
        let off = offset.abs_diff(self.0.wall_offset.load(Ordering::Relaxed));
        let off = Duration::from_nanos(off);
        // A test clock that was moved is ahead of the wall clock on purpose.
        if off < WALL_JUMP || self.0.advanced.load(Ordering::Relaxed) > 0 {
            return None;
        }
        self.0.wall_offset.store(offset, Ordering::Relaxed);
        Some(off)
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Clock").field(&self.now()).finish()
    }
}

fn as_i64(time: Time) -> i64 {
    // 61 bits always fit.
    time.0 as i64
}

/// Time since the machine booted, suspend included.
fn boot_time() -> Duration {
    #[cfg(target_os = "linux")]
    let clock = rustix::time::ClockId::Boottime;
    // Elsewhere the monotonic clock is the nearest thing: development machines, not pods.
    #[cfg(not(target_os = "linux"))]
    let clock = rustix::time::ClockId::Monotonic;
    let now = rustix::time::clock_gettime(clock);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_clamp_at_both_ends_of_the_scale() {
        assert_eq!(Time::START + Duration::MAX, Time::FAR);
        assert_eq!(Time::START - Duration::MAX, Time::ZERO);
        assert_eq!(Time::ZERO.since(Time::START), Duration::ZERO);
    }

    #[test]
    fn g14_the_wall_clock_only_labels_moments() {
        let clock = Clock::system();
        let moment = clock.now();
        let wall = clock.wall(moment);
        assert_eq!(clock.at_wall(wall), moment);
        assert_eq!(
            clock.at_wall(SystemTime::UNIX_EPOCH - Duration::from_secs(1)),
            clock.at_wall(SystemTime::UNIX_EPOCH)
        );
        clock.0.wall_offset.fetch_add(3_600_000_000_000, Ordering::Relaxed);
        assert_eq!(clock.wall(moment), wall + Duration::from_secs(3600));
        assert!(clock.now().since(moment) < Duration::from_secs(60), "no deadline moved");
        assert!(clock.follow_wall_clock().is_some(), "and the label is mended");
    }
}
