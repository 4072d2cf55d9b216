//! Watches follow a session over its rotations, live and when they resume.

use std::time::Duration;

use session_sidecar::rpc::proto::v1::{self, watch_expiry_response::Message};
use tonic::Code;

use crate::support::*;

/// The next message must be the snapshot of a successor.
async fn snapshot(watcher: &mut Watcher) -> v1::Snapshot {
    match watcher.next().await {
        Message::Snapshot(snapshot) => snapshot,
        other => panic!("not a snapshot: {other:?}"),
    }
}

/// The next message must be an end.
async fn ended(watcher: &mut Watcher) -> v1::Ended {
    match watcher.next().await {
        Message::Ended(ended) => ended,
        other => panic!("not an end: {other:?}"),
    }
}

fn successor(ended: &v1::Ended) -> String {
    ended.end.as_ref().expect("an end").successor_ref.clone()
}

#[tokio::test(start_paused = true)]
async fn watches_by_id_ref_and_subject_follow_and_others_only_see_the_end() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let session = create_with(client, "a", |request| request.subject = "ada".to_owned()).await;
    let reference = status(&session).session_ref.clone();
    let mut following = [
        Watcher::open(client, by_id(&["a"])).await,
        Watcher::open(client, by_ref(&reference)).await,
        Watcher::open(client, by_subject("ada")).await,
    ];
    let mut others = [
        Watcher::open(client, whole_tenant()).await,
        Watcher::open(client, everything()).await,
    ];
    rotate(client, "a", "b").await;
    rotate(client, "b", "c").await;
    let last = status(&check(client, "c").await).session_ref.clone();
    for (place, watcher) in following.iter_mut().enumerate() {
        let mut before = reference.clone();
        for _ in 0..2 {
            let end = ended(watcher).await;
            let session = end.session.clone().expect("a session");
            assert_eq!(session.session_ref, before);
            assert_eq!(
                session.session_id,
                if place == 0 && before == reference {
                    id("a")
                } else {
                    String::new()
                },
                "the caller's own id is echoed, and no other"
            );
            let next = snapshot(watcher).await;
            assert_eq!(next.predecessor_ref, before);
            let named = next.session.expect("a session");
            assert_eq!(named.session_ref, successor(&end));
            assert_eq!((named.session_id.as_str(), named.subject.as_str()), ("", "ada"));
            assert_eq!(next.status.expect("a status").state(), v1::SessionState::Active);
            before = named.session_ref;
        }
        assert_eq!(before, last);
    }
    end(client, "c").await.expect("ended");
    for watcher in &mut following {
        assert_eq!(watcher.during(secs(1)).await, ["ended LOGOUT"]);
    }
    for watcher in &mut others {
        assert_eq!(
            watcher.during(secs(1)).await,
            ["ended ROTATED", "ended ROTATED", "ended LOGOUT"]
        );
    }
}

#[tokio::test(start_paused = true)]
async fn g4_a_standing_warning_is_withdrawn_and_given_anew_about_the_successor() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "a").await;
    let mut watcher = Watcher::open(client, by_id(&["a"])).await;
    let mut all = Watcher::open(client, everything()).await;
    pass(mins(14) + secs(30)).await;
    rotate(client, "a", "b").await;
    assert_eq!(
        watcher.during(mins(1)).await,
        [
            "warning idle 120s",
            "warning idle 60s",
            "cleared idle rotated",
            "ended ROTATED",
            "snapshot ACTIVE",
            "warning idle 60s",
            "ended IDLE_TIMEOUT"
        ]
    );
    assert_eq!(
        all.during(secs(1)).await,
        [
            "warning idle 120s",
            "warning idle 60s",
            "cleared idle rotated",
            "ended ROTATED",
            "warning idle 60s",
            "ended IDLE_TIMEOUT"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn an_authenticated_rotate_withdraws_the_absolute_warning_too() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create_with(client, "a", |request| {
        request.authenticated_ago = wire(mins(12 * 60 - 5))
    })
    .await;
    let mut request = by_id(&["a"]);
    request.include_initial_state = true;
    let mut watcher = Watcher::try_open(client, request).await.expect("opens");
    assert_eq!(watcher.during(secs(1)).await, ["snapshot EXPIRING", "live 1"]);
    rotate_with(client, "a", "b", |request| {
        request.authenticated_ago = wire(Duration::ZERO)
    })
    .await
    .expect("rotated");
    assert_eq!(
        watcher.during(mins(5)).await,
        ["cleared absolute rotated", "ended ROTATED", "snapshot ACTIVE"]
    );
}

#[tokio::test(start_paused = true)]
async fn g12_a_watch_resumes_across_rotations_with_a_token_from_before_between_and_after() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let session = create_with(client, "a", |request| request.subject = "ada".to_owned()).await;
    let reference = status(&session).session_ref.clone();
    let mut watchers = Vec::new();
    for request in [by_id(&["a"]), by_ref(&reference), by_subject("ada")] {
        let watcher = Watcher::open(client, request.clone()).await;
        watchers.push((request, watcher));
    }
    rotate(client, "a", "b").await;
    rotate(client, "b", "c").await;
    pass(mins(13) + secs(1)).await;
    end(client, "c").await.expect("ended");
    let whole = [
        "ended ROTATED",
        "snapshot ACTIVE",
        "ended ROTATED",
        "snapshot ACTIVE",
        "warning idle 120s",
        "ended LOGOUT",
    ];
    for (request, watcher) in &mut watchers {
        let mut tokens = vec![watcher.token.clone()];
        for word_of in whole {
            assert_eq!(word(&watcher.next().await), word_of);
            tokens.push(watcher.token.clone());
        }
        for (place, token) in tokens.iter().enumerate() {
            let mut resumed = Watcher::resume(client, request.clone(), token).await.expect("resumes");
            assert_eq!(resumed.during(secs(1)).await, whole[place..], "after {place} messages");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_begins_after_the_rotation_finds_the_way_from_the_old_name() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "a").await;
    rotate(client, "a", "b").await;
    pass(mins(1)).await;
    let mut request = by_id(&["a"]);
    request.include_initial_state = true;
    let mut watcher = Watcher::try_open(client, request).await.expect("opens");
    let mut words = watcher.during(secs(1)).await;
    words.sort();
    assert_eq!(words, ["live 2", "snapshot ACTIVE", "snapshot ENDED"]);
    rotate(client, "b", "c").await;
    assert_eq!(watcher.during(secs(1)).await, ["ended ROTATED", "snapshot ACTIVE"]);
    end(client, "c").await.expect("ended");
    assert_eq!(watcher.during(secs(1)).await, ["ended LOGOUT"]);
}

#[tokio::test(start_paused = true)]
async fn the_watch_of_a_subject_ends_with_the_subject() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create_with(client, "a", |request| request.subject = "guest".to_owned()).await;
    let mut guest = Watcher::open(client, by_subject("guest")).await;
    let mut ada = Watcher::open(client, by_subject("ada")).await;
    rotate_with(client, "a", "b", |request| request.subject = Some("ada".to_owned()))
        .await
        .expect("rotated");
    end(client, "b").await.expect("ended");
    assert_eq!(guest.during(mins(1)).await, ["ended ROTATED"]);
    assert_eq!(ada.during(mins(1)).await, ["snapshot ACTIVE", "ended LOGOUT"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_warnings_only_follows_too() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "a").await;
    let mut request = by_id(&["a"]);
    request.kinds = vec![v1::EventKind::Warning.into()];
    let mut watcher = Watcher::open(client, request).await;
    rotate(client, "a", "b").await;
    assert_eq!(
        watcher.during(mins(15)).await,
        ["snapshot ACTIVE", "warning idle 120s", "warning idle 60s"]
    );
}

#[tokio::test(start_paused = true)]
async fn g12_a_watch_resumes_with_what_it_follows_though_the_way_there_is_forgotten() {
    // The old id after a login, and the names between.
    for (chain, many) in [(1, 0), (3, 0), (1, 41)] {
        let sidecar = Sidecar::with_policies("[policy.default]\nidle_timeout = \"15m\"\ntombstone_ttl = \"60s\"");
        let client = &mut sidecar.client().await;
        // Others of the same watch: more than a token has room for.
        let others: Vec<String> = (0..many).map(|other| format!("other-{other}")).collect();
        let scope: Vec<&str> = others.iter().map(String::as_str).chain(["name-0"]).collect();
        for name in &scope {
            create(client, name).await;
        }
        let mut watcher = Watcher::open(client, by_id(&scope)).await;
        for name in &others {
            rotate(client, name, &format!("{name}-on")).await;
        }
        for link in 0..chain {
            rotate(client, &format!("name-{link}"), &format!("name-{}", link + 1)).await;
        }
        assert_eq!(watcher.during(secs(1)).await.len(), 2 * (many + chain));
        pass(mins(2)).await;
        assert_eq!(state(client, "name-0").await, v1::SessionState::Unknown);
        let token = watcher.token.clone();
        assert!(token.len() <= 1024);
        drop(watcher);
        let resumed = Watcher::resume(client, by_id(&scope), &token).await;
        if many > 0 {
            let refused = resumed
                .err()
                .expect("it may have missed something, and nobody can know");
            assert_eq!(reason(&refused), (Code::OutOfRange, "RESUME_TOKEN_EXPIRED".to_owned()));
            continue;
        }
        let mut resumed = resumed.expect("resumes");
        let last = format!("name-{chain}");
        pass(mins(11)).await;
        touch(client, &last).await.expect("live");
        rotate(client, &last, "last").await;
        assert_eq!(
            resumed.during(secs(1)).await,
            [
                "warning idle 120s",
                "cleared idle touched",
                "ended ROTATED",
                "snapshot ACTIVE"
            ]
        );
        // And so on.
        pass(mins(2)).await;
        let mut again = Watcher::resume(client, by_id(&scope), &resumed.token)
            .await
            .expect("resumes");
        end(client, "last").await.expect("ended");
        assert_eq!(again.during(secs(1)).await, ["ended LOGOUT"]);
    }
}

#[tokio::test(start_paused = true)]
async fn g17_a_token_does_not_tell_that_another_tenants_session_was_rotated() {
    let sidecar = Sidecar::start();
    let theirs = &mut sidecar.client_for(&["a"]).await;
    let ours = &mut sidecar.client_for(&["b"]).await;
    let session = create_with(theirs, "x", |request| request.tenant = "a".to_owned()).await;
    let mut request = by_ref(&status(&session).session_ref);
    request.scope.as_mut().expect("a scope").tenant = "b".to_owned();
    let rotate = |request: &mut v1::RotateRequest| request.tenant = "a".to_owned();
    rotate_with(theirs, "x", "y", rotate).await.expect("rotated");
    let mut watcher = Watcher::open(ours, request).await;
    let before = watcher.token.len();
    rotate_with(theirs, "y", "z", rotate).await.expect("rotated");
    // Heartbeats carry tokens too.
    assert_eq!(watcher.during(secs(31)).await, [""; 0]);
    assert_eq!(watcher.token.len(), before);
}
