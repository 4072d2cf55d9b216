//! session-sidecar judges the time of web sessions: it never ends one early, pushes a warning before the end, and says why it
//! ended. See the README for what it is and `docs/architecture.md` for how it is built.

pub mod admin;
pub mod app;
pub mod audit;
pub mod cli;
pub mod compliance;
pub mod config;
pub mod door;
pub mod driver;
pub mod event;
mod files;
pub mod huge_pages;
mod net;
pub mod reload;
pub mod rpc;
pub mod sabotage;
pub mod sessions;
pub mod state;
pub mod store;
mod sync;
pub mod telemetry;
pub mod time;
pub mod timeline;
