//! Two sidecars of one namespace: what one is told the other knows.

use std::sync::Arc;

use super::*;
use support::*;

use session_sidecar::rpc::proto::v1::{explain_session_request::Target, watch_expiry_response::Message};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

struct Pair {
    _server: Server,
    _site: Site,
    a: Pod,
    b: Pod,
    on_a: Client,
    on_b: Client,
}

async fn pair(more: &[&str]) -> Pair {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let (a, b) = (site.pod(&server.url(), more).await, site.pod(&server.url(), more).await);
    let (on_a, on_b) = (a.client().await, b.client().await);
    Pair {
        _server: server,
        _site: site,
        a,
        b,
        on_a,
        on_b,
    }
}

#[tokio::test]
async fn g1_a_hold_that_is_renewed_at_one_keeps_alive_what_the_other_watches() {
    let Pair {
        mut on_a,
        mut on_b,
        a,
        b,
        _server,
        _site,
    } = pair(&[]).await;
    let reference = begin(&mut on_a, "alice", "short").await;
    let watcher = &mut watch(&mut on_b, by_ref(&reference)).await;
    let began = tokio::time::Instant::now();
    // Three idle timeouts long, each renewal at the other one.
    while began.elapsed() < secs(9) {
        sure!(work(&mut on_a, "alice", secs(2))).expect("held");
        tokio::time::sleep(Duration::from_millis(500)).await;
        sure!(work(&mut on_b, "alice", secs(2))).expect("held");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    let released = tokio::time::Instant::now();
    sure!(release(&mut on_b, "alice", "work")).expect("released");
    assert_eq!(word(&watcher.next().await), "warning idle 1s");
    assert_eq!(word(&watcher.next().await), "ended IDLE_TIMEOUT");
    let after = released.elapsed();
    assert!(after >= secs(3), "a whole idle timeout follows a hold: {after:?}");
    drop((a, b));
}

/// What becomes of what a server says.
#[derive(Clone, Copy)]
enum Way {
    /// Nothing is heard that is said on channels.
    Deaf,
    /// All of it takes so much longer.
    Slow(Duration),
}

/// Forwards connections to a port.
async fn proxy(port: u16, way: Way) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let here = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(("127.0.0.1", port)).await.expect("the server");
            let ((mut near_in, mut near_out), (mut far_in, mut far_out)) = (near.into_split(), far.into_split());
            tokio::spawn(async move { tokio::io::copy(&mut near_in, &mut far_out).await });
            let (under_way, mut coming) = tokio::sync::mpsc::unbounded_channel::<(tokio::time::Instant, Vec<u8>)>();
            tokio::spawn(async move {
                let mut chunk = vec![0; 1 << 16];
                while let Ok(count @ 1..) = far_in.read(&mut chunk).await {
                    let said = &chunk[..count];
                    let longer = match way {
                        Way::Deaf if String::from_utf8_lossy(said).contains("smessage") => continue,
                        Way::Deaf => Duration::ZERO,
                        Way::Slow(by) => by,
                    };
                    let due = tokio::time::Instant::now() + longer;
                    if under_way.send((due, said.to_vec())).is_err() {
                        return;
                    }
                }
            });
            tokio::spawn(async move {
                while let Some((due, said)) = coming.recv().await {
                    tokio::time::sleep_until(due).await;
                    if near_out.write_all(&said).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    here
}

#[tokio::test]
async fn g5_an_end_is_known_elsewhere_within_a_second_and_a_half_though_no_message_comes() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let deaf = proxy(server.port, Way::Deaf).await;
    let a = site.pod(&server.url(), &["--store-window", "10s"]).await;
    let b = site
        .pod(&format!("redis://127.0.0.1:{deaf}"), &["--store-window", "10s"])
        .await;
    let (on_a, on_b) = (&mut a.client().await, &mut b.client().await);
    for round in 0..10 {
        let name = format!("alice-{round}");
        begin(on_a, &name, "default").await;
        // It is at hand there, and touches cost nothing.
        sure!(touch(on_b, &name)).expect("live");
        sure!(touch(on_b, &name)).expect("live");
        sure!(end(on_a, &name)).expect("ended");
        let ended = tokio::time::Instant::now();
        loop {
            let asked = ended.elapsed();
            match touch(on_b, &name).await {
                Err(refused) if reason(&refused).1 == "SESSION_ENDED" => break,
                Err(other) => assert_eq!(other.code(), Code::Unavailable),
                Ok(_) => assert!(asked < Duration::from_millis(1500), "still live after {asked:?}"),
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test]
async fn g12_a_bucket_whose_keys_are_spoilt_keeps_no_other_from_being_heard() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let deaf = proxy(server.port, Way::Deaf).await;
    let a = site.pod(&server.url(), &[]).await;
    let b = site.pod(&format!("redis://127.0.0.1:{deaf}"), &[]).await;
    let (on_a, on_b) = (&mut a.client().await, &mut b.client().await);
    let (spoilt, whole) = (begin(on_a, "spoilt", "default").await, &mut Vec::new());
    let (_, bucket) = record_key(&server, &spoilt);
    // In each of several other buckets one.
    for number in 0..10 {
        let name = format!("whole-{number}");
        let reference = begin(on_a, &name, "default").await;
        if record_key(&server, &reference).1 != bucket {
            whole.push(name);
        }
    }
    let watcher = &mut watch(on_b, everything()).await;
    for key in ["m", "d", "g"] {
        let key = format!("{bucket}{key}");
        server.ask(&["del", &key]);
        server.ask(&["set", &key, "lunch"]);
        // No message says so: it is found at the next look.
        let name = whole.pop().expect("one of another bucket");
        sure!(end(on_a, &name)).expect("ended");
        let told = tokio::time::timeout(PATIENCE, watcher.next()).await;
        assert_eq!(word(&told.expect("the end is told")), "ended LOGOUT", "{key}");
    }
}

#[tokio::test]
async fn g5_an_end_is_known_elsewhere_at_once_where_messages_come() {
    let Pair {
        mut on_a,
        mut on_b,
        a,
        b,
        _server,
        _site,
    } = pair(&[]).await;
    let mut slowest = Duration::ZERO;
    for round in 0..50 {
        let name = format!("alice-{round}");
        begin(&mut on_a, &name, "default").await;
        sure!(touch(&mut on_b, &name)).expect("live");
        sure!(end(&mut on_a, &name)).expect("ended");
        let ended = tokio::time::Instant::now();
        loop {
            let asked = ended.elapsed();
            if sure!(touch(&mut on_b, &name)).is_err() {
                break;
            }
            slowest = slowest.max(asked);
        }
    }
    assert!(slowest < Duration::from_millis(1500), "{slowest:?}");
    println!("an end was known elsewhere after {slowest:?} at most");
    drop((a, b));
}

async fn crowd(pair: &Pair, policy: &str, round: usize) -> (usize, Vec<tonic::Status>) {
    let mut tasks = JoinSet::new();
    let start = Arc::new(tokio::sync::Barrier::new(50));
    for number in 0..50 {
        let mut client = if number % 2 == 0 {
            pair.on_a.clone()
        } else {
            pair.on_b.clone()
        };
        let (policy, start) = (policy.to_owned(), Arc::clone(&start));
        tasks.spawn(async move {
            let request = v1::CreateRequest {
                session_id: id(&format!("{policy}-{round}-{number}")),
                subject: format!("ada-{round}"),
                policy,
                ..Default::default()
            };
            start.wait().await;
            sure!(client.create(request.clone()))
        });
    }
    let (mut created, mut refused) = (0, Vec::new());
    for answer in tasks.join_all().await {
        match answer {
            Ok(_) => created += 1,
            Err(status) => refused.push(status),
        }
    }
    (created, refused)
}

async fn live(pod: &Pod, subject: &str) -> usize {
    let mut admin = pod.admin().await;
    let request = v1::ListSessionsRequest {
        filter: Some(v1::SessionFilter {
            subject: subject.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let listed = sure!(admin.list_sessions(request.clone()))
        .expect("listed")
        .into_inner();
    let live = listed.sessions.iter().filter(|session| {
        let state = session.status.as_ref().expect("a status").state();
        matches!(state, v1::SessionState::Active | v1::SessionState::Expiring)
    });
    live.count()
}

#[tokio::test]
async fn of_fifty_logins_of_a_person_at_once_two_are_let_in() {
    let pair = pair(&[]).await;
    for round in 0..3 {
        let (created, refused) = crowd(&pair, "two", round).await;
        assert_eq!(created, 2, "{round}: {refused:?}");
        for status in refused {
            assert_eq!(reason(&status), (Code::ResourceExhausted, "SUBJECT_CAP".to_owned()));
        }
        assert_eq!(live(&pair.a, &format!("ada-{round}")).await, 2);
        assert_eq!(live(&pair.b, &format!("ada-{round}")).await, 2);
    }
}

#[tokio::test]
async fn of_fifty_logins_of_a_person_at_once_the_last_two_stay() {
    let pair = pair(&[]).await;
    let mut watching = pair.on_b.clone();
    let watcher = &mut watch(&mut watching, by_subject("ada-0")).await;
    let (created, refused) = crowd(&pair, "newest", 0).await;
    assert_eq!(created, 50, "{refused:?}");
    let mut ended = std::collections::BTreeSet::new();
    while ended.len() < 48 {
        if let Message::Ended(end) = watcher.next().await {
            assert_eq!(end.end.as_ref().expect("an end").reason(), v1::EndReason::Superseded);
            let name = end.session.expect("a session").session_ref;
            assert!(ended.insert(name.clone()), "{name} ends twice");
        }
    }
    assert_eq!(live(&pair.a, "ada-0").await, 2);
    assert_eq!(live(&pair.b, "ada-0").await, 2);
}

#[tokio::test]
async fn g12_a_token_of_one_is_good_at_the_other() {
    let Pair {
        mut on_a,
        mut on_b,
        a,
        b,
        _server,
        _site,
    } = pair(&[]).await;
    let mut watcher = watch(&mut on_a, everything()).await;
    begin(&mut on_a, "alice", "default").await;
    begin(&mut on_b, "bob", "default").await;
    sure!(end(&mut on_b, "alice")).expect("ended");
    let Message::Ended(first) = watcher.next().await else {
        panic!("alice ends")
    };
    let token = watcher.token.clone();
    drop(watcher);
    sure!(end(&mut on_a, "bob")).expect("ended");
    begin(&mut on_a, "brief", "short").await;
    let resumed = &mut Watcher::resume(&mut on_b, everything(), &token)
        .await
        .expect("it is good there");
    let Message::Ended(second) = resumed.next().await else {
        panic!("bob ends")
    };
    assert_ne!(first.session, second.session);
    assert_eq!(word(&resumed.next().await), "warning idle 1s");
    assert_eq!(word(&resumed.next().await), "ended IDLE_TIMEOUT");
    // Back again, from where the other one was.
    let back = &mut Watcher::resume(&mut on_a, everything(), &resumed.token.clone())
        .await
        .expect("good");
    begin(&mut on_b, "carol", "default").await;
    sure!(end(&mut on_b, "carol")).expect("ended");
    assert_eq!(word(&back.next().await), "ended LOGOUT");
    drop((a, b));
}

#[tokio::test]
async fn what_happened_at_one_is_explained_at_the_other() {
    let Pair {
        mut on_a,
        mut on_b,
        a,
        b,
        _server,
        _site,
    } = pair(&["--store-window", "0s"]).await;
    let mut watching = on_b.clone();
    let watcher = &mut watch(&mut watching, everything()).await;
    let reference = begin(&mut on_a, "alice", "short").await;
    sure!(work(&mut on_a, "alice", secs(2))).expect("held");
    sure!(release(&mut on_a, "alice", "work")).expect("released");
    for _ in 0..3 {
        for client in [&mut on_a, &mut on_b] {
            sure!(touch_with(client, "alice", |touch| touch.activity = v1::Activity::User.into())).expect("live");
        }
    }
    while word(&watcher.next().await) != "ended IDLE_TIMEOUT" {}
    let mut admin = b.admin().await;
    let explained = async {
        loop {
            let request = v1::ExplainSessionRequest {
                target: Some(Target::SessionRef(reference.clone())),
                ..Default::default()
            };
            let answer = sure!(admin.explain_session(request.clone()))
                .expect("explained")
                .into_inner();
            let explanation = answer.explanations.into_iter().next().expect("one");
            let touches: u64 = explanation.tallies.iter().map(|tally| tally.touch_count).sum();
            // What is only counted is told every few seconds.
            if touches == 6 {
                return explanation;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let explained = tokio::time::timeout(PATIENCE, explained)
        .await
        .expect("all touches are known in the end");
    let kinds: Vec<_> = explained
        .history
        .iter()
        .map(|entry| format!("{:?}", entry.entry))
        .collect();
    let told = kinds.join("\n");
    for word in ["HoldStarted", "HoldEnded", "Warning", "Ended"] {
        assert!(told.contains(word), "{word} in {told}");
    }
    drop((a, b));
}

/// The answers of the store take long to one sidecar, so that it does not know exactly what time it is there; the other one, which
/// ends sessions, does.
#[tokio::test]
async fn g1_a_sidecar_that_is_far_from_the_store_promises_nothing_that_a_near_one_breaks() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let slow = proxy(server.port, Way::Slow(Duration::from_millis(120))).await;
    let far = site.pod(&format!("redis://127.0.0.1:{slow}"), &[]).await;
    let near = site.pod(&server.url(), &["--store-window", "0s"]).await;
    let (on_far, on_near) = (&mut far.client().await, &mut near.client().await);
    for (round, verb) in ["create", "extend", "hold"].into_iter().enumerate() {
        let name = format!("alice-{round}");
        let watcher = &mut watch(on_near, everything()).await;
        let mut promised = tokio::time::Instant::now();
        begin(on_far, &name, "short").await;
        if verb == "extend" {
            promised = tokio::time::Instant::now();
            sure!(extend(on_far, &name, None)).expect("extended");
        }
        if verb == "hold" {
            sure!(work(on_far, &name, secs(5))).expect("held");
            promised = tokio::time::Instant::now();
            sure!(release(on_far, &name, "work")).expect("released");
        }
        while word(&watcher.next().await) != "ended IDLE_TIMEOUT" {}
        let lived = promised.elapsed();
        assert!(lived >= secs(3), "{verb}: it ended {:?} early", secs(3) - lived);
    }
}
