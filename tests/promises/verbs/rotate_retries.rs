//! Request ids on Rotate and End: a retry is told what the first call was told.

use std::time::Duration;

use session_sidecar::rpc::proto::v1;
use tonic::Code;

use crate::support::*;

fn reused() -> (Code, String) {
    (Code::FailedPrecondition, "REQUEST_ID_REUSED".to_owned())
}

fn request(from: &str) -> v1::RotateRequest {
    v1::RotateRequest {
        session_id: id(from),
        request_id: "req-1f4e".to_owned(),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_retried_rotate_gets_the_same_new_id_within_the_grace_and_after_it() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "old").await;
    let mut watcher = Watcher::open(client, everything()).await;
    let first = client.rotate(request("old")).await.expect("rotated").into_inner();
    for wait in [secs(1), secs(60)] {
        pass(wait).await;
        let retried = client.rotate(request("old")).await.expect("the same").into_inner();
        assert_eq!(retried.session_id, first.session_id);
        assert_eq!(retried.previous_end, first.previous_end);
        let (first, retried) = (first.session.as_ref(), retried.session.as_ref());
        let (first, retried) = (first.expect("a session"), retried.expect("a session"));
        assert_eq!(status(retried).session_ref, status(first).session_ref);
        assert_eq!(retried.predecessor_ref, first.predecessor_ref);
        assert_eq!(retried.idle_expire_time, first.idle_expire_time);
    }
    assert_eq!(watcher.during(secs(1)).await, ["ended ROTATED"], "once");
    assert_eq!(live_sessions(&sidecar).await, 1.0);
    // Other content.
    for change in [
        (|request| request.subject = Some("ada".to_owned())) as fn(&mut v1::RotateRequest),
        |request| request.new_session_id = id("own"),
        |request| request.authenticated_ago = wire(Duration::ZERO),
    ] {
        let mut other = request("old");
        change(&mut other);
        assert_eq!(reason(&client.rotate(other).await.unwrap_err()), reused());
    }
    // The session is over, and so is the retry.
    let ended = v1::EndRequest {
        session_id: first.session_id,
        ..Default::default()
    };
    client.end(ended).await.expect("ended");
    let refused = client.rotate(request("old")).await.unwrap_err();
    assert_eq!(reason(&refused).1, "SESSION_ENDED");
    assert_eq!(metadata(&refused, "reason"), "LOGOUT");
}

#[tokio::test(start_paused = true)]
async fn a_retry_with_an_own_id_and_with_authentication_is_the_same_too() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "old").await;
    let login = v1::RotateRequest {
        new_session_id: id("new"),
        subject: Some("ada".to_owned()),
        authenticated_ago: wire(Duration::ZERO),
        authentication_level: "aal2".to_owned(),
        ..request("old")
    };
    let first = client.rotate(login.clone()).await.expect("rotated").into_inner();
    pass(secs(30)).await;
    let retried = client.rotate(login).await.expect("the same").into_inner();
    assert_eq!(retried.session_id, first.session_id);
    assert_eq!(
        retried.session.expect("a session").last_activity_time,
        first.session.expect("a session").last_activity_time,
        "a retry is no activity"
    );
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_named_the_session_by_an_alias_gets_the_same_new_id() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "a").await;
    rotate(client, "a", "b").await;
    let first = client.rotate(request("a")).await.expect("rotated").into_inner();
    let retried = client.rotate(request("a")).await.expect("the same").into_inner();
    assert_eq!(retried.session_id, first.session_id);
    assert_eq!(retried.previous_end, first.previous_end);
    pass(secs(60)).await;
    let retried = client.rotate(request("a")).await.expect("the same").into_inner();
    assert_eq!(retried.session_id, first.session_id);
}

#[tokio::test(start_paused = true)]
async fn remembered_requests_move_with_the_session() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "old").await;
    let extend = |from: &str| v1::ExtendRequest {
        session_id: id(from),
        wanted_duration: wire(mins(20)),
        request_id: "req-extend".to_owned(),
        ..Default::default()
    };
    let first = client.extend(extend("old")).await.expect("granted").into_inner();
    rotate(client, "old", "new").await;
    pass(secs(1)).await;
    // The retry names the session as the first call did, through the alias, or as it is named now.
    for name in ["old", "new"] {
        let retried = client.extend(extend(name)).await.expect("the same").into_inner();
        assert_eq!(retried.granted_duration, first.granted_duration);
        assert_eq!(
            retried.status.expect("a status").expire_time,
            first.status.as_ref().expect("a status").expire_time
        );
    }
    assert_eq!(
        check(client, "new").await.extensions,
        0,
        "none of them extended anything"
    );
    // A Rotate with the request id of an Extend is another request.
    let mut other = request("new");
    other.request_id = "req-extend".to_owned();
    assert_eq!(reason(&client.rotate(other).await.unwrap_err()), reused());
}

#[tokio::test(start_paused = true)]
async fn g6_twenty_retries_at_once_rotate_once() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "old").await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.rotate(request("old")).await })
        })
        .collect();
    let mut ids = std::collections::BTreeSet::new();
    for call in calls {
        let rotated = call.await.expect("no panic").expect("rotated").into_inner();
        ids.insert(rotated.session_id);
    }
    assert_eq!(ids.len(), 1);
    assert_eq!(live_sessions(&sidecar).await, 1.0);
}

#[tokio::test(start_paused = true)]
async fn g6_a_retried_end_is_told_that_it_ended_the_session() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let request = v1::EndRequest {
        session_id: id("alice"),
        note: "lost laptop".to_owned(),
        request_id: "req-end".to_owned(),
        ..Default::default()
    };
    let first = client.end(request.clone()).await.expect("ended").into_inner();
    assert!(first.ended_now);
    pass(mins(60)).await;
    let retried = client.end(request.clone()).await.expect("the same").into_inner();
    assert_eq!((retried.ended_now, &retried.end), (true, &first.end));
    let other = v1::EndRequest {
        note: String::new(),
        ..request.clone()
    };
    assert_eq!(reason(&client.end(other).await.unwrap_err()), reused());
    // By another request, or none: the first end, and not this call's.
    for request_id in ["", "req-other"] {
        let another = v1::EndRequest {
            request_id: request_id.to_owned(),
            ..request.clone()
        };
        let told = client.end(another).await.expect("OK").into_inner();
        assert_eq!((told.ended_now, &told.end), (false, &first.end));
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_with_the_request_id_of_something_else_is_refused() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create_with(client, "alice", |request| request.request_id = "req-create".to_owned()).await;
    let request = v1::EndRequest {
        session_id: id("alice"),
        request_id: "req-create".to_owned(),
        ..Default::default()
    };
    assert_eq!(reason(&client.end(request.clone()).await.unwrap_err()), reused());
    assert_eq!(state(client, "alice").await, v1::SessionState::Active);
    // An end that time brought was nobody's request.
    pass(mins(15)).await;
    let told = client.end(request).await.expect("OK").into_inner();
    assert!(!told.ended_now);
}

#[tokio::test(start_paused = true)]
async fn an_end_through_the_alias_is_retried_through_it_too() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "old").await;
    rotate(client, "old", "new").await;
    let request = v1::EndRequest {
        session_id: id("old"),
        request_id: "req-end".to_owned(),
        ..Default::default()
    };
    let first = client.end(request.clone()).await.expect("ended").into_inner();
    let retried = client.end(request.clone()).await.expect("the same").into_inner();
    assert!(first.ended_now && retried.ended_now);
    assert_eq!(retried.end, first.end);
    assert!(retried.status.expect("a status").alias);
    // And by the id that it had, at any time.
    pass(secs(10)).await;
    let by_name = v1::EndRequest {
        session_id: id("new"),
        ..request
    };
    let retried = client.end(by_name.clone()).await.expect("the same").into_inner();
    assert!(retried.ended_now);
    assert_eq!(retried.end, first.end);
    let other = v1::EndRequest {
        note: "another".to_owned(),
        ..by_name
    };
    assert_eq!(reason(&client.end(other).await.unwrap_err()), reused());
}
