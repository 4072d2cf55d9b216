//! The audit log: a line for each session that begins, changes its name, is extended or ends, and for each admin call; and
//! never a session id.

use crate::support::*;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use session_sidecar::{
    audit::{Audit, Entry, Output, Setup, SubjectForm, Target},
    rpc::proto::v1,
    time::Clock,
};
use std::{
    io::{self, Write},
    pin::pin,
    sync::Arc,
    time::Duration,
};

/// A file that tests can read, and can make fail.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Written>>);

#[derive(Default)]
struct Written {
    bytes: Vec<u8>,
    /// How many bytes may still be written; unset: any number.
    room: Option<usize>,
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut written = self.0.lock();
        let length = written.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if length == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        written.room = written.room.map(|room| room - length);
        written.bytes.extend_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().bytes.clone()).expect("UTF-8")
    }

    fn entries(&self) -> Vec<Entry> {
        self.text()
            .lines()
            .map(|line| Entry::read(line).unwrap_or_else(|error| panic!("{line} {error}")))
            .collect()
    }
}

const KEY: u8 = 7;

/// A sidecar that is audited, as if on a clock of its own: lines are labelled by it.
fn audited(subjects: SubjectForm, policies: &'static str) -> (Sidecar, Audit, Paper) {
    let (audit, paper) = audit(subjects, 1024, &mut Registry::default());
    let sidecar = Sidecar::with(Options {
        policies,
        key: KEY,
        audit: audit.clone(),
        ..Options::default()
    });
    (sidecar, audit, paper)
}

fn audit(subjects: SubjectForm, queue: usize, registry: &mut Registry) -> (Audit, Paper) {
    audit_until_reopened(subjects, queue, registry, Target::Stdout)
}

/// A log on paper until it is opened anew.
fn audit_until_reopened(subjects: SubjectForm, queue: usize, registry: &mut Registry, then: Target) -> (Audit, Paper) {
    let paper = Paper::default();
    let setup = Setup {
        output: Output::to(Box::new(paper.clone()), then),
        subjects,
        master_key: &[KEY; 32],
        clock: Clock::of_runtime(),
        queue,
    };
    (Audit::start(setup, registry).expect("a thread"), paper)
}

#[tokio::test(start_paused = true)]
async fn every_create_rotate_extend_end_and_admin_call_is_a_line() {
    let policies = "[policy.default]\n[policy.desk]\nrevision = 4\nmax_sessions_per_subject = 1\nat_subject_cap = \"end-oldest\"\n";
    let (sidecar, audit, paper) = audited(SubjectForm::Plain, policies);
    let client = &mut sidecar.client().await;
    let admin = &mut sidecar.admin().await;
    let first = create_with(client, "first", |create| {
        create.subject = "ada".to_owned();
        create.policy = "desk".to_owned();
    })
    .await;
    touch(client, "first").await.expect("counted");
    extend(client, "first", Some(mins(20))).await.expect("extended");
    create_with(client, "second", |create| {
        create.subject = "ada".to_owned();
        create.policy = "desk".to_owned();
    })
    .await;
    let rotate = v1::RotateRequest {
        session_id: id("second"),
        new_session_id: id("third"),
        subject: Some("eve".to_owned()),
        ..Default::default()
    };
    client.rotate(rotate).await.expect("rotated");
    let end = v1::EndRequest {
        session_id: id("third"),
        reason: v1::EndReason::Revoked.into(),
        actor_id: "desk".to_owned(),
        note: "asked on the telephone".to_owned(),
        ..Default::default()
    };
    client.end(end.clone()).await.expect("ended");
    client.end(end).await.expect("told again");
    create(client, "idle").await;
    pass(mins(16)).await;
    let request = v1::EndSessionsRequest {
        filter: Some(v1::SessionFilter {
            subject: "ada".to_owned(),
            labels: [("app".to_owned(), "shop".to_owned())].into(),
            ..Default::default()
        }),
        dry_run: true,
        actor_id: "root".to_owned(),
        ..Default::default()
    };
    admin.end_sessions(request).await.expect("counted");
    let by_time = v1::ExplainSessionRequest {
        target: Some(v1::explain_session_request::Target::SubjectPeriod(v1::SubjectPeriod {
            subject: "ada".to_owned(),
            start_time: Some(prost_types::Timestamp::default()),
            ..Default::default()
        })),
        ..Default::default()
    };
    admin.explain_session(by_time).await.expect("explained");
    let by_id = v1::ExplainSessionRequest {
        target: Some(v1::explain_session_request::Target::SessionId(id("first"))),
        ..Default::default()
    };
    admin.explain_session(by_id).await.expect("explained");
    let denied = &mut sidecar.admin_of(session_sidecar::rpc::Caller::default()).await;
    denied.get_stats(v1::GetStatsRequest::default()).await.unwrap_err();
    audit.close(Duration::from_secs(10));

    let told: Vec<_> = paper
        .entries()
        .iter()
        .map(|entry| format!("{} {}{}{}", entry.event, entry.subject, entry.method, entry.reason))
        .collect();
    assert_eq!(
        told,
        [
            "create ada",
            "extend ada",
            "create ada",
            "end adaSUPERSEDED",
            "rotate eveROTATED",
            "end eveREVOKED",
            "create ",
            "end IDLE_TIMEOUT",
            "admin adaEndSessions",
            "admin adaExplainSession",
            "admin ExplainSession",
            "admin GetStats",
        ]
    );
    let entries = paper.entries();
    let first = status(&first).session_ref.clone();
    assert_eq!(
        (entries[0].session.as_str(), entries[0].policy.as_str()),
        (first.as_str(), "desk")
    );
    assert_eq!(
        (entries[0].policy_revision, entries[0].idle_timeout_seconds),
        (Some(4), Some(900.0))
    );
    assert_eq!(entries[1].granted_seconds, Some(300.0));
    assert_eq!(
        (entries[3].session.as_str(), entries[3].actor.as_str()),
        (first.as_str(), "POLICY")
    );
    let rotated = &entries[4];
    assert_eq!(
        (rotated.previous_subject.as_str(), rotated.reauthenticated),
        ("ada", Some(false))
    );
    assert_eq!(rotated.session, entries[2].session);
    // Whoever must show when a person last authenticated finds it in the line of the new name too.
    assert_eq!(rotated.authentication_time, entries[2].authentication_time);
    let revoked = &entries[5];
    assert_eq!(revoked.session, rotated.successor_ref);
    assert_eq!(
        (revoked.actor_id.as_str(), revoked.note.as_str()),
        ("desk", "asked on the telephone")
    );
    let idle = &entries[7];
    assert_eq!(
        (idle.end_time.as_str(), idle.last_activity_time.as_str()),
        ("2026-01-01T00:15:00.000Z", "2026-01-01T00:00:00.000Z")
    );
    let ended = &entries[8];
    assert_eq!(
        (
            ended.count,
            ended.dry_run,
            ended.actor_id.as_str(),
            ended.result.as_str()
        ),
        (Some(0), true, "root", "OK")
    );
    assert!(ended.filter.contains("app") && ended.filter.contains("shop"));
    assert_eq!(entries[9].filter, "from=1970-01-01T00:00:00Z");
    assert_eq!(entries[10].session, first, "by id, told by ref");
    assert_eq!(
        (entries[11].result.as_str(), entries[11].tenant.as_deref()),
        ("PERMISSION_DENIED", None)
    );
    assert!(entries.iter().all(|entry| entry.v == 1 && entry.time.ends_with('Z')));
    for name in ["first", "second", "third", "idle"] {
        assert!(!paper.text().contains(&id(name)), "G15");
    }
}

#[tokio::test(start_paused = true)]
async fn a_subject_is_hashed_or_left_out_as_is_wanted() {
    for form in [SubjectForm::Hash, SubjectForm::None] {
        let (sidecar, audit, paper) = audited(form, DEFAULT);
        let client = &mut sidecar.client().await;
        let admin = &mut sidecar.admin().await;
        for (name, subject) in [
            ("one", "ada@example"),
            ("two", "ada@example"),
            ("three", "bob@example"),
            ("four", ""),
        ] {
            create_with(client, name, |create| create.subject = subject.to_owned()).await;
        }
        let request = v1::EndSessionsRequest {
            filter: Some(v1::SessionFilter {
                subject: "ada@example".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        admin.end_sessions(request).await.expect("ended");
        audit.close(Duration::from_secs(10));
        assert!(!paper.text().contains("@example"));
        let entries = paper.entries();
        assert_eq!(entries.len(), 7);
        let hashes: Vec<_> = entries.iter().map(|entry| entry.subject_hash.as_str()).collect();
        if form == SubjectForm::None {
            assert_eq!(hashes, [""; 7]);
            continue;
        }
        let ada = session_sidecar::state::Keys::derive(&[KEY; 32]).subject_hash("", "ada@example");
        assert_eq!(
            (hashes[0], hashes[1], hashes[3], hashes[6]),
            (ada.as_str(), ada.as_str(), "", ada.as_str())
        );
        assert!(hashes[2] != ada && hashes[2].len() == 22);
    }
}

#[tokio::test(start_paused = true)]
async fn what_time_ends_without_anybody_asking_is_written_too() {
    let (sidecar, audit, paper) = audited(
        SubjectForm::Hash,
        "[policy.default]\n[policy.observed]\nenforce = false\n",
    );
    let client = &mut sidecar.client().await;
    create(client, "alice").await;
    create_with(client, "observed", |create| create.policy = "observed".to_owned()).await;
    // Observed for a day after its end, it is forgotten, and nobody is told.
    pass(mins(60 * 30)).await;
    audit.close(Duration::from_secs(10));
    let ends: Vec<_> = paper
        .entries()
        .into_iter()
        .filter(|entry| entry.event == "end")
        .collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(
        (ends[0].reason.as_str(), ends[0].actor.as_str()),
        ("IDLE_TIMEOUT", "POLICY")
    );
}

/// Half of a revocation is worse than either: it goes on when its caller hangs up, and the line says that nobody waited.
#[tokio::test(start_paused = true)]
async fn an_admin_call_that_is_cancelled_is_written_and_goes_on() {
    let (sidecar, audit, paper) = audited(SubjectForm::Plain, DEFAULT);
    let client = &mut sidecar.client().await;
    let mut admin = sidecar.admin().await;
    // More than are ended before others get their turn.
    let all = 1000;
    for number in 0..all {
        create(client, &format!("s{number}")).await;
    }
    let ended = || sidecar.metric("sessions_ended_total{reason=\"revoked\"}");
    let request = v1::EndSessionsRequest {
        whole_tenant: true,
        actor_id: "root".to_owned(),
        ..Default::default()
    };
    {
        let mut call = pin!(admin.end_sessions(request));
        while ended() < 1.0 {
            tokio::select! {
                biased;
                _ = &mut call => panic!("over before anything was ended"),
                () = tokio::task::yield_now() => {}
            }
        }
        // Here the caller hangs up.
    }
    assert!(ended() < f64::from(all));
    while ended() < f64::from(all) {
        tokio::task::yield_now().await;
    }
    let told = list_all(&mut sidecar.admin().await).await;
    assert_eq!(told, 0, "all of them");
    audit.close(Duration::from_secs(10));
    let entries = paper.entries();
    let of = |method: &str| {
        entries
            .iter()
            .filter(|entry| entry.method == method)
            .collect::<Vec<_>>()
    };
    let calls = of("EndSessions");
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (
            calls[0].result.as_str(),
            calls[0].actor_id.as_str(),
            calls[0].tenant.as_deref()
        ),
        ("CANCELLED", "root", Some(""))
    );
    assert_eq!(
        (calls[0].count, calls[0].ended_count),
        (None, None),
        "nobody knew it then"
    );
    let revoked = entries.iter().filter(|entry| entry.reason == "REVOKED");
    assert!(revoked.clone().all(|entry| entry.actor_id == "root") && revoked.count() == 1000);
    assert_eq!(of("ListSessions")[0].result, "OK");
}

async fn list_all(admin: &mut Admin) -> usize {
    let request = v1::ListSessionsRequest::default();
    let listed = admin.list_sessions(request).await.expect("listed").into_inner();
    listed.sessions.len()
}

#[test]
fn a_disk_that_is_full_for_a_while_loses_nothing_and_repeats_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _guard = runtime.enter();
    let (audit, paper) = audit(SubjectForm::Hash, 1024, &mut Registry::default());
    // In the middle of a line.
    paper.0.lock().room = Some(70);
    for number in 0..100 {
        audit.admin(session_sidecar::audit::AdminCall {
            method: "ListSessions",
            count: Some(number),
            ..Default::default()
        });
    }
    while paper.0.lock().room != Some(0) {
        std::thread::yield_now();
    }
    paper.0.lock().room = None;
    audit.close(Duration::from_secs(30));
    let counts: Vec<_> = paper.entries().iter().filter_map(|entry| entry.count).collect();
    assert_eq!(counts, (0..100).collect::<Vec<_>>());
}

/// What an operator does about a full disk: move the log elsewhere, SIGHUP. The line that was cut is whole in the new file.
#[test]
fn a_log_that_is_moved_off_a_full_disk_goes_on_with_a_whole_line() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _guard = runtime.enter();
    let path = std::env::temp_dir().join(format!("session-sidecar-audit-{}-moved", std::process::id()));
    let then = Target::File(path.clone());
    let (audit, paper) = audit_until_reopened(SubjectForm::Hash, 1024, &mut Registry::default(), then);
    // In the middle of the second line: the first one is shorter.
    paper.0.lock().room = Some(150);
    for number in 0..10 {
        audit.admin(session_sidecar::audit::AdminCall {
            method: "ListSessions",
            count: Some(number),
            ..Default::default()
        });
    }
    while paper.0.lock().room != Some(0) {
        std::thread::yield_now();
    }
    audit.reopen();
    audit.close(Duration::from_secs(30));
    let moved = std::fs::read_to_string(&path).expect("a file");
    std::fs::remove_file(&path).expect("removed");
    let old = paper.text();
    let (whole, cut) = old.rsplit_once('\n').expect("a whole line");
    assert!(!cut.is_empty() && moved.starts_with(cut), "the cut line is there again");
    let lines = whole.lines().chain(moved.lines());
    let counts: Vec<_> = lines
        .map(|line| Entry::read(line).expect("a whole line").count)
        .collect();
    assert_eq!(counts, (0..10).map(Some).collect::<Vec<_>>());
}

#[test]
fn a_disk_that_stays_full_delays_nobody_for_long_and_what_is_lost_is_counted_and_told() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let _guard = runtime.enter();
    let mut registry = Registry::default();
    let (audit, paper) = audit(SubjectForm::Hash, 8, &mut registry);
    paper.0.lock().room = Some(0);
    // Only one of these waits, and not for long: the test would take a minute and a half.
    for number in 0..1000 {
        audit.admin(session_sidecar::audit::AdminCall {
            method: "ListSessions",
            count: Some(number),
            ..Default::default()
        });
    }
    paper.0.lock().room = None;
    audit.close(Duration::from_secs(30));
    let mut metrics = String::new();
    prometheus_client::encoding::text::encode(&mut metrics, &registry).expect("encodes");
    let value = |name: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.expect("a metric").parse::<u64>().expect("a number")
    };
    let entries = paper.entries();
    let kept = entries.iter().filter(|entry| entry.event == "admin").count() as u64;
    let told: u64 = entries
        .iter()
        .filter(|entry| entry.event == "lost")
        .filter_map(|entry| entry.count)
        .sum();
    assert!(told > 0 && kept + told == 1000, "{kept} and {told}");
    assert_eq!(value("audit_lost_total"), told);
    assert_eq!(value("audit_lines_total"), entries.len() as u64);
}
