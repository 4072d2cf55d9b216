//! The only room that names a flag, an environment variable or a key of a file.

mod admin_args;
mod args;
mod listen;
mod options;
mod policy;
mod store;
mod traces;
mod verb_args;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail};

pub use admin_args::{AdminArgs, EndSessionsArgs, ExplainArgs, FilterArgs, ListArgs, PoliciesArgs, StateArg};
pub use args::{
    AuditSubject, Cli, Command, InspectArgs, LogFormat, PolicyArgs, PolicyCommand, PolicyDocumentArgs, PolicyFileArgs,
    PolicyKeptArgs, PolicyLintArgs, ServeArgs, StandardArg, StoreArgs, StoreCommand, StoreCommandArgs, StoreOutage,
};
pub use listen::{Endpoint, Listen, Peers, TlsFiles, token_text};
pub use options::options_markdown;
pub use policy::{
    KnownCaller, PolicyFile, parse as parse_policies, parse_door, parse_file as parse_policy_file, parse_whole,
    read as read_policies, read_callers,
};
pub use store::StoreConfig;
pub use traces::TraceConfig;
pub use verb_args::{
    ActivityArg, ActorArg, AdvanceArgs, CheckArgs, ClientArgs, CreateArgs, EndArgs, ExtendArgs, HintArgs, HoldArgs,
    HoldKindArg, HoldNameArgs, IdArgs, ReasonArg, ReleaseArgs, RequestArgs, RotateArgs, TargetArgs, TouchArgs,
    VisibilityArg, WatchArgs,
};

use crate::{
    audit::{SubjectForm, Target},
    door, files,
    state::Policy,
};

/// What `serve` does, resolved and checked.
#[derive(Debug)]
pub struct Config {
    /// Where the API is served.
    pub listen: Vec<Listen>,
    /// Where metrics and probes are served.
    pub admin_listen: Option<SocketAddr>,
    /// Where the HTTP door is served.
    pub door_listen: Option<SocketAddr>,
    /// What it is told, and `ext_authz` with it.
    pub door: door::Settings,
    /// The policies by name.
    pub policies: BTreeMap<String, Policy>,
    /// Who may do what, whichever listener they come by.
    pub callers: Vec<KnownCaller>,
    /// Where they were read, to be followed.
    pub policy_file: Option<PathBuf>,
    /// The key of refs, ids and tokens; drawn at random if unset.
    pub master_key: Option<Vec<u8>>,
    /// The store that sidecars share, if they do.
    pub store: Option<StoreConfig>,
    /// The cap of live sessions.
    pub max_sessions: usize,
    /// The cap of remembered ended sessions.
    pub max_tombstones: usize,
    /// The cap of open watches.
    pub max_watchers: usize,
    /// The cap of open connections.
    pub max_connections: usize,
    /// How many events are kept for watchers that resume.
    pub replay_events: usize,
    /// How many events may wait for one watcher.
    pub watch_queue: usize,
    /// How long a shutdown may take.
    pub drain_timeout: Duration,
    /// Where the audit log goes.
    pub audit_log: Target,
    /// How subjects are written into it.
    pub audit_subjects: SubjectForm,
    /// Where spans of calls go, if they are made.
    pub traces: Option<TraceConfig>,
    /// Whether this is `serve --dev`.
    pub dev: bool,
    /// What is allowed, and perhaps not meant.
    pub warnings: Vec<String>,
}

impl Config {
    /// Resolves and checks the arguments of `serve`.
    pub fn resolve(args: &ServeArgs) -> anyhow::Result<Self> {
        let listen = args.listen.clone();
        let mut warnings = Vec::new();
        for place in &listen {
            let fault = place
                .check_files()
                .map_err(|error| anyhow!("--listen {}: {error}", place.endpoint))?;
            warnings.extend(fault.map(|fault| format!("--listen {}: {fault}", place.endpoint)));
            let Endpoint::Tcp(address) = place.endpoint else {
                continue;
            };
            if address.ip().is_loopback() {
                continue;
            }
            if args.dev {
                bail!("--dev serves a test clock: it listens on loopback or a Unix socket only, not on {address}");
            }
            if args.allow_plaintext {
                continue;
            }
            match &place.tls {
                None => bail!(
                    "--listen {address} can be reached from other machines, and session ids would cross the network in clear text: \
                     give it tls-cert-file= and tls-key-file=, listen on loopback or a Unix socket, or say --allow-plaintext if \
                     something else encrypts"
                ),
                Some(tls) if tls.client_ca.is_none() && place.token_file.is_none() => bail!(
                    "--listen {address} can be reached from other machines, and anybody there could call it: give it \
                     client-ca-file= or token-file=, or say --allow-plaintext if something else decides who may"
                ),
                Some(_) => {}
            }
        }
        let admin_listen = match args.admin_listen.as_str() {
            "off" => None,
            address => Some(address.parse().with_context(|| {
                format!("--admin-listen {address:?} must be an address like 127.0.0.1:50152, or off")
            })?),
        };
        let file = match &args.policy_file {
            Some(path) => policy::read_whole(path)?,
            None => policy::without_file(args.dev)?,
        };
        let PolicyFile {
            policies,
            door,
            callers,
        } = file;
        read_callers(&callers).map_err(|error| anyhow!("--policy-file: {error}"))?;
        if !policies.contains_key("default") {
            let names: Vec<_> = policies.keys().map(String::as_str).collect();
            warnings.push(format!(
                "no policy is named `default`: a Create that names no policy is refused; there are: {}",
                names.join(", ")
            ));
        }
        let keys = [
            ("--key-file", &args.key_file),
            ("--store-key-file", &args.shared.store_key_file),
            ("--store-other-key-file", &args.shared.store_other_key_file),
        ];
        warnings.extend(
            keys.into_iter()
                .filter_map(|(flag, path)| loose_key(flag, path.as_ref()?)),
        );
        let store = StoreConfig::resolve(args)?;
        Ok(Self {
            listen,
            admin_listen,
            door_listen: door_listen(args)?,
            door,
            policies,
            callers,
            policy_file: args.policy_file.clone(),
            master_key: match (&store, &args.key_file) {
                (Some(store), _) => Some(store.master_key.clone()),
                (None, path) => path.as_ref().map(|path| read_key("--key-file", path)).transpose()?,
            },
            store,
            max_sessions: at_least_one("--max-sessions", args.max_sessions)?,
            max_tombstones: at_least_one("--max-tombstones", args.max_tombstones)?,
            max_watchers: at_least_one("--max-watchers", args.max_watchers)?,
            max_connections: at_least_one("--max-connections", args.max_connections)?,
            replay_events: at_least_one("--replay-events", args.replay_events)?,
            watch_queue: at_least_one("--watch-queue", args.watch_queue)?,
            drain_timeout: args.drain_timeout.into(),
            audit_log: args.audit_log.clone(),
            audit_subjects: args.audit_subject.into(),
            traces: TraceConfig::resolve(|name| std::env::var(name).ok())?,
            dev: args.dev,
            warnings,
        })
    }
}

/// Where the HTTP door is served.
fn door_listen(args: &ServeArgs) -> anyhow::Result<Option<SocketAddr>> {
    let address: SocketAddr = match args.door_listen.as_str() {
        "off" => return Ok(None),
        address => address
            .parse()
            .with_context(|| format!("--door-listen {address:?} must be an address like 127.0.0.1:50153, or off"))?,
    };
    if !address.ip().is_loopback() && !args.allow_plaintext {
        bail!(
            "--door-listen {address} can be reached from other machines, and session ids would cross the network in clear text: listen \
             on loopback, or say --allow-plaintext if something else encrypts"
        );
    }
    Ok(Some(address))
}

/// Whether people who should not know the key can read its file, or change it. A group that reads it is usual (Kubernetes'
/// fsGroup).
fn loose_key(flag: &str, path: &Path) -> Option<String> {
    const LOOSE: u32 = 0o027;
    let mode = fs::metadata(path).ok()?.permissions().mode();
    (mode & LOOSE != 0).then(|| {
        format!(
            "{flag} {0} is open to others (mode {1:04o}), who could make refs and resume tokens with it: chmod 600 {0}",
            path.display(),
            mode & 0o7777
        )
    })
}

fn at_least_one(flag: &str, value: usize) -> anyhow::Result<usize> {
    // tokio's semaphores count up to this.
    const MOST: usize = usize::MAX >> 3;
    if !(1..=MOST).contains(&value) {
        bail!("{flag} {value} must be at least 1");
    }
    Ok(value)
}

/// Reads a file with a key.
pub fn read_key(flag: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let key = files::read(path).with_context(|| format!("{flag} {shown} cannot be read"))?;
    if key.len() < 32 {
        bail!(
            "{flag} {shown} holds {} bytes; at least 32 random ones are needed (head -c 32 /dev/urandom > {shown})",
            key.len()
        );
    }
    Ok(key)
}
