//! Listeners, as URLs: `tcp://127.0.0.1:50151` or `unix:///run/session-sidecar.sock?mode=0660&uids=1000`, both with optional
//! `tenants=`, `verbs=` and `authority=`.

use std::{borrow::Cow, collections::HashSet, fmt, net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc};

use percent_encoding::percent_decode_str;

use crate::{
    files,
    rpc::{
        Caller, Tokens, VerbGroup,
        tls::{self, Configured},
    },
    time::Clock,
};

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub endpoint: Endpoint,
    /// What its callers may do.
    pub caller: Caller,
    /// Whether an invalid `:authority` of a request is replaced; if not, such a request is refused.
    pub repair_authority: bool,
    /// What TLS is served with, if it is.
    pub tls: Option<TlsFiles>,
    /// The file of the bearer tokens of which each call must show one.
    pub token_file: Option<PathBuf>,
}

/// The longest path of a socket: it is bound beside its place, with the process' number behind its name (unix(7): 108 bytes, with a zero).
const LONGEST_SOCKET: usize = 99;

/// Whether a tenant can have this name: at most 128 bytes of visible ASCII.
pub(super) fn is_tenant(name: &str) -> bool {
    name.len() <= 128 && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What the file of a listener's tokens says, as text.
pub fn token_text(contents: &[Vec<u8>]) -> Result<&str, String> {
    std::str::from_utf8(&contents[0]).map_err(|_| "the file of tokens is no text".to_owned())
}

impl Listen {
    /// Reads the listener's files, and says what is wrong with them: what it cannot be served with is an error, what nobody wants is answered.
    pub fn check_files(&self) -> Result<Option<String>, String> {
        let mut fault = None;
        if let Some(tls) = &self.tls {
            let configured = tls.configure(&files::read_all(&tls.paths())?)?;
            fault = configured.fault_at(Clock::system().unix_seconds());
        }
        if let Some(path) = &self.token_file {
            let contents = files::read_all(std::slice::from_ref(path))?;
            Tokens::parse(token_text(&contents)?)?;
        }
        Ok(fault)
    }
}

/// The files, in PEM, that TLS is served with. They are followed: what changes is taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The authorities of which each client must have a certificate. None: clients need none.
    pub client_ca: Option<PathBuf>,
}

impl TlsFiles {
    /// Where they are, in an order that [`Self::configure`] knows.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.certificate.clone(), self.key.clone()];
        paths.extend(self.client_ca.clone());
        paths
    }

    /// What they say.
    pub fn configure(&self, contents: &[Vec<u8>]) -> Result<Configured, String> {
        tls::configure(&contents[0], &contents[1], contents.get(2).map(Vec::as_slice))
    }
}

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// At an address. Port 0: any free one.
    Tcp(SocketAddr),
    /// At a socket file.
    Unix {
        /// Its path.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The group that it belongs to. Default: the process' own.
        group: Option<u32>,
        /// Who may connect, of those whom the permission bits let.
        peers: Peers,
    },
}

/// Whose processes may connect to a socket, by what the kernel says of them (SO_PEERCRED: unix(7)).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peers {
    /// By effective user. With no group and no user given, everybody may.
    pub uids: Vec<u32>,
    /// By effective group; further groups of a process are not told.
    pub gids: Vec<u32>,
}

impl Peers {
    /// Whether a process of this user and group may connect.
    #[must_use]
    pub fn allow(&self, uid: u32, gid: u32) -> bool {
        (self.uids.is_empty() && self.gids.is_empty()) || self.uids.contains(&uid) || self.gids.contains(&gid)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "tcp://{address}"),
            Self::Unix { path, .. } => write!(f, "unix://{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let mut endpoint = if let Some(address) = place.strip_prefix("tcp://") {
            let address = address.parse();
            Endpoint::Tcp(address.map_err(|_| "tcp:// needs an IP address and a port, like tcp://127.0.0.1:50151")?)
        } else if let Some(path) = place.strip_prefix("unix://").or_else(|| place.strip_prefix("unix:")) {
            if !path.starts_with('/') {
                return Err("unix:// needs an absolute path, like unix:///run/session-sidecar.sock".to_owned());
            }
            if path.len() > LONGEST_SOCKET {
                return Err(format!(
                    "unix:// has a path of {} bytes; at most {LONGEST_SOCKET} fit",
                    path.len()
                ));
            }
            Endpoint::Unix {
                path: path.into(),
                mode: 0o660,
                group: None,
                peers: Peers::default(),
            }
        } else {
            return Err("must begin with tcp:// or unix://".to_owned());
        };
        let mut caller = Caller::default();
        let mut repair_authority = true;
        let (mut certificate, mut key_file, mut client_ca, mut token_file) = (None, None, None, None);
        let mut given = HashSet::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} has no value"))?;
            if !given.insert(key) {
                return Err(format!("{key} is there twice: give it once"));
            }
            // A comma that is percent-encoded is part of a name, and separates none.
            let raw = value;
            let value = decode(key, raw)?;
            match (key, &mut endpoint) {
                ("mode", Endpoint::Unix { mode, .. }) => {
                    let parsed = u32::from_str_radix(&value, 8).ok().filter(|mode| *mode <= 0o777);
                    *mode = parsed.ok_or("mode must be permission bits in octal, like 0660")?;
                }
                ("group", Endpoint::Unix { group, .. }) => *group = Some(number("group", &value)?),
                ("uids", Endpoint::Unix { peers, .. }) => peers.uids = numbers("uids", &value)?,
                ("gids", Endpoint::Unix { peers, .. }) => peers.gids = numbers("gids", &value)?,
                ("authority", _) => {
                    repair_authority = match &*value {
                        "repair" => true,
                        "strict" => false,
                        _ => return Err(format!("authority must be repair or strict, not {value:?}")),
                    }
                }
                ("tls-cert-file", Endpoint::Tcp(_)) => certificate = Some(file(key, &value)?),
                ("tls-key-file", Endpoint::Tcp(_)) => key_file = Some(file(key, &value)?),
                ("client-ca-file", Endpoint::Tcp(_)) => client_ca = Some(file(key, &value)?),
                ("token-file", _) => token_file = Some(file(key, &value)?),
                ("tenants", _) => {
                    let names = raw.split(',').map(|name| decode(key, name).map(Arc::from));
                    caller.tenants = names.collect::<Result<_, _>>()?;
                    if let Some(bad) = caller.tenants.iter().find(|name| !is_tenant(name)) {
                        return Err(format!("tenants: {bad:?} must be at most 128 bytes of visible ASCII"));
                    }
                }
                ("verbs", _) if value == "none" => caller.verbs.clear(),
                ("verbs", _) => caller.verbs = value.split(',').map(VerbGroup::from_str).collect::<Result<_, _>>()?,
                _ => {
                    return Err(format!(
                        "there is no option {key:?} here; there are tenants, verbs, authority, token-file; for unix:// mode, group, \
                         uids and gids; for tcp:// tls-cert-file, tls-key-file and client-ca-file"
                    ));
                }
            }
        }
        let tls = match (certificate, key_file) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate,
                key,
                client_ca,
            }),
            (None, None) if client_ca.is_none() => None,
            (None, None) => return Err("client-ca-file needs tls-cert-file and tls-key-file".to_owned()),
            _ => return Err("tls-cert-file and tls-key-file need each other".to_owned()),
        };
        caller.known_by = format!("listener {endpoint}").into();
        Ok(Self {
            endpoint,
            caller,
            repair_authority,
            tls,
            token_file,
        })
    }
}

fn decode<'a>(key: &str, value: &'a str) -> Result<Cow<'a, str>, String> {
    let decoded = percent_decode_str(value).decode_utf8();
    decoded.map_err(|_| format!("{key} is not UTF-8"))
}

fn file(key: &str, value: &str) -> Result<PathBuf, String> {
    if value.is_empty() {
        return Err(format!("{key} needs the path of a file"));
    }
    Ok(value.into())
}

/// Ids of users or groups, separated by commas.
fn numbers(key: &str, value: &str) -> Result<Vec<u32>, String> {
    value.split(',').map(|value| number(key, value)).collect()
}

fn number(key: &str, value: &str) -> Result<u32, String> {
    value
        .parse()
        .map_err(|_| format!("{key} must be a numeric id like 65532, not {value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_says_where_and_who_may_do_what() {
        let listen: Listen = "unix:///run/a.sock?mode=0600&group=65532&uids=0,1000&tenants=,shop&verbs=use,watch-own"
            .parse()
            .unwrap();
        let place = Endpoint::Unix {
            path: "/run/a.sock".into(),
            mode: 0o600,
            group: Some(65532),
            peers: Peers {
                uids: vec![0, 1000],
                gids: vec![],
            },
        };
        assert_eq!(listen.endpoint, place);
        assert!(listen.repair_authority);
        assert_eq!(*listen.caller.tenants, ["", "shop"].map(Arc::<str>::from));
        assert_eq!(listen.caller.verbs, [VerbGroup::Use, VerbGroup::WatchOwn]);
        let listen: Listen = "tcp://127.0.0.1:1?tenants=a%2Cb,c%26d".parse().unwrap();
        assert_eq!(*listen.caller.tenants, ["a,b", "c&d"].map(Arc::<str>::from));
    }

    #[test]
    fn a_peer_is_let_in_by_its_user_or_its_group() {
        let peers = Peers {
            uids: vec![1000],
            gids: vec![65532],
        };
        assert!(peers.allow(1000, 1) && peers.allow(1, 65532));
        assert!(!peers.allow(65532, 1000));
        assert!(Peers::default().allow(7, 7));
        let strict: Listen = "unix:///run/a.sock?authority=strict".parse().unwrap();
        assert!(!strict.repair_authority);
    }

    #[test]
    fn what_is_wrong_with_a_listener_is_said() {
        for (url, told) in [
            ("127.0.0.1:50151", "tcp:// or unix://"),
            ("tcp://localhost:1", "IP address"),
            ("unix://relative", "absolute path"),
            ("unix:///a?mode=1777", "octal"),
            (&format!("unix:///{}", "a".repeat(99)), "at most 99 fit"),
            ("unix:///a?uids=0&uids=1000", "uids is there twice"),
            ("tcp://127.0.0.1:1?tenants=caf%C3%A9", "visible ASCII"),
            ("tcp://127.0.0.1:1?tenants=a,%00", "visible ASCII"),
            ("tcp://127.0.0.1:1?mode=0600", "no option \"mode\""),
            ("tcp://127.0.0.1:1?verbs=touch", "no verb group \"touch\""),
            ("tcp://127.0.0.1:1?uids=0", "no option \"uids\""),
            (
                "unix:///a?tls-cert-file=/c&tls-key-file=/k",
                "no option \"tls-cert-file\"",
            ),
            ("tcp://127.0.0.1:1?tls-cert-file=/c", "need each other"),
            ("tcp://127.0.0.1:1?tls-key-file=/k", "need each other"),
            ("tcp://127.0.0.1:1?client-ca-file=/ca", "client-ca-file needs"),
            ("tcp://127.0.0.1:1?token-file=", "path of a file"),
            ("unix:///a?uids=root", "numeric id"),
            ("unix:///a?group=-1", "numeric id"),
            ("unix:///a?gids=1,,2", "numeric id"),
            ("tcp://127.0.0.1:1?authority=any", "repair or strict"),
        ] {
            let error = url.parse::<Listen>().unwrap_err();
            assert!(error.contains(told), "{url}: {error}");
        }
    }
}
