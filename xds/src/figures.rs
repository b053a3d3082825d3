//! The messages of live figures (`fairlead.mesh.v1.Figures`), for the control plane and whoever asks it.

use prost::{Enumeration, Message};

/// The call.
pub const TOP: &str = "/fairlead.mesh.v1.Figures/Top";

/// `fairlead.mesh.v1.TopRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct TopRequest {
    /// How far back, in seconds; 30 where it is 0.
    #[prost(uint32, tag = "1")]
    pub seconds: u32,
    /// By what requests are added up.
    #[prost(enumeration = "By", tag = "2")]
    pub by: i32,
    /// The namespace; all of them where it is empty.
    #[prost(string, tag = "3")]
    pub namespace: String,
}

/// `fairlead.mesh.v1.By`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum By {
    /// The service that is called.
    Service = 0,
    /// Caller and service.
    Pair = 1,
    /// The workload that calls.
    Workload = 2,
    /// Caller, and where it goes that is no service of the mesh.
    Destination = 3,
    /// The service that is called, and the route to it.
    Route = 4,
}

/// `fairlead.mesh.v1.TopResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct TopResponse {
    /// How far back it is really, in seconds.
    #[prost(uint32, tag = "1")]
    pub seconds: u32,
    /// The requests.
    #[prost(message, repeated, tag = "2")]
    pub rows: Vec<Row>,
    /// How many replicas told theirs.
    #[prost(uint32, tag = "3")]
    pub replicas: u32,
    /// How many did not.
    #[prost(uint32, tag = "4")]
    pub missing: u32,
}

/// `fairlead.mesh.v1.Pair`: who calls, and what is called. What requests are not told apart by is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Message)]
pub struct Pair {
    /// The caller's namespace; empty for one outside of the mesh.
    #[prost(string, tag = "1")]
    pub caller_namespace: String,
    /// The caller.
    #[prost(string, tag = "2")]
    pub caller: String,
    /// The namespace of the service.
    #[prost(string, tag = "3")]
    pub namespace: String,
    /// The service.
    #[prost(string, tag = "4")]
    pub service: String,
    /// Its port; 0 where it is not known which.
    #[prost(uint32, tag = "5")]
    pub port: u32,
    /// The route to it, by what is spoken.
    #[prost(string, tag = "6")]
    pub route: String,
}

/// `fairlead.mesh.v1.Row`.
#[derive(Clone, PartialEq, Message)]
pub struct Row {
    /// Of whom.
    #[prost(message, required, tag = "1")]
    pub pair: Pair,
    /// Requests that succeeded.
    #[prost(uint64, tag = "2")]
    pub successes: u64,
    /// Requests that failed.
    #[prost(uint64, tag = "3")]
    pub failures: u64,
    /// How long at most half of them took, in milliseconds; nothing where no time is known.
    #[prost(double, optional, tag = "4")]
    pub p50: Option<f64>,
    /// How long 95 % of them took.
    #[prost(double, optional, tag = "5")]
    pub p95: Option<f64>,
    /// How long 99 % of them took.
    #[prost(double, optional, tag = "6")]
    pub p99: Option<f64>,
}
