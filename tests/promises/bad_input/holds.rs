//! Hold, Release, and the hints of a touch.

use session_sidecar::rpc::proto::v1;
use tonic::Code;

use super::Bench;
use crate::support::*;

#[tokio::test(start_paused = true)]
async fn ids_of_sessions() {
    let mut bench = Bench::set_up().await;
    let reference = status(&bench.before).session_ref.clone();
    for (what, id) in [
        ("empty", String::new()),
        ("oversized", "a".repeat(257)),
        ("not ASCII", "p\u{e4}ssword-p\u{e4}ssword-1".to_owned()),
        ("control character", "0123456789\u{7}012345678".to_owned()),
        ("space", "0123456789 012345678".to_owned()),
        ("too short", "0123456789abcde".to_owned()),
        ("a ref", reference),
    ] {
        let refused = bench.hold(|hold| hold.session_id.clone_from(&id)).await;
        let refused = bench.refuses(what, "session_id", refused).await;
        assert!(
            id.is_empty() || !refused.message().contains(&id),
            "the value is not told"
        );
        let refused = bench.release(|release| release.session_id.clone_from(&id)).await;
        bench.refuses(what, "session_id", refused).await;
    }
    for tenant in ["a".repeat(129), "a b".to_owned(), "\u{e4}".to_owned()] {
        let refused = bench.hold(|hold| hold.tenant.clone_from(&tenant)).await;
        bench.refuses("tenant", "tenant", refused).await;
        let refused = bench.release(|release| release.tenant.clone_from(&tenant)).await;
        bench.refuses("tenant", "tenant", refused).await;
    }
}

#[tokio::test(start_paused = true)]
async fn ids_of_holds_and_purposes() {
    let mut bench = Bench::set_up().await;
    for (what, limit, hold_id) in [
        ("empty", "1 to 64 bytes", String::new()),
        ("oversized", "1 to 64", "h".repeat(65)),
        ("not ASCII", "visible ASCII", "h\u{f6}ld".to_owned()),
        ("control character", "visible ASCII", "a\nb".to_owned()),
        ("space", "visible ASCII", "a b".to_owned()),
    ] {
        let refused = bench.hold(|hold| hold.hold_id.clone_from(&hold_id)).await;
        bench.refuses_over(what, "hold_id", limit, refused).await;
        let refused = bench.release(|release| release.hold_id.clone_from(&hold_id)).await;
        bench.refuses_over(what, "hold_id", limit, refused).await;
    }
    for (what, limit, purpose) in [
        ("oversized", "at most 128", "p".repeat(129)),
        ("oversized in bytes", "at most 128", "\u{20ac}".repeat(43)),
        ("control character", "control character", "a\u{0}b".to_owned()),
    ] {
        let refused = bench.hold(|hold| hold.purpose = purpose).await;
        bench.refuses_over(what, "purpose", limit, refused).await;
    }
    // As long as they may be.
    let longest = |hold: &mut v1::HoldRequest| {
        hold.hold_id = "h".repeat(64);
        hold.purpose = "p".repeat(128);
    };
    bench.hold(longest).await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn kinds_and_ttls() {
    let mut bench = Bench::set_up().await;
    for kind in [0, 3, -1, i32::MAX] {
        let refused = bench.hold(|hold| hold.kind = kind).await;
        bench.refuses("kind", "kind", refused).await;
    }
    let raw = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    for (what, ttl) in [
        ("none", None),
        ("zero", raw(0, 0)),
        ("negative", raw(-1, 0)),
        ("negative nanos", raw(0, -1)),
        ("overflowing", raw(i64::MAX, 999_999_999)),
        ("absurd", raw(400_000_000, 0)),
        ("nanos over a second", raw(0, 1_000_000_000)),
        ("the least of all", raw(i64::MIN, i32::MIN)),
    ] {
        for kind in [v1::HoldKind::Work, v1::HoldKind::Presence] {
            let refused = bench
                .hold(|hold| {
                    hold.ttl = ttl;
                    hold.kind = kind.into();
                })
                .await;
            bench.refuses(what, "ttl", refused).await;
        }
    }
    let refused = bench.hold(|hold| hold.ttl = raw(400_000_000, 0)).await;
    bench.refuses_over("absurd", "ttl", "10 years", refused).await;
    // The shortest and the longest that are believed.
    bench.hold(|hold| hold.ttl = raw(0, 1)).await.expect("held");
    bench.hold(|hold| hold.ttl = raw(315_000_000, 0)).await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn hints() {
    type Set = fn(&mut v1::TouchHints, String);

    let mut bench = Bench::set_up().await;
    let fields: [(&str, usize, Set); 7] = [
        ("hints.host", 255, |hints, text| hints.host = text),
        ("hints.method", 32, |hints, text| hints.method = text),
        ("hints.path", 2048, |hints, text| hints.path = text),
        ("hints.sec_fetch_user", 64, |hints, text| hints.sec_fetch_user = text),
        ("hints.sec_fetch_mode", 64, |hints, text| hints.sec_fetch_mode = text),
        ("hints.sec_fetch_dest", 64, |hints, text| hints.sec_fetch_dest = text),
        ("hints.sec_purpose", 64, |hints, text| hints.sec_purpose = text),
    ];
    for (named, longest, set) in fields {
        let refused = bench.hinted(|hints| set(hints, "x".repeat(longest + 1))).await;
        let limit = format!("at most {longest}");
        bench.refuses_over("oversized", named, &limit, refused).await;
        for bad in ["a\u{0}b", "a\nb", "\u{e4}", "\u{7f}"] {
            let refused = bench.hinted(|hints| set(hints, bad.to_owned())).await;
            bench.refuses_over("bytes", named, "visible ASCII", refused).await;
        }
    }
    for number in [3, -1, i32::MIN] {
        let refused = bench.hinted(|hints| hints.page_visibility = number).await;
        bench.refuses("unknown number", "hints.page_visibility", refused).await;
    }
    for (named, longest, set) in fields {
        let held = bench.hinted(|hints| set(hints, "x".repeat(longest))).await;
        held.unwrap_or_else(|refused| panic!("{named}: {refused}"));
    }
}

#[tokio::test(start_paused = true)]
async fn one_touch_of_a_batch_with_bad_hints_fails_alone() {
    let mut bench = Bench::set_up().await;
    let touch = |method: &str| v1::TouchRequest {
        session_id: id("alice"),
        hints: Some(v1::TouchHints {
            method: method.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let touches = vec![touch("GET"), touch(&"G".repeat(33)), touch("GET")];
    let answer = bench.client.batch_touch(v1::BatchTouchRequest { touches }).await;
    let errors: Vec<_> = answer
        .expect("answered")
        .into_inner()
        .outcomes
        .into_iter()
        .map(|outcome| match outcome.outcome.expect("an outcome") {
            v1::touch_outcome::Outcome::Touch(_) => String::new(),
            v1::touch_outcome::Outcome::Error(error) => error.message,
        })
        .collect();
    assert!(errors[0].is_empty() && errors[2].is_empty());
    assert!(
        errors[1].contains("hints.method") && errors[1].contains("at most 32"),
        "{errors:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn too_many_holds_cost_bounded_memory() {
    let mut bench = Bench::set_up().await;
    let mut held = 0;
    for number in 0..1000 {
        let work = bench.hold(|hold| hold.hold_id = format!("hold-{number}")).await;
        let page = bench
            .hold(|hold| {
                hold.hold_id = format!("page-{number}");
                hold.kind = v1::HoldKind::Presence.into();
            })
            .await;
        for outcome in [work, page] {
            match outcome {
                Ok(()) => held += 1,
                Err(refused) => {
                    assert_eq!(reason(&refused), (Code::ResourceExhausted, "HOLD_CAP".to_owned()));
                    assert!(refused.message().contains("max_live"), "{}", refused.message());
                }
            }
        }
    }
    assert_eq!(held, 8 + 64);
    assert_eq!(check(&mut bench.client, "alice").await.holds.len(), held);
}
