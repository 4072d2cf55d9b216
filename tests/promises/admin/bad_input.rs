//! Bad input of every admin verb.

use super::*;

#[tokio::test(start_paused = true)]
async fn bad_input_names_the_field_and_the_limit_and_changes_nothing() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create(client, "alice").await;
    let before = check(client, "alice").await;
    let mut refused: Vec<(&str, &str, Status)> = Vec::new();
    for size in [0, -1, 1001, i32::MAX] {
        let status = list_with(admin, |list| list.page_size = Some(size)).await.unwrap_err();
        refused.push(("page_size", "1000", status));
    }
    let filters: [(&str, &str, v1::SessionFilter); 6] = [
        (
            "filter.tenant",
            "128",
            v1::SessionFilter {
                tenant: "a".repeat(129),
                ..Default::default()
            },
        ),
        (
            "filter.subject",
            "256",
            v1::SessionFilter {
                subject: "a".repeat(257),
                ..Default::default()
            },
        ),
        (
            "filter.policy",
            "128",
            v1::SessionFilter {
                policy: "a".repeat(129),
                ..Default::default()
            },
        ),
        (
            "filter.states[0]",
            "ENDED",
            v1::SessionFilter {
                states: vec![SessionState::Unknown.into()],
                ..Default::default()
            },
        ),
        (
            "filter.states[1]",
            "99",
            v1::SessionFilter {
                states: vec![1, 99],
                ..Default::default()
            },
        ),
        (
            "filter.labels",
            "8",
            v1::SessionFilter {
                labels: (0..9).map(|number| (format!("l{number}"), String::new())).collect(),
                ..Default::default()
            },
        ),
    ];
    for (named, limit, filter) in filters {
        let status = list_with(admin, |list| list.filter = Some(filter.clone()))
            .await
            .unwrap_err();
        refused.push((named, limit, status));
        let status = end_with(admin, |end| end.filter = Some(filter)).await.unwrap_err();
        refused.push((named, limit, status));
    }
    let name = |name| v1::SessionName { name: Some(name) };
    type Change = Box<dyn FnOnce(&mut v1::EndSessionsRequest)>;
    let ends: Vec<(&str, &str, Change)> = vec![
        ("whole_tenant", "true", Box::new(|_| {})),
        (
            "whole_tenant",
            "false",
            Box::new(|end| (end.filter, end.whole_tenant) = (of("ada"), true)),
        ),
        (
            "filter.states",
            "EXPIRING",
            Box::new(|end| {
                end.whole_tenant = true;
                end.filter = Some(v1::SessionFilter {
                    states: vec![SessionState::Ended.into()],
                    ..Default::default()
                });
            }),
        ),
        (
            "except",
            "100",
            Box::new(|end| (end.filter, end.except) = (of("ada"), vec![v1::SessionName::default(); 101])),
        ),
        (
            "except[0].session_id",
            "required",
            Box::new(|end| (end.filter, end.except) = (of("ada"), vec![v1::SessionName::default()])),
        ),
        (
            "except[0].session_ref",
            "22",
            Box::new(move |end| {
                end.filter = of("ada");
                end.except = vec![name(v1::session_name::Name::SessionRef("x".to_owned()))];
            }),
        ),
        (
            "reason",
            "REVOKED",
            Box::new(|end| (end.filter, end.reason) = (of("ada"), EndReason::IdleTimeout.into())),
        ),
        ("actor", "77", Box::new(|end| (end.filter, end.actor) = (of("ada"), 77))),
        (
            "actor_id",
            "128",
            Box::new(|end| (end.filter, end.actor_id) = (of("ada"), "a".repeat(129))),
        ),
        (
            "note",
            "256",
            Box::new(|end| (end.filter, end.note) = (of("ada"), "a".repeat(257))),
        ),
    ];
    for (named, limit, change) in ends {
        refused.push((named, limit, end_with(admin, change).await.unwrap_err()));
    }
    let period = |subject: &str, start: i64, end: i64| {
        let at = |seconds| Some(prost_types::Timestamp { seconds, nanos: 0 });
        Target::SubjectPeriod(v1::SubjectPeriod {
            subject: subject.to_owned(),
            start_time: at(start),
            end_time: at(end),
        })
    };
    let own_ref = status(&before).session_ref.clone();
    let spared = |name| (of("ada"), vec![v1::SessionName { name: Some(name) }]);
    let as_id = v1::session_name::Name::SessionId(own_ref.clone());
    let mixed_up = end_with(admin, |end| (end.filter, end.except) = spared(as_id))
        .await
        .unwrap_err();
    refused.push(("except[0].session_id", "session_ref", mixed_up));
    for (named, limit, target) in [
        ("session_id", "session_ref", Some(Target::SessionId(own_ref))),
        ("session_id", "required", None),
        ("session_id", "256", Some(Target::SessionId("a".repeat(257)))),
        ("session_ref", "22", Some(Target::SessionRef("x".to_owned()))),
        ("subject_period.subject", "1 to 256", Some(period("", 0, 1))),
        ("subject_period.end_time", "start_time", Some(period("ada", 2, 1))),
        ("subject_period.start_time", "9999", Some(period("ada", i64::MAX, 1))),
    ] {
        let request = v1::ExplainSessionRequest {
            target,
            ..Default::default()
        };
        refused.push((named, limit, admin.explain_session(request).await.unwrap_err()));
    }
    for (named, limit, status) in refused {
        assert_eq!(
            (status.code(), field(&status).as_str()),
            (Code::InvalidArgument, named),
            "{status:?}"
        );
        assert!(status.message().contains(limit), "{named}: {}", status.message());
    }
    assert_eq!(check(client, "alice").await, before);
}
