//! ListPolicies, and how policies change for live sessions.

use super::*;

#[tokio::test(start_paused = true)]
async fn policies_are_listed_as_they_are_in_force() {
    let sidecar = Sidecar::with_policies("[policy.desk]\nidle_timeout = \"5m\"\n[policy.web]\nrevision = 3\n");
    let admin = &mut sidecar.admin().await;
    let listed = admin
        .list_policies(v1::ListPoliciesRequest::default())
        .await
        .expect("listed")
        .into_inner();
    let told: Vec<_> = listed
        .policies
        .iter()
        .map(|policy| (policy.name.as_str(), policy.revision, policy.active, policy.enforced))
        .collect();
    assert_eq!(told, [("desk", 0, true, true), ("web", 3, true, true)]);
    assert_eq!(span(listed.policies[0].idle_timeout), mins(5));
}

#[tokio::test(start_paused = true)]
async fn a_newer_revision_is_told_when_it_reaches_the_session() {
    let sidecar = Sidecar::with_policies("[policy.default]\nrevision = 1\n");
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create(client, "alice").await;
    let newer = "[policy.default]\nrevision = 2\nidle_timeout = \"10m\"\n";
    let newer = session_sidecar::config::parse_policies(newer).expect("good policies");
    sidecar.sessions.reload(newer).expect("a higher revision");
    assert!(explain_one(admin, "alice").await.history.is_empty());
    pass(secs(1)).await;
    touch(client, "alice").await.expect("counted");
    let explained = explain_one(admin, "alice").await;
    assert_eq!(words(&explained), ["policy revision 2"]);
    let policies = admin
        .list_policies(v1::ListPoliciesRequest::default())
        .await
        .expect("listed")
        .into_inner();
    let policy = &policies.policies[0];
    assert_eq!((policy.revision, span(policy.idle_timeout)), (2, mins(10)));
    assert!(
        policy.toml.starts_with("[policy.default]\nrevision = 2\n"),
        "{}",
        policy.toml
    );
    let sum: Duration = policy.worst_case.iter().map(|term| span(term.duration)).sum();
    assert_eq!(sum, span(policy.worst_case_duration));
    assert!(policy.findings.iter().any(|finding| finding.source.starts_with("NIST")));
}

#[tokio::test(start_paused = true)]
async fn a_removed_policy_is_listed_while_its_sessions_live() {
    let sidecar = Sidecar::with_policies("[policy.default]\n[policy.old]\n");
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create_with(client, "alice", |create| create.policy = "old".to_owned()).await;
    let without = session_sidecar::config::parse_policies("[policy.default]\n").expect("good policies");
    sidecar
        .sessions
        .policies()
        .reload(without)
        .expect("nothing is against it");
    let listed = admin
        .list_policies(v1::ListPoliciesRequest::default())
        .await
        .expect("listed")
        .into_inner();
    let told: Vec<_> = listed
        .policies
        .iter()
        .map(|policy| (policy.name.as_str(), policy.active))
        .collect();
    assert_eq!(told, [("default", true), ("old", false)]);
    let of_old = v1::SessionFilter {
        policy: "old".to_owned(),
        ..Default::default()
    };
    assert_eq!(refs(admin, of_old).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_policy_file_that_is_not_in_force_is_told() {
    let sidecar = Sidecar::start();
    let admin = &mut sidecar.admin().await;
    let mut told = async || {
        let request = v1::ListPoliciesRequest::default();
        let listed = admin.list_policies(request).await.expect("listed").into_inner();
        assert_eq!(listed.policies.len(), 1);
        listed.policy_file_problem
    };
    assert_eq!(told().await, "");
    sidecar
        .sessions
        .policies()
        .set_file_problem("line 2 (…): it is bad".to_owned());
    assert_eq!(told().await, "line 2 (…): it is bad");
}
