//! Two formats in one namespace: sidecars that write the older one and such that write the newer one are of one mind, and what the
//! newer one is for. In virtual time, with the scripts on a real server.

use std::sync::Arc;

use super::*;
use support::{
    Options, Sidecar, check, everything, page, pass, release, secs,
    shared::{Place, fresh_namespace},
    touch,
};

const WINDOW: Duration = secs(2);

/// A closed browser ends a session after 10 s, a lost one after 20 s.
const PAGES: &str = r#"
[policy.default]
idle_timeout = "15m"
absolute_timeout = "12h"
presence = { leave_grace = "10s", lost_grace = "20s" }
"#;

struct World {
    server: Server,
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
            server,
        }
    }

    async fn sidecar(&self, format: u32) -> Sidecar {
        let sidecar = Sidecar::with(Options {
            policies: PAGES,
            format,
            store: Some(self.place.clone()),
            namespace: Some(self.namespace.clone()),
            window: Some(WINDOW),
            ..Options::default()
        });
        let shared = Arc::clone(&sidecar.shared.as_ref().expect("a store").0);
        while !shared.is_up() {
            pass(Duration::from_millis(1)).await;
        }
        sidecar
    }

    fn flags(&self, reference: &str) -> String {
        self.server.ask(&["hget", &record_key(&self.server, reference).0, "f"])
    }

    fn format(&self) -> String {
        self.server
            .ask(&["hget", &format!("ss1:{{{}}}:n", self.namespace), "format"])
    }
}

async fn create(client: &mut Client, name: &str) -> String {
    let session = support::create(client, name).await;
    status(&session).session_ref.clone()
}

fn commits(sidecar: &Sidecar) -> f64 {
    sidecar.metric("store_calls_total{operation=\"commit\",outcome=\"ok\"}")
}

#[tokio::test]
async fn the_newer_format_is_written_by_who_is_told_to_and_read_by_all() {
    let world = World::new().await;
    let old = world.sidecar(1).await;
    assert_eq!(world.format(), "1");
    let new = world.sidecar(2).await;
    assert_eq!(world.format(), "2", "who reads only the older one comes in no more");
    let late = world.sidecar(1).await;
    assert_eq!(world.format(), "2");
    let (on_old, on_new, on_late) = (
        &mut old.client().await,
        &mut new.client().await,
        &mut late.client().await,
    );
    let reference = create(on_old, "alice").await;
    assert_eq!(
        world.flags(&reference),
        "0",
        "a session without pages is the same in both"
    );
    page(on_old, "alice", "tab", secs(60)).await;
    assert_eq!(world.flags(&reference), "2", "by the older one");
    page(on_new, "alice", "tab", secs(60)).await;
    assert_eq!(world.flags(&reference), "18", "by the newer one");
    sure!(touch(on_late, "alice")).expect("live");
    pass(2 * WINDOW).await;
    sure!(touch(on_new, "alice")).expect("live");
    assert_eq!(
        check(on_late, "alice").await.presence_expire_time,
        None,
        "a page is open, whoever says so"
    );
    pass(2 * WINDOW).await;
    sure!(touch(on_old, "alice")).expect("live");
    assert_eq!(world.flags(&reference), "2", "by the older one again");
}

/// Whoever is asked, and in whichever format the record is: the end comes a grace after the last sign of a browser.
#[tokio::test]
async fn g1_g2_r1_a_closed_browser_ends_a_session_of_either_format_in_time() {
    let mut world = World::new().await;
    for (leaves, grace) in [(true, secs(10)), (false, secs(20))] {
        for order in [[1, 2], [2, 1], [2, 2]] {
            world.namespace = fresh_namespace();
            let (a, b) = (world.sidecar(order[0]).await, world.sidecar(order[1]).await);
            let (on_a, on_b) = (&mut a.client().await, &mut b.client().await);
            create(on_a, "alice").await;
            let mut watcher = watch(on_b, everything()).await;
            page(on_a, "alice", "tab", secs(30)).await;
            for _ in 0..10 {
                pass(Duration::from_millis(700)).await;
                sure!(touch(on_a, "alice")).expect("live");
                sure!(touch(on_b, "alice")).expect("live");
            }
            if leaves {
                sure!(release(on_b, "alice", "tab")).expect("live");
            } else {
                // Its page says nothing more, and the hold lapses.
                pass(secs(24)).await;
            }
            // Activity after the last sign of the page puts the end off by a whole grace.
            pass(secs(5)).await;
            sure!(touch(on_a, "alice")).expect("live");
            pass(secs(3)).await;
            sure!(touch(on_b, "alice")).expect("live");
            pass(grace - Duration::from_millis(20)).await;
            assert_eq!(
                status(&check(on_a, "alice").await).state(),
                v1::SessionState::Active,
                "{order:?}, leaves: {leaves}: never early"
            );
            let told = watcher.during(WINDOW + Duration::from_millis(500)).await;
            assert_eq!(told, ["ended BROWSER_CLOSED"], "{order:?}, leaves: {leaves}");
        }
    }
}

/// What it is for: an open page does not make each request a change.
#[tokio::test]
async fn requests_of_a_session_with_an_open_page_cost_one_call_a_window() {
    let world = World::new().await;
    for (format, least, most) in [(1, 200.0, 200.0), (2, 0.0, 0.0)] {
        let sidecar = world.sidecar(format).await;
        let client = &mut sidecar.client().await;
        let name = format!("alice-{format}");
        create(client, &name).await;
        page(client, &name, "tab", secs(60)).await;
        let before = commits(&sidecar);
        for _ in 0..200 {
            pass(WINDOW / 20).await;
            sure!(touch(client, &name)).expect("live");
        }
        let changes = commits(&sidecar) - before;
        assert!((least..=most).contains(&changes), "format {format}: {changes} changes");
        if format == 2 {
            let raised = sidecar.metric("store_calls_total{operation=\"raise\",outcome=\"ok\"}");
            assert!((9.0..=11.0).contains(&raised), "{raised} in ten windows");
        }
    }
}
