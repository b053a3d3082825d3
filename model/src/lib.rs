//! The traffic domain, without a network: what a proxy is told (a [`Snapshot`]) and what it decides from that.
//!
//! Why this exists: routing, balancing, breaking and budgets are where a data plane is right or wrong, so they are
//! functions of (state, event, [`Moment`]) here, tested without sockets or clocks. Time, randomness and addresses come in
//! as arguments.
//!
//! What comes in: a [`Snapshot`] (made by `xds/` from Envoy's types, or by the mesh control plane), the head of a request,
//! and what became of earlier requests. What goes out: the route of a request, the endpoint of a try, whether to try again,
//! and when an endpoint rests.
//!
//! - [`snapshot`], [`listener`] with its [`chains`], [`cluster`], [`tls`]: what a proxy is told.
//! - [`route`]: hosts, matches and what becomes of a request.
//! - [`balance`]: which endpoint; [`breaker`]: which endpoints rest; [`limits`]: how much at once; [`overload`]: what is
//!   given up for want of memory.
//! - [`class`], [`retry`], [`hedge`], [`budget`], [`deadline`]: what an answer means, and whether and how long to try.
//! - [`mod@format`]: texts made from what is known of a request; [`log`]: access logs made of them.
//! - [`edge`]: what endpoints are told of callers. [`trace`]: the traces that requests belong to.
//! - [`egress`]: ways out to whoever a request names.
//! - [`tap`]: which requests somebody watches live.
//! - [`filter`]: what is done with a request on its way: authorization, rate limits, faults on purpose, CORS.
//! - [`warm`]: what is used until the next is ready. [`share`]: choice by weight. [`identity`]: names of workloads.
//! - [`fault`]: what the proxy says when it answers itself.

pub mod balance;
pub mod breaker;
pub mod budget;
pub mod chains;
pub mod class;
pub mod cluster;
pub mod deadline;
pub mod edge;
pub mod egress;
pub mod fault;
pub mod filter;
pub mod format;
pub mod health;
pub mod hedge;
pub mod identity;
pub mod latency;
pub mod limits;
pub mod listener;
pub mod live;
pub mod log;
mod moment;
pub mod overload;
mod pattern;
pub mod retry;
pub mod route;
pub mod share;
pub mod snapshot;
pub mod tap;
pub mod tls;
pub mod trace;
pub mod warm;

pub use moment::Moment;
pub use pattern::{Pattern, PatternError, TextMatch};
pub use snapshot::Snapshot;
