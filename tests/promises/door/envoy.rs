//! What Envoy asks before it forwards: the door's question over gRPC.

use std::collections::BTreeMap;

use session_sidecar::rpc::{
    Caller, VerbGroup,
    proto::envoy::{
        AttributeContext, CheckRequest, CheckResponse, HeaderMap, HeaderValue, HeaderValueOption,
        attribute_context::{HttpRequest, Request},
        authorization_client::AuthorizationClient,
        check_response::HttpResponse,
    },
};

use super::*;

struct Envoy {
    site: Site,
    asks: AuthorizationClient<tonic::transport::Channel>,
}

/// What became of a request.
#[derive(Debug)]
struct Became {
    /// 0: it goes on.
    code: i32,
    /// Set at the request that goes on, or at the refusal.
    headers: BTreeMap<String, String>,
    removed: Vec<String>,
    /// Set at the application's answer.
    response: BTreeMap<String, String>,
    body: Value,
}

fn request(name: &str, target: &str, headers: &[(&str, &str)]) -> HttpRequest {
    let headers = headers
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let cookie = (!name.is_empty()).then(|| ("cookie".to_owned(), cookie(name)));
    HttpRequest {
        method: "GET".to_owned(),
        host: "shop.example:8443".to_owned(),
        path: target.to_owned(),
        headers: headers.chain(cookie).collect(),
        header_map: None,
    }
}

fn question(http: HttpRequest, says: &[(&str, &str)]) -> CheckRequest {
    let says = says.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    CheckRequest {
        attributes: Some(AttributeContext {
            request: Some(Request { http: Some(http) }),
            context_extensions: says.collect(),
        }),
    }
}

fn pairs(options: Vec<HeaderValueOption>) -> BTreeMap<String, String> {
    let headers = options.into_iter().map(|option| option.header.expect("a header"));
    headers.map(|header| (header.key, header.value)).collect()
}

fn became(answer: CheckResponse) -> Became {
    let code = answer.status.expect("a status").code;
    match answer.http_response.expect("an answer") {
        HttpResponse::OkResponse(ok) => {
            assert_eq!(code, 0);
            Became {
                code: 0,
                headers: pairs(ok.headers),
                removed: ok.headers_to_remove,
                response: pairs(ok.response_headers_to_add),
                body: Value::Null,
            }
        }
        HttpResponse::DeniedResponse(denied) => {
            assert_ne!(code, 0);
            Became {
                code: denied.status.expect("a status").code,
                headers: pairs(denied.headers),
                removed: Vec::new(),
                response: BTreeMap::new(),
                body: serde_json::from_str(&denied.body).expect("JSON"),
            }
        }
    }
}

impl Envoy {
    async fn before(site: Site) -> Self {
        Self::who_may(site, &[VerbGroup::Use, VerbGroup::Issue]).await
    }

    async fn who_may(site: Site, verbs: &[VerbGroup]) -> Self {
        let caller = Caller {
            verbs: verbs.to_vec(),
            ..Caller::default()
        };
        let asks = AuthorizationClient::new(site.sidecar.channel(caller).await);
        Self { site, asks }
    }

    async fn ask(&self, question: CheckRequest) -> Result<Became, tonic::Status> {
        let answer = self.asks.clone().check(question).await?;
        Ok(became(answer.into_inner()))
    }

    async fn asks(&self, name: &str, target: &str, headers: &[(&str, &str)]) -> Became {
        let asked = self.ask(question(request(name, target, headers), &[])).await;
        asked.expect("an answer")
    }

    async fn left(&self, name: &str) -> f64 {
        self.site.show(name).await["expires_in"].as_f64().expect("a number")
    }
}

const NAVIGATION: (&str, &str) = ("sec-fetch-mode", "navigate");

#[tokio::test(start_paused = true)]
async fn g9_a_request_counts_as_the_policy_says_and_the_application_is_told_whose_it_is() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let envoy = Envoy::before(site).await;
    pass(mins(5)).await;
    let became = envoy.asks("alice", "/cart?x=1", &[NAVIGATION]).await;
    assert_eq!(became.code, 0);
    assert_eq!(became.headers["x-session-state"], "ACTIVE");
    assert_eq!(became.headers["x-session-expires-in"], "900.000");
    assert_eq!(became.headers["x-session-ref"].len(), 22);
    assert!(!became.headers.contains_key("cookie"), "the cookies go on as they came");
    let told: Vec<_> = became.response.keys().map(String::as_str).collect();
    assert_eq!(told, ["x-session-expires-in", "x-session-state"], "to the browser");
    pass(mins(5)).await;
    for (target, headers) in [
        ("/poll", &[][..]),
        ("/static/a.css", &[]),
        ("/cart", &[("sec-purpose", "prefetch")]),
    ] {
        assert_eq!(envoy.asks("alice", target, headers).await.code, 0, "{target}");
        assert_eq!(envoy.left("alice").await, 600.0, "{target} is no activity");
    }
    assert_eq!(
        envoy.site.sidecar.metric("rpcs_total{method=\"ExtAuthz\",code=\"OK\"}"),
        4.0
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_client_writes_into_our_headers_does_not_reach_the_application() {
    let mut site = Site::new().await;
    create_with(&mut site.client, "alice", |create| create.subject = "ada".to_owned()).await;
    let envoy = Envoy::before(site).await;
    let spoofed = [
        ("x-session-subject", "root"),
        ("x_session_subject", "root"),
        ("x-session_ref", "r"),
        ("x-session-token", "the application's own"),
    ];
    for (name, target) in [("alice", "/cart"), ("", "/static/a.css"), ("nobody", "/login")] {
        let became = envoy.asks(name, target, &spoofed).await;
        assert_eq!(became.code, 0);
        let subject = became.headers.get("x-session-subject").map(String::as_str);
        assert_eq!(subject, (name == "alice").then_some("ada"), "{target}");
        assert!(
            !became.removed.contains(&"x-session-token".to_owned()),
            "that is none of ours"
        );
        for ours in [
            "x-session-subject",
            "x-session-ref",
            "x-session-cookies",
            "x-session-login",
            "x_session_subject",
            "x-session_ref",
        ] {
            let goes = became.removed.iter().any(|removed| removed == ours);
            assert_ne!(
                goes,
                became.headers.contains_key(ours),
                "{ours} is set by us, or removed"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn r3_an_end_sends_the_person_to_the_login_page_and_tells_a_script_why() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let envoy = Envoy::before(site).await;
    pass(mins(15)).await;
    let person = envoy.asks("alice", "/cart?x=1", &[NAVIGATION]).await;
    assert_eq!(person.code, 302);
    assert_eq!(
        person.headers["location"],
        "/login?reason=IDLE_TIMEOUT&next=/cart%3Fx%3D1"
    );
    assert!(person.headers["set-cookie"].starts_with("sid=; Path=/; Max-Age=0"));
    let script = envoy.asks("alice", "/cart", &[("sec-fetch-mode", "cors")]).await;
    assert_eq!((script.code, &script.body["error"]), (401, &"SESSION_ENDED".into()));
    assert_eq!(script.body["end"]["reason"], "IDLE_TIMEOUT");
    assert_eq!(script.headers["content-type"], "application/json");
    let told = question(request("alice", "/cart", &[NAVIGATION]), &[("deny", "status")]);
    let told = envoy.ask(told).await.expect("an answer");
    assert_eq!((told.code, told.headers.contains_key("location")), (401, false));
    // The login page is public, and does not see the dead cookie.
    let login = envoy.asks("alice", "/login", &[NAVIGATION]).await;
    assert_eq!((login.code, login.headers["cookie"].as_str()), (0, "theme=dark"));
    assert!(login.response["set-cookie"].starts_with("sid=; "));
    let mut alone = request("", "/login", &[NAVIGATION]);
    alone
        .headers
        .insert("cookie".to_owned(), format!("sid={}", id("alice")));
    let login = envoy.ask(question(alone, &[])).await.expect("an answer");
    assert!(
        login.removed.iter().any(|removed| removed == "cookie"),
        "no other is left"
    );
}

#[tokio::test(start_paused = true)]
async fn a_route_of_envoy_has_the_last_word() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let envoy = Envoy::before(site).await;
    let asks = async |target: &str, says: &[(&str, &str)]| {
        envoy
            .ask(question(request("", target, &[]), says))
            .await
            .expect("an answer")
            .code
    };
    assert_eq!(asks("/cart", &[("public", "true"), ("owner", "shop")]).await, 0);
    assert_eq!(asks("/static/a.css", &[("public", "false")]).await, 401);
    assert_eq!(
        asks("/login", &[("public", "false")]).await,
        0,
        "public by construction"
    );
    assert_eq!(
        asks("/a/..;/cart", &[("public", "true")]).await,
        401,
        "read in two ways"
    );
    pass(mins(5)).await;
    let passive = question(request("alice", "/cart", &[NAVIGATION]), &[("passive", "true")]);
    assert_eq!(envoy.ask(passive).await.expect("an answer").code, 0);
    assert_eq!(envoy.left("alice").await, 600.0);
    for (key, value) in [("public", "yes"), ("passive", "1"), ("deny", "")] {
        let asked = question(request("alice", "/cart", &[]), &[(key, value)]);
        let status = envoy.ask(asked).await.expect_err("no such word");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert!(
            status.message().contains(&format!("context_extensions.{key}")),
            "{status:?}"
        );
    }
    assert_eq!(envoy.left("alice").await, 600.0, "nothing changed");
}

#[tokio::test(start_paused = true)]
async fn raw_headers_are_read_and_two_ids_are_none() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let envoy = Envoy::before(site).await;
    let raw = |lines: &[String]| {
        let headers = lines.iter().map(|line| HeaderValue {
            key: "cookie".to_owned(),
            raw_value: line.clone().into_bytes(),
            ..HeaderValue::default()
        });
        let mut http = request("", "/cart", &[]);
        http.header_map = Some(HeaderMap {
            headers: headers.collect(),
        });
        question(http, &[])
    };
    assert_eq!(envoy.ask(raw(&[cookie("alice")])).await.expect("an answer").code, 0);
    let two = raw(&[cookie("alice"), cookie("bob")]);
    assert_eq!(envoy.ask(two).await.expect("an answer").body["error"], "INVALID");
    for bad in [
        "sid=a\tb".to_owned(),
        format!("sid={}", "a".repeat(8192)),
        "sid=short".to_owned(),
    ] {
        let became = envoy.ask(raw(&[bad])).await.expect("an answer");
        assert_eq!((became.code, &became.body["error"]), (401, &"INVALID".into()));
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_not_use_sessions_may_not_ask_and_a_question_is_about_a_request() {
    let envoy = Envoy::who_may(Site::new().await, &[VerbGroup::Issue]).await;
    let status = envoy
        .ask(question(request("", "/", &[]), &[]))
        .await
        .expect_err("not allowed");
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    let envoy = Envoy::who_may(envoy.site, &[VerbGroup::Use]).await;
    let status = envoy.ask(CheckRequest::default()).await.expect_err("about nothing");
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert!(status.message().contains("attributes.request.http"));
    let long = format!("/{}", "a".repeat(2048));
    assert_eq!(envoy.asks("", &long, &[]).await.code, 414);
    // Where sessions begin at the door, whoever asks begins them.
    let starts = "[policy.default]\ntombstone_ttl = \"14d\"\n[door]\ncookies = [\"sid\"]\nunknown = \"start\"\nstart = { app_session_age = \"14d\" }";
    let envoy = Envoy::who_may(Site::with(starts).await, &[VerbGroup::Use]).await;
    let status = envoy
        .ask(question(request("ada", "/", &[]), &[]))
        .await
        .expect_err("not allowed");
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    let other = Site::with("[door]\ncookies = [\"sid\"]\ntenant = \"shop\"").await;
    let status = Envoy::before(other)
        .await
        .ask(question(request("", "/", &[]), &[]))
        .await;
    assert_eq!(
        status.expect_err("another tenant").code(),
        tonic::Code::PermissionDenied
    );
}

#[tokio::test(start_paused = true)]
async fn sessions_begin_with_a_policy_that_remembers_long_enough() {
    let file = r#"
[policy.default]
tombstone_ttl = "14d"
[policy.strict]
idle_timeout = "5m"
tombstone_ttl = "20d"
[policy.forgets]
tombstone_ttl = "1d"
[door]
cookies = ["sid"]
unknown = "start"
start = { app_session_age = "14d" }
"#;
    let envoy = Envoy::before(Site::with(file).await).await;
    let begins = async |name: &str, says: &[(&str, &str)]| {
        envoy
            .ask(question(request(name, "/", &[NAVIGATION]), says))
            .await
            .expect("an answer")
    };
    assert_eq!(begins("alice", &[]).await.headers["x-session-expires-in"], "900.000");
    assert_eq!(
        begins("bob", &[("policy", "strict")]).await.headers["x-session-expires-in"],
        "300.000"
    );
    for policy in ["forgets", "nonesuch"] {
        let became = begins("carol", &[("policy", policy)]).await;
        assert_eq!(
            (became.code, &became.body["error"]),
            (302, &"SESSION_UNKNOWN".into()),
            "{policy}"
        );
    }
}
