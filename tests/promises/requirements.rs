//! The five requirements of DESIGN.md section 1, each as a story through the public API, in virtual time.

use std::time::Duration;

use crate::support::*;
use session_sidecar::rpc::proto::v1;
use tonic::Code;
use v1::{Activity, EndReason, HoldKind, SessionState};

const MILLI: Duration = Duration::from_millis(1);

async fn hold(client: &mut Client, name: &str, hold: &str, kind: HoldKind, ttl: Duration) -> v1::HoldResponse {
    let request = v1::HoldRequest {
        session_id: id(name),
        hold_id: hold.to_owned(),
        kind: kind.into(),
        ttl: wire(ttl),
        ..Default::default()
    };
    client.hold(request).await.expect("held").into_inner()
}

async fn release(client: &mut Client, name: &str, hold: &str) {
    let request = v1::ReleaseRequest {
        session_id: id(name),
        hold_id: hold.to_owned(),
        ..Default::default()
    };
    client.release(request).await.expect("released");
}

fn end_reason(session: &v1::Session) -> EndReason {
    session.end.as_ref().expect("an end").reason()
}

#[tokio::test(start_paused = true)]
async fn r1_the_session_ends_when_the_browser_closes() {
    let sidecar = Sidecar::with_policies("[policy.default]\npresence = 'on'");
    let client = &mut sidecar.client().await;
    let mut gateway = Watcher::open(client, everything()).await;
    create(client, "ada").await;
    hold(client, "ada", "tab-1", HoldKind::Presence, mins(5)).await;
    hold(client, "ada", "tab-2", HoldKind::Presence, mins(5)).await;

    // One tab is closed: the other one is still there. It is loaded anew: it leaves, and is back at once.
    release(client, "ada", "tab-1").await;
    pass(mins(1)).await;
    release(client, "ada", "tab-2").await;
    pass(secs(2)).await;
    hold(client, "ada", "tab-2", HoldKind::Presence, mins(5)).await;
    pass(mins(1)).await;
    assert_eq!(state(client, "ada").await, SessionState::Active);

    // The last tab is closed: half a minute later the session is over, and nobody was warned.
    release(client, "ada", "tab-2").await;
    pass(secs(30) - MILLI).await;
    assert_eq!(state(client, "ada").await, SessionState::Active);
    pass(MILLI).await;
    assert_eq!(end_reason(&check(client, "ada").await), EndReason::BrowserClosed);
    assert_eq!(gateway.during(secs(1)).await, ["ended BROWSER_CLOSED"]);
}

#[tokio::test(start_paused = true)]
async fn r2_it_ends_after_inactivity_and_background_requests_are_no_activity() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "ada").await;
    pass(mins(10)).await;
    touch_with(client, "ada", |touch| touch.set_activity(Activity::User))
        .await
        .expect("live");
    for _ in 0..14 {
        pass(mins(1)).await;
        let poll = touch_with(client, "ada", |touch| touch.set_activity(Activity::Background)).await;
        assert!(!poll.expect("live").counted);
    }
    pass(mins(1) - MILLI).await;
    assert_eq!(state(client, "ada").await, SessionState::Expiring);
    pass(MILLI).await;
    assert_eq!(end_reason(&check(client, "ada").await), EndReason::IdleTimeout);
}

#[tokio::test(start_paused = true)]
async fn r3_expired_is_told_apart_from_never_there_with_the_reason() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "ada").await;
    create(client, "bob").await;
    end(client, "bob").await.expect("a logout");
    pass(mins(16)).await;
    let ada = check(client, "ada").await;
    assert_eq!(status(&ada).state(), SessionState::Ended);
    assert_eq!(end_reason(&ada), EndReason::IdleTimeout);
    assert_eq!(end_reason(&check(client, "bob").await), EndReason::Logout);
    assert_eq!(state(client, "nobody").await, SessionState::Unknown);
    let expired = touch(client, "ada").await.expect_err("refused");
    let never = touch(client, "nobody").await.expect_err("refused");
    assert_eq!(reason(&expired), (Code::FailedPrecondition, "SESSION_ENDED".to_owned()));
    assert_eq!(reason(&never), (Code::NotFound, "SESSION_UNKNOWN".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn r4_there_is_a_warning_and_a_way_to_stay() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    let mut gateway = Watcher::open(client, everything()).await;
    create(client, "ada").await;
    assert_eq!(gateway.during(mins(13) + secs(1)).await, ["warning idle 120s"]);
    extend(client, "ada", None).await.expect("she stays");
    assert_eq!(gateway.during(secs(1)).await, ["cleared idle extended"]);
    pass(mins(2)).await;
    assert_eq!(state(client, "ada").await, SessionState::Active);
}

#[tokio::test(start_paused = true)]
async fn r5_long_work_without_requests_does_not_time_out() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "ada").await;
    for _ in 0..15 {
        hold(client, "ada", "upload", HoldKind::Work, mins(5)).await;
        pass(mins(4)).await;
    }
    assert_eq!(state(client, "ada").await, SessionState::Active, "an hour later");
    // A whole idle timeout follows the end of the work.
    release(client, "ada", "upload").await;
    pass(mins(15) - MILLI).await;
    assert_eq!(state(client, "ada").await, SessionState::Expiring);
    pass(MILLI).await;
    assert_eq!(end_reason(&check(client, "ada").await), EndReason::IdleTimeout);
}
