//! The session-sidecar program.
fn main(){}
