//! GetStats.

use super::*;

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
