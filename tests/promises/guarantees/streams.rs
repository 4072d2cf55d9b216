//! G12, G13: resumable, and honest to slow readers.

use super::*;

#[tokio::test(start_paused = true)]
async fn g12_a_watcher_that_resumes_sees_what_it_would_have_seen() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    for name in ["alice", "bob", "carol"] {
        create(client, name).await;
    }
    let mut whole = Watcher::open(client, everything()).await;
    let mut cut = Watcher::open(client, everything()).await;
    pass(mins(14) - secs(1)).await;
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(word_of(&cut.next().await));
    }
    let token = cut.token.clone();
    drop(cut);
    touch(client, "alice").await.expect("live");
    end(client, "bob").await.expect("ended");
    pass(mins(2)).await;
    let mut resumed = Watcher::resume(client, everything(), &token).await.expect("resumes");
    end(client, "alice").await.expect("ended");
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(word_of(&whole.next().await));
    }
    while seen.len() < all.len() {
        seen.push(word_of(&resumed.next().await));
    }
    assert_eq!(seen, all);
    assert_eq!(all.iter().filter(|word| word.contains("ended")).count(), 3);
}

/// An event with its session.
fn word_of(message: &Message) -> String {
    let session = match message {
        Message::Warning(warning) => &warning.session,
        Message::Cleared(cleared) => &cleared.session,
        Message::Ended(ended) => &ended.session,
        _ => &None,
    };
    let session = session.as_ref().map(|session| session.session_ref.as_str());
    format!("{} {}", word(message), session.unwrap_or_default())
}

/// Whoever watches now is told the state, and not how it came to be, although nothing has carried the end to the watchers yet.
#[tokio::test(start_paused = true)]
async fn g12_what_was_answered_before_a_watch_began_is_no_event_of_it() {
    use session_sidecar::{
        sessions::{Follow, Name, Scope, Subscriber, WatchContent},
        state::{Actor, End, EndReason},
    };

    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    create(client, "bob").await;
    pass(secs(1)).await;
    let sessions = &sidecar.sessions;
    let name = Name {
        tenant: "",
        session_id: &id("alice"),
        follow: Follow::Alias,
    };
    let logout = End {
        reason: EndReason::Logout,
        actor: Actor::User,
        actor_id: "".into(),
        note: "".into(),
        at: sessions.clock().now(),
    };
    assert!(sessions.end(name, logout, None).await.is_ok());
    let subscriber = Subscriber {
        scope: Scope::Everything,
        tenants: ["".into()].into(),
        warnings: true,
        cleared: true,
        ends: true,
        resume_token: None,
        heartbeat: secs(10),
        initial_state: true,
    };
    let mut watch = sessions
        .watch(subscriber, sidecar.draining.clone())
        .await
        .expect("a watch");
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(watch.next().await.expect("open").expect("a message").content);
    }
    assert!(
        matches!(&told[..], [WatchContent::Snapshot(bob), WatchContent::SnapshotEnd(1), WatchContent::Heartbeat]
            if bob.status.reference == session_ref(&sidecar, "bob")),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn g12_a_trimmed_log_or_another_process_is_a_clean_out_of_range() {
    let sidecar = Sidecar::with(Options {
        replay_events: 4,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    let mut watcher = Watcher::open(client, everything()).await;
    for number in 0..10 {
        let name = format!("alice{number}");
        create(client, &name).await;
        end(client, &name).await.expect("ended");
        if number == 0 {
            watcher.next().await;
        }
    }
    let expired = (Code::OutOfRange, "RESUME_TOKEN_EXPIRED".to_owned());
    let trimmed = Watcher::resume(client, everything(), &watcher.token).await;
    assert_eq!(reason(&trimmed.err().expect("refused")), expired);
    // The same key after a restart: the log is another one.
    let restarted = Sidecar::start();
    let other = &mut restarted.client().await;
    let foreign = Watcher::resume(other, everything(), &watcher.token).await;
    assert_eq!(reason(&foreign.err().expect("refused")), expired);
}

#[tokio::test(start_paused = true)]
async fn g12_the_state_comes_first_then_a_marker_then_what_happens() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    pass(mins(13) + secs(1)).await;
    create(client, "bob").await;
    create(client, "carol").await;
    end(client, "carol").await.expect("ended");
    let mut request = by_id(&["alice", "bob", "carol", "nobody"]);
    request.include_initial_state = true;
    let mut watcher = Watcher::try_open(client, request).await.expect("opens");
    let mut words = watcher.during(secs(1)).await;
    words[..3].sort();
    // A scope of ids tells of ended sessions too; what is absent never was, or is forgotten.
    assert_eq!(
        words,
        ["snapshot ACTIVE", "snapshot ENDED", "snapshot EXPIRING", "live 3"]
    );
    let mut request = everything();
    request.include_initial_state = true;
    let mut watcher = Watcher::try_open(client, request).await.expect("opens");
    let mut words = watcher.during(secs(1)).await;
    words[..2].sort();
    assert_eq!(words, ["snapshot ACTIVE", "snapshot EXPIRING", "live 2"]);
    assert_eq!(watcher.during(secs(58)).await, ["warning idle 60s"]);
}

/// Whoever is cut in the middle of the state gets all of it again.
#[tokio::test(start_paused = true)]
async fn g12_an_incomplete_state_is_sent_again() {
    let sidecar = Sidecar::start();
    let client = &mut sidecar.client().await;
    for number in 0..5 {
        create(client, &format!("alice{number}")).await;
    }
    let mut request = everything();
    request.include_initial_state = true;
    let mut watcher = Watcher::try_open(client, request).await.expect("opens");
    watcher.next().await;
    let token = watcher.token.clone();
    drop(watcher);
    let mut resumed = Watcher::resume(client, everything(), &token).await.expect("resumes");
    let words = resumed.during(secs(1)).await;
    assert_eq!(words.len(), 6);
    assert_eq!(words[5], "live 5");
}

#[tokio::test(start_paused = true)]
async fn g13_a_watcher_that_does_not_read_is_cut_off_and_slows_nobody() {
    const SESSIONS: usize = 5_000;
    let sidecar = Sidecar::with(Options {
        mailbox_size: 256,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    let mut slow = Watcher::open(client, everything()).await;
    let mut quick = Watcher::open(&mut sidecar.client().await, everything()).await;
    for number in 0..SESSIONS {
        create(client, &format!("alice{number}")).await;
    }
    let reader = tokio::spawn(async move {
        for _ in 0..SESSIONS {
            assert_eq!(word(&quick.next().await), "ended LOGOUT");
        }
    });
    for number in 0..SESSIONS {
        end(client, &format!("alice{number}")).await.expect("ended");
    }
    reader.await.expect("the quick one got everything");
    // What waits is more than is kept for it, and it takes nothing for a second.
    pass(secs(2)).await;
    let mut read = 0;
    let cut_off = loop {
        match slow.try_next().await {
            Ok(_) => read += 1,
            Err(status) => break status,
        }
    };
    assert_eq!(
        reason(&cut_off),
        (Code::ResourceExhausted, "WATCHER_TOO_SLOW".to_owned())
    );
    assert!(read < SESSIONS);
    assert_eq!(sidecar.metric("watchers_cut_off_total"), 1.0);
    // And it loses nothing if it resumes.
    let mut resumed = Watcher::resume(client, everything(), &slow.token)
        .await
        .expect("resumes");
    for _ in read..SESSIONS {
        assert_eq!(word(&resumed.next().await), "ended LOGOUT");
    }
}

/// However many deadlines come at once, whoever reads hears of all of them, in one stream.
#[tokio::test(start_paused = true)]
async fn g6_g13_a_burst_larger_than_the_queue_cuts_off_nobody_who_reads() {
    const SESSIONS: usize = 5_000;
    let sidecar = Sidecar::with(Options {
        mailbox_size: 16,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    for number in 0..SESSIONS {
        create(client, &format!("alice{number}")).await;
    }
    let mut watcher = Watcher::open(client, everything()).await;
    let mut told = BTreeMap::<String, Vec<String>>::new();
    for _ in 0..3 * SESSIONS {
        let message = watcher.next().await;
        let session = match &message {
            Message::Warning(warning) => &warning.session,
            Message::Ended(ended) => &ended.session,
            other => panic!("{other:?}"),
        };
        let session = session.as_ref().expect("a session").session_ref.clone();
        told.entry(session).or_default().push(word(&message));
    }
    assert_eq!(told.len(), SESSIONS);
    for words in told.values() {
        assert_eq!(words, &["warning idle 120s", "warning idle 60s", "ended IDLE_TIMEOUT"]);
    }
    assert_eq!(sidecar.metric("watchers_cut_off_total"), 0.0);
}

/// What is kept for those who resume is not what those who watch live on: a short log cuts off nobody who reads.
#[tokio::test(start_paused = true)]
async fn g6_g13_a_short_log_loses_nothing_that_is_under_way() {
    const SESSIONS: usize = 3_000;
    let sidecar = Sidecar::with(Options {
        replay_events: 10,
        ..Options::default()
    });
    let client = &mut sidecar.client().await;
    for number in 0..SESSIONS {
        create_with(client, &format!("alice{number}"), |create| {
            create.subject = "ada".to_owned()
        })
        .await;
    }
    let mut watcher = Watcher::open(client, everything()).await;
    let mut told = 0;
    while told < SESSIONS {
        told += usize::from(matches!(watcher.next().await, Message::Ended(_)));
    }
    assert_eq!(sidecar.metric("watchers_cut_off_total"), 0.0);
}
