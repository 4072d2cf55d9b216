//! People: they come, click, hold, wait, leave, and come back too late.

use super::{Action, Ask, Author, DAY, HOUR, MINUTE, SECOND, TENANTS, Touch};
use crate::policies::specs;

impl Author {
    pub(super) fn user(&mut self, user: u64) {
        let tenant = if self.rng.chance(60) {
            0
        } else {
            self.rng.within(1, 2) as usize
        };
        let policy = self.rng.pick(&[0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 7, 8, 8]);
        let subject = (user % 200 + 1) as u8;
        let mut now = self.rng.within(SECOND, (10 * HOUR).min(self.until / 2));
        while now < self.until {
            let end = self.visit(now, tenant, policy, subject);
            // The next visit: soon, with the old session still there, or on another day. People are mostly away.
            now = match self.rng.below(10) {
                0..3 => now + self.rng.within(10 * SECOND, 10 * MINUTE),
                3..6 => end + self.rng.within(MINUTE, 4 * HOUR),
                _ => end + self.rng.within(6 * HOUR, 5 * DAY),
            };
        }
    }

    /// One session's life, as far as its person knows.
    fn visit(&mut self, start: u64, tenant: usize, policy: u8, subject: u8) -> u64 {
        let mut session = self.session(tenant);
        let create = self.create(session, policy, subject);
        if self.rng.chance(5) {
            // A caller that retries, or does not wait for the answer.
            let retry = create.clone();
            let when = start + self.rng.pick(&[1, 300, 5_000]);
            self.at(when, retry);
        }
        if self.rng.chance(4) {
            let second = self.session(tenant);
            let other = self.create(second, policy, subject);
            self.at(start, Action::Race(vec![create, other]));
        } else {
            self.at(start, create);
        }
        let spec = &specs(0)[usize::from(policy)];
        let (idle, lead) = (
            if spec.passive { HOUR } else { spec.idle },
            spec.idle_leads.first().copied(),
        );
        let mut now = start;
        for _ in 0..self.rng.within(2, 24) {
            now += self.pause(idle, lead.unwrap_or(MINUTE));
            let roll = self.rng.below(1000);
            let action = match roll {
                0..330 => self.touch(session, idle),
                400..430 => self.operator(session, subject),
                330..400 => Action::Touch(Touch {
                    session,
                    activity: 2,
                    ago: 0,
                    hint: 0,
                }),
                430..470 => {
                    let touches = (0..self.rng.within(1, 6))
                        .map(|_| self.one_touch(session, idle))
                        .collect();
                    Action::Batch(touches)
                }
                470..560 => Action::Check {
                    session,
                    by_ref: self.rng.chance(30),
                },
                560..580 => {
                    let others = (0..3).map(|back| session.saturating_sub(back * TENANTS.len() as u32));
                    Action::CheckMany(others.collect())
                }
                580..640 => self.extend(session, idle),
                640..830 => self.hold(&mut now, session, policy, idle),
                830..870 => {
                    let to = self.session(tenant);
                    let old = std::mem::replace(&mut session, to);
                    let rotate = self.rotate(old, to, subject);
                    self.at(now, rotate);
                    self.after_rotate(now, old, idle)
                }
                870..900 => Action::Stranger {
                    session,
                    how: self.rng.below(3) as u8,
                },
                900..915 => Action::Bad {
                    session,
                    which: self.rng.below(8) as u8,
                },
                915..970 => self.race(session, idle),
                970..985 => {
                    let request = self.rng.chance(40).then(|| self.request());
                    let end = Action::End {
                        session,
                        revoked: self.rng.chance(30),
                        request,
                    };
                    if self.rng.chance(50) {
                        let when = now + self.rng.within(1, 900);
                        self.at(when, end.clone());
                    }
                    end
                }
                _ => {
                    // Somebody looks long after.
                    let look = Action::Check {
                        session,
                        by_ref: self.rng.chance(50),
                    };
                    let when = now + spec.tombstone + self.rng.within(0, idle * 2);
                    self.at(when, look);
                    Action::Touch(Touch {
                        session,
                        activity: 1,
                        ago: 0,
                        hint: 0,
                    })
                }
            };
            self.at(now, action);
        }
        // Most people just leave, and some come back after the end.
        match self.rng.below(10) {
            0..3 => self.at(
                now + 2_000,
                Action::End {
                    session,
                    revoked: false,
                    request: None,
                },
            ),
            3..6 => {
                let late = self.touch(session, idle);
                let when = now + idle + self.rng.within(0, idle);
                self.at(when, late);
            }
            _ => {}
        }
        if self.rng.chance(25) {
            let look = Action::Check { session, by_ref: false };
            let when = now + idle + spec.tombstone.min(DAY) * self.rng.within(0, 11) / 10;
            self.at(when, look);
        }
        now + idle
    }

    fn create(&mut self, session: u32, policy: u8, subject: u8) -> Action {
        let spec = &specs(0)[usize::from(policy)];
        let request = self.rng.chance(25).then(|| self.request());
        let adopted = self.rng.chance(15);
        Action::Create {
            session,
            policy,
            subject: if policy == 4 || policy == 5 || self.rng.chance(60) {
                subject
            } else {
                0
            },
            own_id: self.rng.chance(70),
            idle: (!spec.passive && self.rng.chance(10)).then(|| spec.idle / self.rng.within(1, 4)),
            absolute: self.rng.chance(10).then(|| spec.absolute / self.rng.within(1, 3)),
            authenticated_ago: if adopted {
                self.rng.below(spec.absolute * 11 / 10)
            } else {
                0
            },
            idle_for: if adopted {
                self.rng.below(spec.idle * 11 / 10)
            } else {
                0
            },
            request,
        }
    }

    /// A while until the next thing: mostly short; often just before, at, or just after what is due.
    fn pause(&mut self, idle: u64, lead: u64) -> u64 {
        let near = self.rng.pick(&[0, 0, 1, 2, 4, 7, 20, 60, 900]);
        match self.rng.below(20) {
            0..10 => self.rng.within(500, idle / 4),
            10..13 => self.rng.within(idle / 4, idle),
            13 => idle + near,
            14 | 15 => idle.saturating_sub(near + 1),
            16 | 17 => idle.saturating_sub(lead) + near,
            18 => idle.saturating_sub(self.rng.below(lead)),
            _ => self.rng.within(1, 40),
        }
    }

    fn one_touch(&mut self, session: u32, idle: u64) -> Touch {
        Touch {
            session,
            activity: self.rng.pick(&[0, 0, 1, 1, 1, 2]),
            ago: if self.rng.chance(20) {
                self.rng.below(idle * 12 / 10)
            } else {
                0
            },
            hint: if self.rng.chance(30) {
                self.rng.below(9) as u8
            } else {
                0
            },
        }
    }

    fn touch(&mut self, session: u32, idle: u64) -> Action {
        Action::Touch(self.one_touch(session, idle))
    }

    fn extend(&mut self, session: u32, idle: u64) -> Action {
        let request = self.rng.chance(30).then(|| self.request());
        let wanted = self.rng.chance(50).then(|| self.rng.within(1, idle * 4));
        Action::Extend {
            session,
            wanted,
            request,
        }
    }

    fn hold(&mut self, now: &mut u64, session: u32, policy: u8, idle: u64) -> Action {
        let has_presence = specs(0)[usize::from(policy)].presence.is_some();
        let work = if has_presence {
            self.rng.chance(40)
        } else {
            self.rng.chance(90)
        };
        let hold = if work {
            self.rng.below(4) as u8
        } else {
            10 + self.rng.below(4) as u8
        };
        let ttl = self.rng.within(SECOND, 8 * MINUTE);
        if policy > 3 || self.rng.chance(25) {
            return Action::Hold {
                session,
                hold,
                work,
                ttl,
            };
        }
        // Pulses: a page that is open, or a job that runs.
        let beat = ttl.clamp(20 * SECOND, 2 * MINUTE);
        for _ in 0..self.rng.within(1, 9) {
            self.at(
                *now,
                Action::Hold {
                    session,
                    hold,
                    work,
                    ttl,
                },
            );
            if self.rng.chance(20) {
                let activity = self.rng.pick(&[1, 2]);
                self.at(
                    *now + 1_500,
                    Action::Touch(Touch {
                        session,
                        activity,
                        ago: 0,
                        hint: 0,
                    }),
                );
            }
            *now += self.rng.within(beat / 2, beat * 11 / 10);
        }
        if self.rng.chance(20) {
            // The page is loaded anew: it leaves, and is there again.
            self.at(*now, Action::Release { session, hold });
            *now += self.rng.within(50, 3_000);
            return Action::Hold {
                session,
                hold: hold + 4,
                work,
                ttl: idle.min(ttl),
            };
        }
        if self.rng.chance(60) {
            Action::Release { session, hold }
        } else {
            // It is lost sight of; perhaps its person does something just before, or after, the grace.
            *now += self
                .rng
                .pick(&[ttl, ttl + 20 * SECOND, ttl + 30 * SECOND, ttl + 3 * MINUTE]);
            self.touch(session, idle)
        }
    }

    fn rotate(&mut self, session: u32, to: u32, subject: u8) -> Action {
        let authenticated_ago = self.rng.chance(35).then(|| self.rng.pick(&[0, 0, 0, SECOND, MINUTE]));
        Action::Rotate {
            session,
            to,
            authenticated_ago,
            subject: self.rng.chance(10).then_some(subject.wrapping_add(1).max(1)),
            request: self.rng.chance(20).then(|| self.request()),
        }
    }

    /// The old id, within and after its grace.
    fn after_rotate(&mut self, now: u64, old: u32, idle: u64) -> Action {
        let late = now + self.rng.pick(&[40, 900, 4_998, 4_999, 5_000, 5_001, 9_000]);
        let action = match self.rng.below(6) {
            0 => self.touch(old, idle),
            1 => Action::Check {
                session: old,
                by_ref: self.rng.chance(50),
            },
            2 => self.extend(old, idle),
            3 => Action::Hold {
                session: old,
                hold: self.rng.below(4) as u8,
                work: true,
                ttl: MINUTE,
            },
            4 if self.rng.chance(20) => Action::End {
                session: old,
                revoked: false,
                request: None,
            },
            _ => Action::Touch(Touch {
                session: old,
                activity: 1,
                ago: 0,
                hint: 0,
            }),
        };
        self.at(late, action);
        Action::Check {
            session: old,
            by_ref: false,
        }
    }

    fn operator(&mut self, session: u32, subject: u8) -> Action {
        let ask = match self.rng.below(20) {
            0..6 => Ask::List {
                whole: self.rng.chance(30),
                ended: self.rng.chance(50),
                page: self.rng.pick(&[2, 7, 1_000]),
            },
            6 => Ask::End {
                dry_run: self.rng.chance(40),
                spared: self.rng.chance(40),
            },
            7..15 => Ask::Explain {
                by_ref: self.rng.chance(40),
            },
            _ => Ask::Stats,
        };
        Action::Admin {
            session,
            subject,
            ask,
            stranger: self.rng.chance(10),
        }
    }

    fn race(&mut self, session: u32, idle: u64) -> Action {
        let racers = (0..self.rng.within(2, 3)).map(|_| match self.rng.below(6) {
            0 | 1 => self.touch(session, idle),
            2 => self.extend(session, idle),
            3 => Action::Check { session, by_ref: false },
            4 => Action::Hold {
                session,
                hold: 1,
                work: true,
                ttl: MINUTE,
            },
            _ if self.rng.chance(30) => Action::End {
                session,
                revoked: true,
                request: None,
            },
            _ => Action::Check { session, by_ref: false },
        });
        Action::Race(racers.collect())
    }
}
