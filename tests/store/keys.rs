//! The key of the store is changed while sessions live: sidecars of each stage beside those of the next. The stages are key A; A,
//! and B is accepted; B, and A is accepted; B.

use std::{collections::BTreeSet, sync::Arc};

use super::*;
use support::*;

use session_sidecar::rpc::proto::v1::{explain_session_request::Target, watch_expiry_response::Message};
use tokio::{sync::Barrier, task::JoinSet};

const A: u8 = 1;
const B: u8 = 2;

/// Sidecars that have the same keys.
struct Stage {
    site: Site,
    more: Vec<String>,
}

impl Stage {
    fn new(own: u8, other: Option<u8>) -> Self {
        let site = Site::new();
        fs::write(site.file("key"), [own; 32]).expect("a key");
        let mut more = Vec::new();
        if let Some(other) = other {
            fs::write(site.file("other"), [other; 32]).expect("a key");
            more = vec!["--store-other-key-file".to_owned(), site.file("other")];
        }
        Self { site, more }
    }

    fn all() -> [Self; 4] {
        [
            Self::new(A, None),
            Self::new(A, Some(B)),
            Self::new(B, Some(A)),
            Self::new(B, None),
        ]
    }

    async fn pod(&self, server: &Server, more: &[&str]) -> Pod {
        let more: Vec<_> = self
            .more
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        self.site.pod(&server.url(), &more).await
    }

    /// How a sidecar that is not let in ends, and what it says.
    fn refused(&self, server: &Server) -> String {
        let mut command = program();
        command
            .env_clear()
            .arg("serve")
            .args(self.site.store_args(&server.url()));
        command.args(&self.more);
        command.args(["--listen", "tcp://127.0.0.1:0", "--admin-listen", "off"]);
        let Output { status, stderr, .. } = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&stderr).into_owned();
        assert_eq!(status.code(), Some(64), "{said}");
        said
    }

    fn store(&self, word: &str, server: &Server) -> (i32, String) {
        let more: Vec<_> = self.more.iter().map(String::as_str).collect();
        self.site.store(&[word], &server.url(), &more)
    }
}

/// The fingerprint of a key, as `store inspect` names it.
fn fingerprint(key: u8) -> String {
    session_sidecar::store::shared::Fingerprints::of(&[key; 32], None).own
}

/// A call, made again while the answer is that nobody can know now.
macro_rules! call {
    ($client:expr, $verb:ident, $request:expr) => {{
        let (mut client, request) = ($client.clone(), $request);
        sure!(client.$verb(request.clone())).map(tonic::Response::into_inner)
    }};
}

/// Waits until a sidecar has heard of what another one was told.
macro_rules! in_the_end {
    ($what:literal, $is:expr) => {{
        let heard = async {
            while !$is {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, heard).await.expect($what);
    }};
}

fn creation(session_id: String, subject: &str, policy: &str, request_id: &str) -> v1::CreateRequest {
    v1::CreateRequest {
        session_id,
        subject: subject.to_owned(),
        policy: policy.to_owned(),
        request_id: request_id.to_owned(),
        ..Default::default()
    }
}

fn touching(session_id: String) -> v1::TouchRequest {
    v1::TouchRequest {
        session_id,
        ..Default::default()
    }
}

async fn ref_of(client: &Client, session_id: &str) -> String {
    let name = Some(v1::check_request::Name::SessionId(session_id.to_owned()));
    let request = v1::CheckRequest {
        name,
        ..Default::default()
    };
    let session = call!(client, check, request).expect("answered").session;
    let session = session.expect("a session");
    let known = status(&session);
    assert_ne!(known.state(), v1::SessionState::Unknown);
    known.session_ref.clone()
}

async fn is_ended(client: &Client, name: &str) -> bool {
    call!(client, touch, touching(id(name))).is_err_and(|refused| reason(&refused).1 == "SESSION_ENDED")
}

async fn listed(pod: &Pod, subject: &str) -> BTreeSet<String> {
    let request = v1::ListSessionsRequest {
        filter: Some(v1::SessionFilter {
            subject: subject.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = call!(pod.admin().await, list_sessions, request).expect("listed");
    let refs = answer
        .sessions
        .iter()
        .map(|session| status(session).session_ref.clone());
    refs.collect()
}

/// Every verb by id: of a session that began at one sidecar, at the other.
async fn g5_every_verb_finds_it(began: &Client, other: &Client, tag: &str) {
    let alice = format!("alice-{tag}");
    let name = id(&alice);
    let reference = begin(&mut began.clone(), &alice, "default").await;
    assert_eq!(ref_of(other, &name).await, reference);
    let touched = call!(other, touch, touching(name.clone())).expect("live");
    assert_eq!(touched.status.expect("a status").session_ref, reference);
    let batch = v1::BatchTouchRequest {
        touches: vec![touching(name.clone())],
    };
    let outcomes = call!(other, batch_touch, batch).expect("answered").outcomes;
    assert!(matches!(
        &outcomes[0].outcome,
        Some(v1::touch_outcome::Outcome::Touch(_))
    ));
    let hold = v1::HoldRequest {
        session_id: name.clone(),
        hold_id: "work".to_owned(),
        kind: v1::HoldKind::Work.into(),
        ttl: wire(secs(60)),
        ..Default::default()
    };
    call!(other, hold, hold).expect("held");
    let release = v1::ReleaseRequest {
        session_id: name.clone(),
        hold_id: "work".to_owned(),
        ..Default::default()
    };
    in_the_end!("the hold is known", {
        call!(began, release, release.clone()).expect("live").released
    });
    // Once, though the retry comes to the other one.
    let extend = v1::ExtendRequest {
        session_id: name.clone(),
        wanted_duration: wire(mins(90)),
        request_id: format!("extend-{tag:-<20}"),
        ..Default::default()
    };
    let first = call!(other, extend, extend.clone()).expect("extended");
    let again = call!(began, extend, extend).expect("extended");
    assert_eq!(first.granted_duration, again.granted_duration);
    let known = check(&mut began.clone(), &alice).await;
    assert_eq!(known.extensions, 1);
    // It is not created again.
    for client in [began, other] {
        let refused = call!(client, create, creation(name.clone(), "", "default", "")).expect_err("refused");
        assert_eq!(refused.code(), Code::AlreadyExists);
    }
    let end = v1::EndRequest {
        session_id: name.clone(),
        request_id: format!("end-{tag:-<20}"),
        ..Default::default()
    };
    for client in [other, began] {
        let ended = call!(client, end, end.clone()).expect("ended");
        assert!(ended.ended_now, "a retry is told what the first call was told");
        assert_eq!(ended.status.expect("a status").session_ref, reference);
    }
    for client in [began, other] {
        in_the_end!("it has ended", is_ended(client, &alice).await);
        let refused = call!(client, create, creation(name.clone(), "", "default", "")).expect_err("refused");
        assert_eq!(reason(&refused).1, "SESSION_ENDED");
    }
}

/// A request that is tried again at the other sidecar is the same request.
async fn g5_a_retry_elsewhere_is_a_retry(one: &Client, other: &Client, tag: &str) {
    let request = creation(String::new(), "", "default", &format!("create-{tag:-<20}"));
    let made = call!(one, create, request.clone()).expect("created");
    let again = call!(other, create, request.clone()).expect("created before");
    assert_eq!(made.session_id, again.session_id);
    assert_eq!(
        ref_of(one, &made.session_id).await,
        ref_of(other, &made.session_id).await
    );
    let reused = v1::CreateRequest {
        subject: "somebody-else".to_owned(),
        ..request
    };
    let refused = call!(other, create, reused).expect_err("refused");
    assert_eq!(reason(&refused).1, "REQUEST_ID_REUSED");
    // The new id is made, or the caller's own.
    let mut session_id = made.session_id;
    for new_session_id in [String::new(), id(&format!("renamed-{tag}"))] {
        let rotate = v1::RotateRequest {
            session_id: session_id.clone(),
            request_id: format!("rotate-{}{tag:-<20}", new_session_id.len()),
            new_session_id,
            ..Default::default()
        };
        let rotated = call!(other, rotate, rotate.clone()).expect("rotated");
        let again = call!(one, rotate, rotate).expect("rotated before");
        assert_eq!(rotated.session_id, again.session_id);
        let successor =
            |rotated: &v1::RotateResponse| rotated.previous_end.as_ref().map(|end| end.successor_ref.clone());
        assert_eq!(successor(&rotated), successor(&again));
        in_the_end!("the old id is an alias", {
            let touched = call!(one, touch, touching(session_id.clone())).expect("live");
            touched.status.expect("a status").alias
        });
        session_id = rotated.session_id;
    }
    // A name that was taken once is taken for ever.
    let bob = format!("bob-{tag}");
    begin(&mut one.clone(), &bob, "default").await;
    let rotate = v1::RotateRequest {
        session_id: session_id.clone(),
        new_session_id: id(&bob),
        ..Default::default()
    };
    let refused = call!(other, rotate, rotate).expect_err("refused");
    assert_eq!(refused.code(), Code::AlreadyExists);
}

/// A person's sessions are the same at both sidecars, and so many as there may be.
async fn g11_subjects_are_the_same(one: &Pod, other: &Pod, tag: &str) {
    let (on_one, on_other) = (one.client().await, other.client().await);
    let subject = format!("ada-{tag}");
    let mut refs = BTreeSet::new();
    for (client, part) in [(&on_one, "one"), (&on_other, "other")] {
        let name = id(&format!("{part}-{tag}"));
        let request = creation(name.clone(), &subject, "two", &format!("{part}-{tag:-<20}"));
        call!(client, create, request).expect("created");
        refs.insert(ref_of(client, &name).await);
    }
    for (pod, client) in [(one, &on_one), (other, &on_other)] {
        let third = creation(id(&format!("third-{tag}")), &subject, "two", "");
        let refused = call!(client, create, third).expect_err("refused");
        assert_eq!(reason(&refused).1, "SUBJECT_CAP");
        assert_eq!(listed(pod, &subject).await, refs);
    }
}

/// A watch goes on at the other sidecar, and back, by whatever it was asked for.
async fn g12_watches_go_on(one: &Client, other: &Client, tag: &str) {
    let names = ["first", "second", "third"].map(|name| format!("{name}-{tag}"));
    let subject = format!("eve-{tag}");
    let all: Vec<_> = names.iter().map(String::as_str).collect();
    // By ids that nobody has yet.
    for (kind, scope) in [
        ("ids", by_id(&all)),
        ("subject", by_subject(&subject)),
        ("everything", everything()),
    ] {
        let named = |place: usize| format!("{}-{kind}", names[place]);
        let scope = match kind {
            "ids" => by_id(&[&named(0), &named(1), &named(2)]),
            _ => scope,
        };
        let mut at = [one.clone(), other.clone()];
        let mut watcher = Watcher::open(&mut at[0], scope.clone()).await;
        for place in 0..3 {
            let client = &at[place % 2];
            let name = named(place);
            let request = creation(id(&name), &subject, "default", &format!("{name:-<20}"));
            call!(client, create, request).expect("created");
            let end = v1::EndRequest {
                session_id: id(&name),
                ..Default::default()
            };
            call!(at[(place + 1) % 2], end, end).expect("ended");
            let Message::Ended(ended) = watcher.next().await else {
                panic!("{name} ends")
            };
            let session = ended.session.expect("a session");
            if kind == "ids" {
                assert_eq!(session.session_id, id(&name), "the caller's own id");
            }
            let token = watcher.token.clone();
            let resumed = Watcher::resume(&mut at[(place + 1) % 2], scope.clone(), &token).await;
            watcher = resumed.expect("it is good there");
        }
    }
}

async fn explained(pod: &Pod, name: &str) -> String {
    let request = v1::ExplainSessionRequest {
        target: Some(Target::SessionId(id(name))),
        ..Default::default()
    };
    let answer = call!(pod.admin().await, explain_session, request).expect("explained");
    let session = answer.explanations[0].session.as_ref().expect("a session");
    status(session).session_ref.clone()
}

#[tokio::test]
async fn g5_every_promise_holds_at_each_moment_of_a_change_of_the_key() {
    let server = Server::start(&[]).await;
    let stages = Stage::all();
    let mut fleet = [stages[0].pod(&server, &[]).await, stages[0].pod(&server, &[]).await];
    // What began before and goes on; where key A is unknown it must be over.
    let mut standing: Vec<(String, String, bool)> = Vec::new();
    for (number, stage) in stages.iter().enumerate().skip(1) {
        for replaced in 0..2 {
            fleet[replaced] = stage.pod(&server, &[]).await;
            let tag = format!("{number}{replaced}");
            let clients = [fleet[0].client().await, fleet[1].client().await];
            let [one, other] = &clients;
            if number == 3 {
                standing.retain(|(.., under_a)| !under_a);
            }
            for (place, pod) in fleet.iter().enumerate() {
                for (name, reference, _) in &standing {
                    assert_eq!(&ref_of(&clients[place], &id(name)).await, reference);
                    call!(clients[place], touch, touching(id(name))).expect("live");
                    assert_eq!(&explained(pod, name).await, reference);
                }
            }
            for (place, client) in clients.iter().enumerate() {
                let name = format!("standing-{tag}-{place}");
                let reference = begin(&mut client.clone(), &name, "default").await;
                let is_new = place <= replaced;
                let under_a = number - usize::from(!is_new) < 2;
                standing.push((name, reference, under_a));
            }
            g5_every_verb_finds_it(one, other, &format!("{tag}x")).await;
            g5_every_verb_finds_it(other, one, &format!("{tag}y")).await;
            g5_a_retry_elsewhere_is_a_retry(one, other, &format!("{tag}x")).await;
            g5_a_retry_elsewhere_is_a_retry(other, one, &format!("{tag}y")).await;
            g11_subjects_are_the_same(&fleet[0], &fleet[1], &tag).await;
            g12_watches_go_on(one, other, &tag).await;
        }
    }
    assert!(standing.len() >= 6);
}

/// All at once at two sidecars of which each has the other's key for its other one.
async fn race(
    clients: &[Client; 2],
    requests: &[v1::CreateRequest],
) -> Vec<Vec<Result<v1::CreateResponse, tonic::Status>>> {
    let start = Arc::new(Barrier::new(requests.len() * 2));
    let mut tasks = JoinSet::new();
    for (place, request) in requests.iter().enumerate() {
        for client in clients {
            let (client, request, start) = (client.clone(), request.clone(), Arc::clone(&start));
            tasks.spawn(async move {
                start.wait().await;
                (place, call!(client, create, request))
            });
        }
    }
    let mut answers: Vec<Vec<_>> = requests.iter().map(|_| Vec::new()).collect();
    for (place, answer) in tasks.join_all().await {
        answers[place].push(answer);
    }
    answers
}

fn records(server: &Server) -> usize {
    server.ask(&["--scan", "--pattern", "ss1:*:s:*"]).lines().count()
}

#[tokio::test]
async fn g5_of_two_who_begin_the_same_session_under_either_key_one_does() {
    const MANY: usize = 60;
    let server = Server::start(&[]).await;
    let [_, before, after, _] = Stage::all();
    let pods = [before.pod(&server, &[]).await, after.pod(&server, &[]).await];
    let clients = [pods[0].client().await, pods[1].client().await];
    let own_ids: Vec<_> = (0..MANY)
        .map(|number| creation(id(&format!("same-{number}")), "", "default", ""))
        .collect();
    for (number, answers) in race(&clients, &own_ids).await.into_iter().enumerate() {
        let begun = answers.iter().filter(|answer| answer.is_ok()).count();
        assert!(begun <= 1, "{number} began twice");
        for refused in answers.iter().filter_map(|answer| answer.as_ref().err()) {
            assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}");
        }
    }
    assert_eq!(records(&server), MANY, "each session has one record");
    let made_ids: Vec<_> = (0..MANY)
        .map(|number| creation(String::new(), "", "default", &format!("made-{number:-<20}")))
        .collect();
    for answers in race(&clients, &made_ids).await {
        let ids: BTreeSet<_> = answers
            .iter()
            .map(|answer| &answer.as_ref().expect("created").session_id)
            .collect();
        assert_eq!(ids.len(), 1);
    }
    assert_eq!(records(&server), 2 * MANY, "each session has one record");
    // Two sessions that are both to go on under one new name.
    let mut tasks = JoinSet::new();
    for number in 0..MANY / 2 {
        for (place, client) in clients.iter().enumerate() {
            let rotate = v1::RotateRequest {
                session_id: id(&format!("same-{}", 2 * number + place)),
                new_session_id: id(&format!("next-{number}")),
                request_id: format!("rotate-{number}-{place:-<20}"),
                ..Default::default()
            };
            let client = client.clone();
            tasks.spawn(async move { (number, call!(client, rotate, rotate)) });
        }
    }
    let mut rotated = BTreeSet::new();
    for (number, answer) in tasks.join_all().await {
        match answer {
            Ok(_) => assert!(rotated.insert(number), "{number} is two sessions"),
            Err(refused) => assert_eq!(refused.code(), Code::AlreadyExists, "{refused:?}"),
        }
    }
}

#[tokio::test]
async fn g5_who_cannot_find_all_sessions_is_not_let_in() {
    let server = Server::start(&[]).await;
    let [only_a, a_and_b, b_and_a, only_b] = Stage::all();
    let (a, b) = (fingerprint(A), fingerprint(B));
    drop(only_a.pod(&server, &[]).await);
    // A stage that is left out.
    let said = b_and_a.refused(&server);
    assert!(
        said.contains(&a) && said.contains(&b) && said.contains("--store-other-key-file first"),
        "{said}"
    );
    only_b.refused(&server);
    let first = a_and_b.pod(&server, &[]).await;
    let (code, said) = a_and_b.store("check", &server);
    assert!(
        code == 0
            && said.contains(&format!("has the key {a}, that of --store-key-file"))
            && said.contains(&format!("the key {b} is accepted, that of --store-other-key-file")),
        "{said}"
    );
    let (code, said) = b_and_a.store("check", &server);
    assert!(
        code == 0 && said.contains("once a sidecar starts with these files"),
        "{said}"
    );
    let (_, said) = only_a.store("inspect", &server);
    assert!(
        said.contains(&format!(
            "beside it the key {b} is accepted (of which no file was given)"
        )),
        "{said}"
    );
    let second = b_and_a.pod(&server, &[]).await;
    let said = only_a.refused(&server);
    assert!(
        said.contains(&a) && said.contains(&b) && said.contains("give both keys"),
        "{said}"
    );
    let (code, said) = only_a.store("check", &server);
    assert!(code == 1 && said.contains("give both keys"), "{said}");
    // Back again: the first stage still runs, and starts anew.
    let reference = begin(&mut second.client().await, "alice", "default").await;
    drop(second);
    let again = a_and_b.pod(&server, &[]).await;
    for pod in [&first, &again] {
        assert_eq!(ref_of(&pod.client().await, &id("alice")).await, reference);
    }
    only_b.refused(&server);
    drop((first, again));
    drop(only_a.pod(&server, &[]).await);
    // And to the end.
    b_and_a.refused(&server);
    drop(a_and_b.pod(&server, &[]).await);
    drop(b_and_a.pod(&server, &[]).await);
    drop(only_b.pod(&server, &[]).await);
    only_a.refused(&server);
    a_and_b.refused(&server);
    let same = Stage::new(A, Some(A));
    let (code, said) = same.store("check", &server);
    assert!(code == 64 && said.contains("has the same key"), "{said}");
}

/// The sum of a metric over the labels that are wanted.
fn sum(pod: &Pod, metric: &str, wanted: impl Fn(&str) -> bool) -> u64 {
    let count = |line: &str| {
        let (labels, value) = line.strip_prefix(metric)?.rsplit_once(' ')?;
        wanted(labels).then(|| value.parse::<u64>().ok())?
    };
    pod.metrics().lines().filter_map(count).sum()
}

/// How often the store was asked for sessions, and how often it was spared a touch.
fn asked_and_spared(pod: &Pod) -> (u64, u64) {
    let about_sessions = |labels: &str| {
        let operations = ["read", "raise", "commit", "create", "claim"];
        operations
            .iter()
            .any(|operation| labels.contains(&format!("operation=\"{operation}\"")))
    };
    (
        sum(pod, "session_sidecar_store_calls_total", about_sessions),
        sum(pod, "session_sidecar_store_lease_hits_total", |_| true),
    )
}

#[tokio::test]
async fn a_touch_that_is_free_is_free_under_either_key() {
    let server = Server::start(&[]).await;
    let [_, before, after, _] = Stage::all();
    let more = ["--store-window", "10s"];
    let (old, new) = (before.pod(&server, &more).await, after.pod(&server, &more).await);
    begin(&mut old.client().await, "under-a", "default").await;
    begin(&mut new.client().await, "under-b", "default").await;
    for pod in [&old, &new] {
        let client = &pod.client().await;
        // On a busy machine the store may not be heard for a second, and a lease lasts ten.
        in_the_end!("fifty touches of each cost nothing", {
            for name in ["under-a", "under-b"] {
                call!(client, touch, touching(id(name))).expect("live");
            }
            let (asked, spared) = asked_and_spared(pod);
            for _ in 0..50 {
                for name in ["under-a", "under-b"] {
                    call!(client, touch, touching(id(name))).expect("live");
                }
            }
            asked_and_spared(pod) == (asked, spared + 100)
        });
    }
}

#[tokio::test]
async fn while_the_store_is_away_sessions_of_either_key_are_served() {
    let server = Server::start(&[]).await;
    let [_, before, after, _] = Stage::all();
    let (old, new) = (before.pod(&server, &[]).await, after.pod(&server, &[]).await);
    begin(&mut old.client().await, "under-a", "default").await;
    begin(&mut new.client().await, "under-b", "default").await;
    let clients = [old.client().await, new.client().await];
    for client in &clients {
        for name in ["under-a", "under-b"] {
            call!(client, touch, touching(id(name))).expect("live");
        }
    }
    server.freeze(true);
    for client in &clients {
        for name in ["under-a", "under-b"] {
            in_the_end!("a touch is remembered", {
                let touched = call!(client, touch, touching(id(name))).expect("it was known to live");
                touched.result() == v1::TouchResult::Pending
            });
        }
        // What was never seen here may be anybody's, under either key.
        let stranger = client.clone().touch(touching(id("nobody"))).await;
        assert_eq!(stranger.expect_err("not known").code(), Code::Unavailable);
    }
    server.freeze(false);
    for client in &clients {
        for name in ["under-a", "under-b"] {
            ref_of(client, &id(name)).await;
        }
    }
}
