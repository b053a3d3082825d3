//! The data plane: a proxy that stands beside a workload, or at the edge, and carries its traffic.
//!
//! Why this exists: routing, balancing, retries, identity and figures belong to no application, and cost the least where they
//! are decided once, close to the bytes. What comes in: a [`fairlead_model::Snapshot`], from xDS or a file, and connections.
//! What goes out: the same requests, elsewhere, and figures of them.
//!
//! One worker per core ([`worker`]), each with its own runtime, connections and state, so that no request waits for another
//! core. What is decided is decided in `fairlead_model`; this crate has the sockets. The admin interface has a runtime of its
//! own, so that it answers whatever the workers do.
//!
//! - `access`: who may come in.
//! - [`capture`]: brings a pod's connections here.
//! - [`certificate`]: the certificate as files, for programs that are no proxy.
//! - [`cni`]: has that done where pods may not administer their network.
//! - [`worker`]: listeners, connections, and how a new snapshot is taken.
//! - `http`, `tcp`, `detect`, `proxy_header`: what is spoken by callers.
//! - `upstream`: clusters, pools and connections to endpoints.
//! - [`faults`]: what goes wrong on purpose, and until when.
//! - [`Logs`]: access logs. [`trace`]: the spans of requests. [`overload`]: memory.
//! - [`hand_over`]: another process takes the place of this one.
//! - [`admin`]: what operators see. [`tls`]: both sides' handshakes. [`metrics`]: what is counted.

mod access;
pub mod admin;
mod body;
pub mod capture;
pub mod certificate;
mod clock;
pub mod cni;
pub mod config;
mod core;
mod detect;
mod executor;
pub mod faults;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gather;
pub mod hand_over;
mod http;
mod limit;
mod logs;
pub mod metrics;
pub mod overload;
mod proxy_header;
pub mod service_manager;
pub mod tap;
mod tcp;
pub mod tls;
pub mod trace;
pub mod upkeep;
mod upstream;
pub mod worker;

pub use crate::core::Shared;
pub use crate::logs::Logs;
