//! Builders and a simulator for tests.
//!
//! [`builders`] make Fairlead's objects in a line; [`store`] is an API server in memory, with the controllers of Kubernetes
//! that matter here; [`api`] serves it over HTTP; [`sim`] runs the plans of every kind against it, with faults, and watches what must never happen.
//! Everything follows from a seed: the same seed gives the same run.

pub mod api;
pub mod builders;
pub mod rng;
pub mod sim;
pub mod store;
