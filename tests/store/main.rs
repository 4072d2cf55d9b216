//! The shared store by whole processes and a real server: what it takes, what it bears, and what two sidecars are to each other.
//! `STORE_SERVER=valkey-server` runs the same against Valkey.

#[path = "../support/servers.rs"]
mod servers;
#[path = "../support/mod.rs"]
mod support;

/// A call, made again while the answer is that nobody can know now: on a busy machine the store may take longer than a sidecar waits.
macro_rules! sure {
    ($call:expr) => {{
        let began = tokio::time::Instant::now();
        loop {
            match $call.await {
                Err(status) if support::reason(&status).1 == "STORE_UNAVAILABLE" => {
                    assert!(began.elapsed() < PATIENCE, "it is never available: {status}");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                answered => break answered,
            }
        }
    }};
}

mod clock;
mod damage;
mod faults;
mod fitness;
mod formats;
mod keys;
mod pair;
mod raise;
mod rights;
mod secrets;
mod takeover;
mod writes;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use servers::{Folder, PATIENCE, Server, wait_for};
use session_sidecar::rpc::proto::v1::{
    self, session_admin_service_client::SessionAdminServiceClient, session_service_client::SessionServiceClient,
};
use support::{Admin, Client, Watcher, id, program, status};
use tonic::Code;

const POLICIES: &str = r#"
[policy.default]
idle_timeout = "1h"
absolute_timeout = "12h"

[policy.short]
idle_timeout = "3s"
absolute_timeout = "10m"
warn_before = ["1s"]

[policy.two]
idle_timeout = "1h"
absolute_timeout = "12h"
max_sessions_per_subject = 2

[policy.newest]
idle_timeout = "1h"
absolute_timeout = "12h"
max_sessions_per_subject = 2
at_subject_cap = "end-oldest"
"#;

/// What the sidecars of a test have in common.
struct Site {
    folder: Folder,
}

impl Site {
    fn new() -> Self {
        let folder = Folder::new();
        fs::write(folder.path().join("key"), [7; 32]).expect("a key");
        fs::write(folder.path().join("policies"), POLICIES).expect("policies");
        fs::write(folder.path().join("password"), "pw").expect("a password");
        Self { folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn store_args(&self, url: &str) -> Vec<String> {
        ["--store", url, "--store-key-file", &self.file("key")]
            .map(String::from)
            .into()
    }

    /// A sidecar that answers. What is in `more` comes last.
    async fn pod(&self, url: &str, more: &[&str]) -> Pod {
        let pod = self.start(url, more).await;
        pod.answers().await;
        pod
    }

    /// A sidecar that listens.
    async fn start(&self, url: &str, more: &[&str]) -> Pod {
        let folder = Folder::new();
        let log = fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = program();
        command.env_clear().arg("serve").args(self.store_args(url));
        command.args(["--policy-file", &self.file("policies"), "--log-format", "human"]);
        command.args([
            "--listen",
            "tcp://127.0.0.1:0?verbs=use,issue,end,watch-own,watch-all,admin",
            "--admin-listen",
            "127.0.0.1:0",
        ]);
        command
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = command.spawn().expect("the program starts");
        let mut pod = Pod {
            child,
            folder,
            endpoint: String::new(),
            admin: String::new(),
        };
        wait_for("a sidecar that serves", || {
            pod.log().contains("INFO serving").then_some(())
        })
        .await;
        let said = pod.log();
        let after = |mark: &str| {
            let rest = said.split(mark).nth(1).expect("an address");
            rest.split_whitespace().next().expect("an address").to_owned()
        };
        pod.endpoint = after("listening endpoint=tcp://");
        pod.admin = after("listening for admin endpoint=http://");
        pod
    }

    /// `session-sidecar store …`: its exit code, and what it prints.
    fn store(&self, words: &[&str], url: &str, more: &[&str]) -> (i32, String) {
        let mut command = program();
        command
            .env_clear()
            .arg("store")
            .args(words)
            .args(self.store_args(url))
            .args(more);
        let Output { status, stdout, stderr } = command.stdin(Stdio::null()).output().expect("it runs");
        let text = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
        (status.code().expect("a code"), text)
    }
}

/// A running sidecar.
struct Pod {
    child: Child,
    folder: Folder,
    endpoint: String,
    admin: String,
}

impl Drop for Pod {
    #[expect(clippy::print_stderr, reason = "what it says when a test has failed")]
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!(
                "--- a sidecar's log\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
    }
}

impl Pod {
    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn runs(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    async fn client(&self) -> Client {
        SessionServiceClient::connect(format!("http://{}", self.endpoint))
            .await
            .expect("it listens")
    }

    async fn admin(&self) -> Admin {
        SessionAdminServiceClient::connect(format!("http://{}", self.endpoint))
            .await
            .expect("it listens")
    }

    /// Waits until it answers from the store.
    async fn answers(&self) {
        let mut client = self.client().await;
        let request = v1::CheckRequest {
            name: Some(v1::check_request::Name::SessionId(id("nobody-that-anybody-knows"))),
            ..Default::default()
        };
        let answered = async {
            while client.check(request.clone()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, answered)
            .await
            .expect("it answers in the end");
    }

    fn metrics(&self) -> String {
        let mut stream = TcpStream::connect(&self.admin).expect("it listens");
        let request = format!(
            "GET /metrics HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            self.admin
        );
        stream.write_all(request.as_bytes()).expect("sent");
        let mut page = String::new();
        stream.read_to_string(&mut page).expect("read");
        page
    }
}

/// A session under a policy, and its ref.
async fn begin(client: &mut Client, name: &str, policy: &str) -> String {
    let request = v1::CreateRequest {
        session_id: id(name),
        subject: format!("subject-of-{name}"),
        policy: policy.to_owned(),
        request_id: format!("{name:-<20}"),
        ..Default::default()
    };
    let created = sure!(client.create(request.clone())).expect("created");
    status(&created.into_inner().session.expect("a session"))
        .session_ref
        .clone()
}

/// A watch that is live.
async fn watch(client: &mut Client, request: v1::WatchExpiryRequest) -> Watcher {
    let opened = sure!(Watcher::try_open(client, request.clone()));
    opened.expect("it opens").live().await
}

/// The state of a session by its ref.
async fn state_of(client: &mut Client, reference: &str) -> v1::SessionState {
    let request = v1::CheckRequest {
        name: Some(v1::check_request::Name::SessionRef(reference.to_owned())),
        ..Default::default()
    };
    let answer = sure!(client.check(request.clone())).expect("a question is answered");
    status(&answer.into_inner().session.expect("a session")).state()
}

/// The key of a session's record, and what the keys of its bucket begin with.
fn record_key(server: &Server, reference: &str) -> (String, String) {
    let key = server.ask(&["--scan", "--pattern", &format!("*:s:{reference}")]);
    // Before the ref stands `ss1:{main.3}:s:`.
    let bucket = key[..key.find("}:").expect("a tag") + 2].to_owned();
    (key, bucket)
}
