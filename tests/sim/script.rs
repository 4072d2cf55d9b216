//! What everybody does and when: the whole script is drawn from the seed before anything runs, so that it can be shrunk.

use serde::{Deserialize, Serialize};

use crate::{
    policies::{NAMES, specs},
    rng::Rng,
};

/// The tenants. A session's number says whose it is.
pub(crate) const TENANTS: [&str; 3] = ["", "red", "blue"];

/// The tenant of a session number.
pub(crate) fn tenant_of(session: u32) -> usize {
    session as usize % TENANTS.len()
}

/// A whole simulation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Script {
    pub(crate) seed: u64,
    /// How long the world turns.
    pub(crate) until_ms: u64,
    /// How many events the log keeps.
    pub(crate) replay_events: usize,
    /// How many events may wait for one watcher.
    pub(crate) mailbox: usize,
    pub(crate) max_sessions: usize,
    pub(crate) max_tombstones: usize,
    pub(crate) steps: Vec<Step>,
}

/// One thing that somebody does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) at_ms: u64,
    pub(crate) action: Action,
}

/// What can be done. Sessions, holds, subjects and watchers are numbers here: nothing that an answer told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Action {
    Create {
        session: u32,
        policy: u8,
        subject: u8,
        own_id: bool,
        idle: Option<u64>,
        absolute: Option<u64>,
        authenticated_ago: u64,
        idle_for: u64,
        request: Option<u32>,
    },
    Touch(Touch),
    Batch(Vec<Touch>),
    Check {
        session: u32,
        by_ref: bool,
    },
    CheckMany(Vec<u32>),
    Extend {
        session: u32,
        wanted: Option<u64>,
        request: Option<u32>,
    },
    Hold {
        session: u32,
        hold: u8,
        work: bool,
        ttl: u64,
    },
    Release {
        session: u32,
        hold: u8,
    },
    Rotate {
        session: u32,
        to: u32,
        authenticated_ago: Option<u64>,
        subject: Option<u8>,
        request: Option<u32>,
    },
    End {
        session: u32,
        revoked: bool,
        request: Option<u32>,
    },
    /// An operator asks about a session's tenant or subject.
    Admin {
        session: u32,
        subject: u8,
        ask: Ask,
        /// Of another tenant.
        stranger: bool,
    },
    /// Somebody asks for a session of another tenant.
    Stranger {
        session: u32,
        how: u8,
    },
    Bad {
        session: u32,
        which: u8,
    },
    Watch {
        watcher: u32,
        tenant: usize,
        scope: Scope,
        kinds: u8,
        initial: bool,
    },
    /// The watcher's connection is cut.
    Cut {
        watcher: u32,
    },
    /// It comes back with its last token.
    Resume {
        watcher: u32,
    },
    /// It comes back with a token of another watcher.
    Foreign {
        watcher: u32,
        of: u32,
    },
    /// It stops reading, or reads on.
    Reads {
        watcher: u32,
        reads: bool,
    },
    /// The machine sleeps.
    Gap {
        ms: u64,
    },
    /// The wall clock is set.
    Wall {
        by_ms: i64,
    },
    Reload,
    Restart {
        graceful: bool,
    },
    /// At the same instant.
    Race(Vec<Action>),
}

/// What an operator asks for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// Of the subject, or of the whole tenant, with what has ended or without; so many on a page.
    List {
        whole: bool,
        ended: bool,
        page: u16,
    },
    /// All of the subject's, or all but the one.
    End {
        dry_run: bool,
        spared: bool,
    },
    Explain {
        by_ref: bool,
    },
    Stats,
}

/// One touch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Touch {
    pub(crate) session: u32,
    /// 0 not said, 1 user, 2 background.
    pub(crate) activity: u8,
    pub(crate) ago: u64,
    pub(crate) hint: u8,
}

/// What a watcher watches.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub(crate) enum Scope {
    Everything,
    Tenant,
    Subject(u8),
    Ids(Vec<u32>),
    Refs(Vec<u32>),
}

const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
pub(crate) const DAY: u64 = 24 * HOUR;

/// Draws a script.
pub(crate) fn draw(seed: u64, days: u64) -> Script {
    let mut author = Author {
        rng: Rng::new(seed),
        steps: Vec::new(),
        next_session: 0,
        next_request: 0,
        until: days * DAY,
    };
    // Small logs and few places make the limits part of the story.
    let small = author.rng.chance(30);
    let users = author.rng.within(45, 75);
    for user in 0..users {
        author.user(user);
    }
    author.gateways();
    let bursts = author.bursts();
    author.world();
    author.steps.sort_by_key(|step| step.at_ms);
    Script {
        seed,
        until_ms: days * DAY,
        replay_events: match (small, bursts) {
            (false, _) => 5_000,
            // A log that is shorter than a burst cuts everybody off.
            (true, true) => 1_000,
            (true, false) => 60,
        },
        mailbox: if small { 1_200 } else { 4_096 },
        max_sessions: if author.rng.chance(15) { 60 } else { 100_000 },
        max_tombstones: if author.rng.chance(20) { 12 } else { 100_000 },
        steps: author.steps,
    }
}

struct Author {
    rng: Rng,
    steps: Vec<Step>,
    next_session: u32,
    next_request: u32,
    until: u64,
}

impl Author {
    fn at(&mut self, at_ms: u64, action: Action) {
        if at_ms < self.until {
            self.steps.push(Step { at_ms, action });
        }
    }

    fn session(&mut self, tenant: usize) -> u32 {
        self.next_session += 1;
        self.next_session * TENANTS.len() as u32 + tenant as u32
    }

    fn request(&mut self) -> u32 {
        self.next_request += 1;
        self.next_request
    }

    fn user(&mut self, user: u64) {
        let tenant = if self.rng.chance(60) {
            0
        } else {
            self.rng.within(1, 2) as usize
        };
        let policy = self.rng.pick(&[0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 6, 7, 8, 8]);
        let subject = (user % 200 + 1) as u8;
        let mut now = self.rng.within(SECOND, 10 * HOUR);
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

    fn gateways(&mut self) {
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
    fn bursts(&mut self) -> bool {
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

    fn world(&mut self) {
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

/// The name of a policy by its number.
pub(crate) fn policy_name(policy: u8) -> &'static str {
    NAMES[usize::from(policy) % NAMES.len()]
}
