//! A shared store for tests in virtual time: a real server whose clock is the test's.
//!
//! A call blocks the test's one thread, so tokio's paused clock stands still meanwhile; then others have their turn before its answer is
//! heard. The scripts are the real ones but for one word: where they ask the server for the time they are given the test's.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of this")]

use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicI64, AtomicU32, Ordering},
    },
};

use async_trait::async_trait;
use redis::{Cmd, Connection, Value};
use session_sidecar::store::shared::{
    Wire,
    link::{Call, Fault, Poke, Server, Status},
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

/// The server's address, from the environment; without one sessions are in memory.
pub fn address() -> Option<String> {
    std::env::var("TEST_STORE").ok().filter(|address| !address.is_empty())
}

/// A name that no other test of this run has.
pub fn fresh_namespace() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{number}", std::process::id())
}

/// A server, and how far its clock was set, in microseconds.
#[derive(Clone)]
pub struct Place {
    pub address: String,
    pub set: Arc<AtomicI64>,
    began: Instant,
}

impl Place {
    pub fn new(address: String) -> Self {
        Self {
            address,
            set: Arc::default(),
            began: Instant::now(),
        }
    }
}

/// The wire to a server that lives in a test's time.
pub struct VirtualWire {
    connection: Mutex<Connection>,
    place: Place,
    pokes: mpsc::UnboundedSender<Poke>,
    status: watch::Sender<Status>,
}

static SOURCES: LazyLock<Mutex<HashMap<&'static str, Arc<redis::Script>>>> = LazyLock::new(Mutex::default);

/// Where the server's clock begins: as far from ours as in life.
const SERVER_AHEAD: u64 = 1_790_000_000_000_000;

impl VirtualWire {
    pub fn new(place: Place) -> (Arc<Self>, mpsc::UnboundedReceiver<Poke>) {
        let (pokes, told) = mpsc::unbounded_channel();
        let up = Status::Up {
            generation: 1,
            servers: vec![the_server()],
        };
        let client = redis::Client::open(place.address.as_str()).expect("an address");
        let wire = Self {
            connection: Mutex::new(client.get_connection().expect("the server is there")),
            place,
            pokes,
            status: watch::Sender::new(up),
        };
        (Arc::new(wire), told)
    }

    /// Cuts it off, or connects it again.
    pub fn set_up(&self, up: bool) {
        self.status.send_modify(|status| {
            *status = if up {
                Status::Up {
                    generation: 2,
                    servers: vec![the_server()],
                }
            } else {
                Status::Down {
                    why: "the test said so".to_owned(),
                }
            };
        });
    }

    async fn run<T>(&self, work: impl FnOnce(&mut Connection) -> redis::RedisResult<T>) -> Result<T, Fault> {
        if matches!(*self.status.borrow(), Status::Down { .. }) {
            return Err(Fault::Down);
        }
        let done = work(&mut self.connection.lock().expect("a lock"));
        tokio::task::yield_now().await;
        done.map_err(|error| Fault::Refused(error.to_string()))
    }

    fn micros(&self) -> u64 {
        // Whole microseconds of the test are whole ones of the server.
        let right = u64::try_from(self.place.began.elapsed().as_micros()).expect("a short test") + SERVER_AHEAD;
        right.saturating_add_signed(self.place.set.load(Ordering::Relaxed))
    }
}

fn the_server() -> Server {
    Server {
        run_id: "test".to_owned(),
        replid: "test".to_owned(),
        version: "7.0.0".to_owned(),
        replicas: 0,
    }
}

fn script(call: &Call) -> Arc<redis::Script> {
    let mut sources = SOURCES.lock().expect("a lock");
    let script = sources.entry(call.script.name).or_insert_with(|| {
        let source = call
            .script
            .source
            .replace("redis.call('TIME')", "{ARGV[1], table.remove(ARGV, 2)}");
        let (shebang, body) = source.split_once('\n').expect("a shebang");
        // The time stands before the script's own arguments, in seconds and microseconds.
        let source = format!("{shebang}\nlocal TEST_CLOCK = {{table.remove(ARGV, 1), table.remove(ARGV, 1)}}\n{body}");
        let source = source.replace("{ARGV[1], table.remove(ARGV, 2)}", "TEST_CLOCK");
        Arc::new(redis::Script::new(&source))
    });
    Arc::clone(script)
}

#[async_trait]
impl Wire for VirtualWire {
    async fn call(&self, call: Call) -> Result<Value, Fault> {
        let now = self.micros();
        let channel = call.keys.get(4).filter(|key| key.ends_with(b":c")).cloned();
        let pokes = self.pokes.clone();
        let value = self
            .run(move |connection| {
                let script = script(&call);
                let mut invocation = script.prepare_invoke();
                for key in &call.keys {
                    invocation.key(key.as_slice());
                }
                invocation.arg(now / 1_000_000).arg(now % 1_000_000);
                for arg in &call.args {
                    invocation.arg(arg.as_slice());
                }
                invocation.invoke::<Value>(connection)
            })
            .await?;
        if let Some(channel) = channel {
            let payload = Vec::new();
            let _ = pokes.send(Poke::Message { channel, payload });
        }
        Ok(value)
    }

    async fn calls(&self, calls: Vec<Call>) -> Vec<Result<Value, Fault>> {
        let mut answers = Vec::new();
        for call in calls {
            answers.push(self.call(call).await);
        }
        answers
    }

    async fn command(&self, _key: &[u8], command: Cmd) -> Result<Value, Fault> {
        self.run(move |connection| command.query(connection)).await
    }

    fn is_cluster(&self) -> bool {
        false
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    fn server(&self, _key: &[u8]) -> Option<Server> {
        Some(the_server())
    }

    fn admit(&self, _servers: BTreeSet<String>) {}
}
