//! The old id after a Rotate: an alias for a while, then ended; and what holds may do through it.

use std::time::Duration;

use session_sidecar::rpc::proto::v1;
use tonic::{Code, Status};

use crate::support::*;

const MS: Duration = Duration::from_millis(1);

/// A status that came through the old id, about the successor.
#[track_caller]
fn is_alias(status: Option<v1::SessionStatus>, successor: &str) {
    let status = status.expect("a status");
    assert!(status.alias, "{status:?}");
    assert_eq!(status.session_ref, successor);
}

#[track_caller]
fn is_over<T: std::fmt::Debug>(result: Result<T, Status>, successor: &str) {
    let refused = result.expect_err("the session is over");
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "SESSION_ENDED".to_owned()));
    assert_eq!(metadata(&refused, "reason"), "ROTATED");
    assert_eq!(metadata(&refused, "successor_ref"), successor);
}

fn batch(name: &str) -> v1::BatchTouchRequest {
    let touch = v1::TouchRequest {
        session_id: id(name),
        ..Default::default()
    };
    v1::BatchTouchRequest { touches: vec![touch] }
}

fn names(name: &str) -> v1::CheckRequest {
    v1::CheckRequest {
        sessions: vec![v1::SessionName {
            name: Some(v1::session_name::Name::SessionId(id(name))),
        }],
        ..Default::default()
    }
}

/// A session that was rotated, and the refs of both.
async fn rotated(client: &mut Client) -> (String, String) {
    let old = create(client, "old").await;
    let new = rotate(client, "old", "new").await.session.expect("a session");
    (status(&old).session_ref.clone(), status(&new).session_ref.clone())
}

#[tokio::test(start_paused = true)]
async fn each_verb_that_names_the_old_id_acts_on_the_successor_and_says_so() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let (old_ref, new_ref) = rotated(client).await;
    pass(secs(5) - MS).await;
    is_alias(touch(client, "old").await.expect("live").status, &new_ref);
    assert_eq!(
        between(
            check(client, "new").await.create_time.as_ref(),
            check(client, "new").await.last_activity_time.as_ref()
        ),
        secs(5) - MS
    );
    let outcome = client.batch_touch(batch("old")).await.expect("OK").into_inner();
    let Some(v1::touch_outcome::Outcome::Touch(touched)) = outcome.outcomes[0].outcome.clone() else {
        panic!("touched")
    };
    is_alias(touched.status, &new_ref);
    is_alias(check(client, "old").await.status, &new_ref);
    let outcome = client.check(names("old")).await.expect("OK").into_inner();
    let Some(v1::check_outcome::Outcome::Status(checked)) = outcome.outcomes[0].outcome.clone() else {
        panic!("checked")
    };
    is_alias(Some(checked), &new_ref);
    // A ref is a name of its own, and is over.
    let by_ref = check_ref(client, &old_ref).await;
    assert_eq!(status(&by_ref).state(), v1::SessionState::Ended);
    assert_eq!(by_ref.end.expect("an end").successor_ref, new_ref);
    is_alias(extend(client, "old", None).await.expect("granted").status, &new_ref);
    let held = work(client, "old", mins(1)).await.expect("held");
    assert!(held.created);
    is_alias(held.status, &new_ref);
    let released = release(client, "old", "work").await.expect("live");
    assert!(released.released);
    is_alias(released.status, &new_ref);
    // By its own id nothing is an alias.
    assert!(
        !touch(client, "new")
            .await
            .expect("live")
            .status
            .expect("a status")
            .alias
    );
    // End through the alias ends the successor.
    let ended = end(client, "old").await.expect("ended");
    assert!(ended.ended_now);
    is_alias(ended.status, &new_ref);
    assert_eq!(ended.end.expect("an end").reason(), v1::EndReason::Logout);
    assert_eq!(state(client, "new").await, v1::SessionState::Ended);
    assert_eq!(metadata(&touch(client, "old").await.unwrap_err(), "reason"), "LOGOUT");
}

#[tokio::test(start_paused = true)]
async fn g2_after_the_grace_the_old_id_is_over() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let (old_ref, new_ref) = rotated(client).await;
    pass(secs(5)).await;
    let before = check(client, "new").await;
    is_over(touch(client, "old").await, &new_ref);
    is_over(extend(client, "old", None).await, &new_ref);
    is_over(work(client, "old", mins(1)).await, &new_ref);
    is_over(release(client, "old", "work").await, &new_ref);
    is_over(rotate_with(client, "old", "other", |_| {}).await, &new_ref);
    let outcome = client.batch_touch(batch("old")).await.expect("OK").into_inner();
    let Some(v1::touch_outcome::Outcome::Error(error)) = outcome.outcomes[0].outcome.clone() else {
        panic!("ended")
    };
    assert_eq!(error.end.expect("an end").successor_ref, new_ref);
    let session = check(client, "old").await;
    assert_eq!(
        (status(&session).state(), status(&session).alias),
        (v1::SessionState::Ended, false)
    );
    assert_eq!(status(&session).session_ref, old_ref);
    // End tells the first end, and ends nothing.
    let ended = end(client, "old").await.expect("OK");
    assert!(!ended.ended_now);
    assert_eq!(ended.end.expect("an end").reason(), v1::EndReason::Rotated);
    assert_eq!(check(client, "new").await, before);
}

#[tokio::test(start_paused = true)]
async fn g10_an_alias_outlives_a_tombstone_time_that_is_shorter_than_the_grace() {
    let sidecar = Sidecar::with_policies("[policy.default]\ntombstone_ttl = \"1s\"");
    let client = &mut sidecar.client().await;
    let (_, new_ref) = rotated(client).await;
    pass(secs(5) - Duration::from_millis(1)).await;
    is_alias(touch(client, "old").await.expect("live").status, &new_ref);
    pass(Duration::from_millis(1)).await;
    assert_eq!(state(client, "old").await, v1::SessionState::Unknown);
}

#[tokio::test(start_paused = true)]
async fn there_is_no_grace_if_authentication_or_subject_changes() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    type Change = fn(&mut v1::RotateRequest);
    let changes: [(&str, &str, Change); 2] = [
        ("planted", "login", |request| {
            request.authenticated_ago = wire(Duration::ZERO)
        }),
        ("guest", "ada", |request| request.subject = Some("ada".to_owned())),
    ];
    for (old, new, change) in changes {
        create_with(client, old, |request| request.subject = "guest".to_owned()).await;
        let rotated = rotate_with(client, old, new, change).await.expect("rotated");
        let new_ref = rotated.previous_end.expect("an end").successor_ref;
        is_over(touch(client, old).await, &new_ref);
        is_over(extend(client, old, None).await, &new_ref);
        is_over(work(client, old, mins(1)).await, &new_ref);
        is_over(rotate_with(client, old, "x", |_| {}).await, &new_ref);
        assert_eq!(state(client, old).await, v1::SessionState::Ended);
        assert!(!end(client, old).await.expect("OK").ended_now);
        assert_eq!(state(client, new).await, v1::SessionState::Active);
    }
    // The subject that it has already is no change.
    create_with(client, "same", |request| request.subject = "ada".to_owned()).await;
    rotate_with(client, "same", "same-2", |request| {
        request.subject = Some("ada".to_owned())
    })
    .await
    .expect("rotated");
    assert!(
        touch(client, "same")
            .await
            .expect("live")
            .status
            .expect("a status")
            .alias
    );
}

#[tokio::test(start_paused = true)]
async fn g1_a_hold_that_lives_is_renewed_and_released_through_the_old_id_after_the_grace() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "old").await;
    work(client, "old", mins(1)).await.expect("held");
    let new = rotate(client, "old", "new").await.session.expect("a session");
    let new_ref = status(&new).session_ref.clone();
    pass(secs(59)).await;
    let renewed = work(client, "old", mins(5)).await.expect("renewed");
    assert!(!renewed.created);
    assert_eq!(span(renewed.granted_ttl), mins(5));
    is_alias(renewed.status, &new_ref);
    assert_eq!(left(client, "new").await.0, mins(20));
    // Another hold than that one: none.
    is_over(
        hold(client, "old", v1::HoldKind::Work, "other", mins(1)).await,
        &new_ref,
    );
    is_over(release(client, "old", "other").await, &new_ref);
    // Over two rotations too.
    rotate(client, "new", "newer").await;
    pass(secs(6)).await;
    work(client, "old", mins(5)).await.expect("renewed");
    assert!(release(client, "old", "work").await.expect("live").released);
    assert!(check(client, "newer").await.holds.is_empty());
    // It is gone now.
    is_over(work(client, "old", mins(5)).await, &new_ref);
}

#[tokio::test(start_paused = true)]
async fn g5_a_hold_that_has_lapsed_is_not_begun_anew_through_the_old_id() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "old").await;
    work(client, "old", secs(10)).await.expect("held");
    let new = rotate(client, "old", "new").await.session.expect("a session");
    pass(secs(10)).await;
    is_over(work(client, "old", mins(5)).await, &status(&new).session_ref);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_began_after_the_rotation_is_not_the_old_ids() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "planted").await;
    let rotated = rotate_with(client, "planted", "login", |request| {
        request.authenticated_ago = wire(Duration::ZERO)
    })
    .await
    .expect("rotated");
    let new_ref = rotated.previous_end.expect("an end").successor_ref;
    pass(secs(1)).await;
    work(client, "login", mins(1)).await.expect("held");
    is_over(work(client, "planted", mins(5)).await, &new_ref);
    is_over(release(client, "planted", "work").await, &new_ref);
}

#[tokio::test(start_paused = true)]
async fn g1_a_hold_that_began_while_the_old_id_was_an_alias_is_renewed_through_it_after_the_grace() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "old").await;
    let new = rotate(client, "old", "new").await.session.expect("a session");
    let new_ref = status(&new).session_ref.clone();
    pass(secs(4)).await;
    // A worker that has not heard of the rotation begins, and goes on.
    assert!(work(client, "old", mins(1)).await.expect("held").created);
    pass(secs(30)).await;
    let renewed = work(client, "old", mins(1)).await.expect("renewed");
    assert!(!renewed.created);
    is_alias(renewed.status, &new_ref);
    // What began later is not the old id's.
    work(client, "new", mins(1)).await.expect("renewed");
    hold(client, "new", v1::HoldKind::Work, "later", mins(1))
        .await
        .expect("held");
    is_over(release(client, "old", "later").await, &new_ref);
    assert!(release(client, "old", "work").await.expect("live").released);
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_began_after_a_login_is_not_an_older_ids_though_its_own_grace_lasts() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "planted").await;
    rotate(client, "planted", "middle").await;
    let rotated = rotate_with(client, "middle", "login", |request| {
        request.authenticated_ago = wire(Duration::ZERO)
    })
    .await
    .expect("rotated");
    let (middle, login) = {
        let session = rotated.session.expect("a session");
        (session.predecessor_ref.clone(), status(&session).session_ref.clone())
    };
    pass(secs(1)).await;
    work(client, "login", mins(5)).await.expect("held");
    is_over(work(client, "planted", mins(5)).await, &login);
    pass(secs(10)).await;
    is_over(work(client, "planted", mins(5)).await, &middle);
    is_over(release(client, "planted", "work").await, &middle);
    is_over(release(client, "middle", "work").await, &login);
}

#[tokio::test(start_paused = true)]
async fn a_chain_of_rotations_leads_each_old_id_to_the_last_one_while_its_own_grace_lasts() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "a").await;
    rotate(client, "a", "b").await;
    pass(secs(3)).await;
    // Through the alias: it acts on b.
    let rotated = rotate(client, "a", "c").await.session.expect("a session");
    let (b, c) = (rotated.predecessor_ref.clone(), status(&rotated).session_ref.clone());
    for old in ["a", "b"] {
        is_alias(touch(client, old).await.expect("live").status, &c);
    }
    pass(secs(2)).await;
    is_over(touch(client, "a").await, &b);
    is_alias(touch(client, "b").await.expect("live").status, &c);
    pass(secs(3)).await;
    is_over(touch(client, "b").await, &c);
    touch(client, "c").await.expect("live");
}

#[tokio::test(start_paused = true)]
async fn a_login_in_the_middle_of_a_chain_cuts_off_all_older_ids() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "a").await;
    rotate(client, "a", "b").await;
    rotate_with(client, "b", "c", |request| {
        request.authenticated_ago = wire(Duration::ZERO)
    })
    .await
    .expect("rotated");
    for old in ["a", "b"] {
        let refused = touch(client, old).await.unwrap_err();
        assert_eq!(reason(&refused).1, "SESSION_ENDED");
        assert_eq!(metadata(&refused, "reason"), "ROTATED");
        assert_eq!(state(client, old).await, v1::SessionState::Ended);
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotate_through_an_alias_whose_successor_is_forgotten_is_refused() {
    let sidecar = Sidecar::with_policies("[policy.default]\nrevision = 1");
    let client = &mut sidecar.client().await;
    create(client, "old").await;
    rotate(client, "old", "new").await;
    let shorter = "[policy.default]\nrevision = 2\ntombstone_ttl = \"1s\"";
    sidecar.reload(shorter);
    touch(client, "new").await.expect("live");
    end(client, "new").await.expect("ended");
    pass(secs(3)).await;
    assert_eq!(state(client, "new").await, v1::SessionState::Unknown);
    let refused = rotate_with(client, "old", "other", |_| {}).await.unwrap_err();
    assert_eq!(reason(&refused).1, "SESSION_ENDED");
}

/// Whoever knew the id before a login is not the one who logged in: a hold that began before it is theirs no more.
#[tokio::test(start_paused = true)]
async fn a_login_cuts_off_the_holds_of_the_old_id() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "old").await;
    work(client, "old", mins(4)).await.expect("held");
    let rotated = rotate_with(client, "old", "new", |rotate| {
        rotate.authenticated_ago = wire(Duration::ZERO)
    })
    .await;
    let new = rotated.expect("rotated").session.expect("a session");
    let new_ref = status(&new).session_ref.clone();
    assert_eq!(new.holds.len(), 1, "holds move");
    is_over(work(client, "old", mins(4)).await, &new_ref);
    is_over(release(client, "old", "job").await, &new_ref);
    work(client, "new", mins(4)).await.expect("renewed by the new id");
}

/// A Rotate by the old id acts on the successor, and says so.
#[tokio::test(start_paused = true)]
async fn a_rotate_through_the_alias_says_alias() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let (_, second) = rotated(client).await;
    let third = rotate(client, "old", "third").await;
    let session = third.session.expect("a session");
    assert!(status(&session).alias, "{session:?}");
    assert_eq!(session.predecessor_ref, second);
}
