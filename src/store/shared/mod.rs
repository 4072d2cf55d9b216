//! The store that many sidecars share, over Redis or Valkey.

pub mod link;
