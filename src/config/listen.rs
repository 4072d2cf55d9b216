//! Listeners, as URLs: `tcp://127.0.0.1:50151` or `unix:///run/session-sidecar.sock?mode=0660&uids=1000`, both with optional
//! `tenants=`, `verbs=` and `authority=`.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, sync::Arc};

use percent_encoding::percent_decode_str;

use crate::rpc::{Caller, VerbGroup};

/// One listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Where.
    pub endpoint: Endpoint,
    /// What its callers may do.
    pub caller: Caller,
    /// Whether an invalid `:authority` of a request is replaced; if not, such a request is refused.
    pub repair_authority: bool,
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
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| format!("{pair:?} has no value"))?;
            let value = percent_decode_str(value)
                .decode_utf8()
                .map_err(|_| format!("{key} is not UTF-8"))?;
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
                ("tenants", _) => caller.tenants = value.split(',').map(Arc::from).collect(),
                ("verbs", _) => caller.verbs = value.split(',').map(VerbGroup::from_str).collect::<Result<_, _>>()?,
                _ => {
                    return Err(format!(
                        "there is no option {key:?} here; there are tenants, verbs, authority and, for unix://, mode, group, \
                         uids and gids"
                    ));
                }
            }
        }
        Ok(Self {
            endpoint,
            caller,
            repair_authority,
        })
    }
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
            ("tcp://127.0.0.1:1?mode=0600", "no option \"mode\""),
            ("tcp://127.0.0.1:1?verbs=touch", "no verb group \"touch\""),
            ("tcp://127.0.0.1:1?uids=0", "no option \"uids\""),
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
