//! The effect half of every kind: one harness that watches, passes, writes and reports, for all kinds alike.
//!
//! ```text
//! feed (watches) ──▶ Cache ──▶ triggers ──▶ queue ──▶ harness::pass ──▶ API server
//! ```
//!
//! What to do is decided in [`fairlead_plan`]; nothing here knows a kind by name. Only the leader ([`lease`]) passes and writes;
//! replicas that stand by keep their caches warm.

pub mod admin;
mod certificates;
pub mod client;
mod config;
pub mod exposition;
pub mod feed;
mod harness;
pub mod https;
pub mod lease;
mod listen;
pub mod metrics;
mod queue;
mod run;
pub mod telemetry;
mod unreadable;
mod world;

pub use config::Config;
pub use listen::listen;
pub use run::{RunError, run, run_with};
