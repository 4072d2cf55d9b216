//! How many sessions a subject may have: one more is refused, or the oldest ends.

use std::{collections::BTreeSet, time::Duration};

use session_sidecar::rpc::proto::v1;
use tonic::Code;

use crate::support::*;

const REFUSE: &str = "[policy.default]\nmax_sessions_per_subject = 2\n[policy.other]";
const END_OLDEST: &str =
    "[policy.default]\nmax_sessions_per_subject = 2\nat_subject_cap = \"end-oldest\"\n[policy.other]";

fn of(name: &str, subject: &str) -> v1::CreateRequest {
    v1::CreateRequest {
        session_id: id(name),
        subject: subject.to_owned(),
        ..Default::default()
    }
}

fn cap() -> (Code, String) {
    (Code::ResourceExhausted, "SUBJECT_CAP".to_owned())
}

#[tokio::test(start_paused = true)]
async fn one_too_many_is_refused_until_another_one_is_over() {
    let sidecar = Sidecar::with_policies(REFUSE);
    let client = &mut sidecar.client().await;
    for name in ["a", "b"] {
        let created = client.create(of(name, "ada")).await.expect("created").into_inner();
        assert!(created.superseded_refs.is_empty());
    }
    let refused = client.create(of("c", "ada")).await.unwrap_err();
    assert_eq!(reason(&refused), cap());
    assert!(
        refused.message().contains("max_sessions_per_subject allows, 2"),
        "{}",
        refused.message()
    );
    assert_eq!(state(client, "c").await, v1::SessionState::Unknown, "c is no burnt id");
    // Others are not concerned: another subject, nobody, another policy, another tenant.
    client.create(of("d", "eve")).await.expect("created");
    client.create(of("e", "")).await.expect("created");
    client.create(of("f", "")).await.expect("created");
    client.create(of("g", "")).await.expect("created");
    let other = v1::CreateRequest {
        policy: "other".to_owned(),
        ..of("h", "ada")
    };
    client.create(other).await.expect("created");
    let shop = &mut sidecar.client_for(&["shop"]).await;
    let foreign = v1::CreateRequest {
        tenant: "shop".to_owned(),
        ..of("a", "ada")
    };
    shop.create(foreign).await.expect("created");
    // A live name says so first.
    assert_eq!(
        reason(&client.create(of("a", "ada")).await.unwrap_err()).1,
        "SESSION_EXISTS"
    );
    end(client, "a").await.expect("ended");
    client.create(of("c", "ada")).await.expect("created");
    assert_eq!(reason(&client.create(of("i", "ada")).await.unwrap_err()), cap());
    // What time has ended takes no place, noticed or not.
    pass(mins(15)).await;
    client.create(of("i", "ada")).await.expect("created");
}

#[tokio::test(start_paused = true)]
async fn the_oldest_is_superseded_and_its_watchers_are_told_at_once() {
    let sidecar = Sidecar::with_policies(END_OLDEST);
    let client = &mut sidecar.client().await;
    let mut refs = Vec::new();
    for name in ["a", "b"] {
        let created = client.create(of(name, "ada")).await.expect("created").into_inner();
        refs.push(status(&created.session.expect("a session")).session_ref.clone());
        pass(secs(1)).await;
    }
    // The oldest, not the least used.
    touch(client, "a").await.expect("live");
    let mut watcher = Watcher::open(client, by_id(&["a"])).await;
    let request = v1::CreateRequest {
        request_id: "req-c".to_owned(),
        ..of("c", "ada")
    };
    let created = client.create(request.clone()).await.expect("created").into_inner();
    assert_eq!(created.superseded_refs, refs[..1]);
    assert_eq!(watcher.during(Duration::from_millis(50)).await, ["ended SUPERSEDED"]);
    let over = check(client, "a").await.end.expect("an end");
    assert_eq!(
        (over.reason(), over.actor()),
        (v1::EndReason::Superseded, v1::Actor::Policy)
    );
    assert_eq!(metadata(&touch(client, "a").await.unwrap_err(), "reason"), "SUPERSEDED");
    touch(client, "b").await.expect("live");
    // A retry ends nobody, and is not told again.
    let retried = client.create(request).await.expect("the same").into_inner();
    assert!(retried.superseded_refs.is_empty());
    touch(client, "b").await.expect("live");
    // A refused Create ends nobody either.
    assert_eq!(
        reason(&client.create(of("c", "ada")).await.unwrap_err()).1,
        "SESSION_EXISTS"
    );
    assert_eq!(
        reason(&client.create(of("a", "ada")).await.unwrap_err()).1,
        "SESSION_ENDED"
    );
    touch(client, "b").await.expect("live");
}

#[tokio::test(start_paused = true)]
async fn g6_fifty_logins_at_once_leave_exactly_the_cap_and_each_loser_ends_once() {
    let sidecar = Sidecar::with_policies(END_OLDEST);
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, by_subject("ada")).await;
    let calls: Vec<_> = (0..50)
        .map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move { client.create(of(&format!("login-{number}"), "ada")).await })
        })
        .collect();
    let mut superseded = Vec::new();
    for call in calls {
        let created = call.await.expect("no panic").expect("created").into_inner();
        superseded.extend(created.superseded_refs);
    }
    assert_eq!(live_sessions(&sidecar).await, 2.0);
    assert_eq!(superseded.len(), 48);
    assert_eq!(superseded.iter().collect::<BTreeSet<_>>().len(), 48);
    assert_eq!(watcher.during(secs(1)).await, ["ended SUPERSEDED"; 48]);
}

#[tokio::test(start_paused = true)]
async fn fifty_logins_at_once_get_exactly_as_many_places_as_there_are() {
    let sidecar = Sidecar::with_policies(REFUSE);
    let client = &mut sidecar.client().await;
    let calls: Vec<_> = (0..50)
        .map(|number| {
            let mut client = client.clone();
            tokio::spawn(async move { client.create(of(&format!("login-{number}"), "ada")).await })
        })
        .collect();
    let mut created = 0;
    for call in calls {
        match call.await.expect("no panic") {
            Ok(_) => created += 1,
            Err(refused) => assert_eq!(reason(&refused), cap()),
        }
    }
    assert_eq!((created, live_sessions(&sidecar).await), (2, 2.0));
}

#[tokio::test(start_paused = true)]
async fn retries_at_once_take_one_place() {
    let policy = "[policy.default]\nmax_sessions_per_subject = 1";
    let sidecar = Sidecar::with_policies(policy);
    let client = &mut sidecar.client().await;
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let mut client = client.clone();
            let request = v1::CreateRequest {
                request_id: "req-login".to_owned(),
                ..of("login", "ada")
            };
            tokio::spawn(async move { client.create(request).await })
        })
        .collect();
    for call in calls {
        call.await.expect("no panic").expect("the same session");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotate_to_another_subject_takes_a_place_there() {
    for (policy, refuses) in [(REFUSE, true), (END_OLDEST, false)] {
        let sidecar = Sidecar::with_policies(policy);
        let client = &mut sidecar.client().await;
        let mut oldest = String::new();
        for name in ["a", "b"] {
            let created = client.create(of(name, "ada")).await.expect("created").into_inner();
            let session = created.session.expect("a session");
            if oldest.is_empty() {
                oldest.clone_from(&status(&session).session_ref);
            }
            pass(secs(1)).await;
        }
        client.create(of("guest", "")).await.expect("created");
        let login = |request: &mut v1::RotateRequest| {
            request.subject = Some("ada".to_owned());
            request.authenticated_ago = wire(Duration::ZERO);
        };
        let rotated = rotate_with(client, "guest", "c", login).await;
        if refuses {
            assert_eq!(reason(&rotated.unwrap_err()), cap());
            assert_eq!(state(client, "guest").await, v1::SessionState::Active);
            // The subject that it has already needs no place.
            rotate_with(client, "a", "a2", login).await.expect("rotated");
        } else {
            assert_eq!(rotated.expect("rotated").superseded_refs, [oldest]);
            assert_eq!(
                check(client, "a").await.end.expect("an end").reason(),
                v1::EndReason::Superseded
            );
            touch(client, "b").await.expect("live");
            touch(client, "c").await.expect("live");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_only_observes_has_no_cap() {
    let policy = "[policy.default]\nmax_sessions_per_subject = 1\nenforce = false";
    let sidecar = Sidecar::with_policies(policy);
    let client = &mut sidecar.client().await;
    for name in ["a", "b"] {
        client.create(of(name, "ada")).await.expect("created");
    }
}
