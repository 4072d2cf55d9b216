//! What the store's user must be allowed: no more than the line that the docs tell, and no less.

use super::*;
use support::*;

use session_sidecar::store::shared::trial;

/// What one server's user needs.
fn acl_line() -> String {
    trial::acl_line(&"redis://localhost".parse().expect("an address"))
}

fn give(server: &Server, user: &str, line: &str) {
    let mut words = vec!["acl", "setuser", user, "reset", "on", ">pw"];
    words.extend(line.split(' '));
    assert_eq!(server.ask(&words), "OK", "{line}");
}

#[tokio::test]
async fn a_user_with_just_these_rights_sees_a_session_through_its_life() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    give(&server, "side", &acl_line());
    let url = server.url().replace("redis://", "redis://side@");
    let password = site.file("password");
    let more = ["--store-password-file", password.as_str()];
    let (code, said) = site.store(&["check"], &url, &more);
    assert_eq!(code, 0, "{said}");
    let (a, b) = (site.pod(&url, &more).await, site.pod(&url, &more).await);
    let (on_a, on_b) = (&mut a.client().await, &mut b.client().await);
    let watcher = &mut watch(on_b, everything()).await;
    let alice = begin(on_a, "alice", "default").await;
    sure!(touch(on_b, "alice")).expect("touched");
    sure!(work(on_a, "alice", secs(5))).expect("held");
    sure!(release(on_b, "alice", "work")).expect("released");
    sure!(extend(on_a, "alice", None)).expect("extended");
    let rotated = sure!(rotate_with(on_b, "alice", "bob", |rotate| {
        rotate.request_id = "rotation-of-alice".to_owned();
    }));
    assert!(rotated.expect("rotated").session.is_some());
    let brief = begin(on_a, "brief", "short").await;
    let mut words = Vec::new();
    while words.last().is_none_or(|last| last != "ended IDLE_TIMEOUT") {
        words.push(word(&watcher.next().await));
    }
    assert_eq!(words, ["ended ROTATED", "warning idle 1s", "ended IDLE_TIMEOUT"]);
    server.ask(&["script", "flush"]);
    sure!(end(on_a, "bob")).expect("ended");
    let mut admin = b.admin().await;
    let listed = sure!(admin.list_sessions(v1::ListSessionsRequest::default())).expect("listed");
    assert!(listed.into_inner().sessions.is_empty());
    let request = v1::ExplainSessionRequest {
        target: Some(v1::explain_session_request::Target::SessionRef(brief)),
        ..Default::default()
    };
    let explained = sure!(admin.explain_session(request.clone()))
        .expect("explained")
        .into_inner();
    assert_eq!(explained.explanations.len(), 1);
    assert_eq!(state_of(on_a, &alice).await, v1::SessionState::Ended);
    for pod in [&a, &b] {
        assert!(!pod.log().contains("refuses"), "{}", pod.log());
    }
    let (code, said) = site.store(&["inspect"], &url, &more);
    assert!(
        code == 0 && said.contains("0 live sessions, 3 remembered ends"),
        "{said}"
    );
    let (code, said) = site.store(&["inspect", "--session", &alice], &url, &more);
    assert!(
        code == 0 && said.contains("ended") && said.contains("goes on as") && !said.contains("subject-of"),
        "{said}"
    );
}

#[tokio::test]
async fn who_lacks_one_right_is_told_which() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    let url = server.url().replace("redis://", "redis://poor@");
    let password = site.file("password");
    let line = acl_line();
    for right in line.split(' ').filter(|word| word.starts_with('+')) {
        let name = right.trim_start_matches('+');
        let rest: Vec<_> = line.split(' ').filter(|word| *word != right).collect();
        give(&server, "poor", &rest.join(" "));
        let (code, said) = site.store(&["check"], &url, &["--store-password-file", &password]);
        assert_eq!(code, 1, "without {name}: {said}");
        assert!(
            said.to_lowercase().contains(&format!("may not use {name}")) || said.contains(&format!("'{name}' command")),
            "without {name}: {said}"
        );
        assert!(said.contains(&line), "the whole line is told: {said}");
    }
    give(&server, "poor", &line.replace("&ss1:*", ""));
    let (code, said) = site.store(&["check"], &url, &["--store-password-file", &password]);
    assert!(code == 1 && said.contains("channels"), "{said}");
    give(&server, "poor", &line.replace("~ss1:*", "~other:*"));
    let (code, said) = site.store(&["check"], &url, &["--store-password-file", &password]);
    assert!(code == 1 && said.contains("may not access the keys ss1:*"), "{said}");
    // Who may not delete lets it go by itself.
    for key in server.ask(&["--scan"]).lines() {
        assert!(
            server.ask(&["pttl", key]).parse::<i64>().expect("a number") > 0,
            "{key} is left of the trials"
        );
    }
}

#[tokio::test]
async fn a_right_that_is_taken_away_is_missed_and_given_back() {
    let (server, site) = (Server::start(&[]).await, Site::new());
    give(&server, "side", &acl_line());
    let url = server.url().replace("redis://", "redis://side@");
    let password = site.file("password");
    let mut pod = site.pod(&url, &["--store-password-file", &password]).await;
    let client = &mut pod.client().await;
    let alice = begin(client, "alice", "default").await;
    server.ask(&["acl", "setuser", "side", "-zadd"]);
    let request = v1::CreateRequest {
        session_id: id("bob"),
        ..Default::default()
    };
    let refused = client.create(request).await.unwrap_err();
    assert_eq!(reason(&refused), (Code::Unavailable, "STORE_UNAVAILABLE".to_owned()));
    assert!(
        pod.log().contains("the store refuses what it is asked"),
        "{}",
        pod.log()
    );
    server.ask(&["acl", "setuser", "side", "+zadd"]);
    begin(client, "carol", "default").await;
    assert_eq!(state_of(client, &alice).await, v1::SessionState::Active);
    assert!(pod.runs());
}
