//! What the shared store is asked through: in production a [`Link`]; in tests one whose server lives in virtual time.

use std::collections::BTreeSet;

use async_trait::async_trait;
use redis::{Cmd, Value};
use tokio::sync::watch;

use super::link::{Call, Fault, Link, Server, Status};

/// Asks the store. Each question is answered or fails within a bounded time.
#[async_trait]
pub trait Wire: Send + Sync {
    /// Calls a script.
    async fn call(&self, call: Call) -> Result<Value, Fault>;

    /// Calls several scripts at once, and answers in their order; an error of one is only that one's.
    async fn calls(&self, calls: Vec<Call>) -> Vec<Result<Value, Fault>>;

    /// Sends a command to the server that is responsible for a key.
    async fn command(&self, key: &[u8], command: Cmd) -> Result<Value, Fault>;

    /// Whether it is a cluster, where keys of one call must share a slot.
    fn is_cluster(&self) -> bool;

    /// Whether the store is there, and whenever that changes.
    fn status(&self) -> watch::Receiver<Status>;

    /// Which server is responsible for a key, if it is connected.
    fn server(&self, key: &[u8]) -> Option<Server>;

    /// From now on only these servers are asked, and others only where [`super::link::GETS_TO_KNOW`] is set.
    fn admit(&self, servers: BTreeSet<String>);
}

#[async_trait]
impl Wire for Link {
    async fn call(&self, call: Call) -> Result<Value, Fault> {
        Self::call(self, call).await
    }

    async fn calls(&self, calls: Vec<Call>) -> Vec<Result<Value, Fault>> {
        Self::calls(self, calls).await
    }

    async fn command(&self, key: &[u8], command: Cmd) -> Result<Value, Fault> {
        Self::command(self, key, command).await
    }

    fn is_cluster(&self) -> bool {
        Self::is_cluster(self)
    }

    fn status(&self) -> watch::Receiver<Status> {
        Self::status(self)
    }

    fn server(&self, key: &[u8]) -> Option<Server> {
        Self::server(self, key)
    }

    fn admit(&self, servers: BTreeSet<String>) {
        Self::admit(self, servers);
    }
}
