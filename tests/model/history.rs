//! Random policies, sessions and histories.

use proptest::{collection::vec, prelude::*};
use session_sidecar::{
    state::{Actor, EndReason, HoldKind},
    time::Time,
};

use super::{Ask, Model, Own, Presence, Rules, When, Work};

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
    Presence,
    /// The first live hold lapses.
    Lapse,
    /// What only would have ended is forgotten.
    Forgotten,
    /// Expiries are held no longer.
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
    Reload,
    Touch {
        counts: bool,
        user: bool,
        ago: Span,
    },
    HotTouch {
        ago: Span,
    },
    Extend {
        wanted: Option<Span>,
        request: Option<(u8, u8)>,
    },
    Hold {
        id: u8,
        kind: HoldKind,
        ttl: Span,
    },
    Release {
        id: u8,
    },
    Rotate {
        new_subject: bool,
        authenticated_ago: Option<Span>,
        request: Option<(u8, u8)>,
    },
    End {
        reason: EndReason,
        actor: Actor,
        request: Option<(u8, u8)>,
    },
}

impl Asked {
    pub(crate) fn resolve(self, idle_timeout: u64) -> Ask {
        let wide = |request: Option<(u8, u8)>| request.map(|(key, content)| (key.into(), content.into()));
        match self {
            Self::Judge => Ask::Judge,
            Self::Reload => Ask::Reload,
            Self::Touch { counts, user, ago } => Ask::Touch {
                counts,
                user,
                ago: ago.nanos(idle_timeout),
            },
            Self::HotTouch { ago } => Ask::HotTouch {
                ago: ago.nanos(idle_timeout),
            },
            Self::Extend { wanted, request } => Ask::Extend {
                wanted: wanted.map(|span| span.nanos(idle_timeout)),
                request: wide(request),
            },
            Self::Hold { id, kind, ttl } => Ask::Hold {
                id,
                kind,
                ttl: ttl.nanos(idle_timeout).max(1),
            },
            Self::Release { id } => Ask::Release { id },
            Self::Rotate {
                new_subject,
                authenticated_ago,
                request,
            } => Ask::Rotate {
                new_subject,
                authenticated_ago: authenticated_ago.map(|span| span.nanos(idle_timeout)),
                request: wide(request),
            },
            Self::End { reason, actor, request } => Ask::End {
                reason,
                actor,
                request: wide(request),
            },
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
    /// WORK holds begun and renewed.
    pub(crate) work: u32,
    /// PRESENCE holds begun and renewed.
    pub(crate) pages: u32,
    pub(crate) release: u32,
    pub(crate) rotate: u32,
    pub(crate) end: u32,
    /// Policy files that change.
    pub(crate) reload: u32,
    /// Jumps to a mark.
    pub(crate) marks: u32,
    /// Gaps, after which idle ends are held.
    pub(crate) gaps: u32,
    /// Policies out of ten that use presence.
    pub(crate) presence: u32,
    /// Policies out of ten that only observe.
    pub(crate) observed: u32,
}

/// A bit of everything.
pub(crate) const EVERYTHING: Mix = Mix {
    judge: 10,
    touch: 20,
    background: 6,
    hot_touch: 20,
    extend: 16,
    work: 4,
    pages: 4,
    release: 2,
    rotate: 1,
    end: 1,
    reload: 1,
    marks: 8,
    gaps: 2,
    presence: 5,
    observed: 1,
};

/// How a session begins.
#[derive(Debug, Clone)]
pub(crate) struct Beginning {
    /// The policy, and what it is reloaded to.
    pub(crate) policies: Vec<Rules>,
    pub(crate) own: Own,
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
        mix.pages => Just(Mark::Presence),
        mix.work + mix.pages => Just(Mark::Lapse),
        mix.observed => Just(Mark::Forgotten),
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
    let request = || {
        let some = (0..12_u8, prop::bool::weighted(0.2)).prop_map(|(key, other)| Some((key, other.into())));
        prop_oneof![2 => Just(None), 3 => some]
    };
    let reason = prop_oneof![Just(EndReason::Logout), Just(EndReason::Revoked)];
    let actor = prop_oneof![Just(Actor::User), Just(Actor::Admin), Just(Actor::System)];
    // Three ids for both kinds: pulses find their hold more often than not, and at times one of the other kind.
    let hold = |kind: HoldKind| {
        let ttl = prop_oneof![6 => span(700), 1 => Just(Span::Endless)];
        (0..3_u8, ttl).prop_map(move |(id, ttl)| Asked::Hold { id, kind, ttl })
    };
    let authenticated_ago = prop_oneof![2 => Just(None), 1 => span(2_000).prop_map(Some)];
    let rotate = (prop::bool::weighted(0.2), authenticated_ago, request());
    let others = prop_oneof![
        mix.reload => Just(Asked::Reload),
        mix.work => hold(HoldKind::Work),
        mix.pages => hold(HoldKind::Presence),
        mix.release => (0..3_u8).prop_map(|id| Asked::Release { id }),
        mix.rotate => rotate.prop_map(|(new_subject, authenticated_ago, request)| Asked::Rotate {
            new_subject,
            authenticated_ago,
            request,
        }),
        mix.end => (reason, actor, request()).prop_map(|(reason, actor, request)| Asked::End { reason, actor, request }),
    ];
    prop_oneof![
        mix.judge => Just(Asked::Judge),
        mix.touch => (any::<bool>(), ago()).prop_map(|(user, ago)| Asked::Touch { counts: true, user, ago }),
        mix.background => ago().prop_map(|ago| Asked::Touch { counts: false, user: false, ago }),
        mix.hot_touch => ago().prop_map(|ago| Asked::HotTouch { ago }),
        mix.extend => (wanted, request()).prop_map(|(wanted, request)| Asked::Extend { wanted, request }),
        mix.reload + mix.work + mix.pages + mix.release + mix.rotate + mix.end => others,
    ]
}

/// A history of one session.
pub(crate) fn steps(mix: Mix, length: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (wait(mix), asked(mix)).prop_map(|(wait, asked)| Step { wait, asked });
    vec(step, 1..=length)
}

/// A policy, all of it in thousandths of its idle timeout; the leads in thousandths of their timeouts.
#[derive(Debug, Clone)]
struct Shape {
    absolute: u64,
    idle_leads: Vec<u64>,
    absolute_leads: Vec<u64>,
    max_extensions: Option<u32>,
    tombstone_ttl: u64,
    work: (u64, u64, u32),
    presence: Option<(u64, u64, u64, u32)>,
    enforced: bool,
}

fn shape(mix: Mix) -> impl Strategy<Value = Shape> {
    let leads = || vec(1..=1_000_u64, 0..=4);
    // At times the absolute timeout is the nearer limit from the start, or on a tie.
    let absolute = prop_oneof![1 => 3..=10_u64, 3 => 11..=40_u64, 5 => 40..=400_u64].prop_map(|tenths| tenths * 100);
    let max_extensions = prop_oneof![2 => Just(None), 3 => (0..=4_u32).prop_map(Some)];
    let tombstone_ttl = prop_oneof![0..=1_000_u64, 0..=10_u64];
    let work = (
        50..=1_500_u64,
        100..=5_000_u64,
        prop_oneof![1 => Just(0_u32), 9 => 1..=3_u32],
    );
    let presence = (1..=300_u64, 1..=1_500_u64, 50..=1_500_u64, 1..=3_u32);
    let presence = prop_oneof![10 - mix.presence => Just(None), mix.presence => presence.prop_map(Some)];
    let observed = prop::bool::weighted(f64::from(mix.observed) / 10.0);
    (
        absolute,
        leads(),
        leads(),
        max_extensions,
        tombstone_ttl,
        work,
        presence,
        observed,
    )
        .prop_map(
            |(absolute, idle_leads, absolute_leads, max_extensions, tombstone_ttl, work, presence, observed)| Shape {
                absolute,
                idle_leads,
                absolute_leads,
                max_extensions,
                tombstone_ttl,
                work,
                presence,
                enforced: !observed,
            },
        )
}

impl Shape {
    fn rules(self, idle_timeout: u64, revision: u64) -> Rules {
        let of = |thousandths: u64| idle_timeout / 1_000 * thousandths;
        let absolute_timeout = of(self.absolute);
        let leads = |timeout: u64, leads: Vec<u64>| leads.into_iter().map(|lead| timeout / 1_000 * lead).collect();
        Rules {
            revision,
            idle_timeout,
            absolute_timeout,
            idle_leads: leads(idle_timeout, self.idle_leads),
            absolute_leads: leads(absolute_timeout, self.absolute_leads),
            max_extensions: self.max_extensions,
            tombstone_ttl: of(self.tombstone_ttl),
            work: Work {
                max_ttl: of(self.work.0),
                budget: of(self.work.1),
                max_live: self.work.2,
            },
            presence: self.presence.map(|(leave, lost, max_ttl, max_live)| Presence {
                leave_grace: of(leave),
                lost_grace: of(lost),
                max_ttl: of(max_ttl),
                max_live,
            }),
            enforced: self.enforced,
        }
    }
}

/// A policy and what it is reloaded to: up to four points before each deadline (some over half of it, some twice), and at
/// times a revision that is lower again.
fn policies(mix: Mix) -> impl Strategy<Value = Vec<Rules>> {
    let timeout = prop_oneof![Just(1_u64), Just(20), Just(90), Just(900)];
    let later = vec(
        (prop_oneof![Just(1_000_u64), 200..=3_000_u64], 0..4_u64, shape(mix)),
        0..=3,
    );
    (timeout, 0..SECOND, shape(mix), later).prop_map(|(seconds, jitter, shape, later)| {
        let idle_timeout = seconds * SECOND + jitter;
        let mut policies = vec![shape.rules(idle_timeout, 1)];
        for (factor, revision, shape) in later {
            policies.push(shape.rules(idle_timeout / 1_000 * factor, revision * 10 + policies.len() as u64));
        }
        policies
    })
}

/// A session that begins now, or is adopted from a running site.
pub(crate) fn beginning(mix: Mix) -> impl Strategy<Value = Beginning> {
    let part = || prop_oneof![3 => Just(0_u64), 1 => 0..1_000_u64];
    let request = prop_oneof![2 => Just(None), 1 => (0..12_u64).prop_map(|key| Some((key, 0)))];
    let own = || prop_oneof![4 => Just(None), 1 => (300..=1_000_u64).prop_map(Some)];
    (policies(mix), own(), own(), part(), part(), request).prop_map(
        |(policies, own_idle, own_absolute, authenticated, idle, create_request)| {
            let own = Own {
                idle: own_idle.map(|part| policies[0].idle_timeout / 1_000 * part),
                absolute: own_absolute.map(|part| policies[0].absolute_timeout / 1_000 * part),
            };
            let first = policies[0].resolved(own);
            Beginning {
                authenticated_ago: first.absolute_timeout / 1_000 * authenticated,
                idle_for: first.idle_timeout / 1_000 * idle,
                policies,
                own,
                create_request,
            }
        },
    )
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
                    Mark::Presence => model.presence_deadline().unwrap_or(now),
                    Mark::Lapse => {
                        let live = model.live(now).into_iter();
                        live.map(|span| span.until).min().unwrap_or(now)
                    }
                    Mark::Forgotten => model.forgotten_at().unwrap_or(now),
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
