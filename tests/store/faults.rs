//! What a server may answer in place of what it is asked: each is borne, nothing is lost, and all is well again afterwards.

use super::*;
use support::*;

/// Touches until the answer comes from the store.
async fn healed(pod: &Pod, name: &str) {
    let mut client = pod.client().await;
    let healed = async {
        loop {
            if let Ok(answer) = touch(&mut client, name).await
                && answer.status.expect("a status").scope() == v1::KnowledgeScope::Store
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, healed)
        .await
        .expect("it answers from the store again");
}

/// While the store refuses: a session that is known is served from here, and nothing is created.
async fn degraded(client: &mut Client, name: &str, number: usize) {
    let local = async {
        loop {
            match touch(client, name).await {
                Ok(answer) if answer.status.as_ref().expect("a status").scope() == v1::KnowledgeScope::Local => {
                    return answer;
                }
                Ok(_) => {}
                Err(status) => assert_eq!(status.code(), Code::Unavailable),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let answer = tokio::time::timeout(PATIENCE, local).await.expect("served locally");
    assert!(answer.status.is_some());
    let request = v1::CreateRequest {
        session_id: id(&format!("late-{number}")),
        ..Default::default()
    };
    let refused = client.create(request).await.expect_err("nothing is created");
    assert_eq!(refused.code(), Code::Unavailable);
}

#[tokio::test]
async fn a_server_that_is_a_replica_busy_or_frozen_for_a_while() {
    let (server, site) = (Server::start(&["--busy-reply-threshold", "100"]).await, Site::new());
    let mut pod = site.pod(&server.url(), &["--store-window", "0s"]).await;
    let client = &mut pod.client().await;
    let alice = begin(client, "alice", "default").await;
    sure!(touch(client, "alice")).expect("live");

    server.ask(&["replicaof", "127.0.0.1", "1"]);
    degraded(client, "alice", 0).await;
    server.ask(&["replicaof", "no", "one"]);
    healed(&pod, "alice").await;

    let port = server.port.to_string();
    let mut looping = Command::new("redis-cli")
        .args(["-p", &port, "eval", "while true do end", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-cli");
    degraded(client, "alice", 1).await;
    assert_eq!(server.ask(&["script", "kill"]), "OK");
    let _ = looping.wait();
    healed(&pod, "alice").await;

    server.freeze(true);
    degraded(client, "alice", 2).await;
    server.freeze(false);
    healed(&pod, "alice").await;

    server.ask(&["client", "kill", "type", "normal"]);
    server.ask(&["client", "kill", "type", "pubsub"]);
    server.ask(&["script", "flush"]);
    healed(&pod, "alice").await;

    assert_eq!(state_of(client, &alice).await, v1::SessionState::Active);
    sure!(end(client, "alice")).expect("ended");
    assert!(pod.runs());
    let lines = pod.log().lines().count();
    assert!(lines < 60, "an outage is told on its edges: {}", pod.log());
}

#[tokio::test]
async fn g11_a_full_store_takes_no_new_session_and_serves_those_that_are_there() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let pod = site.pod(&server.url(), &["--store-window", "0s"]).await;
    let client = &mut pod.client().await;
    let watcher = &mut watch(client, everything()).await;
    begin(client, "alice", "default").await;
    begin(client, "bob", "default").await;
    assert_eq!(server.ask(&["config", "set", "maxmemory", "1mb"]), "OK");
    begin_short_before(&server, client).await;
    let create = |name: &str| v1::CreateRequest {
        session_id: id(name),
        ..Default::default()
    };
    let full = sure!(client.create(create("carol"))).unwrap_err();
    assert_eq!(reason(&full), (Code::ResourceExhausted, "STORE_FULL".to_owned()));
    let renamed = v1::RotateRequest {
        session_id: id("alice"),
        new_session_id: id("alicia"),
        ..Default::default()
    };
    let full = sure!(client.rotate(renamed.clone())).unwrap_err();
    assert_eq!(reason(&full).1, "STORE_FULL", "{full:?}");
    sure!(touch(client, "alice")).expect("touched");
    sure!(work(client, "alice", secs(5))).expect("held");
    sure!(release(client, "alice", "work")).expect("released");
    sure!(extend(client, "alice", None)).expect("extended");
    sure!(end(client, "bob")).expect("ended");
    let mut words = Vec::new();
    while words.last().is_none_or(|last| last != "ended IDLE_TIMEOUT") {
        words.push(word(&watcher.next().await));
    }
    assert_eq!(words, ["ended LOGOUT", "warning idle 1s", "ended IDLE_TIMEOUT"]);
    let (code, said) = site.store(&["check"], &server.url(), &[]);
    assert!(code == 1 && said.contains("the store is full"), "{said}");
    server.ask(&["config", "set", "maxmemory", "0"]);
    begin(client, "carol", "default").await;
    assert_eq!(state(client, "alice").await, v1::SessionState::Active);
}

/// A short session, begun in a moment in which there is room.
async fn begin_short_before(server: &Server, client: &mut Client) {
    server.ask(&["config", "set", "maxmemory", "0"]);
    begin(client, "brief", "short").await;
    server.ask(&["config", "set", "maxmemory", "1mb"]);
}

#[tokio::test]
async fn g16_a_server_that_comes_back_with_its_data_has_lost_nothing() {
    let arguments = ["--appendonly", "yes", "--appendfsync", "always"];
    let (server, site) = (Server::start(&arguments).await, Site::new());
    let pod = site.pod(&server.url(), &["--store-window", "0s"]).await;
    let client = &mut pod.client().await;
    let alice = begin(client, "alice", "default").await;
    let bob = begin(client, "bob", "default").await;
    sure!(end(client, "bob")).expect("ended");
    let watcher = &mut watch(client, everything()).await;
    server.kill();
    degraded(client, "alice", 0).await;
    server.restart().await;
    healed(&pod, "alice").await;
    assert_eq!(state_of(client, &alice).await, v1::SessionState::Active);
    assert_eq!(state_of(client, &bob).await, v1::SessionState::Ended);
    sure!(end(client, "alice")).expect("ended");
    assert_eq!(word(&watcher.next().await), "ended LOGOUT", "the watch goes on");
}

/// While a server reads its data after a start it answers LOADING.
#[tokio::test]
async fn g16_a_server_that_takes_long_to_read_its_data() {
    let arguments = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--key-load-delay",
        "5000",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let (server, site) = (Server::start(&arguments).await, Site::new());
    let mut pod = site.pod(&server.url(), &["--store-window", "0s"]).await;
    let client = &mut pod.client().await;
    let alice = begin(client, "alice", "default").await;
    for _ in 0..100 {
        sure!(touch(client, "alice")).expect("live");
    }
    server.kill();
    degraded(client, "alice", 0).await;
    let began = tokio::time::Instant::now();
    server.restart().await;
    assert!(began.elapsed() > Duration::from_millis(500), "it read for a while");
    healed(&pod, "alice").await;
    assert_eq!(state_of(client, &alice).await, v1::SessionState::Active);
    let (code, said) = site.store(&["check"], &server.url(), &[]);
    assert_eq!(code, 0, "{said}");
    assert!(pod.runs());
}
