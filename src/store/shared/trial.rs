//! Whether a store is fit to be shared: every command that the code uses and every script, once, in a namespace that is gone
//! afterwards.

use std::time::Duration;

use redis::{Cmd, Value};

use super::{
    Names,
    ask::{bytes, int, list, text},
    inspect::{NamespaceFacts, namespace_facts, wall_micros},
    link::{Address, Call, Fault, Link, Script},
    scripts,
    settings::FORMATS,
};
use crate::{state::SessionRef, time::Clock};

/// A command that the code uses, with harmless words: `{h}`, `{z}`, `{x}`, `{l}`, `{n}` and `{c}` stand for names of a scratch
/// namespace.
pub(super) struct Probe(pub(super) &'static str, &'static [&'static str]);

/// What the store's user must be allowed, scripts' commands among it. A test compares it with the scripts and the code.
pub(super) const PROBES: [Probe; 33] = [
    Probe("PING", &[]),
    Probe("INFO", &["server"]),
    Probe("CLIENT|SETNAME", &["session-sidecar"]),
    Probe("TIME", &[]),
    // Not known: whoever is not allowed to ask is told so first.
    Probe("EVALSHA", &["0000000000000000000000000000000000000000", "1", "{h}"]),
    Probe("EVAL", &["#!lua flags=no-writes\nreturn 1", "1", "{h}"]),
    Probe("HSET", &["{h}", "f", "v"]),
    Probe("HSETNX", &["{h}", "f", "v"]),
    Probe("HGET", &["{h}", "f"]),
    Probe("HMGET", &["{h}", "f"]),
    Probe("HGETALL", &["{h}"]),
    Probe("HLEN", &["{h}"]),
    Probe("HDEL", &["{h}", "none"]),
    Probe("ZADD", &["{z}", "1", "one"]),
    Probe("ZCARD", &["{z}"]),
    Probe("ZRANGE", &["{z}", "0", "-1"]),
    Probe("ZREMRANGEBYSCORE", &["{z}", "5", "6"]),
    Probe("ZREM", &["{z}", "none"]),
    Probe("XADD", &["{x}", "1-0", "b", "v"]),
    Probe("XRANGE", &["{x}", "-", "+"]),
    Probe("RPUSH", &["{l}", "v"]),
    Probe("LTRIM", &["{l}", "-64", "-1"]),
    Probe("LRANGE", &["{l}", "0", "-1"]),
    Probe("INCR", &["{n}"]),
    Probe("GET", &["{n}"]),
    Probe("EXISTS", &["{n}"]),
    Probe("PEXPIRE", &["{n}", "60000"]),
    Probe("SPUBLISH", &["{c}", ""]),
    Probe("DEL", &["{h}", "{z}", "{x}", "{l}", "{n}"]),
    // What follows is tried when a connection is made.
    Probe("SSUBSCRIBE", &[]),
    Probe("SELECT", &[]),
    Probe("CLUSTER|SLOTS", &[]),
    Probe("ASKING", &[]),
];

/// What is needed in a cluster only.
const IN_CLUSTERS: [&str; 2] = ["CLUSTER|SLOTS", "ASKING"];

/// What is needed for another database than 0.
const FOR_DATABASES: &str = "SELECT";

/// The rights that the store's user needs at such an address: the words of an ACL rule, without the user's name and password.
#[must_use]
pub fn acl_line(address: &Address) -> String {
    let needed = |probe: &&Probe| match probe.0 {
        FOR_DATABASES => address.manner().database != 0,
        name => address.is_cluster() || !IN_CLUSTERS.contains(&name),
    };
    let commands = PROBES
        .iter()
        .filter(needed)
        .map(|probe| format!("+{}", probe.0.to_lowercase()));
    format!("~ss1:* &ss1:* -@all {}", commands.collect::<Vec<_>>().join(" "))
}

/// What was found out about a store.
pub struct Fitness {
    /// What each primary says of itself.
    pub servers: Vec<ServerFacts>,
    /// The namespace, if there is one.
    pub namespace: Option<NamespaceFacts>,
    /// What was refused: the command or script, and in which words.
    pub refused: Vec<(String, Fault)>,
    /// The store's clock minus this machine's wall clock, and how much further it went while it was looked at, in microseconds.
    pub clock: Option<(i64, i64)>,
    /// The median of the time that a small script takes, there and back.
    pub round_trip: Duration,
}

/// What a server says of itself.
#[derive(Debug, Clone, Default)]
pub struct ServerFacts {
    /// Which one, where there are several.
    pub run_id: String,
    /// What it does when memory gets short.
    pub eviction: String,
    /// How much memory it may use, in bytes; 0: all that there is.
    pub memory_limit: u64,
    /// How much it uses.
    pub memory_used: u64,
    /// Whether it writes down each change.
    pub appends: bool,
    /// Whether the last time that it wrote its data down went well.
    pub writes_down_well: bool,
}

/// How many small scripts are timed.
const TIMED: usize = 20;

/// For how long the clocks are compared.
const COMPARED: Duration = Duration::from_millis(300);

/// A cluster is tried in so many places: each may lie on another server.
const PLACES: usize = 8;

/// Tries a store. `scratch` names a namespace that nobody has.
pub async fn try_out(link: &Link, clock: &Clock, namespace: &str, scratch: &str, cluster: bool) -> Fitness {
    let names = Names::new(namespace, 1);
    let mut trial = Trial {
        link,
        refused: Vec::new(),
    };
    let began = clock.now();
    let first = store_time(link, clock, &names.namespace()).await;
    let mut servers: Vec<ServerFacts> = Vec::new();
    let mut times = Vec::new();
    for place in 0..if cluster { PLACES } else { 1 } {
        // One server looks at several buckets at once.
        let names = Names::new(&format!("{scratch}.{place}"), if cluster { 1 } else { 2 });
        trial.commands(&names).await;
        trial.scripts(&names).await;
        trial.clean(&names).await;
        if let Ok(facts) = server_facts(link, &names.meta(0)).await
            && servers.iter().all(|known| known.run_id != facts.run_id)
        {
            servers.push(facts);
        }
        for _ in 0..TIMED {
            let sent = clock.now();
            let call = Call {
                script: &scripts::BEAT,
                keys: beats(&names),
                args: Vec::new(),
            };
            if link.call(call).await.is_ok() {
                times.push(clock.now().since(sent));
            }
        }
    }
    tokio::time::sleep(COMPARED.saturating_sub(clock.now().since(began))).await;
    let last = store_time(link, clock, &names.namespace()).await;
    times.sort_unstable();
    Fitness {
        servers,
        namespace: namespace_facts(link, &names).await.ok().flatten(),
        refused: trial.refused,
        clock: first
            .and_then(|first| Ok((last?, first)))
            .ok()
            .map(|(last, first)| (last, last - first)),
        round_trip: times.get(times.len() / 2).copied().unwrap_or_default(),
    }
}

struct Trial<'a> {
    link: &'a Link,
    refused: Vec<(String, Fault)>,
}

impl Trial<'_> {
    fn note(&mut self, what: &str, fault: Fault) {
        if self.refused.iter().all(|(known, _)| known != what) {
            self.refused.push((what.to_owned(), fault));
        }
    }

    async fn commands(&mut self, names: &Names) {
        let base = String::from_utf8_lossy(&names.meta(0)).into_owned();
        for Probe(name, words) in PROBES.iter().filter(|probe| is_tried(probe)) {
            let mut command = Cmd::new();
            for word in name.split('|') {
                command.arg(word);
            }
            for word in *words {
                command.arg(
                    word.strip_prefix('{')
                        .map_or((*word).to_owned(), |key| format!("{base}.{}", &key[..1])),
                );
            }
            match self.link.command(base.as_bytes(), command).await {
                Ok(_) => {}
                // That script is not known there, but it was allowed.
                Err(Fault::Transient(_)) if *name == "EVALSHA" => {}
                Err(fault) => self.note(name, fault),
            }
        }
    }

    /// A whole life of a session.
    async fn scripts(&mut self, names: &Names) {
        let session = SessionRef::from_bytes([0; 16]);
        let name = session.to_string();
        let bucket = || vec![names.meta(0), names.record(session), names.due(0)];
        let commit = || {
            let mut keys = bucket();
            keys.extend([
                names.events(0),
                names.channel(0),
                names.timeline(session),
                names.ended(0),
            ]);
            keys
        };
        let short = |keys: Vec<Vec<u8>>| keys.into_iter().take(2).collect::<Vec<_>>();
        let look = || vec![names.meta(0), names.due(0), names.ended(0)];
        self.script(
            &scripts::JOIN,
            vec![names.namespace()],
            &["1", "none", &FORMATS.start().to_string(), ""],
        )
        .await;
        let keys = ["none", "", "none", "other"];
        self.script(&scripts::REKEY, vec![names.namespace()], &keys).await;
        let newest = FORMATS.end().to_string();
        self.script(&scripts::UPGRADE, vec![names.namespace()], &[&newest])
            .await;
        self.script(&scripts::CLAIM, vec![names.claim(session, session)], &[&name, "60000"])
            .await;
        self.script(&scripts::OPEN, vec![names.meta(0)], &["scratch"]).await;
        self.script(&scripts::BEAT, beats(names), &[]).await;
        let far = "4000000000000000";
        let create = [
            "0", "", "", "0", "0", "0", far, "", "60000", &name, "1024", "7", "v", "1", "t", "1", "l", "0", "f", "0",
            "i", far, "a", far, "b", "", "1", "3", "scratch",
        ];
        self.script(&scripts::CREATE, commit(), &create).await;
        self.script(&scripts::READ, short(bucket()), &[]).await;
        let raise = vec![names.meta(0), names.record(session), names.tallies(session)];
        let raised = self
            .script(
                &scripts::RAISE,
                raise,
                &["0", "0", "0", "1", "60000", "+scratch", "1", "1", "1"],
            )
            .await;
        let keys = vec![names.meta(0), names.tallies(session), names.record(session)];
        self.script(&scripts::TALLY, keys, &["60000", "+scratch", "1", "1", "1"])
            .await;
        self.script(&scripts::REARM, bucket(), &["0", "1", "5", &name]).await;
        let records = String::from_utf8_lossy(&names.records(0)).into_owned();
        self.script(&scripts::DUE, look(), &["0", "10", "0", "0", &records])
            .await;
        let activity = raised
            .as_ref()
            .and_then(|reply| int(list(reply).get(8)?))
            .unwrap_or(1)
            .to_string();
        let end = [
            "0", "1", &activity, "0", "0", "0", "", far, "60000", &name, "1024", "3", "v", "2", "f", "4", "b", "", "1",
            "1", "scratch",
        ];
        self.script(&scripts::COMMIT, commit(), &end).await;
        self.script(&scripts::RESTORE, commit(), &end).await;
        self.script(&scripts::RETOUCH, short(bucket()), &["0", "1", "0"]).await;
        self.script(&scripts::ANEW, vec![names.meta(0)], &["scratch", "anew"])
            .await;
        self.script(&scripts::POLICIES, vec![names.policies()], &["scratch", "none", "1000"])
            .await;
        self.script(&scripts::LIMITS, vec![names.limits()], &["scratch", "limits"])
            .await;
        self.script(&scripts::DROP, bucket(), &["0", "9", "0", &name]).await;
        self.script(&scripts::CORRECT, vec![names.meta(0)], &["0", "9"]).await;
        self.script(
            &scripts::PRESENCE,
            vec![names.presence(), names.told()],
            &["scratch", "1000", "0", "", "", ""],
        )
        .await;
        let subject: Vec<_> = names.subject("", "scratch").into();
        self.script(&scripts::SUBJECT, subject.clone(), &["0", &name, "60000"])
            .await;
        self.script(&scripts::LISTED, subject, &["5000"]).await;
    }

    async fn script(&mut self, script: &'static Script, keys: Vec<Vec<u8>>, args: &[&str]) -> Option<Value> {
        let args = args.iter().map(text).collect();
        let reply = self.link.call(Call { script, keys, args }).await;
        match reply.and_then(whole) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.note(&format!("script {}", script.name), fault);
                None
            }
        }
    }

    async fn clean(&mut self, names: &Names) {
        let session = SessionRef::from_bytes([0; 16]);
        let mut keys = vec![
            names.namespace(),
            names.presence(),
            names.told(),
            names.limits(),
            names.policies(),
            names.meta(0),
            names.due(0),
            names.ended(0),
            names.events(0),
            names.record(session),
            names.timeline(session),
            names.tallies(session),
            names.claim(session, session),
        ];
        keys.extend(names.subject("", "scratch"));
        for end in ["h", "z", "x", "l", "n"] {
            keys.push([&names.meta(0)[..], b".", end.as_bytes()].concat());
        }
        for key in keys {
            let mut delete = redis::cmd("DEL");
            delete.arg(&key);
            if let Err(fault) = self.link.command(&key, delete).await {
                self.note("DEL", fault);
                // Then it goes by itself.
                let mut forget = redis::cmd("PEXPIRE");
                forget.arg(&key).arg(60_000);
                let _ = self.link.command(&key, forget).await;
            }
        }
    }
}

/// The keys of a look at all buckets.
fn beats(names: &Names) -> Vec<Vec<u8>> {
    (0..names.buckets()).flat_map(|bucket| names.indexes(bucket)).collect()
}

/// A reply in which no part is an error.
fn whole(reply: Value) -> Result<Value, Fault> {
    match reply {
        Value::Array(parts) => parts
            .into_iter()
            .map(Fault::instead)
            .collect::<Result<_, _>>()
            .map(Value::Array),
        other => Ok(other),
    }
}

fn is_tried(probe: &Probe) -> bool {
    probe.0 != "SSUBSCRIBE" && probe.0 != FOR_DATABASES && !IN_CLUSTERS.contains(&probe.0)
}

/// The store's clock minus this machine's wall clock, in microseconds.
async fn store_time(link: &Link, clock: &Clock, key: &[u8]) -> Result<i64, Fault> {
    let sent = clock.now();
    let time = link.command(key, redis::cmd("TIME")).await?;
    let middle = sent + clock.now().since(sent) / 2;
    let parts: Vec<_> = list(&time).iter().filter_map(int).collect();
    let [seconds, micros] = parts[..] else {
        return Err(Fault::Refused("it does not tell its time".to_owned()));
    };
    Ok(seconds * 1_000_000 + micros - wall_micros(clock, middle))
}

async fn server_facts(link: &Link, key: &[u8]) -> Result<ServerFacts, Fault> {
    let mut said = String::new();
    for section in ["server", "memory", "persistence"] {
        let mut info = redis::cmd("INFO");
        info.arg(section);
        let reply = link.command(key, info).await?;
        let reply = match &reply {
            Value::VerbatimString { text, .. } => text.clone(),
            other => String::from_utf8_lossy(bytes(other).unwrap_or_default()).into_owned(),
        };
        said.push_str(&reply);
        said.push('\n');
    }
    let field = |name: &str| {
        let value = said.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim()
    };
    Ok(ServerFacts {
        run_id: field("run_id").to_owned(),
        eviction: field("maxmemory_policy").to_owned(),
        memory_limit: field("maxmemory").parse().unwrap_or(0),
        memory_used: field("used_memory").parse().unwrap_or(0),
        appends: field("aof_enabled") == "1",
        writes_down_well: [field("aof_last_write_status"), field("rdb_last_bgsave_status")]
            .iter()
            .all(|status| matches!(*status, "ok" | "")),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_script_is_tried() {
        let made = include_str!("scripts.rs").matches(": Script = ").count();
        assert_eq!(scripts::ALL.len(), made);
        let tried = include_str!("trial.rs");
        for script in scripts::ALL {
            let name = format!("scripts::{}", script.name.to_uppercase());
            assert!(tried.contains(&name), "{name}");
        }
    }

    #[test]
    fn the_acl_line_is_what_the_scripts_and_the_code_use() {
        let mut used = BTreeSet::new();
        for script in scripts::ALL {
            for call in script.source.split("redis.call('").skip(1) {
                used.extend(call.split('\'').next().map(str::to_owned));
            }
        }
        let code = [
            include_str!("ask.rs"),
            include_str!("commit.rs"),
            include_str!("feed.rs"),
            include_str!("inspect.rs"),
            include_str!("journal.rs"),
            include_str!("lists.rs"),
            include_str!("rotate.rs"),
            include_str!("settings.rs"),
            include_str!("link/find.rs"),
            include_str!("link/node.rs"),
            include_str!("link/server.rs"),
            include_str!("link/mod.rs"),
        ];
        for call in code.iter().flat_map(|text| text.split("cmd(\"").skip(1)) {
            let name = call.split('"').next().unwrap_or_default();
            // What comes first among its words.
            let rest = call.split(".arg(\"").nth(1).and_then(|rest| rest.split('"').next());
            match name {
                // It is asked of sentinels only.
                "SENTINEL" => {}
                "CLIENT" | "CLUSTER" => {
                    used.insert(format!("{name}|{}", rest.unwrap_or_default()));
                }
                _ => {
                    used.insert(name.to_owned());
                }
            }
        }
        used.extend(["EVAL", "EVALSHA", "ASKING"].map(str::to_owned));
        let probed: BTreeSet<_> = PROBES.iter().map(|probe| probe.0.to_owned()).collect();
        assert_eq!(used, probed);
    }
}
