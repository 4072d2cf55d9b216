//! ExplainSession: "why was I logged out?"

use super::*;

#[tokio::test(start_paused = true)]
async fn a_poll_that_does_not_count_is_the_answer() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create_with(client, "alice", |create| create.subject = "ada".to_owned()).await;
    let watcher = &mut Watcher::open(client, everything()).await;
    pass(mins(1)).await;
    touch_with(client, "alice", |touch| touch.activity = v1::Activity::User.into())
        .await
        .expect("counted");
    for _ in 0..10 {
        pass(mins(1)).await;
        background(client, "alice").await;
    }
    assert_eq!(
        watcher.during(mins(6)).await,
        ["warning idle 120s", "warning idle 60s", "ended IDLE_TIMEOUT"]
    );
    let explained = explain_one(admin, "alice").await;
    assert_eq!(
        explained.summary,
        "Ended on 2026-01-01 at 00:16:00 UTC by inactivity (15m): the last counted activity was at 00:01:00; 10 requests since \
         did not count (rule declared-background); 2 warnings went to 1 watcher each; the end was sent to 1 watcher."
    );
    assert_eq!(
        words(&explained),
        [
            "warning idle 120s to 1",
            "warning idle 60s to 1",
            "ended idle_timeout to 1"
        ]
    );
    let tallies: Vec<_> = explained
        .tallies
        .iter()
        .map(|tally| (tally.rule.as_str(), tally.counted, tally.touch_count))
        .collect();
    assert_eq!(
        tallies,
        [("declared-user", true, 1), ("declared-background", false, 10)]
    );
    let polls = &explained.tallies[1];
    let first = polls.first_time.expect("a time").seconds;
    assert_eq!(polls.last_time.expect("a time").seconds - first, 9 * 60);
    assert_eq!(explained.session.expect("a session").subject, "ada");
    // Nobody was there to show a warning to: that is worth knowing too.
    create(client, "bob").await;
    let _ = watcher;
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_entry_is_told_in_order() {
    let sidecar = Sidecar::with_policies(PRESENCE);
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create(client, "alice").await;
    let hold = |hold_id: &str, kind: v1::HoldKind, ttl| v1::HoldRequest {
        session_id: id("alice"),
        hold_id: hold_id.to_owned(),
        kind: kind.into(),
        ttl: wire(ttl),
        purpose: "monthly report".to_owned(),
        ..Default::default()
    };
    let release = |hold_id: &str| v1::ReleaseRequest {
        session_id: id("alice"),
        hold_id: hold_id.to_owned(),
        ..Default::default()
    };
    client
        .hold(hold("work", v1::HoldKind::Work, mins(1)))
        .await
        .expect("held");
    pass(secs(30)).await;
    client
        .hold(hold("work", v1::HoldKind::Work, mins(1)))
        .await
        .expect("renewed");
    client.release(release("work")).await.expect("released");
    client
        .hold(hold("tab", v1::HoldKind::Presence, mins(1)))
        .await
        .expect("held");
    pass(mins(14) + secs(15)).await;
    extend(client, "alice", None).await.expect("extended");
    let rotate = v1::RotateRequest {
        session_id: id("alice"),
        new_session_id: id("bob"),
        authenticated_ago: wire(Duration::ZERO),
        ..Default::default()
    };
    client.rotate(rotate).await.expect("rotated");
    pass(mins(20)).await;
    let explained = explain(admin, Target::SessionId(id("alice"))).await;
    let [after, before] = &explained.explanations[..] else {
        panic!("the successor and the session itself: {explained:?}")
    };
    assert_eq!(
        words(before),
        [
            "hold work started: monthly report",
            "hold work released after 1 renewals",
            "hold tab started: monthly report",
            "hold tab lapsed after 0 renewals",
            "warning idle 120s to 0",
            "warning idle 60s to 0",
            "extended 855s",
            "cleared idle extended to 0",
            "rotated to anew",
            "ended rotated to 0",
        ]
    );
    let successor = status(after.session.as_ref().expect("a session")).session_ref.clone();
    assert!(
        before.summary.contains(&format!("goes on as {successor}")),
        "{}",
        before.summary
    );
    let told = words(after);
    assert_eq!(
        (told[0].as_str(), told.last().map(String::as_str)),
        ("rotated from anew", Some("ended idle_timeout to 0"))
    );
    assert!(
        after
            .summary
            .contains("2 warnings reached nobody, for no watcher was there"),
        "{}",
        after.summary
    );
    // By ref the one that is named.
    let by_ref = explain(admin, Target::SessionRef(successor)).await;
    assert_eq!(by_ref.explanations, std::slice::from_ref(after));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_only_observed_is_told() {
    let sidecar = Sidecar::with_policies("[policy.default]\nenforce = false\n");
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create(client, "alice").await;
    let summary = explain_one(admin, "alice").await.summary;
    let told = "and would end at 00:15:00 by inactivity if its policy were enforced";
    assert!(summary.contains(told), "{summary}");
    pass(mins(16)).await;
    let explained = explain_one(admin, "alice").await;
    assert!(
        words(&explained).contains(&"unenforced idle_timeout".to_owned()),
        "{:?}",
        words(&explained)
    );
    assert!(
        explained.summary.contains("would have ended at 00:15:00 by inactivity"),
        "{}",
        explained.summary
    );
}

#[tokio::test(start_paused = true)]
async fn a_history_is_bounded_and_a_touch_is_never_an_entry() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create(client, "alice").await;
    for _ in 0..1000 {
        touch(client, "alice").await.expect("counted");
    }
    let explained = explain_one(admin, "alice").await;
    assert!(explained.history.is_empty() && explained.history_dropped_count == 0);
    assert_eq!(explained.tallies[0].touch_count, 1000);
    for _ in 0..100 {
        pass(secs(1)).await;
        extend(client, "alice", None).await.expect("extended");
    }
    end(client, "alice").await.expect("ended");
    let explained = explain_one(admin, "alice").await;
    assert_eq!(
        (explained.history.len(), explained.history_dropped_count),
        (65, 36),
        "64 and the end"
    );
    assert!(
        explained
            .history
            .is_sorted_by_key(|entry| entry.time.map(|time| (time.seconds, time.nanos)))
    );
    assert!(
        explained
            .summary
            .starts_with("Ended on 2026-01-01 at 00:01:40 UTC by logout, by the person")
    );
}

#[tokio::test(start_paused = true)]
async fn a_person_is_explained_by_subject_and_time() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    let begin = status(&create_with(client, "one", |create| create.subject = "ada".to_owned()).await)
        .server_time
        .expect("a time")
        .seconds;
    pass(mins(30)).await;
    create_with(client, "two", |create| create.subject = "ada".to_owned()).await;
    create_with(client, "other", |create| create.subject = "eve".to_owned()).await;
    pass(mins(5)).await;
    let mut found = async |from: Option<i64>, to: Option<i64>| {
        let at = |minutes: i64| prost_types::Timestamp {
            seconds: begin + 60 * minutes,
            nanos: 0,
        };
        let period = v1::SubjectPeriod {
            subject: "ada".to_owned(),
            start_time: from.map(at),
            end_time: to.map(at),
        };
        let explained = explain(admin, Target::SubjectPeriod(period)).await;
        assert!(!explained.truncated);
        let sessions = explained
            .explanations
            .iter()
            .filter_map(|explained| explained.session.as_ref());
        sessions.map(|session| status(session).state()).collect::<Vec<_>>()
    };
    use SessionState::{Active, Ended};
    assert_eq!(found(None, None).await, [Active, Ended], "the latest first");
    assert_eq!(found(Some(16), None).await, [Active]);
    assert_eq!(found(Some(10), Some(12)).await, [Ended]);
    assert_eq!(found(Some(16), Some(29)).await, []);
    assert_eq!(found(None, Some(-1)).await, []);
    let nobody = explain(admin, Target::SessionId(id("nobody"))).await;
    assert!(
        nobody.explanations.is_empty(),
        "a session that is not known is no error"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hundred_sessions_of_a_person_are_explained_the_latest_and_it_is_said_that_there_are_more() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    let period = || {
        Target::SubjectPeriod(v1::SubjectPeriod {
            subject: "ada".to_owned(),
            ..Default::default()
        })
    };
    let mut names = Vec::new();
    for number in 0..101 {
        let session = create_with(client, &format!("s{number}"), |create| {
            create.subject = "ada".to_owned()
        })
        .await;
        names.push(status(&session).session_ref.clone());
        pass(secs(1)).await;
        if number == 99 {
            let explained = explain(admin, period()).await;
            assert_eq!((explained.explanations.len(), explained.truncated), (100, false));
        }
    }
    // Live ones come before ended ones, and the last that began before the first.
    end(client, "s100").await.expect("ended");
    pass(secs(1)).await;
    end(client, "s50").await.expect("ended");
    let explained = explain(admin, period()).await;
    assert!(explained.truncated);
    let told: Vec<_> = explained
        .explanations
        .iter()
        .map(|explained| {
            status(explained.session.as_ref().expect("a session"))
                .session_ref
                .clone()
        })
        .collect();
    let mut latest: Vec<_> = names.iter().rev().cloned().collect();
    latest.retain(|name| *name != names[100] && *name != names[50]);
    // Of the two that ended, s50 did so last; there is no room for s100.
    latest.push(names[50].clone());
    assert!(told == latest, "{:?} and {:?}", told.last(), latest.last());
}
