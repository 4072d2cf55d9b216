//! Ids that the sidecar has not seen: refused, let pass, or the beginning of a session.

use super::*;
use session_sidecar::{config::parse_policy_file, rpc::proto::v1};

const START: &str = r#"
[policy.default]
idle_timeout = "15m"
absolute_timeout = "12h"
tombstone_ttl = "24h"

[policy.strict]
idle_timeout = "5m"
absolute_timeout = "1h"
tombstone_ttl = "24h"

[door]
cookies = ["sid"]
unknown = "start"
start = { max_sessions = 5, rate = 4, app_session_age = "24h" }

[[door.routes]]
path = "/static/**"
public = true

[[door.routes]]
path = "/poll"
passive = true

[[door.routes]]
path = "/admin/**"
policy = "strict"
"#;

impl Site {
    async fn authz(&self, name: &str, target: &str) -> Told {
        let headers = [
            ("cookie", cookie(name)),
            ("x-original-uri", target.to_owned()),
            ("sec-fetch-mode", "navigate".to_owned()),
        ];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        self.ask(Method::GET, "/authz", &headers, "").await
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_id_begins_a_session_with_the_policy_of_its_route() {
    let site = Site::with(START).await;
    let begun = site.authz("alice", "/orders").await;
    assert_eq!(
        (begun.code, header(&begun, "x-session-state")),
        (StatusCode::OK, "ACTIVE".into())
    );
    assert_eq!(header(&begun, "x-session-expires-in"), "900.000");
    assert_eq!(site.show("alice").await["state"], "ACTIVE");
    assert_eq!(
        header(&site.authz("bob", "/admin/x").await, "x-session-expires-in"),
        "300.000"
    );
    // It is a session like any other from then on.
    pass(mins(10)).await;
    assert_eq!(
        header(&site.authz("alice", "/admin/x").await, "x-session-expires-in"),
        "900.000"
    );
    assert_eq!(site.show("bob").await["end"]["reason"], "IDLE_TIMEOUT");
}

#[tokio::test(start_paused = true)]
async fn an_ended_session_does_not_begin_again() {
    let site = Site::with(START).await;
    site.authz("alice", "/orders").await;
    pass(mins(16)).await;
    let over = site.authz("alice", "/orders").await;
    assert_eq!(
        (over.code, header(&over, "x-session-end-reason")),
        (StatusCode::UNAUTHORIZED, "IDLE_TIMEOUT".into())
    );
    pass(mins(60 * 23)).await;
    assert_eq!(site.authz("alice", "/orders").await.code, StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn nothing_begins_where_nobody_is_refused_nor_by_what_is_never_activity() {
    let site = Site::with(START).await;
    for target in ["/static/a.css", "/poll", "/login"] {
        assert_eq!(site.authz("alice", target).await.code, StatusCode::OK, "{target}");
    }
    assert_eq!(site.show("alice").await["state"], "UNKNOWN");
}

#[tokio::test(start_paused = true)]
async fn a_cookie_that_can_be_no_id_leads_to_the_login_page_and_no_further() {
    for file in [DOOR, START] {
        let site = Site::with(file).await;
        // Too short for any policy; two of one name.
        for cookies in [
            "sid=short",
            "sid=aaaaaaaaaaaaaaaaaaaaaaaa; sid=bbbbbbbbbbbbbbbbbbbbbbbb",
        ] {
            let ask = |target: &'static str| {
                let headers = [("cookie", cookies), ("x-original-uri", target)];
                let site = &site;
                async move { site.ask(Method::GET, "/authz", &headers, "").await }
            };
            let told = ask("/orders").await;
            assert_eq!(
                (told.code, &told.body["error"]),
                (StatusCode::UNAUTHORIZED, &"INVALID".into())
            );
            assert!(header(&told, "x-session-login").starts_with("/login"));
            assert_eq!(ask("/login").await.code, StatusCode::OK);
            assert_eq!(ask("/static/a.css").await.code, StatusCode::OK);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_made_up_ids_keeps_no_login_out() {
    let mut site = Site::with(START).await;
    let mut begun = 0;
    for number in 0..200 {
        let told = site.authz(&format!("made-up-{number}"), "/orders").await;
        match told.code {
            StatusCode::OK => begun += 1,
            code => assert_eq!(
                (code, &told.body["error"]),
                (StatusCode::UNAUTHORIZED, &"SESSION_UNKNOWN".into())
            ),
        }
    }
    assert!(
        (4..=5).contains(&begun),
        "four a second, and those of the second before: {begun}"
    );
    pass(secs(2)).await;
    for number in 200..300 {
        begun += usize::from(site.authz(&format!("made-up-{number}"), "/orders").await.code == StatusCode::OK);
    }
    assert_eq!(begun, 5, "the cap");
    create(&mut site.client, "real").await;
    assert_eq!(site.authz("real", "/orders").await.code, StatusCode::OK);
}

#[test]
fn a_start_that_could_bring_an_ended_session_back_is_refused() {
    let refused = |file: &str, says: &str| {
        let error = format!("{:#}", parse_door(file).expect_err(file));
        assert!(error.contains(says), "{error}");
        // A reload takes no such file either.
        assert!(parse_policy_file(file).is_err(), "{file}");
    };
    let with = |door: &str| {
        format!("[policy.default]\ntombstone_ttl = \"24h\"\n[policy.brief]\ntombstone_ttl = \"1h\"\n[door]\n{door}")
    };
    refused(&with("unknown = \"start\""), "app_session_age");
    refused(
        &with("unknown = \"start\"\nstart = { app_session_age = \"14d\" }"),
        "remembered for 1day (tombstone_ttl)",
    );
    refused(
        &with(
            "unknown = \"start\"\nstart = { app_session_age = \"2h\" }\nroutes = [{ path = \"/a\", policy = \"brief\" }]",
        ),
        "\"brief\"",
    );
    refused(
        &with("unknown = \"start\"\nstart = { allow_revival = true }\nroutes = [{ path = \"/a\", policy = \"none\" }]"),
        "which the file does not have",
    );
    refused(&with("start = { allow_revival = true }"), "unknown = \"start\"");
    refused(
        &with("routes = [{ path = \"/a\", policy = \"brief\" }]"),
        "unknown = \"start\"",
    );
    refused(
        &with("unknown = \"start\"\nstart = { allow_revival = true, rate = 0 }"),
        "rate from 1 to 10000",
    );
    refused(
        &with("routes = [{ path = \"/a\", policy = \"brief\", public = true }]"),
        "neither passive nor has it a policy",
    );
    for good in [
        "start = { app_session_age = \"24h\" }",
        "start = { allow_revival = true }",
    ] {
        parse_door(&with(&format!("unknown = \"start\"\n{good}"))).expect(good);
    }
}

#[tokio::test(start_paused = true)]
async fn the_table_may_change_while_the_door_is_open() {
    let mut site = Site::with(START).await;
    create(&mut site.client, "alice").await;
    let (poll, unknown) = ("/poll", "bob");
    assert_eq!(site.authz(unknown, poll).await.code, StatusCode::OK);
    let stricter = parse_door("[door]\ncookies = [\"sid\"]").expect("a good table");
    assert!(site.sidecar.doors.tell(stricter.clone()) && !site.sidecar.doors.tell(stricter));
    assert_eq!(site.authz(unknown, poll).await.code, StatusCode::UNAUTHORIZED);
    assert_eq!(site.authz("alice", poll).await.code, StatusCode::OK);
    let other = parse_door("[door]\ncookies = [\"other\"]").expect("a good table");
    assert!(site.sidecar.doors.tell(other));
    assert_eq!(site.authz("alice", poll).await.body["error"], "SESSION_MISSING");
}

/// Express makes `s%3A…` of what it calls `s:…`, and takes both for that.
#[tokio::test(start_paused = true)]
async fn r3_an_ended_session_does_not_begin_again_by_another_way_to_write_its_id() {
    let untracked = "[door]\ncookies = [\"sid\"]\nunknown = \"allow-untracked\"\nroutes = [{ path = \"/static/**\", public = true }]";
    for file in [START, untracked] {
        let mut site = Site::with(file).await;
        for id in ["s%3Aended-before.c2ln", "s%3Aother-before.c2ln"] {
            create_with(&mut site.client, "", |request| request.session_id = id.to_owned()).await;
        }
        let end = v1::EndRequest {
            session_id: "s%3Aended-before.c2ln".to_owned(),
            ..Default::default()
        };
        site.client.end(end).await.expect("ended");
        let ask = async |target: &str, id: &str| {
            let cookies = format!("theme=dark; sid={id}");
            let headers = [("x-original-uri", target), ("cookie", cookies.as_str())];
            site.ask(Method::GET, "/authz", &headers, "").await
        };
        for id in ["s:ended-before.c2ln", "s%3Aended-before.c2ln&x"] {
            assert_eq!(ask("/cart", id).await.code, StatusCode::UNAUTHORIZED, "{id}");
            let told = ask("/static/a.css", id).await;
            assert_eq!(told.code, StatusCode::OK);
            assert_eq!(header(&told, "x-session-cookies"), "theme=dark", "{id}");
        }
        assert_eq!(ask("/cart", "s%3Aother-before.c2ln").await.code, StatusCode::OK);
        assert_eq!(
            ask("/cart", "s:never-before.c2lnLg").await.code,
            StatusCode::OK,
            "nobody knows it"
        );
    }
}
