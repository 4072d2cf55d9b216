//! Create, Touch, Check, Extend, End, WatchExpiry, and what a listener does not give.

use std::time::Duration;

use session_sidecar::rpc::{Caller, VerbGroup, proto::v1};
use tonic::Code;

use super::Bench;
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn ids_and_tenants() {
    let mut bench = Bench::set_up().await;
    let reference = status(&bench.before).session_ref.clone();
    for (what, id) in [
        ("empty", String::new()),
        ("oversized", "a".repeat(257)),
        ("not ASCII", "pässword-pässword-1".to_owned()),
        ("control character", "0123456789\u{7}012345678".to_owned()),
        ("space", "0123456789 012345678".to_owned()),
        ("too short", "0123456789abcde".to_owned()),
        ("a ref", reference.clone()),
    ] {
        let refused = bench.touch(|touch| touch.session_id.clone_from(&id)).await;
        let refused = bench.refuses(what, "session_id", refused).await;
        assert!(
            id.is_empty() || !refused.message().contains(&id),
            "{what}: the value is not told"
        );
        if !id.is_empty() {
            let refused = bench.create(|create| create.session_id.clone_from(&id)).await;
            bench.refuses(what, "session_id", refused).await;
        }
        let extend = v1::ExtendRequest {
            session_id: id.clone(),
            ..Default::default()
        };
        let refused = bench.client.extend(extend).await.map(drop);
        bench.refuses(what, "session_id", refused).await;
        let end = v1::EndRequest {
            session_id: id,
            ..Default::default()
        };
        let refused = bench.client.end(end).await.map(drop);
        bench.refuses(what, "session_id", refused).await;
    }
    for tenant in ["a".repeat(129), "a b".to_owned(), "ä".to_owned()] {
        let refused = bench.touch(|touch| touch.tenant.clone_from(&tenant)).await;
        bench.refuses("tenant", "tenant", refused).await;
    }
    let check = v1::CheckRequest {
        name: Some(v1::check_request::Name::SessionId(reference.clone())),
        ..Default::default()
    };
    let refused = bench.client.check(check).await.map(drop);
    bench.refuses("a ref as an id", "session_id", refused).await;
    let name = v1::SessionName {
        name: Some(v1::session_name::Name::SessionId(reference)),
    };
    let watch = v1::WatchExpiryRequest {
        scope: Some(v1::WatchScope {
            scope: Some(v1::watch_scope::Scope::Sessions(v1::SessionNames { names: vec![name] })),
            ..Default::default()
        }),
        ..Default::default()
    };
    let refused = bench.client.watch_expiry(watch).await.map(drop);
    let field = "scope.sessions.names[0].session_id";
    bench.refuses("a ref as an id", field, refused).await;
    for reference in ["short", "!!!!!!!!!!!!!!!!!!!!!!", &"a".repeat(23)] {
        let check = v1::CheckRequest {
            name: Some(v1::check_request::Name::SessionRef(reference.to_owned())),
            ..Default::default()
        };
        let refused = bench.client.check(check).await.map(drop);
        bench.refuses("a bad ref", "session_ref", refused).await;
    }
}

#[tokio::test(start_paused = true)]
async fn durations() {
    let mut bench = Bench::set_up().await;
    let raw = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    let bad = [
        ("negative", raw(-1, 0)),
        ("negative nanos", raw(0, -1)),
        ("overflowing", raw(i64::MAX, 999_999_999)),
        ("absurd", raw(400_000_000, 0)),
        ("nanos over a second", raw(0, 1_000_000_000)),
        ("the least of all", raw(i64::MIN, i32::MIN)),
    ];
    for (what, duration) in bad {
        let refused = bench.touch(|touch| touch.idle_for = duration).await;
        bench.refuses(what, "idle_for", refused).await;
        for named in ["idle_for", "authenticated_ago", "idle_timeout", "absolute_timeout"] {
            let refused = bench
                .create(|create| match named {
                    "idle_for" => create.idle_for = duration,
                    "authenticated_ago" => create.authenticated_ago = duration,
                    "idle_timeout" => create.idle_timeout = duration,
                    _ => create.absolute_timeout = duration,
                })
                .await;
            bench.refuses(what, named, refused).await;
        }
        let extend = v1::ExtendRequest {
            session_id: id("alice"),
            wanted_duration: duration,
            ..Default::default()
        };
        let refused = bench.client.extend(extend).await.map(drop);
        bench.refuses(what, "wanted_duration", refused).await;
        let refused = bench.watch(|watch| watch.heartbeat_interval = duration).await;
        bench.refuses(what, "heartbeat_interval", refused).await;
    }
    // Zero, where something is wanted.
    let zero = raw(0, 0);
    let refused = bench.create(|create| create.idle_timeout = zero).await;
    bench.refuses("zero", "idle_timeout", refused).await;
    let extend = v1::ExtendRequest {
        session_id: id("alice"),
        wanted_duration: zero,
        ..Default::default()
    };
    let refused = bench.client.extend(extend).await.map(drop);
    bench.refuses("zero", "wanted_duration", refused).await;
    for (what, duration) in [("too often", raw(0, 999_999_999)), ("too seldom", raw(301, 0))] {
        let refused = bench.watch(|watch| watch.heartbeat_interval = duration).await;
        bench.refuses(what, "heartbeat_interval", refused).await;
    }
    // Looser than the policy: the limit is named.
    let refused = bench.create(|create| create.idle_timeout = raw(901, 0)).await;
    let refused = bench.refuses("looser", "idle_timeout", refused).await;
    assert!(refused.message().contains("15m"), "{}", refused.message());
}

#[tokio::test(start_paused = true)]
async fn adopting_what_has_ended_already() {
    let mut bench = Bench::set_up().await;
    let past = (Code::FailedPrecondition, "ALREADY_PAST_LIMIT".to_owned());
    let idle = bench
        .create(|create| create.idle_for = wire(mins(15)))
        .await
        .unwrap_err();
    assert_eq!(reason(&idle), past);
    assert!(idle.message().contains("idle_for") && idle.message().contains("15m"));
    let absolute = bench
        .create(|create| create.authenticated_ago = wire(mins(720)))
        .await
        .unwrap_err();
    assert_eq!(reason(&absolute), past);
    assert!(absolute.message().contains("12h"));
    assert_eq!(state(&mut bench.client, "bob").await, v1::SessionState::Unknown);
}

#[tokio::test(start_paused = true)]
async fn enum_numbers() {
    let mut bench = Bench::set_up().await;
    let refused = bench.touch(|touch| touch.activity = 99).await;
    bench.refuses("activity", "activity", refused).await;
    for (named, reason, actor) in [
        ("reason", 99, 0),
        ("reason", -1, 0),
        ("actor", 0, 99),
        ("reason", 1, 0),
        ("reason", 2, 0),
    ] {
        let end = v1::EndRequest {
            session_id: id("alice"),
            reason,
            actor,
            ..Default::default()
        };
        let refused = bench.client.end(end).await.map(drop);
        bench.refuses("end", named, refused).await;
    }
    for kind in [0, 99] {
        let refused = bench.watch(|watch| watch.kinds = vec![1, kind]).await;
        bench.refuses("kind", "kinds[1]", refused).await;
    }
}

#[tokio::test(start_paused = true)]
async fn texts_and_labels() {
    let mut bench = Bench::set_up().await;
    let label = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into_iter().collect();
    for (what, named, labels) in [
        (
            "nine",
            "labels",
            (0..9).map(|number| (format!("k{number}"), String::new())).collect(),
        ),
        ("empty key", "labels", label("", "v")),
        ("upper-case key", "labels", label("Key", "v")),
        ("long key", "labels", label(&"k".repeat(64), "v")),
        ("long value", "labels.k", label("k", &"v".repeat(129))),
        ("control character", "labels.k", label("k", "a\nb")),
    ] {
        let refused = bench.create(|create| create.labels = labels).await;
        bench.refuses(what, named, refused).await;
    }
    let refused = bench.create(|create| create.subject = "s".repeat(257)).await;
    bench.refuses("long subject", "subject", refused).await;
    let refused = bench.create(|create| create.subject = "a\0b".to_owned()).await;
    bench.refuses("control character", "subject", refused).await;
    let refused = bench.create(|create| create.request_id = "r".repeat(129)).await;
    bench.refuses("long request id", "request_id", refused).await;
    for (named, actor_id, note) in [
        ("actor_id", "a".repeat(129), String::new()),
        ("note", String::new(), "n".repeat(257)),
    ] {
        let end = v1::EndRequest {
            session_id: id("alice"),
            actor_id,
            note,
            ..Default::default()
        };
        let refused = bench.client.end(end).await.map(drop);
        bench.refuses("end", named, refused).await;
    }
    let unknown = bench
        .create(|create| create.policy = "gold".to_owned())
        .await
        .unwrap_err();
    assert_eq!(
        reason(&unknown),
        (Code::FailedPrecondition, "POLICY_UNKNOWN".to_owned())
    );
    assert!(unknown.message().contains("default"), "the known ones are named");
}

#[tokio::test(start_paused = true)]
async fn too_many_at_once() {
    let mut bench = Bench::set_up().await;
    let name = |name: &str| v1::SessionName {
        name: Some(v1::session_name::Name::SessionId(id(name))),
    };
    for (what, sessions) in [("101", vec![name("alice"); 101]), ("none", Vec::new())] {
        let check = v1::CheckRequest {
            sessions,
            ..Default::default()
        };
        let refused = bench.client.check(check).await.map(drop);
        bench.refuses(what, "sessions", refused).await;
    }
    let both = v1::CheckRequest {
        name: Some(v1::check_request::Name::SessionId(id("alice"))),
        sessions: vec![name("alice")],
        ..Default::default()
    };
    let refused = bench.client.check(both).await.map(drop);
    bench.refuses("both", "sessions", refused).await;
    let touch = v1::TouchRequest {
        session_id: id("alice"),
        ..Default::default()
    };
    for touches in [vec![touch; 1001], Vec::new()] {
        let refused = bench
            .client
            .batch_touch(v1::BatchTouchRequest { touches })
            .await
            .map(drop);
        bench.refuses("touches", "touches", refused).await;
    }
    let names = vec![name("alice"); 1001];
    let sessions = v1::watch_scope::Scope::Sessions(v1::SessionNames { names });
    let refused = bench.client.watch_expiry(scoped(sessions)).await.map(drop);
    bench.refuses("watched", "scope.sessions.names", refused).await;
    // Over the size of a message: no field is known yet.
    let large = v1::CreateRequest {
        subject: "s".repeat(1024 * 1024),
        ..Default::default()
    };
    assert_eq!(
        bench.client.create(large).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    assert_eq!(check(&mut bench.client, "alice").await, bench.before);
}

#[tokio::test(start_paused = true)]
async fn one_bad_item_fails_alone() {
    let mut bench = Bench::set_up().await;
    pass(secs(60)).await;
    let touch = |session_id: String| v1::TouchRequest {
        session_id,
        ..Default::default()
    };
    let foreign = v1::TouchRequest {
        tenant: "shop".to_owned(),
        ..touch(id("alice"))
    };
    let touches = vec![
        touch(id("alice")),
        touch("short".to_owned()),
        touch(id("nobody")),
        foreign,
    ];
    let answer = bench
        .client
        .batch_touch(v1::BatchTouchRequest { touches })
        .await
        .expect("answered");
    let codes: Vec<_> = answer
        .into_inner()
        .outcomes
        .into_iter()
        .map(|outcome| match outcome.outcome.expect("an outcome") {
            v1::touch_outcome::Outcome::Touch(touch) => (0, touch.counted.to_string()),
            v1::touch_outcome::Outcome::Error(error) => (error.code, error.reason),
        })
        .collect();
    let expected = [(0, "true"), (3, ""), (5, "SESSION_UNKNOWN"), (7, "CALLER_NOT_ALLOWED")];
    assert_eq!(codes, expected.map(|(code, word)| (code, word.to_owned())));
    let check = v1::CheckRequest {
        sessions: ["alice", "nobody"]
            .map(|name| v1::SessionName {
                name: Some(v1::session_name::Name::SessionId(id(name))),
            })
            .into_iter()
            .chain([v1::SessionName { name: None }])
            .collect(),
        ..Default::default()
    };
    let outcomes = bench.client.check(check).await.expect("answered").into_inner().outcomes;
    let states: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| match outcome.outcome.expect("an outcome") {
            v1::check_outcome::Outcome::Status(status) => status.state,
            v1::check_outcome::Outcome::Error(error) => -error.code,
        })
        .collect();
    assert_eq!(states, [1, 4, -3]);
}

#[tokio::test(start_paused = true)]
async fn watches() {
    use v1::watch_scope::Scope;

    let mut bench = Bench::set_up().await;
    for (what, named, scope) in [
        ("none", "scope", None),
        ("an empty subject", "scope.subject", Some(Scope::Subject(String::new()))),
        ("not everything", "scope.everything", Some(Scope::Everything(false))),
        ("not the tenant", "scope.whole_tenant", Some(Scope::WholeTenant(false))),
        (
            "nobody",
            "scope.sessions.names",
            Some(Scope::Sessions(v1::SessionNames { names: Vec::new() })),
        ),
        (
            "no name",
            "scope.sessions.names[0].session_id",
            Some(Scope::Sessions(v1::SessionNames {
                names: vec![v1::SessionName { name: None }],
            })),
        ),
    ] {
        let refused = bench
            .watch(|watch| watch.scope.as_mut().expect("a scope").scope = scope)
            .await;
        bench.refuses(what, named, refused).await;
    }
    let refused = bench
        .watch(|watch| watch.scope.as_mut().expect("a scope").tenant = "shop".to_owned())
        .await;
    bench.refuses("everything of a tenant", "scope.tenant", refused).await;
    let token = Watcher::open(&mut bench.client, everything()).await.token;
    for (what, token) in [
        ("garbage", "garbage".to_owned()),
        ("oversized", "A".repeat(1025)),
        ("garbled", token.replace(&token[40..44], "AAAA")),
        ("cut short", token[..token.len() - 1].to_owned()),
    ] {
        let refused = bench.watch(|watch| watch.resume_token = token).await;
        bench.refuses(what, "resume_token", refused).await;
    }
    let refused = bench
        .watch(|watch| {
            watch.resume_token = token.clone();
            watch.include_initial_state = true;
        })
        .await;
    bench.refuses("both", "include_initial_state", refused).await;
    // Another scope than the token's.
    let refused = Watcher::resume(&mut bench.client, by_id(&["alice"]), &token)
        .await
        .map(drop);
    bench.refuses("another scope", "resume_token", refused).await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_streams() {
    let sidecar = Sidecar::with(Options {
        max_watchers: 100,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let mut open = Vec::new();
    for _ in 0..100 {
        open.push(Watcher::open(client, everything()).await);
    }
    for _ in 0..9_900 {
        let refused = Watcher::try_open(client, everything()).await.err().expect("refused");
        assert_eq!(reason(&refused), (Code::ResourceExhausted, "WATCHER_CAP".to_owned()));
        assert!(refused.message().contains("100"));
    }
    assert!(touch(client, "alice").await.is_ok());
    drop(open);
    pass(Duration::from_millis(1)).await;
    Watcher::open(client, everything()).await;
}

#[tokio::test(start_paused = true)]
async fn verbs_that_the_listener_does_not_give() {
    let sidecar = Sidecar::start();
    create(&mut sidecar.client().await, "alice").await;
    let mut none = sidecar
        .client_of(Caller {
            verbs: vec![VerbGroup::WatchOwn],
            ..Caller::default()
        })
        .await;
    let denied = (Code::PermissionDenied, "CALLER_NOT_ALLOWED".to_owned());
    let create = v1::CreateRequest::default();
    assert_eq!(reason(&none.create(create).await.unwrap_err()), denied);
    assert_eq!(reason(&touch(&mut none, "alice").await.unwrap_err()), denied);
    assert_eq!(reason(&extend(&mut none, "alice", None).await.unwrap_err()), denied);
    assert_eq!(reason(&end(&mut none, "alice").await.unwrap_err()), denied);
    let check = v1::CheckRequest::default();
    assert_eq!(reason(&none.check(check).await.unwrap_err()), denied);
    let batch = v1::BatchTouchRequest::default();
    assert_eq!(reason(&none.batch_touch(batch).await.unwrap_err()), denied);
    Watcher::open(&mut none, by_id(&["alice"])).await;
    let all = Watcher::try_open(&mut none, everything()).await;
    assert_eq!(reason(&all.err().expect("refused")), denied);
}
