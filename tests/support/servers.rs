//! Real servers for tests of the shared store: Redis or Valkey on free loopback ports, with a folder of their own, killed
//! when the test lets go of them.
//!
//! `STORE_SERVER=valkey-server` makes the same tests run against Valkey. Waiting is always for a condition.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use std::{
    fs,
    hash::{BuildHasher as _, RandomState},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

/// How long a test waits for what must happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is there.
pub async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = look() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, found).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain: {what}"),
    }
}

/// A port that nobody listens on. Not one of those that the system gives to outgoing connections: a client that knocks on
/// such a port again and again, while no server is there, may end up connected to itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = RandomState::new().hash_one(0) as u16;
    let _ = NEXT.compare_exchange(0, first, Ordering::Relaxed, Ordering::Relaxed);
    loop {
        let port = 12_000 + NEXT.fetch_add(1, Ordering::Relaxed) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

fn program() -> String {
    std::env::var("STORE_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

/// A folder that is gone when the test is over.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let name = format!("store-{}-{:016x}", std::process::id(), RandomState::new().hash_one(0));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a folder for a server");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A running server.
pub struct Server {
    pub port: u16,
    folder: Folder,
    arguments: Vec<String>,
    tls: bool,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// A server that forgets everything when it ends. `arguments` are added to its command line.
    pub async fn start(arguments: &[&str]) -> Self {
        Self::with(arguments, None).await
    }

    /// A server that speaks only TLS.
    pub async fn start_tls(certificates: &Certificates, arguments: &[&str]) -> Self {
        Self::with(arguments, Some(certificates)).await
    }

    async fn with(arguments: &[&str], certificates: Option<&Certificates>) -> Self {
        // The port may be taken between looking and starting.
        let mut said = String::new();
        for _ in 0..5 {
            let folder = Folder::new();
            let port = free_port();
            let mut all: Vec<String> = vec!["--dir".into(), folder.path().display().to_string()];
            match certificates {
                None => all.extend(["--port".into(), port.to_string()]),
                Some(certificates) => {
                    let file = |name: &str| certificates.folder.path().join(name).display().to_string();
                    all.extend(["--port".into(), "0".into(), "--tls-port".into(), port.to_string()]);
                    all.extend(["--tls-cert-file".into(), file("server.crt")]);
                    all.extend(["--tls-key-file".into(), file("server.key")]);
                    all.extend(["--tls-ca-cert-file".into(), file("ca.crt")]);
                    if !arguments.contains(&"--tls-auth-clients") {
                        all.extend(["--tls-auth-clients".into(), "no".into()]);
                    }
                }
            }
            all.extend(["--bind", "127.0.0.1", "--save", "", "--logfile", "log"].map(String::from));
            all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
            let server = Self {
                port,
                folder,
                arguments: all,
                tls: certificates.is_some(),
                child: Mutex::new(None),
            };
            if server.launch().await {
                return server;
            }
            said = fs::read_to_string(server.folder.path().join("log")).unwrap_or_default();
        }
        panic!("no server could be started: {said}");
    }

    /// Starts the process. Answers whether it serves.
    async fn launch(&self) -> bool {
        let log = self.folder.path().join("log");
        let _ = fs::remove_file(&log);
        let child = Command::new(program())
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server (Debian package redis-server) or what STORE_SERVER names");
        *self.child.lock().expect("no panic") = Some(child);
        wait_for("a server that serves or ends", || {
            let said = fs::read_to_string(&log).unwrap_or_default();
            if said.contains("Ready to accept connections") {
                return Some(true);
            }
            let mut child = self.child.lock().expect("no panic");
            let ended = child.as_mut().and_then(|child| child.try_wait().expect("a child"));
            ended.map(|_| false)
        })
        .await
    }

    /// Where it is, for a link.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("no panic").take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it again, on the same port, empty unless it was told to write its data down.
    pub async fn restart(&self) {
        self.kill();
        assert!(self.launch().await, "the server did not start again");
    }

    /// Stops its time (SIGSTOP) or lets it go on. When this returns, it is so.
    pub fn freeze(&self, frozen: bool) {
        let pid = self.child.lock().expect("no panic").as_ref().expect("it runs").id();
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let done = Command::new("kill").arg(signal).arg(pid.to_string()).status();
        assert!(done.expect("kill").success());
        // A thread that runs on another processor gets to know of it a little later.
        let stands = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.expect("it lives").path().join("stat"));
            stat.is_ok_and(|stat| stat.contains(") T "))
        };
        let began = tokio::time::Instant::now();
        while frozen
            && !std::fs::read_dir(format!("/proc/{pid}/task"))
                .expect("it lives")
                .all(stands)
        {
            assert!(began.elapsed() < PATIENCE, "it does not stand still");
            std::thread::yield_now();
        }
    }

    /// What the server answers to a command, in redis-cli's words. Not for servers that speak TLS.
    pub fn ask(&self, words: &[&str]) -> String {
        ask(self.port, words)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What the server on a port answers to a command, in redis-cli's words.
pub fn ask(port: u16, words: &[&str]) -> String {
    let answer = Command::new("redis-cli")
        .args(["-p", &port.to_string()])
        .args(words)
        .stdin(Stdio::null())
        .output()
        .expect("redis-cli (Debian package redis-tools)");
    String::from_utf8_lossy(&answer.stdout).trim().to_owned()
}

/// A sentinel that watches one primary, called `main`.
pub struct Sentinel {
    server: Server,
}

impl Sentinel {
    /// One vote is enough. It takes a primary for dead after two seconds: it asks every second for a sign of life, and with
    /// less than that it fails over from a primary that lives.
    pub async fn start(primary: &Server) -> Self {
        let folder = Folder::new();
        let port = free_port();
        let config = folder.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {dir}\nlogfile log\nsentinel monitor main 127.0.0.1 {primary} 1\n\
             sentinel down-after-milliseconds main 2000\nsentinel failover-timeout main 5000\n",
            dir = folder.path().display(),
            primary = primary.port,
        );
        fs::write(&config, text).expect("a file for a sentinel");
        let server = Server {
            port,
            arguments: vec![config.display().to_string(), "--sentinel".into()],
            folder,
            tls: false,
            child: Mutex::new(None),
        };
        let child = Command::new(program())
            .args(&server.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server (Debian package redis-server)");
        *server.child.lock().expect("no panic") = Some(child);
        wait_for("the sentinel", || (server.ask(&["ping"]) == "PONG").then_some(())).await;
        Self { server }
    }

    /// Waits until it knows that many replicas: before, a failover finds nobody to promote.
    pub async fn knows_replicas(&self, count: usize) {
        wait_for("the sentinel knows the replicas", || {
            let said = self.server.ask(&["sentinel", "replicas", "main"]);
            (said.matches("\nrunid\n").count() == count && !said.contains("\nrunid\n\n")).then_some(())
        })
        .await;
    }

    pub fn port(&self) -> u16 {
        self.server.port
    }

    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/main", self.port())
    }
}

/// A cluster.
pub struct Cluster {
    pub nodes: Vec<Server>,
}

impl Cluster {
    /// That many primaries, each with that many replicas. A primary that has a replica is taken for dead after a second, else nothing
    /// would come of it but a busy machine's trouble; the other primaries go on meanwhile.
    pub async fn start(primaries: usize, replicas: usize) -> Self {
        let dead_after = if replicas > 0 { "1000" } else { "10000" };
        let mut nodes = Vec::new();
        for _ in 0..primaries * (1 + replicas) {
            let bus = free_port().to_string();
            let arguments = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                dead_after,
                "--cluster-require-full-coverage",
                "no",
            ];
            nodes.push(Server::start(&arguments).await);
        }
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)));
        create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
        let made = create.stdin(Stdio::null()).output().expect("redis-cli");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
        let cluster = Self { nodes };
        for node in &cluster.nodes {
            wait_for("the cluster is of one mind", || {
                let info = node.ask(&["cluster", "info"]);
                let is_ok = info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384");
                let shards = node.ask(&["cluster", "nodes"]).matches("connected ").count();
                (is_ok && shards >= primaries).then_some(())
            })
            .await;
        }
        cluster
    }

    pub fn url(&self) -> String {
        let places: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis+cluster://{}", places.join(","))
    }

    /// The node that is responsible for a slot.
    pub fn owner(&self, slot: u16) -> &Server {
        let said = self.nodes[0].ask(&["cluster", "nodes"]);
        for line in said.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let owns = words[8..].iter().any(|range| {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                let (first, last) = (first.parse::<u16>(), last.parse::<u16>());
                matches!((first, last), (Ok(first), Ok(last)) if (first..=last).contains(&slot))
            });
            if owns {
                let port = words[1].split(['@', ':']).nth(1).expect("an address");
                return self
                    .nodes
                    .iter()
                    .find(|node| node.port.to_string() == port)
                    .expect("a node");
            }
        }
        panic!("nobody owns slot {slot}");
    }

    /// Moves a slot, with its keys, to another node, as a resharding does.
    pub fn move_slot(&self, slot: u16, to: &Server) {
        let from = self.owner(slot);
        let (from_id, to_id) = (from.ask(&["cluster", "myid"]), to.ask(&["cluster", "myid"]));
        let slot = slot.to_string();
        assert_eq!(to.ask(&["cluster", "setslot", &slot, "importing", &from_id]), "OK");
        assert_eq!(from.ask(&["cluster", "setslot", &slot, "migrating", &to_id]), "OK");
        loop {
            let keys = from.ask(&["cluster", "getkeysinslot", &slot, "100"]);
            if keys.is_empty() {
                break;
            }
            for key in keys.lines() {
                from.ask(&["migrate", "127.0.0.1", &to.port.to_string(), key, "0", "5000"]);
            }
        }
        assert_eq!(to.ask(&["cluster", "setslot", &slot, "node", &to_id]), "OK");
        assert_eq!(from.ask(&["cluster", "setslot", &slot, "node", &to_id]), "OK");
    }
}

/// A certificate authority and a server's certificate for `127.0.0.1` and `localhost`, made by openssl.
pub struct Certificates {
    folder: Folder,
}

impl Certificates {
    pub fn new() -> Self {
        let folder = Folder::new();
        let openssl = |words: &[&str]| {
            let made = Command::new("openssl")
                .args(words)
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .output()
                .expect("openssl");
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        };
        let names = "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n";
        fs::write(folder.path().join("names"), names).expect("a file");
        let new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
        let mut ca = vec![
            "req",
            "-x509",
            "-days",
            "3",
            "-subj",
            "/CN=Test authority",
            "-keyout",
            "ca.key",
            "-out",
        ];
        ca.push("ca.crt");
        ca.extend(new_key);
        openssl(&ca);
        let mut request = vec![
            "req",
            "-subj",
            "/CN=localhost",
            "-keyout",
            "server.key",
            "-out",
            "server.csr",
        ];
        request.extend(new_key);
        openssl(&request);
        openssl(&[
            "x509",
            "-req",
            "-in",
            "server.csr",
            "-CA",
            "ca.crt",
            "-CAkey",
            "ca.key",
            "-CAcreateserial",
            "-days",
            "3",
            "-extfile",
            "names",
            "-out",
            "server.crt",
        ]);
        Self { folder }
    }

    /// The authority, as PEM.
    pub fn authority(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("ca.crt")).expect("a certificate")
    }

    /// Where a file of them is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
