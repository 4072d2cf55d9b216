//! The scripts. What each does, with its keys, arguments and reply, stands at the top of its file.

use super::link::Script;

/// A script that is made of these files.
macro_rules! script {
    ($name:literal, $flags:literal, $($file:literal),+) => {
        Script::new($name, concat!("#!lua", $flags, "\n", $(include_str!($file)),+))
    };
}

/// A script of a bucket: what time it is there stands before it.
macro_rules! of_bucket {
    ($name:literal, $flags:literal, $($file:literal),+) => {
        script!($name, $flags, "scripts/time.lua", "scripts/one.lua", $($file),+)
    };
}

// Without a flag a script is refused when the store is full: only what makes it fuller may be. No-writes ones also run then.
pub(super) static BEAT: Script = script!("beat", " flags=no-writes", "scripts/time.lua", "scripts/beat.lua");
pub(super) static READ: Script = of_bucket!("read", " flags=no-writes", "scripts/read.lua");
pub(super) static RAISE: Script = of_bucket!("raise", " flags=allow-oom", "scripts/counts.lua", "scripts/raise.lua");
pub(super) static COMMIT: Script = of_bucket!("commit", " flags=allow-oom", "scripts/write.lua", "scripts/commit.lua");
pub(super) static CREATE: Script = of_bucket!("create", "", "scripts/write.lua", "scripts/commit.lua");
pub(super) static DROP: Script = of_bucket!("drop", " flags=allow-oom", "scripts/drop.lua");
pub(super) static REARM: Script = of_bucket!("rearm", " flags=allow-oom", "scripts/rearm.lua");
pub(super) static DUE: Script = of_bucket!("due", " flags=allow-oom", "scripts/due.lua");
pub(super) static CORRECT: Script = of_bucket!("correct", " flags=allow-oom", "scripts/correct.lua");
pub(super) static TALLY: Script = of_bucket!("tally", " flags=allow-oom", "scripts/counts.lua", "scripts/tally.lua");
pub(super) static OPEN: Script = of_bucket!("open", " flags=allow-oom", "scripts/open.lua");
pub(super) static RESTORE: Script = of_bucket!(
    "restore",
    " flags=allow-oom",
    "scripts/write.lua",
    "scripts/restore.lua"
);
pub(super) static RETOUCH: Script = of_bucket!("retouch", " flags=allow-oom", "scripts/retouch.lua");
pub(super) static ANEW: Script = of_bucket!("anew", " flags=allow-oom", "scripts/anew.lua");
pub(super) static PRESENCE: Script = script!("presence", " flags=allow-oom", "scripts/presence.lua");
pub(super) static JOIN: Script = script!("join", " flags=allow-oom", "scripts/join.lua");
pub(super) static REKEY: Script = script!("rekey", " flags=allow-oom", "scripts/rekey.lua");
pub(super) static UPGRADE: Script = script!("upgrade", " flags=allow-oom", "scripts/upgrade.lua");
pub(super) static CLAIM: Script = script!("claim", " flags=allow-oom", "scripts/claim.lua");
pub(super) static LIMITS: Script = script!("limits", " flags=allow-oom", "scripts/limits.lua");
pub(super) static POLICIES: Script = script!("policies", " flags=allow-oom", "scripts/policies.lua");
pub(super) static SUBJECT: Script = script!("subject", "", "scripts/subject.lua");
pub(super) static LISTED: Script = script!("listed", " flags=no-writes", "scripts/listed.lua");

/// All of them, for tests.
#[cfg(test)]
pub(super) static ALL: [&Script; 23] = [
    &BEAT, &READ, &RAISE, &COMMIT, &CREATE, &DROP, &REARM, &DUE, &CORRECT, &TALLY, &OPEN, &RESTORE, &RETOUCH, &ANEW,
    &PRESENCE, &JOIN, &REKEY, &UPGRADE, &CLAIM, &LIMITS, &POLICIES, &SUBJECT, &LISTED,
];
