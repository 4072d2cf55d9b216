//! The same races through the whole core: `Sessions` over `store::Memory`, moka and all, with its driver, timeline and log. What
//! its smaller sibling (`crate::world`) leaves out is here: how a name is found, how an end leaves the table, aliases.
//!
//! Every run is judged by what its callers were answered and a watcher was told, when the session has lived to its end. Mistakes
//! that shuttle must find are made in the core itself: `src/sabotage.rs`.

mod check;
mod world;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use session_sidecar::{
    sabotage::{self, Fault},
    time::Time,
};
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler, Scheduler},
    thread,
};

use world::{IDLE, NANO, POINTS, SECOND, SLOT, World};

/// What one thread does.
type Act = fn(&World);

/// Runs the acts side by side in a world with a past, in one order of the many.
fn race(past: Act, acts: &'static [Act]) {
    let world = Arc::new(World::new());
    past(&world);
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

/// Random orders of all the acts; and orders with few changes from one to another, in which one may do all that it does between
/// two steps of another.
fn explore(past: Act, acts: &'static [Act]) {
    run(RandomScheduler::new(ORDERS), past, acts);
    run(PctScheduler::new(3, ORDERS), past, acts);
}

/// How many orders of each race, of each kind, are tried.
const ORDERS: usize = 2_000;

fn run(scheduler: impl Scheduler + 'static, past: Act, acts: &'static [Act]) {
    // Time is tokio's, which stands still: only the acts move it. All threads of shuttle are this thread.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let _time = runtime.enter();
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    Runner::new(scheduler, config).run(move || race(past, acts));
}

/// Whether shuttle finds an order in which such a race goes wrong if the core has this fault.
fn goes_wrong(fault: Fault, past: Act, acts: &'static [Act]) -> bool {
    sabotage::set(Some(fault));
    let found = catch_unwind(AssertUnwindSafe(|| {
        run(RandomScheduler::new(ORDERS * 3), past, acts);
        run(PctScheduler::new(3, ORDERS * 3), past, acts);
    }))
    .is_err();
    sabotage::set(None);
    found
}

/// The idle deadline of a new session.
fn deadline() -> Time {
    Time::START + IDLE
}

/// When its first warning is due.
fn warning() -> Time {
    deadline() - POINTS[0]
}

/// A session that has just begun.
const FRESH: Act = |_| {};
/// Its first warning is due, and the driver has not come to it.
const WARNING_DUE: Act = |world| world.pass_until(warning() + SLOT);
/// It was warned.
const WARNED: Act = |world| world.live_until(warning() + SLOT);
/// It is about to end, and the driver has not come to it since it began.
const JUST_BEFORE: Act = |world| world.pass_until(deadline() - NANO);
/// The same, and the driver was always on time.
const JUST_BEFORE_AND_WARNED: Act = |world| world.live_until(deadline() - NANO);
/// It is held past its plain deadline.
const HELD: Act = |world| world.hold(HOLD);
const HOLD: Duration = Duration::from_secs(6);
const SECOND_ID: &str = "a session of the races, its next name";
const THIRD_ID: &str = "a session of the races, its last name";

/// Its deadline comes, and the driver with it.
const DEADLINE_COMES: Act = |world| world.drive_at(deadline());

#[test]
fn g5_touch_and_end() {
    explore(FRESH, &[World::touch, |world| world.end("a"), World::touch]);
    explore(WARNED, &[World::touch, |world| world.end("a"), World::ask]);
}

#[test]
fn g3_g4_touch_and_warning() {
    explore(
        WARNING_DUE,
        &[World::touch, World::drive, |world| {
            world.drive_at(warning() + SECOND);
            world.touch();
        }],
    );
}

#[test]
fn g5_g6_extend_and_end() {
    explore(
        WARNING_DUE,
        &[|world| world.extend(IDLE * 2), |world| world.end("a"), World::drive],
    );
}

#[test]
fn g1_g2_touch_and_timeout() {
    explore(JUST_BEFORE, &[World::touch, DEADLINE_COMES, World::touch]);
    explore(JUST_BEFORE_AND_WARNED, &[World::touch, DEADLINE_COMES, World::ask]);
}

#[test]
fn g1_g4_extend_and_timeout() {
    explore(
        JUST_BEFORE_AND_WARNED,
        &[|world| world.extend(IDLE), DEADLINE_COMES, World::drive],
    );
}

#[test]
fn g6_two_ends() {
    explore(
        JUST_BEFORE,
        &[|world| world.end("a"), |world| world.end("b"), DEADLINE_COMES],
    );
}

#[test]
fn g10_end_and_question() {
    explore(JUST_BEFORE, &[World::ask, DEADLINE_COMES, World::ask]);
    explore(FRESH, &[World::ask, |world| world.end("a"), World::ask]);
}

#[test]
fn g1_to_g6_everybody_at_once() {
    explore(
        JUST_BEFORE,
        &[
            World::touch,
            World::drive,
            |world| world.extend(IDLE),
            DEADLINE_COMES,
            |world| world.end("a"),
            |world| world.hold(SECOND),
            |world| world.rotate(SECOND_ID),
        ],
    );
}

#[test]
fn g5_g6_hold_and_end() {
    explore(FRESH, &[|world| world.hold(HOLD), |world| world.end("a"), World::touch]);
}

#[test]
fn g1_g4_hold_and_timeout() {
    explore(JUST_BEFORE, &[|world| world.hold(HOLD), DEADLINE_COMES, World::ask]);
    explore(
        JUST_BEFORE_AND_WARNED,
        &[|world| world.hold(HOLD), DEADLINE_COMES, World::touch],
    );
}

/// A hold that is renewed as it lapses keeps the session; one that has lapsed leaves it a full idle window.
#[test]
fn g1_g2_lapse_and_judge() {
    const LAPSE: fn() -> Time = || Time::START + HOLD;
    explore(
        |world| {
            HELD(world);
            world.live_until(LAPSE() - NANO);
        },
        &[
            |world| world.hold(SECOND),
            |world| world.drive_at(LAPSE()),
            World::touch,
        ],
    );
    explore(
        |world| {
            HELD(world);
            world.live_until(LAPSE() + IDLE - NANO);
        },
        &[
            |world| world.drive_at(LAPSE() + IDLE),
            |world| world.hold(SECOND),
            World::ask,
        ],
    );
}

#[test]
fn g1_g8_release_and_touch() {
    explore(
        HELD,
        &[
            World::release,
            |world| {
                world.pass_until(Time::START + SECOND);
                world.touch();
            },
            |world| world.drive_at(Time::START + SECOND * 2),
        ],
    );
}

#[test]
fn g5_release_and_end() {
    explore(
        HELD,
        &[World::release, |world| world.end("a"), |world| world.extend(IDLE)],
    );
}

/// What is done by the old name is done before the Rotate, or to the session that goes on.
#[test]
fn g1_g8_rotate_and_touch() {
    explore(
        FRESH,
        &[|world| world.rotate(SECOND_ID), World::touch, |world| world.hold(HOLD)],
    );
    explore(
        WARNED,
        &[
            |world| world.rotate(SECOND_ID),
            World::touch,
            |world| {
                world.pass_until(warning() + SECOND);
                world.touch();
            },
        ],
    );
}

#[test]
fn g1_g4_rotate_and_extend() {
    explore(
        WARNING_DUE,
        &[
            |world| world.extend(IDLE),
            |world| world.rotate(SECOND_ID),
            World::drive,
        ],
    );
}

#[test]
fn g5_g6_rotate_and_end() {
    explore(
        FRESH,
        &[
            |world| world.rotate(SECOND_ID),
            |world| world.end("a"),
            |world| world.end("b"),
        ],
    );
    explore(
        FRESH,
        &[|world| world.rotate(SECOND_ID), |world| world.end("a"), World::touch],
    );
}

#[test]
fn g10_rotate_and_question() {
    explore(
        FRESH,
        &[|world| world.rotate(SECOND_ID), World::ask, |world| world.end("a")],
    );
}

#[test]
fn g6_two_rotates() {
    const BOTH: [Act; 2] = [|world| world.rotate(SECOND_ID), |world| world.rotate(THIRD_ID)];
    explore(FRESH, &[BOTH[0], BOTH[1], World::touch]);
    explore(FRESH, &[BOTH[0], BOTH[1], |world| world.end("a")]);
}

#[test]
fn g1_g2_rotate_and_timeout() {
    explore(
        JUST_BEFORE,
        &[|world| world.rotate(SECOND_ID), DEADLINE_COMES, World::touch],
    );
    explore(
        JUST_BEFORE_AND_WARNED,
        &[|world| world.rotate(SECOND_ID), DEADLINE_COMES, World::ask],
    );
}

/// One of the touches brings a newer revision with a shorter timeout. Whoever is answered after it is answered by that.
#[test]
fn g1_adoption_and_touch() {
    const RELOAD_AND_TOUCH: Act = |world| {
        world.reload();
        world.touch();
    };
    const TOUCH_LATER: Act = |world| {
        world.pass_until(Time::START + SECOND);
        world.touch();
    };
    explore(FRESH, &[RELOAD_AND_TOUCH, TOUCH_LATER, World::touch]);
    explore(FRESH, &[World::reload, TOUCH_LATER, World::touch]);
    explore(FRESH, &[RELOAD_AND_TOUCH, TOUCH_LATER, |world| world.rotate(SECOND_ID)]);
    explore(TOUCHED, ADOPTION);
}

const TOUCHED: Act = |world| {
    world.pass_until(Time::START + SECOND);
    world.touch();
    world.pass_until(Time::START + SECOND * 2);
};

/// The touch that brings the newer revision tells of the activity that is known, so the pulse stays what it was.
const ADOPTION: &[Act] = &[
    |world| {
        world.reload();
        world.touch_of(SECOND);
    },
    World::touch,
];

/// The driver takes out an entry that fired early while a touch moves the next warning to an earlier time than the driver
/// has read. The session was warned, and touches of earlier activity moved its deadline a little at a time.
#[test]
fn g3_touch_and_arming() {
    explore(MOVED_A_LITTLE, ARMING);
    explore(
        WARNED,
        &[World::drive, |world| world.touch_of(SECOND), |world| world.extend(IDLE)],
    );
}

/// It stays armed for the last point of its first deadline, and that is now.
const MOVED_A_LITTLE: Act = |world| {
    world.live_until(warning() + SLOT);
    world.pass_until(warning() + SECOND / 2);
    world.touch_of(SECOND * 5 / 2 - SECOND / 3);
    world.pass_until(warning() + SECOND + SLOT);
};

/// The first warning of the deadline after this touch comes before the last of the deadline before it.
const ARMING: &[Act] = &[World::drive, |world| world.touch_of(SECOND * 11 / 6)];

/// If an end or a warning were committed without comparing, a touch would be lost.
#[test]
fn shuttle_catches_a_commit_that_does_not_compare() {
    const RACES: &[(Act, &[Act])] = &[
        (JUST_BEFORE, &[World::touch, DEADLINE_COMES]),
        (WARNING_DUE, &[World::touch, World::drive]),
        (WARNED, &[World::touch, |world| world.end("a")]),
        (JUST_BEFORE, &[|world| world.extend(IDLE), DEADLINE_COMES]),
        (JUST_BEFORE, &[|world| world.hold(HOLD), DEADLINE_COMES]),
        (FRESH, &[|world| world.end("a"), |world| world.end("b")]),
        (FRESH, &[|world| world.rotate(SECOND_ID), |world| world.end("a")]),
    ];
    for (number, (past, acts)) in RACES.iter().enumerate() {
        assert!(
            goes_wrong(Fault::BlindCommit, *past, acts),
            "race {number} went unnoticed"
        );
    }
}

#[test]
fn shuttle_catches_a_driver_that_reads_before_it_disarms() {
    assert!(
        goes_wrong(Fault::LateDisarm, MOVED_A_LITTLE, ARMING),
        "the lost warning went unnoticed"
    );
}

#[test]
fn shuttle_catches_a_name_that_leads_nowhere() {
    let acts: &[Act] = &[|world| world.rotate(SECOND_ID), World::touch];
    assert!(goes_wrong(Fault::LateSuccessor, FRESH, acts), "the gap went unnoticed");
}

#[test]
fn shuttle_catches_an_instant_of_unknown() {
    let acts: &[Act] = &[|world| world.end("a"), World::ask];
    assert!(
        goes_wrong(Fault::LateTombstone, FRESH, acts),
        "the instant went unnoticed"
    );
}

#[test]
fn shuttle_catches_a_touch_that_is_answered_old_limits() {
    let found = goes_wrong(Fault::UnmarkedAdoption, TOUCHED, ADOPTION);
    assert!(found, "a deadline that does not hold went unnoticed");
}
