//! A server that has forgotten the last moments: nobody says that a session is not there while another sidecar is about to tell of it.

use super::*;
use support::*;

/// Everything is forgotten, again and again, in the second in which one sidecar made sessions; the other asks all the time.
#[tokio::test]
async fn g10_what_one_sidecar_is_about_to_tell_again_is_unknown_to_nobody() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let (a, b) = (site.pod(&server.url(), &[]).await, site.pod(&server.url(), &[]).await);
    let (on_a, on_b) = (&mut a.client().await, &mut b.client().await);
    for round in 0..4 {
        let name = |number: usize| format!("round-{round}-person-{number}");
        for number in 0..40 {
            begin(on_a, &name(number), "default").await;
        }
        sure!(end(on_a, &name(0))).expect("ended");
        server.restart().await;
        let mut answered = 0;
        while answered < 40 {
            for client in [&mut *on_b, &mut *on_a] {
                let request = v1::CheckRequest {
                    name: Some(v1::check_request::Name::SessionId(id(&name(answered)))),
                    ..Default::default()
                };
                let found = sure!(client.check(request.clone())).expect("a question is answered");
                let session = found.into_inner().session;
                let wanted = if answered == 0 {
                    v1::SessionState::Ended
                } else {
                    v1::SessionState::Active
                };
                assert_eq!(
                    status(&session.expect("a session")).state(),
                    wanted,
                    "round {round}: {}",
                    name(answered)
                );
            }
            answered += 1;
        }
    }
    let of_subject = v1::ListSessionsRequest {
        filter: Some(v1::SessionFilter {
            subject: "subject-of-round-3-person-7".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let listed = a
        .admin()
        .await
        .list_sessions(of_subject)
        .await
        .expect("a list")
        .into_inner();
    assert_eq!(listed.sessions.len(), 1, "the list of its subject knows it again");
}
