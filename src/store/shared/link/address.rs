//! Where the store is: the URL of `--store`, and what it may look like.

use std::{fmt, str::FromStr};

use percent_encoding::percent_decode_str;

/// The usual port of a Redis or Valkey server.
const PORT: u16 = 6379;

/// The usual port of a sentinel.
const SENTINEL_PORT: u16 = 26379;

/// A host and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// A name or an IP address, an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// What every connection to the store needs but a place and a password.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manner {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// The ACL user, if not the default one.
    pub user: Option<String>,
    /// The number of the database: 0 in a cluster.
    pub database: u16,
}

/// Where the store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// One server.
    Single {
        /// The server.
        place: Place,
        /// How it is spoken to.
        manner: Manner,
    },
    /// Whichever server these sentinels call the primary.
    Sentinel {
        /// The sentinels: any of them answers.
        sentinels: Vec<Place>,
        /// What the sentinels call the primary.
        name: String,
        /// How the primary is spoken to; whether it is encrypted holds for the sentinels too.
        manner: Manner,
    },
    /// A cluster.
    Cluster {
        /// Some of its nodes: any of them knows the others.
        seeds: Vec<Place>,
        /// How its nodes are spoken to.
        manner: Manner,
    },
}

impl Address {
    /// Whether it is a cluster, where keys of one call must share a slot.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster { .. })
    }

    /// How the servers that hold the data are spoken to.
    #[must_use]
    pub fn manner(&self) -> &Manner {
        match self {
            Self::Single { manner, .. } | Self::Sentinel { manner, .. } | Self::Cluster { manner, .. } => manner,
        }
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        // The URL itself is never repeated: there may be a password in it.
        let (scheme, rest) = url
            .split_once("://")
            .ok_or("the store's address begins with redis:// or rediss://, like redis://redis.example:6379")?;
        let (kind, tls) = match scheme {
            "redis" | "valkey" => (Kind::Single, false),
            "rediss" | "valkeys" => (Kind::Single, true),
            "redis+sentinel" => (Kind::Sentinel, false),
            "rediss+sentinel" => (Kind::Sentinel, true),
            "redis+cluster" => (Kind::Cluster, false),
            "rediss+cluster" => (Kind::Cluster, true),
            _ => {
                return Err(
                    "the store's address begins with redis://, redis+sentinel:// or redis+cluster://, \
                            or with rediss in place of redis for TLS; an example is redis://redis.example:6379"
                        .to_owned(),
                );
            }
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if rest.contains(['?', '#']) {
            return Err(format!(
                "the store's address takes no options after ? or #; an example is {}",
                kind.example()
            ));
        }
        let (user, places) = match authority.rsplit_once('@') {
            None => (None, authority),
            Some((user, places)) => (user_of(user)?, places),
        };
        let places = places
            .split(',')
            .map(|place| place_of(place, kind))
            .collect::<Result<Vec<_>, _>>()?;
        let mut manner = Manner { tls, user, database: 0 };
        match kind {
            Kind::Single => {
                let [place] = <[Place; 1]>::try_from(places).map_err(|_| {
                    "redis:// names one server; several are a cluster (redis+cluster://h1:6379,h2:6379) \
                                  or sentinels (redis+sentinel://h1:26379,h2:26379/mymaster)"
                })?;
                manner.database = database_of(path)?;
                Ok(Self::Single { place, manner })
            }
            Kind::Sentinel => {
                let (name, database) = path.split_once('/').unwrap_or((path, ""));
                if name.is_empty() {
                    return Err(format!(
                        "the store's address does not say what the sentinels call the primary; an example is {}",
                        kind.example()
                    ));
                }
                let name = decoded(name, "the primary's name")?;
                manner.database = database_of(database)?;
                Ok(Self::Sentinel {
                    sentinels: places,
                    name,
                    manner,
                })
            }
            Kind::Cluster if path.is_empty() => Ok(Self::Cluster { seeds: places, manner }),
            Kind::Cluster => Err(format!(
                "a cluster has no database numbers: nothing may follow the hosts; an example is {}",
                kind.example()
            )),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Single,
    Sentinel,
    Cluster,
}

impl Kind {
    fn example(self) -> &'static str {
        match self {
            Self::Single => "redis://redis.example:6379/0",
            Self::Sentinel => "redis+sentinel://s1.example:26379,s2.example:26379/mymaster",
            Self::Cluster => "redis+cluster://c1.example:6379,c2.example:6379",
        }
    }
}

fn user_of(user: &str) -> Result<Option<String>, String> {
    if user.contains(':') {
        return Err(
            "there is a password in the store's address, where process lists and logs show it: \
                    put it into a file and name that with --store-password-file"
                .to_owned(),
        );
    }
    if user.is_empty() {
        return Ok(None);
    }
    decoded(user, "the user").map(Some)
}

fn decoded(text: &str, what: &str) -> Result<String, String> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err(format!("{what} in the store's address is not UTF-8")),
    }
}

fn place_of(text: &str, kind: Kind) -> Result<Place, String> {
    let usual = match kind {
        Kind::Sentinel => SENTINEL_PORT,
        Kind::Single | Kind::Cluster => PORT,
    };
    let wrong = |what: &str| format!("{what} in the store's address; an example is {}", kind.example());
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let (host, port) = rest.split_once(']').ok_or_else(|| wrong("a [ without its ] is"))?;
        (host, port.strip_prefix(':').unwrap_or(port))
    } else {
        match text.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(wrong("an IPv6 address without brackets, like [::1]:6379, is"));
            }
            Some((host, port)) => (host, port),
            None => (text, ""),
        }
    };
    if host.is_empty() {
        return Err(wrong("a host is missing"));
    }
    let port = match port {
        "" => usual,
        port => match port.parse() {
            Ok(port) if port != 0 => port,
            _ => return Err(wrong("a port that is no number from 1 to 65535 is")),
        },
    };
    Ok(Place {
        host: host.to_owned(),
        port,
    })
}

fn database_of(path: &str) -> Result<u16, String> {
    match path {
        "" => Ok(0),
        path => path.parse().map_err(|_| {
            "what follows the host in the store's address is the number of a database, like redis://redis.example:6379/0"
                .to_owned()
        }),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (suffix, places) = match self {
            Self::Single { place, .. } => ("", std::slice::from_ref(place)),
            Self::Sentinel { sentinels, .. } => ("+sentinel", sentinels.as_slice()),
            Self::Cluster { seeds, .. } => ("+cluster", seeds.as_slice()),
        };
        let manner = self.manner();
        f.write_str(if manner.tls { "rediss" } else { "redis" })?;
        write!(f, "{suffix}://")?;
        if let Some(user) = &manner.user {
            write!(f, "{user}@")?;
        }
        for (index, place) in places.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{place}")?;
        }
        if let Self::Sentinel { name, .. } = self {
            write!(f, "/{name}")?;
        }
        if manner.database != 0 {
            write!(f, "/{}", manner.database)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_as_it_is_read() {
        for (url, shown) in [
            ("redis://redis", "redis://redis:6379"),
            ("rediss://app@redis:6380/3", "rediss://app@redis:6380/3"),
            ("redis://[::1]:7000", "redis://[::1]:7000"),
            ("redis://[::1]", "redis://[::1]:6379"),
            (
                "redis+sentinel://app@s1,s2:1/mymaster",
                "redis+sentinel://app@s1:26379,s2:1/mymaster",
            ),
            ("rediss+sentinel://s1:2/mymaster/4", "rediss+sentinel://s1:2/mymaster/4"),
            ("redis+cluster://a:1,b:2,c", "redis+cluster://a:1,b:2,c:6379"),
            ("rediss+cluster://a:1", "rediss+cluster://a:1"),
        ] {
            let address: Address = url.parse().unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(address.is_cluster(), url.contains("cluster"));
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said_and_a_password_never_shown() {
        for (url, told) in [
            ("redis.example:6379", "begins with redis://"),
            ("http://redis", "redis+cluster://"),
            ("redis://app:s3cret@redis", "--store-password-file"),
            ("redis://:s3cret@redis", "--store-password-file"),
            ("redis://a,b", "redis+cluster://"),
            ("redis://", "a host is missing"),
            ("redis://redis:0", "1 to 65535"),
            ("redis://redis:s3cret", "1 to 65535"),
            ("redis://redis/one", "number of a database"),
            ("redis://redis?timeout=1", "no options"),
            ("redis://::1", "without brackets"),
            ("redis://[::1", "without its ]"),
            ("redis+sentinel://s1:1", "what the sentinels call the primary"),
            ("redis+cluster://a:1/1", "no database numbers"),
        ] {
            let error = url.parse::<Address>().unwrap_err();
            assert!(error.contains(told), "{url}: {error}");
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
