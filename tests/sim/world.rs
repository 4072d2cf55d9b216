//! The world: plays a script against a whole sidecar in virtual time, and writes down what everybody saw.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};

use prost::Message as _;
use session_sidecar::{
    rpc::proto::v1::{self, watch_expiry_response::Message},
    store::MemoryCaps,
};
use tokio::{sync::watch, task::JoinHandle, time::Instant};
use tonic::{Code, Status, Streaming};

use crate::{
    calls::{self, Names},
    history::{Answer, Call, Entry, Ns, Refused, Request, What},
    policies::{policies, specs},
    script::{Action, Script, TENANTS},
    sidecar::{Admin, Client, Options, Sidecar},
};

/// Every id that the simulation chooses begins with this: it may turn up nowhere but where an id is due.
pub(crate) const CANARY: &str = "canary-";

/// The watcher that sees everything and always reads: what it gets is the log.
pub(crate) const AUDITOR: u32 = 0;

/// Watchers from here on have a connection of their own.
const OWN_CONNECTION: u32 = 90;

/// When the sidecar's virtual wall clock starts.
pub(crate) const WALL_START: i128 = 1_767_225_600_000_000_000;

type History = Arc<Mutex<Vec<Entry>>>;

/// Plays a script from its beginning to its end.
pub(crate) fn play(script: &Script) -> Vec<Entry> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let history = History::default();
    let log = Scanner(Arc::clone(&history));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("session_sidecar=debug")
        .with_writer(move || log.clone())
        .without_time()
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    runtime.block_on(World::new(script, Arc::clone(&history)).turn());
    drop(runtime);
    std::mem::take(&mut history.lock().expect("nobody panicked"))
}

struct World<'a> {
    script: &'a Script,
    start: Instant,
    history: History,
    sidecar: Option<Sidecar>,
    clients: Vec<Callers>,
    names: Names,
    watchers: BTreeMap<u32, Watcher>,
    reloads: u32,
    races: u32,
    wall: i128,
}

/// The clients of a tenant.
#[derive(Clone)]
struct Callers {
    service: Client,
    admin: Admin,
}

struct Watcher {
    tenants: Vec<String>,
    request: v1::WatchExpiryRequest,
    token: Arc<Mutex<String>>,
    reads: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl<'a> World<'a> {
    fn new(script: &'a Script, history: History) -> Self {
        Self {
            script,
            start: Instant::now(),
            history,
            sidecar: None,
            clients: Vec::new(),
            names: Names::new(script.seed),
            watchers: BTreeMap::new(),
            reloads: 0,
            races: 0,
            wall: 0,
        }
    }

    async fn turn(mut self) {
        self.start = Instant::now();
        self.note(What::World {
            replay_events: self.script.replay_events,
            mailbox: self.script.mailbox,
            max_sessions: self.script.max_sessions,
            max_tombstones: self.script.max_tombstones,
        });
        self.boot().await;
        for step in &self.script.steps {
            // Each step has an instant of its own: only what races on purpose shares one.
            let at = (self.start + Duration::from_millis(step.at_ms)).max(Instant::now() + Duration::from_millis(1));
            tokio::time::sleep_until(at).await;
            self.act(&step.action).await;
        }
        let end = self.start + Duration::from_millis(self.script.until_ms);
        tokio::time::sleep_until(end.max(Instant::now() + Duration::from_millis(1))).await;
        self.scan_metrics();
        self.note(What::Over);
        self.kill().await;
    }

    fn note(&self, what: What) {
        note(&self.history, self.start, what);
    }

    async fn boot(&mut self) {
        let options = Options {
            caps: MemoryCaps {
                max_sessions: self.script.max_sessions,
                max_tombstones: self.script.max_tombstones,
            },
            replay_events: self.script.replay_events,
            mailbox_size: self.script.mailbox,
            ..Options::default()
        };
        let sidecar = Sidecar::with_parsed(policies(&specs(self.reloads)), options);
        self.clients.clear();
        for tenant in TENANTS {
            self.clients.push(Callers {
                service: sidecar.client_for(&[tenant]).await,
                admin: sidecar.admin_for(&[tenant]).await,
            });
        }
        let mut auditor = sidecar.client_for(&TENANTS).await;
        self.sidecar = Some(sidecar);
        let request = calls::watch_everything();
        let tenants = TENANTS.map(str::to_owned).to_vec();
        self.open(AUDITOR, &mut auditor, tenants, request).await;
    }

    async fn kill(&mut self) {
        for watcher in self.watchers.values_mut() {
            if let Some(task) = watcher.task.take() {
                task.abort();
                let _ = task.await;
            }
        }
        self.clients.clear();
        if let Some(sidecar) = self.sidecar.take() {
            assert!(sidecar.runs(), "a task that must never end has ended");
            sidecar.kill().await;
        }
    }

    async fn act(&mut self, action: &Action) {
        match action {
            Action::Race(actions) => self.race(actions).await,
            Action::Watch {
                watcher,
                tenant,
                scope,
                kinds,
                initial,
            } => {
                let request = calls::watch(&self.names, *tenant, scope, *kinds, *initial, *watcher);
                let mut client = self.client_of_watcher(*watcher, *tenant).await;
                self.open(*watcher, &mut client, vec![TENANTS[*tenant].to_owned()], request)
                    .await;
            }
            Action::Cut { watcher } => self.cut(*watcher).await,
            Action::Resume { watcher } => self.resume(*watcher, *watcher).await,
            Action::Foreign { watcher, of } => self.resume(*watcher, *of).await,
            Action::Reads { watcher, reads } => {
                if let Some(known) = self.watchers.get(watcher) {
                    known.reads.send_replace(*reads);
                    self.note(What::Reads {
                        watcher: *watcher,
                        reads: *reads,
                    });
                }
            }
            Action::Gap { ms } => {
                let from = self.start.elapsed().as_nanos() as Ns;
                let by = Duration::from_millis(*ms);
                let at = from + by.as_nanos() as Ns;
                self.history.lock().expect("nobody panicked").push(Entry {
                    at,
                    what: What::Gap { from },
                });
                tokio::time::advance(by).await;
            }
            Action::Wall { by_ms } => {
                let by = by_ms * 1_000_000;
                self.sidecar.as_ref().expect("runs").clock.jump_wall(by);
                self.wall += i128::from(by);
                self.note(What::Wall { offset: self.wall });
            }
            Action::Reload => self.reload(),
            Action::Restart { graceful } => self.restart(*graceful).await,
            one => {
                if let Some((tenant, request, bad)) = calls::request(one, &self.names) {
                    let client = self.clients[tenant].clone();
                    let learn = call(client, tenant, 0, request, bad, &self.history, self.start).await;
                    self.names.learn(one, learn);
                }
            }
        }
    }

    async fn race(&mut self, actions: &[Action]) {
        self.races += 1;
        let mut running = Vec::new();
        for action in actions {
            let Some((tenant, request, bad)) = calls::request(action, &self.names) else {
                continue;
            };
            let (client, history) = (self.clients[tenant].clone(), Arc::clone(&self.history));
            let (race, start) = (self.races, self.start);
            let run = async move { call(client, tenant, race, request, bad, &history, start).await };
            running.push((action, tokio::spawn(run)));
        }
        for (action, run) in running {
            let learn = run.await.expect("no call panics");
            self.names.learn(action, learn);
        }
    }

    async fn client_of_watcher(&self, watcher: u32, tenant: usize) -> Client {
        if watcher < OWN_CONNECTION {
            return self.clients[tenant].service.clone();
        }
        let sidecar = self.sidecar.as_ref().expect("runs");
        sidecar.client_for(&[TENANTS[tenant]]).await
    }

    async fn open(&mut self, watcher: u32, client: &mut Client, tenants: Vec<String>, request: v1::WatchExpiryRequest) {
        self.cut(watcher).await;
        let opened = client.watch_expiry(request.clone()).await;
        let refused = opened.as_ref().err().map(Refused::from_status);
        self.note(What::Opened {
            watcher,
            tenants: tenants.clone(),
            request: Box::new(request.clone()),
            refused,
        });
        let (reads, reading) = watch::channel(true);
        let token = Arc::new(Mutex::new(String::new()));
        let task = opened.ok().map(|stream| {
            let reader = Reader {
                watcher,
                stream: stream.into_inner(),
                own_ids: calls::own_ids(&request),
                token: Arc::clone(&token),
                history: Arc::clone(&self.history),
                start: self.start,
            };
            tokio::spawn(reader.read(reading))
        });
        if task.is_none() && !request.resume_token.is_empty() {
            token.lock().expect("nobody panicked").clone_from(&request.resume_token);
        }
        self.watchers.insert(
            watcher,
            Watcher {
                tenants,
                request,
                token,
                reads,
                task,
            },
        );
    }

    async fn cut(&mut self, watcher: u32) {
        let Some(task) = self.watchers.get_mut(&watcher).and_then(|known| known.task.take()) else {
            return;
        };
        if !task.is_finished() {
            task.abort();
            let _ = task.await;
            self.note(What::Closed { watcher, how: None });
        }
    }

    async fn resume(&mut self, watcher: u32, token_of: u32) {
        let Some(token) = self
            .watchers
            .get(&token_of)
            .map(|known| known.token.lock().expect("no panic").clone())
        else {
            return;
        };
        let Some(known) = self.watchers.get(&watcher) else {
            return;
        };
        let (mut request, tenants) = (known.request.clone(), known.tenants.clone());
        let tenant = TENANTS.iter().position(|name| *name == tenants[0]).unwrap_or(0);
        request.include_initial_state = token.is_empty();
        request.resume_token = token;
        let mut client = self.client_of_watcher(watcher, tenant).await;
        self.open(watcher, &mut client, tenants.clone(), request.clone()).await;
        if self.watchers[&watcher].task.is_none() {
            // What a gateway does then: begin anew.
            request.resume_token = String::new();
            request.include_initial_state = true;
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.open(watcher, &mut client, tenants, request).await;
        }
    }

    fn reload(&mut self) {
        self.reloads += 1;
        let sidecar = self.sidecar.as_ref().expect("runs");
        let reloaded = sidecar.sessions.policies().reload(policies(&specs(self.reloads)));
        reloaded.expect("a good file");
        self.note(What::Reloaded { reloads: self.reloads });
    }

    async fn restart(&mut self, graceful: bool) {
        self.scan_metrics();
        assert!(
            self.sidecar.as_ref().is_some_and(Sidecar::runs),
            "a task that must never end has ended"
        );
        if graceful {
            self.sidecar.as_ref().expect("runs").draining.cancel();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for watcher in self.watchers.keys().copied().collect::<Vec<_>>() {
            self.cut(watcher).await;
        }
        self.clients.clear();
        self.sidecar.take().expect("runs").kill().await;
        // A new process, whose wall clock is right again.
        self.wall = -(self.start.elapsed().as_nanos() as i128);
        self.note(What::Restarted { offset: self.wall });
        self.boot().await;
    }

    fn scan_metrics(&self) {
        let text = self.sidecar.as_ref().expect("runs").metrics();
        let dropped = text
            .lines()
            .find_map(|line| line.strip_prefix("session_sidecar_tombstones_dropped_total "));
        self.note(What::Dropped {
            tombstones: dropped
                .and_then(|number| number.parse().ok())
                .expect("the metric is there"),
        });
        for line in text.lines() {
            if has_raw_id(line.as_bytes()) {
                self.note(What::Leak {
                    place: format!("/metrics: {line}"),
                });
            }
        }
    }
}

fn note(history: &History, start: Instant, what: What) {
    let at = start.elapsed().as_nanos() as Ns;
    history.lock().expect("nobody panicked").push(Entry { at, what });
}

/// Makes one call. Answers the id and ref of a session that it made.
async fn call(
    callers: Callers,
    tenant: usize,
    race: u32,
    request: Request,
    bad: Option<&'static str>,
    history: &History,
    start: Instant,
) -> Option<(String, String)> {
    let sent = start.elapsed().as_nanos() as Ns;
    let Callers {
        service: mut client,
        mut admin,
    } = callers;
    let answer = match request.clone() {
        Request::Create(request) => client
            .create(request)
            .await
            .map(|answer| Answer::Create(answer.into_inner())),
        Request::Touch(request) => client
            .touch(request)
            .await
            .map(|answer| Answer::Touch(answer.into_inner())),
        Request::Batch(request) => client
            .batch_touch(request)
            .await
            .map(|answer| Answer::Batch(answer.into_inner())),
        Request::Check(request) => client
            .check(request)
            .await
            .map(|answer| Answer::Check(answer.into_inner())),
        Request::Extend(request) => client
            .extend(request)
            .await
            .map(|answer| Answer::Extend(answer.into_inner())),
        Request::Hold(request) => client
            .hold(request)
            .await
            .map(|answer| Answer::Hold(answer.into_inner())),
        Request::Release(request) => client
            .release(request)
            .await
            .map(|answer| Answer::Release(answer.into_inner())),
        Request::Rotate(request) => client
            .rotate(request)
            .await
            .map(|answer| Answer::Rotate(answer.into_inner())),
        Request::End(request) => client.end(request).await.map(|answer| Answer::End(answer.into_inner())),
        Request::List(request) => list(&mut admin, request).await.map(Answer::List),
        Request::EndMany(request) => admin
            .end_sessions(request)
            .await
            .map(|answer| Answer::EndMany(answer.into_inner())),
        Request::Explain(request) => admin
            .explain_session(request)
            .await
            .map(|answer| Answer::Explain(answer.into_inner())),
        Request::Stats(request) => admin
            .get_stats(request)
            .await
            .map(|answer| Answer::Stats(answer.into_inner())),
    };
    let learn = match &answer {
        Ok(Answer::Create(created)) => known(&created.session_id, created.session.as_ref()),
        Ok(Answer::Rotate(rotated)) => known(&rotated.session_id, rotated.session.as_ref()),
        _ => None,
    };
    let answer = answer.map_err(|status| Refused::from_status(&status));
    if let Some(place) = leak(&answer) {
        note(history, start, What::Leak { place });
    }
    note(
        history,
        start,
        What::Called(Box::new(Call {
            tenants: vec![TENANTS[tenant].to_owned()],
            race,
            request,
            answer,
            sent,
            bad,
        })),
    );
    learn
}

/// A list to its last page.
async fn list(admin: &mut Admin, mut request: v1::ListSessionsRequest) -> Result<v1::ListSessionsResponse, Status> {
    let mut all = v1::ListSessionsResponse::default();
    loop {
        let page = admin.list_sessions(request.clone()).await?.into_inner();
        all.sessions.extend(page.sessions);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

fn known(id: &str, session: Option<&v1::Session>) -> Option<(String, String)> {
    let status = session?.status.as_ref()?;
    Some((id.to_owned(), status.session_ref.clone()))
}

/// A raw id in an answer, but for the one that Create and Rotate hand out.
fn leak(answer: &Result<Answer, Refused>) -> Option<String> {
    let bytes = match answer {
        Ok(Answer::Create(created)) => created.session.as_ref()?.encode_to_vec(),
        Ok(Answer::Rotate(rotated)) => rotated.session.as_ref()?.encode_to_vec(),
        Ok(Answer::Touch(touched)) => touched.encode_to_vec(),
        Ok(Answer::Batch(batch)) => batch.encode_to_vec(),
        Ok(Answer::Check(check)) => check.encode_to_vec(),
        Ok(Answer::Extend(extended)) => extended.encode_to_vec(),
        Ok(Answer::Hold(held)) => held.encode_to_vec(),
        Ok(Answer::Release(released)) => released.encode_to_vec(),
        Ok(Answer::End(ended)) => ended.encode_to_vec(),
        Ok(Answer::List(listed)) => listed.encode_to_vec(),
        Ok(Answer::EndMany(ended)) => ended.encode_to_vec(),
        Ok(Answer::Explain(explained)) => explained.encode_to_vec(),
        Ok(Answer::Stats(stats)) => stats.encode_to_vec(),
        Err(refused) => format!("{refused:?}").into_bytes(),
    };
    has_raw_id(&bytes).then(|| format!("an answer: {answer:?}"))
}

/// Whether there is one of our ids, or what looks like one of the sidecar's own: 43 characters of base64url, of all kinds.
fn has_raw_id(bytes: &[u8]) -> bool {
    let is_id = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-' || *byte == b'_';
    bytes.split(|byte| !is_id(byte)).any(|run| {
        let made = run.len() == 43 && run.iter().any(u8::is_ascii_uppercase) && run.iter().any(u8::is_ascii_digit);
        made || run.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
    })
}

/// One open stream.
struct Reader {
    watcher: u32,
    stream: Streaming<v1::WatchExpiryResponse>,
    own_ids: Vec<String>,
    token: Arc<Mutex<String>>,
    history: History,
    start: Instant,
}

impl Reader {
    async fn read(mut self, mut reading: watch::Receiver<bool>) {
        loop {
            if reading.wait_for(|reads| *reads).await.is_err() {
                return;
            }
            let message = tokio::select! {
                biased;
                _ = reading.changed() => continue,
                message = self.stream.message() => message,
            };
            let how = match message {
                Ok(Some(message)) => {
                    self.got(message);
                    continue;
                }
                Ok(None) => Refused::ok(),
                Err(status) => Refused::from_status(&status),
            };
            // A killed process says nothing.
            if !matches!(
                how.code,
                Code::Unknown | Code::Internal | Code::Cancelled | Code::Unavailable
            ) {
                note(
                    &self.history,
                    self.start,
                    What::Closed {
                        watcher: self.watcher,
                        how: Some(how),
                    },
                );
            }
            return;
        }
    }

    fn got(&self, message: v1::WatchExpiryResponse) {
        self.token
            .lock()
            .expect("nobody panicked")
            .clone_from(&message.resume_token);
        let mut scanned = message.clone();
        if let Some(session) = session_mut(&mut scanned)
            && self.own_ids.contains(&session.session_id)
        {
            session.session_id.clear();
        }
        if has_raw_id(&scanned.encode_to_vec()) {
            let place = format!("an event to w{}: {:?}", self.watcher, message.message);
            note(&self.history, self.start, What::Leak { place });
        }
        let message = Box::new(message);
        note(
            &self.history,
            self.start,
            What::Message {
                watcher: self.watcher,
                message,
            },
        );
    }
}

fn session_mut(message: &mut v1::WatchExpiryResponse) -> Option<&mut v1::EventSession> {
    match message.message.as_mut()? {
        Message::Snapshot(snapshot) => snapshot.session.as_mut(),
        Message::Warning(warning) => warning.session.as_mut(),
        Message::Cleared(cleared) => cleared.session.as_mut(),
        Message::Ended(ended) => ended.session.as_mut(),
        _ => None,
    }
}

/// Reads the sidecar's own log for raw ids.
#[derive(Clone)]
struct Scanner(History);

impl io::Write for Scanner {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if has_raw_id(line) {
            let place = format!("the log: {}", String::from_utf8_lossy(line));
            let mut history = self.0.lock().expect("nobody panicked");
            let at = history.last().map_or(0, |entry| entry.at);
            history.push(Entry {
                at,
                what: What::Leak { place },
            });
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
