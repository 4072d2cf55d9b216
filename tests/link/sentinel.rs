use session_sidecar::store::shared::link;

use super::*;
use crate::servers::{Sentinel, Server};

#[tokio::test]
async fn a_failover() {
    let primary = Server::start(&[]).await;
    let port = primary.port.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]).await;
    let sentinel = Sentinel::start(&primary).await;
    sentinel.knows_replicas(1).await;
    // A sentinel that is not there comes first.
    let url = sentinel.url().replace("://", "://127.0.0.1:1,");
    let mut running = link(settings(&url), &["c"]);
    let first = running.up().await;
    running.heard_on("c").await;
    assert_eq!(running.answer(|| call(&COUNT, "k", "")).await, Ok(Value::Int(1)));

    primary.kill();
    running.down().await;
    running.after(first).await;
    assert!(replica.ask(&["role"]).starts_with("master"));
    assert!(running.answer(|| call(&COUNT, "k", "")).await.is_ok());
    running.heard_on("c").await;

    // The old primary comes back and takes itself for one still: nobody falls for it.
    primary.restart().await;
    let role = primary.ask(&["role"]);
    assert!(role.starts_with("master"), "{role}");
    for _ in 0..2 {
        let heard = running.link.heard(b"c");
        wait_for("the next heartbeat", || {
            (running.link.heard(b"c") > heard).then_some(())
        })
        .await;
    }
    let said = replica.ask(&["info", "server"]);
    let is_it = |server: &link::Server| said.contains(&server.run_id);
    let status = running.status.borrow().clone();
    assert!(
        matches!(&status, Status::Up { servers, .. } if servers.iter().all(is_it)),
        "{status:?}"
    );
}

#[tokio::test]
async fn a_failover_by_hand_while_the_old_primary_lives() {
    let primary = Server::start(&[]).await;
    let port = primary.port.to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]).await;
    let sentinel = Sentinel::start(&primary).await;
    sentinel.knows_replicas(1).await;
    let mut running = link(settings(&sentinel.url()), &["c"]);
    let first = running.up().await;
    wait_for("the failover begins", || {
        (crate::servers::ask(sentinel.port(), &["sentinel", "failover", "main"]) == "OK").then_some(())
    })
    .await;
    running.after(first).await;
    running.heard_on("c").await;
    wait_for("the replica is the primary", || {
        replica.ask(&["role"]).starts_with("master").then_some(())
    })
    .await;
}
