//! Who may use the admin verbs, and for which tenants (G17).

use super::*;

#[tokio::test(start_paused = true)]
async fn g17_no_caller_may_use_the_admin_verbs_unless_its_listener_says_so() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let by_default = Caller::default();
    assert!(!by_default.may(VerbGroup::Admin) && by_default.verbs.len() == VerbGroup::ALL.len() - 1);
    let admin = &mut sidecar.admin_of(by_default).await;
    let refused = [
        list_with(admin, |_| {}).await.map(drop).unwrap_err(),
        end_with(admin, |end| end.whole_tenant = true)
            .await
            .map(drop)
            .unwrap_err(),
        admin
            .explain_session(v1::ExplainSessionRequest::default())
            .await
            .map(drop)
            .unwrap_err(),
        admin
            .list_policies(v1::ListPoliciesRequest::default())
            .await
            .map(drop)
            .unwrap_err(),
        admin
            .get_stats(v1::GetStatsRequest::default())
            .await
            .map(drop)
            .unwrap_err(),
    ];
    for status in refused {
        assert_eq!(
            reason(&status),
            (Code::PermissionDenied, "CALLER_NOT_ALLOWED".to_owned())
        );
        assert!(status.message().contains("`admin`"), "{}", status.message());
    }
    assert_eq!(state(client, "alice").await, SessionState::Active);
    let denied = sidecar.metric("rpcs_total{method=\"EndSessions\",code=\"PERMISSION_DENIED\"}");
    assert!((denied - 1.0).abs() < f64::EPSILON);
    // And who may only administrate may do nothing else.
    let only_admin = Caller {
        verbs: vec![VerbGroup::Admin],
        ..Caller::default()
    };
    let client = &mut sidecar.client_of(only_admin).await;
    assert_eq!(touch(client, "alice").await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(start_paused = true)]
async fn g17_tenants_are_apart() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client_for(&["a", "b"]).await;
    for tenant in ["a", "b"] {
        create_with(client, "alice", |create| {
            create.tenant = tenant.to_owned();
            create.subject = "ada".to_owned();
        })
        .await;
    }
    let of_tenant = |tenant: &str| v1::SessionFilter {
        tenant: tenant.to_owned(),
        ..Default::default()
    };
    let admin = &mut sidecar.admin_for(&["a"]).await;
    let own = refs(admin, of_tenant("a")).await;
    assert_eq!(own.len(), 1);
    for refused in [
        list_with(admin, |list| list.filter = Some(of_tenant("b")))
            .await
            .map(drop),
        // The empty tenant is another one too.
        list_with(admin, |_| {}).await.map(drop),
        end_with(admin, |end| {
            end.filter = Some(of_tenant("b"));
            end.whole_tenant = true;
        })
        .await
        .map(drop),
        admin.get_stats(v1::GetStatsRequest::default()).await.map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code(), Code::PermissionDenied);
    }
    let other = &mut sidecar.admin_for(&["b"]).await;
    let theirs = refs(other, of_tenant("b")).await;
    assert_ne!(own, theirs, "the ref is of tenant and id");
    // A ref of another tenant is unknown, by whatever way.
    for tenant in ["a", "b"] {
        let asked = if tenant == "a" { &theirs } else { &own };
        let both = &mut sidecar.admin_for(&["a", "b"]).await;
        let request = v1::ExplainSessionRequest {
            tenant: tenant.to_owned(),
            target: Some(Target::SessionRef(asked[0].clone())),
            ..Default::default()
        };
        let explained = both
            .explain_session(request)
            .await
            .expect("a question is answered")
            .into_inner();
        assert!(explained.explanations.is_empty());
    }
    let ended = end_with(admin, |end| {
        end.filter = Some(of_tenant("a"));
        end.whole_tenant = true;
    })
    .await
    .expect("ended");
    assert_eq!(
        (ended.matched_count, ended.ended_count, ended.session_refs),
        (1, 1, own)
    );
    assert_eq!(refs(other, of_tenant("b")).await, theirs);
    let request = v1::GetStatsRequest {
        tenant: "b".to_owned(),
        ..Default::default()
    };
    let counted = other.get_stats(request).await.expect("counted").into_inner();
    assert_eq!(states(&counted), [1, 0, 0]);
}
