//! A newer revision of a policy reaches a session at its next counted activity, and ends nobody.

use std::time::Duration;

use session_sidecar::rpc::proto::v1::{self, Limit, SessionState};

use crate::support::*;

const FIRST: &str = "[policy.default]\nrevision = 1";

#[tokio::test(start_paused = true)]
async fn g1_a_reload_waits_for_the_next_counted_activity() {
    let sidecar = Sidecar::with_policies(FIRST);
    let client = &mut sidecar.client().await;
    for name in ["idle", "touched", "extended", "rotated"] {
        create(client, name).await;
    }
    let mut watcher = Watcher::open(client, by_id(&["idle"])).await;
    pass(mins(10)).await;
    sidecar.reload("[policy.default]\nrevision = 2\nidle_timeout = \"5m\"\nwarn_before = [\"1m\"]");
    for name in ["idle", "touched", "extended", "rotated"] {
        let session = check(client, name).await;
        assert_eq!((session.policy_revision, left_of(&session).0), (1, mins(5)));
    }
    // What is no counted activity brings nothing: background, a hold, a Rotate without authentication.
    touch_with(client, "touched", |touch| {
        touch.activity = v1::Activity::Background.into()
    })
    .await
    .expect("live");
    work(client, "touched", secs(1)).await.expect("held");
    rotate(client, "rotated", "rotated-2").await;
    for name in ["touched", "rotated-2"] {
        assert_eq!(check(client, name).await.policy_revision, 1, "{name}");
    }
    touch(client, "touched").await.expect("live");
    extend(client, "extended", None).await.expect("granted");
    rotate_with(client, "rotated-2", "rotated-3", |request| {
        request.authenticated_ago = wire(Duration::ZERO)
    })
    .await
    .expect("rotated");
    for name in ["extended", "rotated-3"] {
        let session = check(client, name).await;
        assert_eq!(
            (session.policy_revision, left_of(&session)),
            (2, (mins(5), Limit::Idle)),
            "{name}"
        );
    }
    let session = check(client, "touched").await;
    assert_eq!(
        (session.policy_revision, left_of(&session)),
        (2, (mins(5) + secs(1), Limit::Idle)),
        "a window after the work"
    );
    assert_eq!(
        watcher.during(mins(6)).await,
        ["warning idle 120s", "warning idle 60s", "ended IDLE_TIMEOUT"],
        "by the points of the old revision"
    );
    let created = create(client, "new").await;
    assert_eq!((created.policy_revision, left_of(&created).0), (2, mins(5)));
}

#[tokio::test(start_paused = true)]
async fn g7_the_absolute_deadline_only_moves_nearer_and_not_nearer_than_an_idle_window() {
    let sidecar = Sidecar::with_policies(FIRST);
    let client = &mut sidecar.client().await;
    for (name, ago) in [("young", 60), ("old", 10 * 60)] {
        create_with(client, name, |request| request.authenticated_ago = wire(mins(ago))).await;
    }
    let until_absolute = |session: &v1::Session| {
        between(
            status(session).server_time.as_ref(),
            session.absolute_expire_time.as_ref(),
        )
    };
    sidecar.reload("[policy.default]\nrevision = 2\nabsolute_timeout = \"24h\"");
    touch(client, "young").await.expect("live");
    assert_eq!(
        until_absolute(&check(client, "young").await),
        mins(11 * 60),
        "never further"
    );
    sidecar.reload("[policy.default]\nrevision = 3\nabsolute_timeout = \"8h\"");
    for name in ["young", "old"] {
        touch(client, name).await.expect("live");
    }
    assert_eq!(until_absolute(&check(client, "young").await), mins(7 * 60));
    assert_eq!(until_absolute(&check(client, "old").await), mins(15), "one idle window");
    assert_eq!(left(client, "old").await, (mins(15), Limit::Absolute), "on a tie");
}

#[tokio::test(start_paused = true)]
async fn g4_an_absolute_warning_that_stood_is_withdrawn_as_policy_changed() {
    let sidecar = Sidecar::with_policies("[policy.default]\nrevision = 1\nabsolute_warn_before = [\"6h\"]");
    let client = &mut sidecar.client().await;
    create_with(client, "alice", |request| {
        request.authenticated_ago = wire(mins(6 * 60 + 30))
    })
    .await;
    let mut watcher = Watcher::open(client, everything()).await;
    assert_eq!(state(client, "alice").await, SessionState::Expiring);
    sidecar.reload("[policy.default]\nrevision = 2\nabsolute_timeout = \"8h\"\nabsolute_warn_before = [\"10m\"]");
    touch(client, "alice").await.expect("live");
    assert_eq!(watcher.during(secs(1)).await, ["cleared absolute policy_changed"]);
    assert_eq!(state(client, "alice").await, SessionState::Active);
}

#[tokio::test(start_paused = true)]
async fn a_lower_revision_never_overwrites_a_higher_one() {
    let sidecar = Sidecar::with_policies("[policy.default]\nrevision = 5");
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    sidecar.reload("[policy.default]\nrevision = 4\nidle_timeout = \"5m\"");
    touch(client, "alice").await.expect("live");
    let session = check(client, "alice").await;
    assert_eq!((session.policy_revision, left_of(&session).0), (5, mins(15)));
    assert_eq!(create(client, "bob").await.policy_revision, 5);
}

#[tokio::test(start_paused = true)]
async fn a_removed_policy_stays_in_force_for_its_sessions_and_is_refused_to_create() {
    let sidecar = Sidecar::with_policies("[policy.default]\n[policy.staff]\nidle_timeout = \"5m\"");
    let client = &mut sidecar.client().await;
    let staff = |request: &mut v1::CreateRequest| request.policy = "staff".to_owned();
    create_with(client, "alice", staff).await;
    sidecar.reload("[policy.default]");
    touch(client, "alice").await.expect("live");
    assert_eq!(left(client, "alice").await, (mins(5), Limit::Idle));
    rotate_with(client, "alice", "alice-2", |request| {
        request.authenticated_ago = wire(Duration::ZERO)
    })
    .await
    .expect("rotated");
    assert_eq!(left(client, "alice-2").await, (mins(5), Limit::Idle));
    let mut request = v1::CreateRequest {
        session_id: id("bob"),
        ..Default::default()
    };
    staff(&mut request);
    let refused = client.create(request).await.unwrap_err();
    assert_eq!(reason(&refused).1, "POLICY_UNKNOWN");
}

#[tokio::test(start_paused = true)]
async fn stricter_limits_of_a_sessions_own_outlive_a_reload() {
    let sidecar = Sidecar::with_policies(FIRST);
    let client = &mut sidecar.client().await;
    create_with(client, "alice", |request| request.idle_timeout = wire(mins(3))).await;
    sidecar.reload("[policy.default]\nrevision = 2\nidle_timeout = \"10m\"\nunmatched = \"ignore\"");
    touch_user(client, "alice").await;
    assert_eq!(left(client, "alice").await, (mins(3), Limit::Idle));
    sidecar.reload("[policy.default]\nrevision = 3\nidle_timeout = \"2m\"");
    touch_user(client, "alice").await;
    assert_eq!(left(client, "alice").await, (mins(2), Limit::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_rule_of_the_new_revision_judges_from_the_next_touch_on_that_counts_by_the_old() {
    let sidecar = Sidecar::with_policies(FIRST);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    sidecar.reload("[policy.default]\nrevision = 2\nunmatched = \"ignore\"");
    assert!(touch(client, "alice").await.expect("live").counted);
    assert_eq!(check(client, "alice").await.policy_revision, 2);
    assert!(!touch(client, "alice").await.expect("live").counted);
}

#[tokio::test(start_paused = true)]
async fn g1_a_touch_that_comes_late_does_not_bring_limits_that_would_have_passed_already() {
    let sidecar = Sidecar::with_policies(FIRST);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    create_with(client, "bob", |request| request.idle_timeout = wire(mins(13))).await;
    let mut watcher = Watcher::open(client, everything()).await;
    pass(mins(10)).await;
    sidecar.reload("[policy.default]\nrevision = 2\nidle_timeout = \"5m\"");
    for name in ["alice", "bob"] {
        // It would be over, or inside a window, by the new revision: that waits.
        for late in [mins(9), mins(4)] {
            let touched = touch_with(client, name, |touch| touch.idle_for = wire(late)).await;
            assert!(touched.expect("live").counted);
            assert_eq!(check(client, name).await.policy_revision, 1);
        }
        let touched = touch_with(client, name, |touch| touch.idle_for = wire(mins(2))).await;
        assert!(touched.expect("live").counted);
        let session = check(client, name).await;
        assert_eq!((session.policy_revision, left_of(&session).0), (2, mins(3)));
    }
    assert!(watcher.during(secs(1)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn at_most_bounds_an_extend_to_one_idle_window() {
    let sidecar = Sidecar::with_policies("[policy.default]\nat_most = true");
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(1)).await;
    let extended = extend(client, "alice", Some(mins(60))).await.expect("granted");
    assert_eq!(span(extended.granted_duration), mins(1));
    assert_eq!(left(client, "alice").await, (mins(15), Limit::Idle));
}

/// A retry is answered with what was created, though its policy is gone.
#[tokio::test(start_paused = true)]
async fn a_create_is_retried_when_its_policy_was_removed() {
    let sidecar = Sidecar::with_policies("[policy.default]\n[policy.a]");
    let client = &mut sidecar.client().await;
    let request = v1::CreateRequest {
        policy: "a".to_owned(),
        request_id: "login-1".to_owned(),
        ..Default::default()
    };
    let first = client.create(request.clone()).await.expect("created").into_inner();
    sidecar.reload("[policy.default]");
    let again = client.create(request.clone()).await.expect("retried").into_inner();
    assert_eq!(again.session_id, first.session_id);
    let other = v1::CreateRequest {
        request_id: "login-2".to_owned(),
        ..request
    };
    let refused = client.create(other).await.expect_err("the policy is gone");
    assert_eq!(reason(&refused).1, "POLICY_UNKNOWN");
}
