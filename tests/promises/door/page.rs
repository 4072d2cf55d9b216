//! What a page of the site may do.

use super::*;

#[tokio::test(start_paused = true)]
async fn g9_a_page_sees_its_session_and_that_is_no_activity() {
    let mut site = Site::new().await;
    assert_eq!(
        site.ask(Method::GET, "/session", &[], "").await.body["state"],
        "NONE",
        "no cookie, no session"
    );
    create(&mut site.client, "alice").await;
    pass(mins(5)).await;
    let seen = site.show("alice").await;
    assert_eq!(seen["state"], "ACTIVE");
    assert_eq!(seen["expires_in"], 600.0);
    assert_eq!(seen["next_warning_in"], 480.0);
    assert_eq!(seen["limit"], "IDLE");
    assert_eq!(seen["idle_timeout"], 900.0);
    assert_eq!((&seen["can_extend"], &seen["presence"]), (&true.into(), &true.into()));
    pass(mins(9)).await;
    let seen = site.show("alice").await;
    assert_eq!(
        (&seen["state"], &seen["expires_in"]),
        (&"EXPIRING".into(), &60.0.into())
    );
    assert_eq!(site.show("nobody").await["state"], "UNKNOWN");
}

#[tokio::test(start_paused = true)]
async fn r4_a_person_who_is_warned_can_stay() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    pass(mins(14)).await;
    let stayed = site.post("alice", "/session/extend", "").await;
    assert_eq!((stayed.code, &stayed.body["state"]), (StatusCode::OK, &"ACTIVE".into()));
    assert_eq!(stayed.body["expires_in"], 900.0);
    let stayed = site.post("alice", "/session/extend", r#"{"wanted": 1800}"#).await;
    assert_eq!(stayed.body["expires_in"], 1800.0);
}

#[tokio::test(start_paused = true)]
async fn r2_input_counts_from_when_it_was() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    pass(mins(10)).await;
    let told = site
        .post(
            "alice",
            "/session/activity",
            r#"{"idle_for": 120.5, "visibility": "visible"}"#,
        )
        .await;
    assert_eq!(told.code, StatusCode::OK);
    assert_eq!(told.body["expires_in"], 900.0 - 120.5);
    // From now on what only a script can have asked for is no activity, as the page reports input itself.
    pass(mins(1)).await;
    let before = site.show("alice").await["expires_in"].clone();
    touch_hinted(&mut site.client, "alice", |hints| {
        hints.sec_fetch_dest = "empty".to_owned()
    })
    .await
    .expect("live");
    assert_eq!(site.show("alice").await["expires_in"], before);
}

#[tokio::test(start_paused = true)]
async fn r5_a_page_holds_its_session_through_work_and_no_other_hold() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    work(&mut site.client, "alice", mins(4))
        .await
        .expect("held by the application");
    let held = site
        .post(
            "alice",
            "/session/hold",
            r#"{"id": "upload", "ttl": 240, "purpose": "an upload"}"#,
        )
        .await;
    assert_eq!((held.code, &held.body["granted_ttl"]), (StatusCode::OK, &240.0.into()));
    assert_eq!(held.body["expires_in"], 240.0 + 900.0);
    let seen = check(&mut site.client, "alice").await;
    let names: Vec<_> = seen.holds.iter().map(|hold| hold.hold_id.as_str()).collect();
    assert_eq!(names, ["work", "page.upload"]);
    site.post("alice", "/session/release", r#"{"id": "work"}"#).await;
    assert_eq!(
        check(&mut site.client, "alice").await.holds.len(),
        2,
        "the application's own stays"
    );
    site.post("alice", "/session/release", r#"{"id": "upload"}"#).await;
    assert_eq!(check(&mut site.client, "alice").await.holds.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn r3_an_ended_session_says_why_and_its_cookie_is_taken_back() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    pass(mins(15)).await;
    let told = site
        .ask(Method::GET, "/session", &[("cookie", &cookie("alice"))], "")
        .await;
    assert_eq!(
        (&told.body["state"], &told.body["end"]["reason"]),
        (&"ENDED".into(), &"IDLE_TIMEOUT".into())
    );
    assert_eq!(
        header(&told, "set-cookie"),
        "sid=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"
    );
    for target in ["/session/extend", "/session/activity", "/session/leave"] {
        let told = site.post("alice", target, "").await;
        assert_eq!(
            (told.code, &told.body["error"]),
            (StatusCode::UNAUTHORIZED, &"SESSION_ENDED".into()),
            "{target}"
        );
        assert_eq!(told.body["end"]["reason"], "IDLE_TIMEOUT");
        assert_eq!(told.body["login_url"], "/login");
        assert!(!header(&told, "set-cookie").is_empty(), "{target}");
    }
    for (name, expected) in [
        (
            "__Host-other",
            "__Host-other=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax",
        ),
        (
            "wide",
            "wide=; Path=/app; Domain=shop.example; Max-Age=0; HttpOnly; SameSite=Lax",
        ),
    ] {
        let told = site
            .ask(
                Method::GET,
                "/session",
                &[("cookie", &format!("{name}={}", id("alice")))],
                "",
            )
            .await;
        assert_eq!(header(&told, "set-cookie"), expected);
    }
    let unknown = site.post("nobody", "/session/extend", "").await;
    assert_eq!(
        (unknown.code, &unknown.body["error"]),
        (StatusCode::UNAUTHORIZED, &"SESSION_UNKNOWN".into())
    );
    assert_eq!(header(&unknown, "set-cookie"), "", "it may be another sidecar's");
}

#[tokio::test(start_paused = true)]
async fn a_name_that_was_rotated_away_is_over_here_and_never_followed() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    rotate(&mut site.client, "alice", "alice-2").await;
    let seen = site.show("alice").await;
    assert_eq!(
        (&seen["state"], &seen["end"]["reason"]),
        (&"ENDED".into(), &"ROTATED".into())
    );
    pass(mins(1)).await;
    let before = site.show("alice-2").await["expires_in"].clone();
    assert_eq!(before, 840.0);
    for target in ["/session/extend", "/session/activity", "/session/leave"] {
        assert_eq!(site.post("alice", target, "").await.code, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(site.show("alice-2").await["expires_in"], before);
    // The browser's cookie of this name may be the new one by now.
    for (method, target) in [
        (Method::GET, "/session"),
        (Method::POST, "/session/extend"),
        (Method::GET, "/authz"),
    ] {
        for uri in ["/cart", "/login"] {
            let cookie = cookie("alice");
            let headers = [
                ("cookie", cookie.as_str()),
                ("x-session-sidecar", "1"),
                ("x-original-uri", uri),
            ];
            let told = site.ask(method.clone(), target, &headers, "").await;
            assert_eq!(header(&told, "set-cookie"), "", "{target} {uri}");
            if target == "/authz" && uri == "/login" {
                assert_eq!(
                    header(&told, "x-session-cookies"),
                    "theme=dark",
                    "though it does not reach the application"
                );
            }
        }
    }
}

#[tokio::test]
async fn the_module_for_pages_is_sent_once() {
    let site = Site::new().await;
    let sent = site.ask(Method::GET, "/session/sidecar.js", &[], "").await;
    assert_eq!(sent.code, StatusCode::OK);
    assert_eq!(header(&sent, "content-type"), "text/javascript; charset=utf-8");
    assert_eq!(header(&sent, "x-content-type-options"), "nosniff");
    let tag = header(&sent, "etag");
    for known in [tag.clone(), format!("\"other\", W/{tag}")] {
        let again = site
            .ask(Method::GET, "/session/sidecar.js", &[("if-none-match", &known)], "")
            .await;
        assert_eq!(
            (again.code, header(&again, "etag")),
            (StatusCode::NOT_MODIFIED, tag.clone())
        );
    }
    let other = [("if-none-match", "\"other\"")];
    assert_eq!(
        site.ask(Method::GET, "/session/sidecar.js", &other, "").await.code,
        StatusCode::OK
    );
}
