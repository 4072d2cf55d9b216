use tokio_util::sync::CancellationToken;

use super::*;
use crate::servers::Cluster;

fn channels() -> Vec<String> {
    (0..64).map(|n| format!("ss1:{{{n}}}:events")).collect()
}

async fn all_are_heard(running: &mut Running) {
    for channel in channels() {
        running.heard_on(&channel).await;
    }
}

/// One call to each bucket, all at once.
async fn count_all(running: &Running) -> Vec<Result<Value, Fault>> {
    let keys: Vec<_> = (0..64).map(|n| format!("ss1:{{{n}}}:count")).collect();
    running
        .link
        .calls(keys.iter().map(|key| call(&COUNT, key, "")).collect())
        .await
}

async fn running_on(cluster: &Cluster) -> Running {
    let channels = channels();
    let names: Vec<_> = channels.iter().map(String::as_str).collect();
    let mut running = link(settings(&cluster.url()), &names);
    running.up().await;
    running
}

#[tokio::test]
async fn calls_and_messages_find_their_way_and_follow_a_slot_that_moves() {
    let cluster = Cluster::start(3, 0).await;
    let mut running = running_on(&cluster).await;
    let (sender, _pokes) = mpsc::unbounded_channel();
    let checked = Link::new(settings(&cluster.url()), Vec::new(), sender).check().await;
    assert_eq!(checked.unwrap().len(), 3);
    for expected in 1..=3 {
        assert_eq!(count_all(&running).await, vec![Ok(Value::Int(expected)); 64]);
    }
    all_are_heard(&mut running).await;

    let slot: u16 = cluster.nodes[0].ask(&["cluster", "keyslot", "{7}"]).parse().unwrap();
    let from = cluster.owner(slot).port;
    let to = cluster.nodes.iter().find(|node| node.port != from).unwrap();
    cluster.move_slot(slot, to);
    // The first call may still be sent to the old owner, which says where to go: the caller does not notice.
    assert_eq!(
        running.link.call(call(&COUNT, "ss1:{7}:count", "")).await,
        Ok(Value::Int(4))
    );
    running.hear(|poke| *poke == Poke::Resubscribed).await;
    running.heard_on("ss1:{7}:events").await;
    // And no reply went to the wrong call.
    let answers = count_all(&running).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, Ok(Value::Int(if n == 7 { 5 } else { 4 })));
    }
    all_are_heard(&mut running).await;
}

/// Asks and compares all the time, until `over`. Answers how often.
async fn echo(link: Arc<Link>, over: CancellationToken) -> u64 {
    let mut asked = 0;
    while !over.is_cancelled() {
        let args: Vec<_> = (0..64).map(|n| format!("{asked} {n}")).collect();
        let calls = args
            .iter()
            .enumerate()
            .map(|(n, arg)| call(&ECHO, &format!("ss1:{{{n}}}:echo"), arg));
        for (arg, answer) in args.iter().zip(link.calls(calls.collect()).await) {
            match answer {
                Err(fault) => assert!(fault.is_transient(), "{fault}"),
                answer => assert_eq!(answer, text(arg)),
            }
        }
        asked += 1;
    }
    asked
}

#[tokio::test]
async fn no_call_gets_the_reply_of_another_while_slots_move() {
    let cluster = Cluster::start(3, 0).await;
    let mut running = running_on(&cluster).await;
    let over = CancellationToken::new();
    let asking = tokio::spawn(echo(Arc::clone(&running.link), over.clone()));
    for n in 0..12 {
        let slot = cluster.nodes[0]
            .ask(&["cluster", "keyslot", &format!("{{{n}}}")])
            .parse()
            .unwrap();
        let from = cluster.owner(slot).port;
        let to = cluster.nodes.iter().find(|node| node.port != from).unwrap();
        cluster.move_slot(slot, to);
        running.heard_on(&format!("ss1:{{{n}}}:events")).await;
    }
    over.cancel();
    assert!(asking.await.unwrap() > 12);
    all_are_heard(&mut running).await;
}

#[tokio::test]
async fn keys_that_are_on_the_way_are_asked_for_where_they_are() {
    let cluster = Cluster::start(3, 0).await;
    let mut running = running_on(&cluster).await;
    running.up().await;
    let slot = cluster.nodes[0].ask(&["cluster", "keyslot", "{7}"]);
    let from = cluster.owner(slot.parse().unwrap());
    let to = cluster.nodes.iter().find(|node| node.port != from.port).unwrap();
    let (from_id, to_id) = (from.ask(&["cluster", "myid"]), to.ask(&["cluster", "myid"]));
    assert_eq!(to.ask(&["cluster", "setslot", &slot, "importing", &from_id]), "OK");
    assert_eq!(from.ask(&["cluster", "setslot", &slot, "migrating", &to_id]), "OK");
    // The key is not there any more, as the old owner sees it.
    assert_eq!(
        running.answer(|| call(&COUNT, "ss1:{7}:count", "")).await,
        Ok(Value::Int(1))
    );
    assert_eq!(
        running.answer(|| call(&COUNT, "ss1:{7}:count", "")).await,
        Ok(Value::Int(2))
    );
    assert_eq!(from.ask(&["cluster", "countkeysinslot", &slot]), "0");
    assert_eq!(to.ask(&["cluster", "countkeysinslot", &slot]), "1");
}

#[tokio::test]
async fn a_dead_primary_is_replaced_and_the_others_go_on() {
    let cluster = Cluster::start(3, 1).await;
    let mut running = running_on(&cluster).await;
    let first = running.up().await;
    assert_eq!(count_all(&running).await, vec![Ok(Value::Int(1)); 64]);
    for node in &cluster.nodes {
        wait_for("the replicas follow", || {
            let said = node.ask(&["info", "replication"]);
            (said.contains("master_link_status:up") || said.contains("state=online")).then_some(())
        })
        .await;
    }
    let slot: u16 = cluster.nodes[0].ask(&["cluster", "keyslot", "{7}"]).parse().unwrap();
    let dead = cluster.owner(slot);
    dead.kill();
    // Some buckets are away and say so; the others are not.
    let (mut away, mut there) = (0, 0);
    for answer in count_all(&running).await {
        match answer {
            Ok(_) => there += 1,
            Err(fault) => {
                assert!(fault.is_transient(), "{fault}");
                away += 1;
            }
        }
    }
    assert!(away > 0 && there > away, "{away} are away, {there} are there");
    running.after(first).await;
    assert!(running.answer(|| call(&COUNT, "ss1:{7}:count", "")).await.is_ok());
    all_are_heard(&mut running).await;
    assert!(count_all(&running).await.iter().all(Result::is_ok));
}
