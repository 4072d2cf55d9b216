//! The scripts. What each does, with its keys, arguments and reply, stands at the top of its file.

use super::link::Script;

/// A script of buckets, which turns to each itself: what time it is in one stands before it.
macro_rules! of_buckets {
    ($name:literal, $flags:literal, $file:literal) => {
        Script::new(
            $name,
            concat!(
                "#!lua",
                $flags,
                "\n",
                include_str!("scripts/time.lua"),
                include_str!($file)
            ),
        )
    };
}

/// A script of a bucket: what time it is there stands before it.
macro_rules! of_bucket {
    ($name:literal, $flags:literal, $file:literal) => {
        Script::new(
            $name,
            concat!(
                "#!lua",
                $flags,
                "\n",
                include_str!("scripts/time.lua"),
                include_str!("scripts/one.lua"),
                include_str!($file)
            ),
        )
    };
}

/// A script that writes a record: what all of them do stands before it too.
macro_rules! of_record {
    ($name:literal, $flags:literal, $file:literal) => {
        Script::new(
            $name,
            concat!(
                "#!lua",
                $flags,
                "\n",
                include_str!("scripts/time.lua"),
                include_str!("scripts/one.lua"),
                include_str!("scripts/write.lua"),
                include_str!($file)
            ),
        )
    };
}

/// A script of the namespace or of a subject's list.
macro_rules! alone {
    ($name:literal, $flags:literal, $file:literal) => {
        Script::new($name, concat!("#!lua", $flags, "\n", include_str!($file)))
    };
}

// Without a flag a script is refused when the store is full: only what makes it fuller may be. No-writes ones also run then.
pub(super) static BEAT: Script = of_buckets!("beat", " flags=no-writes", "scripts/beat.lua");
pub(super) static READ: Script = of_bucket!("read", " flags=no-writes", "scripts/read.lua");
pub(super) static RAISE: Script = of_bucket!("raise", " flags=allow-oom", "scripts/raise.lua");
pub(super) static COMMIT: Script = of_record!("commit", " flags=allow-oom", "scripts/commit.lua");
pub(super) static CREATE: Script = of_record!("create", "", "scripts/commit.lua");
pub(super) static DROP: Script = of_bucket!("drop", " flags=allow-oom", "scripts/drop.lua");
pub(super) static REARM: Script = of_bucket!("rearm", " flags=allow-oom", "scripts/rearm.lua");
pub(super) static DUE: Script = of_bucket!("due", " flags=allow-oom", "scripts/due.lua");
pub(super) static CORRECT: Script = of_bucket!("correct", " flags=allow-oom", "scripts/correct.lua");
pub(super) static TALLY: Script = of_bucket!("tally", " flags=allow-oom", "scripts/tally.lua");
pub(super) static OPEN: Script = of_bucket!("open", " flags=allow-oom", "scripts/open.lua");
pub(super) static RESTORE: Script = of_record!("restore", " flags=allow-oom", "scripts/restore.lua");
pub(super) static RETOUCH: Script = of_bucket!("retouch", " flags=allow-oom", "scripts/retouch.lua");
pub(super) static ANEW: Script = of_bucket!("anew", " flags=allow-oom", "scripts/anew.lua");
pub(super) static PRESENCE: Script = alone!("presence", " flags=allow-oom", "scripts/presence.lua");
pub(super) static JOIN: Script = alone!("join", " flags=allow-oom", "scripts/join.lua");
pub(super) static REKEY: Script = alone!("rekey", " flags=allow-oom", "scripts/rekey.lua");
pub(super) static CLAIM: Script = alone!("claim", " flags=allow-oom", "scripts/claim.lua");
pub(super) static LIMITS: Script = alone!("limits", " flags=allow-oom", "scripts/limits.lua");
pub(super) static POLICIES: Script = alone!("policies", " flags=allow-oom", "scripts/policies.lua");
pub(super) static SUBJECT: Script = alone!("subject", "", "scripts/subject.lua");
pub(super) static LISTED: Script = alone!("listed", " flags=no-writes", "scripts/listed.lua");

/// All of them, for tests.
#[cfg(test)]
pub(super) static ALL: [&Script; 22] = [
    &BEAT, &READ, &RAISE, &COMMIT, &CREATE, &DROP, &REARM, &DUE, &CORRECT, &TALLY, &OPEN, &RESTORE, &RETOUCH, &ANEW,
    &PRESENCE, &JOIN, &REKEY, &CLAIM, &LIMITS, &POLICIES, &SUBJECT, &LISTED,
];
