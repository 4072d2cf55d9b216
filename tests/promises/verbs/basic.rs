//! Create, Extend, End and WatchExpiry.

use std::time::Duration;

use session_sidecar::rpc::proto::v1;
use tonic::Code;
use v1::{SessionState, watch_expiry_response::Message};

use crate::support::*;

#[tokio::test(start_paused = true)]
async fn create_answers_the_whole_session_and_makes_an_id_if_none_is_given() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let request = v1::CreateRequest {
        subject: "ada".to_owned(),
        labels: [("device".to_owned(), "laptop".to_owned())].into(),
        idle_timeout: wire(mins(5)),
        authenticated_ago: wire(mins(60)),
        ..Default::default()
    };
    let created = client.create(request).await.expect("created").into_inner();
    assert_eq!(created.session_id.len(), 43, "256 bits, base64url");
    let session = created.session.expect("a session");
    assert_eq!((session.subject.as_str(), session.policy.as_str()), ("ada", "default"));
    assert_eq!(span(session.idle_timeout), mins(5));
    assert_eq!(session.labels["device"], "laptop");
    let status = status(&session);
    assert_eq!(span(status.expires_in), mins(5));
    assert_eq!((status.limit(), status.can_extend), (v1::Limit::Idle, true));
    assert_eq!(status.scope(), scope());
    // The lead of two minutes fits half of five; it is the next point.
    let next = status.next_warning_time.as_ref().expect("a warning").seconds;
    assert_eq!(next - status.server_time.as_ref().expect("now").seconds, 180);
    let absolute = session.absolute_expire_time.expect("a deadline").seconds;
    assert_eq!(absolute - status.server_time.as_ref().expect("now").seconds, 11 * 3600);
}

#[tokio::test(start_paused = true)]
async fn a_retried_create_gets_the_same_session_and_other_content_is_refused() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let request = v1::CreateRequest {
        subject: "ada".to_owned(),
        request_id: "req-7f3a".to_owned(),
        ..Default::default()
    };
    let first = client.create(request.clone()).await.expect("created").into_inner();
    pass(secs(700)).await;
    let retried = client.create(request.clone()).await.expect("the same").into_inner();
    assert_eq!(retried.session_id, first.session_id);
    assert_eq!(
        retried.session.expect("a session").create_time,
        first.session.expect("a session").create_time
    );
    assert_eq!(live_sessions(&sidecar).await, 1.0);
    let other = v1::CreateRequest {
        subject: "bob".to_owned(),
        ..request.clone()
    };
    let refused = client.create(other).await.unwrap_err();
    assert_eq!(
        reason(&refused),
        (Code::FailedPrecondition, "REQUEST_ID_REUSED".to_owned())
    );
    // With an own id too.
    let own = v1::CreateRequest {
        session_id: id("alice"),
        ..request.clone()
    };
    client.create(own.clone()).await.expect("created");
    client.create(own.clone()).await.expect("the same");
    let without = v1::CreateRequest {
        request_id: String::new(),
        ..own
    };
    assert_eq!(reason(&client.create(without).await.unwrap_err()).1, "SESSION_EXISTS");
    // Ended is ended, whoever retries.
    let ended = v1::EndRequest {
        session_id: first.session_id,
        ..Default::default()
    };
    client.end(ended).await.expect("ended");
    assert_eq!(reason(&client.create(request).await.unwrap_err()).1, "SESSION_ENDED");
}

#[tokio::test(start_paused = true)]
async fn a_retried_extend_gets_the_first_outcome_and_moves_nothing() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(5)).await;
    let request = v1::ExtendRequest {
        session_id: id("alice"),
        request_id: "req-1".to_owned(),
        ..Default::default()
    };
    let first = client.extend(request.clone()).await.expect("granted").into_inner();
    assert_eq!(span(first.granted_duration), mins(5));
    pass(mins(1)).await;
    let retried = client.extend(request.clone()).await.expect("the same").into_inner();
    assert_eq!(retried.granted_duration, first.granted_duration);
    let (first, retried) = (first.status.expect("a status"), retried.status.expect("a status"));
    assert_eq!(
        (retried.expire_time, retried.version),
        (first.expire_time, first.version)
    );
    let other = v1::ExtendRequest {
        wanted_duration: wire(mins(20)),
        ..request.clone()
    };
    assert_eq!(reason(&client.extend(other).await.unwrap_err()).1, "REQUEST_ID_REUSED");
    // Forgotten after ten minutes: it is a new request then.
    pass(mins(9) + secs(1)).await;
    let anew = client.extend(request).await.expect("granted").into_inner();
    assert_eq!(span(anew.granted_duration), mins(10) + secs(1));
}

#[tokio::test(start_paused = true)]
async fn extensions_in_a_row_are_limited_and_a_counted_touch_resets_them() {
    let sidecar = Sidecar::with_policies("[policy.default]\nmax_extensions = 2");
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    for _ in 0..2 {
        pass(mins(14)).await;
        extend(client, "alice", None).await.expect("granted");
    }
    let session = check(client, "alice").await;
    assert_eq!((session.extensions, status(&session).can_extend), (2, false));
    let refused = extend(client, "alice", None).await.unwrap_err();
    assert_eq!(
        reason(&refused),
        (Code::FailedPrecondition, "EXTENSION_LIMIT".to_owned())
    );
    // A background touch resets nothing.
    touch_with(client, "alice", |touch| {
        touch.activity = v1::Activity::Background.into()
    })
    .await
    .expect("live");
    assert_eq!(check(client, "alice").await.extensions, 2);
    touch(client, "alice").await.expect("live");
    assert_eq!(check(client, "alice").await.extensions, 0);
    extend(client, "alice", None).await.expect("granted");
}

#[tokio::test(start_paused = true)]
async fn version_grows_with_every_change_except_last_activity_alone() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let version = async |client: &mut Client| status(&check(client, "alice").await).version;
    let first = version(client).await;
    touch(client, "alice").await.expect("live");
    assert_eq!(version(client).await, first);
    extend(client, "alice", Some(mins(30))).await.expect("granted");
    let extended = version(client).await;
    assert!(extended > first);
    pass(mins(28) + secs(1)).await;
    let warned = version(client).await;
    assert!(warned > extended);
    end(client, "alice").await.expect("ended");
    assert!(version(client).await > warned);
}

#[tokio::test(start_paused = true)]
async fn end_says_why_and_by_whom_and_says_it_again() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let request = v1::EndRequest {
        session_id: id("alice"),
        reason: v1::EndReason::Revoked.into(),
        actor_id: "root@example.com".to_owned(),
        note: "lost laptop".to_owned(),
        ..Default::default()
    };
    let first = client.end(request).await.expect("ended").into_inner();
    assert!(first.ended_now);
    let told = first.end.clone().expect("an end");
    assert_eq!(
        (told.reason(), told.actor()),
        (v1::EndReason::Revoked, v1::Actor::Admin)
    );
    assert_eq!(
        (told.actor_id.as_str(), told.note.as_str()),
        ("root@example.com", "lost laptop")
    );
    pass(mins(1)).await;
    let again = end(client, "alice").await.expect("OK");
    assert_eq!((again.ended_now, again.end), (false, first.end));
    let session = check(client, "alice").await;
    assert_eq!(
        (status(&session).state(), session.end),
        (SessionState::Ended, Some(told))
    );
    let unknown = end(client, "nobody").await.unwrap_err();
    assert_eq!(reason(&unknown), (Code::NotFound, "SESSION_UNKNOWN".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn kinds_and_subjects_choose_what_a_watcher_gets() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    for (name, subject) in [("alice", "ada"), ("bob", "ada"), ("carol", "eve")] {
        create_with(client, name, |request| {
            request.subject = subject.to_owned();
            request.labels = [("app".to_owned(), "shop".to_owned())].into();
        })
        .await;
    }
    let mut request = scoped(v1::watch_scope::Scope::Subject("ada".to_owned()));
    request.kinds = vec![v1::EventKind::Ended.into()];
    request.include_initial_state = true;
    let mut watcher = Watcher::try_open(client, request).await.expect("opens");
    assert_eq!(
        watcher.during(secs(1)).await,
        ["snapshot ACTIVE", "snapshot ACTIVE", "live 2"]
    );
    pass(mins(14)).await;
    end(client, "carol").await.expect("ended");
    end(client, "bob").await.expect("ended");
    let Message::Ended(ended) = watcher.next().await else {
        panic!("not ended")
    };
    let session = ended.session.expect("a session");
    assert_eq!(
        (session.subject.as_str(), session.labels["app"].as_str()),
        ("ada", "shop")
    );
    assert_eq!(watcher.during(mins(2)).await, ["ended IDLE_TIMEOUT"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_hears_that_it_is_alive_and_can_resume_from_there() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "bob").await;
    let mut request = by_id(&["alice"]);
    request.heartbeat_interval = wire(secs(2));
    let mut stream = client.watch_expiry(request).await.expect("opens").into_inner();
    stream.message().await.expect("no error");
    // What concerns others moves the token along: a quiet watcher does not fall off the log.
    end(client, "bob").await.expect("ended");
    let begin = tokio::time::Instant::now();
    let beat = stream.message().await.expect("no error").expect("a message");
    assert!(matches!(beat.message, Some(Message::Heartbeat(_))));
    assert!(begin.elapsed() >= secs(2) - Duration::from_millis(5) && begin.elapsed() < secs(3));
    create(client, "alice").await;
    end(client, "alice").await.expect("ended");
    let mut resumed = Watcher::resume(client, by_id(&["alice"]), &beat.resume_token)
        .await
        .expect("resumes");
    assert_eq!(resumed.during(secs(5)).await, ["ended LOGOUT"]);
}

#[tokio::test(start_paused = true)]
async fn draining_is_told_to_every_watcher_and_the_server_ends() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let mut watchers = Vec::new();
    for _ in 0..50 {
        watchers.push(Watcher::open(client, everything()).await);
    }
    sidecar.draining.cancel();
    for watcher in &mut watchers {
        assert_eq!(word(&watcher.next().await), "draining");
        assert!(watcher.try_next().await.expect("no error").is_none(), "ends with OK");
    }
    sidecar.server.await.expect("no panic").expect("no error");
}
