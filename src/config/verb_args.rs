//! Flags of the commands that are one call of the API each.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Which sidecar to ask.
#[derive(Debug, Clone, Args)]
pub struct TargetArgs {
    /// The sidecar: ADDRESS:PORT or http://ADDRESS:PORT, https://NAME:PORT or unix:/PATH.
    #[arg(
        long,
        env = "SESSION_SIDECAR_TARGET",
        value_name = "URL",
        default_value = "http://127.0.0.1:50151"
    )]
    pub target: String,

    /// With https: certificates, in PEM, of authorities to trust beside the system's.
    #[arg(long, env = "SESSION_SIDECAR_TLS_CA_FILE", value_name = "PATH")]
    pub tls_ca_file: Option<PathBuf>,

    /// With https: the certificate, in PEM, to show.
    #[arg(
        long,
        env = "SESSION_SIDECAR_TLS_CERT_FILE",
        value_name = "PATH",
        requires = "tls_key_file"
    )]
    pub tls_cert_file: Option<PathBuf>,

    /// The private key of that certificate.
    #[arg(
        long,
        env = "SESSION_SIDECAR_TLS_KEY_FILE",
        value_name = "PATH",
        requires = "tls_cert_file"
    )]
    pub tls_key_file: Option<PathBuf>,

    /// The file of the bearer token to show; of two lines the first.
    #[arg(long, env = "SESSION_SIDECAR_TOKEN_FILE", value_name = "PATH")]
    pub token_file: Option<PathBuf>,
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

/// Where a request id is read from: ids are made from it, so it is as secret as they are.
#[derive(Debug, Clone, Args)]
pub struct RequestArgs {
    /// A file with a request id, which makes a retry safe; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub request_id_file: Option<PathBuf>,
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

    /// How strong that authentication was, such as aal2.
    #[arg(long, value_name = "WORD", allow_hyphen_values = true, default_value = "")]
    pub authentication_level: String,

    /// How long ago the last activity was.
    #[arg(long, value_name = "DURATION")]
    pub idle_for: Option<humantime::Duration>,

    /// The request id.
    #[command(flatten)]
    pub request: RequestArgs,
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

    /// What is known of the request behind it.
    #[command(flatten)]
    pub hints: HintArgs,
}

/// What is known of the request behind a touch: the policy's rules decide by it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Hints")]
pub struct HintArgs {
    /// The host that was asked, without port.
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,

    /// The HTTP method.
    #[arg(long, value_name = "METHOD")]
    pub method: Option<String>,

    /// The path.
    #[arg(long, value_name = "PATH")]
    pub path: Option<String>,

    /// The header Sec-Fetch-User.
    #[arg(long, value_name = "VALUE")]
    pub sec_fetch_user: Option<String>,

    /// The header Sec-Fetch-Mode.
    #[arg(long, value_name = "VALUE")]
    pub sec_fetch_mode: Option<String>,

    /// The header Sec-Fetch-Dest.
    #[arg(long, value_name = "VALUE")]
    pub sec_fetch_dest: Option<String>,

    /// The header Sec-Purpose.
    #[arg(long, value_name = "VALUE")]
    pub sec_purpose: Option<String>,

    /// Whether the page can be seen.
    #[arg(long, value_name = "VISIBILITY")]
    pub visibility: Option<VisibilityArg>,

    /// It is the page's own report of a person's input.
    #[arg(long)]
    pub input_report: bool,
}

/// Whether a page can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum VisibilityArg {
    /// It can.
    Visible,
    /// It is in the background.
    Hidden,
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

    /// The request id.
    #[command(flatten)]
    pub request: RequestArgs,
}

/// Which hold of which session.
#[derive(Debug, Args)]
pub struct HoldNameArgs {
    /// Common ones.
    #[command(flatten)]
    pub client: ClientArgs,

    /// The id.
    #[command(flatten)]
    pub id: IdArgs,

    /// The owner's own id of the hold, unique within the session. It is no secret.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    pub hold_id: String,
}

/// Arguments of `hold`.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// Which hold.
    #[command(flatten)]
    pub name: HoldNameArgs,

    /// What it is for.
    #[arg(long, value_name = "KIND", default_value = "work")]
    pub kind: HoldKindArg,

    /// How long from now it should live, unless it is renewed: call again well before.
    #[arg(long, value_name = "DURATION")]
    pub ttl: humantime::Duration,

    /// Why, for support staff.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "")]
    pub purpose: String,
}

/// What a hold is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HoldKindArg {
    /// Long work without requests.
    Work,
    /// An open page.
    Presence,
}

/// Arguments of `release`.
#[derive(Debug, Args)]
pub struct ReleaseArgs {
    /// Which hold.
    #[command(flatten)]
    pub name: HoldNameArgs,
}

/// Arguments of `rotate`.
#[derive(Debug, Args)]
pub struct RotateArgs {
    /// Common ones.
    #[command(flatten)]
    pub client: ClientArgs,

    /// The id.
    #[command(flatten)]
    pub id: IdArgs,

    /// A file with the new id; `-` is standard input. Without it the sidecar makes one.
    #[arg(long, value_name = "FILE")]
    pub new_id_file: Option<PathBuf>,

    /// Whose session it is from now on. Default: as before.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub subject: Option<String>,

    /// The person authenticated, so long ago: both deadlines begin anew.
    #[arg(long, value_name = "DURATION")]
    pub authenticated_ago: Option<humantime::Duration>,

    /// How strong that authentication was, such as aal2.
    #[arg(
        long,
        value_name = "WORD",
        allow_hyphen_values = true,
        default_value = "",
        requires = "authenticated_ago"
    )]
    pub authentication_level: String,

    /// The request id.
    #[command(flatten)]
    pub request: RequestArgs,
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

    /// The request id.
    #[command(flatten)]
    pub request: RequestArgs,
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
