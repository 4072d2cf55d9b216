//! What is asked of the store: a script with its keys and arguments.

use std::sync::OnceLock;

use redis::Cmd;

/// A Lua script.
#[derive(Debug)]
pub struct Script {
    /// What metrics call it.
    pub name: &'static str,
    /// All of it, with its shebang.
    pub source: &'static str,
    sha: OnceLock<String>,
}

impl Script {
    /// A script of that name and source.
    #[must_use]
    pub const fn new(name: &'static str, source: &'static str) -> Self {
        Self {
            name,
            source,
            sha: OnceLock::new(),
        }
    }

    /// What the server calls it.
    pub(super) fn sha(&self) -> &str {
        self.sha
            .get_or_init(|| redis::Script::new(self.source).get_hash().to_owned())
    }
}

/// One call of a script.
#[derive(Debug, Clone)]
pub struct Call {
    /// The script.
    pub script: &'static Script,
    /// Its keys. The first one says which server of a cluster is asked; the others must be in the same slot.
    pub keys: Vec<Vec<u8>>,
    /// Its arguments.
    pub args: Vec<Vec<u8>>,
}

impl Call {
    /// The call by the script's hash, which the server knows once it has seen the script.
    pub(super) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", self.script.sha())
    }

    /// The call with the script itself, which makes the server remember it.
    pub(super) fn by_source(&self) -> Cmd {
        self.command("EVAL", self.script.source)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = Cmd::new();
        command.arg(name).arg(script).arg(self.keys.len());
        for word in self.keys.iter().chain(&self.args) {
            command.arg(word.as_slice());
        }
        command
    }
}
