//! G5 to G11: final, once, bounded, forward, and known.

use super::*;

#[tokio::test(start_paused = true)]
async fn g5_nothing_revives_an_ended_session() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(15) + secs(1)).await;
    let refused = (Code::FailedPrecondition, "SESSION_ENDED".to_owned());
    // Activity from before the deadline that arrives after it comes too late.
    let late = touch_with(client, "alice", |touch| touch.idle_for = wire(mins(10))).await;
    let late = late.unwrap_err();
    assert_eq!(reason(&late), refused);
    let info = tonic_types::StatusExt::get_details_error_info(&late).expect("info");
    assert_eq!(info.metadata["reason"], "IDLE_TIMEOUT");
    assert_eq!(info.metadata["actor"], "POLICY");
    assert!(info.metadata["end_time"].starts_with("2026-01-01T00:15:00"));
    assert_eq!(reason(&extend(client, "alice", None).await.unwrap_err()), refused);
    let again = v1::CreateRequest {
        session_id: id("alice"),
        ..Default::default()
    };
    assert_eq!(reason(&client.create(again).await.unwrap_err()), refused);
    assert_eq!(state(client, "alice").await, SessionState::Ended);
}

#[tokio::test(start_paused = true)]
async fn g6_a_hundred_ends_at_once_are_one_end() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, everything()).await;
    create(client, "alice").await;
    let calls = (0..100).map(|number| {
        let mut client = client.clone();
        tokio::spawn(async move {
            let request = v1::EndRequest {
                session_id: id("alice"),
                reason: v1::EndReason::Revoked.into(),
                actor_id: format!("admin {number}"),
                ..Default::default()
            };
            client.end(request).await.expect("an end").into_inner()
        })
    });
    let mut ends = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        ends.push(call.await.expect("no panic"));
    }
    assert_eq!(ends.iter().filter(|end| end.ended_now).count(), 1);
    assert!(
        ends.iter().all(|end| end.end == ends[0].end),
        "all tell of the same end"
    );
    assert_eq!(watcher.during(mins(60)).await, ["ended REVOKED"]);
}

#[tokio::test(start_paused = true)]
async fn g7_nothing_moves_the_expire_time_past_the_absolute_deadline() {
    let sidecar = Sidecar::with_policies("[policy.default]\nidle_timeout = '15m'\nabsolute_timeout = '1h'");
    let client = &mut sidecar.client().await;
    let created = create_with(client, "alice", |request| request.authenticated_ago = wire(mins(10))).await;
    for _ in 0..6 {
        let extended = extend(client, "alice", Some(mins(600))).await.expect("granted");
        assert_eq!(extended.clamped_by(), v1::Limit::Absolute);
        let status = extended.status.expect("a status");
        assert_eq!(status.expire_time, created.absolute_expire_time);
        assert!(!status.can_extend);
        pass(mins(8)).await;
        touch(client, "alice").await.expect("live");
    }
    pass(mins(2)).await;
    let ended = check(client, "alice").await;
    assert_eq!(ended.end.expect("an end").reason(), v1::EndReason::AbsoluteTimeout);
}

#[tokio::test(start_paused = true)]
async fn g8_last_activity_goes_forward_and_never_past_now() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let created = create(client, "alice").await;
    pass(mins(10)).await;
    let touched = touch_with(client, "alice", |touch| touch.idle_for = wire(mins(4))).await;
    assert_eq!(touched.expect("live").result(), v1::TouchResult::Counted);
    let six = check(client, "alice").await.last_activity_time;
    assert!(seconds_between(&created.create_time, &six) == 360);
    let stale = touch_with(client, "alice", |touch| touch.idle_for = wire(mins(5)))
        .await
        .expect("live");
    assert_eq!((stale.result(), stale.counted), (v1::TouchResult::Stale, false));
    // Older than the session: clamped to its creation, which is stale too.
    let ancient = touch_with(client, "alice", |touch| touch.idle_for = wire(mins(500)))
        .await
        .expect("live");
    assert_eq!(ancient.result(), v1::TouchResult::Stale);
    assert_eq!(check(client, "alice").await.last_activity_time, six);
}

fn seconds_between(from: &Option<prost_types::Timestamp>, to: &Option<prost_types::Timestamp>) -> i64 {
    to.as_ref().expect("a time").seconds - from.as_ref().expect("a time").seconds
}

#[tokio::test(start_paused = true)]
async fn g9_background_touches_checks_and_watches_keep_nothing_alive() {
    let sidecar = Sidecar::with_policies("[policy.default]\nunmatched = 'ignore'");
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, by_id(&["alice"])).await;
    create(client, "alice").await;
    for minute in 0..15 {
        pass(mins(1) - if minute == 14 { MILLI } else { Duration::ZERO }).await;
        let background = touch_with(client, "alice", |touch| {
            touch.activity = v1::Activity::Background.into()
        })
        .await;
        let background = background.expect("live");
        assert_eq!(
            (background.counted, background.rule.as_str()),
            (false, "declared-background")
        );
        let undeclared = touch(client, "alice").await.expect("live");
        assert_eq!((undeclared.counted, undeclared.rule.as_str()), (false, "unmatched"));
        check(client, "alice").await;
    }
    pass(MILLI).await;
    assert_eq!(state(client, "alice").await, SessionState::Ended);
    let words = watcher.during(secs(1)).await;
    assert_eq!(words, ["warning idle 120s", "warning idle 60s", "ended IDLE_TIMEOUT"]);
}

/// Many threads, real time: whoever looks while a session ends sees it live or ended, never unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn g10_an_ending_session_is_never_unknown_not_for_an_instant() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    for round in 0..200 {
        let name = format!("alice{round}");
        create(client, &name).await;
        let reference = session_ref(&sidecar, &name);
        let sessions = Arc::clone(&sidecar.sessions);
        let looker = tokio::spawn(async move {
            loop {
                let report = sessions.report("", reference).await.expect("an answer");
                match report.status.state {
                    session_sidecar::sessions::State::Unknown => return false,
                    session_sidecar::sessions::State::Ended => return true,
                    _ => tokio::task::yield_now().await,
                }
            }
        });
        end(client, &name).await.expect("ended");
        assert!(looker.await.expect("no panic"), "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn g10_an_end_is_known_for_the_tombstone_time_and_an_id_never_issued_is_unknown() {
    let sidecar = Sidecar::with_policies("[policy.default]\ntombstone_ttl = '1h'");
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    end(client, "alice").await.expect("ended");
    pass(mins(60) - MILLI).await;
    assert_eq!(state(client, "alice").await, SessionState::Ended);
    let never = check(client, "nobody").await;
    assert_eq!(status(&never).state(), SessionState::Unknown);
    assert!(!status(&never).may_have_ended);
    assert!(!status(&never).session_ref.is_empty(), "every answer carries the ref");
    pass(MILLI).await;
    assert_eq!(state(client, "alice").await, SessionState::Unknown);
    assert_eq!(
        reason(&touch(client, "alice").await.unwrap_err()),
        (Code::NotFound, "SESSION_UNKNOWN".to_owned())
    );
}

#[tokio::test(start_paused = true)]
async fn g10_g11_at_the_tombstone_cap_the_oldest_goes_and_answers_and_metrics_say_so() {
    let sidecar = Sidecar::with(Options {
        caps: MemoryCaps {
            max_sessions: 10,
            max_tombstones: 3,
        },
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    for number in 0..5 {
        let name = format!("alice{number}");
        create(client, &name).await;
        end(client, &name).await.expect("ended");
    }
    let oldest = check(client, "alice0").await;
    assert_eq!(status(&oldest).state(), SessionState::Unknown);
    assert!(status(&oldest).may_have_ended);
    // Commands say it too.
    let refused = touch(client, "alice0").await.expect_err("unknown");
    assert_eq!(reason(&refused), (Code::NotFound, "SESSION_UNKNOWN".to_owned()));
    assert_eq!(metadata(&refused, "may_have_ended"), "true");
    assert!(refused.message().contains("--max-tombstones"), "{refused:?}");
    assert_eq!(state(client, "alice4").await, SessionState::Ended);
    assert_eq!(sidecar.metric("tombstones_dropped_total"), 2.0);
    assert_eq!(sidecar.metric("tombstones"), 3.0);
}

#[tokio::test(start_paused = true)]
async fn g11_at_the_cap_create_is_refused_and_no_live_session_is_dropped() {
    let sidecar = Sidecar::with(Options {
        caps: MemoryCaps {
            max_sessions: 50,
            max_tombstones: 10,
        },
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    for number in 0..50 {
        create(client, &format!("alice{number}")).await;
    }
    for number in 50..60 {
        let request = v1::CreateRequest {
            session_id: id(&format!("alice{number}")),
            ..Default::default()
        };
        let refused = client.create(request).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::ResourceExhausted, "SESSION_CAP".to_owned()));
        assert!(refused.message().contains("50") && refused.message().contains("--max-sessions"));
    }
    for number in 0..50 {
        assert_eq!(state(client, &format!("alice{number}")).await, SessionState::Active);
    }
    end(client, "alice7").await.expect("ended");
    create(client, "bob").await;
    assert_eq!(sidecar.metric("live_sessions"), 50.0);
}
