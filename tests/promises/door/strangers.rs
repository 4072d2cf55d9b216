//! Who may not: pages of other sites, and what is no request of a page.

use super::*;

const CHANGES: [(&str, &str); 5] = [
    ("/session/extend", ""),
    ("/session/activity", ""),
    ("/session/leave", ""),
    ("/session/hold", r#"{"id": "a", "ttl": 60}"#),
    ("/session/release", r#"{"id": "a"}"#),
];

#[tokio::test(start_paused = true)]
async fn nobody_but_a_page_of_the_site_changes_anything() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    pass(mins(5)).await;
    let before = check(&mut site.client, "alice").await;
    let cookie = cookie("alice");
    let foreign: [&[(&str, &str)]; 6] = [
        &[("origin", "https://evil.example"), ("x-session-sidecar", "1")],
        &[("origin", "null"), ("x-session-sidecar", "1")],
        &[("origin", "https://shop.example.evil"), ("x-session-sidecar", "1")],
        &[("sec-fetch-site", "cross-site"), ("x-session-sidecar", "1")],
        &[("sec-fetch-site", "same-site"), ("x-session-sidecar", "1")],
        &[("sec-fetch-site", "none"), ("x-session-sidecar", "1")],
    ];
    for (target, body) in CHANGES {
        for headers in foreign {
            let headers = [headers, &[("cookie", cookie.as_str())]].concat();
            let told = site.ask(Method::POST, target, &headers, body).await;
            assert_eq!(
                (told.code, &told.body["error"]),
                (StatusCode::FORBIDDEN, &"FOREIGN_ORIGIN".into()),
                "{target} {headers:?}"
            );
        }
        // Only a beacon comes without the header, and only where the browser vouches for it.
        let own = [("cookie", cookie.as_str()), ("origin", "https://shop.example")];
        if target != "/session/leave" {
            let told = site.ask(Method::POST, target, &own, body).await;
            assert_eq!(
                (told.code, &told.body["error"]),
                (StatusCode::FORBIDDEN, &"HEADER_MISSING".into()),
                "{target}"
            );
        }
        let bare = site.ask(Method::POST, target, &own[..1], body).await;
        assert_eq!(bare.code, StatusCode::FORBIDDEN, "{target}");
        let got = site.ask(Method::GET, target, &own, body).await;
        assert_eq!(got.code, StatusCode::METHOD_NOT_ALLOWED, "{target}");
    }
    assert_eq!(check(&mut site.client, "alice").await, before, "nothing has changed");
    let named = [
        ("cookie", cookie.as_str()),
        ("origin", "https://app.example"),
        ("x-session-sidecar", "1"),
    ];
    let told = site.ask(Method::POST, "/session/extend", &named, "").await;
    assert_eq!(told.code, StatusCode::OK, "an origin that the settings name");
}

#[tokio::test(start_paused = true)]
async fn bad_input_names_the_field_and_changes_nothing() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let before = check(&mut site.client, "alice").await;
    let long = format!(r#"{{"id": "a", "ttl": 1, "purpose": "{}"}}"#, "p".repeat(129));
    for (target, body, says) in [
        (
            "/session/extend",
            r#"{"wanted": 0}"#,
            "wanted must be a number of seconds",
        ),
        (
            "/session/extend",
            r#"{"wanted": 1e300}"#,
            "wanted must be a number of seconds",
        ),
        ("/session/extend", r#"{"want": 1}"#, "unknown field `want`"),
        ("/session/extend", "[", "the body is not what is expected"),
        (
            "/session/activity",
            r#"{"idle_for": -1}"#,
            "idle_for must be a number of seconds",
        ),
        ("/session/activity", r#"{"visibility": "x"}"#, "unknown variant `x`"),
        ("/session/hold", r#"{"id": "a"}"#, "ttl must be a number of seconds"),
        (
            "/session/hold",
            r#"{"id": "a b", "ttl": 1}"#,
            "id must be 1 to 40 characters",
        ),
        ("/session/hold", long.as_str(), "purpose must be at most 128 bytes"),
        ("/session/release", "", "id must be 1 to 40 characters"),
        ("/session/leave?page=a%20b", "", "page must be 1 to 40 characters"),
    ] {
        let told = site.post("alice", target, body).await;
        assert_eq!(told.code, StatusCode::BAD_REQUEST, "{target} {body}");
        let message = told.body["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(says), "{target} {body}: {message}");
    }
    let large = format!(r#"{{"id": "{}"}}"#, "a".repeat(5000));
    let told = site.post("alice", "/session/release", &large).await;
    assert_eq!(told.code, StatusCode::PAYLOAD_TOO_LARGE);
    for cookies in [
        format!("sid={}; sid={}", id("alice"), id("bob")),
        format!("sid={}", "a".repeat(8000)),
        "sid=a b".to_owned(),
    ] {
        let told = site.ask(Method::GET, "/session", &[("cookie", &cookies)], "").await;
        assert_eq!(told.code, StatusCode::BAD_REQUEST);
        assert!(!told.body.to_string().contains("aaa"), "no value is told again");
    }
    let nobody = site
        .ask(Method::POST, "/session/extend", &[("x-session-sidecar", "1")], "")
        .await;
    assert_eq!(
        (nobody.code, &nobody.body["error"]),
        (StatusCode::UNAUTHORIZED, &"SESSION_MISSING".into())
    );
    assert_eq!(check(&mut site.client, "alice").await, before);
}
