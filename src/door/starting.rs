//! Sessions that begin at the door, with an id that the sidecar has not seen: `unknown = "start"`.

use std::time::Duration;

use parking_lot::Mutex;

use super::{Door, Unknown, settings::Starting};
use crate::{
    sessions::{Create, Error, Name, Report},
    time::Time,
};

/// How far behind the rate may fall and catch up.
const BURST: Duration = Duration::from_secs(1);

/// When the next one may begin, as far as the rate is concerned.
pub(super) struct Pace(Mutex<Time>);

impl Default for Pace {
    fn default() -> Self {
        Self(Mutex::new(Time::ZERO))
    }
}

impl Pace {
    fn takes_one(&self, now: Time, rate: u32) -> bool {
        let mut next = self.0.lock();
        *next = (*next).max(now - BURST);
        if *next > now {
            return false;
        }
        *next = *next + Duration::from_secs(1) / rate;
        true
    }
}

impl Door {
    /// Begins a session with an id that nobody has seen. `None`: not now, or not with this id; then it is as unknown as before.
    pub(super) async fn start(&self, name: Name<'_>, policy: Option<&str>) -> Result<Option<Report>, Error> {
        let Unknown::Start(Starting {
            max_sessions,
            rate,
            app_session_age,
        }) = self.settings.unknown
        else {
            return Ok(None);
        };
        let policy = policy.unwrap_or("default");
        // Of those that the file names this is certain. A proxy may name others.
        let limits = self.sessions.policies().current(policy);
        let remembers = limits.is_some_and(|limits| app_session_age.is_none_or(|age| age <= limits.tombstone_ttl));
        if !remembers
            || self.sessions.levels().live >= max_sessions
            || !self.pace.takes_one(self.sessions.clock().now(), rate)
        {
            self.meter.not_started.inc();
            return Ok(None);
        }
        let create = Create {
            tenant: self.settings.tenant.clone(),
            session_id: Some(name.session_id),
            policy,
            ..Create::default()
        };
        match self.sessions.create(create).await {
            Ok(created) => {
                self.meter.started.inc();
                Ok(Some(created.report))
            }
            // Another request of the same browser was faster.
            Err(Error::Exists(_)) => self.not_over(name).await.map(Some),
            Err(error @ (Error::Ended(..) | Error::Unavailable(_))) => Err(error),
            Err(_) => {
                self.meter.not_started.inc();
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_over_any_second_and_a_burst_of_one() {
        let pace = Pace::default();
        let at = |millis| Time::START + Duration::from_millis(millis);
        let begun = |from: u64, to: u64| (from..to).filter(|millis| pace.takes_one(at(*millis), 50)).count();
        assert_eq!(begun(0, 1), 1);
        assert_eq!(
            (0..1000).filter(|_| pace.takes_one(at(0), 50)).count(),
            50,
            "what was not used in the second before"
        );
        assert_eq!(begun(1, 1000), 49);
        assert_eq!(begun(1000, 2000), 50);
    }
}
