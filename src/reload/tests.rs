//! Real files, virtual time. The file is read in a blocking thread, and paused time stands still while one is at work.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::Mutex;
use prometheus_client::encoding::text::encode;
use tokio::{sync::oneshot, task::JoinHandle};

use super::*;
use crate::config::parse_policy_file;
use crate::sessions::Policies;

/// A directory of its own for one test, removed with it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "session-sidecar-reload-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

struct Following {
    policies: Arc<Policies>,
    told: Arc<Mutex<Vec<Result<Reloaded, String>>>>,
    registry: Registry,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Following {
    fn start(path: &Path) -> Self {
        let mut registry = Registry::default();
        let meter = ReloadMeter::register(&mut registry);
        let text = fs::read_to_string(path).unwrap();
        let policies = Arc::new(Policies::new(parse_policy_file(&text).unwrap()));
        let told = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let apply = {
            let (policies, told) = (Arc::clone(&policies), Arc::clone(&told));
            move |file: PolicyFile| {
                let result = policies.reload(file.policies);
                told.lock().push(result.clone());
                result
            }
        };
        let problem = {
            let policies = Arc::clone(&policies);
            move |problem| policies.set_file_problem(problem)
        };
        let stopped = async move {
            let _ = stopped.await;
        };
        let task = tokio::spawn(follow(path.to_owned(), apply, problem, meter, stopped));
        Self {
            policies,
            told,
            registry,
            stop,
            task,
        }
    }

    fn idle(&self) -> u64 {
        self.policies.current("a").unwrap().idle_timeout.as_secs()
    }

    fn metric(&self, sample: &str) -> u64 {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.starts_with(sample));
        let value = line.unwrap_or_else(|| panic!("{sample}: {text}")).rsplit_once(' ');
        value.unwrap().1.parse().unwrap()
    }

    async fn end(self) {
        self.stop.send(()).unwrap();
        self.task.await.unwrap();
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
}

fn policy(idle: &str) -> String {
    format!("[policy.a]\nidle_timeout = \"{idle}\"\n")
}

/// Long enough for two looks at a change.
async fn pass() {
    tokio::time::sleep(2 * POLL).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_is_taken_over_once() {
    let directory = Directory::new();
    let path = directory.0.join("policy.toml");
    write(&path, &policy("5m"));
    let following = Following::start(&path);
    pass().await;
    let old = following.policies.current("a").unwrap();
    assert!(following.told.lock()[0].as_ref().unwrap().is_nothing());
    write(&path, &policy("7m"));
    pass().await;
    assert_eq!(following.idle(), 420);
    assert!(old.superseded.is_set());
    pass().await;
    assert_eq!(following.told.lock().len(), 2, "one content, one reload");
    assert_eq!(following.metric("policy_reloads_total{outcome=\"applied\"}"), 1);
    assert_eq!(following.metric("policy_reloads_total{outcome=\"unchanged\"}"), 1);
    following.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_bad_file_keeps_the_old_policies_and_is_told_once() {
    let directory = Directory::new();
    let path = directory.0.join("policy.toml");
    write(&path, &policy("5m"));
    let following = Following::start(&path);
    pass().await;
    for (n, (bad, says)) in [
        ("[policy.a]\nidle_timout = \"1m\"", "line 2 (idle_timout"),
        ("[policy.a]\nidle_timeout = \"0s\"", "line 2 (idle_timeout"),
        // Truncated, and the disk is full: it would take the place of all policies.
        ("", "no policy"),
    ]
    .iter()
    .enumerate()
    {
        write(&path, bad);
        pass().await;
        pass().await;
        let problem = following.policies.file_problem();
        assert!(problem.contains(says), "{problem}");
        assert_eq!(following.idle(), 300);
        let refused = following.metric("policy_reloads_total{outcome=\"refused\"}");
        assert_eq!(refused, n as u64 + 1, "once for each content");
        assert_eq!(following.metric("policy_file_in_force"), 0);
    }
    fs::remove_file(&path).unwrap();
    pass().await;
    assert_eq!(following.idle(), 300);
    assert_eq!(following.metric("policy_reloads_total{outcome=\"refused\"}"), 4);
    assert!(following.policies.file_problem().contains("cannot be read"));
    write(&path, &policy("5m"));
    pass().await;
    assert_eq!(following.metric("policy_file_in_force"), 1, "it is as it was, and good");
    assert_eq!(following.policies.file_problem(), "");
    following.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_revision_that_did_not_grow_is_refused() {
    let directory = Directory::new();
    let path = directory.0.join("policy.toml");
    write(&path, "[policy.a]\nrevision = 2\nidle_timeout = \"5m\"");
    let following = Following::start(&path);
    pass().await;
    write(&path, "[policy.a]\nrevision = 2\nidle_timeout = \"6m\"");
    pass().await;
    assert_eq!(following.idle(), 300);
    assert_eq!(following.metric("policy_file_in_force"), 0);
    write(&path, "[policy.a]\nrevision = 3\nidle_timeout = \"6m\"");
    pass().await;
    assert_eq!(following.idle(), 360);
    // An older file comes back: it is good, and the newer policy stays.
    write(&path, "[policy.a]\nrevision = 2\nidle_timeout = \"5m\"");
    pass().await;
    assert_eq!(following.idle(), 360);
    assert!(
        following
            .policies
            .file_problem()
            .contains("[policy.a]: its revision is lower")
    );
    following.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_symlinks_of_kubernetes_are_followed() {
    let directory = Directory::new();
    let at = |name: &str| directory.0.join(name);
    for (version, idle) in [("..v1", "5m"), ("..v2", "7m")] {
        fs::create_dir(at(version)).unwrap();
        write(&at(version).join("policy.toml"), &policy(idle));
    }
    symlink("..v1", at("..data")).unwrap();
    symlink("..data/policy.toml", at("policy.toml")).unwrap();
    let following = Following::start(&at("policy.toml"));
    pass().await;
    assert_eq!(following.idle(), 300);
    // As the kubelet does it: a new link beside, moved over the old one; then the old version goes.
    symlink("..v2", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    fs::remove_dir_all(at("..v1")).unwrap();
    pass().await;
    assert_eq!(following.idle(), 420);
    assert_eq!(following.metric("policy_file_in_force"), 1);
    following.end().await;
}

#[test]
fn half_a_file_is_not_taken_over() {
    let mut registry = Registry::default();
    let applied = Mutex::new(0);
    let mut follower = Follower {
        path: "policy.toml".into(),
        apply: |_| {
            *applied.lock() += 1;
            Ok(Reloaded::default())
        },
        problem: |_| {},
        meter: ReloadMeter::register(&mut registry),
        looks: Settling::new(None),
    };
    let mut saw = |text: &str| follower.saw(Ok(text.to_owned()));
    assert_eq!(saw("[policy.a]"), SETTLE);
    assert_eq!(saw("[policy.a]"), POLL);
    // Written in place: first a part that would be valid, then all of it.
    assert_eq!(saw(""), SETTLE);
    assert_eq!(saw("[policy.a]\n[policy.b]"), SETTLE);
    assert_eq!(saw("[policy.a]\n[policy.b]"), POLL);
    assert_eq!(saw("[policy.a]\n[policy.b]"), POLL);
    // Seen once and gone: nothing happened.
    assert_eq!(saw(""), SETTLE);
    assert_eq!(saw("[policy.a]\n[policy.b]"), POLL);
    assert_eq!(*applied.lock(), 2);
}
