//! The mesh control plane: who everybody is, where everything goes, and how it goes.
//!
//! What comes in: services, endpoints and pods of the cluster, requests of proxies for certificates, and what they count. What goes
//! out: Envoy's resources over the aggregated discovery service, certificates, and live figures. Every replica serves all of it
//! from its own watches; nothing is kept but the authority's keys, in a Secret. Proxies keep what they were told for as long as
//! no replica is there.

mod audits;
pub mod authority;
pub mod compile;
pub mod facts;
mod feed;
pub mod figures;
mod lead;
pub mod metrics;
mod missed;
mod misused;
mod refusals;
mod run;
pub mod serve;
mod told;
mod trust;
mod uncaptured;

pub use run::{Config, RunError, run};
