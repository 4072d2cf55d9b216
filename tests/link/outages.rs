use std::{cell::RefCell, collections::BTreeSet, io};

use super::*;
use crate::servers::Server;

#[tokio::test]
async fn a_call_ends_in_time_and_three_in_vain_mean_that_the_store_is_gone() {
    let server = Server::start(&[]).await;
    let mut settings = settings(&server.url());
    settings.timeout = Duration::from_millis(100);
    let mut running = link(settings, &[]);
    let first = running.up().await;
    server.freeze(true);
    let mut timeouts = 0;
    // It may have been noticed before by the heartbeat, if this machine is slow.
    loop {
        let asked = tokio::time::Instant::now();
        match running.link.call(call(&ECHO, "k", "a")).await {
            // One that ends much later than its time says that this process stood still, not that the server did.
            Err(Fault::Timeout) if asked.elapsed() >= Duration::from_millis(200) => {}
            Err(Fault::Timeout) => timeouts += 1,
            fault => {
                assert_eq!(fault, Err(Fault::Down));
                break;
            }
        }
    }
    assert!(timeouts <= 3, "{timeouts}");
    running.down().await;
    assert_eq!(running.link.call(call(&ECHO, "k", "a")).await, Err(Fault::Down));
    server.freeze(false);
    running.after(first).await;
    assert_eq!(running.answer(|| call(&ECHO, "k", "a")).await, text("a"));
}

/// What a server that was started again, or took over, has forgotten must be told before anybody asks it.
#[tokio::test]
async fn a_server_that_is_not_known_is_asked_only_by_those_who_get_to_know_it() {
    let server = Server::start(&[]).await;
    let mut running = link(settings(&server.url()), &[]);
    let first = running.up().await;
    let known = running.link.server(b"k").expect("it is connected").identity();
    running.link.admit(BTreeSet::from([known.clone()]));
    assert_eq!(running.link.call(call(&ECHO, "k", "a")).await, text("a"));
    server.restart().await;
    running.after(first).await;
    let stranger = running.link.server(b"k").expect("it is connected").identity();
    assert_ne!(stranger, known);
    assert_eq!(running.link.call(call(&ECHO, "k", "a")).await, Err(Fault::Down));
    let asked = GETS_TO_KNOW.scope((), running.link.call(call(&ECHO, "k", "a")));
    assert_eq!(asked.await, text("a"));
    assert_eq!(running.link.call(call(&ECHO, "k", "a")).await, Err(Fault::Down));
    running.link.admit(BTreeSet::from([known, stranger]));
    assert_eq!(running.link.call(call(&ECHO, "k", "a")).await, text("a"));
}

#[tokio::test]
async fn a_frozen_server_is_noticed_without_calls() {
    let server = Server::start(&[]).await;
    let mut running = link(settings(&server.url()), &["c"]);
    let first = running.up().await;
    server.freeze(true);
    let why = running.down().await;
    assert!(why.contains("sign of life") || why.contains("no answer"), "{why}");
    server.freeze(false);
    running.after(first).await;
    running.heard_on("c").await;
}

#[tokio::test]
async fn a_server_that_was_killed_and_started_again() {
    let server = Server::start(&[]).await;
    let mut running = link(settings(&server.url()), &["c"]);
    let first = running.up().await;
    let before = running_id(&running);
    assert_eq!(running.answer(|| call(&COUNT, "k", "")).await, Ok(Value::Int(1)));
    server.kill();
    running.down().await;
    assert_eq!(running.link.call(call(&COUNT, "k", "")).await, Err(Fault::Down));
    server.restart().await;
    running.after(first).await;
    assert_ne!(running_id(&running), before);
    assert_eq!(running.answer(|| call(&COUNT, "k", "")).await, Ok(Value::Int(1)));
    running.heard_on("c").await;
}

#[tokio::test]
async fn calls_that_are_under_way_when_the_server_dies_fail_at_once() {
    let server = Server::start(&[]).await;
    let mut running = link(settings(&server.url()), &[]);
    running.up().await;
    assert_eq!(server.ask(&["client", "pause", "60000", "all"]), "OK");
    let link = Arc::clone(&running.link);
    let call = tokio::spawn(async move { link.call(call(&COUNT, "k", "")).await });
    running.hear(|poke| *poke == Poke::Resubscribed).await;
    server.kill();
    let fault = call.await.unwrap().unwrap_err();
    assert!(matches!(fault, Fault::Transient(_) | Fault::Down), "{fault}");
}

#[tokio::test]
async fn a_client_that_is_thrown_out_comes_back() {
    let server = Server::start(&[]).await;
    let mut running = link(settings(&server.url()), &["c"]);
    let mut generation = running.up().await;
    for kind in ["normal", "pubsub"] {
        server.ask(&["client", "kill", "type", kind]);
        generation = running.after(generation).await;
        running.heard_on("c").await;
        assert_eq!(running.answer(|| call(&ECHO, "k", "a")).await, text("a"));
    }
    running.link.lost();
    running.after(generation).await;
    // Two connections, and that of the one who asks: none is left behind.
    wait_for("old connections are gone", || {
        (server.ask(&["client", "list"]).lines().count() == 3).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left() {
    let (server, other) = (Server::start(&[]).await, Server::start(&[]).await);
    let mut running = link(settings(&server.url()), &[]);
    let first = running.up().await;
    let port = other.port.to_string();
    assert_eq!(server.ask(&["replicaof", "127.0.0.1", &port]), "OK");
    let fault = running.link.call(call(&COUNT, "k", "")).await.unwrap_err();
    assert!(fault.is_transient(), "{fault}");
    running.down().await;
    assert_eq!(server.ask(&["replicaof", "no", "one"]), "OK");
    running.after(first).await;
}

#[tokio::test]
async fn replicas_are_counted() {
    let server = Server::start(&[]).await;
    let mut running = link(settings(&server.url()), &[]);
    running.up().await;
    let port = server.port.to_string();
    let _replica = Server::start(&["--replicaof", "127.0.0.1", &port]).await;
    let counted = |status: &Status| matches!(status, Status::Up { servers, .. } if servers[0].replicas == 1);
    let waited = tokio::time::timeout(PATIENCE, running.status.wait_for(counted)).await;
    assert!(waited.is_ok());
}

thread_local! {
    /// What was logged by this thread, and so by this test.
    static LOG: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.with_borrow_mut(|log| log.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_outage_is_logged_when_it_begins_and_when_it_ends() {
    // For the whole process: with one for a thread, what another thread has logged first is not logged here.
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(|| Log).finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let server = Server::start(&["--requirepass", "sesame"]).await;
    let mut settings = settings(&server.url());
    settings.password = Some("sesame".into());
    let mut running = link(settings, &["c"]);
    let first = running.up().await;
    server.kill();
    running.down().await;
    // Trying in vain is not told again: by then it was refused at least once.
    let refused = |status: &Status| matches!(status, Status::Down { why } if why.contains("not reachable"));
    assert!(
        tokio::time::timeout(PATIENCE, running.status.wait_for(refused))
            .await
            .is_ok()
    );
    server.restart().await;
    running.after(first).await;
    let log = LOG.with_borrow(|log| String::from_utf8(log.clone()).unwrap());
    let lines: Vec<_> = log.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(lines[0].contains("the store is reached"), "{lines:#?}");
    assert!(
        lines[1].contains("WARN") && lines[1].contains("the store went away"),
        "{lines:#?}"
    );
    assert!(
        lines[2].contains("the store is back") && lines[2].contains("away="),
        "{lines:#?}"
    );
    assert!(!log.contains("sesame"));
}

fn running_id(running: &Running) -> String {
    match &*running.status.borrow() {
        Status::Up { servers, .. } => servers[0].run_id.clone(),
        Status::Down { why } => panic!("{why}"),
    }
}
