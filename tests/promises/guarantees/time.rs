//! G1, G2, G14: never early, never late, whatever clocks do.

use super::*;

#[tokio::test(start_paused = true)]
async fn g1_a_session_lives_until_the_deadline_of_its_last_touch() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    for _ in 0..5 {
        pass(mins(15) - MILLI).await;
        let touched = touch(client, "alice").await.expect("still live");
        assert!(touched.counted);
        assert_eq!(span(touched.status.expect("a status").expires_in), mins(15));
    }
    pass(mins(15) - MILLI).await;
    assert_eq!(state(client, "alice").await, SessionState::Expiring);
    pass(MILLI).await;
    assert_eq!(state(client, "alice").await, SessionState::Ended);
}

#[tokio::test(start_paused = true)]
async fn g1_an_extend_is_kept() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let extended = extend(client, "alice", Some(mins(120))).await.expect("extended");
    assert_eq!(span(extended.granted_duration), mins(105));
    pass(mins(120) - MILLI).await;
    assert_eq!(state(client, "alice").await, SessionState::Expiring);
    pass(MILLI).await;
    assert_eq!(state(client, "alice").await, SessionState::Ended);
}

/// A passed deadline is passed for every call, though no background work has run.
#[tokio::test(start_paused = true)]
async fn g2_every_call_knows_a_passed_deadline_without_the_driver() {
    let sidecar = Sidecar::with(Options {
        driver: false,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    for name in ["touched", "checked", "extended", "ended", "created"] {
        create(client, name).await;
    }
    pass_without_driver(&sidecar, mins(15)).await;
    let refused = (Code::FailedPrecondition, "SESSION_ENDED".to_owned());
    assert_eq!(reason(&touch(client, "touched").await.unwrap_err()), refused);
    assert_eq!(reason(&extend(client, "extended", None).await.unwrap_err()), refused);
    assert_eq!(state(client, "checked").await, SessionState::Ended);
    let ended = end(client, "ended").await.expect("the first end");
    assert!(!ended.ended_now);
    assert_eq!(ended.end.expect("an end").reason(), v1::EndReason::IdleTimeout);
    let again = v1::CreateRequest {
        session_id: id("created"),
        ..Default::default()
    };
    assert_eq!(reason(&client.create(again).await.unwrap_err()), refused);
}

#[tokio::test(start_paused = true)]
async fn g2_g3_warnings_and_the_end_are_pushed_in_time_with_no_traffic() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, everything()).await;
    create(client, "alice").await;
    let begin = tokio::time::Instant::now();
    for (word_due, due) in [
        ("warning idle 120s", mins(13)),
        ("warning idle 60s", mins(14)),
        ("ended IDLE_TIMEOUT", mins(15)),
    ] {
        assert_eq!(word(&watcher.next().await), word_due);
        let late = begin.elapsed().checked_sub(due).expect("not early");
        assert!(late < PROMPT, "{word_due} was {late:?} late");
    }
}

#[tokio::test(start_paused = true)]
async fn g2_the_end_time_is_the_deadline_not_the_moment_it_was_noticed() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let created = create(client, "alice").await;
    pass(mins(16)).await;
    let ended = check(client, "alice").await;
    assert_eq!(ended.end.expect("an end").end_time, created.idle_expire_time);
}

#[tokio::test(start_paused = true)]
async fn g14_after_a_gap_people_get_five_seconds_to_touch() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, everything()).await;
    create(client, "alice").await;
    create(client, "bob").await;
    // The laptop sleeps past the deadline.
    tokio::time::advance(mins(20)).await;
    assert_eq!(state(client, "alice").await, SessionState::Expiring);
    pass(secs(4)).await;
    let touched = touch(client, "alice").await.expect("held for her");
    assert_eq!(span(touched.status.expect("a status").expires_in), mins(15));
    pass(secs(2)).await;
    assert_eq!(state(client, "alice").await, SessionState::Active);
    assert_eq!(state(client, "bob").await, SessionState::Ended);
    let words = watcher.during(secs(1)).await;
    assert_eq!(
        words.iter().filter(|word| *word == "ended IDLE_TIMEOUT").count(),
        1,
        "{words:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn g14_absolute_deadlines_are_never_held() {
    let sidecar = Sidecar::with_policies("[policy.default]\nidle_timeout = '15m'\nabsolute_timeout = '15m'");
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    tokio::time::advance(mins(20)).await;
    let ended = check(client, "alice").await;
    // On a tie the absolute deadline gives the reason.
    assert_eq!(ended.end.expect("an end").reason(), v1::EndReason::AbsoluteTimeout);
}
