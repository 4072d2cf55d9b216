//! What touches cost the store. In virtual time, with the scripts on a real server.

use super::*;
use support::{
    Options, Sidecar, pass, secs,
    shared::{Place, fresh_namespace},
    touch,
};

use session_sidecar::rpc::proto::v1::explain_session_request::Target;

const WINDOW: Duration = secs(10);

fn sidecar(place: &Place, namespace: &str) -> Sidecar {
    Sidecar::with(Options {
        store: Some(place.clone()),
        namespace: Some(namespace.to_owned()),
        window: Some(WINDOW),
        ..Options::default()
    })
}

async fn is_up(sidecar: &Sidecar) {
    let (shared, _) = sidecar.shared.as_ref().expect("a store");
    while !shared.is_up() {
        pass(Duration::from_millis(1)).await;
    }
}

/// How many touches of a session it explains.
async fn explained(sidecar: &Sidecar, name: &str) -> u64 {
    let request = v1::ExplainSessionRequest {
        target: Some(Target::SessionId(id(name))),
        ..Default::default()
    };
    let answer = sidecar.admin().await.explain_session(request).await;
    let explanations = answer.expect("explained").into_inner().explanations;
    let tallies = explanations.iter().flat_map(|explanation| &explanation.tallies);
    tallies.map(|tally| tally.touch_count).sum()
}

#[tokio::test]
async fn an_active_session_costs_one_call_a_window_and_all_its_touches_are_told_of() {
    let server = Server::start(&[]).await;
    tokio::time::pause();
    let (place, namespace) = (Place::new(server.url()), fresh_namespace());
    let (a, b) = (sidecar(&place, &namespace), sidecar(&place, &namespace));
    is_up(&a).await;
    is_up(&b).await;
    let client = &mut a.client().await;
    begin(client, "alice", "default").await;
    for _ in 0..200 {
        touch(client, "alice").await.expect("live");
        pass(WINDOW / 20).await;
    }
    let raised = a.metric("store_calls_total{operation=\"raise\",outcome=\"ok\"}");
    assert!((9.0..=11.0).contains(&raised), "{raised} in ten windows");
    assert!(!a.metrics().contains("operation=\"tally\""), "told with the writes");
    let known = explained(&b, "alice").await;
    assert!(
        (170..=200).contains(&known),
        "{known} touches are known elsewhere meanwhile"
    );
    // Nothing more is written: what is left is told by itself.
    pass(2 * WINDOW + secs(6)).await;
    assert_eq!(explained(&b, "alice").await, 200);
}
