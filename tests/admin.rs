//! What operators and support staff get: lists, ends of many, explanations, numbers; and who may not have them.

mod support;

use std::{collections::BTreeSet, time::Duration};

use session_sidecar::rpc::{Caller, VerbGroup, proto::v1};
use support::*;
use tonic::{Code, Status};
use v1::{EndReason, SessionState, explain_session_request::Target, history_entry::Entry};

const PRESENCE: &str = "[policy.default]\npresence = \"on\"\n";

fn of(subject: &str) -> Option<v1::SessionFilter> {
    Some(v1::SessionFilter {
        subject: subject.to_owned(),
        ..Default::default()
    })
}

async fn list_with(
    admin: &mut Admin,
    change: impl FnOnce(&mut v1::ListSessionsRequest),
) -> Result<v1::ListSessionsResponse, Status> {
    let mut request = v1::ListSessionsRequest {
        filter: Some(v1::SessionFilter::default()),
        ..Default::default()
    };
    change(&mut request);
    admin.list_sessions(request).await.map(tonic::Response::into_inner)
}

/// The refs that a filter finds, in order.
async fn refs(admin: &mut Admin, filter: v1::SessionFilter) -> Vec<String> {
    let listed = list_with(admin, |list| list.filter = Some(filter))
        .await
        .expect("listed");
    assert!(listed.next_page_token.is_empty());
    listed
        .sessions
        .iter()
        .map(|session| status(session).session_ref.clone())
        .collect()
}

async fn end_with(
    admin: &mut Admin,
    change: impl FnOnce(&mut v1::EndSessionsRequest),
) -> Result<v1::EndSessionsResponse, Status> {
    let mut request = v1::EndSessionsRequest::default();
    change(&mut request);
    admin.end_sessions(request).await.map(tonic::Response::into_inner)
}

async fn explain(admin: &mut Admin, target: Target) -> v1::ExplainSessionResponse {
    let request = v1::ExplainSessionRequest {
        target: Some(target),
        ..Default::default()
    };
    admin.explain_session(request).await.expect("explained").into_inner()
}

/// The explanation of the one session that has this id.
async fn explain_one(admin: &mut Admin, name: &str) -> v1::SessionExplanation {
    let explained = explain(admin, Target::SessionId(id(name))).await;
    assert_eq!(explained.explanations.len(), 1);
    explained.explanations.into_iter().next().expect("one")
}

async fn stats(admin: &mut Admin) -> v1::GetStatsResponse {
    let request = v1::GetStatsRequest::default();
    admin.get_stats(request).await.expect("counted").into_inner()
}

fn states(stats: &v1::GetStatsResponse) -> [u64; 3] {
    let of = |wanted: SessionState| {
        let found = stats.states.iter().find(|count| count.state() == wanted);
        found.map_or(0, |count| count.session_count)
    };
    [SessionState::Active, SessionState::Expiring, SessionState::Ended].map(of)
}

fn ends(stats: &v1::GetStatsResponse, reason: EndReason) -> u64 {
    let found = stats.reasons.iter().find(|count| count.reason() == reason);
    found.expect("every reason is told").session_count
}

/// A history in short words.
fn words(explanation: &v1::SessionExplanation) -> Vec<String> {
    explanation
        .history
        .iter()
        .map(|entry| entry_word(entry.entry.as_ref().expect("an entry")))
        .collect()
}

fn entry_word(entry: &Entry) -> String {
    let lower = |name: &str, prefix: &str| name.trim_start_matches(prefix).to_lowercase();
    match entry {
        Entry::Warning(warning) => format!(
            "warning {} {}s to {}",
            lower(warning.limit().as_str_name(), "LIMIT_"),
            span(warning.point).as_secs(),
            warning.watcher_count
        ),
        Entry::Cleared(cleared) => format!(
            "cleared {} {} to {}",
            lower(cleared.limit().as_str_name(), "LIMIT_"),
            lower(cleared.cause().as_str_name(), "CLEARED_CAUSE_"),
            cleared.watcher_count
        ),
        Entry::Extended(extended) => format!("extended {}s", span(extended.granted_duration).as_secs()),
        Entry::HoldStarted(hold) => format!("hold {} started: {}", hold.hold_id, hold.purpose),
        Entry::HoldEnded(hold) => {
            let how = if hold.released { "released" } else { "lapsed" };
            format!("hold {} {how} after {} renewals", hold.hold_id, hold.renewal_count)
        }
        Entry::Rotated(rotated) => {
            let way = if rotated.is_successor { "to" } else { "from" };
            let anew = if rotated.reauthenticated { " anew" } else { "" };
            format!("rotated {way}{anew}")
        }
        Entry::PolicyChanged(changed) => format!("policy revision {}", changed.policy_revision),
        Entry::UnenforcedEnd(end) => format!("unenforced {}", lower(end.reason().as_str_name(), "END_REASON_")),
        Entry::Ended(ended) => {
            let reason = ended.end.as_ref().expect("an end").reason();
            let reason = lower(reason.as_str_name(), "END_REASON_");
            format!("ended {reason} to {}", ended.watcher_count)
        }
    }
}

async fn background(client: &mut Client, name: &str) {
    touch_with(client, name, |touch| touch.activity = v1::Activity::Background.into())
        .await
        .expect("ignored");
}

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

#[tokio::test(start_paused = true)]
async fn a_filter_finds_what_matches_all_of_it() {
    let sidecar = Sidecar::with_policies("[policy.default]\n[policy.other]\n");
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    let mut by_name = std::collections::BTreeMap::new();
    for (name, subject, policy, app) in [
        ("a", "ada", "default", "shop"),
        ("b", "ada", "other", "shop"),
        ("c", "eve", "default", "desk"),
        ("d", "", "default", ""),
    ] {
        let session = create_with(client, name, |create| {
            create.subject = subject.to_owned();
            create.policy = policy.to_owned();
            if !app.is_empty() {
                create.labels = [("app".to_owned(), app.to_owned())].into();
            }
        })
        .await;
        by_name.insert(status(&session).session_ref.clone(), name);
    }
    end(client, "c").await.expect("ended");
    let mut names = async |change: &dyn Fn(&mut v1::SessionFilter)| {
        let mut filter = v1::SessionFilter::default();
        change(&mut filter);
        let mut names: Vec<_> = refs(admin, filter).await.iter().map(|name| by_name[name]).collect();
        names.sort_unstable();
        names.join("")
    };
    assert_eq!(names(&|_| {}).await, "abd");
    assert_eq!(names(&|filter| filter.subject = "ada".to_owned()).await, "ab");
    assert_eq!(names(&|filter| filter.subject = "nobody".to_owned()).await, "");
    assert_eq!(names(&|filter| filter.policy = "default".to_owned()).await, "ad");
    let shop = |filter: &mut v1::SessionFilter| filter.labels = [("app".to_owned(), "shop".to_owned())].into();
    assert_eq!(names(&shop).await, "ab");
    let both = |filter: &mut v1::SessionFilter| {
        shop(filter);
        filter.policy = "other".to_owned();
    };
    assert_eq!(names(&both).await, "b");
    assert_eq!(
        names(&|filter| filter.states = vec![SessionState::Ended.into()]).await,
        "c"
    );
    let eve = |filter: &mut v1::SessionFilter| {
        filter.subject = "eve".to_owned();
        filter.states = vec![SessionState::Ended.into()];
    };
    assert_eq!(names(&eve).await, "c");
    let any = |filter: &mut v1::SessionFilter| {
        filter.states = [SessionState::Active, SessionState::Expiring, SessionState::Ended]
            .map(Into::into)
            .into();
    };
    assert_eq!(names(&any).await, "abcd");
    pass(mins(14)).await;
    touch(client, "a").await.expect("touched");
    assert_eq!(
        names(&|filter| filter.states = vec![SessionState::Expiring.into()]).await,
        "bd"
    );
    assert_eq!(
        names(&|filter| filter.states = vec![SessionState::Active.into()]).await,
        "a"
    );
}

#[tokio::test(start_paused = true)]
async fn g2_a_passed_deadline_is_passed_for_a_list_too() {
    let sidecar = Sidecar::with(Options {
        driver: false,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create(client, "alice").await;
    pass_without_driver(&sidecar, mins(15)).await;
    assert!(refs(admin, v1::SessionFilter::default()).await.is_empty());
    let ended = list_with(admin, |list| {
        list.filter = Some(v1::SessionFilter {
            states: vec![SessionState::Ended.into()],
            ..Default::default()
        });
    })
    .await
    .expect("listed");
    let end = ended.sessions[0].end.as_ref().expect("an end");
    assert_eq!(end.reason(), EndReason::IdleTimeout);
}

#[tokio::test(start_paused = true)]
async fn pages_miss_nobody_who_stays_and_tell_nobody_twice() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    let mut stays = BTreeSet::new();
    let mut goes = Vec::new();
    for number in 0..60 {
        let session = create(client, &format!("first-{number}")).await;
        if number % 3 == 0 {
            goes.push(format!("first-{number}"));
        } else {
            stays.insert(status(&session).session_ref.clone());
        }
    }
    let mut seen = Vec::new();
    let mut token = String::new();
    for page in 0.. {
        let listed = list_with(admin, |list| {
            list.page_size = Some(7);
            list.page_token.clone_from(&token);
        })
        .await
        .expect("listed");
        assert!(listed.sessions.len() == 7 || listed.next_page_token.is_empty());
        seen.extend(
            listed
                .sessions
                .iter()
                .map(|session| status(session).session_ref.clone()),
        );
        token = listed.next_page_token;
        if token.is_empty() {
            break;
        }
        // Between two pages some come and some go.
        create(client, &format!("later-{page}")).await;
        if let Some(name) = goes.pop() {
            end(client, &name).await.expect("ended");
        }
    }
    let once: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(once.len(), seen.len(), "nobody twice");
    assert!(stays.is_subset(&once), "nobody is missed");
    let whole = list_with(admin, |list| list.page_size = Some(1000))
        .await
        .expect("listed");
    assert!(whole.next_page_token.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_page_token_is_good_for_its_own_list_only() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client_for(&["", "b"]).await;
    let admin = &mut sidecar.admin_for(&["", "b"]).await;
    for name in ["a", "b", "c"] {
        create(client, name).await;
    }
    let first = list_with(admin, |list| list.page_size = Some(2)).await.expect("listed");
    let token = first.next_page_token;
    let mut garbled = token.clone();
    garbled.replace_range(30..31, if &token[30..31] == "A" { "B" } else { "A" });
    let other_filters = [
        of("ada"),
        Some(v1::SessionFilter {
            tenant: "b".to_owned(),
            ..Default::default()
        }),
        Some(v1::SessionFilter {
            states: vec![SessionState::Ended.into()],
            ..Default::default()
        }),
    ];
    let foreign = other_filters.into_iter().map(|filter| (filter, token.clone()));
    let bad = [garbled, "x".to_owned(), "ü".repeat(22), "A".repeat(257)];
    for (filter, token) in foreign.chain(bad.map(|token| (None, token))) {
        let refused = list_with(admin, |list| {
            list.filter = filter;
            list.page_token = token;
        })
        .await
        .unwrap_err();
        assert_eq!(
            (refused.code(), field(&refused)),
            (Code::InvalidArgument, "page_token".to_owned())
        );
    }
    // The same filter said otherwise is the same list.
    let second = list_with(admin, |list| {
        list.filter = Some(v1::SessionFilter {
            states: [SessionState::Expiring, SessionState::Active].map(Into::into).into(),
            ..Default::default()
        });
        list.page_token.clone_from(&token);
    })
    .await
    .expect("goes on");
    assert_eq!((second.sessions.len(), second.next_page_token.as_str()), (1, ""));
}

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

#[tokio::test(start_paused = true)]
async fn numbers_tell_states_reasons_ghosts_and_work() {
    let sidecar =
        Sidecar::with_policies("[policy.default]\n[policy.observed]\nidle_timeout = \"5m\"\nenforce = false\n");
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    assert_eq!(states(&stats(admin).await), [0, 0, 0]);
    for name in ["user", "ghost", "worker", "idle", "out"] {
        create(client, name).await;
    }
    create_with(client, "observed", |create| create.policy = "observed".to_owned()).await;
    let hold = v1::HoldRequest {
        session_id: id("worker"),
        hold_id: "report".to_owned(),
        kind: v1::HoldKind::Work.into(),
        ttl: wire(mins(5)),
        ..Default::default()
    };
    client.hold(hold).await.expect("held");
    end(client, "out").await.expect("ended");
    pass(mins(4)).await;
    background(client, "ghost").await;
    background(client, "user").await;
    touch(client, "user").await.expect("counted");
    pass(secs(30)).await;
    let counted = stats(admin).await;
    assert_eq!(states(&counted), [4, 1, 1], "the observed one is warned too");
    assert_eq!((counted.ghost_session_count, counted.working_session_count), (1, 1));
    assert_eq!(
        (
            ends(&counted, EndReason::Logout),
            ends(&counted, EndReason::IdleTimeout)
        ),
        (1, 0)
    );
    assert_eq!(counted.unenforced_end_count, 0);
    pass(mins(9)).await;
    let counted = stats(admin).await;
    assert_eq!(states(&counted), [3, 2, 1], "ghost and idle are warned");
    assert_eq!((counted.working_session_count, counted.unenforced_end_count), (0, 1));
    pass(mins(2)).await;
    let counted = stats(admin).await;
    assert_eq!(states(&counted), [3, 0, 3]);
    assert_eq!(
        (ends(&counted, EndReason::IdleTimeout), counted.ghost_session_count),
        (2, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_poll_that_does_not_count_is_the_answer() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create_with(client, "alice", |create| create.subject = "ada".to_owned()).await;
    let watcher = &mut Watcher::open(client, everything()).await;
    pass(mins(1)).await;
    touch_with(client, "alice", |touch| touch.activity = v1::Activity::User.into())
        .await
        .expect("counted");
    for _ in 0..10 {
        pass(mins(1)).await;
        background(client, "alice").await;
    }
    assert_eq!(
        watcher.during(mins(6)).await,
        ["warning idle 120s", "warning idle 60s", "ended IDLE_TIMEOUT"]
    );
    let explained = explain_one(admin, "alice").await;
    assert_eq!(
        explained.summary,
        "Ended on 2026-01-01 at 00:16:00 UTC by inactivity (15m): the last counted activity was at 00:01:00; 10 requests since \
         did not count (rule declared-background); 2 warnings went to 1 watcher each; the end was sent to 1 watcher."
    );
    assert_eq!(
        words(&explained),
        [
            "warning idle 120s to 1",
            "warning idle 60s to 1",
            "ended idle_timeout to 1"
        ]
    );
    let tallies: Vec<_> = explained
        .tallies
        .iter()
        .map(|tally| (tally.rule.as_str(), tally.counted, tally.touch_count))
        .collect();
    assert_eq!(
        tallies,
        [("declared-user", true, 1), ("declared-background", false, 10)]
    );
    let polls = &explained.tallies[1];
    let first = polls.first_time.expect("a time").seconds;
    assert_eq!(polls.last_time.expect("a time").seconds - first, 9 * 60);
    assert_eq!(explained.session.expect("a session").subject, "ada");
    // Nobody was there to show a warning to: that is worth knowing too.
    create(client, "bob").await;
    let _ = watcher;
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_entry_is_told_in_order() {
    let sidecar = Sidecar::with_policies(PRESENCE);
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create(client, "alice").await;
    let hold = |hold_id: &str, kind: v1::HoldKind, ttl| v1::HoldRequest {
        session_id: id("alice"),
        hold_id: hold_id.to_owned(),
        kind: kind.into(),
        ttl: wire(ttl),
        purpose: "monthly report".to_owned(),
        ..Default::default()
    };
    let release = |hold_id: &str| v1::ReleaseRequest {
        session_id: id("alice"),
        hold_id: hold_id.to_owned(),
        ..Default::default()
    };
    client
        .hold(hold("work", v1::HoldKind::Work, mins(1)))
        .await
        .expect("held");
    pass(secs(30)).await;
    client
        .hold(hold("work", v1::HoldKind::Work, mins(1)))
        .await
        .expect("renewed");
    client.release(release("work")).await.expect("released");
    client
        .hold(hold("tab", v1::HoldKind::Presence, mins(1)))
        .await
        .expect("held");
    pass(mins(14) + secs(15)).await;
    extend(client, "alice", None).await.expect("extended");
    let rotate = v1::RotateRequest {
        session_id: id("alice"),
        new_session_id: id("bob"),
        authenticated_ago: wire(Duration::ZERO),
        ..Default::default()
    };
    client.rotate(rotate).await.expect("rotated");
    pass(mins(20)).await;
    let explained = explain(admin, Target::SessionId(id("alice"))).await;
    let [after, before] = &explained.explanations[..] else {
        panic!("the successor and the session itself: {explained:?}")
    };
    assert_eq!(
        words(before),
        [
            "hold work started: monthly report",
            "hold work released after 1 renewals",
            "hold tab started: monthly report",
            "hold tab lapsed after 0 renewals",
            "warning idle 120s to 0",
            "warning idle 60s to 0",
            "extended 855s",
            "cleared idle extended to 0",
            "rotated to anew",
            "ended rotated to 0",
        ]
    );
    let successor = status(after.session.as_ref().expect("a session")).session_ref.clone();
    assert!(
        before.summary.contains(&format!("goes on as {successor}")),
        "{}",
        before.summary
    );
    let told = words(after);
    assert_eq!(
        (told[0].as_str(), told.last().map(String::as_str)),
        ("rotated from anew", Some("ended idle_timeout to 0"))
    );
    assert!(
        after
            .summary
            .contains("2 warnings reached nobody, for no watcher was there"),
        "{}",
        after.summary
    );
    // By ref the one that is named.
    let by_ref = explain(admin, Target::SessionRef(successor)).await;
    assert_eq!(by_ref.explanations, std::slice::from_ref(after));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_only_observed_is_told() {
    let sidecar = Sidecar::with_policies("[policy.default]\nenforce = false\n");
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create(client, "alice").await;
    pass(mins(16)).await;
    let explained = explain_one(admin, "alice").await;
    assert!(
        words(&explained).contains(&"unenforced idle_timeout".to_owned()),
        "{:?}",
        words(&explained)
    );
    assert!(
        explained.summary.contains("would have ended at 00:15:00 by inactivity"),
        "{}",
        explained.summary
    );
}

#[tokio::test(start_paused = true)]
async fn a_history_is_bounded_and_a_touch_is_never_an_entry() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    create(client, "alice").await;
    for _ in 0..1000 {
        touch(client, "alice").await.expect("counted");
    }
    let explained = explain_one(admin, "alice").await;
    assert!(explained.history.is_empty() && explained.history_dropped_count == 0);
    assert_eq!(explained.tallies[0].touch_count, 1000);
    for _ in 0..100 {
        pass(secs(1)).await;
        extend(client, "alice", None).await.expect("extended");
    }
    end(client, "alice").await.expect("ended");
    let explained = explain_one(admin, "alice").await;
    assert_eq!(
        (explained.history.len(), explained.history_dropped_count),
        (65, 36),
        "64 and the end"
    );
    assert!(
        explained
            .history
            .is_sorted_by_key(|entry| entry.time.map(|time| (time.seconds, time.nanos)))
    );
    assert!(
        explained
            .summary
            .starts_with("Ended on 2026-01-01 at 00:01:40 UTC by logout, by the person")
    );
}

#[tokio::test(start_paused = true)]
async fn a_person_is_explained_by_subject_and_time() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    let begin = status(&create_with(client, "one", |create| create.subject = "ada".to_owned()).await)
        .server_time
        .expect("a time")
        .seconds;
    pass(mins(30)).await;
    create_with(client, "two", |create| create.subject = "ada".to_owned()).await;
    create_with(client, "other", |create| create.subject = "eve".to_owned()).await;
    pass(mins(5)).await;
    let mut found = async |from: Option<i64>, to: Option<i64>| {
        let at = |minutes: i64| prost_types::Timestamp {
            seconds: begin + 60 * minutes,
            nanos: 0,
        };
        let period = v1::SubjectPeriod {
            subject: "ada".to_owned(),
            start_time: from.map(at),
            end_time: to.map(at),
        };
        let explained = explain(admin, Target::SubjectPeriod(period)).await;
        assert!(!explained.truncated);
        let sessions = explained
            .explanations
            .iter()
            .filter_map(|explained| explained.session.as_ref());
        sessions.map(|session| status(session).state()).collect::<Vec<_>>()
    };
    use SessionState::{Active, Ended};
    assert_eq!(found(None, None).await, [Active, Ended], "the latest first");
    assert_eq!(found(Some(16), None).await, [Active]);
    assert_eq!(found(Some(10), Some(12)).await, [Ended]);
    assert_eq!(found(Some(16), Some(29)).await, []);
    assert_eq!(found(None, Some(-1)).await, []);
    let nobody = explain(admin, Target::SessionId(id("nobody"))).await;
    assert!(
        nobody.explanations.is_empty(),
        "a session that is not known is no error"
    );
}

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
    sidecar.sessions.policies().reload(newer).expect("a higher revision");
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

/// Many sessions of one subject are rotated again and again while all are ended.
#[tokio::test]
async fn nobody_slips_through_by_a_rotation() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    for number in 0..50 {
        create_with(client, &format!("s{number}-0"), |create| {
            create.subject = "ada".to_owned()
        })
        .await;
    }
    let mut rotator = sidecar.client().await;
    let rotating = tokio::spawn(async move {
        for round in 0..20 {
            for number in 0..50 {
                let rotate = v1::RotateRequest {
                    session_id: id(&format!("s{number}-{round}")),
                    new_session_id: id(&format!("s{number}-{}", round + 1)),
                    ..Default::default()
                };
                // Those that are ended are refused.
                let _ = rotator.rotate(rotate).await;
            }
        }
    });
    tokio::task::yield_now().await;
    let ended = end_with(admin, |end| end.filter = of("ada")).await.expect("ended");
    rotating.await.expect("no panic");
    assert_eq!(ended.ended_count, 50, "each once");
    assert!(refs(admin, of("ada").expect("a filter")).await.is_empty());
}
