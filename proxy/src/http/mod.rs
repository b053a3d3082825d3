//! HTTP: what becomes of a request from its head to the end of its answer.
//!
//! [`service`] takes a request, finds its route, and answers or forwards it; [`aim`] finds out where it goes; [`forward`] makes the tries; [`answer`] is the body
//! on its way back, which counts when it ends; [`respond`] writes the proxy's own answers; [`fields`] holds the rules for
//! headers that concern one connection only; [`tunnel`] joins two connections after an upgrade or CONNECT.

mod aim;
mod answer;
mod attempt;
mod fields;
mod forward;
mod respond;
mod service;
mod tunnel;

pub(crate) use service::{Connection, HttpService};
