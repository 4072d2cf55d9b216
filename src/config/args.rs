//! Flags and environment variables.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::Listen;

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
    /// End a session; its id is read from standard input or --id-file.
    End(EndArgs),
    /// Print warnings and ends as they come, until interrupted.
    Watch(WatchArgs),
    /// Move the clock of a `serve --dev`.
    Advance(AdvanceArgs),
    /// Prove a policy file: hold it against standards, document it, show what is in force.
    Policy(PolicyArgs),
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
    /// (use, issue, end, watch-own, watch-all; default: all of these).
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

    /// Allow a routable --listen address although it is served in clear text.
    #[arg(long, env = "SESSION_SIDECAR_ALLOW_PLAINTEXT")]
    pub allow_plaintext: bool,

    /// Policies, a TOML file. Without one there is one policy, `default`.
    #[arg(long, env = "SESSION_SIDECAR_POLICY_FILE", value_name = "FILE")]
    pub policy_file: Option<PathBuf>,

    /// A file of at least 32 random bytes, from which refs, made ids and resume tokens are derived. Without one the key is
    /// drawn at start, so that refs change with every start.
    #[arg(long, env = "SESSION_SIDECAR_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,

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

    /// How many connections may be open; further ones wait.
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

    /// How many events may wait for one watcher before it is cut off.
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

/// Which sidecar to ask.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// The sidecar: http://ADDRESS:PORT or unix:/PATH.
    #[arg(
        long,
        env = "SESSION_SIDECAR_TARGET",
        value_name = "URL",
        default_value = "http://127.0.0.1:50151"
    )]
    pub target: String,
}

/// What all client commands take.
#[derive(Debug, Clone, Args)]
pub struct ClientArgs {
    /// Which sidecar.
    #[command(flatten)]
    pub target: TargetArgs,

    /// The tenant.
    #[arg(long, env = "SESSION_SIDECAR_TENANT", value_name = "NAME", default_value = "")]
    pub tenant: String,

    /// Print the answer as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Where a session id is read from: never the command line, which other users of the machine can see.
#[derive(Debug, Clone, Args)]
pub struct IdArgs {
    /// A file with the session's id; `-` is standard input.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub id_file: PathBuf,
}

/// Arguments of `create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Common ones.
    #[command(flatten)]
    pub client: ClientArgs,

    /// A file with the id to use; `-` is standard input. Without it the sidecar makes one.
    #[arg(long, value_name = "FILE")]
    pub id_file: Option<PathBuf>,

    /// Whose session it is.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "")]
    pub subject: String,

    /// The policy.
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub policy: String,

    /// A label, repeatable.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,

    /// A stricter idle timeout.
    #[arg(long, value_name = "DURATION")]
    pub idle_timeout: Option<humantime::Duration>,

    /// A stricter absolute timeout.
    #[arg(long, value_name = "DURATION")]
    pub absolute_timeout: Option<humantime::Duration>,

    /// How long ago the person authenticated.
    #[arg(long, value_name = "DURATION")]
    pub authenticated_ago: Option<humantime::Duration>,

    /// How long ago the last activity was.
    #[arg(long, value_name = "DURATION")]
    pub idle_for: Option<humantime::Duration>,

    /// Makes a retry safe.
    #[arg(long, value_name = "ID", allow_hyphen_values = true, default_value = "")]
    pub request_id: String,
}

/// Arguments of `touch`.
#[derive(Debug, Args)]
pub struct TouchArgs {
    /// Common ones.
    #[command(flatten)]
    pub client: ClientArgs,

    /// The id.
    #[command(flatten)]
    pub id: IdArgs,

    /// The kind of activity.
    #[arg(long, value_name = "KIND", default_value = "unspecified")]
    pub activity: ActivityArg,

    /// How long ago it happened.
    #[arg(long, value_name = "DURATION")]
    pub idle_for: Option<humantime::Duration>,
}

/// A kind of activity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActivityArg {
    /// Not said.
    Unspecified,
    /// A person's.
    User,
    /// Background.
    Background,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Common ones.
    #[command(flatten)]
    pub client: ClientArgs,

    /// The id.
    #[command(flatten)]
    pub id: IdArgs,

    /// Ask by ref in place of the id.
    #[arg(
        long = "ref",
        value_name = "REF",
        allow_hyphen_values = true,
        conflicts_with = "id_file"
    )]
    pub session_ref: Option<String>,
}

/// Arguments of `extend`.
#[derive(Debug, Args)]
pub struct ExtendArgs {
    /// Common ones.
    #[command(flatten)]
    pub client: ClientArgs,

    /// The id.
    #[command(flatten)]
    pub id: IdArgs,

    /// How long from now it should live; default: one idle timeout.
    #[arg(long, value_name = "DURATION")]
    pub wanted: Option<humantime::Duration>,

    /// Makes a retry safe.
    #[arg(long, value_name = "ID", allow_hyphen_values = true, default_value = "")]
    pub request_id: String,
}

/// Arguments of `end`.
#[derive(Debug, Args)]
pub struct EndArgs {
    /// Common ones.
    #[command(flatten)]
    pub client: ClientArgs,

    /// The id.
    #[command(flatten)]
    pub id: IdArgs,

    /// Why.
    #[arg(long, value_name = "REASON", default_value = "logout")]
    pub reason: ReasonArg,

    /// Who; default: user for logout, admin for revoked.
    #[arg(long, value_name = "ACTOR")]
    pub actor: Option<ActorArg>,

    /// Which user or program exactly.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "")]
    pub actor_id: String,

    /// For later readers.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "")]
    pub note: String,
}

/// A reason to end a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReasonArg {
    /// The person logged out.
    Logout,
    /// Somebody or something ended it.
    Revoked,
}

/// Who ends a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ActorArg {
    /// The person.
    User,
    /// Another person.
    Admin,
    /// A policy.
    Policy,
    /// A program.
    System,
}

/// Arguments of `watch`.
#[derive(Debug, Args)]
pub struct WatchArgs {
    /// Common ones.
    #[command(flatten)]
    pub client: ClientArgs,

    /// Watch the sessions whose ids are in a file, one a line; `-` is standard input.
    #[arg(long, value_name = "FILE", group = "scope")]
    pub id_file: Option<PathBuf>,

    /// Watch a session by its ref, repeatable.
    #[arg(long = "ref", value_name = "REF", allow_hyphen_values = true, group = "scope")]
    pub refs: Vec<String>,

    /// Watch all sessions of a subject.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, group = "scope")]
    pub subject: Option<String>,

    /// Watch all sessions of --tenant. Without any scope: all sessions of all tenants of this caller.
    #[arg(long, group = "scope")]
    pub whole_tenant: bool,

    /// Begin with the state of the sessions.
    #[arg(long)]
    pub initial_state: bool,

    /// Go on after the message that carried this token.
    #[arg(long, value_name = "TOKEN", default_value = "", conflicts_with = "initial_state")]
    pub resume_token: String,

    /// How often to hear that the stream is alive, from 1s to 5m.
    #[arg(long, value_name = "DURATION")]
    pub heartbeat: Option<humantime::Duration>,

    /// Print heartbeats too.
    #[arg(long)]
    pub show_heartbeats: bool,
}

/// Arguments of `advance`.
#[derive(Debug, Args)]
pub struct AdvanceArgs {
    /// Which sidecar.
    #[command(flatten)]
    pub target: TargetArgs,

    /// How far, up to 365 days.
    #[arg(value_name = "DURATION")]
    pub duration: humantime::Duration,
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
    Document(PolicyFileArgs),
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

/// Arguments of `policy lint`.
#[derive(Debug, Args)]
pub struct PolicyLintArgs {
    /// The file.
    #[command(flatten)]
    pub file: PolicyFileArgs,

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
