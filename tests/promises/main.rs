//! What is promised: through the API and in virtual time, or by what the program and its docs say. One program for all of it, for each
//! would take as long to build as this one.

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod audit;
mod bad_input;
mod docs;
mod door;
mod guarantees;
mod policies;
mod policy_cli;
mod policy_reload;
mod requirements;
mod verbs;
