//! What can go wrong with a call, and what start-up refuses.

use redis::{RedisError, Value};

/// No error message of a server is told at more length: it may repeat what it was sent.
const MOST_CHARS: usize = 200;

/// Why a call has no answer.
///
/// After [`Fault::Timeout`] and after a connection was lost ([`Fault::Transient`]) nobody knows whether the server has done it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// There is no connection to the server that is responsible.
    #[error("the store is not reachable")]
    Down,
    /// The server did not answer in time.
    #[error("the store did not answer in time")]
    Timeout,
    /// Not now, but perhaps soon.
    #[error("the store cannot answer now: {0}")]
    Transient(String),
    /// The server has no memory for it.
    #[error("the store is full: {0}")]
    Full(String),
    /// Trying again will not help.
    #[error("the store refuses: {0}")]
    Refused(String),
}

impl Fault {
    /// Whether it may get well by itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Down | Self::Timeout | Self::Transient(_))
    }

    /// What an error reply of a server means to the caller.
    pub(super) fn of_reply(code: &str, detail: &str) -> Self {
        let said = said(code, detail);
        match code {
            "LOADING" | "BUSY" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "MOVED" | "ASK"
            | "NOREPLICAS" | "MISCONF" | "UNBLOCKED" | "NOSCRIPT" => Self::Transient(said),
            "OOM" => Self::Full(said),
            _ => Self::Refused(said),
        }
    }

    /// A part of a reply, or the error that stands in its place.
    pub(in super::super) fn instead(part: Value) -> Result<Value, Self> {
        match part {
            Value::ServerError(error) => Err(Self::of_reply(error.code(), error.details().unwrap_or_default())),
            part => Ok(part),
        }
    }

    /// The connection was lost, or what came over it made no sense.
    pub(super) fn of_connection(error: &RedisError) -> Self {
        Self::Transient(format!("the connection was lost ({})", error.category()))
    }
}

/// The words of an error reply, short and in one line.
pub(super) fn said(code: &str, detail: &str) -> String {
    format!("{code} {detail}")
        .trim()
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MOST_CHARS)
        .collect()
}

/// Why a server cannot be this sidecar's store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Nobody answers there, or not in time.
    #[error("the store at {at} is not reachable ({why}): check its address, and that nothing on the way forbids it")]
    Unreachable {
        /// Where.
        at: String,
        /// What happened.
        why: String,
    },
    /// It reads its data from disk, or for another reason it asks to be tried again later.
    #[error("the store at {at} is not ready yet: {why}")]
    NotReady {
        /// Where.
        at: String,
        /// What it said.
        why: String,
    },
    /// It wants a password and there is none.
    #[error("the store wants a password: put it into a file and name that with --store-password-file")]
    NoPassword,
    /// The password, or the user, is not right.
    #[error("the store does not accept the user and password: check the user in --store and --store-password-file")]
    WrongPassword,
    /// The user may not use a command that is needed.
    #[error("the store's user may not use {0}: give it the ACL that the documentation of the shared store lists")]
    NoPermission(String),
    /// It speaks TLS and was spoken to without.
    #[error("the store at {at} speaks TLS: write rediss:// in place of redis:// in --store")]
    PlainAgainstTls {
        /// Where.
        at: String,
    },
    /// It was spoken to in TLS, which it does not speak.
    #[error("the store at {at} does not speak TLS on this port: name its TLS port, or write redis:// in --store")]
    TlsAgainstPlain {
        /// Where.
        at: String,
    },
    /// Its certificate is not trusted.
    #[error("the certificate of the store at {at} is not trusted ({why}): name its authority with --store-ca-file")]
    Certificate {
        /// Where.
        at: String,
        /// What is wrong with it.
        why: String,
    },
    /// It wants a certificate of this sidecar, which has none.
    #[error(
        "the store at {at} wants a client certificate, which this sidecar does not have: set tls-auth-clients to no"
    )]
    WantsCertificate {
        /// Where.
        at: String,
    },
    /// The sentinels want a password, or another one.
    #[error("the sentinel at {at} does not let this sidecar in: check --store-sentinel-password-file")]
    SentinelPassword {
        /// The sentinel.
        at: String,
    },
    /// The file of the authority is not what it should be, or the system has none.
    #[error("there is no certificate authority to trust ({0}): name a PEM file with --store-ca-file")]
    NoAuthority(String),
    /// It is too old.
    #[error("the store is {found}, and {needed} or newer is needed: upgrade it")]
    TooOld {
        /// What it is.
        found: String,
        /// What is needed.
        needed: &'static str,
    },
    /// It would throw sessions away when memory gets short.
    #[error("the store's maxmemory-policy is {found} and would drop live sessions: set it to noeviction")]
    EvictionPolicy {
        /// What the policy is.
        found: String,
    },
    /// It was called a cluster and is none.
    #[error("the store at {at} is not a cluster: write redis:// in place of redis+cluster:// in --store")]
    NotACluster {
        /// Where.
        at: String,
    },
    /// It is a cluster and was not called one.
    #[error("the store at {at} is part of a cluster: write redis+cluster:// in place of redis:// in --store")]
    IsACluster {
        /// Where.
        at: String,
    },
    /// It was called a sentinel and is none.
    #[error("{at} is not a sentinel: name the sentinels' ports in --store (usually 26379)")]
    NotASentinel {
        /// Where.
        at: String,
    },
    /// It is a sentinel and was not called one.
    #[error("{at} is a sentinel: write redis+sentinel://HOST:PORT/NAME in --store")]
    IsASentinel {
        /// Where.
        at: String,
    },
    /// No sentinel knows a primary of that name.
    #[error("the sentinel at {at} knows no primary {name:?}: check the name at the end of --store")]
    UnknownName {
        /// The sentinel.
        at: String,
        /// The name.
        name: String,
    },
    /// It only follows another server.
    #[error("the store at {at} is a replica, which takes no writes: name the primary, or sentinels, in --store")]
    Replica {
        /// Where.
        at: String,
    },
    /// There is no such database.
    #[error("the store has no database {0}: check the number at the end of --store")]
    NoDatabase(u16),
    /// It answered something that Redis and Valkey do not.
    #[error("what answers at {at} is neither Redis nor Valkey as far as this sidecar knows them: {why}")]
    Strange {
        /// Where.
        at: String,
        /// What it answered.
        why: String,
    },
}

impl Unfit {
    /// Whether it may get well by itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        // A replica may be in the middle of a failover.
        matches!(
            self,
            Self::Unreachable { .. } | Self::NotReady { .. } | Self::Replica { .. }
        )
    }

    /// What an error reply to `command`, sent while a connection is made, means.
    pub(super) fn of_reply(at: &str, command: &str, code: &str, detail: &str) -> Self {
        let (at, why) = (at.to_owned(), said(code, detail));
        match code {
            "NOAUTH" => Self::NoPassword,
            "WRONGPASS" => Self::WrongPassword,
            // What a server without passwords says to one: it is as wrong as another one.
            "ERR" if why.contains("without any password configured") => Self::WrongPassword,
            "NOPERM" if why.contains("channel") => {
                Self::NoPermission("the channels of the store's namespace".to_owned())
            }
            "NOPERM" => Self::NoPermission(command.to_owned()),
            "ERR" if why.contains("max number of clients") => Self::NotReady { at, why },
            "ERR" => Self::Strange { at, why },
            _ if Fault::of_reply(code, detail).is_transient() => Self::NotReady { at, why },
            _ => Self::Strange { at, why },
        }
    }
}
