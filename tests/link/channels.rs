use super::*;
use crate::servers::Server;

#[tokio::test]
async fn what_is_published_is_heard_in_order() {
    let server = Server::start(&[]).await;
    let channels: Vec<_> = (0..16).map(|n| format!("ns:{{{n}}}")).collect();
    let names: Vec<_> = channels.iter().map(String::as_str).collect();
    let mut running = link(settings(&server.url()), &names);
    running.up().await;
    running.hear(|poke| *poke == Poke::Resubscribed).await;
    for channel in &channels {
        for payload in ["a", "b"] {
            let heard_by = running.link.call(call(&SHOUT, channel, payload)).await;
            assert_eq!(heard_by, Ok(Value::Int(1)));
        }
    }
    for channel in &channels {
        for payload in ["a", "b"] {
            let heard = tokio::time::timeout(PATIENCE, running.pokes.recv()).await;
            assert_eq!(heard.unwrap(), Some(message(channel, payload)));
        }
    }
}

#[tokio::test]
async fn a_lost_connection_is_told_after_the_channels_are_listened_to_again() {
    let server = Server::start(&[]).await;
    let mut running = link(settings(&server.url()), &["c"]);
    let first = running.up().await;
    running.hear(|poke| *poke == Poke::Resubscribed).await;
    server.ask(&["client", "kill", "type", "pubsub"]);
    running.hear(|poke| *poke == Poke::Resubscribed).await;
    running.after(first).await;
    // Nothing that is published from now on is missed.
    assert_eq!(running.answer(|| call(&SHOUT, "c", "now")).await, Ok(Value::Int(1)));
    running.hear(|poke| *poke == message("c", "now")).await;
    let heard = running.link.heard(b"c").unwrap();
    wait_for("the next heartbeat", || {
        running.link.heard(b"c").filter(|next| *next > heard)
    })
    .await;
    server.kill();
    running.down().await;
    assert_eq!(running.link.heard(b"c"), None);
}
