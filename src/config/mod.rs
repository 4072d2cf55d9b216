//! The only room that names a flag, an environment variable or a key of a file.

mod args;
mod listen;
mod options;
mod policy;

use std::{collections::BTreeMap, fs, net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};

pub use args::{
    ActivityArg, ActorArg, AdvanceArgs, CheckArgs, Cli, ClientArgs, Command, CreateArgs, EndArgs, ExtendArgs, IdArgs,
    LogFormat, PolicyArgs, PolicyCommand, PolicyFileArgs, PolicyLintArgs, ReasonArg, ServeArgs, StandardArg,
    TargetArgs, TouchArgs, WatchArgs,
};
pub use listen::{Endpoint, Listen};
pub use options::options_markdown;
pub use policy::{parse as parse_policies, read as read_policies};

use crate::state::Policy;

/// What `serve` does, resolved and checked.
#[derive(Debug)]
pub struct Config {
    /// Where the API is served.
    pub listen: Vec<Listen>,
    /// Where metrics and probes are served.
    pub admin_listen: Option<SocketAddr>,
    /// The policies by name.
    pub policies: BTreeMap<String, Policy>,
    /// Where they were read, to be followed.
    pub policy_file: Option<PathBuf>,
    /// The key of refs, ids and tokens; drawn at random if unset.
    pub master_key: Option<Vec<u8>>,
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
    /// Whether this is `serve --dev`.
    pub dev: bool,
}

impl Config {
    /// Resolves and checks the arguments of `serve`.
    pub fn resolve(args: &ServeArgs) -> anyhow::Result<Self> {
        let listen = args.listen.clone();
        for place in &listen {
            let Endpoint::Tcp(address) = place.endpoint else {
                continue;
            };
            if address.ip().is_loopback() {
                continue;
            }
            if args.dev {
                bail!("--dev serves a test clock: it listens on loopback or a Unix socket only, not on {address}");
            }
            if !args.allow_plaintext {
                bail!(
                    "--listen {address} can be reached from other machines, and session ids would cross the network in \
                     clear text: listen on loopback or a Unix socket, or say --allow-plaintext if something else encrypts"
                );
            }
        }
        let admin_listen = match args.admin_listen.as_str() {
            "off" => None,
            address => Some(address.parse().with_context(|| {
                format!("--admin-listen {address:?} must be an address like 127.0.0.1:50152, or off")
            })?),
        };
        let policies = match &args.policy_file {
            Some(path) => policy::read(path)?,
            None if args.dev => policy::demo()?,
            None => policy::parse("")?,
        };
        Ok(Self {
            listen,
            admin_listen,
            policies,
            policy_file: args.policy_file.clone(),
            master_key: args.key_file.as_ref().map(read_key).transpose()?,
            max_sessions: at_least_one("--max-sessions", args.max_sessions)?,
            max_tombstones: at_least_one("--max-tombstones", args.max_tombstones)?,
            max_watchers: at_least_one("--max-watchers", args.max_watchers)?,
            max_connections: at_least_one("--max-connections", args.max_connections)?,
            replay_events: at_least_one("--replay-events", args.replay_events)?,
            watch_queue: at_least_one("--watch-queue", args.watch_queue)?,
            drain_timeout: args.drain_timeout.into(),
            dev: args.dev,
        })
    }
}

fn at_least_one(flag: &str, value: usize) -> anyhow::Result<usize> {
    // tokio's semaphores count up to this.
    const MOST: usize = usize::MAX >> 3;
    if !(1..=MOST).contains(&value) {
        bail!("{flag} {value} must be at least 1");
    }
    Ok(value)
}

fn read_key(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    let shown = path.display();
    let key = fs::read(path).with_context(|| format!("--key-file {shown} cannot be read"))?;
    if key.len() < 32 {
        bail!(
            "--key-file {shown} holds {} bytes; at least 32 random ones are needed (head -c 32 /dev/urandom > {shown})",
            key.len()
        );
    }
    Ok(key)
}
