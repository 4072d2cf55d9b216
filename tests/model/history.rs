//! Random policies, sessions and histories.

use proptest::{collection::vec, prelude::*};
use session_sidecar::{
    state::{Actor, EndReason},
    time::Time,
};

use super::{Ask, Model, Rules, When};

const SECOND: u64 = 1_000_000_000;

/// A length of time, relative to the idle timeout where that makes it interesting.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Span {
    Nanos(u32),
    /// Thousandths of the idle timeout.
    Idle(u16),
    /// Longer than any clock runs.
    Endless,
}

impl Span {
    pub(crate) fn nanos(self, idle_timeout: u64) -> u64 {
        match self {
            Self::Nanos(nanos) => u64::from(nanos),
            Self::Idle(thousandths) => idle_timeout / 1_000 * u64::from(thousandths),
            Self::Endless => u64::MAX,
        }
    }
}

/// A moment worth hitting to the nanosecond.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    Warning,
    Idle,
    Absolute,
    HoldEnd,
}

/// What time does before a step.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wait {
    No,
    For(Span),
    /// Until so many nanoseconds after a mark, unless that is over.
    Until(Mark, i8),
    /// No time passes, and this caller read the clock so many nanoseconds ago.
    Behind(u32),
    /// The process does not run for so many milliseconds; idle ends are held afterwards.
    Gap(u16),
}

/// What is asked, with lengths yet to be resolved.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asked {
    Judge,
    Touch {
        counts: bool,
        ago: Span,
    },
    HotTouch {
        ago: Span,
    },
    Extend {
        wanted: Option<Span>,
        request: Option<(u8, u8)>,
    },
    End {
        reason: EndReason,
        actor: Actor,
    },
}

impl Asked {
    pub(crate) fn resolve(self, idle_timeout: u64) -> Ask {
        match self {
            Self::Judge => Ask::Judge,
            Self::Touch { counts, ago } => Ask::Touch {
                counts,
                ago: ago.nanos(idle_timeout),
            },
            Self::HotTouch { ago } => Ask::HotTouch {
                ago: ago.nanos(idle_timeout),
            },
            Self::Extend { wanted, request } => Ask::Extend {
                wanted: wanted.map(|span| span.nanos(idle_timeout)),
                request: request.map(|(key, content)| (key.into(), content.into())),
            },
            Self::End { reason, actor } => Ask::End { reason, actor },
        }
    }
}

/// One step of a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) wait: Wait,
    pub(crate) asked: Asked,
}

/// What a history is rich in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) judge: u32,
    pub(crate) touch: u32,
    pub(crate) background: u32,
    pub(crate) hot_touch: u32,
    pub(crate) extend: u32,
    pub(crate) end: u32,
    /// Jumps to a mark.
    pub(crate) marks: u32,
    /// Gaps, after which idle ends are held.
    pub(crate) gaps: u32,
}

/// A bit of everything.
pub(crate) const EVERYTHING: Mix = Mix {
    judge: 10,
    touch: 20,
    background: 6,
    hot_touch: 20,
    extend: 16,
    end: 1,
    marks: 8,
    gaps: 2,
};

/// How a session begins.
#[derive(Debug, Clone)]
pub(crate) struct Beginning {
    pub(crate) rules: Rules,
    pub(crate) authenticated_ago: u64,
    pub(crate) idle_for: u64,
    pub(crate) create_request: Option<(u64, u64)>,
}

fn span(most: u16) -> impl Strategy<Value = Span> {
    prop_oneof![
        1 => Just(Span::Nanos(0)),
        1 => any::<u32>().prop_map(Span::Nanos),
        4 => (0..=most).prop_map(Span::Idle),
    ]
}

/// Activity is mostly told when it happens.
fn ago() -> impl Strategy<Value = Span> {
    prop_oneof![5 => Just(Span::Nanos(0)), 1 => Just(Span::Nanos(1)), 3 => span(900), 1 => prop_oneof![span(2_000), Just(Span::Endless)]]
}

fn wait(mix: Mix) -> impl Strategy<Value = Wait> {
    let mark = prop_oneof![
        8 => Just(Mark::Warning),
        3 => Just(Mark::Idle),
        2 => Just(Mark::Absolute),
        mix.gaps => Just(Mark::HoldEnd),
    ];
    prop_oneof![
        4 => Just(Wait::No),
        16 => span(100).prop_map(Wait::For),
        1 => span(1_500).prop_map(Wait::For),
        mix.marks => (mark, -1..=1_i8).prop_map(|(mark, off)| Wait::Until(mark, off)),
        2 => (0..1_000_000_u32).prop_map(Wait::Behind),
        mix.gaps => (5_001..20_000_u16).prop_map(Wait::Gap),
    ]
}

/// Something to ask.
pub(crate) fn asked(mix: Mix) -> impl Strategy<Value = Asked> {
    let wanted = prop_oneof![3 => Just(None), 6 => span(2_500).prop_map(Some), 1 => Just(Some(Span::Endless))];
    let request = prop_oneof![2 => Just(None), 3 => (0..12_u8, prop::bool::weighted(0.2)).prop_map(|(key, other)| Some((key, other.into())))];
    let reason = prop_oneof![Just(EndReason::Logout), Just(EndReason::Revoked)];
    let actor = prop_oneof![Just(Actor::User), Just(Actor::Admin), Just(Actor::System)];
    prop_oneof![
        mix.judge => Just(Asked::Judge),
        mix.touch => ago().prop_map(|ago| Asked::Touch { counts: true, ago }),
        mix.background => ago().prop_map(|ago| Asked::Touch { counts: false, ago }),
        mix.hot_touch => ago().prop_map(|ago| Asked::HotTouch { ago }),
        mix.extend => (wanted, request).prop_map(|(wanted, request)| Asked::Extend { wanted, request }),
        mix.end => (reason, actor).prop_map(|(reason, actor)| Asked::End { reason, actor }),
    ]
}

/// A history of one session.
pub(crate) fn steps(mix: Mix, length: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (wait(mix), asked(mix)).prop_map(|(wait, asked)| Step { wait, asked });
    vec(step, 1..=length)
}

/// A policy: two timeouts, up to four points before each deadline (some over half of it, some twice).
pub(crate) fn rules() -> impl Strategy<Value = Rules> {
    let timeout = prop_oneof![Just(1_u64), Just(20), Just(90), Just(900)];
    let jitter = 0..SECOND;
    let leads = || vec(1..=1_000_u64, 0..=4);
    // The absolute timeout in tenths of the idle one: at times the nearer limit from the start, or on a tie.
    let ratio = prop_oneof![1 => 3..=10_u64, 3 => 11..=40_u64, 5 => 40..=400_u64];
    let max_extensions = prop_oneof![2 => Just(None), 3 => (0..=4_u32).prop_map(Some)];
    (timeout, jitter, ratio, leads(), leads(), max_extensions, 0..=SECOND).prop_map(
        |(seconds, jitter, ratio, idle_leads, absolute_leads, max_extensions, tombstone_ttl)| {
            let idle_timeout = seconds * SECOND + jitter;
            let absolute_timeout = idle_timeout / 10 * ratio;
            let of = |timeout: u64, leads: Vec<u64>| leads.into_iter().map(|lead| timeout / 1_000 * lead).collect();
            Rules {
                idle_timeout,
                absolute_timeout,
                idle_leads: of(idle_timeout, idle_leads),
                absolute_leads: of(absolute_timeout, absolute_leads),
                max_extensions,
                tombstone_ttl,
            }
        },
    )
}

/// A session that begins now, or is adopted from a running site.
pub(crate) fn beginning() -> impl Strategy<Value = Beginning> {
    let part = || prop_oneof![3 => Just(0_u64), 1 => 0..1_000_u64];
    let request = prop_oneof![2 => Just(None), 1 => (0..12_u64).prop_map(|key| Some((key, 0)))];
    (rules(), part(), part(), request).prop_map(|(rules, authenticated, idle, create_request)| Beginning {
        authenticated_ago: rules.absolute_timeout / 1_000 * authenticated,
        idle_for: rules.idle_timeout / 1_000 * idle,
        rules,
        create_request,
    })
}

/// The clock of a history.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(When);

impl Clock {
    pub(crate) fn new() -> Self {
        Self(When {
            now: Time::START.as_nanos(),
            held_until: 0,
        })
    }

    /// The time now.
    pub(crate) fn when(self) -> When {
        self.0
    }

    /// Lets time pass, and answers what the caller read from the clock.
    pub(crate) fn wait(&mut self, wait: Wait, idle_timeout: u64, model: &Model) -> When {
        let When { now, held_until } = self.0;
        match wait {
            Wait::No => {}
            Wait::For(span) => self.0.now += span.nanos(idle_timeout),
            Wait::Until(mark, off) => {
                let mark = match mark {
                    Mark::Warning => model.next_warning(self.0).unwrap_or(now),
                    Mark::Idle => model.idle_deadline(),
                    Mark::Absolute => model.absolute_deadline(),
                    Mark::HoldEnd => held_until,
                };
                self.0.now = now.max(mark.saturating_add_signed(off.into()));
            }
            Wait::Behind(nanos) => {
                return When {
                    now: now - u64::from(nanos),
                    held_until,
                };
            }
            Wait::Gap(millis) => {
                self.0.now += u64::from(millis) * 1_000_000;
                self.0.held_until = self.0.now + 5 * SECOND;
            }
        }
        self.0
    }
}
