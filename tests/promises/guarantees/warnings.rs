//! G3, G4: warned, and told if the warning is withdrawn.

use super::*;

#[tokio::test(start_paused = true)]
async fn g3_a_session_whose_deadline_moved_first_is_not_warned() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, everything()).await;
    create(client, "alice").await;
    for _ in 0..10 {
        assert_eq!(watcher.during(mins(13) - MILLI).await, [""; 0]);
        touch(client, "alice").await.expect("live");
    }
}

#[tokio::test(start_paused = true)]
async fn g3_a_session_that_is_adopted_inside_a_window_is_warned_at_once_and_once() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, everything()).await;
    let session = create_with(client, "alice", |request| request.idle_for = wire(secs(870))).await;
    assert_eq!(status(&session).state(), SessionState::Expiring);
    // Both points have passed: they collapse to the smallest lead.
    assert_eq!(watcher.during(secs(29)).await, ["warning idle 60s"]);
    assert_eq!(watcher.during(secs(2)).await, ["ended IDLE_TIMEOUT"]);
}

#[tokio::test(start_paused = true)]
async fn g3_absolute_points_fire_whatever_the_activity_and_say_that_staying_is_not_possible() {
    let sidecar = Sidecar::with_policies(
        "[policy.default]\nidle_timeout = '15m'\nabsolute_timeout = '1h'\nabsolute_warn_before = ['10m', '2m']",
    );
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, everything()).await;
    create(client, "alice").await;
    for _ in 0..4 {
        pass(mins(10)).await;
        touch(client, "alice").await.expect("live");
    }
    pass(mins(10)).await;
    let Message::Warning(warning) = watcher.next().await else {
        panic!("no warning")
    };
    assert_eq!((warning.limit(), warning.can_extend), (v1::Limit::Absolute, false));
    assert_eq!(span(warning.point), mins(10));
    // A touch and an Extend clear nothing: the absolute deadline does not move.
    touch(client, "alice").await.expect("live");
    let extended = extend(client, "alice", None).await.expect("granted, though nothing");
    assert_eq!(span(extended.granted_duration), Duration::ZERO);
    assert_eq!(extended.clamped_by(), v1::Limit::Absolute);
    assert_eq!(
        watcher.during(mins(11)).await,
        ["warning absolute 120s", "ended ABSOLUTE_TIMEOUT"]
    );
}

#[tokio::test(start_paused = true)]
async fn g3_g4_an_unwarned_end_is_preceded_by_its_warning() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, everything()).await;
    create_with(client, "alice", |request| request.idle_for = wire(mins(12))).await;
    // The process stands still past the warning points, the deadline and the hold that follows.
    tokio::time::advance(secs(200)).await;
    assert_eq!(
        watcher.during(secs(6)).await,
        ["warning idle 60s", "ended IDLE_TIMEOUT"]
    );
}

#[tokio::test(start_paused = true)]
async fn g4_a_warning_is_withdrawn_before_anything_else_happens() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, everything()).await;
    create(client, "alice").await;
    assert_eq!(watcher.during(mins(13) + secs(1)).await, ["warning idle 120s"]);
    assert_eq!(state(client, "alice").await, SessionState::Expiring);
    touch(client, "alice").await.expect("live");
    assert_eq!(watcher.during(secs(1)).await, ["cleared idle touched"]);
    assert_eq!(state(client, "alice").await, SessionState::Active);
    assert_eq!(watcher.during(mins(13)).await, ["warning idle 120s"]);
    extend(client, "alice", None).await.expect("granted");
    assert_eq!(watcher.during(secs(1)).await, ["cleared idle extended"]);
    // A touch that moves the deadline and stays inside the window warns anew in the same breath.
    assert_eq!(watcher.during(mins(13) + secs(50)).await, ["warning idle 120s"]);
    touch_with(client, "alice", |touch| touch.idle_for = wire(secs(800)))
        .await
        .expect("live");
    assert_eq!(
        watcher.during(MILLI).await,
        ["cleared idle touched", "warning idle 120s"]
    );
}
