//! Hold and Release: WORK. Nobody is thrown out of long work.

use std::time::Duration;

use session_sidecar::rpc::proto::v1::{self, HoldClamp, Limit};
use tonic::Code;

use crate::support::*;

const MS: Duration = Duration::from_millis(1);

fn granted(held: &v1::HoldResponse) -> (Duration, HoldClamp) {
    (span(held.granted_ttl), held.clamped_by())
}

#[tokio::test(start_paused = true)]
async fn g1_work_keeps_a_session_and_a_full_idle_window_follows_its_lapse_to_the_millisecond() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(10)).await;
    let held = work(client, "alice", mins(5)).await.expect("held");
    assert_eq!(granted(&held), (mins(5), HoldClamp::Unspecified));
    assert!(held.created);
    // The formula: max(last activity, furthest WORK end) + idle timeout.
    assert_eq!(span(held.status.expect("a status").expires_in), mins(20));
    assert_eq!(left(client, "alice").await, (mins(20), Limit::Idle));
    pass(mins(20) - MS).await;
    assert_eq!(left(client, "alice").await, (MS, Limit::Idle));
    pass(MS).await;
    let session = check(client, "alice").await;
    assert_eq!(ended_after(&session), (mins(30), v1::EndReason::IdleTimeout));
}

#[tokio::test(start_paused = true)]
async fn a_full_idle_window_follows_a_release() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(14)).await;
    work(client, "alice", mins(5)).await.expect("held");
    pass(mins(2)).await;
    let released = release(client, "alice", "work").await.expect("live");
    assert!(released.released);
    assert_eq!(span(released.status.expect("a status").expires_in), mins(15));
    pass(mins(15) - MS).await;
    assert_eq!(left(client, "alice").await, (MS, Limit::Idle));
    pass(MS).await;
    let session = check(client, "alice").await;
    assert_eq!(ended_after(&session), (mins(31), v1::EndReason::IdleTimeout));
}

#[tokio::test(start_paused = true)]
async fn g2_a_release_moves_the_deadline_nearer_and_everything_comes_at_its_new_time() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let mut watcher = Watcher::open(client, everything()).await;
    work(client, "alice", mins(5)).await.expect("held");
    pass(mins(1)).await;
    release(client, "alice", "work").await.expect("live");
    // A window of 15 minutes from the release on, warned at two minutes and at one.
    assert!(watcher.during(mins(13) - MS).await.is_empty());
    assert_eq!(watcher.during(secs(1)).await, ["warning idle 120s"]);
    assert_eq!(watcher.during(mins(1)).await, ["warning idle 60s"]);
    assert_eq!(watcher.during(mins(1)).await, ["ended IDLE_TIMEOUT"]);
    assert_eq!(ended_after(&check(client, "alice").await).0, mins(16));
}

#[tokio::test(start_paused = true)]
async fn work_and_an_extension_count_whichever_reaches_further() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    extend(client, "alice", Some(mins(18))).await.expect("granted");
    let held = work(client, "alice", mins(1)).await.expect("held");
    assert_eq!(span(held.status.expect("a status").expires_in), mins(18));
    let held = work(client, "alice", mins(4)).await.expect("held");
    assert_eq!(span(held.status.expect("a status").expires_in), mins(19));
    // Activity later than the work's end begins its own window.
    pass(mins(6)).await;
    touch(client, "alice").await.expect("live");
    assert_eq!(left(client, "alice").await, (mins(15), Limit::Idle));
}

#[tokio::test(start_paused = true)]
async fn the_furthest_work_end_counts_also_that_of_a_hold_that_is_over() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    hold(client, "alice", v1::HoldKind::Work, "long", mins(5))
        .await
        .expect("held");
    hold(client, "alice", v1::HoldKind::Work, "short", mins(1))
        .await
        .expect("held");
    pass(mins(2)).await;
    // The long one decides, whether the short one lapses or is released.
    assert_eq!(left(client, "alice").await, (mins(18), Limit::Idle));
    assert!(!release(client, "alice", "short").await.expect("live").released);
    release(client, "alice", "long").await.expect("live");
    assert_eq!(left(client, "alice").await, (mins(15), Limit::Idle));
}

#[tokio::test(start_paused = true)]
async fn a_ttl_is_cut_to_the_policys_and_a_renewal_never_shortens() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let held = work(client, "alice", mins(10)).await.expect("held");
    assert_eq!(granted(&held), (mins(5), HoldClamp::MaxTtl));
    pass(mins(1)).await;
    let renewed = work(client, "alice", secs(1)).await.expect("renewed");
    assert!(!renewed.created);
    assert_eq!(granted(&renewed), (mins(4), HoldClamp::Unspecified));
    assert_eq!(left(client, "alice").await, (mins(19), Limit::Idle));
}

#[tokio::test(start_paused = true)]
async fn the_budget_cuts_and_is_refused_only_when_nothing_is_left() {
    let sidecar = Sidecar::with_policies("[policy.default]\nwork_hold = { max_ttl = \"5m\", budget = \"12m\" }");
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(3)).await;
    // It counts from the first hold on, not from the creation.
    assert_eq!(
        granted(&work(client, "alice", mins(5)).await.expect("held")),
        (mins(5), HoldClamp::Unspecified)
    );
    pass(mins(4)).await;
    assert_eq!(
        granted(&work(client, "alice", mins(5)).await.expect("held")),
        (mins(5), HoldClamp::Unspecified)
    );
    pass(mins(4)).await;
    assert_eq!(
        granted(&work(client, "alice", mins(5)).await.expect("held")),
        (mins(4), HoldClamp::Budget)
    );
    pass(mins(4) - MS).await;
    assert_eq!(
        granted(&work(client, "alice", mins(5)).await.expect("held")),
        (MS, HoldClamp::Budget)
    );
    pass(MS).await;
    let refused = work(client, "alice", mins(5)).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::ResourceExhausted, "HOLD_BUDGET".to_owned()));
    assert!(refused.message().contains("12m"), "{}", refused.message());
    // By another id neither: the budget is the session's.
    let refused = hold(client, "alice", v1::HoldKind::Work, "other", mins(1)).await;
    assert_eq!(reason(&refused.unwrap_err()).1, "HOLD_BUDGET");
    assert_eq!(left(client, "alice").await, (mins(15), Limit::Idle));
}

#[tokio::test(start_paused = true)]
async fn only_what_a_person_surely_did_renews_the_budget() {
    let policy = "[policy.default]\nwork_hold = { max_ttl = \"5m\", budget = \"5m\" }";
    let sidecar = Sidecar::with_policies(policy);
    let client = &mut sidecar.client().await;
    let exhausted = async |client: &mut Client| {
        create(client, "alice").await;
        work(client, "alice", mins(5)).await.expect("held");
        pass(mins(5)).await;
        assert_eq!(
            reason(&work(client, "alice", mins(5)).await.unwrap_err()).1,
            "HOLD_BUDGET"
        );
    };
    exhausted(client).await;
    // What counts only because nothing matched, and what does not count.
    assert!(touch(client, "alice").await.expect("live").counted);
    touch_with(client, "alice", |touch| {
        touch.activity = v1::Activity::Background.into()
    })
    .await
    .expect("live");
    pass(secs(1)).await;
    assert_eq!(
        reason(&work(client, "alice", mins(5)).await.unwrap_err()).1,
        "HOLD_BUDGET"
    );
    // A declared person.
    touch_user(client, "alice").await;
    assert_eq!(
        granted(&work(client, "alice", mins(5)).await.expect("held")),
        (mins(5), HoldClamp::Unspecified)
    );
    // A touch that a rule counts.
    pass(mins(5)).await;
    work(client, "alice", mins(5)).await.unwrap_err();
    touch_hinted(client, "alice", |hints| {
        hints.sec_fetch_mode = "navigate".to_owned();
        hints.sec_fetch_user = "?1".to_owned();
    })
    .await
    .expect("live");
    assert_eq!(granted(&work(client, "alice", mins(5)).await.expect("held")).0, mins(5));
    // An Extend.
    pass(mins(5)).await;
    work(client, "alice", mins(5)).await.unwrap_err();
    extend(client, "alice", None).await.expect("granted");
    assert_eq!(granted(&work(client, "alice", mins(5)).await.expect("held")).0, mins(5));
    // A Rotate with authentication; without, none.
    pass(mins(5)).await;
    rotate(client, "alice", "bob").await;
    work(client, "bob", mins(5)).await.unwrap_err();
    rotate_with(client, "bob", "carol", |request| {
        request.authenticated_ago = wire(Duration::ZERO)
    })
    .await
    .expect("rotated");
    assert_eq!(granted(&work(client, "carol", mins(5)).await.expect("held")).0, mins(5));
}

#[tokio::test(start_paused = true)]
async fn g7_no_hold_reaches_past_the_absolute_deadline() {
    let sidecar = Sidecar::with_policies("[policy.default]\npresence = \"on\"");
    let client = &mut sidecar.client().await;
    create_with(client, "alice", |request| {
        request.authenticated_ago = wire(mins(12 * 60 - 3))
    })
    .await;
    let held = work(client, "alice", mins(5)).await.expect("held");
    assert_eq!(granted(&held), (mins(3), HoldClamp::Absolute));
    let seen = page(client, "alice", "tab", mins(5)).await;
    assert_eq!(granted(&seen), (mins(3), HoldClamp::Absolute));
    assert_eq!(left(client, "alice").await, (mins(3), Limit::Absolute));
    pass(mins(3)).await;
    let session = check(client, "alice").await;
    assert_eq!(ended_after(&session), (mins(3), v1::EndReason::AbsoluteTimeout));
    let refused = work(client, "alice", mins(1)).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "SESSION_ENDED".to_owned()));
    assert_eq!(
        reason(&release(client, "alice", "work").await.unwrap_err()).1,
        "SESSION_ENDED"
    );
}

#[tokio::test(start_paused = true)]
async fn so_many_holds_of_a_kind_may_live() {
    let sidecar = Sidecar::with_policies(
        "[policy.default]\nwork_hold = { max_live = 2 }\npresence = { max_live = 1 }\n[policy.off]\nwork_hold = \"off\"",
    );
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let work = |hold_id| (v1::HoldKind::Work, hold_id);
    for (kind, hold_id) in [work("a"), work("b"), (v1::HoldKind::Presence, "tab")] {
        hold(client, "alice", kind, hold_id, mins(1)).await.expect("held");
    }
    for (kind, hold_id) in [work("c"), (v1::HoldKind::Presence, "tab-2")] {
        let refused = hold(client, "alice", kind, hold_id, mins(1)).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::ResourceExhausted, "HOLD_CAP".to_owned()));
    }
    // Renewing is no more, and who leaves makes room: by a release or by a lapse.
    hold(client, "alice", v1::HoldKind::Work, "a", mins(2))
        .await
        .expect("renewed");
    release(client, "alice", "b").await.expect("live");
    hold(client, "alice", v1::HoldKind::Work, "c", mins(1))
        .await
        .expect("held");
    pass(mins(1)).await;
    hold(client, "alice", v1::HoldKind::Work, "d", mins(1))
        .await
        .expect("held");
    create_with(client, "bob", |request| request.policy = "off".to_owned()).await;
    let refused = hold(client, "bob", v1::HoldKind::Work, "a", mins(1)).await.unwrap_err();
    assert_eq!(reason(&refused).0, Code::ResourceExhausted);
    assert!(
        refused.message().contains("set its key `work_hold`"),
        "there is nothing to release"
    );
}

#[tokio::test(start_paused = true)]
async fn a_hold_has_one_kind_and_check_shows_it_with_its_purpose() {
    let sidecar = Sidecar::with_policies("[policy.default]\npresence = \"on\"");
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let request = v1::HoldRequest {
        session_id: id("alice"),
        hold_id: "report-17".to_owned(),
        kind: v1::HoldKind::Work.into(),
        ttl: wire(mins(3)),
        purpose: "monthly report".to_owned(),
        ..Default::default()
    };
    client.hold(request.clone()).await.expect("held");
    let other = v1::HoldRequest {
        kind: v1::HoldKind::Presence.into(),
        ..request.clone()
    };
    let refused = client.hold(other.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "HOLD_KIND".to_owned()));
    pass(mins(1)).await;
    let renewal = v1::HoldRequest {
        purpose: String::new(),
        ..request
    };
    client.hold(renewal).await.expect("renewed");
    let session = check(client, "alice").await;
    let [held] = session.holds.as_slice() else {
        panic!("one hold: {:?}", session.holds)
    };
    assert_eq!(
        (held.hold_id.as_str(), held.kind(), held.purpose.as_str()),
        ("report-17", v1::HoldKind::Work, "monthly report")
    );
    assert_eq!(span(held.expires_in), mins(3));
    assert_eq!(
        between(session.create_time.as_ref(), held.start_time.as_ref()),
        Duration::ZERO
    );
    assert_eq!(between(held.start_time.as_ref(), held.expire_time.as_ref()), mins(4));
    // Over, it may come back as the other kind.
    release(client, "alice", "report-17").await.expect("live");
    assert!(check(client, "alice").await.holds.is_empty());
    client.hold(other).await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn the_release_of_a_hold_that_is_not_there_is_no_error_and_changes_nothing() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let before = check(client, "alice").await;
    let released = release(client, "alice", "work").await.expect("OK");
    assert!(!released.released);
    assert_eq!(check(client, "alice").await, before);
    let refused = release(client, "nobody", "work").await.unwrap_err();
    assert_eq!(reason(&refused), (Code::NotFound, "SESSION_UNKNOWN".to_owned()));
    let refused = work(client, "nobody", mins(1)).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::NotFound, "SESSION_UNKNOWN".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn g4_work_withdraws_an_idle_warning_and_never_an_absolute_one() {
    let policy = "[policy.default]\nabsolute_timeout = \"20m\"\nabsolute_warn_before = [\"7m\"]";
    let sidecar = Sidecar::with_policies(policy);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let mut watcher = Watcher::open(client, everything()).await;
    let words = watcher.during(mins(14) + secs(1)).await;
    assert_eq!(
        words,
        ["warning idle 120s", "warning absolute 420s", "warning idle 60s"]
    );
    assert_eq!(state(client, "alice").await, v1::SessionState::Expiring);
    let held = work(client, "alice", mins(1)).await.expect("held");
    assert_eq!(
        held.status.expect("a status").state(),
        v1::SessionState::Expiring,
        "the absolute warning stands"
    );
    assert_eq!(watcher.during(secs(1)).await, ["cleared idle held"]);
    release(client, "alice", "work").await.expect("live");
    assert_eq!(watcher.during(mins(6)).await, ["ended ABSOLUTE_TIMEOUT"]);
}

#[tokio::test(start_paused = true)]
async fn g3_work_that_lapses_unnoticed_is_warned_of_at_the_end_of_its_window() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let mut watcher = Watcher::open(client, everything()).await;
    pass(mins(12)).await;
    work(client, "alice", mins(5)).await.expect("held");
    assert!(watcher.during(mins(18) - MS).await.is_empty(), "17 + 15 - 2");
    assert_eq!(
        watcher.during(mins(2) + secs(1)).await,
        ["warning idle 120s", "warning idle 60s", "ended IDLE_TIMEOUT"]
    );
}
