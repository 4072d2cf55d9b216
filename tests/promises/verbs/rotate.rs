//! Rotate: a session goes on under another id.

use std::time::Duration;

use session_sidecar::rpc::proto::v1::{self, Limit};
use tonic::Code;

use crate::support::*;

fn authenticated(request: &mut v1::RotateRequest) {
    request.authenticated_ago = wire(Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn everything_but_the_name_goes_on_and_no_deadline_moves() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let before = create_with(client, "alice", |request| {
        request.subject = "ada".to_owned();
        request.labels = [("device".to_owned(), "laptop".to_owned())].into();
        request.idle_timeout = wire(mins(10));
        request.authentication_level = "aal2".to_owned();
        request.authenticated_ago = wire(mins(60));
    })
    .await;
    pass(mins(1)).await;
    extend(client, "alice", Some(mins(12))).await.expect("granted");
    work(client, "alice", mins(2)).await.expect("held");
    let before_rotation = check(client, "alice").await;
    pass(mins(1)).await;
    let rotated = rotate(client, "alice", "bob").await;
    assert_eq!(rotated.session_id, id("bob"));
    let session = rotated.session.expect("a session");
    let (old, new) = (&status(&before).session_ref, &status(&session).session_ref);
    assert_ne!(old, new);
    assert_eq!(session.predecessor_ref, *old);
    assert_eq!(
        (session.subject.as_str(), session.labels["device"].as_str()),
        ("ada", "laptop")
    );
    assert_eq!(session.authentication_level, "aal2");
    assert_eq!(session.idle_timeout, before_rotation.idle_timeout);
    assert_eq!(session.holds.len(), 1);
    assert_eq!(session.extensions, 0, "a row of Extends is over");
    assert_eq!(before_rotation.extensions, 1);
    for (was, is) in [
        (before_rotation.create_time, session.create_time),
        (before_rotation.authentication_time, session.authentication_time),
        (before_rotation.last_activity_time, session.last_activity_time),
        (before_rotation.idle_expire_time, session.idle_expire_time),
        (before_rotation.absolute_expire_time, session.absolute_expire_time),
    ] {
        assert_eq!(was, is);
    }
    assert!(status(&session).version < status(&before_rotation).version, "anew");
    assert!(!status(&session).alias);
    let end = rotated.previous_end.expect("an end");
    assert_eq!((end.reason(), end.actor()), (v1::EndReason::Rotated, v1::Actor::System));
    assert_eq!(end.successor_ref, *new);
    assert_eq!(
        left(client, "bob").await,
        (mins(11), Limit::Idle),
        "the extension moved along"
    );
}

#[tokio::test(start_paused = true)]
async fn an_id_is_made_if_none_is_given() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let request = v1::RotateRequest {
        session_id: id("alice"),
        ..Default::default()
    };
    let rotated = client.rotate(request).await.expect("rotated").into_inner();
    assert_eq!(rotated.session_id.len(), 43, "256 bits, base64url");
    let touch = v1::TouchRequest {
        session_id: rotated.session_id,
        ..Default::default()
    };
    client.touch(touch).await.expect("live");
    assert_eq!(live_sessions(&sidecar).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn g7_only_authentication_begins_the_deadlines_anew() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create_with(client, "alice", |request| {
        request.authenticated_ago = wire(mins(12 * 60 - 20))
    })
    .await;
    extend(client, "alice", Some(mins(19))).await.expect("granted");
    pass(mins(14)).await;
    rotate(client, "alice", "bob").await;
    assert_eq!(left(client, "bob").await, (mins(5), Limit::Idle));
    rotate_with(client, "bob", "carol", |request| {
        request.authenticated_ago = wire(mins(2));
        request.authentication_level = "aal3".to_owned();
    })
    .await
    .expect("rotated");
    let session = check(client, "carol").await;
    assert_eq!(session.authentication_level, "aal3");
    assert_eq!(left_of(&session), (mins(15), Limit::Idle));
    let now = status(&session).server_time;
    assert_eq!(session.last_activity_time, now);
    assert_eq!(between(session.authentication_time.as_ref(), now.as_ref()), mins(2));
    assert_eq!(
        between(now.as_ref(), session.absolute_expire_time.as_ref()),
        mins(12 * 60 - 2)
    );
    // An authentication without a level has none.
    rotate_with(client, "carol", "dave", authenticated)
        .await
        .expect("rotated");
    assert_eq!(check(client, "dave").await.authentication_level, "");
}

#[tokio::test(start_paused = true)]
async fn an_authentication_past_the_limit_is_refused_and_nothing_changes() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let before = check(client, "alice").await;
    let refused = rotate_with(client, "alice", "bob", |request| {
        request.authenticated_ago = wire(mins(12 * 60))
    })
    .await
    .unwrap_err();
    assert_eq!(
        reason(&refused),
        (Code::FailedPrecondition, "ALREADY_PAST_LIMIT".to_owned())
    );
    assert!(refused.message().contains("authenticated_ago") && refused.message().contains("12h"));
    assert_eq!(check(client, "alice").await, before);
    assert_eq!(state(client, "bob").await, v1::SessionState::Unknown);
}

#[tokio::test(start_paused = true)]
async fn the_subject_can_change_and_is_found_under_its_new_name_only() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create_with(client, "alice", |request| request.subject = "guest".to_owned()).await;
    rotate_with(client, "alice", "bob", |request| {
        request.subject = Some("ada".to_owned())
    })
    .await
    .expect("rotated");
    assert_eq!(check(client, "bob").await.subject, "ada");
    assert_eq!(
        check(client, "alice").await.subject,
        "guest",
        "the old end is as it was"
    );
    for (subject, found) in [("guest", 0), ("ada", 1)] {
        let mut request = by_subject(subject);
        request.include_initial_state = true;
        let mut watcher = Watcher::try_open(client, request).await.expect("opens");
        let words = watcher.during(secs(1)).await;
        assert_eq!(words.last(), Some(&format!("live {found}")));
    }
}

#[tokio::test(start_paused = true)]
async fn g5_the_new_id_must_never_have_been_one() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    for name in ["alice", "live", "over"] {
        create(client, name).await;
    }
    end(client, "over").await.expect("ended");
    let before = check(client, "alice").await;
    for (name, code, word) in [
        ("live", Code::AlreadyExists, "SESSION_EXISTS"),
        ("over", Code::FailedPrecondition, "NEW_SESSION_ENDED"),
    ] {
        let refused = rotate_with(client, "alice", name, |_| {}).await.unwrap_err();
        assert_eq!(reason(&refused), (code, word.to_owned()));
        assert_eq!(check(client, "alice").await, before);
    }
    rotate(client, "alice", "bob").await;
    // Back to its former id neither, and nobody else gets it.
    let refused = rotate_with(client, "bob", "alice", |_| {}).await.unwrap_err();
    assert_eq!(reason(&refused).1, "NEW_SESSION_ENDED");
    let create = v1::CreateRequest {
        session_id: id("alice"),
        ..Default::default()
    };
    assert_eq!(reason(&client.create(create).await.unwrap_err()).1, "SESSION_ENDED");
    let refused = rotate_with(client, "nobody", "carol", |_| {}).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::NotFound, "SESSION_UNKNOWN".to_owned()));
    end(client, "bob").await.expect("ended");
    let refused = rotate_with(client, "bob", "carol", |_| {}).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "SESSION_ENDED".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn g10_a_new_id_that_has_ended_is_never_unknown_meanwhile() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    rotate(client, "alice", "bob").await;
    pass(mins(15)).await;
    for name in ["alice", "bob"] {
        assert_eq!(state(client, name).await, v1::SessionState::Ended);
    }
    assert_eq!(
        check(client, "alice").await.end.expect("an end").reason(),
        v1::EndReason::Rotated
    );
    assert_eq!(
        ended_after(&check(client, "bob").await),
        (mins(15), v1::EndReason::IdleTimeout)
    );
}

#[tokio::test(start_paused = true)]
async fn g6_many_rotations_at_once_make_one_chain_and_one_live_session() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let mut watcher = Watcher::open(client, everything()).await;
    let calls: Vec<_> = (0..20)
        .map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move { rotate_with(&mut client, "alice", &format!("to-{number}"), |_| {}).await })
        })
        .collect();
    for call in calls {
        call.await.expect("no panic").expect("rotated, by the old id's alias");
    }
    assert_eq!(live_sessions(&sidecar).await, 1.0);
    assert_eq!(watcher.during(secs(1)).await, ["ended ROTATED"; 20]);
    let mut live = 0;
    for number in 0..20 {
        let session = check(client, &format!("to-{number}")).await;
        live += i32::from(session.end.is_none());
    }
    assert_eq!(live, 20, "all of them are aliases of the one that lives");
}

#[tokio::test(start_paused = true)]
async fn the_budget_of_work_and_the_row_of_extends() {
    let policy = "[policy.default]\nmax_extensions = 1\nwork_hold = { max_ttl = \"5m\", budget = \"6m\" }";
    let sidecar = Sidecar::with_policies(policy);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    extend(client, "alice", None).await.expect("granted");
    work(client, "alice", mins(5)).await.expect("held");
    pass(mins(1)).await;
    rotate(client, "alice", "bob").await;
    // The extension count resets, the budget does not: nobody was active.
    let held = work(client, "bob", mins(5)).await.expect("held");
    assert_eq!(span(held.granted_ttl), mins(5));
    pass(mins(2)).await;
    let held = work(client, "bob", mins(5)).await.expect("held");
    assert_eq!(
        (span(held.granted_ttl), held.clamped_by()),
        (mins(3), v1::HoldClamp::Budget)
    );
    extend(client, "bob", None).await.expect("granted");
    assert_eq!(
        reason(&extend(client, "bob", None).await.unwrap_err()).1,
        "EXTENSION_LIMIT"
    );
}
