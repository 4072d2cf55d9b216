//! Envoy's `ext_authz`: its question asked as Envoy asks it, and a browser's requests through an Envoy that asks.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use futures_util::future::try_join_all;
use prost::Message as _;
use session_sidecar::rpc::proto::envoy::{self, attribute_context};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    http2::{self, Calls, LOCALHOST, OPEN, Options, Target},
    load::{Random, cpu_ticks, one_thread, write_id},
    report,
    watch::spread,
};

/// What a browser sends when a person clicks on a link, beside its cookie.
const BROWSER: [(&str, &str); 10] = [
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    ),
    (
        "accept",
        "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    ),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9"),
    ("referer", "http://localhost/"),
    ("sec-fetch-dest", "document"),
    ("sec-fetch-mode", "navigate"),
    ("sec-fetch-site", "same-origin"),
    ("sec-fetch-user", "?1"),
    ("upgrade-insecure-requests", "1"),
];

/// The page that is asked for.
const PAGE: &str = "/page";

/// Beside `sessionid`.
const OTHER_COOKIES: &str = "theme=dark; csrftoken=0123456789abcdef0123456789abcdef";

#[derive(Debug, clap::Args)]
struct LoadArgs {
    /// The process of the server that Envoy asks, to read what processor time it takes.
    #[arg(long)]
    pid: u32,
    /// How many sessions there are.
    #[arg(long)]
    ids: u64,
    #[arg(long, default_value_t = 2)]
    connections: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 0.5)]
    warm_up: f64,
}

/// What came of the requests.
#[derive(Default)]
struct Tally {
    measuring: Cell<bool>,
    stop: Cell<bool>,
    refused: Cell<u64>,
    /// Microseconds that each took.
    took: RefCell<Vec<f32>>,
}

impl Tally {
    fn over(&self, took: Duration) {
        if self.measuring.get() {
            self.took.borrow_mut().push(took.as_secs_f32() * 1e6);
        }
    }

    /// Measures for a while, then stops the load and tells what came of it.
    async fn measure(&self, args: &LoadArgs) -> anyhow::Result<()> {
        tokio::time::sleep(Duration::from_secs_f64(args.warm_up)).await;
        let (begin, ticks) = (Instant::now(), cpu_ticks(args.pid)?);
        self.measuring.set(true);
        tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
        self.measuring.set(false);
        let (seconds, ticks) = (begin.elapsed().as_secs_f64(), cpu_ticks(args.pid)? - ticks);
        self.stop.set(true);
        let took = self.took.take();
        if self.refused.get() > 0 || took.is_empty() {
            bail!(
                "{} requests were refused, {} were let pass",
                self.refused.get(),
                took.len()
            );
        }
        report(&serde_json::json!({
            "per_second": took.len() as f64 / seconds,
            // Ticks are hundredths of a second.
            "cpu_us": ticks as f64 * 1e4 / took.len() as f64,
            "took_us": spread(took),
        }));
        Ok(())
    }
}

/// Numbers of sessions, others on each connection.
fn random(connection: usize) -> Random {
    Random(0x9e37_79b9_7f4a_7c15 * (connection as u64 + 1))
}

#[derive(Debug, clap::Args)]
pub(crate) struct CheckArgs {
    /// The server.
    #[arg(long)]
    target: Target,
    /// Calls at a time on each connection.
    #[arg(long, default_value_t = 1)]
    streams: usize,
    #[command(flatten)]
    load: LoadArgs,
}

struct Checks<'a> {
    tally: &'a Tally,
    random: Random,
    ids: u64,
    /// The question, and where in it the id is.
    question: Vec<u8>,
    id_at: usize,
    /// When each call was made.
    begun: Vec<Instant>,
    now: Instant,
}

impl<'a> Checks<'a> {
    fn new(tally: &'a Tally, ids: u64, connection: usize) -> anyhow::Result<Self> {
        let mut id = [0; 24];
        write_id(0, &mut id);
        let question = question(&String::from_utf8_lossy(&id)).encode_to_vec();
        let id_at = question.windows(id.len()).position(|part| part == id);
        Ok(Self {
            tally,
            random: random(connection),
            ids,
            id_at: id_at.context("the question has no id")?,
            question,
            begun: Vec::new(),
            now: Instant::now(),
        })
    }
}

impl Calls for Checks<'_> {
    fn request(&mut self, message: &mut Vec<u8>) -> bool {
        if self.tally.stop.get() {
            return false;
        }
        let mut id = [0; 24];
        write_id(self.random.below(self.ids), &mut id);
        self.question[self.id_at..][..id.len()].copy_from_slice(&id);
        message.extend_from_slice(&self.question);
        self.begun.push(Instant::now());
        true
    }

    fn woke(&mut self) {
        self.now = Instant::now();
    }

    fn message(&mut self, _: u32, message: &[u8]) {
        // CheckResponse.status without a code, which is OK.
        if !message.starts_with(&[0x0a, 0]) {
            self.tally.refused.set(self.tally.refused.get() + 1);
        }
    }

    fn over(&mut self, stream: u32, ok: bool) {
        if ok {
            self.tally.over(self.now - self.begun[stream as usize / 2]);
        } else {
            self.tally.refused.set(self.tally.refused.get() + 1);
        }
    }
}

/// What Envoy asks about a click, of what the sidecar reads.
fn question(id: &str) -> envoy::CheckRequest {
    let of_envoy = [
        (":authority", "localhost"),
        (":method", "GET"),
        (":path", PAGE),
        (":scheme", "http"),
        ("x-forwarded-proto", "http"),
        ("x-request-id", "0b3a5a51-7a0a-4d4e-9b0e-7f1f0a1b2c3d"),
    ];
    let mut headers: BTreeMap<_, _> = BROWSER
        .into_iter()
        .chain(of_envoy)
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    headers.insert("cookie".to_owned(), cookies(id));
    let http = attribute_context::HttpRequest {
        method: "GET".to_owned(),
        headers,
        path: PAGE.to_owned(),
        host: "localhost".to_owned(),
        header_map: None,
    };
    envoy::CheckRequest {
        attributes: Some(envoy::AttributeContext {
            request: Some(attribute_context::Request { http: Some(http) }),
            context_extensions: BTreeMap::new(),
        }),
    }
}

fn cookies(id: &str) -> String {
    format!("{OTHER_COOKIES}; sessionid={id}")
}

/// Asks about random sessions for a while.
pub(crate) fn check(args: &CheckArgs) -> anyhow::Result<()> {
    let tally = Tally::default();
    let options = Options {
        path: "/envoy.service.auth.v3.Authorization/Check",
        authority: LOCALHOST,
        in_flight: args.streams,
        window: OPEN,
    };
    one_thread(async {
        let callers = (0..args.load.connections).map(async |connection| {
            let mut checks = Checks::new(&tally, args.load.ids, connection)?;
            let calls = http2::call(&args.target, options, &mut checks).await;
            calls.context("a connection failed")
        });
        tokio::try_join!(tally.measure(&args.load), try_join_all(callers))?;
        Ok(())
    })
}

#[derive(Debug, clap::Args)]
pub(crate) struct SiteArgs {
    /// Envoy.
    #[arg(long)]
    target: SocketAddr,
    /// Where it will find the application, which is in this process.
    #[arg(long)]
    application: SocketAddr,
    #[command(flatten)]
    load: LoadArgs,
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Asks for a page of a site behind Envoy for a while, a request at a time on each connection.
pub(crate) fn site(args: &SiteArgs) -> anyhow::Result<()> {
    let tally = Tally::default();
    one_thread(async {
        let listener = TcpListener::bind(args.application).await?;
        tokio::task::spawn_local(application(listener));
        let browsers = (0..args.load.connections).map(|connection| browse(args, connection, &tally));
        tokio::try_join!(tally.measure(&args.load), try_join_all(browsers))?;
        Ok(())
    })
}

/// An application that has one answer.
async fn application(listener: TcpListener) {
    while let Ok((mut io, _)) = listener.accept().await {
        tokio::task::spawn_local(async move {
            io.set_nodelay(true)?;
            let mut request = Vec::new();
            while io.read_buf(&mut request).await? > 0 {
                if request.ends_with(b"\r\n\r\n") {
                    request.clear();
                    io.write_all(ANSWER).await?;
                }
            }
            std::io::Result::Ok(())
        });
    }
}

async fn browse(args: &SiteArgs, connection: usize, tally: &Tally) -> anyhow::Result<()> {
    let mut io = TcpStream::connect(args.target).await?;
    io.set_nodelay(true)?;
    let mut random = random(connection);
    let headers = BROWSER.map(|(name, value)| format!("{name}: {value}\r\n")).concat();
    let mut answer = Vec::new();
    while !tally.stop.get() {
        let mut id = [0; 24];
        write_id(random.below(args.load.ids), &mut id);
        let cookies = cookies(&String::from_utf8_lossy(&id));
        let request = format!("GET {PAGE} HTTP/1.1\r\nhost: localhost\r\n{headers}cookie: {cookies}\r\n\r\n");
        let begun = Instant::now();
        io.write_all(request.as_bytes()).await?;
        answer.clear();
        while !answer.ends_with(b"\r\n\r\nok") {
            if io.read_buf(&mut answer).await? == 0 {
                bail!("Envoy closed the connection");
            }
            if !answer.starts_with(b"HTTP/1.1 200") {
                bail!("Envoy answered {}", String::from_utf8_lossy(&answer));
            }
        }
        tally.over(begun.elapsed());
    }
    Ok(())
}
