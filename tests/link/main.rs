//! The wire to a shared store, against real servers that are killed, frozen, failed over and resharded.

#[path = "../support/servers.rs"]
mod servers;

mod calls;
mod channels;
mod cluster;
mod fitness;
mod outages;
mod sentinel;
mod tls;

use std::{sync::Arc, time::Duration};

use redis::Value;
use servers::{PATIENCE, wait_for};
use session_sidecar::store::shared::link::{Call, Fault, GETS_TO_KNOW, Link, Poke, Script, Settings, Status};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// Adds one to the key and answers the sum.
static COUNT: Script = Script::new("count", "#!lua\nreturn redis.call('INCR', KEYS[1])");
/// Answers its first argument.
static ECHO: Script = Script::new("echo", "#!lua flags=no-writes\nreturn ARGV[1]");
/// Fails, always.
static FAIL: Script = Script::new("fail", "#!lua\nreturn redis.error_reply('SOUR grapes')");
/// Publishes its first argument on the channel of its first key.
static SHOUT: Script = Script::new("shout", "#!lua\nreturn redis.call('SPUBLISH', KEYS[1], ARGV[1])");

/// A link that runs, and what it hears. The link is gone with it.
struct Running {
    link: Arc<Link>,
    status: watch::Receiver<Status>,
    pokes: mpsc::UnboundedReceiver<Poke>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn settings(url: &str) -> Settings {
    Settings {
        address: url.parse().expect("an address"),
        password: None,
        sentinel_password: None,
        ca: None,
        // Where time is not what is tested, a busy machine should not matter.
        timeout: Duration::from_secs(5),
    }
}

fn link(settings: Settings, channels: &[&str]) -> Running {
    let (sender, pokes) = mpsc::unbounded_channel();
    let channels = channels.iter().map(|channel| channel.as_bytes().to_vec()).collect();
    let link = Link::new(settings, channels, sender);
    Running {
        status: link.status(),
        task: tokio::spawn(Arc::clone(&link).run()),
        link,
        pokes,
    }
}

impl Running {
    /// Waits until the store is there, and tells the generation.
    async fn up(&mut self) -> u64 {
        self.after(0).await
    }

    /// Waits until the store is there in a later generation than this.
    async fn after(&mut self, past: u64) -> u64 {
        let up = |status: &Status| matches!(status, Status::Up { generation, .. } if *generation > past);
        let status = tokio::time::timeout(PATIENCE, self.status.wait_for(up)).await;
        match &*status.expect("the store comes up").expect("the link lives") {
            Status::Up { generation, .. } => *generation,
            Status::Down { why } => panic!("{why}"),
        }
    }

    /// Waits until the store is away, and tells why.
    async fn down(&mut self) -> String {
        let down = |status: &Status| matches!(status, Status::Down { .. });
        let status = tokio::time::timeout(PATIENCE, self.status.wait_for(down)).await;
        match &*status.expect("the store goes down").expect("the link lives") {
            Status::Down { why } => why.clone(),
            Status::Up { .. } => panic!("it is up"),
        }
    }

    /// Asks until there is an answer that does not ask to try again.
    async fn answer(&self, call: impl Fn() -> Call) -> Result<Value, Fault> {
        let answered = async {
            loop {
                match self.link.call(call()).await {
                    Err(fault) if fault.is_transient() => tokio::time::sleep(Duration::from_millis(10)).await,
                    answer => return answer,
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("an answer")
    }

    /// Waits for a message that `wanted` wants.
    async fn hear(&mut self, wanted: impl Fn(&Poke) -> bool) {
        let heard = async { while !wanted(&self.pokes.recv().await.expect("the link lives")) {} };
        tokio::time::timeout(PATIENCE, heard).await.expect("a message");
    }

    /// Publishes on a channel until it is heard: what is published while nobody listens is lost.
    async fn heard_on(&mut self, channel: &str) {
        let payload = format!("on {channel}");
        let is_it = |poke: &Poke| *poke == message(channel, &payload);
        let heard = async {
            loop {
                let _ = self.link.call(call(&SHOUT, channel, &payload)).await;
                while let Ok(Some(poke)) = tokio::time::timeout(Duration::from_millis(100), self.pokes.recv()).await {
                    if is_it(&poke) {
                        return;
                    }
                }
            }
        };
        if tokio::time::timeout(PATIENCE, heard).await.is_err() {
            panic!("nothing is heard on {channel}");
        }
    }
}

fn call(script: &'static Script, key: &str, arg: &str) -> Call {
    Call {
        script,
        keys: vec![key.into()],
        args: vec![arg.into()],
    }
}

fn message(channel: &str, payload: &str) -> Poke {
    Poke::Message {
        channel: channel.into(),
        payload: payload.into(),
    }
}

fn text(text: &str) -> Result<Value, Fault> {
    Ok(Value::BulkString(text.into()))
}
