//! `store`: whether a store is fit to be shared, and what is in it, said without a sidecar.

use std::{fmt::Write as _, process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::{sync::mpsc, task::AbortHandle};

use super::table::{cell, table};
use crate::{
    compliance::span,
    config::{InspectArgs, StoreCommand, StoreConfig},
    sessions::reason_in_words,
    state::{HoldKind, Limit, Limits, Origin, SessionRef, Tombstone},
    store::{
        Session,
        shared::{
            self, FORMATS, Fingerprints, Shared, StoreMeter, Wire,
            inspect::{Inspection, Known, NamespaceFacts},
            link::{Fault, Link, Server, Status, Unfit},
            trial::{Fitness, ServerFacts, acl_line, try_out},
        },
    },
    time::{Clock, Time},
};

/// How long a store may take to come up that has answered already.
const PATIENCE: Duration = Duration::from_secs(5);

/// Clocks that differ by less are in step.
const IN_STEP: i64 = 1_000_000;

/// Within so short a time no clock drifts by that much, in microseconds.
const DRIFT: i64 = 20_000;

/// A round trip that is longer costs every touch that is written.
const SLOW: Duration = Duration::from_millis(5);

/// Runs it. An error means that the arguments are bad.
pub fn run(command: &StoreCommand) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("no runtime")?;
    match command {
        StoreCommand::Check(args) => {
            let config = StoreConfig::shared(args)?;
            Ok(runtime.block_on(check(config)))
        }
        StoreCommand::Inspect(args) => {
            let config = StoreConfig::shared(&args.store)?;
            let session = args.session.as_deref().map(str::parse).transpose();
            let session = session.context("--session")?;
            Ok(runtime.block_on(inspect(args, config, session)))
        }
    }
}

/// A link that runs as long as this is there.
struct Running {
    link: Arc<Link>,
    task: AbortHandle,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Running {
    async fn up(config: &StoreConfig) -> Result<Self, String> {
        let (pokes, _) = mpsc::unbounded_channel();
        let link = Link::new(config.link.clone(), Vec::new(), pokes);
        let task = tokio::spawn(Arc::clone(&link).run()).abort_handle();
        let running = Self { link, task };
        let mut status = running.link.status();
        let up = status.wait_for(|status| matches!(status, Status::Up { .. }));
        if tokio::time::timeout(PATIENCE, up).await.is_err() {
            return Err(match &*running.link.status().borrow() {
                Status::Down { why } => why.clone(),
                Status::Up { .. } => "it came too late".to_owned(),
            });
        }
        Ok(running)
    }
}

/// What is said, line by line, and whether all is well.
#[derive(Default)]
struct Page {
    lines: Vec<String>,
    unfit: bool,
}

impl Page {
    fn good(&mut self, line: String) {
        self.lines.push(format!("ok    {line}"));
    }

    /// Something to know, which is no reason not to use it.
    fn note(&mut self, line: String) {
        self.lines.push(format!("note  {line}"));
    }

    fn bad(&mut self, line: String) {
        self.unfit = true;
        self.lines.push(format!("BAD   {line}"));
    }

    fn end(mut self) -> ExitCode {
        let verdict = if self.unfit {
            "the store is not fit"
        } else {
            "the store is fit"
        };
        self.lines.push(verdict.to_owned());
        let printed = super::print(&self.lines.join("\n"));
        if self.unfit { ExitCode::FAILURE } else { printed }
    }
}

fn buckets(config: &StoreConfig) -> usize {
    shared::buckets(&config.link.address)
}

async fn check(config: StoreConfig) -> ExitCode {
    let mut page = Page::default();
    let channels = shared::channels(&config.namespace, buckets(&config));
    let (pokes, _) = mpsc::unbounded_channel();
    match Link::new(config.link.clone(), channels, pokes).check().await {
        Ok(servers) => say_servers(&mut page, &servers),
        Err(unfit) => {
            say_unfit(&mut page, &config, &unfit);
            return page.end();
        }
    }
    let running = match Running::up(&config).await {
        Ok(running) => running,
        Err(why) => {
            page.bad(format!("the store was there, and is not any more: {why}"));
            return page.end();
        }
    };
    let mut random = [0; 8];
    if let Err(error) = getrandom::fill(&mut random) {
        page.bad(format!("the operating system gives no random bytes: {error}"));
        return page.end();
    }
    let scratch = format!("check-{:016x}", u64::from_le_bytes(random));
    let clock = Clock::system();
    let cluster = config.link.address.is_cluster();
    let fitness = try_out(&running.link, &clock, &config.namespace, &scratch, cluster).await;
    say_fitness(&mut page, &config, &fitness);
    page.end()
}

fn say_servers(page: &mut Page, servers: &[Server]) {
    for server in servers {
        let name = &server.version;
        match server.replicas {
            0 => page.note(format!(
                "server {name}, no replica: if its host is lost, so are its sessions, unless it comes back with its data"
            )),
            1 => page.good(format!("server {name}, 1 replica")),
            many => page.good(format!("server {name}, {many} replicas")),
        }
    }
}

fn say_unfit(page: &mut Page, config: &StoreConfig, unfit: &Unfit) {
    page.bad(unfit.to_string());
    if matches!(unfit, Unfit::NoPermission(_)) {
        say_acl(page, config);
    }
}

fn say_acl(page: &mut Page, config: &StoreConfig) {
    let address = &config.link.address;
    let user = address.manner().user.as_deref().unwrap_or("default");
    page.lines.push("      the user needs these rights:".to_owned());
    page.lines
        .push(format!("      ACL SETUSER {user} {}", acl_line(address)));
}

fn say_fitness(page: &mut Page, config: &StoreConfig, fitness: &Fitness) {
    for server in &fitness.servers {
        say_server(page, server);
    }
    say_refused(page, config, &fitness.refused);
    say_namespace(page, config, fitness.namespace.as_ref());
    if let Some((ahead, drift)) = fitness.clock {
        say_clock(page, ahead, drift);
    }
    let trip = Duration::from_micros(u64::try_from(fitness.round_trip.as_micros()).unwrap_or(u64::MAX));
    if trip > SLOW {
        page.note(format!(
            "a small script takes {} there and back: each touch that is written takes as long; put the store nearer",
            span(trip)
        ));
    } else {
        page.good(format!(
            "a small script takes {} there and back (median of 20)",
            span(trip)
        ));
    }
}

fn say_server(page: &mut Page, server: &ServerFacts) {
    const MEBIBYTE: u64 = 1 << 20;
    if server.eviction == "noeviction" {
        page.good("maxmemory-policy is noeviction: no live session is dropped when memory gets short".to_owned());
    } else {
        let found = cell(&*server.eviction);
        page.bad(format!(
            "maxmemory-policy is {found} and would drop live sessions: set it to noeviction"
        ));
    }
    let used = server.memory_used.div_ceil(MEBIBYTE);
    match server.memory_limit {
        0 => page.note(format!(
            "maxmemory is not set, {used} MiB are in use: set it below what the host has, so that a full store refuses new \
             sessions rather than be killed"
        )),
        limit if server.memory_used > limit / 10 * 9 => page.note(format!(
            "{used} of {} MiB are in use: when maxmemory is reached, no session is created any more",
            limit / MEBIBYTE
        )),
        limit => page.good(format!("{used} of {} MiB are in use (maxmemory)", limit / MEBIBYTE)),
    }
    if server.appends {
        page.good(
            "appendonly is on: a restart loses what the last fsync did not write (appendfsync everysec: a second)"
                .to_owned(),
        );
    } else {
        page.note(
            "appendonly is off: if the server restarts, sessions are lost since its last snapshot; set appendonly yes and \
             appendfsync everysec, unless replicas take over"
                .to_owned(),
        );
    }
    if !server.writes_down_well {
        page.bad("its last write to disk failed: look at its log and its disk (INFO persistence)".to_owned());
    }
}

fn say_refused(page: &mut Page, config: &StoreConfig, refused: &[(String, Fault)]) {
    if refused.is_empty() {
        page.good("every command and every script ran in a scratch namespace, which is deleted again".to_owned());
        return;
    }
    let (mut lacks_rights, mut keys_are_closed) = (false, false);
    for (what, fault) in refused {
        let said = fault.to_string();
        if said.contains("NOPERM") && said.contains("access") && said.contains("key") {
            lacks_rights = true;
            keys_are_closed = true;
            continue;
        }
        // Redis 7.0 says it so in a script, without naming the command.
        if said.contains("NOPERM") || said.contains("The user executing the script") {
            lacks_rights = true;
            // The scripts fail by the commands that are named already.
            if !what.starts_with("script ") || refused.iter().all(|(other, _)| other.starts_with("script ")) {
                page.bad(format!("the store's user may not use {what} ({said})"));
            }
        } else if matches!(fault, Fault::Full(_)) {
            page.bad(format!(
                "the store is full: {what} was refused; raise maxmemory, or let fewer sessions live"
            ));
        } else {
            page.bad(format!("{what} failed: {said}"));
        }
    }
    if keys_are_closed {
        page.bad("the store's user may not access the keys ss1:*".to_owned());
    }
    if lacks_rights {
        say_acl(page, config);
    }
}

fn say_namespace(page: &mut Page, config: &StoreConfig, found: Option<&NamespaceFacts>) {
    let (name, wanted) = (&config.namespace, buckets(config));
    let ours = config.fingerprints();
    let Some(found) = found else {
        page.good(format!(
            "the namespace {name} is not there yet: the first sidecar makes it, with {wanted} buckets and the key {ours}"
        ));
        return;
    };
    say_keys(page, name, &ours, &found.keys);
    if found.buckets == wanted {
        page.good(format!("it has {wanted} buckets"));
    } else {
        page.bad(format!(
            "it has {} buckets and this address makes {wanted}: it was made over another kind of address (a cluster has 64, \
             all else 16); use that, or another --store-namespace",
            found.buckets
        ));
    }
    say_format(page, found.format);
}

fn say_format(page: &mut Page, found: i64) {
    let (oldest, newest) = (i64::from(*FORMATS.start()), i64::from(*FORMATS.end()));
    if found == newest {
        page.good(format!("it has format {found}"));
    } else if found >= oldest && found < newest {
        page.good(format!(
            "it has format {found}; when all of its sidecars read {newest}, as this version does, give them --store-format {newest}"
        ));
    } else {
        page.bad(format!(
            "it has format {found} and this version reads {oldest} to {newest}: run a version that is adjacent to the other sidecars'"
        ));
    }
}

fn say_keys(page: &mut Page, name: &str, ours: &Fingerprints, found: &Fingerprints) {
    if !ours.may_enter(found) {
        page.bad(format!(
            "the namespace {name} has the key {found} and --store-key-file is {ours}: {}",
            ours.advice(found)
        ));
        return;
    }
    page.good(format!(
        "the namespace {name} has the key {}, {}",
        found.own,
        key_file(ours, &found.own)
    ));
    if let Some(other) = &found.other {
        page.good(format!(
            "beside it the key {other} is accepted, {}",
            key_file(ours, other)
        ));
    }
    if ours != found {
        page.note(format!(
            "once a sidecar starts with these files the namespace has the key {ours}"
        ));
    }
}

/// Which of our files a key is in.
fn key_file(ours: &Fingerprints, key: &str) -> &'static str {
    if key == ours.own {
        "that of --store-key-file"
    } else if ours.other.as_deref() == Some(key) {
        "that of --store-other-key-file"
    } else {
        "of which no file was given"
    }
}

fn say_clock(page: &mut Page, ahead: i64, drift: i64) {
    let millis = ahead / 1000;
    let apart = match millis {
        0 => "shows what this machine's does".to_owned(),
        ahead if ahead > 0 => format!("is {ahead} ms ahead of this machine's"),
        behind => format!("is {} ms behind this machine's", -behind),
    };
    if drift.abs() > DRIFT {
        page.bad(format!(
            "the store's clock {apart} and went {} ms further than it within a third of a second: it is being set; see to its \
             time server",
            drift / 1000
        ));
    } else if ahead.abs() > IN_STEP {
        page.note(format!(
            "the store's clock {apart}: deadlines do not depend on it, but replicas that take over must show the same"
        ));
    } else {
        page.good(format!("the store's clock {apart}, and goes on in step"));
    }
}

async fn inspect(args: &InspectArgs, config: StoreConfig, session: Option<SessionRef>) -> ExitCode {
    match try_inspect(args, config, session).await {
        Ok(page) => super::print(&page),
        Err(problem) => {
            super::print_error(&problem);
            ExitCode::FAILURE
        }
    }
}

async fn try_inspect(args: &InspectArgs, config: StoreConfig, session: Option<SessionRef>) -> Result<String, String> {
    let (told, _) = mpsc::unbounded_channel();
    let link = Link::new(config.link.clone(), Vec::new(), told);
    link.check().await.map_err(|unfit| unfit.to_string())?;
    let running = Running::up(&config).await?;
    let clock = Clock::system();
    let (_, pokes) = mpsc::unbounded_channel();
    let setup = shared::Setup {
        clock: clock.clone(),
        wire: Arc::clone(&running.link) as Arc<dyn Wire>,
        pokes,
        buckets: buckets(&config),
        namespace: config.namespace.clone(),
        keys: config.fingerprints(),
        window: None,
        format: config.format,
        outage: config.outage,
        max_sessions: 1,
        replay_events: 1,
        mailbox_size: 1,
    };
    let shared = Shared::new(setup, StoreMeter::register(&mut Registry::default()));
    match session {
        None => {
            let found = shared.inspect().await.map_err(|fault| fault.to_string())?;
            Ok(inspection(&config, &found))
        }
        Some(session) => {
            let found = shared.inspect_session(session).await;
            let found = found.map_err(|_| "the record cannot be read: see `store check`".to_owned())?;
            Ok(match found {
                None => format!("{session}: not known; it never existed in this namespace, or is forgotten"),
                Some(found) => record(session, &found, clock.now(), args.show_subject),
            })
        }
    }
}

fn inspection(config: &StoreConfig, found: &Inspection) -> String {
    let Some(namespace) = &found.namespace else {
        return format!(
            "the namespace {} is not there: no sidecar ever came into it",
            config.namespace
        );
    };
    let mut page = format!(
        "namespace {}, {} buckets, format {}, key {} ({})\n",
        config.namespace,
        namespace.buckets,
        namespace.format,
        namespace.keys.own,
        key_file(&config.fingerprints(), &namespace.keys.own)
    );
    if let Some(other) = &namespace.keys.other {
        let file = key_file(&config.fingerprints(), other);
        let _ = writeln!(page, "beside it the key {other} is accepted ({file})");
    }
    let sum = |count: fn(&shared::inspect::BucketFacts) -> u64| found.buckets.iter().map(count).sum::<u64>();
    let _ = writeln!(
        page,
        "{} live sessions, {} remembered ends, {} events so far\n",
        sum(|bucket| bucket.live),
        sum(|bucket| bucket.remembered),
        sum(|bucket| bucket.number)
    );
    let rows: Vec<_> = found
        .buckets
        .iter()
        .map(|bucket| {
            vec![
                bucket.bucket.to_string(),
                cell(&*bucket.epoch),
                bucket.live.to_string(),
                bucket.remembered.to_string(),
                bucket.number.to_string(),
                bucket.beat.map_or_else(|| "never".to_owned(), about),
                if bucket.held_for.is_zero() {
                    "-".to_owned()
                } else {
                    about(bucket.held_for)
                },
                format!("{:+.3}s ({})", bucket.correction as f64 / 1e6, bucket.corrections),
            ]
        })
        .collect();
    let header = [
        "BUCKET",
        "EPOCH",
        "LIVE",
        "REMEMBERED",
        "EVENTS",
        "LOOKED AT (AGO)",
        "HOLDS ENDS",
        "CLOCK CORRECTED BY",
    ];
    page += &table(&header, &rows);
    let rows: Vec<_> = found
        .sidecars
        .iter()
        .map(|(name, ago)| vec![name.clone(), about(*ago)])
        .collect();
    let _ = write!(page, "\n\n{}", table(&["SIDECAR", "SEEN (AGO)"], &rows));
    let rows: Vec<_> = found
        .policies
        .iter()
        .map(|policy| {
            vec![
                policy.policy.clone(),
                policy.revision.to_string(),
                policy.idle_timeout.map_or_else(|| "none".to_owned(), span),
                span(policy.absolute_timeout),
                policy.digest.clone(),
            ]
        })
        .collect();
    let header = ["POLICY", "REVISION", "IDLE", "ABSOLUTE", "DIGEST"];
    let _ = write!(page, "\n\n{}", table(&header, &rows));
    page
}

/// A duration as people say it.
fn about(duration: Duration) -> String {
    span(Duration::from_millis(
        u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
    ))
}

fn ago(now: Time, at: Time) -> String {
    if at > now {
        format!("in {}", about(at.since(now)))
    } else {
        format!("{} ago", about(now.since(at)))
    }
}

fn record(session: SessionRef, found: &Known, now: Time, show_subject: bool) -> String {
    match found {
        Known::Live(live) => live_record(live, now, show_subject),
        Known::Ended(end) => ended_record(session, end, now, show_subject),
        Known::Pending { predecessor } => format!(
            "{session}: pending; it is to go on in the place of {}, and lives if that ended as rotated into it",
            predecessor.map_or_else(|| "another session".to_owned(), |name| name.to_string())
        ),
    }
}

fn origin_lines(page: &mut String, origin: &Origin, limits: &Limits, now: Time, show_subject: bool) {
    let identity = &origin.identity;
    let _ = writeln!(page, "  tenant          {}", cell(identity.tenant()));
    if show_subject {
        let _ = writeln!(page, "  subject         {}", cell(identity.subject()));
    }
    let _ = writeln!(page, "  policy          {} revision {}", limits.policy, limits.revision);
    let _ = writeln!(page, "  created         {}", ago(now, origin.created));
    let _ = writeln!(page, "  authenticated   {}", ago(now, origin.authenticated));
}

fn live_record(live: &Session, now: Time, show_subject: bool) -> String {
    live.read(|view| {
        let mut page = format!("{}: live, version {}\n", live.reference(), view.version);
        origin_lines(&mut page, view.origin, view.limits, now, show_subject);
        let deadlines = view.plain_deadlines();
        let (expire, limit) = deadlines.expire();
        let limit = match limit {
            Limit::Idle => "idle",
            Limit::Absolute => "absolute",
            Limit::Presence => "presence",
        };
        let _ = writeln!(page, "  last activity   {}", ago(now, view.last_activity(now)));
        let _ = writeln!(page, "  written up to   {}", ago(now, view.pulse.last_activity()));
        let _ = writeln!(page, "  expires         {} ({limit})", ago(now, expire));
        let _ = writeln!(page, "  absolute        {}", ago(now, deadlines.absolute));
        let _ = writeln!(
            page,
            "  warned          {}",
            if view.pulse.is_warned() { "yes" } else { "no" }
        );
        let _ = writeln!(page, "  extensions      {}", view.rest.extensions);
        for hold in view.rest.live_holds(now) {
            let kind = match hold.kind {
                HoldKind::Work => "work",
                HoldKind::Presence => "presence",
            };
            let _ = writeln!(
                page,
                "  hold            {kind} {:?} until {}",
                hold.id,
                ago(now, hold.until)
            );
        }
        page
    })
}

fn ended_record(session: SessionRef, end: &Tombstone, now: Time, show_subject: bool) -> String {
    let mut page = format!(
        "{session}: ended {} {}\n",
        ago(now, end.end.at),
        reason_in_words(end.end.reason)
    );
    origin_lines(&mut page, &end.origin, &end.limits, now, show_subject);
    let _ = writeln!(page, "  last activity   {}", ago(now, end.last_activity));
    let _ = writeln!(page, "  actor           {:?} {}", end.end.actor, end.end.actor_id);
    if let Some(next) = end.successor {
        let _ = writeln!(page, "  goes on as      {}", next.reference);
    }
    let _ = writeln!(page, "  forgotten       {}", ago(now, end.forget_at));
    page
}
