//! Holds: leases on a session, renewed by pulses.

use std::time::Duration;

use crate::time::Time;

/// What a hold is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldKind {
    /// Long work without requests: inactivity does not end the session meanwhile.
    Work,
    /// An open page.
    Presence,
}

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its owner's id of it.
    pub id: Box<str>,
    /// What it is for.
    pub kind: HoldKind,
    /// Why, for people.
    pub purpose: Box<str>,
    /// When it was first granted.
    pub started: Time,
    /// When it lapses.
    pub until: Time,
    /// How often it was renewed.
    pub renewals: u32,
}

/// What a Hold asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldWish {
    /// The owner's id of it.
    pub id: Box<str>,
    /// What it is for.
    pub kind: HoldKind,
    /// How long from now.
    pub ttl: Duration,
    /// Why, for people; a renewal may leave it out.
    pub purpose: Box<str>,
}

/// What cut a TTL short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clamp {
    /// The policy's longest TTL.
    MaxTtl,
    /// The policy's budget of WORK.
    Budget,
    /// The absolute deadline.
    Absolute,
}

/// How the last open page went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresenceEnd {
    /// When.
    pub at: Time,
    /// Whether it was left; else it was lost sight of.
    pub released: bool,
}
