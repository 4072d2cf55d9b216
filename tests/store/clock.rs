//! The store's clock is set, while sidecars come and go: nobody's end comes early, and nobody lives on. In virtual time, with the
//! scripts on a real server.

use std::sync::{Arc, atomic::Ordering};

use super::*;
use support::{
    Options, Sidecar, extend, secs,
    shared::{Place, fresh_namespace},
    touch,
};
use tokio::time::Instant;

/// Eight seconds of idleness end a session.
const IDLE: Duration = Duration::from_secs(8);

const EIGHT: &str = r#"
[policy.default]
idle_timeout = "8s"
absolute_timeout = "10m"
warn_before = ["2s", "1s"]
"#;

/// A server whose clock can be set, and sidecars that share it.
struct World {
    _server: Server,
    place: Place,
    namespace: String,
}

impl World {
    async fn new() -> Self {
        let server = Server::start(&[]).await;
        tokio::time::pause();
        Self {
            place: Place::new(server.url()),
            namespace: fresh_namespace(),
            _server: server,
        }
    }

    /// A sidecar that has come into the namespace; whether it looks at what is due is for the test to say.
    async fn sidecar(&self, driver: bool) -> Sidecar {
        let sidecar = Sidecar::with(Options {
            policies: EIGHT,
            driver,
            store: Some(self.place.clone()),
            namespace: Some(self.namespace.clone()),
            window: None,
            ..Options::default()
        });
        let shared = Arc::clone(&sidecar.shared.as_ref().expect("a store").0);
        while !shared.is_up() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        sidecar
    }

    fn set_clock(&self, by: i64) {
        self.place.set.fetch_add(by * 1_000_000, Ordering::Relaxed);
    }
}

/// Asks until it is answered; answers when.
async fn touched(client: &mut Client, name: &str) -> Instant {
    for _ in 0..500 {
        let asked = Instant::now();
        match touch(client, name).await {
            Ok(_) => return asked,
            Err(refused) => assert_eq!(refused.code(), Code::Unavailable, "{refused}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never answered");
}

/// Waits until a session has ended; answers when that was told.
async fn ended(client: &mut Client, name: &str) -> Instant {
    for _ in 0..3000 {
        match touch_never(client, name).await {
            Ok(v1::SessionState::Ended) => return Instant::now(),
            Ok(_) => {}
            Err(refused) => assert_eq!(refused.code(), Code::Unavailable, "{refused}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it does not end");
}

async fn touch_never(client: &mut Client, name: &str) -> Result<v1::SessionState, tonic::Status> {
    let request = v1::CheckRequest {
        name: Some(v1::check_request::Name::SessionId(id(name))),
        ..Default::default()
    };
    let answer = client.check(request).await?.into_inner();
    Ok(status(&answer.session.expect("a session")).state())
}

async fn create(client: &mut Client, name: &str) {
    let request = v1::CreateRequest {
        session_id: id(name),
        ..Default::default()
    };
    client.create(request).await.expect("created");
}

#[tokio::test]
async fn g1_who_comes_while_nobody_gave_a_heartbeat_and_the_clock_is_set_back_ends_nobody_early() {
    let world = World::new().await;
    let sweeper = world.sidecar(true).await;
    let other = world.sidecar(false).await;
    create(&mut sweeper.client().await, "alice").await;
    support::pass(secs(3)).await;
    sweeper.kill().await;
    support::pass(Duration::from_millis(2_300)).await;
    let newcomer = world.sidecar(true).await;
    let client = &mut newcomer.client().await;
    world.set_clock(-38);
    let last = touched(client, "alice").await;
    let end = ended(client, "alice").await;
    assert!(end - last >= IDLE, "early: {:?}", end - last);
    // A hold of five seconds, and of five more after the correction.
    assert!(end - last < IDLE + secs(12), "late: {:?}", end - last);
    drop(other);
}

/// Each step of the clock, at each moment of a sidecar's first seconds, while people are active at two of them.
#[tokio::test]
async fn g1_g14_wherever_the_clock_is_set_no_end_comes_early_and_nobody_lives_on() {
    for by in [-38, -5, 7, 45] {
        for after in [0, 20, 150, 380, 420, 490, 530, 1_100, 2_050] {
            steps(by, Duration::from_millis(after)).await;
            tokio::time::resume();
        }
    }
}

async fn steps(by: i64, after: Duration) {
    let world = World::new().await;
    let old = world.sidecar(true).await;
    let on_old = &mut old.client().await;
    for name in ["touched", "extended", "both"] {
        create(on_old, name).await;
    }
    support::pass(Duration::from_millis(3_170)).await;
    let newcomer = world.sidecar(true).await;
    let on_new = &mut newcomer.client().await;
    let came = Instant::now();
    let mut last = [came - secs(4); 3];
    let mut set = false;
    while came.elapsed() < secs(4) {
        if !set && came.elapsed() >= after {
            world.set_clock(by);
            set = true;
        }
        let asked = Instant::now();
        let done = [
            (0, touch(on_new, "touched").await.map(drop)),
            (1, extend(on_new, "extended", None).await.map(drop)),
            (2, touch(on_new, "both").await.map(drop)),
            (2, touch(on_old, "both").await.map(drop)),
        ];
        for (session, done) in done {
            match done {
                Ok(()) => last[session] = asked,
                Err(refused) => assert_eq!(refused.code(), Code::Unavailable, "{refused}"),
            }
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    for (session, name) in ["touched", "extended", "both"].into_iter().enumerate() {
        let end = ended(on_new, name).await;
        assert!(
            end - last[session] >= IDLE,
            "the clock set by {by} s, {after:?} after it came: {name} is early, after {:?}",
            end - last[session]
        );
        assert!(
            end - last[session] < IDLE + secs(9),
            "the clock set by {by} s, {after:?} after it came: {name} is late, after {:?}",
            end - last[session]
        );
    }
}

#[tokio::test]
async fn g14_a_lone_sidecar_that_comes_back_to_a_clock_set_back_by_an_hour_serves_in_a_moment() {
    let world = World::new().await;
    let before = world.sidecar(true).await;
    create(&mut before.client().await, "alice").await;
    support::pass(secs(1)).await;
    before.kill().await;
    world.set_clock(-3600);
    let back = Instant::now();
    let after = world.sidecar(true).await;
    let client = &mut after.client().await;
    let last = touched(client, "alice").await;
    assert!(last - back < secs(3), "away for {:?}", last - back);
    let end = ended(client, "alice").await;
    assert!(end - last >= IDLE, "early: {:?}", end - last);
    assert!(end - last < IDLE + secs(9), "late: {:?}", end - last);
}

#[tokio::test]
async fn g14_two_steps_in_one_second_are_two_corrections() {
    let world = World::new().await;
    let (a, b) = (world.sidecar(true).await, world.sidecar(true).await);
    let (on_a, on_b) = (&mut a.client().await, &mut b.client().await);
    create(on_a, "alice").await;
    support::pass(secs(3)).await;
    world.set_clock(-38);
    let mut last = touched(on_b, "alice").await;
    support::pass(Duration::from_millis(200)).await;
    world.set_clock(-16);
    last = last.max(touched(on_a, "alice").await);
    let end = ended(on_b, "alice").await;
    assert!(end - last >= IDLE, "early: {:?}", end - last);
    assert!(end - last < IDLE + secs(9), "late: {:?}", end - last);
}

/// Two steps at each distance, at sidecars that have long been there: the second one comes before the others have heard that the first
/// one is corrected.
#[tokio::test]
async fn g1_g14_a_clock_set_twice_before_all_have_heard_of_the_first_time_ends_nobody_early() {
    for (first, second) in [(-52, 29), (45, 38), (38, -52)] {
        for apart in [5, 30, 90, 170, 240, 330, 510] {
            twice(first, second, Duration::from_millis(apart)).await;
            tokio::time::resume();
        }
    }
}

async fn twice(first: i64, second: i64, apart: Duration) {
    let world = World::new().await;
    let (mut there, mut clients) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let sidecar = world.sidecar(true).await;
        clients.push(sidecar.client().await);
        there.push(sidecar);
        // So they do not look at the same moments.
        support::pass(Duration::from_millis(130)).await;
    }
    // In many buckets: each is corrected by whoever comes by.
    let names: Vec<_> = (0..12).map(|number| format!("session-{number}")).collect();
    for name in &names {
        create(&mut clients[0], name).await;
    }
    support::pass(Duration::from_millis(3_170)).await;
    world.set_clock(first);
    support::pass(apart).await;
    world.set_clock(second);
    let mut last = Vec::new();
    for (number, name) in names.iter().enumerate() {
        last.push(touched(&mut clients[number % 3], name).await);
    }
    for (name, last) in names.iter().zip(last) {
        let end = ended(&mut clients[0], name).await;
        let told = format!("set by {first} s, and by {second} s {apart:?} later: {name} is");
        assert!(end - last >= IDLE, "{told} early: {:?}", end - last);
        assert!(end - last < IDLE + secs(9), "{told} late: {:?}", end - last);
    }
}
