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

    // The old primary comes back and is made a replica: nobody falls for it.
    primary.restart().await;
    wait_for("the old primary follows", || {
        primary.ask(&["role"]).starts_with("slave").then_some(())
    })
    .await;
    assert!(running.answer(|| call(&COUNT, "k", "")).await.is_ok());
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
