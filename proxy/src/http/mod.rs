//! HTTP: what becomes of a request from its head to the end of its answer.
//!
//! [`activity`] knows what moves on a caller's connection; [`service`] takes a request, finds its route ([`way`]), and answers or forwards it; [`edge`] puts right what is said of its
//! caller; [`filter`] does what the listener's filters ask; [`aim`] finds out where it goes, [`affinity`] what keeps it with one endpoint; [`target`] keeps that, and how long it may take;
//! [`forward`] makes a try, [`retry`] more of them, [`hedge`] one beside another; [`answer`] is the body
//! on its way back, which counts when it ends; [`respond`] writes the proxy's own answers, and [`errand`] makes requests of its own; [`record`] keeps what
//! is asked for of a request, [`view`] names it, and [`watched`] sees its answer end; [`fields`] holds the rules for
//! headers that concern one connection only; [`mirror`] sends copies; [`tapped`] gathers what viewers see; [`tunnel`] joins two connections after an upgrade or CONNECT.

mod acting;
mod activity;
mod affinity;
mod aim;
mod answer;
mod attempt;
mod edge;
mod errand;
#[cfg(not(feature = "fuzzing"))]
mod fields;
#[cfg(feature = "fuzzing")]
pub(crate) mod fields;
mod filter;
mod forward;
mod hedge;
mod mirror;
mod record;
mod respond;
mod retry;
mod service;
mod tapped;
mod target;
mod tunnel;
mod view;
mod watched;
mod way;

pub(crate) use acting::Acting;
pub(crate) use errand::Errands;
pub(crate) use filter::{Found, KeySets, Limiters, Verifiers};
pub(crate) use hedge::Hedging;
pub(crate) use mirror::{Copies, DarkRoutes};
pub(crate) use record::{Record, Watching};
pub(crate) use service::{Connection, HttpService};
pub(crate) use view::{endpoint_value, flags, of_connection, socket};
