//! A reload as callers see it: nobody is thrown out, and each session follows at its next counted activity.

use crate::support::*;
use session_sidecar::{config::parse_policies, rpc::proto::v1, sessions::Reloaded};
use tonic::Code;
use v1::{Activity, SessionState};

fn reload(sidecar: &Sidecar, text: &str) -> Result<Reloaded, String> {
    let policies = parse_policies(text).expect("good policies");
    sidecar.sessions.policies().reload(policies)
}

const BEFORE: &str = "[policy.default]\nrevision = 1\nidle_timeout = \"15m\"\nabsolute_timeout = \"8h\"";

#[tokio::test(start_paused = true)]
async fn a_newer_revision_reaches_a_session_at_its_next_counted_activity() {
    let sidecar = Sidecar::with_policies(BEFORE);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(10)).await;
    reload(
        &sidecar,
        "[policy.default]\nrevision = 2\nidle_timeout = \"5m\"\nabsolute_timeout = \"1h\"",
    )
    .expect("taken over");

    // Idle for longer than the new limit, and not thrown out.
    let session = check(client, "alice").await;
    assert_eq!(
        (status(&session).state(), session.policy_revision),
        (SessionState::Active, 1)
    );
    touch_with(client, "alice", |request| request.set_activity(Activity::Background))
        .await
        .expect("ignored");
    assert_eq!(check(client, "alice").await.policy_revision, 1, "no activity");

    pass(mins(2)).await;
    touch(client, "alice").await.expect("counted");
    let session = check(client, "alice").await;
    assert_eq!((session.policy_revision, span(session.idle_timeout)), (2, mins(5)));
    assert_eq!(
        span(session.absolute_timeout),
        mins(60),
        "earlier, and an idle window away"
    );
    pass(mins(5)).await;
    assert_eq!(state(client, "alice").await, SessionState::Ended);

    // A lower revision never overwrites it.
    let reloaded = reload(&sidecar, BEFORE).expect("good");
    assert_eq!(reloaded.kept_newer, ["default"]);
    assert_eq!(span(create(client, "bob").await.idle_timeout), mins(5));
}

#[tokio::test(start_paused = true)]
async fn the_absolute_deadline_leaves_an_idle_window_and_never_moves_later() {
    let sidecar = Sidecar::with_policies(BEFORE);
    let client = &mut sidecar.client().await;
    let created = create_with(client, "alice", |request| request.authenticated_ago = wire(mins(120))).await;
    reload(&sidecar, "[policy.default]\nrevision = 2\nabsolute_timeout = \"1h\"").expect("taken over");
    touch(client, "alice").await.expect("counted");
    let session = check(client, "alice").await;
    assert_eq!(span(session.absolute_timeout), mins(135), "authenticated two hours ago");
    assert!(
        session.absolute_expire_time.expect("a time").seconds < created.absolute_expire_time.expect("a time").seconds
    );

    reload(&sidecar, "[policy.default]\nrevision = 3\nabsolute_timeout = \"24h\"").expect("taken over");
    touch(client, "alice").await.expect("counted");
    let session = check(client, "alice").await;
    assert_eq!(
        (session.policy_revision, span(session.absolute_timeout)),
        (3, mins(135))
    );
}

#[tokio::test(start_paused = true)]
async fn a_removed_policy_stays_in_force_for_its_sessions_and_is_refused_to_create() {
    let sidecar = Sidecar::with_policies("[policy.default]\n[policy.desk]\nidle_timeout = \"5m\"");
    let client = &mut sidecar.client().await;
    create_with(client, "alice", |request| request.policy = "desk".to_owned()).await;
    assert_eq!(reload(&sidecar, "[policy.default]").expect("good").removed, ["desk"]);
    pass(mins(4)).await;
    touch(client, "alice").await.expect("counted");
    pass(mins(4)).await;
    assert_ne!(state(client, "alice").await, SessionState::Ended);
    let refused = client
        .create(v1::CreateRequest {
            policy: "desk".to_owned(),
            ..Default::default()
        })
        .await
        .unwrap_err();
    assert_eq!(
        reason(&refused),
        (Code::FailedPrecondition, "POLICY_UNKNOWN".to_owned())
    );
    pass(mins(1)).await;
    assert_eq!(state(client, "alice").await, SessionState::Ended);
}

#[tokio::test(start_paused = true)]
async fn an_unmanaged_change_reaches_sessions_too_and_rules_with_it() {
    let sidecar = Sidecar::with_policies("[policy.default]");
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let rules = "[policy.default]\nunmatched = \"ignore\"\n\
                 [[policy.default.rules]]\nname = \"polls\"\npath = \"/poll\"\nverdict = \"ignore\"\n\
                 [[policy.default.rules]]\nname = \"pages\"\npath = \"/**\"\nverdict = \"count\"";
    reload(&sidecar, rules).expect("taken over");
    let at = |path: &str| {
        let path = path.to_owned();
        move |request: &mut v1::TouchRequest| {
            request.hints = Some(v1::TouchHints {
                path,
                ..Default::default()
            });
        }
    };
    let first = touch_with(client, "alice", at("/poll")).await.expect("counted");
    assert_eq!(
        (first.counted, first.rule.as_str()),
        (true, "unmatched"),
        "the old rules judge this one"
    );
    for (path, counted, rule) in [("/poll?n=1", false, "polls"), ("/orders", true, "pages")] {
        pass(secs(1)).await;
        let touched = touch_with(client, "alice", at(path)).await.expect("answered");
        assert_eq!((touched.counted, touched.rule.as_str()), (counted, rule));
    }
    pass(secs(1)).await;
    let touched = touch(client, "alice").await.expect("answered");
    assert_eq!((touched.counted, touched.rule.as_str()), (false, "unmatched"));
}
