//! enforce = false: everything is judged, counted and explained, nothing is refused, no Ended is sent.

use std::time::Duration;

use session_sidecar::{
    driver::{Step, Work as _},
    rpc::proto::v1::{self, EndReason, SessionState},
};

use crate::support::*;

const OBSERVED: &str = "[policy.default]\nenforce = false\npresence = \"on\"\nmax_extensions = 1";

fn unenforced(session: &v1::Session) -> Option<(Duration, EndReason)> {
    let end = session.unenforced_end.as_ref()?;
    let after = between(session.create_time.as_ref(), end.end_time.as_ref());
    Some((after, end.reason()))
}

#[tokio::test(start_paused = true)]
async fn time_ends_nothing_and_check_tells_what_it_would_have_ended() {
    let sidecar = Sidecar::with_policies(OBSERVED);
    let client = &mut sidecar.client().await;
    let session = create(client, "alice").await;
    assert!(status(&session).observed_only);
    let mut watcher = Watcher::open(client, everything()).await;
    assert_eq!(
        watcher.during(mins(20)).await,
        ["warning idle 120s", "warning idle 60s", "cleared idle not_enforced"]
    );
    let session = check(client, "alice").await;
    assert_eq!(unenforced(&session), Some((mins(15), EndReason::IdleTimeout)));
    assert_eq!(
        session.unenforced_end.as_ref().expect("an end").actor(),
        v1::Actor::Policy
    );
    assert_eq!(session.end, None);
    assert_eq!(status(&session).state(), SessionState::Active);
    assert_eq!(span(status(&session).expires_in), Duration::ZERO);
    assert_eq!(live_sessions(&sidecar).await, 1.0);
    // Nothing more is said of it, however long it takes.
    assert!(watcher.during(mins(60)).await.is_empty());
    assert_eq!(unenforced(&check(client, "alice").await), unenforced(&session));
}

#[tokio::test(start_paused = true)]
async fn the_next_counted_activity_takes_it_back_and_is_warned_again() {
    let sidecar = Sidecar::with_policies(OBSERVED);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(20)).await;
    // Background is no activity.
    touch_with(client, "alice", |touch| {
        touch.activity = v1::Activity::Background.into()
    })
    .await
    .expect("nothing is refused");
    assert!(check(client, "alice").await.unenforced_end.is_some());
    let mut watcher = Watcher::open(client, everything()).await;
    let touched = touch(client, "alice").await.expect("nothing is refused");
    assert!(touched.counted);
    assert_eq!(span(touched.status.expect("a status").expires_in), mins(15));
    assert_eq!(check(client, "alice").await.unenforced_end, None);
    assert_eq!(
        watcher.during(mins(16)).await,
        ["warning idle 120s", "warning idle 60s", "cleared idle not_enforced"]
    );
    assert_eq!(
        unenforced(&check(client, "alice").await),
        Some((mins(35), EndReason::IdleTimeout))
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_end_nobody_noticed_is_judged_by_whoever_comes() {
    let sidecar = Sidecar::with(Options {
        policies: OBSERVED,
        driver: false,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    // From the last second on nobody does any background work.
    for _ in 0..15 * 60 - 1 {
        pass(secs(1)).await;
        while matches!(sidecar.sessions.step().await, Step::Again) {}
    }
    pass(secs(4)).await;
    assert_eq!(
        unenforced(&check(client, "alice").await),
        Some((mins(15), EndReason::IdleTimeout))
    );
}

#[tokio::test(start_paused = true)]
async fn no_verb_is_refused_after_an_end_that_is_not_enforced() {
    let sidecar = Sidecar::with_policies(OBSERVED);
    let client = &mut sidecar.client().await;
    for idle_end in [true, false] {
        let name = if idle_end { "idle" } else { "absolute" };
        create(client, name).await;
        if idle_end {
            pass(mins(20)).await;
        } else {
            for _ in 0..13 {
                for _ in 0..6 {
                    pass(mins(10)).await;
                    touch(client, name).await.expect("nothing is refused");
                }
            }
            assert_eq!(
                unenforced(&check(client, name).await),
                Some((mins(720), EndReason::AbsoluteTimeout))
            );
        }
        work(client, name, mins(1)).await.expect("held");
        page(client, name, "tab", mins(1)).await;
        release(client, name, "work").await.expect("released");
        release(client, name, "tab").await.expect("released");
        for _ in 0..3 {
            extend(client, name, None)
                .await
                .expect("granted, whatever max_extensions");
        }
        let next = format!("{name}-2");
        rotate(client, name, &next).await;
        touch(client, &next).await.expect("nothing is refused");
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_browser_and_the_absolute_limit_are_observed_too() {
    let sidecar = Sidecar::with_policies(OBSERVED);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    page(client, "alice", "tab", mins(5)).await;
    release(client, "alice", "tab").await.expect("live");
    pass(mins(1)).await;
    assert_eq!(
        unenforced(&check(client, "alice").await),
        Some((secs(30), EndReason::BrowserClosed))
    );
    create_with(client, "bob", |request| {
        request.authenticated_ago = wire(mins(12 * 60 - 5))
    })
    .await;
    let mut watcher = Watcher::open(client, by_id(&["bob"])).await;
    assert_eq!(
        watcher.during(mins(6)).await,
        ["warning absolute 120s", "cleared absolute not_enforced"]
    );
    // No activity takes an absolute end back; only an authentication does.
    touch(client, "bob").await.expect("nothing is refused");
    assert_eq!(
        unenforced(&check(client, "bob").await),
        Some((mins(5), EndReason::AbsoluteTimeout))
    );
    rotate_with(client, "bob", "carol", |request| {
        request.authenticated_ago = wire(Duration::ZERO)
    })
    .await
    .expect("rotated");
    let session = check(client, "carol").await;
    assert_eq!(session.unenforced_end, None);
    assert_eq!(span(status(&session).expires_in), mins(15));
}

#[tokio::test(start_paused = true)]
async fn an_explicit_end_is_real() {
    let sidecar = Sidecar::with_policies(OBSERVED);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(20)).await;
    let mut watcher = Watcher::open(client, everything()).await;
    assert!(end(client, "alice").await.expect("ended").ended_now);
    assert_eq!(watcher.during(secs(1)).await, ["ended LOGOUT"]);
    assert_eq!(reason(&touch(client, "alice").await.unwrap_err()).1, "SESSION_ENDED");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_nobody_uses_any_more_is_forgotten_silently() {
    let policy = "[policy.default]\nenforce = false\ntombstone_ttl = \"1h\"";
    let sidecar = Sidecar::with_policies(policy);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(16)).await;
    let mut watcher = Watcher::open(client, everything()).await;
    pass(mins(58)).await;
    assert_eq!(state(client, "alice").await, SessionState::Active);
    assert!(watcher.during(mins(1) + secs(2)).await.is_empty());
    assert_eq!(state(client, "alice").await, SessionState::Unknown);
    assert_eq!(reason(&touch(client, "alice").await.unwrap_err()).1, "SESSION_UNKNOWN");
    assert_eq!(live_sessions(&sidecar).await, 0.0);
}

#[tokio::test(start_paused = true)]
async fn g1_g7_switching_it_on_ends_nobody_before_their_next_activity() {
    let sidecar = Sidecar::with_policies("[policy.default]\nenforce = false\nrevision = 1");
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(20)).await;
    sidecar.reload("[policy.default]\nrevision = 2");
    pass(mins(1)).await;
    assert_eq!(state(client, "alice").await, SessionState::Active);
    let touched = touch(client, "alice").await.expect("nothing is refused");
    let status = touched.status.expect("a status");
    assert!(!status.observed_only);
    assert_eq!(span(status.expires_in), mins(15));
    pass(mins(15)).await;
    assert_eq!(
        ended_after(&check(client, "alice").await),
        (mins(36), EndReason::IdleTimeout)
    );
}

/// To begin a session is a use of it, however long nobody had used it before: a site adopts what it has.
#[tokio::test(start_paused = true)]
async fn a_session_that_is_adopted_after_long_idleness_lives() {
    let sidecar = Sidecar::with_policies(OBSERVED);
    let client = &mut sidecar.client().await;
    create_with(client, "alice", |create| {
        create.idle_for = wire(Duration::from_secs(25 * 3600))
    })
    .await;
    pass(secs(60)).await;
    assert_eq!(state(client, "alice").await, SessionState::Active);
    touch(client, "alice").await.expect("nothing is refused");
}

/// An open page is a use: nobody forgets a session that holds one.
#[tokio::test(start_paused = true)]
async fn an_open_page_keeps_an_observed_session_from_being_forgotten() {
    let policy = "[policy.default]\nenforce = false\npresence = \"on\"\nidle_timeout = \"1m\"\ntombstone_ttl = \"2m\"";
    let sidecar = Sidecar::with_policies(policy);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    for _ in 0..20 {
        page(client, "alice", "tab", mins(1)).await;
        pass(secs(30)).await;
    }
    assert_eq!(state(client, "alice").await, SessionState::Active);
    release(client, "alice", "tab").await.expect("released");
    pass(mins(2)).await;
    assert_eq!(state(client, "alice").await, SessionState::Unknown);
}
