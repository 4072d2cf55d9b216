//! Listeners, as URLs: `tcp://127.0.0.1:50151` or `unix:///run/session-sidecar.sock?mode=0660`, both with optional
//! `tenants=` and `verbs=`.

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
    },
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
            }
        } else {
            return Err("must begin with tcp:// or unix://".to_owned());
        };
        let mut caller = Caller::default();
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
                ("tenants", _) => caller.tenants = value.split(',').map(Arc::from).collect(),
                ("verbs", _) => caller.verbs = value.split(',').map(VerbGroup::from_str).collect::<Result<_, _>>()?,
                _ => {
                    return Err(format!(
                        "there is no option {key:?} here; there are tenants, verbs and, for unix://, mode"
                    ));
                }
            }
        }
        Ok(Self { endpoint, caller })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_says_where_and_who_may_do_what() {
        let listen: Listen = "unix:///run/a.sock?mode=0600&tenants=,shop&verbs=use,watch-own"
            .parse()
            .unwrap();
        let place = Endpoint::Unix {
            path: "/run/a.sock".into(),
            mode: 0o600,
        };
        assert_eq!(listen.endpoint, place);
        assert_eq!(*listen.caller.tenants, ["", "shop"].map(Arc::<str>::from));
        assert_eq!(listen.caller.verbs, [VerbGroup::Use, VerbGroup::WatchOwn]);
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
        ] {
            let error = url.parse::<Listen>().unwrap_err();
            assert!(error.contains(told), "{url}: {error}");
        }
    }
}
