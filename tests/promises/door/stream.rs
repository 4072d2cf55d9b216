//! What happens to a session, as a page hears of it.

use super::*;
use axum::body::BodyDataStream;
use session_sidecar::rpc::proto::v1::{EndReason, SessionState};
use tokio_stream::StreamExt as _;

/// An open stream.
struct Stream {
    body: BodyDataStream,
    text: String,
    /// What `id:` said last.
    token: String,
}

impl Stream {
    async fn open(site: &Site, name: &str, page: &str, token: &str) -> Self {
        let cookie = cookie(name);
        let headers = [
            ("cookie", cookie.as_str()),
            ("sec-fetch-site", "same-origin"),
            ("last-event-id", token),
        ];
        let target = format!("/session/events?page={page}");
        let response = site.send(Method::GET, &target, &headers, "").await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self {
            body: response.into_body().into_data_stream(),
            text: String::new(),
            token: String::new(),
        }
    }

    /// The next event and what it says; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                if let Some(token) = field("id:") {
                    self.token = token.to_owned();
                }
                if let (Some(event), Some(data)) = (field("event:"), field("data:")) {
                    return Some((event.to_owned(), serde_json::from_str(data).expect("JSON")));
                }
            }
            let chunk = self.body.next().await?.expect("a chunk");
            self.text += std::str::from_utf8(&chunk).expect("text");
        }
    }

    /// Reads what has come, as a browser does all the time.
    async fn read_on(&mut self) {
        while let Ok(Some(chunk)) = tokio::time::timeout(secs(1), self.body.next()).await {
            self.text += std::str::from_utf8(&chunk.expect("a chunk")).expect("text");
        }
    }

    async fn expect(&mut self, event: &str) -> Value {
        let (known, data) = self.next().await.expect("an event");
        assert_eq!(known, event, "{data}");
        data
    }
}

#[tokio::test(start_paused = true)]
async fn g3_g4_a_page_is_warned_hears_that_it_may_stay_and_is_told_the_end() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let mut stream = Stream::open(&site, "alice", "one", "").await;
    assert_eq!(stream.expect("state").await["expires_in"], 900.0);
    let warning = stream.expect("warning").await;
    assert_eq!(
        (&warning["expires_in"], &warning["warn_before"]),
        (&120.0.into(), &120.0.into())
    );
    assert_eq!(
        (&warning["limit"], &warning["can_extend"]),
        (&"IDLE".into(), &true.into())
    );
    site.post("alice", "/session/extend", "").await;
    assert_eq!(stream.expect("cleared").await["expires_in"], 900.0);
    stream.expect("warning").await;
    assert_eq!(stream.expect("warning").await["expires_in"], 60.0);
    let ended = stream.expect("ended").await;
    assert_eq!(
        (&ended["end"]["reason"], &ended["login_url"]),
        (&"IDLE_TIMEOUT".into(), &"/login".into())
    );
    assert!(stream.next().await.is_none(), "it closes");
    let headers = [("cookie", cookie("alice"))];
    let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
    let told = site.ask(Method::GET, "/session/events", &headers, "").await;
    assert_eq!(
        told.code,
        StatusCode::UNAUTHORIZED,
        "a browser does not come back after that"
    );
}

#[tokio::test(start_paused = true)]
async fn g12_a_page_that_comes_back_hears_what_it_missed() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let mut stream = Stream::open(&site, "alice", "one", "").await;
    stream.expect("state").await;
    stream.expect("warning").await;
    let token = stream.token.clone();
    drop(stream);
    touch(&mut site.client, "alice").await.expect("live");
    let mut stream = Stream::open(&site, "alice", "one", &token).await;
    stream.expect("cleared").await;
    drop(stream);
    let mut anew = Stream::open(&site, "alice", "one", "another-sidecars-token").await;
    assert_eq!(
        anew.expect("state").await["state"],
        "ACTIVE",
        "what is not known begins anew"
    );
}

#[tokio::test(start_paused = true)]
async fn r1_an_open_page_keeps_presence_and_a_left_one_lets_it_end() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let mut first = Stream::open(&site, "alice", "one", "").await;
    let mut second = Stream::open(&site, "alice", "two", "").await;
    first.expect("state").await;
    second.expect("state").await;
    let held = |session: &session_sidecar::rpc::proto::v1::Session| {
        session
            .holds
            .iter()
            .map(|hold| hold.hold_id.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(held(&check(&mut site.client, "alice").await), ["tab.one", "tab.two"]);
    for _ in 0..10 {
        // Far longer than the hold of a page that says nothing.
        pass(secs(60)).await;
        first.read_on().await;
        second.read_on().await;
        touch(&mut site.client, "alice").await.expect("live");
    }
    assert_eq!(held(&check(&mut site.client, "alice").await), ["tab.one", "tab.two"]);
    // A beacon, as the page goes away: its stream is still open for a moment.
    let cookie = cookie("alice");
    let beacon = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    site.ask(Method::POST, "/session/leave?page=one", &beacon, "").await;
    pass(secs(60)).await;
    assert_eq!(
        held(&check(&mut site.client, "alice").await),
        ["tab.two"],
        "it is not held again"
    );
    site.ask(Method::POST, "/session/leave?page=two", &beacon, "").await;
    drop((first, second));
    pass(secs(29)).await;
    assert_eq!(state(&mut site.client, "alice").await, SessionState::Active);
    pass(secs(2)).await;
    assert_eq!(
        ended_after(&check(&mut site.client, "alice").await).1,
        EndReason::BrowserClosed
    );
}

#[tokio::test(start_paused = true)]
async fn r1_a_page_that_is_left_before_its_stream_came_was_open_too() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let cookie = cookie("alice");
    let beacon = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    // Another page is open: nothing is over.
    let mut other = Stream::open(&site, "alice", "two", "").await;
    other.expect("state").await;
    site.ask(Method::POST, "/session/leave?page=one", &beacon, "").await;
    for _ in 0..4 {
        pass(secs(20)).await;
        other.read_on().await;
    }
    assert_eq!(state(&mut site.client, "alice").await, SessionState::Active);
    create(&mut site.client, "bob").await;
    let cookie = super::cookie("bob");
    let beacon = [("cookie", cookie.as_str()), ("sec-fetch-site", "same-origin")];
    site.ask(Method::POST, "/session/leave?page=one", &beacon, "").await;
    pass(secs(29)).await;
    assert_eq!(state(&mut site.client, "bob").await, SessionState::Active);
    pass(secs(2)).await;
    assert_eq!(
        ended_after(&check(&mut site.client, "bob").await).1,
        EndReason::BrowserClosed
    );
}

#[tokio::test(start_paused = true)]
async fn r1_a_page_that_is_lost_has_the_longer_grace() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let mut stream = Stream::open(&site, "alice", "one", "").await;
    stream.expect("state").await;
    drop(stream);
    pass(secs(89) + mins(5)).await;
    assert_eq!(state(&mut site.client, "alice").await, SessionState::Active);
    pass(secs(2)).await;
    assert_eq!(
        ended_after(&check(&mut site.client, "alice").await).1,
        EndReason::BrowserClosed
    );
}

#[tokio::test(start_paused = true)]
async fn streams_are_for_pages_of_the_site_and_not_too_many() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let cookie = cookie("alice");
    for foreign in [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")] {
        let headers = [("cookie", cookie.as_str()), foreign];
        let told = site.ask(Method::GET, "/session/events", &headers, "").await;
        assert_eq!(
            (told.code, &told.body["error"]),
            (StatusCode::FORBIDDEN, &"FOREIGN_ORIGIN".into())
        );
    }
    // An id that somebody made up takes no watcher's place.
    let made_up = [("cookie", format!("sid={}", "x".repeat(40)))];
    let made_up = made_up.each_ref().map(|(name, value)| (*name, value.as_str()));
    let told = site.ask(Method::GET, "/session/events", &made_up, "").await;
    assert_eq!(
        (told.code, &told.body["error"]),
        (StatusCode::UNAUTHORIZED, &"SESSION_UNKNOWN".into())
    );
    let mut open = Vec::new();
    for number in 0..16 {
        let mut stream = Stream::open(&site, "alice", &format!("tab-{number}"), "").await;
        stream.expect("state").await;
        open.push(stream);
    }
    let headers = [("cookie", cookie.as_str())];
    let told = site.ask(Method::GET, "/session/events", &headers, "").await;
    assert_eq!(
        (told.code, &told.body["error"]),
        (StatusCode::TOO_MANY_REQUESTS, &"STREAM_CAP".into())
    );
    open.pop();
    pass(secs(1)).await;
    Stream::open(&site, "alice", "another", "").await.expect("state").await;
}

#[tokio::test(start_paused = true)]
async fn g13_a_page_that_does_not_read_is_cut_off_and_its_presence_lapses() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let mut stream = Stream::open(&site, "alice", "one", "").await;
    stream.expect("state").await;
    for _ in 0..8 {
        pass(mins(1)).await;
        touch(&mut site.client, "alice").await.expect("live");
    }
    assert!(check(&mut site.client, "alice").await.holds.is_empty());
    while stream.next().await.is_some() {}
}

#[tokio::test(start_paused = true)]
async fn a_session_that_was_rotated_is_over_for_its_page() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let mut stream = Stream::open(&site, "alice", "one", "").await;
    stream.expect("state").await;
    rotate(&mut site.client, "alice", "alice-2").await;
    assert_eq!(stream.expect("ended").await["end"]["reason"], "ROTATED");
    assert!(stream.next().await.is_none(), "it follows nobody");
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_the_streams_and_says_so() {
    let mut site = Site::new().await;
    create(&mut site.client, "alice").await;
    let mut stream = Stream::open(&site, "alice", "one", "").await;
    stream.expect("state").await;
    site.sidecar.draining.cancel();
    stream.expect("draining").await;
    assert!(stream.next().await.is_none());
}
