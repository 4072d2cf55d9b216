//! Which touches count: declared kinds, built-in rules, rules of a policy. The answer names what decided.

use session_sidecar::rpc::proto::v1::{self, Activity, PageVisibility, TouchResult};
use tonic::Code;

use crate::support::*;

const IGNORE: &str = "[policy.default]\nunmatched = \"ignore\"";

const OWN: &str = r#"
[policy.default]
unmatched = "ignore"

[[policy.default.rules]]
name = "polls"
path = ["/api/*/poll", "/socket/**"]
verdict = "ignore"

[[policy.default.rules]]
name = "robots"
kind = "user"
host = "*.robots.example.com"
verdict = "ignore"

[[policy.default.rules]]
name = "heartbeats"
kind = "background"
path = "/beat"
verdict = "ignore"

[[policy.default.rules]]
name = "forms"
method = ["POST", "PUT"]
visibility = "visible"
verdict = "count"

[[policy.default.rules]]
name = "api"
path = "/api/**"
verdict = "count"
"#;

/// A touch's rule and result, and whether the deadline moved as it says.
async fn judged(
    client: &mut Client,
    name: &str,
    activity: Activity,
    hints: Option<v1::TouchHints>,
) -> (String, TouchResult) {
    pass(secs(1)).await;
    let before = check(client, name).await;
    let touched = touch_with(client, name, |touch| {
        touch.activity = activity.into();
        touch.hints = hints;
    })
    .await
    .expect("live");
    let after = check(client, name).await;
    assert_eq!(touched.counted, touched.result() == TouchResult::Counted);
    assert_eq!(
        before.last_activity_time != after.last_activity_time,
        touched.counted,
        "{}",
        touched.rule
    );
    (touched.rule.clone(), touched.result())
}

fn hints(change: impl FnOnce(&mut v1::TouchHints)) -> Option<v1::TouchHints> {
    let mut hints = v1::TouchHints::default();
    change(&mut hints);
    Some(hints)
}

fn counted(rule: &str) -> (String, TouchResult) {
    (rule.to_owned(), TouchResult::Counted)
}

fn ignored(rule: &str) -> (String, TouchResult) {
    (rule.to_owned(), TouchResult::Ignored)
}

#[tokio::test(start_paused = true)]
async fn what_is_declared_decides_whatever_the_hints_say() {
    for (policy, unmatched) in [(DEFAULT, counted("unmatched")), (IGNORE, ignored("unmatched"))] {
        let sidecar = Sidecar::with_policies(policy);
        let client = &mut sidecar.client().await;
        create(client, "alice").await;
        let prefetch = hints(|hints| hints.sec_purpose = "prefetch".to_owned());
        let clicked = hints(|hints| {
            hints.sec_fetch_mode = "navigate".to_owned();
            hints.sec_fetch_user = "?1".to_owned();
        });
        for hints in [None, prefetch, clicked] {
            assert_eq!(
                judged(client, "alice", Activity::User, hints.clone()).await,
                counted("declared-user")
            );
            assert_eq!(
                judged(client, "alice", Activity::Background, hints).await,
                ignored("declared-background")
            );
        }
        assert_eq!(judged(client, "alice", Activity::Unspecified, None).await, unmatched);
        assert_eq!(
            judged(client, "alice", Activity::Unspecified, hints(|_| {})).await,
            unmatched
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_built_in_rules_judge_hints() {
    for (policy, unmatched) in [(DEFAULT, counted("unmatched")), (IGNORE, ignored("unmatched"))] {
        let sidecar = Sidecar::with_policies(policy);
        let client = &mut sidecar.client().await;
        create(client, "alice").await;
        let click = |hints: &mut v1::TouchHints| {
            hints.sec_fetch_mode = "navigate".to_owned();
            hints.sec_fetch_user = "?1".to_owned();
        };
        let cases = [
            (
                hints(|hints| hints.sec_purpose = "prefetch".to_owned()),
                ignored("prefetch"),
            ),
            (
                hints(|hints| {
                    click(hints);
                    hints.sec_purpose = "prefetch;prerender".to_owned();
                }),
                ignored("prefetch"),
            ),
            (
                hints(|hints| hints.page_visibility = PageVisibility::Hidden.into()),
                ignored("hidden-page"),
            ),
            (hints(click), counted("user-navigation")),
            (
                hints(|hints| hints.sec_fetch_mode = "navigate".to_owned()),
                unmatched.clone(),
            ),
            (
                hints(|hints| hints.page_visibility = PageVisibility::Visible.into()),
                unmatched.clone(),
            ),
            (hints(|hints| hints.sec_fetch_dest = "empty".to_owned()), unmatched),
        ];
        for (hints, expected) in cases {
            assert_eq!(
                judged(client, "alice", Activity::Unspecified, hints.clone()).await,
                expected,
                "{hints:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn once_a_browser_reports_input_itself_its_scripts_count_no_more() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    create(client, "bob").await;
    let script = || hints(|hints| hints.sec_fetch_dest = "empty".to_owned());
    let report = || {
        hints(|hints| {
            hints.sec_fetch_dest = "empty".to_owned();
            hints.input_report = true;
        })
    };
    assert_eq!(
        judged(client, "alice", Activity::Unspecified, script()).await,
        counted("unmatched")
    );
    assert_eq!(
        judged(client, "alice", Activity::User, report()).await,
        counted("declared-user")
    );
    assert_eq!(
        judged(client, "alice", Activity::Unspecified, script()).await,
        ignored("script-request")
    );
    // The report itself counts, and who declares it counts.
    assert_eq!(
        judged(client, "alice", Activity::Unspecified, report()).await,
        counted("unmatched")
    );
    assert_eq!(
        judged(client, "alice", Activity::User, script()).await,
        counted("declared-user")
    );
    // It is known of this session only, and after a Rotate too.
    assert_eq!(
        judged(client, "bob", Activity::Unspecified, script()).await,
        counted("unmatched")
    );
    rotate(client, "alice", "alice-2").await;
    assert_eq!(
        judged(client, "alice-2", Activity::Unspecified, script()).await,
        ignored("script-request")
    );
}

#[tokio::test(start_paused = true)]
async fn rules_of_a_policy_are_met_in_their_order_and_replace_the_built_in_ones() {
    let sidecar = Sidecar::with_policies(OWN);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let path = |path: &str| hints(|hints| hints.path = path.to_owned());
    let cases = [
        (path("/api/shop/poll"), ignored("polls")),
        (path("/api/shop/poll?since=7"), ignored("polls")),
        (path("/api/shop/cart"), counted("api")),
        (path("/api/shop/v2/poll"), counted("api")),
        (path("/socket/a/b"), ignored("polls")),
        (path("/about"), ignored("unmatched")),
        (
            hints(|hints| {
                hints.method = "post".to_owned();
                hints.page_visibility = PageVisibility::Visible.into();
            }),
            counted("forms"),
        ),
        (hints(|hints| hints.method = "POST".to_owned()), ignored("unmatched")),
        (
            hints(|hints| {
                hints.sec_fetch_mode = "navigate".to_owned();
                hints.sec_fetch_user = "?1".to_owned();
            }),
            ignored("unmatched"),
        ),
        (
            hints(|hints| {
                hints.path = "/api/x".to_owned();
                hints.sec_purpose = "prefetch".to_owned();
            }),
            counted("api"),
        ),
        (None, ignored("unmatched")),
    ];
    for (hints, expected) in cases {
        assert_eq!(
            judged(client, "alice", Activity::Unspecified, hints.clone()).await,
            expected,
            "{hints:?}"
        );
    }
    // A declared person is met only by rules that name the kind.
    let robot = hints(|hints| hints.host = "one.ROBOTS.example.com".to_owned());
    assert_eq!(judged(client, "alice", Activity::User, robot).await, ignored("robots"));
    assert_eq!(
        judged(client, "alice", Activity::User, path("/api/shop/poll")).await,
        counted("declared-user")
    );
}

#[tokio::test(start_paused = true)]
async fn g9_background_never_counts_whatever_rule_it_meets() {
    let sidecar = Sidecar::with_policies(OWN);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let path = |path: &str| hints(|hints| hints.path = path.to_owned());
    for (hints, expected) in [
        (path("/beat"), "heartbeats"),
        (path("/api/shop/cart"), "declared-background"),
        (None, "declared-background"),
    ] {
        assert_eq!(
            judged(client, "alice", Activity::Background, hints).await,
            ignored(expected)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn g9_a_page_that_only_polls_ends_on_time() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let mut watcher = Watcher::open(client, everything()).await;
    touch_hinted(client, "alice", |hints| {
        hints.input_report = true;
    })
    .await
    .expect("live");
    for _ in 0..89 {
        pass(secs(10)).await;
        for change in [
            (|hints| hints.sec_fetch_dest = "empty".to_owned()) as fn(&mut v1::TouchHints),
            |hints| hints.page_visibility = PageVisibility::Hidden.into(),
            |hints| hints.sec_purpose = "prefetch".to_owned(),
        ] {
            assert!(!touch_hinted(client, "alice", change).await.expect("live").counted);
        }
        check(client, "alice").await;
    }
    assert_eq!(
        watcher.during(secs(11)).await,
        ["warning idle 120s", "warning idle 60s", "ended IDLE_TIMEOUT"]
    );
    assert_eq!(ended_after(&check(client, "alice").await).0, mins(15));
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_judged_touch_by_touch() {
    let sidecar = Sidecar::with_policies(OWN);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let touch = |path: &str| v1::TouchRequest {
        session_id: id("alice"),
        hints: hints(|hints| hints.path = path.to_owned()),
        ..Default::default()
    };
    let touches = vec![touch("/api/x"), touch("/api/x/poll"), touch("/")];
    let answer = client.batch_touch(v1::BatchTouchRequest { touches }).await;
    let rules: Vec<_> = answer
        .expect("OK")
        .into_inner()
        .outcomes
        .into_iter()
        .map(|outcome| match outcome.outcome {
            Some(v1::touch_outcome::Outcome::Touch(touched)) => touched.rule,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(rules, ["api", "polls", "unmatched"]);
}

#[tokio::test(start_paused = true)]
async fn a_passive_session_is_for_reading_and_has_no_idle_limit() {
    let policy = "[policy.default]\npassive = true\nabsolute_timeout = \"3d\"";
    let sidecar = Sidecar::with_policies(policy);
    let client = &mut sidecar.client().await;
    let session = create(client, "wall").await;
    assert!(status(&session).read_only);
    assert_eq!((session.idle_timeout, session.idle_expire_time), (None, None));
    let mut request = everything();
    request.heartbeat_interval = wire(mins(5));
    let mut watcher = Watcher::open(client, request).await;
    assert!(watcher.during(mins(60 * 24 * 2)).await.is_empty());
    for method in ["GET", "HEAD", "OPTIONS", ""] {
        let touched = touch_hinted(client, "wall", |hints| hints.method = method.to_owned());
        let status = touched.await.expect("live").status.expect("a status");
        assert!(status.read_only);
        assert_eq!(status.limit(), v1::Limit::Absolute);
    }
    let before = check(client, "wall").await;
    for method in ["POST", "PUT", "PATCH", "DELETE", "get", "PROPFIND"] {
        for activity in [Activity::User, Activity::Background, Activity::Unspecified] {
            let refused = touch_with(client, "wall", |touch| {
                touch.activity = activity.into();
                touch.hints = hints(|hints| hints.method = method.to_owned());
            })
            .await
            .unwrap_err();
            assert_eq!(
                reason(&refused),
                (Code::FailedPrecondition, "READ_ONLY_SESSION".to_owned())
            );
        }
    }
    assert_eq!(check(client, "wall").await, before);
    assert_eq!(
        watcher.during(mins(60 * 24) + secs(1)).await,
        [
            "warning absolute 600s",
            "warning absolute 120s",
            "ended ABSOLUTE_TIMEOUT"
        ]
    );
    let refused = touch_hinted(client, "wall", |hints| hints.method = "POST".to_owned()).await;
    assert_eq!(reason(&refused.unwrap_err()).1, "SESSION_ENDED", "an end is told first");
}
