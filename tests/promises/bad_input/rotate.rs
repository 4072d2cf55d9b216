//! Rotate, and the request ids of all verbs that take one.

use std::time::Duration;

use session_sidecar::rpc::{Caller, VerbGroup};
use tonic::Code;

use super::Bench;
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn ids() {
    let mut bench = Bench::set_up().await;
    let reference = status(&bench.before).session_ref.clone();
    for (what, bad) in [
        ("oversized", "a".repeat(257)),
        ("not ASCII", "p\u{e4}ssword-p\u{e4}ssword-1".to_owned()),
        ("control character", "0123456789\u{7}012345678".to_owned()),
        ("space", "0123456789 012345678".to_owned()),
        ("too short", "0123456789abcde".to_owned()),
        ("a ref", reference),
    ] {
        let refused = bench.rotate(|rotate| rotate.session_id.clone_from(&bad)).await;
        let refused = bench.refuses(what, "session_id", refused).await;
        assert!(!refused.message().contains(&bad), "{what}: the value is not told");
        let refused = bench.rotate(|rotate| rotate.new_session_id.clone_from(&bad)).await;
        let refused = bench.refuses(what, "new_session_id", refused).await;
        assert!(!refused.message().contains(&bad), "{what}: the value is not told");
    }
    let refused = bench.rotate(|rotate| rotate.session_id = String::new()).await;
    bench.refuses("empty", "session_id", refused).await;
    let refused = bench.rotate(|rotate| rotate.new_session_id = id("alice")).await;
    bench.refuses("its own", "new_session_id", refused).await;
    for tenant in ["a".repeat(129), "a b".to_owned()] {
        let refused = bench.rotate(|rotate| rotate.tenant.clone_from(&tenant)).await;
        bench.refuses("tenant", "tenant", refused).await;
    }
    let refused = bench
        .rotate(|rotate| rotate.tenant = "shop".to_owned())
        .await
        .unwrap_err();
    assert_eq!(
        reason(&refused),
        (Code::PermissionDenied, "CALLER_NOT_ALLOWED".to_owned())
    );
    assert_eq!(check(&mut bench.client, "alice").await, bench.before);
}

#[tokio::test(start_paused = true)]
async fn subjects_and_authentications() {
    let mut bench = Bench::set_up().await;
    for (what, subject) in [
        ("empty", String::new()),
        ("oversized", "s".repeat(257)),
        ("control character", "a\u{0}b".to_owned()),
    ] {
        let refused = bench.rotate(|rotate| rotate.subject = Some(subject)).await;
        bench.refuses(what, "subject", refused).await;
    }
    let raw = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    for (what, ago) in [
        ("negative", raw(-1, 0)),
        ("negative nanos", raw(0, -1)),
        ("overflowing", raw(i64::MAX, 999_999_999)),
        ("absurd", raw(400_000_000, 0)),
        ("nanos over a second", raw(0, 1_000_000_000)),
        ("the least of all", raw(i64::MIN, i32::MIN)),
    ] {
        let refused = bench.rotate(|rotate| rotate.authenticated_ago = ago).await;
        bench.refuses(what, "authenticated_ago", refused).await;
    }
    let refused = bench
        .rotate(|rotate| rotate.authentication_level = "aal2".to_owned())
        .await;
    bench
        .refuses_over("alone", "authentication_level", "authenticated_ago", refused)
        .await;
    for (what, level) in [
        ("oversized", "l".repeat(65)),
        ("space", "a b".to_owned()),
        ("not ASCII", "\u{e4}".to_owned()),
    ] {
        let refused = bench
            .rotate(|rotate| {
                rotate.authenticated_ago = wire(Duration::ZERO);
                rotate.authentication_level.clone_from(&level);
            })
            .await;
        bench.refuses(what, "authentication_level", refused).await;
        let refused = bench.create(|create| create.authentication_level = level).await;
        bench.refuses(what, "authentication_level", refused).await;
    }
}

#[tokio::test(start_paused = true)]
async fn request_ids() {
    let mut bench = Bench::set_up().await;
    for (what, limit, bad) in [
        ("oversized", "0 to 128", "r".repeat(129)),
        ("space", "visible ASCII", "req 7f3a".to_owned()),
        ("not ASCII", "visible ASCII", "\u{e4}".to_owned()),
        ("control character", "visible ASCII", "req\u{7}7f3a".to_owned()),
    ] {
        let refused = bench.create(|create| create.request_id.clone_from(&bad)).await;
        bench.refuses_over(what, "request_id", limit, refused).await;
        let refused = bench.extend(|extend| extend.request_id.clone_from(&bad)).await;
        bench.refuses_over(what, "request_id", limit, refused).await;
        let refused = bench.rotate(|rotate| rotate.request_id.clone_from(&bad)).await;
        bench.refuses_over(what, "request_id", limit, refused).await;
        let refused = bench.end(|end| end.request_id.clone_from(&bad)).await;
        let refused = bench.refuses(what, "request_id", refused).await;
        assert!(!refused.message().contains(&bad), "{what}: it may have made an id");
    }
}

#[tokio::test(start_paused = true)]
async fn a_ref_is_no_credential_for_any_verb_but_a_question() {
    let mut bench = Bench::set_up().await;
    let reference = status(&bench.before).session_ref.clone();
    let refused = bench.touch(|touch| touch.session_id.clone_from(&reference)).await;
    bench.refuses("touch", "session_id", refused).await;
    let refused = bench.extend(|extend| extend.session_id.clone_from(&reference)).await;
    bench.refuses("extend", "session_id", refused).await;
    let refused = bench.hold(|hold| hold.session_id.clone_from(&reference)).await;
    bench.refuses("hold", "session_id", refused).await;
    let refused = bench.release(|release| release.session_id.clone_from(&reference)).await;
    bench.refuses("release", "session_id", refused).await;
    let refused = bench.rotate(|rotate| rotate.session_id.clone_from(&reference)).await;
    bench.refuses("rotate", "session_id", refused).await;
    let refused = bench.end(|end| end.session_id.clone_from(&reference)).await;
    bench.refuses("end", "session_id", refused).await;
    assert_eq!(check_ref(&mut bench.client, &reference).await, bench.before);
}

#[tokio::test(start_paused = true)]
async fn verbs_that_the_listener_does_not_give() {
    let sidecar = Sidecar::start();
    create(&mut sidecar.client().await, "alice").await;
    let denied = (Code::PermissionDenied, "CALLER_NOT_ALLOWED".to_owned());
    let with = |verbs: Vec<VerbGroup>| Caller {
        verbs,
        ..Caller::default()
    };
    let watching = &mut sidecar.client_of(with(vec![VerbGroup::WatchOwn])).await;
    assert_eq!(reason(&work(watching, "alice", secs(1)).await.unwrap_err()), denied);
    assert_eq!(reason(&release(watching, "alice", "work").await.unwrap_err()), denied);
    // A new id is issued: who may only use sessions may not.
    let using = &mut sidecar.client_of(with(vec![VerbGroup::Use])).await;
    work(using, "alice", secs(1)).await.expect("held");
    release(using, "alice", "work").await.expect("live");
    let refused = rotate_with(using, "alice", "bob", |_| {}).await.unwrap_err();
    assert_eq!(reason(&refused), denied);
    assert_eq!(
        reason(&end(using, "alice").await.unwrap_err()),
        denied,
        "End has a group of its own"
    );
    let issuing = &mut sidecar.client_of(with(vec![VerbGroup::Issue])).await;
    rotate(issuing, "alice", "bob").await;
}
