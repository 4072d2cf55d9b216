//! How calls reach the servers that are responsible for them, and what is made of the replies.

use std::{
    collections::HashSet,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, Value};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    Call, Fault, GETS_TO_KNOW, Place,
    hub::{Hub, Routes},
    node::Node,
};

/// A timer that is so late says that this process had no processor: a call that it ends says nothing of the server.
const STANDSTILL: Duration = Duration::from_millis(50);

/// Something to be asked.
pub(super) enum Job {
    Script(Call),
    Command { key: Vec<u8>, command: Cmd },
}

impl Job {
    fn key(&self) -> &[u8] {
        match self {
            Self::Script(call) => call.keys.first().map_or(&[], Vec::as_slice),
            Self::Command { key, .. } => key,
        }
    }

    fn short(&self) -> Cmd {
        match self {
            Self::Script(call) => call.by_hash(),
            Self::Command { command, .. } => command.clone(),
        }
    }

    fn full(&self) -> Cmd {
        match self {
            Self::Script(call) => call.by_source(),
            Self::Command { command, .. } => command.clone(),
        }
    }
}

type Answer = Result<Value, Fault>;

/// What a server replied to one job.
enum Reply {
    Final(Answer),
    /// It does not know the script.
    NoScript,
    /// Another node is responsible, for good or (`ask`) this once.
    Elsewhere {
        at: Option<Place>,
        ask: bool,
        fault: Fault,
    },
}

/// Asks everything at once and gives the answers in the same order, by `deadline` at the latest.
pub(super) async fn send(hub: &Hub, jobs: &[Job], deadline: Instant) -> Vec<Answer> {
    let routes = hub.routes.load_full();
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); routes.nodes.len()];
    for (index, job) in jobs.iter().enumerate() {
        if let Some(node) = routes.of(job.key()) {
            groups[node].push(index);
        }
    }
    let asked = groups
        .iter()
        .enumerate()
        .filter(|(_, group)| !group.is_empty())
        .map(|(node, group)| send_group(hub, &routes, &routes.nodes[node], jobs, group, deadline));
    let mut answers = vec![Err(Fault::Down); jobs.len()];
    for (index, answer) in join_all(asked).await.into_iter().flatten() {
        answers[index] = answer;
    }
    answers
}

/// Asks one server.
async fn send_group(
    hub: &Hub,
    routes: &Routes,
    node: &Arc<Node>,
    jobs: &[Job],
    group: &[usize],
    deadline: Instant,
) -> Vec<(usize, Answer)> {
    let commands = group.iter().map(|index| jobs[*index].short());
    let replies = exchange(hub, node, commands, deadline).await;
    let mut answers = Vec::with_capacity(group.len());
    let mut unknown = Vec::new();
    let mut elsewhere = Vec::new();
    for (index, reply) in group.iter().copied().zip(replies) {
        match reply {
            Reply::Final(answer) => answers.push((index, answer)),
            Reply::NoScript => unknown.push(index),
            Reply::Elsewhere { at, ask, fault } => elsewhere.push((index, at, ask, fault)),
        }
    }
    if !unknown.is_empty() {
        // The first call of each script brings it along, and the server remembers it for the others.
        let mut brought = HashSet::new();
        let commands = unknown.iter().map(|index| match &jobs[*index] {
            Job::Script(call) if !brought.insert(call.script.sha()) => call.by_hash(),
            job => job.full(),
        });
        let replies = exchange(hub, node, commands, deadline).await;
        for (index, reply) in unknown.into_iter().zip(replies) {
            match reply {
                Reply::Final(answer) => answers.push((index, answer)),
                Reply::NoScript => answers.push((index, Err(forgotten()))),
                Reply::Elsewhere { at, ask, fault } => elsewhere.push((index, at, ask, fault)),
            }
        }
    }
    for (index, at, ask, fault) in elsewhere {
        let at = at.as_ref().and_then(|at| routes.at(at));
        let answer = match at {
            Some(node) => send_elsewhere(hub, node, &jobs[index], ask, deadline).await,
            None => Err(fault),
        };
        answers.push((index, answer));
    }
    answers
}

/// Asks the server that another one has named.
async fn send_elsewhere(hub: &Hub, node: &Arc<Node>, job: &Job, ask: bool, deadline: Instant) -> Answer {
    let mut asking = Cmd::new();
    asking.arg("ASKING");
    let commands = ask.then_some(asking).into_iter().chain([job.full()]);
    match exchange(hub, node, commands, deadline).await.pop() {
        Some(Reply::Final(answer)) => answer,
        Some(Reply::Elsewhere { fault, .. }) => Err(fault),
        Some(Reply::NoScript) | None => Err(forgotten()),
    }
}

/// One pipeline, and a reply for each command.
async fn exchange(hub: &Hub, node: &Arc<Node>, commands: impl Iterator<Item = Cmd>, deadline: Instant) -> Vec<Reply> {
    let mut pipeline = Pipeline::new();
    for command in commands {
        pipeline.add_command(command);
    }
    let all = |fault: Fault| (0..pipeline.len()).map(|_| Reply::Final(Err(fault.clone()))).collect();
    let Some(live) = node.live() else {
        return all(Fault::Down);
    };
    if !live.is_admitted() && GETS_TO_KNOW.try_with(|()| ()).is_err() {
        return all(Fault::Down);
    }
    let mut asked = pin!(live.calls.exchange(&pipeline));
    let mut answer = timeout_at(deadline, &mut asked).await;
    let stood_still = answer.is_err() && deadline.elapsed() > STANDSTILL;
    if stood_still {
        // The answer may have come meanwhile, and nobody has looked.
        answer = timeout(STANDSTILL, &mut asked).await;
    }
    match answer {
        Err(_) => {
            if !stood_still {
                live.missed();
            }
            all(Fault::Timeout)
        }
        Ok(Err(error)) => {
            live.lose("the connection was lost");
            all(Fault::of_connection(&error))
        }
        Ok(Ok(replies)) if replies.iter().any(|reply| matches!(reply, Value::Push { .. })) => {
            // Nobody subscribes on this connection: whose replies these are is not certain any more.
            live.lose("it answered what was not asked");
            all(Fault::Transient("the replies do not fit the calls".to_owned()))
        }
        Ok(Ok(replies)) => {
            live.answered();
            replies.into_iter().map(|reply| read(hub, node, reply)).collect()
        }
    }
}

fn read(hub: &Hub, node: &Arc<Node>, reply: Value) -> Reply {
    let Value::ServerError(error) = reply else {
        return Reply::Final(Ok(reply));
    };
    let detail = error.details().unwrap_or_default();
    let fault = Fault::of_reply(error.code(), detail);
    match error.code() {
        "NOSCRIPT" => Reply::NoScript,
        code @ ("MOVED" | "ASK") => {
            let ask = code == "ASK";
            if !ask {
                hub.relayout.notify_one();
            }
            let at = redirected(detail, node);
            Reply::Elsewhere { at, ask, fault }
        }
        // A failover made it a replica; or its connection, or its user, is not what it was.
        "READONLY" | "MASTERDOWN" => {
            node.lose("it became a replica");
            Reply::Final(Err(fault))
        }
        "NOAUTH" => {
            node.lose("it wants a new login");
            Reply::Final(Err(fault))
        }
        "CLUSTERDOWN" => {
            hub.doubt.store(true, Ordering::Relaxed);
            hub.relayout.notify_one();
            Reply::Final(Err(fault))
        }
        _ => Reply::Final(Err(fault)),
    }
}

/// `3999 10.0.0.7:6379`: a slot and where it is. Without a host it is the host that said so.
fn redirected(detail: &str, node: &Node) -> Option<Place> {
    let (_, at) = detail.split_once(' ')?;
    let (host, port) = at.trim().rsplit_once(':')?;
    let host = if host.is_empty() { &node.place.host } else { host };
    Some(Place {
        host: host.to_owned(),
        port: port.parse().ok()?,
    })
}

fn forgotten() -> Fault {
    Fault::Transient("the store forgets its scripts".to_owned())
}
