//! EndSessions.

use super::*;

#[tokio::test(start_paused = true)]
async fn ending_many_spares_who_is_spared_and_tells_how_many() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    for name in ["a", "b", "c", "d"] {
        create_with(client, name, |create| create.subject = "ada".to_owned()).await;
    }
    create(client, "other").await;
    let by_ref = status(&check(client, "a").await).session_ref.clone();
    // "Log out everywhere but here": by the id, and it holds for what that goes on as.
    let rotate = v1::RotateRequest {
        session_id: id("b"),
        new_session_id: id("b2"),
        ..Default::default()
    };
    client.rotate(rotate).await.expect("rotated");
    let watcher = &mut Watcher::open(client, everything()).await;
    let request = v1::EndSessionsRequest {
        filter: of("ada"),
        except: vec![
            v1::SessionName {
                name: Some(v1::session_name::Name::SessionRef(by_ref)),
            },
            v1::SessionName {
                name: Some(v1::session_name::Name::SessionId(id("b"))),
            },
        ],
        actor_id: "desk".to_owned(),
        note: "stolen laptop".to_owned(),
        dry_run: true,
        ..Default::default()
    };
    let dry = admin.end_sessions(request.clone()).await.expect("counted").into_inner();
    assert_eq!((dry.matched_count, dry.ended_count, dry.session_refs.len()), (2, 0, 2));
    assert_eq!(state(client, "c").await, SessionState::Active, "a dry run ends nobody");
    let request = v1::EndSessionsRequest {
        dry_run: false,
        ..request
    };
    let ended = admin.end_sessions(request.clone()).await.expect("ended").into_inner();
    assert_eq!(
        (ended.matched_count, ended.ended_count, ended.session_refs),
        (2, 2, dry.session_refs)
    );
    assert_eq!(watcher.during(secs(1)).await, ["ended REVOKED", "ended REVOKED"]);
    for (name, live) in [("a", true), ("b2", true), ("c", false), ("d", false), ("other", true)] {
        let lives = state(client, name).await == SessionState::Active;
        assert_eq!(lives, live, "{name}");
    }
    let end = check(client, "c").await.end.expect("an end");
    assert_eq!((end.reason(), end.actor()), (EndReason::Revoked, v1::Actor::Admin));
    assert_eq!((end.actor_id.as_str(), end.note.as_str()), ("desk", "stolen laptop"));
    let again = admin.end_sessions(request).await.expect("ended").into_inner();
    assert_eq!((again.matched_count, again.ended_count), (0, 0));
    // A logout by an operator is the operator's.
    let all = end_with(admin, |end| {
        end.whole_tenant = true;
        end.reason = EndReason::Logout.into();
    });
    assert_eq!(all.await.expect("ended").ended_count, 3);
    let end = check(client, "other").await.end.expect("an end");
    assert_eq!((end.reason(), end.actor()), (EndReason::Logout, v1::Actor::Admin));
}

#[tokio::test(start_paused = true)]
async fn ending_many_answers_the_first_thousand_refs() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    for number in 0..1100 {
        create(client, &format!("s{number}")).await;
    }
    let ended = end_with(admin, |end| end.whole_tenant = true).await.expect("ended");
    assert_eq!(
        (ended.matched_count, ended.ended_count, ended.session_refs.len()),
        (1100, 1100, 1000)
    );
}

/// Many sessions are rotated again and again while all are ended, by subject and as a whole tenant; each is found.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nobody_slips_through_by_a_rotation() {
    for round in 0..20 {
        rotated_while_ended(|end| end.filter = of("ada")).await;
        rotated_while_ended(|end| end.whole_tenant = true).await;
        rotated_while_ended(|end| {
            end.whole_tenant = true;
            end.dry_run = round % 2 == 0;
        })
        .await;
    }
}

async fn rotated_while_ended(which: impl FnOnce(&mut v1::EndSessionsRequest)) {
    const SESSIONS: u64 = 20;
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    for number in 0..SESSIONS {
        create_with(client, &format!("s{number}-0"), |create| {
            create.subject = "ada".to_owned()
        })
        .await;
    }
    let (begun, begins) = tokio::sync::oneshot::channel();
    let stop = Arc::new(AtomicBool::new(false));
    let mut rotator = sidecar.client().await;
    let rotating = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut begun = Some(begun);
            for turn in 0.. {
                for number in 0..SESSIONS {
                    let rotate = v1::RotateRequest {
                        session_id: id(&format!("s{number}-{turn}")),
                        new_session_id: id(&format!("s{number}-{}", turn + 1)),
                        ..Default::default()
                    };
                    // Those that are ended are refused.
                    let _ = rotator.rotate(rotate).await;
                }
                if let Some(begun) = begun.take() {
                    begun.send(()).expect("waited for");
                }
                if stop.load(Ordering::Acquire) {
                    return;
                }
            }
        }
    });
    begins.await.expect("rotating");
    let mut dry_run = false;
    let ended = end_with(admin, |end| {
        which(end);
        dry_run = end.dry_run;
    });
    let ended = ended.await.expect("ended");
    stop.store(true, Ordering::Release);
    rotating.await.expect("no panic");
    let live = refs(admin, of("ada").expect("a filter")).await.len() as u64;
    assert_eq!(ended.matched_count, SESSIONS, "each once");
    let expected = if dry_run { (0, SESSIONS) } else { (SESSIONS, 0) };
    assert_eq!((ended.ended_count, live), expected);
}
