//! What the verbs do, through the API and in virtual time: the rules that must not be guessed.

mod basic;
mod holds;
mod observed;
mod presence;
mod reload;
mod rotate;
mod rotate_alias;
mod rotate_retries;
mod rotate_watch;
mod rules;
mod subject_cap;
