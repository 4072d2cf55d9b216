//! All that is not a person: gateways that come and go, mass logins, and what befalls the machine.

use super::{Action, Author, DAY, HOUR, MINUTE, SECOND, Scope, TENANTS, Touch};

impl Author {
    pub(super) fn gateways(&mut self) {
        let last = self.next_session;
        for watcher in 1..=self.rng.within(6, 10) as u32 {
            let tenant = self.rng.below(3) as usize;
            let mut now = self.rng.below(self.until / 2);
            while now < self.until {
                let scope = match self.rng.below(6) {
                    0 => Scope::Everything,
                    1 => Scope::Tenant,
                    2 => Scope::Subject(self.rng.within(1, 60) as u8),
                    number => {
                        let near = (now * u64::from(last) / self.until) as u32;
                        let some = (0..self.rng.within(1, 12)).map(|_| {
                            let number = (near + self.rng.below(60) as u32).saturating_sub(10);
                            number * TENANTS.len() as u32 + tenant as u32
                        });
                        let some = some.collect();
                        if number == 3 {
                            Scope::Refs(some)
                        } else {
                            Scope::Ids(some)
                        }
                    }
                };
                let kinds = if self.rng.chance(70) {
                    0
                } else {
                    self.rng.within(1, 7) as u8
                };
                let initial = self.rng.chance(50);
                self.at(
                    now,
                    Action::Watch {
                        watcher,
                        tenant,
                        scope,
                        kinds,
                        initial,
                    },
                );
                for _ in 0..self.rng.within(1, 6) {
                    now += self.rng.within(MINUTE, 8 * HOUR);
                    match self.rng.below(10) {
                        0..6 => {
                            self.at(now, Action::Cut { watcher });
                            now += self.rng.pick(&[1, 50, SECOND, MINUTE, HOUR]);
                            self.at(now, Action::Resume { watcher });
                        }
                        6 => {
                            let of = self.rng.within(1, 6) as u32;
                            self.at(now, Action::Foreign { watcher, of });
                        }
                        _ => {
                            self.at(now, Action::Reads { watcher, reads: false });
                            now += self.rng.pick(&[SECOND, 20 * SECOND, MINUTE, 10 * MINUTE]);
                            self.at(now, Action::Reads { watcher, reads: true });
                        }
                    }
                }
                now += self.rng.within(MINUTE, 10 * HOUR);
            }
        }
    }

    /// Many sessions with one deadline, as after an adoption or a mass login, and somebody who does not read meanwhile.
    pub(super) fn bursts(&mut self) -> bool {
        let begun = self.next_session;
        for _ in 0..self.rng.within(0, 2) {
            let start = self.rng.below(self.until);
            let (watcher, tenant) = (90 + self.rng.below(3) as u32, self.rng.below(3) as usize);
            let scope = self.rng.pick(&[0, 1]);
            let scope = if scope == 0 { Scope::Everything } else { Scope::Tenant };
            self.at(
                start,
                Action::Watch {
                    watcher,
                    tenant,
                    scope,
                    kinds: 0,
                    initial: false,
                },
            );
            self.at(start + 5, Action::Reads { watcher, reads: false });
            let count = self.rng.within(100, 500);
            for number in 0..count {
                let session = self.session(tenant);
                let create = Action::Create {
                    session,
                    policy: 1,
                    subject: 0,
                    own_id: true,
                    idle: None,
                    absolute: None,
                    authenticated_ago: 0,
                    // All of them at the same deadline.
                    idle_for: number + 1,
                    request: None,
                };
                self.at(start + 10 + number, create);
            }
            self.at(start + 5 * MINUTE, Action::Reads { watcher, reads: true });
            self.at(start + 6 * MINUTE, Action::Resume { watcher });
        }
        self.next_session > begun
    }

    /// A gateway that watches a session by name beyond its login, comes back when the way from the old name to the new one is
    /// forgotten, and must still hear of the end.
    pub(super) fn followers(&mut self) {
        for watcher in 70..70 + (self.until / DAY).min(3) as u32 + 1 {
            let tenant = self.rng.below(3) as usize;
            let start = self.rng.below(self.until);
            let [old, session] = [self.session(tenant), self.session(tenant)];
            let create = Action::Create {
                session: old,
                // Of the one that remembers for an hour.
                policy: 2,
                subject: 0,
                own_id: true,
                idle: None,
                absolute: None,
                authenticated_ago: 0,
                idle_for: 0,
                request: None,
            };
            self.at(start, create);
            let watch = Action::Watch {
                watcher,
                tenant,
                scope: if self.rng.chance(50) {
                    Scope::Ids(vec![old])
                } else {
                    Scope::Refs(vec![old])
                },
                kinds: 0,
                initial: self.rng.chance(50),
            };
            self.at(start + SECOND, watch);
            let rotate = Action::Rotate {
                session: old,
                to: session,
                authenticated_ago: Some(0),
                subject: None,
                request: None,
            };
            self.at(start + MINUTE, rotate);
            for turn in 1..=4 {
                let touch = Touch {
                    session,
                    activity: 1,
                    ago: 0,
                    hint: 0,
                };
                self.at(start + turn * 20 * MINUTE, Action::Touch(touch));
            }
            let away = start + self.rng.within(50, 70) * MINUTE;
            self.at(away, Action::Cut { watcher });
            let back = away + self.rng.within(1, 9) * MINUTE;
            self.at(back, Action::Resume { watcher });
            let end = Action::End {
                session,
                revoked: false,
                request: None,
            };
            self.at(start + 90 * MINUTE, end);
        }
    }

    pub(super) fn world(&mut self) {
        let days = self.until / DAY + 1;
        for _ in 0..self.rng.below(days * 2 + 1) {
            let ms = match self.rng.below(4) {
                0 => self.rng.within(100, 3_900),
                1 => self.rng.within(5_100, MINUTE),
                _ => self.rng.within(MINUTE, 2 * HOUR),
            };
            let at = self.rng.below(self.until);
            self.at(at, Action::Gap { ms });
        }
        for _ in 0..self.rng.below(days * 2) {
            let at = self.rng.below(self.until);
            let by_ms = self.rng.within(1_000, 40 * DAY) as i64;
            let by_ms = if self.rng.chance(50) { by_ms } else { -by_ms };
            self.at(at, Action::Wall { by_ms });
        }
        for _ in 0..self.rng.below(days / 2 + 2) {
            let at = self.rng.below(self.until);
            self.at(at, Action::Reload);
        }
        for _ in 0..self.rng.below(days / 3 + 2) {
            let at = self.rng.below(self.until);
            let graceful = self.rng.chance(50);
            self.at(at, Action::Restart { graceful });
        }
    }
}
