//! The races of DESIGN.md section 5, in every order that shuttle finds: `cargo test --features shuttle --test races`.
//!
//! Every run is judged by what its callers were answered and by the log, whose order is the order in which events were
//! published under the session's lock.
#![cfg(feature = "shuttle")]
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod check;
mod whole;
mod world;

use std::{panic::catch_unwind, sync::Arc};

use session_sidecar::time::Time;
use shuttle::{check_dfs, check_pct, check_random, thread};

use world::{Flaw, IDLE, MINUTE, NANO, SECOND, World};

/// What one thread does.
type Act = fn(&World);

/// Runs the acts side by side, in one order of the many.
fn race(world: Arc<World>, acts: &'static [Act]) {
    let threads: Vec<_> = acts
        .iter()
        .map(|act| {
            let world = Arc::clone(&world);
            thread::spawn(move || act(&world))
        })
        .collect();
    for thread in threads {
        thread.join().expect("an act failed");
    }
    world.check();
}

/// Random orders of all the acts; orders with few changes from one to another, in which one may do all that it does between
/// two steps of another; and all orders of the first two, as far as they can be told in this time.
fn explore(acts: &'static [Act]) {
    explore_from(|| World::new(Flaw::None), acts);
}

/// The same in a world with a past.
fn explore_from(world: fn() -> Arc<World>, acts: &'static [Act]) {
    check_random(move || race(world(), acts), 5_000);
    check_pct(move || race(world(), acts), 2_000, 3);
    check_dfs(move || race(world(), &acts[..2]), Some(20_000));
}

/// Whether shuttle finds an order in which such a race goes wrong.
fn goes_wrong(world: fn() -> Arc<World>, acts: &'static [Act]) -> bool {
    catch_unwind(|| {
        check_random(move || race(world(), acts), 5_000);
        check_pct(move || race(world(), acts), 5_000, 3);
    })
    .is_err()
}

/// The idle deadline of a new session.
fn deadline() -> Time {
    Time::START + IDLE
}

/// A nanosecond before it.
fn just_before() -> Time {
    deadline() - NANO
}

/// Inside the first warning window of a new session.
fn warned() -> Time {
    deadline() - MINUTE * 2
}

#[test]
fn g5_touch_and_end() {
    explore(&[
        |world| world.touch(Time::START + MINUTE),
        |world| world.end(Time::START + MINUTE, "a"),
        |world| world.touch(Time::START + MINUTE + NANO),
    ]);
}

#[test]
fn g3_g4_touch_and_warning() {
    explore(&[
        |world| world.touch(warned()),
        |world| world.judge(warned()),
        |world| {
            world.judge(warned() + MINUTE);
            world.touch(warned() + MINUTE);
        },
    ]);
}

#[test]
fn g5_g6_extend_and_end() {
    explore(&[
        |world| world.extend(warned(), IDLE * 2),
        |world| world.end(warned(), "a"),
        |world| world.judge(warned()),
    ]);
}

#[test]
fn g1_g2_touch_and_timeout() {
    explore(&[
        |world| world.touch(just_before()),
        |world| world.judge(deadline()),
        |world| world.touch(deadline()),
    ]);
}

#[test]
fn g1_g4_extend_and_timeout() {
    explore(&[
        |world| world.extend(just_before(), IDLE),
        |world| world.judge(deadline()),
        |world| world.judge(just_before()),
    ]);
}

#[test]
fn g6_two_ends() {
    explore(&[
        |world| world.end(deadline(), "a"),
        |world| world.end(just_before(), "b"),
        |world| world.judge(deadline()),
    ]);
}

#[test]
fn g1_to_g6_everybody_at_once() {
    const ALL: &[Act] = &[
        |world| world.touch(just_before()),
        |world| world.judge(warned()),
        |world| world.extend(just_before(), IDLE),
        |world| world.judge(deadline()),
        |world| world.end(deadline(), "a"),
        |world| world.hold(just_before(), MINUTE),
        |world| world.rotate(just_before()),
    ];
    check_random(|| race(World::new(Flaw::None), ALL), 10_000);
}

/// A session with a hold that reaches five minutes past its plain deadline.
fn held() -> Arc<World> {
    let world = World::new(Flaw::None);
    world.hold(Time::START, MINUTE * 20);
    world
}

#[test]
fn g5_g6_hold_and_end() {
    explore(&[
        |world| world.hold(Time::START + MINUTE, MINUTE * 5),
        |world| world.end(Time::START + MINUTE, "a"),
        |world| world.touch(Time::START + MINUTE + NANO),
    ]);
}

#[test]
fn g1_g4_hold_and_timeout() {
    explore(&[
        |world| world.hold(just_before(), MINUTE * 5),
        |world| world.judge(deadline()),
        |world| world.judge(warned()),
    ]);
}

/// A hold that is renewed as it lapses keeps the session; one that has lapsed leaves it a full idle window.
#[test]
fn g1_g2_lapse_and_judge() {
    const LAPSE: fn() -> Time = || Time::START + MINUTE * 20;
    explore_from(
        held,
        &[
            |world| world.hold(LAPSE() - NANO, MINUTE),
            |world| world.judge(LAPSE()),
            |world| world.touch(LAPSE() + NANO),
        ],
    );
    explore_from(
        held,
        &[
            |world| world.judge(LAPSE() + IDLE),
            |world| world.hold(LAPSE() + IDLE - NANO, MINUTE),
            |world| world.judge(LAPSE() + IDLE - MINUTE),
        ],
    );
}

#[test]
fn g1_g8_release_and_touch() {
    explore_from(
        held,
        &[
            |world| world.release(Time::START + MINUTE),
            |world| world.touch(Time::START + MINUTE * 2),
            |world| world.judge(Time::START + MINUTE + IDLE),
        ],
    );
}

#[test]
fn g5_release_and_end() {
    explore_from(
        held,
        &[
            |world| world.release(Time::START + MINUTE),
            |world| world.end(Time::START + MINUTE, "a"),
            |world| world.extend(Time::START + MINUTE, IDLE),
        ],
    );
}

/// What is done by the old name is done before the Rotate, or to the session that goes on.
#[test]
fn g1_g8_rotate_and_touch() {
    explore(&[
        |world| world.rotate(Time::START + MINUTE),
        |world| world.touch(Time::START + MINUTE + NANO),
        |world| world.hold(Time::START + MINUTE, MINUTE * 20),
    ]);
    explore(&[
        |world| world.extend(warned(), IDLE),
        |world| world.rotate(warned()),
        |world| world.judge(warned()),
    ]);
}

#[test]
fn g5_g6_rotate_and_end() {
    explore(&[
        |world| world.rotate(Time::START + MINUTE),
        |world| world.end(Time::START + MINUTE, "a"),
        |world| world.end(Time::START + MINUTE, "b"),
    ]);
}

#[test]
fn g1_g2_rotate_and_timeout() {
    explore(&[
        |world| world.rotate(just_before()),
        |world| world.judge(deadline()),
        |world| world.touch(just_before()),
    ]);
}

/// One of the touches brings a newer revision with a shorter timeout. Whoever is answered after it is answered by that.
#[test]
fn g1_adoption_and_touch() {
    explore_from(
        || World::with_newer_limits(Flaw::None),
        &[
            |world| world.reload_and_touch(Time::START + MINUTE * 2),
            |world| world.touch(Time::START + MINUTE),
            |world| world.touch(Time::START + MINUTE * 3),
        ],
    );
    explore_from(|| touched_before_the_reload(Flaw::None), LATE_TOUCHES);
}

fn touched_before_the_reload(flaw: Flaw) -> Arc<World> {
    let world = World::with_newer_limits(flaw);
    world.touch(Time::START + MINUTE * 3);
    world
}

/// They come so late that the last activity stays what it was, and the pulse with it.
const LATE_TOUCHES: &[Act] = &[
    |world| world.reload_and_touch(Time::START + MINUTE),
    |world| world.touch(Time::START + MINUTE * 2),
    |world| world.touch(Time::START + MINUTE * 4),
];

/// The driver takes out an entry that fired early while a touch moves the next warning to an earlier time than the driver
/// has read. The session was warned, and touches of earlier activity moved its deadline a little at a time.
fn arming(flaw: Flaw) {
    let world = World::new(flaw);
    world.arm_first(warned());
    world.due(warned());
    // The last point of the old deadline is what it stays armed for.
    world.touch_of(Time::START + SECOND * 20, warned() + SECOND * 30);
    let now = deadline() - MINUTE;
    assert!(world.session.armed_for() == now && world.next_action(now) == now + SECOND * 20);
    let toucher = {
        let world = Arc::clone(&world);
        thread::spawn(move || world.touch_of(Time::START + SECOND * 70, now))
    };
    world.due(now);
    toucher.join().expect("the touch failed");
    assert_eq!(world.next_action(now), now + SECOND * 10);
    world.check_armed(now);
    world.check();
}

/// The driver judges a due warning, and callers move the deadline, each arming the timeline for what it has seen.
fn arming_of_many() {
    let world = World::new(Flaw::None);
    world.arm_first(warned());
    let acts: [Act; 2] = [
        |world| world.touch_of(Time::START + SECOND * 20, warned()),
        |world| world.extend(warned(), IDLE),
    ];
    let callers = acts.map(|act| {
        let world = Arc::clone(&world);
        thread::spawn(move || act(&world))
    });
    world.due(warned());
    for caller in callers {
        caller.join().expect("a caller failed");
    }
    world.check_armed(warned());
    world.check();
}

#[test]
fn g3_touch_and_arming() {
    check_random(arming_of_many, 5_000);
    check_random(|| arming(Flaw::None), 5_000);
    check_pct(|| arming(Flaw::None), 2_000, 3);
    check_dfs(|| arming(Flaw::None), Some(20_000));
}

/// The negative control of the arming.
#[test]
fn shuttle_catches_a_driver_that_reads_before_it_disarms() {
    let found = catch_unwind(|| {
        check_random(|| arming(Flaw::ReadThenDisarm), 5_000);
        check_pct(|| arming(Flaw::ReadThenDisarm), 5_000, 3);
    })
    .is_err();
    assert!(found, "the lost warning went unnoticed");
}

/// The negative control: if an end or a warning were committed without comparing, shuttle would find a lost touch.
#[test]
fn shuttle_catches_a_commit_that_does_not_compare() {
    const RACES: &[&[Act]] = &[
        &[|world| world.touch(just_before()), |world| world.judge(deadline())],
        &[|world| world.touch(warned()), |world| world.judge(warned())],
        &[|world| world.touch(warned()), |world| world.end(warned(), "a")],
        &[|world| world.extend(warned(), IDLE), |world| world.judge(deadline())],
        &[|world| world.end(warned(), "a"), |world| world.end(warned(), "b")],
    ];
    for (number, acts) in RACES.iter().enumerate() {
        let found = goes_wrong(|| World::new(Flaw::BlindCommit), acts);
        assert!(found, "race {number} went unnoticed");
    }
}

/// The negative control of Rotate.
#[test]
fn shuttle_catches_a_name_that_leads_nowhere() {
    let acts: &[Act] = &[
        |world| world.rotate(Time::START + MINUTE),
        |world| world.touch(Time::START + MINUTE),
    ];
    assert!(
        goes_wrong(|| World::new(Flaw::SuccessorLater), acts),
        "an instant of UNKNOWN went unnoticed"
    );
}

/// The negative control of the adoption.
#[test]
fn shuttle_catches_a_touch_that_is_answered_old_limits() {
    let found = goes_wrong(|| touched_before_the_reload(Flaw::LimitsFirst), &LATE_TOUCHES[..2]);
    assert!(found, "a deadline that does not hold went unnoticed");
}
