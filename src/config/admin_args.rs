//! Flags of the admin commands.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::verb_args::{ActorArg, ClientArgs, ReasonArg};

/// What all admin commands take.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    /// Common ones.
    #[command(flatten)]
    pub client: ClientArgs,

    /// Who asks, for the audit log.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "")]
    pub actor_id: String,
}

/// Which sessions of the tenant.
#[derive(Debug, Clone, Args)]
pub struct FilterArgs {
    /// Only those of a subject.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "")]
    pub subject: String,

    /// Only those in a state, repeatable. Default: live ones.
    #[arg(long = "state", value_name = "STATE")]
    pub states: Vec<StateArg>,

    /// Only those with a label, repeatable.
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<String>,

    /// Only those under a policy.
    #[arg(long, value_name = "NAME", default_value = "")]
    pub policy: String,
}

/// A state that a session can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateArg {
    /// Live, and no warning stands.
    Active,
    /// Live, and a warning stands.
    Expiring,
    /// Ended and remembered.
    Ended,
}

/// Arguments of `list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Common ones.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// How many to print at most.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = at_least_one)]
    pub limit: usize,

    /// Go on where the last list stopped.
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true, default_value = "")]
    pub page_token: String,
}

/// Arguments of `end-sessions`.
#[derive(Debug, Args)]
pub struct EndSessionsArgs {
    /// Common ones.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Which.
    #[command(flatten)]
    pub filter: FilterArgs,

    /// All of the tenant: needed if nothing else says which.
    #[arg(long)]
    pub whole_tenant: bool,

    /// But not this one, by its ref, repeatable.
    #[arg(long = "except-ref", value_name = "REF", allow_hyphen_values = true)]
    pub except_refs: Vec<String>,

    /// But not those whose ids are in a file, one a line; `-` is standard input.
    #[arg(long, value_name = "FILE")]
    pub except_id_file: Option<PathBuf>,

    /// Only count them.
    #[arg(long)]
    pub dry_run: bool,

    /// Why.
    #[arg(long, value_name = "REASON", default_value = "revoked")]
    pub reason: ReasonArg,

    /// Who; default: admin.
    #[arg(long, value_name = "ACTOR")]
    pub actor: Option<ActorArg>,

    /// For later readers.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "")]
    pub note: String,
}

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Common ones.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// The session whose id is in a file; `-` is standard input. The default, if nothing else says which.
    #[arg(long, value_name = "FILE", group = "which")]
    pub id_file: Option<PathBuf>,

    /// The session of this ref.
    #[arg(long = "ref", value_name = "REF", allow_hyphen_values = true, group = "which")]
    pub session_ref: Option<String>,

    /// The sessions of a person.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, group = "which")]
    pub subject: Option<String>,

    /// With --subject: those that were live at or after this time, like 2026-11-23T16:00:00Z.
    #[arg(long, value_name = "TIME", requires = "subject")]
    pub from: Option<humantime::Timestamp>,

    /// With --subject: those that had begun by this time.
    #[arg(long, value_name = "TIME", requires = "subject")]
    pub to: Option<humantime::Timestamp>,

    /// Ask an audit log rather than a sidecar; `-` is standard input. Knows what the log says, with --ref or --subject.
    #[arg(long, value_name = "FILE", conflicts_with = "id_file")]
    pub from_log: Option<PathBuf>,

    /// With --from-log and --subject: the key of the sidecar that hashed the subjects.
    #[arg(long, env = "SESSION_SIDECAR_KEY_FILE", value_name = "FILE", requires = "from_log")]
    pub key_file: Option<PathBuf>,
}

/// Arguments of `policies`.
#[derive(Debug, Args)]
pub struct PoliciesArgs {
    /// Common ones.
    #[command(flatten)]
    pub admin: AdminArgs,

    /// Print all keys of each as TOML.
    #[arg(long)]
    pub toml: bool,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        parsed => parsed.map_err(|error: std::num::ParseIntError| error.to_string()),
    }
}
