//! G15, G17: secret, and apart.

use super::*;

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
        follow: session_sidecar::sessions::Follow::Never,
    };
    let reference = sidecar.sessions.session_ref(name);
    said += &format!("{:?}", sidecar.sessions.memory().expect("in memory").get(reference));
    pass(mins(2)).await;
    said += &format!("{:?}", sidecar.sessions.memory().expect("in memory").look_up(reference));
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

/// Also when nobody can be sure any more what has ended: a foreign ref is answered like one that never was.
#[tokio::test(start_paused = true)]
async fn g17_a_foreign_ref_is_answered_as_if_it_had_never_been() {
    let sidecar = Sidecar::with(Options {
        caps: MemoryCaps {
            max_sessions: 10,
            max_tombstones: 1,
        },
        ..Options::default()
    });
    let shop = &mut sidecar.client_for(&["shop"]).await;
    let foreign = create_with(shop, "alice", |create| create.tenant = "shop".to_owned()).await;
    let foreign = status(&foreign).session_ref.clone();
    let client = &mut sidecar.client().await;
    for name in ["bob", "carol"] {
        create(client, name).await;
        end(client, name).await.expect("ended");
    }
    let never = "A".repeat(22);
    for reference in [foreign, never] {
        let session = check_ref(client, &reference).await;
        assert_eq!(status(&session).state(), SessionState::Unknown);
        assert!(status(&session).may_have_ended, "{session:?}");
    }
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
