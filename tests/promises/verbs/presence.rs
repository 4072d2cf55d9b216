//! Hold and Release: PRESENCE. The session ends when the browser is gone.

use std::time::Duration;

use session_sidecar::rpc::proto::v1::{self, Limit};
use tonic::Code;

use crate::support::*;

const MS: Duration = Duration::from_millis(1);
const ON: &str = "[policy.default]\npresence = \"on\"";
const SHORT: &str = "[policy.default]\npresence = { leave_grace = \"30s\", lost_grace = \"2m\" }";

#[tokio::test(start_paused = true)]
async fn it_is_off_by_default() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let before = check(client, "alice").await;
    let refused = hold(client, "alice", v1::HoldKind::Presence, "tab", mins(1)).await;
    assert_eq!(
        reason(&refused.unwrap_err()),
        (Code::FailedPrecondition, "PRESENCE_OFF".to_owned())
    );
    assert_eq!(check(client, "alice").await, before);
}

#[tokio::test(start_paused = true)]
async fn g2_it_ends_half_a_minute_after_the_last_page_was_left_and_nobody_is_warned() {
    let sidecar = Sidecar::with_policies(ON);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let mut watcher = Watcher::open(client, everything()).await;
    assert_eq!(
        check(client, "alice").await.presence_expire_time,
        None,
        "before the first page"
    );
    page(client, "alice", "tab", mins(1)).await;
    assert_eq!(
        check(client, "alice").await.presence_expire_time,
        None,
        "while one lives"
    );
    assert_eq!(left(client, "alice").await, (mins(15), Limit::Idle));
    pass(secs(10)).await;
    let left = release(client, "alice", "tab").await.expect("live");
    let status = left.status.expect("a status");
    assert_eq!((span(status.expires_in), status.limit()), (secs(30), Limit::Presence));
    assert_eq!(status.next_warning_time, None);
    let session = check(client, "alice").await;
    assert_eq!(
        between(session.create_time.as_ref(), session.presence_expire_time.as_ref()),
        secs(40)
    );
    pass(secs(30) - MS).await;
    assert_eq!(state(client, "alice").await, v1::SessionState::Active);
    assert_eq!(watcher.during(secs(1)).await, ["ended BROWSER_CLOSED"]);
    let session = check(client, "alice").await;
    assert_eq!(ended_after(&session), (secs(40), v1::EndReason::BrowserClosed));
    assert_eq!(session.end.expect("an end").actor(), v1::Actor::Policy);
}

#[tokio::test(start_paused = true)]
async fn a_lost_page_has_the_longer_grace() {
    let sidecar = Sidecar::with_policies(SHORT);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let mut watcher = Watcher::open(client, everything()).await;
    page(client, "alice", "tab", mins(1)).await;
    pass(mins(1)).await;
    assert_eq!(left(client, "alice").await, (mins(2), Limit::Presence));
    assert_eq!(watcher.during(mins(5)).await, ["ended BROWSER_CLOSED"]);
    assert_eq!(
        ended_after(&check(client, "alice").await),
        (mins(3), v1::EndReason::BrowserClosed)
    );
}

#[tokio::test(start_paused = true)]
async fn by_default_a_lost_page_has_an_idle_window_and_on_a_tie_it_was_idle() {
    let sidecar = Sidecar::with_policies(ON);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    page(client, "alice", "tab", mins(5)).await;
    pass(mins(5)).await;
    let session = check(client, "alice").await;
    assert_eq!(
        between(session.create_time.as_ref(), session.presence_expire_time.as_ref()),
        mins(20)
    );
    assert_eq!(left_of(&session), (mins(10), Limit::Idle));
    pass(mins(1)).await;
    touch(client, "alice").await.expect("live");
    let session = check(client, "alice").await;
    assert_eq!(session.presence_expire_time, session.idle_expire_time);
    assert_eq!(left_of(&session), (mins(15), Limit::Idle));
    pass(mins(15)).await;
    assert_eq!(
        ended_after(&check(client, "alice").await),
        (mins(21), v1::EndReason::IdleTimeout)
    );
}

#[tokio::test(start_paused = true)]
async fn g1_counted_activity_moves_a_pending_end_by_a_whole_grace() {
    let sidecar = Sidecar::with_policies(SHORT);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    page(client, "alice", "tab", mins(1)).await;
    release(client, "alice", "tab").await.expect("live");
    pass(secs(29)).await;
    let touched = touch(client, "alice").await.expect("live");
    assert_eq!(span(touched.status.expect("a status").expires_in), secs(30));
    pass(secs(29)).await;
    extend(client, "alice", None).await.expect("granted");
    assert_eq!(left(client, "alice").await, (secs(30), Limit::Presence));
    pass(secs(30)).await;
    assert_eq!(
        ended_after(&check(client, "alice").await),
        (secs(88), v1::EndReason::BrowserClosed)
    );
}

#[tokio::test(start_paused = true)]
async fn g9_background_requests_do_not_keep_a_closed_browsers_session() {
    let sidecar = Sidecar::with_policies(ON);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    page(client, "alice", "tab", mins(1)).await;
    release(client, "alice", "tab").await.expect("live");
    for _ in 0..3 {
        pass(secs(9)).await;
        let background = |touch: &mut v1::TouchRequest| touch.activity = v1::Activity::Background.into();
        touch_with(client, "alice", background).await.expect("live");
    }
    assert_eq!(left(client, "alice").await, (secs(3), Limit::Presence));
}

#[tokio::test(start_paused = true)]
async fn g1_a_reload_never_ends_it() {
    let sidecar = Sidecar::with_policies(ON);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    let mut watcher = Watcher::open(client, everything()).await;
    for round in 0..50 {
        let (old, new) = (format!("page-{round}"), format!("page-{}", round + 1));
        page(client, "alice", &old, mins(5)).await;
        pass(mins(2)).await;
        touch(client, "alice").await.expect("live");
        // The old page says goodbye, and the new one takes as long as it may.
        release(client, "alice", &old).await.expect("live");
        pass(secs(30) - MS).await;
        page(client, "alice", &new, mins(5)).await;
        assert_eq!(check(client, "alice").await.presence_expire_time, None);
    }
    assert!(watcher.during(mins(1)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn only_the_last_of_two_tabs_counts() {
    let sidecar = Sidecar::with_policies(SHORT);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    page(client, "alice", "one", mins(10)).await;
    page(client, "alice", "two", mins(10)).await;
    release(client, "alice", "one").await.expect("live");
    pass(mins(5)).await;
    assert_eq!(check(client, "alice").await.presence_expire_time, None);
    release(client, "alice", "two").await.expect("live");
    assert_eq!(left(client, "alice").await, (secs(30), Limit::Presence));
    // One is left, the other one is lost afterwards: what came last says which grace it is.
    page(client, "alice", "one", mins(10)).await;
    page(client, "alice", "two", mins(1)).await;
    release(client, "alice", "one").await.expect("live");
    pass(mins(1)).await;
    assert_eq!(left(client, "alice").await, (mins(2), Limit::Presence));
}

#[tokio::test(start_paused = true)]
async fn g2_work_puts_the_end_off_until_it_is_done() {
    let sidecar = Sidecar::with_policies(ON);
    let client = &mut sidecar.client().await;
    for name in ["done", "crashed"] {
        create(client, name).await;
        page(client, name, "tab", mins(1)).await;
        work(client, name, mins(5)).await.expect("held");
        release(client, name, "tab").await.expect("live");
        let session = check(client, name).await;
        assert_eq!(session.presence_expire_time, None, "none while a hold lives");
        assert_eq!(left_of(&session), (mins(20), Limit::Idle));
    }
    let mut watcher = Watcher::open(client, by_id(&["crashed"])).await;
    pass(mins(4)).await;
    // G2: passed is passed from that instant, so the answer that brings it says so.
    let over = release(client, "done", "work").await.expect("live");
    assert!(over.released);
    let status = over.status.expect("a status");
    assert_eq!(
        (status.state(), status.expires_in, status.can_extend),
        (v1::SessionState::Ended, None, false)
    );
    assert_eq!(status.expire_time, status.server_time);
    assert_eq!(
        ended_after(&check(client, "done").await),
        (mins(4), v1::EndReason::BrowserClosed),
        "the grace was over before the work"
    );
    assert_eq!(watcher.during(mins(1) + secs(1)).await, ["ended BROWSER_CLOSED"]);
    assert_eq!(
        ended_after(&check(client, "crashed").await),
        (mins(5), v1::EndReason::BrowserClosed)
    );
}

#[tokio::test(start_paused = true)]
async fn g5_a_page_that_comes_back_too_late_is_refused() {
    let sidecar = Sidecar::with_policies(ON);
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    page(client, "alice", "tab", mins(1)).await;
    release(client, "alice", "tab").await.expect("live");
    pass(secs(30)).await;
    let refused = hold(client, "alice", v1::HoldKind::Presence, "tab", mins(1)).await;
    let refused = refused.unwrap_err();
    assert_eq!(reason(&refused), (Code::FailedPrecondition, "SESSION_ENDED".to_owned()));
    assert_eq!(metadata(&refused, "reason"), "BROWSER_CLOSED");
}
