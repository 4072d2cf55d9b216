//! What a session is and what may become of it: pure, without clock, locks or I/O.
//!
//! A record is a [`Pulse`] (one word: last activity and three flags) and a [`Rest`]. [`machine::decide`] takes a record, a
//! command and the moment, and answers the record after it and what happened. Nothing else changes a record, except that the
//! hot path raises a pulse by the same [`Pulse::touch`] that the machine calls.

pub mod end;
pub mod happening;
pub mod hold;
pub mod identity;
pub mod machine;
pub mod name;
pub mod policy;
pub mod pulse;
pub mod record;
pub mod rules;
pub mod view;

pub use end::{Actor, End, EndReason, Succession, Tombstone};
pub use happening::{Cause, Happening};
pub use hold::{Clamp, Hold, HoldKind, HoldWish, PresenceEnd};
pub use identity::Identity;
pub use machine::{Command, Decision, Next, Refusal, Reply, Rotation, Successor, decide};
pub use name::{Keys, SessionRef};
pub use policy::{AtSubjectCap, Limits, Policy, PresenceLimits, Superseded, WorkLimits};
pub use pulse::{Pulse, Touched};
pub use record::{Asked, Extra, Fired, Limit, Moment, Origin, Outcome, Recalled, Remembered, RequestId, Rest};
pub use rules::{Activity, Hints, OneOf, Pattern, Rule, RuleName, Rules, Unmatched, Verdict, Visibility, When, Word};
pub use view::{Deadlines, Outlook, Record, View};
