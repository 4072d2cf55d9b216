//! What a server says of itself, and whether it can be the store.

use std::{collections::HashMap, time::Duration};

use redis::{Pipeline, Value, from_redis_value};
use tokio::time::timeout;

use super::{Place, Unfit, connect::Wire};

/// How long a server may take to answer what it is asked before it is used.
const PATIENCE: Duration = Duration::from_secs(1);

/// A primary: a server that holds data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Another one after each start of the server.
    pub run_id: String,
    /// Another one after each failover: what was written under the old one may be lost.
    pub replid: String,
    /// Which server it is, like `redis 7.0.15` or `valkey 8.0.1`.
    pub version: String,
    /// How many replicas follow it, asked every second.
    pub replicas: u32,
}

impl Server {
    /// What the data is whose: another one after each start of the server and after each failover.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{}/{}", self.run_id, self.replid)
    }
}

/// What a server says in answer to INFO.
pub(super) struct Info(HashMap<String, String>);

impl Info {
    /// Reads one section or several; what is no text says nothing.
    pub(super) fn of(values: impl IntoIterator<Item = Value>) -> Self {
        let mut fields = HashMap::new();
        for value in values {
            let Ok(text) = from_redis_value::<String>(value) else {
                continue;
            };
            for (key, value) in text.lines().filter_map(|line| line.trim_end().split_once(':')) {
                fields.insert(key.to_owned(), value.to_owned());
            }
        }
        Self(fields)
    }

    fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// Whether it follows another server.
    pub(super) fn is_replica(&self) -> bool {
        self.get("role") == "slave"
    }

    /// Takes over what may change while a connection lives.
    pub(super) fn refresh(&self, server: &mut Server) {
        server.replid = self.get("master_replid").to_owned();
        server.replicas = self.get("connected_slaves").parse().unwrap_or(0);
    }
}

/// Chooses the database, gives the connection its name, and asks whether the server is fit.
pub(super) async fn examine(wire: &Wire, place: &Place, database: u16, cluster: bool) -> Result<Server, Unfit> {
    const ASKED: [&str; 4] = ["server", "replication", "memory", "cluster"];
    let mut asked = Pipeline::new();
    for section in ASKED {
        asked.cmd("INFO").arg(section);
    }
    asked.cmd("CLIENT").arg("SETNAME").arg("session-sidecar");
    asked.cmd("PING");
    if database != 0 {
        asked.cmd("SELECT").arg(database);
    }
    let mut answers = ask(wire, place, &asked).await?;
    let at = place.to_string();
    let select = if database == 0 { None } else { answers.pop() };
    let ping = answers.pop();
    // Without a name the connection serves as well.
    answers.truncate(ASKED.len());
    for answer in &answers {
        refused(&at, "INFO", answer)?;
    }
    let info = Info::of(answers);
    let version = version(&at, &info)?;
    if let Some(ping) = &ping {
        refused(&at, "PING", ping)?;
    }
    match (cluster, info.get("cluster_enabled")) {
        (false, "1") => return Err(Unfit::IsACluster { at }),
        (true, "0") => return Err(Unfit::NotACluster { at }),
        _ => {}
    }
    if info.is_replica() {
        return Err(Unfit::Replica { at });
    }
    match info.get("maxmemory_policy") {
        "noeviction" => {}
        found => {
            return Err(Unfit::EvictionPolicy {
                found: if found.is_empty() { "not told" } else { found }.to_owned(),
            });
        }
    }
    if let Some(Value::ServerError(error)) = &select {
        return Err(match error.code() {
            "NOPERM" => Unfit::NoPermission("SELECT".to_owned()),
            _ => Unfit::NoDatabase(database),
        });
    }
    let mut server = Server {
        run_id: info.get("run_id").to_owned(),
        replid: String::new(),
        version,
        replicas: 0,
    };
    info.refresh(&mut server);
    Ok(server)
}

/// Sends several commands and gives their replies, errors among them.
pub(super) async fn ask(wire: &Wire, place: &Place, asked: &Pipeline) -> Result<Vec<Value>, Unfit> {
    let why = match timeout(PATIENCE, wire.exchange(asked)).await {
        Ok(Ok(answers)) => return Ok(answers),
        Ok(Err(_)) => "it hung up",
        Err(_) => "no answer within a second",
    };
    Err(Unfit::Unreachable {
        at: place.to_string(),
        why: why.to_owned(),
    })
}

/// An error reply as what it means.
pub(super) fn refused(at: &str, command: &str, answer: &Value) -> Result<(), Unfit> {
    match answer {
        Value::ServerError(error) => Err(Unfit::of_reply(
            at,
            command,
            error.code(),
            error.details().unwrap_or_default(),
        )),
        _ => Ok(()),
    }
}

fn version(at: &str, info: &Info) -> Result<String, Unfit> {
    if info.get("redis_mode") == "sentinel" || info.get("server_mode") == "sentinel" {
        return Err(Unfit::IsASentinel { at: at.to_owned() });
    }
    let valkey = info.get("server_name") == "valkey" || !info.get("valkey_version").is_empty();
    let (name, number, least, needed) = if valkey {
        ("valkey", info.get("valkey_version"), (7, 2), "Valkey 7.2")
    } else {
        ("redis", info.get("redis_version"), (7, 0), "Redis 7.0")
    };
    let mut parts = number.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        return Err(Unfit::Strange {
            at: at.to_owned(),
            why: "it does not tell its version".to_owned(),
        });
    };
    let found = format!("{name} {number}");
    if (major, minor) < least {
        return Err(Unfit::TooOld { found, needed });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version_of(text: &str) -> Result<String, Unfit> {
        version("here:1", &Info::of([Value::BulkString(text.as_bytes().to_vec())]))
    }

    #[test]
    fn old_servers_are_refused() {
        let redis = version_of("# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n");
        assert_eq!(redis.as_deref(), Ok("redis 7.0.15"));
        // Valkey says which Redis it descends from, too.
        let valkey = "redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\nserver_mode:standalone";
        assert_eq!(version_of(valkey).as_deref(), Ok("valkey 8.0.1"));
        let error = version_of("redis_version:6.2.14\r\nredis_mode:standalone").unwrap_err();
        let told = "the store is redis 6.2.14, and Redis 7.0 or newer is needed: upgrade it";
        assert_eq!(error.to_string(), told);
        assert!(matches!(version_of("lunch:12").unwrap_err(), Unfit::Strange { .. }));
        let sentinel = "redis_version:7.0.15\r\nredis_mode:sentinel";
        assert!(matches!(version_of(sentinel).unwrap_err(), Unfit::IsASentinel { .. }));
    }
}
