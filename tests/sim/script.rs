//! What everybody does and when: the whole script is drawn from the seed before anything runs, so that it can be shrunk.

mod surroundings;
mod visits;

use std::{fmt, num::ParseIntError, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{policies::NAMES, rng::Rng};

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

/// How big a world is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// Some dozens of people, for so many days.
    Days(u64),
    /// Thousands of people at once, for some hours.
    Crowd,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Days(days) => write!(f, "{days}"),
            Self::Crowd => f.write_str("crowd"),
        }
    }
}

impl FromStr for Size {
    type Err = ParseIntError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "crowd" => Ok(Self::Crowd),
            days => days.parse().map(Self::Days),
        }
    }
}

/// How many people a crowd is, and for how long.
pub(crate) const CROWD: u64 = 2_000;
const CROWDED: u64 = 4 * HOUR;

/// Draws a script.
pub(crate) fn draw(seed: u64, size: Size) -> Script {
    let until = match size {
        Size::Days(days) => days * DAY,
        Size::Crowd => CROWDED,
    };
    let mut author = Author {
        rng: Rng::new(seed),
        steps: Vec::new(),
        next_session: 0,
        next_request: 0,
        until,
    };
    // Small logs and few places make the limits part of the story.
    let small = author.rng.chance(30) && size != Size::Crowd;
    let users = author.rng.within(45, 75);
    let users = if size == Size::Crowd { CROWD } else { users };
    for user in 0..users {
        author.user(user);
    }
    author.gateways();
    let bursts = author.bursts();
    author.world();
    let few_sessions = author.rng.chance(15) && size != Size::Crowd;
    let few_tombstones = author.rng.chance(20);
    author.followers();
    author.steps.sort_by_key(|step| step.at_ms);
    Script {
        seed,
        until_ms: until,
        replay_events: match (small, bursts) {
            (false, _) => 5_000,
            // A log that is shorter than a burst cuts everybody off.
            (true, true) => 1_000,
            (true, false) => 60,
        },
        mailbox: if small { 1_200 } else { 4_096 },
        max_sessions: if few_sessions { 60 } else { 100_000 },
        max_tombstones: if few_tombstones { 12 } else { 100_000 },
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
}

/// The name of a policy by its number.
pub(crate) fn policy_name(policy: u8) -> &'static str {
    NAMES[usize::from(policy) % NAMES.len()]
}
