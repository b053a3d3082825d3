//! Envoy's resources as the traffic model's own types.
//!
//! Why this exists: a proxy is told what to do in Envoy's resources, whichever way they come; what it decides from is
//! [`fairlead_model`]. This crate is the only place that knows both. What comes in: the JSON form of Envoy's v3 API
//! (<https://protobuf.dev/programming-guides/json/>; YAML is the same), with field names in either case. What goes out: a
//! [`Bootstrap`], or an error that names the field by its path, what was found, and what is allowed.
//!
//! Everything is read strictly: a field that is not known or not supported is an error, since a proxy that ignores half of its
//! policy is worse than one that refuses it. Fields that change nothing here are listed where they are read, and accepted.

mod access_log;
mod balancing;
mod bootstrap;
mod cluster;
mod datagrams;
pub mod discovery;
mod dynamic;
mod edge;
mod egress;
mod endpoint;
mod field;
pub mod figures;
mod filter;
mod grpc;
mod headers;
mod health;
mod http_manager;
pub mod identity;
mod inspected;
mod kind;
mod listener;
mod matching;
pub mod metrics_service;
mod names;
mod options;
mod overload;
#[cfg(feature = "grpc")]
pub mod raw;
mod redact;
mod resource;
mod route;
pub mod serve;
mod session;
mod shapes;
mod sinks;
mod tap;
mod tls;
mod tracing;
pub mod write;

pub use bootstrap::{Bootstrap, Dynamic, bootstrap};
pub use field::ConfigError;
pub use kind::Kind;
pub use session::{Entry, Kept, Ledger, Outside, Refusal, Session, SessionError, Stamp, Step};
pub use shapes::{ShapeError, Shapes};
pub use sinks::{Sink, Sinks};
pub use tap::{tap, watched};

use std::io;
use std::path::Path;

/// Reads a file that the configuration names.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;
