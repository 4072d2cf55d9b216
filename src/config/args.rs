//! Flags and environment variables.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{
    Listen,
    admin_args::{AdminArgs, EndSessionsArgs, ExplainArgs, ListArgs, PoliciesArgs},
    verb_args::{
        AdvanceArgs, CheckArgs, CreateArgs, EndArgs, ExtendArgs, HoldArgs, ReleaseArgs, RotateArgs, TargetArgs,
        TouchArgs, WatchArgs,
    },
};
use crate::{
    audit::{SubjectForm, Target},
    store::shared::{FORMATS, Outage},
};

/// Judges session timeouts exactly, warns before the end, and says why a session ended.
#[derive(Debug, Parser)]
#[command(name = "session-sidecar", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the sidecar.
    Serve(Box<ServeArgs>),
    /// Check the arguments and files of `serve`, without running it. Exit code 0 or 64.
    CheckConfig(Box<ServeArgs>),
    /// Ask a sidecar whether it serves (grpc.health.v1). Exit code 0 or 1.
    Healthcheck(TargetArgs),
    /// Start a session; its id is read with --id-file, or made and printed.
    Create(CreateArgs),
    /// Report activity of a session; its id is read from standard input or --id-file.
    Touch(TouchArgs),
    /// Ask for the state of a session, by its id (standard input or --id-file) or by --ref.
    Check(CheckArgs),
    /// Extend a session, as if the person had pressed "stay"; its id is read from standard input or --id-file.
    Extend(ExtendArgs),
    /// Begin or renew a hold of a session; its id is read from standard input or --id-file.
    Hold(HoldArgs),
    /// End a hold of a session; its id is read from standard input or --id-file.
    Release(ReleaseArgs),
    /// Give a session a new id, which is read with --new-id-file, or made and printed; the id that it has is read from standard
    /// input or --id-file.
    Rotate(RotateArgs),
    /// End a session; its id is read from standard input or --id-file.
    End(EndArgs),
    /// Print warnings and ends as they come, until interrupted.
    Watch(WatchArgs),
    /// List sessions (needs a listener with verbs=admin).
    List(ListArgs),
    /// End all live sessions that match (needs a listener with verbs=admin).
    EndSessions(EndSessionsArgs),
    /// Say why a session ended, or what keeps it alive (needs a listener with verbs=admin, or an audit log: --from-log).
    Explain(Box<ExplainArgs>),
    /// List the policies in force (needs a listener with verbs=admin).
    Policies(PoliciesArgs),
    /// Count a tenant's sessions (needs a listener with verbs=admin).
    Stats(AdminArgs),
    /// Move the clock of a `serve --dev`.
    Advance(AdvanceArgs),
    /// Prove a policy file: hold it against standards, document it, show what is in force.
    Policy(PolicyArgs),
    /// Look at the store that sidecars share: whether it is fit for it, and what is in it.
    Store(StoreCommandArgs),
    /// Print the table of all options as Markdown.
    #[command(hide = true)]
    Options,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// Arguments of `serve` and `check-config`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Where to serve the API: tcp://ADDRESS:PORT or unix:///PATH?mode=0660, repeatable (the variable: separated by spaces).
    /// Query options: `tenants=a,b` that its callers may name (default: the empty tenant only) and `verbs=` that they may use
    /// (use, issue, end, watch-own, watch-all, admin; default: all of these but admin); of a socket also `group=GID` that its file
    /// is given to, and `uids=` and `gids=` of the processes that may connect (default: all that its mode lets); of an address
    /// `tls-cert-file=` and `tls-key-file=`, PEM, and `client-ca-file=` of the authority of which each client must have a certificate.
    /// `token-file=` holds a bearer token that each call must show, or two while it is changed. `authority=strict` refuses requests
    /// with an invalid `:authority`, which is replaced otherwise (`repair`) on connections that begin with one. Files are followed.
    #[arg(
        long,
        env = "SESSION_SIDECAR_LISTEN",
        value_name = "URL",
        value_delimiter = ' ',
        default_value = "tcp://127.0.0.1:50151"
    )]
    pub listen: Vec<Listen>,

    /// Where to serve /metrics, /livez and /readyz over HTTP, or `off`.
    #[arg(
        long,
        env = "SESSION_SIDECAR_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:50152"
    )]
    pub admin_listen: String,

    /// Where the HTTP door for browsers and proxies is served, or `off`: behind the site's gateway, at the site's own origin. What it
    /// is told is in the table `[door]` of the policy file.
    #[arg(
        long,
        env = "SESSION_SIDECAR_DOOR_LISTEN",
        value_name = "ADDRESS",
        default_value = "off"
    )]
    pub door_listen: String,

    /// Allow a routable --listen address although it is served in clear text, or to anybody: where a mesh encrypts and decides who
    /// may call.
    #[arg(long, env = "SESSION_SIDECAR_ALLOW_PLAINTEXT")]
    pub allow_plaintext: bool,

    /// Policies, a TOML file. Without one there is one policy, `default`.
    #[arg(long, env = "SESSION_SIDECAR_POLICY_FILE", value_name = "FILE")]
    pub policy_file: Option<PathBuf>,

    /// A file of at least 32 random bytes, from which refs, made ids and resume tokens are derived. Without one the key is
    /// drawn at start, so that refs change with every start.
    #[arg(long, env = "SESSION_SIDECAR_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// The store.
    #[command(flatten)]
    pub shared: StoreArgs,

    /// How long one write of activity is good for: `auto` (a hundredth of the idle timeout, 250 ms to 10 s), or a duration up to
    /// 10 s. Sessions end so much later at most, never earlier; `0s` writes every activity.
    #[arg(
        long,
        env = "SESSION_SIDECAR_STORE_WINDOW",
        value_name = "DURATION",
        default_value = "auto"
    )]
    pub store_window: String,

    /// The format in which the shared store is written, 1 or 2; each version reads two. Keep the older one until all sidecars of
    /// the namespace read the newer: a sidecar that writes it keeps older versions out. From 2 on requests of a session with an open
    /// page (PRESENCE) cost no more than those of others.
    #[arg(
        long,
        env = "SESSION_SIDECAR_STORE_FORMAT",
        value_name = "FORMAT",
        default_value_t = *FORMATS.start(),
        value_parser = clap::value_parser!(u32).range(i64::from(*FORMATS.start())..=i64::from(*FORMATS.end()))
    )]
    pub store_format: u32,

    /// What is served while the shared store is away.
    #[arg(
        long,
        env = "SESSION_SIDECAR_STORE_OUTAGE",
        value_name = "MODE",
        default_value = "degraded"
    )]
    pub store_outage: StoreOutage,

    /// How many sessions may be live; at the cap Create is refused.
    #[arg(
        long,
        env = "SESSION_SIDECAR_MAX_SESSIONS",
        value_name = "N",
        default_value_t = 1_000_000
    )]
    pub max_sessions: usize,

    /// How many ended sessions are remembered; at the cap the oldest is forgotten before its time.
    #[arg(
        long,
        env = "SESSION_SIDECAR_MAX_TOMBSTONES",
        value_name = "N",
        default_value_t = 1_000_000
    )]
    pub max_tombstones: usize,

    /// How many watches may be open.
    #[arg(
        long,
        env = "SESSION_SIDECAR_MAX_WATCHERS",
        value_name = "N",
        default_value_t = 10_000
    )]
    pub max_watchers: usize,

    /// Where to write the audit log, one line of JSON for each session that is created, rotated, extended or ended and for each
    /// admin call: a file (appended to, reopened at SIGHUP), stdout, stderr or off.
    #[arg(
        long,
        env = "SESSION_SIDECAR_AUDIT_LOG",
        value_name = "TARGET",
        default_value = "off"
    )]
    pub audit_log: Target,

    /// How subjects are written into the audit log. Hashes are made with the key of --key-file.
    #[arg(
        long,
        env = "SESSION_SIDECAR_AUDIT_SUBJECT",
        value_name = "FORM",
        default_value = "hash"
    )]
    pub audit_subject: AuditSubject,

    /// How many connections may be open at each listener of the API, and at the door; further ones wait.
    #[arg(
        long,
        env = "SESSION_SIDECAR_MAX_CONNECTIONS",
        value_name = "N",
        default_value_t = 10_000
    )]
    pub max_connections: usize,

    /// How many events are kept for watchers that resume.
    #[arg(
        long,
        env = "SESSION_SIDECAR_REPLAY_EVENTS",
        value_name = "N",
        default_value_t = 262_144
    )]
    pub replay_events: usize,

    /// How many events may wait for one watcher. With more it reads them from the log, and is cut off if it takes none for a second.
    #[arg(long, env = "SESSION_SIDECAR_WATCH_QUEUE", value_name = "N", default_value_t = 8_192)]
    pub watch_queue: usize,

    /// How long a shutdown may take before calls that are under way are dropped.
    #[arg(
        long,
        env = "SESSION_SIDECAR_DRAIN_TIMEOUT",
        value_name = "DURATION",
        default_value = "10s"
    )]
    pub drain_timeout: humantime::Duration,

    /// How many threads serve calls. Default: one for each processor.
    #[arg(long, env = "SESSION_SIDECAR_WORKERS", value_name = "N")]
    pub workers: Option<std::num::NonZeroUsize>,

    /// How to write the log. Default: json, and human with --dev.
    #[arg(long, env = "SESSION_SIDECAR_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,

    /// What to log: a level (error, warn, info, debug, trace) or tracing directives.
    #[arg(long, env = "SESSION_SIDECAR_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// For development: human logs, a short demo policy unless --policy-file is given, and a test clock (the `advance` command,
    /// sessionsidecar.dev.v1.TestClockService). Only this flag can switch it on, no variable.
    #[arg(long)]
    pub dev: bool,
}

/// Where sessions are kept, and how to get in: arguments of `serve`, `store check` and `store inspect`.
#[derive(Debug, Args)]
pub struct StoreArgs {
    /// Where sessions are kept: `memory` of this process, or a store that sidecars share: redis://USER@HOST:PORT/DB,
    /// redis+sentinel://HOST:PORT,HOST:PORT/NAME or redis+cluster://HOST:PORT,HOST:PORT; rediss (with an s) for TLS. Redis 7.0 or
    /// Valkey 7.2, or newer.
    #[arg(long, env = "SESSION_SIDECAR_STORE", value_name = "STORE", default_value = "memory")]
    pub store: String,

    /// A file with the password of the store's user.
    #[arg(long, env = "SESSION_SIDECAR_STORE_PASSWORD_FILE", value_name = "FILE")]
    pub store_password_file: Option<PathBuf>,

    /// A file with the password of the sentinels, if they have one.
    #[arg(long, env = "SESSION_SIDECAR_STORE_SENTINEL_PASSWORD_FILE", value_name = "FILE")]
    pub store_sentinel_password_file: Option<PathBuf>,

    /// A file with the certificates of the authority that signed the store's, PEM. Default: those that the system trusts.
    #[arg(long, env = "SESSION_SIDECAR_STORE_CA_FILE", value_name = "FILE")]
    pub store_ca_file: Option<PathBuf>,

    /// A file of at least 32 random bytes that all sidecars of the namespace have in common; required for a shared store. It takes
    /// the place of --key-file.
    #[arg(long, env = "SESSION_SIDECAR_STORE_KEY_FILE", value_name = "FILE")]
    pub store_key_file: Option<PathBuf>,

    /// Another key file that is accepted, while the key is changed: sessions that began under it go on, and none begins under it.
    /// Give the new key so to all sidecars first; then exchange the two; then, when the sessions of the old one are over, leave it
    /// out.
    #[arg(long, env = "SESSION_SIDECAR_STORE_OTHER_KEY_FILE", value_name = "FILE")]
    pub store_other_key_file: Option<PathBuf>,

    /// Sidecars that share a store and a namespace share sessions. 1 to 64 letters, digits, `-`, `_` or `.`.
    #[arg(
        long,
        env = "SESSION_SIDECAR_STORE_NAMESPACE",
        value_name = "NAME",
        default_value = "main"
    )]
    pub store_namespace: String,
}

/// What is served while the shared store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StoreOutage {
    /// Sessions that were known to live, for 60 s at most. Commands other than Touch answer UNAVAILABLE.
    Degraded,
    /// Nothing: every call answers UNAVAILABLE.
    FailClosed,
    /// Sessions that were known to live, until their time is over.
    FailOpen,
}

impl From<StoreOutage> for Outage {
    fn from(mode: StoreOutage) -> Self {
        match mode {
            StoreOutage::Degraded => Self::Degraded,
            StoreOutage::FailClosed => Self::FailClosed,
            StoreOutage::FailOpen => Self::FailOpen,
        }
    }
}

/// Arguments of `store`.
#[derive(Debug, Args)]
pub struct StoreCommandArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: StoreCommand,
}

/// What can be done with a shared store without a sidecar.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Say whether a store is fit to be shared, with advice: its version and settings, what its user may do, its clock, and every
    /// script run once in a namespace of its own. Exit code 0 if it is, 1 if it is not, 64 if the arguments are bad.
    Check(StoreArgs),
    /// Say what is in a namespace, by reading only: its buckets, sidecars and policies, or one session. Exit code 0, 1 or 64.
    Inspect(InspectArgs),
}

/// Arguments of `store inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The store.
    #[command(flatten)]
    pub store: StoreArgs,

    /// One session, by its ref.
    #[arg(long, value_name = "REF", allow_hyphen_values = true)]
    pub session: Option<String>,

    /// Also print whose session it is.
    #[arg(long, requires = "session")]
    pub show_subject: bool,
}

/// How a subject is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AuditSubject {
    /// As it is.
    Plain,
    /// As a keyed hash.
    Hash,
    /// Not at all.
    None,
}

impl From<AuditSubject> for SubjectForm {
    fn from(form: AuditSubject) -> Self {
        match form {
            AuditSubject::Plain => Self::Plain,
            AuditSubject::Hash => Self::Hash,
            AuditSubject::None => Self::None,
        }
    }
}

/// Arguments of `policy`.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    /// What to do with the policies.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// What can be done with policies without a sidecar.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Name each departure from NIST SP 800-63B-4, PCI DSS 8.2.8, OWASP ASVS 5.0 V7 and WCAG 2.2.1, and the worst case. Exit code 0
    /// if there is none, 1 if there are, 64 if the file is bad.
    Lint(PolicyLintArgs),
    /// Print the page that OWASP ASVS 5.0 V7.1.1 and V7.1.2 ask for, as Markdown. Exit code 0 or 64.
    Document(PolicyDocumentArgs),
    /// Print the policies as they are in force: every key, as a policy file. Exit code 0 or 64.
    Show(PolicyFileArgs),
    /// Print what the presets are, as a policy file.
    Presets,
}

/// Which policies.
#[derive(Debug, Args)]
pub struct PolicyFileArgs {
    /// Policies, a TOML file; `-` is standard input. Without one it is the policy that a new user meets.
    #[arg(long, env = "SESSION_SIDECAR_POLICY_FILE", value_name = "FILE")]
    pub policy_file: Option<PathBuf>,
}

/// Where sessions will be.
#[derive(Debug, Clone, Copy, Args)]
pub struct PolicyKeptArgs {
    /// The worst case where sidecars share a store (`serve --store redis://…`), instead of where each keeps its own sessions.
    #[arg(long)]
    pub shared_store: bool,
}

/// Arguments of `policy document`.
#[derive(Debug, Args)]
pub struct PolicyDocumentArgs {
    /// The file.
    #[command(flatten)]
    pub file: PolicyFileArgs,

    /// Where sessions will be.
    #[command(flatten)]
    pub kept: PolicyKeptArgs,
}

/// Arguments of `policy lint`.
#[derive(Debug, Args)]
pub struct PolicyLintArgs {
    /// The file.
    #[command(flatten)]
    pub file: PolicyFileArgs,

    /// Where sessions will be.
    #[command(flatten)]
    pub kept: PolicyKeptArgs,

    /// Only these standards, repeatable or separated by commas. Default: all.
    #[arg(long, value_name = "STANDARD", value_delimiter = ',')]
    pub standard: Vec<StandardArg>,

    /// Print the findings and the worst case as JSON.
    #[arg(long)]
    pub json: bool,
}

/// A standard to hold policies against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StandardArg {
    /// NIST SP 800-63B-4 §2.1.3.
    NistAal1,
    /// NIST SP 800-63B-4 §2.2.3.
    NistAal2,
    /// NIST SP 800-63B-4 §2.3.3.
    NistAal3,
    /// PCI DSS 4.0.1, requirement 8.2.8.
    #[value(name = "pci-dss-8.2.8", alias = "pci-dss")]
    PciDss,
    /// OWASP ASVS 5.0, chapter V7.
    OwaspAsvs,
    /// WCAG 2.2, success criterion 2.2.1.
    Wcag,
}
