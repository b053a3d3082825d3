//! The pure half of every kind: what to check, what to decide, what to build and what to report.
//!
//! Nothing here awaits, reads a clock, rolls dice or talks to an API server: facts come in as arguments, and what comes
//! out is data. So the operator, the webhook, the command line and the simulator run the very same code.
//!
//! ```text
//! object ──validate──▶ Valid ─┐
//! cache ───observe───▶ Seen ──┼──plan──▶ Plan (changes, wake) ──apply (operator)──▶ Outcome ──report──▶ status, events
//! API ─────reads─────▶ Live ──┘
//! ```
//!
//! [`kind::Kind`] is the shape; [`registry`] lists all kinds; [`platform`] and [`install`] hold them by area;
//! [`mesh`] gives pods their proxies.

pub mod admission;
pub mod cache;
pub mod change;
pub mod conditions;
pub mod install;
pub mod kind;
pub mod live;
pub mod mesh;
pub mod names;
pub mod objects;
pub mod platform;
pub mod problem;
pub mod readiness;
pub mod registry;
pub mod report;
pub mod rights;
pub mod view;

pub use cache::{Cache, Event, KindName, ObjectId};
pub use change::{Body, Change, Plan, Verb};
pub use kind::{Child, Context, Kind, Next, Outcome, Planned, Teardown};
pub use live::{Live, ObjectKey, Read};
pub use problem::{Class, Invalid, Problem};
