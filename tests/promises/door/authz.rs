//! What a proxy asks before it forwards.

use super::*;

impl Site {
    async fn authorize(&self, name: &str, method: &str, target: &str, more: &[(&str, &str)]) -> Told {
        let cookie = cookie(name);
        let mut headers = vec![("x-original-uri", target), ("x-original-method", method)];
        if !name.is_empty() {
            headers.push(("cookie", &cookie));
        }
        headers.extend(more);
        self.ask(Method::GET, "/authz", &headers, "").await
    }
}

const NAVIGATION: [(&str, &str); 2] = [("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];

#[tokio::test(start_paused = true)]
async fn g9_a_request_counts_as_the_policy_says() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let left = async |site: &Site| site.show("alice").await["expires_in"].clone();
    pass(mins(5)).await;
    let told = site.authorize("alice", "GET", "/cart?x=1", &NAVIGATION).await;
    assert_eq!(told.code, StatusCode::OK);
    assert_eq!(header(&told, "x-session-state"), "ACTIVE");
    assert_eq!(header(&told, "x-session-expires-in"), "900.000");
    assert_eq!(header(&told, "x-session-cookies"), cookie("alice"), "as they came");
    assert!(!header(&told, "x-session-ref").is_empty());
    pass(mins(5)).await;
    for (target, more) in [
        ("/poll", &[][..]),
        ("/static/a.css", &[]),
        ("/cart", &[("sec-purpose", "prefetch")]),
    ] {
        let told = site.authorize("alice", "GET", target, more).await;
        assert_eq!(told.code, StatusCode::OK, "{target}");
        assert_eq!(left(&site).await, 600.0, "{target} is no activity");
    }
}

#[tokio::test(start_paused = true)]
async fn r3_an_ended_session_is_sent_to_the_login_page_and_told_why() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    pass(mins(15)).await;
    let told = site.authorize("alice", "GET", "/cart?x=1&y=/", &NAVIGATION).await;
    let login = "/login?reason=IDLE_TIMEOUT&next=/cart%3Fx%3D1%26y%3D/";
    assert_eq!(told.code, StatusCode::UNAUTHORIZED);
    assert_eq!(
        (header(&told, "x-session-login"), header(&told, "location")),
        (login.to_owned(), String::new())
    );
    assert_eq!(header(&told, "x-session-end-reason"), "IDLE_TIMEOUT");
    assert!(
        header(&told, "set-cookie").starts_with("sid=; "),
        "no loop: the cookie is taken back"
    );
    // The person is where the browser says that a person is.
    let redirect = async |more: &[(&str, &str)]| {
        let cookie = cookie("alice");
        let mut headers = vec![("x-forwarded-uri", "/cart"), ("cookie", cookie.as_str())];
        headers.extend(more);
        site.ask(Method::GET, "/authz?deny=redirect", &headers, "").await
    };
    let told = redirect(&NAVIGATION).await;
    assert_eq!(
        (told.code, header(&told, "location").as_str()),
        (StatusCode::FOUND, "/login?reason=IDLE_TIMEOUT&next=/cart")
    );
    let told = redirect(&[("sec-fetch-mode", "cors")]).await;
    assert_eq!(
        (told.code, &told.body["error"]),
        (StatusCode::UNAUTHORIZED, &"SESSION_ENDED".into())
    );
    assert_eq!(told.body["end"]["reason"], "IDLE_TIMEOUT");
    assert!(!told.body["session_ref"].as_str().expect("a reference").is_empty());
    let told = redirect(&[NAVIGATION[0], ("x-forwarded-method", "POST")]).await;
    assert_eq!(
        (told.code, header(&told, "location").as_str()),
        (StatusCode::SEE_OTHER, "/login?reason=IDLE_TIMEOUT"),
        "a form that was sent too late: a person reads the answer, and what was sent is gone"
    );
    let told = redirect(&[("accept", "text/html,*/*")]).await;
    assert_eq!(told.code, StatusCode::FOUND, "a browser that does not say what it does");
}

#[tokio::test(start_paused = true)]
async fn a_login_page_never_refuses_and_the_dead_cookie_does_not_reach_it() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    pass(mins(15)).await;
    for target in ["/login?next=/cart", "/static/a.css"] {
        let told = site.authorize("alice", "GET", target, &NAVIGATION).await;
        assert_eq!(told.code, StatusCode::OK, "{target}");
        assert_eq!(header(&told, "x-session-cookies"), "theme=dark", "{target}");
        assert!(header(&told, "set-cookie").starts_with("sid=; "), "{target}");
        assert_eq!(site.authorize("", "GET", target, &[]).await.code, StatusCode::OK);
        assert_eq!(site.authorize("nobody", "GET", target, &[]).await.code, StatusCode::OK);
    }
    for target in ["/static/../cart", "/static/%2e%2e/cart", "/login/x"] {
        assert_eq!(
            site.authorize("alice", "GET", target, &[]).await.code,
            StatusCode::UNAUTHORIZED,
            "{target}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_unknown_is_refused_or_goes_untracked_as_the_file_says() {
    let site = Site::new().await;
    for name in ["", "nobody"] {
        let told = site.authorize(name, "GET", "/cart", &NAVIGATION).await;
        assert_eq!(
            (told.code, header(&told, "x-session-login").as_str()),
            (StatusCode::UNAUTHORIZED, "/login?next=/cart")
        );
        assert_eq!(header(&told, "set-cookie"), "");
    }
    let lax = Site::with("[door]\ncookies = [\"sid\"]\nunknown = \"allow-untracked\"").await;
    let told = lax.authorize("nobody", "GET", "/cart", &NAVIGATION).await;
    assert_eq!(
        (told.code, header(&told, "x-session-ref").as_str()),
        (StatusCode::OK, "")
    );
    assert_eq!(
        lax.authorize("", "GET", "/cart", &[]).await.code,
        StatusCode::UNAUTHORIZED,
        "no session at all"
    );
}

#[tokio::test(start_paused = true)]
async fn r3_an_ended_session_does_not_come_back_in_another_guise() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    pass(mins(15)).await;
    create(&mut site.client, "mallory").await;
    let (ended, own) = (id("alice"), id("mallory"));
    let (first, rest) = ended.split_at(1);
    for cookies in [
        format!("sid=\"{ended}\""),
        format!("sid=%{:x}{rest}", first.as_bytes()[0]),
        format!("sid=\"\\{:o}{rest}\"", first.as_bytes()[0]),
        format!("sid={own}; \u{a0}sid={ended}"),
        format!("sid={own}; other=1 sid={ended}"),
        format!("s%69d={ended}; sid={own}"),
        format!("SID={ended}; sid={own}"),
        format!("sid={own}; =sid={ended}"),
        format!("sid={own}; @sid={ended}"),
        format!("sid={own}; x=1,SID={ended}"),
        format!("sid={own}; x=a\"Sid={ended}"),
        format!("sid={own}; SID=%{:X}{rest}", first.as_bytes()[0]),
        format!("sid={own}; SID=\"{ended}\""),
        format!("sid={own}; x=1,%73id={ended}"),
        format!("sid={own}; SID={ended}; wide={ended}"),
        format!("sid={own}; %20sid={ended}"),
        format!("sid={own}; x=1 sid=\"\\{:o}{rest}\"", first.as_bytes()[0]),
        format!(
            "sid={own}; {}",
            (0..17).map(|other| format!("SID={other}; ")).collect::<String>()
        ),
        format!("sid={own}; sid={ended}"),
    ] {
        let cookies = format!("theme=dark; {cookies}");
        let ask = async |target: &str| {
            let headers = [("x-original-uri", target), ("cookie", cookies.as_str())];
            site.ask(Method::GET, "/authz", &headers, "").await
        };
        assert_eq!(ask("/cart").await.code, StatusCode::UNAUTHORIZED, "{cookies}");
        for public in ["/login", "/static/a.css"] {
            let told = ask(public).await;
            assert_eq!(told.code, StatusCode::OK);
            assert_eq!(header(&told, "x-session-cookies"), "theme=dark", "{cookies}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r3_an_application_sees_no_other_session_than_the_one_that_was_judged() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    pass(mins(15)).await;
    create(&mut site.client, "bob").await;
    let (ended, live) = (id("alice"), id("bob"));
    let others = "theme=dark; SID=another-applications; next=\"/page?sid=1\"; x=Hello, see /a?sid=2";
    let cookies = format!("wide={ended}; sid={live}; {others}");
    for target in ["/cart", "/static/a.css"] {
        let headers = [("x-original-uri", target), ("cookie", cookies.as_str())];
        let told = site.ask(Method::GET, "/authz", &headers, "").await;
        assert_eq!(told.code, StatusCode::OK);
        assert_eq!(header(&told, "x-session-cookies"), format!("sid={live}; {others}"));
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_proxy_must_pass_is_said() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let cookie = cookie("alice");
    let long = format!("/{}", "a".repeat(2048));
    for (target, code) in [
        ("", StatusCode::BAD_REQUEST),
        ("cart", StatusCode::BAD_REQUEST),
        (long.as_str(), StatusCode::URI_TOO_LONG),
    ] {
        let headers = [("cookie", cookie.as_str()), ("x-original-uri", target)];
        let told = site.ask(Method::GET, "/authz", &headers, "").await;
        assert_eq!(told.code, code);
    }
    // Where the proxy's own header cannot be read, that of the client's does not decide what it asks for.
    let headers = [("x-forwarded-uri", "/cart?\u{ff}"), ("x-original-uri", "/static/a.css")];
    let told = site.ask(Method::GET, "/authz", &headers, "").await;
    assert_eq!(told.code, StatusCode::BAD_REQUEST);
    // Never to another site.
    pass(mins(15)).await;
    let told = site.authorize("alice", "GET", "//evil.example/", &NAVIGATION).await;
    assert_eq!(header(&told, "x-session-login"), "/login?reason=IDLE_TIMEOUT");
}
