//! The guarantees of the contract, each proven through the API, in virtual time. A test's name begins with what it proves.

mod support;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use session_sidecar::{rpc::proto::v1, store::MemoryCaps};
use support::*;
use tonic::Code;
use v1::{SessionState, watch_expiry_response::Message};

const MILLI: Duration = Duration::from_millis(1);
/// G2's bound on what is pushed.
const PROMPT: Duration = Duration::from_millis(50);

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

fn session_ref(sidecar: &Sidecar, name: &str) -> session_sidecar::state::SessionRef {
    sidecar.sessions.session_ref(session_sidecar::sessions::Name {
        tenant: "",
        session_id: &id(name),
    })
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

#[tokio::test(start_paused = true)]
async fn g12_a_watcher_that_resumes_sees_what_it_would_have_seen() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    for name in ["alice", "bob", "carol"] {
        create(client, name).await;
    }
    let mut whole = Watcher::open(client, everything()).await;
    let mut cut = Watcher::open(client, everything()).await;
    pass(mins(14) - secs(1)).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(word_of(&cut.next().await));
    }
    let token = cut.token.clone();
    drop(cut);
    touch(client, "alice").await.expect("live");
    end(client, "bob").await.expect("ended");
    pass(mins(2)).await;
    let mut resumed = Watcher::resume(client, everything(), &token).await.expect("resumes");
    end(client, "alice").await.expect("ended");
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(word_of(&whole.next().await));
    }
    while seen.len() < all.len() {
        seen.push(word_of(&resumed.next().await));
    }
    assert_eq!(seen, all);
    assert_eq!(all.iter().filter(|word| word.contains("ended")).count(), 3);
}

/// An event with its session.
fn word_of(message: &Message) -> String {
    let session = match message {
        Message::Warning(warning) => &warning.session,
        Message::Cleared(cleared) => &cleared.session,
        Message::Ended(ended) => &ended.session,
        _ => &None,
    };
    let session = session.as_ref().map(|session| session.session_ref.as_str());
    format!("{} {}", word(message), session.unwrap_or_default())
}

#[tokio::test(start_paused = true)]
async fn g12_a_trimmed_log_or_another_process_is_a_clean_out_of_range() {
    let sidecar = Sidecar::with(Options {
        replay_events: 4,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, everything()).await;
    for number in 0..10 {
        let name = format!("alice{number}");
        create(client, &name).await;
        end(client, &name).await.expect("ended");
        if number == 0 {
            watcher.next().await;
        }
    }
    let expired = (Code::OutOfRange, "RESUME_TOKEN_EXPIRED".to_owned());
    let trimmed = Watcher::resume(client, everything(), &watcher.token).await;
    assert_eq!(reason(&trimmed.err().expect("refused")), expired);
    // The same key after a restart: the log is another one.
    let restarted = Sidecar::start();
    let other = &mut restarted.client().await;
    let foreign = Watcher::resume(other, everything(), &watcher.token).await;
    assert_eq!(reason(&foreign.err().expect("refused")), expired);
}

#[tokio::test(start_paused = true)]
async fn g12_the_state_comes_first_then_a_marker_then_what_happens() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(13) + secs(1)).await;
    create(client, "bob").await;
    create(client, "carol").await;
    end(client, "carol").await.expect("ended");
    let mut request = by_id(&["alice", "bob", "carol", "nobody"]);
    request.include_initial_state = true;
    let mut watcher = Watcher::try_open(client, request).await.expect("opens");
    let mut words = watcher.during(secs(1)).await;
    words[..3].sort();
    // A scope of ids tells of ended sessions too; what is absent never was, or is forgotten.
    assert_eq!(
        words,
        ["snapshot ACTIVE", "snapshot ENDED", "snapshot EXPIRING", "live 3"]
    );
    let mut request = everything();
    request.include_initial_state = true;
    let mut watcher = Watcher::try_open(client, request).await.expect("opens");
    let mut words = watcher.during(secs(1)).await;
    words[..2].sort();
    assert_eq!(words, ["snapshot ACTIVE", "snapshot EXPIRING", "live 2"]);
    assert_eq!(watcher.during(secs(58)).await, ["warning idle 60s"]);
}

/// Whoever is cut in the middle of the state gets all of it again.
#[tokio::test(start_paused = true)]
async fn g12_an_incomplete_state_is_sent_again() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    for number in 0..5 {
        create(client, &format!("alice{number}")).await;
    }
    let mut request = everything();
    request.include_initial_state = true;
    let mut watcher = Watcher::try_open(client, request).await.expect("opens");
    watcher.next().await;
    let token = watcher.token.clone();
    drop(watcher);
    let mut resumed = Watcher::resume(client, everything(), &token).await.expect("resumes");
    let words = resumed.during(secs(1)).await;
    assert_eq!(words.len(), 6);
    assert_eq!(words[5], "live 5");
}

#[tokio::test(start_paused = true)]
async fn g13_a_watcher_that_does_not_read_is_cut_off_and_slows_nobody() {
    const SESSIONS: usize = 5_000;
    let sidecar = Sidecar::with(Options {
        mailbox_size: 256,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    let mut slow = Watcher::open(client, everything()).await;
    let mut quick = Watcher::open(&mut sidecar.client().await, everything()).await;
    for number in 0..SESSIONS {
        create(client, &format!("alice{number}")).await;
    }
    let reader = tokio::spawn(async move {
        for _ in 0..SESSIONS {
            assert_eq!(word(&quick.next().await), "ended LOGOUT");
        }
    });
    for number in 0..SESSIONS {
        end(client, &format!("alice{number}")).await.expect("ended");
    }
    reader.await.expect("the quick one got everything");
    // What waits is more than is kept for it, and it takes nothing for a second.
    pass(secs(2)).await;
    let mut read = 0;
    let cut_off = loop {
        match slow.try_next().await {
            Ok(_) => read += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(
        reason(&cut_off),
        (Code::ResourceExhausted, "WATCHER_TOO_SLOW".to_owned())
    );
    assert!(read < SESSIONS);
    assert_eq!(sidecar.metric("watchers_cut_off_total"), 1.0);
    // And it loses nothing if it resumes.
    let mut resumed = Watcher::resume(client, everything(), &slow.token)
        .await
        .expect("resumes");
    for _ in read..SESSIONS {
        assert_eq!(word(&resumed.next().await), "ended LOGOUT");
    }
}

/// However many deadlines come at once, whoever reads hears of all of them, in one stream.
#[tokio::test(start_paused = true)]
async fn g6_g13_a_burst_larger_than_the_queue_cuts_off_nobody_who_reads() {
    const SESSIONS: usize = 5_000;
    let sidecar = Sidecar::with(Options {
        mailbox_size: 16,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    for number in 0..SESSIONS {
        create(client, &format!("alice{number}")).await;
    }
    let mut watcher = Watcher::open(client, everything()).await;
    let mut told = BTreeMap::<String, Vec<String>>::new();
    for _ in 0..3 * SESSIONS {
        let message = watcher.next().await;
        let session = match &message {
            Message::Warning(warning) => &warning.session,
            Message::Ended(ended) => &ended.session,
            other => panic!("{other:?}"),
        };
        let session = session.as_ref().expect("a session").session_ref.clone();
        told.entry(session).or_default().push(word(&message));
    }
    assert_eq!(told.len(), SESSIONS);
    for words in told.values() {
        assert_eq!(words, &["warning idle 120s", "warning idle 60s", "ended IDLE_TIMEOUT"]);
    }
    assert_eq!(sidecar.metric("watchers_cut_off_total"), 0.0);
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

#[tokio::test(start_paused = true)]
async fn g15_a_raw_id_is_in_no_event_metric_error_or_dump() {
    let canary = "CANARY-a4cedcaa9d1b4a0b";
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let request = v1::CreateRequest {
        session_id: canary.to_owned(),
        subject: "ada".to_owned(),
        ..Default::default()
    };
    let created = client.create(request.clone()).await.expect("created").into_inner();
    assert_eq!(created.session_id, canary, "echoed to the caller who sent it");
    let mut said = format!("{:?}", created.session);
    let mut all = Watcher::open(client, everything()).await;
    let exists = client.create(request).await.unwrap_err();
    pass(mins(14)).await;
    let name = session_sidecar::sessions::Name {
        tenant: "",
        session_id: canary,
    };
    let reference = sidecar.sessions.session_ref(name);
    said += &format!("{:?}", sidecar.sessions.memory().get(reference));
    pass(mins(2)).await;
    said += &format!("{:?}", sidecar.sessions.memory().look_up(reference));
    let touch = v1::TouchRequest {
        session_id: canary.to_owned(),
        ..Default::default()
    };
    let ended = client.touch(touch.clone()).await.unwrap_err();
    let batch = v1::BatchTouchRequest { touches: vec![touch] };
    said += &format!("{:?}", client.batch_touch(batch).await.expect("answered"));
    for status in [exists, ended] {
        said += &format!("{status:?}{}", String::from_utf8_lossy(status.details()));
    }
    for _ in 0..3 {
        said += &format!("{:?}", all.next().await);
    }
    said += &sidecar.metrics();
    assert!(said.contains(&reference.to_string()), "the ref stands for it");
    assert!(!said.contains(canary), "{said}");
}

#[tokio::test(start_paused = true)]
async fn g15_only_a_watch_by_id_echoes_the_id_and_only_its_own() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let session = create(client, "alice").await;
    let mut own = Watcher::open(client, by_id(&["alice"])).await;
    let mut by_ref = Watcher::open(
        client,
        scoped(v1::watch_scope::Scope::Sessions(v1::SessionNames {
            names: vec![v1::SessionName {
                name: Some(v1::session_name::Name::SessionRef(status(&session).session_ref.clone())),
            }],
        })),
    )
    .await;
    end(client, "alice").await.expect("ended");
    let Message::Ended(mine) = own.next().await else {
        panic!("not ended")
    };
    assert_eq!(mine.session.expect("a session").session_id, id("alice"));
    let Message::Ended(refs) = by_ref.next().await else {
        panic!("not ended")
    };
    assert_eq!(refs.session.expect("a session").session_id, "");
}

#[tokio::test(start_paused = true)]
async fn g17_nothing_crosses_a_tenant() {
    let sidecar = Sidecar::start();
    let shop = &mut sidecar.client_for(&["shop"]).await;
    let blog = &mut sidecar.client_for(&["blog"]).await;
    let both = &mut sidecar.client_for(&["shop", "blog"]).await;
    let in_shop = |request: &mut v1::CreateRequest| {
        request.tenant = "shop".to_owned();
        request.subject = "ada".to_owned();
    };
    let session = create_with(shop, "alice", in_shop).await;
    let reference = status(&session).session_ref.clone();
    // Another tenant cannot be named, whatever the verb.
    let denied = |status: tonic::Status| assert_eq!(status.code(), Code::PermissionDenied);
    denied(
        touch_with(blog, "alice", |touch| touch.tenant = "shop".to_owned())
            .await
            .unwrap_err(),
    );
    denied(touch(blog, "alice").await.unwrap_err());
    let mut foreign = everything();
    foreign.scope.as_mut().expect("a scope").scope = Some(v1::watch_scope::Scope::WholeTenant(true));
    foreign.scope.as_mut().expect("a scope").tenant = "shop".to_owned();
    denied(Watcher::try_open(blog, foreign).await.err().expect("refused"));
    // The same id is another session, and a ref of another tenant is unknown.
    let by_ref = v1::CheckRequest {
        tenant: "blog".to_owned(),
        name: Some(v1::check_request::Name::SessionRef(reference.clone())),
        ..Default::default()
    };
    let unknown = blog.check(by_ref).await.expect("answered").into_inner().session;
    let unknown = unknown.expect("a session");
    assert_eq!(status(&unknown).state(), SessionState::Unknown);
    assert_eq!(unknown.subject, "");
    let touched = touch_with(blog, "alice", |touch| touch.tenant = "blog".to_owned()).await;
    assert_eq!(touched.unwrap_err().code(), Code::NotFound);
    // No event crosses: not by everything, not by ref, not by subject.
    let mut refs = scoped(v1::watch_scope::Scope::Sessions(v1::SessionNames {
        names: vec![v1::SessionName {
            name: Some(v1::session_name::Name::SessionRef(reference)),
        }],
    }));
    refs.scope.as_mut().expect("a scope").tenant = "blog".to_owned();
    refs.include_initial_state = true;
    let mut subject = scoped(v1::watch_scope::Scope::Subject("ada".to_owned()));
    subject.scope.as_mut().expect("a scope").tenant = "blog".to_owned();
    let mut theirs = [
        Watcher::open(blog, everything()).await,
        Watcher::open(blog, refs).await,
        Watcher::open(blog, subject).await,
    ];
    let mut ours = Watcher::open(both, everything()).await;
    let request = v1::EndRequest {
        tenant: "shop".to_owned(),
        session_id: id("alice"),
        ..Default::default()
    };
    shop.end(request).await.expect("ended");
    assert_eq!(ours.during(secs(1)).await, ["ended LOGOUT"]);
    for watcher in &mut theirs {
        assert_eq!(watcher.during(secs(1)).await, [""; 0]);
    }
    // No token crosses: not to another tenant, not to a caller with other tenants, not to another scope.
    for (client, request) in [(&mut *blog, everything()), (&mut *shop, everything())] {
        let refused = Watcher::resume(client, request, &ours.token)
            .await
            .err()
            .expect("refused");
        assert_eq!(
            (refused.code(), field(&refused).as_str()),
            (Code::InvalidArgument, "resume_token")
        );
    }
}
