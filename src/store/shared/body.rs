//! What is written into the store, as messages: fields are added, never renumbered, and what is not set is not written, so that
//! adjacent versions can share a namespace.
//!
//! Moments are microseconds of the bucket's time, durations nanoseconds.

use std::collections::BTreeMap;

/// The part of a record that its script does not read.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Record {
    #[prost(sint64, tag = "1")]
    pub(super) created: i64,
    #[prost(sint64, tag = "2")]
    pub(super) authenticated: i64,
    #[prost(message, required, tag = "3")]
    pub(super) limits: LimitsOf,
    #[prost(uint32, tag = "4")]
    pub(super) extensions: u32,
    #[prost(uint32, tag = "5")]
    pub(super) idle_fired: u32,
    #[prost(uint32, tag = "6")]
    pub(super) absolute_fired: u32,
    #[prost(message, optional, tag = "7")]
    pub(super) extra: Option<Extra>,
}

/// The limits of a session: those of a revision of a policy, kept once for all, and what is its own.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct LimitsOf {
    #[prost(fixed64, tag = "1")]
    pub(super) digest: u64,
    #[prost(uint64, optional, tag = "2")]
    pub(super) own_idle: Option<u64>,
    #[prost(uint64, optional, tag = "3")]
    pub(super) own_absolute: Option<u64>,
    /// The absolute timeout, if it is neither the policy's nor its own.
    #[prost(uint64, optional, tag = "4")]
    pub(super) absolute: Option<u64>,
}

/// What few sessions have.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Extra {
    #[prost(sint64, optional, tag = "1")]
    pub(super) extended_until: Option<i64>,
    #[prost(message, repeated, tag = "2")]
    pub(super) holds: Vec<Hold>,
    #[prost(sint64, optional, tag = "3")]
    pub(super) work_ended: Option<i64>,
    #[prost(sint64, optional, tag = "4")]
    pub(super) budget_from: Option<i64>,
    #[prost(sint64, optional, tag = "5")]
    pub(super) presence_ended: Option<i64>,
    #[prost(bool, tag = "6")]
    pub(super) presence_released: bool,
    #[prost(bool, tag = "7")]
    pub(super) reports_input: bool,
    #[prost(uint64, optional, tag = "8")]
    pub(super) told_idle: Option<u64>,
    #[prost(uint64, optional, tag = "9")]
    pub(super) told_absolute: Option<u64>,
    #[prost(uint32, tag = "10")]
    pub(super) unenforced_limit: u32,
    #[prost(sint64, optional, tag = "11")]
    pub(super) unenforced_at: Option<i64>,
    #[prost(message, repeated, tag = "12")]
    pub(super) requests: Vec<Remembered>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Hold {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(bool, tag = "2")]
    pub(super) presence: bool,
    #[prost(string, tag = "3")]
    pub(super) purpose: String,
    #[prost(sint64, tag = "4")]
    pub(super) started: i64,
    #[prost(sint64, tag = "5")]
    pub(super) until: i64,
    #[prost(uint32, tag = "6")]
    pub(super) renewals: u32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Request {
    #[prost(fixed64, tag = "1")]
    pub(super) key: u64,
    #[prost(fixed64, tag = "2")]
    pub(super) content: u64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Remembered {
    #[prost(message, required, tag = "1")]
    pub(super) request: Request,
    #[prost(sint64, tag = "2")]
    pub(super) at: i64,
    /// 1 created, 2 extended, 3 rotated.
    #[prost(uint32, tag = "3")]
    pub(super) outcome: u32,
    #[prost(uint64, tag = "4")]
    pub(super) granted: u64,
    #[prost(bool, tag = "5")]
    pub(super) clamped: bool,
}

/// Who and what a session is for.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Who {
    #[prost(string, tag = "1")]
    pub(super) tenant: String,
    #[prost(string, tag = "2")]
    pub(super) subject: String,
    #[prost(string, tag = "3")]
    pub(super) level: String,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) predecessor: Vec<u8>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(super) labels: BTreeMap<String, String>,
}

/// How a session ended.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct End {
    #[prost(uint32, tag = "1")]
    pub(super) reason: u32,
    #[prost(uint32, tag = "2")]
    pub(super) actor: u32,
    #[prost(string, tag = "3")]
    pub(super) actor_id: String,
    #[prost(string, tag = "4")]
    pub(super) note: String,
    #[prost(sint64, tag = "5")]
    pub(super) at: i64,
    #[prost(sint64, tag = "6")]
    pub(super) last_activity: i64,
    #[prost(sint64, tag = "7")]
    pub(super) idle_deadline: i64,
    #[prost(uint32, tag = "8")]
    pub(super) extensions: u32,
    #[prost(sint64, tag = "9")]
    pub(super) forget_at: i64,
    #[prost(message, optional, tag = "10")]
    pub(super) successor: Option<Succession>,
    #[prost(message, optional, tag = "11")]
    pub(super) request: Option<Request>,
    #[prost(bool, tag = "12")]
    pub(super) silent: bool,
    #[prost(uint32, tag = "13")]
    pub(super) version: u32,
    #[prost(sint64, tag = "14")]
    pub(super) created: i64,
    #[prost(sint64, tag = "15")]
    pub(super) authenticated: i64,
    #[prost(message, required, tag = "16")]
    pub(super) limits: LimitsOf,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Succession {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) reference: Vec<u8>,
    #[prost(sint64, tag = "2")]
    pub(super) alias_until: i64,
    #[prost(bool, tag = "3")]
    pub(super) reauthenticated: bool,
}

/// What is to be done before a session is an ordinary one, by whoever looks at it.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Duties {
    /// The session that must have been rotated into this one before it is live.
    #[prost(bytes = "vec", tag = "1")]
    pub(super) predecessor: Vec<u8>,
    /// When it was written.
    #[prost(sint64, tag = "2")]
    pub(super) since: i64,
    /// Sessions that must end because this one begins.
    #[prost(bytes = "vec", repeated, tag = "3")]
    pub(super) supersedes: Vec<Vec<u8>>,
    /// The flags of its pulse once it is live.
    #[prost(uint32, tag = "4")]
    pub(super) flags: u32,
    /// When to look at it once it is live.
    #[prost(sint64, tag = "5")]
    pub(super) next_action: i64,
    /// For how many milliseconds to keep it.
    #[prost(uint64, tag = "6")]
    pub(super) keep: u64,
}

/// Events that wait until a session is live.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Waiting {
    #[prost(message, repeated, tag = "1")]
    pub(super) events: Vec<WaitingEvent>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct WaitingEvent {
    #[prost(uint32, tag = "1")]
    pub(super) place: u32,
    #[prost(message, required, tag = "2")]
    pub(super) event: Event,
}

/// What happened to a session.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Event {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) reference: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(super) version: u32,
    #[prost(sint64, tag = "3")]
    pub(super) at: i64,
    /// Left out where only the version matters.
    #[prost(message, optional, tag = "4")]
    pub(super) who: Option<Who>,
    /// An event of another bucket that comes before this one.
    #[prost(message, optional, tag = "5")]
    pub(super) after: Option<After>,
    #[prost(oneof = "What", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18")]
    pub(super) what: Option<What>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct After {
    #[prost(uint32, tag = "1")]
    pub(super) bucket: u32,
    #[prost(uint64, tag = "2")]
    pub(super) number: u64,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum What {
    #[prost(message, tag = "10")]
    Warning(Warning),
    #[prost(message, tag = "11")]
    Cleared(Cleared),
    #[prost(message, boxed, tag = "12")]
    Succeeded(Box<Succeeded>),
    #[prost(message, boxed, tag = "13")]
    Ended(Box<End>),
    #[prost(message, tag = "14")]
    Extended(Extended),
    #[prost(message, tag = "15")]
    HoldStarted(Hold),
    #[prost(message, tag = "16")]
    HoldEnded(HoldEnded),
    #[prost(uint64, tag = "17")]
    PolicyAdopted(u64),
    #[prost(message, tag = "18")]
    UnenforcedEnd(UnenforcedEnd),
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Warning {
    #[prost(uint32, tag = "1")]
    pub(super) limit: u32,
    #[prost(uint64, tag = "2")]
    pub(super) point: u64,
    #[prost(sint64, tag = "3")]
    pub(super) expire: i64,
    #[prost(bool, tag = "4")]
    pub(super) can_extend: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Cleared {
    #[prost(uint32, tag = "1")]
    pub(super) limit: u32,
    #[prost(uint32, tag = "2")]
    pub(super) cause: u32,
    #[prost(sint64, tag = "3")]
    pub(super) expire: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Succeeded {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) predecessor: Vec<u8>,
    #[prost(message, required, tag = "2")]
    pub(super) record: Record,
    #[prost(sint64, tag = "3")]
    pub(super) last_activity: i64,
    #[prost(uint32, tag = "4")]
    pub(super) version: u32,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Extended {
    #[prost(uint64, tag = "1")]
    pub(super) granted: u64,
    #[prost(bool, tag = "2")]
    pub(super) clamped: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HoldEnded {
    #[prost(message, required, tag = "1")]
    pub(super) hold: Hold,
    #[prost(sint64, tag = "2")]
    pub(super) at: i64,
    #[prost(bool, tag = "3")]
    pub(super) released: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct UnenforcedEnd {
    #[prost(uint32, tag = "1")]
    pub(super) limit: u32,
    #[prost(sint64, tag = "2")]
    pub(super) at: i64,
}

/// The limits of a revision of a policy.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Limits {
    #[prost(string, tag = "1")]
    pub(super) policy: String,
    #[prost(uint64, tag = "2")]
    pub(super) revision: u64,
    #[prost(uint64, tag = "3")]
    pub(super) idle_timeout: u64,
    #[prost(uint64, tag = "4")]
    pub(super) absolute_timeout: u64,
    #[prost(uint64, repeated, tag = "5")]
    pub(super) idle_points: Vec<u64>,
    #[prost(uint64, repeated, tag = "6")]
    pub(super) absolute_points: Vec<u64>,
    #[prost(bool, tag = "7")]
    pub(super) unmatched_counts: bool,
    #[prost(message, repeated, tag = "8")]
    pub(super) rules: Vec<Rule>,
    #[prost(uint32, optional, tag = "9")]
    pub(super) max_extensions: Option<u32>,
    #[prost(uint64, tag = "10")]
    pub(super) tombstone_ttl: u64,
    #[prost(uint64, tag = "11")]
    pub(super) work_max_ttl: u64,
    #[prost(uint64, tag = "12")]
    pub(super) work_budget: u64,
    #[prost(uint32, tag = "13")]
    pub(super) work_max_live: u32,
    #[prost(message, optional, tag = "14")]
    pub(super) presence: Option<Presence>,
    #[prost(bool, tag = "15")]
    pub(super) passive: bool,
    #[prost(bool, tag = "16")]
    pub(super) at_most: bool,
    #[prost(bool, tag = "17")]
    pub(super) observed_only: bool,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(super) struct Presence {
    #[prost(uint64, tag = "1")]
    pub(super) leave_grace: u64,
    #[prost(uint64, tag = "2")]
    pub(super) lost_grace: u64,
    #[prost(uint64, tag = "3")]
    pub(super) max_ttl: u64,
    #[prost(uint32, tag = "4")]
    pub(super) max_live: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Rule {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(bool, tag = "2")]
    pub(super) counts: bool,
    /// 1 user, 2 background.
    #[prost(uint32, tag = "3")]
    pub(super) kind: u32,
    /// 1 visible, 2 hidden.
    #[prost(uint32, tag = "4")]
    pub(super) visibility: u32,
    #[prost(string, repeated, tag = "5")]
    pub(super) method: Vec<String>,
    #[prost(string, repeated, tag = "6")]
    pub(super) sec_fetch_user: Vec<String>,
    #[prost(string, repeated, tag = "7")]
    pub(super) sec_fetch_mode: Vec<String>,
    #[prost(string, repeated, tag = "8")]
    pub(super) sec_fetch_dest: Vec<String>,
    #[prost(string, repeated, tag = "9")]
    pub(super) sec_purpose: Vec<String>,
    #[prost(string, repeated, tag = "10")]
    pub(super) host: Vec<String>,
    #[prost(string, repeated, tag = "11")]
    pub(super) path: Vec<String>,
}
