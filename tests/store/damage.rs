//! What somebody else writes into a namespace, or edits there by hand, concerns that and nothing else, and can be taken back.

use super::*;
use support::*;

use session_sidecar::rpc::proto::v1::watch_expiry_response;

use redis::{Commands as _, Connection};

fn connection(server: &Server) -> Connection {
    redis::Client::open(server.url())
        .expect("an address")
        .get_connection()
        .expect("a connection")
}

async fn touched(client: &mut Client, name: &str) -> Result<v1::TouchResponse, tonic::Status> {
    touch(client, name).await
}

#[tokio::test]
async fn g2_a_string_in_the_place_of_a_record_keeps_nobody_else_from_its_end() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let a = site.pod(&server.url(), &[]).await;
    let client = &mut a.client().await;
    let watcher = &mut watch(client, everything()).await;
    let spoilt = begin(client, "spoilt", "short").await;
    let (key, bucket) = record_key(&server, &spoilt);
    server.ask(&["del", &key]);
    server.ask(&["set", &key, "lunch"]);
    // Some in the same bucket.
    let mut others = Vec::new();
    for number in 0.. {
        let other = begin(client, &format!("other-{number}"), "short").await;
        if record_key(&server, &other).1 == bucket {
            others.push(other);
            if others.len() == 2 {
                break;
            }
        }
    }
    while !others.is_empty() {
        if let watch_expiry_response::Message::Ended(ended) = watcher.next().await {
            let gone = ended.session.expect("a session").session_ref;
            others.retain(|other| *other != gone);
        }
    }
    let b = site.pod(&server.url(), &[]).await;
    let refused = touched(&mut b.client().await, "spoilt").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "nobody knows");
    assert!(b.log().contains("WRONGTYPE"), "{}", b.log());
    server.ask(&["del", &key]);
    assert_eq!(
        reason(&sure!(touched(client, "spoilt")).unwrap_err()).1,
        "SESSION_UNKNOWN"
    );
}

#[tokio::test]
async fn a_record_that_was_edited_is_not_known_until_it_is_mended() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let a = site.pod(&server.url(), &[]).await;
    let on_a = &mut a.client().await;
    let alive = begin(on_a, "alive", "default").await;
    let ended = begin(on_a, "ended", "default").await;
    sure!(end(on_a, "ended")).expect("ended");
    let other = begin(on_a, "other", "default").await;
    let redis = &mut connection(&server);
    let garbage: &[u8] = b"\xff\xff\xff lunch";
    for (session, field, value) in [
        (&alive, "b", garbage),
        (&alive, "w", garbage),
        (&alive, "v", b"-5"),
        (&alive, "v", b"lunch"),
        (&alive, "t", b""),
        (&alive, "f", b"99999999999"),
        (&ended, "e", garbage),
        (&ended, "w", garbage),
        (&ended, "v", b"-5"),
    ] {
        let (key, _) = record_key(&server, session);
        let before: Vec<u8> = redis.hget(&key, field).expect("it is there");
        let _: () = redis.hset(&key, field, value).expect("set");
        // Who has no copy of it.
        let mut b = site.pod(&server.url(), &[]).await;
        let on_b = &mut b.client().await;
        let name = if session == &alive { "alive" } else { "ended" };
        for refused in [
            touched(on_b, name).await.map(drop).unwrap_err(),
            end(on_b, name).await.map(drop).unwrap_err(),
            create_again(on_b, name).await.unwrap_err(),
        ] {
            assert_eq!(refused.code(), Code::Unavailable, "{name} {field}: {refused:?}");
        }
        assert_eq!(state_of(on_b, &other).await, v1::SessionState::Active);
        assert!(b.metrics().contains("store_unreadable_total"));
        let said = b.log().matches("a record cannot be read").count();
        assert_eq!(said, 1, "it is said once: {}", b.log());
        let (code, said) = site.store(&["inspect", "--session", session], &server.url(), &[]);
        assert!(code == 1 && said.contains("cannot be read"), "{said}");
        let _: () = redis.hset(&key, field, before).expect("set");
        let state = state_of(on_b, session).await;
        let wanted = if session == &alive {
            v1::SessionState::Active
        } else {
            v1::SessionState::Ended
        };
        assert_eq!(state, wanted, "{name} {field}");
        assert!(b.runs());
    }
}

async fn create_again(client: &mut Client, name: &str) -> Result<(), tonic::Status> {
    let request = v1::CreateRequest {
        session_id: id(name),
        ..Default::default()
    };
    client.create(request).await.map(drop)
}

/// While a key of a bucket, or of the namespace, is of another kind, what needs it fails and is not half done.
#[tokio::test]
async fn g5_a_key_of_another_kind_is_no_half_change() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let mut a = site.pod(&server.url(), &["--store-window", "0s"]).await;
    let client = &mut a.client().await;
    for (place, name) in ["m", "d", "e", "g", "y"].into_iter().enumerate() {
        let session = format!("session-{place}");
        let reference = begin(client, &session, "default").await;
        sure!(work(client, &session, secs(60))).expect("held");
        let (_, bucket) = record_key(&server, &reference);
        let key = if name == "y" {
            format!("{bucket}y:{reference}")
        } else {
            format!("{bucket}{name}")
        };
        server.ask(&["rename", &key, "kept"]);
        server.ask(&["set", &key, "lunch"]);
        let refused = end(client, &session).await.map(drop).unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{name}");
        assert!(
            a.log().contains("WRONGTYPE") || a.log().contains("the store refuses"),
            "{name}: {}",
            a.log()
        );
        server.ask(&["del", &key]);
        server.ask(&["rename", "kept", &key]);
        let watcher = &mut watch(client, by_ref(&reference)).await;
        let ended = sure!(end(client, &session));
        assert!(ended.is_ok(), "{name}: {ended:?}");
        assert_eq!(word(&watcher.next().await), "ended LOGOUT", "{name}");
        let said = a.log().matches("the store refuses what it is asked").count();
        assert!(said < 20, "{name}: said {said} times");
        assert!(a.runs());
    }
}

#[tokio::test]
async fn g12_a_foreign_event_costs_watchers_their_place_and_sessions_nothing() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let (mut a, b) = (site.pod(&server.url(), &[]).await, site.pod(&server.url(), &[]).await);
    let (client, on_b) = (&mut a.client().await, &mut b.client().await);
    let mut number = 0;
    // By hand: with the server's time for its number; and just behind the last one of ours.
    for forged in ["*", "behind"] {
        let reference = begin(client, &format!("alice-{forged}"), "default").await;
        let (_, bucket) = record_key(&server, &reference);
        let events = format!("{bucket}e");
        let last = server.ask(&["hget", &format!("{bucket}m"), "n"]);
        let forged_id = if forged == "*" {
            "*".to_owned()
        } else {
            format!("{last}-7")
        };
        server.ask(&["xadd", &events, &forged_id, "lunch", "12"]);
        // And a message that says that something happened, and one that says nothing.
        server.ask(&["spublish", &format!("{bucket}c"), "999999"]);
        server.ask(&["spublish", &format!("{bucket}c"), "\u{7}ended"]);
        number += 1;
        assert_eq!(
            state_of(on_b, &reference).await,
            v1::SessionState::Active,
            "a message ends nobody"
        );
        let name = format!("alice-{forged}");
        sure!(end(client, &name)).expect("ended");
        let known = tokio::time::Instant::now();
        loop {
            let asked = known.elapsed();
            if state_of(on_b, &reference).await == v1::SessionState::Ended {
                break;
            }
            assert!(asked < Duration::from_millis(1500), "{forged}");
        }
        // And events come again.
        let watcher = &mut watch(on_b, everything()).await;
        let name = format!("bob-{forged}");
        loop {
            let again = begin(client, &format!("{name}-{number}"), "default").await;
            number += 1;
            if record_key(&server, &again).1 == bucket {
                break;
            }
        }
        sure!(end(client, &format!("{name}-{}", number - 1))).expect("ended");
        let heard = async {
            loop {
                match watcher.try_next().await {
                    Ok(Some(message)) if word(&message) == "ended LOGOUT" => return,
                    Ok(Some(_)) => {}
                    // Its place is gone: it opens another watch, which is what a client does.
                    Ok(None) | Err(_) => panic!("a new watch is not told"),
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect("the end is told");
        let said = a.log().lines().filter(|line| line.contains("ERROR")).count();
        assert!(said < 20, "{}", a.log());
    }
    assert!(a.runs());
}
