//! Random histories against the naive model of `model/`, which shares no arithmetic with the code, and against an audit that
//! knows only the guarantees. Each property asserts how many operations it has put to both: a million in all.

mod model;

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use model::{
    Answer, Ask, Told, When,
    fleet::{Fleet, GRAIN},
    history::{self, Clock, EVERYTHING, Mix, Step, Wait},
    subject::{Checked, Record, Subject},
    translate::{command, moment, told},
};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use session_sidecar::{
    state::{Cause, Command, EndReason, Fired, Next, Pulse, Refusal, Reply, Rest, Touched, View, decide},
    time::Time,
};

/// What a property has seen: a history that never warns proves nothing about warnings.
#[derive(Debug, Default)]
struct Tally {
    operations: AtomicU64,
    warnings: AtomicU64,
    cleared: AtomicU64,
    idle_ends: AtomicU64,
    absolute_ends: AtomicU64,
    closed: AtomicU64,
    commanded_ends: AtomicU64,
    stale: AtomicU64,
    limited: AtomicU64,
    reused: AtomicU64,
    after_the_end: AtomicU64,
    held: AtomicU64,
    renewed: AtomicU64,
    cut_short: AtomicU64,
    budget_spent: AtomicU64,
    hold_caps: AtomicU64,
    released: AtomicU64,
    lapsed: AtomicU64,
    rotated: AtomicU64,
    reauthenticated: AtomicU64,
    rotated_before: AtomicU64,
    adopted: AtomicU64,
    policy_cleared: AtomicU64,
    observed: AtomicU64,
    observed_cleared: AtomicU64,
    forgotten: AtomicU64,
}

impl Tally {
    fn count(&self, answer: &Answer, told: &[Told]) {
        add(&self.operations);
        match answer {
            Answer::Stale => add(&self.stale),
            Answer::ExtensionLimit(_) => add(&self.limited),
            Answer::RequestIdReused => add(&self.reused),
            Answer::EndedBefore(_) if told.is_empty() => add(&self.after_the_end),
            Answer::Held { clamped, created, .. } => {
                add(if *created { &self.held } else { &self.renewed });
                if clamped.is_some() {
                    add(&self.cut_short);
                }
            }
            Answer::BudgetSpent => add(&self.budget_spent),
            Answer::HoldCap(_) => add(&self.hold_caps),
            Answer::RotatedBefore => add(&self.rotated_before),
            _ => {}
        }
        for told in told {
            add(match told {
                Told::Warning { .. } => &self.warnings,
                Told::Cleared { cause, .. } => match cause {
                    Cause::PolicyChanged => &self.policy_cleared,
                    Cause::NotEnforced => &self.observed_cleared,
                    _ => &self.cleared,
                },
                Told::HoldOver { released: true, .. } => &self.released,
                Told::HoldOver { released: false, .. } => &self.lapsed,
                Told::Adopted(_) => &self.adopted,
                Told::Observed { .. } => &self.observed,
                Told::Ended(end) => match (end.reason, end.succession) {
                    (EndReason::IdleTimeout, _) => &self.idle_ends,
                    (EndReason::AbsoluteTimeout, _) => &self.absolute_ends,
                    (EndReason::BrowserClosed, _) => &self.closed,
                    (EndReason::Rotated, Some((_, true))) => &self.reauthenticated,
                    (EndReason::Rotated, _) => &self.rotated,
                    _ => &self.commanded_ends,
                },
            });
        }
    }

    /// Asserts that there was enough of everything.
    fn suffices(&self, operations: u64) {
        let seen = self.operations.load(Ordering::Relaxed);
        assert!(seen >= operations, "only {seen} operations of {operations}: {self:?}");
        for (what, counter) in [
            ("warnings", &self.warnings),
            ("cleared", &self.cleared),
            ("idle ends", &self.idle_ends),
            ("absolute ends", &self.absolute_ends),
            ("stale touches", &self.stale),
        ] {
            let rare = counter.load(Ordering::Relaxed) < operations / 2_000;
            assert!(!rare, "too few {what} in {self:?}");
        }
    }

    /// Asserts that there was so much of each.
    fn saw<const N: usize>(&self, expected: [(&str, &AtomicU64, u64); N]) {
        for (what, counter, least) in expected {
            let seen = counter.load(Ordering::Relaxed);
            assert!(seen >= least, "only {seen} {what} of {least} in {self:?}");
        }
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Runs a property and fails with the smallest history that breaks it.
fn check<S: Strategy>(cases: u32, strategy: S, property: impl Fn(S::Value) -> Checked)
where
    S::Value: Debug,
{
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    if let Err(error) = TestRunner::new(config).run(&strategy, property) {
        panic!("{error}");
    }
}

/// The longest history.
const LENGTH: usize = 100;

/// How many steps an ended session is asked before the next one of the same policy begins.
const AFTER_THE_END: u32 = 2;

/// Puts histories of a mix to the code and the model until `operations` are done. `also` is asserted before each step.
fn histories(mix: Mix, operations: u32, also: impl Fn(&Subject, Ask, When) -> Checked) -> Tally {
    let tally = Tally::default();
    // A history is half as long as the longest on average; a few more, so that chance cannot leave too few.
    let cases = operations / (LENGTH as u32 / 2) * 21 / 20;
    check(
        cases,
        (history::beginning(mix), history::steps(mix, LENGTH)),
        |(beginning, steps)| {
            let mut clock = Clock::new();
            let beginning = Arc::new(beginning);
            let (mut subject, _) = Subject::create(&beginning, clock.when())?;
            let mut ended_for = 0;
            for Step { wait, asked } in steps {
                if ended_for > AFTER_THE_END {
                    (subject, _) = Subject::create(&beginning, clock.when())?;
                    ended_for = 0;
                }
                let when = clock.wait(wait, subject.idle_timeout, &subject.model);
                let ask = asked.resolve(subject.idle_timeout);
                also(&subject, ask, when)?;
                let (answer, told) = subject.ask(ask, when)?;
                tally.count(&answer, &told);
                if let Some(end) = subject.model.end()
                    && end.silent
                    && ended_for == 0
                {
                    add(&tally.forgotten);
                }
                ended_for += u32::from(subject.model.end().is_some());
                if let Some(successor) = subject.take_successor() {
                    // The old name has ended like any other.
                    let (answer, told) = subject.ask(ask, when)?;
                    tally.count(&answer, &told);
                    (subject, ended_for) = (successor, 0);
                }
            }
            Ok(())
        },
    );
    tally.suffices(operations.into());
    tally
}

fn nothing_else(_: &Subject, _: Ask, _: When) -> Checked {
    Ok(())
}

#[test]
fn g1_to_g9_random_histories_agree_with_the_naive_model() {
    histories(EVERYTHING, 250_000, nothing_else);
}

#[test]
fn g1_g2_deadlines_hold_to_the_nanosecond() {
    let mix = Mix {
        judge: 20,
        marks: 30,
        end: 0,
        ..EVERYTHING
    };
    histories(mix, 120_000, nothing_else);
}

#[test]
fn g3_g4_warnings_are_told_once_and_withdrawn_or_kept() {
    let mix = Mix {
        judge: 40,
        hot_touch: 4,
        touch: 10,
        ..EVERYTHING
    };
    histories(mix, 120_000, nothing_else);
}

#[test]
fn g5_g6_nothing_follows_the_end() {
    let mix = Mix { end: 20, ..EVERYTHING };
    let tally = histories(mix, 80_000, nothing_else);
    assert!(tally.commanded_ends.into_inner() > 1_000);
    assert!(tally.after_the_end.into_inner() > 10_000);
}

#[test]
fn g7_extends_and_touches_never_pass_the_absolute_deadline() {
    let mix = Mix {
        extend: 80,
        ..EVERYTHING
    };
    let tally = histories(mix, 120_000, nothing_else);
    assert!(tally.limited.into_inner() > 1_000 && tally.reused.into_inner() > 1_000);
}

#[test]
fn g1_g14_idle_ends_are_held_after_a_gap_and_absolute_ends_are_not() {
    let mix = Mix {
        gaps: 16,
        marks: 16,
        ..EVERYTHING
    };
    histories(mix, 120_000, nothing_else);
}

#[test]
fn r5_work_holds_reach_as_far_as_they_may_and_no_further() {
    let mix = Mix {
        work: 50,
        release: 40,
        marks: 16,
        ..EVERYTHING
    };
    let tally = histories(mix, 80_000, nothing_else);
    tally.saw([
        ("holds", &tally.held, 5_000),
        ("renewals", &tally.renewed, 1_000),
        ("TTLs cut short", &tally.cut_short, 3_000),
        ("spent budgets", &tally.budget_spent, 100),
        ("full", &tally.hold_caps, 500),
        ("releases", &tally.released, 1_000),
        ("lapses", &tally.lapsed, 3_000),
    ]);
}

#[test]
fn r1_a_closed_browser_ends_the_session_and_a_reload_does_not() {
    let mix = Mix {
        pages: 40,
        work: 8,
        release: 16,
        extend: 6,
        hot_touch: 8,
        touch: 12,
        presence: 9,
        marks: 16,
        ..EVERYTHING
    };
    let tally = histories(mix, 80_000, nothing_else);
    tally.saw([
        ("pages", &tally.held, 5_000),
        ("renewals", &tally.renewed, 2_000),
        ("leaves", &tally.released, 1_000),
        ("losses", &tally.lapsed, 3_000),
        ("closed browsers", &tally.closed, 500),
    ]);
}

#[test]
fn g5_g6_g7_a_rotated_session_goes_on_and_its_old_name_does_not() {
    let mix = Mix {
        rotate: 12,
        work: 8,
        pages: 8,
        ..EVERYTHING
    };
    let tally = histories(mix, 80_000, nothing_else);
    tally.saw([
        ("rotations", &tally.rotated, 2_000),
        ("rotations with authentication", &tally.reauthenticated, 500),
        ("retries", &tally.rotated_before, 50),
        ("old names", &tally.after_the_end, 5_000),
    ]);
}

#[test]
fn g1_g3_g7_a_newer_policy_comes_with_activity_and_ends_nobody() {
    let mix = Mix {
        reload: 12,
        marks: 12,
        ..EVERYTHING
    };
    let tally = histories(mix, 80_000, nothing_else);
    tally.saw([
        ("adoptions", &tally.adopted, 2_000),
        ("absolute warnings withdrawn", &tally.policy_cleared, 50),
    ]);
}

#[test]
fn a_policy_that_only_observes_ends_nobody_and_says_whom_it_would_have_ended() {
    let mix = Mix {
        observed: 8,
        reload: 3,
        marks: 20,
        ..EVERYTHING
    };
    let tally = histories(mix, 80_000, nothing_else);
    tally.saw([
        ("notes", &tally.observed, 2_000),
        ("warnings withdrawn", &tally.observed_cleared, 500),
        ("forgotten", &tally.forgotten, 200),
    ]);
}

/// Background touches, and looking, change nothing about when and why a session ends: without them it ends just the same.
#[test]
fn g9_a_history_without_its_background_ends_at_the_same_time() {
    let mix = Mix {
        background: 40,
        gaps: 0,
        observed: 0,
        ..EVERYTHING
    };
    let operations = AtomicU64::new(0);
    check(
        1_000,
        (history::beginning(mix), history::steps(mix, LENGTH)),
        |(beginning, steps)| {
            let mut clock = Clock::new();
            let beginning = Arc::new(beginning);
            let (mut with, _) = Subject::create(&beginning, clock.when())?;
            let (mut without, _) = Subject::create(&beginning, clock.when())?;
            for Step { wait, asked } in steps {
                // A caller whose clock reading is behind may still touch what nobody has noticed to be over.
                let wait = if matches!(wait, Wait::Behind(_)) {
                    Wait::No
                } else {
                    wait
                };
                let when = clock.wait(wait, with.idle_timeout, &with.model);
                let ask = asked.resolve(with.idle_timeout);
                with.ask(ask, when)?;
                if !ask.is_background() {
                    without.ask(ask, when)?;
                }
                let (next_with, next_without) = (with.take_successor(), without.take_successor());
                prop_assert_eq!(next_with.is_some(), next_without.is_some());
                if let (Some(next_with), Some(next_without)) = (next_with, next_without) {
                    (with, without) = (next_with, next_without);
                }
                add(&operations);
            }
            let when = clock.when();
            for subject in [&mut with, &mut without] {
                subject.ask(Ask::Judge, when)?;
            }
            // Only how long it is remembered counts from when the end was noticed.
            let end = |subject: &Subject| {
                subject
                    .model
                    .end()
                    .map(|end| (end.reason, end.at, end.last_activity, end.extensions))
            };
            prop_assert_eq!(end(&with), end(&without));
            prop_assert_eq!(with.model.expire(when), without.model.expire(when));
            Ok(())
        },
    );
    assert!(operations.into_inner() >= 40_000);
}

/// What the hot path answers is what the machine would have answered; it only leaves warnings that are due to the driver,
/// and the driver then tells exactly what the machine would have told.
#[test]
fn g1_g2_the_hot_path_and_the_machine_agree() {
    let (raised, left_to_the_driver) = (AtomicU64::new(0), AtomicU64::new(0));
    let mix = Mix {
        judge: 6,
        hot_touch: 40,
        marks: 16,
        ..EVERYTHING
    };
    histories(mix, 80_000, |subject, ask, when| {
        let ago = match ask {
            Ask::Touch { ago, .. } | Ask::HotTouch { ago } => ago,
            _ => 0,
        };
        let Subject { record, origin, .. } = subject;
        let (view, at) = (subject.view(), moment(when));
        let touch = Ask::Touch {
            counts: true,
            user: false,
            ago,
        };
        let machine = decide(&view, &command(touch, &record.limits, &record.limits), at);
        let plain = View {
            rest: &Rest::PLAIN,
            ..view
        };
        match record
            .pulse
            .touch(origin, &record.limits, Duration::from_nanos(ago), at)
        {
            Touched::Dead => {
                let end = view.rest.end().expect("dead");
                prop_assert!(matches!(machine.reply, Err(Refusal::Ended(known)) if Arc::ptr_eq(&known, end)));
                prop_assert!(machine.next.is_none());
            }
            Touched::Stale => {
                prop_assert!(matches!(machine.reply, Ok(Reply::Stale)));
                prop_assert!(machine.next.is_none());
            }
            Touched::Slow => {
                prop_assert!(view.rest.end().is_none(), "an ended session is dead, not slow");
                let over = plain.plain_deadlines().expire().0 <= at.now;
                prop_assert!(
                    over || record.pulse.is_warned() || record.pulse.is_slow(),
                    "slow without a reason"
                );
            }
            Touched::Raised(pulse) => {
                add(&raised);
                prop_assert!(matches!(machine.reply, Ok(Reply::Counted)));
                let hot = Record {
                    pulse,
                    ..record.clone()
                };
                let due = hot
                    .view(origin)
                    .outlook(at)
                    .next_warning
                    .is_some_and(|warning| warning <= at.now);
                let driver = decide(&hot.view(origin), &Command::Judge, at);
                prop_assert_eq!(
                    driver.next.is_some(),
                    due,
                    "the driver has something to do if a warning is due"
                );
                let after_machine = after(record, machine.next);
                let after_driver = after(&hot, driver.next);
                prop_assert_eq!(&after_machine, &after_driver, "machine, and hot path then driver");
                if due {
                    add(&left_to_the_driver);
                    let only_warns = after_machine.2.iter().all(|told| matches!(told, Told::Warning { .. }));
                    prop_assert!(only_warns, "{:?}", after_machine.2);
                } else {
                    prop_assert_eq!(after_machine, (pulse, record.version, Vec::new(), rest(record)));
                }
            }
        }
        Ok(())
    });
    assert!(raised.into_inner() > 10_000 && left_to_the_driver.into_inner() > 50);
}

/// A session that has nothing but open pages is raised like a plain one: the machine would have changed nothing else, but for what
/// lapsed, which it notes whenever it looks next; and nothing ends it earlier for that.
#[test]
fn g1_r1_touches_of_a_session_with_open_pages_only_raise_its_pulse() {
    let raised = AtomicU64::new(0);
    let mix = Mix {
        judge: 10,
        pages: 40,
        work: 4,
        release: 16,
        extend: 4,
        hot_touch: 8,
        touch: 24,
        presence: 9,
        marks: 16,
        ..EVERYTHING
    };
    histories(mix, 80_000, |subject, _, when| {
        let Subject { record, origin, .. } = subject;
        let (view, at) = (subject.view(), moment(when));
        let until = view
            .raised_until()
            .min(record.pulse.last_activity() + record.limits.idle_timeout);
        if !record.pulse.is_slow() || !view.is_only_raised() || at.now >= until {
            return Ok(());
        }
        add(&raised);
        let touch = Ask::Touch {
            counts: true,
            user: true,
            ago: 0,
        };
        let machine = decide(&view, &command(touch, &record.limits, &record.limits), at);
        prop_assert!(matches!(machine.reply, Ok(Reply::Counted)));
        let activity = record.pulse.last_activity().max(at.now);
        let hot = Record {
            pulse: Pulse::new(activity).flagged(false, true),
            ..record.clone()
        };
        prop_assert!(hot.view(origin).raised_until() >= view.raised_until());
        let driver = decide(&hot.view(origin), &Command::Judge, at);
        let deadlines = |before: &Record, next: &Option<Next>| {
            let next = next.as_ref().map(|next| next.view(origin).plain_deadlines());
            next.unwrap_or_else(|| before.view(origin).plain_deadlines())
        };
        prop_assert_eq!(deadlines(record, &machine.next), deadlines(&hot, &driver.next));
        prop_assert_eq!(after(record, machine.next), after(&hot, driver.next));
        Ok(())
    });
    assert!(raised.into_inner() > 5_000);
}

/// What a decision left: pulse, version, what it told, and the rest.
type After = (Pulse, u32, Vec<Told>, (Time, u32, Fired, Fired));

fn after(before: &Record, next: Option<Next>) -> After {
    let Some(next) = next else {
        return (before.pulse, before.version, Vec::new(), rest(before));
    };
    let told = next.happenings.iter().filter_map(told).collect();
    let after = Record::of(next);
    (after.pulse, after.version, told, rest(&after))
}

fn rest(record: &Record) -> (Time, u32, Fired, Fired) {
    let rest = &record.rest;
    (
        rest.extended_until(),
        rest.extensions,
        rest.idle_fired,
        rest.absolute_fired,
    )
}

/// Every warning and end comes within one slot of its time, plus what the driver overslept, and none early, though touches
/// don't tell the timeline.
#[test]
fn g1_g2_g3_the_timeline_brings_every_warning_and_end_in_time() {
    const FLEET: usize = 24;
    let tally = Tally::default();
    let mix = Mix {
        judge: 1,
        touch: 10,
        hot_touch: 30,
        ..EVERYTHING
    };
    let step = (
        0..FLEET,
        history::asked(mix),
        0..2_000_u64,
        prop_oneof![Just(0), 0..=GRAIN],
        prop::bool::weighted(0.005),
    );
    let strategy = (vec(history::beginning(mix), FLEET), vec(step, 1..=400));
    check(450, strategy, |(beginnings, steps)| {
        let mut fleet = Fleet::new();
        // Which session has which place: an ended one is followed by a new one.
        let mut places = Vec::new();
        let beginnings: Vec<_> = beginnings.into_iter().map(Arc::new).collect();
        for beginning in &beginnings {
            places.push(fleet.create(beginning)?);
        }
        for (place, asked, wait_ms, lag, gap) in steps {
            if gap {
                fleet.gap(5_000_000_001 + wait_ms * 5_000_000);
            }
            fleet.pass(wait_ms * 1_000_000, lag)?;
            if let Some(successor) = fleet.sessions[places[place]].successor {
                places[place] = successor;
            }
            if fleet.sessions[places[place]].subject.model.end().is_some() {
                places[place] = fleet.create(&beginnings[place])?;
            }
            let id = places[place];
            fleet.ask(id, asked.resolve(fleet.sessions[id].subject.idle_timeout))?;
        }
        for (answer, told) in &fleet.seen {
            tally.count(answer, told);
        }
        Ok(())
    });
    tally.suffices(100_000);
}
